//! What every wire form has in common: a parser, an encoder, and how they fail.

use std::borrow::Cow;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Deref;

use bytes::{BufMut, Bytes, BytesMut};
use nom::{IResult, Parser, combinator::map};

use crate::types::{BufferId, Cookie, DatapathId, GroupId, MacAddr, MeterId, PortNo, QueueId, TableId, Xid};

/// Outcome of a parser: what is left, and the value.
pub type Parsed<'a, T> = IResult<&'a [u8], T, Fault<'a>>;

/// Where and why a parser stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault<'a> {
    /// The input from the first offending byte on.
    pub at: &'a [u8],
    /// What is wrong there.
    pub reason: &'static str,
    path: Option<Box<Path>>,
}

/// Names of what holds a byte, from the innermost on. It is boxed so that what succeeds is returned fast.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Path(Vec<&'static str>);

impl Fault<'_> {
    /// What holds the offending byte, from the message's own field on, like `instructions.apply_actions.set_field`; empty
    /// if no field does.
    pub fn field(&self) -> String {
        self.path.iter().flat_map(|path| path.0.iter().rev()).copied().collect::<Vec<_>>().join(".")
    }
}

/// The fault is within something of this name.
#[cold]
pub(crate) fn within<'a>(fault: nom::Err<Fault<'a>>, name: &'static str) -> nom::Err<Fault<'a>> {
    fault.map(|mut fault| {
        fault.path.get_or_insert_default().0.push(name);
        fault
    })
}

impl<'a> nom::error::ParseError<&'a [u8]> for Fault<'a> {
    fn from_error_kind(at: &'a [u8], _: nom::error::ErrorKind) -> Self {
        Self { at, reason: "ends too early", path: None }
    }
    fn append(_: &'a [u8], _: nom::error::ErrorKind, other: Self) -> Self {
        other
    }
}

/// Refuses the input from `at` on.
pub(crate) fn refuse<'a, T>(at: &'a [u8], reason: &'static str) -> Parsed<'a, T> {
    Err(nom::Err::Failure(Fault { at, reason, path: None }))
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

// What is read most: nom's own numbers go through its traits octet by octet, which took a third of a decoding's time.
macro_rules! wire_int {
    ($($int:ty, $len:literal, $put:ident;)*) => { $(
        impl Fixed for $int { const LEN: usize = $len; }
        impl Wire for $int {
            #[inline]
            fn parse(input: &[u8]) -> Parsed<'_, Self> {
                match input.split_first_chunk() {
                    Some((octets, rest)) => Ok((rest, Self::from_be_bytes(*octets))),
                    None => ends_early(input),
                }
            }
            #[inline]
            fn put(&self, out: &mut BytesMut) { out.$put(*self) }
        }
    )* };
}
wire_int! { u8, 1, put_u8; u16, 2, put_u16; u32, 4, put_u32; u64, 8, put_u64; }

#[cold]
fn ends_early<T>(at: &[u8]) -> Parsed<'_, T> {
    refuse(at, "ends too early")
}

/// Takes so many octets.
#[inline]
pub(crate) fn take(input: &[u8], octets: usize) -> Parsed<'_, &[u8]> {
    match input.split_at_checked(octets) {
        Some((taken, rest)) => Ok((rest, taken)),
        None => ends_early(input),
    }
}

macro_rules! wire_id {
    ($($id:ident($inner:ty);)*) => { $(
        impl Fixed for $id { const LEN: usize = <$inner as Fixed>::LEN; }
        impl Wire for $id {
            #[inline]
            fn parse(input: &[u8]) -> Parsed<'_, Self> { map(<$inner as Wire>::parse, $id).parse(input) }
            #[inline]
            fn put(&self, out: &mut BytesMut) { self.0.put(out) }
        }
    )* };
}
wire_id! {
    DatapathId(u64); PortNo(u32); GroupId(u32); MeterId(u32); QueueId(u32); BufferId(u32); TableId(u8); Xid(u32); Cookie(u64);
    MacAddr([u8; 6]);
}

impl<const N: usize> Fixed for [u8; N] {
    const LEN: usize = N;
}
impl<const N: usize> Wire for [u8; N] {
    #[inline]
    fn parse(input: &[u8]) -> Parsed<'_, Self> {
        match input.split_first_chunk() {
            Some((octets, rest)) => Ok((rest, *octets)),
            None => ends_early(input),
        }
    }
    fn put(&self, out: &mut BytesMut) {
        out.put_slice(self);
    }
}

/// One number for each type of group.
impl Fixed for [u32; 4] {
    const LEN: usize = 16;
}
impl Wire for [u32; 4] {
    fn parse(input: &[u8]) -> Parsed<'_, Self> {
        let (i, a) = u32::parse(input)?;
        let (i, b) = u32::parse(i)?;
        let (i, c) = u32::parse(i)?;
        map(u32::parse, |d| [a, b, c, d]).parse(i)
    }
    fn put(&self, out: &mut BytesMut) {
        for number in self {
            out.put_u32(*number);
        }
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

/// A text in a field of `N` octets, ended by a zero octet if shorter. The octets are kept as they came.
#[derive(Clone, PartialEq, Eq)]
pub struct Text<const N: usize>([u8; N]);

impl<const N: usize> Text<N> {
    /// `text`, cut at a character boundary so that one octet stays zero: C programs at the other end look for it.
    pub fn new(text: &str) -> Self {
        let mut end = text.len().min(N - 1);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let mut octets = [0; N];
        octets[..end].copy_from_slice(&text.as_bytes()[..end]);
        Self(octets)
    }

    /// The octets as they came.
    pub const fn octets(&self) -> &[u8; N] {
        &self.0
    }

    /// The text up to its zero octet. What isn't UTF-8 is replaced by U+FFFD.
    pub fn text(&self) -> Cow<'_, str> {
        let end = self.0.iter().position(|&octet| octet == 0).unwrap_or(N);
        String::from_utf8_lossy(&self.0[..end])
    }
}

impl<const N: usize> Fixed for Text<N> {
    const LEN: usize = N;
}
impl<const N: usize> Wire for Text<N> {
    fn parse(input: &[u8]) -> Parsed<'_, Self> {
        map(<[u8; N]>::parse, Self).parse(input)
    }
    fn put(&self, out: &mut BytesMut) {
        out.put_slice(&self.0);
    }
}
impl<const N: usize> fmt::Debug for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text(), f)
    }
}
impl<const N: usize> fmt::Display for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

/// Octets that are kept as they are, to the end of what holds them. Written in hex.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Octets(pub Vec<u8>);

impl Octets {
    /// Are there none?
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Wire for Octets {
    fn parse(input: &[u8]) -> Parsed<'_, Self> {
        Ok((&[], Self(input.to_vec())))
    }
    fn put(&self, out: &mut BytesMut) {
        out.put_slice(&self.0);
    }
}
impl fmt::Display for Octets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}
impl fmt::Debug for Octets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A list takes all that is left.
impl<T: Wire> Wire for Vec<T> {
    fn parse(input: &[u8]) -> Parsed<'_, Self> {
        all(input, T::parse)
    }
    fn put(&self, out: &mut BytesMut) {
        for item in self {
            item.put(out);
        }
    }
}

impl<T: Wire> Wire for Box<T> {
    fn parse(input: &[u8]) -> Parsed<'_, Self> {
        map(T::parse, Self::new).parse(input)
    }
    fn put(&self, out: &mut BytesMut) {
        (**self).put(out);
    }
}

/// Nothing: the body of messages that have none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Nothing;

impl Wire for Nothing {
    fn parse(input: &[u8]) -> Parsed<'_, Self> {
        Ok((input, Self))
    }
    fn put(&self, _: &mut BytesMut) {}
}

/// The body of a message. It may keep slices of the message that it came in, instead of copying them.
pub(crate) trait Body: Sized {
    /// Reads all of `input`, which is a part of `whole`.
    fn parse_body<'a>(input: &'a [u8], whole: &Bytes) -> Parsed<'a, Self>;
    fn put_body(&self, out: &mut BytesMut);
}

impl<T: Wire> Body for T {
    fn parse_body<'a>(input: &'a [u8], _: &Bytes) -> Parsed<'a, Self> {
        <T as Wire>::parse(input)
    }
    fn put_body(&self, out: &mut BytesMut) {
        Wire::put(self, out);
    }
}

/// Octets that aren't looked into: a slice of the message they came in. Written in hex.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Payload(pub Bytes);

impl Body for Payload {
    fn parse_body<'a>(input: &'a [u8], whole: &Bytes) -> Parsed<'a, Self> {
        Ok((&[], Self(whole.slice_ref(input))))
    }
    fn put_body(&self, out: &mut BytesMut) {
        out.put_slice(&self.0);
    }
}
impl Deref for Payload {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}
impl<T: Into<Bytes>> From<T> for Payload {
    fn from(octets: T) -> Self {
        Self(octets.into())
    }
}
impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::LowerHex::fmt(&self.0, f)
    }
}
impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Reads values until nothing is left.
#[inline]
pub(crate) fn all<T>(mut input: &[u8], mut one: impl FnMut(&[u8]) -> Parsed<'_, T>) -> Parsed<'_, Vec<T>> {
    // Room for a usual list at once; what a longer one needs is found out as it comes.
    let mut values = Vec::with_capacity(input.len().div_ceil(8).min(8));
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
#[inline]
pub(crate) fn element(input: &[u8], min: usize) -> Parsed<'_, (u16, &[u8])> {
    let (rest, kind) = u16::parse(input)?;
    let (_, length) = u16::parse(rest)?;
    let length = usize::from(length);
    if length < min.max(4) {
        return refuse(rest, "has a length below its minimum");
    }
    if length > input.len() {
        return refuse(rest, "has a length beyond its container");
    }
    let (rest, whole) = take(input, length)?;
    Ok((rest, (kind, &whole[4..])))
}

/// Reads a struct that says its own length in the 16-bit field at octet `at`: `own` gets just its octets and has to use
/// them up.
pub(crate) fn sized<'a, T>(
    input: &'a [u8],
    at: usize,
    min: usize,
    own: impl FnOnce(&'a [u8]) -> Parsed<'a, T>,
) -> Parsed<'a, T> {
    let (field, ()) = pad(input, at)?;
    let (_, length) = u16::parse(field)?;
    let length = usize::from(length);
    if length < min {
        return refuse(field, "is a length below the minimum of its structure");
    }
    if length > input.len() {
        return refuse(field, "is a length beyond its container");
    }
    let (rest, octets) = take(input, length)?;
    let (left, value) = own(octets)?;
    if left.is_empty() { Ok((rest, value)) } else { refuse(left, "is more than its structure may have") }
}

/// What follows an element outside its length.
#[derive(Clone, Copy)]
pub(crate) enum Padding {
    /// Nothing.
    None,
    /// Zeros up to a multiple of 8 octets.
    Eight,
    /// The same, which the last element may lack.
    EightIfAny,
}

impl Padding {
    /// Skips what follows an element of `length` octets.
    pub(crate) fn skip(self, rest: &[u8], length: usize) -> Result<&[u8], nom::Err<Fault<'_>>> {
        let missing = length.next_multiple_of(8) - length;
        match self {
            Self::None => Ok(rest),
            Self::Eight => pad(rest, missing).map(|(rest, ())| rest),
            Self::EightIfAny => Ok(rest.get(missing..).unwrap_or_default()),
        }
    }

    /// Writes what follows the element that begins at `start`.
    pub(crate) fn put(self, out: &mut BytesMut, start: usize) {
        if !matches!(self, Self::None) {
            pad_to_8(out, start);
        }
    }
}

/// Reads a value that faults call by this name.
#[inline]
pub(crate) fn read<'a, T: Wire>(input: &'a [u8], name: &'static str) -> Parsed<'a, T> {
    T::parse(input).map_err(|fault| within(fault, name))
}

/// Skips `n` octets of padding.
#[inline]
pub(crate) fn pad(input: &[u8], n: usize) -> Parsed<'_, ()> {
    take(input, n).map(|(rest, _)| (rest, ()))
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

    /// The structure that begins here has its length, which is yet to be written as zero, at octet `at`.
    pub(crate) fn over(out: &BytesMut, at: usize) -> Self {
        Self { start: out.len(), at: out.len() + at }
    }

    /// Fills in the length. That of a region beyond 65,535 octets is wrong, and its message refused as a whole.
    pub(crate) fn finish(self, out: &mut BytesMut) {
        let length = out.len() - self.start;
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
