//! Arrays of a message. One that was read stays where it is: a view of the frame, checked once when
//! the message was decoded and decoded again, element by element, as it is iterated. So a request
//! costs no memory beyond its frame, whatever it claims to hold (CVE-2026-111108: arrays that are
//! allocated as they are read amplify a small frame many times over).
//!
//! The price is that an element is decoded once per pass and once per level above it; messages
//! nest four levels at most.

use std::fmt;

use super::message::{Field, Nullable, Version, read_required};
use super::reader::{DecodeError, Reader};
use super::shape::Shape;
use super::writer::Sink;

/// A list of `T`: read from a frame, or made to be written (from a `Vec` or a slice).
#[derive(Clone)]
pub struct Array<'a, T>(Elements<'a, T>);

#[derive(Clone)]
enum Elements<'a, T> {
    /// `count` elements that have been checked to fill `bytes` exactly.
    Frame {
        bytes: &'a [u8],
        count: usize,
        version: Version,
    },
    Vec(Vec<T>),
    Slice(&'a [T]),
}

impl<'a, T> Array<'a, T> {
    /// An array of none.
    pub const fn new() -> Array<'a, T> {
        Array(Elements::Vec(Vec::new()))
    }

    /// How many elements.
    pub const fn len(&self) -> usize {
        match &self.0 {
            Elements::Frame { count, .. } => *count,
            Elements::Vec(values) => values.len(),
            Elements::Slice(values) => values.len(),
        }
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<'a, T: Field<'a> + Clone> Array<'a, T> {
    /// Its elements, by value: those from a frame are decoded again, others are cloned.
    pub fn iter(&self) -> Iter<'_, 'a, T> {
        Iter(match &self.0 {
            Elements::Frame { bytes, count, version } => {
                Walk::Frame { reader: Reader::new(bytes), left: *count, version: *version }
            }
            Elements::Vec(values) => Walk::Values(values.iter()),
            Elements::Slice(values) => Walk::Values(values.iter()),
        })
    }

    /// The first element.
    pub fn first(&self) -> Option<T> {
        self.iter().next()
    }
}

impl<T> Default for Array<'_, T> {
    fn default() -> Self {
        Array::new()
    }
}

impl<T> From<Vec<T>> for Array<'_, T> {
    fn from(values: Vec<T>) -> Self {
        Array(Elements::Vec(values))
    }
}

impl<'a, T> From<&'a [T]> for Array<'a, T> {
    fn from(values: &'a [T]) -> Self {
        Array(Elements::Slice(values))
    }
}

impl<'a, T, const N: usize> From<&'a [T; N]> for Array<'a, T> {
    fn from(values: &'a [T; N]) -> Self {
        Array(Elements::Slice(values))
    }
}

impl<T> FromIterator<T> for Array<'_, T> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        Array(Elements::Vec(values.into_iter().collect()))
    }
}

impl<'a, T: Field<'a> + Clone + PartialEq> PartialEq for Array<'a, T> {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl<'a, T: Field<'a> + Clone + fmt::Debug> fmt::Debug for Array<'a, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'s, 'a, T: Field<'a> + Clone> IntoIterator for &'s Array<'a, T> {
    type Item = T;
    type IntoIter = Iter<'s, 'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Walks over an [`Array`].
pub struct Iter<'s, 'a, T>(Walk<'s, 'a, T>);

enum Walk<'s, 'a, T> {
    Frame { reader: Reader<'a>, left: usize, version: Version },
    Values(std::slice::Iter<'s, T>),
}

impl<'a, T: Field<'a> + Clone> Iterator for Iter<'_, 'a, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        match &mut self.0 {
            Walk::Frame { left: 0, .. } => None,
            Walk::Frame { reader, left, version } => {
                *left -= 1;
                Some(T::read(reader, *version).expect("it was checked when it was decoded"))
            }
            Walk::Values(values) => values.next().cloned(),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let len = match &self.0 {
            Walk::Frame { left, .. } => *left,
            Walk::Values(values) => values.len(),
        };
        (len, Some(len))
    }
}

impl<'a, T: Field<'a> + Clone> ExactSizeIterator for Iter<'_, 'a, T> {}

impl<'a, T: Field<'a>> Nullable<'a> for Array<'a, T> {
    fn read_nullable(r: &mut Reader<'a>, version: Version) -> Result<Option<Self>, DecodeError> {
        let Some(count) = r.count(version.flexible)? else { return Ok(None) };
        let start = r.position();
        for _ in 0..count {
            T::read(r, version)?;
        }
        Ok(Some(Array(Elements::Frame { bytes: r.since(start), count, version })))
    }

    fn write_nullable<S: Sink>(value: Option<&Self>, sink: &mut S, version: Version) {
        sink.put_len(value.map(Array::len), version.flexible);
        let values = match value.map(|array| &array.0) {
            None => return,
            Some(Elements::Vec(values)) => &values[..],
            Some(Elements::Slice(values)) => values,
            Some(Elements::Frame { bytes, count, version: from }) => {
                let mut reader = Reader::new(bytes);
                for _ in 0..*count {
                    let value = T::read(&mut reader, *from);
                    value.expect("it was checked when it was decoded").write(sink, version);
                }
                return;
            }
        };
        for value in values {
            value.write(sink, version);
        }
    }
}

impl<'a, T: Field<'a>> Field<'a> for Array<'a, T> {
    const SHAPE: Shape = Shape::Array { of: &T::SHAPE };

    fn read(reader: &mut Reader<'a>, version: Version) -> Result<Self, DecodeError> {
        read_required(reader, version)
    }

    fn write<S: Sink>(&self, sink: &mut S, version: Version) {
        Self::write_nullable(Some(self), sink, version);
    }
}

#[cfg(test)]
mod tests {
    use super::super::writer::Writer;
    use super::*;

    const V: Version = Version { number: 0, flexible: true };

    #[test]
    fn a_view_of_a_frame_equals_what_was_written() {
        let names = Array::from(vec!["a", "", "ccc"]);
        let mut writer = Writer::default();
        names.write(&mut writer, V);
        let mut reader = Reader::new(&writer.bytes);
        let read = Array::<&str>::read(&mut reader, V).expect("valid");
        assert_eq!(reader.finish(), Ok(()));
        assert_eq!(read, names);
        assert_eq!(read.iter().len(), 3);
        assert_eq!(read.iter().collect::<Vec<_>>(), ["a", "", "ccc"]);
        assert_eq!(format!("{read:?}"), r#"["a", "", "ccc"]"#);

        let mut again = Writer::default();
        read.write(&mut again, V);
        assert_eq!(again.bytes, writer.bytes);
    }

    #[test]
    fn a_bad_last_element_is_found_before_anything_is_handed_out() {
        let bytes = [3, 2, b'a', 2, 0xff];
        assert!(Array::<&str>::read(&mut Reader::new(&bytes), V).is_err());
    }
}
