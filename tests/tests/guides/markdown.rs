// SPDX-License-Identifier: Apache-2.0
//! The parts of a Markdown document that the checks use.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use dra_tests::source::files;
use pulldown_cmark::{CodeBlockKind, CowStr, Event, HeadingLevel, Options, Parser, Tag, TagEnd};

/// A Markdown file of the repository.
#[derive(Debug, Default)]
pub(crate) struct Document {
    /// Below the root of the repository.
    pub(crate) path: PathBuf,
    pub(crate) text: String,
    pub(crate) headings: Vec<Heading>,
    pub(crate) blocks: Vec<Block>,
    /// Code within lines.
    pub(crate) spans: Vec<String>,
    /// Targets of links and pictures.
    pub(crate) links: Vec<String>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Heading {
    pub(crate) level: HeadingLevel,
    pub(crate) text: String,
}

/// A fenced code block.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) language: String,
    pub(crate) text: String,
}

/// Every Markdown document of the repository.
pub(crate) fn documents() -> Vec<Document> {
    let files = files().into_iter().filter(|file| file.has_extension("md"));
    files.map(|file| Document { path: file.path, ..parse(&file.text) }).collect()
}

/// A document by its path below the root of the repository.
pub(crate) fn document(path: &str) -> Document {
    let found = documents().into_iter().find(|document| document.path.ends_with(path));
    found.unwrap_or_else(|| panic!("{path} is missing"))
}

impl Document {
    pub(crate) fn name(&self) -> String {
        self.path.display().to_string()
    }

    pub(crate) fn is_chinese(&self) -> bool {
        self.name().contains("zh-CN")
    }

    /// The anchors of the headings, as code hosts make them.
    pub(crate) fn anchors(&self) -> BTreeSet<String> {
        let mut uses: BTreeMap<String, usize> = BTreeMap::new();
        let mut anchors = BTreeSet::new();
        for heading in &self.headings {
            let slug = slug(&heading.text);
            let before = uses.entry(slug.clone()).or_default();
            anchors.insert(if *before == 0 { slug } else { format!("{slug}-{before}") });
            *before += 1;
        }
        anchors
    }
}

fn slug(text: &str) -> String {
    let lower = text.to_lowercase();
    let word = lower.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
    word.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// Whose text is read.
enum Within {
    Heading,
    Block,
    Prose,
}

pub(crate) fn parse(text: &str) -> Document {
    let mut document = Document { text: text.to_owned(), ..Document::default() };
    let mut within = Within::Prose;
    for event in Parser::new_ext(text, Options::ENABLE_TABLES) {
        match event {
            Event::Start(Tag::Heading { level, .. }) => {
                document.headings.push(Heading { level, text: String::new() });
                within = Within::Heading;
            }
            Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(language))) => {
                document.blocks.push(Block { language: language.into_string(), text: String::new() });
                within = Within::Block;
            }
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                document.links.push(dest_url.into_string());
            }
            Event::End(TagEnd::Heading(_) | TagEnd::CodeBlock) => within = Within::Prose,
            Event::Code(code) => {
                add(&mut document, &within, &code);
                document.spans.push(code.into_string());
            }
            Event::Text(text) => add(&mut document, &within, &text),
            Event::Start(_)
            | Event::End(_)
            | Event::InlineMath(_)
            | Event::DisplayMath(_)
            | Event::Html(_)
            | Event::InlineHtml(_)
            | Event::FootnoteReference(_)
            | Event::SoftBreak
            | Event::HardBreak
            | Event::Rule
            | Event::TaskListMarker(_) => {}
        }
    }
    document
}

fn add(document: &mut Document, within: &Within, text: &CowStr<'_>) {
    match within {
        Within::Heading => document.headings.last_mut().unwrap().text.push_str(text),
        Within::Block => document.blocks.last_mut().unwrap().text.push_str(text),
        Within::Prose => {}
    }
}

#[test]
fn headings_have_the_anchors_of_code_hosts() {
    let document = parse("# A `b`: c, d/e\n## 待恢复的 GPU\n## A\n## A\n");
    let expect = ["a-b-c-de", "待恢复的-gpu", "a", "a-1"].map(str::to_owned);
    assert_eq!(document.anchors(), BTreeSet::from(expect));
}
