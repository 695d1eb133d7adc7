//! Content of images: programs that make it, and files that have it.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::{FileExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use sha2::{Digest, Sha256};

use super::{ImageError, at};
use crate::process;

/// Number of attempts to run a script that was just written.
const TRIES: u32 = 50;
const PIECE_BYTES: usize = 1 << 20;

/// Programs that decompress to standard output, by the ending of a file's name.
const DECOMPRESSORS: &[(&str, &str)] = &[(".zst", "zstd"), (".xz", "xz")];

/// A folder in which a program runs, so that what it leaves beside the image goes.
struct WorkFolder(PathBuf);

impl WorkFolder {
    /// Makes it beside the new file `path`, and with the ending of files that are removed later.
    fn beside(path: &Path) -> Result<Self, ImageError> {
        let mut name = path.with_extension("work").into_os_string();
        name.push(".tmp");
        let folder = PathBuf::from(name);
        // One of a process that had the same number.
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).map_err(at(&folder))?;
        Ok(Self(folder))
    }
}

impl Drop for WorkFolder {
    fn drop(&mut self) {
        // What stays costs only disk space.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs the words `command` with `image` behind them. Returns what it printed.
pub(super) fn run(command: &[String], image: Option<&Path>) -> Result<Vec<u8>, ImageError> {
    let work = image.map(WorkFolder::beside).transpose()?;
    let folder = work.as_ref().map_or_else(|| Path::new("/"), |work| work.0.as_path());
    let arguments: Vec<&OsStr> = command[1..].iter().map(OsStr::new).chain(image.map(Path::as_os_str)).collect();
    output(OsStr::new(&command[0]), &command.join(" "), &arguments, folder)
}

/// The version of `command`, as it says it.
pub(super) fn version(command: &str) -> Result<Vec<u8>, ImageError> {
    run(&[command.to_owned(), "-V".to_owned()], None)
}

/// Runs the script of this text with `image` as its argument. Nothing but its text is there: it is
/// copied to a folder of its own, in which it runs.
pub(super) fn script(name: &str, text: &str, image: &Path) -> Result<(), ImageError> {
    let work = WorkFolder::beside(image)?;
    let copy = work.0.join(".script");
    fs::write(&copy, text).map_err(at(&copy))?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o700)).map_err(at(&copy))?;
    let mut tries = 1;
    loop {
        let ran = output(copy.as_os_str(), &format!("the script {name}"), &[image.as_os_str()], &work.0);
        match ran {
            // A process that another thread just began has the file open for writing until it is
            // another program.
            Err(ImageError::Missing { source, .. })
                if source.kind() == io::ErrorKind::ExecutableFileBusy && tries < TRIES =>
            {
                thread::sleep(Duration::from_millis(10));
                tries += 1;
            }
            ran => return ran.map(drop),
        }
    }
}

/// The commands `mkfs.NAME` that `text` names, each once.
pub(super) fn mkfs_commands(text: &str) -> Vec<&str> {
    let plain = |character: char| character.is_ascii_alphanumeric() || "._-".contains(character);
    let mut commands: Vec<_> = text.split(|character| !plain(character)).collect();
    commands.retain(|word| word.starts_with("mkfs.") && word.len() > "mkfs.".len());
    commands.sort_unstable();
    commands.dedup();
    commands
}

/// The program that decompresses the file `name`, if it is compressed.
pub(super) fn decompressor(name: &str) -> Option<&'static str> {
    DECOMPRESSORS.iter().find(|(ending, _)| name.ends_with(ending)).map(|(_, tool)| *tool)
}

/// Copies the file `from`, decompressed, to `to`, and leaves out zeros. Returns the SHA-256 of
/// `from` as it is, in hexadecimal.
pub(super) fn copy(name: &str, from: &Path, to: &File, most_bytes: u64) -> Result<String, ImageError> {
    let mut hash = Sha256::new();
    let mut file = File::open(from).map_err(at(from))?;
    io::copy(&mut file, &mut hash).map_err(at(from))?;
    let sum = hex::encode(hash.finalize());
    let mut command = Command::new(decompressor(name).unwrap_or("cat"));
    if decompressor(name).is_some() {
        command.arg("-dc");
    }
    let file = File::open(from).map_err(at(from))?;
    command.stdin(file).stdout(Stdio::piped()).stderr(Stdio::piped());
    let tool = decompressor(name).unwrap_or("cat");
    let missing = |source| ImageError::Missing { command: tool.to_owned(), package: package(tool), source };
    let mut child = process::start(command, Vec::new()).map_err(missing)?;
    let copied = match &mut child.stdout {
        Some(output) => copy_data(output, to, most_bytes).map_err(at(from))?,
        None => true,
    };
    if !copied {
        // It would wait for a reader for ever.
        let _ = child.kill();
        let _ = child.wait();
        return Err(ImageError::TooLarge {
            what: name.to_owned(),
            size_mib: u32::try_from(most_bytes >> 20).unwrap_or(0),
        });
    }
    finished(child, &format!("{tool} -dc {}", from.display()))?;
    Ok(sum)
}

/// Copies what is not zero. False when there is more than `most_bytes`.
fn copy_data(from: &mut impl Read, to: &File, most_bytes: u64) -> io::Result<bool> {
    let mut piece = vec![0; PIECE_BYTES];
    let mut offset = 0;
    loop {
        let length = match from.read(&mut piece) {
            Ok(0) => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        if offset + length as u64 > most_bytes {
            return Ok(false);
        }
        for part in piece[..length].chunks(4096) {
            if part.iter().any(|byte| *byte != 0) {
                to.write_all_at(part, offset)?;
            }
            offset += part.len() as u64;
        }
    }
}

/// Runs `program`, which people know as `shown`, in `folder`. Returns what it printed.
fn output(program: &OsStr, shown: &str, arguments: &[&OsStr], folder: &Path) -> Result<Vec<u8>, ImageError> {
    let mut command = Command::new(program);
    // A user's PATH on Debian lacks the folder that mkfs is in.
    let search = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{search}:/usr/sbin:/sbin")).args(arguments).current_dir(folder);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let name = shown.split(' ').next().unwrap_or(shown);
    let name = if shown.starts_with("the script ") { shown } else { name };
    let missing = |source| ImageError::Missing { command: name.to_owned(), package: package(name), source };
    finished(process::start(command, Vec::new()).map_err(missing)?, shown)
}

/// Waits for the process called `shown`. Returns what it printed.
fn finished(child: Child, shown: &str) -> Result<Vec<u8>, ImageError> {
    let output = child.wait_with_output().map_err(at(Path::new(shown)))?;
    if output.status.success() {
        return Ok([output.stdout, output.stderr].concat());
    }
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    let said = match said(&output.stderr) {
        nothing if nothing.is_empty() => said(&output.stdout),
        errors => errors,
    };
    Err(ImageError::Failed { command: shown.to_owned(), status: output.status.to_string(), output: said })
}

/// The Debian package that has `command`.
fn package(command: &str) -> &'static str {
    match command {
        "mkfs.btrfs" => "btrfs-progs",
        "mkfs.xfs" => "xfsprogs",
        "zstd" => "zstd",
        "xz" => "xz-utils",
        _ if command.starts_with("mkfs.ext") => "e2fsprogs",
        _ => "perhaps btrfs-progs, e2fsprogs or xfsprogs",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tools_of_a_script_are_found() {
        let text = "#!/bin/sh\nmkfs.xfs -q \"$1\" && /sbin/mkfs.ext4;mkfs.xfs mkfs. xmkfs.a";
        assert_eq!(mkfs_commands(text), ["mkfs.ext4", "mkfs.xfs"]);
        assert_eq!(
            [decompressor("a.zst"), decompressor("a.xz"), decompressor("a.img")],
            [Some("zstd"), Some("xz"), None]
        );
    }
}
