//! `fuzz export PATH`: writes programs that make crashes without the fuzzer.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
};

use campaign::{CrashRepro, META, PROGRAM, REPRODUCER, lock_around, write_programs};
use execution::{Stop, Target, chain};
use fault_plan::Reproducer;
use guests::{
    prepare::{Wanted, WantedTarget, prepare},
    project::Project,
};
use serde::Serialize;

use super::replay::target;
use crate::{
    exit::{Answer, CommandError, INPUT, write_result},
    options::{ExportOptions, InputOptions},
    reproducers::{Crash, Made, Outcome, make},
    views::progress::Progress,
};

/// Result for a crash.
#[derive(Serialize)]
struct Line<'a> {
    key: &'a str,
    /// The file that says how to run it, `repro.c` or `repro.bt`; none when there is neither.
    program: Option<PathBuf>,
    /// In how many guests it made the crash, such as `3 of 3`, or why there is none.
    outcome: String,
}

/// Makes a program for each crash that is asked for. The answer is no when one has none.
///
/// # Errors
///
/// A file is refused, or the environment; see [`CommandError`].
pub fn export(
    options: &ExportOptions,
    stop: &Stop,
    out: &mut dyn Write,
    progress: &Progress,
) -> Result<Answer, CommandError> {
    let files = files(&options.path)?;
    if options.out.is_some() && files.len() != 1 {
        return Err(CommandError::Input(format!("--out takes one program, and there are {} crashes", files.len())));
    }
    let (mut answer, several) = (Answer::Yes, files.len() > 1);
    for file in &files {
        let crash = file.parent().filter(|folder| folder.join(META).is_file());
        // A campaign at work puts a simpler reproducer in the place of the one that is there.
        let _lock = crash.map(lock_around).transpose()?;
        let reproducer = read(file)?;
        let key = reproducer.identity();
        let made =
            check_kernel(&reproducer, options, crash).and_then(|()| made(file, &reproducer, options, stop, progress));
        let made = match made {
            // The next crash may have a target that is at hand. What is known of this one stays.
            Err(error) if several && error.status() == INPUT => {
                write(&Line { key, program: None, outcome: chain(&error) }, options.json, out)?;
                answer = Answer::No;
                continue;
            }
            made => made?,
        };
        let files = made.files();
        let folder = crash.filter(|_| options.out.is_none());
        let place = |name: &str| match (&options.out, folder) {
            (Some(path), _) if name == PROGRAM => path.clone(),
            (Some(path), _) => path.with_file_name(name),
            (None, folder) => folder.map_or_else(|| PathBuf::from(name), |folder| folder.join(name)),
        };
        if let Some(folder) = folder {
            let bt = made.bt.as_ref().map(Outcome::to_string);
            write_programs(folder, files, CrashRepro { c: Some(made.c.to_string()), bt })?;
        } else {
            files.iter().try_for_each(|(name, text)| write_result(&place(name), text))?;
        }
        let program = files.first().map(|(name, _)| place(name));
        if program.is_none() {
            answer = Answer::No;
        }
        write(&Line { key, program, outcome: made.outcome() }, options.json, out)?;
    }
    Ok(answer)
}

/// Finds the reproducers that `path` stands for.
fn files(path: &Path) -> Result<Vec<PathBuf>, CommandError> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    if path.join(REPRODUCER).is_file() {
        return Ok(vec![path.join(REPRODUCER)]);
    }
    let entries = fs::read_dir(path.join("crashes")).into_iter().flatten().flatten();
    let hidden = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| !hidden(path)).collect();
    files = files.into_iter().map(|folder| folder.join(REPRODUCER)).filter(|file| file.is_file()).collect();
    files.sort();
    if files.is_empty() {
        return Err(CommandError::Input(format!(
            "{}: there is neither a crash nor a campaign with one",
            path.display()
        )));
    }
    Ok(files)
}

fn read(file: &Path) -> Result<Reproducer, CommandError> {
    let refuse = |reason: String| CommandError::Input(format!("{}: {reason}", file.display()));
    let text = fs::read_to_string(file).map_err(|error| refuse(format!("cannot be read: {error}")))?;
    if !Reproducer::is_one(&text) {
        return Err(refuse("it is no reproducer, and says no crash that is to come".to_owned()));
    }
    Reproducer::from_json(&text).map_err(|error| refuse(chain(&error)))
}

/// Refuses a program for another kernel in the place of the one for the crash's own.
fn check_kernel(reproducer: &Reproducer, options: &ExportOptions, crash: Option<&Path>) -> Result<(), CommandError> {
    match &options.guest.kernel {
        Some(kernel) if crash.is_some() && options.out.is_none() && *kernel != reproducer.kernel => {
            Err(CommandError::Input(format!(
                "the crash's folder has the program for its own kernel {}: give an --out for {kernel}",
                reproducer.kernel
            )))
        }
        _ => Ok(()),
    }
}

/// Makes the program for a crash on its kernel.
fn made(
    file: &Path,
    reproducer: &Reproducer,
    options: &ExportOptions,
    stop: &Stop,
    progress: &Progress,
) -> Result<Made, CommandError> {
    let input = InputOptions { file: file.to_owned(), target: None, trust: options.trust };
    let kernel = options.guest.kernel.clone().unwrap_or_else(|| reproducer.kernel.clone());
    let target = match target::chosen(&input, &reproducer.plan, reproducer.target.as_ref(), progress)? {
        WantedTarget::Named(name) => Arc::new(Target::find(&Project::find()?.corpus(), &name)?),
        WantedTarget::Given(target) => target,
    };
    // What else may fail changes nothing for this plan, and probing it takes its time.
    let target = Arc::new(target.narrowed(&reproducer.plan));
    let wanted = Wanted { kernel: Some(kernel), accel: options.guest.accel, ..Wanted::new(target) };
    let prepared = prepare(&wanted, stop, progress)?;
    let crash = Crash { plan: &reproducer.plan, key: reproducer.identity(), title: &reproducer.title };
    make(crash, &prepared, stop, &|text| progress.say(text))
}

fn write(line: &Line<'_>, json: bool, out: &mut dyn Write) -> Result<(), CommandError> {
    if json {
        writeln!(out, "{}", serde_json::to_string(line).map_err(std::io::Error::other)?)?;
        return Ok(());
    }
    match &line.program {
        Some(path) => writeln!(out, "{}: {} in {} fresh guests", line.key, path.display(), line.outcome)?,
        None => writeln!(out, "{}: no program: {}", line.key, line.outcome)?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use clap::Parser as _;

    use super::*;
    use crate::options::{Command, Options};

    /// A crash's folder with a verified program; its target is not here.
    fn crash(folder: &Path) {
        fs::create_dir_all(folder).unwrap();
        let reproducer = r#"{ "reproducer_version": 1, "title": "t", "kernel": "k", "kernel_build_id": "",
            "plan": { "version": 1, "target": "nowhere", "faults": [] } }"#;
        let meta = r#"{ "version": 1, "title": "t", "kind": "kasan", "fired": [], "stack": [], "tried": 3,
            "reproduced": 3, "repro": { "c": "3 of 3" } }"#;
        for (name, text) in [(REPRODUCER, reproducer), (META, meta), (PROGRAM, "int main")] {
            fs::write(folder.join(name), text).unwrap();
        }
    }

    #[test]
    fn what_is_refused_changes_no_crash() {
        let folder = tempfile::tempdir().unwrap();
        let crashes = ["a", "b"].map(|name| folder.path().join("crashes").join(name));
        crashes.iter().for_each(|folder| crash(folder));
        let export = |path: &Path, kernel: &[&str]| {
            let words = ["fuzz", "export"].into_iter().chain(kernel.iter().copied()).map(OsStr::new);
            let Ok(Options { command: Some(Command::Export(options)), .. }) =
                Options::try_parse_from(words.chain([path.as_os_str()]))
            else {
                panic!("{kernel:?}")
            };
            let mut out = Vec::new();
            let answer = export(&options, &Stop::new(), &mut out, &Progress::stderr());
            (answer, String::from_utf8(out).unwrap())
        };
        let said = |(answer, said): (Result<Answer, CommandError>, String), words: &str| {
            assert_eq!((answer.unwrap(), said.matches(words).count()), (Answer::No, 2), "{said}");
        };
        said(export(folder.path(), &[]), "nowhere");
        said(export(folder.path(), &["--kernel", "other"]), "its own kernel k");
        let refused = export(&crashes[0], &["--kernel", "other"]).0.unwrap_err();
        assert!(refused.status() == INPUT && refused.to_string().contains("its own kernel k"), "{refused}");
        for crash in crashes {
            assert_eq!(fs::read_to_string(crash.join(PROGRAM)).unwrap(), "int main");
            assert!(fs::read_to_string(crash.join(META)).unwrap().contains("3 of 3"));
        }
    }

    #[test]
    fn a_path_is_a_file_a_crash_or_a_campaign() {
        let folder = tempfile::tempdir().unwrap();
        let crash = folder.path().join("crashes/KASAN");
        fs::create_dir_all(&crash).unwrap();
        fs::create_dir(folder.path().join("crashes/.unfinished")).unwrap();
        assert!(files(folder.path()).is_err(), "there is no crash yet");
        let file = crash.join(REPRODUCER);
        for path in [&file, &folder.path().join("crashes/.unfinished").join(REPRODUCER)] {
            fs::write(path, "{}").unwrap();
        }
        for path in [folder.path(), &crash, &file] {
            assert_eq!(files(path).unwrap(), std::slice::from_ref(&file));
        }
        let refused = read(&file).unwrap_err();
        assert!(refused.status() == INPUT && refused.to_string().contains("no reproducer"), "{refused}");
    }
}
