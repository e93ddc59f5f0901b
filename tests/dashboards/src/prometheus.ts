// SPDX-License-Identifier: Apache-2.0
// The HTTP interface of Prometheus, which the server of the page passes on.

import type { TimeRange } from '@grafana/data';

/** A series: `value` of a query at one time, `values` of one over a range. */
export interface Series {
  metric: Record<string, string>;
  value?: [number, string];
  values?: [number, string][];
}

async function ask(path: string, parameters: Record<string, string>): Promise<any> {
  const answer = await fetch(`/api/v1/${path}?${new URLSearchParams(parameters)}`);
  const body = await answer.json();
  if (body.status !== 'success') {
    throw new Error(body.error);
  }
  return body.data;
}

function seconds(time: { valueOf(): number }): string {
  return String(time.valueOf() / 1000);
}

export async function queryAt(query: string, range: TimeRange): Promise<Series[]> {
  const { result } = await ask('query', { query, time: seconds(range.to) });
  return result;
}

export async function queryOver(query: string, range: TimeRange, step: number): Promise<Series[]> {
  const [start, end] = [seconds(range.from), seconds(range.to)];
  const { result } = await ask('query_range', { query, start, end, step: String(step) });
  return result;
}

export async function labelValues(label: string, selector: string, range: TimeRange): Promise<string[]> {
  const [start, end] = [seconds(range.from), seconds(range.to)];
  return ask(`label/${label}/values`, { 'match[]': selector, start, end });
}
