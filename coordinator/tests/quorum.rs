//! Whole quorums on the simulator: elections, decisions, crashes at every write, partitions also in
//! one direction, restarts. Invariants: OneLeaderPerTerm · PrefixesAgree · EveryEntryComes ·
//! CommittedIsNeverLost · SnapshotsAreWhole · OpensAfterACrash · Liveness; and what the library
//! asserts about itself.

#[path = "quorum/cluster.rs"]
mod cluster;

use std::time::Duration;

use cluster::Cluster;
use coordinator::quorum::types::Voter;
use coordinator::quorum::{ChangeError, Mutant, Refusal, Status};
use engine::env::sim::End;

/// A bug on purpose must be found within so many seeds.
const MUTANT_SEEDS: u64 = 200;

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
    cluster
        .within(Duration::from_millis(20), "a quorum of one leads", || cluster.leader().is_some());
    cluster.settle();
}

#[test]
fn three_agree() {
    let cluster = Cluster::new(1, 3, None);
    cluster.heal();
    cluster.within(Duration::from_secs(2), "somebody leads", || cluster.leader().is_some());
    cluster.settle();
}

/// One run in which the power goes again and again, for one or for all at once, and comes back at
/// once: what was told and not kept shows.
fn storm(seed: u64, voters: usize, mutant: Option<Mutant>) {
    let mut cluster = Cluster::new(seed, voters, mutant);
    // So that the log lets go of entries several times between two cuts.
    cluster.options.snapshot_bytes = 60;
    let random = cluster.sim.workload(0);
    cluster.heal();
    for _ in 0..8 {
        cluster.sim.run_for(Duration::from_millis(200 + random.below(1300)));
        let one = random.below(2 * voters as u64) as usize;
        for (at, place) in cluster.places.iter().enumerate() {
            if one >= voters || one == at {
                place.node.end(End::PowerCut);
            }
        }
        cluster.heal();
        cluster.refusals();
    }
    cluster.settle();
}

/// One run in which whoever leads is cut off again and again, and goes on appending what nobody
/// hears of, until the others' snapshot takes its place.
fn apart(seed: u64, voters: usize, mutant: Option<Mutant>) {
    let mut cluster = Cluster::new(seed, voters, mutant);
    cluster.options.snapshot_bytes = 60;
    let random = cluster.sim.workload(0);
    cluster.heal();
    for _ in 0..6 {
        cluster.sim.run_for(Duration::from_millis(100 + random.below(500)));
        let Some(leader) = cluster.leader() else { continue };
        cluster.cut_off(leader);
        cluster.sim.run_for(Duration::from_millis(300 + random.below(1200)));
        cluster.heal();
        cluster.refusals();
    }
    cluster.settle();
}

fn runs(seeds: std::ops::Range<u64>, voters: usize) {
    let (mut acknowledged, mut terms) = (0, 0);
    let count = seeds.end - seeds.start;
    for seed in seeds {
        let (_, acks, elections) = run(seed, voters, None);
        acknowledged += acks as u64;
        terms += elections as u64;
    }
    assert!(acknowledged > count * 20 && terms > count, "{acknowledged} in {terms} terms");
}

#[test]
fn whatever_happens_to_three() {
    runs(0..200, 3);
}

#[test]
fn whatever_happens_to_five() {
    runs(1000..1100, 5);
}

#[test]
fn whatever_the_power_does() {
    for seed in 2000..2020 {
        storm(seed, 3, None);
        storm(seed, 5, None);
    }
}

#[test]
fn whoever_is_cut_off() {
    for seed in 3000..3030 {
        apart(seed, 3, None);
        apart(seed, 5, None);
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in [3, 17, 1234] {
        assert_eq!(run(seed, 3, None), run(seed, 3, None));
    }
}

/// The proof that the runs above can see.
#[test]
fn every_bug_on_purpose_is_found() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let mut missed = Vec::new();
    for mutant in Mutant::ALL {
        let found = (0..MUTANT_SEEDS).find_map(|seed| {
            let both = || {
                storm(seed, 3, Some(mutant));
                apart(seed, 3, Some(mutant));
                run(seed, 3, Some(mutant));
            };
            let panic = std::panic::catch_unwind(both).err()?;
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
            Some((seed, text.lines().next().unwrap_or_default().to_string()))
        });
        match found {
            Some((seed, how)) => println!("FOUND {mutant:?} seed {seed}: {how}"),
            None => missed.push(mutant),
        }
    }
    std::panic::set_hook(hook);
    assert!(missed.is_empty(), "not found: {missed:?}");
}

#[test]
fn an_emptied_voter_is_not_let_in_again_under_its_name() {
    let cluster = Cluster::new(5, 3, None);
    cluster.heal();
    cluster.settle();
    let before = cluster.truth.borrow().acknowledged.len();
    let empty = 2;
    cluster.places[empty].node.end(End::PowerCut);
    cluster.forget(empty);
    cluster.start(empty);
    cluster.sim.run_for(Duration::from_secs(3));
    assert!(cluster.truth.borrow().acknowledged.len() > before + 100, "the others go on");
    let emptied = cluster.voter(empty).unwrap();
    assert_eq!(emptied.applied().value(), 0, "it is told nothing");
    let leader = cluster.voter(cluster.leader().unwrap()).unwrap();
    let id = cluster.places[empty].id;
    let trouble = leader.status().voters.into_iter().find(|voter| voter.id == id).unwrap().trouble;
    let directory = emptied.status().directory;
    assert_eq!(trouble, Some(Refusal::OtherDirectory(directory)));
    // It is not heard either, also when the leader is gone and its vote would be needed.
    let gone = cluster.leader().unwrap();
    cluster.places[gone].node.end(End::Kill);
    cluster.sim.run_for(Duration::from_secs(3));
    assert_eq!(cluster.leader(), None);
    cluster.start(gone);
    cluster.within(Duration::from_secs(5), "the two with a past", || cluster.leader().is_some());
    // Taken out and let in with its new directory, it is one of them again.
    let at = cluster.leader().unwrap();
    let leader = cluster.voter(at).unwrap();
    let voter = Voter { directory: Some(directory), endpoint: format!("host-{}", id.0) };
    cluster.ask(at, async move {
        let even = leader.remove_voter(id).await;
        assert!(matches!(even, Err(ChangeError::Voters { count: 2, .. })), "{even:?}");
        leader.change_voters(&[(id, voter)], &[id]).await.unwrap();
        assert_eq!(leader.status().voters.len(), 3);
    });
    cluster.settle();
}

#[test]
fn voters_come_and_go_in_odd_numbers() {
    let mut cluster = Cluster::new(6, 3, None);
    cluster.add_place(4);
    cluster.add_place(5);
    cluster.heal();
    cluster.settle();
    cluster.active.set(5);
    cluster.heal();
    cluster.sim.run_for(Duration::from_millis(300));
    let new = |at: usize| {
        let voter: Status = cluster.voter(at).unwrap().status();
        let endpoint = format!("host-{}", voter.me.0);
        (voter.me, Voter { directory: Some(voter.directory), endpoint })
    };
    let (four, five) = (new(3), new(4));
    let at = cluster.leader().unwrap();
    let leader = cluster.voter(at).unwrap();
    let (one, both) = (four.clone(), [four.clone(), five.clone()]);
    cluster.ask(at, async move {
        let even = leader.add_voter(one.0, one.1).await;
        assert!(matches!(even, Err(ChangeError::Voters { count: 4, .. })), "{even:?}");
        let unknown = Voter { directory: None, endpoint: String::new() };
        let unknown = leader.change_voters(&[(both[0].0, unknown), both[1].clone()], &[]).await;
        assert_eq!(unknown, Err(ChangeError::NoDirectory(both[0].0)));
        leader.change_voters(&both, &[]).await.unwrap();
        assert_eq!(leader.status().voters.len(), 5);
    });
    cluster.settle();
    // The leader itself goes, with another; those who stay go on.
    let at = cluster.leader().unwrap();
    let leader = cluster.voter(at).unwrap();
    let me = leader.status().me;
    let other = cluster.places.iter().map(|place| place.id).find(|id| *id != me).unwrap();
    cluster.ask(at, async move { leader.change_voters(&[], &[me, other]).await.unwrap() });
    let leads = |cluster: &Cluster| cluster.leader().map(|at| cluster.places[at].id);
    cluster.within(Duration::from_secs(5), "one of the rest leads", || {
        leads(&cluster).is_some_and(|id| id != me && id != other)
    });
    let before = cluster.truth.borrow().acknowledged.len();
    cluster.within(Duration::from_secs(5), "the rest decides", || {
        cluster.truth.borrow().acknowledged.len() > before + 10
    });
}

#[test]
fn the_lead_is_handed_over() {
    for seed in 0..10 {
        let cluster = Cluster::new(seed, 3, None);
        cluster.heal();
        cluster.settle();
        let at = cluster.leader().unwrap();
        let to = (at + 1) % 3;
        let (leader, id) = (cluster.voter(at).unwrap(), cluster.places[to].id);
        cluster.ask(at, async move { leader.transfer(id).await.unwrap() });
        cluster.within(Duration::from_secs(1), "the other leads", || cluster.leader() == Some(to));
        cluster.settle();
    }
}

#[test]
fn whoever_cannot_be_a_voter_is_told_why() {
    let refusal = |change: &dyn Fn(&mut coordinator::quorum::Options)| {
        let mut cluster = Cluster::new(1, 3, None);
        change(&mut cluster.options);
        cluster.start(0);
        cluster.sim.run_for(Duration::from_millis(500));
        cluster.places[0].refused.take().map(|error| error.to_string())
    };
    assert_eq!(refusal(&|_| ()), None);
    for voters in [2, 4, 6, 8] {
        let cluster = Cluster::new(1, voters, None);
        cluster.start(0);
        cluster.sim.run_for(Duration::from_millis(500));
        let error = cluster.places[0].refused.take().unwrap().to_string();
        assert!(error.starts_with(&format!("{voters} voters: ")), "{error}");
    }
    // A directory of another cluster, and of another node.
    for (id, name, why) in [(1, "other", "belongs to cluster"), (2, "simulated", "belongs to node")]
    {
        let mut cluster = Cluster::new(1, 1, None);
        cluster.heal();
        cluster.settle();
        cluster.places[0].node.end(End::Kill);
        cluster.options.cluster = Some(name.into());
        cluster.rename(0, id);
        cluster.start(0);
        cluster.sim.run_for(Duration::from_millis(500));
        let error = cluster.places[0].refused.take().expect(why).to_string();
        assert!(error.contains(why), "{error}");
    }
}
