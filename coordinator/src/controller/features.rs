//! Finalized features. Kafka's `FeatureControlManager` and `QuorumFeatures`.

use std::collections::{BTreeMap, BTreeSet};

use super::{Controller, FeatureUpdate, Refusal, Registration, UpgradeKind, Why};
use crate::cluster::Cluster;
use crate::cluster::features::{FEATURES, FeatureRange, METADATA_VERSION, feature_named};
use crate::machine::Seen;
use crate::records::Record;

/// A cluster that has no features yet (a new one, or one of an older release) gets those of this
/// release.
pub(super) fn begin(cluster: &Cluster, records: &mut Vec<Record>) {
    if cluster.feature(METADATA_VERSION) != 0 {
        return;
    }
    for feature in FEATURES.iter().filter(|feature| feature.initial != 0) {
        let (name, level) = (feature.name.to_string(), feature.initial);
        records.push(Record::FeatureChanged { name, level });
    }
}

/// What the broker can do, if it can do what the cluster has switched on.
pub(super) fn check_ranges(
    cluster: &Cluster,
    registration: &Registration,
) -> Result<BTreeMap<String, FeatureRange>, Refusal> {
    let mut ranges = registration.features.clone();
    if ranges.is_empty() {
        ranges = FEATURES.iter().map(|one| (one.name.to_string(), one.range)).collect();
    }
    let new = cluster.feature(METADATA_VERSION) == 0;
    let initial = FEATURES.iter().filter(|_| new).map(|one| (one.name, one.initial));
    for (name, level) in cluster.features().chain(initial) {
        let range = ranges.get(name).copied().unwrap_or(FeatureRange::OFF);
        if !range.contains(level) {
            let FeatureRange { min, max } = range;
            let message = format!(
                "Unable to register because the broker does not support finalized version {level} \
                 of {name}. The broker wants a version between {min} and {max}, inclusive."
            );
            return Err(Refusal::new(Why::FeatureUnsupported, message));
        }
    }
    Ok(ranges)
}

/// Changes levels, all or none; the error names the feature that is to blame.
pub(super) fn update(
    seen: Seen<'_, Controller>,
    updates: Vec<FeatureUpdate>,
    validate_only: bool,
    records: &mut Vec<Record>,
) -> Result<(), (String, Refusal)> {
    let mut names = BTreeSet::new();
    for update in &updates {
        let blame = |refusal| (update.name.clone(), refusal);
        if !names.insert(&update.name) {
            let message = "Each feature must appear at most once.";
            return Err(blame(Refusal::new(Why::RequestInvalid, message)));
        }
        check(seen.hard, update).map_err(blame)?;
    }
    if !validate_only {
        let changed =
            updates.into_iter().filter(|update| seen.hard.feature(&update.name) != update.level);
        records.extend(
            changed.map(|FeatureUpdate { name, level, .. }| Record::FeatureChanged { name, level }),
        );
    }
    Ok(())
}

fn check(cluster: &Cluster, update: &FeatureUpdate) -> Result<(), Refusal> {
    let FeatureUpdate { name, level, kind } = update;
    let refuse = |reason: String| {
        let message = format!("Invalid update version {level} for feature {name}. {reason}");
        Err(Refusal::new(Why::FeatureUpdateInvalid, message))
    };
    if *level < 0 {
        return refuse("A feature version cannot be less than 0.".into());
    }
    let local = feature_named(name).map_or(FeatureRange::OFF, |feature| feature.range);
    if let Some(reason) = unsupported("Local controller", local, *level) {
        return refuse(reason);
    }
    for broker in cluster.brokers() {
        let range = broker.features.get(name).copied();
        // What an older release left behind says nothing of what its broker can do.
        let known = !broker.features.is_empty();
        let range = range.unwrap_or(if known { FeatureRange::OFF } else { local });
        if let Some(reason) = unsupported(&format!("Broker {}", broker.id), range, *level) {
            return refuse(reason);
        }
    }
    let present = cluster.feature(name);
    if *level < present && *kind == UpgradeKind::Upgrade {
        return refuse(
            "Can't downgrade the version of this feature without setting the upgrade type to \
             either safe or unsafe downgrade."
                .into(),
        );
    }
    if *level > present && *kind != UpgradeKind::Upgrade {
        return refuse("Can't downgrade to a newer version.".into());
    }
    if *level < present && name == METADATA_VERSION && *kind == UpgradeKind::UnsafeDowngrade {
        let message = format!(
            "Invalid metadata.version {level}. Unsafe metadata downgrade is not supported in this \
             version."
        );
        return Err(Refusal::new(Why::FeatureUpdateInvalid, message));
    }
    Ok(())
}

/// Why `what`, which can do `range`, cannot do `level`.
fn unsupported(what: &str, range: FeatureRange, level: i16) -> Option<String> {
    if range.contains(level) {
        None
    } else if range.max == 0 {
        Some(format!("{what} does not support this feature."))
    } else {
        Some(format!("{what} only supports versions {range}"))
    }
}
