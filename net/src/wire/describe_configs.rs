//! DescribeConfigs (key 32): configuration, with source and documentation.
//!
//! Versions 1–4. 1: synonyms and sources instead of a mere "is default" (KIP-226). 3: type and
//! documentation. 4: flexible. Numbers of resource types, sources and value types are Kafka's
//! (`ConfigResource.Type`, `DescribeConfigsResponse.ConfigSource`, `ConfigType`).

use std::borrow::Cow;

use super::message::message;
use super::{Array, ErrorCode};

/// Resource type: a topic.
pub const RESOURCE_TOPIC: i8 = 2;
/// Resource type: a broker, or all of them when the name is empty.
pub const RESOURCE_BROKER: i8 = 4;
/// Resource type: log levels of a broker.
pub const RESOURCE_BROKER_LOGGER: i8 = 8;
/// Resource type: a subscription to client metrics.
pub const RESOURCE_CLIENT_METRICS: i8 = 16;
/// Resource type: a group.
pub const RESOURCE_GROUP: i8 = 32;

/// Source: set for the topic.
pub const SOURCE_TOPIC: i8 = 1;
/// Source: set for this broker while it runs.
pub const SOURCE_DYNAMIC_BROKER: i8 = 2;
/// Source: set for all brokers while they run.
pub const SOURCE_DYNAMIC_DEFAULT_BROKER: i8 = 3;
/// Source: this broker's configuration file.
pub const SOURCE_STATIC_BROKER: i8 = 4;
/// Source: nobody set it.
pub const SOURCE_DEFAULT: i8 = 5;
/// Source: the group itself.
pub const SOURCE_GROUP: i8 = 8;

/// Value type: true or false.
pub const TYPE_BOOLEAN: i8 = 1;
/// Value type: text.
pub const TYPE_STRING: i8 = 2;
/// Value type: 32-bit integer.
pub const TYPE_INT: i8 = 3;
/// Value type: 16-bit integer.
pub const TYPE_SHORT: i8 = 4;
/// Value type: 64-bit integer.
pub const TYPE_LONG: i8 = 5;
/// Value type: floating point.
pub const TYPE_DOUBLE: i8 = 6;
/// Value type: comma-separated list.
pub const TYPE_LIST: i8 = 7;
/// Value type: name of a class.
pub const TYPE_CLASS: i8 = 8;
/// Value type: text that is never shown.
pub const TYPE_PASSWORD: i8 = 9;

message! {
    /// What to describe.
    pub struct DescribeConfigsRequest<'a>:
        request 32 -> DescribeConfigsResponse<'r>, versions 1..=4, flexible 4;
    {
        /// The resources.
        resources: Array<'a, RequestResource<'a>>,
        /// Whether to tell where else a value could come from.
        include_synonyms: bool,
        /// Whether to tell what an entry means.
        include_documentation: bool [3..],
    }

    /// A resource to describe.
    pub struct RequestResource<'a> {
        /// What it is: `RESOURCE_…`.
        resource_type: i8,
        /// Its name.
        resource_name: &'a str,
        /// Entries to tell; null for all.
        configuration_keys: Option<Array<'a, &'a str>>,
    }

    /// The configuration.
    pub struct DescribeConfigsResponse<'a>: response 32, versions 1..=4, flexible 4;
    {
        /// Milliseconds for which the client is throttled.
        throttle_time_ms: i32,
        /// By resource.
        results: Array<'a, ResponseResource<'a>>,
    }

    /// The configuration of one resource.
    pub struct ResponseResource<'a> {
        /// Why it is not described, if so.
        error_code: ErrorCode,
        /// The same in words.
        error_message: Option<Cow<'a, str>>,
        /// What it is: `RESOURCE_…`.
        resource_type: i8,
        /// Its name.
        resource_name: Cow<'a, str>,
        /// Its entries.
        configs: Array<'a, Entry<'a>>,
    }

    /// A configuration entry.
    pub struct Entry<'a> {
        /// Its name.
        name: Cow<'a, str>,
        /// Its value; null if it is secret or not set.
        value: Option<Cow<'a, str>>,
        /// Whether it cannot be changed.
        read_only: bool,
        /// Where the value comes from: `SOURCE_…`.
        config_source: i8 = -1,
        /// Whether its value is secret.
        is_sensitive: bool,
        /// Where the value could come from, strongest first.
        synonyms: Array<'a, Synonym<'a>>,
        /// What values it takes: `TYPE_…`; 0 if unknown.
        config_type: i8 [3..],
        /// What it means.
        documentation: Option<Cow<'a, str>> [3..],
    }

    /// Another place that a value could come from.
    pub struct Synonym<'a> {
        /// Its name there.
        name: Cow<'a, str>,
        /// Its value there.
        value: Option<Cow<'a, str>>,
        /// Which place: `SOURCE_…`.
        source: i8,
    }
}
