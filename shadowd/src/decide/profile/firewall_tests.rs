//! Rules as nft prints them, and who gets in.

use proptest::prelude::*;
use serde_json::json;

use super::*;

const ETH0: &str = "eth0";

fn port(port: u16) -> Port {
    Port {
        protocol: Protocol::Tcp,
        port,
        scope: Scope::All,
    }
}

fn chain(family: &str, name: &str, hook: Option<(&str, &str)>) -> Value {
    let mut chain = json!({"family": family, "table": "filter", "name": name, "handle": 1});
    if let Some((hook, policy)) = hook {
        chain["type"] = "filter".into();
        chain["hook"] = hook.into();
        chain["prio"] = 0.into();
        chain["policy"] = policy.into();
    }
    json!({"chain": chain})
}

fn rule(family: &str, chain: &str, expressions: Value) -> Value {
    json!({"rule": {"family": family, "table": "filter", "chain": chain, "handle": 2,
                    "expr": expressions}})
}

fn is(left: Value, right: Value) -> Value {
    json!({"match": {"op": "==", "left": left, "right": right}})
}

fn dport(right: impl Into<Value>) -> Value {
    is(
        json!({"payload": {"protocol": "tcp", "field": "dport"}}),
        right.into(),
    )
}

fn listed(objects: &[Value]) -> String {
    let first = json!({"metainfo": {"version": "1.0.6", "json_schema_version": 1}});
    let all: Vec<Value> = std::iter::once(first)
        .chain(objects.iter().cloned())
        .collect();
    json!({"nftables": all}).to_string()
}

/// What becomes of connections to port 80 over IPv4, with these rules in a chain that drops.
fn with(rules: &[Value]) -> Passage {
    let mut objects = vec![chain("inet", "input", Some(("input", "drop")))];
    objects.extend(rules.iter().map(|one| rule("inet", "input", one.clone())));
    of(&listed(&objects), "192.0.2.10")
}

fn of(text: &str, vip: &str) -> Passage {
    let vips = [vip.parse().unwrap()].into();
    let all = passages(text, &[port(80)].into(), &vips, ETH0);
    all[&port(80)].clone()
}

fn is_closed(passage: &Passage) -> bool {
    matches!(passage, Passage::Closed { .. })
}

fn is_unclear(passage: &Passage) -> bool {
    matches!(passage, Passage::Unclear(_))
}

#[test]
fn without_rules_everybody_gets_in_and_behind_a_policy_nobody() {
    assert_eq!(of(&listed(&[]), "192.0.2.10"), Passage::Open);
    let closed = with(&[]);
    let Passage::Closed { by, chain, remedy } = closed else {
        panic!("{closed:?}");
    };
    assert_eq!(by, "chain input of table inet filter drops it");
    assert_eq!(
        remedy,
        "nft insert rule inet filter input tcp dport 80 accept"
    );
    assert_eq!(chain.unwrap().words(), Some(["inet", "filter", "input"]));
}

#[test]
fn what_is_usually_written_lets_in_what_it_says() {
    let state = |right: Value| is(json!({"ct": {"key": "state"}}), right);
    let usual = vec![
        json!([{"match": {"op": "in", "left": {"ct": {"key": "state"}},
                          "right": ["established", "related"]}}, {"accept": null}]),
        json!([state("invalid".into()), {"drop": null}]),
        json!([is(json!({"meta": {"key": "iif"}}), "lo".into()), {"accept": null}]),
        json!([is(json!({"payload": {"protocol": "icmp", "field": "type"}}), "echo-request".into()),
               {"accept": null}]),
        json!([is(json!({"payload": {"protocol": "udp", "field": "dport"}}), 80.into()),
               {"accept": null}]),
    ];
    assert!(is_closed(&with(&usual)));
    for allowed in [
        json!([dport(80), {"counter": {"packets": 0, "bytes": 0}}, {"accept": null}]),
        json!([dport(json!({"set": [22, 80, 443]})), {"accept": null}]),
        json!([dport(json!({"range": [1, 1024]})), {"accept": null}]),
        json!([dport(json!({"set": [{"range": [79, 81]}]})), {"accept": null}]),
        json!([is(json!({"meta": {"key": "l4proto"}}), json!({"set": ["tcp", "udp"]})),
               is(json!({"payload": {"protocol": "th", "field": "dport"}}), 80.into()),
               {"accept": null}]),
        json!([is(json!({"meta": {"key": "iifname"}}), "eth*".into()), {"accept": null}]),
        json!([{"match": {"op": "!=", "left": {"meta": {"key": "iifname"}}, "right": "eth1"}},
               {"accept": null}]),
        json!([{"vmap": {"key": {"payload": {"protocol": "tcp", "field": "dport"}},
                         "data": {"set": [[22, {"drop": null}], [80, {"accept": null}]]}}}]),
    ] {
        let mut rules = usual.clone();
        rules.push(allowed.clone());
        assert_eq!(with(&rules), Passage::Open, "{allowed}");
    }
    for other in [
        json!([dport(81), {"accept": null}]),
        json!([dport(json!({"set": [22, 443]})), {"accept": null}]),
        json!([dport(json!({"range": [81, 90]})), {"accept": null}]),
        json!([is(json!({"meta": {"key": "iifname"}}), "eth1".into()), {"accept": null}]),
        json!([is(json!({"meta": {"key": "nfproto"}}), "ipv6".into()), {"accept": null}]),
        json!([dport(80), {"reject": {"type": "icmpx", "expr": "port-unreachable"}}]),
        json!([dport(80), {"counter": null}]),
    ] {
        let mut rules = usual.clone();
        rules.push(other.clone());
        assert!(is_closed(&with(&rules)), "{other}");
    }
}

#[test]
fn what_depends_on_the_client_is_not_clear() {
    let from = json!({"payload": {"protocol": "ip", "field": "saddr"}});
    for unclear in [
        json!([is(from.clone(), "198.51.100.0/24".into()), dport(80), {"accept": null}]),
        json!([dport(80), {"limit": {"rate": 10, "per": "second"}}, {"accept": null}]),
        json!([dport(80), {"xt": null}]),
        json!([{"newer": {}}]),
        json!([dport(80), {"jump": {"target": "nowhere"}}]),
        json!([is(from, "@friends".into()), {"accept": null}]),
        json!([dport("@moving"), {"accept": null}]),
    ] {
        let passage = with(std::slice::from_ref(&unclear));
        assert!(is_unclear(&passage), "{unclear}: {passage:?}");
        // A sure rule before it leaves nothing open.
        let sure = json!([dport(80), {"accept": null}]);
        assert_eq!(with(&[sure, unclear]), Passage::Open);
    }
}

#[test]
fn chains_are_called_and_come_back() {
    let call = |word: &str| json!([{word: {"target": "services"}}]);
    let base = || chain("inet", "input", Some(("input", "drop")));
    let with = |word: &str, inner: Value, after: Value| {
        let objects = [
            base(),
            chain("inet", "services", None),
            rule("inet", "input", call(word)),
            rule("inet", "input", after),
            rule("inet", "services", inner),
        ];
        of(&listed(&objects), "192.0.2.10")
    };
    let accept = || json!([{"accept": null}]);
    let nothing = || json!([{"counter": null}]);
    assert_eq!(
        with("jump", json!([dport(80), {"accept": null}]), nothing()),
        Passage::Open
    );
    assert_eq!(
        with("jump", json!([dport(80), {"return": null}]), accept()),
        Passage::Open
    );
    assert!(is_closed(&with(
        "jump",
        json!([dport(80), {"drop": null}]),
        accept()
    )));
    assert!(is_closed(&with("goto", nothing(), accept())));
    // One that calls itself ends, and nobody knows how.
    assert!(is_unclear(&with("jump", call("jump"), accept())));
}

#[test]
fn every_chain_on_the_way_has_to_let_it_in() {
    let accept = json!([dport(80), {"accept": null}]);
    let early = chain("ip", "early", Some(("prerouting", "accept")));
    let objects = [
        chain("inet", "input", Some(("input", "drop"))),
        rule("inet", "input", accept),
        early,
        rule("ip", "early", json!([dport(80), {"drop": null}])),
        chain("inet", "forward", Some(("forward", "drop"))),
    ];
    let text = listed(&objects);
    assert!(is_closed(&of(&text, "192.0.2.10")));
    // The chain of the other family does not see it.
    assert_eq!(of(&text, "2001:db8::10"), Passage::Open);
    let mut other = chain("inet", "nat", Some(("prerouting", "accept")));
    other["chain"]["type"] = "nat".into();
    let redirect = rule(
        "inet",
        "nat",
        json!([dport(80), {"redirect": {"port": 8080}}]),
    );
    assert!(is_unclear(&of(&listed(&[other, redirect]), "192.0.2.10")));
}

#[test]
fn sets_are_looked_into_and_the_keepers_of_rules_are_named() {
    let set = |flags: Value, elements: Value| {
        json!({"set": {"family": "inet", "table": "filter", "name": "ports", "handle": 3,
                       "type": "inet_service", "flags": flags, "elem": elements}})
    };
    let with = |set: Value| {
        let objects = [
            chain("inet", "input", Some(("input", "drop"))),
            set,
            rule("inet", "input", json!([dport("@ports"), {"accept": null}])),
        ];
        of(&listed(&objects), "192.0.2.10")
    };
    assert_eq!(with(set(json!([]), json!([22, 80]))), Passage::Open);
    let wrapped = json!([{"elem": {"val": 80, "counter": {}}}]);
    assert_eq!(with(set(json!([]), wrapped)), Passage::Open);
    assert!(is_closed(&with(set(json!([]), json!([22])))));
    assert!(is_unclear(&with(set(json!(["dynamic"]), json!([22])))));
    let remedy = |objects: &[Value]| match of(&listed(objects), "192.0.2.10") {
        Passage::Closed {
            chain: None,
            remedy,
            ..
        } => remedy,
        other => panic!("{other:?}"),
    };
    let mut firewalld = chain("inet", "filter_INPUT", Some(("input", "drop")));
    firewalld["chain"]["table"] = "firewalld".into();
    assert!(remedy(&[firewalld]).starts_with("firewall-cmd --permanent --add-port=80/tcp"));
    let ufw = [
        chain("ip", "INPUT", Some(("input", "drop"))),
        chain("ip", "ufw-user-input", None),
    ];
    assert_eq!(remedy(&ufw), "ufw allow 80/tcp");
}

#[test]
fn what_is_no_ruleset_is_not_clear_and_loopback_is_nobodys() {
    for text in [
        "",
        "[]",
        "{}",
        r#"{"nftables": [{"chain": {}}]}"#,
        "netlink: Error",
    ] {
        assert!(is_unclear(&of(text, "192.0.2.10")), "{text}");
    }
    let local = Port {
        scope: Scope::Loopback,
        ..port(80)
    };
    let vips = ["192.0.2.10".parse().unwrap()].into();
    assert!(passages("", &[local].into(), &vips, ETH0).is_empty());
}

/// Statements of all kinds, nested at random.
fn value() -> impl Strategy<Value = Value> {
    let words = prop_oneof![
        Just("match"),
        Just("accept"),
        Just("drop"),
        Just("jump"),
        Just("vmap"),
        Just("left"),
        Just("right"),
        Just("op"),
        Just("set"),
        Just("payload"),
        Just("target"),
        Just("key"),
        Just("data"),
        Just("range"),
        Just("elem"),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<u16>().prop_map(Value::from),
        Just(Value::from("input")),
        Just(Value::from("@x")),
        Just(Value::from("==")),
    ];
    leaf.prop_recursive(4, 32, 4, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(words.clone(), inner, 0..3).prop_map(|map| {
                let pairs = map
                    .into_iter()
                    .map(|(word, value)| (word.to_owned(), value));
                Value::Object(pairs.collect())
            }),
        ]
    })
}

proptest! {
    #[test]
    fn any_rules_are_judged_or_not_clear(rules in proptest::collection::vec(value(), 0..6)) {
        let _ = with(&[]);
        let mut objects = vec![chain("inet", "input", Some(("input", "drop")))];
        objects.extend(rules.into_iter().map(|one| rule("inet", "input", one)));
        let _ = of(&listed(&objects), "192.0.2.10");
    }
}
