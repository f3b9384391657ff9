//! This broker as a member of its cluster: it registers, tells the controller that it is there, and
//! takes its leave.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use coordinator::cluster::{DirectoryId, Incarnation};
use coordinator::controller::{
    Heartbeat, Loss, Pulse, Refusal, Registered, Registration, Reply, Request, Why,
};
use engine::env::Queue;
use engine::ids::{BrokerEpoch, Offset};
use engine::wait::Watch;
use futures_lite::future;

use crate::env::NetEnv;
use crate::metadata::{Council, StartError};
use crate::shard::Shard;

/// How long a broker that cannot reach the controller at its start tries again.
const REGISTER_PAUSE: Duration = Duration::from_millis(200);
/// How long the others may take to lead in this broker's place when it stops.
const LEAVE_MAX: Duration = Duration::from_secs(20);
/// Heartbeats that may wait for their answers: each is held until what it led to is committed.
const PULSES_MAX: usize = 16;

/// A registered broker. Cloning shares it.
pub struct Membership<E: NetEnv>(Rc<Inner<E>>);

impl<E: NetEnv> Clone for Membership<E> {
    fn clone(&self) -> Self {
        Membership(self.0.clone())
    }
}

struct Inner<E: NetEnv> {
    shard: Shard<E>,
    council: Council<E>,
    registration: Registration,
    epoch: Cell<BrokerEpoch>,
    pulses: Cell<usize>,
    leaving: Cell<bool>,
    /// Raised to 1 when the controller lets this broker go.
    free: Watch,
    /// Raised to 1 when it is unfenced for the first time.
    active: Watch,
}

impl<E: NetEnv> Membership<E> {
    /// Registers this broker, and goes on trying while no controller is reached. Answers the
    /// offset at which pictures show the registration.
    pub async fn register(
        shard: &Shard<E>,
        council: &Council<E>,
    ) -> Result<(Membership<E>, Offset), StartError> {
        let (env, options) = (shard.env(), shard.options());
        let quorum = options.quorum.as_ref();
        let registration = Registration {
            incarnation: Incarnation::random([env.random(), env.random()]),
            directory: quorum.map_or(DirectoryId::UNKNOWN, |quorum| quorum.directory),
            features: BTreeMap::new(),
            lost: quorum.map_or(Loss::Nothing, |quorum| quorum.lost),
            id: options.me,
            endpoints: options.broker.advertised.clone(),
            rack: options.broker.rack.clone(),
            cluster: Some(options.cluster.clone()),
        };
        let membership = Membership(Rc::new(Inner {
            shard: shard.clone(),
            council: council.clone(),
            registration,
            epoch: Cell::new(BrokerEpoch(-1)),
            pulses: Cell::new(0),
            leaving: Cell::new(false),
            free: Watch::new(0),
            active: Watch::new(0),
        }));
        loop {
            match membership.register_once().await {
                Some(Ok((_, at))) => return Ok((membership, at)),
                // The session of whoever had this id may still be valid.
                Some(Err(refusal)) if refusal.why != Why::DuplicateBroker => {
                    return Err(StartError::Refused(refusal.message));
                }
                Some(Err(refusal)) => tracing::warn!(why = refusal.message, "not registered yet"),
                None if shard.options().quorum.is_none() => {
                    return Err(StartError::Refused("the controller did not answer".into()));
                }
                None => tracing::info!("no controller is reached yet; trying again"),
            }
            env.sleep_until(env.now().after(REGISTER_PAUSE)).await;
            if shard.0.stopping.value() > 0 {
                return Err(StartError::Refused("stopped before it could join".into()));
            }
        }
    }

    async fn register_once(&self) -> Option<Result<(Registered, Offset), Refusal>> {
        let inner = &self.0;
        let request = Request::RegisterBroker(inner.registration.clone());
        let answer = inner.council.request(request).await?;
        match answer.reply {
            Reply::Registered(Ok(registered)) => {
                inner.epoch.set(registered.epoch);
                tracing::info!(epoch = %registered.epoch, cluster = %registered.cluster,
                    "registered");
                Some(Ok((registered, answer.at)))
            }
            Reply::Registered(Err(refusal)) => Some(Err(refusal)),
            _ => None,
        }
    }

    /// This broker's present uptime session.
    pub fn epoch(&self) -> BrokerEpoch {
        self.0.epoch.get()
    }

    /// Tells the controller once that it is there, and waits for the answer: this broker has seen
    /// its registration, so that it may lead from now on.
    pub async fn appear(&self) {
        self.pulse().await;
    }

    /// Waits until the controller counts on this broker: it has been unfenced once.
    pub async fn active(&self) {
        let _ = self.0.active.reach(1).await;
    }

    /// Tells the controller that it is there, at a fixed rate, until the shard has stopped.
    pub fn begin(&self) {
        let membership = self.clone();
        self.0.shard.env().spawn(Queue::Request, async move { membership.beat().await });
    }

    async fn beat(&self) {
        let shard = &self.0.shard;
        let Some(every) = shard.options().quorum.as_ref().map(|quorum| quorum.heartbeat) else {
            return;
        };
        while self.0.free.value() == 0 && !self.0.free.is_closed() {
            if self.0.pulses.get() < PULSES_MAX {
                let membership = self.clone();
                shard.env().spawn(Queue::Request, async move { membership.pulse().await });
            }
            let due = shard.env().sleep_until(shard.env().now().after(every));
            let freed = async {
                let _ = self.0.free.reach(1).await;
            };
            future::or(due, freed).await;
        }
    }

    async fn pulse(&self) {
        let inner = &self.0;
        let epoch = inner.epoch.get();
        let heartbeat = Heartbeat {
            broker: inner.registration.id,
            epoch,
            reached: Offset::new(inner.shard.0.image_offset.value()),
            want_shutdown: inner.leaving.get(),
        };
        inner.pulses.set(inner.pulses.get() + 1);
        let answer = inner.council.request(Request::Heartbeat(heartbeat)).await;
        inner.pulses.set(inner.pulses.get() - 1);
        match answer.map(|answer| answer.reply) {
            Some(Reply::Heartbeat(Ok(pulse))) => self.on_pulse(pulse),
            Some(Reply::Heartbeat(Err(refusal))) if epoch == inner.epoch.get() => {
                self.on_refusal(&refusal).await;
            }
            _ => {}
        }
    }

    fn on_pulse(&self, pulse: Pulse) {
        if !pulse.fenced {
            self.0.active.raise(1);
        }
        if self.0.leaving.get() && pulse.should_shut_down {
            self.0.free.raise(1);
        }
    }

    /// The controller does not know this session (any more): a new one begins.
    async fn on_refusal(&self, refusal: &Refusal) {
        tracing::warn!(why = refusal.message, "the controller does not know this broker's session");
        if self.0.leaving.get() || self.0.free.is_closed() {
            self.0.free.raise(1);
        } else if let Some(Err(refusal)) = self.register_once().await {
            tracing::error!(why = refusal.message, "this broker was not registered again");
        }
    }

    /// Has others lead what this broker leads, before it stops; gives up after a while.
    pub async fn leave(&self) {
        let inner = &self.0;
        if inner.shard.options().quorum.is_some() {
            inner.leaving.set(true);
            let env = inner.shard.env();
            let late = async {
                env.sleep_until(env.now().after(LEAVE_MAX)).await;
                false
            };
            let freed = async {
                self.pulse().await;
                let _ = inner.free.reach(1).await;
                true
            };
            if !future::or(freed, late).await {
                tracing::warn!("stopping though some partitions have no other leader yet");
            }
        }
        inner.free.close();
    }
}
