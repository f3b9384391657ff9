//! A bounded cursor over one frame. It never allocates, never panics on what it reads, and hands
//! out slices of the frame itself.
//!
//! Every length that the wire claims is compared with the bytes that are there *before* anything
//! depends on it. Where Kafka's own reader (`ByteBufferAccessor`, generated `*Data.read`) is
//! lenient about numbers that no writer produces (negative lengths other than -1, varints that
//! overflow), this one refuses; the sender loses its connection and nothing else.

use thiserror::Error;

/// Longest string, in bytes, that Kafka's protocol carries, in either string form.
pub const STRING_BYTES_MAX: usize = i16::MAX as usize;

/// Why a frame cannot be understood, and where.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("{kind} at byte {at}")]
pub struct DecodeError {
    /// What is wrong.
    pub kind: DecodeErrorKind,
    /// Position of the offending field, in bytes from the start of what the reader was given.
    pub at: usize,
}

/// The ways in which a frame can be wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum DecodeErrorKind {
    /// The bytes end inside a field.
    #[error("truncated field")]
    Truncated,
    /// An array claims more elements, or a section more tagged fields, than bytes remain.
    #[error("count too large for the remaining bytes")]
    CountTooLarge,
    /// A length is negative (and not -1), or longer than its kind allows.
    #[error("impossible length")]
    BadLength,
    /// A varint is longer than five bytes or overflows 32 bits.
    #[error("malformed varint")]
    BadVarint,
    /// A string is not UTF-8.
    #[error("string is not UTF-8")]
    BadUtf8,
    /// Null where this version does not allow it.
    #[error("null where a value is required")]
    BadNull,
    /// A tagged field, or the message, is longer than what it holds.
    #[error("trailing bytes")]
    TrailingBytes,
    /// The message is not defined in this version.
    #[error("version is not supported")]
    UnsupportedVersion,
}

/// A position in a frame; see the head of this file.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    /// Everything up to where this reader may read. `at <= bytes.len()`.
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// A reader at the start of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, at: 0 }
    }

    /// Bytes not yet read.
    pub const fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Where it stands, in bytes from the start.
    pub const fn position(&self) -> usize {
        self.at
    }

    /// Errs with `TrailingBytes` unless everything was read.
    ///
    /// Message decoders do not call this: like Kafka's, they ignore what follows the last field.
    pub const fn finish(&self) -> Result<(), DecodeError> {
        if self.remaining() == 0 { Ok(()) } else { Err(self.error(DecodeErrorKind::TrailingBytes)) }
    }

    /// An error at the present position.
    pub const fn error(&self, kind: DecodeErrorKind) -> DecodeError {
        DecodeError { kind, at: self.at }
    }

    /// What was read since `start`, an earlier [`Reader::position`].
    pub(super) fn since(&self, start: usize) -> &'a [u8] {
        &self.bytes[start..self.at]
    }

    /// The next `len` bytes.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        if len > self.remaining() {
            return Err(self.error(DecodeErrorKind::Truncated));
        }
        let start = self.at;
        self.at += len;
        Ok(&self.bytes[start..self.at])
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        match self.bytes[self.at..].first_chunk() {
            Some(bytes) => {
                self.at += N;
                Ok(*bytes)
            }
            None => Err(self.error(DecodeErrorKind::Truncated)),
        }
    }

    /// Kafka's `bool`: one byte, anything but 0 is true.
    pub fn bool(&mut self) -> Result<bool, DecodeError> {
        Ok(self.fixed::<1>()? != [0])
    }

    /// Kafka's `int8`.
    pub fn i8(&mut self) -> Result<i8, DecodeError> {
        self.fixed().map(i8::from_be_bytes)
    }

    /// Kafka's `int16`.
    pub fn i16(&mut self) -> Result<i16, DecodeError> {
        self.fixed().map(i16::from_be_bytes)
    }

    /// Kafka's `uint16`.
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        self.fixed().map(u16::from_be_bytes)
    }

    /// Kafka's `int32`.
    pub fn i32(&mut self) -> Result<i32, DecodeError> {
        self.fixed().map(i32::from_be_bytes)
    }

    /// Kafka's `int64`.
    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        self.fixed().map(i64::from_be_bytes)
    }

    /// Kafka's `uuid`: 16 bytes.
    pub fn uuid(&mut self) -> Result<[u8; 16], DecodeError> {
        self.fixed()
    }

    /// Kafka's `unsigned varint`: 7 bits a byte, least significant first, at most five bytes.
    pub fn uvarint(&mut self) -> Result<u32, DecodeError> {
        let start = self.error(DecodeErrorKind::BadVarint);
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.fixed()?;
            if shift == 28 && byte > 0x0f {
                return Err(start);
            }
            value |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        Ok(value)
    }

    /// Length of a string, `None` for null: `int16`, or a varint one too high when flexible.
    fn string_len(&mut self, flexible: bool) -> Result<Option<usize>, DecodeError> {
        let start = self.error(DecodeErrorKind::BadLength);
        if flexible {
            return match self.uvarint()?.checked_sub(1) {
                None => Ok(None),
                Some(len) if len as usize > STRING_BYTES_MAX => Err(start),
                Some(len) => Ok(Some(len as usize)),
            };
        }
        match self.i16()? {
            -1 => Ok(None),
            len => usize::try_from(len).map(Some).map_err(|_| start),
        }
    }

    /// Length of bytes, `None` for null: `int32`, or a varint one too high when flexible.
    fn bytes_len(&mut self, flexible: bool) -> Result<Option<usize>, DecodeError> {
        let start = self.error(DecodeErrorKind::BadLength);
        if flexible {
            return Ok(self.uvarint()?.checked_sub(1).map(|len| len as usize));
        }
        match self.i32()? {
            -1 => Ok(None),
            len => usize::try_from(len).map(Some).map_err(|_| start),
        }
    }

    /// Kafka's (compact) nullable string.
    pub fn string(&mut self, flexible: bool) -> Result<Option<&'a str>, DecodeError> {
        let Some(len) = self.string_len(flexible)? else { return Ok(None) };
        let start = self.error(DecodeErrorKind::BadUtf8);
        str::from_utf8(self.take(len)?).map(Some).map_err(|_| start)
    }

    /// Kafka's (compact) nullable bytes and records.
    pub fn bytes(&mut self, flexible: bool) -> Result<Option<&'a [u8]>, DecodeError> {
        match self.bytes_len(flexible)? {
            None => Ok(None),
            Some(len) => self.take(len).map(Some),
        }
    }

    /// Number of elements of a (compact) nullable array; at most one per remaining byte, because
    /// no element of any message is shorter than a byte.
    pub fn count(&mut self, flexible: bool) -> Result<Option<usize>, DecodeError> {
        let start = self.error(DecodeErrorKind::CountTooLarge);
        match self.bytes_len(flexible)? {
            Some(count) if count > self.remaining() => Err(start),
            count => Ok(count),
        }
    }

    /// Reads a section of tagged fields (KIP-482). `field` gets each tag and a reader of exactly
    /// that field, and says whether it knew it; unknown fields are skipped and forgotten.
    pub fn tags(
        &mut self,
        mut field: impl FnMut(u32, &mut Reader<'a>) -> Result<bool, DecodeError>,
    ) -> Result<(), DecodeError> {
        let start = self.error(DecodeErrorKind::CountTooLarge);
        let count = self.uvarint()?;
        // Tag and length take a byte each, at least.
        if count as usize > self.remaining() / 2 {
            return Err(start);
        }
        for _ in 0..count {
            let tag = self.uvarint()?;
            let len = self.uvarint()? as usize;
            if len > self.remaining() {
                return Err(self.error(DecodeErrorKind::Truncated));
            }
            let mut inner = Reader { bytes: &self.bytes[..self.at + len], at: self.at };
            if field(tag, &mut inner)? {
                inner.finish()?;
            }
            self.at += len;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind<T: std::fmt::Debug>(result: Result<T, DecodeError>) -> DecodeErrorKind {
        result.expect_err("it must not be accepted").kind
    }

    #[test]
    fn varints_at_and_past_their_limit() {
        let read = |bytes: &[u8]| Reader::new(bytes).uvarint();
        assert_eq!(read(&[0]), Ok(0));
        assert_eq!(read(&[0x7f]), Ok(127));
        assert_eq!(read(&[0x80, 1]), Ok(128));
        assert_eq!(read(&[0xff, 0xff, 0xff, 0xff, 0x0f]), Ok(u32::MAX));
        assert_eq!(kind(read(&[0xff, 0xff, 0xff, 0xff, 0x10])), DecodeErrorKind::BadVarint);
        assert_eq!(kind(read(&[0x80, 0x80, 0x80, 0x80, 0x80])), DecodeErrorKind::BadVarint);
        assert_eq!(kind(read(&[0x80])), DecodeErrorKind::Truncated);
    }

    #[test]
    fn lengths_that_lie_are_refused_where_they_stand() {
        let mut reader = Reader::new(&[0, 7, 0, 4, b'a', b'b']);
        assert_eq!(reader.i16(), Ok(7));
        let error = reader.string(false).expect_err("four bytes are claimed, two are there");
        assert_eq!(error, DecodeError { kind: DecodeErrorKind::Truncated, at: 4 });
        assert_eq!(error.to_string(), "truncated field at byte 4");

        assert_eq!(kind(Reader::new(&[0xff, 0xfe]).string(false)), DecodeErrorKind::BadLength);
        assert_eq!(Reader::new(&[0xff, 0xff]).string(false), Ok(None));
        assert_eq!(Reader::new(&[0]).string(true), Ok(None));
        assert_eq!(Reader::new(&[1]).string(true), Ok(Some("")));
        assert_eq!(kind(Reader::new(&[2, 0xff]).string(true)), DecodeErrorKind::BadUtf8);
        // 32,768 bytes: one more than a string may have.
        assert_eq!(kind(Reader::new(&[0x81, 0x80, 0x02]).string(true)), DecodeErrorKind::BadLength);
    }

    #[test]
    fn a_count_is_at_most_the_bytes_that_remain() {
        assert_eq!(Reader::new(&[0, 0, 0, 2, 9, 9]).count(false), Ok(Some(2)));
        let three = [0, 0, 0, 3, 9, 9];
        assert_eq!(kind(Reader::new(&three).count(false)), DecodeErrorKind::CountTooLarge);
        let bomb = [0xff, 0xff, 0xff, 0xff, 0x0f];
        assert_eq!(kind(Reader::new(&bomb).count(true)), DecodeErrorKind::CountTooLarge);
        let tags = |bytes: &[u8]| Reader::new(bytes).tags(|_, _| Ok(false));
        assert_eq!(kind(tags(&bomb)), DecodeErrorKind::CountTooLarge);
        assert_eq!(kind(tags(&[2, 0, 0])), DecodeErrorKind::CountTooLarge);
        assert_eq!(tags(&[1, 0, 0]), Ok(()));
    }

    #[test]
    fn a_tagged_field_is_read_to_its_end_and_no_further() {
        let bytes = [2, 0, 2, 0, 5, 9, 3, 1, 2, 3, 77];
        let mut seen = Vec::new();
        let mut reader = Reader::new(&bytes);
        let read = reader.tags(|tag, field| {
            seen.push((tag, field.remaining()));
            Ok(tag == 0 && field.i16()? == 5)
        });
        assert_eq!(read, Ok(()));
        assert_eq!(seen, [(0, 2), (9, 3)]);
        assert_eq!(reader.i8(), Ok(77));

        let short = Reader::new(&bytes).tags(|_, field| field.i8().map(|_| true));
        assert_eq!(short, Err(DecodeError { kind: DecodeErrorKind::TrailingBytes, at: 4 }));
    }
}
