//! Goal: an operator sees what a policy would change, brings it into force without files, and takes it back; what he doesn't
//! confirm goes by itself, even if the controller is killed meanwhile; and tenants that a change isn't about lose nothing. On
//! real Open vSwitch.

mod network;

use std::fs;
use std::process::Output;
use std::thread::sleep;

use anyhow::{Result, ensure};
use lab::{ContinuousPing, ControllerSpec, Lab, Layout};

use network::{MS, Network, POLICY, spec};

struct Operator {
    network: Network,
}

impl Operator {
    /// A fabric whose controller has no policy yet.
    fn start() -> Result<Self> {
        let lab = Lab::start(&spec(Layout::Shared))?;
        let controller = lab.start_controller(&ControllerSpec::default())?;
        let network = Network { controller, lab };
        network.settle()?;
        Ok(Self { network })
    }

    /// Runs a command about a policy that is written to a file first; its exit code, and what it said.
    fn run(&self, policy: &str, arguments: &[&str]) -> Result<(i32, String)> {
        let file = self.network.lab.dir().join("operator.toml");
        fs::write(&file, policy)?;
        let file = file.to_string_lossy();
        let (command, options) = arguments.split_at(1);
        let Output { status, stdout, stderr } =
            self.network.controller.cli(&[command, &[file.as_ref()], options].concat())?;
        let text = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
        Ok((status.code().unwrap_or(-1), text))
    }

    fn apply(&self, policy: &str, options: &[&str]) -> Result<()> {
        let (code, text) = self.run(policy, &[&["apply", "--wait"], options].concat())?;
        ensure!(code == 0 && text.contains("is in force"), "{code}: {text}");
        Ok(())
    }

    /// Does green's container on the first host reach that on the second?
    fn reaches(&self) -> Result<bool> {
        let (one, two) = (self.network.lab.container(1, "green-1")?, self.network.lab.container(2, "green-1")?);
        self.network.lab.ping_within(&one, two.ipv4, MS(300))
    }

    fn wait_back(&self) -> Result<()> {
        lab::wait_until("green's port to be back", MS(30_000), || self.reaches()).map(drop)
    }
}

/// The policy without green's port on the second host.
fn smaller() -> String {
    let ports = r#"{ bridge = "h1", port = "green-*" }, { bridge = "h3", port = "green-*" },"#;
    POLICY.replace(r#"{ bridge = "*", port = "green-*" },"#, ports)
}

#[test]
fn a_plan_says_what_comes_and_applying_does_that() -> Result<()> {
    let operator = Operator::start()?;
    let network = &operator.network;
    ensure!(!operator.reaches()?, "without a policy nobody reaches anybody");
    let (code, text) = operator.run(POLICY, &["plan"])?;
    ensure!(code == 1 && text.contains("+ tenant green") && text.contains("+ tenant orange"), "{code}: {text}");
    operator.apply(POLICY, &[])?;
    network.settle()?;
    for tenant in ["green", "orange"] {
        network.meet(tenant)?;
    }
    network.check_delivery()?;
    let (code, text) = operator.run(POLICY, &["plan"])?;
    ensure!(code == 0 && text.contains("nothing would change"), "{code}: {text}");

    let entries = |host: usize| -> Result<i64> { Ok(network.lab.host(host)?.flows("br0")?.len() as i64) };
    let before = (1..=3).map(entries).collect::<Result<Vec<_>>>()?;
    let sent = network.changes_sent()?;
    let (code, text) = operator.run(&smaller(), &["plan", "-o", "json"])?;
    ensure!(code == 1 && network.changes_sent()? == sent, "a plan changes nothing: {code}: {text}");
    let plan: serde_json::Value = serde_json::from_str(&text)?;
    operator.apply(&smaller(), &[])?;
    network.settle()?;
    let mut differences = 0;
    for (host, before) in (1..=3).zip(before) {
        let bridges = plan["bridges"].as_array().into_iter().flatten();
        let planned: i64 = bridges
            .filter(|bridge| bridge["name"] == format!("h{host}"))
            .map(|bridge| {
                let count = |what: &str| bridge["flows"][what].as_i64().unwrap_or_default();
                count("added") - count("removed")
            })
            .sum();
        // Open vSwitch shows a change at once; entries for new sources may come and go.
        lab::wait_until("as many entries as planned", MS(5000), || Ok(entries(host)? - before == planned))?;
        differences += planned.abs();
    }
    ensure!(differences > 0, "{plan}");

    // A problem that comes with a policy is told before, with it, and by what is seen then.
    let cut = POLICY.replace(r#"links = ["*"]"#, r#"links = ["none-*"]"#);
    let parted = "tenant green is in 3 parts";
    let (code, text) = operator.run(&cut, &["plan"])?;
    ensure!(code == 1 && text.contains(&format!("new problem: {parted}")) && network.problems()?.is_empty(), "{text}");
    let (code, text) = operator.run(&cut, &["apply", "--wait=10s"])?;
    ensure!(
        code == 1 && text.contains(&format!("new problem: {parted}")) && text.contains("(3 of 3)"),
        "{code}: {text}"
    );
    ensure!(network.problems()?.iter().any(|it| it.contains(parted)) && !operator.reaches()?, "it is so");
    let undone = network.controller.cli(&["undo", "--wait"])?;
    let text = String::from_utf8_lossy(&undone.stdout).into_owned();
    ensure!(undone.status.success() && text.contains(&format!("problem ends: {parted}")), "{text}");
    network.settle()?;
    ensure!(network.problems()?.is_empty(), "{:?}", network.problems()?);
    // A bridge that isn't there is waited for, and named.
    let absent = POLICY.replace(
        "  { bridge = \"*\", port = \"green-*\" },",
        "  { bridge = \"h4\", port = \"green-*\" },\n  { bridge = \"*\", port = \"green-*\" },",
    );
    let (code, text) = operator.run(&absent, &["apply", "--accept-problems", "--wait=500ms"])?;
    ensure!(code == 1 && text.contains("bridge h4, which the policy names, isn't connected"), "{code}: {text}");
    operator.wait_back()
}

#[test]
fn what_is_not_confirmed_goes_by_itself_and_others_lose_nothing() -> Result<()> {
    let mut operator = Operator::start()?;
    operator.apply(POLICY, &[])?;
    for tenant in ["green", "orange"] {
        operator.network.meet(tenant)?;
    }
    let orange = |host| operator.network.lab.container(host, "orange-1");
    let pings = [(1, 2), (2, 3), (3, 1)];
    let pings = pings.iter().map(|&(from, to)| ContinuousPing::start(&orange(from)?, orange(to)?.ipv4));
    let pings = pings.collect::<Result<Vec<_>>>()?;

    // Nobody confirms.
    operator.apply(&smaller(), &["--confirm-within", "2s"])?;
    ensure!(!operator.reaches()?, "green's port is gone");
    operator.network.wait_problem("waits for `espalier confirm`")?;
    operator.wait_back()?;
    operator.network.settle()?;
    ensure!(operator.network.problems()?.is_empty(), "{:?}", operator.network.problems()?);

    // Confirmed, it stays; undone, it doesn't.
    operator.apply(&smaller(), &["--confirm-within", "2s"])?;
    let confirmed = operator.network.controller.cli(&["confirm"])?;
    ensure!(confirmed.status.success(), "{confirmed:?}");
    sleep(MS(2500));
    ensure!(!operator.reaches()?, "it was confirmed");
    let undone = operator.network.controller.cli(&["undo", "--wait"])?;
    ensure!(undone.status.success(), "{undone:?}");
    operator.wait_back()?;

    // Killed meanwhile, the controller goes on waiting where it was.
    operator.apply(&smaller(), &["--confirm-within", "5s"])?;
    operator.network.controller.kill9();
    ensure!(!operator.reaches()?, "a controller's death changes nothing");
    operator.network.controller.start()?;
    operator.network.wait_problem("waits for `espalier confirm`")?;
    operator.wait_back()?;
    operator.network.settle()?;

    // And if the time is over before it is back, it goes back at once.
    operator.apply(&smaller(), &["--confirm-within", "1s"])?;
    operator.network.controller.kill9();
    sleep(MS(1500));
    ensure!(!operator.reaches()?, "a controller's death changes nothing");
    operator.network.controller.start()?;
    operator.wait_back()?;
    operator.network.settle()?;
    operator.network.meet("green")?;

    for ping in pings {
        let report = ping.stop()?;
        ensure!(report.sent > 1000 && report.received == report.sent, "orange lost something: {report:?}");
    }
    operator.network.check_delivery()
}
