//! What was committed since an offset, for those who hold no vote: entries, or a snapshot when the
//! entries are gone. As bytes it is versioned, checksummed and checked when read.

use std::rc::Rc;

use engine::env::Env;
use engine::ids::{BrokerId, Offset};
use rkyv::{Archive, Deserialize, Serialize};

use super::layout::{SealError, seal, unseal};
use super::memory::Memory;
use super::snapshots::end_of;
use super::types::Payload;
use super::{ProposeError, Quorum};

const MAGIC: &[u8; 4] = b"RBqo";
const VERSION: u32 = 1;

/// What was committed since an offset.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Since {
    /// Who leads, as far as the coordinator that answers knows.
    pub leader: Option<BrokerId>,
    /// The offset that whoever takes it all in has reached.
    pub end: Offset,
    /// What came.
    pub news: News,
}

/// Entries or a snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum News {
    /// The records of each entry from the offset asked for up to `end`; perhaps none.
    Entries(Vec<Vec<Vec<u8>>>),
    /// The picture of everything below `end`: what [`Memory::restore`] takes.
    Snapshot(Rc<[u8]>),
}

#[derive(Archive, Serialize, Deserialize)]
struct SinceV1 {
    leader: Option<i32>,
    end: u64,
    news: NewsV1,
}

#[derive(Archive, Serialize, Deserialize)]
enum NewsV1 {
    Entries(Vec<Vec<Vec<u8>>>),
    Snapshot(Vec<u8>),
}

impl Since {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let news = match &self.news {
            News::Entries(entries) => NewsV1::Entries(entries.clone()),
            News::Snapshot(body) => NewsV1::Snapshot(body.to_vec()),
        };
        let leader = self.leader.map(|leader| leader.0);
        seal(MAGIC, VERSION, &SinceV1 { leader, end: self.end.value(), news })
    }

    /// From bytes.
    pub fn decode(bytes: &[u8]) -> Result<Since, SealError> {
        let since: SinceV1 = unseal(MAGIC, VERSION, bytes)?;
        let news = match since.news {
            NewsV1::Entries(entries) => News::Entries(entries),
            NewsV1::Snapshot(body) => News::Snapshot(body.into()),
        };
        let end = i64::try_from(since.end).ok().and_then(Offset::from_wire);
        let end = end.ok_or_else(|| SealError::Corrupt("its end is no offset".into()))?;
        Ok(Since { leader: since.leader.map(BrokerId), end, news })
    }
}

impl<E: Env, S: Memory> Quorum<E, S> {
    /// What is committed and known here from `offset` on: entries of at most `max_bytes` (one may
    /// be more), or the newest snapshot where the log begins later.
    pub async fn committed_since(
        &self,
        offset: Offset,
        max_bytes: usize,
    ) -> Result<Since, ProposeError> {
        let inner = &self.0;
        let leader = self.leader();
        if offset.value() < inner.log.first().max(inner.state.restored.get()) {
            let newest = inner.snapshots.newest().await;
            let newest = newest.map_err(|error| ProposeError::Ended(error.to_string()))?;
            let gone = || ProposeError::Ended("neither entries nor a snapshot are left".into());
            let newest = newest.ok_or_else(gone)?;
            let end = Offset::new(end_of(&newest.meta));
            return Ok(Since { leader, end, news: News::Snapshot(newest.body) });
        }
        let applied = inner.state.applied.value().max(offset.value());
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for entry in inner.log.read(offset.value()..applied) {
            let records = match &entry.payload {
                Payload::Normal(decided) => decided.records.to_vec(),
                Payload::Blank | Payload::Membership(_) => Vec::new(),
            };
            let more: usize = records.iter().map(Vec::len).sum();
            if !entries.is_empty() && bytes + more > max_bytes {
                break;
            }
            bytes += more;
            entries.push(records);
        }
        let end = Offset::new(offset.value() + entries.len() as u64);
        Ok(Since { leader, end, news: News::Entries(entries) })
    }
}
