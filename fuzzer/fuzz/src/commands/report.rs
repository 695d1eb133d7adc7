//! `fuzz report DIR`: what a campaign found, in one of several forms. It needs no guest.

mod addressees;
mod coverage;
mod kernels;
mod places;

use std::io::Write;

use execution::chain;
use triage::{
    Crash, Report, ReportError,
    formats::{self, FormatError, Mail},
};

use self::kernels::CachedKernels;
use crate::{
    exit::{Answer, CommandError, write_result},
    options::{ReportFormat, ReportOptions},
    views::progress::Progress,
};

/// Writes the report of a campaign, to `out` or to the file that is asked for.
///
/// The answer is no when the mail is asked for and there is no crash.
///
/// # Errors
///
/// No campaign is there, no crash is called so, or the report cannot be written.
pub fn report(options: &ReportOptions, out: &mut dyn Write, progress: &Progress) -> Result<Answer, CommandError> {
    let kernels = CachedKernels::find()?;
    let mut report =
        triage::read(&options.dir, &kernels).map_err(|error: ReportError| CommandError::Input(error.to_string()))?;
    if let Some(tree) = options.tree.as_ref().filter(|tree| !tree.join("Makefile").is_file()) {
        return Err(CommandError::Input(format!("{}: no tree of the kernel's source is there", tree.display())));
    }
    let chosen = options.crash.as_deref().map(|name| chosen(&report, name)).transpose()?.map(|crash| crash.key.clone());
    if matches!(options.format, ReportFormat::Html | ReportFormat::Json) {
        let (coverage, gaps) = coverage::coverage(&options.dir, &report, &kernels, options.tree.as_deref());
        report.coverage = coverage;
        report.gaps.extend(gaps);
    }
    if let Some(key) = &chosen {
        report.crashes.retain(|crash| crash.key == *key);
    }
    let text = match options.format {
        ReportFormat::Text => formats::text(&report, chosen.as_deref()),
        ReportFormat::Json => formats::json(&report).map_err(unwritten)?,
        ReportFormat::Html => formats::html(&report).map_err(unwritten)?,
        ReportFormat::Sarif => formats::sarif(&report).map_err(unwritten)?,
        ReportFormat::Lkml => {
            let Some(crash) = report.crashes.first() else {
                progress.say(&format!("{}: the campaign has no crash to write a mail about", options.dir.display()));
                return Ok(Answer::No);
            };
            let addressees = addressees::addressees(crash, options.tree.as_deref(), progress);
            formats::lkml(&Mail { report: &report, crash, addressees: &addressees })
        }
    };
    match &options.out {
        Some(file) => write_result(file, &text)?,
        None => out.write_all(text.as_bytes())?,
    }
    Ok(Answer::Yes)
}

/// Finds the crash that is called so: by key, folder or rank.
fn chosen<'a>(report: &'a Report, name: &str) -> Result<&'a Crash, CommandError> {
    let called = |crash: &&Crash| {
        crash.key == name
            || crash.folder.file_name().is_some_and(|folder| folder == name)
            || crash.rank.to_string() == name
    };
    report.crashes.iter().find(called).ok_or_else(|| {
        let keys: Vec<_> = report.crashes.iter().map(|crash| format!("\n  {} {}", crash.rank, crash.key)).collect();
        CommandError::Input(format!("no crash is called \"{name}\"; there are:{}", keys.concat()))
    })
}

#[expect(clippy::needless_pass_by_value, reason = "the form that map_err() takes")]
fn unwritten(error: FormatError) -> CommandError {
    CommandError::Input(chain(&error))
}
