//! Kafka's primitive types as its records spell them: the plain ones of the first versions and
//! the compact ones of flexible versions. Nothing here trusts a length: each is compared with the
//! bytes that are there before anything is allocated.

use super::RecordError;

/// Longest string that a record of a version that is not flexible can hold, in bytes.
pub const STRING_BYTES_MAX: usize = i16::MAX as usize;

/// Writes plain types. Lengths that do not fit are the caller's error.
#[derive(Default)]
pub struct Writer(pub Vec<u8>);

impl Writer {
    /// A key or value that begins with its version.
    pub fn new(version: i16) -> Writer {
        Writer(version.to_be_bytes().to_vec())
    }

    /// A signed 16-bit number.
    pub fn i16(&mut self, n: i16) {
        self.0.extend_from_slice(&n.to_be_bytes());
    }

    /// A signed 32-bit number.
    pub fn i32(&mut self, n: i32) {
        self.0.extend_from_slice(&n.to_be_bytes());
    }

    /// A signed 64-bit number.
    pub fn i64(&mut self, n: i64) {
        self.0.extend_from_slice(&n.to_be_bytes());
    }

    /// A string of at most [`STRING_BYTES_MAX`].
    pub fn string(&mut self, s: &str) {
        let length = i16::try_from(s.len()).expect("longer strings are refused when they arrive");
        self.i16(length);
        self.0.extend_from_slice(s.as_bytes());
    }

    /// A string, or nothing.
    pub fn nullable_string(&mut self, s: Option<&str>) {
        match s {
            Some(s) => self.string(s),
            None => self.i16(-1),
        }
    }

    /// Bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        let length = i32::try_from(bytes.len()).expect("a frame is smaller");
        self.i32(length);
        self.0.extend_from_slice(bytes);
    }
}

/// Reads what is left of a key or value.
pub struct Reader<'a> {
    rest: &'a [u8],
    /// Lengths are compact, and structures end with tagged fields.
    flexible: bool,
}

impl<'a> Reader<'a> {
    /// The version, and what follows it.
    pub fn new(bytes: &'a [u8]) -> Result<(i16, Reader<'a>), RecordError> {
        let mut reader = Reader { rest: bytes, flexible: false };
        let version = i16::from_be_bytes(reader.array()?);
        Ok((version, reader))
    }

    /// What follows is in a flexible version.
    pub fn flexible(mut self) -> Self {
        self.flexible = true;
        self
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], RecordError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(RecordError::Short)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        Ok(self.take(N)?.try_into().expect("N were taken"))
    }

    /// A signed 32-bit number.
    pub fn i32(&mut self) -> Result<i32, RecordError> {
        self.array().map(i32::from_be_bytes)
    }

    /// A signed 64-bit number.
    pub fn i64(&mut self) -> Result<i64, RecordError> {
        self.array().map(i64::from_be_bytes)
    }

    fn unsigned(&mut self) -> Result<u32, RecordError> {
        let mut n = 0u64;
        for shift in (0..35).step_by(7) {
            let [byte] = self.array()?;
            n |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(n).map_err(|_| RecordError::Length);
            }
        }
        Err(RecordError::Length)
    }

    /// A length; `None` stands for null.
    fn length(&mut self, wide: bool) -> Result<Option<usize>, RecordError> {
        let length = match (self.flexible, wide) {
            (true, _) => i64::from(self.unsigned()?) - 1,
            (false, true) => self.i32()?.into(),
            (false, false) => i16::from_be_bytes(self.array()?).into(),
        };
        match length {
            -1 => Ok(None),
            _ => usize::try_from(length).map(Some).map_err(|_| RecordError::Length),
        }
    }

    /// A string, or nothing.
    pub fn nullable_string(&mut self) -> Result<Option<&'a str>, RecordError> {
        let Some(length) = self.length(false)? else { return Ok(None) };
        let bytes = self.take(length)?;
        std::str::from_utf8(bytes).map(Some).map_err(|_| RecordError::Text)
    }

    /// A string.
    pub fn string(&mut self) -> Result<&'a str, RecordError> {
        self.nullable_string()?.ok_or(RecordError::Null)
    }

    /// Bytes.
    pub fn bytes(&mut self) -> Result<&'a [u8], RecordError> {
        let length = self.length(true)?.ok_or(RecordError::Null)?;
        self.take(length)
    }

    /// How many elements follow, of at least `bytes_min` each.
    pub fn count(&mut self, bytes_min: usize) -> Result<usize, RecordError> {
        let count = self.length(true)?.ok_or(RecordError::Null)?;
        match count.checked_mul(bytes_min) {
            Some(bytes) if bytes <= self.rest.len() => Ok(count),
            _ => Err(RecordError::Short),
        }
    }

    /// Passes over the tagged fields that end a structure of a flexible version: whoever wrote
    /// them can do without our understanding them (KIP-915).
    pub fn tagged(&mut self) -> Result<(), RecordError> {
        if self.flexible {
            for _ in 0..self.unsigned()? {
                self.unsigned()?;
                let length = self.unsigned()? as usize;
                self.take(length)?;
            }
        }
        Ok(())
    }

    /// What was not read.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}
