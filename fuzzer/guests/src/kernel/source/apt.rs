//! Debian's package archive, asked through apt without installing anything: no step needs root.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use super::super::{
    KernelError,
    make::{Log, failed},
    tools::installed,
};
use execution::Stop;

/// A way to ask for packages.
pub(super) struct Apt<'a> {
    /// Options of every call.
    pub(super) options: Vec<OsString>,
    pub(super) log: &'a mut Log,
    pub(super) stop: &'a Stop,
}

impl Apt<'_> {
    /// Says whether this machine has the commands.
    pub(super) fn is_installed() -> bool {
        ["apt-get", "apt-cache", "dpkg-deb"].into_iter().all(installed)
    }

    /// The versions of `package` in the archive, newest first, as the package lists say.
    pub(super) fn versions(&mut self, package: &str) -> Result<Vec<String>, KernelError> {
        let mut versions = Vec::new();
        let mut command = self.command("apt-cache");
        command.args(["madison", package]);
        self.log.run("reading the package lists", command, self.stop, |line| {
            versions.extend(line.and_then(|line| version(line, package)).map(str::to_owned));
        })?;
        Ok(versions)
    }

    /// Fetches package lists of its own into `folder`: the machine's may be old, and only root may
    /// renew them. When that fails, the lists that are there are used nevertheless.
    pub(super) fn update(&mut self, folder: &Path) -> Result<(), KernelError> {
        let partial = folder.join("partial");
        fs::create_dir_all(&partial).map_err(|source| failed("create", &partial, source))?;
        let lists = format!("Dir::State::lists={}", folder.display());
        // Nothing of the machine's is written, and its user for downloads need not reach the cache.
        let own = [
            &lists,
            "Dir::Cache::pkgcache=",
            "Dir::Cache::srcpkgcache=",
            "APT::Sandbox::User=root",
            "Acquire::Languages=none",
            // Without it apt succeeds with lists missing that it could not reach, and a version in
            // those looks as if it were gone.
            "APT::Update::Error-Mode=any",
        ];
        self.options.extend(own.iter().flat_map(|option| ["-o".into(), option.into()]));
        let mut command = self.command("apt-get");
        command.args(["--quiet", "update"]);
        self.log.run("fetching package lists", command, self.stop, |_| {})
    }

    /// Downloads a version of `package` and unpacks it in the new folder `folder`. apt checks what
    /// it downloads against the archive's signed lists.
    pub(super) fn unpack(&mut self, package: &str, version: &str, folder: &Path) -> Result<(), KernelError> {
        let download = folder.with_extension("download");
        fs::create_dir(&download).map_err(|source| failed("create", &download, source))?;
        let mut command = self.command("apt-get");
        command.args(["--quiet", "-o", "APT::Sandbox::User=root", "download"]);
        command.arg(format!("{package}={version}")).current_dir(&download);
        let downloaded = self.log.run("downloading the source", command, self.stop, |_| {}).and_then(|()| {
            let file = only_file(&download).map_err(|source| failed("find the package in", &download, source))?;
            let mut command = Command::new("dpkg-deb");
            command.arg("--extract").arg(file).arg(folder);
            self.log.run("unpacking the source's package", command, self.stop, |_| {})
        });
        // The first error is the one to tell; the folder goes with the whole fetch.
        let _ = fs::remove_dir_all(&download);
        downloaded
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(name);
        command.args(&self.options).env("LC_ALL", "C");
        command
    }
}

/// The version in a line `PACKAGE | VERSION | ARCHIVE Packages`.
fn version<'a>(line: &'a str, package: &str) -> Option<&'a str> {
    let mut fields = line.split('|').map(str::trim);
    let found = (fields.next()?, fields.next()?, fields.next()?);
    (found.0 == package && found.2.ends_with("Packages")).then_some(found.1)
}

fn only_file(folder: &Path) -> io::Result<PathBuf> {
    let entry = fs::read_dir(folder)?.next().ok_or(io::ErrorKind::NotFound)??;
    Ok(entry.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_those_of_binary_packages() {
        let of = |line| version(line, "linux-source-6.12");
        let line = " linux-source-6.12 | 6.12.117-1~deb12u1 | http://deb.debian.org/debian-security bookworm-security/main amd64 Packages";
        assert_eq!(of(line), Some("6.12.117-1~deb12u1"));
        assert_eq!(of("linux-source-6.12 | 6.12.1-1 | http://deb.debian.org/debian sid/main Sources"), None);
        assert_eq!(of("linux-source | 6.12.1-1 | http://deb.debian.org/debian sid/main amd64 Packages"), None);
        assert_eq!(of("W: Unable to read /etc/apt/x | y"), None);
    }
}
