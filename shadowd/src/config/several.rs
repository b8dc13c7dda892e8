//! One text or a list of texts, each with its place in the file.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use toml::Spanned;

/// A value that may be written alone or as a list; never empty.
#[derive(Debug)]
pub struct Several {
    /// Each value, in order.
    pub values: Vec<Spanned<String>>,
}

/// As [`Several`], before the place of a lone value is known.
enum Written {
    One(String),
    List(Vec<Spanned<String>>),
}

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Written;

            fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
                to.write_str("a string or a list of strings")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Written, E> {
                Ok(Written::One(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Written, A::Error> {
                let mut list = Vec::new();
                while let Some(value) = all.next_element()? {
                    list.push(value);
                }
                if list.is_empty() {
                    return Err(A::Error::invalid_length(0, &self));
                }
                Ok(Written::List(list))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

impl<'de> Deserialize<'de> for Several {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = Spanned::<Written>::deserialize(deserializer)?;
        let span = written.span();
        Ok(match written.into_inner() {
            Written::One(text) => Self {
                values: vec![Spanned::new(span, text)],
            },
            Written::List(values) => Self { values },
        })
    }
}
