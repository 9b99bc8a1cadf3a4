//! `espalier get`: asks a running controller.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::Value;

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
    /// Where the controller serves REST
    #[arg(long, env = "ESPALIER_SERVER", default_value = "http://127.0.0.1:8653", value_name = "URL")]
    server: String,
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
enum Output {
    Table,
    Json,
}

enum Failure {
    Unreachable(String),
    NotFound(String),
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
    let mut document = match ask(&get.server, &path) {
        Ok(document) => document,
        Err(Failure::NotFound(text)) => return fail(NO, &text),
        Err(Failure::Unreachable(text)) => return fail(UNREACHABLE, &text),
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
        Err(error) => fail(UNREACHABLE, &format!("{} doesn't answer like this version does: {error}", get.server)),
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

fn ask(server: &str, path: &str) -> Result<Value, Failure> {
    let url = format!("{}/v1/{path}", server.trim_end_matches('/'));
    let config =
        ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(Duration::from_secs(10)));
    let agent = ureq::Agent::from(config.build());
    let unreachable = |error: &dyn std::fmt::Display| {
        let hint = "is `espalier serve` running? name its REST address with --server or ESPALIER_SERVER";
        Failure::Unreachable(format!("the controller can't be reached at {url}: {error}; {hint}"))
    };
    let mut answer = agent.get(&url).call().map_err(|error| unreachable(&error))?;
    let status = answer.status();
    let body = answer.body_mut().with_config().limit(1 << 30).read_to_vec().map_err(|error| unreachable(&error))?;
    let document: Value = serde_json::from_slice(&body)
        .map_err(|_| unreachable(&format!("it answered {status}, not as Espalier does")))?;
    let detail = document["detail"].as_str().unwrap_or("no more is known").to_owned();
    match status.as_u16() {
        200 => Ok(document),
        404 => Err(Failure::NotFound(detail)),
        _ => Err(unreachable(&format!("it answered {status}: {detail}"))),
    }
}

fn escape(name: &str) -> String {
    let plain = |octet: u8| octet.is_ascii_alphanumeric() || b"-._~:".contains(&octet);
    name.bytes()
        .map(|octet| if plain(octet) { char::from(octet).to_string() } else { format!("%{octet:02X}") })
        .collect()
}
