//! Loads the BPF object and attaches its programs.

mod block_event;
mod cast;
mod ftrace;
mod names;

use abi::{Control, MAX_DISKS, NAME_BLOCK, NO_NAME};
use anyhow::{Context, Error, Result, anyhow};
use aya::{
    Ebpf, EbpfLoader,
    programs::{KProbe, ProgramError, RawTracePoint, TracePoint},
};
use fault_plan::{InjectableFunction, Scope};
use guest_protocol::{MAX_UNRELATED, Setup};

use self::cast::Cast;
use super::{chosen::Probed, functions, interrupts::Interrupts, types::Types};
use crate::{disk::number_of, symbols::Symbols};

/// The BPF programs of `ebpf/programs`, built by this crate's build script.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/programs.o"));

/// Programs that follow work items, and their events.
const WORK_PROGRAMS: [(&str, Option<&str>); 4] = [
    ("work_queued", Some("workqueue_queue_work")),
    ("work_started", Some("workqueue_execute_start")),
    ("work_ended", Some("workqueue_execute_end")),
    ("work_check", None),
];

const _: () = assert!(abi::MAX_UNRELATED == MAX_UNRELATED);

/// The field by which a task's scope is told.
const TASK_FLAGS: &str = "task_struct.flags";

/// The programs that [`load`] brought into the kernel.
pub(super) struct Loaded {
    pub(super) bpf: Ebpf,
    /// The control block to begin with.
    pub(super) control: Control,
}

pub(super) fn load(symbols: &Symbols, setup: &Setup, probed: &[Probed], types: &mut Types) -> Result<Loaded> {
    let mut table = symbols.name_table();
    for probed in probed {
        names::claim_entries(symbols, &mut table, probed)?;
    }
    let control = control(symbols, setup, probed, types)?;
    let blocks = table.len().div_ceil(NAME_BLOCK);
    let entries = u32::try_from(blocks).context("the kernel's text is too large")?;
    let mut object = OBJECT.to_vec();
    let mut loader = EbpfLoader::new();
    let cast = Cast::find();
    if let Some(cast) = &cast {
        cast.link(&mut object);
        loader.override_global("STACK_FRAME", &cast.frame, true);
    }
    let mut bpf = loader
        .btf(None)
        .map_max_entries("NAMES", entries)
        .load(&object)
        .context("cannot create the BPF maps: does the kernel have CONFIG_BPF_SYSCALL?")?;
    names::fill(&bpf, &table, blocks)?;
    if !setup.disks.is_empty() {
        block_event::check()?;
        let program: &mut TracePoint = program(&mut bpf, "block_write")?;
        program.load().map_err(load_error)?;
        program.attach("block", "block_bio_queue").context("cannot attach to the trace event block/block_bio_queue")?;
    }
    // Where nothing is armed, nobody waits for anything.
    if !probed.is_empty() {
        for (name, event) in WORK_PROGRAMS {
            let program: &mut RawTracePoint = program(&mut bpf, name)?;
            program.load().map_err(load_error)?;
            if let Some(event) = event {
                program.attach(event).with_context(|| format!("cannot attach to the trace event workqueue/{event}"))?;
            }
        }
    }
    let program: &mut KProbe = program(&mut bpf, "injectable")?;
    program.load().map_err(load_error)?;
    let held = ftrace::hold();
    let attached = attach(program, probed);
    let released = if held { ftrace::release() } else { Ok(()) };
    attached.and(released)?;
    Ok(Loaded { bpf, control })
}

/// Attaches `program` to all entries of the functions that are to be `probed`.
fn attach(program: &mut KProbe, probed: &[Probed]) -> Result<()> {
    for Probed { function: InjectableFunction { name, .. }, entries, .. } in probed {
        for entry in entries {
            // Without a name the kernel takes what else is an offset for the address:
            // `perf_kprobe_init()` of `kernel/trace/trace_event_perf.c` (6.12).
            program.attach("", *entry).with_context(|| {
                format!("cannot probe \"{name}\": is it on /sys/kernel/debug/error_injection/list?")
            })?;
        }
    }
    Ok(())
}

fn control(symbols: &Symbols, setup: &Setup, probed: &[Probed], types: &mut Types) -> Result<Control> {
    let Interrupts { per_cpu_offsets, preempt_offset } =
        if probed.is_empty() { Interrupts::default() } else { Interrupts::find(symbols)? };
    let mut scopes = setup.scopes.iter().fold(0, |scopes, scope| scopes | 1 << scope.number());
    // On a kernel that does not tell tasks apart the workload's own task is the only one in scope.
    let task_flags = types.field(TASK_FLAGS).map_or(0, |field| field.offset);
    if task_flags == 0 {
        scopes &= 1 << Scope::Workload.number();
    }
    let mut unrelated = [NO_NAME; MAX_UNRELATED];
    let known = setup.unrelated.iter().filter_map(|name| symbols.name_id(name));
    unrelated.iter_mut().zip(known).for_each(|(entry, name)| *entry = name);
    let mut disks = [0; MAX_DISKS];
    for (number, path) in disks.iter_mut().zip(&setup.disks) {
        *number = number_of(path)?;
    }
    let named = unrelated.iter().filter(|name| **name != NO_NAME);
    Ok(Control {
        armed: 0,
        thread: 0,
        process: std::process::id(),
        scopes,
        task_flags,
        generation: 0,
        rule_count: 0,
        sequence: 0,
        touched: 0,
        lost_sites: 0,
        guarded: 0,
        // Writes before now were not seen.
        dirty_overflow: 1,
        disks,
        sites: 0,
        preempt_cpu: 0,
        step: 0,
        reserved: 0,
        text_start: symbols.text_start(),
        text_end: symbols.text_end(),
        per_cpu_offsets,
        preempt_offset,
        preempt_count: 0,
        unrelated_set: named.fold(0, |set, name| set | abi::name_set(*name)),
        unrelated,
        functions: functions::table(probed)?,
    })
}

fn program<'a, T>(bpf: &'a mut Ebpf, name: &str) -> Result<&'a mut T>
where
    &'a mut T: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>,
{
    let program = bpf.program_mut(name).with_context(|| format!("the BPF object has no program \"{name}\""))?;
    <&mut T>::try_from(program).with_context(|| format!("the BPF program \"{name}\" is of another type"))
}

/// Says which option a kernel lacks that refuses a program.
fn load_error(error: ProgramError) -> Error {
    if let ProgramError::LoadError { verifier_log, .. } = &error
        && lacks_override(&verifier_log.to_string())
    {
        return anyhow!("the kernel was built without CONFIG_BPF_KPROBE_OVERRIDE: it lets no program fail a call");
    }
    Error::new(error).context("the kernel refuses a BPF program")
}

/// Says whether the verifier's log says that it has no such helper: `check_helper_call()` in
/// `kernel/bpf/verifier.c`.
fn lacks_override(log: &str) -> bool {
    log.lines().any(|line| {
        line.contains("bpf_override_return") && (line.contains("cannot use helper") || line.contains("unknown func"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_helper_is_told_from_other_complaints() {
        assert!(lacks_override(
            "12: (85) call bpf_override_return#58\nprogram of this type cannot use helper bpf_override_return#58\n"
        ));
        assert!(lacks_override("12: (85) call bpf_override_return#58\nunknown func bpf_override_return#58\n"));
        assert!(!lacks_override("12: (85) call bpf_override_return#58\n13: (95) exit\nunknown func bpf_loop#181\n"));
    }
}
