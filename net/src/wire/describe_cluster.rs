//! DescribeCluster (key 60): the cluster's id, controller and brokers.
//!
//! Versions 0–2, flexible from the start. 1: which kind of endpoints is asked for (KIP-919). 2: the
//! caller may ask for fenced brokers, too (KIP-1073).

use std::borrow::Cow;

use super::message::message;
use super::metadata::OPERATIONS_UNKNOWN;
use super::{Array, ErrorCode};

/// Endpoint type: where clients connect.
pub const BROKERS: i8 = 1;
/// Endpoint type: where controllers listen.
pub const CONTROLLERS: i8 = 2;

message! {
    /// What to tell.
    pub struct DescribeClusterRequest:
        request 60 -> DescribeClusterResponse<'r>, versions 0..=2, flexible 0;
    {
        /// Whether to tell what the client may do to the cluster.
        include_cluster_authorized_operations: bool,
        /// [`BROKERS`] or [`CONTROLLERS`].
        endpoint_type: i8 [1..] = BROKERS,
        /// Whether to tell brokers that are fenced.
        include_fenced_brokers: bool [2..],
    }

    /// The cluster.
    pub struct DescribeClusterResponse<'a>: response 60, versions 0..=2, flexible 0;
    {
        /// Milliseconds for which the client is throttled.
        throttle_time_ms: i32,
        /// Why it is not described, if so.
        error_code: ErrorCode,
        /// The same in words.
        error_message: Option<Cow<'a, str>>,
        /// [`BROKERS`] or [`CONTROLLERS`].
        endpoint_type: i8 [1..] = BROKERS,
        /// Its id.
        cluster_id: Cow<'a, str>,
        /// The broker that clients take for the controller; -1 if unknown.
        controller_id: i32 = -1,
        /// All brokers.
        brokers: Array<'a, Broker<'a>>,
        /// Bits of what the client may do to the cluster.
        cluster_authorized_operations: i32 = OPERATIONS_UNKNOWN,
    }

    /// A broker.
    pub struct Broker<'a> {
        /// Its id.
        broker_id: i32,
        /// Its host.
        host: Cow<'a, str>,
        /// Its port.
        port: i32,
        /// Its rack.
        rack: Option<Cow<'a, str>>,
        /// Whether it is fenced.
        is_fenced: bool [2..],
    }
}
