//! Goal: an operator sees what a policy would change, brings it into force, takes it back, and is protected from cutting off
//! himself: what isn't confirmed goes by itself, also when the controller was killed meanwhile. Method: the program, over REST
//! and on the command line, without policy files, with bridges that keep no tables of their own.

mod support;

use std::time::Duration;

use controller::history::FORMER_MAX;
use serde_json::Value;
use support::model::{Manner, Model};
use support::operator::{Operator, policy};
use support::program::Program;

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_is_put_got_and_matched_by_its_tag() {
    let operator = Operator::start();
    let (status, head, empty) = operator.program.call("/v1/policy").await;
    assert!(status == 200 && empty.is_empty() && head.contains("content-type: application/toml"), "{head}");
    let (status, head, answer) = operator.put("", "", &policy(1)).await;
    let tag = format!("etag: \"{}\"", answer["digest"].as_str().unwrap());
    assert!(status == 200 && head.contains(&tag), "{head}");
    assert_eq!(
        (&answer["generation"], &answer["changed"], &answer["confirm_until"]),
        (&1.into(), &true.into(), &Value::Null)
    );
    let (_, head, text) = operator.program.call("/v1/policy").await;
    assert!(head.contains(&tag) && text == format!("#: file policy.toml\n{}", policy(1)), "{head}{text}");
    operator.wait(1).await;
    let told = &operator.program.get("/v1/status").await["policy"];
    assert_eq!((&told["digest"], &told["source"]), (&answer["digest"], &"store".into()));

    // What was got can be put; it is the same.
    let (status, _, again) = operator.put("", "", &text).await;
    assert_eq!((status, &again["changed"], &again["generation"]), (200, &false.into(), &1.into()));

    // Only one of two that saw the same wins.
    let digest = answer["digest"].as_str().unwrap();
    let mut number = 1;
    let only_if = format!("If-Match: \"{digest}\"\r\n");
    for (head, status) in [
        (only_if.as_str(), 200),
        (&only_if, 412),
        ("If-Match: \"x\", W/\"y\"\r\n", 412),
        ("If-Match: \u{e9}\r\n", 412),
        ("If-Match: *\r\n", 200),
    ] {
        number += 1;
        let (got, _, body) = operator.put("", head, &policy(number)).await;
        assert_eq!(got, status, "{head}: {body}");
        assert_eq!(operator.text().await.contains(&policy(number)), status == 200);
        if status == 412 {
            assert!(body["detail"].as_str().unwrap().contains("its digest is"), "{body}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_policy_changes_nothing_and_is_told_by_file_and_line() {
    let operator = Operator::start();
    operator.put("", "", &policy(1)).await;
    let text = format!("#: file a.toml\n{}#: file b.toml\nversion = 1\n\noops = 1\n", policy(1));
    for path in ["", "/plan"] {
        let method = if path.is_empty() { "PUT" } else { "POST" };
        for (body, query, status, part) in [
            (text.as_str(), "", 422, "b.toml:3:1"),
            ("version = 1\noops = 1\n", "", 422, "policy.toml:2:1"),
            ("", "", 422, "version"),
            (&"x".repeat((16 << 20) + 1), "", 400, "at most"),
            ("version = 1\n", "?confirm=1s", 400, "confirm"),
        ] {
            let path = format!("/v1/policy{path}{query}");
            let (got, head, answer) = operator.program.send(method, &path, "", body).await;
            assert_eq!(got, status, "{method} {path}: {answer}");
            let answer: Value = serde_json::from_str(&answer).unwrap();
            assert!(answer["detail"].as_str().unwrap().contains(part), "{part}: {answer}");
            assert!(head.contains("application/problem+json"), "{head}");
        }
    }
    for query in ["?confirm_within=1d", "?confirm_within=0s", "?confirm_within="] {
        assert_eq!(operator.put(query, "", &policy(2)).await.0, 400, "{query}");
    }
    // Nor does a page of another server change something with a browser's help.
    for (head, status) in [("Origin: http://evil.example\r\n", 403), ("Origin: null\r\n", 403)] {
        let (got, _, body) = operator.program.send("POST", "/v1/policy/undo", head, "").await;
        assert_eq!(got, status, "{body}");
    }
    operator.wait(1).await;
    assert!(operator.text().await.contains(&policy(1)));
    let own = format!("Origin: http://{}\r\n", operator.program.rest);
    assert_eq!(operator.program.send("POST", "/v1/policy/undo?empty=true", &own, "").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn undo_goes_back_step_by_step_as_far_as_policies_are_kept() {
    let mut operator = Operator::start();
    assert_eq!(operator.post("undo", "").await.0, 409);
    let many = FORMER_MAX as u32 + 2;
    for number in 1..=many {
        assert_eq!(operator.put("", "", &policy(number)).await.0, 200);
    }
    for number in (2..many).rev() {
        if number == 5 {
            operator.program.signal("-KILL");
            operator.restart();
        }
        let (status, answer) = operator.post("undo", "").await;
        assert_eq!((status, &answer["generation"]), (200, &(many + many - number).into()), "{answer}");
        assert!(operator.text().await.contains(&policy(number)), "{number}");
        operator.program.wait("its key", "/v1/tenants/green", |tenant| tenant["key"] == number).await;
    }
    let (status, answer) = operator.post("undo", "").await;
    assert!(status == 409 && answer["detail"].as_str().unwrap().contains("no policy before"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_confirmed_in_time_goes_by_itself() {
    let operator = Operator::start();
    operator.put("", "", &policy(1)).await;
    let (status, answer) = operator.post("confirm", "").await;
    assert!(status == 409 && answer["detail"].as_str().unwrap().contains("needn't be confirmed"), "{answer}");

    let (_, _, answer) = operator.put("?confirm_within=500ms", "", &policy(2)).await;
    assert!(answer["confirm_until"].as_str().unwrap().ends_with('Z'), "{answer}");
    operator.calm(3).await;
    assert!(operator.text().await.contains(&policy(1)));

    // While one waits, nothing else is brought into force.
    operator.put("?confirm_within=1h", "", &policy(4)).await;
    assert!(operator.problems().await.contains("policy generation 4 waits for `espalier confirm`"));
    let (status, _, refused) = operator.put("", "", &policy(5)).await;
    assert!(status == 409 && refused["detail"].as_str().unwrap().contains("generation 4 waits"), "{refused}");
    assert!(operator.text().await.contains(&policy(4)));
    assert_eq!(operator.post("confirm", "").await.0, 200);
    operator.calm(4).await;

    assert_eq!(operator.post("confirm", "").await.0, 409, "it is already");

    // Undone before that, nothing is left to confirm.
    operator.put("?confirm_within=300ms", "", &policy(6)).await;
    assert_eq!(operator.post("undo", "").await.1["generation"], 6);
    tokio::time::sleep(Duration::from_millis(600)).await;
    operator.calm(6).await;
    assert!(operator.text().await.contains(&policy(4)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_confirmation_outlives_the_controller() {
    let mut operator = Operator::start();
    operator.put("", "", &policy(1)).await;
    // The time goes on where it was.
    operator.put("?confirm_within=4s", "", &policy(2)).await;
    operator.program.signal("-KILL");
    operator.restart();
    operator.wait(2).await;
    assert!(operator.problems().await.contains("generation 2 waits"));
    operator.wait(3).await;
    assert!(operator.text().await.contains(&policy(1)));

    // It is over before the controller is back: the unconfirmed one never comes into force again.
    operator.put("?confirm_within=300ms", "", &policy(4)).await;
    operator.program.signal("-KILL");
    operator.program.child.wait().unwrap();
    tokio::time::sleep(Duration::from_millis(400)).await;
    operator.restart();
    let log = operator.program.log().join("\n");
    assert!(log.contains("nobody confirmed policy generation 4") && log.contains("generation 5 is in force"), "{log}");
    assert!(!log.contains("generation 4 is in force"), "{log}");
    assert!(operator.text().await.contains(&policy(1)));

    // Confirmed, it stays.
    operator.put("?confirm_within=1s", "", &policy(6)).await;
    assert_eq!(operator.post("confirm", "").await.0, 200);
    operator.program.signal("-KILL");
    operator.program.child.wait().unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    operator.restart();
    operator.calm(6).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_counts_what_applying_does_and_changes_nothing() {
    let operator = Operator::start();
    let manner = Manner { ports: vec!["green-1", "spare"], ..Manner::default() };
    let model = Model::connect(operator.program.openflow, 0xa, manner).await;
    let converged = |status: &Value| status["converged"] == true && status["bridges"]["connected"] == 1;
    operator.program.wait("the bridge holds what it should", "/v1/status", converged).await;
    let flows = async || {
        let bridges = operator.program.wait("it holds that", "/v1/bridges", |it| it[0]["converged"] == true).await;
        bridges[0]["installed"]["flows"].as_i64().unwrap()
    };
    let mut former = flows().await;
    for number in [1, 2] {
        let changes = model.changes();
        let (status, plan) = operator.post("plan?flows=true", &policy(number)).await;
        assert_eq!((status, &plan["same"]), (200, &false.into()), "{plan}");
        assert_eq!(plan["objects"][0]["kind"], "tenant");
        let counts = &plan["bridges"][0]["flows"];
        let of = |what: &str| counts[what].as_i64().unwrap();
        assert!(!plan["bridges"][0]["entries"].as_array().unwrap().is_empty());
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(
            (operator.generation().await, model.changes()),
            (u64::from(number) - 1, changes),
            "a plan is only a plan"
        );
        operator.put("", "", &policy(number)).await;
        operator.wait(number.into()).await;
        let now = flows().await;
        assert_eq!(now - former, of("added") - of("removed"), "{plan}");
        former = now;
        let (_, plan) = operator.post("plan", &policy(number)).await;
        assert_eq!(
            (&plan["same"], &plan["objects"], &plan["bridges"]),
            (&true.into(), &Value::Array(vec![]), &Value::Array(vec![]))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_the_one_source_where_there_are_some() {
    let mut operator = Operator::start();
    operator.put("?confirm_within=1h", "", &policy(1)).await;
    operator.program.signal("-TERM");
    operator.program.child.wait().unwrap();
    let file = operator.folder.write("p.toml", &policy(2));
    let state = operator.folder.0.join("state");
    operator.program = Program::start(&["--state", state.to_str().unwrap(), "--policy", file.to_str().unwrap()]);
    let (status, _, answer) = operator.put("", "", &policy(3)).await;
    let detail = answer["detail"].as_str().unwrap();
    assert!(status == 409 && detail.contains("p.toml") && detail.contains("watched"), "{answer}");
    for what in ["undo", "confirm"] {
        assert_eq!(operator.post(what, "").await.0, 409, "{what}");
    }
    operator.folder.write("new.toml", &policy(3));
    for arguments in [&["apply", "new.toml"][..], &["undo"], &["confirm"]] {
        let (code, _, text) = operator.run(arguments);
        assert!(code == 4 && text.contains("p.toml"), "{arguments:?}: {code} {text}");
    }
    assert!(operator.text().await.contains(&policy(2)));
    assert_eq!(operator.program.get("/v1/status").await["policy"]["source"], "files");
    let (code, text, _) = operator.run(&["plan", "new.toml"]);
    assert!(code == 1 && text.contains("~ tenant green\n    key: 2 ⇒ 3"), "{text}");
    assert_eq!(operator.run(&["plan", "p.toml"]).0, 0);

    // Without files again, undo leads to what was in force before them.
    operator.program.signal("-TERM");
    operator.restart();
    operator.calm(2).await;

    assert_eq!(operator.post("undo", "").await.0, 200);
    assert!(operator.text().await.contains(&policy(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_does_it_all_and_ends_with_the_codes_of_the_contract() {
    let mut operator = Operator::start();
    std::fs::create_dir(operator.folder.0.join("d")).unwrap();
    operator.folder.write("d/a.toml", &policy(7));
    operator.folder.write("d/b.toml", "version = 1\n[[tenant]]\nname = \"blue\"\n");
    operator.folder.write("bad.toml", "version = 1\n\noops = 1\n");
    let model =
        Model::connect(operator.program.openflow, 0xa, Manner { ports: vec!["green-1"], ..Manner::default() }).await;

    for command in ["plan", "apply"] {
        let (code, _, text) = operator.run(&[command, "d", "bad.toml"]);
        assert!(code == 2 && text.contains("bad.toml:3:1"), "{command}: {code} {text}");
    }
    assert_eq!(operator.generation().await, 0);
    let (code, text, _) = operator.run(&["plan", "d", "--flows"]);
    assert!(code == 1 && text.contains("+ tenant green") && text.contains("+ port */green-* of green"), "{text}");
    assert!(text.contains("BRIDGE") && text.contains("  + flow 0 admit, "), "{text}");
    let (code, text, _) = operator.run(&["plan", "d", "-o", "json"]);
    assert_eq!((code, serde_json::from_str::<Value>(&text).unwrap()["same"].clone()), (1, false.into()));

    let (code, text, error) = operator.run(&["apply", "d", "--wait"]);
    assert!(code == 0 && text.contains("policy generation 1 is in force\nall connected bridges"), "{text}{error}");
    assert!(error.contains("d/b.toml") && error.contains("blue"), "warnings are told: {error}");
    let (code, text, _) = operator.run(&["plan", "d"]);
    assert!(code == 0 && text.ends_with("nothing would change\n"), "{text}");
    let (code, text, _) = operator.run(&["apply", "d"]);
    assert!(code == 0 && text.contains("generation 1 is in force, as before"), "{text}");
    // The lines are those of the files, wherever they are told.
    assert!(operator.text().await.starts_with("#: file d/a.toml\nversion = 1\n# 7\n"));
    // What was got is a policy file like any other.
    operator.folder.write("saved.toml", &operator.text().await);
    let (code, text, error) = operator.run(&["plan", "saved.toml"]);
    assert!(code == 0 && text.ends_with("nothing would change\n"), "{text}{error}");

    operator.folder.write("next.toml", &policy(8));
    let (code, _, text) = operator.run(&["apply", "next.toml", "--if-match", "0123"]);
    assert!(code == 4 && text.contains("digest"), "{text}");
    let (code, text, _) = operator.run(&["apply", "next.toml", "--confirm-within", "1h", "--wait=20s"]);
    assert!(code == 0 && text.contains("without `espalier confirm` the one before it returns at 2"), "{text}");
    let (code, _, text) = operator.run(&["apply", "d"]);
    assert!(code == 4 && text.contains("espalier undo"), "{text}");
    let (code, text, _) = operator.run(&["confirm"]);
    assert!(code == 0 && text.contains("policy generation 2 is confirmed"), "{text}");
    assert_eq!(operator.run(&["confirm"]).0, 4);
    let (code, text, _) = operator.run(&["undo", "--wait"]);
    assert!(code == 0 && text.contains("policy generation 3 is in force"), "{text}");
    assert!(operator.text().await.contains(&policy(7)));

    // A bridge that doesn't acknowledge is named.
    drop(model);
    let gone = |status: &Value| status["bridges"]["connected"] == 0;
    operator.program.wait("the bridge is gone", "/v1/status", gone).await;
    let manner = Manner { ports: vec!["green-1"], withholds: true, ..Manner::default() };
    let _model = Model::connect(operator.program.openflow, 0xb, manner).await;
    let (code, _, text) = operator.run(&["apply", "next.toml", "--wait=300ms"]);
    assert!(code == 1 && text.contains("bridge 000000000000000b holds 0 of"), "{code} {text}");

    operator.program.signal("-KILL");
    operator.program.child.wait().unwrap();
    for arguments in [&["plan", "d"][..], &["apply", "d"], &["confirm"], &["undo"]] {
        assert_eq!(operator.run(arguments).0, 3, "{arguments:?}");
    }
    for arguments in [&["plan"][..], &["apply"], &["apply", "d", "--confirm-within", "1"], &["undo", "x"]] {
        assert_eq!(operator.run(arguments).0, 2, "{arguments:?}");
    }
}
