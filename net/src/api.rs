//! The table of supported APIs: what ApiVersions answers, what a request header may name, and what
//! the README lists. An API that is not here does not exist for clients; one that is, works.
//!
//! Ranges are Kafka 4.4's. Clients depend on them in ways that are easy to break: librdkafka up to
//! 2.11.0 enables features by testing for exact *single* versions (Produce 3, Fetch 4, ListOffsets
//! 1, FindCoordinator 0 …), kafka-python guesses the broker's release from them, and kafkajs fails
//! if a key it needs is missing. So neither a minimum nor a maximum is ours to move.

use coordinator::cluster::Topic;
use coordinator::image::Image;
use engine::ids::TopicId;

pub mod admin;
pub mod alter_configs;
pub mod api_versions;
pub mod cluster;
pub mod consumer_groups;
pub mod create_topics;
pub mod describe_configs;
pub mod describe_groups;
pub mod describe_topics;
pub mod elect_leaders;
pub mod errors;
pub mod features;
pub mod fetch;
pub mod find_coordinator;
pub mod group_offsets;
pub mod groups;
pub mod leaders;
pub mod log_dirs;
pub mod metadata;
pub mod offsets;
pub mod produce;
pub mod producers;
pub mod quorum;
pub mod read;
pub mod reassignments;
pub mod topics;

/// The topic that a request names: by id where it has one, else by name.
pub(crate) fn topic_of<'i>(image: &'i Image, name: &str, id: TopicId) -> Option<&'i Topic> {
    let topic = if id == TopicId::ZERO { image.topic(name) } else { image.topic_by_id(id) };
    topic.map(|topic| &**topic)
}

/// One API.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Api {
    /// Kafka's number of it.
    pub key: i16,
    /// Kafka's name of it.
    pub name: &'static str,
    /// First version that ApiVersions advertises.
    pub advertised_min: i16,
    /// First version that is accepted. Differs for Produce only: librdkafka up to 2.11.0 turns
    /// compression off unless version 0 is advertised (KAFKA-18659), although it never sends it.
    pub version_min: i16,
    /// Last version that is advertised and accepted.
    pub version_max: i16,
    /// First version with compact lengths and tagged fields (KIP-482).
    pub flexible_min: i16,
    /// What it does here, in a sentence.
    pub about: &'static str,
}

impl Api {
    /// Whether requests of this version are understood.
    pub const fn accepts(&self, version: i16) -> bool {
        self.version_min <= version && version <= self.version_max
    }

    /// Which request header precedes requests of this version; any version may be asked for.
    pub const fn request_header_version(&self, version: i16) -> i16 {
        if version >= self.flexible_min { 2 } else { 1 }
    }
}

/// Key of ApiVersions, the API that must be answered in whatever version it is asked.
pub const API_VERSIONS: i16 = 18;

/// The API with this key, if it is served here.
pub fn lookup(key: i16) -> Option<&'static Api> {
    APIS.binary_search_by_key(&key, |api| api.key).ok().map(|i| &APIS[i])
}

/// First key of the private APIs, far above Kafka's.
pub const PRIVATE_KEY_MIN: i16 = 10_000;

/// The private API with this key. For requests that came by a listener of peers, never by one of
/// clients.
pub fn lookup_private(key: i16) -> Option<&'static Api> {
    PRIVATE.binary_search_by_key(&key, |api| api.key).ok().map(|i| &PRIVATE[i])
}

macro_rules! apis {
    ($(#[$meta:meta])* $table:ident:
        $($key:literal $name:ident $min:literal..=$max:literal flexible $flexible:literal
        $(advertise $advertised:literal)?: $about:literal)*) => {
        $(#[$meta])*
        pub static $table: &[Api] = &[$(Api {
            key: $key,
            name: stringify!($name),
            advertised_min: [$($advertised,)? $min][0],
            version_min: $min,
            version_max: $max,
            flexible_min: $flexible,
            about: $about,
        }),*];
    };
}

apis! {
    /// All supported APIs, by key.
    APIS:
    0 Produce 3..=13 flexible 9 advertise 0:
        "Appends record batches, one set per partition, and answers at the durability of its acks."
    1 Fetch 4..=18 flexible 12:
        "Reads record batches; waits for new ones; keeps incremental sessions (KIP-227)."
    2 ListOffsets 1..=11 flexible 6:
        "Finds offsets: earliest, latest, by timestamp, of the largest timestamp."
    3 Metadata 0..=13 flexible 9:
        "Tells brokers, topics, partitions and their leaders; may create a topic."
    8 OffsetCommit 2..=10 flexible 8:
        "Remembers how far a consumer group is."
    9 OffsetFetch 1..=10 flexible 6:
        "Tells how far consumer groups are."
    10 FindCoordinator 0..=6 flexible 3:
        "Tells which broker coordinates a group or a transactional id."
    11 JoinGroup 0..=9 flexible 6:
        "Makes a consumer a member of a group, and of its next generation."
    12 Heartbeat 0..=4 flexible 4:
        "Says that a member of a group is alive; tells it of rebalances."
    13 LeaveGroup 0..=5 flexible 4:
        "Lets members leave a group."
    14 SyncGroup 0..=5 flexible 4:
        "Brings the leader's assignments to the members of a group."
    15 DescribeGroups 0..=6 flexible 5:
        "Tells groups with their members and assignments."
    16 ListGroups 0..=5 flexible 3:
        "Lists the groups that this broker keeps."
    18 ApiVersions 0..=5 flexible 3:
        "Tells which APIs and versions are served; checks that the client is where it means to be."
    19 CreateTopics 2..=7 flexible 5:
        "Creates topics."
    20 DeleteTopics 1..=6 flexible 4:
        "Deletes topics, by name or id."
    21 DeleteRecords 0..=2 flexible 2:
        "Deletes the records of partitions below an offset."
    22 InitProducerId 0..=5 flexible 2:
        "Hands out the identity of an idempotent producer."
    23 OffsetForLeaderEpoch 2..=4 flexible 4:
        "Tells where a leader epoch ends, so that a reader notices a truncated log."
    32 DescribeConfigs 1..=4 flexible 4:
        "Tells the configuration of topics, groups and brokers, with source and documentation."
    33 AlterConfigs 0..=2 flexible 2:
        "Replaces the whole configuration of topics and groups."
    35 DescribeLogDirs 1..=5 flexible 2:
        "Tells log directories, and size of each partition in them."
    37 CreatePartitions 0..=3 flexible 2:
        "Adds partitions to topics."
    42 DeleteGroups 0..=3 flexible 2:
        "Deletes groups without members, with what they committed."
    43 ElectLeaders 0..=2 flexible 2:
        "Elects leaders now: preferred ones, or anybody who is left."
    44 IncrementalAlterConfigs 0..=1 flexible 1:
        "Changes single entries of the configuration of topics and groups."
    45 AlterPartitionReassignments 0..=1 flexible 0:
        "Moves partitions to other replicas, or stops such a move."
    46 ListPartitionReassignments 0..=0 flexible 0:
        "Tells which partitions are on the move."
    47 OffsetDelete 0..=0 flexible 32_767:
        "Forgets how far a group is on partitions that it does not consume."
    55 DescribeQuorum 0..=2 flexible 0:
        "Tells who agrees on the metadata, and how far everybody is."
    57 UpdateFeatures 0..=2 flexible 0:
        "Raises or lowers what the whole cluster has switched on."
    60 DescribeCluster 0..=2 flexible 0:
        "Tells the cluster's id, controller and brokers."
    61 DescribeProducers 0..=0 flexible 0:
        "Tells the producers that are known to partitions."
    64 UnregisterBroker 0..=0 flexible 0:
        "Strikes a broker off the cluster that is gone for good."
    68 ConsumerGroupHeartbeat 0..=1 flexible 0:
        "Says that a member of a consumer group lives, and what it wants; tells what it is to have."
    69 ConsumerGroupDescribe 0..=1 flexible 0:
        "Tells consumer groups with their members, and what they have and are to have."
    74 ListConfigResources 0..=1 flexible 0:
        "Lists what has a configuration."
    75 DescribeTopicPartitions 0..=0 flexible 0:
        "Tells topics and their partitions, page by page."
}

apis! {
    /// What the nodes of a cluster ask each other beyond Kafka's protocol, by key. On listeners of
    /// peers only, and never in an answer to ApiVersions: a client has no business with them
    /// (CVE-2018-1288 is what comes of it).
    PRIVATE:
    10_000 Quorum 0..=0 flexible 0:
        "Carries a message of the agreement on metadata between coordinators."
    10_001 Control 0..=0 flexible 0:
        "Asks the active controller to decide something."
    10_002 MetadataFetch 0..=0 flexible 0:
        "Follows what was agreed on, without a vote."
    10_003 QuorumChange 0..=0 flexible 0:
        "Lets other coordinators vote."
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_finds_its_own() {
        assert!(APIS.windows(2).all(|pair| pair[0].key < pair[1].key));
        for api in APIS {
            assert_eq!(lookup(api.key), Some(api));
            assert!(api.advertised_min <= api.version_min && api.version_min <= api.version_max);
        }
        assert!(PRIVATE.windows(2).all(|pair| pair[0].key < pair[1].key));
        for api in PRIVATE {
            assert!(api.key >= PRIVATE_KEY_MIN);
            assert_eq!((lookup(api.key), lookup_private(api.key)), (None, Some(api)));
        }
        assert_eq!(lookup_private(3), None);
        assert_eq!(lookup(4), None);
        assert_eq!(lookup(-1), None);
        assert_eq!(lookup(i16::MAX), None);
    }

    /// Key, advertised minimum, maximum and first flexible version in Kafka 4.4 (`*Request.json`),
    /// of every API that issues A, B and C ask for so far, written down a second time.
    const KAFKA: [(i16, i16, i16, i16); 38] = [
        (0, 0, 13, 9),
        (1, 4, 18, 12),
        (2, 1, 11, 6),
        (3, 0, 13, 9),
        (8, 2, 10, 8),
        (9, 1, 10, 6),
        (10, 0, 6, 3),
        (11, 0, 9, 6),
        (12, 0, 4, 4),
        (13, 0, 5, 4),
        (14, 0, 5, 4),
        (15, 0, 6, 5),
        (16, 0, 5, 3),
        (18, 0, 5, 3),
        (19, 2, 7, 5),
        (20, 1, 6, 4),
        (21, 0, 2, 2),
        (22, 0, 5, 2),
        (23, 2, 4, 4),
        (32, 1, 4, 4),
        (33, 0, 2, 2),
        (35, 1, 5, 2),
        (37, 0, 3, 2),
        (42, 0, 3, 2),
        (43, 0, 2, 2),
        (44, 0, 1, 1),
        (45, 0, 1, 0),
        (46, 0, 0, 0),
        (47, 0, 0, 32_767),
        (55, 0, 2, 0),
        (57, 0, 2, 0),
        (60, 0, 2, 0),
        (61, 0, 0, 0),
        (64, 0, 0, 0),
        (68, 0, 1, 0),
        (69, 0, 1, 0),
        (74, 0, 1, 0),
        (75, 0, 0, 0),
    ];

    #[test]
    fn ranges_are_those_of_kafka() {
        let of = |api: &Api| (api.key, api.advertised_min, api.version_max, api.flexible_min);
        for wanted in KAFKA {
            assert_eq!(lookup(wanted.0).map(of), Some(wanted));
        }
    }

    #[test]
    fn single_versions_that_clients_test_for_are_advertised() {
        // librdkafka up to 2.11.0, `rdkafka_feature.c`.
        for (key, version) in [(0, 3), (1, 4), (0, 7), (1, 10), (10, 0), (2, 1), (22, 0), (18, 0)] {
            let api = lookup(key).expect("served");
            assert!((api.advertised_min..=api.version_max).contains(&version), "{}", api.name);
        }
        let produce = lookup(0).expect("served");
        assert_eq!(produce.advertised_min, 0, "KAFKA-18659");
        assert!(!produce.accepts(2));
    }
}
