//! Keeping parts of a kernel out of the coverage, each by its path in the tree.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use super::{super::make::failed, Source};
use crate::kernel::KernelError;

/// Says whether `path` has the form of an object (`lib/bitmap.o`) or of a folder (`fs/kernfs/`)
/// within a tree.
pub(super) fn is_path(path: &str) -> bool {
    let (parts, is_folder) = match path.strip_suffix('/') {
        Some(folder) => (folder, true),
        None => (path, false),
    };
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    };
    parts.split('/').all(plain) && (is_folder || path.ends_with(".o"))
}

/// Has the objects and folders that `source` names compiled without KCOV: a line more in the
/// Makefile that compiles them. A variable on make's command line would hold for each object of
/// that name, in whatever folder. `version` is the package's version that `tree` is from.
///
/// # Errors
///
/// The tree has no such object or folder: names it. Or a Makefile cannot be written.
pub(in crate::kernel) fn leave_out(source: &Source, version: &str, tree: &Path) -> Result<(), KernelError> {
    for path in &source.uninstrumented {
        let (makefile, line) = line_for(tree, path).ok_or_else(|| KernelError::Entry {
            entry: format!("source {}", source.name),
            reason: format!("uninstrumented \"{path}\" is not in {} {version}", source.package),
        })?;
        append(&makefile, &line).map_err(|source| failed("write", &makefile, source))?;
    }
    Ok(())
}

/// The Makefile that compiles `path`, and what it must say. Mirrors `_c_flags` and `target-stem` in
/// `scripts/Makefile.lib` and `kbuild-file` in `scripts/Kbuild.include` (Linux 6.12).
fn line_for(tree: &Path, path: &str) -> Option<(PathBuf, String)> {
    if let Some(folder) = path.strip_suffix('/') {
        return Some((kbuild_file(&tree.join(folder))?, "KCOV_INSTRUMENT := n".to_owned()));
    }
    let object = tree.join(path);
    ["c", "S"].into_iter().find(|suffix| object.with_extension(suffix).is_file())?;
    // A folder without a Makefile is compiled by the one above, which calls the object by its path
    // from there.
    let above = object.ancestors().skip(1).take_while(|folder| folder.starts_with(tree));
    let makefile = above.filter_map(kbuild_file).next()?;
    let name = object.strip_prefix(makefile.parent()?).ok()?.to_str()?.to_owned();
    Some((makefile, format!("KCOV_INSTRUMENT_{name} := n")))
}

fn kbuild_file(folder: &Path) -> Option<PathBuf> {
    ["Kbuild", "Makefile"].into_iter().map(|name| folder.join(name)).find(|file| file.is_file())
}

fn append(makefile: &Path, line: &str) -> io::Result<()> {
    // The archive may have made it read-only.
    let mut permissions = fs::metadata(makefile)?.permissions();
    if permissions.readonly() {
        use std::os::unix::fs::PermissionsExt;
        permissions.set_mode(permissions.mode() | 0o200);
        fs::set_permissions(makefile, permissions)?;
    }
    writeln!(File::options().append(true).open(makefile)?, "\n{line}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(paths: &[&str]) -> Source {
        Source {
            name: "small".into(),
            package: "linux-source-6.12".into(),
            version: "6.12.1-1".into(),
            archive: PathBuf::new(),
            sha256: String::new(),
            patches: Vec::new(),
            uninstrumented: paths.iter().map(ToString::to_string).collect(),
        }
    }

    fn tree() -> tempfile::TempDir {
        let tree = tempfile::tempdir().unwrap();
        for path in ["Makefile", "lib/Makefile", "lib/bitmap.c", "fs/ext4/Makefile", "fs/ext4/bitmap.c"] {
            write(tree.path(), path);
        }
        for path in ["fs/xfs/Makefile", "fs/xfs/libxfs/xfs_ag.c", "lib/crc32.S", "arch/x86/Kbuild", "arch/x86/Makefile"]
        {
            write(tree.path(), path);
        }
        tree
    }

    fn write(tree: &Path, path: &str) {
        let path = tree.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        // Without the end of a line, as some Makefiles are.
        fs::write(path, "obj-y := a.o").unwrap();
    }

    #[test]
    fn only_the_makefile_of_that_folder_says_so() {
        let tree = tree();
        let read = |path: &str| fs::read_to_string(tree.path().join(path)).unwrap();
        let paths = ["lib/bitmap.o", "lib/crc32.o", "fs/xfs/libxfs/xfs_ag.o", "arch/x86/"];
        leave_out(&source(&paths), "6.12.1-1", tree.path()).unwrap();
        let lib = "obj-y := a.o\nKCOV_INSTRUMENT_bitmap.o := n\n\nKCOV_INSTRUMENT_crc32.o := n\n";
        assert_eq!(read("lib/Makefile"), lib);
        assert_eq!(read("fs/xfs/Makefile"), "obj-y := a.o\nKCOV_INSTRUMENT_libxfs/xfs_ag.o := n\n");
        assert_eq!(read("arch/x86/Kbuild"), "obj-y := a.o\nKCOV_INSTRUMENT := n\n");
        for other in ["Makefile", "fs/ext4/Makefile", "arch/x86/Makefile"] {
            assert_eq!(read(other), "obj-y := a.o");
        }
    }

    #[test]
    fn a_path_that_is_not_in_the_tree_is_named() {
        for path in ["lib/gone.o", "lib/", "fs/gone/", "fs/xfs/libxfs/"] {
            let tree = tree();
            fs::remove_file(tree.path().join("lib/Makefile")).unwrap();
            let error = leave_out(&source(&[path]), "6.12.2-1", tree.path()).unwrap_err().to_string();
            let expected = format!("source small: uninstrumented \"{path}\" is not in linux-source-6.12 6.12.2-1");
            assert_eq!(error, expected);
        }
    }

    #[test]
    fn a_path_stays_within_the_tree() {
        for path in ["lib/bitmap.o", "fs/kernfs/", "arch/x86/kernel/process_64.o", "lib/radix-tree.o"] {
            assert!(is_path(path), "{path}");
        }
        for path in
            ["", "/", "lib", "lib/bitmap.c", "/lib/bitmap.o", "../a.o", "lib/../a.o", "lib//a.o", "a b.o", "a$.o"]
        {
            assert!(!is_path(path), "{path}");
        }
    }
}
