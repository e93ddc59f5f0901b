// SPDX-License-Identifier: Apache-2.0
// The site of the documents.

import { cpSync, existsSync, mkdirSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join, normalize, relative } from 'node:path';

const repository = process.env.REPOSITORY;
const out = process.env.OUT;
const pages = join(repository, 'target/site-build/pages');

/** Pages of the sidebar below docs/, with their titles. */
const GUIDES = [
  ['first-claim', 'First claim', '第一个申领'],
  ['sharing', 'Sharing', '共享 GPU'],
  ['mig', 'MIG', 'MIG'],
  ['tenants', 'Tenants', '租户'],
  ['kubectl-gpu', 'kubectl gpu', 'kubectl gpu'],
  ['commands', 'Old and new commands', '新旧命令对照'],
  ['monitoring', 'Monitoring', '监控'],
  ['runbooks', 'Runbooks', '运行手册'],
  ['events', 'Events', '事件'],
  ['troubleshooting', 'Troubleshooting', '故障排查'],
  ['migration', 'Migration', '迁移'],
  ['upgrade', 'Upgrade', '升级'],
  ['security', 'Security', '安全'],
  ['support', 'Supported versions', '支持的版本'],
];

/** The anchors of code hosts, which the links in the documents use. */
const slugify = (text) => text.toLowerCase().replace(/[^\p{L}\p{N} _-]/gu, '').replaceAll(' ', '-');

/** The words of a text in both languages, of which search is made. It runs in the browser, too. */
function tokenize(text) {
  const words = [];
  for (const part of text.toLowerCase().split(/[\s\p{P}\p{S}]+/u)) {
    if (/\p{Script=Han}/u.test(part)) {
      const segments = new Intl.Segmenter('zh-CN', { granularity: 'word' }).segment(part);
      words.push(...Array.from(segments, ({ segment }) => segment));
    } else {
      words.push(part);
    }
  }
  return words.filter((word) => word !== '');
}

/** The path of a page on the site: Chinese pages lie below zh-CN/, as their English sources below the root. */
function sitePath(path) {
  const english = path.replace('docs/zh-CN/', 'docs/').replace('.zh-CN.md', '.md').replace('README.md', 'index.md');
  return path.includes('zh-CN') ? `zh-CN/${english}` : english;
}

/** Copies a file of the repository, or a directory with a list of its files, and returns its path on the site. */
function copied(path) {
  const copy = join(out, 'files', path);
  cpSync(join(repository, path), copy, { recursive: true });
  if (!statSync(copy).isDirectory()) {
    return `/files/${path}`;
  }
  const names = readdirSync(copy).map((name) => `<li><a href="${name}">${name}</a></li>`);
  writeFileSync(join(copy, 'index.html'), `<meta charset="utf-8"><title>${path}</title><ul>${names.join('')}</ul>`);
  return `/files/${path}/index.html`;
}

/** Links between documents hold in the repository. On the site they lead to pages, or to copies of files that are none. */
function links(md) {
  // What looks like a tag is a placeholder, such as <kubelet>.
  md.set({ html: false });
  md.core.ruler.push('links', ({ tokens, env }) => {
    const from = dirname(relative(pages, env.realPath ?? env.path ?? pages));
    for (const token of tokens.flatMap(({ children }) => children ?? []).filter(({ type }) => type === 'link_open')) {
      const [href, anchor] = decodeURI(token.attrGet('href')).split('#');
      if (href === '' || /^[a-z]+:/.test(href)) {
        continue;
      }
      const path = normalize(join(from, href)).replace(/\/$/, '');
      if (existsSync(join(pages, path)) && path.endsWith('.md')) {
        token.attrSet('href', `/${sitePath(path)}${anchor === undefined ? '' : `#${anchor}`}`);
      } else {
        token.attrSet('href', copied(path));
        token.attrSet('target', '_self');
      }
    }
  });
}

/** The menu of languages is on pages without a Chinese version, too: it leads back to them. */
function untranslated({ pages: all }) {
  for (const page of all.map(sitePath).filter((path) => !path.startsWith('zh-CN/'))) {
    const path = page.replace(/\.md$/, '.html');
    const chinese = join(out, 'zh-CN', path);
    if (!existsSync(chinese)) {
      mkdirSync(dirname(chinese), { recursive: true });
      writeFileSync(chinese, `<meta charset="utf-8"><meta http-equiv="refresh" content="0; url=/${path}"><a href="/${path}">English</a>`);
    }
  }
}

const sidebar = (prefix, column, readme, chart) => [
  { text: readme, link: `${prefix}/` },
  ...GUIDES.map((guide) => ({ text: guide[column], link: `${prefix}/docs/${guide[0]}` })),
  { text: chart, link: `${prefix}/deploy/chart/` },
];

export default {
  srcDir: 'pages',
  outDir: out,
  title: 'gpu-dra-driver',
  description: 'Kubernetes DRA driver for NVIDIA GPUs',
  rewrites: sitePath,
  buildEnd: untranslated,
  markdown: { anchor: { slugify }, config: links },
  locales: {
    root: { label: 'English', lang: 'en', themeConfig: { sidebar: sidebar('', 1, 'Overview', 'Chart') } },
    'zh-CN': {
      label: '简体中文',
      lang: 'zh-CN',
      themeConfig: {
        sidebar: sidebar('/zh-CN', 2, '概述', 'Chart'),
        outline: { label: '本页目录' },
        docFooter: { prev: '上一页', next: '下一页' },
        darkModeSwitchLabel: '外观',
        sidebarMenuLabel: '菜单',
        returnToTopLabel: '回到顶部',
        langMenuLabel: '语言',
      },
    },
  },
  themeConfig: {
    outline: { level: [2, 3] },
    search: {
      provider: 'local',
      options: {
        miniSearch: { options: { tokenize }, searchOptions: { tokenize, combineWith: 'AND' } },
        locales: {
          'zh-CN': {
            translations: {
              button: { buttonText: '搜索', buttonAriaLabel: '搜索' },
              modal: {
                noResultsText: '没有结果',
                resetButtonTitle: '清除',
                footer: { selectText: '选择', navigateText: '切换', closeText: '关闭' },
              },
            },
          },
        },
      },
    },
  },
};
