// SPDX-License-Identifier: Apache-2.0
// Draws the dashboard that the address names: ?dashboard=fleet&minutes=15&var-node=node-1
//
// `window.pictures` says to the program that takes the picture when all is drawn, and what is wrong.

import { ThemeContext, createTheme, dateTime, type TimeRange } from '@grafana/data';
import { initPluginTranslations } from '@grafana/i18n';
import { GlobalStyles } from '@grafana/ui';
import { createRoot } from 'react-dom/client';
import { readDashboard } from './dashboard';
import { load } from './load';
import { Page } from './page';
import { chooseAll } from './variables';

interface Pictures {
  isDrawn: boolean;
  faults: { panel: string; text: string }[];
}

declare global {
  interface Window {
    pictures: Pictures;
  }
}

const WIDTH = 1584;
const pictures: Pictures = { isDrawn: false, faults: [] };
window.pictures = pictures;

function lastMinutes(minutes: number): TimeRange {
  const to = dateTime();
  const from = dateTime(to).subtract(minutes, 'minutes');
  return { from, to, raw: { from: `now-${minutes}m`, to: 'now' } };
}

async function draw(): Promise<void> {
  await initPluginTranslations('dashboard-pictures');
  const address = new URLSearchParams(location.search);
  const dashboard = await readDashboard(address.get('dashboard')!);
  const [range, theme] = [lastMinutes(Number(address.get('minutes'))), createTheme()];
  const choices = await chooseAll(dashboard, address, range);
  const loaded = await Promise.all(dashboard.panels.map((panel) => load(panel, choices, range, WIDTH, theme)));
  const onFault = (panel: string, text: string) => pictures.faults.push({ panel, text });
  for (const { panel, fault } of loaded.filter(({ fault }) => fault !== undefined)) {
    onFault(panel.title, fault!);
  }
  createRoot(document.body).render(
    <ThemeContext.Provider value={theme}>
      <GlobalStyles />
      <Page dashboard={dashboard} choices={choices} range={range} loaded={loaded} width={WIDTH} onFault={onFault} />
    </ThemeContext.Provider>,
  );
}

draw()
  .catch((error) => pictures.faults.push({ panel: 'all', text: String(error) }))
  .finally(() => (pictures.isDrawn = true));
