//! The followers of one shard: a stream to each broker that leads some of its partitions.
//!
//! Each stream has a connection of its own, on which one side sends what the [`Fetcher`] has to say
//! and the other carries answers out, in order. What became durable is told at once: producers of
//! the leader may wait for it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use engine::env::Queue;
use engine::ids::{BrokerEpoch, BrokerId, TopicPartition};
use engine::time::Instant;
use engine::wait::Watch;
use futures_lite::future;
use replication::ask::AnswerPart;
use replication::fetcher::{Delivery, Fetcher};
use replication::partition::Accepted;

use super::{VERSION, decode_answer, encode_ask};
use crate::env::NetEnv;
use crate::link::{Answer, Link, LinkError, Receiving, Sending};
use crate::shard::Shard;
use crate::wire::ErrorCode;
use crate::wire::fetch::FetchResponse;

/// How long a leader may take to accept a connection.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// How long a leader may be silent beyond what the request allows.
const LATE: Duration = Duration::from_secs(3);

/// By leader.
type Upstreams<E> = Rc<RefCell<BTreeMap<BrokerId, Rc<Upstream<E>>>>>;

/// A stream to one leader.
struct Upstream<E: NetEnv> {
    shard: Shard<E>,
    leader: BrokerId,
    fetcher: RefCell<Fetcher>,
    /// Rises when the fetcher may have something to say.
    wake: Watch,
    /// Requests on their way on the present connection.
    sent: RefCell<VecDeque<Sent>>,
    running: Cell<bool>,
    /// What an answer says is being carried out, which must come to its end.
    carrying: Cell<bool>,
}

/// A request on its way.
struct Sent {
    /// Its number on the connection.
    number: i32,
    /// The stream's session.
    session: u64,
    /// Its number in that.
    seq: u64,
    /// When it was sent.
    at: Instant,
}

/// Follows whatever this shard's partitions have to follow, until the shard stops. What may have
/// something for the controller is passed on ([`crate::duties`]).
pub async fn run<E: NetEnv>(shard: Shard<E>) {
    let upstreams: Upstreams<E> = Rc::default();
    loop {
        let count = shard.0.notices.count();
        let seen = count.value();
        let noted = shard.0.notices.take();
        for &id in &noted {
            look(&shard, &upstreams, id);
        }
        if !noted.is_empty() {
            shard.0.asks.borrow_mut().extend(noted);
            shard.0.asking.raise(shard.0.asking.value() + 1);
        }
        let stopping = shard.0.stopping.reach(1);
        let _ = future::or(count.reach(seen + 1), stopping).await;
        if shard.0.stopping.value() > 0 {
            upstreams.borrow().values().for_each(|upstream| upstream.woken());
            return;
        }
        shard.env().turn().await;
    }
}

/// A partition has news, perhaps for a stream.
fn look<E: NetEnv>(shard: &Shard<E>, upstreams: &Upstreams<E>, id: TopicPartition) {
    let partition = shard.0.partitions.opened(id);
    let followed = partition.as_ref().and_then(|partition| partition.followed());
    for (leader, upstream) in &*upstreams.borrow() {
        if followed != Some(*leader) {
            upstream.fetcher.borrow_mut().remove(id);
            upstream.woken();
        }
    }
    let Some(news) = partition.and_then(|partition| partition.follow_news()) else { return };
    let upstream = {
        let mut upstreams = upstreams.borrow_mut();
        let upstream =
            upstreams.entry(news.leader).or_insert_with(|| Upstream::new(shard, news.leader));
        upstream.clone()
    };
    match news.place {
        true => upstream.fetcher.borrow_mut().place(news.standing),
        false => upstream.fetcher.borrow_mut().on_progress(news.standing),
    }
    upstream.woken();
    if !upstream.running.replace(true) {
        shard.env().spawn(Queue::Replication, upstream.run());
    }
}

impl<E: NetEnv> Upstream<E> {
    fn new(shard: &Shard<E>, leader: BrokerId) -> Rc<Upstream<E>> {
        // Room for a billion lost connections before a session number comes again.
        let session = shard.env().random() % (1 << 30);
        Rc::new(Upstream {
            shard: shard.clone(),
            leader,
            fetcher: Fetcher::new(session, shard.options().broker.replication).into(),
            wake: Watch::new(0),
            sent: RefCell::default(),
            running: Cell::new(false),
            carrying: Cell::new(false),
        })
    }

    fn woken(&self) {
        self.wake.raise(self.wake.value() + 1);
    }

    fn is_stopping(&self) -> bool {
        self.shard.0.stopping.value() > 0
    }

    async fn run(self: Rc<Self>) {
        let env = self.shard.env().clone();
        while !self.is_stopping() {
            if self.fetcher.borrow().is_empty() {
                let _ = self.wake.reach(self.wake.value() + 1).await;
                continue;
            }
            let lost = self.connected().await;
            if self.is_stopping() {
                return;
            }
            if let Err(error) = lost {
                tracing::debug!(leader = %self.leader, %error, "a fetch stream was lost");
            }
            self.sent.borrow_mut().clear();
            self.fetcher.borrow_mut().on_lost(env.now());
            let until = self.fetcher.borrow().deadline();
            if let Some(until) = until {
                let stopping = async {
                    let _ = self.shard.0.stopping.reach(1).await;
                };
                future::or(stopping, env.sleep_until(until)).await;
            }
        }
    }

    /// One connection, from its first request to its end.
    async fn connected(&self) -> Result<(), LinkError> {
        let env = self.shard.env();
        let address = self.shard.peer_address(self.leader).ok_or(LinkError::Closed)?;
        let (me, _) = self.registrations();
        let mut over = pin!(async {
            let stopping = async {
                let _ = self.shard.0.stopping.reach(1).await;
            };
            future::or(stopping, self.registered_anew()).await;
        });
        let connecting = async { Some(Link::connect(env, &address, CONNECT_MAX).await) };
        let given_up = async {
            over.as_mut().await;
            None
        };
        let Some(link) = future::or(given_up, connecting).await else { return Ok(()) };
        let (sending, receiving) = link?.split();
        let mut hearing = pin!(self.hear(receiving));
        let over = async {
            over.await;
            Ok(())
        };
        let ended = future::or(over, future::or(self.say(sending, me), hearing.as_mut())).await;
        // A log that is being cut must be told when it is: what was begun is carried out.
        std::future::poll_fn(|cx| match self.carrying.get() {
            true if hearing.as_mut().poll(cx).is_pending() && self.carrying.get() => Poll::Pending,
            _ => Poll::Ready(()),
        })
        .await;
        ended
    }

    /// The broker epochs of both sides.
    fn registrations(&self) -> (BrokerEpoch, BrokerEpoch) {
        let image = self.shard.image();
        let of = |id| image.broker(id).map_or(BrokerEpoch(-1), |broker| broker.epoch);
        (of(self.shard.options().me), of(self.leader))
    }

    /// Waits until one of the two has registered anew. What this broker promised in another
    /// registration does not count any more; and a leader that was started anew, perhaps after a
    /// power cut, knows nothing of the connection.
    async fn registered_anew(&self) {
        let (offset, before) = (&self.shard.0.image_offset, self.registrations());
        while self.registrations() == before {
            let _ = offset.reach(offset.value() + 1).await;
        }
    }

    /// Sends what there is to say.
    async fn say(&self, mut sending: Sending<E>, epoch: BrokerEpoch) -> Result<(), LinkError> {
        let env = self.shard.env();
        let me = self.shard.options().me;
        loop {
            let seen = self.wake.value();
            loop {
                let Some(ask) = self.fetcher.borrow_mut().next(env.now()) else { break };
                let number = sending.take_number();
                let (session, seq, at) = (ask.session, ask.seq, env.now());
                self.sent.borrow_mut().push_back(Sent { number, session, seq, at });
                sending.send(encode_ask(&ask, me, epoch, number)).await?;
            }
            let woken = async {
                let _ = self.wake.reach(seen + 1).await;
            };
            let until = self.fetcher.borrow().deadline();
            match until {
                None => woken.await,
                Some(until) => future::or(woken, env.sleep_until(until)).await,
            }
        }
    }

    /// Carries answers out.
    async fn hear(&self, mut receiving: Receiving<E>) -> Result<(), LinkError> {
        loop {
            let answer = self.answer(&mut receiving).await?;
            let due = self.sent.borrow_mut().pop_front();
            let Some(Sent { number, session, seq, .. }) = due else {
                return Err(LinkError::Closed);
            };
            answer.expect(number)?;
            let response: FetchResponse<'_> = answer.decode(VERSION)?;
            if response.error_code != ErrorCode::None {
                let why = format!("{:?}", response.error_code);
                return Err(LinkError::Io(std::io::Error::other(why)));
            }
            let parts = decode_answer(&response);
            let deliveries = self.fetcher.borrow_mut().on_answer(session, seq, parts);
            let deliveries =
                deliveries.map_err(|error| LinkError::Io(std::io::Error::other(error)))?;
            // The next request goes on where this answer ends, before it is carried out.
            self.woken();
            self.carrying.set(true);
            self.carry_all_out(&deliveries).await;
            self.carrying.set(false);
            self.woken();
        }
    }

    /// The next answer. A leader is silent for too long only when an answer is due.
    async fn answer(&self, receiving: &mut Receiving<E>) -> Result<Answer, LinkError> {
        let env = self.shard.env();
        let within = self.shard.options().broker.replication.fetch_wait_max + LATE;
        loop {
            let silent = match receiving.next(within).await {
                Err(error @ LinkError::TimedOut(_)) => error,
                answer => return answer,
            };
            let sent = self.sent.borrow().front().map(|sent| sent.at);
            if sent.is_some_and(|at| at.after(within) <= env.now()) {
                return Err(silent);
            }
        }
    }

    /// Carries out what one answer says, all of it before the next answer is looked at: so each
    /// partition gets its own in their order. Those that wait for the device do so together.
    async fn carry_all_out(&self, deliveries: &[Delivery<&[u8]>]) {
        let mut waiting = Vec::new();
        for delivery in deliveries {
            let mut one = Box::pin(self.carry_out(delivery));
            if future::poll_once(one.as_mut()).await.is_none() {
                waiting.push(one);
            }
            self.shard.env().turn().await;
        }
        std::future::poll_fn(|cx| {
            waiting.retain_mut(|one| one.as_mut().poll(cx).is_pending());
            if waiting.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    async fn carry_out(&self, delivery: &Delivery<&[u8]>) {
        let AnswerPart { id, .. } = delivery.answer;
        let Some(partition) = self.shard.0.partitions.opened(id) else {
            return self.fetcher.borrow_mut().remove(id);
        };
        let accepted = partition.accept(delivery).await;
        let now = self.shard.env().now();
        let mut fetcher = self.fetcher.borrow_mut();
        // What follows somebody else by now is not this stream's.
        if partition.followed() != Some(self.leader) {
            return fetcher.remove(id);
        }
        match accepted {
            Accepted::Ignored => {}
            Accepted::Taken(standing) => fetcher.on_progress(standing),
            Accepted::Place(standing) => fetcher.place(standing),
            Accepted::BackOff(standing, pause) => fetcher.place_at(standing, now.after(pause)),
        }
    }
}
