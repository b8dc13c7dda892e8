//! A value in a table: one thing to sort by and to show.

use std::cmp::Ordering;
use std::time::Duration;

use crate::cli::human;

/// What a cell holds.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// Words; may come from anywhere.
    Text(String),
    /// A number of things.
    Count(u64),
    /// Things in a second.
    Rate(f64),
    /// Bytes, or bytes in a second.
    Bytes(f64),
    /// A share, 1.0 is a whole.
    Share(f64),
    /// A time in ns.
    Span(f64),
    /// Not known.
    Unknown,
}

impl Value {
    /// Words.
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// `value` as `kind`, or unknown.
    pub(super) fn known<T>(value: Option<T>, kind: impl FnOnce(T) -> Self) -> Self {
        value.map_or(Self::Unknown, kind)
    }

    /// A quantile.
    pub(super) fn span(span: Option<Duration>) -> Self {
        Self::known(span, |span| Self::Span(span.as_nanos() as f64))
    }

    /// Whether the first look at it is from the large end.
    pub(super) const fn is_number(&self) -> bool {
        !matches!(self, Self::Text(_))
    }

    fn number(&self) -> f64 {
        match self {
            Self::Text(_) => 0.0,
            Self::Count(count) => *count as f64,
            Self::Rate(number) | Self::Bytes(number) | Self::Share(number) | Self::Span(number) => {
                *number
            }
            Self::Unknown => -1.0,
        }
    }

    /// Words by letters, numbers by size; what is not known is the smallest.
    pub(super) fn order(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Text(mine), Self::Text(theirs)) => mine.cmp(theirs),
            _ => self.number().total_cmp(&other.number()),
        }
    }

    /// As people read it. Nothing in it steers the terminal.
    pub(super) fn show(&self) -> String {
        match self {
            Self::Text(text) => human::clean(text),
            Self::Count(count) => human::count(*count),
            Self::Rate(rate) if *rate >= 9.95 || *rate == 0.0 => human::count(rate.round() as u64),
            Self::Rate(rate) => format!("{rate:.1}"),
            Self::Bytes(0.0) => "0".to_owned(),
            Self::Bytes(bytes) => human::bytes(*bytes as u64),
            Self::Share(share) => format!("{:.1}", share * 100.0),
            Self::Span(nanos) => human::span(Duration::from_nanos(*nanos as u64)),
            Self::Unknown => "-".to_owned(),
        }
    }
}
