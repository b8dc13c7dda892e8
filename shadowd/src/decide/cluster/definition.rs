//! Whether the members agree on what the group is, and who comes first among equals.

use super::group::{Group, Peer};
use super::member::Member;
use crate::config::settings::GroupSettings;
use crate::facts::{BootTime, Cause, EventKind, HostId, Name};

/// FNV-1a, 64 bits (draft-eastlake-fnv): the same on every host; nobody has to be kept from finding
/// a collision, because only members are heard.
fn digest<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    parts.into_iter().fold(0xcbf2_9ce4_8422_2325, |hash, part| {
        // A zero between the parts: no part holds one that text is made of.
        step(part.iter().fold(hash, step), &0)
    })
}

/// Of the virtual IPs, the members and the spares, in whatever order they are written. Never 0.
pub(super) fn definition(settings: &GroupSettings, me: &Peer, others: &[Peer]) -> u32 {
    let mut vips: Vec<String> = settings.vips.iter().map(ToString::to_string).collect();
    vips.sort_unstable();
    let is_spare = |peer: &&Peer| match peer.id == me.id {
        true => settings.spare,
        false => settings.spares.contains(&peer.name),
    };
    let all = || others.iter().chain([me]);
    let sorted = |ids: &mut Vec<HostId>| ids.sort_unstable();
    let mut members: Vec<HostId> = all().filter(|it| !is_spare(it)).map(|it| it.id).collect();
    let mut spares: Vec<HostId> = all().filter(is_spare).map(|it| it.id).collect();
    sorted(&mut members);
    sorted(&mut spares);
    let vips = vips.iter().map(String::as_bytes);
    let members = members.iter().map(|id| id.as_bytes().as_slice());
    let spares = spares
        .iter()
        .flat_map(|id| [b"spare".as_slice(), id.as_bytes()]);
    let hash = digest(vips.chain(members).chain(spares));
    ((hash >> 32) as u32 ^ hash as u32).max(1)
}

/// Who comes first among equal priorities: another host for each group, so that groups spread
/// (rendezvous hashing, Thaler and Ravishankar 1998).
fn share(group: &Name, id: HostId) -> u64 {
    let hash = digest([group.as_str().as_bytes(), id.as_bytes()]);
    // The last bytes of FNV-1a are mixed too little (splitmix64's finalizer).
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// The order in which members take a group, the best first, and spares after them.
pub(super) type Key = (bool, std::cmp::Reverse<u8>, u64, HostId);

impl Group {
    pub(super) fn key(&self, priority: u8, id: HostId) -> Key {
        let share = share(&self.settings.name, id);
        let mut members = self.members.iter();
        let member = members.find(|member| member.id == id);
        let spare = member.map_or(self.settings.spare, |member| member.spare);
        (spare, std::cmp::Reverse(priority), share, id)
    }

    pub(super) fn key_of(&self, member: usize) -> Key {
        let member = &self.members[member];
        self.key(member.priority(), member.id)
    }

    /// A member said what its configuration has.
    pub(super) fn note_definition(&mut self, member: usize, differs: bool, now: BootTime) {
        let before = std::mem::replace(&mut self.members[member].differs, differs);
        if differs && !before {
            let name = &self.members[member].name;
            let detail = format!(
                "definition differs from {name}: it has other virtual IPs or members for this group"
            );
            let cause = Some(Cause::DefinitionDiffers);
            self.record(EventKind::Failure, cause, detail, now);
        }
    }

    /// The living members whose configuration has another group of this name.
    pub(super) fn differing(&self) -> impl Iterator<Item = &Member> {
        let members = self.members.iter();
        members.filter(|member| member.alive() && member.differs)
    }

    /// More living members have another group than have this one; of two that differ, the better
    /// one is right. A spare has no say in it.
    pub(super) fn outvoted(&self) -> bool {
        let differing = || self.differing().filter(|member| !member.spare);
        let differ = differing().count();
        if differ == 0 {
            return false;
        }
        let members = self.members.iter();
        let agreeing = members.filter(|it| it.alive() && !it.spare && !it.differs);
        let agree = usize::from(!self.settings.spare) + agreeing.count();
        let own = self.key(self.settings.priority, self.me.id);
        let better = |member: &Member| self.key(member.priority(), member.id) < own;
        differ > agree || (differ == agree && differing().any(better))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_equals_begin_on_different_hosts() {
        let hosts: Vec<HostId> = (1..=3).map(|n| HostId::from_bytes([n; 32])).collect();
        let mut first = [0; 3];
        for number in 0..300 {
            let group: Name = format!("group-{number}").parse().unwrap();
            let best = (0..3).min_by_key(|index| share(&group, hosts[*index]));
            first[best.unwrap()] += 1;
        }
        let fair = first.iter().all(|count| (70..130).contains(count));
        assert!(fair, "{first:?}");
    }
}
