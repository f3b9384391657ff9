//! The settings of a topic that the controller goes by.

use crate::cluster::Topic;
use crate::config::Config;

/// What a topic asks of its partitions' metadata, with the cluster's defaults filled in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rules {
    /// In-sync replicas without which nothing is committed; see
    /// [`crate::cluster::Partition::min_isr`] for what becomes of it.
    pub min_insync_replicas: u32,
    /// Whether replicas that may lack what was committed become leaders when nobody else is left.
    pub unclean_election: bool,
    /// Whether a replica's promise covers only what it has synced, so that a power cut costs none
    /// of it. It must have been so when the promise was given: a broker that is told to sync from
    /// now on syncs what it has before it goes on.
    pub synced: bool,
}

impl Rules {
    /// Those of a topic. Its overrides were checked when they were set.
    pub fn of(topic: &Topic, config: &Config) -> Rules {
        let own = |name: &str| topic.overrides.get(name);
        let number = |name: &str| own(name).and_then(|text| text.trim().parse::<u64>().ok());
        let minimum = number("min.insync.replicas").and_then(|number| u32::try_from(number).ok());
        Rules {
            min_insync_replicas: minimum.unwrap_or(config.min_insync_replicas),
            unclean_election: own("unclean.leader.election.enable")
                .map_or(config.unclean_election, |text| text.trim().eq_ignore_ascii_case("true")),
            synced: number("flush.messages").unwrap_or(config.flush_messages) == 1,
        }
    }
}
