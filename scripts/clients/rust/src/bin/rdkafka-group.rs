//! A member of a group: rdkafka; see group_member.py.
//!
//!     rdkafka-group BOOTSTRAP TOPIC GROUP NAME HISTORY PROTOCOL ASSIGNOR INSTANCE

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::message::Message;
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};

const SESSION_MS: &str = "6000";
const HEARTBEAT_MS: &str = "500";
const BATCH: usize = 50;
const WORK: Duration = Duration::from_millis(10);

static STOPPING: AtomicBool = AtomicBool::new(false);

/// What the member knows: all of it is told by the one thread that polls, rebalances included.
struct Notes {
    topic: String,
    group: String,
    name: String,
    file: Mutex<File>,
    /// Processed and not committed yet.
    pending: Mutex<BTreeMap<i32, i64>>,
}

impl Notes {
    /// One line; no text of ours has anything to escape.
    fn write(&self, op: &str, fields: &str) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos();
        let name = &self.name;
        let line =
            format!("{{\"op\":\"{op}\",\"client\":\"{name}\",{fields},\"time_ns\":{now}}}\n");
        let mut file = self.file.lock().expect("no thread panics with it");
        file.write_all(line.as_bytes()).expect("the history takes a line");
    }

    fn at(&self, partition: i32) -> String {
        format!("\"topic\":\"{}\",\"partition\":{partition}", self.topic)
    }

    fn moved(&self, kind: &str, partitions: &[i32]) {
        for p in partitions {
            self.write("assign", &format!("{},\"kind\":\"{kind}\"", self.at(*p)));
        }
    }

    fn complain(&self, what: &str, error: &dyn std::fmt::Display) {
        println!("     {}: {what}: {error}", self.name);
    }

    /// Commits what is pending of these partitions (none: all); what is refused stays pending.
    fn commit(&self, consumer: &BaseConsumer<Notes>, partitions: Option<&[i32]>) {
        let mut pending = self.pending.lock().expect("no thread panics with it");
        let wanted = |p: &i32| partitions.is_none_or(|partitions| partitions.contains(p));
        let offsets: Vec<_> =
            pending.iter().filter(|(p, _)| wanted(p)).map(|(p, o)| (*p, *o)).collect();
        if offsets.is_empty() {
            return;
        }
        let mut list = TopicPartitionList::new();
        for (p, o) in &offsets {
            list.add_partition_offset(&self.topic, *p, Offset::Offset(*o)).expect("valid");
        }
        if let Err(error) = consumer.commit(&list, CommitMode::Sync) {
            self.complain("commit", &error);
            return;
        }
        for (p, o) in offsets {
            let group = &self.group;
            self.write("commit", &format!("{},\"group\":\"{group}\",\"offset\":{o}", self.at(p)));
            pending.remove(&p);
        }
    }
}

impl ClientContext for Notes {}

impl ConsumerContext for Notes {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let numbers = |list: &TopicPartitionList| -> Vec<i32> {
            list.elements().iter().map(|at| at.partition()).collect()
        };
        match rebalance {
            Rebalance::Assign(list) => self.moved("assigned", &numbers(list)),
            Rebalance::Revoke(list) => {
                let gone = numbers(list);
                let lost = consumer.assignment_lost();
                if !lost {
                    self.commit(consumer, Some(&gone));
                }
                let mut pending = self.pending.lock().expect("no thread panics with it");
                pending.retain(|p, _| !gone.contains(p));
                self.moved(if lost { "lost" } else { "revoked" }, &gone);
            }
            Rebalance::Error(error) => self.complain("rebalance", error),
        }
    }
}

fn config(arguments: &[String]) -> ClientConfig {
    let (protocol, assignor, instance) = (&arguments[6], &arguments[7], &arguments[8]);
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &arguments[1])
        .set("group.id", &arguments[3])
        .set("client.id", &arguments[4])
        .set("group.protocol", protocol)
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("reconnect.backoff.max.ms", "500")
        .set("log_level", "2");
    if protocol == "classic" {
        config.set("session.timeout.ms", SESSION_MS).set("heartbeat.interval.ms", HEARTBEAT_MS);
    }
    match (protocol.as_str(), assignor.as_str()) {
        (_, "-") => {}
        ("classic", name) => _ = config.set("partition.assignment.strategy", name),
        (_, name) => _ = config.set("group.remote.assignor", name),
    }
    if instance != "-" {
        config.set("group.instance.id", instance);
    }
    config
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let file = OpenOptions::new().create(true).append(true).open(&arguments[5]);
    let notes = Notes {
        topic: arguments[2].clone(),
        group: arguments[3].clone(),
        name: arguments[4].clone(),
        file: Mutex::new(file.expect("the history can be written")),
        pending: Mutex::default(),
    };
    thread::spawn(|| {
        std::io::stdin().read_to_end(&mut Vec::new()).expect("standard input can be read");
        STOPPING.store(true, Ordering::Relaxed);
    });
    let consumer: BaseConsumer<Notes> =
        config(&arguments).create_with_context(notes).expect("a consumer");
    let notes = consumer.context();
    consumer.subscribe(&[&notes.topic]).expect("a subscription");
    for call in 1.. {
        if STOPPING.load(Ordering::Relaxed) {
            break;
        }
        let (mut count, mut wait) = (0, Duration::from_millis(100));
        while count < BATCH {
            let Some(message) = consumer.poll(wait) else { break };
            wait = Duration::ZERO;
            let m = match message {
                Ok(m) => m,
                Err(error) => {
                    notes.complain("poll", &error);
                    continue;
                }
            };
            let (p, offset) = (m.partition(), m.offset());
            let key = m.key_view::<str>().and_then(Result::ok).unwrap_or_default();
            let value = m.payload_view::<str>().and_then(Result::ok).unwrap_or_default();
            let content = format!("\"offset\":{offset},\"key\":\"{key}\",\"value\":\"{value}\"");
            notes.write("poll", &format!("{},{content},\"call\":{call}", notes.at(p)));
            notes.pending.lock().expect("no thread panics with it").insert(p, offset + 1);
            count += 1;
        }
        if count > 0 {
            thread::sleep(WORK);
        }
        notes.commit(&consumer, None);
    }
    notes.commit(&consumer, None);
    notes.write("assign", "\"kind\":\"closing\"");
    // Dropping it closes it, and it leaves the group.
}
