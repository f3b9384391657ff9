//! rdkafka (librdkafka, as its crate builds it): creates, produces and reads back by assignment.
//!
//!     rdkafka-suite BOOTSTRAP TOPIC BASE OUT

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};

const PARTITIONS: i32 = 6;
const LETTERS: &str = "abcdefghijklmnopqrstuvwxyz";
const DEADLINE: Duration = Duration::from_secs(60);

struct Run {
    name: String,
    codec: String,
    acks: String,
    idempotent: bool,
    count: usize,
    first: usize,
}

struct Content {
    key: Option<String>,
    value: Option<String>,
    headers: Vec<(&'static str, Option<String>)>,
}

/// The rule of record.py, with the full headers.
fn content(run: &str, i: usize) -> Content {
    let nothing = i % 1000 == 999;
    let mut headers = Vec::new();
    if i.is_multiple_of(3) || nothing {
        headers.extend([("i", Some(i.to_string())), ("run", Some(run.into()))]);
        if i.is_multiple_of(15) {
            headers.extend([
                ("dup", Some("a".into())),
                ("dup", Some("b".into())),
                ("void", None),
                ("empty", Some(String::new())),
            ]);
        }
    }
    let length = if i % 2000 == 1999 { 30_000 } else { i * 7 % 180 };
    let letters: String = LETTERS.chars().cycle().take(length).collect();
    let value = format!("rdkafka/{run}/{i}/{letters}");
    match () {
        () if nothing => Content { key: None, value: None, headers },
        () if i % 41 == 11 => {
            Content { key: Some(format!("gone-{run}-{i}")), value: None, headers }
        }
        () if i % 50 == 7 => Content { key: None, value: Some(value), headers },
        () => Content { key: Some(format!("key-{}", i % 97)), value: Some(value), headers },
    }
}

/// Where record n was stored, as (n, partition, offset), or what went wrong with it.
type Report = Result<(usize, i32, i64), String>;

/// Collects the delivery reports of one run.
#[derive(Default)]
struct Reports(Mutex<Vec<Report>>);

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<usize>;

    fn delivery(&self, result: &DeliveryResult<'_>, n: Box<usize>) {
        self.0.lock().expect("no thread panics with it").push(match result {
            Ok(m) => Ok((*n, m.partition(), m.offset())),
            Err((error, _)) => Err(format!("n={n}: {error}")),
        });
    }
}

struct Suite {
    bootstrap: String,
    topic: String,
    base: i64,
    out: PathBuf,
    runs: Vec<Run>,
    total: usize,
}

fn hex(bytes: Option<&[u8]>) -> String {
    let Some(bytes) = bytes else { return "~".into() };
    bytes.iter().fold(String::new(), |mut text, b| {
        write!(text, "{b:02x}").expect("a String takes everything");
        text
    })
}

impl Suite {
    fn from_arguments() -> Suite {
        let arguments: Vec<String> = std::env::args().collect();
        let out = PathBuf::from(&arguments[4]);
        let plan = fs::read_to_string(out.join("plan.tsv")).expect("the plan is there");
        let runs: Vec<Run> = plan
            .lines()
            .map(|line| {
                let f: Vec<&str> = line.split('\t').collect();
                Run {
                    name: f[0].into(),
                    codec: f[1].into(),
                    acks: f[2].into(),
                    idempotent: f[3] == "1",
                    count: f[4].parse().expect("a count"),
                    first: f[5].parse().expect("a number"),
                }
            })
            .collect();
        let total = runs.iter().map(|run| run.count).sum();
        Suite {
            bootstrap: arguments[1].clone(),
            topic: arguments[2].clone(),
            base: arguments[3].parse().expect("milliseconds"),
            out,
            runs,
            total,
        }
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap);
        config
    }

    fn file(&self, name: &str) -> BufWriter<File> {
        BufWriter::new(
            File::create(self.out.join(format!("{name}.tsv"))).expect("the folder is ours"),
        )
    }

    fn create(&self) -> Result<(), String> {
        let admin: AdminClient<DefaultClientContext> =
            self.config().create().map_err(|e| format!("admin: {e}"))?;
        let topic = NewTopic::new(&self.topic, PARTITIONS, TopicReplication::Fixed(1));
        let results = block_on(admin.create_topics([&topic], &AdminOptions::new()))
            .map_err(|e| format!("create: {e}"))?;
        for result in results {
            result.map_err(|(topic, error)| format!("create {topic}: {error}"))?;
        }
        loop {
            let metadata = admin.inner().fetch_metadata(Some(&self.topic), Duration::from_secs(10));
            if metadata.map_err(|e| format!("metadata: {e}"))?.topics()[0].partitions().len()
                == PARTITIONS as usize
            {
                break;
            }
        }
        println!("ok   rdkafka: created {}", self.topic);
        Ok(())
    }

    fn produce(&self, run: &Run, file: &mut impl Write) -> Result<(), String> {
        let producer: ThreadedProducer<Reports> = self
            .config()
            .set("acks", &run.acks)
            .set("enable.idempotence", run.idempotent.to_string())
            .set("compression.type", &run.codec)
            .set("linger.ms", "5")
            .create_with_context(Reports::default())
            .map_err(|e| format!("producer: {e}"))?;
        for i in 0..run.count {
            let n = run.first + i;
            let content = content(&run.name, i);
            let mut headers = OwnedHeaders::new_with_capacity(content.headers.len());
            for (key, value) in &content.headers {
                headers = headers.insert(Header { key, value: value.as_ref() });
            }
            let mut record = BaseRecord::with_opaque_to(&self.topic, Box::new(n))
                .timestamp(self.base + n as i64)
                .headers(headers);
            record.key = content.key.as_ref();
            record.payload = content.value.as_ref();
            while let Err((error, back)) = producer.send(record) {
                if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
                    return Err(format!("produce {} {i}: {error}", run.name));
                }
                producer.poll(Duration::from_millis(50));
                record = back;
            }
        }
        producer.flush(DEADLINE).map_err(|e| format!("flush {}: {e}", run.name))?;
        let reports =
            std::mem::take(&mut *producer.context().0.lock().expect("no thread panics with it"));
        if reports.len() != run.count {
            return Err(format!(
                "produce {}: {} of {} reports",
                run.name,
                reports.len(),
                run.count
            ));
        }
        for report in reports {
            let (n, partition, offset) =
                report.map_err(|e| format!("produce {}: {e}", run.name))?;
            if run.acks != "0" {
                writeln!(file, "{n}\t{partition}\t{offset}").map_err(|e| e.to_string())?;
            }
        }
        let idempotent = if run.idempotent { ", idempotent" } else { "" };
        println!(
            "ok   rdkafka: produced {} with {}, acks={}{idempotent}",
            run.count, run.codec, run.acks
        );
        Ok(())
    }

    /// Reads from the given offsets until count records are in; returns the end of each partition.
    fn consume(
        &self,
        consumer: &BaseConsumer,
        name: &str,
        starts: &TopicPartitionList,
        count: usize,
    ) -> Result<BTreeMap<i32, i64>, String> {
        consumer.assign(starts).map_err(|e| format!("assign: {e}"))?;
        let mut file = self.file(name);
        let mut ends = BTreeMap::new();
        let (mut seen, begin) = (0, Instant::now());
        while begin.elapsed() < DEADLINE {
            let Some(message) = consumer.poll(Duration::from_millis(500)) else {
                // Half a second of nothing after the last: whatever came then would be one too many, and show.
                if seen >= count {
                    break;
                }
                continue;
            };
            let m = message.map_err(|e| format!("read {name}: {e}"))?;
            let headers: Vec<String> = m
                .headers()
                .map(|headers| {
                    headers.iter().map(|h| format!("{}={}", h.key, hex(h.value))).collect()
                })
                .unwrap_or_default();
            let (partition, offset) = (m.partition(), m.offset());
            let timestamp = m.timestamp().to_millis().unwrap_or(-1);
            let (key, value) = (hex(m.key()), hex(m.payload()));
            writeln!(
                file,
                "{partition}\t{offset}\t{timestamp}\t{key}\t{value}\t{}",
                headers.join(",")
            )
            .map_err(|e| e.to_string())?;
            ends.insert(partition, offset + 1);
            seen += 1;
        }
        if seen != count {
            return Err(format!("read {seen} of {count} records from {name}"));
        }
        println!("ok   rdkafka: read {seen} records from {name}");
        Ok(ends)
    }

    fn run(&self) -> Result<(), String> {
        self.create()?;
        let mut reports = self.file("reports");
        for run in &self.runs {
            self.produce(run, &mut reports)?;
        }
        drop(reports);

        let consumer: BaseConsumer = self
            .config()
            .set("group.id", "unused-by-assignment")
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "error")
            .set("check.crcs", "true")
            .create()
            .map_err(|e| format!("consumer: {e}"))?;
        let list = |offset: &dyn Fn(i32) -> Offset| {
            let mut list = TopicPartitionList::new();
            for p in 0..PARTITIONS {
                list.add_partition_offset(&self.topic, p, offset(p)).expect("a valid offset");
            }
            list
        };
        let ends =
            self.consume(&consumer, "earliest", &list(&|_| Offset::Beginning), self.total)?;
        if ends.len() != PARTITIONS as usize {
            return Err(format!("records in {} partitions only", ends.len()));
        }

        let when = self.base + self.total as i64 * 5 / 6;
        let middle = list(&|p| Offset::Offset(ends[&p] * 3 / 4));
        let later = consumer
            .offsets_for_times(list(&|_| Offset::Offset(when)), Duration::from_secs(10))
            .map_err(|e| format!("offsets for times: {e}"))?;
        let mut starts = self.file("starts");
        let mut note = |line: String| writeln!(starts, "{line}").map_err(|e| e.to_string());
        note(format!("time\t0\t{when}"))?;
        for &p in ends.keys() {
            let (_, end) = consumer
                .fetch_watermarks(&self.topic, p, Duration::from_secs(10))
                .map_err(|e| format!("watermarks: {e}"))?;
            note(format!("end\t{p}\t{end}"))?;
        }
        let mut reads = Vec::new();
        for (name, offsets) in [("offset", middle), ("timestamp", later)] {
            let mut count = 0;
            for at in offsets.elements() {
                let offset = at.offset().to_raw().ok_or("no offset for a time")?;
                note(format!("{name}\t{}\t{offset}", at.partition()))?;
                count += (ends[&at.partition()] - offset) as usize;
            }
            reads.push((name, offsets, count));
        }
        drop(starts);
        for (name, offsets, count) in &reads {
            self.consume(&consumer, name, offsets, *count)?;
        }
        Ok(())
    }
}

/// The admin client answers with futures that its own thread completes; parking until then is all they need.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = std::task::Waker::from(std::sync::Arc::new(Unpark(std::thread::current())));
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut std::task::Context::from_waker(&waker)) {
            std::task::Poll::Ready(value) => return value,
            std::task::Poll::Pending => std::thread::park(),
        }
    }
}

fn main() {
    if let Err(problem) = Suite::from_arguments().run() {
        println!("FAIL rdkafka: {problem}");
        std::process::exit(1);
    }
}
