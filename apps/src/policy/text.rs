//! Lines and columns of a text, names as messages show them, and what somebody may have meant.

use super::report::Report;

/// Where the lines of each file begin.
pub(super) struct Lines<'a> {
    files: Vec<(&'a str, Vec<usize>)>,
}

impl<'a> Lines<'a> {
    pub(super) fn of(texts: &[&'a str]) -> Self {
        let starts = |text: &str| {
            let after_breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
            std::iter::once(0).chain(after_breaks).collect()
        };
        Self { files: texts.iter().map(|text| (*text, starts(text))).collect() }
    }

    /// Line, from 1.
    pub(super) fn line(&self, file: usize, offset: usize) -> u32 {
        let starts = self.files.get(file).map_or(&[0][..], |(_, starts)| starts);
        saturated(starts.partition_point(|start| *start <= offset).max(1))
    }

    /// Line and column in characters, both from 1. Takes as long as the line does.
    pub(super) fn position(&self, file: usize, offset: usize) -> (u32, u32) {
        let Some((text, starts)) = self.files.get(file) else { return (1, 1) };
        let offset = floor(text, offset);
        let line = starts.partition_point(|start| *start <= offset).max(1);
        (saturated(line), saturated(text[starts[line - 1]..offset].chars().count() + 1))
    }
}

fn saturated(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// The next place at or before `offset` where a character of the text begins, or its end.
pub(super) fn floor(text: &str, offset: usize) -> usize {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    offset
}

/// What somebody wrote, for a message: never too long, and nothing in it that a terminal would act upon.
pub(super) fn quote(text: &str) -> String {
    const CHARS_MAX: usize = 64;
    let mut quoted = String::from("`");
    for (count, char) in text.chars().enumerate() {
        if count == CHARS_MAX {
            quoted.push('…');
            break;
        }
        match char {
            '"' | '\'' | '\\' => quoted.push(char),
            _ => quoted.extend(char.escape_debug()),
        }
    }
    quoted.push('`');
    quoted
}

/// The candidate that looks most like `wrong`, if one does.
pub(crate) fn nearest<'a>(wrong: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if wrong.len() > 64 {
        return None;
    }
    let wrong = wrong.to_lowercase().replace('-', "_");
    candidates
        .map(|candidate| (distance(&wrong, &candidate.replace('-', "_")), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).clamp(1, 3))
        .min()
        .map(|(_, candidate)| candidate)
}

/// The name that somebody may have meant, as long as looking for it pays.
pub(super) fn suggestion<'a>(wrong: &str, names: impl Iterator<Item = &'a str>, report: &Report) -> Option<&'a str> {
    const NAMES_MAX: usize = 1_000;
    if report.is_long() { None } else { nearest(wrong, names.take(NAMES_MAX)) }
}

/// How many characters must be put in, left out, replaced or swapped with the next to make one text of the other.
fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let mut rows = vec![vec![0; other.len() + 1]; one.len() + 1];
    for i in 0..=one.len() {
        for j in 0..=other.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replaced = rows[i - 1][j - 1] + usize::from(one[i - 1] != other[j - 1]);
                let least = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                let swapped = i > 1 && j > 1 && one[i - 1] == other[j - 2] && one[i - 2] == other[j - 1];
                if swapped { least.min(rows[i - 2][j - 2] + 1) } else { least }
            };
        }
    }
    rows[one.len()][other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_keys_are_suggested_and_far_ones_are_not() {
        let keys = ["name", "ports", "max_hosts", "unknown_unicast", "key"];
        let near = |wrong| nearest(wrong, keys.into_iter());
        assert_eq!(near("prots"), Some("ports"));
        assert_eq!(near("port"), Some("ports"));
        assert_eq!(near("MaxHosts"), Some("max_hosts"));
        assert_eq!(near("unknown-unicast"), Some("unknown_unicast"));
        assert_eq!(near("keys"), Some("key"));
        assert_eq!(near("vlan"), None);
        assert_eq!(near(""), None);
        let names = ["web-1", "ids-north"];
        assert_eq!(nearest("ids-nroth", names.into_iter()), Some("ids-north"));
        assert_eq!(nearest("Web-1", names.into_iter()), Some("web-1"));
    }

    #[test]
    fn quoted_text_is_short_and_harmless() {
        assert_eq!(quote("a\u{1b}[31m\u{202e}"), "`a\\u{1b}[31m\\u{202e}`");
        assert_eq!(quote(&"x".repeat(100)).chars().count(), 67);
    }

    #[test]
    fn columns_count_characters() {
        let texts = ["ä = 1\nbb", ""];
        let lines = Lines::of(&texts);
        assert_eq!(lines.position(0, 3), (1, 3));
        assert_eq!(lines.position(0, 1), (1, 1), "inside a character: where it begins");
        assert_eq!(lines.position(0, 8), (2, 2));
        assert_eq!(lines.position(0, 99), (2, 3), "beyond the end: the end");
        assert_eq!(lines.position(1, 0), (1, 1));
    }
}
