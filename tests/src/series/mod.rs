//! Server-metric series with labelled anomalies, and how detectors are scored on them.

mod gaussian;
mod read;
mod score;

pub use gaussian::WindowedGaussian;
pub use read::{Labelled, read_all};
pub use score::{Scored, best, score_at};
