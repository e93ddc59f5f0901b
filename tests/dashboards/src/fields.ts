// SPDX-License-Identifier: Apache-2.0
// Units, thresholds, colours and overrides of a panel, over the defaults that Grafana has for its kind.

import {
  FieldColorModeId,
  FieldConfigOptionsRegistry,
  ThresholdsMode,
  applyFieldOverrides,
  type DataFrame,
  type FieldConfigPropertyItem,
  type FieldConfigSource,
  type GrafanaTheme2,
} from '@grafana/data';
import { merge } from 'lodash';
import type { Panel } from './dashboard';
import { replaced, type Choices } from './variables';

const STANDARD = ['unit', 'min', 'max', 'decimals', 'displayName', 'noValue', 'color', 'thresholds', 'mappings', 'links'];

const CUSTOM = {
  timeseries: {
    axisBorderShow: false, axisCenteredZero: false, axisColorMode: 'text', axisLabel: '', axisPlacement: 'auto',
    axisSoftMax: undefined, axisSoftMin: undefined,
    barAlignment: 0, barWidthFactor: 0.6, drawStyle: 'line', fillOpacity: 0, gradientMode: 'none',
    hideFrom: { legend: false, tooltip: false, viz: false }, lineInterpolation: 'linear', lineStyle: { fill: 'solid' },
    lineWidth: 1, pointSize: 5, scaleDistribution: { type: 'linear' }, showPoints: 'auto', spanNulls: false,
    stacking: { group: 'A', mode: 'none' }, thresholdsStyle: { mode: 'off' },
  },
  table: { align: 'auto', cellOptions: { type: 'auto' }, filterable: false, inspect: false, minWidth: undefined, width: undefined },
} as const;

const THRESHOLDS = { mode: ThresholdsMode.Absolute, steps: [{ color: 'green', value: -Infinity }] };

/** The panel's configuration over the defaults of its kind. */
export function fieldConfig(panel: Panel): FieldConfigSource {
  const custom = CUSTOM[panel.type as keyof typeof CUSTOM] ?? {};
  const mode = panel.type === 'timeseries' ? FieldColorModeId.PaletteClassic : FieldColorModeId.Thresholds;
  // lodash changes its first argument, down to its leaves.
  const defaults = merge(structuredClone({ custom, color: { mode }, thresholds: THRESHOLDS }), panel.fieldConfig.defaults);
  // JSON has no infinity.
  for (const step of defaults.thresholds.steps) {
    step.value ??= -Infinity;
  }
  return { defaults, overrides: panel.fieldConfig.overrides };
}

function option(path: string, isCustom: boolean): FieldConfigPropertyItem {
  const nothing = () => null;
  return {
    id: isCustom ? `custom.${path}` : path, path, isCustom, name: path, editor: nothing, override: nothing,
    process: (value) => value, shouldApply: () => true,
  };
}

const REGISTRY = new FieldConfigOptionsRegistry(() => [
  ...STANDARD.map((path) => option(path, false)),
  ...Object.values(CUSTOM).flatMap((custom) => Object.keys(custom).map((path) => option(path, true))),
]);

/** The frames with the configuration on each of their fields. */
export function configured(panel: Panel, frames: DataFrame[], choices: Choices, theme: GrafanaTheme2): DataFrame[] {
  return applyFieldOverrides({
    data: frames, fieldConfig: fieldConfig(panel), fieldConfigRegistry: REGISTRY,
    replaceVariables: (text) => replaced(text, choices), theme, timeZone: 'utc',
  });
}
