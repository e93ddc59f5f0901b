// SPDX-License-Identifier: Apache-2.0

import { FieldType, applyNullInsertThreshold, type DataFrame, type TimeRange } from '@grafana/data';
import { TimeSeries } from '@grafana/ui';
import type { PanelProps } from '.';

/** Without values where samples are missing, and without NaN, which has no place on an axis. */
function drawable(frame: DataFrame, range: TimeRange): DataFrame {
  const [refFieldPseudoMin, refFieldPseudoMax] = [range.from.valueOf(), range.to.valueOf()];
  const whole = applyNullInsertThreshold({ frame, refFieldPseudoMin, refFieldPseudoMax });
  const finite = (value: number | null) => (Number.isFinite(value) ? value : null);
  const fields = whole.fields.map((field) => (field.type === FieldType.number ? { ...field, values: field.values.map(finite) } : field));
  return { ...whole, fields };
}

/** A line for each series, over its legend. */
export function TimeSeriesPanel({ panel, frames, range, width, height }: PanelProps) {
  const legend = { showLegend: true, ...panel.options.legend };
  const drawn = frames.map((frame) => drawable(frame, range));
  return <TimeSeries frames={drawn} width={width} height={height} timeRange={range} timeZone="utc" legend={legend} />;
}
