//! Cuts Rust source into the few kinds of tokens that the checks look at.
//!
//! Comments, strings and character literals vanish, so a check never trips over prose. Knows no
//! grammar; what it cannot tell (macros) it passes through as tokens.

/// One token and the line it stands on, counted from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub line: usize,
    pub kind: Kind,
}

/// What the checks tell apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Word(String),
    /// `::`, so that a path is words and joints.
    Joint,
    Mark(char),
}

impl Token {
    pub fn word(&self) -> Option<&str> {
        match &self.kind {
            Kind::Word(word) => Some(word),
            Kind::Joint | Kind::Mark(_) => None,
        }
    }

    pub fn is_word(&self, word: &str) -> bool {
        self.word() == Some(word)
    }

    pub fn is(&self, mark: char) -> bool {
        self.kind == Kind::Mark(mark)
    }
}

/// The tokens of one file.
pub fn tokens(source: &str) -> Vec<Token> {
    let mut cutter = Cutter {
        rest: source.chars().collect(),
        at: 0,
        line: 1,
    };
    let mut found = Vec::new();
    while let Some(next) = cutter.peek(0) {
        let line = cutter.line;
        if cutter.skip_comment() || cutter.skip_literal() {
            continue;
        }
        let kind = if is_word(next) {
            Kind::Word(cutter.take_word())
        } else if next == ':' && cutter.peek(1) == Some(':') {
            cutter.skip(2);
            Kind::Joint
        } else {
            cutter.skip(1);
            if next.is_whitespace() {
                continue;
            }
            Kind::Mark(next)
        };
        found.push(Token { line, kind });
    }
    found
}

/// The index of the mark that closes the one at `open`, or the end of the tokens.
pub fn closing(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0_usize;
    for (index, token) in tokens.iter().enumerate().skip(open) {
        match token.kind {
            Kind::Mark('{' | '(' | '[') => depth += 1,
            Kind::Mark('}' | ')' | ']') => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return index;
                }
            }
            Kind::Word(_) | Kind::Joint | Kind::Mark(_) => {}
        }
    }
    tokens.len()
}

/// Token ranges that are compiled only for tests: items after `#[cfg(test)]` or `#[test]`.
pub fn test_ranges(tokens: &[Token]) -> Vec<std::ops::Range<usize>> {
    let mut ranges = Vec::new();
    let mut index = 0;
    while index < tokens.len() {
        if !tokens[index].is('#') || !tokens.get(index + 1).is_some_and(|token| token.is('[')) {
            index += 1;
            continue;
        }
        let end = closing(tokens, index + 1);
        let inside = &tokens[index + 2..end.min(tokens.len())];
        let for_tests = match inside {
            [only] => only.is_word("test"),
            [cfg, _, test, _] => cfg.is_word("cfg") && test.is_word("test"),
            _ => false,
        };
        if !for_tests {
            index = end + 1;
            continue;
        }
        let body = tokens[end..]
            .iter()
            .position(|token| token.is('{') || token.is(';'));
        let stop = body.map_or(tokens.len(), |offset| closing_or_here(tokens, end + offset));
        ranges.push(index..stop);
        index = stop;
    }
    ranges
}

fn closing_or_here(tokens: &[Token], index: usize) -> usize {
    if tokens[index].is(';') {
        index
    } else {
        closing(tokens, index)
    }
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

struct Cutter {
    rest: Vec<char>,
    at: usize,
    line: usize,
}

impl Cutter {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.rest.get(self.at + ahead).copied()
    }

    fn skip(&mut self, count: usize) {
        for _ in 0..count {
            if self.peek(0) == Some('\n') {
                self.line += 1;
            }
            self.at = (self.at + 1).min(self.rest.len());
        }
    }

    fn take_word(&mut self) -> String {
        let start = self.at;
        while self.peek(0).is_some_and(is_word) {
            self.at += 1;
        }
        self.rest[start..self.at].iter().collect()
    }

    fn skip_comment(&mut self) -> bool {
        match (self.peek(0), self.peek(1)) {
            (Some('/'), Some('/')) => {
                while self.peek(0).is_some_and(|next| next != '\n') {
                    self.skip(1);
                }
                true
            }
            (Some('/'), Some('*')) => {
                let mut depth = 0_usize;
                while self.peek(0).is_some() {
                    let step = match (self.peek(0), self.peek(1)) {
                        (Some('/'), Some('*')) => {
                            depth += 1;
                            2
                        }
                        (Some('*'), Some('/')) => {
                            depth -= 1;
                            2
                        }
                        _ => 1,
                    };
                    self.skip(step);
                    if depth == 0 {
                        break;
                    }
                }
                true
            }
            _ => false,
        }
    }

    /// Skips a string, raw string or character literal; a lifetime is skipped like one.
    fn skip_literal(&mut self) -> bool {
        match self.peek(0) {
            Some('"') => self.skip_quoted('"'),
            Some('\'') => self.skip_character_or_lifetime(),
            Some('r' | 'b' | 'c') if !self.after_word() => return self.skip_prefixed(),
            _ => return false,
        }
        true
    }

    fn after_word(&self) -> bool {
        self.at > 0 && is_word(self.rest[self.at - 1])
    }

    fn skip_quoted(&mut self, quote: char) {
        self.skip(1);
        while let Some(next) = self.peek(0) {
            self.skip(if next == '\\' { 2 } else { 1 });
            if next == quote {
                return;
            }
        }
    }

    fn skip_character_or_lifetime(&mut self) {
        // 'a' and '\n' close within reach; 'a without a closing quote is a lifetime.
        if self.peek(1) == Some('\\') || self.peek(2) == Some('\'') {
            self.skip_quoted('\'');
        } else {
            self.skip(1);
            self.take_word();
        }
    }

    fn skip_prefixed(&mut self) -> bool {
        let prefix = (1..=2).find(|&length| matches!(self.peek(length), Some('"' | '#' | '\'')));
        let Some(length) = prefix else { return false };
        let letters: String = self.rest[self.at..self.at + length].iter().collect();
        match (letters.as_str(), self.peek(length)) {
            ("b", Some('\'')) => {
                self.skip(1);
                self.skip_character_or_lifetime();
            }
            ("b" | "c", Some('"')) => {
                self.skip(1);
                self.skip_quoted('"');
            }
            ("r" | "br" | "cr", Some('"' | '#')) => return self.skip_raw(length),
            _ => return false,
        }
        true
    }

    fn skip_raw(&mut self, prefix: usize) -> bool {
        let mut hashes = 0;
        while self.peek(prefix + hashes) == Some('#') {
            hashes += 1;
        }
        if self.peek(prefix + hashes) != Some('"') {
            return false; // `r#type` is a word.
        }
        self.skip(prefix + hashes + 1);
        while self.peek(0).is_some() {
            let closed = self.peek(0) == Some('"')
                && (1..=hashes).all(|offset| self.peek(offset) == Some('#'));
            self.skip(if closed { hashes + 1 } else { 1 });
            if closed {
                break;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(source: &str) -> Vec<String> {
        tokens(source)
            .iter()
            .filter_map(|token| token.word().map(str::to_owned))
            .collect()
    }

    #[test]
    fn prose_and_literals_vanish() {
        let source =
            "a // b\n/* c /* d */ e */ f \"g \\\" h\" 'i' '\\'' b'j' r#\"k \" l\"# b\"m\" n";
        assert_eq!(words(source), ["a", "f", "n"]);
        assert_eq!(
            words("fn f<'life>(x: &'life str) {}"),
            ["fn", "f", "x", "str"]
        );
        assert_eq!(
            words("let r = bar; r\"raw\"; crate::r"),
            ["let", "r", "bar", "crate", "r"]
        );
    }

    #[test]
    fn an_unfinished_literal_or_comment_ends_with_the_file() {
        for source in [
            "\"open", "/* open", "r#\"open", "'", "b'", "r#", "\\", "/*/",
        ] {
            tokens(source);
        }
    }

    #[test]
    fn lines_are_counted_through_literals() {
        let found = tokens("\"one\ntwo\"\nword");
        assert_eq!(
            found,
            [Token {
                line: 3,
                kind: Kind::Word("word".to_owned())
            }]
        );
    }

    #[test]
    fn items_for_tests_are_known() {
        let found = tokens("fn a() {} #[cfg(test)] mod tests { fn b() {} } fn c() {}");
        let ranges = test_ranges(&found);
        assert_eq!(ranges.len(), 1);
        let in_tests = |word: &str| {
            let index = found
                .iter()
                .position(|token| token.is_word(word))
                .expect("it is there");
            ranges.iter().any(|range| range.contains(&index))
        };
        assert!(in_tests("b") && !in_tests("a") && !in_tests("c"));
        // A condition that is not only for tests is code like any other.
        assert!(test_ranges(&tokens("#[cfg(not(test))] mod real {}")).is_empty());
    }
}
