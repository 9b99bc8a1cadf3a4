//! Policy files as operators write them: each mistake is told with its place and its remedy.
//!
//! `policy/NAME.toml`, or all files of `policy/NAME/`, is read; `policy/NAME.txt` is what `check` would print.
//! `UPDATE_GOLDEN=1 cargo test -p espalier-apps --test policy` writes the latter anew.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use apps::policy::{Diagnostics, Loaded, Severity, Source, load};
use proptest::prelude::*;

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn source(path: &Path) -> Source {
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    Source { name, text: fs::read_to_string(path).unwrap() }
}

/// The files below a folder, in order of their names.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn diagnostics(sources: &[Source]) -> (Diagnostics, bool) {
    match load(sources) {
        Ok(Loaded { warnings, .. }) => (warnings, true),
        Err(diagnostics) => (diagnostics, false),
    }
}

#[test]
fn every_mistake_is_told_as_expected() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut differing = Vec::new();
    let mut expected_texts = BTreeSet::new();
    for case in files(&here("tests/policy")) {
        if case.extension().is_some_and(|extension| extension == "txt") {
            continue;
        }
        let sources: Vec<Source> =
            if case.is_dir() { files(&case).iter().map(|file| source(file)).collect() } else { vec![source(&case)] };
        let (diagnostics, accepted) = diagnostics(&sources);
        assert_eq!(accepted, !diagnostics.has_errors(), "{}", case.display());
        let verdict = if accepted { "accepted" } else { "refused" };
        let told = format!("{verdict}\n\n{}", diagnostics.render(false));
        let golden = case.with_extension("txt");
        if update {
            fs::write(&golden, &told).unwrap();
        }
        if fs::read_to_string(&golden).ok().as_deref() != Some(&told) {
            differing.push(format!("{}:\n{told}", golden.display()));
        }
        expected_texts.insert(golden);
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
    let texts = files(&here("tests/policy")).into_iter().filter(|file| file.extension().is_some_and(|it| it == "txt"));
    assert_eq!(texts.collect::<BTreeSet<_>>(), expected_texts, "each text belongs to a case");
}

#[test]
fn programs_see_what_people_see() {
    for case in files(&here("tests/policy")).iter().filter(|case| case.extension().is_some_and(|it| it == "toml")) {
        let (diagnostics, _) = diagnostics(&[source(case)]);
        let shown = diagnostics.render(false);
        for diagnostic in &diagnostics {
            let place =
                format!("--> {}:{}:{}\n", diagnostic.label.file, diagnostic.label.line, diagnostic.label.column);
            assert!(shown.contains(&place), "{place} in\n{shown}");
            assert!(shown.contains(&format!("{}: {}", diagnostic.severity, diagnostic.message)));
            assert!(diagnostic.help.as_ref().is_some_and(|help| shown.contains(help)), "no help: {diagnostic}");
        }
        let places: Vec<_> =
            diagnostics.iter().map(|it| (it.label.file.clone(), it.label.line, it.label.column)).collect();
        assert!(places.is_sorted(), "{places:?}");
    }
}

#[test]
fn examples_are_valid_without_warnings() {
    let examples = files(&here("../examples"));
    assert!(!examples.is_empty());
    for example in examples.iter().filter(|file| file.extension().is_some_and(|it| it == "toml")) {
        let loaded = load(&[source(example)]).unwrap_or_else(|told| panic!("{told}"));
        assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
    }
}

#[test]
fn the_order_of_files_does_not_matter() {
    let mut sources: Vec<Source> = files(&here("tests/policy/two_files")).iter().map(|file| source(file)).collect();
    let (one, _) = diagnostics(&sources);
    sources.reverse();
    let (other, _) = diagnostics(&sources);
    assert_eq!(one, other);
}

#[test]
fn colour_is_only_used_when_asked_for() {
    let (diagnostics, _) = diagnostics(&[source(&here("tests/policy/terminal.toml"))]);
    assert!(!diagnostics.is_empty());
    assert!(!diagnostics.render(false).contains(['\u{1b}', '\u{7}', '\u{202e}']));
    assert!(diagnostics.render(true).contains('\u{1b}'));
    assert!(diagnostics.iter().all(|it| it.severity == Severity::Error));
}

/// As many rules as a tenant may have, none of which covers another, each compared with each.
#[test]
fn the_most_rules_are_accepted() {
    let rule = |n: usize| {
        format!(
            "[[tenant.rule]]\nname = \"r{n}\"\naction = \"drop\"\nmatch = {{ protocol = \"tcp\", source_port = {n}, destination = \"10.0.0.1\" }}\n"
        )
    };
    let rules = |count: usize| {
        let rules: String = (0..count).map(rule).collect();
        let text =
            format!("version = 1\n[[tenant]]\nname = \"green\"\nports = [{{ bridge = \"a\", port = \"b\" }}]\n{rules}");
        diagnostics(&[Source { name: "large.toml".into(), text }])
    };
    let (told, accepted) = rules(5_000);
    assert!(accepted && told.is_empty(), "{told}");
    let (told, accepted) = rules(5_001);
    assert!(!accepted && told.len() == 1, "{told}");
}

#[test]
fn a_large_broken_file_makes_a_small_report_soon() {
    let many_keys: String = (0..100_000).map(|n| format!("k{n} = {n}\n")).collect();
    let one_line = format!("version = 1\nx = [{}]\ny = 1", "1,".repeat(1_000_000));
    let nested = format!("version = 1\na = {}", "[".repeat(1_000_000));
    let dotted = format!("version = 1\na{} = 1", ".a".repeat(1_000_000));
    let too_large = format!("version = 1\n#{}", "x".repeat(Source::BYTES_MAX));
    let ports = (0..20_000).map(|n| format!("{{ bridge = \"b{n}\", port = \"Ä\" }},")).collect::<String>();
    let one_line_of_ports = format!("version = 1\n[[tenant]]\nname = \"green\"\nports = [{ports}]\n");
    let valid = load(&[Source { name: "large.toml".into(), text: one_line_of_ports }]).unwrap();
    assert_eq!(valid.policy.tenants[0].ports.len(), 20_000);
    let tenant = |rest: &str| format!("version = 1\n[[tenant]]\nname = \"green\"\n{rest}\n");
    let rule = |name: usize, matches: &str| {
        format!("[[tenant.rule]]\nname = \"r{name}\"\naction = \"drop\"\nmatch = {matches}\n")
    };
    let many_names: String = (0..50_000).map(|n| format!("\"n{n}\",")).collect();
    let named_ports: String =
        (0..20_000).map(|n| format!("{{ bridge = \"b\", port = \"p{n}\", name = \"x{n}\" }},")).collect();
    let unknown_names =
        tenant(&format!("ports = [{named_ports}]\n{}", rule(0, &format!("{{ source = [{many_names}] }}"))));
    let many_addresses: String =
        (0..100_000).map(|n| format!("\"10.{}.{}.{}\",", n >> 16, n >> 8 & 255, n & 255)).collect();
    let pairs = tenant(&rule(0, &format!("{{ source = [{many_addresses}], destination = [{many_addresses}] }}")));
    let many_ports = "\"1-65534\",0,".repeat(100_000);
    let ports = tenant(&rule(0, &format!("{{ protocol = \"tcp\", source_port = [{many_ports}1e9] }}")));
    let many_rules = tenant(&(0..40_000).map(|n| rule(n, "{}")).collect::<String>());
    let many_tables = tenant(&rule(0, &format!("[{}]", "{vlan=1},".repeat(200_000))));
    let functions = format!("through = [{}]\n", many_names);
    let chain = tenant(&format!("[[tenant.chain]]\nname = \"c\"\nmatch = {{}}\n{functions}"));
    let numbers = tenant(&rule(
        0,
        "{ vlan = 0xffffffffffffffffffffff, protocol = -99999999999999999999999, source_port = 1e400 }",
    ));
    for text in [
        unknown_names,
        pairs,
        ports,
        many_rules,
        many_tables,
        chain,
        numbers,
        many_keys,
        one_line,
        nested,
        dotted,
        too_large,
    ] {
        let (diagnostics, accepted) = diagnostics(&[Source { name: "large.toml".into(), text }]);
        assert!(!accepted);
        assert!(diagnostics.len() <= 1_000);
        assert!(diagnostics.render(false).len() < 1 << 20);
    }
}

/// As many claims as are read in time, whether they meet or not.
#[test]
fn many_patterns_are_compared_soon() {
    let tenant = |name: &str, ports: String| format!("[[tenant]]\nname = \"{name}\"\nports = [{ports}]\n");
    let ports = |pattern: &dyn Fn(usize) -> String| -> String {
        (0..10_000).map(|n| format!("{{ bridge = \"*\", port = \"{}\" }},", pattern(n))).collect()
    };
    let checked = |one: &dyn Fn(usize) -> String, other: &dyn Fn(usize) -> String| {
        let text = format!("version = 1\n{}{}", tenant("green", ports(one)), tenant("orange", ports(other)));
        let (told, accepted) = diagnostics(&[Source { name: "large.toml".into(), text }]);
        assert!(accepted && told.len() <= 1_000);
        told.len() + told.omitted()
    };
    assert_eq!(checked(&|n| format!("*a{n}"), &|n| format!("*b{n}")), 0);
    assert_eq!(checked(&|n| format!("a{n}-*"), &|n| format!("b{n}-*")), 0);
    assert_eq!(checked(&|n| format!("a{n}"), &|n| format!("a{n}*")), 10_000, "each pattern has something to say");
}

/// What is put into a valid policy to damage it.
const PUT: &str = "[a-z\\[\\]{}=\"'.,#\n0-9A-Zä*? \\-]{0,6}";

proptest! {
    #[test]
    fn any_text_is_read_without_panic(text in any::<String>(), other in "[a-z\\[\\]{}=\"'.,#\n0-9 ]{0,200}") {
        for text in [text, other] {
            let (diagnostics, _) = diagnostics(&[Source { name: "any.toml".into(), text }]);
            let _ = (diagnostics.render(true), diagnostics.render(false));
        }
    }

    #[test]
    fn a_valid_policy_may_be_damaged_anywhere(
        file in 0_usize..2,
        cuts in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..12, PUT), 1..4),
    ) {
        let path = ["tests/policy/valid.toml", "../examples/green-orange.toml"][file];
        let mut text: Vec<char> = source(&here(path)).text.chars().collect();
        for (at, length, put) in cuts {
            let start = at.index(text.len());
            let end = (start + length).min(text.len());
            text.splice(start..end, put.chars());
        }
        let damaged = Source { name: "damaged.toml".into(), text: text.into_iter().collect() };
        let (diagnostics, accepted) = diagnostics(&[damaged]);
        prop_assert_eq!(accepted, !diagnostics.has_errors());
        let _ = (diagnostics.render(true), diagnostics.render(false));
    }
}
