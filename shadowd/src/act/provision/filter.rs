//! Rules of the packet filter, each with a comment by which it is found again.

use serde_json::Value;

use super::ActError;
use super::tools::{output, run};
use crate::facts::{FilterChain, Protocol};

/// The comment of the rule that opens a port.
pub(super) fn comment(protocol: Protocol, port: u16) -> String {
    let protocol = protocol.to_string().to_lowercase();
    format!("shadowd-{protocol}-{port}")
}

/// Inserts a rule at the beginning of a chain, unless it is there.
pub(super) fn open(chain: &FilterChain, protocol: Protocol, port: u16) -> Result<(), ActError> {
    let comment = comment(protocol, port);
    if !handles(chain, &comment)?.is_empty() {
        return Ok(());
    }
    let [family, table, name] = words(chain)?;
    let (protocol, port) = (protocol.to_string().to_lowercase(), port.to_string());
    let quoted = format!("\"{comment}\"");
    let rule = [
        &protocol, "dport", &port, "counter", "accept", "comment", &quoted,
    ];
    let words = ["insert", "rule", family, table, name];
    run("nft", &[words.as_slice(), rule.as_slice()].concat())
}

/// Removes the rules with this comment. Rules that were loaded again have it no more.
pub(super) fn close(chain: &FilterChain, comment: &str) -> Result<(), ActError> {
    let [family, table, name] = words(chain)?;
    for handle in handles(chain, comment)? {
        let handle = handle.to_string();
        run(
            "nft",
            &["delete", "rule", family, table, name, "handle", &handle],
        )?;
    }
    Ok(())
}

fn words(chain: &FilterChain) -> Result<[&str; 3], ActError> {
    chain.words().ok_or_else(|| ActError::Tool {
        command: "nft".to_owned(),
        said: format!("{:?} is no plain name of a chain", chain.chain),
    })
}

/// The rules of a chain with this comment; none where there is no such chain.
fn handles(chain: &FilterChain, comment: &str) -> Result<Vec<u64>, ActError> {
    let [family, table, name] = words(chain)?;
    let arguments = ["--json", "--handle", "list", "chain", family, table, name];
    let listed = output("nft", &arguments).map_err(|error| ActError::Tool {
        command: format!("nft {}", arguments.join(" ")),
        said: error.to_string(),
    })?;
    Ok(commented(&listed.stdout, comment))
}

fn commented(listed: &[u8], comment: &str) -> Vec<u64> {
    let listed: Value = serde_json::from_slice(listed).unwrap_or_default();
    let objects = listed.get("nftables").and_then(Value::as_array);
    let rules = objects
        .into_iter()
        .flatten()
        .filter_map(|one| one.get("rule"));
    let ours = rules.filter(|rule| rule.get("comment").is_some_and(|text| text == comment));
    ours.filter_map(|rule| rule.get("handle")?.as_u64())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_found_again_by_its_comment() {
        let listed = br#"{"nftables": [{"metainfo": {"version": "1.0.6"}},
            {"chain": {"family": "inet", "table": "filter", "name": "input", "handle": 1}},
            {"rule": {"family": "inet", "table": "filter", "chain": "input", "handle": 4,
                      "comment": "shadowd-tcp-80", "expr": [{"accept": null}]}},
            {"rule": {"family": "inet", "table": "filter", "chain": "input", "handle": 5,
                      "expr": [{"accept": null}]}},
            {"rule": {"family": "inet", "table": "filter", "chain": "input", "handle": 6,
                      "comment": "shadowd-tcp-8080", "expr": [{"accept": null}]}}]}"#;
        assert_eq!(commented(listed, &comment(Protocol::Tcp, 80)), [4]);
        assert_eq!(commented(listed, "other"), Vec::<u64>::new());
        assert_eq!(commented(b"", "other"), Vec::<u64>::new());
    }

    #[test]
    fn names_that_nft_would_read_as_more_are_refused() {
        let chain = |family: &str, table: &str, chain: &str| FilterChain {
            family: family.into(),
            table: table.into(),
            chain: chain.into(),
        };
        assert!(words(&chain("inet", "filter", "INPUT_x-1.a")).is_ok());
        for bad in [
            chain("arp", "filter", "input"),
            chain("inet", "filter", "input; flush ruleset"),
            chain("inet", "a b", "input"),
            chain("inet", "filter", ""),
            chain("inet", "-f", "input"),
            chain("inet", "filter", "{"),
        ] {
            assert!(open(&bad, Protocol::Tcp, 80).is_err(), "{bad:?}");
            assert!(close(&bad, "x").is_err(), "{bad:?}");
        }
    }
}
