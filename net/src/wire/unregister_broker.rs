//! UnregisterBroker (key 64): strikes a broker that is gone for good off the cluster (KIP-500).
//!
//! Version 0, flexible.

use std::borrow::Cow;

use super::ErrorCode;
use super::message::message;

message! {
    /// Whom to strike off.
    pub struct UnregisterBrokerRequest:
        request 64 -> UnregisterBrokerResponse<'r>, versions 0..=0, flexible 0;
    {
        /// The broker.
        broker_id: i32,
    }

    /// Whether it was.
    pub struct UnregisterBrokerResponse<'a>: response 64, versions 0..=0, flexible 0;
    {
        /// Milliseconds for which the client is throttled.
        throttle_time_ms: i32,
        /// Why it was not, if so.
        error_code: ErrorCode,
        /// The same in words.
        error_message: Option<Cow<'a, str>>,
    }
}
