// SPDX-License-Identifier: Apache-2.0
// The variables of a dashboard, and queries in which they are replaced.

import type { TimeRange } from '@grafana/data';
import type { Dashboard, Variable } from './dashboard';
import { labelValues } from './prometheus';

/** A chosen variable: what its box says, and what takes its place in a query. */
export interface Choice {
  label: string;
  text: string;
  value: string;
}

export type Choices = Map<string, Choice>;

const DEFINITION = /^label_values\((.+), (\w+)\)$/;

/** The name is not chosen for the data source: there is one. */
async function choose(variable: Variable, chosen: string | null, known: Choices, range: TimeRange): Promise<Choice> {
  const { label } = variable;
  if (variable.type === 'datasource') {
    return { label, text: 'Prometheus', value: 'prometheus' };
  }
  const [, selector, name] = DEFINITION.exec(variable.definition) ?? [];
  const values = await labelValues(name, replaced(selector, known), range);
  if (chosen === null) {
    return { label, text: 'All', value: variable.allValue };
  }
  if (!values.includes(chosen)) {
    throw new Error(`the variable ${variable.name} has no value ${chosen}, but ${values.join(', ')}`);
  }
  return { label, text: chosen, value: chosen };
}

/** In the order of the dashboard, since each uses those before it. `var-NAME` of the address chooses a value. */
export async function chooseAll(dashboard: Dashboard, address: URLSearchParams, range: TimeRange): Promise<Choices> {
  const choices: Choices = new Map();
  for (const variable of dashboard.templating.list) {
    const chosen = address.get(`var-${variable.name}`);
    choices.set(variable.name, await choose(variable, chosen, choices, range));
  }
  return choices;
}

/** What is no variable stays, such as `$1` of label_replace. */
export function replaced(text: string, choices: Choices, more: Record<string, string> = {}): string {
  const value = (name: string) => more[name] ?? choices.get(name)?.value;
  return text.replace(/\$\{(\w+)\}|\$(\w+)/g, (all, braced, bare) => value(braced ?? bare) ?? all);
}
