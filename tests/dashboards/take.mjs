// SPDX-License-Identifier: Apache-2.0
// Opens each dashboard in Chromium over a Prometheus, and takes a picture: node take.mjs PROMETHEUS MINUTES DIRECTORY
//
// Fails if a panel has no data or an error, naming dashboard and panel.

import { join } from 'node:path';
import puppeteer from 'puppeteer-core';
import { serve } from './serve.mjs';

/** The dashboards, each with the values of its variables that are not all: one node has a dashboard at a time. */
const DASHBOARDS = { fleet: {}, node: { 'var-node': 'node-1' }, claims: {} };
/** Time for the queries, and for the charts to take their final size. */
const [DRAW_MS, LAYOUT_MS] = [60_000, 2_000];

async function take(browser, origin, dashboard, variables, minutes, directory) {
  const page = await browser.newPage();
  const faults = [];
  page.on('pageerror', (error) => faults.push({ panel: 'all', text: String(error) }));
  await page.setViewport({ width: 1600, height: 900 });
  await page.goto(`${origin}/?${new URLSearchParams({ dashboard, minutes, ...variables })}`);
  await page.waitForFunction('window.pictures?.isDrawn', { timeout: DRAW_MS });
  const height = await page.evaluate('document.querySelector("main")?.scrollHeight ?? 900');
  await page.setViewport({ width: 1600, height });
  await new Promise((resolve) => setTimeout(resolve, LAYOUT_MS));
  faults.push(...(await page.evaluate('window.pictures.faults')));
  await page.screenshot({ path: join(directory, `dashboard-${dashboard}.png`) });
  await page.close();
  return faults.map(({ panel, text }) => `dashboard ${dashboard}, panel "${panel}": ${text}`);
}

const [prometheus, minutes, directory] = process.argv.slice(2);
const server = await serve(prometheus);
const browser = await puppeteer.launch({ executablePath: '/usr/bin/chromium', args: ['--no-sandbox', '--hide-scrollbars'] });
const faults = [];
for (const [dashboard, variables] of Object.entries(DASHBOARDS)) {
  faults.push(...(await take(browser, server.origin, dashboard, variables, minutes, directory)));
}
await browser.close();
server.close();
for (const fault of faults) {
  console.error(fault);
}
process.exitCode = faults.length === 0 ? 0 : 1;
