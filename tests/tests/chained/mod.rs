//! What the tests of service chains share: a lab with functions, the policy's words for them, and what they see.

#![allow(dead_code, reason = "each test program uses its own part")]

use std::collections::BTreeMap;
use std::thread::sleep;

use anyhow::{Context, Result};
use lab::{Captured, Container, Frame, Function, Lab, Spec};
use serde_json::Value;

use crate::network::{MS, Network, green_and_orange};

/// A lab with functions, and what they are.
pub(crate) struct Chained {
    pub(crate) network: Network,
    pub(crate) functions: Vec<Function>,
}

/// What functions saw.
pub(crate) struct Sights(pub(crate) Vec<(Captured, Captured)>);

/// The policy's words for a wire function of instances that are named after their ports.
pub(crate) fn wire(lab: &Lab, name: &str, more: &str, instances: &[(&Function, u16)]) -> Result<String> {
    let rows = instances.iter().map(|(function, weight)| {
        let Function { ingress, egress, .. } = function;
        let bridge = bridge_name(lab, function)?;
        Ok(format!(
            "  {{ name = \"{ingress}\", bridge = \"{bridge}\", ingress = \"{ingress}\", egress = \"{egress}\", weight = {weight} }},\n"
        ))
    });
    let rows = rows.collect::<Result<String>>()?;
    Ok(format!("[[tenant.function]]\nname = \"{name}\"\nkind = \"wire\"\n{more}\ninstances = [\n{rows}]\n"))
}

/// One with one port.
pub(crate) fn single(lab: &Lab, name: &str, kind: &str, more: &str, function: &Function) -> Result<String> {
    let (bridge, port) = (bridge_name(lab, function)?, &function.ingress);
    Ok(format!(
        "[[tenant.function]]\nname = \"{name}\"\nkind = \"{kind}\"\n\
         instances = [{{ name = \"{port}\", bridge = \"{bridge}\", ingress = \"{port}\"{more} }}]\n"
    ))
}

fn bridge_name(lab: &Lab, function: &Function) -> Result<String> {
    let bridges = lab.bridges();
    let found = bridges.iter().find(|bridge| bridge.host == function.host && bridge.name == function.bridge);
    Ok(found.context("the function's bridge")?.description.clone())
}

/// Green with functions and chains, and orange without.
pub(crate) fn policy(more: &str) -> String {
    green_and_orange("", more)
}

pub(crate) fn chain(name: &str, more: &str, through: &[&str], classifier: &str) -> String {
    format!("[[tenant.chain]]\nname = \"{name}\"\n{more}\nthrough = {through:?}\nmatch = [{{ {classifier} }}]\n")
}

impl Chained {
    /// A lab of three hosts with a wire function on each of these.
    pub(crate) fn wires(spec: &Spec, hosts: &[usize]) -> Result<Self> {
        let network = Network::with_policy(spec, &policy(""))?;
        let bridge = spec.bridge_of("green")?.to_owned();
        let functions = hosts
            .iter()
            .zip(1..)
            .map(|(host, n)| network.lab.add_function(*host, &bridge, &format!("f{n}-in"), &format!("f{n}-out")));
        let functions = functions.collect::<Result<Vec<_>>>()?;
        network.meet("green")?;
        network.meet("orange")?;
        Ok(Self { network, functions })
    }

    pub(crate) fn lab(&self) -> &Lab {
        &self.network.lab
    }

    /// Brings a policy into force.
    pub(crate) fn apply(&self, more: &str) -> Result<()> {
        self.network.apply(&policy(more))
    }

    /// Waits until an instance is in this state, with probes passing or not.
    pub(crate) fn wait_health(&self, instance: &str, health: &str, probes_pass: bool) -> Result<()> {
        let mut last = Value::Null;
        lab::wait_until(&format!("{instance} to be {health}"), MS(8000), || {
            last = self.network.controller.get("/v1/chains")?;
            let chains = last.as_array().context("chains")?.iter();
            let hops = chains.flat_map(|chain| chain["hops"].as_array().cloned().unwrap_or_default());
            let mut all = hops.flat_map(|hop| hop["instances"].as_array().cloned().unwrap_or_default());
            Ok(all.any(|it| it["name"] == instance && it["health"] == health && it["probes_pass"] == probes_pass))
        })
        .with_context(|| format!("last: {last}"))?;
        self.network.controller.wait_converged(self.lab().bridges().len() as u64, MS(5000)).map(drop)
    }

    /// What functions see while something happens, and a little longer: what goes in by the ingress, and by the egress.
    pub(crate) fn watch(&self, sends: impl FnOnce() -> Result<()>) -> Result<Sights> {
        let captures = self
            .functions
            .iter()
            .map(|it| {
                Ok((
                    it.capture_ingress()?,
                    if it.ingress == it.egress { it.capture_ingress()? } else { it.capture_egress()? },
                ))
            })
            .collect::<Result<Vec<_>>>()?;
        sends()?;
        sleep(MS(300));
        let captured = captures.into_iter().map(|(one, other)| Ok((one.stop()?, other.stop()?)));
        Ok(Sights(captured.collect::<Result<_>>()?))
    }

    pub(crate) fn green(&self, host: usize) -> Result<Container> {
        self.lab().container(host, "green-1")
    }
}

impl Sights {
    /// Copies of a frame that went into each function by its ingress.
    pub(crate) fn forward(&self, frame: &Frame) -> Vec<u64> {
        self.0.iter().map(|(ingress, _)| ingress.copies(frame)).collect()
    }

    /// Copies that went in by the egress, as replies do.
    pub(crate) fn reverse(&self, frame: &Frame) -> Vec<u64> {
        self.0.iter().map(|(_, egress)| egress.copies(frame)).collect()
    }
}

/// UDP in IPv4 with these ports and nothing in it.
pub(crate) fn udp(from: &Container, to: &Container, ports: (u16, u16)) -> Vec<u8> {
    let mut frame = [&to.mac.0[..], &from.mac.0, &[8, 0]].concat();
    let mut header = [&[0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0][..], &from.ipv4.octets(), &to.ipv4.octets()].concat();
    let sum: u32 = header.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    frame.extend(header);
    frame.extend([ports.0.to_be_bytes(), ports.1.to_be_bytes(), 8u16.to_be_bytes(), [0, 0]].concat());
    frame.resize(60, 0);
    frame
}

/// The source ports of the UDP packets to this port, or from it, that were captured.
pub(crate) fn connections(captured: &Captured, port: u16, forward: bool) -> BTreeMap<u16, usize> {
    let mut connections = BTreeMap::new();
    for (_, frame) in &captured.frames {
        if frame.get(12..14) != Some(&[8, 0]) || frame.get(23) != Some(&17) {
            continue;
        }
        let at = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
        let (own, other) = if forward { (at(34), at(36)) } else { (at(36), at(34)) };
        if other == port {
            *connections.entry(own).or_default() += 1;
        }
    }
    connections
}
