//! Which rows of the tables occur in messages.

use std::collections::BTreeSet;

use openflow::action::{Action, ControllerProperty};
use openflow::experimenter::{Experimenter, ExperimenterReply, ExperimenterRequest};
use openflow::instruction::Instruction;
use openflow::message::Message;
use openflow::meter::Band;
use openflow::multipart::{MultipartReply, MultipartRequest};
use openflow::oxm;
use openflow::port::QueueProperty;
use openflow::switch::HelloElement;
use openflow::table::TableProperty;
use serde_json::Value;

use crate::facts::snake;

/// Every key, with the one that it is found under, and every text that stands in a list or for a whole variant.
fn walk(value: &Value, under: &str, found: &mut BTreeSet<(String, String)>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                found.insert((under.to_owned(), key.clone()));
                walk(value, key, found);
            }
        }
        Value::Array(list) => list.iter().for_each(|value| walk(value, under, found)),
        Value::String(text) => {
            found.insert((under.to_owned(), text.clone()));
        }
        _ => {}
    }
}

/// What occurs in none of the messages.
pub(crate) fn missing(messages: &[Value]) -> Vec<String> {
    let mut found = BTreeSet::new();
    let mut multiparts = BTreeSet::new();
    for message in messages {
        walk(message, "", &mut found);
        if message["type"] == "multipart_request" || message["type"] == "multipart_reply" {
            let mut kinds = BTreeSet::new();
            walk(&message["body"]["body"], "", &mut kinds);
            multiparts.extend(
                kinds
                    .into_iter()
                    .filter(|(under, _)| under.is_empty())
                    .map(|(_, kind)| (message["type"].to_string(), kind)),
            );
        }
    }
    let has =
        |places: &[&str], name: &str| places.iter().any(|place| found.contains(&((*place).to_owned(), snake(name))));
    let mut missing = Vec::new();
    let mut demand = |what: &str, name: &str, there: bool| {
        if !there {
            missing.push(format!("{what} {}", snake(name)));
        }
    };
    for (_, name) in Message::KINDS {
        demand("message", name, has(&["type"], name));
    }
    for (what, kinds) in [("multipart_request", MultipartRequest::KINDS), ("multipart_reply", MultipartReply::KINDS)] {
        for (_, name) in kinds {
            demand(what, name, multiparts.contains(&(format!("\"{what}\""), snake(name))));
        }
    }
    for name in Action::KINDS {
        demand("action", name, has(&["actions", "write_actions", "apply_actions", "clone"], name));
    }
    let lists: [(&str, &[&str], &[&str]); 9] = [
        ("instruction", &["instructions"], Instruction::KINDS),
        ("hello element", &["elements"], HelloElement::KINDS),
        ("meter band", &["bands"], Band::KINDS),
        ("queue property", &["properties"], QueueProperty::KINDS),
        ("table property", &["properties"], TableProperty::KINDS),
        ("property of a copy to the controller", &["controller2"], ControllerProperty::KINDS),
        ("experimenter", &["body"], Experimenter::KINDS),
        ("experimenter request", &["experimenter"], ExperimenterRequest::KINDS),
        ("experimenter reply", &["experimenter"], ExperimenterReply::KINDS),
    ];
    for (what, places, names) in lists {
        for name in names {
            demand(what, name, has(places, name));
        }
    }
    for field in oxm::FIELDS {
        // A value of it, not only its name.
        demand("field", field.name, has(&["matching", "set_field", "reg_load2"], field.name));
    }
    missing
}
