//! A crash as a mail to the kernel's maintainers, by the kernel's conventions
//! (`Documentation/admin-guide/reporting-issues.rst`, `process/threat-model.rst`). It is written,
//! and never sent: a person reads it first.
//!
//! The first screen decides. So it has the named fault, that it was injected, the damage, and the
//! facts; the trace follows, then the reproducer.

use std::fmt::Write as _;

use fault_plan::one_line;
use kernel_report::with_complaint;

use super::{
    trace::trace,
    wrap::{indent, plain, wrap},
};
use crate::{
    Report, Standing,
    model::{Caller, Crash, NamedFault, Standalone},
    subsystem::{file, subsystem},
    way::way,
};

/// Most columns of prose in a mail.
const COLUMNS: usize = 72;
/// Most lines of a program that is in the mail as a whole.
const MOST_PROGRAM: usize = 100;
/// Callers of a fault that the first paragraph names.
const FEW_CALLERS: usize = 4;

/// Those whom a mail is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Addressees {
    /// What `scripts/get_maintainer.pl` says.
    Known {
        /// Maintainers.
        to: Vec<String>,
        /// Lists.
        cc: Vec<String>,
    },
    /// The command by which a person finds out.
    Ask(String),
}

/// A mail to be written.
#[derive(Clone, Copy, Debug)]
pub struct Mail<'a> {
    /// The campaign's report.
    pub report: &'a Report,
    /// The crash that it is about.
    pub crash: &'a Crash,
    /// Those whom it is for.
    pub addressees: &'a Addressees,
}

/// Writes the mail.
#[must_use]
pub fn lkml(mail: &Mail<'_>) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = mail.head(&mut out).and_then(|()| mail.facts(&mut out)).and_then(|()| mail.evidence(&mut out));
    plain(&out)
}

impl Mail<'_> {
    fn head(&self, out: &mut String) -> std::fmt::Result {
        match self.addressees {
            Addressees::Known { to, cc } => {
                writeln!(out, "To: {}", to.join(",\n    "))?;
                writeln!(out, "Cc: {}", cc.join(",\n    "))?;
            }
            Addressees::Ask(command) => writeln!(out, "To: (ask {command})")?,
        }
        // Names in it come from files too: none may begin another header.
        writeln!(out, "Subject: {}\n", one_line(&self.subject()))?;
        if self.crash.standing == Standing::Alarm {
            paragraph("This looks like an alarm by design, and may not be worth a mail:", out)?;
            self.crash.reasons.iter().take(1).try_for_each(|reason| paragraph(reason, out))?;
        }
        paragraph(&self.named_faults(), out)?;
        paragraph(&self.effect(), out)
    }

    fn subject(&self) -> String {
        let crash = self.crash;
        let guilty = crash.guilty.as_ref();
        let mut functions: Vec<_> = guilty.iter().map(|guilty| guilty.function.clone()).collect();
        functions
            .extend(crash.faults.iter().flat_map(|fault| fault.call_path.iter().map(|caller| caller.function.clone())));
        let prefix = subsystem(file(crash), &functions);
        let prefix = prefix.map_or_else(String::new, |prefix| format!("{prefix}: "));
        let title = with_complaint(&crash.title, &crash.report);
        let title = title.strip_prefix("KASAN: ").unwrap_or(&title);
        // A file system's own messages begin with its name.
        let own = |start: &str| start.eq_ignore_ascii_case(&prefix);
        let title =
            title.split_at_checked(prefix.len()).filter(|(start, _)| own(start)).map_or(title, |(_, rest)| rest);
        // The title of a leftover names the fault's caller already.
        let named = |fault: &NamedFault| fault.caller.as_ref().is_some_and(|caller| title.contains(caller.as_str()));
        match crash.faults.as_slice() {
            [fault] if !named(fault) => format!("[BUG] {prefix}{title} after {}", failure(fault)),
            [] | [_] => format!("[BUG] {prefix}{title}"),
            faults => format!("[BUG] {prefix}{title} after {} injected errors", faults.len()),
        }
    }

    /// Names the faults: the first paragraph.
    fn named_faults(&self) -> String {
        let faults = &self.crash.faults;
        if faults.is_empty() {
            return "This was found by fault injection; which faults fired is not known.".to_owned();
        }
        let mut text = match faults.len() {
            1 => "An error was injected on purpose: ".to_owned(),
            count => format!("{count} errors were injected on purpose, one after the other: "),
        };
        for (index, fault) in faults.iter().enumerate() {
            let number = if faults.len() > 1 { format!("({}) ", index + 1) } else { String::new() };
            let callers: Vec<_> = self.telling_path(fault).iter().map(|name| format!("{name}()")).collect();
            let below =
                if callers.is_empty() { String::new() } else { format!(", called by {}", callers.join(" <- ")) };
            let _ = write!(
                text,
                "{number}{}() returned {}{below}, {}{}",
                fault.function,
                fault.error.as_deref().unwrap_or("an error"),
                self.occasion(fault),
                if index + 1 < faults.len() { "; " } else { ". " }
            );
        }
        text.push_str(
            "The function did not run: a BPF program on a kprobe called bpf_override_return(), as \
             CONFIG_BPF_KPROBE_OVERRIDE allows.",
        );
        if self.crash.is_repeated() {
            let _ = write!(text, " The workload ran {} times, each time with this.", self.crash.plan_rounds);
        }
        if let Some(way) = faults.last().and_then(|fault| way(&fault.call_path)) {
            let way = if faults.len() > 1 { way.replacen("The error", "The last error", 1) } else { way };
            let _ = write!(text, " {way}");
        }
        text
    }

    /// Gives the callers that say something, innermost first.
    fn telling_path<'a>(&self, fault: &'a NamedFault) -> Vec<&'a str> {
        let names: Vec<_> = fault.call_path.iter().map(Caller::name).collect();
        let first = fault.caller.as_deref().and_then(|telling| names.iter().position(|name| *name == telling));
        // One service below it says what was asked for.
        let start = first.unwrap_or(0).saturating_sub(1);
        names.into_iter().skip(start).take(FEW_CALLERS + 1).collect()
    }

    fn occasion(&self, fault: &NamedFault) -> String {
        let step = fault.step.map(|step| {
            match self.crash.steps.get((step as usize).saturating_sub(1)).filter(|name| !name.is_empty()) {
                Some(name) => format!("during {name} (step {step})"),
                None => format!("during step {step} of the workload"),
            }
        });
        let scope = match fault.scope.as_str() {
            "workload" => None,
            "worker" => Some("in a work item".to_owned()),
            "thread" => Some("in a kernel thread".to_owned()),
            scope => Some(format!("in a {scope} of the workload")),
        };
        let further = fault.further();
        let occurrence = fault.occurrence.map(|occurrence| format!("call {occurrence} of those on this path{further}"));
        let arguments = Some(fault.arguments.clone()).filter(|words| !words.is_empty());
        let round = fault.round.map(|round| format!("in round {round} of {}", self.crash.plan_rounds));
        round.into_iter().chain(step).chain(scope).chain(occurrence).chain(arguments).collect::<Vec<_>>().join(", ")
    }

    fn effect(&self) -> String {
        let crash = self.crash;
        let place = crash.guilty.as_ref().map_or_else(String::new, |guilty| match (&guilty.file, guilty.line) {
            (Some(file), Some(line)) => format!(", at {file}:{line}"),
            (Some(file), None) => format!(", in {file}"),
            _ => String::new(),
        });
        let chance = crash.faults.iter().max_by_key(|fault| fault.chance);
        let chance = chance.map_or_else(String::new, |fault| {
            let least = if crash.faults.len() > 1 { "The least likely of these failures" } else { "Such a failure" };
            format!(" {least} {}: {}.", fault.chance.words(), fault.chance_reason)
        });
        let (impact, expected) = (crash.impact.words(), self.expected());
        let title = with_complaint(&crash.title, &crash.report);
        format!("What happens then: {title} ({impact}){place}. {expected}{chance}")
    }

    /// Says what was expected instead.
    fn expected(&self) -> String {
        let step = |fault: &NamedFault| {
            let index = fault.step.filter(|_| fault.scope == "workload")?.checked_sub(1)?;
            Some(self.crash.steps.get(index as usize)?.as_str()).filter(|name| !name.is_empty())
        };
        if self.crash.key.starts_with("error swallowed") {
            return "Expected: who waits for the data, by fsync, sync or a write, hears of the error.".to_owned();
        }
        let what = match self.crash.faults.last().map(|fault| (step(fault), &fault.error)) {
            Some((Some(step), Some(error))) if error.starts_with('E') => {
                format!("{step} fails with {error} or does without")
            }
            Some((Some(step), _)) => format!("{step} fails or does without"),
            _ => "the error is handled".to_owned(),
        };
        format!("Expected: {what}, and nothing is left behind.")
    }

    fn facts(&self, out: &mut String) -> std::fmt::Result {
        let crash = self.crash;
        for (index, kernel) in crash.kernels.iter().enumerate() {
            let release = kernel.release.as_deref().unwrap_or("release not known");
            let source = kernel.source.as_ref().map_or_else(String::new, |source| format!(", {source}"));
            let head = if index == 0 { "Kernel" } else { "Seen on too" };
            writeln!(out, "{head:<12} {release} ({}{source})", kernel.name)?;
            if let (0, Some(compiler), Some(config)) = (index, &kernel.compiler, &kernel.config) {
                writeln!(out, "{:<12} {compiler}", "Compiler")?;
                writeln!(out, "{:<12} to be attached: {}", "Config", config.display())?;
            }
        }
        if crash.kernels.first().is_none_or(|kernel| kernel.config.is_none()) {
            writeln!(out, "{:<12} not at hand: the kernel is not in the cache any more", "Config")?;
        }
        writeln!(out, "{:<12} {}", "Tried", self.tried())?;
        if !crash.steps.is_empty() {
            let disk = crash.disk.as_ref().map_or_else(String::new, |disk| format!("{disk}; "));
            let steps: Vec<_> = (1..).zip(&crash.steps).map(|(number, step)| format!("{number} {step}")).collect();
            out.push_str(&indent(&format!("{disk}{}", steps.join(", ")), "Workload     ", COLUMNS));
        }
        let version = &self.report.campaign.fuzz_version;
        let version = if version.is_empty() { env!("CARGO_PKG_VERSION") } else { version };
        writeln!(out, "{:<12} fuzz {version}, a coverage-guided fuzzer of error paths", "Found by")?;
        writeln!(out)?;
        paragraph(
            "It takes fault injection to see this. By the kernel's threat model \
             (Documentation/process/threat-model.rst) that makes it a regular bug, and this mail no security report.",
            out,
        )
    }

    /// Says on which versions it was tried.
    fn tried(&self) -> String {
        let crash = self.crash;
        let times = match crash.tried {
            0 => "not tried again yet".to_owned(),
            tried => format!("again in {} of {tried} fresh QEMU guests", crash.reproduced),
        };
        // The lines above name the others.
        if crash.kernels.len() > 1 { times } else { format!("{times}; no other version was tried") }
    }

    fn evidence(&self, out: &mut String) -> std::fmt::Result {
        let trace = trace(&self.crash.report);
        if !trace.is_empty() {
            writeln!(out, "{trace}")?;
        }
        self.reproducer(out)?;
        writeln!(out, "Assisted-by: fuzz:{}", self.report.campaign.fuzz_version)
    }

    fn reproducer(&self, out: &mut String) -> std::fmt::Result {
        let crash = self.crash;
        if let Some(Standalone { file, verdict, text: Some(text) }) = &crash.program {
            let folder = self.report.campaign.folder.join(&crash.folder);
            let (kind, attached) = match file.as_str() {
                "repro.bt" => ("a script for bpftrace", Some("steps.c")),
                _ => ("a C program", None),
            };
            let parts = telling_parts(text);
            // A script runs with a program.
            let attached = attached.or_else(|| parts.as_ref().map(|_| file.as_str()));
            let attached = attached.map(|file| format!(", to be attached: {}", folder.join(file).display()));
            let what = if parts.is_some() { ". What tells in it" } else { "" };
            let attached = attached.unwrap_or_default();
            paragraph(&format!("Reproducer, {kind} (verified: {verdict}){attached}{what}:"), out)?;
            return match parts {
                Some(parts) => writeln!(out, "{parts}"),
                None => writeln!(out, "{}\n", text.trim_end()),
            };
        }
        let why = crash.program.as_ref().map(|program| format!(" There is no C program ({}).", program.verdict));
        let why = why.unwrap_or_default();
        paragraph(
            &format!(
                "Reproducer, a fault plan for the fuzzer: put it into plan.json, and run \"fuzz replay plan.json\".{why}"
            ),
            out,
        )?;
        match &crash.plan {
            Some(plan) => writeln!(out, "{}\n", json_lines(&serde_json::to_string(plan).unwrap_or_default())),
            None => writeln!(out, "(the plan is not known)\n"),
        }
    }
}

fn paragraph(text: &str, out: &mut String) -> std::fmt::Result {
    writeln!(out, "{}\n", wrap(text, COLUMNS))
}

/// Names a failure in a few words.
fn failure(fault: &NamedFault) -> String {
    let what = match fault.function.as_str() {
        "should_failslab" => "failed allocation".to_owned(),
        "should_fail_alloc_page" => "failed page allocation".to_owned(),
        "should_fail_bio" => "I/O error".to_owned(),
        function => format!("{} of {function}()", fault.error.as_deref().unwrap_or("error")),
    };
    match &fault.caller {
        Some(caller) => format!("{what} in {caller}()"),
        None => what,
    }
}

/// Gives of a long program its head, its faults and its workload; nothing of one that is short, or
/// has no such parts.
fn telling_parts(program: &str) -> Option<String> {
    let lines: Vec<_> = program.lines().collect();
    let part = |first: &str, last: &str| {
        let start = lines.iter().position(|line| line.starts_with(first))?;
        let end = start + lines[start..].iter().position(|line| line.trim() == last)?;
        Some(lines[start..=end].join("\n") + "\n")
    };
    if lines.len() <= MOST_PROGRAM {
        return None;
    }
    let parts = [("/*", "*/"), ("static const struct fault faults[]", "};"), ("static void workload(", "}")];
    parts.map(|(first, last)| part(first, last)).into_iter().collect::<Option<Vec<_>>>().map(|parts| parts.join("\n"))
}

/// Breaks compact JSON into lines, at commas and brackets outside of strings: it stays valid.
fn json_lines(json: &str) -> String {
    let (mut lines, mut line, mut width, mut quoted, mut escaped) = (String::new(), String::new(), 0, false, false);
    for character in json.chars() {
        line.push(character);
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => {}
        }
        if !quoted && matches!(character, ',' | '{' | '[' | '}' | ']') {
            let length = line.chars().count();
            if width > 0 && width + length > COLUMNS {
                lines.push('\n');
                width = 0;
            }
            lines.push_str(&line);
            width += length;
            line.clear();
        }
    }
    lines + &line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_program_is_told_by_its_head_its_faults_and_its_workload() {
        let program = |filling: usize| {
            let helper = "static void helper(void) {\n}\n".repeat(filling);
            format!(
                "/*\n * How to run it.\n */\n#include <stdio.h>\n{helper}static const struct fault faults[] = {{\n    {{1}},\n}};\n\
                 {helper}static void workload(int round) {{\n    step();\n}}\nint main(void) {{\n}}\n"
            )
        };
        assert_eq!(
            telling_parts(&program(50)).unwrap(),
            "/*\n * How to run it.\n */\n\nstatic const struct fault faults[] = {\n    {1},\n};\n\n\
             static void workload(int round) {\n    step();\n}\n"
        );
        assert_eq!(telling_parts(&program(1)), None);
        assert_eq!(telling_parts(&"int x;\n".repeat(500)), None);
    }

    #[test]
    fn broken_json_is_still_json() {
        let plan = serde_json::json!({ "faults": [ { "function": "a, {b}\\\"", "call_path": vec!["function"; 30] } ] });
        let lines = json_lines(&plan.to_string());
        assert_eq!(serde_json::from_str::<serde_json::Value>(&lines).unwrap(), plan);
        assert!(lines.lines().count() > 3 && lines.lines().all(|line| line.len() <= COLUMNS), "{lines}");
    }
}
