//! What the policy may say of a tenant's traffic: a chain and a rate limit.

use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use lab::{Capture, Captured, Container, Function};

use super::Stage;
use super::fabric::{list, text};
use crate::bench::table::time;

const PATIENCE: Duration = Duration::from_secs(10);
/// What arrives late is waited for.
const ECHO: Duration = Duration::from_millis(300);
/// The port that the chain of the policy is about.
const CHAINED: u16 = 80;
const CONNECTIONS: usize = 20;
/// The tenant with the chain and the limit, and the other one.
const GREEN: &str = "green";
const ORANGE: &str = "orange";
/// What the policy lets green send, in Mbit/s.
const LIMIT: f64 = 10.0;
const OFFERED: u32 = 20;

/// Adds a function and a policy that sends chosen traffic through it; looks at what passes.
pub(super) fn chain(stage: &mut Stage<'_>) -> Result<()> {
    let lab = stage.lab;
    let function = lab.add_function(2, lab.spec().bridge_of(GREEN)?, "fw-in", "fw-out")?;
    stage.screen.say("a firewall is added at h2: what goes in by its port fw-in comes out of fw-out, and back");
    let took = adopt(stage)?;
    let (policy, file) = (stage.arguments.services.display(), stage.controller.policy_file());
    stage.screen.aside(format!("cp {policy} {}   # and names for the bridges", file.display()));
    stage.screen.check(
        took.is_some(),
        match took {
            Some(took) => format!("in force, and probes pass the firewall, {} later", time(took)),
            None => format!("the firewall isn't known to work after {}", time(PATIENCE)),
        },
    );

    let at = |host: usize, tenant: &str| lab.container(host, &format!("{tenant}-1"));
    let (client, web) = (at(1, GREEN)?, at(3, GREEN)?);
    let watched = Watched::start(&client, &web, &function)?;
    connect(&client, &web, CHAINED)?;
    stage.interrupt.sleep(ECHO)?;
    let [requests, forward, answers, back] = watched.stop()?.map(|captured| captured.count(is_tcp));
    stage.screen.say(format!("{CONNECTIONS} connections of {GREEN} from h1 to port {CHAINED} at h3, through h2:"));
    stage.screen.check(
        requests > CONNECTIONS && forward == requests,
        format!("{requests} packets came to h3, {forward} had gone through the firewall"),
    );
    stage.screen.check(
        answers > CONNECTIONS && back == answers,
        format!("{answers} answers came to h1, {back} had gone through the firewall, the other way"),
    );

    let watched = Watched::start(&client, &web, &function)?;
    connect(&client, &web, CHAINED + 1)?;
    let foreign = (at(1, ORANGE)?, at(3, ORANGE)?);
    let orange = Capture::start(&foreign.1)?;
    connect(&foreign.0, &foreign.1, CHAINED)?;
    let all = lab.ping_matrix(GREEN, PATIENCE)?;
    stage.interrupt.sleep(ECHO)?;
    let [others, forward, _, back] = watched.stop()?.map(|captured| captured.count(is_traffic));
    let orange = orange.stop()?.count(is_traffic);
    let strays = forward + back;
    stage.screen.check(
        strays == 0 && others > CONNECTIONS && orange > CONNECTIONS && all.is_full(),
        format!(
            "{strays} of all else had: {others} packets to h3 ({GREEN}'s port {}, pings), {orange} of {ORANGE} to its port {CHAINED}",
            CHAINED + 1
        ),
    );
    Ok(())
}

/// Sends more than the limit in the tenant that has one, and as much in the other.
pub(super) fn limit(stage: &mut Stage<'_>) -> Result<()> {
    let lab = stage.lab;
    let mut got = Vec::new();
    for tenant in [GREEN, ORANGE] {
        stage.interrupt.check()?;
        let at = |host: usize| lab.container(host, &format!("{tenant}-1"));
        got.push(lab.udp(&at(1)?, &at(2)?, OFFERED, 3)?);
    }
    let [green, orange] = got[..] else { unreachable!("two were measured") };
    stage
        .screen
        .say(format!("iperf3 sends {OFFERED} Mbit/s of UDP from h1 to h2, first in {GREEN}, then in {ORANGE}:"));
    let rate = green.of_frames();
    stage.screen.check(
        (rate / LIMIT - 1.0).abs() < 0.1,
        format!("{GREEN} has a limit of {LIMIT} Mbit/s: {rate:.1} Mbit/s came, headers included"),
    );
    stage.screen.check(
        orange.lost_percent < 5.0 && orange.mbit > 0.9 * f64::from(OFFERED),
        format!("{ORANGE} has none: {:.1} Mbit/s came, {:.1} % was lost", orange.mbit, orange.lost_percent),
    );
    let shown = stage.controller.cli(&["get", "limits", GREEN])?;
    ensure!(shown.status.success(), "`espalier get limits {GREEN}` failed: {}", String::from_utf8_lossy(&shown.stderr));
    stage.screen.aside(format!("espalier get limits {GREEN}"));
    stage.screen.aside(String::from_utf8_lossy(&shown.stdout));
    Ok(())
}

/// Brings the policy into force and waits until all functions work; says how long that took.
fn adopt(stage: &Stage<'_>) -> Result<Option<Duration>> {
    let path = &stage.arguments.services;
    let mut policy = std::fs::read_to_string(path).with_context(|| format!("reading {} failed", path.display()))?;
    // The policy calls bridges by their hosts.
    let bridge = stage.lab.spec().bridge_of(GREEN)?;
    for bridge in stage.lab.bridges().iter().filter(|it| it.name == bridge) {
        write!(policy, "\n[[bridge]]\nname = \"host{}\"\ndpid = \"{}\"\n", bridge.host, bridge.dpid_hex())?;
    }
    let begun = Instant::now();
    stage.controller.apply_policy(&policy)?;
    let working = stage.interrupt.wait(PATIENCE, || {
        let chains = list(&stage.controller.get("/v1/chains")?)?;
        let hops = chains.iter().flat_map(|chain| list(&chain["hops"]).unwrap_or_default());
        let mut instances = hops.flat_map(|hop| list(&hop["instances"]).unwrap_or_default());
        let works = instances.all(|it| text(&it["health"]) == "working" && it["probes_pass"] == true);
        Ok(!chains.is_empty() && works && stage.controller.get("/v1/status")?["converged"] == true)
    })?;
    Ok(working.map(|_| begun.elapsed()))
}

/// What arrives at a server, at a function by the way there, at a client, and at the function by the way back.
struct Watched([Capture; 4]);

impl Watched {
    fn start(client: &Container, server: &Container, function: &Function) -> Result<Self> {
        let (there, back) = (Capture::start(server)?, Capture::start(client)?);
        Ok(Self([there, function.capture_ingress()?, back, function.capture_egress()?]))
    }

    fn stop(self) -> Result<[Captured; 4]> {
        let [one, two, three, four] = self.0;
        Ok([one.stop()?, two.stop()?, three.stop()?, four.stop()?])
    }
}

/// Connects to a port some times, says something and waits for the answer.
fn connect(from: &Container, to: &Container, port: u16) -> Result<()> {
    let address = SocketAddr::from((to.ipv4, port));
    let listener = to.netns.run(|| TcpListener::bind(address).context("listening failed"))?;
    let serving = thread::spawn(move || -> Result<()> {
        for _ in 0..CONNECTIONS {
            let (mut stream, _) = listener.accept()?;
            let mut word = [0; 4];
            stream.read_exact(&mut word)?;
            stream.write_all(&word)?;
        }
        Ok(())
    });
    from.netns.run(|| {
        for number in 0..CONNECTIONS {
            let mut stream = TcpStream::connect_timeout(&address, PATIENCE)
                .with_context(|| format!("connection {number} of {} to {address} failed", from.port))?;
            stream.set_read_timeout(Some(PATIENCE))?;
            let mut word = *b"ping";
            stream.write_all(&word)?;
            stream.read_exact(&mut word).context("no answer came")?;
        }
        Ok(())
    })?;
    serving.join().map_err(|_| anyhow!("the server panicked"))?
}

fn is_tcp(frame: &[u8]) -> bool {
    frame.get(12..14) == Some(&[8, 0]) && frame.get(23) == Some(&6)
}

/// ARP, IPv4 or IPv6: all that containers send, and none of the controller's probes.
fn is_traffic(frame: &[u8]) -> bool {
    [[8, 0], [8, 6], [0x86, 0xdd]].iter().any(|kind| frame.get(12..14) == Some(kind))
}
