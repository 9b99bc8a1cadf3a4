//! Actions as `ovs-ofctl` writes them.

use std::fmt;

use super::{Action, ConntrackFlags, ControllerProperty, Learn, LearnSource, LearnTarget, LimitedLearn};
use crate::oxm::Oxm;
use crate::types::PortNo;

fn setting(f: &mut fmt::Formatter<'_>, oxm: &Oxm) -> fmt::Result {
    let text = oxm.to_string();
    let (field, value) = text.split_once('=').unwrap_or((&text, ""));
    write!(f, "set_field:{value}->{field}")
}

fn list(f: &mut fmt::Formatter<'_>, name: &str, items: impl Iterator<Item = String>) -> fmt::Result {
    write!(f, "{name}({})", items.collect::<Vec<_>>().join(","))
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Output { port: PortNo::CONTROLLER, max_len } => write!(f, "CONTROLLER:{max_len}"),
            Self::Output { port, .. } => write!(f, "output:{port}"),
            Self::CopyTtlOut {} => f.write_str("copy_ttl_out"),
            Self::CopyTtlIn {} => f.write_str("copy_ttl_in"),
            Self::SetMplsTtl { ttl } => write!(f, "set_mpls_ttl({ttl})"),
            Self::DecMplsTtl {} => f.write_str("dec_mpls_ttl"),
            Self::PushVlan { ethertype } => write!(f, "push_vlan:{ethertype:#06x}"),
            Self::PopVlan {} => f.write_str("pop_vlan"),
            Self::PushMpls { ethertype } => write!(f, "push_mpls:{ethertype:#06x}"),
            Self::PopMpls { ethertype } => write!(f, "pop_mpls:{ethertype:#06x}"),
            Self::SetQueue { queue } => write!(f, "set_queue:{}", queue.0),
            Self::Group { group } => write!(f, "group:{}", group.0),
            Self::SetNwTtl { ttl } => write!(f, "mod_nw_ttl:{ttl}"),
            Self::DecNwTtl {} => f.write_str("dec_ttl"),
            Self::SetField(oxm) | Self::RegLoad2(oxm) => setting(f, oxm),
            Self::PushPbb { ethertype } => write!(f, "push_pbb:{ethertype:#06x}"),
            Self::PopPbb {} => f.write_str("pop_pbb"),
            Self::ResubmitPort { in_port } => write!(f, "resubmit:{}", PortNo::of_16_bits(*in_port)),
            Self::SetTunnel { key } => write!(f, "set_tunnel:{key:#x}"),
            Self::SetTunnel64 { key } => write!(f, "set_tunnel64:{key:#x}"),
            Self::PopQueue {} => f.write_str("pop_queue"),
            Self::RegMove { n_bits, src_offset, dst_offset, src, dst } => {
                // What was told may be beyond any field.
                let last = |offset: &u16| u32::from(*offset) + u32::from(n_bits.saturating_sub(1));
                let (from, to) = (last(src_offset), last(dst_offset));
                write!(f, "move:{src}[{src_offset}..{from}]->{dst}[{dst_offset}..{to}]")
            }
            Self::RegLoad { range, dst, value } => write!(f, "load:{value:#x}->{dst}{range}"),
            Self::Note(octets) => write!(f, "note:{octets}"),
            Self::Multipath(m) => write!(
                f,
                "multipath({:?},{},{:?},{},{},{}{})",
                m.fields,
                m.basis,
                m.algorithm,
                u32::from(m.max_link) + 1,
                m.argument,
                m.dst,
                m.range
            ),
            Self::Bundle(members) => members.write(f, "bundle", None),
            Self::BundleLoad(load) => load.members.write(f, "bundle_load", Some(load)),
            Self::Resubmit { in_port: Self::SAME_PORT, table } => write!(f, "resubmit(,{})", table.0),
            Self::Resubmit { in_port, table } => write!(f, "resubmit({},{})", PortNo::of_16_bits(*in_port), table.0),
            Self::ResubmitCt { table, .. } => write!(f, "resubmit(,{},ct)", table.0),
            Self::OutputReg { range, src, .. } => write!(f, "output:{src}{range}"),
            Self::Learn(learn) => write_learn(f, learn, None),
            Self::LimitedLearn(limited) => write_learn(f, &limited.learn, Some(limited)),
            Self::Exit {} => f.write_str("exit"),
            Self::FinTimeout { idle_timeout, hard_timeout } => {
                write!(f, "fin_timeout(idle_timeout={idle_timeout},hard_timeout={hard_timeout})")
            }
            Self::Controller { max_len, controller, reason } => {
                write!(f, "controller(reason={reason:?},max_len={max_len},id={controller})")
            }
            Self::StackPush(field) => write!(f, "push:{}[{}..+{}]", field.field, field.offset, field.n_bits),
            Self::StackPop(field) => write!(f, "pop:{}[{}..+{}]", field.field, field.offset, field.n_bits),
            Self::Conjunction { clause, n_clauses, id } => {
                write!(f, "conjunction({id},{}/{n_clauses})", u16::from(*clause) + 1)
            }
            Self::Ct(ct) => {
                let commit = ct.flags.contains(ConntrackFlags::COMMIT).then(|| "commit".to_owned());
                let force = ct.flags.contains(ConntrackFlags::FORCE).then(|| "force".to_owned());
                let zone = match ct.zone_source {
                    0 => format!("zone={}", ct.zone),
                    field => format!("zone=oxm_{field:08x}:{:#x}", ct.zone),
                };
                let table = (ct.table.0 != 0xff).then(|| format!("table={}", ct.table.0));
                let helper = (ct.helper != 0).then(|| format!("alg={}", ct.helper));
                let inner = ct.actions.0.iter().map(|action| format!("exec({action})"));
                list(f, "ct", [commit, force, table, Some(zone), helper].into_iter().flatten().chain(inner))
            }
            Self::Nat { flags, bounds, .. } => write!(f, "nat(flags={flags:#x},{bounds})"),
            Self::Controller2(properties) => list(
                f,
                "controller",
                properties.iter().map(|property| match property {
                    ControllerProperty::MaxLen(octets) => format!("max_len={octets}"),
                    ControllerProperty::ControllerId(id) => format!("id={id}"),
                    ControllerProperty::Reason(reason) => format!("reason={reason:?}"),
                    ControllerProperty::Userdata(octets) => format!("userdata={octets}"),
                    ControllerProperty::Pause {} => "pause".to_owned(),
                    ControllerProperty::Meter(meter) => format!("meter_id={}", meter.0),
                    ControllerProperty::Unknown { kind, body } => format!("property{kind}={body}"),
                }),
            ),
            Self::OutputTrunc { port, max_len } => {
                write!(f, "output(port={},max_len={max_len})", PortNo::of_16_bits(*port))
            }
            Self::Clone(nested) => list(f, "clone", nested.0.iter().map(Self::to_string)),
            Self::CtClear {} => f.write_str("ct_clear"),
            Self::Unknown { kind, body } => write!(f, "action{kind}({body})"),
        }
    }
}

fn write_learn(f: &mut fmt::Formatter<'_>, learn: &Learn, limited: Option<&LimitedLearn>) -> fmt::Result {
    let head = [
        format!("table={}", learn.table.0),
        format!("idle_timeout={}", learn.idle_timeout),
        format!("hard_timeout={}", learn.hard_timeout),
        format!("priority={}", learn.priority),
        format!("cookie={}", learn.cookie),
    ];
    let limit = limited.map(|it| format!("limit={}", it.limit));
    let result = limited.and_then(|it| it.result.as_ref());
    let result = result.map(|it| format!("result_dst={}[{}]", it.field, it.bit));
    let specs = learn.specs.0.iter().map(|spec| {
        let source = match &spec.source {
            LearnSource::Field(field, offset) => format!("{field}[{offset}..+{}]", spec.n_bits),
            LearnSource::Immediate(octets) => format!("0x{octets}"),
        };
        match &spec.target {
            LearnTarget::Match(field, offset) => format!("{field}[{offset}..+{}]={source}", spec.n_bits),
            LearnTarget::Load(field, offset) => format!("load:{source}->{field}[{offset}..+{}]", spec.n_bits),
            LearnTarget::Output => format!("output:{source}"),
        }
    });
    list(f, "learn", head.into_iter().chain(limit).chain(result).chain(specs))
}
