//! Goal: an operator asks where a frame goes, over REST or on the command line, and gets an answer that holds now; a
//! question that makes no sense is told what is wrong with it. Method: the program with a policy and bridges that keep
//! no tables of their own; the answers are compared with the policy.

mod support;

use std::process::Output;

use apps::pipeline::LEARN;
use controller::daemon;
use openflow::matching::Match;
use openflow::message::Message;
use openflow::oxm::Oxm;
use openflow::packet::{PacketIn, PacketInReason};
use openflow::types::{BufferId, Cookie, PortNo};
use serde_json::{Value, json};
use support::model::{Manner, Model};
use support::program::{Program, espalier};
use support::{Folder, PATIENCE};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const POLICY: &str = r#"version = 1
[[tenant]]
name = "green"
unknown_unicast = "drop"
ports = [
  { bridge = "000000000000000a", port = "web", name = "web-1", mac = "02:00:00:00:00:01", ip = ["10.0.0.1"] },
  { bridge = "*", port = "green-*" },
]
"#;

/// Status, head and body of what is answered to these octets.
async fn post(rest: std::net::SocketAddr, length: usize, body: &str) -> (u16, String, Value) {
    let mut stream = TcpStream::connect(rest).await.unwrap();
    let head = "POST /v1/trace HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length:";
    stream.write_all(format!("{head} {length}\r\n\r\n{body}").as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_lowercase(), serde_json::from_str(body).unwrap())
}

async fn ask(program: &Program, question: &Value) -> (u16, String, Value) {
    let body = question.to_string();
    post(program.rest, body.len(), &body).await
}

/// The program with a bridge on which a host has sent an ARP request.
async fn start() -> (Program, Model) {
    let program = Program::with_policy(POLICY);
    let manner = Manner { ports: vec!["web", "green-1"], ..Manner::default() };
    let model = Model::connect(program.openflow, 0xa, manner).await;
    let arp = [0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 2, 10, 0, 0, 2, 0, 0, 0, 0, 0, 0, 10, 0, 0, 1];
    let data: Vec<u8> = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 2], &[8, 6], &arp].concat();
    let packet = PacketIn {
        buffer_id: BufferId::NONE,
        total_len: data.len() as u16,
        reason: PacketInReason::Action,
        table: LEARN,
        cookie: Cookie(0),
        matching: Match::new([Oxm::InPort(PortNo(2), None)]),
        data: data.into(),
    };
    let converged = |status: &Value| status["converged"] == true && status["bridges"]["connected"] == 1;
    program.wait("the bridge holds what it should", "/v1/status", converged).await;
    model.send(7, &Message::PacketIn(packet));
    let learnt = |status: &Value| status["hosts"] == 2 && converged(status);
    program.wait("the host is known", "/v1/status", learnt).await;
    (program, model)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_over_rest_is_answered_with_the_way() {
    let (program, _model) = start().await;
    let (status, head, trace) =
        ask(&program, &json!({"tenant": "green", "from": "web-1", "to": "10.0.0.2", "protocol": "tcp", "port": 80}))
            .await;
    assert!(status == 200 && head.contains("content-type: application/json"), "{head} {trace}");
    let to = json!([{ "bridge": "000000000000000a", "port": "green-1" }]);
    assert_eq!(trace["verdict"], json!({ "delivered": true, "to": to, "controller": 0, "ended": [] }));
    assert_eq!((&trace["frame"]["destination"], &trace["notes"]), (&json!("02:00:00:00:00:02"), &json!([])));
    let first = &trace["steps"][1];
    assert_eq!(
        (&first["bridge"], &first["step"], &first["name"]),
        (&json!("000000000000000a"), &json!("table"), &json!("admit"))
    );
    let origin = first["entry"]["origin"].as_str().unwrap();
    assert!(origin.ends_with("policy.toml:6"), "{origin}");
    // Without a protocol it is a ping; broadcast is nobody's address.
    let (status, _, trace) = ask(&program, &json!({"tenant": "GREEN", "from": "10.0.0.2", "to": "broadcast"})).await;
    assert_eq!((status, trace["verdict"]["to"].as_array().map(Vec::len)), (200, Some(1)), "{trace}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_holds_what_has_just_changed() {
    let (program, model) = start().await;
    let question = json!({"tenant": "green", "from": "web-1", "to": "02:00:00:00:00:02"});
    assert_eq!(ask(&program, &question).await.2["verdict"]["delivered"], true);
    // What a bridge does that nobody can ask isn't known.
    drop(model);
    let gone = |status: &Value| status["bridges"]["connected"] == 0;
    program.wait("the bridge is gone", "/v1/status", gone).await;
    let start = std::time::Instant::now();
    loop {
        let (status, _, trace) = ask(&program, &question).await;
        assert_eq!(status, 200, "{trace}");
        if trace["verdict"]["ended"][0]["why"].as_str().is_some_and(|why| why.contains("doesn't answer")) {
            assert_eq!(trace["verdict"]["delivered"], false);
            return;
        }
        assert!(start.elapsed() < PATIENCE, "{trace}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_that_make_no_sense_are_told_what_is_wrong() {
    let (program, _model) = start().await;
    for (question, status, part) in [
        (json!({"tenant": "blue", "from": "web-1", "to": "10.0.0.2"}), 404, "tenant with the name \"blue\""),
        (json!({"tenant": "green", "from": "web-9", "to": "10.0.0.2"}), 404, "port or host \"web-9\""),
        (json!({"tenant": "green", "from": "web-1", "to": "10.0.0.9"}), 404, "\"10.0.0.9\""),
        (json!({"tenant": "green", "from": "web-1", "to": "10.0.0.2", "protocol": "udp"}), 400, "destination port"),
        (json!({"tenant": "green", "from": "web-1", "to": "10.0.0.2", "port": 1}), 400, "have no port"),
        (json!({"tenant": "green", "from": "web-1", "to": "10.0.0.2", "protocol": "gre"}), 400, "gre"),
        (json!({"tenant": "green", "from": "web-1", "to": "10.0.0.2", "protocol": "tcp", "port": 65536}), 400, "65536"),
        (json!({"tenant": "green", "from": "web-1", "to": "10.0.0.2", "prot": "tcp"}), 400, "prot"),
        (json!({"tenant": "green", "from": "web-1"}), 400, "`to`"),
        (json!([]), 400, "the body is no request"),
        (json!("x".repeat(70_000)), 400, "65536 bytes at most"),
    ] {
        let (got, head, problem) = ask(&program, &question).await;
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert!(got == status && problem["status"] == status && detail.contains(part), "{got} {problem}");
        assert!(head.contains("content-type: application/problem+json"), "{head}");
    }
    for body in ["", "{", "\u{0}", "{\"tenant\": \"green\", "] {
        assert_eq!(post(program.rest, body.len(), body).await.0, 400, "{body:?}");
    }
    assert_eq!(program.call("/v1/trace").await.0, 405);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_does_not_finish_its_body_is_told_so() {
    let folder = Folder::new();
    let handle = daemon::start(folder.options()).await.unwrap();
    let (status, _, problem) = post(handle.rest_addr, 100, "{").await;
    assert_eq!((status, &problem["title"]), (408, &json!("Request Timeout")), "{problem}");
    handle.stop().await;
}

fn run(program: &Program, arguments: &[&str]) -> (i32, String, String) {
    let server = format!("--server=http://{}", program.rest);
    let Output { status, stdout, stderr } =
        espalier(&["trace", "--tenant", "green"]).args(arguments).arg(server).output().unwrap();
    let text = |octets: Vec<u8>| String::from_utf8(octets).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_shows_a_line_for_each_step_and_the_verdict_last() {
    let (mut program, _model) = start().await;
    let (code, text, _) = run(&program, &["--from", "web-1", "--to", "10.0.0.2", "tcp", "--port", "443"]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((code, lines.last()), (0, Some(&"delivered to 000000000000000a/green-1")), "{text}");
    assert!(lines[0].contains("tcp from 10.0.0.1 port 49152 to 10.0.0.2 port 443"), "{text}");
    let admit = lines.iter().find(|line| line.contains("0 admit")).unwrap_or_else(|| panic!("{text}"));
    assert!(admit.contains("in_port=1 → ") && admit.ends_with("policy.toml:6"), "{admit}");

    let (code, text, _) = run(&program, &["--from", "web-1", "--to", "02:00:00:00:00:99"]);
    assert!(code == 1 && text.ends_with("no entry of table 12 (forward) matches\nNOT delivered\n"), "{text}");
    let (code, text, _) = run(&program, &["--from", "web-1", "--to", "broadcast", "arp", "-o", "json"]);
    let trace: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &trace["verdict"]["delivered"]), (0, &json!(true)));

    for wrong in [
        &["--from", "web-1"][..],
        &["--from", "web-1", "--to", "web-1", "gre"],
        &["--from", "web-1", "--to", "web-1", "tcp"],
        &["--from", "web-1", "--to", "web-1", "tcp", "--port", "70000"],
        &["--from", "web-1", "--to", "web-9"],
    ] {
        let (code, text, error) = run(&program, wrong);
        assert!(code == 2 && text.is_empty() && !error.is_empty(), "{wrong:?}: {code} {text}{error}");
    }
    program.signal("-TERM");
    program.line("stopping");
    program.child.wait().unwrap();
    let (code, _, error) = run(&program, &["--from", "web-1", "--to", "web-1"]);
    assert!(code == 3 && error.contains("espalier serve"), "{error}");
}
