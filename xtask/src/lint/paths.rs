//! Finds the paths inside the crate that a file of `shadowd/src` names, in `use` and elsewhere.
//!
//! `crate::a::{b, c::d}` gives `a::b` and `a::c::d`; `super` is resolved from the file's place, so
//! that climbing out of a room is seen too.

use super::tokens::{Kind, Token, closing};

/// A path from the crate's root, and the line that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CratePath {
    pub line: usize,
    pub segments: Vec<String>,
}

/// Every path that starts with `crate`, `shadowd` (as binaries and tests write it) or `super`.
/// `module` is the file's own module path, such as `["observe", "procfs"]`.
pub fn crate_paths(tokens: &[Token], module: &[&str]) -> Vec<CratePath> {
    let mut found = Vec::new();
    let mut inner_ends: Vec<usize> = Vec::new();
    let mut index = 0;
    while index < tokens.len() {
        inner_ends.retain(|&end| index < end);
        if tokens[index].is_word("mod") && tokens.get(index + 2).is_some_and(|next| next.is('{')) {
            inner_ends.push(closing(tokens, index + 2));
        }
        if starts_a_path(tokens, index) {
            let base = match tokens[index].word() {
                Some("crate" | "shadowd") => Some(Vec::new()),
                // An inline module is one step deeper than its file; `super` there may not climb
                // out of the file.
                Some("super") => climb(tokens, &mut index, module, inner_ends.len()),
                _ => None,
            };
            if let Some(base) = base {
                index = tree(tokens, index + 1, &base, &mut found);
                continue;
            }
        }
        index += 1;
    }
    found
}

/// A word that a joint follows and none precedes.
fn starts_a_path(tokens: &[Token], index: usize) -> bool {
    let joint = |at: usize| {
        tokens
            .get(at)
            .is_some_and(|token| token.kind == Kind::Joint)
    };
    tokens[index].word().is_some() && joint(index + 1) && (index == 0 || !joint(index - 1))
}

/// Follows `super::super` and leaves `index` at the last `super`. `None` when the path stays in
/// the file.
fn climb(
    tokens: &[Token],
    index: &mut usize,
    module: &[&str],
    inner: usize,
) -> Option<Vec<String>> {
    let mut steps = 1;
    while tokens
        .get(*index + 2)
        .is_some_and(|token| token.is_word("super"))
        && tokens
            .get(*index + 3)
            .is_some_and(|token| token.kind == Kind::Joint)
    {
        *index += 2;
        steps += 1;
    }
    let out_of_file = steps - inner.min(steps);
    if out_of_file == 0 {
        return None;
    }
    let kept = module.len().saturating_sub(out_of_file);
    Some(
        module[..kept]
            .iter()
            .map(|segment| (*segment).to_owned())
            .collect(),
    )
}

/// Reads `:: tree` at `index`; returns the index after it.
fn tree(tokens: &[Token], index: usize, base: &[String], found: &mut Vec<CratePath>) -> usize {
    let mut segments = base.to_vec();
    let mut at = index;
    let mut line = tokens.get(index).map_or(0, |token| token.line);
    while tokens
        .get(at)
        .is_some_and(|token| token.kind == Kind::Joint)
    {
        let Some(next) = tokens.get(at + 1) else {
            break;
        };
        if let Some(word) = next.word() {
            line = next.line;
            segments.push(word.to_owned());
            at += 2;
        } else if next.is('{') {
            return branches(tokens, at + 1, &segments, found);
        } else {
            break; // A glob or `::<`: the path so far is what is named.
        }
    }
    if segments.len() > base.len() {
        found.push(CratePath { line, segments });
    }
    at.max(index + 1)
}

fn branches(tokens: &[Token], open: usize, base: &[String], found: &mut Vec<CratePath>) -> usize {
    let end = closing(tokens, open);
    let mut at = open + 1;
    while at < end {
        match tokens[at].word() {
            Some("self") => {
                found.push(CratePath {
                    line: tokens[at].line,
                    segments: base.to_vec(),
                });
                at += 1;
            }
            Some(word) => {
                let mut deeper = base.to_vec();
                deeper.push(word.to_owned());
                let line = tokens[at].line;
                if tokens
                    .get(at + 1)
                    .is_some_and(|token| token.kind == Kind::Joint)
                {
                    at = tree(tokens, at + 1, &deeper, found);
                } else {
                    found.push(CratePath {
                        line,
                        segments: deeper,
                    });
                    at += 1;
                }
                // `as name` renames; the new name is no path.
                if tokens.get(at).is_some_and(|token| token.is_word("as")) {
                    at += 2;
                }
            }
            None => at += 1,
        }
    }
    end + 1
}

#[cfg(test)]
mod tests {
    use super::super::tokens::tokens;
    use super::*;

    fn paths(source: &str, module: &[&str]) -> Vec<String> {
        crate_paths(&tokens(source), module)
            .iter()
            .map(|path| path.segments.join("::"))
            .collect()
    }

    #[test]
    fn a_tree_of_uses_is_unfolded() {
        let source = "use crate::{facts::{self, Name as N, Epoch}, config::Settings, act};";
        assert_eq!(
            paths(source, &["decide"]),
            [
                "facts",
                "facts::Name",
                "facts::Epoch",
                "config::Settings",
                "act"
            ]
        );
        assert_eq!(
            paths("use crate::serve::protocol::*;", &["cli"]),
            ["serve::protocol"]
        );
    }

    #[test]
    fn paths_in_expressions_and_types_are_seen() {
        let source =
            "fn f(x: crate::link::Peer) { crate::store::open::<u8>(); other::crate_name(); }";
        assert_eq!(paths(source, &["act"]), ["link::Peer", "store::open"]);
        assert_eq!(paths("shadowd::run::main()", &[]), ["run::main"]);
    }

    #[test]
    fn super_is_resolved_from_the_files_place() {
        assert_eq!(
            paths("use super::super::link::X;", &["act", "vip"]),
            ["link::X"]
        );
        assert_eq!(
            paths("use super::announce::X;", &["act", "vip"]),
            ["act::announce::X"]
        );
        // In an inline module the first step stays in the file.
        let inline = "mod tests { use super::store; use super::super::link; } use super::store;";
        assert_eq!(paths(inline, &["act"]), ["link", "store"]);
    }
}
