//! The protocol inside of the classic protocol: what consumers say about themselves when they join,
//! and what their leader gives them. Kafka: `ConsumerProtocolSubscription` and
//! `ConsumerProtocolAssignment`, versions 0–3. A newer version begins as version 3 does.

use std::collections::BTreeMap;

use engine::ids::PartitionIndex;

use super::bytes::{BytesError, Reader, Writer};

/// The protocol type of consumers.
pub const CONSUMER: &str = "consumer";

/// Partitions by topic name.
pub type Named = BTreeMap<String, Vec<PartitionIndex>>;

/// What a consumer wants and has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subscription {
    /// The version that it was written in; what answers it is written in the same.
    pub version: i16,
    /// The topics that it wants, by name.
    pub topics: Vec<String>,
    /// What it has; nothing before version 1.
    pub owned: Named,
    /// The generation in which it was given that; -1 if it does not say (before version 2).
    pub generation: i32,
    /// The rack that it is in.
    pub rack: Option<String>,
}

/// The newest version of both that is written.
const VERSION_MAX: i16 = 3;

impl Subscription {
    /// Reads one. What follows it is left.
    pub fn read(bytes: &[u8]) -> Result<Subscription, BytesError> {
        let (version, mut reader) = open(bytes)?;
        let topics = reader.list(2, |topic| topic.string().map(String::from))?;
        reader.nullable_bytes()?;
        Ok(Subscription {
            version: version.min(VERSION_MAX),
            topics,
            owned: if version >= 1 { named(&mut reader)? } else { Named::new() },
            generation: if version >= 2 { reader.i32()? } else { -1 },
            rack: if version >= 3 { reader.nullable_string()?.map(String::from) } else { None },
        })
    }
}

/// Reads what a leader gave a consumer; nothing if there is nothing to read.
pub fn read_assignment(bytes: &[u8]) -> Result<Named, BytesError> {
    if bytes.is_empty() { Ok(Named::new()) } else { named(&mut open(bytes)?.1) }
}

/// Writes what a consumer is given, in a version that it knows.
pub fn write_assignment(version: i16, partitions: &Named) -> Vec<u8> {
    let mut writer = Writer::plain(version.clamp(0, VERSION_MAX));
    writer.count(partitions.len());
    for (topic, partitions) in partitions {
        writer.string(topic);
        writer.count(partitions.len());
        partitions.iter().for_each(|partition| writer.i32(partition.0));
    }
    writer.nullable_bytes(None);
    writer.bytes
}

fn open(bytes: &[u8]) -> Result<(i16, Reader<'_>), BytesError> {
    let (version, reader) = Reader::plain(bytes)?;
    if version >= 0 { Ok((version, reader)) } else { Err(BytesError::Version(version)) }
}

fn named(reader: &mut Reader<'_>) -> Result<Named, BytesError> {
    let topics: Vec<(String, Vec<PartitionIndex>)> = reader.list(6, |topic| {
        let name = topic.string()?.into();
        Ok((name, topic.list(4, |partition| partition.i32().map(PartitionIndex))?))
    })?;
    let mut all = Named::new();
    for (topic, partitions) in topics {
        all.entry(topic).or_default().extend(partitions);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::bytes::BytesMut;
    use kafka_protocol::messages as theirs;
    use kafka_protocol::messages::TopicName;
    use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};

    fn framed(version: i16, message: &impl Encodable) -> Vec<u8> {
        let mut body = BytesMut::new();
        message.encode(&mut body, version).expect("valid");
        [&version.to_be_bytes(), &body[..]].concat()
    }

    fn topic(name: &'static str) -> TopicName {
        TopicName(StrBytes::from_static_str(name))
    }

    #[test]
    fn subscriptions_of_every_version_are_read() {
        let owned = theirs::consumer_protocol_subscription::TopicPartition::default()
            .with_topic(topic("t"))
            .with_partitions(vec![4, 2]);
        for version in 0..=3 {
            let mut said = theirs::ConsumerProtocolSubscription::default()
                .with_topics(["t", "other"].map(StrBytes::from_static_str).to_vec())
                .with_user_data(Some(::bytes::Bytes::from_static(b"whatever")));
            if version >= 1 {
                said = said.with_owned_partitions(vec![owned.clone()]);
            }
            if version >= 2 {
                said = said.with_generation_id(7);
            }
            if version >= 3 {
                said = said.with_rack_id(Some(StrBytes::from_static_str("r")));
            }
            let bytes = framed(version, &said);
            let read = Subscription::read(&bytes).expect("valid");
            assert_eq!(read.version, version);
            assert_eq!(read.topics, ["t", "other"]);
            let had = Named::from([("t".into(), vec![PartitionIndex(4), PartitionIndex(2)])]);
            assert_eq!(read.owned, if version >= 1 { had } else { Named::new() });
            assert_eq!(read.generation, if version >= 2 { 7 } else { -1 });
            assert_eq!(read.rack.as_deref(), (version >= 3).then_some("r"));
            for cut in 0..bytes.len() {
                assert!(Subscription::read(&bytes[..cut]).is_err(), "{version}, {cut} bytes");
            }
            // A newer version adds to the end.
            let mut newer = framed(3, &said.clone().with_generation_id(7));
            newer[1] = 9;
            newer.extend(b"more");
            assert_eq!(Subscription::read(&newer).expect("readable").version, 3);
        }
        assert_eq!(Subscription::read(&[0xff, 0xff, 0, 0]), Err(BytesError::Version(-1)));
    }

    #[test]
    fn assignments_of_every_version_are_those_of_the_other_codec() {
        let ours = Named::from([
            ("a".into(), vec![PartitionIndex(0), PartitionIndex(3)]),
            ("b".into(), vec![PartitionIndex(1)]),
        ]);
        for version in 0..=3 {
            let bytes = write_assignment(version, &ours);
            let mut body = &bytes[2..];
            let theirs = theirs::ConsumerProtocolAssignment::decode(&mut body, version);
            let theirs = theirs.expect("valid");
            assert!(body.is_empty());
            let read: Vec<_> = theirs
                .assigned_partitions
                .iter()
                .map(|entry| (entry.topic.0.as_str(), entry.partitions.clone()))
                .collect();
            assert_eq!(read, [("a", vec![0, 3]), ("b", vec![1])]);
            assert_eq!(framed(version, &theirs), bytes);
            assert_eq!(read_assignment(&bytes), Ok(ours.clone()));
            assert!(read_assignment(&bytes[..bytes.len() - 5]).is_err());
        }
        assert_eq!(read_assignment(&[]), Ok(Named::new()));
        // A count that lies costs nothing.
        assert_eq!(read_assignment(&[0, 1, 0x7f, 0xff, 0xff, 0xff]), Err(BytesError::Short));
    }
}
