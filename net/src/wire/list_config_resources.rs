//! ListConfigResources (key 74): what has a configuration (KIP-1142).
//!
//! Versions 0–1, flexible. 0 lists subscriptions to client metrics only (its name was
//! ListClientMetricsResources); 1 asks for types and tells them. Types are those of
//! [`super::describe_configs`].

use std::borrow::Cow;

use super::describe_configs::RESOURCE_CLIENT_METRICS;
use super::message::message;
use super::{Array, ErrorCode};

message! {
    /// What to list.
    pub struct ListConfigResourcesRequest<'a>:
        request 74 -> ListConfigResourcesResponse<'r>, versions 0..=1, flexible 0;
    {
        /// Types of resources; none for all.
        resource_types: Array<'a, i8> [1..],
    }

    /// The list.
    pub struct ListConfigResourcesResponse<'a>: response 74, versions 0..=1, flexible 0;
    {
        /// Milliseconds for which the client is throttled.
        throttle_time_ms: i32,
        /// Why there is none, if so.
        error_code: ErrorCode,
        /// The resources.
        config_resources: Array<'a, ConfigResource<'a>>,
    }

    /// A resource.
    pub struct ConfigResource<'a> {
        /// Its name.
        resource_name: Cow<'a, str>,
        /// What it is.
        resource_type: i8 [1..] = RESOURCE_CLIENT_METRICS,
    }
}
