//! UpdateFeatures: what all nodes of the cluster switch on, or off, together.

use std::borrow::Cow;

use coordinator::controller::{FeatureUpdate, Refusal, Reply, Request, UpgradeKind};

use super::admin::{self, Header};
use super::errors;
use crate::env::NetEnv;
use crate::shard::Shard;
use crate::wire::update_features::{
    self, FeatureResult, SAFE_DOWNGRADE, UNSAFE_DOWNGRADE, UPGRADE, UpdateFeaturesRequest,
    UpdateFeaturesResponse,
};
use crate::wire::{DecodeError, DecodeErrorKind, Encoded, ErrorCode, Reader};

/// Answers UpdateFeatures (Kafka's `QuorumController.updateFeatures`): all changes are made, or
/// none, and the error tells of the first that cannot be.
pub async fn update_features<E: NetEnv>(
    shard: &Shard<E>,
    header: Header<'_>,
    mut body: Reader<'_>,
) -> Result<Encoded, DecodeError> {
    let request = UpdateFeaturesRequest::decode(&mut body, header.version)?;
    let mut cost = admin::Cost::default();
    let mut updates = Vec::new();
    for update in request.feature_updates.iter() {
        if !cost.affords(update.feature, 0) {
            return Err(body.error(DecodeErrorKind::CountTooLarge));
        }
        let Some(kind) = kind(&update, header.version) else {
            let message = format!(
                "Invalid update version {} for feature {}. The controller does not support the \
                 given upgrade type.",
                update.max_version_level, update.feature
            );
            return Ok(header.encode(&blamed(ErrorCode::InvalidUpdateVersion, &message)));
        };
        let (name, level) = (update.feature.to_owned(), update.max_version_level);
        updates.push(FeatureUpdate { name, level, kind });
    }
    let decision = Request::UpdateFeatures { updates, validate_only: request.validate_only };
    let response = match admin::decide(shard, decision, request.timeout_ms).await {
        Ok(Reply::UpdatedFeatures(Ok(()))) => {
            let each = request.feature_updates.iter().map(|update| FeatureResult {
                feature: Cow::Borrowed(update.feature),
                ..Default::default()
            });
            UpdateFeaturesResponse { results: each.collect(), ..Default::default() }
        }
        Ok(Reply::UpdatedFeatures(Err((_, Refusal { why, message })))) => {
            blamed(errors::of_refusal(why), &message)
        }
        Ok(_) => unreachable!("a reply is of its request's kind"),
        Err(why) => UpdateFeaturesResponse {
            error_code: errors::of_no_reply(why),
            error_message: Some(Cow::Owned(why.to_string())),
            ..Default::default()
        },
    };
    Ok(header.encode(&response))
}

/// How the level may change; `None` for a way that nobody knows.
fn kind(update: &update_features::FeatureUpdate<'_>, version: i16) -> Option<UpgradeKind> {
    if version == 0 && update.allow_downgrade {
        return Some(UpgradeKind::SafeDowngrade);
    }
    match update.upgrade_type {
        UPGRADE => Some(UpgradeKind::Upgrade),
        SAFE_DOWNGRADE => Some(UpgradeKind::SafeDowngrade),
        UNSAFE_DOWNGRADE => Some(UpgradeKind::UnsafeDowngrade),
        _ => None,
    }
}

fn blamed(error_code: ErrorCode, message: &str) -> UpdateFeaturesResponse<'static> {
    let message = format!(
        "The update failed for all features since the following feature had an error: {message}"
    );
    let error_message = Some(Cow::Owned(message));
    UpdateFeaturesResponse { error_code, error_message, ..Default::default() }
}
