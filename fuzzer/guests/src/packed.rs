//! Programs of this machine with all that they need, for guests to run.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use guest_protocol::CHECKER_LINKER;

use crate::process;

/// A library that libc loads by its name when a thread ends, where it is there.
const LOADED: &str = "libgcc_s.so.1";

/// Gives the program `command` of the Debian package `package` and its libraries, by their names in
/// one folder. The dynamic linker, [`CHECKER_LINKER`], runs it there.
///
/// # Errors
///
/// It is not here, or cannot be read: the reason, and what to do.
pub(crate) fn packed(command: &str, package: &str) -> Result<BTreeMap<String, Vec<u8>>, String> {
    let program = found(command).ok_or_else(|| format!("install the package {package}"))?;
    let mut ldd = Command::new("ldd");
    ldd.arg(&program).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let ldd = process::start(ldd, Vec::new()).and_then(std::process::Child::wait_with_output);
    let ldd = ldd.map_err(|error| format!("cannot run ldd: {error}"))?;
    let mut files = libraries(&String::from_utf8_lossy(&ldd.stdout));
    if !files.contains_key(CHECKER_LINKER) {
        return Err(format!("ldd names no dynamic linker of {}", program.display()));
    }
    let beside = files.get("libc.so.6").and_then(|libc| libc.parent()).map(|folder| folder.join(LOADED));
    files.extend(beside.filter(|path| path.is_file()).map(|path| (LOADED.to_owned(), path)));
    files.insert(command.to_owned(), program);
    let read = |(name, path): (String, PathBuf)| match fs::read(&path) {
        Ok(content) => Ok((name, content)),
        Err(error) => Err(format!("cannot read {}: {error}", path.display())),
    };
    files.into_iter().map(read).collect()
}

/// Finds a command. A user's PATH on Debian lacks the folders that checkers are in.
fn found(command: &str) -> Option<PathBuf> {
    let search = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&search).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    folders.map(|folder| folder.join(command)).find(|path| path.is_file())
}

/// Reads the libraries in what `ldd` says, by the names that they are loaded by. The dynamic linker
/// has no arrow.
fn libraries(text: &str) -> BTreeMap<String, PathBuf> {
    let library = |line: &str| {
        let (name, path) = line.split_once(" => ").unwrap_or((CHECKER_LINKER, line));
        let path = Path::new(path.trim().split(" (").next()?);
        path.is_absolute().then(|| (name.trim().to_owned(), path.to_owned()))
    };
    text.lines().filter_map(library).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_linker_are_read() {
        let text = "\tlinux-vdso.so.1 (0x00007f1f)\n\tlibz.so.1 => /lib/x/libz.so.1 (0x00007f1f)\n\
                    \tlibodd.so => not found\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f1f)\n";
        let found: Vec<_> =
            libraries(text).into_iter().map(|(name, path)| (name, path.display().to_string())).collect();
        let pair = |name: &str, path: &str| (name.to_owned(), path.to_owned());
        assert_eq!(found, [pair("ld.so", "/lib64/ld-linux-x86-64.so.2"), pair("libz.so.1", "/lib/x/libz.so.1")]);
        assert!(libraries("\tnot a dynamic executable\n").is_empty());
    }
}
