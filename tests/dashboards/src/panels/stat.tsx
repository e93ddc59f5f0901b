// SPDX-License-Identifier: Apache-2.0

import { VizOrientation, getDisplayValueAlignmentFactors, getFieldDisplayValues, type FieldDisplay } from '@grafana/data';
import { BigValue, BigValueJustifyMode, VizRepeater, useTheme2 } from '@grafana/ui';
import { fieldConfig } from '../fields';
import type { PanelProps } from '.';

/** A number for each series. */
export function StatPanel({ panel, frames, width, height }: PanelProps) {
  const theme = useTheme2();
  const { colorMode, graphMode, reduceOptions, text, textMode } = panel.options;
  const values = () =>
    getFieldDisplayValues({
      data: frames, fieldConfig: fieldConfig(panel), reduceOptions, replaceVariables: (text) => text, theme, timeZone: 'utc',
    });
  return (
    <VizRepeater<FieldDisplay, ReturnType<typeof getDisplayValueAlignmentFactors>>
      source={frames} getValues={values} getAlignmentFactors={getDisplayValueAlignmentFactors} renderCounter={0}
      width={width} height={height} orientation={VizOrientation.Auto} autoGrid
      renderValue={({ value, alignmentFactors, count, width, height }) => (
        <BigValue
          value={value.display} count={count} width={width} height={height} theme={theme} alignmentFactors={alignmentFactors}
          colorMode={colorMode} graphMode={graphMode} textMode={textMode} justifyMode={BigValueJustifyMode.Auto} text={text ?? {}}
        />
      )}
    />
  );
}
