//! The text of `repro.c`, or of `steps.c` for a script.
//!
//! ```text
//! c/support.c ─┐
//! c/steps.c   ─┤ the parts that the steps need
//! c/step.c    ─┼─▶ head, parts, the table of faults, workload(), main()
//! c/end.c     ─┘
//! ```

use std::{collections::BTreeSet, fmt::Write as _};

use execution::{ImageRecipe, ImageSource, Target};
use fault_plan::{ErrorType, shell_word};
use guest_protocol::{Step, WorkloadStep};

use super::{arming::Arming, hits::off_list, steps, tables};

const SUPPORT: &str = include_str!("c/support.c");
const STEPS: &str = include_str!("c/steps.c");
const STEP: &str = include_str!("c/step.c");
const END: &str = include_str!("c/end.c");
/// The part of `main()` that finds the kernel's hooks.
const PREPARE: &str = "    fail_nth = open(\"/proc/thread-self/fail-nth\", O_RDWR | O_CLOEXEC);
    if (fail_nth < 0)
        die(\"/proc/thread-self/fail-nth (CONFIG_FAULT_INJECTION)\");
    silence_all();
    for (int index = 0; index < FAULTS; index++)
        prepare(&faults[index], index);
";
/// Begin of the line with a part's name, and those of the parts that it needs.
const PART: &str = "//: ";

/// Way in which calls are made to fail while a program runs.
#[derive(Clone, Copy)]
pub(super) enum By<'a> {
    /// By the program, with the kernel's hooks set so.
    Hooks(&'a [Arming]),
    /// By a script, which knows a step by the name that the program's task has in it.
    Names,
}

/// Content of a reproducer.
pub(super) struct Content<'a> {
    /// The target.
    pub(super) target: &'a Target,
    /// For each round whether the disk is put back after it.
    pub(super) rounds: Vec<bool>,
    /// Way in which calls are made to fail.
    pub(super) by: By<'a>,
    /// Lines of the comment at its head.
    pub(super) head: &'a [String],
    /// True for a program whose steps are recorded by the kernel's tracing.
    pub(super) marks: bool,
}

impl Content<'_> {
    /// Gives the first step that there is no C for.
    pub(super) fn unknown_step(&self) -> Option<&'static str> {
        let mut steps = self.all_steps();
        steps.find(|(step, number)| steps::in_c(&step.step, *number).is_none()).map(|(step, _)| step.kind())
    }

    /// Gives all steps, with their numbers in their sequences, from 1.
    fn all_steps(&self) -> impl Iterator<Item = (&WorkloadStep, u32)> {
        let image = self.target.image.iter().flat_map(|image| image.steps.iter().zip(1..));
        image.chain(self.target.setup_steps.iter().zip(1..)).chain(self.target.steps.iter().zip(1..))
    }

    /// Writes the program.
    pub(super) fn text(&self) -> String {
        let mut text = String::from("/*\n");
        for line in self.head {
            text.push_str(format!(" * {}", in_comment(line)).trim_end());
            text.push('\n');
        }
        text.push_str(" */\n");
        let needed: Vec<&str> =
            self.all_steps().filter_map(|(step, number)| Some(steps::in_c(&step.step, number)?.parts)).collect();
        let forgets = self.mounts_btrfs();
        let armings = match self.by {
            By::Hooks(armings) => Some(armings),
            By::Names => None,
        };
        let allowed = self.allowed();
        let support = ["support", "state"].into_iter().chain(armings.map(|_| "faults"));
        let support = support.chain((!allowed.is_empty()).then_some("allow"));
        parts(&mut text, SUPPORT, Some(support.collect()));
        parts(&mut text, STEPS, Some(needed.iter().copied().chain(forgets.then_some("forget")).collect()));
        if let Some(armings) = armings {
            tables::faults(&mut text, armings);
        }
        if !allowed.is_empty() {
            tables::unlisted(&mut text, &allowed);
        }
        let mark = if self.marks { "static int marks;\n#define MARK(...) dprintf(marks, __VA_ARGS__)\n\n" } else { "" };
        let step: String =
            STEP.lines().filter(|line| self.marks || !line.contains("MARK(")).fold(String::new(), |mut step, line| {
                step.push_str(line);
                step.push('\n');
                step
            });
        text.push_str(mark);
        parts(&mut text, &step, Some(vec![if armings.is_some() { "hooks" } else { "names" }, "step"]));
        let end = END.lines().filter(|line| forgets || !line.contains("forget(")).collect::<Vec<_>>().join("\n");
        parts(&mut text, &end, None);
        self.workload(&mut text);
        self.main(&mut text);
        text
    }

    /// The functions that fail and are not on the kernel's list, with their types.
    fn allowed(&self) -> Vec<(&str, ErrorType)> {
        let By::Hooks(armings) = self.by else { return Vec::new() };
        let names: BTreeSet<&str> = armings.iter().map(|arming| arming.hook.function()).collect();
        names.into_iter().filter_map(|name| Some((name, off_list(name, self.target)?))).collect()
    }

    fn mounts_btrfs(&self) -> bool {
        self.all_steps().any(|(step, _)| matches!(&step.step, Step::Mount { fstype, .. } if fstype == "btrfs"))
    }

    fn workload(&self, text: &mut String) {
        let call =
            |step: &WorkloadStep, number| steps::in_c(&step.step, number).map(|step| step.call).unwrap_or_default();
        if let Some(image) = self.target.image.as_ref().filter(|image| !image.steps.is_empty()) {
            text.push_str("/* What the disks hold before. */\nstatic void make_image(void) {\n");
            for (step, number) in image.steps.iter().zip(1..) {
                let _ = writeln!(text, "    report(0, \"{}\", {});", step.kind(), call(step, number));
            }
            text.push_str("    clean_up(0, NULL);\n}\n\n");
        }
        text.push_str("static void workload(int round) {\n");
        for (step, number) in self.target.setup_steps.iter().zip(1..) {
            let _ = writeln!(text, "    report(0, \"{}\", {});", step.kind(), call(step, number));
        }
        text.push_str("    printf(\"repro: round %d\\n\", round);\n");
        for (step, number) in self.target.steps.iter().zip(1..) {
            let needs = u8::from(steps::needs_mount(&step.step));
            let _ = writeln!(text, "    STEP({number}, \"{}\", {needs}, {});", step.kind(), call(step, number));
        }
        text.push_str("}\n\n");
    }

    fn main(&self, text: &mut String) {
        let disks = self.target.disks();
        let names: String = (1..=disks).map(|number| format!(" DISK{number}")).collect();
        let usage = if disks == 0 { String::new() } else { format!(" IMAGE{names}") };
        let first = if disks == 0 { 1 } else { 2 };
        text.push_str("int main(int count, char **arguments) {\n");
        if self.marks {
            text.push_str("    marks = open(\"/sys/kernel/tracing/trace_marker\", O_WRONLY);\n");
        }
        if self.target.steps.iter().any(|step| matches!(step.step, Step::Fork { exec: true })) {
            text.push_str("    if (count > 1 && strcmp(arguments[1], \"child\") == 0) {\n        if (fork() == 0)\n            _exit(0);\n        return 0;\n    }\n");
        }
        let _ = write!(
            text,
            "    setvbuf(stdout, NULL, _IONBF, 0);
    if (count != {}) {{
        printf(\"usage: %s{usage}\\n\", arguments[0]);
        return 2;
    }}
    disk = arguments + {first};
    disks = {disks};
    mlockall(MCL_CURRENT | MCL_FUTURE);
",
            first + disks
        );
        let allowed = self.allowed().len();
        if allowed > 0 {
            let _ = writeln!(text, "    allow(allowed, {allowed});");
        }
        if matches!(self.by, By::Hooks(_)) {
            text.push_str(PREPARE);
        }
        if disks > 0 {
            text.push_str("    mkdir(\"/mnt\", 0755);\n    mkdir(ROOT, 0755);\n    fill_disks(arguments[1]);\n");
        }
        if self.target.image.as_ref().is_some_and(|image| !image.steps.is_empty()) {
            text.push_str("    make_image();\n");
        }
        for (reset, round) in self.rounds.iter().zip(1..) {
            let image = if disks == 0 { "NULL" } else { "arguments[1]" };
            let reset = u8::from(*reset && disks > 0);
            let _ = writeln!(text, "    workload({round});\n    clean_up({reset}, {image});");
        }
        let (failed, status) = match self.by {
            By::Hooks(armings) => {
                let wanted: u32 = armings.iter().map(|arming| arming.times).sum();
                let failed = format!("    printf(\"repro: %d of {wanted} calls failed as planned\\n\", fired);\n");
                (failed, format!("fired == {wanted} ? 0 : 1"))
            }
            By::Names => (String::new(), "0".to_owned()),
        };
        let _ = writeln!(text, "{failed}    return {status};\n}}");
    }
}

/// Appends the parts of `source` that are `wanted`, with those that they need; all for `None`.
fn parts(text: &mut String, source: &str, wanted: Option<Vec<&str>>) {
    let pieces: Vec<(Vec<&str>, &str)> = source
        .split(PART)
        .skip(1)
        .filter_map(|piece| piece.split_once('\n'))
        .map(|(names, body)| (names.split(' ').collect(), body))
        .collect();
    let mut needed: Option<BTreeSet<&str>> = wanted.map(|wanted| wanted.into_iter().collect());
    if let Some(needed) = &mut needed {
        // A part needs only parts before it.
        for (names, _) in pieces.iter().rev() {
            if needed.contains(names[0]) {
                needed.extend(&names[1..]);
            }
        }
    }
    for (names, body) in pieces {
        if needed.as_ref().is_none_or(|needed| needed.contains(names[0])) {
            text.push_str(body.trim_end());
            text.push_str("\n\n");
        }
    }
}

/// Gives a line that stays inside its comment whatever it says: strangers' titles are in it.
pub(super) fn in_comment(line: &str) -> String {
    let printable = |letter: char| if matches!(letter, ' '..='~') { letter } else { '?' };
    line.chars().map(printable).collect::<String>().replace("*/", "* /").replace("/*", "/ *")
}

/// Gives the command by which the image is made, in words.
pub(super) fn image_command(image: &ImageRecipe) -> Vec<String> {
    let size = image.size_mib;
    let mut lines = vec![format!("truncate -s {size}M disk.img")];
    lines.push(match &image.source {
        ImageSource::Mkfs(words) => {
            let words: Vec<_> = words.iter().map(|word| shell_word(word)).collect();
            format!("{} disk.img", words.join(" "))
        }
        ImageSource::Script { name, .. } => {
            format!("./{} disk.img     # the script is in reproducer.json", shell_word(name))
        }
        ImageSource::File { name, sha256, .. } => {
            format!("cp {} disk.img     # decompressed; its SHA-256 is {sha256}", shell_word(name))
        }
    });
    lines
}

#[cfg(test)]
mod tests {
    use std::fs;

    use execution::FunctionGroups;
    use guests::bare::compile;

    use super::{super::arming::Hook, *};

    const TARGET: &str = r#"
description = "every step that there is C for"
kernel = "k"
functions = [{ name = "f", errors = ["EIO"] }, { name = "off_list", type = "ERRNO", errors = ["EIO"] }]
setup = [{ write-file = { path = "/proc/sys/vm/drop_caches", text = "1\n" } }]
steps = [
    { mount = { fstype = "btrfs", options = "ro,noatime,compress=zstd" } },
    { remount = { options = "rw" } }, { mkdir = { path = "d" } }, { create = { path = "d/f" } },
    { write = { path = "d/f", length = 100 } }, { write = { path = "d/f", length = 512, direct = true, sync = true } },
    { write = { path = "d/f", length = 9000448, direct = true } },
    { mmap-write = { path = "d/f", length = 100 } }, { read = { path = "d/f" } }, { fsync = { path = "d/f" } },
    { truncate = { path = "d/f", length = 5 } }, { rename = { from = "d/f", to = "g" } },
    { link = { from = "g", to = "h" } }, { unlink = { path = "h" } }, { symlink = { target = "a\"b", path = "s" } },
    { set-xattr = { path = "g", name = "user.a", value = "b" } }, { chmod = { path = "g", mode = 0o600 } },
    { chown = { path = "g", uid = 1, gid = 1 } }, { readdir = {} }, { readdir = { path = "d" } }, { sync = {} },
    { sleep = { ms = 1 } }, { fallocate = { path = "g", mode = "punch-hole", length = 4096 } },
    { reflink = { from = "g", to = "d/f" } }, { freeze = {} }, { thaw = {} }, { fstrim = {} }, { shutdown = {} },
    { subvolume-create = { path = "v" } }, { subvolume-snapshot = { from = "v", to = "d/w" } },
    { subvolume-delete = { path = "d/w" } }, { trigger = { name = "t" } }, { read-file = { path = "/proc/stat" } },
    { fork = {} }, { fork = { exec = true } }, { balance = { groups = ["data"], usage = 5 } },
    { balance = { convert = "single" } }, { scrub = {} }, { defragment = { path = "g" } }, { resize = { size = "max" } },
    { device-add = { disk = 1 } }, { device-remove = { disk = 1 } }, { device-remove = {} },
    { device-replace = { device = 1, disk = 1 } }, { device-forget = { disk = 0 } }, { quota-enable = {} },
    { quota-limit = { path = "v", bytes = 4096 } }, { quota-disable = {} }, { quota-rescan = {} },
    { subvolume-snapshot = { from = "v", to = "r", read_only = true } }, { send = { path = "r" } },
    { send = { path = "r", parent = "q" } }, { ioctl = { request = 0x9408 } },
    { ioctl = { path = "g", request = 0xc0389424, data = "00 01", file = { at = 8, path = "h" }, memory = { at = 48, bytes = 9 } } },
    { umount = {} },
]
[image]
mkfs = ["mkfs.btrfs", "-q"]
size_mib = 128
disks = 2
"#;

    fn target(text: &str) -> Target {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("target.toml"), text).unwrap();
        Target::load(folder.path(), &FunctionGroups::default()).unwrap()
    }

    fn arming(hook: Hook, nth: u32, interval: u32) -> Arming {
        Arming { place: (2, 1), hook, below: "open_ctree".to_owned(), nth, interval, times: 1 }
    }

    #[test]
    fn each_step_is_c_that_compiles() {
        let target = target(TARGET);
        let armings = [arming(Hook::Slab, 3, 0), arming(Hook::Function("btrfs_search_slot".to_owned(), -5), 0, 2)];
        for marks in [false, true] {
            let head = ["a title".to_owned()];
            let rounds = vec![true, false];
            let content = Content { target: &target, rounds, by: By::Hooks(&armings), head: &head, marks };
            assert_eq!(content.unknown_step(), None);
            let text = content.text();
            compile(&text).unwrap();
            assert!(text.starts_with("/*\n * a title\n */\n"), "{}", &text[..100]);
            assert!(text.contains(r#"{2, 1, "failslab", "open_ctree", 3, 0, 1, NULL, NULL,"#));
            assert!(text.contains(r#""btrfs_search_slot", "0xfffffffffffffffb","#));
            assert_eq!(text.contains("tracing"), marks, "a reproducer needs no tracing");
            assert!(!text.contains("slots.ko"), "all of these are on the kernel's list");
            let unlisted = [arming(Hook::Function("off_list".to_owned(), -5), 1, 0)];
            let listed = Content { by: By::Hooks(&unlisted), head: &head, rounds: vec![false], ..content }.text();
            compile(&listed).unwrap();
            assert!(listed.contains("{\"off_list\", 1},") && listed.contains("allow(allowed, 1);"), "{listed}");
            let content = Content { target: &target, rounds: vec![true, false], by: By::Names, head: &head, marks };
            let text = content.text();
            compile(&text).unwrap();
            assert!(!text.contains("fail") && text.contains("PR_SET_NAME"), "the script makes calls fail");
        }
    }

    #[test]
    fn a_title_cannot_leave_its_comment() {
        let target = target(
            "description = 'd'\nkernel = 'k'\nsteps = [{ trigger = { name = 't' } }]\n\
             functions = [{ name = 'f', errors = ['EIO'] }]\n",
        );
        let hostile = ["f */ int evil; /*/ */", "/* f /**/", "f\n*/ int evil; /*\r\u{1b}[2J\u{202e}", "f *\\"];
        let head = hostile.map(str::to_owned);
        let content = Content { target: &target, rounds: vec![false], by: By::Hooks(&[]), head: &head, marks: false };
        let text = content.text();
        compile(&text).unwrap();
        let (comment, _) = text.split_once("*/").unwrap();
        assert_eq!((comment.lines().count(), comment.matches("/*").count()), (6, 1), "{comment}");
        assert!(!comment.contains(['\r', '\u{1b}', '\u{202e}']), "{comment}");
    }

    /// A stranger's words end neither the comment nor, where somebody copies it, the command.
    #[test]
    fn the_command_that_makes_the_image_is_one_command() {
        let target = target(
            "description = 'd'\nkernel = 'k'\nsteps = [{ umount = {} }]\n\
             functions = [{ name = 'f', errors = ['EIO'] }]\n[image]\nsize_mib = 128\n\
             mkfs = ['mkfs.btrfs', '-L', \"a */ int evil; /*\\n$(id)\", \"it's; id\", '', '-q']\n",
        );
        let head = image_command(target.image.as_ref().unwrap());
        assert_eq!(head[1], "mkfs.btrfs -L 'a */ int evil; /*\n$(id)' 'it'\\''s; id' '' -q disk.img");
        let content = Content { target: &target, rounds: vec![false], by: By::Hooks(&[]), head: &head, marks: false };
        let text = content.text();
        compile(&text).unwrap();
        let (comment, _) = text.split_once("*/").unwrap();
        assert!(comment.contains("'a * / int evil; / *?$(id)'") && comment.lines().count() == 4, "{comment}");
    }

    #[test]
    fn a_program_has_what_its_steps_need_and_no_more() {
        let target = target(
            "description = 'd'\nkernel = 'k'\nsteps = [{ trigger = { name = 't' } }]\n\
             functions = [{ name = 'f', errors = ['EIO'] }]\n",
        );
        let content = Content { target: &target, rounds: vec![false], by: By::Hooks(&[]), head: &[], marks: false };
        let text = content.text();
        compile(&text).unwrap();
        assert!(text.contains("repro: clean-up") && text.contains("repro: round"), "what a hang is told by");
        assert!(text.contains("write_text(") && !text.contains("btrfs") && !text.contains("umount2(ROOT, 0));"));
    }
}
