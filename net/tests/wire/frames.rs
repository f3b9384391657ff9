//! Makes valid message bodies from a [`Shape`], with an encoder of its own: nothing here calls the
//! codec under test, so a frame that both codecs agree on was not made by either.

use net::wire::{Shape, Version};

/// SplitMix64: small, seeded, good enough to choose test values.
pub struct Random(pub u64);

impl Random {
    /// The next 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// True once in `n` times.
    pub fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

fn uvarint(mut value: usize, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn length(len: Option<usize>, bytes: usize, version: Version, out: &mut Vec<u8>) {
    if version.flexible {
        uvarint(len.map_or(0, |len| len + 1), out);
    } else {
        let len = len.map_or(-1, |len| len as i64);
        out.extend_from_slice(&len.to_be_bytes()[8 - bytes..]);
    }
}

fn text(random: &mut Random) -> String {
    let len = if random.once_in(20) { 120 + random.below(20) } else { random.below(9) };
    (0..len).map(|_| b"abcdefghijklmnopqrstuvwxyz-0123456789"[random.below(37)] as char).collect()
}

fn null(shape: &Shape, version: Version, out: &mut Vec<u8>) {
    match shape {
        Shape::String => length(None, 2, version, out),
        Shape::Bytes | Shape::Records | Shape::Array { .. } => length(None, 4, version, out),
        Shape::Struct { .. } => out.push(0xff),
        other => panic!("Kafka has no nullable {other:?}"),
    }
}

/// Appends a random value of this form.
pub fn body(shape: &Shape, version: Version, random: &mut Random, out: &mut Vec<u8>) {
    field(shape, version, true, random, out);
}

fn field(shape: &Shape, version: Version, nullable: bool, random: &mut Random, out: &mut Vec<u8>) {
    match shape {
        Shape::Bool => out.push(random.below(2) as u8),
        Shape::Int { bytes } => {
            let value = if random.once_in(3) { random.below(5) as u64 } else { random.next() };
            out.extend_from_slice(&value.to_be_bytes()[8 - bytes..]);
        }
        Shape::ErrorCode => {
            out.extend_from_slice(&(random.below(135) as i16 - 1).to_be_bytes());
        }
        Shape::Uuid => {
            out.extend_from_slice(&random.next().to_be_bytes());
            out.extend_from_slice(&random.next().to_be_bytes());
        }
        Shape::String => {
            let text = text(random);
            length(Some(text.len()), 2, version, out);
            out.extend_from_slice(text.as_bytes());
        }
        Shape::Bytes | Shape::Records => {
            let len = random.below(200);
            length(Some(len), 4, version, out);
            // No punctuation, because debug output is compared, too.
            out.extend((0..len).map(|_| random.next() as u8 & 0x1f));
        }
        Shape::Nullable { of } if nullable && random.once_in(4) => null(of, version, out),
        Shape::Nullable { of } => {
            if matches!(of, Shape::Struct { .. }) {
                out.push(1);
            }
            field(of, version, false, random, out);
        }
        Shape::Array { of } => {
            let len = random.below(4);
            length(Some(len), 4, version, out);
            for _ in 0..len {
                field(of, version, false, random, out);
            }
        }
        Shape::Struct { fields, .. } => {
            let existing = || fields.iter().filter(|field| (field.exists)(version.number));
            for f in existing().filter(|f| f.tag.is_none()) {
                field(f.shape, version, (f.nullable)(version.number), random, out);
            }
            if version.flexible {
                let mut tags = 0;
                let mut section = Vec::new();
                for f in existing() {
                    let Some(tag) = f.tag else { continue };
                    if random.once_in(2) {
                        continue;
                    }
                    let mut value = Vec::new();
                    field(f.shape, version, (f.nullable)(version.number), random, &mut value);
                    uvarint(tag as usize, &mut section);
                    uvarint(value.len(), &mut section);
                    section.extend(value);
                    tags += 1;
                }
                uvarint(tags, out);
                out.extend(section);
            }
        }
    }
}
