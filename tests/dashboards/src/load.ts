// SPDX-License-Identifier: Apache-2.0
// The data of a panel: queries, transformations, and the configuration of the fields.

import { standardTransformers, standardTransformersRegistry, transformDataFrame } from '@grafana/data';
import type { DataFrame, GrafanaTheme2, TimeRange } from '@grafana/data';
import { firstValueFrom } from 'rxjs';
import type { Panel, Target } from './dashboard';
import { configured } from './fields';
import { isEmpty, seriesFrames, tableFrame } from './frames';
import { queryAt, queryOver } from './prometheus';
import { replaced, type Choices } from './variables';

/** A panel with its frames, or with what is wrong. */
export interface Loaded {
  panel: Panel;
  frames: DataFrame[];
  fault?: string;
}

/** Grafana's default for the interval at which a Prometheus scrapes. */
const SCRAPE_SECONDS = 15;

standardTransformersRegistry.setInit(() =>
  [standardTransformers.mergeTransformer, standardTransformers.organizeFieldsTransformer].map((transformer) => ({
    id: transformer.id, name: transformer.name, transformation: () => Promise.resolve(transformer as any),
    imageDark: '', imageLight: '', editor: () => null,
  })),
);

/** One point for each pixel at most. */
function stepFor(panel: Panel, range: TimeRange, width: number): number {
  const pixels = (width * panel.gridPos.w) / 24;
  return Math.max(SCRAPE_SECONDS, Math.ceil(range.to.diff(range.from, 'seconds') / pixels));
}

async function run(panel: Panel, target: Target, choices: Choices, range: TimeRange, width: number) {
  const step = stepFor(panel, range, width);
  const rateInterval = `${Math.max(step + SCRAPE_SECONDS, 4 * SCRAPE_SECONDS)}s`;
  const query = replaced(target.expr, choices, { __rate_interval: rateInterval, __interval: `${step}s` });
  if (!target.instant) {
    return seriesFrames(target, await queryOver(query, range, step), step * 1000);
  }
  const series = await queryAt(query, range);
  return target.format === 'table' ? [tableFrame(target, series, panel.targets.length === 1)] : seriesFrames(target, series);
}

export async function load(panel: Panel, choices: Choices, range: TimeRange, width: number, theme: GrafanaTheme2): Promise<Loaded> {
  if (panel.type === 'row') {
    return { panel, frames: [] };
  }
  try {
    const answers = await Promise.all(panel.targets.map((target) => run(panel, target, choices, range, width)));
    const transformed = await firstValueFrom(transformDataFrame(panel.transformations ?? [], answers.flat()));
    const frames = configured(panel, transformed, choices, theme);
    return { panel, frames, fault: isEmpty(frames) ? 'No data' : undefined };
  } catch (error) {
    return { panel, frames: [], fault: String(error) };
  }
}
