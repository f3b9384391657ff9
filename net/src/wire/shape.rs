//! What messages look like on the wire, as data: the same declarations from which the codec comes,
//! but nothing of the codec. Tests generate frames from it that no line of the codec has touched.

/// The form of one field.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// One byte, 0 or 1.
    Bool,
    /// A big-endian integer.
    Int {
        /// Its size.
        bytes: usize,
    },
    /// An integer of 2 bytes that is one of [`super::ErrorCode`].
    ErrorCode,
    /// 16 bytes.
    Uuid,
    /// A string.
    String,
    /// Bytes that mean nothing to the codec.
    Bytes,
    /// Record batches.
    Records,
    /// One of these, or null.
    Nullable {
        /// Of these.
        of: &'static Shape,
    },
    /// Any number of these.
    Array {
        /// Of these.
        of: &'static Shape,
    },
    /// Fields in order, then (in flexible versions) those with tags.
    Struct {
        /// Its name in this codec.
        name: &'static str,
        /// Its fields, in order.
        fields: &'static [ShapeField],
    },
}

/// A field of a struct.
#[derive(Clone, Copy, Debug)]
pub struct ShapeField {
    /// Its name in this codec.
    pub name: &'static str,
    /// Its form.
    pub shape: &'static Shape,
    /// Whether a version has it.
    pub exists: fn(i16) -> bool,
    /// Whether a version allows null, if its form does.
    pub nullable: fn(i16) -> bool,
    /// Its tag, if it is a tagged field.
    pub tag: Option<u32>,
}
