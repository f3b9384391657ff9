//! The deterministic environment.
