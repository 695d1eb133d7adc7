//! Notes: lines in which a file system says that it gave up, or what it holds for damaged.
//!
//! They are no reports. A file system that is given an error must say so and stop writing. They say
//! what came of a fault, though, and one kind no failed read, write or allocation explains: see
//! [`NoteKind::Corruption`].

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::{KernelReport, ReportKind, key, lines, rules, title};

/// The most notes of one log.
const MAX_NOTES: usize = 64;
/// The most bytes of a note's text.
const MAX_BYTES: usize = 240;

/// Line in which a file system says what came of an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// What it says.
    pub kind: NoteKind,
    /// The line, without the console's time stamp; at most 240 bytes.
    pub text: String,
}

/// Kind of a note.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoteKind {
    /// An operation failed, or a block is not what it should be. A write that failed or was never
    /// made explains both.
    Error,
    /// A transaction or the journal was given up; the file system only reads from now on.
    Abort,
    /// The file system does nothing any more.
    Shutdown,
    /// A block or a structure contradicts itself although its checksum is right, or was about to be
    /// written so. No read or write that fails, and no allocation, can explain that.
    Corruption,
}

/// Lines of file systems, each by pieces that stand in it in this order; the first begins it. The
/// first entry that fits counts. The kernel is 6.12.
#[rustfmt::skip]
const LINES: &[(&[&str], NoteKind)] = &[
    // fs/btrfs/disk-io.c (`btree_csum_one_bio()`), tree-checker.c: both look behind the checksum.
    (&["BTRFS ", "write time tree block corruption detected"], NoteKind::Corruption),
    (&["BTRFS critical (device ", "): corrupt leaf: "], NoteKind::Corruption),
    (&["BTRFS critical (device ", "): corrupt node: "], NoteKind::Corruption),
    // fs/btrfs/transaction.h; error 117 is EUCLEAN. messages.c (`__btrfs_handle_fs_error()`).
    (&["BTRFS", "Transaction aborted (error -117)"], NoteKind::Corruption),
    (&["BTRFS", "Transaction aborted (error "], NoteKind::Abort),
    (&["BTRFS info (device ", "forced readonly"], NoteKind::Abort),
    (&["BTRFS: error (device "], NoteKind::Error),
    (&["BTRFS error (device "], NoteKind::Error),
    (&["BTRFS critical (device "], NoteKind::Error),
    // fs/xfs/xfs_error.c. `xfs_trans_cancel()` calls every error in a transaction internal.
    (&["XFS (", "): Metadata corruption detected at "], NoteKind::Corruption),
    (&["XFS (", "): Metadata CRC error detected at "], NoteKind::Error),
    (&["XFS (", "): Internal error xfs_trans_cancel at line "], NoteKind::Error),
    (&["XFS (", "): Internal error "], NoteKind::Corruption),
    // fs/xfs/xfs_fsops.c (`xfs_do_force_shutdown()`): its "corruption of in-memory data" is the
    // transaction that could not be finished, whatever the error.
    (&["XFS (", "Shutting down filesystem."], NoteKind::Shutdown),
    // fs/ext4/super.c. The checksum of a bitmap stands in another block, which a failed write leaves
    // ahead of it.
    (&["EXT4-fs error (device "], NoteKind::Error),
    (&["EXT4-fs (", "Remounting filesystem read-only"], NoteKind::Abort),
    (&["EXT4-fs (", "shut down requested"], NoteKind::Shutdown),
    // fs/jbd2/journal.c
    (&["Aborting journal on device "], NoteKind::Abort),
    (&["JBD2: I/O error when updating journal superblock"], NoteKind::Error),
];

/// Finds the notes in `log`, a console log or a part of one, in their order; of equal lines the
/// first.
#[must_use]
pub fn notes(log: &str) -> Vec<Note> {
    let mut seen = HashSet::new();
    let note = |line| Some(Note { kind: kind(line)?, text: lines::cut(line, MAX_BYTES).trim_end().to_owned() });
    let new = |note: &Note| seen.insert(note.text.clone());
    lines::clean(log).filter_map(note).filter(new).take(MAX_NOTES).collect()
}

/// Makes a report of the first line in `log` in which a file system holds its metadata for damaged
/// and no failure of an allocation, a read or a write explains that. It is for executions in which
/// nothing else failed.
#[must_use]
pub fn corruption(log: &str) -> Option<KernelReport> {
    let found: Vec<Note> = notes(log).into_iter().filter(|note| note.kind == NoteKind::Corruption).collect();
    let (name, rest) = found.first()?.text.split_once(|character| [' ', ':'].contains(&character))?;
    let words = rest.rsplit_once("): ").map_or(rest, |(_, words)| words).trim();
    // Numbers of a block and what is in it differ from run to run, their names tell nothing.
    let words: Vec<&str> = words.split([' ', ',']).filter(|word| !word.is_empty() && !is_named_number(word)).collect();
    let title = lines::cut(&title::clean(&format!("{name}: {}", words.join(" "))), title::MAX_TITLE).to_owned();
    Some(KernelReport {
        key: lines::cut(&format!("corruption: {title}"), key::MAX_KEY).to_owned(),
        title,
        kind: ReportKind::Bug,
        text: found.iter().map(|note| format!("{}\n", note.text)).collect(),
        guilty: None,
        access: None,
        stacks: Vec::new(),
        truncated: false,
    })
}

/// Says whether `word` is like `slot=7`.
fn is_named_number(word: &str) -> bool {
    let is_name = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    word.split_once('=').is_some_and(|(name, _)| !name.is_empty() && is_name(name))
}

fn kind(line: &str) -> Option<NoteKind> {
    // Few lines of a log are a file system's.
    if !line.starts_with(['A', 'B', 'E', 'J', 'X']) {
        return None;
    }
    LINES.iter().find(|(pieces, _)| rules::has_pieces(line, pieces)).map(|(_, kind)| *kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read;

    #[test]
    fn corruption_has_a_key_without_numbers_and_an_error_has_none() {
        let expected = [
            (
                "BTRFS critical (device ram0): corrupt leaf: root=1 block=304 slot=0, invalid level, have 9",
                "BTRFS: corrupt leaf: invalid level have N",
            ),
            (
                "BTRFS error (device ram0 state A): block=7 write time tree block corruption detected",
                "BTRFS: write time tree block corruption detected",
            ),
            ("BTRFS: Transaction aborted (error -117)", "BTRFS: Transaction aborted (error -117)"),
            (
                "XFS (ram0): Metadata corruption detected at xfs_agf_verify+0x1c2/0x2f0, xfs_agf block 0x1",
                "XFS: Metadata corruption detected at xfs_agf_verify xfs_agf block N",
            ),
            (
                "XFS (ram0): Internal error i != 1 at line 1953 of file fs/xfs/f.c.  Caller f+0x3a2/0x900",
                "XFS: Internal error i != N at line N of file fs/xfs/f.c. Caller f",
            ),
        ];
        for (line, title) in expected {
            let report = corruption(&format!("noise\n[    1.000000] {line}\nBTRFS error (device ram0): no\n")).unwrap();
            assert_eq!((report.title.as_str(), report.text.as_str()), (title, format!("{line}\n").as_str()));
            assert_eq!(report.key, format!("corruption: {title}"));
            assert_eq!(read(&report.text), Some(report));
        }
        for none in ["", "BTRFS: Transaction aborted (error -12)", "EXT4-fs error (device ram0): f:7: comm a: bad"] {
            assert_eq!(corruption(none), None, "{none}");
        }
    }

    #[test]
    fn a_line_of_a_file_system_has_its_kind() {
        use NoteKind::{Abort, Corruption, Error, Shutdown};
        let expected = [
            ("BTRFS error (device ram0): failed to read chunk root", Some(Error)),
            ("BTRFS: Transaction aborted (error -12)", Some(Abort)),
            ("BTRFS error (device ram0 state A): Transaction aborted (error -12)", Some(Abort)),
            ("BTRFS: Transaction aborted (error -117)", Some(Corruption)),
            ("BTRFS: error (device ram0 state A) in f:7: errno=-12 Out of memory", Some(Error)),
            ("BTRFS info (device ram0 state EA): forced readonly", Some(Abort)),
            ("BTRFS info (device ram0): using crc32c", None),
            (
                "BTRFS critical (device ram0): corrupt leaf: root=1 block=30474240 slot=0, invalid level",
                Some(Corruption),
            ),
            ("BTRFS error (device ram0): block=7 write time tree block corruption detected", Some(Corruption)),
            ("BTRFS error (device ram0): parent transid verify failed on logical 7 mirror 1 wanted 9", Some(Error)),
            (
                "XFS (ram0): Metadata corruption detected at xfs_agf_verify+0x1c2/0x2f0, xfs_agf block 0x1",
                Some(Corruption),
            ),
            (
                "XFS (ram0): Internal error i != 1 at line 1953 of file fs/xfs/f.c.  Caller f+0x3a2/0x900",
                Some(Corruption),
            ),
            (
                "XFS (ram0): Internal error xfs_trans_cancel at line 1102 of file fs/xfs/xfs_trans.c.  Caller f",
                Some(Error),
            ),
            (
                "XFS (ram0): Corruption of in-memory data (0x8) detected at f+0x1/0x2 (fs/xfs/f.c:7).  \
                 Shutting down filesystem.",
                Some(Shutdown),
            ),
            ("XFS (ram0): Unmount and run xfs_repair", None),
            ("EXT4-fs error (device ram0) in ext4_do_update_inode:7: Out of memory", Some(Error)),
            ("EXT4-fs (ram0): Remounting filesystem read-only", Some(Abort)),
            ("EXT4-fs (ram0): no journal found", None),
            ("Aborting journal on device ram0-8.", Some(Abort)),
        ];
        for (line, kind) in expected {
            let found = notes(&format!("[    1.000000][    T1] {line}\n{line}\n"));
            assert_eq!(found.iter().map(|note| note.kind).collect::<Vec<_>>(), Vec::from_iter(kind), "{line}");
            assert!(found.iter().all(|note| note.text == line), "{found:?}");
        }
    }
}
