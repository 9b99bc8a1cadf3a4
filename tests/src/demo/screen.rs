//! What the demo prints: numbered steps with marks, in colour at a terminal only.

use std::fmt::Display;
use std::io::{IsTerminal, Write, stdout};

/// The widest line.
const WIDTH: usize = 100;
const INDENT: &str = "   ";

/// Where the demo prints, and how often something was wrong.
#[derive(Debug)]
pub(crate) struct Screen {
    colours: bool,
    steps: usize,
    failures: usize,
}

impl Screen {
    /// Colours only where they are seen and wanted.
    pub(crate) fn new() -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { colours: stdout().is_terminal() && !unwanted, steps: 0, failures: 0 }
    }

    /// How many checks failed.
    pub(crate) fn failures(&self) -> usize {
        self.failures
    }

    /// A reader who is gone (a closed pipe) must not keep the lab from being taken down, so errors don't count.
    fn print(text: &str) {
        let mut out = stdout().lock();
        let _ = writeln!(out, "{text}").and_then(|()| out.flush());
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// A heading without a number.
    pub(crate) fn heading(&self, text: &str) {
        Self::print(&format!("\n{}", self.paint("1", text)));
    }

    /// The next step's heading.
    pub(crate) fn step(&mut self, text: &str) {
        self.steps += 1;
        Self::print(&format!("\n{}", self.paint("1", &format!("{}  {text}", self.steps))));
    }

    /// An empty line.
    pub(crate) fn gap(&self) {
        Self::print("");
    }

    /// A line, or more.
    pub(crate) fn say(&self, text: impl Display) {
        for line in text.to_string().lines() {
            Self::print(format!("{INDENT}{line}").trim_end());
        }
    }

    /// The same, less prominent.
    pub(crate) fn aside(&self, text: impl Display) {
        for line in text.to_string().lines() {
            Self::print(&self.paint("2", format!("{INDENT}{line}").trim_end()));
        }
    }

    /// Columns beside each other, as far as they fit.
    pub(crate) fn columns(&self, blocks: &[Vec<String>]) {
        let widest = blocks.iter().flatten().map(|line| line.chars().count()).max().unwrap_or(0);
        let column = widest + 4;
        let side_by_side = ((WIDTH - INDENT.len()) / column.max(1)).max(1);
        for row in blocks.chunks(side_by_side) {
            let height = row.iter().map(Vec::len).max().unwrap_or(0);
            for at in 0..height {
                let line = row.iter().fold(String::new(), |line, block| {
                    let cell = block.get(at).map_or("", String::as_str);
                    format!("{line}{cell:column$}")
                });
                self.say(line);
            }
        }
    }

    /// Something that was checked.
    pub(crate) fn check(&mut self, holds: bool, text: impl Display) {
        let text = text.to_string();
        let mut lines = text.lines();
        let mark = if holds { self.paint("32", "✓") } else { self.paint("1;31", "✗") };
        Self::print(&format!("{INDENT}{mark} {}", lines.next().unwrap_or_default()));
        lines.for_each(|line| Self::print(&format!("{INDENT}  {line}")));
        self.failures += usize::from(!holds);
    }
}

/// A number with its noun.
pub(crate) fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}
