//! `fuzz doctor`: what is missing on this machine, why it matters and how to get it.

use std::{io::Write, path::Path, process::Command};

use guest_protocol::{Contract, Feature, MAX_FUNCTIONS, Setup};

use execution::{FunctionGroups, Stop, Target, TargetError, TargetFunction, chain};
use files::cache;
use guests::{
    kernel::{self, Built},
    prepare::{bare_guest, left_out_lines},
    project::Project,
    qemu::{AccelChoice, GuestConfig, GuestError, Template},
};

use crate::exit::{Answer, CommandError};

/// Features of a kernel without which no target can run.
const NEEDED: [&str; 3] = ["kcov", "error-injection", "bpf-override"];

/// Checks and writes one line for each finding. The answer is no when a target cannot run.
///
/// # Errors
///
/// The project is not found, or results cannot be written.
pub fn doctor(stop: &Stop, out: &mut dyn Write) -> Result<Answer, CommandError> {
    let mut report = Doctor { out, well: true };
    let project = Project::find()?;
    report.tool("qemu-system-x86_64", "--version", "runs the guests", "apt-get install qemu-system-x86")?;
    report.tool("mkfs.btrfs", "-V", "makes the images of the btrfs targets", "apt-get install btrfs-progs")?;
    report.check("agent", project.agent().map(|path| path.display().to_string()))?;
    let cache = cache::directory();
    let found = cache.as_ref().map(|path| path.display().to_string()).map_err(chain_of);
    report.check("cache", found)?;
    for name in Target::names(&project.corpus()) {
        let target = Target::find(&project.corpus(), &name);
        report.check(&format!("target {name}"), target.map(|target| target.description).map_err(chain_of))?;
    }
    let Ok(cache) = cache else { return Ok(report.answer()) };
    let off_list = off_list(&project)?;
    for listed in kernel::list(&kernel::Catalogue::load(project.root())?, &cache)? {
        let name = &listed.kernel.name;
        match listed.built {
            None => report.line("--", &format!("kernel {name}"), "not built; the first run builds it")?,
            Some(built) => {
                report.line("ok", &format!("kernel {name}"), &built.vmlinux.display().to_string())?;
                report.guest(&project, &built, &off_list, &cache, stop)?;
            }
        }
    }
    Ok(report.answer())
}

/// The functions of all groups that need not be on a kernel's list of those that may fail, as many
/// as a guest probes.
fn off_list(project: &Project) -> Result<Vec<Contract>, CommandError> {
    let groups = FunctionGroups::load(&project.corpus().join("functions")).map_err(TargetError::from)?;
    let typed = groups.functions().filter(|function| function.error_type.is_some());
    Ok(typed.map(TargetFunction::contract).take(MAX_FUNCTIONS).collect())
}

fn chain_of(error: impl std::error::Error) -> String {
    chain(&error)
}

struct Doctor<'a> {
    out: &'a mut dyn Write,
    well: bool,
}

impl Doctor<'_> {
    fn answer(&self) -> Answer {
        if self.well { Answer::Yes } else { Answer::Lacking }
    }

    fn line(&mut self, state: &str, what: &str, text: &str) -> Result<(), CommandError> {
        writeln!(self.out, "{state:<4} {what:<28} {text}")?;
        Ok(())
    }

    fn check<E: std::fmt::Display>(&mut self, what: &str, found: Result<String, E>) -> Result<(), CommandError> {
        match found {
            Ok(text) => self.line("ok", what, &text),
            Err(error) => {
                self.well = false;
                self.line("BAD", what, &error.to_string())
            }
        }
    }

    fn tool(&mut self, name: &str, flag: &str, purpose: &str, remedy: &str) -> Result<(), CommandError> {
        let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
        let output = Command::new(name).arg(flag).env("PATH", path).output();
        let found = output
            .map(|output| {
                let text = [output.stdout, output.stderr].concat();
                String::from_utf8_lossy(&text).lines().next().unwrap_or_default().to_owned()
            })
            .map_err(|error| format!("{error}; it {purpose}: {remedy}"));
        self.check(name, found)
    }

    /// Boots a guest and shows what its kernel has and lacks.
    fn guest(
        &mut self,
        project: &Project,
        kernel: &Built,
        off_list: &[Contract],
        cache: &Path,
        stop: &Stop,
    ) -> Result<(), CommandError> {
        let config = match bare_guest(project, kernel) {
            Ok(config) => config,
            Err(error) => return self.check("guest", Err(chain(&error))),
        };
        let accel = match AccelChoice::Auto.choose(&config.qemu, &kernel.vmlinux, cache, stop) {
            Ok(chosen) => chosen,
            Err(error) => return self.check("acceleration", Err(chain(&error))),
        };
        self.line("ok", "acceleration", &accel.reason)?;
        let config = GuestConfig { accel: accel.accel, ..config };
        let prepare = |functions: &[Contract]| {
            let setup = Setup { functions: functions.to_vec(), ..Setup::default() };
            Template::prepare(config.clone(), &setup, stop)
        };
        // A kernel of which none of them can be probed has other functions that may fail.
        let prepared = match prepare(off_list) {
            Err(GuestError::Refused(reason)) if !off_list.is_empty() => {
                prepare(&[]).map(|template| (template, Some(reason)))
            }
            prepared => prepared.map(|template| (template, None)),
        };
        let (template, refusal) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => return self.check("guest", Err(chain(&error))),
        };
        let boot = format!("ready after {:.1} s", template.about().boot_time.as_secs_f64());
        self.line("ok", "guest", &boot)?;
        template.about().hello.features.iter().try_for_each(|feature| self.feature(feature))?;
        let injectable = format!("{} functions may fail", template.about().hello.injectable.len());
        self.line("ok", "  injectable", &injectable)?;
        if let Some(reason) = refusal {
            return self.line("--", "  off its list", &reason);
        }
        let added = format!("{} more functions can be made to fail", template.about().ready.functions.len());
        self.line("ok", "  off its list", &added)?;
        let left_out = left_out_lines(&template.about().ready.left_out);
        left_out.iter().try_for_each(|line| self.line("--", "  off its list", line))
    }

    fn feature(&mut self, feature: &Feature) -> Result<(), CommandError> {
        let what = format!("  {}", feature.name);
        if NEEDED.contains(&feature.name.as_str()) && !feature.missing.is_empty() {
            return self.check(&what, Err(&feature.missing));
        }
        self.line(if feature.missing.is_empty() { "ok" } else { "--" }, &what, &feature.missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_lacks_something_when_no_target_can_run_on_it() {
        let answer = |name: &str, missing: &str| {
            let mut out = Vec::new();
            let mut doctor = Doctor { out: &mut out, well: true };
            doctor.feature(&Feature { name: name.to_owned(), missing: missing.to_owned() }).unwrap();
            (doctor.answer(), String::from_utf8(out).unwrap().split(' ').next().unwrap().to_owned())
        };
        assert_eq!(answer("kcov", ""), (Answer::Yes, "ok".to_owned()));
        assert_eq!(answer("kasan", "no CONFIG_KASAN"), (Answer::Yes, "--".to_owned()));
        assert_eq!(answer("kcov", "no CONFIG_KCOV"), (Answer::Lacking, "BAD".to_owned()));
        assert_eq!(answer("bpf-override", "no CONFIG"), (Answer::Lacking, "BAD".to_owned()));
    }
}
