//! A link is cut under traffic, and mended.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use lab::ContinuousPing;

use super::Stage;
use crate::bench::table::{Failure, Table, Way, time};
use crate::bench::traffic::{WayOut, stopped_for, way_out};

/// An outage that long is a fault, whatever else the machine was busy with.
const LIMIT: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(10);

/// Cuts the path that carries a ping of the first tenant, and mends it; shows how long traffic stopped.
pub(super) fn cut(stage: &mut Stage<'_>) -> Result<()> {
    let tenants = stage.tenants();
    let tenant = tenants.first().context("the lab has no tenants")?;
    let (lab, interrupt) = (stage.lab, stage.interrupt);
    let containers = lab.tenant(tenant);
    let [from, to, ..] = &containers[..] else { anyhow::bail!("{tenant} has fewer than two containers") };
    // The network is measured, not when a container asks for a neighbour again.
    lab.pin_neighbours()?;
    let links = lab.links().len();

    let before = way_out(lab, interrupt, from, to)?;
    stage.screen.say(format!("{tenant} pings h{} from h{} every 5 ms: {}", to.host, from.host, shown(&before)));
    let (a, b) = (from.host, before.peer);
    let ping = ContinuousPing::start(from, to.ipv4)?;
    interrupt.sleep(Duration::from_millis(500))?;
    lab.cut(a, b)?;
    stage.screen.aside("(the controller's probes of the link are counted, too)");
    stage.screen.say(format!("cut: all that goes between h{a} and h{b} vanishes; no carrier is lost, no port says so"));
    interrupt.sleep(LIMIT + Duration::from_millis(500))?;
    let report = ping.stop()?;
    let outage = stopped_for(&report);
    let detour = way_out(lab, interrupt, from, to)?;
    let moved = detour.end != before.end;
    let lost = report.sent - report.received;
    stage.screen.check(
        moved && !outage.is_zero() && outage < LIMIT,
        format!("traffic stopped for {} ({lost} of {} pings lost)", time(outage), report.sent),
    );
    stage.screen.check(moved, format!("it now goes round: {}", shown(&detour)));
    stage.screen.check(report.duplicates == 0, format!("{} pings answered twice", report.duplicates));

    let ping = ContinuousPing::start(from, to.ipv4)?;
    interrupt.sleep(Duration::from_millis(300))?;
    lab.restore(a, b)?;
    let back = interrupt.wait(PATIENCE, || {
        let status = stage.controller.get("/v1/status")?;
        Ok(status["links"]["up"] == links && status["converged"] == true)
    })?;
    interrupt.sleep(Duration::from_millis(500))?;
    let report = ping.stop()?;
    let after = way_out(lab, interrupt, from, to)?;
    let lost = report.sent - report.received;
    let when = back.map_or("never".to_owned(), |back| format!("{} later", time(back)));
    stage.screen.say(format!("mended: the link is known to be up again {when}"));
    stage.screen.check(
        back.is_some() && after.end == before.end,
        format!("traffic is on the direct way again: {}", shown(&after)),
    );
    stage.screen.check(lost == 0, format!("{lost} of {} pings lost while it moved back", report.sent));
    recorded(stage, outage)
}

/// What went where.
fn shown(way: &WayOut) -> String {
    format!("{} requests, {} packets by port {} to h{}", way.requests, way.packets, way.end.port, way.peer)
}

/// The outage beside what was recorded on the same lab.
fn recorded(stage: &mut Stage<'_>, outage: Duration) -> Result<()> {
    let hosts = stage.lab.hosts().len();
    let path = Path::new(&stage.arguments.table);
    let screen = &stage.screen;
    if !path.exists() {
        screen.aside("nothing is recorded to compare this with; `make bench-repair` measures it");
        return Ok(());
    }
    let table = Table::read(path)?;
    let compared: Vec<_> = table.results.iter().filter(|result| result.failure == Failure::Cut).collect();
    // The lab's default size, if this one was never measured.
    let size = if compared.iter().any(|result| result.hosts == hosts) { hosts } else { 3 };
    screen.gap();
    screen.say(format!("How long traffic stops when a path is cut silently ({size} hosts):"));
    screen.say(format!("  {:<26}{:>10}", "espalier, just now", time(outage)));
    for way in Way::ALL {
        for result in compared.iter().filter(|result| result.way == way && result.hosts == size) {
            let runs = format!("median of {}, worst {}", result.runs(), result.worst());
            screen.say(format!("  {:<26}{:>10}   {runs}", way.label(), result.median()));
        }
    }
    let from = compared.iter().map(|result| (&result.date, &result.open_vswitch)).max();
    if let Some((date, version)) = from {
        screen.aside(format!("recorded on {date} with Open vSwitch {version}; `make bench-repair` measures again"));
    }
    Ok(())
}
