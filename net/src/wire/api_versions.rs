//! ApiVersions (key 18): which APIs and versions are served.
//!
//! Versions 0–5. 1: throttle time. 3: flexible; names of the client's software (KIP-511); features.
//! 4: a supported feature's minimum may be 0 (KAFKA-17011). 5: the client says which cluster and
//! broker it means to talk to, and is told `REBOOTSTRAP_REQUIRED` if it is elsewhere (KIP-1242).
//!
//! Any version must be answered: one that is unknown gets `UNSUPPORTED_VERSION` in version 0 with
//! the ranges, and its body is not read. The response header is v0 in every version.

use std::borrow::Cow;

use super::message::message;
use super::{Array, ErrorCode};

message! {
    /// Who asks.
    pub struct ApiVersionsRequest<'a>:
        request 18 -> ApiVersionsResponse<'r>, versions 0..=5, flexible 3;
    {
        /// Name of the client's software.
        client_software_name: &'a str [3..],
        /// Version of the client's software.
        client_software_version: &'a str [3..],
        /// The cluster that the client means to talk to, if it knows.
        cluster_id: Option<&'a str> [5..],
        /// The broker that the client means to talk to; -1 if it does not know.
        node_id: i32 [5..] = -1,
    }

    /// What is served.
    pub struct ApiVersionsResponse<'a>: response 18, versions 0..=5, flexible 3;
    {
        /// What is wrong with the request.
        error_code: ErrorCode,
        /// All APIs.
        api_keys: Array<'a, ApiVersion>,
        /// Milliseconds for which the client is throttled.
        throttle_time_ms: i32 [1..],
        /// Features that this broker can do.
        supported_features: Array<'a, SupportedFeature<'a>> [3.., tag 0],
        /// Version of `finalized_features`; -1 if unknown.
        finalized_features_epoch: i64 [3.., tag 1] = -1,
        /// Features that the cluster has agreed on.
        finalized_features: Array<'a, FinalizedFeature<'a>> [3.., tag 2],
        /// Always false: there is no ZooKeeper to migrate from.
        zk_migration_ready: bool [3.., tag 3],
    }

    /// An API and its versions.
    pub struct ApiVersion {
        /// Its key.
        api_key: i16,
        /// First version.
        min_version: i16,
        /// Last version.
        max_version: i16,
    }

    /// A feature that this broker can do.
    pub struct SupportedFeature<'a> {
        /// Its name.
        name: Cow<'a, str>,
        /// First level.
        min_version: i16,
        /// Last level.
        max_version: i16,
    }

    /// A feature that the cluster has agreed on.
    pub struct FinalizedFeature<'a> {
        /// Its name.
        name: Cow<'a, str>,
        /// Highest level agreed.
        max_version_level: i16,
        /// Lowest level agreed.
        min_version_level: i16,
    }
}
