//! Families as OpenMetrics wants them: name, unit, words, then rows.

use std::fmt;

use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::Unit;

use crate::facts::Histogram;

/// What tells the rows of a family apart.
pub(super) type Labels = Vec<(&'static str, String)>;

/// Base units (prometheus.io/docs/practices/naming).
#[derive(Clone, Copy, Debug)]
pub(super) enum Base {
    Count,
    Seconds,
    Bytes,
    /// 0 to 1.
    Ratio,
}

impl Base {
    fn unit(self) -> Option<Unit> {
        match self {
            Self::Count => None,
            Self::Seconds => Some(Unit::Seconds),
            Self::Bytes => Some(Unit::Bytes),
            Self::Ratio => Some(Unit::Other("ratio".to_owned())),
        }
    }
}

/// Name, unit and words of a family. The name is without its unit and without `_total`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Family(
    pub(super) &'static str,
    pub(super) Base,
    pub(super) &'static str,
);

/// Labels of one row.
pub(super) fn labels(pairs: &[(&'static str, &str)]) -> Labels {
    let owned = |(key, value): &(&'static str, &str)| (*key, (*value).to_owned());
    pairs.iter().map(owned).collect()
}

/// A counter; nothing when it has no row.
pub(super) fn counter<V: EncodeCounterValue>(
    to: &mut DescriptorEncoder,
    Family(name, base, help): Family,
    rows: impl IntoIterator<Item = (Labels, V)>,
) -> fmt::Result {
    const NONE: Option<&Exemplar<NoLabelSet, f64>> = None;
    let mut rows = rows.into_iter().peekable();
    if rows.peek().is_none() {
        return Ok(());
    }
    let unit = base.unit();
    let mut family = to.encode_descriptor(name, help, unit.as_ref(), MetricType::Counter)?;
    for (labels, value) in rows {
        if labels.is_empty() {
            family.encode_counter(&value, NONE)?;
        } else {
            family
                .encode_family(&labels)?
                .encode_counter(&value, NONE)?;
        }
    }
    Ok(())
}

/// A gauge; nothing when it has no row. What is not a number is no row.
pub(super) fn gauge(
    to: &mut DescriptorEncoder,
    Family(name, base, help): Family,
    rows: impl IntoIterator<Item = (Labels, f64)>,
) -> fmt::Result {
    let finite = |(_, value): &(Labels, f64)| value.is_finite();
    let mut rows = rows.into_iter().filter(finite).peekable();
    if rows.peek().is_none() {
        return Ok(());
    }
    let unit = base.unit();
    let mut family = to.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?;
    for (labels, value) in rows {
        if labels.is_empty() {
            number(&mut family, value)?;
        } else {
            number(&mut family.encode_family(&labels)?, value)?;
        }
    }
    Ok(())
}

/// Whole numbers are written without a fraction: they read better.
fn number(metric: &mut MetricEncoder, value: f64) -> fmt::Result {
    let whole = value as i64;
    if whole as f64 == value && value.abs() < 1e15 {
        metric.encode_gauge(&whole)
    } else {
        metric.encode_gauge(&value)
    }
}

/// A histogram; nothing when nothing was counted. The sum, ns, is estimated where it is not known.
pub(super) fn histogram<'a>(
    to: &mut DescriptorEncoder,
    Family(name, base, help): Family,
    rows: impl IntoIterator<Item = (Labels, &'a Histogram, Option<u64>)>,
) -> fmt::Result {
    let rows = rows.into_iter().filter(|(_, times, _)| !times.is_empty());
    let mut rows = rows.peekable();
    if rows.peek().is_none() {
        return Ok(());
    }
    let unit = base.unit();
    let mut family = to.encode_descriptor(name, help, unit.as_ref(), MetricType::Histogram)?;
    for (labels, times, sum_ns) in rows {
        let (buckets, estimate) = buckets(times);
        let sum = sum_ns.map_or(estimate, seconds);
        let mut row = family.encode_family(&labels)?;
        row.encode_histogram::<NoLabelSet>(sum, times.count(), &buckets, None)?;
    }
    Ok(())
}

/// Every second bound, from 1 us to 69 s: fifteen buckets a series, not thirty-three. Also the sum,
/// seconds, as if each time lay in the middle of its bucket.
fn buckets(times: &Histogram) -> (Vec<(f64, u64)>, f64) {
    const FIRST: usize = 2;
    const LAST: usize = 28;
    let (mut buckets, mut waiting, mut sum) = (Vec::new(), 0_u64, 0.0);
    for (index, count) in times.counts().iter().enumerate() {
        waiting = waiting.saturating_add(*count);
        let upper = seconds(Histogram::upper_ns(index));
        sum += *count as f64 * upper * 0.75;
        if (FIRST..=LAST).contains(&index) && index % 2 == 0 {
            buckets.push((upper, std::mem::take(&mut waiting)));
        }
    }
    buckets.push((f64::INFINITY, waiting));
    (buckets, sum)
}

/// Seconds of `nanos`.
pub(super) fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

/// 1 or 0.
pub(super) fn flag(value: bool) -> f64 {
    f64::from(u8::from(value))
}
