// SPDX-License-Identifier: Apache-2.0
// The grid of a dashboard as Grafana lays it out: 24 columns, rows of 30 pixels, 8 between.

import { css } from '@emotion/css';
import { dateTimeFormat, type TimeRange } from '@grafana/data';
import { ErrorBoundary, Icon, PanelChrome, useTheme2 } from '@grafana/ui';
import type { Dashboard } from './dashboard';
import type { Loaded } from './load';
import { KINDS } from './panels';
import type { Choices } from './variables';

const [COLUMNS, ROW, GAP] = [24, 30, 8];

interface Props {
  dashboard: Dashboard;
  choices: Choices;
  range: TimeRange;
  loaded: Loaded[];
  width: number;
  /** Called with what a panel throws. */
  onFault: (title: string, text: string) => void;
}

function Head({ dashboard, choices, range }: Props) {
  const theme = useTheme2();
  const time = [range.from, range.to].map((at) => dateTimeFormat(at, { format: 'HH:mm', timeZone: 'utc' })).join(' to ');
  const style = css({
    display: 'flex', alignItems: 'center', gap: 16, height: 48, color: theme.colors.text.secondary,
    '& b': { color: theme.colors.text.primary, fontWeight: 500 }, '& h1': { margin: 0, fontSize: 18, color: theme.colors.text.primary },
    '& span': { border: `1px solid ${theme.colors.border.medium}`, borderRadius: 2, padding: '4px 8px' },
  });
  return (
    <div className={style}>
      <h1>{dashboard.title}</h1>
      {[...choices.values()].map(({ label, text }) => (
        <span key={label}>{label} <b>{text}</b></span>
      ))}
      <span style={{ marginLeft: 'auto' }}><Icon name="clock-nine" /> <b>{time} UTC</b></span>
    </div>
  );
}

function Row({ title }: { title: string }) {
  const theme = useTheme2();
  return (
    <div className={css({ fontSize: theme.typography.h5.fontSize, fontWeight: 500, lineHeight: '30px' })}>
      <Icon name="angle-down" /> {title}
    </div>
  );
}

function Visual({ one, range, width, height }: { one: Loaded; range: TimeRange; width: number; height: number }) {
  const Kind = KINDS[one.panel.type];
  if (one.fault !== undefined) {
    return <div className={css({ display: 'grid', height: '100%', placeContent: 'center' })}>{one.fault}</div>;
  }
  return <Kind panel={one.panel} frames={one.frames} range={range} width={width} height={height} />;
}

function Cell({ one, range, width, height, onFault }: Omit<Props, 'dashboard' | 'choices' | 'loaded'> & { one: Loaded; height: number }) {
  const { title, description, type } = one.panel;
  if (type === 'row') {
    return <Row title={title} />;
  }
  return (
    <PanelChrome title={title} description={description} width={width} height={height} padding={type === 'table' ? 'none' : 'md'}>
      {(innerWidth, innerHeight) => (
        <ErrorBoundary onError={(error) => onFault(title, String(error))}>
          {({ error }) => (error ? String(error) : <Visual one={one} range={range} width={innerWidth} height={innerHeight} />)}
        </ErrorBoundary>
      )}
    </PanelChrome>
  );
}

export function Page(props: Props) {
  const column = (props.width + GAP) / COLUMNS;
  const bottom = Math.max(...props.loaded.map(({ panel: { gridPos } }) => gridPos.y + gridPos.h));
  return (
    <main style={{ width: props.width + 2 * GAP, padding: `0 ${GAP}px ${GAP}px` }}>
      <Head {...props} />
      <div style={{ position: 'relative', height: bottom * (ROW + GAP) - GAP }}>
        {props.loaded.map((one) => {
          const { x, y, w, h } = one.panel.gridPos;
          const [width, height] = [w * column - GAP, h * (ROW + GAP) - GAP];
          return (
            <div key={one.panel.id} style={{ position: 'absolute', left: x * column, top: y * (ROW + GAP), width, height }}>
              <Cell {...props} one={one} width={width} height={height} />
            </div>
          );
        })}
      </div>
    </main>
  );
}
