// SPDX-License-Identifier: Apache-2.0
// Bundles the page into built/.

import { build } from 'esbuild';

await build({
  entryPoints: ['src/index.tsx'],
  bundle: true,
  format: 'esm',
  // What Grafana loads late, such as its code editor, stays out of the page.
  splitting: true,
  outdir: 'built',
  jsx: 'automatic',
  define: { 'process.env.NODE_ENV': '"production"', global: 'globalThis' },
  loader: { '.svg': 'dataurl', '.ttf': 'dataurl' },
  logLevel: 'error',
});
