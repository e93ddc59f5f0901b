// SPDX-License-Identifier: Apache-2.0
//! The claims that share a daemon, and what appeared in its shared memory while each of them was there. Pure.
//!
//! In come claims that come and leave, each time with what is in the shared memory at that moment. Out goes what a claim
//! that leaves may have left there: what was not there when it came. Whether somebody uses that is not known here.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;

/// A file or directory at the top of the shared memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: OsString,
    /// Its inode, which no later one has again.
    pub inode: u64,
}

/// The claims that share a daemon.
#[derive(Debug, Default)]
pub struct SharingClaims {
    /// How many times was checked.
    looks: u64,
    /// At which look a claim came.
    came: BTreeMap<String, u64>,
    /// At which look an inode was first there.
    appeared: BTreeMap<u64, u64>,
    /// When the first look found what was there before: claims that are not known came after it at the earliest.
    begun: u64,
}

impl SharingClaims {
    /// Of a daemon that an earlier process had. Which claims it has is not known, and what is there may be of any of them.
    pub fn after_restart(entries: &[Entry]) -> Self {
        let mut sharing_claims = Self::default();
        sharing_claims.check(entries);
        sharing_claims.begun = sharing_claims.looks;
        sharing_claims
    }

    /// A claim is there from now on. One that is known came when it was first heard of.
    pub fn join(&mut self, claim: &str, entries: &[Entry]) {
        self.check(entries);
        self.came.entry(claim.to_owned()).or_insert(self.looks);
    }

    /// A claim is there no more. Tells what appeared while it was.
    pub fn leave(&mut self, claim: &str, entries: Vec<Entry>) -> Vec<Entry> {
        self.check(&entries);
        let came = self.came.remove(claim).unwrap_or(self.begun);
        let is_later = |entry: &Entry| self.appeared.get(&entry.inode).is_some_and(|appeared| *appeared > came);
        entries.into_iter().filter(is_later).collect()
    }

    fn check(&mut self, entries: &[Entry]) {
        self.looks += 1;
        let inodes: BTreeSet<u64> = entries.iter().map(|entry| entry.inode).collect();
        self.appeared.retain(|inode, _| inodes.contains(inode));
        for inode in inodes {
            self.appeared.entry(inode).or_insert(self.looks);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(inodes: &[u64]) -> Vec<Entry> {
        inodes.iter().map(|inode| Entry { name: inode.to_string().into(), inode: *inode }).collect()
    }

    #[test]
    fn what_was_there_before_a_claim_is_not_of_it() {
        let mut sharing_claims = SharingClaims::default();
        sharing_claims.join("a", &entries(&[]));
        sharing_claims.join("b", &entries(&[1]));
        // Prepared again.
        sharing_claims.join("b", &entries(&[1, 2]));
        sharing_claims.join("a", &entries(&[1, 2]));
        assert_eq!(sharing_claims.leave("b", entries(&[1, 2, 3])), entries(&[2, 3]));
        // What stayed, since somebody used it, is checked at again when another claim leaves that was there.
        assert_eq!(sharing_claims.leave("a", entries(&[1, 3, 4])), entries(&[1, 3, 4]));
    }

    #[test]
    fn what_an_earlier_process_left_is_nobodys() {
        let mut sharing_claims = SharingClaims::after_restart(&entries(&[1]));
        sharing_claims.join("later", &entries(&[1, 2]));
        assert_eq!(sharing_claims.leave("later", entries(&[1, 2, 3])), entries(&[3]));
        assert_eq!(sharing_claims.leave("unknown", entries(&[1, 2])), entries(&[2]));
        assert_eq!(SharingClaims::default().leave("first", entries(&[1])), entries(&[1]));
    }
}
