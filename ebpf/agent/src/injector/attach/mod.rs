//! Loads the BPF object and attaches its programs.

mod cast;

use std::{fs, path::Path};

use abi::{Control, GRANULE_BYTES, NAME_BLOCK, NO_NAME, PROBE_BYTES, block_event};
use anyhow::{Context, Error, Result, anyhow, bail};
use aya::{
    Ebpf, EbpfLoader,
    programs::{KProbe, ProgramError, TracePoint},
};
use fault_plan::InjectableFunction;

use self::cast::Cast;
use super::mapping::Mapping;
use crate::symbols::Symbols;

/// The BPF programs of `ebpf/programs`, built by this crate's build script.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/programs.o"));

/// Where tracefs may be mounted.
const TRACE_FOLDERS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
const BLOCK_EVENT: &str = "events/block/block_bio_queue/format";

/// Offset of `preempt_count` in `struct pcpu_hot` of `arch/x86/include/asm/current.h` (6.2 to 6.14).
const PCPU_HOT_PREEMPT_COUNT: u64 = 8;

/// Probes on it are guarded by the bootstrap cache.
const SLAB_FUNCTION: &str = "should_failslab";
/// Why a variable is not found.
const KALLSYMS_ALL: &str = "the kernel, built without CONFIG_KALLSYMS_ALL, tells no address";

/// What [`load`] brought into the kernel.
pub(super) struct Loaded {
    pub(super) bpf: Ebpf,
    /// What belongs into the control block.
    pub(super) control: Control,
}

pub(super) fn load(symbols: &Symbols, functions: &[InjectableFunction], disk: Option<u32>) -> Result<Loaded> {
    let mut table = symbols.name_table();
    for function in functions {
        claim_entry(symbols, &mut table, &function.name)?;
    }
    let control = control(symbols, functions, disk)?;
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
    fill_names(&bpf, &table, blocks)?;
    if disk.is_some() {
        check_block_event()?;
        let program: &mut TracePoint = program(&mut bpf, "block_write")?;
        program.load().map_err(load_error)?;
        program.attach("block", "block_bio_queue").context("cannot attach to the trace event block/block_bio_queue")?;
    }
    let program: &mut KProbe = program(&mut bpf, "injectable")?;
    program.load().map_err(load_error)?;
    for function in functions {
        program.attach(&function.name, 0).with_context(|| {
            format!("cannot probe \"{}\": is it on /sys/kernel/debug/error_injection/list?", function.name)
        })?;
    }
    Ok(Loaded { bpf, control })
}

/// Gives a function to be probed all granules that its probe can stand in.
fn claim_entry(symbols: &Symbols, table: &mut [u32], function: &str) -> Result<()> {
    let (Some(entry), Some(id)) = (symbols.address(function), symbols.name_id(function)) else {
        bail!("cannot probe \"{function}\": the kernel has no such symbol");
    };
    let text = symbols.text_start()..symbols.text_end();
    if !text.contains(&entry) {
        bail!("cannot probe \"{function}\": {entry:#x} is outside of the kernel's text");
    }
    let granule = |address: u64| usize::try_from((address - text.start) / GRANULE_BYTES).unwrap_or(usize::MAX);
    for owner in table.iter_mut().take(granule(entry + PROBE_BYTES) + 1).skip(granule(entry)) {
        *owner = id;
    }
    Ok(())
}

fn fill_names(bpf: &Ebpf, granules: &[u32], blocks: usize) -> Result<()> {
    let mut names = Mapping::<[u32; NAME_BLOCK]>::new(bpf, "NAMES", blocks)?;
    for (index, ids) in granules.chunks(NAME_BLOCK).enumerate() {
        let mut block = [NO_NAME; NAME_BLOCK];
        block[..ids.len()].copy_from_slice(ids);
        names.write(index, block);
    }
    Ok(())
}

/// What tells the calls that the kernel promises not to fail. Without it nothing may be probed.
#[derive(Debug, Default, PartialEq, Eq)]
struct Guards {
    bootstrap_pointer: u64,
    per_cpu_offsets: u64,
    preempt_offset: u64,
}

impl Guards {
    /// Those that probes on `functions` need.
    fn find(symbols: &Symbols, functions: &[InjectableFunction]) -> Result<Self> {
        if functions.is_empty() {
            return Ok(Self::default());
        }
        let mut guards = Self::default();
        if functions.iter().any(|function| function.name == SLAB_FUNCTION) {
            guards.bootstrap_pointer = symbols.address("kmem_cache").with_context(|| {
                format!("cannot probe \"{SLAB_FUNCTION}\": {KALLSYMS_ALL} for the cache that is never to fail")
            })?;
        }
        let offsets = symbols.address("__per_cpu_offset");
        // Linux 6.1 and 6.15 have a variable of its own for the preemption count.
        let hot = || symbols.address("pcpu_hot").map(|address| address + PCPU_HOT_PREEMPT_COUNT);
        let Some((offsets, preempt_offset)) = offsets.zip(symbols.address("__preempt_count").or_else(hot)) else {
            bail!("cannot tell calls of interrupts from the workload's: {KALLSYMS_ALL} for the preemption count");
        };
        (guards.per_cpu_offsets, guards.preempt_offset) = (offsets, preempt_offset);
        Ok(guards)
    }
}

fn control(symbols: &Symbols, functions: &[InjectableFunction], disk: Option<u32>) -> Result<Control> {
    let Guards { bootstrap_pointer, per_cpu_offsets, preempt_offset } = Guards::find(symbols, functions)?;
    let entry = |name: &str| symbols.address(name).unwrap_or(0);
    Ok(Control {
        armed: 0,
        thread: 0,
        generation: 0,
        rule_count: 0,
        sequence: 0,
        touched: 0,
        lost_sites: 0,
        guarded: 0,
        // What was written before now was not seen.
        dirty_overflow: 1,
        disk: disk.unwrap_or(0),
        sites: 0,
        preempt_cpu: 0,
        slab_entry: entry(SLAB_FUNCTION),
        page_entry: entry("should_fail_alloc_page"),
        folio_entry: entry("__filemap_add_folio"),
        text_start: symbols.text_start(),
        text_end: symbols.text_end(),
        bootstrap_pointer,
        bootstrap_cache: 0,
        per_cpu_offsets,
        preempt_offset,
        preempt_count: 0,
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

/// Whether the verifier's last words are that it has no such helper: `check_helper_call()` in `kernel/bpf/verifier.c`.
fn lacks_override(log: &str) -> bool {
    log.lines().any(|line| {
        line.contains("bpf_override_return") && (line.contains("cannot use helper") || line.contains("unknown func"))
    })
}

/// Compares the layout of the trace event with what the BPF program was built for.
fn check_block_event() -> Result<()> {
    let path = TRACE_FOLDERS.iter().map(|folder| Path::new(folder).join(BLOCK_EVENT)).find(|path| path.exists());
    let path = path.context(
        "the trace event block/block_bio_queue is missing: is tracefs mounted, and CONFIG_BLOCK and CONFIG_FTRACE set?",
    )?;
    let format = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    if let Some(field) = moved_field(&format) {
        bail!("this kernel's trace event block/block_bio_queue has its field \"{field}\" elsewhere than expected");
    }
    Ok(())
}

/// The field of the event that is not where it is expected.
fn moved_field(format: &str) -> Option<&'static str> {
    let fields: [(&str, usize, usize); 4] = [
        ("dev_t dev", block_event::DEVICE, 4),
        ("sector_t sector", block_event::SECTOR, 8),
        ("unsigned int nr_sector", block_event::SECTORS, 4),
        ("char rwbs[", block_event::OPERATION, 1),
    ];
    fields.into_iter().find_map(|(field, offset, bytes)| {
        let line = format.lines().find(|line| line.contains(&format!("field:{field}")));
        let found = line.is_some_and(|line| {
            line.contains(&format!("offset:{offset};")) && (bytes == 1 || line.contains(&format!("size:{bytes};")))
        });
        (!found).then_some(field)
    })
}

#[cfg(test)]
mod tests {
    use fault_plan::ErrorType;

    use super::*;

    const FORMAT: &str = "name: block_bio_queue\nID: 600\nformat:\n\
        \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\
        \n\
        \tfield:dev_t dev;\toffset:8;\tsize:4;\tsigned:0;\n\
        \tfield:sector_t sector;\toffset:16;\tsize:8;\tsigned:0;\n\
        \tfield:unsigned int nr_sector;\toffset:24;\tsize:4;\tsigned:0;\n\
        \tfield:char rwbs[8];\toffset:28;\tsize:8;\tsigned:0;\n";

    #[test]
    fn an_event_of_another_layout_is_noticed() {
        assert_eq!(moved_field(FORMAT), None);
        assert_eq!(moved_field(&FORMAT.replace("offset:16", "offset:12")), Some("sector_t sector"));
        assert_eq!(
            moved_field(&FORMAT.replace("size:4;\tsigned:0;\n\tfield:sector_t", "size:8;\n\tfield:sector_t")),
            Some("dev_t dev")
        );
        assert_eq!(moved_field(""), Some("dev_t dev"));
    }

    #[test]
    fn without_its_guards_nothing_is_probed() {
        let all = [
            "ffffffff81000000 T _stext",
            "ffffffff81000010 T should_failslab",
            "ffffffff81000020 T open_ctree",
            "ffffffff81000030 T _etext",
            "ffffffff82000000 D __per_cpu_offset",
            "0000000000036500 D pcpu_hot",
            "ffffffff84000000 B kmem_cache",
        ];
        let guards = |missing: &str, functions: &[&str]| {
            let list: Vec<_> =
                all.iter().filter(|line| !line.ends_with(missing)).map(|line| format!("{line}\n")).collect();
            let function = |name: &&str| InjectableFunction { name: (*name).to_owned(), error_type: ErrorType::Errno };
            let functions: Vec<_> = functions.iter().map(function).collect();
            Guards::find(&Symbols::parse(list.concat()).unwrap(), &functions)
        };
        let found = guards("none", &["should_failslab"]).unwrap();
        assert_eq!((found.bootstrap_pointer, found.preempt_offset), (0xffff_ffff_8400_0000, 0x36508));
        let refusal = |missing, functions: &[&str]| guards(missing, functions).unwrap_err().to_string();
        assert!(refusal("kmem_cache", &["open_ctree", "should_failslab"]).contains("CONFIG_KALLSYMS_ALL"));
        for missing in ["__per_cpu_offset", "pcpu_hot"] {
            assert!(refusal(missing, &["open_ctree"]).contains("CONFIG_KALLSYMS_ALL"), "{missing}");
            assert_eq!(guards(missing, &[]).unwrap(), Guards::default(), "nothing is probed");
        }
        assert_eq!(guards("kmem_cache", &["open_ctree"]).unwrap().bootstrap_pointer, 0);
    }

    #[test]
    fn a_missing_helper_is_told_from_other_complaints() {
        assert!(lacks_override(
            "12: (85) call bpf_override_return#58\nprogram of this type cannot use helper bpf_override_return#58\n"
        ));
        assert!(lacks_override("12: (85) call bpf_override_return#58\nunknown func bpf_override_return#58\n"));
        assert!(!lacks_override("12: (85) call bpf_override_return#58\n13: (95) exit\nunknown func bpf_loop#181\n"));
    }
}
