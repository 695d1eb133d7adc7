//! Programs in crashes' folders that make the crash without the fuzzer.

use std::{
    fs::{self, File},
    path::Path,
};

use files::cache::try_lock;

use super::folder::{CrashRepro, META, PROGRAM, SCRIPT, SLOTS, STEPS, read_meta};
use crate::folder::{FolderError, LOCK, failed, write, write_json};

/// Locks the campaign that has the crash's folder `crash`, so that nobody changes it while the lock
/// is there. Nothing for a folder that is in no campaign.
///
/// # Errors
///
/// A campaign is at work in it, or the folder is gone.
pub fn lock_around(crash: &Path) -> Result<Option<File>, FolderError> {
    // A relative path need not have the campaign in it, and that of this folder may be empty.
    let crash = Path::new(".").join(crash);
    let crash = crash.canonicalize().map_err(failed("find", &crash))?;
    let Some(path) = crash.ancestors().nth(2).filter(|path| path.join(LOCK).is_file()) else { return Ok(None) };
    let lock = try_lock(&path.join(LOCK)).map_err(failed("lock", path))?;
    lock.ok_or_else(|| FolderError::Busy { path: path.to_owned() }).map(Some)
}

/// Puts reproducers, by their names, into the folder of a crash, removes those that are there of an
/// earlier time, and says in `meta.json` what came of it.
///
/// # Errors
///
/// `meta.json` is damaged, or the file system says no.
pub fn write_programs(crash: &Path, files: &[(&str, String)], repro: CrashRepro) -> Result<(), FolderError> {
    let meta_path = crash.join(META);
    let mut meta = read_meta(&meta_path)?;
    let old = [PROGRAM, SLOTS, SCRIPT, STEPS].into_iter().filter(|name| files.iter().all(|(file, _)| file != name));
    // The one that is killed in between leaves no program that is said to work and is not there.
    meta.repro = Some(CrashRepro::default());
    write_json(&meta_path, &meta)?;
    for (name, text) in files {
        write(&crash.join(name), text)?;
    }
    meta.repro = Some(repro);
    write_json(&meta_path, &meta)?;
    for path in old.map(|name| crash.join(name)).filter(|path| path.exists()) {
        fs::remove_file(&path).map_err(failed("remove", &path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_of_a_program_is_said_and_an_old_program_goes() {
        let campaign = tempfile::tempdir().unwrap();
        let crash = campaign.path().join("crashes/KEY");
        fs::create_dir_all(&crash).unwrap();
        let meta = r#"{ "version": 1, "title": "t", "kind": "kasan", "fired": [], "stack": [], "tried": 3,
            "reproduced": 3 }"#;
        fs::write(crash.join(META), meta).unwrap();
        let file = |name| fs::read_to_string(crash.join(name)).ok();
        let said = || read_meta(&crash.join(META)).unwrap().repro.unwrap();
        let c = |outcome: &str| CrashRepro { c: Some(outcome.to_owned()), bt: None };
        write_programs(&crash, &[(PROGRAM, "int main".to_owned())], c("2 of 3")).unwrap();
        assert_eq!((file(PROGRAM).as_deref(), said()), (Some("int main"), c("2 of 3")));
        let both = CrashRepro { bt: Some("3 of 3".to_owned()), ..c("it cannot be said") };
        let files = [SCRIPT, STEPS].map(|name| (name, name.to_owned()));
        write_programs(&crash, &files, both.clone()).unwrap();
        assert_eq!((file(PROGRAM), file(SCRIPT).as_deref(), said()), (None, Some(SCRIPT), both));
        write_programs(&crash, &[], c("it cannot be said")).unwrap();
        assert_eq!((file(SCRIPT), file(STEPS), said()), (None, None, c("it cannot be said")));
        fs::create_dir(crash.join(PROGRAM)).unwrap();
        write_programs(&crash, &[], c("it did not come")).unwrap_err();
        assert_eq!(said(), c("it did not come"), "a program that stays is not said to be verified");
    }

    #[test]
    fn a_campaign_at_work_is_left_alone() {
        let campaign = tempfile::tempdir().unwrap();
        let crash = campaign.path().join("crashes/KEY");
        fs::create_dir_all(&crash).unwrap();
        assert!(lock_around(&crash).unwrap().is_none(), "it is no campaign's");
        fs::write(campaign.path().join(LOCK), "").unwrap();
        let lock = lock_around(&crash).unwrap();
        assert!(lock.is_some());
        let relative = crash.join("../KEY");
        for path in [&crash, &relative] {
            assert!(matches!(lock_around(path), Err(FolderError::Busy { .. })), "{}", path.display());
        }
        assert!(lock_around(Path::new("")).unwrap().is_none(), "this folder is in no campaign");
    }
}
