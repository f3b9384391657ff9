//! `perf fetch`: reads what is stored at a rate or at the maximum; with `--tail` the newest data,
//! as fast as one consumer can, against a raw loopback stream of the same chunk size.

use std::time::Duration;

use net::client::{Answer, Client, ClientError};
use net::wire::encode_request;
use net::wire::fetch::{FetchRequest, FetchResponse, RequestPartition, RequestTopic};
use net::wire::list_offsets::EARLIEST;
use net::wire::produce::ProduceRequest;

use crate::broker::{self, BrokerArgs, CLIENT_ID, Target};
use crate::error::{PerfError, accepted, system};
use crate::latency::median;
use crate::load::{self, Ask, Lane, Pace, Run, Take};
use crate::produce::{Acks, first_error, latency_header, latency_row, produce_frame};
use crate::report::{Report, verdict};
use crate::schedule::Arrivals;
use crate::template::{Mark, batch_of, marked_batch, marks};
use crate::topic::{self, Topic};
use crate::units::{self, Rate};
use crate::{loopback, row};

/// What the tail must reach of a raw stream (ratio of bytes per second).
const TARGET: f64 = 0.6;
/// Newest data that is read again and again: less than any broker keeps in memory.
const TAIL_BYTES: usize = 24 << 20;
/// A turn of one side of `--tail`, and the beginning of it that does not count.
const TURN: Duration = Duration::from_millis(600);
const TURN_WARM_UP: Duration = Duration::from_millis(150);
/// Batches that fill a topic are of this many bytes.
const FILL_BATCH: usize = 64 << 10;

/// Options of `perf fetch`.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    broker: BrokerArgs,
    /// Topic to read; made, and filled if it is empty
    #[arg(long, default_value = "perf-fetch")]
    topic: String,
    /// Bytes to fill an empty topic with
    #[arg(long, default_value = "256m", value_parser = units::parse_size)]
    fill: usize,
    /// Partitions of the topic, if it has to be made
    #[arg(long, default_value_t = 6)]
    partitions: i32,
    /// Fetches per second over all connections (k and m are known), or max
    #[arg(long, default_value = "500", value_parser = units::parse_rate)]
    rate: Rate,
    /// Bytes that a fetch asks for at most
    #[arg(long, default_value = "64k", value_parser = units::parse_size)]
    size: usize,
    /// Connections
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// Fetches in flight per connection at --rate max and with --tail
    #[arg(long, default_value_t = 2)]
    in_flight: usize,
    /// Seconds that count (with --tail: for each chunk size)
    #[arg(long, default_value = "5", value_parser = units::parse_seconds)]
    seconds: Duration,
    /// Seconds before, that do not
    #[arg(long, default_value = "1", value_parser = units::parse_seconds)]
    warm_up: Duration,
    /// How the fetches of a rate are spread over time
    #[arg(long, value_enum, default_value = "uniform")]
    arrivals: Arrivals,
    /// Compare fetching the newest data over one connection with a raw loopback stream
    #[arg(long)]
    tail: bool,
    /// Chunk sizes of --tail
    #[arg(long, value_delimiter = ',', default_value = "64k,256k,1m", value_parser = units::parse_size)]
    chunks: Vec<usize>,
}

/// Runs it.
pub fn run(args: &Args) -> Result<(), PerfError> {
    if args.connections == 0 || args.in_flight == 0 || args.partitions < 1 || args.size == 0 {
        return Err(PerfError::Usage("sizes, partitions, connections are at least 1".into()));
    }
    let target = Target::open(&args.broker)?;
    let report = Report::begin(&target.directory());
    match args.tail {
        true => tail(args, &target, &report)?,
        false => paced(args, &target, &report)?,
    }
    report.end();
    Ok(())
}

/// Reads the whole topic again and again.
fn paced(args: &Args, target: &Target, report: &Report) -> Result<(), PerfError> {
    let topic = topic::ensure(&mut target.connect()?, &args.topic, args.partitions)?;
    let (starts, mut ends) = (topic::offsets(&topic, EARLIEST)?, topic::ends(&topic)?);
    if starts == ends {
        fill(&topic, args.fill)?;
        ends = topic::ends(&topic)?;
    }
    let ranges: Vec<(i64, i64)> = starts.into_iter().zip(ends).collect();
    let pace = match args.rate {
        Rate::Max => Pace::Max { in_flight: args.in_flight },
        Rate::PerSecond(per_second) => Pace::Open { per_second, arrivals: args.arrivals, seed: 1 },
    };
    let lanes = lanes(&topic, &ranges, args.connections, args.size)?;
    let (warm_up, time, pid) = (args.warm_up, args.seconds, target.pid());
    let run = Run { pace, warm_up, time, answered: true, pid };
    let outcome = load::run(&run, load::clock(), lanes)?;
    let per_second = |count: u64| count as f64 / outcome.elapsed.as_secs_f64();
    let core = outcome.cpu.map(|cpu| cpu.as_secs_f64() / (outcome.bytes as f64 / 1e9));
    report.table(
        "Throughput",
        &["fetch of", "offered/s", "achieved/s", "MB/s", "core-s/GB"],
        vec![row![
            units::size(args.size as u64),
            match args.rate {
                Rate::Max => "max".to_owned(),
                Rate::PerSecond(rate) => units::count(rate),
            },
            units::count(per_second(outcome.done)),
            units::megabytes(per_second(outcome.bytes)),
            core.map_or("–".into(), units::three_digits),
        ]],
    );
    let mut rows = Vec::new();
    if args.rate != Rate::Max {
        rows.push(latency_row("due → answer", &outcome.timings.response));
        rows.push(latency_row("due → sent", &outcome.timings.delay));
    }
    rows.push(latency_row("sent → answer", &outcome.timings.service));
    report.table("Latency, one sample per fetch", &latency_header("from → to"), rows);
    Ok(())
}

/// Writes about `bytes` over all partitions.
fn fill(topic: &Topic, bytes: usize) -> Result<(), PerfError> {
    let batch = marked_batch(64, FILL_BATCH / 64, 1);
    let batches = bytes.div_ceil(batch.len() * topic.leaders.len()).max(1);
    for (partition, leader) in topic.leaders.iter().enumerate() {
        write(topic, leader, partition as i32, &batch, batches)?;
    }
    Ok(())
}

/// Writes one batch `count` times, a few in flight.
fn write(
    topic: &Topic,
    leader: &str,
    partition: i32,
    batch: &[u8],
    count: usize,
) -> Result<(), PerfError> {
    const AHEAD: usize = 8;
    let client = broker::connect(leader)?;
    let version = topic.version_of::<ProduceRequest<'_>>(&client, 12)?;
    let (mut sender, mut receiver) = client.split();
    let mut frame = produce_frame(topic, partition, Acks::All, batch, version);
    for number in 0..count + AHEAD {
        if number < count {
            sender.send_frame(&mut frame)?;
        }
        if number >= AHEAD {
            let answer = receiver.receive()?;
            first_error(&answer.decode(version).map_err(ClientError::from)?)?;
        }
    }
    Ok(())
}

/// A connection for each seat, reading its partitions in turns.
fn lanes(
    topic: &Topic,
    ranges: &[(i64, i64)],
    connections: usize,
    size: usize,
) -> Result<Vec<Lane>, PerfError> {
    let mut lanes = Vec::new();
    for seat in topic.seats(connections) {
        let mut client = broker::connect(&seat.leader)?;
        let version = topic.version_of::<FetchRequest<'_>>(&client, 12)?;
        let mut ask = FetchAsk {
            topic: topic.clone(),
            version,
            size: i32::try_from(size).unwrap_or(i32::MAX),
            positions: Vec::new(),
            next: 0,
            frame: Vec::new(),
        };
        for &partition in &seat.partitions {
            let (start, end) = ranges[partition as usize];
            if start < end {
                let step = ask.step(&mut client, partition, start)?;
                ask.positions.push(Position { partition, start, end, at: start, step });
            }
        }
        if !ask.positions.is_empty() {
            lanes.push(Lane { client, ask: Box::new(ask), take: Box::new(FetchTake { version }) });
        }
    }
    match lanes.is_empty() {
        true => Err(PerfError::Usage(format!("topic {} is empty", topic.name))),
        false => Ok(lanes),
    }
}

/// Where a reader of one partition stands. It does not wait for an answer to know where the next
/// one begins: it steps by what the first answer held.
struct Position {
    partition: i32,
    start: i64,
    end: i64,
    at: i64,
    step: i64,
}

struct FetchAsk {
    topic: Topic,
    version: i16,
    size: i32,
    positions: Vec<Position>,
    next: usize,
    frame: Vec<u8>,
}

impl FetchAsk {
    /// How many offsets one answer covers.
    fn step(&self, client: &mut Client, partition: i32, start: i64) -> Result<i64, PerfError> {
        let request = request(&self.topic, partition, start, self.size);
        let response: FetchResponse<'_> = client.call_in(&request, self.version)?;
        let bytes = fetched(&response)?;
        let mut scratch = Vec::new();
        let last = marks(bytes, &mut scratch).map(|(header, _)| header.next_offset()).last();
        match last {
            Some(next) if next.to_wire() > start => Ok(next.to_wire() - start),
            _ => Err(PerfError::Wrong(format!("nothing was fetched from offset {start}"))),
        }
    }
}

impl Ask for FetchAsk {
    fn next(&mut self, _: Mark) -> &mut [u8] {
        let turn = self.next;
        self.next = (turn + 1) % self.positions.len();
        let position = &mut self.positions[turn];
        let (at, partition) = (position.at, position.partition);
        position.at += position.step;
        if position.at >= position.end {
            position.at = position.start;
        }
        let request = request(&self.topic, partition, at, self.size);
        self.frame = encode_request(&request, self.version, 0, Some(CLIENT_ID)).into_bytes();
        &mut self.frame
    }
}

fn request<'a>(topic: &'a Topic, partition: i32, at: i64, size: i32) -> FetchRequest<'a> {
    let partition = RequestPartition {
        partition,
        fetch_offset: at,
        partition_max_bytes: size,
        ..Default::default()
    };
    let (name, topic_id, partitions) = (topic.name.as_str(), topic.id, vec![partition].into());
    FetchRequest {
        max_wait_ms: 1_000,
        min_bytes: 1,
        max_bytes: size,
        topics: vec![RequestTopic { topic: name, topic_id, partitions }].into(),
        ..Default::default()
    }
}

/// The records of the one partition that was asked for.
fn fetched<'r>(response: &FetchResponse<'r>) -> Result<&'r [u8], PerfError> {
    accepted("fetching", response.error_code)?;
    let partition = response.topics.first().and_then(|topic| topic.partitions.first());
    let partition = partition
        .ok_or_else(|| PerfError::Wrong("an answer without the partition that was read".into()))?;
    accepted("fetching", partition.error_code)?;
    match partition.records.map_or(&[][..], |records| records.bytes()) {
        [] => Err(PerfError::Wrong("nothing was fetched where something is stored".into())),
        bytes => Ok(bytes),
    }
}

struct FetchTake {
    version: i16,
}

impl Take for FetchTake {
    fn take(&mut self, answer: Answer<'_>) -> Result<u64, PerfError> {
        let response: FetchResponse<'_> = answer.decode(self.version).map_err(ClientError::from)?;
        Ok(fetched(&response)?.len() as u64)
    }
}

/// Chunk by chunk: a raw stream and one consumer take turns.
fn tail(args: &Args, target: &Target, report: &Report) -> Result<(), PerfError> {
    let mut rows = Vec::new();
    for &chunk in &args.chunks {
        let batch = batch_of(chunk)
            .ok_or_else(|| PerfError::Usage(format!("there is no batch of {chunk} bytes")))?;
        let mut client = target.connect()?;
        let name = format!("{}-tail-{chunk}", args.topic);
        let topic = topic::ensure(&mut client, &name, 1)?;
        let batches = (TAIL_BYTES / chunk).max(2);
        write(&topic, &topic.leaders[0], 0, &batch, batches)?;
        let end = topic::ends(&topic)?[0];
        let range = (end - batches as i64, end);
        rows.push(tail_row(args, target, &topic, range, chunk)?);
        topic::delete(&mut client, &topic)?;
    }
    report.table(
        "Tail fetch over one connection, against a raw loopback stream of the same chunks",
        &["chunk", "fetch MB/s", "raw MB/s", "fetch÷raw", "target", "broker core-s/GB"],
        rows,
    );
    report.note(&format!(
        "The newest {} of a partition, one chunk per answer, {} fetches in flight; raw is one\n\
         thread that writes such chunks and one that reads them. Both in turns of {TURN:?}.",
        units::size(TAIL_BYTES as u64),
        args.in_flight,
    ));
    Ok(())
}

fn tail_row(
    args: &Args,
    target: &Target,
    topic: &Topic,
    range: (i64, i64),
    chunk: usize,
) -> Result<Vec<String>, PerfError> {
    let (mut fetches, mut raws, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let (mut cpu, mut bytes) = (Some(Duration::ZERO), 0);
    let turns = (args.seconds.as_secs_f64() / (2.0 * TURN.as_secs_f64())).ceil().max(1.0) as usize;
    // The first of each is thrown away.
    for turn in 0..=turns {
        let lanes = lanes(topic, &[range], 1, chunk)?;
        let pace = Pace::Max { in_flight: args.in_flight };
        let (warm_up, time) = (TURN_WARM_UP, TURN - TURN_WARM_UP);
        let run = Run { pace, warm_up, time, answered: true, pid: target.pid() };
        let outcome = load::run(&run, load::clock(), lanes)?;
        let raw = loopback::stream(chunk, warm_up, time).map_err(system("a loopback stream"))?;
        if turn == 0 {
            continue;
        }
        let fetch = outcome.bytes as f64 / time.as_secs_f64();
        fetches.push(fetch);
        raws.push(raw);
        ratios.push(fetch / raw);
        cpu = cpu.zip(outcome.cpu).map(|(sum, more)| sum + more);
        bytes += outcome.bytes;
    }
    let ratio = median(&ratios);
    let core = cpu.map(|cpu| cpu.as_secs_f64() / (bytes as f64 / 1e9));
    Ok(row![
        units::size(chunk as u64),
        units::megabytes(median(&fetches)),
        units::megabytes(median(&raws)),
        units::three_digits(ratio),
        format!("≥ {TARGET} {}", verdict(ratio, TARGET, true)),
        core.map_or("–".into(), units::three_digits),
    ])
}
