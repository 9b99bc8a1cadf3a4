//! An entry of `ports`: which ports are a tenant's, and who may be behind them.

use std::net::IpAddr;

use openflow::types::MacAddr;
use toml::de::DeTable;

use super::declared::selected;
use super::diagnostic::Code;
use super::model::{Glob, Origin, PortSelector, RateLimit};
use super::rate;
use super::report::{At, Draft, Place, Report};
use super::schema;
use super::section::{Section, object};
use super::values;

/// An entry of `ports`.
pub(super) struct PortPart {
    pub(super) place: Place,
    /// As messages name it.
    pub(super) object: String,
    pub(super) bridge: Option<At<String>>,
    pub(super) port: Option<At<String>>,
    pub(super) name: Option<At<String>>,
    pub(super) mac: Option<At<MacAddr>>,
    pub(super) ip: Vec<At<IpAddr>>,
    /// Addresses that other ports have, too.
    pub(super) shared_mac: Vec<At<MacAddr>>,
    pub(super) shared_ip: Vec<At<IpAddr>>,
    /// Are the keys there, rightly or wrongly?
    pub(super) mac_is_written: bool,
    pub(super) ip_is_written: bool,
    router: bool,
    pub(super) dhcp_server: bool,
    rate_limit: Option<RateLimit>,
    rate_limit_to: Option<RateLimit>,
}

impl PortPart {
    pub(super) fn read(table: At<&DeTable<'_>>, tenant: &str, report: &mut Report) -> Self {
        let object = object("port", "port", table.value, &format!(" of {tenant}"));
        let section = Section::new(table.value, table.place, object, &schema::PORT, report);
        let (bridge, port) = selected(&section, report);
        let name = section.string("name", report);
        let mac = section.string("mac", report);
        let ip = section.strings("ip", report);
        let shared_mac = section.strings("shared_mac", report);
        let shared_ip = section.strings("shared_ip", report);
        let rate_limit = rate::limit(&section, "rate_limit", report);
        let rate_limit_to = rate::limit(&section, "rate_limit_to", report);

        // What is said of one port can't hold for several.
        let wide = [("bridge", &bridge), ("port", &port)].into_iter().find_map(|(key, pattern)| {
            let pattern = pattern.as_ref().filter(|pattern| !values::is_literal(&pattern.value))?;
            Some((key, pattern.clone()))
        });
        let of_one = [
            ("name", name.as_ref().map(|it| &it.place)),
            ("mac", mac.as_ref().map(|it| &it.place)),
            ("ip", ip.as_ref().map(|it| &it.place)),
            ("shared_mac", shared_mac.as_ref().map(|it| &it.place)),
            ("shared_ip", shared_ip.as_ref().map(|it| &it.place)),
        ];
        if let Some((key, pattern)) = wide {
            for (of_one, place) in of_one.into_iter().filter_map(|(key, place)| Some((key, place?))) {
                report.push(
                    Draft::error(format!("`{of_one}` of {}: the entry may select more than one port", section.object))
                        .code(Code::Misplaced)
                        .at(place.clone(), "can only be said of one port")
                        .also(pattern.place.clone(), "this may match several")
                        .help(format!(
                            "write the one {key} that is meant, in an entry of its own, or remove `{of_one}`"
                        )),
                );
            }
        }
        if let Some(list) = ip.as_ref().filter(|list| list.value.is_empty()) {
            report.push(
                Draft::error(format!("`ip` of {} is empty", section.object))
                    .at(list.place.clone(), "no address")
                    .help("write the addresses that it may send from, or remove `ip` if it may send from any"),
            );
        }
        for (key, shared) in [("mac", &shared_mac), ("ip", &shared_ip)] {
            let Some(list) = shared.as_ref().filter(|_| !section.has(key)) else { continue };
            report.push(
                Draft::error(format!("{} has `shared_{key}` without `{key}`", section.object))
                    .code(Code::MissingKey)
                    .at(list.place.clone(), format!("beside which `{key}` of its own?"))
                    .help(format!("write the address that the port has of its own as `{key}`: only then is it pinned")),
            );
        }
        let object = section.object.clone();
        let macs = |list: At<Vec<At<&str>>>, report: &mut Report| {
            list.value.iter().filter_map(|mac| values::mac(mac, &object, report)).collect()
        };
        let ips = |list: At<Vec<At<&str>>>, report: &mut Report| {
            list.value.iter().filter_map(|ip| values::ip(ip, &object, report)).collect()
        };
        Self {
            bridge,
            port,
            name: name.map(|name| values::name(&name, "a port", report)),
            mac: mac.and_then(|mac| values::mac(&mac, &object, report)),
            ip: ip.map_or_else(Vec::new, |list| ips(list, report)),
            shared_mac: shared_mac.map_or_else(Vec::new, |list| macs(list, report)),
            shared_ip: shared_ip.map_or_else(Vec::new, |list| ips(list, report)),
            mac_is_written: section.has("mac"),
            ip_is_written: section.has("ip"),
            router: section.boolean("router", report).unwrap_or_default(),
            dhcp_server: section.boolean("dhcp_server", report).unwrap_or_default(),
            rate_limit,
            rate_limit_to,
            place: section.place,
            object,
        }
    }

    pub(super) fn into_model(self, origin: impl Fn(&Place) -> Origin) -> Option<PortSelector> {
        Some(PortSelector {
            bridge: Glob::new(&self.bridge?.value),
            port: Glob::new(&self.port?.value),
            name: self.name.map(|name| name.value),
            mac: self.mac.map(|mac| mac.value),
            ip: self.ip.into_iter().map(|ip| ip.value).collect(),
            shared_mac: self.shared_mac.into_iter().map(|mac| mac.value).collect(),
            shared_ip: self.shared_ip.into_iter().map(|ip| ip.value).collect(),
            router: self.router,
            dhcp_server: self.dhcp_server,
            rate_limit: self.rate_limit,
            rate_limit_to: self.rate_limit_to,
            origin: origin(&self.place),
        })
    }
}
