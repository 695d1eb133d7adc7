//! The commands that a build runs.

use std::{env, process::Command};

use super::KernelError;

/// Commands that a build runs, and the Debian package that has each.
const COMMANDS: [(&str, &str); 13] = [
    ("bc", "bc"),
    ("bison", "bison"),
    ("flex", "flex"),
    ("gcc", "gcc"),
    ("ld", "binutils"),
    ("make", "make"),
    ("objcopy", "binutils"),
    ("pahole", "pahole"),
    ("patch", "patch"),
    ("perl", "perl"),
    ("strip", "binutils"),
    ("tar", "tar"),
    ("xz", "xz-utils"),
];

/// Says whether the command is in the `PATH`.
pub(super) fn installed(command: &str) -> bool {
    env::split_paths(&env::var_os("PATH").unwrap_or_default()).any(|folder| folder.join(command).is_file())
}

/// Says what is missing on this machine, and the packages that have it.
pub(super) fn check_commands() -> Result<(), KernelError> {
    let mut lacking: Vec<_> = COMMANDS.into_iter().filter(|(command, _)| !installed(command)).collect();
    // objtool, which the kernel's build builds first, reads ELF files with it.
    if installed("gcc") {
        let found = Command::new("gcc").args(["-fsyntax-only", "-include", "gelf.h", "-xc", "/dev/null"]).output();
        if !found.is_ok_and(|output| output.status.success()) {
            lacking.push(("gelf.h", "libelf-dev"));
        }
    }
    if lacking.is_empty() {
        return Ok(());
    }
    let (missing, packages): (Vec<_>, Vec<_>) = lacking.into_iter().unzip();
    Err(KernelError::Commands { missing: missing.join(", "), packages: packages.join(" ") })
}

/// First line of `gcc --version`.
pub(super) fn compiler() -> Result<String, KernelError> {
    version("gcc", "gcc")
}

/// First line of `ld --version`.
pub(super) fn linker() -> Result<String, KernelError> {
    version("ld", "binutils")
}

/// First line of `pahole --version`: pahole writes the kernel's types into it.
pub(super) fn type_writer() -> Result<String, KernelError> {
    version("pahole", "pahole")
}

/// First line of `COMMAND --version`; `package` has the command.
fn version(command: &str, package: &str) -> Result<String, KernelError> {
    let missing = |_| KernelError::Commands { missing: command.to_owned(), packages: package.to_owned() };
    let output = Command::new(command).arg("--version").output().map_err(missing)?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned())
}
