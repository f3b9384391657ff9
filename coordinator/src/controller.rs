//! The controller: the machine that owns what a cluster agrees on.
//!
//! Its hard state is a [`Cluster`], its records are [`Record`]s; its soft state is who of the
//! brokers was heard of when ([`Soft`]). Rules and messages follow Kafka's controller
//! (`ReplicationControlManager`, `ClusterControlManager`, `BrokerHeartbeatManager`,
//! `ConfigurationControlManager`, `ControllerApis`); the refusals are domain values that `net`
//! maps to error codes. One request's records are appended together, so a request is remembered
//! whole or not at all.
//!
//! Every change of a partition goes through one function, `change::Target::settle`: it alone
//! elects, keeps the eligible replicas, ends reassignments and raises epochs. Whatever happens to a
//! broker is told to it as "leaves", "has lost", "is back".
//!
//! It does not know the wire, who may do what (authorization happens before), or how its log is
//! kept. What happens to one broker costs a look at every partition of the cluster.

use engine::ids::Offset;
use engine::time::Instant;

use crate::cluster::Cluster;
use crate::config::Config;
use crate::machine::{Machine, Outcome, Seen, Token};
use crate::records::Record;

mod brokers;
mod change;
mod changes;
mod configs;
mod elections;
mod features;
mod isr;
mod liveness;
mod mutant;
mod names;
mod placement;
mod producer_ids;
mod random;
mod reassignments;
mod refusal;
mod request;
mod rules;
mod topics;
mod wire;

pub use liveness::Soft;
pub use mutant::Mutant;
pub use names::check_topic_name;
pub use refusal::{Refusal, Why};
pub use request::*;
pub use rules::Rules;

/// The controller machine. See [`Machine`].
pub enum Controller {}

impl Machine for Controller {
    type Config = Config;
    type Hard = Cluster;
    type Soft = Soft;
    type Request = Request;
    type Reply = Reply;
    type Record = Record;

    fn decide(
        seen: Seen<'_, Self>,
        soft: &mut Soft,
        from: Token,
        request: Request,
        out: &mut Outcome<Self>,
    ) {
        soft.begin(seen);
        let records = &mut out.records;
        let reply = match request {
            Request::RegisterBroker(registration) => {
                Reply::Registered(brokers::register(seen, soft, registration, records))
            }
            Request::Heartbeat(heartbeat) => {
                Reply::Heartbeat(liveness::heartbeat(seen, soft, heartbeat, records))
            }
            Request::AlterPartitions { broker, epoch, partitions } => {
                Reply::AlteredPartitions(isr::alter(seen, broker, epoch, partitions, records))
            }
            Request::NewTerms { broker, epoch, partitions } => {
                Reply::NewTerms(isr::renew_terms(seen, broker, epoch, &partitions, records))
            }
            Request::ElectLeaders { kind, partitions } => {
                Reply::ElectedLeaders(elections::elect(seen, kind, partitions, records))
            }
            Request::AlterReassignments { partitions, keep_factor } => {
                let altered = reassignments::alter(seen, partitions, keep_factor, records);
                Reply::AlteredReassignments(altered)
            }
            Request::UnregisterBroker { broker } => {
                Reply::UnregisteredBroker(brokers::unregister(seen, soft, broker, records))
            }
            Request::UpdateFeatures { updates, validate_only } => {
                Reply::UpdatedFeatures(features::update(seen, updates, validate_only, records))
            }
            Request::CreateTopics { topics, validate_only } => {
                Reply::CreatedTopics(topics::create(seen, topics, validate_only, records))
            }
            Request::DeleteTopics { topics } => {
                Reply::DeletedTopics(topics::delete(seen, topics, records))
            }
            Request::CreatePartitions { topics, validate_only } => {
                Reply::CreatedPartitions(topics::widen(seen, topics, validate_only, records))
            }
            Request::AlterConfigs { topics, validate_only } => {
                Reply::AlteredConfigs(configs::alter(seen, topics, validate_only, records))
            }
            Request::AlterGroupConfigs { groups, validate_only } => {
                Reply::AlteredConfigs(configs::alter_groups(seen, groups, validate_only, records))
            }
            Request::AllocateProducerIds { broker, epoch } => Reply::AllocatedProducerIds(
                producer_ids::allocate(seen.hard, broker, epoch, records),
            ),
            Request::PurgedTopics { broker, topics } => {
                topics::purged(seen.hard, broker, topics, records);
                Reply::PurgedTopics
            }
        };
        if !out.records.is_empty() {
            soft.plan_rebalance(seen);
        }
        out.reply(from, reply);
    }

    fn expire(seen: Seen<'_, Self>, soft: &mut Soft, out: &mut Outcome<Self>) {
        liveness::expire(seen, soft, &mut out.records);
        if !out.records.is_empty() {
            soft.plan_rebalance(seen);
        }
    }

    fn deadline(soft: &Soft) -> Option<Instant> {
        soft.deadline()
    }

    fn apply(hard: &mut Cluster, at: Offset, record: &Record) {
        hard.apply(at, record);
    }
}
