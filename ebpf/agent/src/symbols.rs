//! The kernel's symbols, from `/proc/kallsyms`: names for addresses, addresses for names.
//!
//! Names of functions get numbers, the *name ids*: without the compiler's suffixes, sorted, from 1.
//! They depend on nothing but the kernel build.

use std::{
    collections::{HashMap, HashSet},
    fs,
};

use abi::{GRANULE_BYTES, NO_NAME};
use anyhow::{Context, Result, bail};
use fault_plan::base_name;

const KALLSYMS: &str = "/proc/kallsyms";

/// The symbols of the running kernel, without its modules'.
pub(crate) struct Symbols {
    /// The kernel's list.
    list: String,
    /// Symbols by name: where in `list` the name stands, and the address.
    by_name: Vec<(Span, u64)>,
    /// Functions by address, one for each address.
    functions: Vec<(u64, u32)>,
    /// The functions' base names, in sorted order: name `n` is at index `n - 1`.
    names: Vec<Span>,
    text_start: u64,
    text_end: u64,
}

/// A part of the list.
#[derive(Clone, Copy)]
struct Span {
    start: u32,
    end: u32,
}

impl Span {
    fn of(self, list: &str) -> &str {
        list.get(self.start as usize..self.end as usize).unwrap_or_default()
    }
}

impl Symbols {
    /// Reads the running kernel's symbols.
    ///
    /// # Errors
    ///
    /// The list cannot be read, hides its addresses or lacks the bounds of the text.
    pub(crate) fn read() -> Result<Self> {
        let list = fs::read_to_string(KALLSYMS)
            .with_context(|| format!("cannot read {KALLSYMS}: is /proc mounted and CONFIG_KALLSYMS set?"))?;
        Self::parse(list)
    }

    /// Reads lines of `address type name`; a fourth column names a module.
    pub(crate) fn parse(list: String) -> Result<Self> {
        let mut by_name = Vec::new();
        let mut code = Vec::new();
        let mut start = 0;
        for line in list.split_inclusive('\n') {
            if let Some((address, kind, name)) = symbol(line) {
                let from =
                    u32::try_from(start + address.len() + kind.len() + 2).context("the symbol list is too long")?;
                let to = from + u32::try_from(name.len()).context("the symbol list is too long")?;
                let address = u64::from_str_radix(address, 16)
                    .with_context(|| format!("{KALLSYMS} has the unknown line \"{}\"", line.trim()))?;
                by_name.push((Span { start: from, end: to }, address));
                if matches!(kind, "t" | "T" | "w" | "W") {
                    code.push((address, Span { start: from, end: from + base_length(name) }));
                }
            }
            start += line.len();
        }
        // Stable: of several symbols with one name or address the first counts, as for the kernel.
        by_name.sort_by_key(|(name, _)| name.of(&list));
        code.sort_by_key(|(address, _)| *address);
        code.dedup_by_key(|(address, _)| *address);
        let mut symbols = Self { list, by_name, functions: Vec::new(), names: Vec::new(), text_start: 0, text_end: 0 };
        symbols.find_text()?;
        code.retain(|(address, _)| (symbols.text_start..symbols.text_end).contains(address));
        symbols.number(&code)?;
        Ok(symbols)
    }

    fn find_text(&mut self) -> Result<()> {
        let (Some(start), Some(end)) = (self.address("_stext"), self.address("_etext")) else {
            bail!("{KALLSYMS} has no _stext or no _etext: set CONFIG_KALLSYMS and CONFIG_KALLSYMS_ALL");
        };
        if start == 0 {
            bail!("{KALLSYMS} hides its addresses: set the sysctl kernel.kptr_restrict to 0 and run as root");
        }
        if end <= start || end - start > 1 << 30 {
            bail!("{KALLSYMS} says that the kernel's text lies from {start:#x} to {end:#x}, which cannot be");
        }
        (self.text_start, self.text_end) = (start, end);
        Ok(())
    }

    /// Gives the functions' names their numbers.
    fn number(&mut self, code: &[(u64, Span)]) -> Result<()> {
        let list = &self.list;
        self.names = code.iter().map(|(_, name)| *name).collect();
        self.names.sort_by_key(|name| name.of(list));
        self.names.dedup_by_key(|name| name.of(list));
        for (address, name) in code {
            let id = self.name_id(name.of(&self.list)).context("a function has no number")?;
            self.functions.push((*address, id));
        }
        Ok(())
    }

    /// Address of the symbol called `name`, suffixes included.
    pub(crate) fn address(&self, name: &str) -> Option<u64> {
        let first = self.by_name.partition_point(|(known, _)| known.of(&self.list) < name);
        let (known, address) = self.by_name.get(first)?;
        (known.of(&self.list) == name).then_some(*address)
    }

    /// The functions that the compiler has made of the function called `name`, sorted by name: each
    /// with its whole name and its address. Their suffixes are those of clones, which do all that
    /// the function does: `.isra.N`, `.constprop.N`.
    pub(crate) fn clones(&self, name: &str) -> Vec<(&str, u64)> {
        let is_clone = |suffixes: &str| {
            let parts: Vec<_> = suffixes.split('.').skip(1).collect();
            let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let (pairs, rest) = parts.as_chunks();
            rest.is_empty()
                && pairs.iter().all(|[kind, number]| matches!(*kind, "isra" | "constprop") && is_number(number))
        };
        self.named(name).filter(|(known, _)| is_clone(&known[name.len()..])).collect()
    }

    /// Says whether there is a part of the function called `name`, such as `.part.0` or `.cold`.
    pub(crate) fn has_parts(&self, name: &str) -> bool {
        self.named(name).any(|(known, _)| known != name)
    }

    /// The symbols in the text called `name`, with or without suffixes.
    fn named(&self, name: &str) -> impl Iterator<Item = (&str, u64)> {
        let first = self.by_name.partition_point(|(known, _)| known.of(&self.list) < name);
        let symbols = self.by_name[first..].iter().map(|(known, address)| (known.of(&self.list), *address));
        symbols.take_while(move |(known, _)| known.starts_with(name)).filter(move |(known, address)| {
            let suffixes = &known[name.len()..];
            (suffixes.is_empty() || suffixes.starts_with('.')) && (self.text_start..self.text_end).contains(address)
        })
    }

    /// All names that symbols at `addresses` have, each with its address.
    pub(crate) fn names_at(&self, addresses: &HashSet<u64>) -> HashMap<&str, u64> {
        let at = self.by_name.iter().filter(|(_, address)| addresses.contains(address));
        at.map(|(name, address)| (name.of(&self.list), *address)).collect()
    }

    /// First address of the kernel's text.
    pub(crate) fn text_start(&self) -> u64 {
        self.text_start
    }

    /// First address after the kernel's text.
    pub(crate) fn text_end(&self) -> u64 {
        self.text_end
    }

    /// Number of the functions called `name`, whatever their suffixes. An alias has its function's.
    pub(crate) fn name_id(&self, name: &str) -> Option<u32> {
        match self.names.binary_search_by_key(&base_name(name), |known| known.of(&self.list)) {
            Ok(index) => u32::try_from(index + 1).ok(),
            Err(_) => {
                let address = self.address(name)?;
                let index = self.functions.binary_search_by_key(&address, |(start, _)| *start).ok()?;
                self.functions.get(index).map(|(_, id)| *id)
            }
        }
    }

    /// The name numbered `id`; "?" when there is none.
    pub(crate) fn name(&self, id: u32) -> &str {
        let index = (id as usize).checked_sub(1);
        index.and_then(|index| self.names.get(index)).map_or("?", |name| name.of(&self.list))
    }

    /// Base name of the function that a call returns to at `address`; "?" when there is none.
    pub(crate) fn caller(&self, address: u64) -> &str {
        // The call may be the function's last instruction.
        let inside = address.saturating_sub(1);
        if !(self.text_start..self.text_end).contains(&inside) {
            return self.name(NO_NAME);
        }
        let after = self.functions.partition_point(|(start, _)| *start <= inside);
        after.checked_sub(1).and_then(|index| self.functions.get(index)).map_or("?", |(_, id)| self.name(*id))
    }

    /// The name id of each [`GRANULE_BYTES`] of text.
    ///
    /// A granule in which two functions meet goes to the one with most bytes in it. That costs
    /// little: functions are aligned (in 6.12, 33 granules of assembly are shared by functions with
    /// different names, of 32,700 functions), and a call that returns is followed by more of its
    /// function.
    pub(crate) fn name_table(&self) -> Vec<u32> {
        let offset_of = |address: u64| usize::try_from(address - self.text_start).unwrap_or(usize::MAX);
        let text_bytes = offset_of(self.text_end);
        let mut granules = vec![NO_NAME; text_bytes.div_ceil(GRANULE)];
        // Bytes that the last function has in its last granule, when it owns it.
        let mut owned = 0;
        for (index, (address, id)) in self.functions.iter().enumerate() {
            let start = offset_of(*address);
            let end = self.functions.get(index + 1).map_or(text_bytes, |(next, _)| offset_of(*next));
            let (mut first, last) = (start / GRANULE, (end - 1) / GRANULE);
            let bytes = end.min((first + 1) * GRANULE) - start;
            if start % GRANULE != 0 && owned != 0 {
                first += usize::from(bytes <= owned);
            }
            if first <= last {
                granules[first..=last].fill(*id);
                owned = end - start.max(last * GRANULE);
            }
        }
        granules
    }
}

const GRANULE: usize = 1 << GRANULE_BYTES.trailing_zeros();
const _: () = assert!(GRANULE as u64 == GRANULE_BYTES);

/// The columns of a line for a symbol of the kernel itself.
fn symbol(line: &str) -> Option<(&str, &str, &str)> {
    let mut columns = line.trim_end_matches('\n').splitn(3, ' ');
    let (address, kind, name) = (columns.next()?, columns.next()?, columns.next()?);
    (!name.contains('\t')).then_some((address, kind, name))
}

fn base_length(name: &str) -> u32 {
    u32::try_from(base_name(name).len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const LIST: &str = "0000000000000000 A __per_cpu_start\n\
        ffffffff81000000 T _stext\n\
        ffffffff81000000 T _text\n\
        ffffffff81000010 t open_one.isra.0\n\
        ffffffff81000024 t open_one.cold\n\
        ffffffff81000026 T alloc\n\
        ffffffff81000026 T __alias_of_alloc\n\
        ffffffff81000040 t twice\n\
        ffffffff81000060 t twice\n\
        ffffffff81000070 T _etext\n\
        ffffffff82000000 D kmem_cache\n\
        ffffffffa0000000 t alloc\t[module]\n";

    fn symbols() -> Symbols {
        Symbols::parse(LIST.to_owned()).unwrap()
    }

    #[test]
    fn names_have_numbers_and_back() {
        let symbols = symbols();
        assert_eq!(symbols.address("kmem_cache"), Some(0xffff_ffff_8200_0000));
        assert_eq!(symbols.address("alloc"), Some(0xffff_ffff_8100_0026));
        assert_eq!(symbols.address("twice"), Some(0xffff_ffff_8100_0040));
        assert_eq!(symbols.address("allo"), None);
        for name in ["alloc", "open_one", "twice", "_stext"] {
            assert_eq!(symbols.name(symbols.name_id(name).unwrap()), name);
        }
        assert_eq!(symbols.name_id("open_one.part.3"), symbols.name_id("open_one"));
        assert_eq!(symbols.name_id("__alias_of_alloc"), symbols.name_id("alloc"));
        assert_eq!(symbols.name_id("kmem_cache"), None, "data calls nothing");
        assert_eq!(symbols.name(NO_NAME), "?");
        assert_eq!(symbols.name(99), "?");
    }

    #[test]
    fn a_function_is_found_with_its_clones() {
        let symbols = symbols();
        let clones = |name: &str| symbols.clones(name).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(clones("open_one"), ["open_one.isra.0"]);
        assert_eq!((clones("open"), clones("kmem_cache")), (vec![], vec![]));
        assert_eq!(clones("twice"), ["twice", "twice"]);
        assert!(symbols.has_parts("open_one") && !symbols.has_parts("alloc"));
        let at = symbols.names_at(&HashSet::from([0xffff_ffff_8100_0026]));
        assert_eq!(at.keys().copied().collect::<BTreeSet<_>>(), BTreeSet::from(["alloc", "__alias_of_alloc"]));
    }

    #[test]
    fn a_return_address_belongs_to_the_function_with_the_call() {
        let symbols = symbols();
        assert_eq!(symbols.caller(0xffff_ffff_8100_0026), "open_one", "the call was its last instruction");
        assert_eq!(symbols.caller(0xffff_ffff_8100_0027), "alloc");
        assert_eq!(symbols.caller(0xffff_ffff_8100_0070), "twice");
        assert_eq!(symbols.caller(0xffff_ffff_8100_0071), "?");
        assert_eq!(symbols.caller(0xffff_ffff_8100_0000), "?");
        assert_eq!(symbols.caller(0), "?");
    }

    #[test]
    fn a_granule_has_the_name_of_most_of_its_bytes() {
        let symbols = symbols();
        let table = symbols.name_table();
        assert_eq!(table.len(), 0x70 / 8);
        let names: Vec<_> = table.iter().map(|id| symbols.name(*id)).collect();
        let expected = [
            "_stext", "_stext", "open_one", "open_one", "open_one", "alloc", "alloc", "alloc", "twice", "twice",
            "twice", "twice", "twice", "twice",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn a_kernel_that_hides_its_addresses_is_refused() {
        let hidden = "0000000000000000 T _stext\n0000000000000000 T _etext\n";
        assert!(Symbols::parse(hidden.to_owned()).err().unwrap().to_string().contains("kptr_restrict"));
        assert!(Symbols::parse(String::new()).err().unwrap().to_string().contains("CONFIG_KALLSYMS"));
        assert!(Symbols::parse("zz T _stext\n".to_owned()).is_err());
    }
}
