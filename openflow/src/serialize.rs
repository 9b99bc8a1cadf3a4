//! How values that JSON has no form for are written: octets in hex, flags as a list of names.

use serde::ser::{SerializeMap, SerializeSeq};
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
displayed! { Octets, Payload, MacAddr, DatapathId, Cookie }

/// Its name; where the length in its header isn't the field's, that stands beside it.
impl Serialize for FieldId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.parts() {
            (name, None) => serializer.serialize_str(&name),
            (name, Some(length)) => {
                let mut map = serializer.serialize_map(Some(2))?;
                map.serialize_entry("field", &name)?;
                map.serialize_entry("length", &length)?;
                map.end()
            }
        }
    }
}

/// The text up to the zeros that fill it up. What isn't UTF-8, and zeros before other octets, are written like `\xff`, and a
/// backslash as two.
impl<const N: usize> Serialize for Text<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let octets = self.octets();
        let end = octets.iter().rposition(|&octet| octet != 0).map_or(0, |last| last + 1);
        let mut text = String::new();
        for chunk in octets[..end].utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    '\\' => text.push_str("\\\\"),
                    '\0' => text.push_str("\\x00"),
                    other => text.push(other),
                }
            }
            chunk.invalid().iter().for_each(|octet| text.push_str(&format!("\\x{octet:02x}")));
        }
        serializer.serialize_str(&text)
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
