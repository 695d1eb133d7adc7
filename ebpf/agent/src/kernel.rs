//! The kernel: which one it is and what it can do.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use fault_plan::{ErrorType, InjectableFunction};
use guest_protocol::{Feature, Hello, PROTOCOL_VERSION};
use nix::sys::utsname::uname;

use crate::{coverage, symbols::Symbols};

const NOTES: &str = "/sys/kernel/notes";
const INJECTABLE: &str = "/sys/kernel/debug/error_injection/list";
/// The detector of memory that nothing points to.
pub(crate) const KMEMLEAK: &str = "/sys/kernel/debug/kmemleak";
/// Switches the counters of live allocations on, where that may be.
pub(crate) const MEM_PROFILING: &str = "/proc/sys/vm/mem_profiling";
/// Folders in which tracefs may be mounted.
const TRACE_FOLDERS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
/// `NT_GNU_BUILD_ID` of `include/uapi/linux/elf.h`.
const NOTE_BUILD_ID: u32 = 3;

/// Sign that a feature is there.
enum Sign {
    /// A file or folder.
    Path(&'static str),
    /// A symbol of the kernel, compiled only with the feature.
    Symbol(&'static str),
}

/// Features by name, sign and the kernel option that brings them. Mirrors
/// `perf_event_attach_bpf_prog()` of `kernel/trace/bpf_trace.c` and `lockdep_hardirqs_on_prepare()`
/// of `kernel/locking/lockdep.c` (6.1 and 6.12).
const FEATURES: &[(&str, Sign, &str)] = &[
    ("kcov", Sign::Path("/sys/kernel/debug/kcov"), "CONFIG_KCOV"),
    ("error-injection", Sign::Path(INJECTABLE), "CONFIG_FUNCTION_ERROR_INJECTION"),
    ("modules", Sign::Path("/proc/modules"), "CONFIG_MODULES"),
    ("bpf-override", Sign::Symbol("bpf_override_return"), "CONFIG_BPF_KPROBE_OVERRIDE"),
    ("failslab", Sign::Path("/sys/kernel/debug/failslab"), "CONFIG_FAILSLAB, CONFIG_FAULT_INJECTION_DEBUG_FS"),
    (
        "fail-page-alloc",
        Sign::Path("/sys/kernel/debug/fail_page_alloc"),
        "CONFIG_FAIL_PAGE_ALLOC, CONFIG_FAULT_INJECTION_DEBUG_FS",
    ),
    ("types", Sign::Path("/sys/kernel/btf/vmlinux"), "CONFIG_DEBUG_INFO_BTF: only the workload's own calls can fail"),
    ("tracepoints", Sign::Symbol("perf_event_attach_bpf_prog"), "CONFIG_BPF_EVENTS"),
    ("kasan", Sign::Symbol("kasan_report"), "CONFIG_KASAN"),
    ("lockdep", Sign::Symbol("lockdep_hardirqs_on_prepare"), "CONFIG_PROVE_LOCKING"),
];

/// Asks the kernel what it is and has.
pub(crate) fn describe(symbols: &Symbols) -> Result<Hello> {
    let mut features: Vec<Feature> = FEATURES
        .iter()
        .map(|(name, sign, option)| {
            let present = match sign {
                Sign::Path(path) => Path::new(path).exists(),
                Sign::Symbol(symbol) => symbols.address(symbol).is_some(),
            };
            let missing = if present { String::new() } else { format!("the kernel was built without {option}") };
            Feature { name: (*name).to_owned(), missing }
        })
        .collect();
    features.push(Feature { name: "kmemleak".to_owned(), missing: kmemleak_defect() });
    features.push(Feature { name: "allocinfo".to_owned(), missing: allocinfo_defect() });
    features.push(Feature { name: "kcov-other-tasks".to_owned(), missing: coverage::others_defect() });
    let release = uname().context("uname failed")?.release().to_string_lossy().into_owned();
    let notes = fs::read(NOTES).with_context(|| format!("cannot read {NOTES}"))?;
    let Some(kernel_build_id) = build_id(&notes) else {
        bail!("{NOTES} holds no GNU build id: the kernel was linked without --build-id");
    };
    let protocol = PROTOCOL_VERSION;
    Ok(Hello { protocol, kernel_release: release, kernel_build_id, features, injectable: injectable() })
}

/// The functions that may fail now. A kernel without the list has none; the missing feature says
/// so.
pub(crate) fn injectable() -> Vec<InjectableFunction> {
    fs::read_to_string(INJECTABLE).map(|list| injectable_functions(&list)).unwrap_or_default()
}

/// The file `name` of tracefs, where there is one.
pub(crate) fn trace_file(name: &str) -> Option<PathBuf> {
    TRACE_FOLDERS.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.exists())
}

/// Why leaks cannot be looked for, if so.
pub(crate) fn kmemleak_defect() -> String {
    // A detector that is off refuses this with EPERM. One that is on stops looking by itself, which
    // is wanted: its scans would fall into executions at random. Mirrors `kmemleak_write()` of
    // `mm/kmemleak.c` (6.12).
    let outcome = OpenOptions::new().write(true).open(KMEMLEAK).and_then(|mut file| file.write_all(b"scan=off"));
    match outcome {
        Ok(()) => String::new(),
        Err(_) if Path::new(KMEMLEAK).exists() => "it is switched off: boot the kernel with kmemleak=on".to_owned(),
        Err(_) => "the kernel was built without CONFIG_DEBUG_KMEMLEAK".to_owned(),
    }
}

/// Why live allocations are not counted by source line, if so.
fn allocinfo_defect() -> String {
    let mode = fs::metadata(MEM_PROFILING).map(|metadata| metadata.permissions().mode());
    match mode {
        Ok(mode) if mode & 0o200 != 0 => String::new(),
        Ok(_) => "it is switched off: boot the kernel with sysctl.vm.mem_profiling=0".to_owned(),
        Err(_) => "the kernel was built without CONFIG_MEM_ALLOC_PROFILING".to_owned(),
    }
}

/// The GNU build id among ELF notes, in lower-case hexadecimal.
fn build_id(mut notes: &[u8]) -> Option<String> {
    loop {
        let (name_bytes, rest) = word(notes)?;
        let (content_bytes, rest) = word(rest)?;
        let (kind, rest) = word(rest)?;
        let (name, rest) = padded(rest, name_bytes)?;
        let (content, rest) = padded(rest, content_bytes)?;
        if kind == NOTE_BUILD_ID && name == b"GNU\0" {
            return Some(content.iter().map(|byte| format!("{byte:02x}")).collect());
        }
        notes = rest;
    }
}

fn word(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (word, rest) = bytes.split_first_chunk()?;
    Some((u32::from_le_bytes(*word), rest))
}

/// The first `length` bytes, and what follows their padding to four bytes; the last padding may be
/// missing.
fn padded(bytes: &[u8], length: u32) -> Option<(&[u8], &[u8])> {
    let length = usize::try_from(length).ok()?;
    let content = bytes.get(..length)?;
    Some((content, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// The functions in the kernel's list, lines of `name<TAB>TYPE` or `name [module]<TAB>TYPE`; types
/// that this agent does not know are left out. Mirrors `ei_seq_show()` of `lib/error-inject.c`
/// (6.12).
fn injectable_functions(list: &str) -> Vec<InjectableFunction> {
    let line = |line: &str| {
        let (symbol, kind) = line.split_once('\t')?;
        let name = symbol.split_whitespace().next()?.to_owned();
        Some(InjectableFunction { name, error_type: ErrorType::from_kernel(kind.trim())? })
    };
    list.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(name: &[u8], kind: u32, content: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for field in [name.len(), content.len(), kind as usize] {
            bytes.extend_from_slice(&u32::try_from(field).unwrap().to_le_bytes());
        }
        for part in [name, content] {
            bytes.extend_from_slice(part);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }

    #[test]
    fn the_build_id_is_found_among_other_notes() {
        let mut notes = note(b"Xen\0", 3, &[1, 2, 3, 4]);
        notes.extend(note(b"Linux\0", 0x101, &[7]));
        notes.extend(note(b"GNU\0", 3, &[0xab, 0x01, 0xff, 0x00, 0x10]));
        notes.extend(note(b"GNU\0", 5, &[9]));
        assert_eq!(build_id(&notes).as_deref(), Some("ab01ff0010"));
        assert_eq!(build_id(&note(b"Xen\0", 3, &[1])), None);
        assert_eq!(build_id(&note(b"GNU\0", 3, &[0xab; 20])[..30]), None, "a note that is cut off is none");
        assert_eq!(build_id(&[]), None);
    }

    #[test]
    fn the_list_of_functions_is_read() {
        let list = "should_failslab\tERRNO\nshould_fail_alloc_page\tTRUE\nxfs_probe [xfs]\tERRNO_NULL\n\
                    odd\t(unknown)\nno type\npage_pool_alloc_pages\tNULL\n";
        let functions = injectable_functions(list);
        let found: Vec<_> = functions.iter().map(|function| (function.name.as_str(), function.error_type)).collect();
        assert_eq!(
            found,
            [
                ("should_failslab", ErrorType::Errno),
                ("should_fail_alloc_page", ErrorType::True),
                ("xfs_probe", ErrorType::ErrnoNull),
                ("page_pool_alloc_pages", ErrorType::Null),
            ]
        );
    }
}
