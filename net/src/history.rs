//! What clients did and saw, and whether a broker that keeps its promises can have caused it.
//!
//! Clients of any language (and those of a simulator) write a history; [`History::judge`] looks for
//! what must never be: records lost, doubled, reordered, changed, or read although their write was
//! refused. The definitions are those of Jepsen's Kafka checker (`jepsen/tests/kafka.clj`), without
//! transactions, over single operations; [`Anomaly`] names them, and adds some.
//!
//! ## The file
//!
//! One JSON object a line, without nesting; fields that are not named here are skipped. Lines of
//! one client stand in the order in which it did things; clients may be mixed.
//! A last line without its line feed is dropped, because its writer was killed.
//!
//! ```json
//! {"op":"send","client":"a","topic":"t","partition":0,"value":"17","time_ns":1700000000000000000}
//! {"op":"ack","client":"a","topic":"t","partition":0,"value":"17","offset":4,"time_ns":1700}
//! {"op":"poll","client":"b","topic":"t","partition":0,"value":"17","offset":4,"call":1}
//! {"op":"end","client":"b","topic":"t","partition":0,"offset":5}
//! ```
//!
//! What there is to say, and the fields that it needs:
//!
//! * `send` (client, topic, value; partition if known): a write is about to be tried. Before it can
//!   be answered.
//! * `ack` (client, topic, value; offset and partition, if told): it was acknowledged.
//! * `fail` (client, topic, value): it was refused for certain, and no reader may ever see it.
//! * `info` (client, topic, value): nobody knows; the same as no line at all.
//! * `poll` (client, topic, partition, offset, value): a reader got a record.
//! * `assign` (client): a reader moves, and what it reads next need not follow what it read last.
//!   With topic and partition in that one, without in all that it reads.
//! * `end` (client, topic, partition, offset): a reader that began at the beginning, *after the
//!   last fault*, has read up to this exclusive end.
//! * `watermark` (client, topic, partition, offset): a reader was told this high watermark by
//!   ListOffsets (KIP-207; what Fetch tells may fall when the leader changes).
//! * `commit` (group, topic, partition, offset, time): a group's offset was stored.
//! * `committed` (the same): a group's offset was told, to a question asked after the
//!   earlier lines.
//!
//! And the fields:
//!
//! * `client`: a name. A producer or consumer that is made anew (after a fatal error) takes a
//!   new one.
//! * `value`: the record, as text; written once per partition, or once per topic where `send` does
//!   not know the partition.
//! * `offset`: -1 or absent where a client does not tell it.
//! * `call`: a number for what one call of the client sent or got; lines in a row with the same one
//!   belong together. Without it each line is a call.
//! * `time_ns`: nanoseconds on a clock that all files share. `commit` and `committed` are ordered
//!   by it, other files than the writer's considered; and [`History::gaps`] is about it.
//!
//! `fail` is for errors after which the write cannot come to be: an invalid topic, an unknown
//! producer epoch, a queue emptied before sending. A timeout, a lost connection, and
//! NOT_LEADER_OR_FOLLOWER (KAFKA-13574) are not among them. If in doubt: `info`.
//!
//! ## What it costs
//!
//! Memory for each value (its text and about 150 bytes) and for each poll (40 bytes, three times
//! that while judging), and for the names. Texts are bounded ([`TEXT_BYTES_MAX`]), and so are lines
//! ([`LINE_BYTES_MAX`]) and what a report shows. Judging takes n log n.
//!
//! ```
//! use net::history::{Anomaly, History};
//!
//! let mut history = History::new();
//! for line in [
//!     r#"{"op":"send","client":"a","topic":"t","partition":0,"value":"x"}"#,
//!     r#"{"op":"ack","client":"a","topic":"t","partition":0,"value":"x","offset":0}"#,
//!     r#"{"op":"end","client":"b","topic":"t","partition":0,"offset":0}"#,
//! ] {
//!     history.line(line)?;
//! }
//! let report = history.judge();
//! assert_eq!(report.count(Anomaly::Unseen), 1);
//! # Ok::<(), net::history::HistoryError>(())
//! ```

use std::collections::BTreeMap;
use std::io::{self, BufRead};
use std::sync::Arc;

mod gaps;
mod judge;
mod line;
mod report;
#[cfg(test)]
mod tests;

pub use gaps::{Fault, FaultError, Gap};
pub use line::{Event, Op};
pub use report::{Anomaly, Counts, EXAMPLES_MAX, Found, Report};

/// Longest name or value, in bytes.
pub const TEXT_BYTES_MAX: usize = 1024;
/// Longest line, in bytes.
pub const LINE_BYTES_MAX: usize = 16 * TEXT_BYTES_MAX;

/// Why a line cannot be part of a history: the writer is wrong, not the broker.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HistoryError {
    /// It is not a flat JSON object.
    #[error("not a flat JSON object, from byte {at} on")]
    Syntax {
        /// Where the trouble begins.
        at: usize,
    },
    /// A field is missing, or not of its kind.
    #[error("field {0:?} is missing or not of its kind")]
    Field(&'static str),
    /// A name or value has more than [`TEXT_BYTES_MAX`] bytes, or a line [`LINE_BYTES_MAX`].
    #[error("a text is too long")]
    TooLong,
    /// A value was sent before.
    #[error("{0:?} is sent a second time")]
    SentTwice(String),
    /// A value is answered that was not sent.
    #[error("{0:?} is answered and was not sent")]
    NotSent(String),
    /// A value is answered a second time.
    #[error("{0:?} is answered a second time")]
    AnsweredTwice(String),
}

/// Why a file is no history.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A line is wrong.
    #[error("line {line}: {error}")]
    Line {
        /// Its number, from 1.
        line: u64,
        /// What is wrong with it.
        error: HistoryError,
    },
}

/// Texts and their numbers.
#[derive(Debug, Default)]
struct Names {
    numbers: BTreeMap<Arc<str>, u32>,
    texts: Vec<Arc<str>>,
}

impl Names {
    fn number(&mut self, text: &str) -> u32 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = self.texts.len() as u32;
        let text = Arc::<str>::from(text);
        self.texts.push(text.clone());
        self.numbers.insert(text, number);
        number
    }

    fn text(&self, number: u32) -> &str {
        &self.texts[number as usize]
    }
}

/// A partition that occurs; partition -1 of a topic has what was sent to it without saying where.
#[derive(Debug)]
struct Key {
    topic: u32,
    partition: i32,
    values: BTreeMap<Arc<str>, u32>,
}

/// What is known of a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    /// Nobody said that it would be sent.
    NeverSent,
    /// Sent, and nothing certain is known.
    Unknown,
    Acked,
    Failed,
}

#[derive(Debug)]
struct Value {
    text: Arc<str>,
    /// Where it is known to be: partition -1 of the topic if that is unknown.
    key: u32,
    outcome: Outcome,
    /// Of the acknowledgement; -1 if it told none.
    offset: i64,
}

/// A value being sent.
#[derive(Clone, Copy, Debug)]
struct Send {
    client: u32,
    value: u32,
    call: i64,
}

/// A value being read.
#[derive(Clone, Copy, Debug)]
struct Poll {
    client: u32,
    key: u32,
    value: u32,
    /// How often the reader had moved.
    moves: u32,
    offset: i64,
    call: i64,
}

/// A group's offset, stored or told.
#[derive(Clone, Copy, Debug)]
struct Commit {
    time_ns: i64,
    group: u32,
    key: u32,
    offset: i64,
    stored: bool,
}

/// What clients did; see the head of this file.
#[derive(Debug, Default)]
pub struct History {
    clients: Names,
    topics: Names,
    groups: Names,
    keys: Vec<Key>,
    key_numbers: BTreeMap<(u32, i32), u32>,
    values: Vec<Value>,
    sends: Vec<Send>,
    polls: Vec<Poll>,
    /// Moves of a client in all that it reads.
    moves: BTreeMap<u32, u32>,
    /// Moves of a client in one partition.
    moves_in: BTreeMap<(u32, u32), u32>,
    /// Readers that got to the end, by partition.
    ends: BTreeMap<(u32, u32), i64>,
    /// Highest watermark that a client was told.
    watermarks: BTreeMap<(u32, u32), i64>,
    commits: Vec<Commit>,
    /// When something was sent to a partition, and when acknowledged, in nanoseconds.
    sent_at: BTreeMap<u32, Vec<i64>>,
    acked_at: BTreeMap<u32, Vec<i64>>,
    watermark_fell: Found,
    /// A last line that its writer did not finish.
    torn: u64,
}

impl History {
    /// One in which nothing happened.
    pub fn new() -> History {
        History::default()
    }

    /// Adds the lines of one file.
    pub fn read(&mut self, mut file: impl BufRead) -> Result<(), ReadError> {
        let mut text = Vec::new();
        for line in 1.. {
            text.clear();
            let mut bounded = io::Read::take(&mut file, LINE_BYTES_MAX as u64 + 1);
            if bounded.read_until(b'\n', &mut text)? == 0 {
                break;
            }
            let wrong = |error| ReadError::Line { line, error };
            if text.len() > LINE_BYTES_MAX {
                return Err(wrong(HistoryError::TooLong));
            }
            if text.last() != Some(&b'\n') {
                self.torn += 1;
                break;
            }
            let syntax =
                |error: std::str::Utf8Error| HistoryError::Syntax { at: error.valid_up_to() };
            let text = str::from_utf8(&text).map_err(|error| wrong(syntax(error)))?;
            self.line(text).map_err(wrong)?;
        }
        Ok(())
    }

    /// Adds a line, with or without its line feed; an empty one says nothing.
    pub fn line(&mut self, text: &str) -> Result<(), HistoryError> {
        match text.trim() {
            "" => Ok(()),
            text => self.push(&Event::parse(text)?),
        }
    }

    /// Adds what a client did.
    pub fn push(&mut self, event: &Event<'_>) -> Result<(), HistoryError> {
        event.complete()?;
        let client = self.clients.number(&event.client);
        if event.op == Op::Assign && event.partition < 0 {
            *self.moves.entry(client).or_default() += 1;
            return Ok(());
        }
        let key = self.key(&event.topic, event.partition);
        self.note_time(key, event);
        match event.op {
            Op::Send => self.send(client, key, event)?,
            Op::Ack => self.answer(key, event, Outcome::Acked)?,
            Op::Fail => self.answer(key, event, Outcome::Failed)?,
            Op::Info => self.answer(key, event, Outcome::Unknown)?,
            Op::Poll => self.poll(client, key, event),
            Op::Assign => *self.moves_in.entry((client, key)).or_default() += 1,
            Op::End => {
                self.ends.insert((key, client), event.offset);
            }
            Op::Watermark => self.watermark(client, key, event),
            Op::Commit | Op::Committed => {
                let group = self.groups.number(&event.group);
                let (time_ns, offset) = (event.time_ns, event.offset);
                let stored = event.op == Op::Commit;
                self.commits.push(Commit { time_ns, group, key, offset, stored });
            }
        }
        Ok(())
    }

    fn key(&mut self, topic: &str, partition: i32) -> u32 {
        let topic = self.topics.number(topic);
        let place = (topic, partition.max(-1));
        *self.key_numbers.entry(place).or_insert_with(|| {
            self.keys.push(Key { topic, partition: place.1, values: BTreeMap::new() });
            self.keys.len() as u32 - 1
        })
    }

    /// The partition of `key`, as a text.
    fn place(&self, key: u32) -> String {
        let Key { topic, partition, .. } = &self.keys[key as usize];
        let topic = self.topics.text(*topic);
        if *partition < 0 { topic.to_owned() } else { format!("{topic}/{partition}") }
    }

    /// The value with this text that was sent: to this partition, or without saying where. Else
    /// one that was only read.
    fn find(&self, key: u32, text: &str) -> Option<u32> {
        let Key { topic, values, .. } = &self.keys[key as usize];
        let here = values.get(text).copied();
        let sent = |value: &u32| self.values[*value as usize].outcome != Outcome::NeverSent;
        let anywhere = || {
            let anywhere = self.key_numbers.get(&(*topic, -1))?;
            self.keys[*anywhere as usize].values.get(text).copied()
        };
        here.filter(sent).or_else(anywhere).or(here)
    }

    fn new_value(&mut self, key: u32, text: &str, outcome: Outcome) -> u32 {
        let number = self.values.len() as u32;
        let text = Arc::<str>::from(text);
        self.keys[key as usize].values.insert(text.clone(), number);
        self.values.push(Value { text, key, outcome, offset: -1 });
        number
    }

    fn send(&mut self, client: u32, key: u32, event: &Event<'_>) -> Result<(), HistoryError> {
        let value = match self.find(key, &event.value) {
            // It was read in a file that came before.
            Some(value) if self.values[value as usize].outcome == Outcome::NeverSent => {
                self.values[value as usize].outcome = Outcome::Unknown;
                value
            }
            Some(_) => return Err(HistoryError::SentTwice(event.value.to_string())),
            None => self.new_value(key, &event.value, Outcome::Unknown),
        };
        self.sends.push(Send { client, value, call: event.call });
        Ok(())
    }

    fn answer(
        &mut self,
        key: u32,
        event: &Event<'_>,
        outcome: Outcome,
    ) -> Result<(), HistoryError> {
        let found = self.find(key, &event.value).map(|number| &mut self.values[number as usize]);
        let Some(value) = found else {
            return Err(HistoryError::NotSent(event.value.to_string()));
        };
        match value.outcome {
            Outcome::Unknown => value.outcome = outcome,
            Outcome::NeverSent => return Err(HistoryError::NotSent(event.value.to_string())),
            Outcome::Acked | Outcome::Failed => {
                return Err(HistoryError::AnsweredTwice(event.value.to_string()));
            }
        }
        if outcome == Outcome::Acked {
            value.offset = event.offset;
            if event.partition >= 0 {
                value.key = key;
            }
        }
        Ok(())
    }

    fn poll(&mut self, client: u32, key: u32, event: &Event<'_>) {
        let value = match self.find(key, &event.value) {
            Some(value) => value,
            None => self.new_value(key, &event.value, Outcome::NeverSent),
        };
        let everywhere = self.moves.get(&client).copied().unwrap_or_default();
        let here = self.moves_in.get(&(client, key)).copied().unwrap_or_default();
        // Both only grow, so a sum that stays says that neither did.
        let moves = everywhere + here;
        let (offset, call) = (event.offset, event.call);
        self.polls.push(Poll { client, key, value, moves, offset, call });
    }

    fn watermark(&mut self, client: u32, key: u32, event: &Event<'_>) {
        let highest = self.watermarks.entry((client, key)).or_insert(event.offset);
        if event.offset >= *highest {
            *highest = event.offset;
            return;
        }
        let before = *highest;
        let place = self.place(key);
        let after = event.offset;
        self.watermark_fell.add(|| format!("{place}: {} saw {before}, then {after}", event.client));
    }
}
