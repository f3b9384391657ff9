//! Incremental fetch sessions (KIP-227), pure: the broker remembers what a client reads, so that a
//! request names only what changed and an answer holds only what is new. Kafka's `FetchSession`.
//!
//! One table per shard. A session found on no other shard is answered as unknown, and the client
//! begins a new one: sessions are a saving, never a promise.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use engine::ids::{LeaderEpoch, TopicId};
use engine::time::Instant;

/// Partitions that one session may hold.
pub const SESSION_PARTITIONS_MAX: usize = 100_000;
/// A session that was not used for so long makes room for a new one
/// (`min.incremental.fetch.session.eviction.ms`).
const EVICTABLE_AFTER: Duration = Duration::from_secs(120);

/// A topic as the client names it: by name up to version 12, by id from 13 on.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum TopicKey {
    /// By name.
    Name(Rc<str>),
    /// By id.
    Id(TopicId),
}

/// A partition as the client names it.
pub type Key = (TopicKey, i32);

/// What a client wants of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    /// First offset to read; negative ones are refused later.
    pub offset: i64,
    /// About how many bytes at most.
    pub bytes_max: i32,
    /// The epoch that the client believes in.
    pub leader_epoch: Option<LeaderEpoch>,
    /// The epoch of the last record that it has.
    pub last_fetched_epoch: Option<LeaderEpoch>,
}

/// What was last told about one partition; a difference is news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The high watermark.
    pub high_watermark: i64,
    /// First readable offset.
    pub log_start: i64,
}

struct Session {
    /// What the next request has to carry.
    epoch: i32,
    partitions: BTreeMap<Key, (Want, Option<Seen>)>,
    used: Instant,
    /// Where the next answer begins, so that a byte limit starves nobody.
    rotation: usize,
}

/// The sessions of one shard.
pub struct Sessions {
    sessions: BTreeMap<i32, Session>,
    sessions_max: usize,
}

/// Why a session cannot be used; the client begins a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// It is not known here (any more).
    #[error("fetch session {0} is not known here")]
    Unknown(i32),
    /// The request is not the next one.
    #[error("the fetch session expects epoch {expected}, not {found}")]
    Epoch {
        /// The epoch of the request.
        found: i32,
        /// The epoch that it should have.
        expected: i32,
    },
    /// It names topics the other way than the session was begun.
    #[error("the session names topics by id, the request by name, or the other way round")]
    TopicIds,
}

/// What one request reads.
#[derive(Debug)]
pub struct Plan {
    /// The session that the answer names; 0 for none.
    pub session: i32,
    /// Whether only news is answered.
    pub incremental: bool,
    /// The partitions, in the order in which the byte limit is spent.
    pub wants: Vec<(Key, Want)>,
}

impl Sessions {
    /// An empty table for at most `sessions_max`.
    pub fn new(sessions_max: usize) -> Sessions {
        Sessions { sessions: BTreeMap::new(), sessions_max }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// What a request reads: `id` and `epoch` are its session fields, `random` a fresh number.
    pub fn plan(
        &mut self,
        now: Instant,
        (id, epoch): (i32, i32),
        wants: Vec<(Key, Want)>,
        forgotten: impl Iterator<Item = Key>,
        random: u64,
    ) -> Result<Plan, SessionError> {
        if epoch <= 0 {
            self.sessions.remove(&id);
            let session = if epoch == 0 { self.begin(now, &wants, random) } else { 0 };
            return Ok(Plan { session, incremental: false, wants });
        }
        let session = self.sessions.get_mut(&id).ok_or(SessionError::Unknown(id))?;
        if session.epoch != epoch {
            return Err(SessionError::Epoch { found: epoch, expected: session.epoch });
        }
        let by_id = |key: &Key| matches!(key.0, TopicKey::Id(_));
        let known = session.partitions.first_key_value().map(|(key, _)| by_id(key));
        if known.is_some_and(|known| wants.iter().any(|(key, _)| by_id(key) != known)) {
            return Err(SessionError::TopicIds);
        }
        session.epoch = if epoch == i32::MAX { 1 } else { epoch + 1 };
        session.used = now;
        for key in forgotten {
            session.partitions.remove(&key);
        }
        for (key, want) in wants {
            if session.partitions.len() >= SESSION_PARTITIONS_MAX
                && !session.partitions.contains_key(&key)
            {
                self.sessions.remove(&id);
                return Err(SessionError::Unknown(id));
            }
            session.partitions.entry(key).or_insert((want, None)).0 = want;
        }
        let mut wants: Vec<_> =
            session.partitions.iter().map(|(key, (want, _))| (key.clone(), *want)).collect();
        if !wants.is_empty() {
            session.rotation = (session.rotation + 1) % wants.len();
            wants.rotate_left(session.rotation);
        }
        Ok(Plan { session: id, incremental: true, wants })
    }

    /// Notes what is about to be told of a partition; answers whether that is news.
    pub fn is_news(&mut self, session: i32, key: &Key, seen: Seen) -> bool {
        let Some(session) = self.sessions.get_mut(&session) else { return true };
        match session.partitions.get_mut(key) {
            Some((_, known)) => known.replace(seen) != Some(seen),
            None => true,
        }
    }

    /// Whether telling this would be news, without noting it.
    pub fn would_be_news(&self, session: i32, key: &Key, seen: Seen) -> bool {
        let known = self.sessions.get(&session).and_then(|session| session.partitions.get(key));
        known.is_none_or(|(_, known)| *known != Some(seen))
    }

    fn begin(&mut self, now: Instant, wants: &[(Key, Want)], random: u64) -> i32 {
        if wants.is_empty() || wants.len() > SESSION_PARTITIONS_MAX {
            return 0;
        }
        if self.sessions.len() >= self.sessions_max {
            let idlest = self.sessions.iter().min_by_key(|(id, session)| (session.used, **id));
            let Some((&idlest, session)) = idlest else { return 0 };
            if now.since(session.used) < EVICTABLE_AFTER {
                return 0;
            }
            self.sessions.remove(&idlest);
        }
        // Never 0; taken ones are stepped over.
        let mut id = ((random as i32) & i32::MAX).max(1);
        while self.sessions.contains_key(&id) {
            id = if id == i32::MAX { 1 } else { id + 1 };
        }
        let partitions = wants.iter().map(|(key, want)| (key.clone(), (*want, None))).collect();
        self.sessions.insert(id, Session { epoch: 1, partitions, used: now, rotation: 0 });
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn want(offset: i64) -> Want {
        Want { offset, bytes_max: 100, leader_epoch: None, last_fetched_epoch: None }
    }

    fn key(index: i32) -> Key {
        (TopicKey::Name("t".into()), index)
    }

    fn at(seconds: u64) -> Instant {
        Instant::ZERO.after(Duration::from_secs(seconds))
    }

    #[test]
    fn a_session_remembers_changes_and_forgets_what_it_is_told_to() {
        let mut sessions = Sessions::new(2);
        let all = vec![(key(0), want(0)), (key(1), want(0))];
        let plan = sessions.plan(at(0), (0, 0), all, [].into_iter(), 7).unwrap();
        assert!(!plan.incremental && plan.session != 0 && plan.wants.len() == 2);
        let id = plan.session;

        let plan = sessions.plan(at(1), (id, 1), vec![(key(1), want(9))], [].into_iter(), 0);
        let mut wants = plan.unwrap().wants;
        wants.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(wants, [(key(0), want(0)), (key(1), want(9))]);

        let wrong = sessions.plan(at(1), (id, 1), vec![], [].into_iter(), 0);
        assert_eq!(wrong.unwrap_err(), SessionError::Epoch { found: 1, expected: 2 });
        let plan = sessions.plan(at(1), (id, 2), vec![], [key(0)].into_iter(), 0).unwrap();
        assert_eq!(plan.wants, [(key(1), want(9))]);

        let by_id = (TopicKey::Id(TopicId::random(1, 2)), 0);
        let other = sessions.plan(at(1), (id, 3), vec![(by_id, want(0))], [].into_iter(), 0);
        assert_eq!(other.unwrap_err(), SessionError::TopicIds);

        let closing = sessions.plan(at(1), (id, -1), vec![], [].into_iter(), 0).unwrap();
        assert_eq!(closing.session, 0);
        assert!(sessions.is_empty());
        let gone = sessions.plan(at(1), (id, 4), vec![], [].into_iter(), 0);
        assert_eq!(gone.unwrap_err(), SessionError::Unknown(id));
    }

    #[test]
    fn only_news_is_news() {
        let mut sessions = Sessions::new(1);
        let all = vec![(key(0), want(0))];
        let id = sessions.plan(at(0), (0, 0), all, [].into_iter(), 7).unwrap().session;
        let seen = Seen { high_watermark: 5, log_start: 0 };
        assert!(sessions.is_news(id, &key(0), seen));
        assert!(!sessions.is_news(id, &key(0), seen));
        assert!(sessions.is_news(id, &key(0), Seen { high_watermark: 6, ..seen }));
    }

    #[test]
    fn a_full_table_gives_no_session_unless_one_is_idle() {
        let mut sessions = Sessions::new(1);
        let all = || vec![(key(0), want(0))];
        let first = sessions.plan(at(0), (0, 0), all(), [].into_iter(), 7).unwrap().session;
        assert_ne!(first, 0);
        let plan = sessions.plan(at(100), (0, 0), all(), [].into_iter(), 7).unwrap();
        assert_eq!((plan.session, plan.wants.len()), (0, 1), "served without a session");
        let second = sessions.plan(at(121), (0, 0), all(), [].into_iter(), 7).unwrap().session;
        assert_ne!(second, 0);
        assert_eq!(sessions.len(), 1);
    }
}
