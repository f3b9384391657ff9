//! A broker to measure: one that runs already, or one of our own, started from the binary beside
//! this one on a free port, with a data directory that goes away at the end.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use net::client::Client;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::error::{PerfError, system};
use crate::machine;

/// How long a broker may take to accept connections, or to end.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two attempts to connect to a broker that starts.
const RETRY: Duration = Duration::from_micros(500);
/// How long an answer may take before the run is given up.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Name by which brokers know this client.
pub const CLIENT_ID: &str = "ringbolt-perf";

/// Which broker to measure.
#[derive(clap::Args, Debug, Clone, Default)]
pub struct BrokerArgs {
    /// Measure the broker that runs here [default: start one]
    #[arg(long, value_name = "HOST:PORT")]
    pub bootstrap: Option<String>,
    #[command(flatten)]
    pub own: OwnArgs,
}

/// How to start a broker of our own.
#[derive(clap::Args, Debug, Clone, Default)]
pub struct OwnArgs {
    /// Binary of the broker to start [default: ringbolt beside perf, built if cargo runs perf]
    #[arg(long, value_name = "FILE")]
    pub broker: Option<PathBuf>,
    /// Directory in which to make the data directory [default: one for temporary files]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Cores for the broker [default: all]
    #[arg(long, value_name = "N")]
    pub shards: Option<usize>,
    /// Its settings, in the syntax of Kafka's server.properties
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// A directory on a disk, removed at the end.
pub struct DataDir(TempDir);

impl DataDir {
    /// In `parent`; without one in the directory for temporary files, or beside this program where
    /// that is memory.
    pub fn new(parent: Option<&Path>) -> Result<DataDir, PerfError> {
        let temporary = std::env::temp_dir();
        let parent = match parent {
            Some(parent) => parent.to_owned(),
            None if !machine::is_memory(&temporary) => temporary,
            None => beside()?,
        };
        let made = tempfile::Builder::new().prefix("ringbolt-perf-").tempdir_in(&parent);
        made.map(DataDir).map_err(system(format!("a directory in {}", parent.display())))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Leaves it there at the end.
    pub fn keep(&mut self) {
        self.0.disable_cleanup(true);
    }
}

/// The directory of this program (for tests, the one above `deps`).
fn beside() -> Result<PathBuf, PerfError> {
    let exe = std::env::current_exe().map_err(system("finding this program"))?;
    let dir = exe.parent().unwrap_or(Path::new("/"));
    Ok(if dir.ends_with("deps") { dir.parent().unwrap_or(dir) } else { dir }.to_owned())
}

/// The broker's binary. Where cargo runs this program, it first builds what is not up to date.
pub fn binary(given: Option<&Path>) -> Result<PathBuf, PerfError> {
    if let Some(given) = given {
        return Ok(given.to_owned());
    }
    let dir = beside()?;
    let release: &[&str] = if dir.ends_with("release") { &["--release"] } else { &[] };
    if let Some(cargo) = std::env::var_os("CARGO") {
        let built = Command::new(cargo)
            .args(["build", "--quiet", "--package", "net", "--bin", "ringbolt"])
            .args(release)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status()
            .map_err(system("running cargo"))?;
        if !built.success() {
            return Err(PerfError::Broker("it does not build".into()));
        }
    }
    let binary = dir.join("ringbolt");
    match binary.exists() {
        true => Ok(binary),
        false => Err(PerfError::Broker(format!(
            "{} is missing; `cargo build --release -p net` makes it, or name one with --broker",
            binary.display()
        ))),
    }
}

/// How to start a broker, as often as wanted, on one data directory.
pub struct Launcher {
    binary: PathBuf,
    args: OwnArgs,
    data: DataDir,
}

/// A broker that was started here; killed when dropped.
pub struct Broker {
    child: Child,
    address: String,
    started: Instant,
    output: PathBuf,
}

impl Launcher {
    /// Finds the binary and makes the data directory.
    pub fn new(args: &OwnArgs) -> Result<Launcher, PerfError> {
        let data = DataDir::new(args.data.as_deref())?;
        Ok(Launcher { binary: binary(args.broker.as_deref())?, args: args.clone(), data })
    }

    /// Where the broker's data is.
    pub fn data(&self) -> PathBuf {
        self.data.path().join("data")
    }

    /// Removes the broker's data.
    pub fn clear(&self) -> Result<(), PerfError> {
        match fs::remove_dir_all(self.data()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(system("removing the data")(error))
            }
            _ => Ok(()),
        }
    }

    /// Starts a broker; it may not accept connections yet.
    pub fn start(&self) -> Result<Broker, PerfError> {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
        let address = free.map_err(system("finding a free port"))?.to_string();
        let output = self.data.path().join("broker.log");
        let log = File::create(&output).map_err(system("making a file"))?;
        let both = log.try_clone().map_err(system("making a file"))?;
        let mut command = Command::new(&self.binary);
        command.args(["broker", "--listen", &address, "--data"]).arg(self.data());
        if let Some(shards) = self.args.shards {
            command.args(["--shards", &shards.to_string()]);
        }
        if let Some(config) = &self.args.config {
            command.arg("--config").arg(config);
        }
        command.stdin(Stdio::null()).stdout(log).stderr(both);
        let started = Instant::now();
        let child = command.spawn();
        let child = child.map_err(system(format!("starting {}", self.binary.display())))?;
        Ok(Broker { child, address, started, output })
    }
}

impl Broker {
    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it listens.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// When its process was started.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Connects as soon as it accepts.
    pub fn connect(&mut self) -> Result<Client, PerfError> {
        let begun = Instant::now();
        loop {
            let error = match connect(&self.address) {
                Ok(client) => return Ok(client),
                Err(error) => error,
            };
            if let Ok(Some(status)) = self.child.try_wait() {
                let said = fs::read_to_string(&self.output).unwrap_or_default();
                return Err(PerfError::Broker(format!("it ended ({status}):\n{}", said.trim())));
            }
            if begun.elapsed() > PATIENCE {
                return Err(error);
            }
            std::thread::sleep(RETRY);
        }
    }

    /// SIGKILL: what it did not write is lost.
    pub fn kill(mut self) -> Result<(), PerfError> {
        self.child.kill().and_then(|()| self.child.wait()).map_err(system("killing the broker"))?;
        Ok(())
    }

    /// SIGTERM, and waits until it has ended in good order.
    pub fn stop(mut self) -> Result<(), PerfError> {
        let pid = Pid::from_raw(self.child.id() as i32);
        kill(pid, Signal::SIGTERM).map_err(|errno| system("stopping the broker")(errno.into()))?;
        let begun = Instant::now();
        loop {
            let ended = self.child.try_wait().map_err(system("waiting for the broker"))?;
            match ended {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(PerfError::Broker(format!("it ended with {status}"))),
                None if begun.elapsed() > PATIENCE => {
                    return Err(PerfError::Broker(format!(
                        "SIGTERM did not end it in {PATIENCE:?}"
                    )));
                }
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It has ended already, or it must now.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Connects to a broker that runs.
pub fn connect(address: &str) -> Result<Client, PerfError> {
    Ok(Client::connect(address, CLIENT_ID, ANSWER_TIMEOUT)?)
}

/// The broker under measurement.
pub struct Target {
    /// Ours, if it is. Before the launcher, so that it ends before its data goes.
    own: Option<Broker>,
    launcher: Option<Launcher>,
    address: String,
}

impl Target {
    /// The one that runs where `args` say, or a new one.
    pub fn open(args: &BrokerArgs) -> Result<Target, PerfError> {
        if let Some(address) = &args.bootstrap {
            return Ok(Target { own: None, launcher: None, address: address.clone() });
        }
        let launcher = Launcher::new(&args.own)?;
        let mut broker = launcher.start()?;
        broker.connect()?;
        let address = broker.address().to_owned();
        Ok(Target { own: Some(broker), launcher: Some(launcher), address })
    }

    /// A new connection to it.
    pub fn connect(&self) -> Result<Client, PerfError> {
        connect(&self.address)
    }

    /// Its process, if it is ours.
    pub fn pid(&self) -> Option<u32> {
        self.own.as_ref().map(Broker::pid)
    }

    /// Directory of its data if it is ours, else any.
    pub fn directory(&self) -> PathBuf {
        let own = self.launcher.as_ref().map(|launcher| launcher.data.path().to_owned());
        own.unwrap_or_else(std::env::temp_dir)
    }
}
