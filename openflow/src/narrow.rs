//! Numbers of as many bits as a field has, so that a value that doesn't fit can't be built.

use std::fmt;

use bytes::{BufMut, BytesMut};

use crate::wire::{Fixed, Parsed, Wire, refuse, take};

macro_rules! narrow {
    ($($name:ident($int:ty), $bits:literal bits in $octets:literal;)+) => { $(
        #[doc = concat!("A number of ", stringify!($bits), " bits.")]
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize))]
        pub struct $name($int);

        impl $name {
            /// The highest number.
            pub const MAX: Self = Self((1 << $bits) - 1);

            /// `value`, if it fits.
            pub const fn new(value: $int) -> Option<Self> {
                if value > Self::MAX.0 { None } else { Some(Self(value)) }
            }

            /// The low bits of `value`.
            pub const fn low(value: $int) -> Self {
                Self(value & Self::MAX.0)
            }

            /// The number.
            pub const fn get(self) -> $int {
                self.0
            }
        }

        impl Fixed for $name {
            const LEN: usize = $octets;
        }
        impl Wire for $name {
            #[inline]
            fn parse(input: &[u8]) -> Parsed<'_, Self> {
                let (rest, octets) = take(input, $octets)?;
                let value = octets.iter().fold(0u32, |value, &octet| value << 8 | u32::from(octet));
                match Self::new(value as $int) {
                    Some(value) => Ok((rest, value)),
                    None => refuse(input, concat!("has more than the ", stringify!($bits), " bits of its field")),
                }
            }
            fn put(&self, out: &mut BytesMut) {
                out.put_slice(&u32::from(self.0).to_be_bytes()[4 - $octets..]);
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
        impl fmt::LowerHex for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::LowerHex::fmt(&self.0, f)
            }
        }
    )+ };
}

narrow! {
    U1(u8), 1 bits in 1;
    U2(u8), 2 bits in 1;
    U3(u8), 3 bits in 1;
    U6(u8), 6 bits in 1;
    U9(u16), 9 bits in 2;
    U12(u16), 12 bits in 2;
    U13(u16), 13 bits in 2;
    U20(u32), 20 bits in 4;
    U24(u32), 24 bits in 3;
}

/// A number of 128 bits; in JSON a text of hex digits. (Kept as octets: a `u128` would align, and so enlarge, all fields.)
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct U128([u8; 16]);

impl U128 {
    /// This number.
    pub const fn new(value: u128) -> Self {
        Self(value.to_be_bytes())
    }

    /// The number.
    pub const fn get(self) -> u128 {
        u128::from_be_bytes(self.0)
    }

    /// Its octets, the highest first.
    pub(crate) const fn octets(self) -> [u8; 16] {
        self.0
    }
}

impl Fixed for U128 {
    const LEN: usize = 16;
}
impl Wire for U128 {
    fn parse(input: &[u8]) -> Parsed<'_, Self> {
        let (rest, octets) = <[u8; 16]>::parse(input)?;
        Ok((rest, Self(octets)))
    }
    fn put(&self, out: &mut BytesMut) {
        self.0.put(out);
    }
}
impl fmt::Debug for U128 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.get())
    }
}
impl fmt::LowerHex for U128 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::LowerHex::fmt(&self.get(), f)
    }
}
#[cfg(feature = "serde")]
impl serde::Serialize for U128 {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{self:#x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_more_bits_than_its_field_is_neither_built_nor_read() {
        assert_eq!(U3::new(8), None);
        assert_eq!(U3::low(9).get(), 1);
        assert!(U13::parse(&[0x20, 0]).is_err());
        assert_eq!(U13::parse(&[0x1f, 0xff]).unwrap().1, U13::MAX);
        assert_eq!(U24::parse(&[1, 2, 3]).unwrap().1.get(), 0x01_0203);
        let mut out = BytesMut::new();
        U24::MAX.put(&mut out);
        assert_eq!(&out[..], [0xff; 3]);
    }
}
