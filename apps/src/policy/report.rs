//! Collects mistakes while files are read.

use std::ops::Range;
use std::sync::Arc;

use super::diagnostic::{Code, Diagnostic, Diagnostics, Label, Severity};
use super::text::Lines;

/// More than this helps nobody, and a large broken file must not make a larger report.
const KEPT_MAX: usize = 1_000;
const COLLECTED_MAX: usize = 20_000;

/// Bytes of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) file: usize,
    pub(super) span: Range<usize>,
}

impl Place {
    pub(super) fn new(file: usize, span: Range<usize>) -> Self {
        Self { file, span }
    }

    pub(super) fn start(file: usize) -> Self {
        Self { file, span: 0..0 }
    }
}

/// Something that was written, and where.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

/// A mistake whose places are still bytes.
pub(super) struct Draft {
    severity: Severity,
    code: Code,
    message: String,
    label: (Place, String),
    related: Vec<(Place, String)>,
    help: Option<String>,
}

impl Draft {
    pub(super) fn error(message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code: Code::BadValue,
            message: message.into(),
            label: (Place::start(0), String::new()),
            related: Vec::new(),
            help: None,
        }
    }

    pub(super) fn warning(message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(message) }
    }

    /// What kind of mistake it is, if it isn't a value that can't be.
    pub(super) fn code(mut self, code: Code) -> Self {
        self.code = code;
        self
    }

    pub(super) fn at(mut self, place: Place, label: impl Into<String>) -> Self {
        self.label = (place, label.into());
        self
    }

    pub(super) fn also(mut self, place: Place, label: impl Into<String>) -> Self {
        self.related.push((place, label.into()));
        self
    }

    pub(super) fn help(mut self, text: impl Into<String>) -> Self {
        self.help = Some(text.into());
        self
    }
}

/// All mistakes so far.
#[derive(Default)]
pub(super) struct Report {
    drafts: Vec<Draft>,
    errors: usize,
    warnings: usize,
    omitted: usize,
}

impl Report {
    pub(super) fn push(&mut self, draft: Draft) {
        // Each severity has its own bound: no number of warnings may push an error out.
        let collected = if draft.severity == Severity::Error { &mut self.errors } else { &mut self.warnings };
        if *collected < COLLECTED_MAX {
            *collected += 1;
            self.drafts.push(draft);
        } else {
            self.omitted += 1;
        }
    }

    /// Is there so much to tell that it needn't be told well? Who makes suggestions then would take too long.
    pub(super) fn is_long(&self) -> bool {
        self.drafts.len() >= KEPT_MAX
    }

    /// Sorts them, and turns bytes into lines and columns.
    pub(super) fn finish(mut self, names: &[Arc<str>], texts: &[&str], lines: &Lines<'_>) -> Diagnostics {
        let place = |draft: &Draft| (draft.label.0.file, draft.label.0.span.start);
        if self.drafts.len() > KEPT_MAX {
            // Errors stay before warnings do: whether there is an error decides over the policy.
            self.drafts.sort_by_key(|draft| (draft.severity == Severity::Warning, place(draft)));
            self.omitted += self.drafts.len() - KEPT_MAX;
            self.drafts.truncate(KEPT_MAX);
        }
        self.drafts.sort_by_key(place);
        let label = |(place, text): (Place, String)| {
            let (line, column) = lines.position(place.file, place.span.start);
            Label { file: names[place.file].clone(), line, column, text, source: place.file, span: place.span }
        };
        let list: Vec<Diagnostic> = self
            .drafts
            .into_iter()
            .map(|draft| Diagnostic {
                severity: draft.severity,
                code: draft.code,
                message: draft.message,
                label: label(draft.label),
                related: draft.related.into_iter().map(label).collect(),
                help: draft.help,
            })
            .collect();
        let mut kept: Vec<Arc<str>> = vec![Arc::from(""); texts.len()];
        for label in list.iter().flat_map(|diagnostic| diagnostic.related.iter().chain([&diagnostic.label])) {
            if kept[label.source].is_empty() {
                kept[label.source] = Arc::from(texts[label.source]);
            }
        }
        Diagnostics { list, omitted: self.omitted, texts: kept }
    }
}
