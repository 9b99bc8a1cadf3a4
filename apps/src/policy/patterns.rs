//! What patterns of names have in common: `*` stands for any run of characters, `?` for one.

/// Is there a name that both match?
pub(super) fn meet(one: &str, other: &str) -> bool {
    let ends = |pattern: &str| pattern.chars().next_back().filter(|char| !matches!(char, '*' | '?'));
    if let (Some(one), Some(other)) = (ends(one), ends(other))
        && one != other
    {
        return false;
    }
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    // meets[j]: do what is left of the one, and of the other from its jth character on?
    let mut meets = vec![false; other.len() + 1];
    for i in (0..=one.len()).rev() {
        let behind = meets.clone();
        for j in (0..=other.len()).rev() {
            meets[j] = match (one.get(i), other.get(j)) {
                (None, None) => true,
                (Some('*'), there) => behind[j] || there.is_some() && meets[j + 1],
                (here, Some('*')) => meets[j + 1] || here.is_some() && behind[j],
                (Some(here), Some(there)) => (here == there || *here == '?' || *there == '?') && behind[j + 1],
                _ => false,
            };
        }
    }
    meets[0]
}

/// What all that it matches begins with.
pub(super) fn start(pattern: &str) -> &str {
    pattern.split(['*', '?']).next().unwrap_or_default()
}

/// Does it say nothing of any character?
pub(super) fn is_any(pattern: &str) -> bool {
    pattern.contains('*') && pattern.chars().all(|char| matches!(char, '*' | '?'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::model::Glob;
    use super::*;

    #[test]
    fn patterns_meet_where_a_name_matches_both() {
        for (one, other, expected) in [
            ("green-*", "green-c1", true),
            ("green-*", "*-c1", true),
            ("green-?", "green-c1", false),
            ("green-*", "orange-*", false),
            ("*", "", true),
            ("?", "", false),
            ("*a*", "*b*", true),
            ("a*", "*b", true),
            ("gre-?", "green-*", false),
            ("ä?", "?ö", true),
        ] {
            assert_eq!((meet(one, other), meet(other, one)), (expected, expected), "{one} {other}");
        }
        assert!(is_any("?*") && is_any("*") && !is_any("?") && !is_any("*-") && !is_any(""));
        assert_eq!((start("green-*"), start("*"), start("ä?b"), start("a")), ("green-", "", "ä", "a"));
    }

    proptest! {
        #[test]
        fn counting_the_names_comes_to_the_same(one in "[ab?*]{0,4}", other in "[ab?*]{0,4}") {
            // Whatever two such patterns share, they share a name of at most eight characters.
            let names = (0..=8_u32).flat_map(|length| {
                (0..1_u32 << length).map(move |bits| (0..length).map(|at| if bits >> at & 1 == 0 { 'a' } else { 'b' }).collect())
            });
            let both = |name: &String| Glob::new(&one).matches(name) && Glob::new(&other).matches(name);
            let found = names.collect::<Vec<String>>().iter().any(both);
            prop_assert_eq!(meet(&one, &other), found);
        }
    }
}
