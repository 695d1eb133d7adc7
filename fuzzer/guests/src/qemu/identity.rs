//! Identities of the things outside of the project that facts about guests depend on.

use std::{fs, path::Path, process::Command};

use sha2::{Digest, Sha256};

use super::GuestError;

/// A hash of QEMU's version, the host's kernel and processor, and the guest's kernel.
pub(super) fn identity(qemu: &Path, vmlinux: &Path) -> Result<String, GuestError> {
    let version = Command::new(qemu).arg("--version").output();
    let version = version.map_err(|source| GuestError::Start { qemu: qemu.to_owned(), source })?;
    let host = nix::sys::utsname::uname().map_err(|errno| GuestError::Host { what: "name", source: errno.into() })?;
    let mut hash = Sha256::new();
    hash.update(&version.stdout);
    hash.update(host.release().as_encoded_bytes());
    hash.update(host.version().as_encoded_bytes());
    // A host that does not say what processor it has is told from others by the rest.
    hash.update(processor_model(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default()));
    hash.update(file_identity("the kernel", vmlinux)?);
    Ok(short(hash))
}

/// The first processor's model in the text of `/proc/cpuinfo` (`arch/x86/kernel/cpu/proc.c`, Linux
/// 6.12); empty when there is none.
fn processor_model(cpuinfo: &str) -> &str {
    let model = |line| Some(str::strip_prefix(line, "model name")?.split_once(':')?.1.trim());
    cpuinfo.lines().find_map(model).unwrap_or_default()
}

/// Describes a file by its path, size and time of change: the text changes when the file does.
pub(super) fn file_identity(what: &'static str, path: &Path) -> Result<String, GuestError> {
    let metadata = fs::metadata(path);
    let metadata = metadata.map_err(|source| GuestError::File { what, path: path.to_owned(), source })?;
    Ok(format!("{path:?} {} {:?}", metadata.len(), metadata.modified().ok()))
}

/// The first half of the hash, in hexadecimal.
pub(super) fn short(hash: Sha256) -> String {
    hex::encode(&hash.finalize()[..16])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_s_model_is_found() {
        let cpuinfo = "processor\t: 0\nmodel\t\t: 1\nmodel name\t: AMD EPYC 7B13\nstepping\t: 0\nmodel name\t: other\n";
        assert_eq!(processor_model(cpuinfo), "AMD EPYC 7B13");
        assert_eq!(processor_model("processor\t: 0\n"), "");
    }
}
