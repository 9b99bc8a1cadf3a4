//! Frames that leave a bridge: out of whose port, over which link, and with which mark.

use std::mem::take;

use openflow::types::{GroupId, MacAddr, PortNo};

use super::Property;
use super::entries::{Entry, Scan};
use super::look::{Act, Changed, act, remembers};
use super::surroundings::{Behind, Link, Mark, mark};
use crate::allocation::Numbers;
use crate::attachment::ServicePort;
use crate::desired::Group;
use crate::marks::{Mode, metadata};

impl Scan<'_, '_> {
    /// Frames leave: by ports of the tenant's or its functions' that fit, or marked over links. Gives the ports
    /// of floods.
    pub(super) fn leave(
        &mut self,
        entry: &Entry<'_>,
        numbers: Numbers,
        mode: Mode,
        own: impl Fn(PortNo, &Changed) -> bool,
        functions: impl Fn(&ServicePort, &str, &Changed) -> bool,
    ) -> Vec<PortNo> {
        let (mut outs, mut wrong) = (take(&mut self.outs), Vec::new());
        let flooded = matches!(mode, Mode::Flood(_));
        let mut looked_up = false;
        act(entry.does.actions, Changed::default(), |act| match act {
            Act::Out(port, _) if looked_up => {
                let what =
                    format!("sends frames out of port {port} after `ct`, where others' fragments may have joined them");
                wrong.push((Property::Isolation, what));
            }
            Act::Out(port, changed) => outs.push((port, changed)),
            Act::Group(id, changed) if flooded => match entry.here.section.groups.get(&id) {
                Some(group) => copies(group, changed, &mut outs, &mut wrong),
                None => wrong.push((Property::Form, missing(id))),
            },
            Act::Track(track) if mode == Mode::Normal && remembers(track, numbers.vlan) => looked_up = true,
            Act::Copy(_) | Act::Group(..) | Act::Track(_) => {
                wrong.push((Property::Form, "does what has no place in this table".to_owned()));
            }
            Act::Else(action) => wrong.push((Property::Form, format!("does what no entry of ours does: {action}"))),
        });
        for (property, what) in wrong {
            self.tell(entry, property, &what);
        }
        for (port, changed) in &outs {
            match self.places.of(entry.here.index, *port) {
                Behind::Tenant(key) if key == numbers.key && own(*port, changed) => {}
                Behind::Function(key, service, name) if key == numbers.key && functions(service, name, changed) => {}
                Behind::Link(link) => self.crosses(entry, numbers, mode, &link, changed),
                Behind::Tenant(key) if key == numbers.key => {
                    let property =
                        if matches!(mode, Mode::Waypoint(_)) { Property::Chain } else { Property::Isolation };
                    self.tell(
                        entry,
                        property,
                        &format!("sends frames to a host by port {port} past their function, or changed"),
                    );
                }
                Behind::Function(key, service, _) if key == numbers.key => {
                    let what = format!("sends frames out of port {port} to {}, which aren't for it", service.instance);
                    self.tell(entry, Property::Chain, &what);
                }
                Behind::Tenant(key) | Behind::Function(key, ..) => {
                    let whose = self.checker.tenants.get(&key).map_or("another one", |tenant| &tenant.name);
                    self.tell(
                        entry,
                        Property::Isolation,
                        &format!("sends frames out of port {port}, which is tenant {whose}'s"),
                    );
                }
                Behind::Nobody => {
                    let what = format!("sends frames out of port {port}, which is neither the tenant's nor a link");
                    self.tell(entry, Property::Isolation, &what);
                }
            }
        }
        let ports = outs.iter().filter(|_| flooded).map(|(port, _)| *port).collect();
        outs.clear();
        self.outs = outs;
        ports
    }

    /// Frames pass a link: they have to bear what stands for the tenant, and for the way they go.
    fn crosses(&mut self, entry: &Entry<'_>, numbers: Numbers, mode: Mode, link: &Link, changed: &Changed) {
        let wanted = mark(link.carrier, numbers, mode).map(|Mark { tunnel, tag }| Changed {
            tunnel,
            tags: tag.is_some().into(),
            vlan: tag,
            ..Changed::default()
        });
        if wanted != Some(*changed) {
            let far = self.checker.bridge_name(link.there.bridge);
            let what = format!(
                "sends frames over the link at port {} to bridge {far} without the mark that says whose they are and how they go",
                link.here.port
            );
            return self.tell(entry, Property::Isolation, &what);
        }
        let (from, to) = (entry.here.index, link.to);
        match mode {
            // A frame enters once. From then on it follows what is for those that came over links, too.
            Mode::Normal if entry.seen.told(metadata::EDGE) == Some(metadata::EDGE) => {}
            Mode::Normal => self.ways.add(entry.seen.destination.map_or(0, number), from, to),
            Mode::Waypoint(_) => self.ways.add(entry.seen.metadata.0 | 1 << 63, from, to),
            Mode::Flood(_) => {}
        }
    }
}

/// Where a group's buckets send copies.
fn copies(group: &Group, changed: Changed, outs: &mut Vec<(PortNo, Changed)>, wrong: &mut Vec<(Property, String)>) {
    for bucket in &group.buckets {
        act(&bucket.actions, changed, |act| match act {
            Act::Out(port, changed) => outs.push((port, changed)),
            _ => wrong.push((Property::Form, "has a bucket that does more than to send".to_owned())),
        });
    }
}

fn missing(group: GroupId) -> String {
    format!("uses group {}, which the tenant doesn't have", group.0)
}

/// A number for an address.
fn number(MacAddr([a, b, c, d, e, f]): MacAddr) -> u64 {
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}
