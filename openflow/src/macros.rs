//! The tables' grammar: each message, field, action and enumeration is declared once, as a row, and type, parser,
//! encoder and name come from it.

/// An open enumeration: every wire value can be held, so that decoding and encoding are inverse.
macro_rules! wire_enum {
    ($(#[$meta:meta])* pub enum $name:ident: $int:ty { $($(#[$vmeta:meta])* $variant:ident = $value:expr),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
        pub enum $name {
            $($(#[$vmeta])* $variant,)+
            /// A value that has no name here.
            #[cfg_attr(feature = "serde", serde(untagged))]
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

/// A struct of fields one behind the other; `_ [n]` is padding: skipped when read, zero when written.
///
/// As it stands, every field has a fixed length, and the struct too. `open` before `struct`: later fields may be of any
/// length, the last one of them takes all that is left. `sized(at, min)`: the same, but the struct says its own length in
/// the 16-bit field at octet `at`, which is written as `_ [2]`, and is at least `min` octets long.
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
        wire_struct!(@sequence $name $($body)*);
    };
    ($(#[$meta:meta])* pub open struct $name:ident { $($body:tt)* }) => {
        wire_struct!(@def [$(#[$meta])* $name] [] $($body)*);
        wire_struct!(@sequence $name $($body)*);
    };
    (@sequence $name:ident $($body:tt)*) => {
        impl $crate::wire::Wire for $name {
            fn parse(input: &[u8]) -> $crate::wire::Parsed<'_, Self> { wire_struct!(@body input [] $($body)*) }
            fn put(&self, out: &mut bytes::BytesMut) { wire_struct!(@put self out $($body)*); }
        }
    };
    ($(#[$meta:meta])* pub sized($at:literal, $min:literal) struct $name:ident { $($body:tt)* }) => {
        wire_struct!(@def [$(#[$meta])* $name] [] $($body)*);
        impl $crate::wire::Wire for $name {
            fn parse(input: &[u8]) -> $crate::wire::Parsed<'_, Self> {
                $crate::wire::sized(input, $at, $min, |own| wire_struct!(@body own [] $($body)*))
            }
            fn put(&self, out: &mut bytes::BytesMut) {
                let length = $crate::wire::LengthGuard::over(out, $at);
                wire_struct!(@put self out $($body)*);
                length.finish(out);
            }
        }
    };
    (@def [$(#[$meta:meta])* $name:ident] [$($(#[$m:meta])* $field:ident : $ty:ty,)*]) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize))]
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
        let ($input, $field) =
            $crate::wire::read::<$ty>($input, stringify!($field))?;
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
        #[cfg(feature = "serde")]
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let named = Self::from_bits_retain(0 $(| $value)*);
                $crate::serialize::flags(self.iter_names().map(|(name, _)| name), (self.bits() & !named.bits()).into(), serializer)
            }
        }
    };
}

/// Elements that begin with a 16-bit kind and the 16-bit length of the whole. One row a kind: its fields `{…}` or its one
/// value `(…)`, and how many octets of padding come before and after them, within its length. The word behind the least
/// length says what follows outside.
macro_rules! wire_elements {
    ($(#[$meta:meta])* pub enum $name:ident: min $min:literal, $padding:ident {
        $($(#[$vmeta:meta])* $variant:ident = $kind:literal $shape:tt pad $before:literal, $after:literal;)+
    }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
        pub enum $name {
            $($(#[$vmeta])* $variant $shape,)+
            /// A kind that has no name here. Whoever builds one answers for its form.
            Unknown {
                /// Its number.
                kind: u16,
                /// What follows its length.
                body: $crate::wire::Octets,
            },
        }
        impl $name {
            /// The names of all kinds.
            pub const KINDS: &'static [&'static str] = &[$(stringify!($variant)),+];

            /// Its number.
            pub const fn kind(&self) -> u16 {
                match self { $(Self::$variant { .. } => $kind,)+ Self::Unknown { kind, .. } => *kind }
            }
        }
        impl $crate::wire::Wire for $name {
            fn parse(input: &[u8]) -> $crate::wire::Parsed<'_, Self> {
                let (rest, (kind, body)) = $crate::wire::element(input, $min)?;
                let element = match kind {
                    $($kind => {
                        let (body, ()) = $crate::wire::pad(body, $before)?;
                        let (body, element) = wire_elements!(@parse body, $variant $shape);
                        let (body, ()) = $crate::wire::pad(body, $after)?;
                        if !body.is_empty() {
                            return $crate::wire::refuse(body, "is more than its element may have");
                        }
                        element
                    })+
                    _ => Self::Unknown { kind, body: $crate::wire::Octets(body.to_vec()) },
                };
                let length = input.len() - rest.len();
                Ok(($crate::wire::Padding::$padding.skip(rest, length)?, element))
            }
            fn put(&self, out: &mut bytes::BytesMut) {
                let start = out.len();
                bytes::BufMut::put_u16(out, self.kind());
                let length = $crate::wire::LengthGuard::new(out, start);
                match self {
                    $(Self::$variant { .. } => {
                        bytes::BufMut::put_bytes(out, 0, $before);
                        wire_elements!(@put self, out, $variant $shape);
                        bytes::BufMut::put_bytes(out, 0, $after);
                    })+
                    Self::Unknown { body, .. } => $crate::wire::Wire::put(body, out),
                }
                length.finish(out);
                $crate::wire::Padding::$padding.put(out, start);
            }
        }
    };
    (@parse $input:ident, $variant:ident ($ty:ty)) => {{
        let (left, value) =
            $crate::wire::read::<$ty>($input, stringify!($variant))?;
        (left, Self::$variant(value))
    }};
    (@parse $input:ident, $variant:ident { $($(#[$m:meta])* $field:ident: $ty:ty),* $(,)? }) => {{
        let left = $input;
        $(let (left, $field) =
            $crate::wire::read::<$ty>(left, stringify!($field))?;)*
        (left, Self::$variant { $($field),* })
    }};
    (@put $self:ident, $out:ident, $variant:ident ($ty:ty)) => {
        if let Self::$variant(value) = $self { $crate::wire::Wire::put(value, $out); }
    };
    (@put $self:ident, $out:ident, $variant:ident {}) => {};
    (@put $self:ident, $out:ident, $variant:ident { $($(#[$m:meta])* $field:ident: $ty:ty),* $(,)? }) => {
        if let Self::$variant { $($field),* } = $self { $($crate::wire::Wire::put($field, $out);)* }
    };
}
