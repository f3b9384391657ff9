//! Brokers as the cluster knows them.

use std::collections::BTreeMap;
use std::fmt;

use engine::ids::{BrokerEpoch, BrokerId, Offset, TopicId};

use super::features::FeatureRange;

macro_rules! random_id {
    ($(#[doc = $doc:literal])+ $name:ident) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub u128);

        impl $name {
            /// Not known: what a release that did not keep it left behind.
            pub const UNKNOWN: $name = $name(0);

            /// A new one from two random words; never [`Self::UNKNOWN`].
            pub fn random(random: [u64; 2]) -> $name {
                $name(u128::from_be_bytes(*TopicId::random(random[0], random[1]).bytes()))
            }

            /// As 16 bytes, in the order of the wire.
            pub fn bytes(self) -> [u8; 16] {
                self.0.to_be_bytes()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                TopicId::from_bytes(self.bytes()).fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self}")
            }
        }
    };
}

random_id! {
    /// One run of a broker's process; drawn when it starts (Kafka's `incarnationId`).
    Incarnation
}
random_id! {
    /// One data directory; drawn when it is formatted (Kafka's `directory.id`).
    DirectoryId
}

/// Where clients of one listener reach a broker.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Endpoint {
    /// Name of the listener.
    pub listener: String,
    /// Host name or address that clients resolve.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// One broker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Broker {
    /// Its id.
    pub id: BrokerId,
    /// Its present uptime session.
    pub epoch: BrokerEpoch,
    /// The run of its process that registered.
    pub incarnation: Incarnation,
    /// Its data directory.
    pub directory: DirectoryId,
    /// How it is reached, in the order it listed them; never empty.
    pub endpoints: Vec<Endpoint>,
    /// Where it stands (`broker.rack`).
    pub rack: Option<String>,
    /// Which levels of which features it can do.
    pub features: BTreeMap<String, FeatureRange>,
    /// Whether it is kept from leading and from every ISR with others in it: it has just
    /// registered, or was silent for too long.
    pub fenced: bool,
    /// Metadata offset of its registration; it is unfenced when it has applied that.
    pub registered: Offset,
    /// Metadata offset from which on it is in controlled shutdown.
    pub stopping: Option<Offset>,
}

impl Broker {
    /// Whether it may lead and join: neither fenced nor in controlled shutdown.
    pub fn is_active(&self) -> bool {
        !self.fenced && self.stopping.is_none()
    }
}
