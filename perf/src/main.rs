//! The proving ground.
fn main() {}
