//! The messages in `corpus/`: its README says how they are written.

use std::fs;
use std::path::Path;

use bytes::Bytes;

/// A message of another implementation.
pub(crate) struct Vector {
    /// File and name.
    pub(crate) name: String,
    /// The whole message.
    pub(crate) octets: Bytes,
    /// What its source says that it means, line by line.
    pub(crate) meaning: Vec<String>,
}

/// Octets from hex digits.
pub(crate) fn octets(hex: &str) -> Bytes {
    assert!(hex.len().is_multiple_of(2), "half an octet: {hex}");
    let digits: Vec<_> = hex.chars().map(|digit| digit.to_digit(16).expect("a hex digit") as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// The vectors of a file in `corpus/`.
pub(crate) fn vectors(file: &str) -> Vec<Vector> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut found: Vec<Vector> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(name) = line.strip_prefix("# ") {
            found.push(Vector { name: format!("{file}: {name}"), octets: Bytes::new(), meaning: Vec::new() });
            continue;
        }
        let vector = found.last_mut().expect("a name comes first");
        match line.strip_prefix('>') {
            Some(meaning) => vector.meaning.push(meaning.strip_prefix(' ').unwrap_or_default().to_owned()),
            None => vector.octets = octets(line),
        }
    }
    found
}
