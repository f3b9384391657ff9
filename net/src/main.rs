//! Chooses what to run.
fn main() {}
