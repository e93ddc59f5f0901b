#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Renders README.md, docs/ and the documents of the charts, in English and Chinese, as a site with search in target/site. Fails on a
# link to a page, file or heading that the site does not have. `npx vitepress preview` in target/site-build serves it.
set -euo pipefail
cd "$(dirname "$0")/../.."

out=$PWD/target/site
# Beside the sources, the checks of this repository would read the packages.
build=$PWD/target/site-build

command -v npm >/dev/null || {
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends npm >/dev/null
}

mkdir -p "$build"
cp tests/site/package.json tests/site/package-lock.json "$build"
if ! cmp -s "$build/package-lock.json" "$build/node_modules/.installed"; then
    (cd "$build" && node "$OLDPWD/tests/dashboards/licences.mjs" && npm ci --silent && cp package-lock.json node_modules/.installed)
fi

# The documents lie as in the repository, so that their links hold.
rm -rf "$build/pages" "$build/.vitepress" "$out"
mkdir -p "$build/pages"
cp -r tests/site/.vitepress "$build"
cp --parents README*.md docs/*.md docs/zh-CN/*.md deploy/*/README*.md CHANGELOG.md ARCHITECTURE.md SPECIFICATION.md CONTRIBUTING.md "$build/pages"
cp -r --parents docs/pictures "$build/pages"
# The first line is for readers without the menu of languages, the comment for the tests.
find "$build/pages" -name '*.md' -exec sed -i -e '/^<!-- /d' -e '1{/简体中文/d}' {} +
(cd "$build" && REPOSITORY="$OLDPWD" OUT="$out" node_modules/.bin/vitepress build)
node tests/site/check.mjs "$out"
