//! What `__consumer_offsets` holds, exactly as Kafka writes it, so that its tools read our log and
//! we theirs: keys of type 0 and 1 (a committed offset) and 2 (a classic group), each with a value
//! or, as a tombstone, without; those of consumer groups are in [`consumer::records`]. Kafka's
//! schemas are `OffsetCommitKey`, `OffsetCommitValue`,
//! `GroupMetadataKey` and `GroupMetadataValue`.
//!
//! Values are written as Kafka 4 writes them: version 3, and version 1 for an offset that brings
//! its own expiry. All versions up to 4 are read. Keys of types that are not known here belong to
//! newer brokers, and are passed over.

use std::rc::Rc;

use engine::ids::LeaderEpoch;
use engine::time::Timestamp;

use super::consumer;
use super::consumer::bytes::BytesError;
use crate::machine::Stored;

pub mod bytes;

use bytes::{Reader, Writer};

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// An offset that a group committed, or that it has none any more.
    Offset(OffsetKey, Option<OffsetValue>),
    /// A classic group as of its newest generation, or that it is gone.
    Classic(String, Option<Rc<ClassicValue>>),
    /// Something about a consumer group.
    Consumer(consumer::Record),
    /// Something of a key type that this broker does not know. Never written.
    Unknown(i16),
}

/// Whose offset it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OffsetKey {
    /// The group.
    pub group: String,
    /// The topic's name.
    pub topic: String,
    /// The partition.
    pub partition: i32,
}

/// A committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetValue {
    /// The next record to consume.
    pub offset: i64,
    /// The leader epoch of the last record consumed, where the client knew it.
    pub leader_epoch: Option<LeaderEpoch>,
    /// What the client wanted to remember with it.
    pub metadata: String,
    /// When it was committed.
    pub committed: Timestamp,
    /// When it expires, for the few clients that still say so themselves.
    pub expires: Option<Timestamp>,
}

/// A classic group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassicValue {
    /// What kind of members it has, "consumer" or another; empty if it never had any.
    pub protocol_type: String,
    /// The generation.
    pub generation: i32,
    /// The protocol that its members agreed on; `None` without members.
    pub protocol: Option<String>,
    /// Who assigns.
    pub leader: Option<String>,
    /// When it entered its present state; `None` if whoever wrote it did not say.
    pub since: Option<Timestamp>,
    /// Its members.
    pub members: Vec<MemberValue>,
}

/// A member of a classic group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberValue {
    /// Its id.
    pub id: String,
    /// Its `group.instance.id`, which makes it a static member.
    pub instance: Option<String>,
    /// The client's id.
    pub client_id: String,
    /// Where the client is.
    pub client_host: String,
    /// How long it may take to rejoin, in milliseconds.
    pub rebalance_ms: i32,
    /// How long it may be silent, in milliseconds.
    pub session_ms: i32,
    /// What it said about itself in the group's protocol.
    pub subscription: Rc<[u8]>,
    /// What the leader gave it.
    pub assignment: Rc<[u8]>,
}

/// Why a record of a known type cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// It has no key.
    #[error("no key")]
    NoKey,
    /// It ends early.
    #[error("it ends early")]
    Short,
    /// A length makes no sense.
    #[error("a length that cannot be")]
    Length,
    /// Text that is not UTF-8.
    #[error("text that is not UTF-8")]
    Text,
    /// Null where something has to be.
    #[error("null where something has to be")]
    Null,
    /// A version of the value that is not known here.
    #[error("version {0} of the value is not known")]
    Version(i16),
}

impl From<BytesError> for RecordError {
    fn from(error: BytesError) -> RecordError {
        match error {
            BytesError::Short => RecordError::Short,
            BytesError::Length => RecordError::Length,
            BytesError::Text => RecordError::Text,
            BytesError::Null => RecordError::Null,
            BytesError::Version(version) => RecordError::Version(version),
        }
    }
}

const NONE: i64 = -1;

impl OffsetKey {
    fn store(&self) -> Vec<u8> {
        let mut key = Writer::new(1);
        key.string(&self.group);
        key.string(&self.topic);
        key.i32(self.partition);
        key.0
    }

    fn load(mut key: Reader<'_>) -> Result<OffsetKey, RecordError> {
        Ok(OffsetKey {
            group: key.string()?.into(),
            topic: key.string()?.into(),
            partition: key.i32()?,
        })
    }
}

impl OffsetValue {
    fn store(&self) -> Vec<u8> {
        // Only version 1 can say when it expires.
        let mut value = Writer::new(if self.expires.is_some() { 1 } else { 3 });
        value.i64(self.offset);
        if self.expires.is_none() {
            value.i32(self.leader_epoch.map_or(-1, |epoch| epoch.0));
        }
        value.string(&self.metadata);
        value.i64(self.committed.0);
        if let Some(expires) = self.expires {
            value.i64(expires.0);
        }
        value.0
    }

    fn load(bytes: &[u8]) -> Result<OffsetValue, RecordError> {
        let (version, mut value) = open(bytes)?;
        let offset = value.i64()?;
        let epoch = if version >= 3 { value.i32()? } else { -1 };
        let metadata = value.string()?.into();
        let committed = Timestamp(value.i64()?);
        let expires = if version == 1 { value.i64()? } else { NONE };
        value.tagged()?;
        Ok(OffsetValue {
            offset,
            leader_epoch: (epoch >= 0).then_some(LeaderEpoch(epoch)),
            metadata,
            committed,
            expires: (expires != NONE).then_some(Timestamp(expires)),
        })
    }
}

impl ClassicValue {
    fn store(&self) -> Vec<u8> {
        let mut value = Writer::new(3);
        value.string(&self.protocol_type);
        value.i32(self.generation);
        value.nullable_string(self.protocol.as_deref());
        value.nullable_string(self.leader.as_deref());
        value.i64(self.since.map_or(NONE, |since| since.0));
        value.i32(i32::try_from(self.members.len()).expect("bounded by the batch"));
        for member in &self.members {
            value.string(&member.id);
            value.nullable_string(member.instance.as_deref());
            value.string(&member.client_id);
            value.string(&member.client_host);
            value.i32(member.rebalance_ms);
            value.i32(member.session_ms);
            value.bytes(&member.subscription);
            value.bytes(&member.assignment);
        }
        value.0
    }

    fn load(bytes: &[u8]) -> Result<ClassicValue, RecordError> {
        let (version, mut value) = open(bytes)?;
        let protocol_type = value.string()?.into();
        let generation = value.i32()?;
        let protocol = value.nullable_string()?.map(String::from);
        let leader = value.nullable_string()?.map(String::from);
        let since = if version >= 2 { value.i64()? } else { NONE };
        // Three strings, two numbers, two byte strings, each with its shortest length.
        let count = value.count(if version >= 4 { 10 } else { 18 })?;
        let members = (0..count).map(|_| MemberValue::load(version, &mut value));
        let members = members.collect::<Result<_, _>>()?;
        value.tagged()?;
        let since = (since != NONE).then_some(Timestamp(since));
        Ok(ClassicValue { protocol_type, generation, protocol, leader, since, members })
    }
}

impl MemberValue {
    fn load(version: i16, value: &mut Reader<'_>) -> Result<MemberValue, RecordError> {
        let id = value.string()?.into();
        let instance = if version >= 3 { value.nullable_string()? } else { None };
        let client_id = value.string()?.into();
        let client_host = value.string()?.into();
        let rebalance_ms = if version >= 1 { value.i32()? } else { -1 };
        let session_ms = value.i32()?;
        let subscription = value.bytes()?.into();
        let assignment = value.bytes()?.into();
        value.tagged()?;
        Ok(MemberValue {
            id,
            instance: instance.map(String::from),
            client_id,
            client_host,
            rebalance_ms: if rebalance_ms == -1 { session_ms } else { rebalance_ms },
            session_ms,
            subscription,
            assignment,
        })
    }
}

/// A value of a version that is known.
fn open(bytes: &[u8]) -> Result<(i16, Reader<'_>), RecordError> {
    match Reader::new(bytes)? {
        (version @ 0..=3, value) => Ok((version, value)),
        (4, value) => Ok((4, value.flexible())),
        (version, _) => Err(RecordError::Version(version)),
    }
}

impl Stored for Record {
    type Error = RecordError;

    fn store(&self) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
        match self {
            Record::Offset(key, value) => {
                (Some(key.store()), value.as_ref().map(OffsetValue::store))
            }
            Record::Classic(group, value) => {
                let mut key = Writer::new(2);
                key.string(group);
                (Some(key.0), value.as_ref().map(|value| value.store()))
            }
            Record::Consumer(record) => {
                let (key, value) = record.store();
                (Some(key), value)
            }
            Record::Unknown(kind) => (Some(kind.to_be_bytes().into()), None),
        }
    }

    fn load(key: Option<&[u8]>, value: Option<&[u8]>) -> Result<Record, RecordError> {
        let whole = key.ok_or(RecordError::NoKey)?;
        let (kind, mut key) = Reader::new(whole)?;
        Ok(match kind {
            0 | 1 => {
                Record::Offset(OffsetKey::load(key)?, value.map(OffsetValue::load).transpose()?)
            }
            2 => {
                let value = value.map(ClassicValue::load).transpose()?;
                Record::Classic(key.string()?.into(), value.map(Rc::new))
            }
            _ if consumer::Record::knows(kind) => {
                Record::Consumer(consumer::Record::load(whole, value)?)
            }
            _ => {
                tracing::debug!(kind, "a record of a type that is not known here is passed over");
                Record::Unknown(kind)
            }
        })
    }
}

#[cfg(test)]
mod tests;
