// SPDX-License-Identifier: Apache-2.0
// Fails if a page of a rendered site has a link to a page, file or heading that the site does not have: node check.mjs DIRECTORY

import { existsSync, readFileSync, readdirSync, statSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';

const site = process.argv[2];
const pages = readdirSync(site, { recursive: true }).filter((path) => path.endsWith('.html') && !path.startsWith('files/'));

/** Values of an attribute in a page. */
const values = (html, attribute) =>
  Array.from(html.matchAll(new RegExp(`\\s${attribute}="([^"]*)"`, 'g')), ([, value]) => decodeURIComponent(value.replaceAll('&amp;', '&')));

const html = new Map(pages.map((page) => [page, readFileSync(join(site, page), 'utf8')]));
const ids = new Map(pages.map((page) => [page, new Set(values(html.get(page), 'id'))]));

function file(page, path) {
  const found = path === '' ? page : normalize(path.startsWith('/') ? path.slice(1) : join(dirname(page), path));
  return existsSync(join(site, found)) && statSync(join(site, found)).isDirectory() ? join(found, 'index.html') : found;
}

let links = 0;
let dead = 0;
for (const page of pages) {
  for (const link of [...values(html.get(page), 'href'), ...values(html.get(page), 'src')]) {
    if (/^[a-z]+:/.test(link)) {
      continue;
    }
    links += 1;
    const [path, anchor] = link.split('#');
    const target = file(page, path);
    const known = existsSync(join(site, target)) && (!anchor || target.startsWith('files/') || ids.get(target)?.has(anchor));
    if (!known) {
      dead += 1;
      console.error(`${page}: ${link} leads nowhere`);
    }
  }
}
console.log(`${pages.length} pages, ${links} links, ${dead} of them dead`);
process.exitCode = dead === 0 && pages.length > 20 ? 0 : 1;
