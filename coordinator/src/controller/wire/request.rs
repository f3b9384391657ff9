//! Layouts of requests, version 1.

use super::super::{
    Assignment, Change, ConfigChange, Edit, ElectionKind, FeatureUpdate, Heartbeat, IsrChange,
    Loss, MorePartitions, NewTopic, Reassignment, Registration, Request, TopicRef, UpgradeKind,
};
use super::plain::{Plain, layout};

layout! {
    enum RequestV1 of Request {
        RegisterBroker(registration: RegistrationV1),
        CreateTopics { topics: Vec<NewTopicV1>, validate_only: bool, },
        DeleteTopics { topics: Vec<TopicRefV1>, },
        CreatePartitions { topics: Vec<MorePartitionsV1>, validate_only: bool, },
        AlterConfigs { topics: Vec<ConfigChangeV1>, validate_only: bool, },
        AllocateProducerIds { broker: i32, epoch: i64, },
        Heartbeat(heartbeat: HeartbeatV1),
        AlterPartitions { broker: i32, epoch: i64, partitions: Vec<IsrChangeV1>, },
        ElectLeaders { kind: ElectionKindV1, partitions: Option<Vec<(String, i32)>>, },
        AlterReassignments { partitions: Vec<ReassignmentV1>, keep_factor: bool, },
        UnregisterBroker { broker: i32, },
        UpdateFeatures { updates: Vec<FeatureUpdateV1>, validate_only: bool, },
        PurgedTopics { broker: i32, topics: Vec<[u8; 16]>, },
        NewTerms { broker: i32, epoch: i64, partitions: Vec<(([u8; 16], i32), i32)>, },
        AlterGroupConfigs { groups: Vec<ConfigChangeV1>, validate_only: bool, },
    }

    struct RegistrationV1 of Registration {
        id: i32,
        endpoints: Vec<(String, String, u16)>,
        rack: Option<String>,
        cluster: Option<String>,
        incarnation: [u8; 16],
        directory: [u8; 16],
        features: Vec<(String, (i16, i16))>,
        lost: LossV1,
    }

    enum LossV1 of Loss {
        Nothing,
        Unsynced,
        Everything,
    }

    struct NewTopicV1 of NewTopic {
        name: String,
        partitions: i32,
        replication_factor: i16,
        assignments: Vec<AssignmentV1>,
        overrides: Vec<(String, Option<String>)>,
    }

    struct AssignmentV1 of Assignment {
        partition: i32,
        replicas: Vec<i32>,
    }

    struct TopicRefV1 of TopicRef {
        name: Option<String>,
        id: Option<[u8; 16]>,
    }

    struct MorePartitionsV1 of MorePartitions {
        name: String,
        count: i32,
        assignments: Option<Vec<Vec<i32>>>,
    }

    struct ConfigChangeV1 of ConfigChange {
        name: String,
        change: ChangeV1,
    }

    enum ChangeV1 of Change {
        Replace(values: Vec<(String, Option<String>)>),
        Edit(edits: Vec<(String, EditV1)>),
    }

    enum EditV1 of Edit {
        Set(value: Option<String>),
        Delete,
        Append(value: Option<String>),
        Subtract(value: Option<String>),
    }

    struct HeartbeatV1 of Heartbeat {
        broker: i32,
        epoch: i64,
        reached: i64,
        want_shutdown: bool,
    }

    struct IsrChangeV1 of IsrChange {
        partition: ([u8; 16], i32),
        leader_epoch: i32,
        partition_epoch: i32,
        isr: Vec<(i32, i64)>,
    }

    enum ElectionKindV1 of ElectionKind {
        Preferred,
        Unclean,
    }

    struct ReassignmentV1 of Reassignment {
        topic: String,
        partition: i32,
        replicas: Option<Vec<i32>>,
    }

    struct FeatureUpdateV1 of FeatureUpdate {
        name: String,
        level: i16,
        kind: UpgradeKindV1,
    }

    enum UpgradeKindV1 of UpgradeKind {
        Upgrade,
        SafeDowngrade,
        UnsafeDowngrade,
    }
}
