// SPDX-License-Identifier: Apache-2.0
//! One metric with its samples.

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// One value with its labels.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sample {
    pub(super) labels: Vec<(&'static str, String)>,
    pub(super) value: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Gauge,
    /// The text format appends `_total`.
    Counter,
}

/// Writes a metric. Without samples it is absent.
pub(super) fn encode(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help, kind): (&str, &str, Kind),
    samples: &[Sample],
) -> Result<(), std::fmt::Error> {
    if samples.is_empty() {
        return Ok(());
    }
    let metric_type = match kind {
        Kind::Gauge => MetricType::Gauge,
        Kind::Counter => MetricType::Counter,
    };
    let mut metric = encoder.encode_descriptor(name, help, None, metric_type)?;
    for Sample { labels, value } in samples {
        let one = metric.encode_family(labels)?;
        match kind {
            Kind::Gauge => ConstGauge::new(*value).encode(one)?,
            Kind::Counter => ConstCounter::new(*value).encode(one)?,
        }
    }
    Ok(())
}

/// Exact up to 2^53.
pub(super) fn number(value: u64) -> f64 {
    let half = |bits: u64| f64::from(u32::try_from(bits & u64::from(u32::MAX)).unwrap_or(u32::MAX));
    half(value >> 32).mul_add(4_294_967_296.0, half(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_bytes_are_exact() {
        for (value, expect) in [(0, 0.0), (u64::from(u32::MAX), 4_294_967_295.0), (80 << 30, 85_899_345_920.0)] {
            assert_eq!(number(value).to_bits(), f64::to_bits(expect));
        }
    }
}
