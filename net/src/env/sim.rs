//! The simulated network: one per simulation, found through its executor, decided by its seed.
//!
//! What it promises is what TCP promises, and no more. Bytes of a connection arrive in order, in
//! pieces of any size, or not at all. A link that is blocked holds everything back, as lost packets
//! do: it arrives, late, after the link is open again, or the connection times out. A process that
//! is killed closes its connections (its kernel lives on); a machine that loses its power says
//! nothing, and its peers wait until it runs again and answers that it knows of no connection.
//!
//! Every [`Node`] has one address. Programs reach the network through [`NetEnv`]; tests through
//! [`SimNet`]: ports, latencies, partitions, resets.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::{Rc, Weak};
use std::time::Duration;

use engine::env::sim::executor::{Executor, Group};
use engine::env::sim::{End, Node, Random, SimEnv, Stream as RandomStream};

use self::connection::Connection;
use self::port::Port;
use super::NetEnv;
use super::lane::{LaneRx, LaneTx, lane};

mod connection;
mod port;
#[cfg(test)]
mod tests;

pub use self::connection::SimStream;
pub use self::port::{Door, SimListener};

/// The first of the ports that are given out where none was asked for.
const EPHEMERAL_PORT_MIN: u16 = 32_768;

/// The network of one simulation; clones are the same network.
#[derive(Clone)]
pub struct SimNet(Rc<Network>);

/// The way from one node to another.
#[derive(Clone, Copy, Debug)]
struct Link {
    latency_min: Duration,
    latency_max: Duration,
    bytes_per_second: u64,
    blocked: bool,
}

impl Link {
    /// Within a machine, or between two in one rack.
    fn usual(loopback: bool) -> Link {
        let (low, high) = if loopback { (5, 60) } else { (60, 600) };
        Link {
            latency_min: Duration::from_micros(low),
            latency_max: Duration::from_micros(high),
            bytes_per_second: 1_250_000_000,
            blocked: false,
        }
    }
}

struct Network {
    executor: Executor,
    /// Whose events are packets: no node's end takes them off the wire.
    wire: Group,
    random: Random,
    /// By numbers of the nodes, from and to; those not listed are usual.
    links: RefCell<BTreeMap<(u64, u64), Link>>,
    ports: RefCell<BTreeMap<SocketAddr, Port>>,
    connections: RefCell<Vec<Weak<Connection>>>,
    next_port: Cell<u16>,
}

impl SimNet {
    /// The network of the simulation that `executor` runs.
    pub fn of(executor: &Executor) -> SimNet {
        SimNet(executor.thing(|| Network {
            executor: executor.clone(),
            wire: executor.group(),
            random: Random::new(executor.seed(), RandomStream::Network, 0),
            links: RefCell::default(),
            ports: RefCell::default(),
            connections: RefCell::default(),
            next_port: Cell::new(EPHEMERAL_PORT_MIN),
        }))
    }

    /// The address of a node.
    pub fn address(node: &Node) -> IpAddr {
        let [.., high, middle, low] = (node.number() + 1).to_be_bytes();
        Ipv4Addr::new(10, high, middle, low).into()
    }

    /// Takes a port of a node (0: any that is free) for that many shards; one door for each.
    /// `AddrInUse` if it is taken.
    pub fn bind(&self, node: &Node, port: u16, shards: usize) -> io::Result<Vec<Door>> {
        let ip = SimNet::address(node);
        let port = if port == 0 { self.0.free_port(ip) } else { port };
        Door::make(&self.0, SocketAddr::new(ip, port), shards)
    }

    /// Blocks one direction: what is on this way waits until it is open again.
    pub fn block(&self, from: &Node, to: &Node) {
        self.0.change(from, to, |link| link.blocked = true);
    }

    /// Opens one direction again. What waited goes on at its sender's next attempt, which comes
    /// the later the longer it waited.
    pub fn unblock(&self, from: &Node, to: &Node) {
        self.0.change(from, to, |link| link.blocked = false);
    }

    /// Blocks both directions between every node here and every node there.
    pub fn partition(&self, here: &[&Node], there: &[&Node]) {
        for one in here {
            for other in there {
                self.block(one, other);
                self.block(other, one);
            }
        }
    }

    /// Opens every direction again; latencies and rates stay.
    pub fn heal(&self) {
        for link in self.0.links.borrow_mut().values_mut() {
            link.blocked = false;
        }
    }

    /// Sets the latency of one direction: evenly between the two, and one packet in 64 up to ten
    /// times as long.
    pub fn set_latency(&self, from: &Node, to: &Node, low: Duration, high: Duration) {
        assert!(low <= high, "{low:?} is more than {high:?}");
        self.0.change(from, to, |link| (link.latency_min, link.latency_max) = (low, high));
    }

    /// Sets how many bytes per second a connection gets in one direction.
    pub fn set_rate(&self, from: &Node, to: &Node, bytes_per_second: u64) {
        assert!(bytes_per_second > 0, "to stop a link, block it");
        self.0.change(from, to, |link| link.bytes_per_second = bytes_per_second);
    }

    /// Resets every connection between two nodes, on both sides at once; says how many.
    pub fn reset(&self, one: &Node, other: &Node) -> usize {
        let mut connections: Vec<Rc<Connection>> =
            self.0.connections.borrow().iter().filter_map(Weak::upgrade).collect();
        let mut pair = [one.number(), other.number()];
        pair.sort_unstable();
        connections.retain(|connection| connection.nodes_sorted() == pair);
        connections.retain(|connection| connection.break_both());
        connections.len()
    }
}

impl Network {
    fn change(&self, from: &Node, to: &Node, change: impl FnOnce(&mut Link)) {
        let way = (from.number(), to.number());
        change(self.links.borrow_mut().entry(way).or_insert_with(|| Link::usual(way.0 == way.1)));
    }

    fn link(&self, from: u64, to: u64) -> Link {
        let links = self.links.borrow();
        links.get(&(from, to)).copied().unwrap_or_else(|| Link::usual(from == to))
    }

    /// Whether a machine's kernel runs: it does until the power is cut.
    fn is_powered(&self, node: u64) -> bool {
        Node::find(&self.executor, node)
            .is_some_and(|node| node.is_up() || node.last_end() == Some(End::Kill))
    }

    /// Whether a packet that is sent now gets through.
    fn passes(&self, from: u64, to: u64) -> bool {
        self.is_powered(from) && self.is_powered(to) && !self.link(from, to).blocked
    }

    /// How long one packet takes.
    fn latency(&self, from: u64, to: u64) -> Duration {
        let link = self.link(from, to);
        let (low, high) = (link.latency_min.as_nanos() as u64, link.latency_max.as_nanos() as u64);
        let tail = if self.random.chance(1, 64) { self.random.between(1, 10) } else { 1 };
        Duration::from_nanos(self.random.between(low, high) * tail)
    }

    fn after(&self, wait: Duration, event: impl FnOnce() + 'static) {
        self.executor.call_at(self.wire, self.executor.now().after(wait), event);
    }

    fn free_port(&self, ip: IpAddr) -> u16 {
        loop {
            let port = self.next_port.get();
            self.next_port.set(port.checked_add(1).unwrap_or(EPHEMERAL_PORT_MIN));
            if !self.ports.borrow().contains_key(&SocketAddr::new(ip, port)) {
                return port;
            }
        }
    }

    fn keep(&self, connection: &Rc<Connection>) {
        let mut connections = self.connections.borrow_mut();
        if connections.len() == connections.capacity() {
            connections.retain(|connection| connection.strong_count() > 0);
        }
        connections.push(Rc::downgrade(connection));
    }
}

/// The number of the node that has an address, if it is one of ours.
fn number_of(ip: IpAddr) -> Option<u64> {
    let IpAddr::V4(ip) = ip else { return None };
    match ip.octets() {
        [10, high, middle, low] => {
            u64::from(u32::from_be_bytes([0, high, middle, low])).checked_sub(1)
        }
        _ => None,
    }
}

impl NetEnv for SimEnv {
    type Stream = SimStream;
    type Listener = SimListener;
    type Door = Door;
    type LaneTx<T: Send + 'static> = LaneTx<T>;
    type LaneRx<T: Send + 'static> = LaneRx<T>;

    async fn listen(&self, door: Door) -> io::Result<SimListener> {
        Ok(SimListener::new(door))
    }

    async fn resolve(&self, address: &str) -> io::Result<SocketAddr> {
        address.parse().map_err(|_| io::Error::new(io::ErrorKind::NotFound, "there are no names"))
    }

    async fn connect(&self, to: SocketAddr) -> io::Result<SimStream> {
        port::connect(SimNet::of(self.executor()).0, self.node(), to).await
    }

    fn lane<T: Send + 'static>(len_max: usize) -> (LaneTx<T>, LaneRx<T>) {
        lane(len_max)
    }
}
