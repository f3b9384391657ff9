//! `perf produce`: writes at a rate, or at the maximum, and tells what that was like.

use std::time::{Duration, Instant};

use clap::ValueEnum;
use net::client::Answer;
use net::wire::encode_request;
use net::wire::produce::{
    ProduceRequest, ProduceResponse, RequestPartition, RequestTopic, ResponseTopic,
};
use net::wire::{ErrorCode, Records};

use crate::broker::{self, BrokerArgs, CLIENT_ID, Target};
use crate::deliver::{self, Delivered};
use crate::error::{PerfError, accepted};
use crate::latency::Latencies;
use crate::load::{self, Ask, Lane, Outcome, Pace, Run, Take};
use crate::report::Report;
use crate::row;
use crate::schedule::Arrivals;
use crate::template::{Mark, Template, VALUE_BYTES_MIN, marked_batch};
use crate::topic::{self, Topic};
use crate::units::{self, Rate};

/// How long the broker may take to store what was sent without waiting.
const STORE_PATIENCE: Duration = Duration::from_secs(10);

/// Whose copy a write waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Acks {
    /// Nobody's; there is no answer.
    #[value(name = "0")]
    None,
    /// The leader's.
    #[value(name = "1")]
    Leader,
    /// Every in-sync replica's.
    #[value(name = "all", alias = "-1")]
    All,
}

impl Acks {
    /// As the protocol has it.
    pub fn to_wire(self) -> i16 {
        match self {
            Acks::None => 0,
            Acks::Leader => 1,
            Acks::All => -1,
        }
    }

    /// As people say it.
    pub fn name(self) -> &'static str {
        match self {
            Acks::None => "0",
            Acks::Leader => "1",
            Acks::All => "all",
        }
    }
}

/// What is written, to where.
#[derive(clap::Args, Debug, Clone)]
pub struct LoadArgs {
    /// Value bytes of a record (at least 28)
    #[arg(long, default_value = "1k", value_parser = units::parse_size)]
    pub size: usize,
    /// Records in a batch; each request carries one batch
    #[arg(long, default_value_t = 16, value_name = "RECORDS")]
    pub batch: usize,
    /// Connections
    #[arg(long, default_value_t = 4)]
    pub connections: usize,
    /// Partitions of the topic, if it has to be made
    #[arg(long, default_value_t = 6)]
    pub partitions: i32,
    /// Requests in flight per connection at --rate max
    #[arg(long, default_value_t = 5)]
    pub in_flight: usize,
    /// Seconds that count
    #[arg(long, default_value = "5", value_parser = units::parse_seconds)]
    pub seconds: Duration,
    /// Seconds before, that do not
    #[arg(long, default_value = "1", value_parser = units::parse_seconds)]
    pub warm_up: Duration,
    /// How the requests of a rate are spread over time
    #[arg(long, value_enum, default_value = "uniform")]
    pub arrivals: Arrivals,
    /// Seed of the arrivals
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// Options of `perf produce`.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    broker: BrokerArgs,
    /// Topic to write to; made if it is not there
    #[arg(long, default_value = "perf-produce")]
    topic: String,
    /// Records per second over all connections (k and m are known), or max
    #[arg(long, default_value = "10k", value_parser = units::parse_rate)]
    rate: Rate,
    /// Whose copy each write waits for
    #[arg(long, value_enum, default_value = "all")]
    acks: Acks,
    /// Do not read along (reading along tells when records reach a consumer, and that none is lost)
    #[arg(long)]
    no_deliver: bool,
    #[command(flatten)]
    load: LoadArgs,
}

/// One measurement.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Whose copy each write waited for.
    pub acks: Acks,
    /// What became of the requests.
    pub outcome: Outcome,
    /// What arrived at the consumers, if some followed.
    pub delivered: Option<Delivered>,
    /// Batches that were stored, as the log ends tell, in `stored_in`.
    pub stored: u64,
    /// From the first request until all was stored.
    pub stored_in: Duration,
    /// Bytes of one batch.
    pub batch_bytes: usize,
}

impl LoadArgs {
    /// Refuses what cannot be.
    pub fn check(&self) -> Result<(), PerfError> {
        let refuse = |why: String| Err(PerfError::Usage(why));
        match self {
            _ if self.size < VALUE_BYTES_MIN => {
                refuse(format!("--size is at least {VALUE_BYTES_MIN}: times are written into it"))
            }
            _ if self.batch == 0 || self.connections == 0 || self.in_flight == 0 => {
                refuse("--batch, --connections and --in-flight are at least 1".into())
            }
            _ if self.partitions < 1 => refuse("--partitions is at least 1".into()),
            _ => Ok(()),
        }
    }

    fn pace(&self, rate: Rate) -> Pace {
        match rate {
            Rate::Max => Pace::Max { in_flight: self.in_flight },
            Rate::PerSecond(records) => Pace::Open {
                per_second: records / self.batch as f64,
                arrivals: self.arrivals,
                seed: self.seed,
            },
        }
    }
}

/// Runs it.
pub fn run(args: &Args) -> Result<(), PerfError> {
    args.load.check()?;
    let target = Target::open(&args.broker)?;
    let report = Report::begin(&target.directory());
    let topic = topic::ensure(&mut target.connect()?, &args.topic, args.load.partitions)?;
    let measured =
        measure(&args.load, &topic, args.rate, args.acks, !args.no_deliver, target.pid())?;
    print(&report, args, &measured);
    report.end();
    measured.verify()
}

/// Puts the load on `topic`.
pub fn measure(
    load: &LoadArgs,
    topic: &Topic,
    rate: Rate,
    acks: Acks,
    deliver: bool,
    pid: Option<u32>,
) -> Result<Measured, PerfError> {
    let batch = marked_batch(load.batch, load.size, load.seed);
    let lanes = lanes(load, topic, acks, &batch)?;
    let (warm_up, time) = (load.warm_up, load.seconds);
    let answered = acks != Acks::None;
    let run = Run { pace: load.pace(rate), warm_up, time, answered, pid };
    let before = topic::ends(topic)?;
    let clock = load::clock();
    let follow = || deliver::follow(topic, &before, &run, clock);
    let following = if deliver { Some(follow()?) } else { None };
    let begun = Instant::now();
    let outcome = load::run(&run, clock, lanes)?;
    let stored = wait_until_stored(topic, &before, outcome.sent, load.batch)?;
    let stored_in = begun.elapsed();
    let delivered = following.map(|following| following.finish(outcome.sent)).transpose()?;
    Ok(Measured { acks, outcome, delivered, stored, stored_in, batch_bytes: batch.len() })
}

/// Waits until the ends of the logs have grown by what was sent; answers by how many batches.
fn wait_until_stored(
    topic: &Topic,
    before: &[i64],
    sent: u64,
    records: usize,
) -> Result<u64, PerfError> {
    let begun = Instant::now();
    loop {
        let grown: i64 =
            topic::ends(topic)?.iter().zip(before).map(|(end, start)| end - start).sum();
        let stored = grown.max(0) as u64 / records as u64;
        if stored >= sent || begun.elapsed() > STORE_PATIENCE {
            return Ok(stored);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A connection for each seat, with one frame per partition ready to be sent.
pub fn lanes(
    load: &LoadArgs,
    topic: &Topic,
    acks: Acks,
    batch: &[u8],
) -> Result<Vec<Lane>, PerfError> {
    let mut lanes = Vec::new();
    for seat in topic.seats(load.connections) {
        let client = broker::connect(&seat.leader)?;
        let version = topic.version_of::<ProduceRequest<'_>>(&client, 12)?;
        let frame = |&index: &i32| {
            let bytes = produce_frame(topic, index, acks, batch, version);
            Template::new(bytes, batch)
        };
        let frames = seat.partitions.iter().map(frame).collect();
        let ask = Box::new(ProduceAsk { frames, next: 0 });
        let take = Box::new(ProduceTake { version, bytes: batch.len() as u64 });
        lanes.push(Lane { client, ask, take });
    }
    Ok(lanes)
}

/// A request that writes one batch to one partition.
pub fn produce_request<'a>(
    topic: &'a Topic,
    index: i32,
    acks: Acks,
    batch: &'a [u8],
) -> ProduceRequest<'a> {
    let records = Some(Records::Here(batch));
    let partitions = vec![RequestPartition { index, records }].into();
    let topic = RequestTopic { name: &topic.name, topic_id: topic.id, partitions };
    ProduceRequest {
        acks: acks.to_wire(),
        timeout_ms: 30_000,
        topics: vec![topic].into(),
        ..Default::default()
    }
}

/// Its frame.
pub fn produce_frame(topic: &Topic, index: i32, acks: Acks, batch: &[u8], version: i16) -> Vec<u8> {
    let request = produce_request(topic, index, acks, batch);
    encode_request(&request, version, 0, Some(CLIENT_ID)).into_bytes()
}

struct ProduceAsk {
    frames: Vec<Template>,
    next: usize,
}

impl Ask for ProduceAsk {
    fn next(&mut self, mark: Mark) -> &mut [u8] {
        let turn = self.next;
        self.next = (turn + 1) % self.frames.len();
        let frame = &mut self.frames[turn];
        frame.stamp(mark);
        &mut frame.bytes
    }
}

struct ProduceTake {
    version: i16,
    bytes: u64,
}

impl Take for ProduceTake {
    fn take(&mut self, answer: Answer<'_>) -> Result<u64, PerfError> {
        let response: ProduceResponse<'_> =
            answer.decode(self.version).map_err(net::client::ClientError::from)?;
        first_error(&response)?;
        Ok(self.bytes)
    }
}

/// The error of the one partition that was written to.
pub fn first_error(response: &ProduceResponse<'_>) -> Result<(), PerfError> {
    let partition = response.topics.first().and_then(|t: ResponseTopic<'_>| t.partitions.first());
    match partition {
        Some(partition) => {
            let words = partition.error_message.as_deref().unwrap_or("no more was said");
            match partition.error_code {
                ErrorCode::None => Ok(()),
                error => accepted(format!("producing ({words})"), error),
            }
        }
        None => Err(PerfError::Wrong("an answer without the partition that was written".into())),
    }
}

impl Measured {
    /// Requests per second that were answered in the time that counts; without answers, that were
    /// stored over the whole run.
    pub fn rate(&self) -> f64 {
        match self.acks {
            Acks::None => self.stored as f64 / self.stored_in.as_secs_f64(),
            _ => self.outcome.done as f64 / self.outcome.elapsed.as_secs_f64(),
        }
    }

    /// Whether less than 99 % of the scheduled rate was done in its time.
    pub fn overloaded(&self, time: Duration) -> bool {
        self.outcome.due as f64 * 0.99 > self.rate() * time.as_secs_f64()
    }

    /// Processor seconds of the broker for each GB (10⁹ bytes) of batches that were done.
    pub fn cpu_per_gb(&self) -> Option<f64> {
        let gigabytes = (self.outcome.done * self.batch_bytes as u64) as f64 / 1e9;
        Some(self.outcome.cpu?.as_secs_f64() / gigabytes)
    }

    /// Errs if something is lost, doubled or out of order.
    pub fn verify(&self) -> Result<(), PerfError> {
        let (sent, stored) = (self.outcome.sent, self.stored);
        if stored != sent {
            let acks = self.acks.name();
            let why = format!("{sent} batches were sent with acks={acks}, {stored} are stored");
            return Err(PerfError::Wrong(why));
        }
        match &self.delivered {
            Some(d) if d.batches != sent || d.disordered > 0 => Err(PerfError::Wrong(format!(
                "{sent} batches were sent, {} arrived, {} of them out of order or twice",
                d.batches, d.disordered
            ))),
            _ => Ok(()),
        }
    }
}

/// One row of latencies.
pub fn latency_row(name: &str, latencies: &Latencies) -> Vec<String> {
    let mut row = row![name];
    row.extend(latencies.cells());
    row
}

/// The header of such rows.
pub fn latency_header(first: &str) -> Vec<&str> {
    let mut header = vec![first];
    header.extend(Latencies::COLUMNS);
    header
}

fn print(report: &Report, args: &Args, measured: &Measured) {
    let outcome = &measured.outcome;
    let records = args.load.batch as f64;
    let offered = match args.rate {
        Rate::Max => "max".to_owned(),
        Rate::PerSecond(rate) => units::count(rate),
    };
    report.table(
        "Throughput",
        &["acks", "offered rec/s", "achieved rec/s", "MB/s", "requests", "core-s/GB"],
        vec![row![
            args.acks.name(),
            offered,
            units::count(measured.rate() * records),
            units::megabytes(measured.rate() * measured.batch_bytes as f64),
            units::count(outcome.done as f64),
            measured.cpu_per_gb().map_or("–".into(), units::three_digits),
        ]],
    );
    let timings = &outcome.timings;
    let mut rows = Vec::new();
    let scheduled = args.rate != Rate::Max;
    if args.acks != Acks::None {
        if scheduled {
            rows.push(latency_row("due → ack", &timings.response));
        }
        rows.push(latency_row("sent → ack", &timings.service));
    }
    if let Some(delivered) = &measured.delivered {
        let name = if scheduled { "due → consumed" } else { "sent → consumed" };
        rows.push(latency_row(name, &delivered.latencies));
    }
    if scheduled {
        rows.push(latency_row("due → sent", &timings.delay));
    }
    report.table("Latency, one sample per request", &latency_header("from → to"), rows);
    if args.acks == Acks::None {
        report.note("acks=0 has no answer: achieved is what was stored over the whole run.");
    }
    if scheduled && measured.overloaded(args.load.seconds) {
        report.note("OVERLOADED: less than 99 % of the offered rate was done in its time.");
    }
    report.note(&format!(
        "Sent {} batches of {} in all, stored {}.",
        units::count(outcome.sent as f64),
        units::size(measured.batch_bytes as u64),
        units::count(measured.stored as f64),
    ));
}
