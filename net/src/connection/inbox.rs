//! Framing: bytes from a socket in, whole requests out. Pure. Memory follows what has arrived,
//! never what a length claims: a 2 GiB prefix costs its sender the connection and nothing else.

use crate::frame::Frame;

/// Bytes of the length in front of each frame.
const LEN_BYTES: usize = 4;
/// What is read at once while no large frame is being received, in bytes.
const READ_BYTES: usize = 16 << 10;
/// Least room that is offered for the rest of a large frame, in bytes.
const GROW_BYTES_MIN: usize = 64 << 10;
/// Most room that is offered at once, in bytes.
const GROW_BYTES_MAX: usize = 1 << 20;
/// Smallest request: API key, version, correlation id.
const FRAME_BYTES_MIN: usize = 8;

/// Why the bytes are not frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InboxError {
    /// The length is none.
    #[error("a request cannot have length {0}{hint}", hint = hint(*.0))]
    Length(i32),
    /// Larger than allowed.
    #[error("a request of {len} bytes is larger than socket.request.max.bytes = {max}{hint}",
        hint = hint(*.len))]
    TooLarge {
        /// What it claims.
        len: i32,
        /// The limit.
        max: usize,
    },
    /// The connection ended within a frame.
    #[error("the peer closed it in the middle of a request")]
    Half,
}

/// Says what speaks another protocol.
fn hint(len: i32) -> &'static str {
    match &len.to_be_bytes() {
        b"GET " | b"POST" | b"HEAD" | b"PUT " => " (this looks like HTTP)",
        [0x16, 3, ..] => " (this looks like TLS)",
        _ => "",
    }
}

/// What has arrived and was not taken.
pub struct Inbox {
    /// `buffer[start..end]` has arrived.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    frame_bytes_max: usize,
}

impl Inbox {
    /// An empty inbox that refuses frames larger than `frame_bytes_max`.
    pub fn new(frame_bytes_max: usize) -> Inbox {
        Inbox { buffer: Vec::new(), start: 0, end: 0, frame_bytes_max }
    }

    /// Whether nothing of another frame has arrived.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Where the next bytes are to be read into; never empty.
    pub fn room(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        let have = self.end - self.start;
        // Memory follows what has arrived: who has not filled the first room gets no more of it,
        // whatever length the frame claims. Hundreds of slow senders cost a room each.
        let want = match self.claimed() {
            _ if have < READ_BYTES => READ_BYTES - have,
            Some(len) => {
                let missing = (LEN_BYTES + len).saturating_sub(have);
                missing.min(have.clamp(GROW_BYTES_MIN, GROW_BYTES_MAX)).max(READ_BYTES)
            }
            None => READ_BYTES,
        };
        if self.buffer.len() - self.end < want {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, have);
            if self.buffer.len() < have + want {
                self.buffer.resize(have + want, 0);
            }
        }
        &mut self.buffer[self.end..]
    }

    /// `count` bytes were read into the room.
    pub fn filled(&mut self, count: usize) {
        self.end += count;
        assert!(self.end <= self.buffer.len());
    }

    /// The next whole frame, if it has arrived.
    pub fn take(&mut self) -> Result<Option<Frame>, InboxError> {
        let Some(head) = self.buffer[self.start..self.end].first_chunk::<LEN_BYTES>() else {
            return Ok(None);
        };
        let len = i32::from_be_bytes(*head);
        let bytes = usize::try_from(len).unwrap_or(0);
        if bytes < FRAME_BYTES_MIN {
            return Err(InboxError::Length(len));
        }
        if bytes > self.frame_bytes_max {
            return Err(InboxError::TooLarge { len, max: self.frame_bytes_max });
        }
        let from = self.start + LEN_BYTES;
        if self.end - from < bytes {
            return Ok(None);
        }
        let frame = if self.end == from + bytes && bytes >= READ_BYTES {
            // A large frame that fills the buffer leaves with it, without a copy.
            let mut buffer = std::mem::take(&mut self.buffer);
            buffer.truncate(self.end);
            (self.start, self.end) = (0, 0);
            Frame::from_parts(buffer, from)
        } else {
            let frame = Frame::new(self.buffer[from..from + bytes].to_vec());
            self.start = from + bytes;
            frame
        };
        if self.start == self.end && self.buffer.len() > 4 * READ_BYTES {
            self.buffer = Vec::new();
            (self.start, self.end) = (0, 0);
        }
        Ok(Some(frame))
    }

    /// The length that the frame being received claims, if that has arrived and is allowed.
    fn claimed(&self) -> Option<usize> {
        let head = self.buffer[self.start..self.end].first_chunk::<LEN_BYTES>()?;
        usize::try_from(i32::from_be_bytes(*head)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(inbox: &mut Inbox, mut bytes: &[u8], step: usize) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        while !bytes.is_empty() {
            let room = inbox.room();
            let count = step.min(room.len()).min(bytes.len());
            room[..count].copy_from_slice(&bytes[..count]);
            inbox.filled(count);
            bytes = &bytes[count..];
            while let Some(frame) = inbox.take().unwrap() {
                frames.push(frame.to_vec());
            }
        }
        frames
    }

    #[test]
    fn frames_come_out_as_they_went_in_however_they_are_cut() {
        let sizes = [8usize, 9, 20_000, 300_000, 8, 16 << 10, 70_000, 12];
        let frames: Vec<Vec<u8>> =
            sizes.iter().enumerate().map(|(i, &len)| vec![i as u8 + 1; len]).collect();
        let mut bytes = Vec::new();
        for frame in &frames {
            bytes.extend_from_slice(&(frame.len() as i32).to_be_bytes());
            bytes.extend_from_slice(frame);
        }
        for step in [1, 7, 4096, usize::MAX] {
            let mut inbox = Inbox::new(1 << 20);
            assert_eq!(feed(&mut inbox, &bytes, step), frames, "step {step}");
            assert!(inbox.is_empty());
        }
    }

    #[test]
    fn a_length_that_lies_allocates_nothing() {
        for (len, expected) in [
            (i32::MAX, InboxError::TooLarge { len: i32::MAX, max: 1000 }),
            (1001, InboxError::TooLarge { len: 1001, max: 1000 }),
            (-1, InboxError::Length(-1)),
            (0, InboxError::Length(0)),
        ] {
            let mut inbox = Inbox::new(1000);
            let room = inbox.room();
            room[..4].copy_from_slice(&len.to_be_bytes());
            inbox.filled(4);
            assert_eq!(inbox.take().err(), Some(expected));
        }
        let mut inbox = Inbox::new(100 << 20);
        inbox.room()[..4].copy_from_slice(&(100i32 << 20).to_be_bytes());
        inbox.filled(4);
        assert!(inbox.take().unwrap().is_none());
        assert!(inbox.room().len() <= GROW_BYTES_MAX && inbox.buffer.capacity() <= GROW_BYTES_MAX);
    }

    #[test]
    fn a_slow_sender_of_a_large_frame_gets_one_room() {
        let mut inbox = Inbox::new(100 << 20);
        let frame = [(90i32 << 20).to_be_bytes().as_slice(), &[1; READ_BYTES - 5]].concat();
        for byte in frame {
            inbox.room()[0] = byte;
            inbox.filled(1);
            assert!(inbox.take().unwrap().is_none());
            assert!(inbox.buffer.capacity() <= READ_BYTES, "{}", inbox.buffer.capacity());
        }
        assert!(!inbox.room().is_empty());
    }

    #[test]
    fn other_protocols_are_named() {
        let http = InboxError::TooLarge { len: i32::from_be_bytes(*b"GET "), max: 1 };
        assert!(http.to_string().contains("HTTP"));
    }
}
