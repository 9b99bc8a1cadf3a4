//! Do two lists of rows, of which the first that matches decides, say the same of all frames? One is a table's entries, the
//! other what the policy says.
//!
//! Frames are told apart by one field after the other, no finer than the rows do that are left: values that leave the same rows
//! are one kind. A kind is done with when whatever may decide on one side fits whatever may decide on the other. So no
//! frame is left out, though only some are looked at. Lists for which that would take too long are held against each other by
//! frames that are drawn, always the same ones.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::RangeInclusive;

/// Fields that rules and chains look at, in the order in which frames are told apart by them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Field {
    Type,
    Vlan,
    /// `ip_frag` (ovs-fields(7)): 0: a whole packet, 1: its first part, 3: another one.
    Fragment,
    Protocol,
    /// `ct_state` (ovs-fields(7)).
    State,
    Source,
    Destination,
    /// IP addresses.
    From,
    To,
    SourcePort,
    DestinationPort,
    Icmp,
    Code,
}

const FIELDS: [(Field, u32, &str); 13] = [
    (Field::Type, 16, "Ethernet type"),
    (Field::Vlan, 13, "VLAN"),
    (Field::Fragment, 2, "fragment"),
    (Field::Protocol, 8, "IP protocol"),
    (Field::State, 32, "state of the connection"),
    (Field::Source, 48, "source"),
    (Field::Destination, 48, "destination"),
    (Field::From, 128, "source address"),
    (Field::To, 128, "destination address"),
    (Field::SourcePort, 16, "source port"),
    (Field::DestinationPort, 16, "destination port"),
    (Field::Icmp, 8, "ICMP type"),
    (Field::Code, 8, "ICMP code"),
];

pub(super) const ARP: u128 = 0x0806;
pub(super) const IPV4: u128 = 0x0800;
pub(super) const IPV6: u128 = 0x86dd;
/// What a frame's type is where it begins with another tag.
pub(super) const TAGS: [u128; 2] = [0x8100, 0x88a8];
pub(super) const ICMP: u128 = 1;
pub(super) const ICMPV6: u128 = 58;
/// Of [`Field::Fragment`]: a fragment, the first, another one; and the protocol of others in IPv6, as Open vSwitch has it.
pub(super) const FIRST: u128 = 1;
pub(super) const LATER: u128 = 3;
const FRAGMENT_HEADER: u128 = 44;
/// TCP, UDP and SCTP.
const WITH_PORTS: [u128; 3] = [6, 17, 132];
/// Bits of [`Field::State`]: both directions were seen, an error about one, in the direction of replies, none that there can be, looked up
/// at all.
pub(super) const ESTABLISHED: u128 = 0x02;
pub(super) const RELATED: u128 = 0x04;
pub(super) const REPLY: u128 = 0x08;
pub(super) const INVALID: u128 = 0x10;
pub(super) const TRACKED: u128 = 0x20;

/// What connection tracking can say of a packet.
const STATES: [u128; 6] = [
    TRACKED | 0x01,
    TRACKED | INVALID,
    TRACKED | ESTABLISHED,
    TRACKED | ESTABLISHED | REPLY,
    TRACKED | RELATED,
    TRACKED | RELATED | REPLY,
];

/// Tests of rows after which the rest is drawn, and how many frames are drawn then.
const TESTS_MAX: usize = 1 << 20;
const DRAWN: usize = 256;
/// Pairs of what may decide that are held against each other before frames are told apart further.
const PAIRS_MAX: usize = 4096;
/// Differences that are told of; one fault may make thousands.
const TOLD: usize = 4;

/// What a row asks of a field. What a frame doesn't have no test finds.
#[derive(Clone, Debug)]
pub(super) enum Test {
    /// Value and mask.
    Masked(u128, u128),
    Within(Vec<RangeInclusive<u128>>),
}

impl Test {
    pub(super) fn is(value: u128) -> Self {
        Self::Within(vec![value..=value])
    }

    pub(super) fn finds_nothing(&self) -> bool {
        matches!(self, Self::Within(ranges) if ranges.is_empty())
    }

    fn finds(&self, value: Option<u128>) -> bool {
        value.is_some_and(|it| match self {
            Self::Masked(wanted, mask) => (it ^ wanted) & mask == 0,
            Self::Within(ranges) => ranges.iter().any(|range| range.contains(&it)),
        })
    }

    /// Values of which one at least lies in each kind that tests tell apart.
    fn values(&self, most: u128, values: &mut BTreeSet<u128>) {
        let mut range = |first: u128, last: u128| {
            values.insert(first);
            values.extend(last.checked_add(1).filter(|behind| *behind <= most));
        };
        match self {
            Self::Within(ranges) => ranges.iter().for_each(|it| range(*it.start(), (*it.end()).min(most))),
            Self::Masked(value, mask) => {
                let open = !mask & most;
                if open & open.wrapping_add(1) == 0 {
                    return range(value & mask, value & mask | open);
                }
                values.insert(value & mask);
                let bits = (0..128).map(|bit| 1_u128 << bit).filter(|bit| mask & most & bit != 0);
                values.extend(bits.map(|bit| value & mask ^ bit));
            }
        }
    }
}

/// A row: what it asks, and what it stands for to the caller.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// Lower comes first.
    rank: u32,
    pub(super) then: usize,
    tests: Vec<(Field, Test)>,
    /// From this place in [`FIELDS`] on nothing is asked.
    end: usize,
}

impl Row {
    pub(super) fn new(rank: u32, then: usize, tests: Vec<(Field, Test)>) -> Self {
        let end = tests.iter().map(|(field, _)| *field as usize + 1).max().unwrap_or(0);
        Self { rank, then, tests, end }
    }

    pub(super) fn rank(&self) -> u32 {
        self.rank
    }

    fn finds(&self, field: Field, value: Option<u128>) -> bool {
        self.tests.iter().all(|(of, test)| *of != field || test.finds(value))
    }
}

/// A kind of frames: a value for each field that tells them apart.
#[derive(Clone, Debug, Default)]
pub(super) struct Kind([Option<u128>; FIELDS.len()]);

impl Kind {
    fn of(&self, field: Field) -> Option<u128> {
        self.0[field as usize]
    }

    fn is_ip(&self) -> bool {
        matches!(self.of(Field::Type), Some(IPV4 | IPV6))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for ((field, _, name), value) in FIELDS.iter().zip(self.0) {
            let Some(value) = value else { continue };
            f.write_str(if std::mem::take(&mut first) { "" } else { ", " })?;
            match field {
                Field::Vlan if value == 0 => f.write_str("untagged")?,
                Field::Vlan => write!(f, "{name} {}", value & 0xfff)?,
                Field::Type | Field::State => write!(f, "{name} {value:#06x}")?,
                Field::Source | Field::Destination => write!(f, "{name} {value:012x}")?,
                Field::From | Field::To => match (self.of(Field::Type), u32::try_from(value)) {
                    (Some(IPV4), Ok(value)) => write!(f, "{name} {}", std::net::Ipv4Addr::from(value))?,
                    _ => write!(f, "{name} {}", std::net::Ipv6Addr::from(value))?,
                },
                _ => write!(f, "{name} {value}")?,
            }
        }
        f.write_str(if first { "any" } else { "" })
    }
}

/// What decides on both sides about some kind of frames, and doesn't fit.
#[derive(Clone, Debug)]
pub(super) struct Difference {
    pub(super) entry: usize,
    pub(super) said: usize,
    pub(super) kind: Kind,
}

/// Where two lists differ. Both are in order, and end with a row that finds all. `tracked`: connections are looked up.
pub(super) fn differences(
    entries: &[Row],
    said: &[Row],
    tracked: bool,
    fits: impl FnMut(usize, usize) -> bool,
) -> Vec<Difference> {
    let mut walk = Walk {
        lists: [entries, said],
        tracked,
        fits,
        known: BTreeMap::new(),
        seen: BTreeSet::new(),
        kind: Kind::default(),
        left: TESTS_MAX,
        draw: None,
        found: Vec::new(),
    };
    let all = |rows: &[Row]| (0..rows.len()).collect::<Vec<_>>();
    walk.split(0, [all(entries), all(said)]);
    if walk.left == 0 {
        walk.seen.clear();
        for seed in 0..DRAWN {
            walk.draw = Some(seed as u64);
            walk.split(0, [all(entries), all(said)]);
        }
    }
    walk.found
}

/// Rows that are left of each list.
type Left = [Vec<usize>; 2];

struct Walk<'r, F> {
    lists: [&'r [Row]; 2],
    tracked: bool,
    fits: F,
    /// What was asked of `fits`.
    known: BTreeMap<(usize, usize), bool>,
    /// What has been looked at: the next field, and the rows that were left.
    seen: BTreeSet<(usize, Left)>,
    kind: Kind,
    /// Tests that may still be made.
    left: usize,
    /// Only one value of each field is followed, drawn from this.
    draw: Option<u64>,
    found: Vec<Difference>,
}

impl<F: FnMut(usize, usize) -> bool> Walk<'_, F> {
    /// Tells frames apart by the fields from this one on.
    fn split(&mut self, at: usize, mut left: Left) {
        let lists = self.lists;
        for (rows, left) in lists.iter().zip(&mut left) {
            // Behind a row that finds all of them, none is asked.
            if let Some(all) = left.iter().find(|row| rows[**row].end <= at).map(|row| rows[*row].rank) {
                left.retain(|row| rows[*row].rank <= all);
            }
        }
        let settled = lists.iter().zip(&left).all(|(rows, left)| left.iter().all(|row| rows[*row].end <= at));
        let different = match left.iter().map(Vec::len).product::<usize>() {
            PAIRS_MAX.. if !settled => (0, 0),
            _ => match self.different(&left) {
                Some(different) => different,
                None => return,
            },
        };
        let Some((field, bits, _)) = FIELDS.get(at).filter(|_| !settled) else {
            let (entry, said) = different;
            let told = self.found.iter().any(|it| (it.entry, it.said) == different);
            if !told && self.found.len() < TOLD {
                self.found.push(Difference { entry, said, kind: self.kind.clone() });
            }
            return;
        };
        if self.found.len() >= TOLD || self.draw.is_none() && !self.seen.insert((at, left.clone())) {
            return;
        }
        let values = self.values(*field, *bits, &left);
        let mut kinds: BTreeMap<Left, Option<u128>> = BTreeMap::new();
        for value in values {
            let tests: usize = left.iter().map(Vec::len).sum();
            if self.draw.is_none() && self.left < tests {
                self.left = 0;
                return;
            }
            self.left = self.left.saturating_sub(tests);
            let of = |side: usize| {
                left[side].iter().copied().filter(|row| lists[side][*row].finds(*field, value)).collect::<Vec<_>>()
            };
            kinds.entry([of(0), of(1)]).or_insert(value);
        }
        for (left, value) in kinds {
            self.kind.0[at] = value;
            self.split(at + 1, left);
        }
        self.kind.0[at] = None;
    }

    /// Two that may decide and don't fit.
    fn different(&mut self, left: &Left) -> Option<(usize, usize)> {
        let thens = |side: usize| left[side].iter().map(|row| self.lists[side][*row].then).collect::<BTreeSet<_>>();
        let (entries, said) = (thens(0), thens(1));
        let (known, fits) = (&mut self.known, &mut self.fits);
        let pairs = entries.iter().flat_map(|entry| said.iter().map(|said| (*entry, *said)));
        pairs.into_iter().find(|pair| !*known.entry(*pair).or_insert_with(|| fits(pair.0, pair.1)))
    }

    /// A value at least for each kind of frames that a field tells apart for the rows that are left.
    fn values(&mut self, field: Field, bits: u32, left: &Left) -> Vec<Option<u128>> {
        let kind = &self.kind;
        let protocol = kind.of(Field::Protocol);
        let later = kind.of(Field::Fragment) == Some(LATER);
        if later && field == Field::Protocol && kind.of(Field::Type) == Some(IPV6) {
            return vec![Some(FRAGMENT_HEADER)];
        }
        let there = match field {
            Field::Fragment | Field::Protocol | Field::From | Field::To => kind.is_ip(),
            Field::SourcePort | Field::DestinationPort | Field::Icmp | Field::Code if later => false,
            Field::SourcePort | Field::DestinationPort => protocol.is_some_and(|it| WITH_PORTS.contains(&it)),
            Field::Icmp | Field::Code => protocol.is_some_and(|it| [ICMP, ICMPV6].contains(&it)),
            _ => true,
        };
        if !there {
            return vec![None];
        }
        if field == Field::State {
            let looked_up = self.tracked && kind.is_ip();
            // What others never completed is in none, and wasn't looked up.
            return [0, INVALID]
                .into_iter()
                .take(if looked_up { 2 } else { 1 })
                .chain(STATES.into_iter().filter(|_| looked_up))
                .map(Some)
                .collect();
        }
        if field == Field::Fragment {
            return vec![Some(0), Some(FIRST), Some(LATER)];
        }
        let of_ipv4 = matches!(field, Field::From | Field::To) && kind.of(Field::Type) == Some(IPV4);
        let bits = if of_ipv4 { 32 } else { bits };
        let most = u128::MAX >> (128 - bits);
        let tests = self.lists.iter().zip(left).flat_map(|(rows, left)| left.iter().map(|row| &rows[*row]));
        let tests = tests.flat_map(|row| &row.tests).filter(|(of, _)| *of == field).map(|(_, test)| test);
        let mut values = BTreeSet::new();
        tests.for_each(|test| test.values(most, &mut values));
        // A frame has no such field, or one that nobody asks for.
        let mut all: Vec<Option<u128>> = match field {
            Field::SourcePort | Field::DestinationPort | Field::Icmp | Field::Code => vec![None],
            _ if values.is_empty() => vec![None],
            _ => Vec::new(),
        };
        if !values.is_empty() {
            values.insert(0);
            values.extend([ARP, IPV4, IPV6].into_iter().filter(|_| field == Field::Type));
        }
        all.extend(values.into_iter().map(Some));
        if let Some(seed) = &mut self.draw {
            // A linear congruential generator (Knuth's MMIX).
            *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let chosen = (*seed >> 33) as usize % all.len();
            all = vec![all[chosen]];
        }
        all
    }
}
