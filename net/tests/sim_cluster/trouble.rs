//! What goes wrong.

use std::time::Duration;

use engine::env::sim::{End, Fault, OpKind};

use crate::machine::{Machine, Role};
use crate::world::World;

impl World {
    /// One thing after the other.
    pub async fn trouble(&self) {
        for _ in 0..self.random.between(3, 6) {
            self.pause(20, 600).await;
            match self.random.below(20) {
                0..3 => self.restart(self.some(Role::serves), End::Kill).await,
                3..6 => self.restart(self.some(Role::serves), End::PowerCut).await,
                6 => self.restart(self.some(Role::votes), End::Kill).await,
                7 => self.restart(self.some(Role::votes), End::PowerCut).await,
                8 => self.cut_all().await,
                9 => self.empty().await,
                10..12 => self.isolate(true).await,
                12 => self.isolate(false).await,
                13 => self.part_two().await,
                14 => self.cut_connections(),
                15 => self.slow_links(),
                16 => self.fail_disk().await,
                17 => self.fill_disk().await,
                18 => self.hang_disk().await,
                _ => self.leave().await,
            }
        }
    }

    async fn pause(&self, low: u64, high: u64) {
        self.sim.sleep(Duration::from_millis(self.random.between(low, high))).await;
    }

    fn some(&self, is: impl Fn(Role) -> bool) -> &Machine {
        let of: Vec<&Machine> = self.machines.iter().filter(|machine| is(machine.role)).collect();
        of[self.random.below(of.len() as u64) as usize]
    }

    async fn restart(&self, machine: &Machine, end: End) {
        self.event(&machine.name(), format_args!("ended by {end:?}"));
        machine.end(end);
        if self.random.chance(2, 3) {
            self.pause(1, 1_500).await;
        }
        self.begin_one(machine);
    }

    async fn cut_all(&self) {
        self.event("world", format_args!("the power goes for all"));
        self.machines.iter().for_each(|machine| machine.end(End::PowerCut));
        self.pause(1, 500).await;
        self.begin();
    }

    /// A broker's directory is emptied: the one that all have is what others have, too, as long
    /// as this happens to one only.
    async fn empty(&self) {
        let machine = self.machines.last().expect("there are some");
        if machine.role != Role::Broker || machine.lives.get() > 100 {
            return;
        }
        self.event(&machine.name(), format_args!("ended, its directory emptied"));
        machine.end(End::PowerCut);
        machine.empty();
        self.pause(1, 1_000).await;
        self.begin_one(machine);
    }

    /// One machine does not hear the others, is not heard by them, or both.
    async fn isolate(&self, both: bool) {
        let one = self.some(|_| true);
        let outwards = self.random.chance(1, 2);
        self.event(&one.name(), format_args!("isolated, both {both}, outwards {outwards}"));
        let others = || self.machines.iter().filter(|other| other.id != one.id);
        for other in others() {
            if both || outwards {
                self.net.block(&one.node, &other.node);
            }
            if both || !outwards {
                self.net.block(&other.node, &one.node);
            }
        }
        self.pause(100, 2_500).await;
        for other in others() {
            self.net.unblock(&one.node, &other.node);
            self.net.unblock(&other.node, &one.node);
        }
        self.event(&one.name(), format_args!("reachable again"));
    }

    async fn part_two(&self) {
        let (one, other) = (self.some(|_| true), self.some(|_| true));
        self.event(&one.name(), format_args!("apart from {}", other.name()));
        self.net.partition(&[&one.node], &[&other.node]);
        self.pause(100, 2_500).await;
        self.net.unblock(&one.node, &other.node);
        self.net.unblock(&other.node, &one.node);
    }

    fn cut_connections(&self) {
        let (one, other) = (self.some(|_| true), self.some(|_| true));
        let count = self.net.reset(&one.node, &other.node);
        self.event(&one.name(), format_args!("{count} connections to {} cut", other.name()));
    }

    fn slow_links(&self) {
        let (one, other) = (self.some(|_| true), self.some(|_| true));
        let low = Duration::from_millis(self.random.between(1, 30));
        self.event(&one.name(), format_args!("{low:?} from {}", other.name()));
        self.net.set_latency(&one.node, &other.node, low, low * 3);
        self.net.set_latency(&other.node, &one.node, low, low * 3);
    }

    async fn fail_disk(&self) {
        let machine = self.some(Role::serves);
        let kind = [OpKind::Write, OpKind::Sync][self.random.below(2) as usize];
        let skip = self.random.below(20);
        self.event(&machine.name(), format_args!("EIO: {kind:?} after {skip}"));
        machine.node.disk().fail(Fault::eio(kind).under("/").skip(skip).times(1));
        self.pause(50, 800).await;
        machine.node.disk().heal();
    }

    async fn fill_disk(&self) {
        let machine = self.some(Role::serves);
        let disk = machine.node.disk();
        let left = self.random.below(8) * 4_096;
        self.event(&machine.name(), format_args!("disk full but for {left} bytes"));
        disk.set_capacity(Some(disk.used() + left));
        self.pause(100, 1_000).await;
        disk.set_capacity(None);
    }

    async fn hang_disk(&self) {
        let machine = self.some(|_| true);
        self.event(&machine.name(), format_args!("disk hangs"));
        machine.node.disk().set_hang(true);
        self.pause(10, 1_500).await;
        machine.node.disk().set_hang(false);
    }

    async fn leave(&self) {
        let machine = self.some(Role::serves);
        self.event(&machine.name(), format_args!("told to stop"));
        machine.stop();
        self.pause(10, 500).await;
    }

    /// Nothing is wrong any more.
    pub fn heal(&self) {
        self.event("world", format_args!("all is well again"));
        self.net.heal();
        let (low, high) = (Duration::from_micros(60), Duration::from_micros(600));
        for one in &self.machines {
            for other in self.machines.iter().filter(|other| other.id != one.id) {
                self.net.set_latency(&one.node, &other.node, low, high);
            }
            let disk = one.node.disk();
            disk.heal();
            disk.set_capacity(None);
            disk.set_hang(false);
        }
        self.begin();
    }
}
