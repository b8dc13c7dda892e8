//! What a resource will need: a median with an 80 % and a 95 % interval for any time, learned from
//! one pass over its readings.
//!
//! Each step several simple models say what will be read a day later ([`models`]). A day later they
//! are judged, and the forecast is their mean, weighted by how well each has done lately: what is
//! seasonal follows the season, what is level the level, and after a change of level the models that
//! forget quickly win within hours. The intervals are those that the errors of just these forecasts
//! had ([`errors`]), so they promise nothing about shapes that nobody has seen; with few days of
//! experience they are wider by Student's t.

mod errors;
mod models;
mod recent;

use serde::{Deserialize, Serialize};

use self::errors::Errors;
use self::models::{Judges, MODELS, Said};
use self::recent::Recent;

/// Minutes between two readings.
pub const STEP_MINUTES: u64 = 5;
/// Steps of a day.
pub const DAY: usize = 288;
/// Steps of a week.
pub const WEEK: usize = 7 * DAY;
/// A series without a reading for longer than this begins anew.
const GAP_MAX: u64 = WEEK as u64;
/// Before this many forecasts were judged there is no experience to speak of.
const JUDGED_MIN: usize = DAY / 2;

/// What is expected at one time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    /// Half of the readings are above it.
    pub median: f64,
    /// Eight of ten readings lie within, bounds included.
    pub within_80: [f64; 2],
    /// 19 of 20 readings lie within, bounds included.
    pub within_95: [f64; 2],
    /// The forecast rests on less than two days: the intervals are those of what was seen.
    pub cold: bool,
}

/// One series of readings, one each [`STEP_MINUTES`].
///
/// It holds some 35 KiB, however long it goes on.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Forecaster {
    recent: Recent,
    judges: Judges,
    errors: Errors,
}

impl Forecaster {
    /// Takes in the reading of the step `slot`, counted from the Unix epoch in local time. One that
    /// is not newer than the last changes nothing, and neither does one that is no number.
    pub fn observe(&mut self, slot: u64, value: f64) {
        if !value.is_finite() {
            return;
        }
        if let Some(last) = self.recent.last_slot() {
            if slot <= last {
                return;
            }
            if slot - last > GAP_MAX {
                *self = Self::default();
            }
        }
        if let Some(said) = self.judges.said_for(slot) {
            self.errors.note(value - said.forecast().median);
        }
        self.judges.judge(slot, value);
        self.recent.push(slot, value);
        let tomorrow = slot + DAY as u64;
        let (each, forecast) = self.say(tomorrow);
        self.judges.note(tomorrow, Said::new(&each, &forecast));
    }

    /// What is expected at the step `slot`; none before the first reading. For times further away
    /// than a day the seasonal models look as many days back as they need to.
    pub fn at(&self, slot: u64) -> Option<Forecast> {
        self.recent.last_slot()?;
        Some(self.say(slot).1)
    }

    /// What had been said of the step `slot` a day before it, until its reading is taken in.
    pub fn said_of(&self, slot: u64) -> Option<Forecast> {
        Some(self.judges.said_for(slot)?.forecast())
    }

    /// The reading of a step, while it is remembered.
    pub fn read(&self, slot: u64) -> Option<f64> {
        self.recent.at(slot)
    }

    /// When the last reading was, and what.
    pub fn last(&self) -> Option<(u64, f64)> {
        Some((self.recent.last_slot()?, self.recent.last()?))
    }

    fn say(&self, slot: u64) -> ([f64; MODELS], Forecast) {
        let each = models::all(&self.recent, slot);
        let expected = self.judges.combine(&each);
        (each, self.errors.around(expected, &self.recent))
    }
}

#[cfg(test)]
mod tests;
