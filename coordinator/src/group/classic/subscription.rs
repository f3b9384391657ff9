//! Which topics the members of a consumer group consume: the one thing that a broker reads in what
//! they say about themselves. Kafka: `ClassicGroup.computeSubscribedTopics`.

use std::collections::BTreeSet;

use super::{CONSUMER, Live};
use crate::group::records::RecordError;
use crate::group::records::bytes::Reader;

impl Live {
    /// The topics of all members in the generation's protocol. `None` if these are no consumers,
    /// or one of them says it in a way that cannot be read.
    pub(super) fn subscriptions(&self) -> Option<BTreeSet<String>> {
        if self.protocol_type.as_deref() != Some(CONSUMER) {
            return None;
        }
        if self.members.is_empty() {
            return Some(BTreeSet::new());
        }
        let protocol = Some(self.protocol.as_deref()?);
        let mut topics = BTreeSet::new();
        for (id, member) in &self.members {
            match read_topics(member.metadata(protocol)) {
                Ok(more) => topics.extend(more.into_iter().map(String::from)),
                Err(error) => {
                    tracing::warn!(%id, %error, "the subscription of a member cannot be read");
                    return None;
                }
            }
        }
        Some(topics)
    }
}

/// The topics of a `ConsumerProtocolSubscription`. All versions begin as version 0 does.
fn read_topics(metadata: &[u8]) -> Result<Vec<&str>, RecordError> {
    let (_, mut subscription) = Reader::new(metadata)?;
    let count = subscription.count(2)?;
    (0..count).map(|_| subscription.string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::records::bytes::Writer;

    #[test]
    fn what_clients_say_is_read_in_every_version() {
        use bytes::BytesMut;
        use kafka_protocol::messages::ConsumerProtocolSubscription;
        use kafka_protocol::protocol::{Encodable, StrBytes};
        let topics = ["t", "other"].map(StrBytes::from_static_str).to_vec();
        let said = ConsumerProtocolSubscription::default().with_topics(topics);
        for version in 0..=3 {
            let mut encoded = BytesMut::new();
            said.encode(&mut encoded, version).unwrap();
            let whole = [&version.to_be_bytes(), &encoded[..]].concat();
            assert_eq!(read_topics(&whole).unwrap(), ["t", "other"], "version {version}");
        }
    }

    #[test]
    fn topics_are_read_and_nothing_is_believed() {
        let mut bytes = Writer::new(3);
        bytes.i32(2);
        bytes.string("a");
        bytes.string("bc");
        bytes.bytes(b"user data, and more that later versions say");
        assert_eq!(read_topics(&bytes.0).unwrap(), ["a", "bc"]);
        for cut in 0..11 {
            assert!(read_topics(&bytes.0[..cut]).is_err(), "{cut}");
        }
        let mut huge = Writer::new(0);
        huge.i32(i32::MAX);
        assert_eq!(read_topics(&huge.0), Err(RecordError::Short));
    }
}
