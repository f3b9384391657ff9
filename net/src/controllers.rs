//! Asking the coordinators from a broker: for a decision, wherever the active controller is, and
//! for what has been decided.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use coordinator::controller::{Reply, Request};
use coordinator::quorum::since::Since;
use coordinator::runtime::Answer;
use engine::ids::{BrokerId, Offset};

use crate::env::NetEnv;
use crate::link::{Link, LinkError};
use crate::wire::ErrorCode;
use crate::wire::control::{ControlRequest, ControlResponse};
use crate::wire::metadata_fetch::{MetadataFetchRequest, MetadataFetchResponse};

/// How long a coordinator may take to accept a connection …
const CONNECT_MAX: Duration = Duration::from_secs(1);
/// … and to decide.
const DECIDE_MAX: Duration = Duration::from_secs(5);
/// How long a request goes from one coordinator to the next before it is given up.
const SEARCH_MAX: Duration = Duration::from_secs(15);
/// Pause when nobody leads.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a coordinator waits for news before it says that there are none.
const NEWS_WAIT: Duration = Duration::from_secs(5);
/// About how many bytes of news come at once.
const NEWS_BYTES_MAX: i32 = 4 << 20;
/// Idle connections that are kept.
const IDLE_LINKS_MAX: usize = 8;

/// The coordinators, from outside.
pub struct Controllers<E: NetEnv> {
    env: E,
    me: BrokerId,
    voters: Vec<(BrokerId, String)>,
    /// Index of the one that led last, or that is tried next.
    leader: Cell<usize>,
    idle: RefCell<Vec<(usize, Link<E>)>>,
}

/// Why nothing is known to be decided.
#[derive(Debug, thiserror::Error)]
pub enum Undecided {
    /// No coordinator leads, or none is reached. Nothing was done.
    #[error("no active controller was found within {SEARCH_MAX:?}")]
    NoController,
    /// The controller was asked and did not answer: it may have been done.
    #[error("the controller did not answer: {0}")]
    Unknown(String),
}

impl<E: NetEnv> Controllers<E> {
    /// Of a broker that asks these voters.
    pub fn new(env: &E, me: BrokerId, voters: Vec<(BrokerId, String)>) -> Controllers<E> {
        assert!(!voters.is_empty(), "a cluster has coordinators");
        Controllers { env: env.clone(), me, voters, leader: Cell::new(0), idle: RefCell::default() }
    }

    /// Somebody says who leads.
    pub fn hint(&self, leader: Option<BrokerId>) {
        let known = self.voters.iter().position(|(id, _)| Some(*id) == leader);
        if let Some(at) = known {
            self.leader.set(at);
        }
    }

    /// Has the active controller decide, wherever it is.
    pub async fn request(&self, request: &Request) -> Result<Answer<Reply>, Undecided> {
        let bytes = request.encode();
        let until = self.env.now().after(SEARCH_MAX);
        while self.env.now() < until {
            let at = self.leader.get();
            let link = match self.link(at).await {
                Ok(link) => link,
                Err(error) => {
                    tracing::debug!(coordinator = %self.voters[at].0, %error, "not reached");
                    self.try_next(at).await;
                    continue;
                }
            };
            if let Some(answer) = self.ask(at, link, &bytes).await? {
                return Ok(answer);
            }
        }
        Err(Undecided::NoController)
    }

    /// Asks one of them; `None`: it does not lead.
    async fn ask(
        &self,
        at: usize,
        mut link: Link<E>,
        request: &[u8],
    ) -> Result<Option<Answer<Reply>>, Undecided> {
        let unknown = |error: LinkError| Undecided::Unknown(error.to_string());
        let answer = match link.call(&ControlRequest { request }, 0, DECIDE_MAX).await {
            Ok(answer) => answer,
            Err(error) => {
                self.leader.set((at + 1) % self.voters.len());
                return Err(unknown(error));
            }
        };
        let response: ControlResponse<'_> = answer.decode(0).map_err(unknown)?;
        let (leader, error_code) = (BrokerId(response.leader_id), response.error_code);
        let found = (error_code == ErrorCode::None).then(|| {
            let at = Offset::from_wire(response.at).unwrap_or(Offset::ZERO);
            Reply::decode(&response.answer).map(|reply| Answer { reply, at })
        });
        self.give_back(at, link);
        match found {
            Some(Ok(answer)) => Ok(Some(answer)),
            Some(Err(error)) => Err(Undecided::Unknown(error.to_string())),
            None => {
                let known = self.voters.iter().position(|(id, _)| *id == leader);
                match known.filter(|&known| known != at && error_code == ErrorCode::NotController) {
                    Some(known) => self.leader.set(known),
                    None => self.try_next(at).await,
                }
                Ok(None)
            }
        }
    }

    async fn try_next(&self, at: usize) {
        self.leader.set((at + 1) % self.voters.len());
        self.env.sleep_until(self.env.now().after(PAUSE)).await;
    }

    async fn link(&self, at: usize) -> Result<Link<E>, LinkError> {
        let idle = {
            let mut idle = self.idle.borrow_mut();
            let found = idle.iter().position(|(of, _)| *of == at);
            found.map(|found| idle.swap_remove(found).1)
        };
        match idle {
            // One that died while it was idle says so when it is used; nothing is known then of
            // what it was to decide. So it is looked at before.
            Some(link) if link.is_quiet().await => Ok(link),
            _ => Link::connect(&self.env, &self.voters[at].1, CONNECT_MAX).await,
        }
    }

    fn give_back(&self, at: usize, link: Link<E>) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < IDLE_LINKS_MAX {
            idle.push((at, link));
        }
    }

    /// What was committed since `from`: waits for some seconds for news. Asks voter number
    /// `nth % voters`, on a connection of its own that is kept in `link`.
    pub async fn since(
        &self,
        nth: usize,
        link: &mut Option<Link<E>>,
        from: Offset,
    ) -> Result<Since, LinkError> {
        let mut open = match link.take() {
            Some(open) => open,
            None => {
                let (_, address) = &self.voters[nth % self.voters.len()];
                Link::connect(&self.env, address, CONNECT_MAX).await?
            }
        };
        let request = MetadataFetchRequest {
            broker_id: self.me.0,
            from: from.to_wire(),
            max_wait_ms: NEWS_WAIT.as_millis() as i32,
            max_bytes: NEWS_BYTES_MAX,
        };
        let answer = open.call(&request, 0, NEWS_WAIT + DECIDE_MAX).await?;
        let response: MetadataFetchResponse<'_> = answer.decode(0)?;
        if response.error_code != ErrorCode::None {
            let why = format!("{:?}", response.error_code);
            return Err(LinkError::Io(std::io::Error::other(why)));
        }
        let since = Since::decode(&response.since);
        let since = since.map_err(|error| LinkError::Io(std::io::Error::other(error)))?;
        *link = Some(open);
        Ok(since)
    }
}
