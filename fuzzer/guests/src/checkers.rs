//! Checkers of file systems, taken from this machine with all that they need, for guests to run.

use std::collections::BTreeMap;

use execution::Target;

use crate::packed::packed;

/// Gives the checkers of the `target` as files, by their names in one folder. Where one is not to
/// be had, there are none, and the log says why.
pub(crate) fn checkers(target: &Target) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for checker in target.checkers() {
        match packed(checker.command, checker.package) {
            Ok(more) => files.extend(more),
            Err(reason) => tracing::warn!("disks are not checked by {}: {reason}", checker.words()),
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use guest_protocol::{CHECKER_LINKER, Checker};

    use super::*;

    #[test]
    fn a_checker_is_packed_with_all_that_it_needs() {
        let Checker { command, package, .. } = *Checker::of("ext4").unwrap();
        let files = packed(command, package).unwrap();
        for name in ["e2fsck", CHECKER_LINKER, "libc.so.6", "libext2fs.so.2"] {
            assert!(files.get(name).is_some_and(|content| content.starts_with(b"\x7fELF")), "{name}");
        }
    }
}
