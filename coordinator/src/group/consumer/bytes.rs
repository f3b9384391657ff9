//! Kafka's primitive types as records of consumer groups and the embedded consumer protocol spell
//! them: plain in keys and in the embedded protocol, compact with tagged fields in values. No
//! length is trusted: each is compared with the bytes that are there before anything is allocated.

/// Longest string that plain types can hold, in bytes.
pub const STRING_BYTES_MAX: usize = i16::MAX as usize;

/// Why bytes are not what they are said to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BytesError {
    /// They end early.
    #[error("it ends early")]
    Short,
    /// A length that makes no sense.
    #[error("a length that cannot be")]
    Length,
    /// Text that is not UTF-8.
    #[error("text that is not UTF-8")]
    Text,
    /// Null where something has to be.
    #[error("null where something has to be")]
    Null,
    /// A version that is not known here.
    #[error("version {0} is not known")]
    Version(i16),
}

/// Writes.
pub struct Writer {
    /// What was written.
    pub bytes: Vec<u8>,
    flexible: bool,
}

impl Writer {
    /// Begins with a version; plain types follow.
    pub fn plain(version: i16) -> Writer {
        Writer { bytes: version.to_be_bytes().to_vec(), flexible: false }
    }

    /// Begins with a version; compact types follow.
    pub fn flexible(version: i16) -> Writer {
        Writer { bytes: version.to_be_bytes().to_vec(), flexible: true }
    }

    /// A signed 8-bit number.
    pub fn i8(&mut self, n: i8) {
        self.bytes.extend_from_slice(&n.to_be_bytes());
    }

    /// A signed 32-bit number.
    pub fn i32(&mut self, n: i32) {
        self.bytes.extend_from_slice(&n.to_be_bytes());
    }

    /// A signed 64-bit number.
    pub fn i64(&mut self, n: i64) {
        self.bytes.extend_from_slice(&n.to_be_bytes());
    }

    /// 16 bytes.
    pub fn uuid(&mut self, id: &[u8; 16]) {
        self.bytes.extend_from_slice(id);
    }

    /// An unsigned number of variable length.
    pub fn unsigned(&mut self, mut n: u32) {
        while n >= 0x80 {
            self.bytes.push(n as u8 | 0x80);
            n >>= 7;
        }
        self.bytes.push(n as u8);
    }

    fn length(&mut self, length: Option<usize>, wide: bool) {
        let plain = || length.map_or(-1, |n| i32::try_from(n).expect("a frame is smaller"));
        if self.flexible {
            self.unsigned(length.map_or(0, |n| u32::try_from(n).expect("a frame is smaller") + 1));
        } else if wide {
            self.i32(plain());
        } else {
            let length = i16::try_from(plain()).expect("longer strings are refused on arrival");
            self.bytes.extend_from_slice(&length.to_be_bytes());
        }
    }

    /// A string, of at most [`STRING_BYTES_MAX`] where types are plain.
    pub fn string(&mut self, text: &str) {
        self.nullable_string(Some(text));
    }

    /// A string, or nothing.
    pub fn nullable_string(&mut self, text: Option<&str>) {
        self.length(text.map(str::len), false);
        self.bytes.extend_from_slice(text.unwrap_or_default().as_bytes());
    }

    /// Bytes, or nothing.
    pub fn nullable_bytes(&mut self, bytes: Option<&[u8]>) {
        self.length(bytes.map(<[u8]>::len), true);
        self.bytes.extend_from_slice(bytes.unwrap_or_default());
    }

    /// How many elements follow.
    pub fn count(&mut self, count: usize) {
        self.length(Some(count), true);
    }

    /// The tagged fields that end a structure: tag and content, by tag.
    pub fn tagged(&mut self, fields: &[(u32, Vec<u8>)]) {
        self.unsigned(u32::try_from(fields.len()).expect("a handful"));
        for (tag, content) in fields {
            self.unsigned(*tag);
            self.unsigned(u32::try_from(content.len()).expect("a frame is smaller"));
            self.bytes.extend_from_slice(content);
        }
    }

    /// What `write` writes, in compact types, without a version.
    pub fn content(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut writer = Writer { bytes: Vec::new(), flexible: true };
        write(&mut writer);
        writer.bytes
    }
}

/// Reads.
pub struct Reader<'a> {
    rest: &'a [u8],
    flexible: bool,
}

impl<'a> Reader<'a> {
    /// The version that bytes begin with, and the rest in plain types.
    pub fn plain(bytes: &'a [u8]) -> Result<(i16, Reader<'a>), BytesError> {
        let mut reader = Reader { rest: bytes, flexible: false };
        let version = i16::from_be_bytes(reader.array()?);
        Ok((version, reader))
    }

    /// The same in compact types; any other version than `known` is an error.
    pub fn flexible(bytes: &'a [u8], known: i16) -> Result<Reader<'a>, BytesError> {
        let (version, mut reader) = Reader::plain(bytes)?;
        reader.flexible = true;
        if version == known { Ok(reader) } else { Err(BytesError::Version(version)) }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], BytesError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(BytesError::Short)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], BytesError> {
        Ok(self.take(N)?.try_into().expect("N were taken"))
    }

    /// A signed 8-bit number.
    pub fn i8(&mut self) -> Result<i8, BytesError> {
        self.array().map(i8::from_be_bytes)
    }

    /// A signed 32-bit number.
    pub fn i32(&mut self) -> Result<i32, BytesError> {
        self.array().map(i32::from_be_bytes)
    }

    /// A signed 64-bit number.
    pub fn i64(&mut self) -> Result<i64, BytesError> {
        self.array().map(i64::from_be_bytes)
    }

    /// 16 bytes.
    pub fn uuid(&mut self) -> Result<[u8; 16], BytesError> {
        self.array()
    }

    fn unsigned(&mut self) -> Result<u32, BytesError> {
        let mut n = 0u64;
        for shift in (0..35).step_by(7) {
            let [byte] = self.array()?;
            n |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(n).map_err(|_| BytesError::Length);
            }
        }
        Err(BytesError::Length)
    }

    fn length(&mut self, wide: bool) -> Result<Option<usize>, BytesError> {
        let length = match (self.flexible, wide) {
            (true, _) => i64::from(self.unsigned()?) - 1,
            (false, true) => self.i32()?.into(),
            (false, false) => i16::from_be_bytes(self.array()?).into(),
        };
        match length {
            -1 => Ok(None),
            _ => usize::try_from(length).map(Some).map_err(|_| BytesError::Length),
        }
    }

    /// A string, or nothing.
    pub fn nullable_string(&mut self) -> Result<Option<&'a str>, BytesError> {
        let Some(length) = self.length(false)? else { return Ok(None) };
        let bytes = self.take(length)?;
        std::str::from_utf8(bytes).map(Some).map_err(|_| BytesError::Text)
    }

    /// A string.
    pub fn string(&mut self) -> Result<&'a str, BytesError> {
        self.nullable_string()?.ok_or(BytesError::Null)
    }

    /// Bytes, or nothing.
    pub fn nullable_bytes(&mut self) -> Result<Option<&'a [u8]>, BytesError> {
        let Some(length) = self.length(true)? else { return Ok(None) };
        self.take(length).map(Some)
    }

    /// Bytes.
    pub fn bytes(&mut self) -> Result<&'a [u8], BytesError> {
        self.nullable_bytes()?.ok_or(BytesError::Null)
    }

    /// As many of `read` as the count in front of them says, each of at least `bytes_min`.
    pub fn list<T, C: FromIterator<T>>(
        &mut self,
        bytes_min: usize,
        mut read: impl FnMut(&mut Self) -> Result<T, BytesError>,
    ) -> Result<C, BytesError> {
        let count = self.length(true)?.ok_or(BytesError::Null)?;
        match count.checked_mul(bytes_min) {
            Some(bytes) if bytes <= self.rest.len() => (0..count).map(|_| read(self)).collect(),
            _ => Err(BytesError::Short),
        }
    }

    /// The tagged fields that end a structure: `field` is given each that is there, with its tag.
    /// Those that it does not know are passed over (KIP-915).
    pub fn tagged(
        &mut self,
        mut field: impl FnMut(u32, &mut Reader<'a>) -> Result<(), BytesError>,
    ) -> Result<(), BytesError> {
        for _ in 0..self.unsigned()? {
            let tag = self.unsigned()?;
            let length = self.unsigned()? as usize;
            let content = self.take(length)?;
            field(tag, &mut Reader { rest: content, flexible: true })?;
        }
        Ok(())
    }
}
