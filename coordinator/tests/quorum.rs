//! Whole quorums on the simulator: elections, decisions, crashes at every write, partitions also in
//! one direction, restarts. Invariants: OneLeaderPerTerm · PrefixesAgree · CommittedIsNeverLost ·
//! Liveness.

#[path = "quorum/cluster.rs"]
mod cluster;

use std::time::Duration;

use cluster::Cluster;
use coordinator::quorum::Mutant;

/// One run: some seconds in which bad things happen, then all is well.
fn run(seed: u64, voters: usize, mutant: Option<Mutant>) -> (u64, usize, usize) {
    let cluster = Cluster::new(seed, voters, mutant);
    let random = cluster.sim.workload(0);
    cluster.heal();
    let misfortunes = 4 + random.below(10);
    for _ in 0..misfortunes {
        cluster.sim.run_for(Duration::from_millis(random.below(300)));
        cluster.misfortune(&random);
        cluster.refusals();
    }
    cluster.heal();
    cluster.settle();
    let truth = cluster.truth.borrow();
    (cluster.sim.trace_hash(), truth.acknowledged.len(), truth.terms())
}

#[test]
fn one_alone_decides_at_once() {
    let cluster = Cluster::new(1, 1, None);
    cluster.heal();
    cluster.within(Duration::from_millis(20), "a quorum of one leads", || {
        cluster.leader().is_some()
    });
    cluster.settle();
}

#[test]
fn three_agree() {
    let cluster = Cluster::new(1, 3, None);
    cluster.heal();
    cluster.within(Duration::from_secs(2), "somebody leads", || cluster.leader().is_some());
    cluster.settle();
}

#[test]
fn whatever_happens_to_three() {
    let (mut acknowledged, mut terms) = (0, 0);
    for seed in 0..200 {
        let (_, acks, elections) = run(seed, 3, None);
        acknowledged += acks;
        terms += elections;
    }
    assert!(acknowledged > 200 * 20 && terms > 200, "{acknowledged} in {terms} terms");
}
