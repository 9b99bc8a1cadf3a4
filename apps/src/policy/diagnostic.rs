//! What is wrong with policy files, for people ([`Diagnostics::render`]) and for programs (the fields).

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The policy can't be used.
    Error,
    /// The policy can be used, but may not be what was meant.
    Warning,
}

/// One row a kind of mistake: its word.
macro_rules! codes {
    ($($(#[$meta:meta])* $code:ident = $word:literal;)+) => {
        /// What kind of mistake it is: a word for programs, which stays as it is when messages are put otherwise.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Code { $($(#[$meta])* $code),+ }

        impl fmt::Display for Code {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$code => $word),+ })
            }
        }
    };
}

codes! {
    /// The file is no TOML.
    Syntax = "syntax";
    /// The file is of no version that is known.
    Version = "version";
    /// A key that isn't known there.
    UnknownKey = "unknown-key";
    /// A key that has to be there.
    MissingKey = "missing-key";
    /// A key that can't stand beside what else is there.
    Misplaced = "misplaced-key";
    /// A value of another type than the key's.
    WrongType = "wrong-type";
    /// A value that the key can't have.
    BadValue = "bad-value";
    /// Something that there may be only one of.
    Duplicate = "duplicate";
    /// A name of a port or function that nothing has.
    UnknownName = "unknown-name";
    /// More than fits.
    TooLarge = "too-large";
    /// Frames that two things are said of.
    Undecided = "undecided";
    /// What is said changes nothing.
    NoEffect = "no-effect";
    /// A bridge that nothing is known of.
    UnknownBridge = "unknown-bridge";
    /// A port that two tenants may claim.
    Overlap = "overlapping-claims";
    /// A pattern that a link's port may match.
    MayMatchLinks = "may-match-links";
    /// A `match` that says nothing, and so takes everything.
    MatchesAll = "matches-everything";
    /// Answers to what is let in aren't let in.
    AnswersDropped = "answers-dropped";
    /// A pinned address that moves from port to port by its nature.
    VirtualMac = "virtual-mac";
}

/// A place in a policy file, and what is to be said of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// The file's name, as given.
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// What is to be said; may be empty.
    pub text: String,
    pub(super) source: usize,
    pub(super) span: Range<usize>,
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// What kind of mistake it is.
    pub code: Code,
    /// What is wrong, in one line that names the object.
    pub message: String,
    /// Where it is wrong.
    pub label: Label,
    /// Other places that have to do with it, maybe in other files.
    pub related: Vec<Label>,
    /// What to write instead.
    pub help: Option<String>,
}

/// Every mistake of a set of policy files, in order of file and line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnostics {
    pub(super) list: Vec<Diagnostic>,
    pub(super) omitted: usize,
    /// Texts of the files that labels are in, empty for the others.
    pub(super) texts: Vec<Arc<str>>,
}

impl Diagnostics {
    /// One after the other.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.list.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Are there none?
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many more there were than are kept here.
    pub fn omitted(&self) -> usize {
        self.omitted
    }

    /// Is one of them an error?
    pub fn has_errors(&self) -> bool {
        self.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
    }
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Diagnostics {}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// In one line, for logs.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Label { file, line, column, .. } = &self.label;
        write!(f, "{file}:{line}:{column}: {}: {}", self.severity, self.message)?;
        self.related.iter().try_for_each(|label| write!(f, " ({}:{}: {})", label.file, label.line, label.text))?;
        self.help.iter().try_for_each(|help| write!(f, "; {help}"))
    }
}
