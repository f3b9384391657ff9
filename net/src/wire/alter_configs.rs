//! AlterConfigs (key 33) replaces configurations as a whole, IncrementalAlterConfigs (key 44)
//! changes single entries (KIP-339).
//!
//! AlterConfigs: versions 0–2. 1: as 0. 2: flexible. IncrementalAlterConfigs: versions 0–1. 1:
//! flexible. Both answer alike. Resource types are those of [`super::describe_configs`].

use std::borrow::Cow;

use super::message::message;
use super::{Array, ErrorCode};

/// Operation: set the value.
pub const SET: i8 = 0;
/// Operation: go back to the default.
pub const DELETE: i8 = 1;
/// Operation: add to a list.
pub const APPEND: i8 = 2;
/// Operation: take from a list.
pub const SUBTRACT: i8 = 3;

message! {
    /// Configurations to replace.
    pub struct AlterConfigsRequest<'a>:
        request 33 -> AlterConfigsResponse<'r>, versions 0..=2, flexible 2;
    {
        /// By resource.
        resources: Array<'a, Replacement<'a>>,
        /// Only say whether it would work.
        validate_only: bool,
    }

    /// The new configuration of one resource.
    pub struct Replacement<'a> {
        /// What it is.
        resource_type: i8,
        /// Its name.
        resource_name: &'a str,
        /// All entries; others go back to their defaults.
        configs: Array<'a, Entry<'a>>,
    }

    /// A configuration entry.
    pub struct Entry<'a> {
        /// Its name.
        name: &'a str,
        /// Its value.
        value: Option<&'a str>,
    }

    /// What became of them.
    pub struct AlterConfigsResponse<'a>: response 33, versions 0..=2, flexible 2;
    {
        /// Milliseconds for which the client is throttled.
        throttle_time_ms: i32,
        /// By resource.
        responses: Array<'a, Outcome<'a>>,
    }

    /// What became of one resource.
    pub struct Outcome<'a> {
        /// Why it stays as it is, if so.
        error_code: ErrorCode,
        /// The same in words.
        error_message: Option<Cow<'a, str>>,
        /// What it is.
        resource_type: i8,
        /// Its name.
        resource_name: Cow<'a, str>,
    }

    /// Configuration entries to change.
    pub struct IncrementalAlterConfigsRequest<'a>:
        request 44 -> IncrementalAlterConfigsResponse<'r>, versions 0..=1, flexible 1;
    {
        /// By resource.
        resources: Array<'a, Change<'a>>,
        /// Only say whether it would work.
        validate_only: bool,
    }

    /// What to change of one resource.
    pub struct Change<'a> {
        /// What it is.
        resource_type: i8,
        /// Its name.
        resource_name: &'a str,
        /// Entries to change; others stay.
        configs: Array<'a, ChangedEntry<'a>>,
    }

    /// A configuration entry to change.
    pub struct ChangedEntry<'a> {
        /// Its name.
        name: &'a str,
        /// How to change it: [`SET`], [`DELETE`], [`APPEND`], [`SUBTRACT`].
        config_operation: i8,
        /// The value to set, or what to add or take.
        value: Option<&'a str>,
    }

    /// What became of them.
    pub struct IncrementalAlterConfigsResponse<'a>: response 44, versions 0..=1, flexible 1;
    {
        /// Milliseconds for which the client is throttled.
        throttle_time_ms: i32,
        /// By resource.
        responses: Array<'a, Outcome<'a>>,
    }
}
