// SPDX-License-Identifier: Apache-2.0
//! The claims that use a daemon, and the entries that appear in its shared memory while a claim uses it. Pure.
//!
//! Input is every start and end of a claim, with the entries of the shared memory at that moment. Output is what a claim that
//! ends may have left: the entries that did not exist when it started. Whether a process uses them is not known here.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;

/// A file or directory at the top of the shared memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub name: OsString,
    /// Its inode. A tmpfs does not reuse inode numbers.
    pub inode: u64,
}

/// The claims that use a daemon.
#[derive(Debug, Default)]
pub struct SharingClaims {
    /// Number of scans of the shared memory so far.
    scans: u64,
    /// The scan at the start of each claim, by its UID.
    started: BTreeMap<String, u64>,
    /// The first scan that found an inode.
    appeared: BTreeMap<u64, u64>,
    /// The first scan, of entries of unknown claims: a claim that is not known started after it at the earliest.
    first_scan: u64,
}

impl SharingClaims {
    /// Of an adopted daemon. Its claims are not known, and each of the entries may belong to any of them.
    pub fn after_restart(entries: &[Entry]) -> Self {
        let mut sharing_claims = Self::default();
        sharing_claims.record_scan(entries);
        sharing_claims.first_scan = sharing_claims.scans;
        sharing_claims
    }

    /// Records the start of a claim. For a known claim the first start counts.
    pub fn join(&mut self, claim: &str, entries: &[Entry]) {
        self.record_scan(entries);
        self.started.entry(claim.to_owned()).or_insert(self.scans);
    }

    /// Records the end of a claim. Returns the entries that appeared since its start.
    pub fn leave(&mut self, claim: &str, entries: Vec<Entry>) -> Vec<Entry> {
        self.record_scan(&entries);
        let started = self.started.remove(claim).unwrap_or(self.first_scan);
        let is_later = |entry: &Entry| self.appeared.get(&entry.inode).is_some_and(|appeared| *appeared > started);
        entries.into_iter().filter(is_later).collect()
    }

    fn record_scan(&mut self, entries: &[Entry]) {
        self.scans += 1;
        let inodes: BTreeSet<u64> = entries.iter().map(|entry| entry.inode).collect();
        self.appeared.retain(|inode, _| inodes.contains(inode));
        for inode in inodes {
            self.appeared.entry(inode).or_insert(self.scans);
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
    fn entries_from_before_a_claim_do_not_belong_to_it() {
        let mut sharing_claims = SharingClaims::default();
        sharing_claims.join("a", &entries(&[]));
        sharing_claims.join("b", &entries(&[1]));
        // Prepared again.
        sharing_claims.join("b", &entries(&[1, 2]));
        sharing_claims.join("a", &entries(&[1, 2]));
        assert_eq!(sharing_claims.leave("b", entries(&[1, 2, 3])), entries(&[2, 3]));
        // An entry that was in use stays and counts again at the end of another claim that was there.
        assert_eq!(sharing_claims.leave("a", entries(&[1, 3, 4])), entries(&[1, 3, 4]));
    }

    #[test]
    fn entries_of_an_earlier_process_belong_to_no_claim() {
        let mut sharing_claims = SharingClaims::after_restart(&entries(&[1]));
        sharing_claims.join("later", &entries(&[1, 2]));
        assert_eq!(sharing_claims.leave("later", entries(&[1, 2, 3])), entries(&[3]));
        assert_eq!(sharing_claims.leave("unknown", entries(&[1, 2])), entries(&[2]));
        assert_eq!(SharingClaims::default().leave("first", entries(&[1])), entries(&[1]));
    }
}
