//! The subsystem of a file or function, as subjects of mails name it.

use crate::Crash;

/// Folders whose files' subsystem is not the folder's own name.
const FOLDERS: &[(&str, &str)] = &[
    ("drivers/block/", "block"),
    ("drivers/md/", "dm"),
    ("fs/xfs/", "xfs"),
    ("mm/kasan/", "kasan"),
    ("include/linux/", ""),
    ("include/", ""),
    ("lib/", "lib"),
    ("mm/", "mm"),
    ("block/", "block"),
    ("kernel/", "kernel"),
];

/// Starts of functions' names that say whose they are.
const FUNCTIONS: &[(&str, &str)] = &[
    ("btrfs", "btrfs"),
    ("_btrfs", "btrfs"),
    ("__btrfs", "btrfs"),
    ("ext4", "ext4"),
    ("__ext4", "ext4"),
    ("jbd2", "jbd2"),
    ("xfs", "xfs"),
    ("xlog", "xfs"),
    ("open_ctree", "btrfs"),
    ("close_ctree", "btrfs"),
];

/// Names the subsystem of the file that is guilty, or else of the first function that tells one;
/// nothing where none does.
#[must_use]
pub fn subsystem(file: Option<&str>, functions: &[String]) -> Option<String> {
    file.and_then(of_file).or_else(|| functions.iter().find_map(|function| of_function(function).map(str::to_owned)))
}

/// Gives the file whose maintainers a crash is for. Where code that all file systems share is
/// blamed, it is that of the caller whose failure was the last one.
#[must_use]
pub fn file(crash: &Crash) -> Option<&str> {
    let blamed = crash.guilty.as_ref().and_then(|guilty| guilty.file.as_deref());
    let is_shared = |file: &str| file.starts_with("fs/") && !is_of_one(file);
    if !blamed.is_some_and(is_shared) {
        return blamed;
    }
    let telling = crash.faults.last().and_then(|fault| {
        let caller = fault.call_path.iter().find(|caller| Some(caller.name()) == fault.caller.as_deref())?;
        // The innermost inlined function comes first.
        caller.lines.last()?.split(':').next()
    });
    telling.filter(|file| is_of_one(file)).or(blamed)
}

/// Says whether a file belongs to one file system.
pub(crate) fn is_of_one(file: &str) -> bool {
    file.strip_prefix("fs/").is_some_and(|rest| rest.contains('/'))
}

fn of_file(file: &str) -> Option<String> {
    if let Some((_, name)) = FOLDERS.iter().find(|(folder, _)| file.starts_with(folder)) {
        return (!name.is_empty()).then(|| (*name).to_owned());
    }
    let mut parts = file.split('/');
    match (parts.next()?, parts.next()?, parts.next()) {
        ("fs", folder, Some(_)) => Some(folder.to_owned()),
        ("fs", _, None) => Some("fs".to_owned()),
        ("drivers", folder, Some(_)) => Some(folder.to_owned()),
        (folder, ..) => Some(folder.to_owned()),
    }
}

/// Names the subsystem that a function's name tells.
pub(crate) fn of_function(function: &str) -> Option<&'static str> {
    FUNCTIONS.iter().find(|(start, _)| function.starts_with(start)).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_or_a_function_names_its_subsystem() {
        let of = |file: Option<&str>, functions: &[&str]| {
            subsystem(file, &functions.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(of(Some("fs/btrfs/inode.c"), &[]).as_deref(), Some("btrfs"));
        assert_eq!(of(Some("fs/super.c"), &[]).as_deref(), Some("fs"));
        assert_eq!(of(Some("drivers/block/loop.c"), &[]).as_deref(), Some("block"));
        assert_eq!(of(Some("include/linux/list.h"), &["string", "xfs_buf_read"]).as_deref(), Some("xfs"));
        assert_eq!(of(None, &["string", "_btrfs_printk"]).as_deref(), Some("btrfs"));
        assert_eq!(of(None, &["string"]), None);
        assert!(is_of_one("fs/btrfs/inode.c") && !is_of_one("fs/super.c") && !is_of_one("mm/slub.c"));
    }
}
