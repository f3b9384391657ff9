//! The process around the shards: start-up checks, threads, signals, the words that it prints.

use std::io::Write;
use std::net::{SocketAddr, ToSocketAddrs};
use std::process::ExitCode;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use coordinator::cluster::ClusterId;
use nix::sys::statvfs::statvfs;

use crate::checks::{
    self, DataLock, Identity, Note, Session, begin_session, check_identity, end_session,
    fail_session,
};
use crate::config::{BrokerConfig, Resolved};
use crate::env::uring::{Door, ShardOptions, Shards, UringEnv, bind, start_shards};
use crate::env::{LANE_LEN_MAX, LaneEnds, LaneReceive, LaneSend, NetEnv, mesh};
use crate::mesh::{Ends, Numbered};
use crate::node::{self, NodeError};
use crate::shard::{Answer, Call, Options, QuorumOptions};
use crate::stop::StopSignals;
use crate::watchdog::Watchdog;

/// How long a port that is taken is waited for at the start …
const PORT_WAIT_MAX: Duration = Duration::from_secs(2);
/// … and between two attempts.
const PORT_PAUSE: Duration = Duration::from_millis(20);

/// What a shard tells the main thread.
enum News {
    /// It serves; what its first look at the data directory found.
    Ready(Option<Note>),
    Ended(usize, Result<(), NodeError>),
    /// The first signal to stop came.
    Stop,
}

/// What a shard is given before it exists.
struct Seat {
    ends: Ends<UringEnv, Call, Answer>,
    doors: Vec<(String, Door)>,
    stop: <UringEnv as NetEnv>::LaneRx<()>,
    news: mpsc::Sender<News>,
}

/// Runs a broker until it is told to stop. The exit code says whether it ended in good order.
pub fn run(resolved: Resolved) -> ExitCode {
    for warning in &resolved.warnings {
        tracing::warn!("{warning}");
    }
    match serve(resolved) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("ringbolt: {why}");
            ExitCode::FAILURE
        }
    }
}

type Stopped = Box<dyn std::error::Error>;

fn serve(mut resolved: Resolved) -> Result<(), Stopped> {
    let began = Instant::now();
    let signals = StopSignals::block()?;
    let config = &mut resolved.config;
    let shards = config.shards.map_or_else(
        || std::thread::available_parallelism().map_or(1, |count| count.get()),
        |count| count.get(),
    );
    let notes = checks::machine(shards)?;
    let lock = DataLock::take(&config.data_dir)?;
    let data_dir = config.data_dir.clone();
    let fresh = || ClusterId::random(random_words()).to_string();
    let named = config.cluster.as_ref().map(|cluster| cluster.id.as_str());
    let identity = check_identity(&lock, &data_dir, named, config.node_id, fresh)?;
    let session = begin_session(&lock, &data_dir, random_words)?;
    let serves = config.cluster.as_ref().is_none_or(|cluster| cluster.serves);
    // A coordinator without partitions is one thread, and small: huge pages would double it.
    let shards = if serves { shards } else { 1 };
    if !serves {
        nix::sys::prctl::set_thp_disable(true)?;
    }
    let (doors, addresses) = bind_all(config, shards)?;
    let (news_tx, news) = mpsc::channel();
    let (seats, stops) = seats(doors, &news_tx);
    let banner = Banner::new(config, &identity, addresses, shards, notes);
    let quorum = quorum_options(config, session);
    let options = Options::new(resolved, ClusterId::new(&identity.cluster), shards);
    let options = Arc::new(Options { quorum, ..options });
    let body = move |env: UringEnv, seat: Seat| run_shard(env, seat, options.clone());
    let shard_options = ShardOptions { pin: true, ..ShardOptions::default() };
    let running = start_shards(&shard_options, seats, body)?;
    let outcome = watch(
        &running,
        &news,
        || {
            banner.print(began.elapsed());
            wait_for_signal(signals, news_tx)
        },
        stops,
        || fail_session(&data_dir, session.directory),
    );
    if outcome.is_ok() {
        running.join();
        end_session(&lock, &data_dir, session.directory)?;
        tracing::info!("stopped in good order");
    }
    // A shard that failed takes the process with it: never half alive.
    outcome
}

/// This node's place in a cluster of several nodes.
fn quorum_options(config: &BrokerConfig, session: Session) -> Option<QuorumOptions> {
    let cluster = config.cluster.as_ref()?;
    Some(QuorumOptions {
        voters: cluster.voters.clone(),
        votes: cluster.votes,
        peer_listener: cluster.peer_listener.clone(),
        directory: session.directory,
        lost: session.lost,
        heartbeat: config.heartbeat,
        replication: config.replication,
    })
}

/// For each shard, its door of each listener.
type Doors = Vec<Vec<(String, Door)>>;

/// Binds every listener, once for each shard; where a port was left to the system, notes which.
fn bind_all(config: &mut BrokerConfig, shards: usize) -> Result<(Doors, Vec<SocketAddr>), Stopped> {
    let mut doors: Doors = (0..shards).map(|_| Vec::new()).collect();
    let mut addresses = Vec::new();
    for listener in &config.listeners {
        let address = resolve(&listener.host, listener.port)?;
        let bound = bind_patiently(address, shards)?;
        let local = bound.first().map_or(address, Door::local);
        for advertised in &mut config.advertised {
            if advertised.listener == listener.name && advertised.port == 0 {
                advertised.port = local.port();
            }
        }
        addresses.push(local);
        for (doors, door) in doors.iter_mut().zip(bound) {
            doors.push((listener.name.clone(), door));
        }
    }
    if let Some(control) = config.cluster.as_ref().and_then(|cluster| cluster.control.as_ref()) {
        // Coordinators are few, and shard 0 has what they ask for.
        let bound = bind_patiently(resolve(&control.host, control.port)?, 1)?;
        for door in bound {
            addresses.push(door.local());
            doors[0].push((control.name.clone(), door));
        }
    }
    Ok((doors, addresses))
}

/// A predecessor that was killed may hold its port for a moment yet: the kernel tears io_uring's
/// sockets down after the process is gone.
fn bind_patiently(address: SocketAddr, shards: usize) -> Result<Vec<Door>, checks::Failed> {
    let until = Instant::now() + PORT_WAIT_MAX;
    loop {
        match bind(address, shards) {
            Ok(doors) => return Ok(doors),
            Err(error)
                if error.kind() == std::io::ErrorKind::AddrInUse && Instant::now() < until =>
            {
                std::thread::sleep(PORT_PAUSE);
            }
            Err(error) => return Err(checks::port(address, error)),
        }
    }
}

fn seats(
    doors: Doors,
    news: &mpsc::Sender<News>,
) -> (Vec<Seat>, Vec<<UringEnv as NetEnv>::LaneTx<()>>) {
    let shards = doors.len();
    let calls: Vec<LaneEnds<UringEnv, Numbered<Call>>> = mesh(shards, LANE_LEN_MAX);
    let answers: Vec<LaneEnds<UringEnv, Numbered<Answer>>> = mesh(shards, LANE_LEN_MAX);
    let mut stops = Vec::with_capacity(shards);
    let seats = calls.into_iter().zip(answers).zip(doors).map(|((calls, answers), doors)| {
        let (stop_tx, stop) = UringEnv::lane::<()>(1);
        stops.push(stop_tx);
        Seat { ends: Ends { calls, answers }, doors, stop, news: news.clone() }
    });
    (seats.collect(), stops)
}

async fn run_shard(env: UringEnv, seat: Seat, options: Arc<Options>) {
    let Seat { ends, doors, stop, news } = seat;
    let (index, count) = (env.shard(), env.shards());
    let note = match index {
        0 => checks::direct_io(&env, &options.data).await.unwrap_or_default(),
        _ => None,
    };
    let ready = || {
        let _ = news.send(News::Ready(note));
    };
    let stop = async move {
        stop.recv().await;
    };
    let serves = options.broker.cluster.as_ref().is_none_or(|cluster| cluster.serves);
    let ended = if serves {
        node::run_shard(env, (index, count), options, ends, doors, ready, stop).await
    } else {
        let (_, door) = doors.into_iter().next().expect("a coordinator has its listener");
        node::run_coordinator(env, options, door, ready, stop).await
    };
    let _ = news.send(News::Ended(index, ended));
}

/// Follows the shards from ready to ended. `ready` is called when all of them serve,
/// `device_failed` when one ends because of that.
fn watch(
    running: &Shards<()>,
    news: &mpsc::Receiver<News>,
    ready: impl FnOnce() -> std::io::Result<()>,
    stops: Vec<<UringEnv as NetEnv>::LaneTx<()>>,
    device_failed: impl Fn(),
) -> Result<(), Stopped> {
    let _watchdog = Watchdog::start(running)?;
    let mut ready = Some(ready);
    let (mut serving, mut ended) = (0, 0);
    while ended < stops.len() {
        match news.recv()? {
            News::Ready(note) => {
                if let Some(note) = note {
                    tracing::warn!("{note}");
                }
                serving += 1;
                if serving == stops.len()
                    && let Some(ready) = ready.take()
                {
                    ready()?;
                }
            }
            News::Stop => stops.iter().for_each(|stop| drop(stop.try_send(()))),
            News::Ended(_, Ok(())) => ended += 1,
            News::Ended(shard, Err(error)) => {
                if matches!(error, NodeError::Disk(_)) {
                    device_failed();
                }
                return Err(format!("shard {shard}: {error}").into());
            }
        }
    }
    Ok(())
}

fn wait_for_signal(signals: StopSignals, news: mpsc::Sender<News>) -> std::io::Result<()> {
    let waiting = move || {
        match signals.wait() {
            Ok(signal) => tracing::info!(%signal, "stopping"),
            Err(error) => tracing::error!(%error, "signals cannot be waited for; stopping"),
        }
        let _ = news.send(News::Stop);
    };
    std::thread::Builder::new().name("signals".into()).spawn(waiting).map(drop)
}

fn resolve(host: &str, port: u16) -> Result<SocketAddr, Stopped> {
    let host = if host.is_empty() { "0.0.0.0" } else { host };
    let found = (host, port).to_socket_addrs();
    let mut found = found.map_err(|error| format!("the listener's host {host}: {error}"))?;
    found.next().ok_or_else(|| format!("the listener's host {host} has no address").into())
}

/// Two words that no other process has drawn: hashes keyed by the system's randomness.
fn random_words() -> [u64; 2] {
    use std::hash::{BuildHasher, RandomState};
    [RandomState::new().hash_one(0), RandomState::new().hash_one(1)]
}

/// What is printed when the broker serves.
struct Banner {
    lines: Vec<String>,
    addresses: Vec<SocketAddr>,
    shards: usize,
}

impl Banner {
    fn new(
        config: &BrokerConfig,
        identity: &Identity,
        addresses: Vec<SocketAddr>,
        shards: usize,
        notes: Vec<Note>,
    ) -> Banner {
        let dir = config.data_dir.canonicalize().unwrap_or_else(|_| config.data_dir.clone());
        let free = statvfs(&dir).map_or(0, |fs| fs.blocks_available() * fs.fragment_size());
        let synced = match config.log.text("flush.messages").as_deref() {
            None | Some("1") => "all: power loss (synced)",
            Some(_) => "all: a kill of the process (flush.messages is raised: power loss may cost)",
        };
        let mut lines = vec![
            format!("cluster {}, node {}", identity.cluster, identity.node),
            format!("data in {}, {:.1} GiB free", dir.display(), free as f64 / f64::from(1 << 30)),
            format!("acks survive · 0: nothing · 1: a kill of the process (written) · {synced}"),
        ];
        lines.extend(notes.iter().map(|note| format!("note: {note}")));
        Banner { lines, addresses, shards }
    }

    fn print(&self, took: Duration) {
        let addresses: Vec<_> = self.addresses.iter().map(SocketAddr::to_string).collect();
        let mut out = std::io::stdout().lock();
        // Nobody may be listening; that is no reason not to serve.
        let _ = writeln!(
            out,
            "ringbolt {} is ready on {} with {} shard{} after {} ms",
            env!("CARGO_PKG_VERSION"),
            addresses.join(", "),
            self.shards,
            if self.shards == 1 { "" } else { "s" },
            took.as_millis(),
        );
        for line in &self.lines {
            let _ = writeln!(out, "  {line}");
        }
        let _ = out.flush();
    }
}
