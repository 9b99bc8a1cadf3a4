//! Rate limits: a text like "200 Mbit/s", or a table that says more.

use super::model::{RateLimit, RateUnit};
use super::report::{At, Draft, Report};
use super::schema;
use super::section::Section;
use super::text::quote;

/// A frame of 1,500 octets with its Ethernet header and a tag, in bits.
const LONGEST_FRAME: u64 = 1_518 * 8;

/// Units of rates and bursts, with their sizes in bits; `None`: frames.
const UNITS: [(&str, Option<u64>); 5] = [
    ("Gbit", Some(1_000_000_000)),
    ("Mbit", Some(1_000_000)),
    ("kbit", Some(1_000)),
    ("bit", Some(1)),
    ("packet", None),
];

/// Reads the `rate_limit` of a tenant, a port or a chain, or another limit.
pub(super) fn limit(section: &Section<'_>, key: &str, report: &mut Report) -> Option<RateLimit> {
    if section.is_text(key) {
        let rate = section.string(key, report)?;
        return make(&section.object, &rate, None, report);
    }
    let table = section.table(key, report)?;
    let object = format!("the rate limit of {}", section.object);
    let own = Section::new(table.value, table.place, object, &schema::RATE_LIMIT, report);
    let rate = own.required("rate", report);
    let burst = own.string("burst", report);
    if let Some(per) = own.string("per", report).filter(|per| per.value != "bridge") {
        report.push(
            Draft::error(format!("{} can't be the `per` of {}", quote(per.value), own.object))
                .at(per.place, "not enforced")
                .help("write per = \"bridge\": a limit holds at each bridge by itself"),
        );
    }
    if let Some(band) = own.string("band", report).filter(|band| band.value != "drop") {
        report.push(
            Draft::error(format!("{} can't be the `band` of {}", quote(band.value), own.object))
                .at(band.place, "no bridge does this")
                .help("write band = \"drop\", or leave it out: Open vSwitch's meters have no other band, they can't mark packets"),
        );
    }
    make(&section.object, &rate?, burst, report)
}

/// A number and the size of its unit in bits, of a text like "200 Mbit".
fn amount(text: &str) -> Option<(u64, Option<u64>)> {
    let (unit, size) = UNITS.into_iter().find(|(unit, _)| text.ends_with(unit))?;
    let digits = text.strip_suffix(unit)?.trim_end_matches(' ');
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    // What doesn't fit is too much in any case, and is reported as such.
    Some((digits.parse().unwrap_or(u64::MAX), size))
}

fn make(object: &str, rate: &At<&str>, burst: Option<At<&str>>, report: &mut Report) -> Option<RateLimit> {
    let mut wrong = |at: &At<&str>, what: &str, why: &str, help: String| {
        let title = format!("{} can't be the {what} of {object}", quote(at.value));
        report.push(Draft::error(title).at(at.place.clone(), why).help(help));
        None
    };
    let Some((number, size)) = rate.value.strip_suffix("/s").and_then(amount) else {
        let help = "write it like \"200 Mbit/s\", with bit, kbit, Mbit or Gbit, or like \"5000 packet/s\"";
        return wrong(rate, "rate limit", "not a rate", help.into());
    };
    let unit = if size.is_some() { RateUnit::Kilobits } else { RateUnit::Packets };
    // Meters count kilobits or packets, in 32 bits.
    let counted = |number: u64, size: Option<u64>| match size {
        Some(size) => number.saturating_mul(size) / 1_000,
        None => number,
    };
    let per_second = counted(number, size);
    let Ok(rate_counted) = u32::try_from(per_second) else {
        return wrong(rate, "rate limit", "too fast", format!("write at most {} {}", u32::MAX, per(unit)));
    };
    if rate_counted == 0 {
        let help = format!("write at least 1 {}; to let nothing through, leave the port out", per(unit));
        return wrong(rate, "rate limit", "too slow", help);
    }
    let least = match unit {
        RateUnit::Kilobits => LONGEST_FRAME.div_ceil(1_000) as u32,
        RateUnit::Packets => 1,
    };
    let burst = match burst {
        // TCP needs about half a second's worth to come near the rate.
        None => (rate_counted / 2).max(least),
        Some(text) => {
            let Some((number, size)) = amount(text.value) else {
                let help = "write it like \"2 Mbit\" or \"100 packet\"";
                return wrong(&text, "burst", "not an amount", help.into());
            };
            if size.is_some() != (unit == RateUnit::Kilobits) {
                let help = "write rate and burst both in bits, or both in packets";
                return wrong(&text, "burst", "not counted as the rate is", help.into());
            }
            match u32::try_from(counted(number, size)) {
                Err(_) => return wrong(&text, "burst", "too much", format!("write at most {}", u32::MAX)),
                Ok(counted) if counted < least => {
                    let help =
                        format!("write at least {least} {}: otherwise the longest frame never passes", name(unit));
                    return wrong(&text, "burst", "too little", help);
                }
                Ok(counted) => counted,
            }
        }
    };
    Some(RateLimit { unit, rate: rate_counted, burst })
}

const fn name(unit: RateUnit) -> &'static str {
    match unit {
        RateUnit::Kilobits => "kbit",
        RateUnit::Packets => "packet",
    }
}

const fn per(unit: RateUnit) -> &'static str {
    match unit {
        RateUnit::Kilobits => "kbit/s",
        RateUnit::Packets => "packet/s",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_have_a_unit() {
        assert_eq!(amount("200 Mbit"), Some((200, Some(1_000_000))));
        assert_eq!(amount("8bit"), Some((8, Some(1))));
        assert_eq!(amount("5000 packet"), Some((5000, None)));
        assert_eq!(amount("99999999999999999999 Gbit"), Some((u64::MAX, Some(1_000_000_000))));
        for text in ["", "Mbit", "200", "200 MB", "-1 bit", "1.5 Mbit", "1 packets", "0x1 bit"] {
            assert_eq!(amount(text), None, "{text}");
        }
    }
}
