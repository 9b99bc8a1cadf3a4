//! What every wire form has in common: a parser, an encoder, and how they fail.

use std::net::{Ipv4Addr, Ipv6Addr};

use bytes::{BufMut, BytesMut};
use nom::number::complete::{be_u8, be_u16, be_u32, be_u64};
use nom::{IResult, Parser, bytes::complete::take, combinator::map};

use crate::types::{Cookie, DatapathId, GroupId, MacAddr, MeterId, PortNo, TableId, Xid};

/// Outcome of a parser: what is left, and the value.
pub type Parsed<'a, T> = IResult<&'a [u8], T, Fault<'a>>;

/// Where and why a parser stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault<'a> {
    /// The input from the first offending byte on.
    pub at: &'a [u8],
    /// What is wrong there.
    pub reason: &'static str,
}

impl<'a> nom::error::ParseError<&'a [u8]> for Fault<'a> {
    fn from_error_kind(at: &'a [u8], _: nom::error::ErrorKind) -> Self {
        Self { at, reason: "ends too early" }
    }
    fn append(_: &'a [u8], _: nom::error::ErrorKind, other: Self) -> Self {
        other
    }
}

/// Refuses the input from `at` on.
pub(crate) fn refuse<'a, T>(at: &'a [u8], reason: &'static str) -> Parsed<'a, T> {
    Err(nom::Err::Failure(Fault { at, reason }))
}

/// A value that has a wire form. The parser of a variable-length value consumes all it is given.
pub trait Wire: Sized {
    /// Reads the value from the front of `input`.
    fn parse(input: &[u8]) -> Parsed<'_, Self>;
    /// Appends the value to `out`.
    fn put(&self, out: &mut BytesMut);
}

/// A wire form whose size in octets is known beforehand.
pub trait Fixed: Wire {
    /// The size in octets.
    const LEN: usize;
}

macro_rules! wire_int {
    ($($int:ty, $len:literal, $parse:path, $put:ident;)*) => { $(
        impl Fixed for $int { const LEN: usize = $len; }
        impl Wire for $int {
            fn parse(input: &[u8]) -> Parsed<'_, Self> { $parse(input) }
            fn put(&self, out: &mut BytesMut) { out.$put(*self) }
        }
    )* };
}
wire_int! { u8, 1, be_u8, put_u8; u16, 2, be_u16, put_u16; u32, 4, be_u32, put_u32; u64, 8, be_u64, put_u64; }

macro_rules! wire_id {
    ($($id:ident($inner:ty);)*) => { $(
        impl Fixed for $id { const LEN: usize = <$inner as Fixed>::LEN; }
        impl Wire for $id {
            fn parse(input: &[u8]) -> Parsed<'_, Self> { map(<$inner as Wire>::parse, $id).parse(input) }
            fn put(&self, out: &mut BytesMut) { self.0.put(out) }
        }
    )* };
}
wire_id! { DatapathId(u64); PortNo(u32); GroupId(u32); MeterId(u32); TableId(u8); Xid(u32); Cookie(u64); MacAddr([u8; 6]); }

impl<const N: usize> Fixed for [u8; N] {
    const LEN: usize = N;
}
impl<const N: usize> Wire for [u8; N] {
    fn parse(input: &[u8]) -> Parsed<'_, Self> {
        let (rest, octets) = take(N)(input)?;
        let mut array = [0; N];
        array.copy_from_slice(octets);
        Ok((rest, array))
    }
    fn put(&self, out: &mut BytesMut) {
        out.put_slice(self);
    }
}

impl Fixed for Ipv4Addr {
    const LEN: usize = 4;
}
impl Wire for Ipv4Addr {
    fn parse(input: &[u8]) -> Parsed<'_, Self> {
        map(<[u8; 4]>::parse, Self::from).parse(input)
    }
    fn put(&self, out: &mut BytesMut) {
        out.put_slice(&self.octets());
    }
}

impl Fixed for Ipv6Addr {
    const LEN: usize = 16;
}
impl Wire for Ipv6Addr {
    fn parse(input: &[u8]) -> Parsed<'_, Self> {
        map(<[u8; 16]>::parse, Self::from).parse(input)
    }
    fn put(&self, out: &mut BytesMut) {
        out.put_slice(&self.octets());
    }
}

/// A text in a field of `N` octets, ended by a zero octet if shorter. Anything that isn't UTF-8 is replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text<const N: usize>(pub String);

impl<const N: usize> Fixed for Text<N> {
    const LEN: usize = N;
}
impl<const N: usize> Wire for Text<N> {
    fn parse(input: &[u8]) -> Parsed<'_, Self> {
        let (rest, field) = take(N)(input)?;
        let end = field.iter().position(|&octet| octet == 0).unwrap_or(N);
        Ok((rest, Self(String::from_utf8_lossy(&field[..end]).into_owned())))
    }
    fn put(&self, out: &mut BytesMut) {
        // One octet stays zero: C programs at the other end look for it.
        let mut end = self.0.len().min(N - 1);
        while !self.0.is_char_boundary(end) {
            end -= 1;
        }
        out.put_slice(&self.0.as_bytes()[..end]);
        out.put_bytes(0, N - end);
    }
}

/// Reads values until nothing is left.
pub(crate) fn all<T>(mut input: &[u8], mut one: impl FnMut(&[u8]) -> Parsed<'_, T>) -> Parsed<'_, Vec<T>> {
    let mut values = Vec::new();
    while !input.is_empty() {
        let (rest, value) = one(input)?;
        if rest.len() >= input.len() {
            return refuse(input, "has no length");
        }
        values.push(value);
        input = rest;
    }
    Ok((input, values))
}

/// Splits off an element that begins with a 16-bit type and a 16-bit length of the whole, at least `min` octets.
/// Gives the type and what follows the four octets.
pub(crate) fn element(input: &[u8], min: usize) -> Parsed<'_, (u16, &[u8])> {
    let (rest, kind) = be_u16(input)?;
    let (_, length) = be_u16(rest)?;
    let length = usize::from(length);
    if length < min.max(4) {
        return refuse(rest, "has a length below its minimum");
    }
    if length > input.len() {
        return refuse(rest, "has a length beyond its container");
    }
    let (rest, whole) = take(length)(input)?;
    Ok((rest, (kind, &whole[4..])))
}

/// Skips `n` octets of padding.
pub(crate) fn pad(input: &[u8], n: usize) -> Parsed<'_, ()> {
    map(take(n), |_| ()).parse(input)
}

/// Writes a 16-bit length, counted from `start`, and fills it in once the region is complete.
pub(crate) struct LengthGuard {
    start: usize,
    at: usize,
}

impl LengthGuard {
    /// Reserves the length field here; it counts from `start`.
    pub(crate) fn new(out: &mut BytesMut, start: usize) -> Self {
        let at = out.len();
        out.put_u16(0);
        Self { start, at }
    }

    /// Fills in the length. Regions beyond 65,535 octets don't fit into a message; callers keep below.
    pub(crate) fn finish(self, out: &mut BytesMut) {
        let length = out.len() - self.start;
        debug_assert!(length <= usize::from(u16::MAX), "a region of {length} octets doesn't fit its length field");
        out[self.at..self.at + 2].copy_from_slice(&(length as u16).to_be_bytes());
    }

    /// Pads the region with zeros to a multiple of 8 octets, then fills in the length with the padding.
    pub(crate) fn finish_padded(self, out: &mut BytesMut) {
        pad_to_8(out, self.start);
        self.finish(out);
    }
}

/// Pads what was written since `start` with zeros to a multiple of 8 octets.
pub(crate) fn pad_to_8(out: &mut BytesMut, start: usize) {
    let odd = (out.len() - start) % 8;
    if odd != 0 {
        out.put_bytes(0, 8 - odd);
    }
}
