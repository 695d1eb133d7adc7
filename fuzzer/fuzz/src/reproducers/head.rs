//! The comment at a reproducer's head: how to run it, on which kernel, and what it makes fail.

use std::collections::BTreeSet;

use execution::{DiskKind, ImageRecipe};
use guests::prepared::Prepared;

use super::{
    Maker,
    arming::Hook,
    hits::Hit,
    program::{image_command, in_comment},
};

impl Maker<'_> {
    /// Writes that of `repro.c`, of which the crash came `again` so many times.
    pub(super) fn head_of_hooks(&self, hits: &[Hit], again: (u32, u32)) -> Vec<String> {
        let mut lines = self.opening(hits, again, "this program", "the kernel's own fault injection");
        lines.push(
            "The kernel needs CONFIG_FAULT_INJECTION_DEBUG_FS, CONFIG_FAULT_INJECTION_STACKTRACE_FILTER,".to_owned(),
        );
        let hooks: BTreeSet<_> = hits.iter().map(|hit| configuration(&hit.hook)).collect();
        lines.push(format!("CONFIG_KALLSYMS and {}.", hooks.into_iter().collect::<Vec<_>>().join(", ")));
        lines.push("Run it as root, once after a boot: a hook's count of calls cannot be set back.".to_owned());
        lines.push(String::new());
        lines.extend(self.of_slots(hits));
        lines.push("  mount -t debugfs none /sys/kernel/debug".to_owned());
        lines.push("  cc -static repro.c -o repro".to_owned());
        lines.extend(self.run_line(|arguments| format!("./repro{arguments}")));
        lines
    }

    /// Says what the module is for, and how to build it, where there has to be one.
    fn of_slots(&self, hits: &[Hit]) -> Vec<String> {
        let names: BTreeSet<_> =
            { hits }.iter().filter(|hit| self.is_listed(hit)).map(|hit| hit.hook.function()).collect();
        if names.is_empty() {
            return Vec::new();
        }
        let names: Vec<_> = names.into_iter().collect();
        vec![
            format!("Not on the kernel's list of functions that may fail: {}.", names.join(", ")),
            "slots.ko, a module without code, puts functions there (CONFIG_MODULES). Its source is beside this:"
                .to_owned(),
            String::new(),
            "  echo 'obj-m := slots.o' > Makefile".to_owned(),
            "  make -C /lib/modules/$(uname -r)/build M=$PWD modules".to_owned(),
        ]
    }

    /// Writes that of `repro.bt`, as a comment of bpftrace's.
    pub(super) fn head_of_script(&self, hits: &[Hit], again: (u32, u32)) -> String {
        let mut lines = self.opening(hits, again, "this script and steps.c", "bpf_override_return()");
        lines.push(
            "The kernel needs CONFIG_BPF_KPROBE_OVERRIDE, CONFIG_KPROBE_EVENTS, CONFIG_BPF_EVENTS and".to_owned(),
        );
        lines.push(
            "CONFIG_DEBUG_INFO_BTF. bpftrace is 0.17 or later. steps.c is beside this script. As root:".to_owned(),
        );
        lines.push(String::new());
        lines.push("  cc -static steps.c -o steps".to_owned());
        lines.extend(self.run_line(|arguments| format!("bpftrace --unsafe -c './steps{arguments}' repro.bt")));
        let line = |line: &String| format!("// {}", in_comment(line)).trim_end().to_owned() + "\n";
        lines.iter().map(line).collect()
    }

    /// Says where the crash came by `what`, and which calls are made to fail by which `means`.
    fn opening(&self, hits: &[Hit], (again, tried): (u32, u32), what: &str, means: &str) -> Vec<String> {
        let Prepared { kernel, .. } = &**self.prepared;
        let mut lines = vec![
            self.crash.title.to_owned(),
            String::new(),
            format!("Kernel {} ({}), {}.", kernel.meta.release, kernel.meta.source, kernel.meta.name),
            format!("It came in {again} of {tried} fresh guests that ran nothing but {what}."),
            String::new(),
            format!("These calls are made to fail, on purpose, by {means}:"),
        ];
        lines.extend(self.faults(hits));
        lines.push(String::new());
        lines
    }

    fn faults(&self, hits: &[Hit]) -> Vec<String> {
        let mut lines = Vec::new();
        for hit in hits {
            let Hit { fault, fired, place, .. } = hit;
            let (round, step) = place;
            let round = if self.crash.plan.earlier.is_empty() { String::new() } else { format!("round {round}, ") };
            let kind = self.target().steps.get(*step as usize - 1).map_or("?", |step| step.kind());
            let times = if fired.times > 1 { format!(" {} times", fired.times) } else { String::new() };
            lines.push(if hit.is_stand_in() {
                format!("  {round}step {step} ({kind}): {} fails for want of memory", fault.function)
            } else {
                format!("  {round}step {step} ({kind}): {} returns {}{times}", fault.function, fault.error)
            });
            lines.extend(fired.call_path.iter().map(|caller| format!("    {caller}")));
        }
        lines
    }

    /// Gives the commands that make the disk and, by `command`, run the reproducer with arguments.
    fn run_line(&self, command: impl Fn(&str) -> String) -> Vec<String> {
        let Some(image) = &self.target().image else { return vec![format!("  {}", command(""))] };
        let mut lines: Vec<String> = image_command(image).into_iter().map(|line| format!("  {line}")).collect();
        let arguments = format!(" disk.img {}", self.target().disk_paths().join(" "));
        lines.push(format!("  {}     # LOST: what is on these disks", command(&arguments)));
        lines.push(disks_of_this_size(image));
        lines
    }
}

/// Says how to come by disks of an image's size.
fn disks_of_this_size(image: &ImageRecipe) -> String {
    let (count, mib) = (image.disks, image.size_mib);
    match image.kind {
        DiskKind::Memory => {
            format!("RAM disks of this size: boot with brd.rd_nr={count} brd.rd_size={}.", u64::from(mib) << 10)
        }
        DiskKind::Virtio => {
            format!("Virtio disks of this size: files of {mib} MiB, QEMU's -drive if=virtio,file=FILE.")
        }
    }
}

fn configuration(hook: &Hook) -> &'static str {
    match hook {
        Hook::Slab => "CONFIG_FAILSLAB",
        Hook::Page => "CONFIG_FAIL_PAGE_ALLOC",
        Hook::Bio => "CONFIG_FAIL_MAKE_REQUEST",
        Hook::Function(..) => "CONFIG_FAIL_FUNCTION",
    }
}
