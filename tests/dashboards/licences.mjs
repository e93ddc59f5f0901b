// SPDX-License-Identifier: Apache-2.0
// Fails if a package in package-lock.json has a licence that asks for more than to be named with its text. The packages make
// pictures; none of them is in what this project ships.

import { readFile } from 'node:fs/promises';

const PERMISSIVE = new Set([
  '(MIT AND Zlib)', '(MPL-2.0 OR Apache-2.0)', '0BSD', 'Apache-2.0', 'BSD-2-Clause', 'BSD-3-Clause', 'BlueOak-1.0.0',
  'CC0-1.0', 'ISC', 'MIT', 'MIT AND BSD-3-Clause', 'Unlicense',
]);

/** Packages whose package.json names none, with the file that does. */
const STATED = {
  'fast-shallow-equal': ['LICENSE', 'This is free and unencumbered software released into the public domain.'],
  'react-universal-interface': ['LICENSE', 'This is free and unencumbered software released into the public domain.'],
};

async function isPermissive(path, licence) {
  if (licence !== undefined) {
    return PERMISSIVE.has(licence);
  }
  const [file, text] = STATED[path.slice(path.lastIndexOf('node_modules/') + 13)] ?? [];
  return file !== undefined && (await readFile(`${path}/${file}`, 'utf8')).includes(text);
}

const { packages } = JSON.parse(await readFile('package-lock.json', 'utf8'));
for (const [path, { license, link }] of Object.entries(packages)) {
  if (path !== '' && link === undefined && !(await isPermissive(path, license))) {
    console.error(`the licence of ${path} is ${license ?? 'not named'}: add it to licences.mjs if it is permissive`);
    process.exitCode = 1;
  }
}
