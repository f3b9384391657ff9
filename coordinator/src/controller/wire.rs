//! The controller's requests and replies as bytes, so that a broker can ask the active controller
//! on another node.
//!
//! A message is an rkyv archive of a layout struct (plain numbers and strings) behind a magic, the
//! layout's version, its length and its CRC-32C. It is checked before it is believed, and what is
//! made of it is in proportion to its own length, whatever it says. Layouts are never changed, only
//! succeeded; a node that does not know a version says so ([`SealError::Unknown`]) and does
//! nothing.
//!
//! Only well-formedness is checked here. Whether what is asked makes sense the controller decides,
//! as for a request of its own node.

use super::{Reply, Request};
use crate::quorum::SealError;
use crate::quorum::layout::{seal, unseal};
use plain::Plain;

mod plain;
mod reply;
mod request;

const REQUEST_MAGIC: &[u8; 4] = b"RBcq";
const REPLY_MAGIC: &[u8; 4] = b"RBcr";
/// The layout that is written, and the only one so far.
const VERSION: u32 = 1;

impl Request {
    /// The request as bytes, for a controller on another node.
    pub fn encode(&self) -> Vec<u8> {
        seal(REQUEST_MAGIC, VERSION, &self.plain())
    }

    /// What [`Request::encode`] made; bytes after it are not looked at. Fails for anything else,
    /// for a version that this release does not know, and for bytes that were damaged.
    pub fn decode(bytes: &[u8]) -> Result<Request, SealError> {
        Request::of(unseal(REQUEST_MAGIC, VERSION, bytes)?).map_err(SealError::Corrupt)
    }
}

impl Reply {
    /// The reply as bytes, for a broker on another node.
    pub fn encode(&self) -> Vec<u8> {
        seal(REPLY_MAGIC, VERSION, &self.plain())
    }

    /// What [`Reply::encode`] made; fails as [`Request::decode`] does.
    pub fn decode(bytes: &[u8]) -> Result<Reply, SealError> {
        Reply::of(unseal(REPLY_MAGIC, VERSION, bytes)?).map_err(SealError::Corrupt)
    }
}
