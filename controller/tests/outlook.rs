//! Goal: whoever changes the policy learns what comes of it: which problems are new, whether the bridges that it names hold it, to
//! what `undo` returns; and what he reads next is of that policy. Method: the program, over REST and on the command line, with
//! bridges that keep no tables of their own.

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::model::{Manner, Model};
use support::operator::{Operator, policy};

/// Green's ports, and another tenant with some.
fn with_blue(ports: &str) -> String {
    format!("{}[[tenant]]\nname = \"blue\"\nports = [{ports}]\n", policy(1))
}

async fn bridge(operator: &Operator, dpid: u64) -> Model {
    let manner = Manner { ports: vec!["green-1", "spare"], ..Manner::default() };
    let model = Model::connect(operator.program.openflow, dpid, manner).await;
    let here = |bridges: &Value| {
        bridges.as_array().is_some_and(|all| all.iter().any(|it| it["dpid"] == format!("{dpid:016x}")))
    };
    operator.program.wait("the bridge", "/v1/bridges", here).await;
    model
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_after_a_change_is_of_the_new_policy() {
    let operator = Arc::new(Operator::start());
    let _models = [bridge(&operator, 0xa).await, bridge(&operator, 0xb).await];
    for number in 1..=50 {
        let (status, _, answer) = operator.put("", "", &policy(number)).await;
        assert_eq!((status, &answer["generation"]), (200, &number.into()));
        // A plan first: it is made from what was copied for the one before.
        let (_, plan) = operator.post("plan", &policy(number)).await;
        assert_eq!(plan["same"], true, "{number}: {plan}");
        assert_eq!(operator.generation().await, u64::from(number));
        assert_eq!(operator.program.get("/v1/tenants/green").await["key"], number);
    }
    for back in 1..=8 {
        assert_eq!(operator.post("undo", "").await.0, 200);
        assert_eq!(operator.generation().await, 50 + back);
        assert_eq!(operator.program.get("/v1/tenants/green").await["key"], 50 - back);
    }
    // Several at once: nobody reads anything older than what he was answered.
    let writers: Vec<_> = (1..=4)
        .map(|writer| {
            let operator = Arc::clone(&operator);
            tokio::spawn(async move {
                for number in 0..10 {
                    let (status, _, answer) = operator.put("", "", &policy(writer * 100 + number)).await;
                    let generation = answer["generation"].as_u64().unwrap();
                    let shown = operator.generation().await;
                    assert!(status == 200 && shown >= generation, "{shown} was shown after {generation}");
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    // Nor does whoever reads first after a restart.
    let mut operator = Arc::into_inner(operator).unwrap();
    let generation = operator.generation().await;
    for _ in 0..5 {
        operator.program.signal("-KILL");
        operator.restart();
        assert_eq!(operator.generation().await, generation);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn new_problems_are_told_with_a_policy_and_make_apply_end_with_one() {
    let operator = Operator::start();
    let _model = bridge(&operator, 0xa).await;
    let twice = with_blue("{ bridge = \"*\", port = \"gr*\" }");
    for (name, text) in [("one.toml", &policy(1)), ("two.toml", &twice), ("moved.toml", &format!("# moved\n\n{twice}"))]
    {
        operator.folder.write(name, text);
    }
    let told = "port `green-1` of bridge `000000000000000a` is claimed by";
    let (code, text, error) = operator.run(&["apply", "one.toml"]);
    assert!(code == 0 && !text.contains("problem"), "{text}{error}");
    let (code, text, _) = operator.run(&["plan", "two.toml"]);
    assert!(
        code == 1 && text.contains(&format!("\nnew problem: {told}")) && operator.generation().await == 1,
        "{text}"
    );
    let (code, text, error) = operator.run(&["apply", "two.toml", "--wait"]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((code, lines[0]), (1, "policy generation 2 is in force"), "{text}{error}");
    assert!(lines[1].starts_with(&format!("new problem: {told}")) && lines[2].starts_with("all connected"), "{text}");
    assert!(error.contains("`espalier undo`") && error.contains("--accept-problems"), "{error}");
    assert!(operator.problems().await.contains(told), "it is there");
    // The same problem isn't new, wherever in the file it comes from.
    for file in ["two.toml", "moved.toml"] {
        let (code, text, error) = operator.run(&["apply", file]);
        assert!(code == 0 && !text.contains("problem"), "{text}{error}");
    }
    let (code, text, _) = operator.run(&["undo"]);
    assert!(code == 0 && text.contains("again, from two.toml; its tenants: blue, green\n"), "{text}");
    let (code, text, _) = operator.run(&["undo"]);
    assert!(code == 0 && text.contains("that of generation 1 again, from one.toml; its tenants: green\n"), "{text}");
    assert!(text.contains(&format!("\nproblem ends: {told}")), "{text}");
    let (code, text, error) = operator.run(&["apply", "two.toml", "--accept-problems"]);
    assert!(code == 0 && text.contains(&format!("\nnew problem: {told}")), "{text}{error}");
    let log = operator.program.log().join("\n");
    assert!(log.contains(&format!("new with policy generation 2: {told}")), "{log}");

    // Over REST as well.
    let (_, _, answer) = operator.put("", "", &policy(1)).await;
    assert!(answer["problems"]["ended"][0].as_str().unwrap().contains(told), "{answer}");
    assert_eq!(answer["problems"]["new"], Value::Array(vec![]), "{answer}");
    let (_, plan) = operator.post("plan", &twice).await;
    let (_, _, answer) = operator.put("", "", &twice).await;
    assert!(plan["problems"] == answer["problems"] && answer["problems"]["new"][0].as_str().unwrap().contains(told));
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_is_for_bridges_that_are_named_and_never_for_none() {
    let operator = Arc::new(Operator::start());
    operator.folder.write("any.toml", &policy(1));
    let named = "version = 1\n[[bridge]]\nname = \"east\"\ndpid = \"b\"\n[[tenant]]\nname = \"green\"\nports = [
      { bridge = \"east\", port = \"green-*\" }, { bridge = \"000000000000000b\", port = \"spare\" },
      { bridge = \"000000000000000a\", port = \"spare\" }]\n";
    operator.folder.write("named.toml", named);
    let drained = policy(2) + "[fabric]\ndrain = [{ bridge = \"gone\", port = \"*\" }]\n";
    operator.folder.write("drained.toml", &drained);

    let (code, text, error) = operator.run(&["apply", "any.toml", "--wait=300ms"]);
    assert!(code == 1 && error.starts_with("no bridge is connected after 0.3 s"), "{text}{error}");
    assert!(!format!("{text}{error}").contains("0 of 0"), "{text}{error}");
    let _a = bridge(&operator, 0xa).await;
    let (code, text, error) = operator.run(&["apply", "any.toml", "--wait"]);
    assert!(code == 0 && text.contains("all connected bridges (1 of 1) hold what it says"), "{text}{error}");
    let start = Instant::now();
    let (code, text, error) = operator.run(&["apply", "named.toml", "--wait=400ms", "--accept-problems"]);
    assert!(code == 1 && error.contains("\nbridge east, which the policy names, isn't connected"), "{text}{error}");
    assert!(!error.contains("bridge 000000000000000"), "each once, and only those that are missing: {error}");
    assert!((400..5000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    assert_eq!(operator.program.get("/v1/status").await["bridges"]["missing"], serde_json::json!(["east"]));
    assert!(operator.run(&["get", "status"]).1.contains("1 of 1 connected; the policy also names east"));

    // It comes while somebody waits.
    let waits = Arc::clone(&operator);
    let waits = tokio::task::spawn_blocking(move || waits.run(&["apply", "named.toml", "--wait=20s"]));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!waits.is_finished());
    let _b = bridge(&operator, 0xb).await;
    let (code, text, error) = waits.await.unwrap();
    assert!(code == 0 && text.contains("all connected bridges (2 of 2)"), "{text}{error}");
    // What is to be drained may be away.
    let (code, text, error) = operator.run(&["apply", "drained.toml", "--wait=10s", "--accept-problems"]);
    assert!(code == 0, "{text}{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn undo_stops_before_a_policy_without_tenants() {
    let operator = Operator::start();
    operator.folder.write("one.toml", &policy(1));
    operator.folder.write("none.toml", "version = 1\n");
    assert_eq!(operator.run(&["apply", "one.toml"]).0, 0);
    let (code, _, error) = operator.run(&["undo"]);
    assert!(
        code == 4 && error.contains("(generation 0) is empty") && error.contains("`espalier undo --empty`"),
        "{error}"
    );
    let (status, answer) = operator.post("undo", "").await;
    assert!(status == 409 && answer["detail"].as_str().unwrap().contains("?empty=true"), "{answer}");
    assert_eq!(
        (operator.post("undo?empty=perhaps", "").await.0, operator.post("undo?all=true", "").await.0),
        (400, 400)
    );
    assert!(operator.generation().await == 1 && operator.text().await.contains(&policy(1)));

    // One that somebody made himself is as empty.
    assert_eq!(operator.run(&["apply", "none.toml"]).0, 0);
    let (code, text, _) = operator.run(&["undo"]);
    assert!(code == 0 && text.contains("that of generation 1 again"), "{text}");
    assert_eq!(operator.run(&["undo", "--empty", "--wait=200ms"]).0, 1, "no bridge holds it");
    assert_eq!(operator.generation().await, 4);
    assert!(operator.text().await.is_empty());
    assert_eq!(operator.run(&["undo", "--empty"]).0, 4, "there is none before");

    // Who asks for it when applying gets it back without being asked again.
    operator.put("?confirm_within=200ms", "", &policy(2)).await;
    operator.wait(6).await;
    assert!(operator.text().await.is_empty());
}
