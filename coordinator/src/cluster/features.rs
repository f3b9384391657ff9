//! Features: behaviour that all nodes of a cluster switch on together (KIP-584, KIP-1022).
//!
//! A feature has a level; the cluster's *finalized* level is what nodes go by. Level 0 is off.

/// Levels of a feature, from the lowest to the highest, both included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FeatureRange {
    /// The lowest.
    pub min: i16,
    /// The highest.
    pub max: i16,
}

impl FeatureRange {
    /// What a node that does not know a feature can do: leave it off.
    pub const OFF: FeatureRange = FeatureRange { min: 0, max: 0 };

    /// Whether `level` is one of them.
    pub fn contains(&self, level: i16) -> bool {
        (self.min..=self.max).contains(&level)
    }
}

impl std::fmt::Display for FeatureRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.min == self.max {
            write!(f, "{}", self.min)
        } else {
            write!(f, "{}-{}", self.min, self.max)
        }
    }
}

/// One line of [`FEATURES`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Feature {
    /// Kafka's name of it.
    pub name: &'static str,
    /// What this release can do.
    pub range: FeatureRange,
    /// What a new cluster begins with.
    pub initial: i16,
}

/// The feature that says which metadata records may be written; it is never off.
pub const METADATA_VERSION: &str = "metadata.version";

/// The feature that says whether groups may speak the consumer protocol (KIP-848).
pub const GROUP_VERSION: &str = "group.version";

const fn feature(name: &'static str, min: i16, max: i16, initial: i16) -> Feature {
    Feature { name, range: FeatureRange { min, max }, initial }
}

/// What this release knows, by name. Levels are Kafka 4.x's: `metadata.version` 7 is 3.3-IV3, the
/// oldest that has features at all, and 25 is 4.0-IV3. Eligible leader replicas are kept at every
/// level; theirs only tells clients so. `transaction.version` comes with what it names: a client
/// acts on it.
pub const FEATURES: &[Feature] = &[
    feature("eligible.leader.replicas.version", 0, 1, 1),
    feature(GROUP_VERSION, 0, 1, 1),
    feature(METADATA_VERSION, 7, 25, 25),
];

/// The feature with this name.
pub fn feature_named(name: &str) -> Option<&'static Feature> {
    FEATURES.iter().find(|feature| feature.name == name)
}
