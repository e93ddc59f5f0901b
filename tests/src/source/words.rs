// SPDX-License-Identifier: Apache-2.0
//! Words that this project does not use, each with the word that Kubernetes, NVML, MPS or Rust already has.

use std::collections::BTreeMap;

use super::SourceFile;
use super::code::code_only;

/// Where a word is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In names and in prose.
    Everywhere,
    /// In names in code and in names of files. In prose the word has a plain meaning.
    Names,
    /// In the names of constants.
    Constants,
}

use Place::{Constants, Everywhere, Names};

/// Words that mean the same, in lower case; several words in a row stand for a phrase. Then the words to use instead.
const WORDS: [(Place, &[&str], &str); 36] = [
    (Everywhere, &["owe", "owes", "owed", "debt", "debts", "pay", "pays", "paid"], "pending restore; restore"),
    (Everywhere, &["deed", "deeds", "tally", "tallies"], "outcome; counters"),
    (Everywhere, &["doubt", "doubts", "doubtful"], "quarantined; uncertain"),
    (Everywhere, &["set aside", "sets aside", "setting aside"], "quarantine"),
    (Names, &["remains"], "salvaged"),
    (Everywhere, &["settle", "settles", "settled", "settling"], "ensure prepared, clear quarantine, compact, finish"),
    (Everywhere, &["wish", "wishes", "wished"], "requested; requested sharing"),
    (Everywhere, &["overtake", "overtakes", "overtaken"], "superseded"),
    (Names, &["turns"], "prepare order; time slices"),
    (Everywhere, &["somebody", "someone", "anybody", "anyone", "nobody", "everybody", "whoever"], "name the actor"),
    (Everywhere, &["put right", "puts right", "putting right", "puts it right"], "reset, restore, correct"),
    (Everywhere, &["give back", "gives back", "gave back", "given back", "giving back"], "restore; release"),
    (
        Everywhere,
        &["give it back", "gives it back", "giving it back", "take back", "takes back", "taken back"],
        "restore; release",
    ),
    (Names, &["promise", "promises", "promised"], "prepared claim; reservation; prepared shares"),
    (Names, &["kept"], "prepared this boot; previous; state"),
    (Names, &["asking"], "caller"),
    (Names, &["occasion"], "trigger"),
    (Constants, &["look", "most", "longest", "again"], "…_INTERVAL, MAX_…, …_TIMEOUT"),
    (Everywhere, &["patience"], "timeout"),
    (Everywhere, &["told", "telling", "tells"], "report, publish, record; distinguish"),
    (Names, &["tell", "hear", "heard", "say", "says", "said"], "report, publish, record; seen"),
    (Everywhere, &["hears"], "receive; be informed"),
    (Names, &["shown"], "status; published"),
    (Everywhere, &["news"], "events, changes"),
    (Everywhere, &["board"], "states"),
    (Everywhere, &["outage", "outages"], "the time without API server or MPS host"),
    (Everywhere, &["birth", "births", "born", "death", "deaths"], "start; exit, termination"),
    (Everywhere, &["die", "dies", "died"], "exit, terminate"),
    (Everywhere, &["roster"], "registry"),
    (Names, &["front end"], "control client"),
    (Everywhere, &["strange"], "orphaned; foreign"),
    (Everywhere, &["twin", "twins"], "reference model"),
    (Names, &["lives"], "scenarios; exists"),
    (Names, &["life", "whose"], "say the noun: state, identity"),
    (Everywhere, &["folder", "folders"], "directory"),
    (Everywhere, &["as ever", "in vain", "without a trace"], "leave the ornament out"),
];

/// A word that is allowed below a path, in lines that contain a text.
struct Allowed {
    word: &'static str,
    below: &'static str,
    line: &'static str,
}

/// Words in names that others gave or that files on disk have, and words that mean something else there.
const ALLOWED: [Allowed; 15] = [
    // The end of a file name on disk, and a user of the system.
    Allowed { word: "settled", below: "driver/prepare/tests", line: ".settled" },
    Allowed { word: "nobody", below: "tests/cluster", line: "65534" },
    // The board that a GPU is on.
    Allowed { word: "board", below: "driver/sim", line: "" },
    Allowed { word: "board", below: "driver/model", line: "" },
    Allowed { word: "board", below: "driver/nvml", line: "" },
    // The demo prints what it does.
    Allowed { word: "say", below: "demo", line: "" },
    Allowed { word: "again", below: "", line: "Errno::AGAIN" },
    // Names of files that a running installation has.
    Allowed { word: "settled", below: "driver/checkpoint", line: ".settled" },
    // The promises of SPECIFICATION.md.
    Allowed { word: "promise", below: "tests/benches", line: "" },
    Allowed { word: "promised", below: "tests/benches", line: "" },
    Allowed { word: "promises", below: "tests/benches", line: "" },
    Allowed { word: "promise", below: "demo", line: "" },
    // Names of the device plugin that the import keeps.
    Allowed { word: "kept", below: "controller/tests/import", line: "" },
    Allowed { word: "kept", below: "driver/import/src", line: "" },
    Allowed { word: "promises", below: "", line: "benches/promises" },
];

/// A word that a file must not contain.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    /// Counted from 1; 0 is the name of the file.
    pub line: usize,
    pub word: &'static str,
    pub instead: &'static str,
}

/// Every word of a file that is not used in this project.
pub fn unwanted_words(file: &SourceFile) -> Vec<Found> {
    let path = file.path.with_extension("").display().to_string();
    let name = words(&path).into_iter().map(|word| Word { line: 0, ..word }).collect::<Vec<_>>();
    let code = if file.is_rust() { words(&code_only(&file.text)) } else { Vec::new() };
    let mut found = find(&name, |place| place != Constants);
    found.extend(find(&words(&file.text), |place| place == Everywhere));
    found.extend(find(&code, |place| place == Names));
    let constants: Vec<Word> = code.into_iter().filter(|word| word.is_upper).collect();
    found.extend(find(&constants, |place| place == Constants));
    let lines: Vec<&str> = file.text.lines().collect();
    let is_allowed = |found: &Found| {
        let line = found.line.checked_sub(1).and_then(|at| lines.get(at)).copied().unwrap_or(&path);
        ALLOWED.iter().any(|allowed| {
            allowed.word == found.word && file.path.starts_with(allowed.below) && line.contains(allowed.line)
        })
    };
    found.retain(|found| !is_allowed(found));
    found.sort_by_key(|found| found.line);
    found
}

/// The words and phrases that are not used in a place, by their first word.
fn unwanted(is_wanted: impl Fn(Place) -> bool) -> BTreeMap<&'static str, Vec<(&'static str, &'static str)>> {
    let mut found: BTreeMap<&str, Vec<(&str, &str)>> = BTreeMap::new();
    for (_, phrases, instead) in WORDS.iter().filter(|(place, ..)| is_wanted(*place)) {
        for phrase in *phrases {
            let first = phrase.split(' ').next().unwrap_or_default();
            found.entry(first).or_default().push((phrase, instead));
        }
    }
    found
}

fn find(words: &[Word], is_wanted: impl Fn(Place) -> bool) -> Vec<Found> {
    let unwanted = unwanted(is_wanted);
    let mut found = Vec::new();
    for (at, first) in words.iter().enumerate() {
        let is_at = |phrase: &str| {
            let mut parts = phrase.split(' ').skip(1).zip(at + 1..);
            parts.all(|(part, at)| words.get(at).is_some_and(|word| word.follows && word.text == part))
        };
        let phrases = unwanted.get(first.text.as_str()).into_iter().flatten();
        let hits = phrases.filter(|(phrase, _)| is_at(phrase));
        found.extend(hits.map(|(word, instead)| Found { line: first.line, word, instead }));
    }
    found
}

/// A word of prose or a part of a name.
#[derive(Debug, PartialEq, Eq)]
struct Word {
    text: String,
    line: usize,
    /// Whether no punctuation separates it from the word before.
    follows: bool,
    is_upper: bool,
}

/// The words of a text. `DaemonDied`, `daemon_died` and `daemon died` are the same two words.
fn words(text: &str) -> Vec<Word> {
    let mut found: Vec<Word> = Vec::new();
    let (mut line, mut follows, mut in_word) = (1, false, false);
    let characters: Vec<char> = text.chars().collect();
    for (at, c) in characters.iter().copied().enumerate() {
        if !c.is_alphabetic() {
            line += usize::from(c == '\n');
            follows = (follows || in_word) && (c.is_whitespace() || "_-/#!*\\".contains(c));
            in_word = false;
            continue;
        }
        let before = at.checked_sub(1).and_then(|at| characters.get(at)).copied().unwrap_or(' ');
        let after = characters.get(at + 1).copied().unwrap_or(' ');
        let begins_part =
            c.is_uppercase() && (before.is_lowercase() || (before.is_uppercase() && after.is_lowercase()));
        if !in_word || begins_part {
            found.push(Word { text: String::new(), line, follows: follows || in_word, is_upper: true });
        }
        if let Some(word) = found.last_mut() {
            word.text.extend(c.to_lowercase());
            word.is_upper &= c.is_uppercase();
        }
        (in_word, follows) = (true, true);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<(usize, &'static str)> {
        let file = SourceFile { path: path.into(), text: text.to_owned() };
        unwanted_words(&file).into_iter().map(|found| (found.line, found.word)).collect()
    }

    #[test]
    fn names_and_prose_are_split_into_words() {
        let text = "/// The folder is given\n/// back, not given. Back: payload.\nfn is_owed(x: DaemonDied, MPSHostTold: u8) {}\n";
        let expect = [(1, "folder"), (1, "given back"), (3, "owed"), (3, "died"), (3, "told")];
        assert_eq!(found("a.rs", text), expect);
    }

    #[test]
    fn some_words_have_a_plain_meaning_in_prose() {
        assert_eq!(found("a.rs", "// It remains kept.\nlet s = \"promise\"; // the longest\n"), []);
        assert_eq!(
            found("b/turns.rs", "let kept = 1;\nconst LONGEST: u8 = 1; let longest = 2;"),
            [(0, "turns"), (1, "kept"), (2, "longest")]
        );
        assert_eq!(found("a.md", "A promise is kept."), []);
    }
}
