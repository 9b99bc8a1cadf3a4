//! Any text is read as a policy or refused with diagnostics that can be shown, whatever the order of its files.

#![no_main]

use apps::policy::{Diagnostics, Loaded, Source, load};
use libfuzzer_sys::fuzz_target;

fn told(sources: &[Source]) -> Diagnostics {
    match load(sources) {
        Ok(Loaded { warnings, .. }) => {
            assert!(!warnings.has_errors());
            warnings
        }
        Err(diagnostics) => {
            assert!(diagnostics.has_errors());
            diagnostics
        }
    }
}

fuzz_target!(|text: &str| {
    // A form feed, which TOML doesn't allow, stands between two files.
    let source = |(number, text): (usize, &str)| Source { name: format!("{number}.toml"), text: text.to_owned() };
    let mut sources: Vec<Source> = text.split('\u{c}').take(4).enumerate().map(source).collect();
    let diagnostics = told(&sources);
    assert!(!diagnostics.render(false).contains('\u{1b}'));
    let _ = diagnostics.render(true);
    sources.reverse();
    assert_eq!(told(&sources), diagnostics);
});
