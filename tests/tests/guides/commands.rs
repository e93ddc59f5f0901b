// SPDX-License-Identifier: Apache-2.0
//! Every command of a document can run: in blocks of `sh` as they are, and in the lines of guides where it is more than a name.

use std::thread;

use crate::invocation::faults;
use crate::markdown::{Document, documents};
use crate::shell::{Invocation, Workspace};

/// Programs whose commands are checked in lines of text, too.
const IN_LINES: [&str; 4] = ["kubectl ", "helm ", "make ", "gpu-import "];

/// Marks of a form with alternatives, of which no single command can be made.
const FORMS: [char; 4] = ['[', '…', '|', '<'];

/// Shorter ones, such as `kubectl gpu why`, are names.
const MIN_WORDS: usize = 4;

/// Pieces of shell in a document.
fn pieces(document: &Document) -> Vec<String> {
    let blocks = document.blocks.iter().filter(|block| block.language == "sh").map(|block| block.text.clone());
    let is_guide = document.path.starts_with("docs") || document.path.ends_with("README.md");
    let is_command = |span: &&String| {
        let is_whole = span.starts_with("make ") || span.split_whitespace().count() >= MIN_WORDS;
        is_guide && is_whole && IN_LINES.iter().any(|begin| span.starts_with(begin)) && !span.contains(FORMS)
    };
    blocks.chain(document.spans.iter().filter(is_command).cloned()).collect()
}

/// Commands of a document and what is wrong with them.
fn check(document: &Document) -> (Vec<Invocation>, Vec<String>) {
    let documents = documents();
    let workspace = Workspace::new(documents.iter().flat_map(|document| &document.blocks));
    let (mut all, mut wrong): (Vec<Invocation>, Vec<String>) = (Vec::new(), Vec::new());
    let mut before = String::new();
    for piece in pieces(document) {
        match workspace.invocations(&before, &piece) {
            Ok(found) => all.extend(found),
            Err(error) => wrong.push(format!("{piece}: {error}")),
        }
        before.push_str(&piece);
        before.push('\n');
    }
    let mut checked: Vec<&Invocation> = Vec::new();
    for invocation in &all {
        if !checked.contains(&invocation) {
            wrong.extend(faults(invocation, workspace.path()));
            checked.push(invocation);
        }
    }
    let wrong = wrong.into_iter().map(|fault| format!("{}: {fault}", document.name())).collect();
    (all, wrong)
}

#[test]
fn every_command_of_a_document_can_run() {
    // Translations have the same blocks.
    let documents: Vec<Document> = documents().into_iter().filter(|document| !document.is_chinese()).collect();
    let checked: Vec<_> = thread::scope(|scope| {
        let checks: Vec<_> = documents.iter().map(|document| scope.spawn(|| check(document))).collect();
        checks.into_iter().map(|check| check.join().unwrap()).collect()
    });
    let (all, wrong): (Vec<Vec<Invocation>>, Vec<Vec<String>>) = checked.into_iter().unzip();
    let (all, wrong) = (all.concat(), wrong.concat());
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    for program in ["kubectl", "helm", "make"] {
        let count = all.iter().filter(|invocation| invocation.words[0] == program).count();
        assert!(count >= 10, "{count} commands of {program} are few");
    }
}

#[test]
fn a_command_that_cannot_run_is_found() {
    for (wrong, expect) in [
        ("make brew", "no target brew"),
        ("kubectl gpu status --wid", "unexpected argument"),
        ("kubectl gpu explain POD", "unrecognized subcommand"),
        ("kubectl get pods --field-selctor a=b", "unknown flag"),
        ("kubectl fetch pods", "unknown command"),
        ("kubectl apply -f demo/workloads/none.yaml", "there is no file"),
        ("kubectl exec POD -- gpu-kubelet-plugin --heal", "unexpected argument"),
        ("kubectl apply -f - <<'E'\nkind: Pod\nE", "no object of Kubernetes"),
        ("helm upgrade gpu-dra-driver deploy/chart --set mps.enable=true", "mps"),
        ("helm upgrade gpu-dra-driver deploy/chart --reuse", "unknown flag"),
        ("target/image/gpu-import --value", "unexpected argument"),
        ("reboot", "do not know"),
    ] {
        let document = crate::markdown::parse(&format!("```sh\n{wrong}\n```\n"));
        let found = check(&document).1.concat();
        assert!(found.contains(expect), "{wrong}: {found:?}");
    }
}
