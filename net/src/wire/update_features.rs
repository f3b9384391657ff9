//! UpdateFeatures (key 57): raises or lowers the finalized versions of features (KIP-584, KIP-778).
//!
//! Versions 0–2, flexible from the start. 1: kinds of change instead of a permission to downgrade,
//! and dry runs. 2: an answer for the request as a whole only (KIP-1022).

use std::borrow::Cow;

use super::message::message;
use super::{Array, ErrorCode};

/// Upgrade type: upwards only.
pub const UPGRADE: i8 = 1;
/// Upgrade type: downwards, if nothing is lost by it.
pub const SAFE_DOWNGRADE: i8 = 2;
/// Upgrade type: downwards, whatever is lost by it.
pub const UNSAFE_DOWNGRADE: i8 = 3;

message! {
    /// Which features to change.
    pub struct UpdateFeaturesRequest<'a>:
        request 57 -> UpdateFeaturesResponse<'r>, versions 0..=2, flexible 0;
    {
        /// Milliseconds that it may take.
        timeout_ms: i32 = 60_000,
        /// By feature, each once.
        feature_updates: Array<'a, FeatureUpdate<'a>>,
        /// Whether only to tell what would be answered.
        validate_only: bool [1..],
    }

    /// A change of one feature.
    pub struct FeatureUpdate<'a> {
        /// Its name.
        feature: &'a str,
        /// Its new version; below 1 it is to be removed.
        max_version_level: i16,
        /// Whether the version may be lower than it is.
        allow_downgrade: bool [..=0],
        /// [`UPGRADE`], [`SAFE_DOWNGRADE`] or [`UNSAFE_DOWNGRADE`].
        upgrade_type: i8 [1..] = UPGRADE,
    }

    /// What became of it.
    pub struct UpdateFeaturesResponse<'a>: response 57, versions 0..=2, flexible 0;
    {
        /// Milliseconds for which the client is throttled.
        throttle_time_ms: i32,
        /// Why nothing was changed, if so.
        error_code: ErrorCode,
        /// The same in words.
        error_message: Option<Cow<'a, str>>,
        /// By feature.
        results: Array<'a, FeatureResult<'a>> [..=1],
    }

    /// What became of the change of one feature.
    pub struct FeatureResult<'a> {
        /// Its name.
        feature: Cow<'a, str>,
        /// Why it was not changed, if so.
        error_code: ErrorCode,
        /// The same in words.
        error_message: Option<Cow<'a, str>>,
    }
}
