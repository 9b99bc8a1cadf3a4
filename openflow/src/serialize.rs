//! How values that JSON has no form for are written: octets in hex, flags as a list of names.

use serde::ser::SerializeSeq;
use serde::{Serialize, Serializer};

use crate::oxm::FieldId;
use crate::types::{Cookie, DatapathId, MacAddr};
use crate::wire::{Octets, Payload, Text};

/// Texts and octets as they are displayed.
macro_rules! displayed {
    ($($ty:ty),+) => { $(
        impl Serialize for $ty {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )+ };
}
displayed! { Octets, Payload, MacAddr, FieldId, DatapathId, Cookie }

impl<const N: usize> Serialize for Text<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The names of the flags that are set, in lower case; bits without a name follow as one hex number.
pub(crate) fn flags<'a, S: Serializer>(
    names: impl Iterator<Item = &'a str>,
    nameless: u64,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut list = serializer.serialize_seq(None)?;
    for name in names {
        list.serialize_element(&name.to_lowercase())?;
    }
    if nameless != 0 {
        list.serialize_element(&format!("{nameless:#x}"))?;
    }
    list.end()
}
