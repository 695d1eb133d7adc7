//! Live allocations, by the source line that made them.
//!
//! The kernel counts them for each line where `CONFIG_MEM_ALLOC_PROFILING` is on. Its text in
//! `/proc/allocinfo` takes as long to make as an execution. So that is read once, for the names,
//! and the counters in the kernel's memory after each execution.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::Path,
};

use anyhow::{Context, Result, bail, ensure};
use guest_protocol::Growth;

use crate::{kernel::MEM_PROFILING, symbols::Symbols};

const NAMES: &str = "/proc/allocinfo";
const MEMORY: &str = "/dev/mem";
/// Bytes of `struct alloc_tag` of `include/linux/alloc_tag.h` (6.12), and where the pointer to its
/// counters stands.
const TAG_BYTES: usize = 40;
const COUNTERS_AT: usize = 32;
/// Bytes of `struct alloc_tag_counters`: bytes and calls.
const COUNTER_BYTES: usize = 16;
/// Where the kernel's image and all memory are mapped, without randomization. Mirrors
/// `__START_KERNEL_map` and `__PAGE_OFFSET_BASE_L4` of `arch/x86/include/asm/page_64_types.h`
/// (6.12).
const IMAGE: u64 = 0xffff_ffff_8000_0000;
const DIRECT_MAP: u64 = 0xffff_8880_0000_0000;
/// Most bytes of the area that the counters are in.
const MOST_BYTES: u64 = 8 << 20;
/// Files that are open while it is looked whether the counters are where they should be.
const HELD: u64 = 64;
/// The most lines that are told of one execution.
const MOST_LINES: usize = 64;

/// A source line that allocates.
struct Line {
    place: String,
    function: String,
    /// Offset of its counters in the area.
    at: usize,
    /// Bytes and calls when they were looked at last.
    bytes: u64,
    calls: u64,
}

/// The counters of all lines.
pub(crate) struct Allocations {
    memory: File,
    /// Physical address of the area that they are in.
    start: u64,
    area: Vec<u8>,
    lines: Vec<Line>,
}

impl Allocations {
    /// Switches the counters on; none where the kernel has none.
    ///
    /// # Errors
    ///
    /// The kernel has some, and they cannot be used.
    pub(crate) fn open(symbols: &Symbols) -> Result<Option<Self>> {
        if !Path::new(MEM_PROFILING).exists() {
            return Ok(None);
        }
        fs::write(MEM_PROFILING, "1")
            .with_context(|| format!("cannot write {MEM_PROFILING}: boot the kernel with sysctl.vm.mem_profiling=0"))?;
        let open = || File::open(MEMORY).with_context(|| format!("cannot open {MEMORY}"));
        // Counting has just begun. Something must be there to be counted.
        let held = (0..HELD).map(|_| open()).collect::<Result<Vec<_>>>()?;
        let names = fs::read_to_string(NAMES).with_context(|| format!("cannot read {NAMES}"))?;
        let memory = open()?;
        let named: Vec<_> = names.lines().filter_map(line).collect();
        let mut allocations = Self::find(symbols, memory, &named)?;
        allocations.growth()?;
        drop(held);
        // The text and the counters are of two moments: they differ a little.
        let pairs = || allocations.lines.iter().zip(&named).map(|(line, (_, told, ..))| (line.calls, *told));
        let told: u64 = pairs().map(|(_, told)| told).sum();
        let off = pairs().fold(0_u64, |off, (calls, told)| off.saturating_add(calls.abs_diff(told)));
        ensure!(told >= HELD && off < told / 2, "the counters behind {NAMES} are not where they should be");
        Ok(Some(allocations))
    }

    /// Finds the counters of the lines `named`. A tag stands for each, in the same order.
    fn find(symbols: &Symbols, memory: File, named: &[Named<'_>]) -> Result<Self> {
        let address = |name: &str| symbols.address(name).with_context(|| format!("the kernel has no {name}"));
        let (first, end) = (address("__start_alloc_tags")?, address("__stop_alloc_tags")?);
        let mut offset = [0; 8];
        read(&memory, address("__per_cpu_offset")? - IMAGE, &mut offset)?;
        let processor = u64::from_le_bytes(offset);
        let count = usize::try_from(end - first)? / TAG_BYTES;
        ensure!(named.len() >= count && count > 0, "{NAMES} has {} lines, and there are {count} tags", named.len());
        let mut tags = vec![0; count * TAG_BYTES];
        read(&memory, first - IMAGE, &mut tags)?;
        let counters: Vec<u64> = tags.chunks_exact(TAG_BYTES).filter_map(|tag| word(tag, COUNTERS_AT)).collect();
        let (Some(least), Some(most)) = (counters.iter().min(), counters.iter().max()) else { bail!("no counters") };
        let span = most - least + COUNTER_BYTES as u64;
        ensure!(span <= MOST_BYTES, "the counters of {NAMES} lie {span} bytes apart");
        let start = processor.wrapping_add(*least).wrapping_sub(DIRECT_MAP);
        let at = |counter: &u64| usize::try_from(counter - least).unwrap_or_default();
        let lines = named.iter().zip(&counters).map(|((_, _, place, function), counter)| Line {
            place: (*place).to_owned(),
            function: (*function).to_owned(),
            at: at(counter),
            bytes: 0,
            calls: 0,
        });
        Ok(Self { memory, start, area: vec![0; usize::try_from(span)?], lines: lines.collect() })
    }

    /// The lines of which more is in use than when they were looked at last, the most bytes first.
    ///
    /// # Errors
    ///
    /// The kernel's memory cannot be read.
    pub(crate) fn growth(&mut self) -> Result<Vec<Growth>> {
        read(&self.memory, self.start, &mut self.area)?;
        let mut grown = Vec::new();
        for line in &mut self.lines {
            let (Some(bytes), Some(calls)) = (word(&self.area, line.at), word(&self.area, line.at + 8)) else {
                continue;
            };
            // As they wrap, a difference of a counter is a number with a sign.
            let more = |now: u64, before: u64| now.wrapping_sub(before).cast_signed();
            let (more_bytes, more_calls) = (more(bytes, line.bytes), more(calls, line.calls));
            (line.bytes, line.calls) = (bytes, calls);
            if let (Ok(bytes @ 1..), Ok(calls @ 1..)) = (u64::try_from(more_bytes), u32::try_from(more_calls)) {
                grown.push(Growth { place: line.place.clone(), function: line.function.clone(), calls, bytes });
            }
        }
        grown.sort_by_key(|growth| std::cmp::Reverse(growth.bytes));
        grown.truncate(MOST_LINES);
        Ok(grown)
    }
}

fn read(memory: &File, address: u64, to: &mut [u8]) -> Result<()> {
    memory.read_exact_at(to, address).with_context(|| format!("cannot read {MEMORY} at {address:#x}"))
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Bytes, calls, place and function.
type Named<'a> = (i64, u64, &'a str, &'a str);

/// Reads a line of [`NAMES`] that is the kernel's own, no module's. Mirrors `alloc_tag_to_text()`
/// of `lib/alloc_tag.c` and `codetag_to_text()` of `lib/codetag.c` (6.12).
fn line(text: &str) -> Option<Named<'_>> {
    let mut words = text.split_whitespace();
    let (bytes, calls) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let place = words.next()?;
    Some((bytes, calls, place, words.next()?.strip_prefix("func:")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_kernel_are_read() {
        let text = "allocinfo - version: 1.0\n#     <size>  <calls> <tag info>\n\
                    \x20       4096        1 arch/x86/events/rapl.c:715 func:init_rapl_pmus \n\
                    \x20          0        0 drivers/a.c:7 [slots] func:probe \n";
        let lines: Vec<_> = text.lines().filter_map(line).collect();
        assert_eq!(lines, [(4096, 1, "arch/x86/events/rapl.c:715", "init_rapl_pmus")]);
    }

    #[test]
    fn what_grew_is_told_once() {
        let path = std::env::temp_dir().join(format!("agent-allocations-{}", std::process::id()));
        let count = |values: [u64; 4]| {
            let bytes: Vec<u8> = values.into_iter().flat_map(u64::to_le_bytes).collect();
            fs::write(&path, bytes).unwrap();
        };
        let line = |at| Line { place: format!("a.c:{at}"), function: "f".to_owned(), at, bytes: 0, calls: 0 };
        count([0, 0, 64, 2]);
        let memory = File::open(&path).unwrap();
        let mut allocations = Allocations { memory, start: 0, area: vec![0; 32], lines: vec![line(0), line(16)] };
        let told = |growth: Vec<Growth>| growth.into_iter().map(|one| (one.place, one.bytes)).collect::<Vec<_>>();
        assert_eq!(told(allocations.growth().unwrap()), [("a.c:16".to_owned(), 64)]);
        assert_eq!(told(allocations.growth().unwrap()), []);
        count([8, 1, 32, 1]);
        assert_eq!(told(allocations.growth().unwrap()), [("a.c:0".to_owned(), 8)]);
        fs::remove_file(&path).unwrap();
    }
}
