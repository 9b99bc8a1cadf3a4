//! Messages as text: a line for the message and what is simple about it, lines for what isn't.

use serde_json::{Map, Value};

/// Values that are usually written in hex.
const HEX: &[&str] = &[
    "actions",
    "band_types",
    "capabilities",
    "cookie_mask",
    "eth_type",
    "ethertype",
    "exp_type",
    "experimenter",
    "flags",
    "generation",
    "mask",
    "metadata",
    "metadata_match",
    "metadata_write",
    "tunnel_id",
    "version_bitmap",
    "vlan_vid",
    "xid",
];

/// The `number`th message as text.
pub(super) fn message(number: usize, value: &Value) -> String {
    let scalar = |key: &str| value.get(key).map(|found| simple(key, found)).unwrap_or_default();
    let head = match &value["type"] {
        Value::String(name) => name.to_uppercase(),
        Value::Null => format!("message {number}"),
        kind => format!("type {kind}"),
    };
    let mut text = head;
    for key in ["xid", "length"] {
        if value.get(key).is_some() {
            text += &format!(" {key}={}", scalar(key));
        }
    }
    if let Some(error) = value.get("error") {
        let part = |key| error.get(key).map(plain).filter(|found| !found.is_empty());
        text += ": malformed:";
        if let Some(offset) = part("offset") {
            text += &format!(" octet {offset}");
        }
        if let Some(field) = part("field") {
            text += &format!(", in {field},");
        }
        text += &format!(" {}\n", part("reason").unwrap_or_default());
        return text;
    }
    block("body", &value["body"], 1, &mut text);
    text.push('\n');
    text
}

/// Simple values one behind the other, then a line for each that isn't.
fn block(key: &str, value: &Value, depth: usize, text: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Null => {}
        Value::String(empty) if empty.is_empty() => {}
        Value::Object(map) => {
            let (long, short): (Vec<_>, Vec<_>) = map.iter().partition(|(_, value)| is_long(value));
            if !short.is_empty() {
                let pairs: Vec<String> = short.iter().map(|(key, value)| pair(key, value)).collect();
                *text += &format!("\n{indent}{}", pairs.join(" "));
            }
            for (key, value) in long {
                *text += &format!("\n{indent}{key}:");
                block(key, value, depth + 1, text);
            }
        }
        Value::Array(items) if is_long(value) => {
            for item in items {
                *text += &format!("\n{indent}- {}", inline(key, item));
            }
        }
        other => *text += &format!("\n{indent}{}", inline(key, other)),
    }
}

/// Does a value deserve lines of its own: a list of structures, or a structure with such a list?
fn is_long(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().any(|item| matches!(item, Value::Object(_))),
        Value::Object(map) => map.values().any(is_long),
        _ => false,
    }
}

fn pair(key: &str, value: &Value) -> String {
    format!("{key}={}", inline(key, value))
}

fn pairs(map: &Map<String, Value>) -> String {
    map.iter().map(|(key, value)| pair(key, value)).collect::<Vec<_>>().join(",")
}

fn inline(key: &str, value: &Value) -> String {
    let list = |key: &str, items: &[Value], between| {
        items.iter().map(|item| inline(key, item)).collect::<Vec<_>>().join(between)
    };
    match value {
        // A choice: its name, and what belongs to it.
        Value::Object(map) if map.len() == 1 => match map.iter().next() {
            Some((name, Value::Null)) => name.clone(),
            Some((name, Value::Object(inner))) => format!("{name}({})", pairs(inner)),
            Some((name, Value::Array(items))) => format!("{name}({})", list(name, items, ",")),
            _ => pairs(map),
        },
        Value::Object(map) => format!("{{{}}}", pairs(map)),
        Value::Array(items) if items.is_empty() => "none".into(),
        Value::Array(items) if items.iter().all(Value::is_string) => list(key, items, "|"),
        Value::Array(items) => format!("[{}]", list(key, items, ",")),
        other => simple(key, other),
    }
}

fn simple(key: &str, value: &Value) -> String {
    let hex = HEX.contains(&key) || key.starts_with("reg") || key.starts_with("xreg");
    match (value, value.as_u64()) {
        // In quotes where it could be taken for something else than one value.
        (Value::String(text), _) if text.contains(ambiguous) => {
            format!("\"{}\"", plain(value).replace('"', "\\\""))
        }
        (Value::String(_), _) => plain(value),
        (_, Some(number)) if hex => format!("{number:#x}"),
        (other, _) => other.to_string(),
    }
}

/// Could it be taken for what stands around a value? (Control characters are escaped.)
fn ambiguous(c: char) -> bool {
    c.is_whitespace() && !c.is_control() || "\",=|)}]".contains(c)
}

/// A value as it is. What a bridge calls itself must not move the reader's cursor, nor write lines of its own.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => {
            text.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() }).collect()
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;

    fn lines(dir: &Path) -> Vec<String> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            match entry.extension() {
                _ if entry.is_dir() => found.extend(lines(&entry)),
                Some(txt) if txt == "txt" => {
                    found.extend(std::fs::read_to_string(entry).unwrap().lines().map(str::to_owned));
                }
                _ => {}
            }
        }
        found
    }

    /// Messages of other implementations, and what comes of them if an octet is another.
    #[test]
    fn text_says_all_that_json_says() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../openflow/tests/corpus");
        let hex = |line: &String| !line.is_empty() && line.bytes().all(|c| c.is_ascii_hexdigit());
        let mut seen: BTreeMap<String, Value> = BTreeMap::new();
        for line in lines(&corpus).iter().filter(|line| hex(line)) {
            let octets = super::super::hex(line).unwrap();
            let step = 1 + octets.len() / 50;
            for at in (8..octets.len()).step_by(step) {
                let mut changed = octets.clone();
                changed[at] ^= [0, 1, 0x80, 0x20, 0x10][at / step % 5];
                let value = super::super::describe(&changed.into());
                let before = seen.entry(message(1, &value)).or_insert_with(|| value.clone());
                assert_eq!(*before, value, "two messages have one text");
            }
        }
        assert!(seen.len() > 10_000, "{}", seen.len());
    }
}
