//! Diagnostics as people read them: the offending lines, with marks under what is meant.

use std::ops::Range;

use annotate_snippets::{Annotation, AnnotationKind, Element, Level, Message, Origin, Renderer, Snippet};

use super::diagnostic::{Diagnostic, Diagnostics, Label, Severity};
use super::text::floor;

/// Two marks further apart than this are shown as two excerpts, so that drawing never reads a whole large file.
const GAP_LINES_MAX: u32 = 200;

/// A line longer than this isn't shown, only where it is.
const LINE_BYTES_MAX: usize = 4_096;

impl Diagnostics {
    /// All of them as text, with an empty line between two. `colour` is for terminals.
    pub fn render(&self, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let mut parts: Vec<String> = self.iter().map(|diagnostic| self.render_one(diagnostic, &renderer)).collect();
        if self.omitted > 0 {
            parts.push(format!("… and {} more", self.omitted));
        }
        parts.iter_mut().for_each(|part| part.truncate(part.trim_end().len()));
        if parts.is_empty() { String::new() } else { parts.join("\n\n") + "\n" }
    }

    fn render_one(&self, diagnostic: &Diagnostic, renderer: &Renderer) -> String {
        let level = match diagnostic.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut elements: Vec<Element<'_>> = Vec::new();
        let mut rest: Vec<&Label> = std::iter::once(&diagnostic.label).chain(&diagnostic.related).collect();
        // The excerpt with the primary mark comes first; what is near it is shown in it.
        while let Some(first) = rest.first().copied() {
            let near = |label: &Label| label.source == first.source && label.line.abs_diff(first.line) <= GAP_LINES_MAX;
            let (together, others): (Vec<&Label>, Vec<&Label>) = rest.into_iter().partition(|label| near(label));
            self.excerpt(&together, first == &diagnostic.label, &mut elements);
            rest = others;
        }
        elements.extend(diagnostic.help.iter().map(|help| Element::from(message(Level::HELP, help))));
        renderer.render(&[level.primary_title(&diagnostic.message).elements(elements)])
    }

    /// Marks of one file that lie near each other.
    fn excerpt<'a>(&'a self, labels: &[&'a Label], with_primary: bool, elements: &mut Vec<Element<'a>>) {
        let text: &str = self.texts.get(labels[0].source).map_or("", |text| text);
        let lines: Vec<Range<usize>> = labels.iter().map(|label| line_around(text, label.span.start)).collect();
        let start = lines.iter().map(|line| line.start).min().unwrap_or(0);
        let end = lines.iter().map(|line| line.end).max().unwrap_or(0);
        if lines.iter().any(|line| line.len() > LINE_BYTES_MAX) || text.is_empty() {
            for label in labels {
                let place = Origin::path(&*label.file).line(label.line as usize).char_column(label.column as usize);
                elements.push(place.into());
                if !label.text.is_empty() {
                    elements.push(message(Level::NOTE, &label.text).into());
                }
            }
            return;
        }
        let first_line = labels.iter().map(|label| label.line).min().unwrap_or(1);
        let mut snippet =
            Snippet::<Annotation<'a>>::source(&text[start..end]).path(&*labels[0].file).line_start(first_line as usize);
        for (index, (label, line)) in labels.iter().zip(lines).enumerate() {
            let from = floor(text, label.span.start).clamp(line.start, line.end);
            // A table may span many lines; its first line is enough to find it.
            let to = floor(text, label.span.end).clamp(from, line.end);
            let kind = if with_primary && index == 0 { AnnotationKind::Primary } else { AnnotationKind::Context };
            let said = (!label.text.is_empty()).then_some(label.text.as_str());
            snippet = snippet.annotation(kind.span(from - start..to - start).label(said));
        }
        elements.push(snippet.into());
    }
}

fn message<'a>(level: Level<'a>, text: &'a str) -> Message<'a> {
    level.message(text)
}

/// The line that an offset is in, without its end.
fn line_around(text: &str, offset: usize) -> Range<usize> {
    let offset = floor(text, offset);
    let start = text[..offset].rfind('\n').map_or(0, |at| at + 1);
    let end = text[offset..].find('\n').map_or(text.len(), |at| offset + at);
    start..end
}
