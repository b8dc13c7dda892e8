//! Whether a packet filter lets a new connection to a port in, by the rules that nft(8) lists.
//!
//! What a rule asks for is true, false, or not known: where a client comes from is not, for one. A rule
//! of which nobody knows whether it applies has both outcomes, so that the answer is sure or says
//! that it is not.

mod ruleset;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde_json::Value;

use self::ruleset::{Base, Chain, Ruleset};
use crate::facts::{FilterChain, Passage, Port, Protocol, Scope};

/// Rules that are looked at for one port, and how deep chains call each other.
const STEPS_MAX: u32 = 20_000;
const DEPTH_MAX: u32 = 16;

/// What can become of a packet: several where nobody knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Outcomes(u8);

const ACCEPTED: Outcomes = Outcomes(1);
const DROPPED: Outcomes = Outcomes(2);
/// The next rule decides.
const ON: Outcomes = Outcomes(4);
/// The chain ends here.
const RETURNED: Outcomes = Outcomes(8);
const ANY: Outcomes = Outcomes(7);

impl Outcomes {
    const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

/// Whether a rule applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Truth {
    No,
    Maybe,
    Yes,
}

impl Truth {
    const fn of(known: bool) -> Self {
        match known {
            true => Self::Yes,
            false => Self::No,
        }
    }

    const fn not(self) -> Self {
        match self {
            Self::No => Self::Yes,
            Self::Maybe => Self::Maybe,
            Self::Yes => Self::No,
        }
    }
}

/// The first packet of a connection.
#[derive(Clone, Copy, Debug)]
struct Packet<'a> {
    v6: bool,
    protocol: Protocol,
    port: u16,
    interface: &'a str,
}

/// What becomes of connections to `ports` at `vips`, which come in through `interface`; `listed` is what
/// `nft -j list ruleset` prints. Ports on loopback are nobody's from outside.
pub fn passages(
    listed: &str,
    ports: &BTreeSet<Port>,
    vips: &BTreeSet<IpAddr>,
    interface: &str,
) -> BTreeMap<Port, Passage> {
    let rules = Ruleset::parse(listed);
    let outside = ports.iter().filter(|port| port.scope != Scope::Loopback);
    let judged = outside.map(|port| {
        let passage = match &rules {
            Some(rules) => passage(rules, port, vips, interface),
            None => Passage::Unclear("the rules of nft cannot be read".to_owned()),
        };
        (port.clone(), passage)
    });
    judged.collect()
}

/// The worst of the families.
fn passage(rules: &Ruleset, port: &Port, vips: &BTreeSet<IpAddr>, interface: &str) -> Passage {
    let families: BTreeSet<bool> = vips.iter().map(IpAddr::is_ipv6).collect();
    let passages = families.into_iter().map(|v6| {
        let packet = Packet {
            v6,
            protocol: port.protocol,
            port: port.port,
            interface,
        };
        Walk {
            rules,
            packet,
            steps: 0,
        }
        .passage()
    });
    let rank = |passage: &Passage| match passage {
        Passage::Open => 0,
        Passage::Unclear(_) => 1,
        Passage::Closed { .. } => 2,
    };
    passages.max_by_key(rank).unwrap_or(Passage::Open)
}

/// One packet's way through the chains.
struct Walk<'a> {
    rules: &'a Ruleset,
    packet: Packet<'a>,
    steps: u32,
}

impl Walk<'_> {
    /// Every chain of its way has to let it in (nft(8)): an acceptance ends one chain only.
    fn passage(mut self) -> Passage {
        let mut unclear = None;
        for (chain, base) in self.rules.base_chains() {
            if !self.concerns(chain, base) {
                continue;
            }
            let mut outcomes = self.chain(chain, 0);
            if outcomes.has(ON.or(RETURNED)) {
                let policy = if base.drops { DROPPED } else { ACCEPTED };
                outcomes = outcomes.without(ON.or(RETURNED)).or(policy);
            }
            let name = format!("{} of table {} {}", chain.name, chain.family, chain.table);
            if base.redirects && outcomes != ACCEPTED {
                unclear = Some(format!("chain {name} may send it to another port"));
            } else if outcomes == DROPPED {
                return self.closed(chain, &name);
            } else if outcomes.has(DROPPED) {
                unclear.get_or_insert(format!("chain {name} lets in some and drops others"));
            }
        }
        unclear.map_or(Passage::Open, Passage::Unclear)
    }

    fn concerns(&self, chain: &Chain, base: &Base) -> bool {
        let family = match chain.family.as_str() {
            "inet" | "netdev" => true,
            "ip" => !self.packet.v6,
            "ip6" => self.packet.v6,
            _ => false,
        };
        let device = base.device.as_deref();
        family && device.is_none_or(|device| device == self.packet.interface)
    }

    fn closed(&self, chain: &Chain, name: &str) -> Passage {
        let (protocol, port) = (self.packet.protocol, self.packet.port);
        let protocol = protocol.to_string().to_lowercase();
        let by = format!("chain {name} drops it");
        if chain.table == "firewalld" {
            let remedy = format!(
                "firewall-cmd --permanent --add-port={port}/{protocol} && firewall-cmd --reload"
            );
            return Passage::Closed {
                by,
                chain: None,
                remedy,
            };
        }
        if self.rules.has_chain("ufw-user-input") {
            let remedy = format!("ufw allow {port}/{protocol}");
            return Passage::Closed {
                by,
                chain: None,
                remedy,
            };
        }
        let (family, table, chain) = (&chain.family, &chain.table, &chain.name);
        let remedy =
            format!("nft insert rule {family} {table} {chain} {protocol} dport {port} accept");
        let chain = FilterChain {
            family: family.clone(),
            table: table.clone(),
            chain: chain.clone(),
        };
        let chain = chain.words().is_some().then_some(chain);
        Passage::Closed { by, chain, remedy }
    }

    fn chain(&mut self, chain: &Chain, depth: u32) -> Outcomes {
        let mut all = Outcomes(0);
        for rule in &chain.rules {
            self.steps += 1;
            if self.steps > STEPS_MAX || depth > DEPTH_MAX {
                return ANY;
            }
            let outcomes = self.rule(chain, rule, depth);
            all = all.or(outcomes.without(ON));
            if !outcomes.has(ON) {
                return all;
            }
        }
        all.or(ON)
    }

    fn rule(&mut self, chain: &Chain, rule: &[Value], depth: u32) -> Outcomes {
        let (mut applies, mut before) = (Truth::Yes, Outcomes(0));
        for statement in rule {
            let Some((word, inner)) = statement.as_object().and_then(|one| one.iter().next())
            else {
                return ANY;
            };
            let outcomes = match word.as_str() {
                "match" => {
                    applies = applies.min(self.matches(chain, inner));
                    match applies {
                        Truth::No => return ON.or(before),
                        Truth::Yes | Truth::Maybe => continue,
                    }
                }
                "counter" | "log" | "mangle" | "notrack" | "set" | "map" | "comment" | "last"
                | "secmark" | "flow" | "ct helper" | "ct timeout" | "ct expectation" => continue,
                "limit" | "quota" | "connlimit" | "ct count" => {
                    applies = applies.min(Truth::Maybe);
                    continue;
                }
                "accept" => ACCEPTED,
                "drop" | "reject" => DROPPED,
                "return" => RETURNED,
                "jump" | "goto" => self.call(chain, word, inner, depth),
                "vmap" => match self.map(chain, inner, depth) {
                    outcomes if outcomes.has(ON) => {
                        before = before.or(outcomes.without(ON));
                        continue;
                    }
                    outcomes => outcomes,
                },
                // What other programs' extensions do (`xt`), and what is newer than this.
                _ => ANY,
            };
            return match applies {
                Truth::Yes => outcomes.or(before),
                Truth::No | Truth::Maybe => outcomes.or(before).or(ON),
            };
        }
        ON.or(before)
    }

    /// A jump comes back to the next rule, a goto to where this chain was called.
    fn call(&mut self, from: &Chain, word: &str, inner: &Value, depth: u32) -> Outcomes {
        let rules = self.rules;
        let target = inner.get("target").and_then(Value::as_str);
        let Some(chain) = target.and_then(|target| rules.chain(from, target)) else {
            return ANY;
        };
        let outcomes = self.chain(chain, depth + 1);
        if !outcomes.has(ON.or(RETURNED)) {
            return outcomes;
        }
        let back = if word == "goto" { RETURNED } else { ON };
        outcomes.without(ON.or(RETURNED)).or(back)
    }

    /// A map from what a packet is to what becomes of it: the first that fits.
    fn map(&mut self, chain: &Chain, inner: &Value, depth: u32) -> Outcomes {
        let (Some(key), Some(pairs)) = (inner.get("key"), elements(inner.get("data"))) else {
            return ANY;
        };
        let mut all = Outcomes(0);
        for pair in pairs {
            let Some([value, verdict]) = pair.as_array().map(Vec::as_slice) else {
                return ANY;
            };
            let fits = self.compares(chain, key, "==", value);
            if fits == Truth::No {
                continue;
            }
            let outcomes = self.rule(chain, std::slice::from_ref(verdict), depth);
            all = all.or(outcomes);
            if fits == Truth::Yes {
                return all;
            }
        }
        all.or(ON)
    }

    fn matches(&self, chain: &Chain, inner: &Value) -> Truth {
        let part = |name| inner.get(name);
        match (
            part("op").and_then(Value::as_str),
            part("left"),
            part("right"),
        ) {
            (Some(op), Some(left), Some(right)) => self.compares(chain, left, op, right),
            _ => Truth::Maybe,
        }
    }

    fn compares(&self, chain: &Chain, left: &Value, op: &str, right: &Value) -> Truth {
        let known = match self.known(left) {
            Known::Value(known) => known,
            Known::Other => return Truth::No,
            Known::Nobody => return Truth::Maybe,
        };
        match op {
            "==" | "in" => self.is(chain, &known, right),
            "!=" => self.is(chain, &known, right).not(),
            "<" | ">" | "<=" | ">=" => match (known.as_u64(), right.as_u64()) {
                (Some(known), Some(right)) => Truth::of(match op {
                    "<" => known < right,
                    ">" => known > right,
                    "<=" => known <= right,
                    _ => known >= right,
                }),
                _ => Truth::Maybe,
            },
            _ => Truth::Maybe,
        }
    }

    /// Whether what is known is `right`, or among it.
    fn is(&self, chain: &Chain, known: &Value, right: &Value) -> Truth {
        if let Some(name) = right.as_str().and_then(|text| text.strip_prefix('@')) {
            return match self.rules.set(chain, name) {
                Some(all) => self.any(chain, known, all),
                None => Truth::Maybe,
            };
        }
        if let Some(start) = right.as_str().and_then(|text| text.strip_suffix('*')) {
            let text = known.as_str();
            return text.map_or(Truth::Maybe, |text| Truth::of(text.starts_with(start)));
        }
        match right {
            Value::Array(all) => self.any(chain, known, all),
            Value::Object(object) => match object.iter().next() {
                Some((word, inner)) if word == "set" => {
                    elements(Some(inner)).map_or(Truth::Maybe, |all| self.any(chain, known, all))
                }
                Some((word, inner)) if word == "elem" => inner
                    .get("val")
                    .map_or(Truth::Maybe, |value| self.is(chain, known, value)),
                Some((word, inner)) if word == "range" => {
                    let ends = (inner.get(0), inner.get(1), known.as_u64());
                    match (
                        ends.0.and_then(Value::as_u64),
                        ends.1.and_then(Value::as_u64),
                        ends.2,
                    ) {
                        (Some(low), Some(high), Some(known)) => {
                            Truth::of((low..=high).contains(&known))
                        }
                        _ => Truth::Maybe,
                    }
                }
                _ => Truth::Maybe,
            },
            right => Truth::of(known == right),
        }
    }

    fn any(&self, chain: &Chain, known: &Value, all: &[Value]) -> Truth {
        let each = all.iter().map(|one| self.is(chain, known, one));
        each.max().unwrap_or(Truth::No)
    }

    /// What is known of a packet: a value, that it is another protocol's, or nothing.
    fn known(&self, left: &Value) -> Known {
        let Some((word, inner)) = left.as_object().and_then(|one| one.iter().next()) else {
            return Known::Nobody;
        };
        let text = |name: &str| inner.get(name).and_then(Value::as_str).unwrap_or_default();
        let protocol = self.packet.protocol.to_string().to_lowercase();
        let family = if self.packet.v6 { "ip6" } else { "ip" };
        match word.as_str() {
            "payload" => match (text("protocol"), text("field")) {
                ("th", "dport") => Known::Value(self.packet.port.into()),
                (of, "dport") if of == protocol => Known::Value(self.packet.port.into()),
                (of, "protocol" | "nexthdr") if of == family => Known::Value(protocol.into()),
                ("th" | "ether" | "vlan" | "", _) => Known::Nobody,
                (of, _) if of == protocol || of == family => Known::Nobody,
                _ => Known::Other,
            },
            "meta" => match text("key") {
                "iifname" | "iif" => Known::Value(self.packet.interface.into()),
                "l4proto" => Known::Value(protocol.into()),
                "nfproto" => Known::Value(if self.packet.v6 { "ipv6" } else { "ipv4" }.into()),
                "protocol" => Known::Value(family.into()),
                _ => Known::Nobody,
            },
            // Packets of a client to which there is a way back, to an address of this host.
            "fib" => match text("result") {
                "oif" => Known::Value(true.into()),
                "type" => Known::Value("local".into()),
                _ => Known::Nobody,
            },
            "ct" => match text("key") {
                "state" => Known::Value("new".into()),
                "direction" => Known::Value("original".into()),
                _ => Known::Nobody,
            },
            _ => Known::Nobody,
        }
    }
}

enum Known {
    Value(Value),
    Other,
    Nobody,
}

/// The elements of a set, however it is wrapped.
fn elements(set: Option<&Value>) -> Option<&[Value]> {
    let set = set?;
    let inner = set.get("set").unwrap_or(set);
    inner.as_array().map(Vec::as_slice)
}

#[cfg(test)]
#[path = "../firewall_tests.rs"]
mod tests;
