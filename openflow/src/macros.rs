//! The tables' grammar: each message, field, action and enumeration is declared once, as a row, and type, parser,
//! encoder and name come from it.

/// An open enumeration: every wire value can be held, so that decoding and encoding are inverse.
macro_rules! wire_enum {
    ($(#[$meta:meta])* pub enum $name:ident: $int:ty { $($(#[$vmeta:meta])* $variant:ident = $value:expr),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$vmeta])* $variant,)+
            /// A value that has no name here.
            Unknown($int),
        }
        impl $name {
            /// Every named value with its number.
            pub const KNOWN: &'static [(Self, $int)] = &[$((Self::$variant, $value)),+];
        }
        impl From<$int> for $name {
            fn from(value: $int) -> Self {
                match value { $($value => Self::$variant,)+ other => Self::Unknown(other) }
            }
        }
        impl From<$name> for $int {
            fn from(value: $name) -> $int {
                match value { $($name::$variant => $value,)+ $name::Unknown(other) => other }
            }
        }
        impl $crate::wire::Fixed for $name { const LEN: usize = <$int as $crate::wire::Fixed>::LEN; }
        impl $crate::wire::Wire for $name {
            fn parse(input: &[u8]) -> $crate::wire::Parsed<'_, Self> {
                nom::Parser::parse(&mut nom::combinator::map(<$int as $crate::wire::Wire>::parse, Self::from), input)
            }
            fn put(&self, out: &mut bytes::BytesMut) { $crate::wire::Wire::put(&<$int>::from(*self), out) }
        }
    };
}

/// A struct of fixed layout; `_ [n]` is padding: skipped when read, zero when written.
macro_rules! wire_struct {
    (@len) => { 0 };
    (@len _ [$n:expr], $($rest:tt)*) => { $n + wire_struct!(@len $($rest)*) };
    (@len $(#[$m:meta])* $field:ident : $ty:ty, $($rest:tt)*) => { <$ty as $crate::wire::Fixed>::LEN + wire_struct!(@len $($rest)*) };
    (@put $self:ident $out:ident) => {};
    (@put $self:ident $out:ident _ [$n:expr], $($rest:tt)*) => {
        bytes::BufMut::put_bytes($out, 0, $n); wire_struct!(@put $self $out $($rest)*);
    };
    (@put $self:ident $out:ident $(#[$m:meta])* $field:ident : $ty:ty, $($rest:tt)*) => {
        $crate::wire::Wire::put(&$self.$field, $out); wire_struct!(@put $self $out $($rest)*);
    };
    ($(#[$meta:meta])* pub struct $name:ident { $($body:tt)* }) => {
        wire_struct!(@def [$(#[$meta])* $name] [] $($body)*);
        impl $crate::wire::Fixed for $name { const LEN: usize = wire_struct!(@len $($body)*); }
        impl $crate::wire::Wire for $name {
            fn parse(input: &[u8]) -> $crate::wire::Parsed<'_, Self> { wire_struct!(@body input [] $($body)*) }
            fn put(&self, out: &mut bytes::BytesMut) { wire_struct!(@put self out $($body)*); }
        }
    };
    (@def [$(#[$meta:meta])* $name:ident] [$($(#[$m:meta])* $field:ident : $ty:ty,)*]) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name { $($(#[$m])* pub $field: $ty,)* }
    };
    (@def $head:tt [$($acc:tt)*] _ [$n:expr], $($rest:tt)*) => { wire_struct!(@def $head [$($acc)*] $($rest)*); };
    (@def $head:tt [$($acc:tt)*] $(#[$m:meta])* $field:ident : $ty:ty, $($rest:tt)*) => {
        wire_struct!(@def $head [$($acc)* $(#[$m])* $field : $ty,] $($rest)*);
    };
    (@body $input:ident [$($field:ident)*]) => { Ok(($input, Self { $($field),* })) };
    (@body $input:ident [$($acc:ident)*] _ [$n:expr], $($rest:tt)*) => {{
        let ($input, ()) = $crate::wire::pad($input, $n)?;
        wire_struct!(@body $input [$($acc)*] $($rest)*)
    }};
    (@body $input:ident [$($acc:ident)*] $(#[$m:meta])* $field:ident : $ty:ty, $($rest:tt)*) => {{
        let ($input, $field) = <$ty as $crate::wire::Wire>::parse($input)?;
        wire_struct!(@body $input [$($acc)* $field] $($rest)*)
    }};
}

/// Flags that keep bits without a name.
macro_rules! wire_flags {
    ($(#[$meta:meta])* pub struct $name:ident: $int:ty { $($(#$fmeta:tt)* $flag:ident = $value:expr;)* }) => {
        bitflags::bitflags! {
            $(#[$meta])*
            #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
            pub struct $name: $int { $($(#$fmeta)* const $flag = $value;)* const _ = !0; }
        }
        impl $crate::wire::Fixed for $name { const LEN: usize = <$int as $crate::wire::Fixed>::LEN; }
        impl $crate::wire::Wire for $name {
            fn parse(input: &[u8]) -> $crate::wire::Parsed<'_, Self> {
                nom::Parser::parse(&mut nom::combinator::map(<$int as $crate::wire::Wire>::parse, Self::from_bits_retain), input)
            }
            fn put(&self, out: &mut bytes::BytesMut) { $crate::wire::Wire::put(&self.bits(), out) }
        }
    };
}
