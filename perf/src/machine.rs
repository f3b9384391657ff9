//! The machine under a measurement: what it is, and what else kept it busy meanwhile.

use std::fs;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::prctl::set_timerslack;
use nix::sys::resource::{UsageWho, getrusage};
use nix::unistd::{SysconfVar, sysconf};

use crate::latency::Latencies;
use crate::units;

/// Writes of the device probe.
const PROBE_WRITES: usize = 200;

/// Lines that describe machine, file system of `dir`, its device's sync, and the build.
pub fn describe(dir: &Path) -> Vec<(&'static str, String)> {
    let cpu = first_line("/proc/cpuinfo", "model name").unwrap_or("unknown processor".into());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let probe = match probe(dir) {
        Ok(latencies) => format!(
            "4 KiB overwrite + fdatasync p50 {}, p99 {} ({PROBE_WRITES} writes just now)",
            units::time(latencies.percentile(50.0)),
            units::time(latencies.percentile(99.0)),
        ),
        Err(error) => format!("not probed: {error}"),
    };
    let command: Vec<String> = std::env::args().skip(1).collect();
    vec![
        ("command", format!("perf {}", command.join(" "))),
        ("machine", format!("{cpu}, {cores} cores, Linux {}", kernel.trim())),
        ("disk", format!("{} on {}; {probe}", file_system(dir), dir.display())),
        ("build", format!("{} ({})", revision(), profile())),
        ("load", format!("{} before the run", load_average())),
    ]
}

fn first_line(file: &str, key: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

fn profile() -> &'static str {
    if cfg!(debug_assertions) { "DEBUG: figures mean nothing" } else { "release" }
}

/// Commit of the source tree that this was built from, if git can tell.
fn revision() -> String {
    let git = |args: &[&str]| {
        let output = Command::new("git")
            .args(["-C", env!("CARGO_MANIFEST_DIR")])
            .args(args)
            .output()
            .ok()
            .filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else { return "unknown".into() };
    match git(&["status", "--porcelain", "--untracked-files=no"]) {
        Some(changes) if changes.is_empty() => format!("commit {commit}"),
        _ => format!("commit {commit} with changes"),
    }
}

/// Type and device of the file system that holds `dir`.
fn file_system(dir: &Path) -> String {
    let Ok(device) = fs::metadata(dir).map(|m| m.dev()) else { return "unknown".into() };
    let id = format!("{}:{}", nix::sys::stat::major(device), nix::sys::stat::minor(device));
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let found = mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mut right = right.split(' ');
        (left.split(' ').nth(2)? == id).then_some((right.next()?, right.next()?))
    });
    found.map_or("unknown file system".into(), |(kind, source)| format!("{kind} ({source})"))
}

/// Whether files in `dir` are memory: no place to measure a disk.
pub fn is_memory(dir: &Path) -> bool {
    nix::sys::statfs::statfs(dir)
        .is_ok_and(|found| found.filesystem_type() == nix::sys::statfs::TMPFS_MAGIC)
}

/// Overwrites blocks of a file that was written before, each followed by `fdatasync`.
fn probe(dir: &Path) -> io::Result<Latencies> {
    let file = tempfile::tempfile_in(dir)?;
    let block = [0x5a; 4096];
    for i in 0..PROBE_WRITES {
        file.write_all_at(&block, (i * block.len()) as u64)?;
    }
    file.sync_all()?;
    let mut latencies = Latencies::new();
    for i in 0..PROBE_WRITES {
        let begun = Instant::now();
        file.write_all_at(&block, (i * block.len()) as u64)?;
        file.sync_data()?;
        latencies.record(begun.elapsed().as_nanos() as u64);
    }
    Ok(latencies)
}

/// Makes sleeps of this thread end as close to their time as the kernel can.
pub fn sharpen_timers() {
    // Without it sleeps are up to 50 µs longer; that is seen in the send delay.
    let _ = set_timerslack(1);
}

/// Lets this thread, and those that it starts from now on, run only when nothing else would, as far
/// as the system lets it: for load that would come from other machines. Not by `nice`: there a
/// thousand threads weigh more together than the broker.
pub fn step_back() {
    let thread = nix::unistd::gettid().to_string();
    let mut idle = Command::new("chrt");
    idle.args(["--idle", "--pid", "0", &thread]).stdin(Stdio::null());
    match idle.stdout(Stdio::null()).stderr(Stdio::null()).status() {
        Ok(status) if status.success() => {}
        Ok(status) => eprintln!("perf: the crowd keeps its priority: chrt: {status}"),
        Err(error) => eprintln!("perf: the crowd keeps its priority: chrt: {error}"),
    }
}

/// Processor time that a process has used, user and system, its ended threads included.
pub fn process_cpu(pid: u32) -> io::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in parentheses, may hold anything; behind it are fields 3 and up.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let field = |n: usize| fields.split_whitespace().nth(n - 3)?.parse::<u64>().ok();
    let (Some(user), Some(system)) = (field(14), field(15)) else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, stat));
    };
    Ok(ticks(user + system))
}

fn ticks(ticks: u64) -> Duration {
    let per_second = sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100).max(1) as u64;
    Duration::from_nanos(ticks.saturating_mul(1_000_000_000 / per_second))
}

/// Memory of a process as `/proc/PID/status` has it under `key` (`VmRSS`, `VmHWM`, `RssAnon`), in
/// bytes.
pub fn process_memory(pid: u32, key: &str) -> Option<u64> {
    let value = first_line(&format!("/proc/{pid}/status"), key)?;
    let kib: u64 = value.strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

/// How many files a process has open; 0 if that is not to be seen.
pub fn open_files(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// Watches how busy the machine is beside what is being measured.
pub struct Noise {
    since: Instant,
    total: (Duration, Duration),
    own: Duration,
}

impl Noise {
    /// Begins to watch.
    pub fn watch() -> Noise {
        Noise { since: Instant::now(), total: busy_and_stolen(), own: own_cpu() }
    }

    /// One line on the time since: load, what others used, what the hypervisor took. Broker
    /// processes that were started here and have ended count as ours.
    pub fn describe(&self) -> String {
        let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
        let elapsed = self.since.elapsed().as_secs_f64();
        let (busy, stolen) = busy_and_stolen();
        let busy = (busy.saturating_sub(self.total.0)).as_secs_f64();
        let stolen = (stolen.saturating_sub(self.total.1)).as_secs_f64();
        let own = own_cpu().saturating_sub(self.own).as_secs_f64();
        let share = |seconds: f64| (seconds / (elapsed * cores) * 100.0).max(0.0);
        let others = share(busy - own);
        let verdict = match others + share(stolen) {
            noisy if noisy > 20.0 => "NOISY: do not quote these figures",
            some if some > 5.0 => "some noise",
            _ => "quiet",
        };
        format!(
            "{}; this run used {:.0} % of all cores, others {others:.0} %, stolen {:.0} %: {verdict}",
            load_average(),
            share(own),
            share(stolen),
        )
    }
}

/// Time that all cores together were busy, and that the hypervisor took from them.
fn busy_and_stolen() -> (Duration, Duration) {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = stat.lines().next().unwrap_or_default();
    let n: Vec<u64> = line.split_whitespace().skip(1).filter_map(|n| n.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; guest time is part of user time.
    let at = |i: usize| n.get(i).copied().unwrap_or(0);
    (ticks(at(0) + at(1) + at(2) + at(5) + at(6)), ticks(at(7)))
}

/// Processor time of this process, and of its children that were waited for.
fn own_cpu() -> Duration {
    used(UsageWho::RUSAGE_SELF) + used(UsageWho::RUSAGE_CHILDREN)
}

/// Processor time of this process alone, to the microsecond.
pub fn this_cpu() -> Duration {
    used(UsageWho::RUSAGE_SELF)
}

fn used(who: UsageWho) -> Duration {
    getrusage(who).map_or(Duration::ZERO, |usage| {
        let (user, system) = (usage.user_time(), usage.system_time());
        let seconds = user.tv_sec() + system.tv_sec();
        let micros = seconds * 1_000_000 + user.tv_usec() + system.tv_usec();
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_works_uses_processor_time_and_memory() {
        let me = std::process::id();
        let before = process_cpu(me).expect("this process exists");
        let begun = Instant::now();
        let mut sum = 0u64;
        while begun.elapsed() < Duration::from_millis(60) {
            sum = sum.wrapping_mul(31).wrapping_add(1);
        }
        assert_ne!(sum, 1);
        // On a busy machine this thread may have had a fraction of the time only.
        let used = process_cpu(me).expect("this process exists") - before;
        assert!(used <= begun.elapsed() * 64, "{used:?}");
        assert!(process_memory(me, "VmRSS").is_some_and(|bytes| bytes > 100 << 10));
        assert!(process_cpu(u32::MAX).is_err());
    }

    #[test]
    fn the_description_has_every_line_and_a_figure_of_the_disk() {
        let dir = tempfile::tempdir().expect("a directory");
        let lines = describe(dir.path());
        let disk = &lines.iter().find(|(key, _)| *key == "disk").expect("there").1;
        assert!(disk.contains("fdatasync p50"), "{disk}");
        assert!(lines.iter().all(|(_, text)| !text.is_empty()));
        assert!(Noise::watch().describe().contains("others"));
    }
}
