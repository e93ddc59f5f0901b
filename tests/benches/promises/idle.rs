// SPDX-License-Identifier: Apache-2.0
//! A minute in which nothing happens: what the driver writes to the API server, and what it costs.

use std::time::Duration;

use tokio::time::interval;

use crate::figures::{Figure, Unit};
use crate::stage::Stage;

const MINUTE_MILLISECONDS: f64 = 60_000.0;

/// What the minute cost.
#[derive(Debug)]
pub(crate) struct Idle {
    writes: f64,
    plugin_time: f64,
    controller_time: f64,
}

/// Waits a minute.
pub(crate) async fn measure(stage: &Stage<'_>) -> Idle {
    let writes = stage.writes();
    assert!(writes > 0.0, "the API server does not count the driver's writes, so their absence says nothing");
    let [plugin, controller] = stage.processor_time();
    let mut minutes = interval(Duration::from_mins(1));
    minutes.tick().await;
    minutes.tick().await;
    let [plugin_after, controller_after] = stage.processor_time();
    Idle {
        writes: stage.writes() - writes,
        plugin_time: plugin_after - plugin,
        controller_time: controller_after - controller,
    }
}

impl Idle {
    pub(crate) fn figures(&self) -> Vec<Figure> {
        vec![
            Figure::promised("API writes in an idle minute", self.writes, Unit::Count, 0.0),
            Figure::promised(
                "processor time of plugin and controller in an idle minute, of one core",
                (self.plugin_time + self.controller_time) / MINUTE_MILLISECONDS * 100.0,
                Unit::Percent,
                0.5,
            ),
            Figure::measured("processor time of the plugin in an idle minute", self.plugin_time, Unit::Milliseconds),
        ]
    }
}
