//! `espalier check`: is a policy valid, and what looks odd about it?

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use apps::policy::{self, Diagnostic, Diagnostics, Label, Loaded};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::{USAGE, fail, print, sources};

/// Which policy, and how to say what is wrong with it.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 it is valid, though there may be warnings; 2 wrong use or bad policy. As JSON: a list of \
                        {file, line, column, severity, code, text, help, related}, one for each mistake and warning."
)]
pub(super) struct Check {
    /// Policy files, or folders whose *.toml files are read; `-`: standard input
    #[arg(required = true, value_name = "POLICY")]
    policy: Vec<PathBuf>,
    /// How to say it
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

pub(super) fn run(check: &Check) -> ExitCode {
    let sources = match sources(&check.policy) {
        Ok(sources) => sources,
        Err(bad) if check.output == Output::Json => return done(USAGE, &json!([unreadable(&bad.to_string())])),
        Err(bad) => return fail(USAGE, &bad.to_string()),
    };
    let loaded = policy::load(&sources);
    if check.output == Output::Json {
        return match &loaded {
            Ok(loaded) => done(0, &list(&loaded.warnings)),
            Err(mistakes) => done(USAGE, &list(mistakes)),
        };
    }
    let colour = std::io::stderr().is_terminal();
    match loaded {
        Err(mistakes) => fail(USAGE, &mistakes.render(colour)),
        Ok(Loaded { policy, warnings }) => {
            if !warnings.is_empty() {
                eprintln!("{}", warnings.render(colour));
            }
            let ports: usize = policy.tenants.iter().map(|tenant| tenant.ports.len()).sum();
            let (tenants, bridges) = (policy.tenants.len(), policy.bridges.len());
            let odd = match warnings.len() + warnings.omitted() {
                0 => String::new(),
                1 => ", 1 warning".to_owned(),
                some => format!(", {some} warnings"),
            };
            print(&format!("ok: {tenants} tenants, {ports} port entries, {bridges} named bridges{odd}\n"))
        }
    }
}

/// Shows a document, and ends with this code.
fn done(code: u8, document: &Value) -> ExitCode {
    let printed = print(&format!("{document:#}\n"));
    if code == 0 { printed } else { ExitCode::from(code) }
}

fn list(diagnostics: &Diagnostics) -> Value {
    let mut list: Vec<Value> = diagnostics.iter().map(one).collect();
    if diagnostics.omitted() > 0 {
        let text = format!("there are {} more", diagnostics.omitted());
        list.push(
            json!({ "file": null, "line": null, "column": null, "severity": "note", "code": "more", "text": text }),
        );
    }
    list.into()
}

fn one(diagnostic: &Diagnostic) -> Value {
    let Label { file, line, column, .. } = &diagnostic.label;
    let related =
        |label: &Label| json!({ "file": &*label.file, "line": label.line, "column": label.column, "text": label.text });
    json!({
        "file": &**file,
        "line": line,
        "column": column,
        "severity": diagnostic.severity.to_string(),
        "code": diagnostic.code.to_string(),
        "text": diagnostic.message,
        "help": diagnostic.help,
        "related": diagnostic.related.iter().map(related).collect::<Vec<_>>(),
    })
}

/// A file that can't be read has no place to point to.
fn unreadable(text: &str) -> Value {
    json!({ "file": null, "line": null, "column": null, "severity": "error", "code": "unreadable", "text": text })
}
