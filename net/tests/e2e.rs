//! The real binary from outside: hostile bytes cost their sender the connection and nothing else,
//! SIGTERM drains, SIGKILL loses nothing that was acknowledged, a data directory is used by one.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use engine::batch::{BatchBuilder, NewRecord};
use engine::time::Timestamp;
use net::client::Client;
use net::wire::fetch::{self, FetchRequest};
use net::wire::metadata::{self, MetadataRequest};
use net::wire::produce::{self, ProduceRequest};
use net::wire::{ErrorCode, Records};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

#[path = "e2e/hostile.rs"]
mod hostile;

const PATIENCE: Duration = Duration::from_secs(30);

struct Broker {
    child: Child,
    address: SocketAddr,
}

impl Broker {
    fn start(data: &Path) -> Broker {
        let mut child = Command::new(env!("CARGO_BIN_EXE_ringbolt"))
            .args(["--listen", "127.0.0.1:0", "--data"])
            .arg(data)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary starts");
        let mut out = BufReader::new(child.stdout.take().expect("its output is piped"));
        let mut line = String::new();
        out.read_line(&mut line).expect("it says when it is ready");
        let address = line.split_whitespace().skip_while(|word| *word != "on").nth(1);
        let address = address.and_then(|word| word.trim_end_matches(',').parse().ok());
        let address = address.unwrap_or_else(|| panic!("no address in {line:?}"));
        std::thread::spawn(move || std::io::copy(&mut out, &mut std::io::sink()));
        Broker { child, address }
    }

    fn client(&self) -> Client {
        Client::connect(self.address, "e2e", PATIENCE).expect("the broker answers")
    }

    fn signal(&mut self, signal: Signal) -> Option<i32> {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("the process is there");
        self.child.wait().expect("it ends").code()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Creates a topic by asking for it, as clients do.
fn create(client: &mut Client, name: &str) {
    let topics = [metadata::RequestTopic { name: Some(name), ..Default::default() }];
    let request = MetadataRequest {
        topics: Some((&topics).into()),
        allow_auto_topic_creation: true,
        ..Default::default()
    };
    for _ in 0..100 {
        let response = client.call_in(&request, 9).expect("metadata");
        let topic = response.topics.first().expect("the topic asked for");
        if topic.error_code == ErrorCode::None {
            return;
        }
        assert!(topic.error_code.is_retriable(), "{:?}", topic.error_code);
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("the topic {name} was not created");
}

fn produce(client: &mut Client, topic: &str, value: &str, acks: i16) -> i64 {
    produce_bytes(client, topic, value.as_bytes(), acks)
}

fn produce_bytes(client: &mut Client, topic: &str, value: &[u8], acks: i16) -> i64 {
    let mut builder = BatchBuilder::new(1 << 20);
    let timestamp = Timestamp(1);
    let record = NewRecord { timestamp, key: None, value: Some(value), headers: &[] };
    builder.push(&record).expect("it has room");
    let batch = builder.build().expect("uncompressed");
    let partitions = [produce::RequestPartition { index: 0, records: Some(Records::Here(&batch)) }];
    let topics = [produce::RequestTopic {
        name: topic,
        partitions: (&partitions).into(),
        ..Default::default()
    }];
    let request =
        ProduceRequest { acks, timeout_ms: 30_000, topics: (&topics).into(), ..Default::default() };
    let response = client.call_in(&request, 9).expect("produce");
    let partition = response.topics.first().and_then(|t| t.partitions.first()).expect("one");
    assert_eq!(partition.error_code, ErrorCode::None, "{:?}", partition.error_message);
    partition.base_offset
}

fn fetch_all(client: &mut Client, topic: &str) -> Vec<u8> {
    let partitions =
        [fetch::RequestPartition { partition_max_bytes: 1 << 20, ..Default::default() }];
    let topics =
        [fetch::RequestTopic { topic, partitions: (&partitions).into(), ..Default::default() }];
    let request = FetchRequest { topics: (&topics).into(), ..Default::default() };
    let response = client.call_in(&request, 11).expect("fetch");
    let partition = response.topics.first().and_then(|t| t.partitions.first()).expect("one");
    assert_eq!(partition.error_code, ErrorCode::None);
    partition.records.map_or(Vec::new(), |records| records.bytes().to_vec())
}

/// Sends bytes and waits until the broker closes; answers what it said before.
fn closed_after(address: SocketAddr, bytes: &[u8], half_close: bool) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).expect("it accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    stream.write_all(bytes).expect("it reads");
    if half_close {
        stream.shutdown(std::net::Shutdown::Write).expect("half closed");
    }
    let mut said = Vec::new();
    // A reset is a way of closing, too.
    match stream.read_to_end(&mut said) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
    }
    said
}

#[test]
fn hostile_bytes_cost_their_sender_the_connection_and_nothing_else() {
    let data = tempfile::tempdir().expect("a directory");
    let broker = Broker::start(data.path());
    let mut good = broker.client();
    create(&mut good, "safe");
    produce(&mut good, "safe", "before", -1);

    let header = |key: i16, version: i16| {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&key.to_be_bytes());
        bytes.extend_from_slice(&version.to_be_bytes());
        bytes.extend_from_slice(&7i32.to_be_bytes());
        bytes.extend_from_slice(&(-1i16).to_be_bytes());
        bytes
    };
    let framed = |body: Vec<u8>| {
        let mut bytes = (body.len() as i32).to_be_bytes().to_vec();
        bytes.extend(body);
        bytes
    };
    let mut huge_count = header(3, 0);
    huge_count.extend_from_slice(&i32::MAX.to_be_bytes());
    huge_count.push(0);
    let attacks: [(&str, Vec<u8>, bool); 7] = [
        ("a metadata request with a huge count", framed(huge_count), false),
        ("a length of 2 GiB", i32::MAX.to_be_bytes().to_vec(), false),
        ("a negative length", (-5i32).to_be_bytes().to_vec(), false),
        ("an API that does not exist", framed(header(999, 0)), false),
        ("a version that does not exist", framed(header(1, 99)), false),
        ("http", b"GET / HTTP/1.1\r\nHost: ringbolt\r\n\r\n".to_vec(), false),
        ("half a frame", framed(vec![0; 100])[..50].to_vec(), true),
    ];
    for (what, bytes, half_close) in attacks {
        let said = closed_after(broker.address, &bytes, half_close);
        assert!(said.is_empty(), "{what} was answered");
        // The one that was there before is not disturbed, and new ones are welcome.
        produce(&mut good, "safe", what, -1);
        produce(&mut broker.client(), "safe", what, 1);
    }
    let mut random = 0x2545_f491_4f6c_dd1du64;
    for _ in 0..50 {
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random as u8
        })
        .take(300)
        .collect();
        closed_after(broker.address, &noise, true);
    }
    assert_eq!(produce(&mut good, "safe", "after", -1), 15);
}

#[test]
fn what_was_acknowledged_is_there_after_kill_and_after_drain() {
    let data = tempfile::tempdir().expect("a directory");
    let mut broker = Broker::start(data.path());
    let mut client = broker.client();
    create(&mut client, "kept");
    for i in 0..20 {
        assert_eq!(produce(&mut client, "kept", &format!("record {i}"), [1, -1][i % 2]), i as i64);
    }
    assert_eq!(broker.signal(Signal::SIGKILL), None);

    let mut broker = Broker::start(data.path());
    let mut client = broker.client();
    let found = fetch_all(&mut client, "kept");
    let count = engine::batch::batches(&found).filter(|batch| batch.is_ok()).count();
    assert_eq!(count, 20, "one batch for each record");
    assert_eq!(produce(&mut client, "kept", "more", -1), 20);
    assert_eq!(broker.signal(Signal::SIGTERM), Some(0), "drained");

    let broker = Broker::start(data.path());
    assert_eq!(produce(&mut broker.client(), "kept", "and more", -1), 21);

    let second = Command::new(env!("CARGO_BIN_EXE_ringbolt"))
        .args(["--listen", "127.0.0.1:0", "--data"])
        .arg(data.path())
        .output()
        .expect("the binary starts");
    assert!(!second.status.success(), "two brokers on one directory");
    let why = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(why.contains("in use") || why.contains("running") || why.contains("lock"), "{why}");
}
