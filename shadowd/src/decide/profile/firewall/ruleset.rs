//! The rules of a host, as `nft -j list ruleset` prints them (libnftables-json(5)).

use serde_json::Value;

/// Chains, rules and sets that are kept; more are too many to tell anything.
const OBJECTS_MAX: usize = 20_000;

/// All tables.
#[derive(Debug, Default)]
pub(super) struct Ruleset {
    chains: Vec<Chain>,
    sets: Vec<Set>,
}

/// One chain.
#[derive(Debug)]
pub(super) struct Chain {
    pub family: String,
    pub table: String,
    pub name: String,
    base: Option<Base>,
    /// The statements of each rule.
    pub rules: Vec<Vec<Value>>,
}

/// Where packets come into a chain.
#[derive(Debug)]
pub(super) struct Base {
    /// Its policy is to drop.
    pub drops: bool,
    /// It changes where packets go to.
    pub redirects: bool,
    /// It is of one device only.
    pub device: Option<String>,
}

#[derive(Debug)]
struct Set {
    family: String,
    table: String,
    name: String,
    /// None when it changes by itself.
    elements: Option<Vec<Value>>,
}

impl Ruleset {
    /// None for what is no ruleset, or too long.
    pub fn parse(listed: &str) -> Option<Self> {
        let listed: Value = serde_json::from_str(listed).ok()?;
        let objects = listed.get("nftables")?.as_array()?;
        if objects.len() > OBJECTS_MAX {
            return None;
        }
        let mut rules = Self::default();
        for object in objects {
            if let Some(chain) = object.get("chain") {
                rules.chains.push(Chain::parse(chain)?);
            } else if let Some(set) = object.get("set").or_else(|| object.get("map")) {
                rules.sets.push(Set::parse(set)?);
            }
        }
        for rule in objects.iter().filter_map(|object| object.get("rule")) {
            let (family, table) = (text(rule, "family")?, text(rule, "table")?);
            let name = text(rule, "chain")?;
            let mut chains = rules.chains.iter_mut();
            let chain = chains.find(|chain| {
                (&chain.family, &chain.table, &chain.name) == (&family, &table, &name)
            })?;
            chain.rules.push(rule.get("expr")?.as_array()?.clone());
        }
        Some(rules)
    }

    /// The chains that packets to this host come through.
    pub fn base_chains(&self) -> impl Iterator<Item = (&Chain, &Base)> {
        let chains = self.chains.iter();
        chains.filter_map(|chain| Some((chain, chain.base.as_ref()?)))
    }

    /// The chain that a rule of `from` calls so.
    pub fn chain(&self, from: &Chain, name: &str) -> Option<&Chain> {
        let beside = |chain: &&Chain| {
            (
                chain.family.as_str(),
                chain.table.as_str(),
                chain.name.as_str(),
            ) == (from.family.as_str(), from.table.as_str(), name)
        };
        self.chains.iter().find(beside)
    }

    /// Whether any table has a chain of this name.
    pub fn has_chain(&self, name: &str) -> bool {
        self.chains.iter().any(|chain| chain.name == name)
    }

    /// The elements of a set that a rule of `from` calls so; none when nobody knows them.
    pub fn set(&self, from: &Chain, name: &str) -> Option<&[Value]> {
        let beside = |set: &&Set| {
            (set.family.as_str(), set.table.as_str(), set.name.as_str())
                == (from.family.as_str(), from.table.as_str(), name)
        };
        self.sets.iter().find(beside)?.elements.as_deref()
    }
}

impl Chain {
    fn parse(chain: &Value) -> Option<Self> {
        let inwards = matches!(
            text(chain, "hook").as_deref(),
            Some("ingress" | "prerouting" | "input")
        );
        let base = inwards.then(|| Base {
            drops: text(chain, "policy").as_deref() == Some("drop"),
            redirects: text(chain, "type").as_deref() == Some("nat"),
            device: text(chain, "dev"),
        });
        Some(Self {
            family: text(chain, "family")?,
            table: text(chain, "table")?,
            name: text(chain, "name")?,
            base,
            rules: Vec::new(),
        })
    }
}

impl Set {
    fn parse(set: &Value) -> Option<Self> {
        let flags = set.get("flags").and_then(Value::as_array);
        let moves = flags.is_some_and(|flags| {
            let moving = |flag: &Value| flag == "dynamic" || flag == "timeout";
            flags.iter().any(moving)
        });
        let elements = set.get("elem").and_then(Value::as_array).cloned();
        Some(Self {
            family: text(set, "family")?,
            table: text(set, "table")?,
            name: text(set, "name")?,
            elements: (!moves).then(|| elements.unwrap_or_default()),
        })
    }
}

fn text(object: &Value, name: &str) -> Option<String> {
    object.get(name)?.as_str().map(str::to_owned)
}
