// SPDX-License-Identifier: Apache-2.0
// The kinds of panels that the dashboards use, made of the components of @grafana/ui.

import type { DataFrame, TimeRange } from '@grafana/data';
import type { ComponentType } from 'react';
import type { Panel } from '../dashboard';
import { BarGaugePanel } from './bargauge';
import { StatPanel } from './stat';
import { TablePanel } from './table';
import { TimeSeriesPanel } from './timeseries';

export interface PanelProps {
  panel: Panel;
  frames: DataFrame[];
  range: TimeRange;
  width: number;
  height: number;
}

export const KINDS: Record<string, ComponentType<PanelProps>> = {
  bargauge: BarGaugePanel,
  stat: StatPanel,
  table: TablePanel,
  timeseries: TimeSeriesPanel,
};
