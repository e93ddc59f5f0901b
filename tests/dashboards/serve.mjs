// SPDX-License-Identifier: Apache-2.0
// Serves the page on loopback: the bundle, the dashboards of the chart, the icons of @grafana/ui, and the queries of
// Prometheus, which it passes on.

import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = fileURLToPath(new URL('.', import.meta.url));
const DIRECTORIES = {
  '/dashboards/': join(here, '../../deploy/chart/dashboards/'),
  '/public/build/img/icons/': join(here, 'node_modules/@grafana/ui/dist/public/img/icons/'),
  '/built/': join(here, 'built/'),
};
const TYPES = { '.js': 'text/javascript', '.json': 'application/json', '.svg': 'image/svg+xml', '.css': 'text/css' };
const PAGE = `<!doctype html><meta charset="utf-8"><link rel="stylesheet" href="/built/index.css"><body style="margin: 0">
<script>window.__grafana_public_path__ = '/public/'</script><script type="module" src="/built/index.js"></script>`;

async function answer(prometheus, url) {
  if (url === '/' || url.startsWith('/?')) {
    return { status: 200, type: 'text/html', body: PAGE };
  }
  if (url.startsWith('/api/v1/')) {
    const passed = await fetch(prometheus + url);
    return { status: passed.status, type: 'application/json', body: await passed.text() };
  }
  const path = normalize(url.split('?')[0]);
  const [prefix, directory] = Object.entries(DIRECTORIES).find(([prefix]) => path.startsWith(prefix)) ?? [];
  if (directory === undefined) {
    return { status: 404, type: 'text/plain', body: '' };
  }
  const body = await readFile(join(directory, path.slice(prefix.length)));
  return { status: 200, type: TYPES[path.slice(path.lastIndexOf('.'))] ?? 'application/octet-stream', body };
}

/** `origin` is its address. */
export async function serve(prometheus) {
  const server = createServer((request, response) => {
    answer(prometheus, request.url)
      .catch((error) => ({ status: 502, type: 'application/json', body: JSON.stringify({ status: 'error', error: String(error) }) }))
      .then(({ status, type, body }) => response.writeHead(status, { 'content-type': type }).end(body));
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { origin: `http://127.0.0.1:${server.address().port}`, close: () => server.close() };
}
