//! Where messages are written to. One `write` per type serves two sinks: [`Measure`] counts, and
//! [`Writer`] fills; so a size can never disagree with what is then written.
//!
//! Record bytes need not pass through here: a [`Writer`] notes where they belong ([`Cut`]) and the
//! connection sends them from where they are.

use super::reader::STRING_BYTES_MAX;

/// Takes the parts of a message in order. Integers are big-endian.
pub trait Sink {
    /// Exactly these bytes.
    fn put(&mut self, bytes: &[u8]);

    /// `len` bytes which are not here: those that the sender keeps under the number `slot`.
    fn put_elsewhere(&mut self, slot: u32, len: usize);

    /// Kafka's `unsigned varint`.
    fn put_uvarint(&mut self, mut value: u32) {
        let mut bytes = [0; 5];
        let mut len = 0;
        while value >= 0x80 {
            bytes[len] = value as u8 | 0x80;
            value >>= 7;
            len += 1;
        }
        bytes[len] = value as u8;
        self.put(&bytes[..=len]);
    }

    /// A (compact) nullable string.
    ///
    /// One longer than [`STRING_BYTES_MAX`] is cut at a character's border: only texts for humans
    /// (an error that quotes a name) can be that long.
    fn put_string(&mut self, value: Option<&str>, flexible: bool) {
        let value = value.map(|text| &text[..text.floor_char_boundary(STRING_BYTES_MAX)]);
        match (value, flexible) {
            (None, true) => self.put_uvarint(0),
            (None, false) => self.put(&(-1i16).to_be_bytes()),
            (Some(text), true) => self.put_uvarint(text.len() as u32 + 1),
            (Some(text), false) => self.put(&(text.len() as i16).to_be_bytes()),
        }
        self.put(value.unwrap_or_default().as_bytes());
    }

    /// The length of (compact) nullable bytes, records or arrays; what it counts follows.
    ///
    /// `len` must fit Kafka's `int32`.
    fn put_len(&mut self, len: Option<usize>, flexible: bool) {
        let len = len.map(|len| i32::try_from(len).expect("no frame has 2 GiB of anything"));
        match (len, flexible) {
            (None, true) => self.put_uvarint(0),
            (None, false) => self.put(&(-1i32).to_be_bytes()),
            (Some(len), true) => self.put_uvarint(len as u32 + 1),
            (Some(len), false) => self.put(&len.to_be_bytes()),
        }
    }
}

/// Counts what would be written.
#[derive(Clone, Copy, Default, Debug)]
pub struct Measure {
    /// Bytes in all, those elsewhere included.
    pub total: usize,
    /// Bytes elsewhere.
    pub elsewhere: usize,
    /// Places at which bytes from elsewhere belong.
    pub cuts: usize,
}

impl Sink for Measure {
    fn put(&mut self, bytes: &[u8]) {
        self.total += bytes.len();
    }

    fn put_elsewhere(&mut self, _slot: u32, len: usize) {
        self.total += len;
        self.elsewhere += len;
        self.cuts += 1;
    }
}

/// A place in [`Writer::bytes`] at which bytes from elsewhere belong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cut {
    /// They come before the byte at this position.
    pub at: usize,
    /// The number under which the sender keeps them.
    pub slot: u32,
    /// How many bytes they are.
    pub len: usize,
}

/// Collects what is written, and notes what belongs between.
#[derive(Clone, Default, Debug)]
pub struct Writer {
    /// All bytes that are here.
    pub bytes: Vec<u8>,
    /// Where others belong, in order.
    pub cuts: Vec<Cut>,
}

impl Writer {
    /// An empty writer with exactly the room that `measure` found to be needed.
    pub fn with_room(measure: Measure) -> Writer {
        Writer {
            bytes: Vec::with_capacity(measure.total - measure.elsewhere),
            cuts: Vec::with_capacity(measure.cuts),
        }
    }
}

impl Sink for Writer {
    fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn put_elsewhere(&mut self, slot: u32, len: usize) {
        self.cuts.push(Cut { at: self.bytes.len(), slot, len });
    }
}

#[cfg(test)]
mod tests {
    use super::super::reader::Reader;
    use super::*;

    #[test]
    fn varints_come_back() {
        for value in [0, 1, 127, 128, 16_383, 16_384, 1 << 28, u32::MAX] {
            let (mut writer, mut measure) = (Writer::default(), Measure::default());
            writer.put_uvarint(value);
            measure.put_uvarint(value);
            assert_eq!(Reader::new(&writer.bytes).uvarint(), Ok(value));
            assert_eq!(measure.total, writer.bytes.len());
        }
    }

    #[test]
    fn a_text_that_is_too_long_is_cut_between_characters() {
        let text = "ä".repeat(STRING_BYTES_MAX);
        for flexible in [false, true] {
            let mut writer = Writer::default();
            writer.put_string(Some(&text), flexible);
            let read = Reader::new(&writer.bytes).string(flexible).expect("valid").expect("some");
            assert_eq!(read.len(), STRING_BYTES_MAX - 1);
        }
    }
}
