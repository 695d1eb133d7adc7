//! The contents that one file may have.

use guest_protocol::LossKind;

/// Bytes beyond which a file is not judged.
const MOST_BYTES: usize = 4 << 20;

/// A file, with all contents that it had or may have had.
#[derive(Clone, Debug, Default)]
pub(super) struct FileModel {
    /// All of them. Those of steps that failed may show in any part.
    versions: Vec<Vec<u8>>,
    /// Index of the one that reading it gives.
    now: usize,
    /// Index of the last one that the kernel said to be on the disk, and the step that it said so
    /// of.
    acknowledged: Option<(usize, u32)>,
    /// Indices of those that failed steps may have made.
    doubtful: Vec<usize>,
    /// True when the kernel has told of an error: what was not on the disk then may never be.
    given_up: bool,
    /// True when nothing can be said.
    unknown: bool,
}

impl FileModel {
    /// An empty file.
    pub(super) fn new() -> Self {
        Self { versions: vec![Vec::new()], ..Self::default() }
    }

    /// What reading it gives, as far as nothing failed.
    pub(super) fn now(&self) -> &[u8] {
        &self.versions[self.now]
    }

    /// True when there is no doubt what reading it gives.
    pub(super) fn is_known(&self) -> bool {
        !self.unknown && !self.given_up && self.doubtful.is_empty()
    }

    /// True when nobody knows what it holds.
    pub(super) fn is_unknown(&self) -> bool {
        self.unknown
    }

    /// Takes in that a step changed the content up to byte `end`, or failed to.
    pub(super) fn change(&mut self, worked: bool, end: u64, change: impl FnOnce(&mut Vec<u8>)) {
        // Such a content would take the guest's memory.
        self.unknown |= end > MOST_BYTES as u64;
        if self.unknown {
            return;
        }
        let mut content = self.now().to_vec();
        change(&mut content);
        self.unknown |= content.len() > MOST_BYTES;
        if self.unknown {
            return;
        }
        self.versions.push(content);
        let last = self.versions.len() - 1;
        if worked {
            self.now = last;
        } else {
            self.doubtful.push(last);
        }
    }

    /// Takes in that nobody knows what it holds from now on.
    pub(super) fn forget(&mut self) {
        self.unknown = true;
    }

    /// Takes in that all of it is on the disk, as the kernel says in this step.
    pub(super) fn acknowledge(&mut self, step: u32) {
        self.acknowledged = Some((self.now, step));
    }

    /// True when all of it is on the disk.
    pub(super) fn is_acknowledged(&self) -> bool {
        self.acknowledged.is_some_and(|(version, _)| version == self.now)
    }

    /// Takes in that what is not on the disk by now may never be, and that somebody was told.
    pub(super) fn give_up(&mut self) {
        self.given_up |= !self.is_acknowledged();
    }

    /// True when it must be on the disk.
    pub(super) fn must_exist(&self) -> bool {
        self.acknowledged.is_some() && !self.given_up && !self.unknown
    }

    /// The step that acknowledged it, in words.
    pub(super) fn by(&self) -> String {
        self.acknowledged.map_or_else(String::new, |(_, step)| format!(", acknowledged by step {step}"))
    }

    /// Compares it with what the disk holds. The first difference that no order of writing can
    /// explain, in words; data that was never the file's, and in the place of no promised data,
    /// before all others.
    pub(super) fn difference(&self, found: &[u8]) -> Option<(LossKind, String)> {
        if self.unknown || found == self.now() {
            return None;
        }
        let promised = self.must_exist();
        let first = if promised { self.acknowledged.map_or(0, |(version, _)| version) } else { 0 };
        let earlier = self.doubtful.iter().filter(|version| **version < first).map(|version| &self.versions[*version]);
        let candidates: Vec<&Vec<u8>> = self.versions[first..].iter().chain(earlier).collect();
        let mut lost = self.other_length(found.len(), &candidates);
        let mut hole = None;
        for (at, byte) in found.iter().enumerate() {
            let firm = promised && is_firm(&candidates, at);
            let is_candidate = candidates.iter().any(|version| version.get(at) == Some(byte));
            if is_candidate || *byte == 0 && !firm {
                continue;
            }
            let nobodys = *byte != 0 && !self.versions.iter().any(|version| version.get(at) == Some(byte));
            let wanted = self.now().get(at).map_or_else(|| "nothing".to_owned(), |byte| format!("{byte:#04x}"));
            let mut text = format!("byte {at} is {byte:#04x} and should be {wanted}{}", self.by());
            if nobodys {
                text += "; nobody wrote that";
            }
            if nobodys && !firm {
                return Some((LossKind::Stale, text));
            }
            // Where nothing but zeros was promised, nothing is lost.
            let place = if nobodys && self.now().get(at) == Some(&0) { &mut hole } else { &mut lost };
            place.get_or_insert(text);
        }
        lost.map(|text| (LossKind::Lost, text)).or_else(|| hole.map(|text| (LossKind::Stale, text)))
    }

    /// Says of the length `found` why it cannot be, in words.
    fn other_length(&self, found: usize, candidates: &[&Vec<u8>]) -> Option<String> {
        let lengths = || candidates.iter().map(|version| version.len());
        let (least, most) = (lengths().min()?, lengths().max()?);
        let least = if self.must_exist() { least } else { 0 };
        (!(least..=most).contains(&found))
            .then(|| format!("it has {found} bytes and should have {}{}", self.now().len(), self.by()))
    }
}

/// Says whether all versions have the same byte at this offset. Elsewhere there may be zero, too:
/// it is what a block holds that was made and not written.
fn is_firm(candidates: &[&Vec<u8>], at: usize) -> bool {
    let first = candidates[0].get(at);
    first.is_some() && candidates.iter().all(|version| version.get(at) == first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(contents: &[&[u8]]) -> FileModel {
        let mut file = FileModel::new();
        for content in contents {
            file.change(true, 0, |now| *now = content.to_vec());
        }
        file
    }

    fn kind(file: &FileModel, found: &[u8]) -> Option<LossKind> {
        file.difference(found).map(|(kind, _)| kind)
    }

    #[test]
    fn what_was_acknowledged_is_there() {
        let mut file = file(&[b"aaaa"]);
        assert_eq!([kind(&file, b"aaaa"), kind(&file, b""), kind(&file, b"a\0")], [None; 3], "nobody promised it");
        assert_eq!(kind(&file, b"aaxa"), Some(LossKind::Stale));
        file.acknowledge(5);
        assert!(file.must_exist() && file.is_acknowledged());
        assert_eq!(kind(&file, b"aaaa"), None);
        assert_eq!([kind(&file, b"aaa"), kind(&file, b"aa\0a")], [Some(LossKind::Lost); 2]);
        assert_eq!(kind(&file, b"axaa"), Some(LossKind::Lost), "whatever is in its place");
        let (_, text) = file.difference(b"aa\0a").unwrap();
        assert_eq!(text, "byte 2 is 0x00 and should be 0x61, acknowledged by step 5");
    }

    #[test]
    fn later_changes_may_be_there_or_not() {
        let mut file = file(&[b"aaaa"]);
        file.acknowledge(1);
        file.change(true, 0, |now| now.splice(2..4, *b"bbbb").for_each(drop));
        for found in [b"aaaa".as_slice(), b"aabbbb", b"aaab", b"aab\0\0b", b"aa\0a"] {
            assert_eq!(kind(&file, found), None, "{found:?}");
        }
        assert_eq!([kind(&file, b"baaa"), kind(&file, b"\0aaa")], [Some(LossKind::Lost); 2]);
        assert_eq!(kind(&file, b"aaxb"), Some(LossKind::Stale));
        file.acknowledge(2);
        assert_eq!(kind(&file, b"aaaa"), Some(LossKind::Lost), "the old is lost data now");
    }

    #[test]
    fn a_step_that_failed_may_have_done_a_part() {
        let mut file = file(&[b"aaaa"]);
        file.acknowledge(1);
        file.change(false, 0, |now| *now = b"cccccc".to_vec());
        assert!(!file.is_known());
        file.acknowledge(2);
        for found in [b"aaaa".as_slice(), b"aacc", b"cccccc", b"aaaac\0"] {
            assert_eq!(kind(&file, found), None, "{found:?}");
        }
        assert_eq!(kind(&file, b"aadd"), Some(LossKind::Stale));
        assert_eq!(kind(&file, b"aa"), Some(LossKind::Lost));
    }

    #[test]
    fn after_an_error_that_was_told_nothing_is_lost_and_strange_data_is_stale() {
        let mut file = file(&[b"aaaa"]);
        file.give_up();
        file.acknowledge(9);
        assert!(!file.must_exist());
        assert_eq!([kind(&file, b""), kind(&file, b"a\0\0a"), kind(&file, b"az")], [None, None, Some(LossKind::Stale)]);
        file.forget();
        assert_eq!(kind(&file, b"az"), None);
        let mut whole = FileModel::new();
        whole.acknowledge(1);
        whole.give_up();
        assert!(whole.must_exist(), "all of it was there");
        whole.change(true, MOST_BYTES as u64 + 1, |_| panic!("it takes no memory"));
        assert_eq!(kind(&whole, b"x"), None, "too large to be judged");
    }
}
