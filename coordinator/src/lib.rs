//! Placeholder chapter; written with the first code.
