//! A small life of a log, drawn from a seed: appends of several producers, waits, flushes, reads,
//! retention, DeleteRecords and checkpoints, some of them at the same time. Half of the logs belong
//! to a replica that follows now and then (see `replica`).

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;

use engine::cache::BlockBudget;
use engine::config::LogConfig;
use engine::env::sim::{Node, Random, Sim, SimEnv};
use engine::env::{Env, Queue};
use engine::ids::{LeaderEpoch, Offset};
use engine::log::{AppendError, Bounds, Disk, Limit, Log, Mutant, Shared};

use crate::batches::{Sent, Shape};
use crate::promise::{Broken, Invariant, Kept, Shown, TakingBack, ensure, open};

/// One log on one machine, through all its lives.
pub struct World {
    pub sim: Sim,
    pub node: Node,
    pub config: LogConfig,
    pub bounds: Bounds,
    pub held_bytes: usize,
    /// Steps of the first life: as many as make some tens of write boundaries.
    pub steps: u64,
    /// Bytes of the map of keys.
    pub dedupe_bytes: usize,
    follows: bool,
    pub promise: Shown,
    /// The log of the life that runs, or ran until just now.
    pub log: Rc<RefCell<Option<Log<SimEnv>>>>,
    /// What a task that ran beside the others found broken.
    found: Rc<RefCell<Option<Broken>>>,
}

/// What one life does; a handle that its tasks share.
#[derive(Clone)]
pub struct Life {
    pub env: SimEnv,
    pub log: Log<SimEnv>,
    pub promise: Shown,
    pub random: Rc<Random>,
    /// It follows other leaders, too.
    follows: bool,
    pub dedupe_bytes: usize,
    /// Distinct keys of its records; 0: they have none.
    keys: u64,
    found: Rc<RefCell<Option<Broken>>>,
}

impl World {
    pub fn new(seed: u64, mutant: Option<Mutant>) -> World {
        let sim = Sim::new(seed);
        let node = sim.node();
        let random = sim.workload(0);
        let config = LogConfig {
            segment_bytes: random.between(2, 12) * 1_000,
            segment_ms: 1 << 40,
            retention_ms: None,
            retention_bytes: random.chance(1, 3).then(|| random.between(1_000, 9_000)),
            flush_messages: [1, 1, 4, 1_000][random.below(4) as usize],
            flush_ms: random.chance(1, 4).then(|| random.between(1, 10)),
            index_interval_bytes: random.between(200, 4_096) as u32,
            ..LogConfig::default()
        };
        let bounds = Bounds {
            block_bytes_max: random.between(1, 3) as usize * 4_096,
            unsynced_bytes_max: random.between(1_000, 9_000),
            zeroed_bytes_max: random.below(3) * 4_096,
            checkpoint_bytes: random.between(1_000, 9_000),
            mutant,
        };
        let held_bytes = random.below(20_000) as usize;
        // Made when a node is set up, not by its logs.
        let env = node.env();
        let made = node.run(async {
            env.create_dir(Path::new("/data")).await.expect("nothing fails");
            env.sync_dir(Path::new("/")).await.expect("nothing fails");
        });
        made.expect("nobody ends the node");
        World {
            sim,
            node,
            config,
            bounds,
            held_bytes,
            steps: 16,
            dedupe_bytes: 0,
            follows: random.chance(1, 2),
            promise: Rc::default(),
            log: Rc::default(),
            found: Rc::default(),
        }
    }

    /// A log that is compacted: in small segments, with a small map, again and again.
    pub fn compacting(seed: u64, mutant: Option<Mutant>) -> World {
        let mut world = World::new(seed, mutant);
        let random = world.sim.workload(6_000);
        world.config = LogConfig {
            compacts: true,
            deletes: random.chance(1, 3),
            segment_bytes: random.between(400, 3_000),
            delete_retention_ms: [0, 0, random.below(20), 1 << 40][random.below(4) as usize],
            min_dirty_ppm: [0, 0, 300_000][random.below(3) as usize],
            index_interval_bytes: random.between(50, 300) as u32,
            ..world.config
        };
        world.steps = 24;
        world.dedupe_bytes = random.between(3, 20) as usize * 24;
        let old = world.config.delete_retention_ms;
        world.promise.borrow_mut().delete_retention_ms = old;
        world
    }

    /// Memory and device state of a new process.
    pub fn shared(&self) -> Shared {
        let budget = BlockBudget::new(self.held_bytes, 1 << 20);
        Shared { budget, disk: Disk::default(), bounds: self.bounds }
    }

    pub fn life(&self, env: &SimEnv, log: Log<SimEnv>, stream: u64) -> Life {
        *self.log.borrow_mut() = Some(log.clone());
        let random = Rc::new(self.sim.workload(stream));
        let (promise, found) = (self.promise.clone(), self.found.clone());
        Life {
            env: env.clone(),
            log,
            promise,
            random,
            follows: self.follows,
            dedupe_bytes: self.dedupe_bytes,
            keys: if self.config.compacts { 8 } else { 0 },
            found,
        }
    }

    /// Runs the first life, as far as it comes. The answer is whether it came to its end.
    pub fn live(&self, steps: u64) -> Kept<bool> {
        let env = self.node.env();
        let ended = self.node.run(async {
            let (log, _) = open(&env, &self.config, &self.shared()).await.expect("nothing fails");
            let life = self.life(&env, log, 1);
            for _ in 0..steps {
                life.step().await?;
            }
            Ok(())
        });
        self.note_durable();
        if let Some(broken) = self.found.borrow_mut().take() {
            return Err(broken);
        }
        ended.transpose().map(|ended| ended.is_some())
    }

    /// Writes down what the log reports as durable at this moment.
    pub fn note_durable(&self) {
        if let Some(log) = &*self.log.borrow() {
            self.promise.borrow_mut().on_durable(log);
        }
    }
}

impl Life {
    pub async fn step(&self) -> Kept {
        if self.keys > 0 && self.random.chance(1, 3) {
            return self.step_of_compaction().await;
        }
        match self.random.below(if self.follows { 22 } else { 16 }) {
            // What it leads to is not known before it has ended.
            0..7 | 16..19 if self.promise.borrow().taking_back.is_some() => {
                self.pause(500).await;
            }
            0..7 => self.append()?,
            16..19 => self.append_replicated()?,
            19..22 if self.promise.borrow().taking_back.is_none() => {
                let (life, all) = (self.clone(), self.random.chance(1, 6));
                // Nothing yet, but no other one begins and nothing is appended.
                self.promise.borrow_mut().taking_back = Some(TakingBack::From(u64::MAX));
                self.beside(async move {
                    if all { life.restart().await } else { life.truncate().await }
                })
                .await?;
            }
            7..9 => {
                let (end, written) = (self.log.end(), self.log.written());
                let _ = written.reach(end.value()).await;
            }
            9 => drop(self.log.flush().await),
            10 => self.read().await?,
            11 => {
                let life = self.clone();
                self.beside(async move { life.read().await }).await?;
            }
            12 => {
                let life = self.clone();
                self.beside(async move { life.delete().await }).await?;
            }
            13 => {
                let life = self.clone();
                self.beside(async move { life.tend().await }).await?;
            }
            14 => self.promise.borrow_mut().epoch += 1,
            _ => self.pause(self.random.below(2_000)).await,
        }
        Ok(())
    }

    /// Waits for a task, or lets it run beside what comes next.
    pub async fn beside(&self, task: impl Future<Output = Kept> + 'static) -> Kept {
        if self.random.chance(1, 2) {
            return task.await;
        }
        let found = self.found.clone();
        self.env.spawn(Queue::Background, async move {
            if let Err(broken) = task.await {
                *found.borrow_mut() = Some(broken);
            }
        });
        Ok(())
    }

    pub fn batch(&self) -> Sent {
        let random = &self.random;
        let small = self.keys > 0;
        let producer = random.chance(2, 3).then(|| random.below(2) as i64);
        let producer = producer.map(|id| (id, self.promise.borrow().next_sequence(id)));
        let bytes = match random.below(8) {
            0 if small => random.between(300, 2_000),
            1..4 if small => random.between(50, 400),
            0 => random.between(3_000, 9_000),
            1..4 => random.between(300, 2_000),
            _ => random.below(200),
        };
        let shape = Shape {
            records: random.between(1, 3) as u32,
            bytes: bytes as usize,
            zeros: random.chance(1, 6),
            producer,
            time: self.env.wall().0,
            keys: self.keys,
        };
        Sent::new(shape, random)
    }

    /// Appends a few batches; answers the last one's end, or why the log refused.
    pub fn append(&self) -> Kept {
        for _ in 0..self.random.between(1, 3) {
            match self.append_one()? {
                Ok(()) => {}
                Err(_) => break,
            }
        }
        Ok(())
    }

    pub fn append_one(&self) -> Kept<Result<(), AppendError>> {
        let sent = self.batch();
        let (end, epoch) = (self.promise.borrow().end(), self.promise.borrow().epoch);
        let early = self.random.chance(1, 3);
        let appended = match self.log.append(&sent.checked(), LeaderEpoch(epoch), early) {
            Ok(appended) => appended,
            Err(error @ AppendError::Producer(_)) => {
                let how = error.to_string();
                return Err(Broken { invariant: Invariant::RetriesAreRecognised, how });
            }
            Err(error) => return Ok(Err(error)),
        };
        let next = !appended.duplicate && appended.base.value() == end;
        ensure(next, Invariant::LogIsAPrefix, || format!("{appended:?}, the log ended at {end}"))?;
        self.promise.borrow_mut().on_append(&sent);
        Ok(Ok(()))
    }

    /// Reads below the watermark, from anywhere.
    async fn read(&self) -> Kept {
        let (start, watermark) = (self.log.start(), self.log.durable().value());
        let from = Offset::new(self.random.between(start.value(), watermark.max(start.value())));
        let bytes_max = self.random.between(1, 20_000) as usize;
        let limit = Limit { bytes_max, bound: Offset::new(watermark), at_least_one: true };
        let bytes: Vec<u8> = match self.log.read(from, limit).await {
            Ok(chunk) => chunk.slices.iter().flat_map(|slice| slice.to_vec()).collect(),
            // Deleted or truncated meanwhile.
            Err(_) if from < self.log.start() || from > self.log.end() => return Ok(()),
            Err(error) => {
                let how = format!("reading from {from}: {error}");
                return Err(Broken { invariant: Invariant::LogIsAPrefix, how });
            }
        };
        let next = chunk_end(&bytes).unwrap_or(from.value());
        self.promise.borrow().check_range(from.value(), next, &bytes, self.env.wall().0)
    }

    async fn delete(&self) -> Kept {
        let (start, watermark) = (self.log.start().value(), self.log.durable().value());
        let to = self.random.between(start, watermark.max(start));
        self.ask_to_delete(to);
        let deleted = self.log.delete_before(Offset::new(to), Offset::new(watermark.max(to))).await;
        if let Ok(start) = deleted {
            let mut promise = self.promise.borrow_mut();
            promise.deleted = promise.deleted.max(start.value());
        }
        Ok(())
    }

    pub async fn tend(&self) -> Kept {
        let watermark = self.log.durable().value();
        if self.log.config().retention_bytes.is_some() {
            self.ask_to_delete(watermark);
        }
        // What retention does is no promise to anyone.
        let _ = self.log.tend(Offset::new(watermark)).await;
        Ok(())
    }

    fn ask_to_delete(&self, to: u64) {
        let mut promise = self.promise.borrow_mut();
        promise.delete_asked = promise.delete_asked.max(to);
    }
}

/// Where the last of whole batches ends.
pub fn chunk_end(bytes: &[u8]) -> Option<u64> {
    let last = engine::batch::batches(bytes).map_while(Result::ok).last();
    last.map(|batch| batch.next_offset().value())
}
