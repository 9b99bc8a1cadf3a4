//! `espalier get`: asks a running controller.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::server::{Failure, Server};
use super::{NO, UNREACHABLE, USAGE, fail, print, table};

/// What to get, and how to show it.
#[derive(Debug, Args)]
pub(super) struct Get {
    /// What
    #[arg(value_enum)]
    what: What,
    /// Only this one: a bridge (by name or datapath id), a tenant; of links those at a bridge; of hosts those of a
    /// tenant or bridge, or with a MAC or IP address; of limits those of a tenant, at a bridge or port; of chains those of
    /// a tenant, or with a name
    name: Option<String>,
    /// How to show it
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
    #[command(flatten)]
    server: Server,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum What {
    Status,
    Bridges,
    Links,
    Hosts,
    Tenants,
    Tree,
    Chains,
    Limits,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    Table,
    Json,
}

pub(super) fn run(get: &Get) -> ExitCode {
    let collection = match get.what {
        What::Status => "status",
        What::Bridges => "bridges",
        What::Links => "links",
        What::Hosts => "hosts",
        What::Limits => "limits",
        What::Chains => "chains",
        What::Tenants | What::Tree => "tenants",
    };
    let path = match (&get.name, get.what) {
        (Some(_), What::Status) => return fail(USAGE, "status is of the whole controller and takes no name"),
        (Some(name), What::Bridges | What::Tenants | What::Tree) => format!("{collection}/{}", escape(name)),
        _ => collection.to_owned(),
    };
    let mut document = match get.server.get(&path) {
        Ok(document) => document,
        Err(Failure::Refused(text)) => return fail(NO, &text),
        Err(failure) => return failure.tell(),
    };
    if let (Some(name), What::Links | What::Hosts | What::Limits | What::Chains, Value::Array(rows)) =
        (&get.name, get.what, &mut document)
    {
        rows.retain(|row| concerns(row, name));
        if rows.is_empty() {
            return fail(NO, &format!("there are no {collection} for \"{name}\""));
        }
    }
    let text = match get.output {
        Output::Json => serde_json::to_string_pretty(&document).map(|text| text + "\n"),
        Output::Table => table::show(get.what, document),
    };
    match text {
        Ok(text) => print(&text),
        Err(error) => fail(UNREACHABLE, &get.server.strange(&error)),
    }
}

/// Is a link at, or a host or limit of, what has this name?
fn concerns(row: &Value, name: &str) -> bool {
    let is = |value: &Value| value.as_str().is_some_and(|text| text.eq_ignore_ascii_case(name));
    let ips = row["ips"].as_array().is_some_and(|ips| ips.iter().any(is));
    ips || [
        &row["a"]["bridge"],
        &row["b"]["bridge"],
        &row["tenant"],
        &row["mac"],
        &row["bridge"],
        &row["port"],
        &row["name"],
    ]
    .into_iter()
    .any(is)
}

fn escape(name: &str) -> String {
    let plain = |octet: u8| octet.is_ascii_alphanumeric() || b"-._~:".contains(&octet);
    name.bytes()
        .map(|octet| if plain(octet) { char::from(octet).to_string() } else { format!("%{octet:02X}") })
        .collect()
}
