//! What a group's units are, as people are shown it.

use crate::config::settings::UnitSettings;
use crate::facts::UnitStatus;
use crate::observe::units::UnitReading;

/// The units of the configuration, each with what systemd last said of it.
pub fn unit_statuses(units: &[UnitSettings], readings: &[UnitReading]) -> Vec<UnitStatus> {
    let status = |unit: &UnitSettings| {
        let reading = readings.iter().find(|reading| reading.unit == unit.name);
        let state = reading.map(|reading| reading.active_state.clone());
        UnitStatus {
            unit: unit.name.clone(),
            mode: unit.mode,
            state: state.unwrap_or_else(|| "unknown".to_owned()),
            main_pid: reading.and_then(|reading| reading.main_pid),
        }
    };
    units.iter().map(status).collect()
}
