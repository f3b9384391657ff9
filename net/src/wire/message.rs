//! What a field of a message can be, and the one declaration from which a message gets its struct,
//! its decoder, its encoder and its exact size.
//!
//! ```text
//! message! {
//!     /// Asks for something.
//!     pub struct ThingRequest<'a>: request 99 -> ThingResponse<'r>, versions 0..=4, flexible 3;
//!     {
//!         /// In every version.
//!         name: &'a str,
//!         /// From version 1 on; 60,000 where the version lacks it.
//!         timeout_ms: i32 [1..] = 60_000,
//!         /// Null is allowed from version 2 on, an error before.
//!         parts: Option<Array<'a, Part<'a>>> [.., nullable 2..],
//!         /// In the tagged section, and only if it is not the default (KIP-482).
//!         rack: &'a str [3.., tag 0],
//!     }
//! }
//! ```
//! `: response 99, versions …` declares the answer; nothing after the name declares a struct that
//! is part of messages. Field order is wire order.
//! A value in a field that the chosen version lacks is not sent; readers see the default.

use std::borrow::Cow;

use engine::ids::TopicId;

use super::error_code::ErrorCode;
use super::reader::{DecodeError, DecodeErrorKind, Reader};
use super::shape::Shape;
use super::writer::Sink;

/// The version that a message is read or written in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Version {
    /// Its number.
    pub number: i16,
    /// Whether it has compact lengths and tagged fields (KIP-482).
    pub flexible: bool,
}

/// Anything that stands in a message.
///
/// What was read borrows the frame (`'a`); reading allocates nothing.
pub trait Field<'a>: Sized {
    /// What it looks like, as data.
    const SHAPE: Shape;

    /// Reads one, and checks all of it.
    fn read(reader: &mut Reader<'a>, version: Version) -> Result<Self, DecodeError>;
    /// Writes it.
    fn write<S: Sink>(&self, sink: &mut S, version: Version);
}

/// A field that some version allows to be null; `Option` of it is a field, too.
pub trait Nullable<'a>: Field<'a> {
    /// Reads one that may be null.
    fn read_nullable(r: &mut Reader<'a>, version: Version) -> Result<Option<Self>, DecodeError>;
    /// Writes one that may be null.
    fn write_nullable<S: Sink>(value: Option<&Self>, sink: &mut S, version: Version);
}

/// Reads a field that must not be null, by reading it as nullable.
pub(super) fn read_required<'a, T: Nullable<'a>>(
    reader: &mut Reader<'a>,
    version: Version,
) -> Result<T, DecodeError> {
    let null = reader.error(DecodeErrorKind::BadNull);
    T::read_nullable(reader, version)?.ok_or(null)
}

impl<'a, T: Nullable<'a>> Field<'a> for Option<T> {
    const SHAPE: Shape = Shape::Nullable { of: &T::SHAPE };

    fn read(reader: &mut Reader<'a>, version: Version) -> Result<Self, DecodeError> {
        T::read_nullable(reader, version)
    }

    fn write<S: Sink>(&self, sink: &mut S, version: Version) {
        T::write_nullable(self.as_ref(), sink, version);
    }
}

/// Whether a field is null; asked only of those that not every version allows to be.
pub(super) trait IsNull {
    fn is_null(&self) -> bool;
}

impl<T> IsNull for Option<T> {
    fn is_null(&self) -> bool {
        self.is_none()
    }
}

macro_rules! integers {
    ($($name:ident),*) => {$(
        impl Field<'_> for $name {
            const SHAPE: Shape = Shape::Int { bytes: size_of::<$name>() };

            fn read(reader: &mut Reader<'_>, _: Version) -> Result<Self, DecodeError> {
                reader.$name()
            }

            fn write<S: Sink>(&self, sink: &mut S, _: Version) {
                sink.put(&self.to_be_bytes());
            }
        }
    )*};
}
integers!(i8, i16, i32, i64, u16);

impl Field<'_> for bool {
    const SHAPE: Shape = Shape::Bool;

    fn read(reader: &mut Reader<'_>, _: Version) -> Result<Self, DecodeError> {
        reader.bool()
    }

    fn write<S: Sink>(&self, sink: &mut S, _: Version) {
        sink.put(&[u8::from(*self)]);
    }
}

/// Kafka's `uuid` where it is not a topic's.
impl Field<'_> for [u8; 16] {
    const SHAPE: Shape = Shape::Uuid;

    fn read(reader: &mut Reader<'_>, _: Version) -> Result<Self, DecodeError> {
        reader.uuid()
    }

    fn write<S: Sink>(&self, sink: &mut S, _: Version) {
        sink.put(self);
    }
}

impl Field<'_> for TopicId {
    const SHAPE: Shape = Shape::Uuid;

    fn read(reader: &mut Reader<'_>, _: Version) -> Result<Self, DecodeError> {
        reader.uuid().map(TopicId::from_bytes)
    }

    fn write<S: Sink>(&self, sink: &mut S, _: Version) {
        sink.put(self.bytes());
    }
}

/// Kafka's `int16` where it is an error; numbers that we do not know read as
/// [`ErrorCode::UnknownServerError`], as in Kafka's `Errors.forCode`.
impl Field<'_> for ErrorCode {
    const SHAPE: Shape = Shape::ErrorCode;

    fn read(reader: &mut Reader<'_>, _: Version) -> Result<Self, DecodeError> {
        reader.i16().map(ErrorCode::from_wire)
    }

    fn write<S: Sink>(&self, sink: &mut S, _: Version) {
        sink.put(&self.number().to_be_bytes());
    }
}

impl<'a> Nullable<'a> for &'a str {
    fn read_nullable(r: &mut Reader<'a>, version: Version) -> Result<Option<Self>, DecodeError> {
        r.string(version.flexible)
    }

    fn write_nullable<S: Sink>(value: Option<&Self>, sink: &mut S, version: Version) {
        sink.put_string(value.copied(), version.flexible);
    }
}

impl<'a> Field<'a> for &'a str {
    const SHAPE: Shape = Shape::String;

    fn read(reader: &mut Reader<'a>, version: Version) -> Result<Self, DecodeError> {
        read_required(reader, version)
    }

    fn write<S: Sink>(&self, sink: &mut S, version: Version) {
        sink.put_string(Some(self), version.flexible);
    }
}

impl<'a> Nullable<'a> for Cow<'a, str> {
    fn read_nullable(r: &mut Reader<'a>, version: Version) -> Result<Option<Self>, DecodeError> {
        Ok(r.string(version.flexible)?.map(Cow::Borrowed))
    }

    fn write_nullable<S: Sink>(value: Option<&Self>, sink: &mut S, version: Version) {
        sink.put_string(value.map(|text| &**text), version.flexible);
    }
}

impl<'a> Field<'a> for Cow<'a, str> {
    const SHAPE: Shape = Shape::String;

    fn read(reader: &mut Reader<'a>, version: Version) -> Result<Self, DecodeError> {
        read_required(reader, version)
    }

    fn write<S: Sink>(&self, sink: &mut S, version: Version) {
        sink.put_string(Some(self), version.flexible);
    }
}

/// Kafka's `bytes`: what others have a meaning for.
impl<'a> Nullable<'a> for &'a [u8] {
    fn read_nullable(r: &mut Reader<'a>, version: Version) -> Result<Option<Self>, DecodeError> {
        r.bytes(version.flexible)
    }

    fn write_nullable<S: Sink>(value: Option<&Self>, sink: &mut S, version: Version) {
        sink.put_len(value.map(|bytes| bytes.len()), version.flexible);
        sink.put(value.copied().unwrap_or_default());
    }
}

impl<'a> Field<'a> for &'a [u8] {
    const SHAPE: Shape = Shape::Bytes;

    fn read(reader: &mut Reader<'a>, version: Version) -> Result<Self, DecodeError> {
        read_required(reader, version)
    }

    fn write<S: Sink>(&self, sink: &mut S, version: Version) {
        Self::write_nullable(Some(self), sink, version);
    }
}

impl<'a> Nullable<'a> for Cow<'a, [u8]> {
    fn read_nullable(r: &mut Reader<'a>, version: Version) -> Result<Option<Self>, DecodeError> {
        Ok(r.bytes(version.flexible)?.map(Cow::Borrowed))
    }

    fn write_nullable<S: Sink>(value: Option<&Self>, sink: &mut S, version: Version) {
        <&[u8]>::write_nullable(value.map(|bytes| &**bytes).as_ref(), sink, version);
    }
}

impl<'a> Field<'a> for Cow<'a, [u8]> {
    const SHAPE: Shape = Shape::Bytes;

    fn read(reader: &mut Reader<'a>, version: Version) -> Result<Self, DecodeError> {
        read_required(reader, version)
    }

    fn write<S: Sink>(&self, sink: &mut S, version: Version) {
        Self::write_nullable(Some(self), sink, version);
    }
}

/// The record batches of one partition, as they stand in its log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Records<'a> {
    /// Here: in the frame they were read from, or to be copied into what is written.
    Here(&'a [u8]),
    /// To be sent from where they are, without passing through the encoder.
    Elsewhere {
        /// The number under which the sender has them: see [`super::Encoded::with_records`].
        slot: u32,
        /// How many bytes they are.
        len: usize,
    },
}

impl<'a> Records<'a> {
    /// How many bytes.
    pub const fn len(&self) -> usize {
        match self {
            Records::Here(bytes) => bytes.len(),
            Records::Elsewhere { len, .. } => *len,
        }
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes; empty when they are elsewhere, which no decoder produces.
    pub const fn bytes(&self) -> &'a [u8] {
        match self {
            Records::Here(bytes) => bytes,
            Records::Elsewhere { .. } => &[],
        }
    }
}

impl<'a> Nullable<'a> for Records<'a> {
    fn read_nullable(r: &mut Reader<'a>, version: Version) -> Result<Option<Self>, DecodeError> {
        Ok(r.bytes(version.flexible)?.map(Records::Here))
    }

    fn write_nullable<S: Sink>(value: Option<&Self>, sink: &mut S, version: Version) {
        sink.put_len(value.map(Records::len), version.flexible);
        match value {
            None => {}
            Some(Records::Here(bytes)) => sink.put(bytes),
            Some(Records::Elsewhere { slot, len }) => sink.put_elsewhere(*slot, *len),
        }
    }
}

impl<'a> Field<'a> for Records<'a> {
    const SHAPE: Shape = Shape::Records;

    fn read(reader: &mut Reader<'a>, version: Version) -> Result<Self, DecodeError> {
        read_required(reader, version)
    }

    fn write<S: Sink>(&self, sink: &mut S, version: Version) {
        Self::write_nullable(Some(self), sink, version);
    }
}

/// A whole request or response.
pub trait Message<'a>: Field<'a> {
    /// Kafka's number of the API.
    const KEY: i16;
    /// First version that this codec speaks.
    const VERSION_MIN: i16;
    /// Last version that this codec speaks.
    const VERSION_MAX: i16;
    /// First flexible version.
    const FLEXIBLE_MIN: i16;

    /// `number` as a version of this message; `None` if this codec does not speak it.
    fn version(number: i16) -> Option<Version> {
        (Self::VERSION_MIN..=Self::VERSION_MAX)
            .contains(&number)
            .then_some(Version { number, flexible: number >= Self::FLEXIBLE_MIN })
    }
}

/// A message that a client sends.
pub trait Request<'a>: Message<'a> {
    /// What answers it, in the same version.
    type Response<'r>: Message<'r>;
}

macro_rules! message {
    // One declaration after the other.
    () => {};
    (
        $(#[$meta:meta])*
        pub struct $name:ident $(<$life:lifetime>)?
            $(: $role:ident $key:literal $(-> $answer:ident $(<$answer_life:lifetime>)?)?,
                versions $min:literal..=$max:literal, flexible $flexible:literal;)?
        { $($fields:tt)* }
        $($rest:tt)*
    ) => {
        message!(@struct [$(#[$meta])*] $name [$($life)?] { $($fields)* });
        message!(@message $name [$($life)?] $([$key, $min, $max, $flexible]
            [$role $($answer $($answer_life)?)?])?);
        message!($($rest)*);
    };

    // Every field becomes `name [type] [versions] [nullable] [tag] [default]`, empty if not said.
    (@struct $meta:tt $name:ident $life:tt {
        $(
            $(#[$doc:meta])*
            $field:ident: $ty:ty
                $([$versions:expr $(, nullable $nullable:expr)? $(, tag $tag:literal)?])?
                $(= $default:expr)?
        ),* $(,)?
    }) => {
        message!(@lifetime $meta $name $life {
            $(
                [$(#[$doc])*] $field [$ty] [$($versions)?] [$($($nullable)?)?] [$($($tag)?)?]
                    [$($default)?];
            )*
        });
    };

    // A struct without a lifetime reads from any frame.
    (@lifetime $meta:tt $name:ident [] $fields:tt) => {
        message!(@fields $meta $name [] ['w] $fields);
    };
    (@lifetime $meta:tt $name:ident [$life:lifetime] $fields:tt) => {
        message!(@fields $meta $name [<$life>] [$life] $fields);
    };

    (@fields [$(#[$meta:meta])*] $name:ident [$($args:tt)*] [$life:lifetime] {
        $([$($doc:tt)*] $field:ident [$ty:ty] $versions:tt $nullable:tt $tag:tt $default:tt;)*
    }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name $($args)* {
            $($($doc)* pub $field: $ty,)*
        }

        impl $($args)* Default for $name $($args)* {
            fn default() -> Self {
                Self { $($field: message!(@default $default),)* }
            }
        }

        impl<$life> $crate::wire::Field<$life> for $name $($args)* {
            const SHAPE: $crate::wire::Shape = $crate::wire::Shape::Struct {
                name: stringify!($name),
                fields: &[$($crate::wire::ShapeField {
                    name: stringify!($field),
                    shape: &<$ty as $crate::wire::Field<$life>>::SHAPE,
                    exists: |number| message!(@has number $versions),
                    nullable: |number| message!(@has number $nullable),
                    tag: message!(@tag $tag),
                },)*],
            };

            #[allow(unused_mut)]
            fn read(
                reader: &mut $crate::wire::Reader<$life>,
                version: $crate::wire::Version,
            ) -> Result<Self, $crate::wire::DecodeError> {
                $(
                    let mut $field: $ty = if message!(@in_order version $versions $tag) {
                        message!(@read reader version [$ty] $nullable)
                    } else {
                        message!(@default $default)
                    };
                )*
                if version.flexible {
                    reader.tags(|tag, reader| {
                        $(
                            if message!(@in_tags version $versions $tag).is_some_and(|t| t == tag) {
                                $field = message!(@read reader version [$ty] $nullable);
                                return Ok(true);
                            }
                        )*
                        let _ = (tag, reader);
                        Ok(false)
                    })?;
                }
                Ok(Self { $($field,)* })
            }

            fn write<S: $crate::wire::Sink>(&self, sink: &mut S, version: $crate::wire::Version) {
                $(
                    if message!(@in_order version $versions $tag) {
                        $crate::wire::Field::write(&self.$field, sink, version);
                    }
                )*
                if version.flexible {
                    let tags = [$(
                        message!(@in_tags version $versions $tag).filter(|_| {
                            $crate::wire::message::differs(
                                &self.$field, message!(@default $default))
                        }),
                    )*];
                    sink.put_uvarint(tags.iter().flatten().count() as u32);
                    let mut tags = tags.into_iter();
                    $(
                        if let Some(Some(tag)) = tags.next() {
                            $crate::wire::message::write_tagged(&self.$field, tag, sink, version);
                        }
                    )*
                }
            }
        }

        impl<$life> $crate::wire::message::Nullable<$life> for $name $($args)* {
            fn read_nullable(
                reader: &mut $crate::wire::Reader<$life>,
                version: $crate::wire::Version,
            ) -> Result<Option<Self>, $crate::wire::DecodeError> {
                $crate::wire::message::read_nullable_struct(reader, version)
            }

            fn write_nullable<S: $crate::wire::Sink>(
                value: Option<&Self>,
                sink: &mut S,
                version: $crate::wire::Version,
            ) {
                $crate::wire::message::write_nullable_struct(value, sink, version);
            }
        }
    };

    (@message $name:ident $life:tt) => {};
    (@message $name:ident [] $facts:tt $role:tt) => {
        message!(@whole $name [] ['w] ['_] $facts $role);
    };
    (@message $name:ident [$life:lifetime] $facts:tt $role:tt) => {
        message!(@whole $name [<$life>] [$life] [$life] $facts $role);
    };
    (@whole $name:ident [$($args:tt)*] [$life:lifetime] [$frame:lifetime]
        [$key:literal, $min:literal, $max:literal, $flexible:literal] $role:tt) => {
        impl<$life> $crate::wire::Message<$life> for $name $($args)* {
            const KEY: i16 = $key;
            const VERSION_MIN: i16 = $min;
            const VERSION_MAX: i16 = $max;
            const FLEXIBLE_MIN: i16 = $flexible;
        }

        impl $($args)* $name $($args)* {
            /// Reads it in `version`, and checks all of it; bytes after its end are left there.
            pub fn decode(
                reader: &mut $crate::wire::Reader<$frame>,
                version: i16,
            ) -> Result<Self, $crate::wire::DecodeError> {
                $crate::wire::message::decode(reader, version)
            }
        }

        message!(@role $name [$($args)*] [$life] $role);
    };
    (@role $name:ident [$($args:tt)*] [$life:lifetime] [request $answer:ident]) => {
        message!(@role $name [$($args)*] [$life] [request $answer 'r []]);
    };
    (@role $name:ident [$($args:tt)*] [$life:lifetime] [request $answer:ident $r:lifetime]) => {
        message!(@role $name [$($args)*] [$life] [request $answer $r [<$r>]]);
    };
    (@role $name:ident [$($args:tt)*] [$life:lifetime]
        [request $answer:ident $r:lifetime [$($answer_args:tt)*]]) => {
        impl<$life> $crate::wire::Request<$life> for $name $($args)* {
            type Response<$r> = $answer $($answer_args)*;
        }

        impl $($args)* $name $($args)* {
            /// Encodes it as a frame, header and 4-byte length included. `version` must be one
            /// that it is declared for.
            pub fn encode(
                &self,
                version: i16,
                correlation_id: i32,
                client_id: Option<&str>,
            ) -> $crate::wire::Encoded {
                $crate::wire::encoded::encode_request(self, version, correlation_id, client_id)
            }
        }
    };
    (@role $name:ident [$($args:tt)*] [$life:lifetime] [response]) => {
        impl $($args)* $name $($args)* {
            /// Encodes it as a frame, header and 4-byte length included. `version` must be one
            /// that it is declared for.
            pub fn encode(&self, version: i16, correlation_id: i32) -> $crate::wire::Encoded {
                $crate::wire::encoded::encode_response(self, version, correlation_id)
            }
        }
    };

    (@default []) => { Default::default() };
    (@default [$given:expr]) => { $given };
    // Whether a version number is in a range; no range means every version.
    (@has $number:ident []) => {{ let _: i16 = $number; true }};
    (@has $number:ident [$versions:expr]) => { ($versions).contains(&$number) };
    (@tag []) => { None };
    (@tag [$tag:literal]) => { Some($tag) };
    // Whether the version has the field, in its place among the others.
    (@in_order $version:ident $versions:tt []) => {{
        let number = $version.number;
        message!(@has number $versions)
    }};
    (@in_order $version:ident $versions:tt [$tag:literal]) => { false };
    // The field's tag, if the version has it as a tagged field.
    (@in_tags $version:ident $versions:tt []) => { None::<u32> };
    (@in_tags $version:ident $versions:tt [$tag:literal]) => {
        {
            let number = $version.number;
            message!(@has number $versions).then_some($tag as u32)
        }
    };
    (@read $reader:ident $version:ident [$ty:ty] []) => {
        <$ty as $crate::wire::message::Field<'_>>::read($reader, $version)?
    };
    (@read $reader:ident $version:ident [$ty:ty] [$nullable:expr]) => {{
        let null = $reader.error($crate::wire::DecodeErrorKind::BadNull);
        let value = <$ty as $crate::wire::message::Field<'_>>::read($reader, $version)?;
        if $crate::wire::message::IsNull::is_null(&value)
            && !($nullable).contains(&$version.number)
        {
            return Err(null);
        }
        value
    }};
}
pub(super) use message;

/// Reads a whole message.
pub(super) fn decode<'a, M: Message<'a>>(
    reader: &mut Reader<'a>,
    version: i16,
) -> Result<M, DecodeError> {
    match M::version(version) {
        Some(version) => M::read(reader, version),
        None => Err(reader.error(DecodeErrorKind::UnsupportedVersion)),
    }
}

/// Whether a field is something else than its default.
pub(super) fn differs<T: PartialEq>(value: &T, default: T) -> bool {
    *value != default
}

/// Writes one tagged field: tag, length, value.
pub(super) fn write_tagged<'a, S: Sink>(
    value: &impl Field<'a>,
    tag: u32,
    sink: &mut S,
    version: Version,
) {
    sink.put_uvarint(tag);
    let mut measure = super::writer::Measure::default();
    value.write(&mut measure, version);
    sink.put_uvarint(u32::try_from(measure.total).expect("no frame has 4 GiB of anything"));
    value.write(sink, version);
}

/// Reads a struct that may be null: a byte says so, -1 for null and 1 for the struct.
pub(super) fn read_nullable_struct<'a, T: Field<'a>>(
    reader: &mut Reader<'a>,
    version: Version,
) -> Result<Option<T>, DecodeError> {
    let start = reader.error(DecodeErrorKind::BadLength);
    match reader.i8()? {
        -1 => Ok(None),
        1 => T::read(reader, version).map(Some),
        _ => Err(start),
    }
}

/// Writes a struct that may be null.
pub(super) fn write_nullable_struct<'a, S: Sink>(
    value: Option<&impl Field<'a>>,
    sink: &mut S,
    version: Version,
) {
    match value {
        None => sink.put(&[0xff]),
        Some(value) => {
            sink.put(&[1]);
            value.write(sink, version);
        }
    }
}
