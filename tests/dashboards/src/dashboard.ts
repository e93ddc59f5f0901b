// SPDX-License-Identifier: Apache-2.0
// What is read of a dashboard, in the classic JSON of Grafana.

import type { DataTransformerConfig, FieldConfigSource } from '@grafana/data';

export interface Target {
  refId: string;
  expr: string;
  instant?: boolean;
  format?: 'table';
  legendFormat: string;
}

export interface Panel {
  id: number;
  type: string;
  title: string;
  description?: string;
  gridPos: { x: number; y: number; w: number; h: number };
  targets: Target[];
  fieldConfig: FieldConfigSource;
  options: any;
  transformations?: DataTransformerConfig[];
}

export interface Variable {
  name: string;
  label: string;
  type: 'datasource' | 'query';
  definition: string;
  allValue: string;
}

export interface Dashboard {
  title: string;
  panels: Panel[];
  templating: { list: Variable[] };
}

export async function readDashboard(name: string): Promise<Dashboard> {
  const answer = await fetch(`/dashboards/${name}.json`);
  if (!answer.ok) {
    throw new Error(`no dashboard ${name}`);
  }
  return answer.json();
}
