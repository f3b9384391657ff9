//! Tests of the simulated machine as a whole: that what must survive does, and that what may be
//! lost, torn, reordered or refused really is for some seed.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

use futures_lite::future::zip;

use super::*;
use crate::env::{Block, File, Persist};

const SEEDS: u64 = 100;
const A: &str = "/data/a";

fn path(path: &str) -> &Path {
    Path::new(path)
}

fn filled(env: &SimEnv, len: usize, fill: u8) -> Rc<SimBlock> {
    let mut block = env.block(len);
    block.bytes_mut().fill(fill);
    Rc::new(block)
}

/// Makes `/data/a` with its name durable.
async fn create(env: &SimEnv) -> SimFile {
    env.create_dir(path("/data")).await.unwrap();
    let file = env.open(path(A), Open::Create).await.unwrap();
    env.sync_dir(path("/data")).await.unwrap();
    env.sync_dir(path("/")).await.unwrap();
    file
}

/// The bytes of `/data/a` after a workload and the end of its node, for each seed.
fn left(end: End, work: impl AsyncFn(&SimEnv, &SimFile)) -> Vec<Vec<u8>> {
    (0..SEEDS)
        .map(|seed| {
            let sim = Sim::new(seed);
            let node = sim.node();
            let env = node.env();
            node.run(async {
                let file = create(&env).await;
                work(&env, &file).await;
            })
            .unwrap();
            node.end(end);
            node.disk().bytes(path(A)).expect("its name was synced")
        })
        .collect()
}

#[test]
fn what_was_synced_survives_the_power_cut_of_every_seed() {
    let synced = left(End::PowerCut, async |env, file| {
        file.write_at(filled(env, 8192, 7), 0, Persist::Written).await.unwrap();
        file.sync().await.unwrap();
        file.write_at(filled(env, 4096, 8), 8192, Persist::Synced).await.unwrap();
    });
    for bytes in synced {
        assert_eq!(bytes, [vec![7; 8192], vec![8; 4096]].concat());
    }
}

#[test]
fn what_was_only_written_survives_a_kill_but_not_every_power_cut() {
    let work = async |env: &SimEnv, file: &SimFile| {
        file.write_at(filled(env, 4096, 7), 0, Persist::Written).await.unwrap();
    };
    assert!(left(End::Kill, work).iter().all(|bytes| *bytes == [7; 4096]));
    let cut = left(End::PowerCut, work);
    assert!(cut.iter().any(|bytes| *bytes == [7; 4096]), "kept for some seed");
    assert!(cut.iter().any(|bytes| bytes.is_empty()), "lost for some seed");
    assert!(cut.iter().any(|bytes| bytes.windows(2).any(|pair| pair[0] != pair[1])), "torn");
}

#[test]
fn a_dropped_write_lands_wholly_partly_or_not() {
    let mut seen = BTreeSet::new();
    for bytes in left(End::Kill, async |env, file| {
        let write = file.write_at(filled(env, 4096, 7), 0, Persist::Written);
        assert!(futures_lite::future::poll_once(write).await.is_none());
    }) {
        let landed = bytes.iter().filter(|&&byte| byte == 7).count();
        seen.insert(match landed {
            0 => "not",
            4096 => "wholly",
            _ => "partly",
        });
    }
    assert_eq!(seen, BTreeSet::from(["not", "partly", "wholly"]));
}

#[test]
fn a_name_that_was_not_synced_may_vanish_with_its_synced_content() {
    let vanished = (0..SEEDS).filter(|&seed| {
        let sim = Sim::new(seed);
        let node = sim.node();
        let env = node.env();
        node.run(async {
            let file = env.open(path("/new"), Open::Create).await.unwrap();
            file.write_at(filled(&env, 4096, 7), 0, Persist::Synced).await.unwrap();
        });
        node.end(End::PowerCut);
        match node.disk().bytes(path("/new")) {
            Some(bytes) => assert_eq!(bytes, [7; 4096]),
            None => assert!(node.disk().files().is_empty()),
        }
        node.disk().files().is_empty()
    });
    let vanished = vanished.count() as u64;
    assert!(0 < vanished && vanished < SEEDS, "{vanished} of {SEEDS}");
}

#[test]
fn completions_of_two_writes_come_in_either_order() {
    let orders: BTreeSet<Vec<u8>> = (0..SEEDS)
        .map(|seed| {
            let sim = Sim::new(seed);
            let node = sim.node();
            let env = node.env();
            let order = RefCell::new(Vec::new());
            node.run(async {
                let file = create(&env).await;
                let write = async |number: u8| {
                    let pos = u64::from(number) * 4096;
                    file.write_at(filled(&env, 4096, 1), pos, Persist::Written).await.unwrap();
                    order.borrow_mut().push(number);
                };
                zip(write(0), write(1)).await;
            });
            order.into_inner()
        })
        .collect();
    assert_eq!(orders.len(), 2);
}

#[test]
fn a_sync_covers_nothing_that_completes_while_it_runs() {
    // Of content, and of names: how often the change was done first, and how often it was lost.
    let (mut first, mut lost) = ([0; 2], [0; 2]);
    for seed in 0..8 * SEEDS {
        let sim = Sim::new(seed);
        let node = sim.node();
        let env = node.env();
        let changed_first = node.run(async {
            let file = create(&env).await;
            file.write_at(filled(&env, 4096, 1), 0, Persist::Synced).await.unwrap();
            let (changed, before) = (Cell::new(false), Cell::new(false));
            if seed % 2 == 0 {
                let change = file.write_at(filled(&env, 4096, 2), 0, Persist::Written);
                zip(async { (file.sync().await.unwrap(), before.set(changed.get())) }, async {
                    (change.await.unwrap(), changed.set(true))
                })
                .await;
            } else {
                let change = env.open(path("/data/b"), Open::Create);
                let sync = env.sync_dir(path("/data"));
                zip(async { (sync.await.unwrap(), before.set(changed.get())) }, async {
                    (drop(change.await.unwrap()), changed.set(true))
                })
                .await;
            }
            before.get()
        });
        node.end(End::PowerCut);
        let kind = (seed % 2) as usize;
        first[kind] += u32::from(changed_first == Some(true));
        let kept = match kind {
            0 => node.disk().bytes(path(A)).unwrap() == [2; 4096],
            _ => node.disk().bytes(path("/data/b")).is_some(),
        };
        lost[kind] += u32::from(changed_first == Some(true) && !kept);
    }
    assert!(first.iter().all(|&first| first > 100), "{first:?}");
    assert!(lost.iter().all(|&lost| lost > 30), "{lost:?} of {first:?}");
}

/// Runs a small journal until the planned cut; returns what it had promised, and the disk after.
fn journal(seed: u64, cut: Option<Cut>) -> (u64, Node, Sim) {
    let sim = Sim::new(seed);
    let node = sim.node();
    if let Some(cut) = cut {
        node.disk().cut_at(cut);
    }
    let env = node.env();
    let promised = Cell::new(0);
    node.run(async {
        let file = create(&env).await;
        file.allocate(0, 65_536).await.unwrap();
        for number in 0..6u64 {
            let block = filled(&env, 8192, number as u8 + 1);
            let persist = if number % 2 == 0 { Persist::Synced } else { Persist::Written };
            file.write_at(block, number * 8192, persist).await.unwrap();
            if persist == Persist::Written {
                file.sync().await.unwrap();
            }
            promised.set(number + 1);
        }
    });
    assert_eq!(node.is_up(), cut.is_none());
    (promised.get(), node, sim)
}

#[test]
fn every_step_of_a_workload_can_be_cut_on_both_sides() {
    let (promised, node, _sim) = journal(1, None);
    assert_eq!(promised, 6);
    let steps = node.disk().steps();
    assert_eq!(steps, node.disk().step_kinds().len() as u64);
    assert_eq!(steps, 1 + 1 + 2 + 1 + 6 + 3, "mkdir, create, two sync_dir, allocate, journal");
    let mut promises = BTreeSet::new();
    for step in 0..steps {
        for side in [Side::Before, Side::After] {
            for end in [End::Kill, End::PowerCut] {
                let (promised, node, _sim) = journal(1, Some(Cut { step, side, end }));
                assert_eq!(node.last_end(), Some(end));
                promises.insert(promised);
                let bytes = node.disk().bytes(path(A)).unwrap_or_default();
                assert!(bytes.len() as u64 >= promised * 8192, "{step} {side:?} {end:?}");
                for (number, block) in bytes.chunks(8192).enumerate().take(promised as usize) {
                    assert!(block.iter().all(|&byte| byte == number as u8 + 1));
                }
            }
        }
    }
    assert_eq!(promises, (0..6).collect(), "the last promise is given after the last step");
}

#[test]
fn a_seed_repeats_to_the_last_poll() {
    for seed in 0..10 {
        let run = || {
            let (_, node, sim) = journal(seed, None);
            node.end(End::PowerCut);
            (sim.trace_hash(), sim.now(), node.disk().bytes(path(A)))
        };
        assert_eq!(run(), run());
    }
    let (_, _, one) = journal(1, None);
    let (_, _, two) = journal(2, None);
    assert_ne!(one.trace_hash(), two.trace_hash());
}

#[test]
fn one_more_node_does_not_change_the_luck_of_the_first_one_s_disk() {
    let run = |nodes: u64| {
        let sim = Sim::new(3);
        let nodes: Vec<Node> = (0..nodes).map(|_| sim.node()).collect();
        let env = nodes[0].env();
        nodes[0].run(async {
            let file = create(&env).await;
            file.write_at(filled(&env, 65_536, 7), 0, Persist::Written).await.unwrap();
        });
        nodes[0].end(End::PowerCut);
        nodes[0].disk().bytes(path(A))
    };
    assert_eq!(run(1), run(5));
}

#[test]
fn after_a_failed_sync_the_next_says_ok_and_the_data_are_gone() {
    let lost = (0..SEEDS).filter(|&seed| {
        let sim = Sim::new(seed);
        let node = sim.node();
        let env = node.env();
        node.run(async {
            let file = create(&env).await;
            node.disk().fail(Fault::eio(OpKind::Sync).under("/data").times(1));
            file.write_at(filled(&env, 4096, 7), 0, Persist::Written).await.unwrap();
            let error = file.sync().await.unwrap_err();
            assert_eq!(error.raw_os_error(), Some(nix::libc::EIO));
            file.sync().await.unwrap();
            assert_eq!(*file.read_at(0, 4096).await.unwrap(), [7; 4096]);
        })
        .unwrap();
        node.end(End::PowerCut);
        node.disk().bytes(path(A)).unwrap() != [7; 4096]
    });
    assert!(lost.count() as u64 > SEEDS / 2);
}

#[test]
fn faults_hit_the_operations_they_name() {
    let sim = Sim::new(1);
    let node = sim.node();
    let env = node.env();
    let disk = node.disk();
    node.run(async {
        let file = create(&env).await;
        let write = async || {
            let block = filled(&env, 4096, 7);
            file.write_at(block, 0, Persist::Written).await.map_err(|error| error.kind())
        };
        disk.fail(Fault::eio(OpKind::Write).under("/other"));
        disk.fail(Fault::enospc(OpKind::Write).under(A).skip(1).times(2));
        assert_eq!(write().await, Ok(()));
        assert_eq!(write().await, Err(io::ErrorKind::StorageFull));
        assert_eq!(write().await, Err(io::ErrorKind::StorageFull));
        assert_eq!(write().await, Ok(()));
        disk.fail(Fault::eio(OpKind::Read));
        assert!(file.read_at(0, 1).await.is_err());
        disk.heal();
        assert_eq!(*file.read_at(0, 1).await.unwrap(), [7]);
        disk.set_open_files_max(2);
        let second = env.open(path(A), Open::Read).await.unwrap();
        let third = env.open(path(A), Open::Read).await.map(|_| ());
        assert_eq!(third.unwrap_err().raw_os_error(), Some(nix::libc::EMFILE));
        drop(second);
        env.open(path(A), Open::Read).await.unwrap();
    })
    .unwrap();
}

#[test]
fn a_full_device_refuses_and_takes_again_what_was_freed() {
    for seed in 0..SEEDS {
        let sim = Sim::new(seed);
        let node = sim.node();
        let env = node.env();
        node.disk().set_capacity(Some(16 * 4096));
        node.run(async {
            let file = create(&env).await;
            file.allocate(0, 12 * 4096).await.unwrap();
            let other = env.open(path("/data/b"), Open::Create).await.unwrap();
            let refused = other.allocate(0, 8 * 4096).await.unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
            assert!(other.len().await.unwrap() <= 4 * 4096, "at most what fitted");
            file.write_at(filled(&env, 12 * 4096, 1), 0, Persist::Synced).await.unwrap();
            let refused = file.write_at(filled(&env, 8 * 4096, 1), 12 * 4096, Persist::Written);
            assert_eq!(refused.await.unwrap_err().kind(), io::ErrorKind::StorageFull);
            drop(other);
            env.remove(path("/data/b")).await.unwrap();
            file.truncate(4096).await.unwrap();
            assert_eq!(node.disk().used(), 4096);
            file.allocate(4096, 15 * 4096).await.unwrap();
        })
        .unwrap();
    }
}

#[test]
fn a_hanging_disk_completes_nothing_until_it_recovers() {
    let sim = Sim::new(1);
    let node = sim.node();
    let env = node.env();
    let disk = node.disk();
    let file = node.run(create(&env)).unwrap();
    disk.set_hang(true);
    let done = Rc::new(Cell::new(false));
    let inside = done.clone();
    env.spawn(Queue::Storage, async move {
        file.sync().await.unwrap();
        inside.set(true);
    });
    sim.run_for(Duration::from_secs(60));
    assert!(!done.get());
    disk.set_hang(false);
    sim.run_for(Duration::from_millis(1));
    assert!(done.get());
    disk.set_slow(1_000);
    let before = sim.now();
    node.run(env.list(path("/"))).unwrap().unwrap();
    assert!(sim.now().since(before) >= Duration::from_millis(5));
}

#[test]
fn rot_changes_one_bit_for_good() {
    for seed in 0..SEEDS {
        let sim = Sim::new(seed);
        let node = sim.node();
        let env = node.env();
        node.run(async {
            let file = create(&env).await;
            file.write_at(filled(&env, 4096, 0), 0, Persist::Synced).await.unwrap();
        });
        let (file, bit) = node.disk().rot_somewhere("/data").unwrap();
        assert_eq!(node.disk().rot_somewhere("/elsewhere"), None);
        node.end(End::PowerCut);
        let bytes = node.disk().bytes(path(&file)).unwrap();
        assert_eq!(bytes.iter().map(|byte| byte.count_ones()).sum::<u32>(), 1);
        assert_ne!(bytes[bit as usize / 8], 0);
    }
}

#[test]
fn an_ended_life_asks_in_vain_and_the_next_one_works() {
    let sim = Sim::new(1);
    let node = sim.node();
    let (old, other) = (node.env(), node.env());
    assert_ne!(old.random(), other.random(), "two shards of one life");
    let old_file = node.run(create(&old)).unwrap();
    node.end(End::Kill);
    old.spawn(Queue::Request, async { panic!("it is dead") });
    let new = node.env();
    let ran = node.run(async {
        let write = old_file.write_at(filled(&new, 4096, 1), 0, Persist::Written);
        let late = async {
            new.sleep_until(new.now().after(Duration::from_secs(1))).await;
            Ok(())
        };
        futures_lite::future::or(write, late).await.unwrap();
        drop(old_file);
        new.open(path(A), Open::Write).await.unwrap().len().await.unwrap()
    });
    assert_eq!(ran, Some(0));
}

#[test]
fn wall_clocks_are_skewed_each_by_itself() {
    let sim = Sim::new(1);
    let (fast, exact) = (sim.node(), sim.node());
    fast.set_wall_skew(3_600_000);
    assert_eq!(fast.env().wall().millis_since(exact.env().wall()), 3_600_000);
    assert_eq!(fast.env().now(), exact.env().now());
    let before = exact.env().wall();
    sim.run_for(Duration::from_secs(2));
    assert!((2_000..2_002).contains(&exact.env().wall().millis_since(before)));
}
