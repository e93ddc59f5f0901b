// SPDX-License-Identifier: Apache-2.0

import { cacheFieldDisplayNames } from '@grafana/data';
import { TableNG } from '@grafana/ui/unstable';
import type { PanelProps } from '.';

/** A row for each series, of the one frame that is left of a table's queries. */
export function TablePanel({ panel, frames, range, width, height }: PanelProps) {
  const { cellHeight, showHeader, sortBy } = panel.options;
  // The headings are the names that transformations gave.
  cacheFieldDisplayNames(frames);
  return (
    <TableNG
      data={frames[0]} width={width} height={height} timeRange={range} cellHeight={cellHeight} noHeader={!showHeader}
      sortBy={sortBy} fieldConfig={panel.fieldConfig} enableVirtualization={false}
    />
  );
}
