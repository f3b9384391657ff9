//! The process around the shards: start-up checks, threads, signals, the words that it prints.

use std::io::Write;
use std::net::{SocketAddr, ToSocketAddrs};
use std::process::ExitCode;
use std::sync::{Arc, mpsc};

use nix::sys::signal::{SigSet, Signal};

use crate::config::Resolved;
use crate::env::uring::{Door, ShardOptions, UringEnv, bind, start_shards};
use crate::env::{LANE_LEN_MAX, LaneReceive, LaneSend, NetEnv, mesh};
use crate::mesh::Ends;
use crate::node::{self, NodeError};
use crate::shard::Options;

/// What a shard tells the main thread.
enum News {
    Ready(Vec<SocketAddr>),
    Ended(usize, Result<(), NodeError>),
}

/// Runs a broker until it is told to stop. The exit code says whether it ended in good order.
pub fn run(resolved: Resolved) -> ExitCode {
    for warning in &resolved.warnings {
        tracing::warn!("{warning}");
    }
    match serve(resolved) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            tracing::error!("{why}");
            eprintln!("ringbolt: {why}");
            ExitCode::FAILURE
        }
    }
}

fn serve(resolved: Resolved) -> Result<(), String> {
    let config = &resolved.config;
    let signals = stop_signals()?;
    let shards = config.shards.map_or_else(
        || std::thread::available_parallelism().map_or(1, |count| count.get()),
        |count| count.get(),
    );
    let mut doors: Vec<Vec<(String, Door)>> = (0..shards).map(|_| Vec::new()).collect();
    for listener in &config.listeners {
        let address = resolve(&listener.host, listener.port)?;
        let bound = bind(address, shards).map_err(|error| format!("{address}: {error}"))?;
        for (doors, door) in doors.iter_mut().zip(bound) {
            doors.push((listener.name.clone(), door));
        }
    }
    let options = Arc::new(Options::new(resolved, shards));
    let calls = mesh::<UringEnv, _>(shards, LANE_LEN_MAX);
    let answers = mesh::<UringEnv, _>(shards, LANE_LEN_MAX);
    let (news_tx, news) = mpsc::channel();
    let mut stops = Vec::new();
    let seats: Vec<_> = calls
        .into_iter()
        .zip(answers)
        .zip(doors)
        .map(|((calls, answers), doors)| {
            let (stop_tx, stop) = UringEnv::lane::<()>(1);
            stops.push(stop_tx);
            (Ends { calls, answers }, doors, stop, news_tx.clone())
        })
        .collect();
    let shard_options = ShardOptions { pin: true, ..ShardOptions::default() };
    let body = move |env: UringEnv, (ends, doors, stop, news): (_, _, _, mpsc::Sender<News>)| {
        let options = options.clone();
        async move {
            let at = (env.shard(), env.shards());
            let ready = |addresses: &[SocketAddr]| {
                let _ = news.send(News::Ready(addresses.to_vec()));
            };
            let stop = async move {
                let stop: <UringEnv as NetEnv>::LaneRx<()> = stop;
                stop.recv().await;
            };
            let ended = node::run_shard(env, at, options, ends, doors, ready, stop).await;
            let _ = news.send(News::Ended(at.0, ended));
        }
    };
    let running = start_shards(&shard_options, seats, body).map_err(|error| error.to_string())?;
    let mut ended = wait_for_ready(&news, shards)?;
    let waiter = std::thread::Builder::new().name("signals".into());
    let stop_all = move || {
        for stop in &stops {
            let _ = stop.try_send(());
        }
    };
    waiter
        .spawn(move || {
            let signal = signals.wait();
            tracing::info!(?signal, "stopping");
            stop_all();
            let _ = signals.wait();
            tracing::warn!("a second signal: ending at once");
            std::process::exit(130);
        })
        .map_err(|error| format!("no thread for signals: {error}"))?;
    let mut outcome = Ok(());
    while ended < shards {
        let Ok(news) = news.recv() else { break };
        if let News::Ended(shard, result) = news {
            ended += 1;
            if let Err(error) = result {
                // A shard that failed takes the process with it: never half alive.
                outcome = Err(format!("shard {shard}: {error}"));
                break;
            }
        }
    }
    if outcome.is_ok() {
        running.join();
    }
    outcome
}

fn wait_for_ready(news: &mpsc::Receiver<News>, shards: usize) -> Result<usize, String> {
    let mut addresses = Vec::new();
    for _ in 0..shards {
        match news.recv() {
            Ok(News::Ready(bound)) => addresses = bound,
            Ok(News::Ended(shard, Err(error))) => return Err(format!("shard {shard}: {error}")),
            Ok(News::Ended(..)) | Err(_) => return Err("a shard ended before it was ready".into()),
        }
    }
    let addresses: Vec<_> = addresses.iter().map(SocketAddr::to_string).collect();
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "ringbolt is ready on {} with {shards} shards", addresses.join(", "));
    let _ = out.flush();
    Ok(0)
}

fn resolve(host: &str, port: u16) -> Result<SocketAddr, String> {
    let found = (host, port).to_socket_addrs().map_err(|error| format!("{host}: {error}"))?;
    found.into_iter().next().ok_or_else(|| format!("{host} has no address"))
}

/// SIGTERM and SIGINT wait for the one thread that asks for them; every thread made later inherits
/// that.
fn stop_signals() -> Result<SigSet, String> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.thread_block().map_err(|error| format!("signals cannot be blocked: {error}"))?;
    Ok(signals)
}
