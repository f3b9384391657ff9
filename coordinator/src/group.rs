//! Groups of the protocol of KIP-848; the classic ones are on their way.

pub mod assignor;
pub mod consumer;
