//! The few facts that a voter must never forget: who it is, how it voted, where its log begins.
//!
//! Two files are written in turns; the larger sequence number of those that are whole counts, so
//! that a torn write leaves the one before. Both have their room from the start: a full device
//! cannot keep a node from voting.

use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use engine::env::{Env, File, Open, Persist, block_of};
use engine::ids::BrokerId;
use openraft::async_runtime::Mutex;
use rkyv::{Archive, Deserialize, Serialize};

use super::layout::{LogIdV1, VoteV1, seal, unseal};
use super::mutant::Mutant;
use super::runtime::Lock;
use super::types::{Directory, LogId, Vote};

const MAGIC: &[u8; 4] = b"RBqf";
const VERSION: u32 = 1;
/// The two files.
const SLOTS: [&str; 2] = ["facts.a", "facts.b"];
/// Room of each, in bytes: a cluster's name and a handful of peers are far less.
const SLOT_BYTES: u64 = 16 << 10;

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
struct FactsV1 {
    sequence: u64,
    me: i32,
    directory: [u8; 16],
    cluster: Option<String>,
    vote: Option<VoteV1>,
    committed: Option<LogIdV1>,
    purged: Option<LogIdV1>,
    truncations: u64,
    peers: Vec<(i32, [u8; 16])>,
}

/// What a directory says, or is to say.
pub(super) struct Facts<E: Env>(Rc<Inner<E>>);

impl<E: Env> Clone for Facts<E> {
    fn clone(&self) -> Self {
        Facts(self.0.clone())
    }
}

struct Inner<E: Env> {
    env: E,
    files: [E::File; 2],
    now: RefCell<FactsV1>,
    /// One write at a time.
    writing: Lock<()>,
    mutant: Option<Mutant>,
}

/// Why the facts of a directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FactsError {
    /// The device said no.
    #[error("{}: {error}", path.display())]
    Io {
        /// What was being used.
        path: PathBuf,
        /// What went wrong.
        error: io::Error,
    },
    /// They are gone although the rest is there: the node might vote twice.
    #[error("{} holds a log or snapshots, but not how this node voted", path.display())]
    Gone {
        /// The directory.
        path: PathBuf,
    },
    /// Another node wrote here.
    #[error("{} belongs to node {owner}, not to node {me}", path.display())]
    OtherNode {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        owner: BrokerId,
        /// Who wants it.
        me: BrokerId,
    },
    /// It belongs to another cluster.
    #[error("{} belongs to cluster {found}, not to cluster {expected}", path.display())]
    OtherCluster {
        /// The directory.
        path: PathBuf,
        /// Which it belongs to.
        found: String,
        /// Which it was expected to belong to.
        expected: String,
    },
}

/// Whose directory it is to be.
pub(super) struct Owner<'a> {
    pub me: BrokerId,
    pub cluster: Option<&'a str>,
}

impl<E: Env> Facts<E> {
    /// The facts in `dir`, or new ones: then `created` is true. The directory exists.
    pub async fn open(
        env: &E,
        dir: &Path,
        owner: Owner<'_>,
        mutant: Option<Mutant>,
    ) -> Result<(Facts<E>, bool), FactsError> {
        let io = |error| FactsError::Io { path: dir.to_owned(), error };
        let found = newest(env, dir).await.map_err(io)?;
        let (me, path) = (owner.me, dir.to_owned());
        if let Some(now) = found {
            if now.me != me.0 {
                return Err(FactsError::OtherNode { path, owner: BrokerId(now.me), me });
            }
            if let (Some(found), Some(expected)) = (&now.cluster, owner.cluster)
                && found != expected
            {
                let (found, expected) = (found.clone(), expected.to_owned());
                return Err(FactsError::OtherCluster { path, found, expected });
            }
            let name = owner.cluster.filter(|_| now.cluster.is_none());
            let facts = Facts::on(env, dir, now, mutant).await.map_err(io)?;
            if let Some(name) = name {
                facts.update(|facts| facts.cluster = Some(name.to_owned())).await.map_err(io)?;
            }
            return Ok((facts, false));
        }
        let others = env.list(dir).await.map_err(io)?;
        if others.iter().any(|entry| entry.name.starts_with("snapshot.") || entry.name == "log") {
            return Err(FactsError::Gone { path });
        }
        let words = [env.random().to_le_bytes(), env.random().to_le_bytes()];
        let now = FactsV1 {
            sequence: 0,
            me: me.0,
            directory: words.as_flattened().try_into().expect("sixteen bytes"),
            cluster: owner.cluster.map(str::to_owned),
            vote: None,
            committed: None,
            purged: None,
            truncations: 0,
            peers: Vec::new(),
        };
        let facts = Facts::on(env, dir, now, mutant).await.map_err(io)?;
        facts.update(|_| ()).await.map_err(io)?;
        Ok((facts, true))
    }

    /// Opens both files, and makes those that are not there.
    async fn on(env: &E, dir: &Path, now: FactsV1, mutant: Option<Mutant>) -> io::Result<Facts<E>> {
        let files = [slot(env, &dir.join(SLOTS[0])).await?, slot(env, &dir.join(SLOTS[1])).await?];
        // Also when they were there: their names may not have been durable.
        env.sync_dir(dir).await?;
        let facts = Facts(Rc::new(Inner {
            env: env.clone(),
            files,
            now: now.into(),
            writing: Lock::new(()),
            mutant,
        }));
        if facts.has(Mutant::VoteForgotten) {
            facts.0.now.borrow_mut().vote = None;
        }
        Ok(facts)
    }

    fn has(&self, mutant: Mutant) -> bool {
        self.0.mutant == Some(mutant)
    }

    /// Changes facts; they are durable when this returns. An error is final: what the device holds
    /// is not known then.
    async fn update(&self, change: impl FnOnce(&mut FactsV1)) -> io::Result<()> {
        self.write(change, Persist::Synced).await
    }

    async fn write(&self, change: impl FnOnce(&mut FactsV1), how: Persist) -> io::Result<()> {
        let inner = &self.0;
        let writing = inner.writing.lock().await;
        let (bytes, sequence) = {
            let mut now = inner.now.borrow_mut();
            change(&mut now);
            now.sequence += 1;
            (seal(MAGIC, VERSION, &*now), now.sequence)
        };
        if bytes.len() as u64 > SLOT_BYTES {
            return Err(io::Error::other("the facts of this voter are too many"));
        }
        let block = block_of(&inner.env, &bytes);
        let file = &inner.files[(sequence % 2) as usize];
        file.write_at(Rc::new(block), 0, how).await?;
        drop(writing);
        Ok(())
    }

    /// How this node voted, durable.
    pub fn vote(&self) -> Option<Vote> {
        self.0.now.borrow().vote.map(Vote::from)
    }

    /// Saves how this node votes; it may be told when this returns.
    pub async fn save_vote(&self, vote: &Vote) -> io::Result<()> {
        let vote = VoteV1::from(vote);
        let how = match self.has(Mutant::VoteUnsynced) {
            true => Persist::Written,
            false => Persist::Synced,
        };
        self.write(|facts| facts.vote = Some(vote), how).await
    }

    /// What was known to be committed when something else was last saved; later, more may be.
    pub fn committed(&self) -> Option<LogId> {
        self.0.now.borrow().committed.map(LogId::from)
    }

    /// Remembers what is committed with the next fact that is saved.
    pub fn note_committed(&self, committed: Option<LogId>) {
        self.0.now.borrow_mut().committed = committed.as_ref().map(LogIdV1::from);
    }

    /// Below and including this, the log holds nothing.
    pub fn purged(&self) -> Option<LogId> {
        self.0.now.borrow().purged.map(LogId::from)
    }

    /// The log lets go of what is below and including this.
    pub async fn save_purged(&self, purged: &LogId) -> io::Result<()> {
        let purged = LogIdV1::from(purged);
        self.update(|facts| facts.purged = Some(purged)).await
    }

    /// How often the log was cut before now.
    pub fn truncations(&self) -> u64 {
        self.0.now.borrow().truncations
    }

    /// The log is about to be cut.
    pub async fn save_truncation(&self) -> io::Result<()> {
        self.update(|facts| facts.truncations += 1).await
    }

    /// Which directory this is.
    pub fn directory(&self) -> Directory {
        Directory(self.0.now.borrow().directory)
    }

    /// The cluster's name, where it has one.
    pub fn cluster(&self) -> Option<String> {
        self.0.now.borrow().cluster.clone()
    }

    /// The directory that a peer was first met with.
    pub fn peer(&self, id: BrokerId) -> Option<Directory> {
        let now = self.0.now.borrow();
        now.peers.iter().find(|(peer, _)| *peer == id.0).map(|(_, dir)| Directory(*dir))
    }

    /// How many peers are remembered.
    pub fn peers(&self) -> usize {
        self.0.now.borrow().peers.len()
    }

    /// Remembers a peer's directory; `None` forgets it.
    pub async fn save_peer(&self, id: BrokerId, directory: Option<Directory>) -> io::Result<()> {
        self.update(|facts| {
            facts.peers.retain(|(peer, _)| *peer != id.0);
            facts.peers.extend(directory.map(|directory| (id.0, directory.0)));
        })
        .await
    }
}

/// One of the files, ready to be written.
async fn slot<E: Env>(env: &E, path: &Path) -> io::Result<E::File> {
    let file = match env.open(path, Open::Write).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            env.open(path, Open::Create).await?
        }
        file => file?,
    };
    if file.len().await? < SLOT_BYTES {
        file.allocate(0, SLOT_BYTES).await?;
        file.sync().await?;
    }
    Ok(file)
}

/// The newest whole facts, durable now.
async fn newest<E: Env>(env: &E, dir: &Path) -> io::Result<Option<FactsV1>> {
    let mut newest: Option<(FactsV1, E::File)> = None;
    for name in SLOTS {
        let file = match env.open(&dir.join(name), Open::Read).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            file => file?,
        };
        let bytes = file.read_at(0, SLOT_BYTES as usize).await?;
        let Ok(found) = unseal::<FactsV1>(MAGIC, VERSION, &bytes) else { continue };
        if newest.as_ref().is_none_or(|(newest, _)| newest.sequence < found.sequence) {
            newest = Some((found, file));
        }
    }
    let Some((facts, file)) = newest else { return Ok(None) };
    // A process that was killed may have left it written and not flushed.
    file.sync().await?;
    Ok(Some(facts))
}
