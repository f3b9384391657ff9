//! A member of a classic group.

use std::rc::Rc;
use std::time::Duration;

use crate::group::records::MemberValue;
use crate::group::request::{Join, Protocol};
use crate::machine::Token;

/// A member.
pub struct Member {
    /// Its `group.instance.id`: it is static.
    pub instance: Option<String>,
    /// The client's id.
    pub client_id: String,
    /// Where the client is.
    pub client_host: String,
    /// How long it may take to rejoin, in milliseconds; as the client says, so perhaps negative.
    pub rebalance_ms: i32,
    /// How long it may be silent, in milliseconds; within the broker's bounds when it joined.
    pub session_ms: i32,
    /// What it can do, best first.
    pub protocols: Vec<Protocol>,
    /// What the leader gave it.
    pub assignment: Rc<[u8]>,
    /// It waits for the next generation.
    pub join: Option<Token>,
    /// It waits for its assignment.
    pub sync: Option<Token>,
    /// It has never been in a generation, and so cannot send heartbeats.
    pub is_new: bool,
}

impl Member {
    /// Who joins.
    pub fn new(join: Join, from: Token) -> Member {
        Member {
            instance: join.instance,
            client_id: join.client_id,
            client_host: join.client_host,
            rebalance_ms: join.rebalance_ms,
            session_ms: join.session_ms,
            protocols: join.protocols,
            assignment: Rc::default(),
            join: Some(from),
            sync: None,
            is_new: true,
        }
    }

    /// A member as it was written down, in a group that agreed on `protocol`.
    pub fn from_value(value: &MemberValue, protocol: String) -> Member {
        Member {
            instance: value.instance.clone(),
            client_id: value.client_id.clone(),
            client_host: value.client_host.clone(),
            rebalance_ms: value.rebalance_ms,
            session_ms: value.session_ms,
            protocols: vec![Protocol { name: protocol, metadata: value.subscription.to_vec() }],
            assignment: value.assignment.clone(),
            join: None,
            sync: None,
            is_new: false,
        }
    }

    /// Whether it can do `protocol`.
    pub fn can(&self, protocol: &str) -> bool {
        self.protocols.iter().any(|own| own.name == protocol)
    }

    /// What it says about itself in `protocol`; nothing if it cannot do it.
    pub fn metadata(&self, protocol: Option<&str>) -> &[u8] {
        let own = self.protocols.iter().find(|own| Some(own.name.as_str()) == protocol);
        own.map_or(&[], |own| &own.metadata)
    }

    /// How long it may be silent.
    pub fn session(&self) -> Duration {
        Duration::from_millis(self.session_ms.max(0).unsigned_abs().into())
    }

    /// It need not send heartbeats, because it waits for an answer. Not so if it never could.
    pub fn is_excused(&self) -> bool {
        !self.is_new && (self.join.is_some() || self.sync.is_some())
    }
}
