//! The codecs, only where the broker must look inside a batch: decompression as a stream with a
//! small window and a cap on what comes out, and compression for batches that are built here.
//!
//! What a batch of `n` bytes can cost: a window of 32 KiB here, plus the codec's own memory: gzip
//! 32 KiB; lz4 at most two blocks of 4 MiB; zstd the frame's window, at most 128 MiB
//! ([`ZSTD_WINDOW_LOG_MAX`], Kafka's own limit), of which only what comes out is ever touched;
//! snappy one whole chunk, at most 22 × `n`, because its format refers back without a limit
//! (franz-go does so over whole batches). All of them are also under the cap.

use std::io::{self, Read, Write};

use super::Codec;
use super::records::{RecordFault, Source};

/// Bytes that are decompressed at a time.
const WINDOW_BYTES: usize = 32 * 1024;
/// Largest zstd window, as a power of two: 128 MiB, as zstd and Kafka have it by default.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// Decompresses as a [`Source`], never more than a window at a time, up to a cap.
pub(super) struct Inflate<'a> {
    decoder: Decoder<'a>,
    window: Box<[u8]>,
    /// The bytes of `window` that were decompressed and not taken yet.
    from: usize,
    to: usize,
    taken: u64,
    /// How many more bytes may come out.
    left: u64,
}

enum Decoder<'a> {
    Gzip(flate2::bufread::MultiGzDecoder<&'a [u8]>),
    Snappy(Snappy<'a>),
    Lz4(Box<lz4_flex::frame::FrameDecoder<&'a [u8]>>),
    Zstd(zstd::stream::read::Decoder<'static, &'a [u8]>),
}

impl<'a> Inflate<'a> {
    /// Over the compressed `bytes`; `out_bytes_max` is the cap.
    pub fn new(
        codec: Codec,
        bytes: &'a [u8],
        out_bytes_max: u64,
    ) -> Result<Inflate<'a>, RecordFault> {
        let decoder = match codec {
            Codec::None => unreachable!("uncompressed records are walked where they lie"),
            Codec::Gzip => Decoder::Gzip(flate2::bufread::MultiGzDecoder::new(bytes)),
            Codec::Snappy => Decoder::Snappy(Snappy::new(bytes, out_bytes_max)),
            Codec::Lz4 => Decoder::Lz4(Box::new(lz4_flex::frame::FrameDecoder::new(bytes))),
            Codec::Zstd => {
                Decoder::Zstd(zstd_decoder(bytes).map_err(|_| RecordFault::Undecodable)?)
            }
        };
        let window = vec![0; WINDOW_BYTES].into_boxed_slice();
        Ok(Inflate { decoder, window, from: 0, to: 0, taken: 0, left: out_bytes_max })
    }

    /// Decompresses all that is left into `out`, which is emptied first.
    pub fn read_all(&mut self, out: &mut Vec<u8>) -> Result<(), RecordFault> {
        out.clear();
        while self.from < self.to || self.fill()? {
            out.extend_from_slice(&self.window[self.from..self.to]);
            self.from = self.to;
        }
        Ok(())
    }

    /// Decompresses the next window; false at the end.
    fn fill(&mut self) -> Result<bool, RecordFault> {
        let read = match &mut self.decoder {
            Decoder::Gzip(decoder) => decoder.read(&mut self.window),
            Decoder::Snappy(decoder) => decoder.read(&mut self.window),
            Decoder::Lz4(decoder) => decoder.read(&mut self.window),
            Decoder::Zstd(decoder) => decoder.read(&mut self.window),
        };
        match read {
            Ok(count) => {
                self.left = self.left.checked_sub(count as u64).ok_or(RecordFault::Bomb)?;
                (self.from, self.to) = (0, count);
                Ok(count > 0)
            }
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => Err(RecordFault::Bomb),
            Err(_) => Err(RecordFault::Undecodable),
        }
    }
}

/// Compresses `bytes` and appends the result to `out`.
pub(super) fn deflate(codec: Codec, bytes: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    match codec {
        Codec::None => out.extend_from_slice(bytes),
        Codec::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(out, flate2::Compression::default());
            encoder.write_all(bytes)?;
            encoder.finish()?;
        }
        Codec::Snappy => deflate_snappy(bytes, out)?,
        Codec::Lz4 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(lz4_frame(), out);
            encoder.write_all(bytes)?;
            encoder.finish().map_err(io::Error::other)?;
        }
        Codec::Zstd => zstd::stream::copy_encode(bytes, out, zstd::DEFAULT_COMPRESSION_LEVEL)?,
    }
    Ok(())
}

/// Independent blocks of 64 KiB without checksums, which is what Kafka's own reader requires at
/// most (`Lz4BlockInputStream`).
fn lz4_frame() -> lz4_flex::frame::FrameInfo {
    lz4_flex::frame::FrameInfo::new()
        .block_size(lz4_flex::frame::BlockSize::Max64KB)
        .block_mode(lz4_flex::frame::BlockMode::Independent)
}

/// In chunks of 32 KiB, as the Java client writes them; every client reads that.
fn deflate_snappy(bytes: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    out.extend_from_slice(XERIAL_MAGIC);
    out.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 1]);
    let mut encoder = snap::raw::Encoder::new();
    for chunk in bytes.chunks(WINDOW_BYTES) {
        let chunk = encoder.compress_vec(chunk)?;
        out.extend_from_slice(&(chunk.len() as u32).to_be_bytes());
        out.extend_from_slice(&chunk);
    }
    Ok(())
}

fn zstd_decoder(bytes: &[u8]) -> io::Result<zstd::stream::read::Decoder<'static, &[u8]>> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(bytes)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
    Ok(decoder)
}

impl Source for Inflate<'_> {
    #[inline]
    fn byte(&mut self) -> Result<u8, RecordFault> {
        if self.from == self.to && !self.fill()? {
            return Err(RecordFault::End);
        }
        let byte = self.window[self.from];
        self.from += 1;
        self.taken += 1;
        Ok(byte)
    }

    fn skip(&mut self, count: usize) -> Result<(), RecordFault> {
        let mut left = count;
        loop {
            let here = left.min(self.to - self.from);
            self.from += here;
            left -= here;
            if left == 0 {
                self.taken += count as u64;
                return Ok(());
            }
            if !self.fill()? {
                return Err(RecordFault::End);
            }
        }
    }

    fn position(&self) -> u64 {
        self.taken
    }

    fn at_end(&mut self) -> Result<bool, RecordFault> {
        Ok(self.from == self.to && !self.fill()?)
    }
}

/// What begins a stream of the xerial library (Java, librdkafka's reader, sarama): magic, then
/// version and lowest compatible version, both `int32`.
const XERIAL_MAGIC: &[u8; 8] = b"\x82SNAPPY\0";
const XERIAL_HEADER_BYTES: usize = 16;
/// A snappy copy element of 3 bytes makes 64: nothing can expand more.
const SNAPPY_RATIO_MAX: u64 = 22;

/// Snappy blocks one after the other: one raw block, or xerial's chunks.
struct Snappy<'a> {
    rest: &'a [u8],
    xerial: bool,
    block: Vec<u8>,
    read: usize,
    /// How many more bytes may come out.
    left: u64,
}

impl<'a> Snappy<'a> {
    fn new(bytes: &'a [u8], out_bytes_max: u64) -> Snappy<'a> {
        let xerial = bytes.len() >= XERIAL_HEADER_BYTES && bytes.starts_with(XERIAL_MAGIC);
        let rest = if xerial { &bytes[XERIAL_HEADER_BYTES..] } else { bytes };
        Snappy { rest, xerial, block: Vec::new(), read: 0, left: out_bytes_max }
    }

    /// Takes the next compressed block off `rest`.
    fn next_block(&mut self) -> io::Result<&'a [u8]> {
        if !self.xerial {
            return Ok(std::mem::take(&mut self.rest));
        }
        let Some((length, rest)) = self.rest.split_first_chunk::<4>() else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let length = u32::from_be_bytes(*length) as usize;
        if length > rest.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (block, rest) = rest.split_at(length);
        self.rest = rest;
        Ok(block)
    }

    fn refill(&mut self) -> io::Result<()> {
        let block = self.next_block()?;
        let length = snap::raw::decompress_len(block)? as u64;
        if length > block.len() as u64 * SNAPPY_RATIO_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if length > self.left {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.left -= length;
        self.read = 0;
        self.block.resize(length as usize, 0);
        let wrote = snap::raw::Decoder::new().decompress(block, &mut self.block)?;
        self.block.truncate(wrote);
        Ok(())
    }
}

impl Read for Snappy<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.read == self.block.len() {
            if self.rest.is_empty() {
                return Ok(0);
            }
            self.refill()?;
        }
        let count = (&self.block[self.read..]).read(into)?;
        self.read += count;
        Ok(count)
    }
}
