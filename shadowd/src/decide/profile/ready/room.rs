//! Room for what a unit needs: memory and processors at the peak, and what it keeps in memory of files.

use super::{CPU_ALWAYS, List, Remedy, Wanted, amount};
use crate::decide::profile::hot::{Warmth, room};
use crate::facts::{Act, Inventory, ItemKind, Need, ResourceKind, Verdict};

impl List<'_> {
    /// What is needed of a resource beside what runs here already, which has what it needs.
    fn needed(&self, kind: ResourceKind, wanted: &Wanted<'_>, of: fn(&Need) -> f64) -> f64 {
        let active = &self.here.host.active;
        let needs = wanted.profile.needs.iter();
        needs
            .filter(|((unit, one), _)| *one == kind && !active.contains(unit))
            .map(|(_, need)| of(need).max(0.0))
            .sum()
    }

    pub(super) fn headroom(&mut self, wanted: &Wanted<'_>) {
        let here = &self.here.host;
        let cold = wanted.profile.needs.values().any(|need| need.cold);
        let memory = (here.memory > 0).then_some(here.memory_available as f64);
        let busy = here.busy.filter(|_| here.processors > 0.0);
        let processors = busy.map(|busy| (here.processors - busy).max(0.0));
        let rooms = [
            (ItemKind::Memory, ResourceKind::Memory, memory),
            (ItemKind::Cpu, ResourceKind::Cpu, processors),
        ];
        for (item, resource, free) in rooms {
            let median = self.needed(resource, wanted, |need| need.median);
            let peak = self.needed(resource, wanted, |need| need.peak);
            let subject = item.to_string();
            let Some(free) = free else {
                let why = self.unknown(Inventory::CAPTURE);
                let why = why.unwrap_or_else(|| "the kernel does not tell what is free".into());
                self.cannot_tell(item, subject, why);
                continue;
            };
            let text = |value: f64| amount(resource, value);
            let negligible = resource == ResourceKind::Cpu && peak < CPU_ALWAYS;
            if free >= peak || negligible {
                self.ready(item, subject);
            } else if cold && free >= median {
                let cause = format!(
                    "{} free; {} are usual, and less than two days were seen",
                    text(free),
                    text(median)
                );
                self.cannot_tell(item, subject, cause);
            } else {
                let cause = format!("{} free, {} expected at the peak", text(free), text(peak));
                let remedy = Remedy::Operator("stop what else runs here, or add some".into());
                self.not_ready(item, subject, cause, remedy);
            }
        }
    }

    /// What the active has in memory and this host has not. It is told, and no reason to keep this host
    /// back: a service that starts more slowly is better than none.
    pub(super) fn warmth(&mut self, wanted: &Wanted<'_>) {
        let here = self.here;
        let peak = self.needed(ResourceKind::Memory, wanted, |need| need.peak);
        let mut room = room(here.host.memory, here.host.memory_available, peak as u64);
        for unit in wanted.beside.hot.units.keys() {
            let Some(warmth) = Warmth::of(unit, &wanted.beside.hot, &here.resident) else {
                continue;
            };
            if !warmth.is_cold() {
                self.ready(ItemKind::Cache, unit);
                continue;
            }
            let text = |bytes: u64| amount(ResourceKind::Memory, bytes as f64);
            let mut cause = format!(
                "{} of {} that it keeps in memory on the active are in memory here",
                text(warmth.hot - warmth.missing),
                text(warmth.hot)
            );
            let remedy = match room.checked_sub(warmth.missing) {
                Some(left) => {
                    room = left;
                    let (unit, files) = (unit.clone(), warmth.files);
                    Some(Remedy::Either(Act::Warm { unit, files }))
                }
                None => {
                    cause.push_str(", and no more would fit");
                    None
                }
            };
            self.push(ItemKind::Cache, unit, Verdict::Ready, cause, remedy);
        }
    }
}
