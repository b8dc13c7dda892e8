//! Forecasts of made series: seasons, levels, gaps, cold starts.

use proptest::prelude::*;

use super::*;

/// Local noon of some Monday.
const BEGIN: u64 = 5_000_000;

/// -0.5 to 0.5, without a pattern (SplitMix64, Steele, Lea and Flood 2014).
fn noise(number: u64) -> f64 {
    let mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    (mixed >> 40) as f64 / (1_u64 << 24) as f64 - 0.5
}

/// Feeds `days` of a series; the sums of the errors of the forecasts a day ahead and of the reading
/// a day before, the shares within the intervals and the mean width of the narrower one, from the
/// third day on.
fn run(days: u64, series: impl Fn(u64) -> f64) -> (f64, f64, [f64; 2], f64) {
    let mut forecaster = Forecaster::default();
    let mut said = std::collections::BTreeMap::new();
    let (mut errors, mut naive, mut within, mut count) = (0.0, 0.0, [0.0; 2], 0.0);
    let mut width = 0.0;
    for number in 0..days * DAY as u64 {
        let value = series(number);
        let slot = BEGIN + number;
        if let Some(forecast) = said.remove(&slot)
            && number > 3 * DAY as u64
        {
            let forecast: Forecast = forecast;
            errors += (value - forecast.median).abs();
            naive += (value - series(number - DAY as u64)).abs();
            width += forecast.within_80[1] - forecast.within_80[0];
            count += 1.0;
            for (share, [low, high]) in within
                .iter_mut()
                .zip([forecast.within_80, forecast.within_95])
            {
                *share += f64::from(u8::from((low..=high).contains(&value)));
            }
        }
        forecaster.observe(slot, value);
        let tomorrow = slot + DAY as u64;
        said.insert(tomorrow, forecaster.at(tomorrow).expect("it has readings"));
    }
    (
        errors,
        naive,
        within.map(|share| share / count),
        width / count,
    )
}

#[test]
fn a_season_with_noise_is_forecast_better_than_by_the_day_before() {
    let series = |number: u64| {
        let phase = (number % DAY as u64) as f64 / DAY as f64 * std::f64::consts::TAU;
        100.0 + 30.0 * phase.sin() + 10.0 * noise(number)
    };
    let (errors, naive, [within_80, within_95], width) = run(14, series);
    assert!(errors < 0.85 * naive, "{errors} {naive}");
    // Noise that is new each time is the easiest of all: three days of it are more than is assumed.
    assert!(within_80 > 0.78 && width < 20.0, "{within_80} {width}");
    assert!(within_95 > 0.92, "{within_95}");
}

#[test]
fn a_level_without_a_season_is_forecast_by_the_level() {
    let (errors, naive, [within_80, _], width) = run(10, |number| 5.0 + noise(number));
    assert!(errors < 0.78 * naive, "{errors} {naive}");
    assert!(within_80 > 0.78 && width < 1.5, "{within_80} {width}");
}

#[test]
fn a_new_level_is_believed_within_hours() {
    let mut forecaster = Forecaster::default();
    let mut slot = BEGIN;
    for number in 0..7 * DAY as u64 {
        forecaster.observe(slot, 10.0 + noise(number));
        slot += 1;
    }
    // The models that still believe in the old level have to be proven wrong first, a day ahead.
    for number in 0..(DAY + DAY / 2) as u64 {
        forecaster.observe(slot, 50.0 + noise(number));
        slot += 1;
    }
    let median = forecaster
        .at(slot + DAY as u64)
        .expect("it has readings")
        .median;
    assert!((45.0..55.0).contains(&median), "{median}");
}

#[test]
fn a_cold_start_says_so_and_is_wide() {
    let mut forecaster = Forecaster::default();
    assert_eq!(forecaster.at(BEGIN), None);
    forecaster.observe(BEGIN, 8.0);
    let forecast = forecaster.at(BEGIN + 1).expect("it has a reading");
    assert!(forecast.cold);
    assert_eq!(forecast.median, 8.0);
    assert_eq!(forecast.within_95, [0.0, 16.0]);
}

#[test]
fn gaps_old_readings_and_no_numbers_change_nothing_else() {
    let mut forecaster = Forecaster::default();
    forecaster.observe(BEGIN, 1.0);
    forecaster.observe(BEGIN, 9.0);
    forecaster.observe(BEGIN - 1, 9.0);
    forecaster.observe(BEGIN + 1, f64::NAN);
    assert_eq!(forecaster.last(), Some((BEGIN, 1.0)));
    forecaster.observe(BEGIN + 500, 2.0);
    assert_eq!(forecaster.last(), Some((BEGIN + 500, 2.0)));
    // After more than a week all is new.
    forecaster.observe(BEGIN + 500 + GAP_MAX + 1, 3.0);
    assert_eq!(
        forecaster.at(BEGIN).map(|forecast| forecast.median),
        Some(3.0)
    );
}

proptest! {
    #[test]
    fn intervals_hold_their_medians_and_each_other(
        readings in proptest::collection::vec((1_u64..4, -1e6_f64..1e6), 1..900),
    ) {
        let mut forecaster = Forecaster::default();
        let mut slot = BEGIN;
        for (gap, value) in readings {
            slot += gap;
            forecaster.observe(slot, value);
        }
        for ahead in [1, 12, DAY as u64, 3 * DAY as u64] {
            let forecast = forecaster.at(slot + ahead).expect("it has readings");
            let [low, high] = forecast.within_80;
            let [lower, higher] = forecast.within_95;
            prop_assert!(low <= high && lower <= low && high <= higher, "{forecast:?}");
        }
    }
}
