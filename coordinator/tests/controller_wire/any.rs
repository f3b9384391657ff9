//! Arbitrary requests and replies, from a seed.

use std::sync::Arc;

use coordinator::cluster::features::FeatureRange;
use coordinator::cluster::{
    ClusterId, DirectoryId, Endpoint, Incarnation, Partition, PartitionEpoch, Topic,
};
use coordinator::controller::*;
use engine::ids::{
    BrokerEpoch, BrokerId, LeaderEpoch, Offset, PartitionIndex, ProducerId, TopicId, TopicPartition,
};

/// How many kinds of requests there are.
pub const REQUESTS: u8 = 15;
/// How many kinds of replies there are.
pub const REPLIES: u8 = 14;

/// Which kind a request is of. A new one has to be given a number, and to be made in
/// [`Any::request`].
pub fn number_of_request(request: &Request) -> u8 {
    match request {
        Request::RegisterBroker(_) => 0,
        Request::CreateTopics { .. } => 1,
        Request::DeleteTopics { .. } => 2,
        Request::CreatePartitions { .. } => 3,
        Request::AlterConfigs { .. } => 4,
        Request::AllocateProducerIds { .. } => 5,
        Request::Heartbeat(_) => 6,
        Request::AlterPartitions { .. } => 7,
        Request::ElectLeaders { .. } => 8,
        Request::AlterReassignments { .. } => 9,
        Request::UnregisterBroker { .. } => 10,
        Request::UpdateFeatures { .. } => 11,
        Request::PurgedTopics { .. } => 12,
        Request::NewTerms { .. } => 13,
        Request::AlterGroupConfigs { .. } => 14,
    }
}

/// Which kind a reply is of, under the same rule.
pub fn number_of_reply(reply: &Reply) -> u8 {
    match reply {
        Reply::Registered(_) => 0,
        Reply::CreatedTopics(_) => 1,
        Reply::DeletedTopics(_) => 2,
        Reply::CreatedPartitions(_) => 3,
        Reply::AlteredConfigs(_) => 4,
        Reply::AllocatedProducerIds(_) => 5,
        Reply::Heartbeat(_) => 6,
        Reply::AlteredPartitions(_) => 7,
        Reply::ElectedLeaders(_) => 8,
        Reply::AlteredReassignments(_) => 9,
        Reply::UnregisteredBroker(_) => 10,
        Reply::UpdatedFeatures(_) => 11,
        Reply::PurgedTopics => 12,
        Reply::NewTerms(_) => 13,
    }
}

const REASONS: [Why; 27] = [
    Why::TopicExists,
    Why::UnknownTopic,
    Why::UnknownTopicId,
    Why::TopicNameInvalid,
    Why::PartitionsInvalid,
    Why::ReplicationFactorInvalid,
    Why::AssignmentInvalid,
    Why::ConfigInvalid,
    Why::RequestInvalid,
    Why::DeletionDisabled,
    Why::LimitReached,
    Why::StaleBrokerEpoch,
    Why::UnknownBroker,
    Why::ForeignCluster,
    Why::DuplicateBroker,
    Why::RegistrationInvalid,
    Why::FeatureUnsupported,
    Why::FeatureUpdateInvalid,
    Why::NotController,
    Why::FencedLeaderEpoch,
    Why::InvalidUpdateVersion,
    Why::IneligibleReplica,
    Why::NewLeaderElected,
    Why::ElectionNotNeeded,
    Why::PreferredLeaderNotAvailable,
    Why::EligibleLeadersNotAvailable,
    Why::NoReassignmentInProgress,
];

/// A generator (splitmix64): the same seed, the same values.
pub struct Any(u64);

impl Any {
    pub fn new(seed: u64) -> Any {
        Any(seed)
    }

    fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.word() % limit
    }

    fn bool(&mut self) -> bool {
        self.below(2) == 0
    }

    fn of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize].clone()
    }

    fn id(&mut self) -> u128 {
        u128::from(self.word()) << 64 | u128::from(self.word())
    }

    /// Short ones stand inside an archive's string, long ones beside it.
    fn text(&mut self) -> String {
        let len = self.below(20) as usize;
        (0..len).map(|_| self.of(&['a', 'Z', '_', '.', 'é', '本', '\0'])).collect()
    }

    fn option<T>(&mut self, make: impl FnOnce(&mut Any) -> T) -> Option<T> {
        self.bool().then(|| make(self))
    }

    fn list<T>(&mut self, make: impl Fn(&mut Any) -> T) -> Vec<T> {
        (0..self.below(4)).map(|_| make(self)).collect()
    }

    fn result<T>(&mut self, make: impl FnOnce(&mut Any) -> T) -> Result<T, Refusal> {
        if self.bool() { Ok(make(self)) } else { Err(self.refusal()) }
    }

    fn refusal(&mut self) -> Refusal {
        Refusal { why: self.of(&REASONS), message: self.text() }
    }

    fn broker(&mut self) -> BrokerId {
        BrokerId(self.word() as i32)
    }

    fn brokers(&mut self) -> Vec<BrokerId> {
        self.list(Any::broker)
    }

    fn epoch(&mut self) -> BrokerEpoch {
        BrokerEpoch(self.word() as i64)
    }

    fn index(&mut self) -> PartitionIndex {
        PartitionIndex(self.word() as i32)
    }

    fn topic_id(&mut self) -> TopicId {
        TopicId::from_bytes(self.id().to_be_bytes())
    }

    fn partition(&mut self) -> TopicPartition {
        TopicPartition { topic: self.topic_id(), partition: self.index() }
    }

    fn state(&mut self) -> Partition {
        let replicas: Vec<BrokerId> = self.brokers();
        let isr = if self.bool() { replicas.clone() } else { self.brokers() };
        let mut state = Partition::with_isr(replicas.into(), isr.into());
        state.leader = self.option(Any::broker);
        state.leader_epoch = LeaderEpoch(self.word() as i32);
        state.epoch = PartitionEpoch(self.word() as i32);
        if self.bool() {
            state.elr = self.brokers().into();
            state.adding = self.brokers().into();
            state.removing = self.brokers().into();
            state.last_leader = self.option(Any::broker);
        }
        state
    }

    fn overrides(&mut self) -> Vec<(String, Option<String>)> {
        self.list(|any| (any.text(), any.option(Any::text)))
    }

    fn registration(&mut self) -> Registration {
        let range = |any: &mut Any| FeatureRange { min: any.word() as i16, max: any.word() as i16 };
        Registration {
            id: self.broker(),
            endpoints: self.list(|any| Endpoint {
                listener: any.text(),
                host: any.text(),
                port: any.word() as u16,
            }),
            rack: self.option(Any::text),
            cluster: self.option(|any| ClusterId::new(&any.text())),
            incarnation: Incarnation(self.id()),
            directory: DirectoryId(self.id()),
            features: self.list(|any| (any.text(), range(any))).into_iter().collect(),
            lost: self.of(&[Loss::Nothing, Loss::Unsynced, Loss::Everything]),
        }
    }

    fn new_topic(&mut self) -> NewTopic {
        NewTopic {
            name: self.text(),
            partitions: self.word() as i32,
            replication_factor: self.word() as i16,
            assignments: self
                .list(|any| Assignment { partition: any.index(), replicas: any.brokers() }),
            overrides: self.overrides(),
        }
    }

    fn change(&mut self) -> Change {
        if self.bool() {
            return Change::Replace(self.overrides());
        }
        Change::Edit(self.list(|any| {
            let edit = match any.below(4) {
                0 => Edit::Set(any.option(Any::text)),
                1 => Edit::Delete,
                2 => Edit::Append(any.option(Any::text)),
                _ => Edit::Subtract(any.option(Any::text)),
            };
            (any.text(), edit)
        }))
    }

    fn isr_change(&mut self) -> IsrChange {
        IsrChange {
            partition: self.partition(),
            leader_epoch: LeaderEpoch(self.word() as i32),
            partition_epoch: PartitionEpoch(self.word() as i32),
            isr: self.list(|any| (any.broker(), any.epoch())),
        }
    }

    fn update(&mut self) -> FeatureUpdate {
        let kinds =
            [UpgradeKind::Upgrade, UpgradeKind::SafeDowngrade, UpgradeKind::UnsafeDowngrade];
        FeatureUpdate { name: self.text(), level: self.word() as i16, kind: self.of(&kinds) }
    }

    /// A request of the kind with this number.
    pub fn request(&mut self, number: u8) -> Request {
        let validate_only = self.bool();
        let (broker, epoch) = (self.broker(), self.epoch());
        match number {
            0 => Request::RegisterBroker(self.registration()),
            1 => Request::CreateTopics { topics: self.list(Any::new_topic), validate_only },
            2 => Request::DeleteTopics {
                topics: self.list(|any| TopicRef {
                    name: any.option(Any::text),
                    id: any.option(Any::topic_id),
                }),
            },
            3 => Request::CreatePartitions {
                topics: self.list(|any| MorePartitions {
                    name: any.text(),
                    count: any.word() as i32,
                    assignments: any.option(|any| any.list(Any::brokers)),
                }),
                validate_only,
            },
            4 => Request::AlterConfigs { topics: self.list(Any::config_change), validate_only },
            5 => Request::AllocateProducerIds { broker, epoch },
            6 => Request::Heartbeat(Heartbeat {
                broker,
                epoch,
                reached: Offset::new(self.word() >> 1),
                want_shutdown: self.bool(),
            }),
            7 => Request::AlterPartitions { broker, epoch, partitions: self.list(Any::isr_change) },
            8 => Request::ElectLeaders {
                kind: self.of(&[ElectionKind::Preferred, ElectionKind::Unclean]),
                partitions: self.option(|any| any.list(|any| (any.text(), any.index()))),
            },
            9 => Request::AlterReassignments {
                partitions: self.list(|any| Reassignment {
                    topic: any.text(),
                    partition: any.index(),
                    replicas: any.option(Any::brokers),
                }),
                keep_factor: self.bool(),
            },
            10 => Request::UnregisterBroker { broker },
            11 => Request::UpdateFeatures { updates: self.list(Any::update), validate_only },
            12 => Request::PurgedTopics { broker, topics: self.list(Any::topic_id) },
            14 => {
                Request::AlterGroupConfigs { groups: self.list(Any::config_change), validate_only }
            }
            _ => Request::NewTerms {
                broker,
                epoch,
                partitions: self.list(|any| (any.partition(), LeaderEpoch(any.word() as i32))),
            },
        }
    }

    fn config_change(&mut self) -> ConfigChange {
        ConfigChange { name: self.text(), change: self.change() }
    }

    fn topic(&mut self) -> Topic {
        Topic {
            id: self.topic_id(),
            name: self.text().into(),
            partitions: self.list(Any::state),
            overrides: self.list(|any| (any.text(), any.text())).into_iter().collect(),
        }
    }

    fn named(&mut self) -> Vec<(String, Result<(), Refusal>)> {
        self.list(|any| (any.text(), any.result(|_| ())))
    }

    fn placed(&mut self) -> Vec<(String, PartitionIndex, Result<(), Refusal>)> {
        self.list(|any| (any.text(), any.index(), any.result(|_| ())))
    }

    /// A reply of the kind with this number.
    pub fn reply(&mut self, number: u8) -> Reply {
        match number {
            0 => Reply::Registered(self.result(|any| Registered {
                cluster: ClusterId::new(&any.text()),
                epoch: any.epoch(),
            })),
            1 => Reply::CreatedTopics(self.list(|any| {
                let created = |any: &mut Any| CreatedTopic { topic: Arc::new(any.topic()) };
                (any.text(), any.result(created))
            })),
            2 => Reply::DeletedTopics(self.list(|any| Deletion {
                name: any.option(Any::text),
                id: any.option(Any::topic_id),
                result: any.result(|_| ()),
            })),
            3 => Reply::CreatedPartitions(self.named()),
            4 => Reply::AlteredConfigs(self.named()),
            5 => Reply::AllocatedProducerIds(self.result(|any| ProducerIdBlock {
                first: ProducerId(any.word() as i64),
                count: any.word() as i64,
            })),
            6 => Reply::Heartbeat(self.result(|any| Pulse {
                fenced: any.bool(),
                stopping: any.bool(),
                should_shut_down: any.bool(),
            })),
            7 => Reply::AlteredPartitions(
                self.result(|any| any.list(|any| (any.partition(), any.result(Any::state)))),
            ),
            8 => Reply::ElectedLeaders(self.placed()),
            9 => Reply::AlteredReassignments(self.placed()),
            10 => Reply::UnregisteredBroker(self.result(|_| ())),
            11 => Reply::UpdatedFeatures(if self.bool() {
                Ok(())
            } else {
                Err((self.text(), self.refusal()))
            }),
            12 => Reply::PurgedTopics,
            _ => Reply::NewTerms(self.result(|_| ())),
        }
    }
}
