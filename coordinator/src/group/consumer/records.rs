//! What `__consumer_offsets` holds of consumer groups, exactly as Kafka writes it: keys of the
//! types 3 to 8 and 16. Kafka's schemas are `ConsumerGroupMetadata`, `…PartitionMetadata`,
//! `…MemberMetadata`, `…TargetAssignmentMetadata`, `…TargetAssignmentMember`,
//! `…CurrentMemberAssignment` and `…RegularExpression`, each with a `Key` and a `Value`.
//!
//! Values are of version 0, the only one so far; what was added to it are tagged fields: the hash
//! of topics and the time of creation (KIP-1101, KIP-1282), and the epoch at which each partition
//! was assigned (KIP-1251).

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use engine::ids::{PartitionIndex, TopicId};
use engine::time::Timestamp;

use super::bytes::{BytesError, Reader, Writer};
use crate::group::assignor::Partitions;

/// What a record takes in a batch beyond its key and value, in bytes; more than it does.
const RECORD_OVERHEAD: usize = 64;

/// One record; `None` is a tombstone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The group.
    pub group: Rc<str>,
    /// What it says.
    pub change: Change,
}

/// What one record says of its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Type 3: the group is there and in this epoch; or it is gone.
    Group(Option<GroupValue>),
    /// Type 4: the topics of a group as releases up to 4.0 remembered them. Never written, and of
    /// no consequence: [`GroupValue::topics_hash`] took its place.
    PartitionMetadata(Option<Vec<TopicValue>>),
    /// Type 5: what a member is and wants.
    Member(Rc<str>, Option<Rc<MemberValue>>),
    /// Type 6: the epoch that the target assignment was made for.
    TargetEpoch(Option<i32>),
    /// Type 7: what a member is to have in the end.
    Target(Rc<str>, Option<Rc<Partitions>>),
    /// Type 8: what a member has.
    Current(Rc<str>, Option<Rc<Current>>),
    /// Type 16: the topics that a regular expression stands for.
    Pattern(Rc<str>, Option<Rc<PatternValue>>),
}

/// A group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupValue {
    /// Grows with everything that calls for another assignment.
    pub epoch: i32,
    /// A hash of the topics that anybody is subscribed to, with their partitions and racks. Only
    /// ever compared with another made by the same function; 0: not known.
    pub topics_hash: i64,
    /// When it came to be.
    pub created: Option<Timestamp>,
}

/// A topic in a record of type 4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicValue {
    /// Its identity.
    pub id: TopicId,
    /// Its name.
    pub name: String,
    /// How many partitions it had.
    pub partitions: i32,
    /// Where partitions were.
    pub racks: Vec<(PartitionIndex, Vec<String>)>,
}

/// What a member is and wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberValue {
    /// Its `group.instance.id`, if it is static.
    pub instance: Option<Rc<str>>,
    /// The rack that it is in.
    pub rack: Option<String>,
    /// What its client calls itself.
    pub client_id: String,
    /// Where it connects from.
    pub client_host: String,
    /// The topics that it is subscribed to, by name.
    pub topics: BTreeSet<String>,
    /// The same by a regular expression; never empty.
    pub pattern: Option<Rc<str>>,
    /// How long it may take to give up partitions, in milliseconds.
    pub rebalance_ms: i32,
    /// The assignor that it prefers.
    pub assignor: Option<String>,
    /// What makes it a member of the classic protocol, if it is one.
    pub classic: Option<ClassicMember>,
}

/// What a consumer group remembers of a member that speaks the classic protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassicMember {
    /// How long it may be silent, in milliseconds.
    pub session_ms: i32,
    /// What it can speak, preferred first: name, and its subscription in it.
    pub protocols: Vec<(String, Rc<[u8]>)>,
}

/// Partitions of a member, with the group's epoch at which it was given each.
pub type Assigned = BTreeMap<TopicId, BTreeMap<PartitionIndex, i32>>;

/// What a member has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Current {
    /// Its epoch.
    pub epoch: i32,
    /// The epoch before; one who missed the answer comes with it.
    pub previous_epoch: i32,
    /// How far it is on the way to its target.
    pub state: MemberState,
    /// What it may use.
    pub assigned: Assigned,
    /// What it is giving up; nobody else may have it yet.
    pub revoking: Assigned,
}

/// How far a member is on the way to its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberState {
    /// It has everything that it was to have in its epoch.
    Stable,
    /// It is giving something up first.
    UnrevokedPartitions,
    /// Something that it is to have is not free yet.
    UnreleasedPartitions,
    /// A newer release knew a state that this one does not.
    Unknown,
}

impl MemberState {
    const fn number(self) -> i8 {
        match self {
            MemberState::Stable => 0,
            MemberState::UnrevokedPartitions => 1,
            MemberState::UnreleasedPartitions => 2,
            MemberState::Unknown => 127,
        }
    }

    const fn from_number(number: i8) -> MemberState {
        match number {
            0 => MemberState::Stable,
            1 => MemberState::UnrevokedPartitions,
            2 => MemberState::UnreleasedPartitions,
            _ => MemberState::Unknown,
        }
    }
}

/// The topics that a regular expression stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatternValue {
    /// Their names.
    pub topics: BTreeSet<String>,
    /// The version of the image that they were looked for in.
    pub version: i64,
    /// When they were.
    pub resolved: Timestamp,
}

/// The value's version; there is one.
const VERSION: i16 = 0;
/// "Not known" as a time.
const NONE: i64 = -1;

impl Record {
    /// Whether a key of this type is one of ours.
    pub const fn knows(key_type: i16) -> bool {
        matches!(key_type, 3..=8 | 16)
    }

    /// How many bytes of a batch it takes, at the most.
    pub fn bytes(&self) -> usize {
        let (key, value) = self.store();
        key.len() + value.map_or(0, |value| value.len()) + RECORD_OVERHEAD
    }

    /// The key and the value as they stand in the log. Names and ids must fit
    /// [`super::bytes::STRING_BYTES_MAX`].
    pub fn store(&self) -> (Vec<u8>, Option<Vec<u8>>) {
        let group = &*self.group;
        match &self.change {
            Change::Group(value) => (key(3, group, None), value.as_ref().map(GroupValue::store)),
            Change::PartitionMetadata(value) => {
                (key(4, group, None), value.as_ref().map(|topics| store_topics(topics)))
            }
            Change::Member(id, value) => {
                (key(5, group, Some(id)), value.as_ref().map(|value| value.store()))
            }
            Change::TargetEpoch(value) => (key(6, group, None), value.map(store_epoch)),
            Change::Target(id, value) => {
                (key(7, group, Some(id)), value.as_ref().map(|value| store_target(value)))
            }
            Change::Current(id, value) => {
                (key(8, group, Some(id)), value.as_ref().map(|value| value.store()))
            }
            Change::Pattern(text, value) => {
                (key(16, group, Some(text)), value.as_ref().map(|value| value.store()))
            }
        }
    }

    /// The record of a key and a value; the key's type must be one that [`Record::knows`].
    pub fn load(key: &[u8], value: Option<&[u8]>) -> Result<Record, BytesError> {
        let (key_type, mut key) = Reader::plain(key)?;
        if !Record::knows(key_type) {
            return Err(BytesError::Version(key_type));
        }
        let group = key.string()?.into();
        let mut second = || key.string().map(Rc::<str>::from);
        let change = match key_type {
            3 => Change::Group(value.map(GroupValue::load).transpose()?),
            4 => Change::PartitionMetadata(value.map(load_topics).transpose()?),
            5 => Change::Member(second()?, value.map(MemberValue::load).transpose()?.map(Rc::new)),
            6 => Change::TargetEpoch(value.map(load_epoch).transpose()?),
            7 => Change::Target(second()?, value.map(load_target).transpose()?.map(Rc::new)),
            8 => Change::Current(second()?, value.map(Current::load).transpose()?.map(Rc::new)),
            _ => {
                Change::Pattern(second()?, value.map(PatternValue::load).transpose()?.map(Rc::new))
            }
        };
        Ok(Record { group, change })
    }
}

fn key(key_type: i16, group: &str, second: Option<&str>) -> Vec<u8> {
    let mut key = Writer::plain(key_type);
    key.string(group);
    if let Some(second) = second {
        key.string(second);
    }
    key.bytes
}

impl GroupValue {
    fn store(&self) -> Vec<u8> {
        let mut value = Writer::flexible(VERSION);
        value.i32(self.epoch);
        let mut tags = Vec::new();
        if self.topics_hash != 0 {
            tags.push((0, self.topics_hash.to_be_bytes().to_vec()));
        }
        if let Some(created) = self.created {
            tags.push((1, created.0.to_be_bytes().to_vec()));
        }
        value.tagged(&tags);
        value.bytes
    }

    fn load(bytes: &[u8]) -> Result<GroupValue, BytesError> {
        let mut value = Reader::flexible(bytes, VERSION)?;
        let epoch = value.i32()?;
        let (mut topics_hash, mut created) = (0, NONE);
        value.tagged(|tag, field| {
            match tag {
                0 => topics_hash = field.i64()?,
                1 => created = field.i64()?,
                _ => {}
            }
            Ok(())
        })?;
        let created = (created != NONE).then_some(Timestamp(created));
        Ok(GroupValue { epoch, topics_hash, created })
    }
}

fn store_topics(topics: &[TopicValue]) -> Vec<u8> {
    let mut value = Writer::flexible(VERSION);
    value.count(topics.len());
    for topic in topics {
        value.uuid(topic.id.bytes());
        value.string(&topic.name);
        value.i32(topic.partitions);
        value.count(topic.racks.len());
        for (partition, racks) in &topic.racks {
            value.i32(partition.0);
            value.count(racks.len());
            racks.iter().for_each(|rack| value.string(rack));
            value.tagged(&[]);
        }
        value.tagged(&[]);
    }
    value.tagged(&[]);
    value.bytes
}

fn load_topics(bytes: &[u8]) -> Result<Vec<TopicValue>, BytesError> {
    let mut value = Reader::flexible(bytes, VERSION)?;
    let topics = value.list(23, |topic| {
        let read = TopicValue {
            id: TopicId::from_bytes(topic.uuid()?),
            name: topic.string()?.into(),
            partitions: topic.i32()?,
            racks: topic.list(6, |entry| {
                let partition = PartitionIndex(entry.i32()?);
                let racks = entry.list(1, |rack| rack.string().map(String::from))?;
                entry.tagged(|_, _| Ok(()))?;
                Ok((partition, racks))
            })?,
        };
        topic.tagged(|_, _| Ok(()))?;
        Ok(read)
    })?;
    value.tagged(|_, _| Ok(()))?;
    Ok(topics)
}

impl MemberValue {
    fn store(&self) -> Vec<u8> {
        let mut value = Writer::flexible(VERSION);
        value.nullable_string(self.instance.as_deref());
        value.nullable_string(self.rack.as_deref());
        value.string(&self.client_id);
        value.string(&self.client_host);
        value.count(self.topics.len());
        self.topics.iter().for_each(|topic| value.string(topic));
        value.nullable_string(self.pattern.as_deref());
        value.i32(self.rebalance_ms);
        value.nullable_string(self.assignor.as_deref());
        let classic = self.classic.iter().map(|classic| (0, classic.store()));
        value.tagged(&classic.collect::<Vec<_>>());
        value.bytes
    }

    fn load(bytes: &[u8]) -> Result<MemberValue, BytesError> {
        let mut value = Reader::flexible(bytes, VERSION)?;
        let owned = |text: Option<&str>| text.map(String::from);
        let mut member = MemberValue {
            instance: value.nullable_string()?.map(Rc::from),
            rack: owned(value.nullable_string()?),
            client_id: value.string()?.into(),
            client_host: value.string()?.into(),
            topics: value.list(1, |topic| topic.string().map(String::from))?,
            pattern: value.nullable_string()?.filter(|text| !text.is_empty()).map(Rc::from),
            rebalance_ms: value.i32()?,
            assignor: owned(value.nullable_string()?),
            classic: None,
        };
        value.tagged(|tag, field| {
            if tag == 0 {
                member.classic = ClassicMember::load(field)?;
            }
            Ok(())
        })?;
        Ok(member)
    }
}

impl ClassicMember {
    fn store(&self) -> Vec<u8> {
        Writer::content(|value| {
            // A struct that could be null says that it is not.
            value.i8(1);
            value.i32(self.session_ms);
            value.count(self.protocols.len());
            for (name, metadata) in &self.protocols {
                value.string(name);
                value.nullable_bytes(Some(metadata));
                value.tagged(&[]);
            }
            value.tagged(&[]);
        })
    }

    fn load(value: &mut Reader<'_>) -> Result<Option<ClassicMember>, BytesError> {
        if value.i8()? < 0 {
            return Ok(None);
        }
        let session_ms = value.i32()?;
        let protocols = value.list(3, |protocol| {
            let read = (protocol.string()?.into(), protocol.bytes()?.into());
            protocol.tagged(|_, _| Ok(()))?;
            Ok(read)
        })?;
        value.tagged(|_, _| Ok(()))?;
        Ok(Some(ClassicMember { session_ms, protocols }))
    }
}

fn store_epoch(epoch: i32) -> Vec<u8> {
    let mut value = Writer::flexible(VERSION);
    value.i32(epoch);
    value.tagged(&[]);
    value.bytes
}

fn load_epoch(bytes: &[u8]) -> Result<i32, BytesError> {
    let mut value = Reader::flexible(bytes, VERSION)?;
    let epoch = value.i32()?;
    value.tagged(|_, _| Ok(()))?;
    Ok(epoch)
}

fn store_target(partitions: &Partitions) -> Vec<u8> {
    let mut value = Writer::flexible(VERSION);
    value.count(partitions.len());
    for (topic, partitions) in partitions {
        value.uuid(topic.bytes());
        value.count(partitions.len());
        partitions.iter().for_each(|partition| value.i32(partition.0));
        value.tagged(&[]);
    }
    value.tagged(&[]);
    value.bytes
}

fn load_target(bytes: &[u8]) -> Result<Partitions, BytesError> {
    let mut value = Reader::flexible(bytes, VERSION)?;
    let mut partitions: Partitions = value.list(18, |entry| {
        let topic = TopicId::from_bytes(entry.uuid()?);
        let partitions = entry.list(4, |partition| partition.i32().map(PartitionIndex))?;
        entry.tagged(|_, _| Ok(()))?;
        Ok((topic, partitions))
    })?;
    value.tagged(|_, _| Ok(()))?;
    partitions.retain(|_, partitions| !partitions.is_empty());
    Ok(partitions)
}

fn store_assigned(value: &mut Writer, assigned: &Assigned) {
    value.count(assigned.len());
    for (topic, partitions) in assigned {
        value.uuid(topic.bytes());
        value.count(partitions.len());
        partitions.keys().for_each(|partition| value.i32(partition.0));
        let epochs = Writer::content(|epochs| {
            epochs.count(partitions.len());
            partitions.values().for_each(|epoch| epochs.i32(*epoch));
        });
        value.tagged(&[(0, epochs)]);
    }
}

/// Partitions; those without an epoch of their own are taken to have been given at `epoch`.
fn load_assigned(value: &mut Reader<'_>, epoch: i32) -> Result<Assigned, BytesError> {
    let mut assigned: Assigned = value.list(18, |entry| {
        let topic = TopicId::from_bytes(entry.uuid()?);
        let partitions: Vec<_> = entry.list(4, |p| p.i32().map(PartitionIndex))?;
        let mut epochs = Vec::new();
        entry.tagged(|tag, field| {
            if tag == 0 {
                epochs = field.list(4, Reader::i32)?;
            }
            Ok(())
        })?;
        epochs.resize(partitions.len(), epoch);
        Ok((topic, partitions.into_iter().zip(epochs).collect()))
    })?;
    assigned.retain(|_, partitions: &mut BTreeMap<_, _>| !partitions.is_empty());
    Ok(assigned)
}

impl Current {
    fn store(&self) -> Vec<u8> {
        let mut value = Writer::flexible(VERSION);
        value.i32(self.epoch);
        value.i32(self.previous_epoch);
        value.i8(self.state.number());
        store_assigned(&mut value, &self.assigned);
        store_assigned(&mut value, &self.revoking);
        value.tagged(&[]);
        value.bytes
    }

    fn load(bytes: &[u8]) -> Result<Current, BytesError> {
        let mut value = Reader::flexible(bytes, VERSION)?;
        let epoch = value.i32()?;
        let current = Current {
            epoch,
            previous_epoch: value.i32()?,
            state: MemberState::from_number(value.i8()?),
            assigned: load_assigned(&mut value, epoch)?,
            revoking: load_assigned(&mut value, epoch)?,
        };
        value.tagged(|_, _| Ok(()))?;
        Ok(current)
    }
}

impl PatternValue {
    fn store(&self) -> Vec<u8> {
        let mut value = Writer::flexible(VERSION);
        value.count(self.topics.len());
        self.topics.iter().for_each(|topic| value.string(topic));
        value.i64(self.version);
        value.i64(self.resolved.0);
        value.tagged(&[]);
        value.bytes
    }

    fn load(bytes: &[u8]) -> Result<PatternValue, BytesError> {
        let mut value = Reader::flexible(bytes, VERSION)?;
        let read = PatternValue {
            topics: value.list(1, |topic| topic.string().map(String::from))?,
            version: value.i64()?,
            resolved: Timestamp(value.i64()?),
        };
        value.tagged(|_, _| Ok(()))?;
        Ok(read)
    }
}

#[cfg(test)]
mod tests;
