//! The vocabulary of numbers: newtypes for everything that is counted or named.
//!
//! Each id is its own type, so that two of different kinds can never be mixed or added. Fields are
//! private where arithmetic would be meaningless. Sources: Kafka's message schemas (field types).

use std::fmt;

/// Position of a record in a log; the *only* offset space. Never negative.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Offset(u64);

impl Offset {
    /// The first offset of every new log.
    pub const ZERO: Offset = Offset(0);
    /// Above every offset that a log can reach; Kafka offsets are 63 bits wide.
    pub const MAX: Offset = Offset(i64::MAX as u64);

    /// Makes an offset; `value` must fit 63 bits because the wire carries it as `int64`.
    pub const fn new(value: u64) -> Offset {
        assert!(value <= i64::MAX as u64, "an offset fits 63 bits");
        Offset(value)
    }

    /// What the wire carries, or `None` for a negative number (Kafka's sentinels -1 … -6).
    pub const fn from_wire(value: i64) -> Option<Offset> {
        if value < 0 { None } else { Some(Offset(value as u64)) }
    }

    /// The number itself.
    pub const fn value(self) -> u64 {
        self.0
    }

    /// As `int64`, for the wire and the batch header.
    pub const fn to_wire(self) -> i64 {
        self.0 as i64
    }

    /// The offset `count` records later.
    #[must_use]
    pub const fn plus(self, count: u64) -> Offset {
        Offset::new(self.0 + count)
    }

    /// How many offsets lie in `earlier..self`; zero when `earlier` is not earlier.
    pub const fn since(self, earlier: Offset) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Leadership term of a partition; monotonic. Stamped into every batch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LeaderEpoch(pub i32);

/// Name of a node within its cluster; chosen by the operator, never negative.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BrokerId(pub i32);

/// Uptime session of a broker: grows with each registration.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BrokerEpoch(pub i64);

/// Identity of an idempotent producer; never negative (the wire's -1 is `None`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerId(pub i64);

/// Incarnation of a producer id; `0..=32767`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ProducerEpoch(pub i16);

/// Number of a partition within its topic; never negative.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PartitionIndex(pub i32);

/// Identity of a topic over its whole life; a re-created topic of the same name has another.
///
/// 128 random bits, printed as Kafka prints them: URL-safe base64 without padding (KIP-516).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TopicId([u8; 16]);

impl TopicId {
    /// "No topic id" on the wire.
    pub const ZERO: TopicId = TopicId([0; 16]);

    /// Wraps the 16 bytes as they stand on the wire.
    pub const fn from_bytes(bytes: [u8; 16]) -> TopicId {
        TopicId(bytes)
    }

    /// A random (version 4) id from two random words.
    ///
    /// Like Kafka's `Uuid.randomUuid`, an id whose text begins with `-` is avoided: it would look
    /// like an option on a command line. Reserved ids (0 and 1) cannot come out.
    pub fn random(high: u64, low: u64) -> TopicId {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&high.to_be_bytes());
        bytes[8..].copy_from_slice(&low.to_be_bytes());
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        if bytes[0] >> 2 == 62 {
            bytes[0] &= 0x7f;
        }
        TopicId(bytes)
    }

    /// The 16 bytes as they stand on the wire.
    pub const fn bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Parses what `Display` prints; `None` for anything else.
    pub fn parse(text: &str) -> Option<TopicId> {
        if text.len() != 22 {
            return None;
        }
        let mut bits: u128 = 0;
        for (i, byte) in text.bytes().enumerate() {
            let six = BASE64_URL.iter().position(|&c| c == byte)? as u128;
            if i < 21 {
                bits = bits << 6 | six;
            } else {
                if six & 0xf != 0 {
                    return None;
                }
                bits = bits << 2 | six >> 4;
            }
        }
        Some(TopicId(bits.to_be_bytes()))
    }
}

const BASE64_URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = u128::from_be_bytes(self.0);
        for i in 0..22 {
            let six = if i < 21 { bits >> (122 - 6 * i) } else { bits << 4 } & 0x3f;
            write!(f, "{}", BASE64_URL[six as usize] as char)?;
        }
        Ok(())
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// One partition of one topic, by identity.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TopicPartition {
    /// The topic.
    pub topic: TopicId,
    /// The partition within it.
    pub partition: PartitionIndex,
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

macro_rules! shown {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    )*};
}
shown!(Offset, LeaderEpoch, BrokerId, BrokerEpoch, ProducerId, ProducerEpoch, PartitionIndex);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_id_prints_as_kafka_prints_it_and_parses_back() {
        // Kafka's Uuid(0, 1) prints as below.
        let mut bytes = [0; 16];
        bytes[15] = 1;
        let id = TopicId::from_bytes(bytes);
        assert_eq!(id.to_string(), "AAAAAAAAAAAAAAAAAAAAAQ");
        for seed in 1..200u64 {
            let id = TopicId::random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15), seed << 40 | seed);
            assert_eq!(TopicId::parse(&id.to_string()), Some(id));
            assert!(!id.to_string().starts_with('-'));
        }
        assert_eq!(TopicId::parse("AAAAAAAAAAAAAAAAAAAAAR"), None, "stray low bits");
        assert_eq!(TopicId::parse("short"), None);
    }
}
