//! Three coordinators and three brokers of our own, a process each, on loopback addresses and in
//! one data directory that goes away at the end. The same cluster as `scripts/cluster` starts.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use net::client::Client;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Args;
use crate::broker::{self, DataDir, binary};
use crate::error::{PerfError, system};

/// Ids of the brokers.
pub const BROKERS: [i32; 3] = [1, 2, 3];
/// Ids of the coordinators.
pub const COORDINATORS: [i32; 3] = [101, 102, 103];
/// What a broker writes into its log when it serves.
const READY: &str = " is ready on ";
/// How long a node may take to begin, or to end.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks at one that begins or ends.
const LOOK: Duration = Duration::from_millis(2);

/// The six of them. Killed when dropped.
pub struct Nodes {
    /// In the order of their ids.
    nodes: Vec<Node>,
    binary: PathBuf,
    data: DataDir,
}

struct Node {
    id: i32,
    /// Of the listener for clients, and of that for replicas or coordinators.
    ports: [u16; 2],
    child: Option<Child>,
}

impl Nodes {
    /// Starts all of them, and waits until the brokers serve.
    pub fn start(args: &Args) -> Result<Nodes, PerfError> {
        let mut data = DataDir::new(args.data.as_deref())?;
        if args.keep {
            data.keep();
        }
        let ports = free_ports(2 * (BROKERS.len() + COORDINATORS.len()))?;
        let node = |(id, ports): (&i32, &[u16])| Node {
            id: *id,
            ports: [ports[0], ports[1]],
            child: None,
        };
        let ids = BROKERS.iter().chain(&COORDINATORS);
        let nodes = ids.zip(ports.chunks(2)).map(node).collect();
        let mut nodes = Nodes { nodes, binary: binary(args.broker.as_deref())?, data };
        for id in COORDINATORS.into_iter().chain(BROKERS) {
            nodes.configure(id, &args.settings)?;
            nodes.launch(id)?;
        }
        BROKERS.iter().try_for_each(|&id| nodes.wait_ready(id))?;
        Ok(nodes)
    }

    /// Where the data is.
    pub fn path(&self) -> &Path {
        self.data.path()
    }

    /// Where a broker serves clients.
    pub fn address(&self, id: i32) -> String {
        format!("127.0.0.1:{}", self.node(id).ports[0])
    }

    /// A connection to a broker.
    pub fn connect(&self, id: i32) -> Result<Client, PerfError> {
        broker::connect(&self.address(id))
    }

    /// Its process; `None` if it was stopped.
    pub fn pid(&self, id: i32) -> Option<u32> {
        self.node(id).child.as_ref().map(Child::id)
    }

    /// SIGKILL, and waits until the process is gone.
    pub fn kill(&mut self, id: i32) -> Result<(), PerfError> {
        self.signal(id, Signal::SIGKILL)?;
        self.wait_gone(id)
    }

    /// Sends a signal and does not wait.
    pub fn signal(&self, id: i32, signal: Signal) -> Result<(), PerfError> {
        let Some(pid) = self.pid(id) else {
            return Err(PerfError::Broker(format!("node {id} does not run")));
        };
        let sent = kill(Pid::from_raw(pid as i32), signal);
        sent.map_err(|errno| system(format!("sending {signal} to node {id}"))(errno.into()))
    }

    /// Waits until a node that was told to end has ended.
    pub fn wait_gone(&mut self, id: i32) -> Result<(), PerfError> {
        let begun = Instant::now();
        let Some(mut child) = self.node_mut(id).child.take() else { return Ok(()) };
        while child.try_wait().map_err(system("waiting for a node"))?.is_none() {
            if begun.elapsed() > PATIENCE {
                self.node_mut(id).child = Some(child);
                return Err(PerfError::Broker(format!("node {id} did not end in {PATIENCE:?}")));
            }
            thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Starts one that was stopped.
    pub fn launch(&mut self, id: i32) -> Result<(), PerfError> {
        let log = File::create(self.file(id, "log")).map_err(system("making a file"))?;
        let both = log.try_clone().map_err(system("making a file"))?;
        let role = if BROKERS.contains(&id) { "broker" } else { "coordinator" };
        let mut command = Command::new(&self.binary);
        command.arg(role).arg("--config").arg(self.file(id, "properties"));
        command.stdin(Stdio::null()).stdout(log).stderr(both);
        let child = command.spawn();
        let child = child.map_err(system(format!("starting {}", self.binary.display())))?;
        self.node_mut(id).child = Some(child);
        Ok(())
    }

    /// Waits until a broker that was started serves.
    pub fn wait_ready(&mut self, id: i32) -> Result<(), PerfError> {
        let begun = Instant::now();
        loop {
            let said = fs::read_to_string(self.file(id, "log")).unwrap_or_default();
            if said.contains(READY) {
                return Ok(());
            }
            let child = self.node_mut(id).child.as_mut();
            if let Some(Ok(Some(status))) = child.map(Child::try_wait) {
                let why = format!("node {id} ended ({status}):\n{}", said.trim());
                return Err(PerfError::Broker(why));
            }
            if begun.elapsed() > PATIENCE {
                let why = format!("node {id} was not ready in {PATIENCE:?}:\n{}", said.trim());
                return Err(PerfError::Broker(why));
            }
            thread::sleep(LOOK);
        }
    }

    fn node(&self, id: i32) -> &Node {
        self.nodes.iter().find(|node| node.id == id).expect("there is a node of each id")
    }

    fn node_mut(&mut self, id: i32) -> &mut Node {
        self.nodes.iter_mut().find(|node| node.id == id).expect("there is a node of each id")
    }

    fn file(&self, id: i32, kind: &str) -> PathBuf {
        self.path().join(format!("{id}.{kind}"))
    }

    fn configure(&self, id: i32, more: &[String]) -> Result<(), PerfError> {
        let voter = |id| format!("{id}@127.0.0.1:{}", self.node(id).ports[1]);
        let voters = COORDINATORS.map(voter).join(",");
        let [clients, nodes] = self.node(id).ports;
        let data = self.path().join(id.to_string());
        let mut lines = vec![
            format!("node.id={id}"),
            "cluster.id=perf-cluster".into(),
            format!("controller.quorum.voters={voters}"),
            "controller.listener.names=CONTROLLER".into(),
            "default.replication.factor=3".into(),
            "min.insync.replicas=2".into(),
            format!("log.dirs={}", data.display()),
        ];
        lines.extend(match BROKERS.contains(&id) {
            false => vec![format!("listeners=CONTROLLER://127.0.0.1:{nodes}")],
            true => vec![
                "process.roles=broker".into(),
                format!("listeners=CLIENT://127.0.0.1:{clients},REPLICATION://127.0.0.1:{nodes}"),
                "inter.broker.listener.name=REPLICATION".into(),
                "shards=1".into(),
            ],
        });
        lines.extend_from_slice(more);
        let written = fs::write(self.file(id, "properties"), lines.join("\n"));
        written.map_err(system("writing a node's settings"))
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for child in self.nodes.iter_mut().filter_map(|node| node.child.as_mut()) {
            // It has ended already, or it must now.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Ports that nobody listens on, below those that the kernel gives to outgoing connections: one of
/// these would take the place of a node that is down.
fn free_ports(count: usize) -> Result<Vec<u16>, PerfError> {
    // Runs at the same time begin elsewhere.
    let first = 20_000 + (std::process::id() % 100) as u16 * 100;
    let open = |port| TcpListener::bind(("127.0.0.1", port)).ok();
    let held: Vec<_> = (first..32_000).filter_map(open).take(count).collect();
    let ports: Vec<u16> =
        held.iter().filter_map(|one| Some(one.local_addr().ok()?.port())).collect();
    match ports.len() == count {
        true => Ok(ports),
        false => Err(PerfError::Broker(format!("there are no {count} free ports"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_ports_differ() {
        let mut ports = free_ports(12).expect("there are ports");
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 12);
    }
}
