//! What a broker without a vote knows: it is told what was committed, and makes images of it. Pure:
//! whoever asks a coordinator ([`crate::metadata::Metadata::committed_since`]) brings the answers.

use std::sync::Arc;

use engine::ids::Offset;

use crate::cluster::Cluster;
use crate::controller::Controller;
use crate::image::Image;
use crate::machine::{Machine, Stored};
use crate::quorum::since::{News, Since};
use crate::records::{DecodeError, Record, snapshot};

/// The cluster as of an offset of the metadata log.
#[derive(Clone, Debug, Default)]
pub struct Observer {
    cluster: Cluster,
    offset: Offset,
}

/// Why an answer was not taken in. Nothing of it was.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// It does not end where its entries do: it is the answer to another question.
    #[error("{entries} entries from {offset} on do not end at {end}")]
    Other {
        /// Where this observer is.
        offset: Offset,
        /// How many came.
        entries: usize,
        /// Where the answer says that they end.
        end: Offset,
    },
    /// A record is none.
    #[error("entry {at}: {error}")]
    Record {
        /// Its offset.
        at: Offset,
        /// What is wrong with it.
        error: DecodeError,
    },
    /// A snapshot is none.
    #[error(transparent)]
    Snapshot(#[from] snapshot::SnapshotError),
}

impl Observer {
    /// From where on it asks: it knows everything below.
    pub fn offset(&self) -> Offset {
        self.offset
    }

    /// Takes in what was committed since [`Observer::offset`]; the picture that this makes, or
    /// `None` when there was nothing new.
    pub fn on_since(&mut self, since: &Since) -> Result<Option<Arc<Image>>, ObserveError> {
        match &since.news {
            News::Entries(entries) => self.on_entries(entries, since.end)?,
            News::Snapshot(body) => self.on_snapshot(body, since.end)?,
        }
        .then(|| Image::new(self.cluster.clone(), self.offset, since.leader))
        .map_or(Ok(None), |image| Ok(Some(Arc::new(image))))
    }

    /// Takes in the records of the entries from its offset up to `end`; whether there were any.
    pub fn on_entries(
        &mut self,
        entries: &[Vec<Vec<u8>>],
        end: Offset,
    ) -> Result<bool, ObserveError> {
        let offset = self.offset;
        if offset.value() + entries.len() as u64 != end.value() {
            return Err(ObserveError::Other { offset, entries: entries.len(), end });
        }
        let mut cluster = self.cluster.clone();
        for (at, records) in (offset.value()..).map(Offset::new).zip(entries) {
            for value in records {
                let record = Record::load(None, Some(value));
                let record = record.map_err(|error| ObserveError::Record { at, error })?;
                Controller::apply(&mut cluster, at, &record);
            }
        }
        self.cluster = cluster;
        self.offset = end;
        Ok(end > offset)
    }

    /// Becomes what a snapshot says, unless it knows as much already.
    pub fn on_snapshot(&mut self, body: &[u8], end: Offset) -> Result<bool, ObserveError> {
        let (cluster, at) = snapshot::decode(body)?;
        if at != end {
            let offset = self.offset;
            return Err(ObserveError::Other { offset, entries: 0, end });
        }
        if end <= self.offset {
            return Ok(false);
        }
        self.cluster = cluster;
        self.offset = end;
        Ok(true)
    }
}
