//! Domain values and the plain ones that stand for them in a layout.
//!
//! A layout names each field and its plain type in full ([`layout!`](super::plain)), so that a
//! change of a domain type either keeps the layout as it is or does not compile.

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::ids::{
    BrokerEpoch, BrokerId, LeaderEpoch, Offset, PartitionIndex, ProducerId, TopicId, TopicPartition,
};

use crate::cluster::features::FeatureRange;
use crate::cluster::{
    ClusterId, DirectoryId, Endpoint, Incarnation, Partition, PartitionEpoch, Topic,
};
use crate::records::{PartitionV2, TopicV2};

/// A value with a plain counterpart.
pub(super) trait Plain: Sized {
    /// Numbers, strings, lists, and structs of them.
    type Plain;

    /// The value, plainly.
    fn plain(&self) -> Self::Plain;

    /// The value that stands behind a plain one; fails where there is none.
    fn of(plain: Self::Plain) -> Result<Self, String>;
}

/// Values that are plain themselves.
macro_rules! same {
    ($($type:ty),*) => {$(
        impl Plain for $type {
            type Plain = $type;

            fn plain(&self) -> $type {
                self.clone()
            }

            fn of(plain: $type) -> Result<$type, String> {
                Ok(plain)
            }
        }
    )*};
}

/// Values with one plain value in them: how it is got, and how it is put back.
macro_rules! wraps {
    ($($type:ty = $plain:ty: |$this:ident| $get:expr, |$inner:ident| $put:expr;)*) => {$(
        impl Plain for $type {
            type Plain = $plain;

            fn plain(&self) -> $plain {
                let $this = self;
                $get
            }

            fn of($inner: $plain) -> Result<$type, String> {
                Ok($put)
            }
        }
    )*};
}

same!((), bool, i16, i32, i64, String);

wraps! {
    BrokerId = i32: |id| id.0, |id| BrokerId(id);
    BrokerEpoch = i64: |epoch| epoch.0, |epoch| BrokerEpoch(epoch);
    LeaderEpoch = i32: |epoch| epoch.0, |epoch| LeaderEpoch(epoch);
    PartitionEpoch = i32: |epoch| epoch.0, |epoch| PartitionEpoch(epoch);
    PartitionIndex = i32: |index| index.0, |index| PartitionIndex(index);
    ProducerId = i64: |id| id.0, |id| ProducerId(id);
    TopicId = [u8; 16]: |id| *id.bytes(), |id| TopicId::from_bytes(id);
    Incarnation = [u8; 16]: |id| id.bytes(), |id| Incarnation(u128::from_be_bytes(id));
    DirectoryId = [u8; 16]: |id| id.bytes(), |id| DirectoryId(u128::from_be_bytes(id));
    ClusterId = String: |id| id.to_string(), |id| ClusterId::new(&id);
    Partition = PartitionV2: |partition| partition.into(), |partition| partition.into();
    Arc<Topic> = TopicV2: |topic| (&**topic).into(), |topic| Arc::new(topic.into());
    FeatureRange = (i16, i16):
        |range| (range.min, range.max), |range| FeatureRange { min: range.0, max: range.1 };
    TopicPartition = ([u8; 16], i32):
        |at| (at.topic.plain(), at.partition.0),
        |at| TopicPartition { topic: Plain::of(at.0)?, partition: PartitionIndex(at.1) };
    Endpoint = (String, String, u16):
        |at| (at.listener.clone(), at.host.clone(), at.port),
        |at| Endpoint { listener: at.0, host: at.1, port: at.2 };
}

impl Plain for Offset {
    type Plain = i64;

    fn plain(&self) -> i64 {
        self.to_wire()
    }

    fn of(plain: i64) -> Result<Offset, String> {
        Offset::from_wire(plain).ok_or_else(|| format!("{plain} is no offset"))
    }
}

impl<T: Plain> Plain for Option<T> {
    type Plain = Option<T::Plain>;

    fn plain(&self) -> Self::Plain {
        self.as_ref().map(T::plain)
    }

    fn of(plain: Self::Plain) -> Result<Self, String> {
        plain.map(T::of).transpose()
    }
}

impl<T: Plain, E: Plain> Plain for Result<T, E> {
    type Plain = Result<T::Plain, E::Plain>;

    fn plain(&self) -> Self::Plain {
        self.as_ref().map(T::plain).map_err(E::plain)
    }

    fn of(plain: Self::Plain) -> Result<Self, String> {
        Ok(match plain {
            Ok(value) => Ok(T::of(value)?),
            Err(error) => Err(E::of(error)?),
        })
    }
}

impl<T: Plain> Plain for Vec<T> {
    type Plain = Vec<T::Plain>;

    fn plain(&self) -> Self::Plain {
        self.iter().map(T::plain).collect()
    }

    fn of(plain: Self::Plain) -> Result<Self, String> {
        plain.into_iter().map(T::of).collect()
    }
}

impl<K: Plain + Ord, V: Plain> Plain for BTreeMap<K, V> {
    type Plain = Vec<(K::Plain, V::Plain)>;

    fn plain(&self) -> Self::Plain {
        self.iter().map(|(key, value)| (key.plain(), value.plain())).collect()
    }

    fn of(plain: Self::Plain) -> Result<Self, String> {
        plain.into_iter().map(<(K, V)>::of).collect()
    }
}

impl<A: Plain, B: Plain> Plain for (A, B) {
    type Plain = (A::Plain, B::Plain);

    fn plain(&self) -> Self::Plain {
        (self.0.plain(), self.1.plain())
    }

    fn of(plain: Self::Plain) -> Result<Self, String> {
        Ok((A::of(plain.0)?, B::of(plain.1)?))
    }
}

impl<A: Plain, B: Plain, C: Plain> Plain for (A, B, C) {
    type Plain = (A::Plain, B::Plain, C::Plain);

    fn plain(&self) -> Self::Plain {
        (self.0.plain(), self.1.plain(), self.2.plain())
    }

    fn of(plain: Self::Plain) -> Result<Self, String> {
        Ok((A::of(plain.0)?, B::of(plain.1)?, C::of(plain.2)?))
    }
}

/// Declares the layouts of structs and enums: every field with its plain type. The values of a
/// tuple variant have names only here.
macro_rules! layout {
    () => {};
    (struct $layout:ident of $domain:ident {
        $($field:ident: $type:ty,)*
    } $($rest:tt)*) => {
        #[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
        pub(in crate::controller::wire) struct $layout {
            $($field: $type,)*
        }

        impl Plain for $domain {
            type Plain = $layout;

            fn plain(&self) -> $layout {
                $layout { $($field: self.$field.plain(),)* }
            }

            fn of(plain: $layout) -> Result<$domain, String> {
                Ok($domain { $($field: Plain::of(plain.$field)?,)* })
            }
        }

        layout! { $($rest)* }
    };
    (enum $layout:ident of $domain:ident {$(
        $variant:ident $(($value:ident: $of:ty))? $({ $($field:ident: $type:ty,)* })?,
    )*} $($rest:tt)*) => {
        #[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
        pub(in crate::controller::wire) enum $layout {
            $($variant $(($of))? $({ $($field: $type,)* })?,)*
        }

        impl Plain for $domain {
            type Plain = $layout;

            fn plain(&self) -> $layout {
                match self {$(
                    $domain::$variant $(($value))? $({ $($field,)* })? => {
                        $layout::$variant $(($value.plain()))? $({ $($field: $field.plain(),)* })?
                    }
                )*}
            }

            fn of(plain: $layout) -> Result<$domain, String> {
                Ok(match plain {$(
                    $layout::$variant $(($value))? $({ $($field,)* })? => {
                        $domain::$variant
                            $((Plain::of($value)?))? $({ $($field: Plain::of($field)?,)* })?
                    }
                )*})
            }
        }

        layout! { $($rest)* }
    };
}

pub(super) use layout;
