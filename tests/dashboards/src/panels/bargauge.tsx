// SPDX-License-Identifier: Apache-2.0

import { VizOrientation, getDisplayValueAlignmentFactors, getFieldDisplayValues, type FieldDisplay } from '@grafana/data';
import { BarGaugeNamePlacement, BarGaugeValueMode } from '@grafana/schema';
import { BarGauge, VizRepeater, useTheme2 } from '@grafana/ui';
import { fieldConfig } from '../fields';
import type { PanelProps } from '.';

/** A bar for each series. */
export function BarGaugePanel({ panel, frames, width, height }: PanelProps) {
  const theme = useTheme2();
  const { displayMode, namePlacement, orientation, reduceOptions, showUnfilled, text } = panel.options;
  const values = () =>
    getFieldDisplayValues({
      data: frames, fieldConfig: fieldConfig(panel), reduceOptions, replaceVariables: (text) => text, theme, timeZone: 'utc',
    });
  return (
    <VizRepeater<FieldDisplay, ReturnType<typeof getDisplayValueAlignmentFactors>>
      source={frames} getValues={values} getAlignmentFactors={getDisplayValueAlignmentFactors} renderCounter={0}
      width={width} height={height} orientation={orientation} minVizHeight={16} minVizWidth={8} maxVizHeight={300} itemSpacing={10}
      renderValue={({ value, alignmentFactors, count: _, ...place }) => (
        <BarGauge
          {...place}
          alignmentFactors={alignmentFactors}
          display={value.view?.getFieldDisplayProcessor(value.colIndex!)}
          displayMode={displayMode}
          field={value.field}
          namePlacement={namePlacement ?? BarGaugeNamePlacement.Auto}
          orientation={place.orientation ?? VizOrientation.Horizontal}
          showUnfilled={showUnfilled}
          text={text ?? {}}
          theme={theme}
          value={value.display}
          valueDisplayMode={BarGaugeValueMode.Color}
        />
      )}
    />
  );
}
