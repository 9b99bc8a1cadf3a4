//! A whole daemon in this process: REST, policy files, the store.

mod support;

use controller::daemon::{self, Handle, StartError};
use controller::policy_watch::PolicyError;
use controller::snapshot::Status;
use controller::store::StoreError;
use serde_json::Value;
use support::{Bridge, Folder, PATIENCE, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Status and body of a call, with headers before it.
async fn call(handle: &Handle, method: &str, path: &str) -> (u16, String, Value) {
    let mut stream = TcpStream::connect(handle.rest_addr).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_lowercase(), serde_json::from_str(body).unwrap_or_else(|_| body.trim().into()))
}

async fn status(handle: &Handle) -> Status {
    serde_json::from_value(call(handle, "GET", "/v1/status").await.2).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn rest_serves_documents_and_tells_problems() {
    let folder = Folder::new();
    let handle = daemon::start(folder.options()).await.unwrap();
    let _bridge = Bridge::connect(handle.openflow_addr, 1).await;
    assert_eq!(call(&handle, "GET", "/healthz").await.2, "ok");
    while call(&handle, "GET", "/readyz").await.0 != 200 {}
    let now = status(&handle).await;
    assert_eq!((now.version.as_str(), now.problems), (env!("CARGO_PKG_VERSION"), vec![]));
    for list in ["bridges", "links", "tenants", "hosts"] {
        let (status, head, body) = call(&handle, "GET", &format!("/v1/{list}")).await;
        assert!(status == 200 && body.is_array(), "{list}: {body}");
        assert!(head.contains("content-type: application/json") && head.contains("x-content-type-options: nosniff"));
    }
    for (method, path, status) in [
        ("GET", "/v1/bridges/no%22ne", 404),
        ("GET", "/v1/tenants/none", 404),
        ("GET", "/v1/tenants/%ff", 400),
        ("GET", "/v1/nothing", 404),
        ("GET", "/", 404),
        ("GET", "/v1/../../etc/passwd", 404),
        ("POST", "/v1/bridges", 405),
        ("BREW", "/v1/status", 405),
    ] {
        let (got, head, body) = call(&handle, method, path).await;
        assert_eq!((got, &body["status"]), (status, &Value::from(status)), "{method} {path}: {body}");
        assert!(head.contains("content-type: application/problem+json") && head.contains("nosniff"), "{path}: {head}");
        assert!(body["title"].is_string() && body["detail"].is_string(), "{body}");
    }
    handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_policy_counts_up_and_a_bad_one_changes_nothing() {
    let folder = Folder::new();
    let file = folder.write("a.toml", "version = 1\n");
    let mut options = folder.options();
    options.policy = vec![file];
    let handle = daemon::start(options.clone()).await.unwrap();
    let generation = || handle.policy.borrow().generation;
    let first = handle.policy.borrow().clone();
    assert_eq!((first.generation, first.source.as_str(), first.digest.len()), (1, "files", 64));

    // The watcher sees it without being told; what it misses while it starts, a reload finds.
    folder.write("a.toml", "version = 1\n# changed\n");
    until("the change is seen", || {
        handle.reload();
        generation() == 2
    })
    .await;
    folder.write("a.toml", "version = 1\n# changed again\n");
    until("the watcher sees a change", || generation() == 3).await;

    folder.write("a.toml", "version = [\n");
    while status(&handle).await.problems.is_empty() {}
    let problems = status(&handle).await.problems;
    assert!(problems[0].contains("policy files have errors since 2") && problems[0].contains("a.toml"), "{problems:?}");
    assert_eq!(generation(), 3);

    // Back to what is in force: no problem any more, and no new policy.
    folder.write("a.toml", "version = 1\n# changed again\n");
    while !status(&handle).await.problems.is_empty() {}
    assert_eq!(generation(), 3);
    handle.stop().await;

    // It goes on counting after a restart, and the store has the policy without the files.
    let handle = daemon::start(options.clone()).await.unwrap();
    assert_eq!(handle.policy.borrow().generation, 3);
    handle.stop().await;
    options.policy.clear();
    let handle = daemon::start(options.clone()).await.unwrap();
    let kept = handle.policy.borrow().clone();
    assert_eq!((kept.generation, kept.source.as_str()), (3, "store"));
    handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_are_read_and_links_that_are_swapped_are_followed() {
    use std::os::unix::fs::symlink;
    let folder = Folder::new();
    let config = folder.0.join("config");
    for (version, text) in [("v1", "version = 1\n"), ("v2", "version = 1\n# two\n")] {
        std::fs::create_dir_all(config.join(version)).unwrap();
        std::fs::write(config.join(version).join("p.toml"), text).unwrap();
    }
    symlink("v1", config.join("..data")).unwrap();
    symlink("..data/p.toml", config.join("p.toml")).unwrap();
    let mut options = folder.options();
    options.policy = vec![config.clone()];
    let handle = daemon::start(options).await.unwrap();
    let swap = || {
        symlink("v2", config.join("..new")).unwrap();
        std::fs::rename(config.join("..new"), config.join("..data")).unwrap();
    };
    swap();
    let mut tries = 0;
    until("the swap is seen", || {
        // The watcher may still be starting.
        tries += 1;
        if tries % 200 == 0 {
            swap();
        }
        handle.policy.borrow().generation == 2
    })
    .await;
    handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_prevents_a_start_is_told() {
    let folder = Folder::new();
    let mut options = folder.options();
    options.policy = vec![folder.write("bad.toml", "version = [")];
    let error = daemon::start(options.clone()).await.unwrap_err();
    assert!(matches!(&error, StartError::Policy(PolicyError::Bad(bad)) if bad.0.contains("bad.toml")), "{error}");
    options.policy = vec![folder.0.join("none.toml")];
    assert!(matches!(daemon::start(options.clone()).await, Err(StartError::Policy(PolicyError::Bad(_)))));
    std::fs::create_dir(folder.0.join("empty")).unwrap();
    options.policy = vec![folder.0.join("empty")];
    assert!(daemon::start(options.clone()).await.unwrap_err().to_string().contains("no *.toml"));
    options.policy.clear();

    options.rest = "0.0.0.0:0".parse().unwrap();
    assert!(matches!(daemon::start(options.clone()).await, Err(StartError::Exposed(_))));
    options.rest = folder.options().rest;

    let handle = daemon::start(options.clone()).await.unwrap();
    let error = daemon::start(options.clone()).await.unwrap_err();
    assert!(matches!(error, StartError::Store(StoreError::InUse(_))), "{error}");
    options.openflow = handle.openflow_addr;
    let error = daemon::start(options.clone()).await.unwrap_err().to_string();
    assert!(error.contains("--openflow") && error.contains("in use"), "{error}");
    handle.stop().await;

    let file = folder.write("file", "");
    options = folder.options();
    options.state = file.join("state");
    let error = daemon::start(options).await.unwrap_err().to_string();
    assert!(error.contains("--state") && error.contains("file/state"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_does_not_finish_a_request_is_closed_and_disturbs_nobody() {
    let folder = Folder::new();
    let handle = daemon::start(folder.options()).await.unwrap();
    let mut slow = Vec::new();
    for _ in 0..200 {
        let mut stream = TcpStream::connect(handle.rest_addr).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: loc").await.unwrap();
        slow.push(stream);
    }
    assert_eq!(call(&handle, "GET", "/healthz").await.0, 200);
    for mut stream in slow {
        let mut rest = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("it is closed").unwrap();
    }
    handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_tell_what_happened_and_only_of_bridges_that_are_there() {
    let folder = Folder::new();
    let mut options = folder.options();
    options.policy = vec![folder.write("a.toml", "version = 1\n")];
    let handle = daemon::start(options).await.unwrap();
    let text = async || {
        let (status, head, body) = call(&handle, "GET", "/metrics").await;
        assert_eq!(status, 200);
        assert!(head.contains("content-type: application/openmetrics-text"), "{head}");
        body.as_str().unwrap().to_owned()
    };
    let has = async |what: &str| {
        let start = std::time::Instant::now();
        loop {
            let text = text().await;
            if text.lines().any(|line| line == what) {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "no line is `{what}`:\n{text}");
        }
    };
    for row in [
        &format!("espalier_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION")),
        "espalier_policy_generation 1",
        "espalier_policy_reloads_total{result=\"applied\"} 1",
        "espalier_policy_reloads_total{result=\"refused\"} 0",
        "espalier_connections_total 0",
        "espalier_bridges_connected 0",
        "espalier_links_up 0",
        "espalier_flows_desired 0",
        "espalier_input_refused_total{reason=\"not_hello\"} 0",
        "espalier_packet_ins_dropped_total{reason=\"probe_budget\"} 0",
        "espalier_converged 1",
        "espalier_problems 0",
    ] {
        has(row).await;
    }
    let mut bridge = Bridge::connect(handle.openflow_addr, 7).await;
    for _ in 0..3 {
        bridge.echo().await;
    }
    has("espalier_bridges_connected 1").await;
    has("espalier_connections_total 1").await;
    let mine = "espalier_openflow_messages_total{dpid=\"0000000000000007\"";
    has(&format!("{mine},type=\"EchoRequest\",direction=\"received\"}} 3")).await;
    has(&format!("{mine},type=\"EchoReply\",direction=\"sent\"}} 3")).await;
    has(&format!("{mine},type=\"FeaturesRequest\",direction=\"sent\"}} 1")).await;
    has(&format!("{mine},type=\"MultipartRequest\",direction=\"sent\"}} 6")).await;
    drop(bridge);
    has("espalier_bridges_connected 0").await;
    until("its session has ended", || handle.shared.registry.bridges().is_empty()).await;
    assert!(!text().await.contains(mine), "who isn't there has no rows");

    folder.write("a.toml", "version = [\n");
    handle.reload();
    while !text().await.lines().any(|line| {
        line.strip_prefix("espalier_policy_reloads_total{result=\"refused\"} ").is_some_and(|count| count != "0")
    }) {}
    has("espalier_problems 1").await;

    // Each family is told once, with its kind, and each row once.
    let text = text().await;
    assert!(text.ends_with("# EOF"), "{text}");
    let (mut families, mut rows) = (std::collections::BTreeSet::new(), std::collections::BTreeSet::new());
    for line in text.lines().filter(|line| *line != "# EOF") {
        if let Some(family) = line.strip_prefix("# TYPE ") {
            assert!(families.insert(family.split(' ').next().unwrap()), "{line}");
        } else if !line.starts_with('#') {
            let (row, value) = line.rsplit_once(' ').unwrap();
            assert!(rows.insert(row) && row.starts_with("espalier_"), "{line}");
            value.parse::<u64>().unwrap();
        }
    }
    handle.stop().await;
}
