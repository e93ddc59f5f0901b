// SPDX-License-Identifier: Apache-2.0
// Answers of Prometheus as data frames, as the data source of Grafana names and arranges them.

import { FieldType, createDataFrame, type DataFrame, type Field, type PartialDataFrame } from '@grafana/data';
import type { Target } from './dashboard';
import type { Series } from './prometheus';

/** The name of a series in a legend. */
function legend(format: string, metric: Record<string, string>): string {
  if (format !== '') {
    return format.replace(/\{\{\s*(\w+)\s*\}\}/g, (_, label) => metric[label] ?? '');
  }
  const labels = Object.entries(metric).filter(([label]) => label !== '__name__');
  const inside = labels.map(([label, value]) => `${label}="${value}"`).join(', ');
  return inside === '' ? (metric.__name__ ?? 'Value') : `${metric.__name__ ?? ''}{${inside}}`;
}

/** Number() does not read infinities as Prometheus writes them. */
function number(text: string): number {
  return Number(text.replace('Inf', 'Infinity'));
}

/** A frame for each series. A gap longer than the interval is drawn as one. */
export function seriesFrames(target: Target, series: Series[], interval?: number): DataFrame[] {
  return series.map(({ metric, value, values }) => {
    const samples = values ?? [value!];
    const frame: PartialDataFrame = {
      refId: target.refId,
      fields: [
        { name: 'Time', type: FieldType.time, config: { interval }, values: samples.map(([time]) => time * 1000) },
        {
          name: 'Value',
          type: FieldType.number,
          labels: metric,
          config: { displayNameFromDS: legend(target.legendFormat, metric) },
          values: samples.map(([, text]) => number(text)),
        },
      ],
    };
    return createDataFrame(frame);
  });
}

/** One frame with a column for each label; the values are named after the query where a panel has several. */
export function tableFrame(target: Target, series: Series[], isOnlyOne: boolean): DataFrame {
  const labels = [...new Set(series.flatMap(({ metric }) => Object.keys(metric)))].sort();
  const column = (label: string) => ({
    name: label,
    type: FieldType.string,
    values: series.map(({ metric }) => metric[label] ?? ''),
  });
  return createDataFrame({
    refId: target.refId,
    fields: [
      { name: 'Time', type: FieldType.time, values: series.map(({ value }) => value![0] * 1000) },
      ...labels.map(column),
      {
        name: isOnlyOne ? 'Value' : `Value #${target.refId}`,
        type: FieldType.number,
        values: series.map(({ value }) => number(value![1])),
      },
    ],
  });
}

/** Whether a panel has anything to draw: NaN, as the quantile of no observations, is nothing. */
export function isEmpty(frames: DataFrame[]): boolean {
  const has = (field: Field) =>
    field.type === FieldType.number ? field.values.some(Number.isFinite) : field.type === FieldType.string && field.values.length > 0;
  return !frames.some((frame) => frame.fields.some(has));
}
