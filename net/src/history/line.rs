//! A line of a history: what it can say, and its JSON.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use super::{HistoryError, TEXT_BYTES_MAX};

macro_rules! ops {
    ($($(#[$meta:meta])* $name:ident = $text:literal;)*) => {
        /// What happened.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Op {
            $($(#[$meta])* $name,)*
        }

        impl Op {
            /// Its name in a file.
            pub const fn name(self) -> &'static str {
                match self { $(Op::$name => $text,)* }
            }

            fn of(text: &str) -> Option<Op> {
                match text { $($text => Some(Op::$name),)* _ => None }
            }
        }
    };
}

ops! {
    /// A write is about to be tried.
    Send = "send";
    /// A write was acknowledged.
    Ack = "ack";
    /// A write was refused for certain.
    Fail = "fail";
    /// Nobody knows what became of a write.
    Info = "info";
    /// A reader got a record.
    Poll = "poll";
    /// A reader moves to another position.
    Assign = "assign";
    /// A reader has read everything, from the beginning.
    End = "end";
    /// A reader was told a high watermark.
    Watermark = "watermark";
    /// A group's offset was stored.
    Commit = "commit";
    /// A group's offset was told.
    Committed = "committed";
}

/// What one client did once; what a field means is said in [`super`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event<'a> {
    /// What.
    pub op: Op,
    /// Who; may be empty for the group's operations.
    pub client: Cow<'a, str>,
    /// The topic.
    pub topic: Cow<'a, str>,
    /// The partition; -1 if unknown.
    pub partition: i32,
    /// The offset; -1 if unknown.
    pub offset: i64,
    /// The record.
    pub value: Cow<'a, str>,
    /// The group.
    pub group: Cow<'a, str>,
    /// The call that this was part of; -1 for one of its own.
    pub call: i64,
    /// When, in nanoseconds on a clock that all clients share; -1 if unknown.
    pub time_ns: i64,
}

impl<'a> Event<'a> {
    /// One of which nothing but `op` is known.
    pub const fn new(op: Op) -> Event<'a> {
        let empty = Cow::Borrowed("");
        let (client, topic, value, group) =
            (empty, Cow::Borrowed(""), Cow::Borrowed(""), Cow::Borrowed(""));
        Event { op, client, topic, partition: -1, offset: -1, value, group, call: -1, time_ns: -1 }
    }

    /// Reads a line.
    pub fn parse(line: &'a str) -> Result<Event<'a>, HistoryError> {
        let mut event = Event::new(Op::Send);
        let mut op = None;
        let mut json = Json { text: line, at: 0 };
        json.object(|name, value| {
            let text = |field| value.text().ok_or(HistoryError::Field(field));
            let number = |field| value.number().ok_or(HistoryError::Field(field));
            match name {
                "op" => op = Op::of(&text("op")?),
                "client" => event.client = text("client")?,
                "topic" => event.topic = text("topic")?,
                "value" => event.value = text("value")?,
                "group" => event.group = text("group")?,
                "partition" => {
                    let partition = i32::try_from(number("partition")?);
                    event.partition = partition.map_err(|_| HistoryError::Field("partition"))?;
                }
                "offset" => event.offset = number("offset")?,
                "call" => event.call = number("call")?,
                "time_ns" => event.time_ns = number("time_ns")?,
                _ => {}
            }
            Ok(())
        })?;
        event.op = op.ok_or(HistoryError::Field("op"))?;
        Ok(event)
    }

    /// Whether it says what its kind must say.
    pub(super) fn complete(&self) -> Result<(), HistoryError> {
        let texts = [&self.client, &self.topic, &self.value, &self.group];
        if texts.iter().any(|text| text.len() > TEXT_BYTES_MAX) {
            return Err(HistoryError::TooLong);
        }
        let of_group = matches!(self.op, Op::Commit | Op::Committed);
        let of_value = matches!(self.op, Op::Send | Op::Ack | Op::Fail | Op::Info | Op::Poll);
        let placed = matches!(self.op, Op::Poll | Op::End | Op::Watermark) || of_group;
        let missing = [
            ("client", !of_group && self.client.is_empty()),
            ("group", of_group && self.group.is_empty()),
            ("topic", (self.op != Op::Assign || self.partition >= 0) && self.topic.is_empty()),
            ("value", of_value && self.value.is_empty()),
            ("partition", placed && self.partition < 0),
            ("offset", placed && self.offset < 0),
            ("partition", self.op == Op::Ack && self.offset >= 0 && self.partition < 0),
            ("time_ns", of_group && self.time_ns < 0),
        ];
        match missing.into_iter().find(|(_, missing)| *missing) {
            Some((field, _)) => Err(HistoryError::Field(field)),
            None => Ok(()),
        }
    }
}

/// The line, without its line feed.
impl fmt::Display for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, r#"{{"op":"{}""#, self.op.name())?;
        for (name, text) in [
            ("client", &self.client),
            ("topic", &self.topic),
            ("value", &self.value),
            ("group", &self.group),
        ] {
            if !text.is_empty() {
                write!(f, r#","{name}":"#)?;
                write_text(f, text)?;
            }
        }
        for (name, number) in [
            ("partition", i64::from(self.partition)),
            ("offset", self.offset),
            ("call", self.call),
            ("time_ns", self.time_ns),
        ] {
            if number >= 0 {
                write!(f, r#","{name}":{number}"#)?;
            }
        }
        f.write_char('}')
    }
}

fn write_text(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_char('"')?;
    for c in text.chars() {
        match c {
            '"' | '\\' => write!(f, "\\{c}")?,
            c if c < ' ' => write!(f, "\\u{:04x}", u32::from(c))?,
            c => f.write_char(c)?,
        }
    }
    f.write_char('"')
}

/// A value in a flat object.
enum Scalar<'a> {
    Text(Cow<'a, str>),
    Number(i64),
    Other,
}

impl<'a> Scalar<'a> {
    fn text(&self) -> Option<Cow<'a, str>> {
        match self {
            Scalar::Text(text) => Some(text.clone()),
            _ => None,
        }
    }

    fn number(&self) -> Option<i64> {
        match self {
            Scalar::Number(number) => Some(*number),
            _ => None,
        }
    }
}

/// Reads the little of JSON that a line may have.
struct Json<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Json<'a> {
    fn wrong(&self) -> HistoryError {
        HistoryError::Syntax { at: self.at }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn blank(&mut self) {
        self.at = self.text.len() - self.rest().trim_ascii_start().len();
    }

    /// Whether `c` comes next; if so it is read.
    fn is(&mut self, c: char) -> bool {
        self.blank();
        let is = self.rest().starts_with(c);
        self.at += if is { c.len_utf8() } else { 0 };
        is
    }

    fn want(&mut self, c: char) -> Result<(), HistoryError> {
        if self.is(c) { Ok(()) } else { Err(self.wrong()) }
    }

    fn object(
        &mut self,
        mut field: impl FnMut(&str, Scalar<'a>) -> Result<(), HistoryError>,
    ) -> Result<(), HistoryError> {
        self.want('{')?;
        if !self.is('}') {
            loop {
                self.want('"')?;
                let name = self.string()?;
                self.want(':')?;
                let value = self.scalar()?;
                field(&name, value)?;
                if self.is('}') {
                    break;
                }
                self.want(',')?;
            }
        }
        self.blank();
        if self.rest().is_empty() { Ok(()) } else { Err(self.wrong()) }
    }

    fn scalar(&mut self) -> Result<Scalar<'a>, HistoryError> {
        if self.is('"') {
            return self.string().map(Scalar::Text);
        }
        let rest = self.rest();
        let len = rest.find([',', '}', ' ']).unwrap_or(rest.len());
        let word = &rest[..len];
        let value = match (word, word.parse()) {
            (_, Ok(number)) => Scalar::Number(number),
            ("true" | "false" | "null", _) => Scalar::Other,
            // A number that no field of ours can have: a fraction, or one too large.
            _ if word.parse::<f64>().is_ok() => Scalar::Other,
            _ => return Err(self.wrong()),
        };
        self.at += len;
        Ok(value)
    }

    /// The rest of a string, after its opening quote; borrowed if nothing in it is escaped.
    fn string(&mut self) -> Result<Cow<'a, str>, HistoryError> {
        let plain = self.plain()?;
        if self.is_quote() {
            return Ok(Cow::Borrowed(plain));
        }
        let mut text = plain.to_owned();
        while !self.is_quote() {
            text.push(self.escape()?);
            text.push_str(self.plain()?);
        }
        Ok(Cow::Owned(text))
    }

    /// Up to the next quote or backslash.
    fn plain(&mut self) -> Result<&'a str, HistoryError> {
        let rest = self.rest();
        let len = rest.find(['"', '\\']).ok_or_else(|| self.wrong())?;
        self.at += len;
        Ok(&rest[..len])
    }

    fn is_quote(&mut self) -> bool {
        let is = self.rest().starts_with('"');
        self.at += usize::from(is);
        is
    }

    /// An escaped character; of the two halves of a surrogate pair each is refused.
    fn escape(&mut self) -> Result<char, HistoryError> {
        let wrong = self.wrong();
        let mut chars = self.rest().chars().skip(1);
        let (c, len) = match chars.next().ok_or(wrong.clone())? {
            c @ ('"' | '\\' | '/') => (c, 2),
            'b' => ('\u{8}', 2),
            'f' => ('\u{c}', 2),
            'n' => ('\n', 2),
            'r' => ('\r', 2),
            't' => ('\t', 2),
            'u' => {
                let digits = self.rest().get(2..6).ok_or(wrong.clone())?;
                let number = u32::from_str_radix(digits, 16).map_err(|_| wrong.clone())?;
                (char::from_u32(number).ok_or(wrong)?, 6)
            }
            _ => return Err(wrong),
        };
        self.at += len;
        Ok(c)
    }
}
