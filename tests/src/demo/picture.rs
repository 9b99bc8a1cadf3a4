//! A picture of the lab.

use lab::{Container, Lab, Layout};

/// More hosts don't fit beside each other.
const DRAWN: usize = 4;

/// The hosts with their containers, and what joins them.
pub(super) fn draw(lab: &Lab) -> String {
    let hosts = lab.hosts().len();
    let all: Vec<usize> = (1..=hosts).collect();
    // Of many hosts the first ones and the last.
    let drawn: Vec<usize> = if hosts <= DRAWN { all } else { vec![1, 2, hosts] };
    let containers = lab.containers();
    let boxes: Vec<Vec<String>> = drawn.iter().map(|host| host_box(*host, &containers)).collect();
    let height = boxes.iter().map(Vec::len).max().unwrap_or(0);
    let mut text = String::new();
    for row in 0..height {
        let mut line = String::new();
        for (place, part) in boxes.iter().enumerate() {
            let left_out = hosts > DRAWN && place + 1 == boxes.len();
            let gap = match (place, left_out, row == height / 2) {
                (0, ..) => "",
                (_, true, true) => "  …  ",
                (_, true, false) => "     ",
                _ => "   ",
            };
            line = line + gap + part.get(row).map_or("", String::as_str);
        }
        text = text + &line + "\n";
    }
    text + &cables(&boxes, hosts > DRAWN) + &caption(lab)
}

fn host_box(host: usize, containers: &[Container]) -> Vec<String> {
    let mut rows: Vec<String> = Vec::new();
    for container in containers.iter().filter(|container| container.host == host) {
        rows.push(format!(" {:<9} {} ", container.port, container.ipv4));
        rows.push(format!("   {} ", container.mac));
    }
    let width = rows.iter().map(|row| row.chars().count()).max().unwrap_or(0).max(12);
    let name = format!("─ h{host} ");
    let mut lines = vec![format!("┌{name:─<width$}┐")];
    lines.extend(rows.iter().map(|row| format!("│{row:<width$}│")));
    let middle = width / 2;
    lines.push(format!("└{}┬{}┘", "─".repeat(middle), "─".repeat(width - middle - 1)));
    lines
}

/// The line under the boxes that joins their feet.
fn cables(boxes: &[Vec<String>], left_out: bool) -> String {
    let mut feet = Vec::new();
    let mut at = 0;
    for (place, part) in boxes.iter().enumerate() {
        let last = place + 1 == boxes.len();
        at += match place {
            0 => 0,
            _ if left_out && last => 5,
            _ => 3,
        };
        let foot = part.last().map_or("", String::as_str);
        feet.push(at + foot.chars().position(|c| c == '┬').unwrap_or(0));
        at += foot.chars().count();
    }
    let (Some(first), Some(last)) = (feet.first(), feet.last()) else { return String::new() };
    let line: String = (0..=*last)
        .map(|column| match column {
            column if column < *first => ' ',
            column if column == *first => '└',
            column if column == *last => '┘',
            column if feet.contains(&column) => '┴',
            _ => '─',
        })
        .collect();
    line + "\n"
}

fn caption(lab: &Lab) -> String {
    let spec = lab.spec();
    let carrier = format!("{:?}", spec.carrier).to_uppercase();
    let (links, hosts) = (lab.links().len(), spec.hosts);
    let pairs = hosts * (hosts - 1) / 2;
    let keys: Vec<_> = spec.tenants.iter().map(|tenant| format!("{} {}", tenant.name, tenant.key)).collect();
    let joined = match (spec.layout, spec.carrier) {
        (Layout::Shared, lab::Carrier::Veth) => format!("{pairs} cables carry all, told apart by tags"),
        (Layout::Shared, _) => format!("{pairs} {carrier} tunnels carry all (keys: {})", keys.join(", ")),
        (_, lab::Carrier::Veth) => format!("{links} cables, a mesh each"),
        _ => format!("{links} {carrier} tunnels, a mesh each (keys: {})", keys.join(", ")),
    };
    let bridges = match spec.layout {
        Layout::Shared => "One bridge on each host for all tenants",
        _ => "A bridge for each tenant on each host",
    };
    format!(
        "{bridges}; {joined}.\nSTP is off, so every loop is open. Both tenants use the same IP and MAC addresses.\n"
    )
}
