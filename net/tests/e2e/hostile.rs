//! Clients that want too much: too many sockets, too slow, never reading, asking for everything at
//! once. Each costs itself; the broker's memory stays bounded, and others are served meanwhile.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use net::client::Client;
use net::wire::fetch::{FetchRequest, RequestPartition, RequestTopic};
use net::wire::{ErrorCode, encode_request};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::{Broker, PATIENCE, create, produce, produce_bytes};

/// Sockets that hold half a frame each.
const SLOW_SOCKETS: usize = 600;
/// Connections that are opened and closed at once.
const CHURN: usize = 2_000;
/// Connections that are opened and left alone.
const FLOOD: usize = 800;
/// The longest that a well-behaved client may wait beside all that. Generous: the machine that runs
/// tests does other things, too.
const WAIT_MAX: Duration = Duration::from_secs(5);

const MIB: usize = 1 << 20;

impl Broker {
    /// Bytes of memory that the process really uses.
    fn resident_bytes(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("the process is there");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok());
        kib.expect("Linux says it in KiB") * 1024
    }

    fn descriptors(&self) -> usize {
        let entries = std::fs::read_dir(format!("/proc/{}/fd", self.child.id()));
        entries.expect("the process is ours").count()
    }

    /// Waits until the process has let go of what it needs no more.
    fn settles(&self, descriptors_max: usize) {
        let begun = Instant::now();
        while self.descriptors() > descriptors_max {
            let count = self.descriptors();
            assert!(begun.elapsed() < PATIENCE, "{count} descriptors, not {descriptors_max}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Produces a few times; the longest wait.
fn longest_wait(client: &mut Client, topic: &str) -> Duration {
    let mut longest = Duration::ZERO;
    for _ in 0..10 {
        let begun = Instant::now();
        produce(client, topic, "well-behaved", -1);
        longest = longest.max(begun.elapsed());
    }
    longest
}

/// As many descriptors for this process as the system allows.
fn raise_descriptors() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit can be read");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("up to the hard limit");
}

fn connect(broker: &Broker) -> TcpStream {
    let stream = TcpStream::connect_timeout(&broker.address, PATIENCE).expect("it accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    stream
}

#[test]
fn hundreds_of_slow_senders_keep_nobody_waiting() {
    raise_descriptors();
    let data = tempfile::tempdir().expect("a directory");
    let broker = Broker::start(data.path());
    let mut good = broker.client();
    create(&mut good, "t");
    longest_wait(&mut good, "t");
    let (before, descriptors) = (broker.resident_bytes(), broker.descriptors());
    let mut slow: Vec<_> = (0..SLOW_SOCKETS).map(|_| connect(&broker)).collect();
    // A frame of 90 MiB is claimed, then come its bytes, one at a time.
    let mut waits = Vec::new();
    for byte in [5, 160, 0, 0, 0, 0, 0, 9] {
        for stream in &mut slow {
            stream.write_all(&[byte]).expect("it reads");
        }
        waits.push(longest_wait(&mut good, "t"));
    }
    let longest = waits.into_iter().max().expect("some");
    let grown = broker.resident_bytes().saturating_sub(before);
    println!("{SLOW_SOCKETS} slow senders: {} KiB more, {longest:?} at most", grown / 1024);
    assert!(longest < WAIT_MAX, "{longest:?}");
    assert!(grown < SLOW_SOCKETS * 64 * 1024, "{} KiB more", grown / 1024);
    drop(slow);
    broker.settles(descriptors);
    longest_wait(&mut good, "t");
}

#[test]
fn a_flood_of_connections_and_churn_leave_nothing_behind() {
    raise_descriptors();
    let data = tempfile::tempdir().expect("a directory");
    let broker = Broker::start(data.path());
    let mut good = broker.client();
    create(&mut good, "t");
    longest_wait(&mut good, "t");
    let (before, descriptors) = (broker.resident_bytes(), broker.descriptors());
    let flood: Vec<_> = (0..FLOOD).map(|_| connect(&broker)).collect();
    let beside_flood = longest_wait(&mut good, "t");
    for number in 0..CHURN {
        let mut stream = connect(&broker);
        if number % 3 == 0 {
            // Some leave in the middle of a frame.
            stream.write_all(&[0, 0, 1]).expect("it reads");
        }
    }
    let beside_churn = longest_wait(&mut good, "t");
    drop(flood);
    broker.settles(descriptors);
    let grown = broker.resident_bytes().saturating_sub(before);
    println!(
        "{FLOOD} idle, {CHURN} short-lived: {} KiB more, {beside_flood:?} and {beside_churn:?}",
        grown / 1024
    );
    assert!(beside_flood.max(beside_churn) < WAIT_MAX, "{beside_flood:?}, {beside_churn:?}");
    assert!(grown < 64 * MIB, "{} KiB more", grown / 1024);
}

/// Fills a topic with about so many MiB.
fn fill(client: &mut Client, topic: &str, mib: usize) {
    create(client, topic);
    for _ in 0..mib * 2 {
        produce_bytes(client, topic, &vec![7; MIB / 2], 1);
    }
}

/// A Fetch of one partition named `times` times, each from the start.
fn fetch(topic: &str, times: usize) -> Vec<u8> {
    let partition = RequestPartition { partition_max_bytes: i32::MAX, ..Default::default() };
    let partitions = vec![partition; times];
    let topics =
        [RequestTopic { topic, partitions: (&partitions[..]).into(), ..Default::default() }];
    let request = FetchRequest {
        min_bytes: 1,
        max_wait_ms: 1_000,
        topics: (&topics).into(),
        ..Default::default()
    };
    encode_request(&request, 11, 1, Some("hostile")).into_bytes()
}

#[test]
fn who_asks_and_never_reads_is_not_read_either() {
    let data = tempfile::tempdir().expect("a directory");
    let broker = Broker::start(data.path());
    let mut good = broker.client();
    fill(&mut good, "t", 8);
    let before = broker.resident_bytes();
    let frame = fetch("t", 1);
    let mut hostile: Vec<_> = (0..16).map(|_| connect(&broker)).collect();
    let mut sent = 0;
    for stream in &mut hostile {
        stream.set_nonblocking(true).expect("it can be set");
        let begun = Instant::now();
        // Until the broker reads no more: every answer is megabytes, and none is taken.
        loop {
            match stream.write(&frame) {
                Ok(count) if count == frame.len() && begun.elapsed() < PATIENCE => sent += 1,
                Ok(count) => {
                    assert!(count < frame.len(), "the broker reads {sent} requests, and goes on");
                    break;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("after {sent}: {error}"),
            }
        }
    }
    let longest = longest_wait(&mut good, "t");
    let grown = broker.resident_bytes().saturating_sub(before);
    println!("{sent} requests never read: {} KiB more, {longest:?}", grown / 1024);
    assert!(longest < WAIT_MAX, "{longest:?}");
    assert!(grown < 160 * MIB, "{} KiB more for {sent} requests", grown / 1024);
    drop(hostile);
    longest_wait(&mut good, "t");
}

#[test]
fn one_answer_is_as_large_as_one_may_be() {
    let data = tempfile::tempdir().expect("a directory");
    let broker = Broker::start(data.path());
    let mut good = broker.client();
    fill(&mut good, "t", 8);
    let before = broker.resident_bytes();
    // 160 GiB, if it were given. Four at once, beside a client that behaves.
    let frame = fetch("t", 20_000);
    let answers: Vec<_> = (0..4)
        .map(|_| {
            let (mut stream, frame) = (connect(&broker), frame.clone());
            std::thread::spawn(move || {
                stream.write_all(&frame).expect("it reads");
                let mut len = [0; 4];
                stream.read_exact(&mut len).expect("it answers");
                let len = u64::from(u32::from_be_bytes(len));
                let read = std::io::copy(&mut (&mut stream).take(len), &mut std::io::sink());
                assert_eq!(read.expect("the whole answer"), len);
                len as usize
            })
        })
        .collect();
    let longest = longest_wait(&mut good, "t");
    let peak = broker.resident_bytes();
    let answers: Vec<_> = answers.into_iter().map(|a| a.join().expect("answered")).collect();
    let grown = peak.max(broker.resident_bytes()).saturating_sub(before);
    println!("answers of {answers:?} bytes: {} KiB more, {longest:?}", grown / 1024);
    // `fetch.max.bytes` is 55 MiB; each partition has some bytes of its own beside its records.
    assert!(answers.iter().all(|&len| len < 55 * MIB + 20_000 * 100), "{answers:?}");
    assert!(longest < WAIT_MAX, "{longest:?}");
    assert!(grown < 400 * MIB, "{} KiB more", grown / 1024);
}

#[test]
fn a_client_is_no_replica() {
    let data = tempfile::tempdir().expect("a directory");
    let broker = Broker::start(data.path());
    let mut client = broker.client();
    create(&mut client, "t");
    let request = FetchRequest { replica_id: 1, ..Default::default() };
    let response = client.call_in(&request, 11).expect("an answer");
    assert_eq!(response.error_code, ErrorCode::ClusterAuthorizationFailed);
}
