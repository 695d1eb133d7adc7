//! Where in the kernel's source each place is that can report coverage.
//!
//! Only the debug information tells that, which is several times the kernel. So it is read once,
//! when the kernel is built, and written down as text:
//!
//! ```text
//! fs/btrfs/super.c          the files, one a line
//! include/linux/slab.h
//!                           an empty line
//! 0 0 812                   unit, file and line of each place, in order of the indices; files are
//! 813                       numbered from 0, and what is as in the line before is left out at the
//! 1 690                     front
//! ?                         a place of which nothing is known
//! ```

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
};

use addr2line::Context;
use gimli::{Dwarf, EndianSlice, LittleEndian};
use object::{Object as _, ObjectSection as _};

use crate::{
    CallSites,
    elf::{self, ElfError},
};

/// Line of a place of which nothing is known.
const UNKNOWN: &str = "?";

/// Place in the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'places> {
    /// File that is compiled there, relative to the source's folder. It has the function that the
    /// place is in, and its folder is that of the part of the kernel.
    pub unit: &'places str,
    /// File with the line: a header, where that function has another one inlined.
    pub file: &'places str,
    /// Number of the line, from 1.
    pub line: u32,
}

/// The places of all coverage of one kernel, by the indices of its [`CallSites`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    files: Vec<String>,
    places: Vec<Option<Numbers>>,
}

/// A place, with files by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Numbers {
    unit: u32,
    file: u32,
    line: u32,
}

type Reader<'elf> = EndianSlice<'elf, LittleEndian>;

impl Places {
    /// Finds them in `elf`, a `vmlinux` with its debug information.
    ///
    /// # Errors
    /// When `elf` is damaged, for another machine, stripped, or not instrumented.
    pub fn from_elf(elf: &[u8]) -> Result<Self, ElfError> {
        let sites = CallSites::from_elf(elf)?;
        let file = elf::parse(elf)?;
        if file.section_by_name(".debug_line").is_none() {
            return Err(ElfError::NoDebugInformation);
        }
        let dwarf = Dwarf::load(|section| {
            let data = file.section_by_name(section.name()).map(|section| section.data()).transpose()?;
            Ok::<_, object::Error>(EndianSlice::new(data.unwrap_or_default(), LittleEndian))
        })?;
        let context = Context::from_dwarf(dwarf)?;
        let mut places = Self::default();
        let mut numbers = HashMap::new();
        for pc in sites.iter() {
            let place = places.find(&context, pc - 1, &mut numbers)?;
            places.places.push(place);
        }
        Ok(places)
    }

    /// Finds the place of the instruction with the byte at `address`.
    fn find<'elf>(
        &mut self,
        context: &Context<Reader<'elf>>,
        address: u64,
        numbers: &mut HashMap<(&'elf [u8], String), u32>,
    ) -> Result<Option<Numbers>, gimli::Error> {
        let Some(unit) = context.find_dwarf_and_unit(address).skip_all_loads() else { return Ok(None) };
        let Some(location) = context.find_location(address)? else { return Ok(None) };
        let (Some(name), Some(file), Some(line)) = (unit.name, location.file, location.line) else { return Ok(None) };
        let folder = unit.comp_dir.map_or(&[][..], |folder| folder.slice());
        let mut number = |path: String| {
            *numbers.entry((folder, path)).or_insert_with_key(|(folder, path)| {
                let path = relative(path, &String::from_utf8_lossy(folder));
                let known = self.files.iter().position(|file| *file == path);
                let index = known.unwrap_or_else(|| {
                    self.files.push(path);
                    self.files.len() - 1
                });
                u32::try_from(index).unwrap_or(u32::MAX)
            })
        };
        let (unit, file) = (number(name.to_string_lossy().into_owned()), number(file.to_owned()));
        Ok(Some(Numbers { unit, file, line }))
    }

    /// The place with this index; `None` when nothing is known of it.
    #[must_use]
    pub fn get(&self, index: u32) -> Option<Place<'_>> {
        let Numbers { unit, file, line } = (*self.places.get(index as usize)?)?;
        let name = |number: u32| self.files.get(number as usize).map(String::as_str);
        Some(Place { unit: name(unit)?, file: name(file)?, line })
    }

    /// Counts the places with these indices by the folder of the part of the kernel that they are
    /// in, such as `fs/btrfs`. Those of which nothing is known are in "?".
    pub fn count_by_folder(&self, indices: impl IntoIterator<Item = u32>) -> BTreeMap<&str, u64> {
        let mut counts = BTreeMap::new();
        for index in indices {
            let folder =
                self.get(index).map_or(UNKNOWN, |place| place.unit.rsplit_once('/').map_or(".", |(folder, _)| folder));
            *counts.entry(folder).or_default() += 1;
        }
        counts
    }

    /// Gives the number of places, known or not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Says whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Gives them as text.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = self.files.iter().flat_map(|file| [file, "\n"]).collect::<String>() + "\n";
        let mut last = None;
        for place in &self.places {
            let Some(Numbers { unit, file, line }) = *place else {
                text.push_str("?\n");
                continue;
            };
            // Writing to a string cannot fail.
            let _ = match last {
                Some((last_unit, last_file)) if last_unit == unit && last_file == file => writeln!(text, "{line}"),
                Some((last_unit, _)) if last_unit == unit => writeln!(text, "{file} {line}"),
                _ => writeln!(text, "{unit} {file} {line}"),
            };
            last = Some((unit, file));
        }
        text
    }

    /// Reads them from `text`; `None` when it is of another form.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (names, numbers) = text.split_once("\n\n")?;
        let files: Vec<String> = names.lines().map(str::to_owned).collect();
        let mut last = None;
        let mut places = Vec::new();
        for line in numbers.lines() {
            if line == UNKNOWN {
                places.push(None);
                continue;
            }
            let words = line.split(' ').map(|word| word.parse().ok()).collect::<Option<Vec<u32>>>()?;
            let (last_unit, last_file) = last.unzip();
            let (unit, file, line) = match *words.as_slice() {
                [line] => (last_unit?, last_file?, line),
                [file, line] => (last_unit?, file, line),
                [unit, file, line] => (unit, file, line),
                _ => return None,
            };
            if unit.max(file) as usize >= files.len() {
                return None;
            }
            last = Some((unit, file));
            places.push(Some(Numbers { unit, file, line }));
        }
        Some(Self { files, places })
    }
}

/// Gives `path` relative to the source's folder. It is relative to the folder `compiled_in`, or
/// begins with it, and that folder is at or below the source's. Where a compiler's cache had the
/// object, the folder is one of an earlier build.
pub(crate) fn relative(path: &str, compiled_in: &str) -> String {
    let path = path.strip_prefix(compiled_in).filter(|rest| rest.starts_with('/')).map_or(path, |rest| &rest[1..]);
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" if parts.is_empty() => parts.push(part),
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_elf;

    fn places() -> Places {
        let at = |unit, file, line| Some(Numbers { unit, file, line });
        Places {
            files: ["fs/btrfs/super.c", "include/linux/slab.h", "mm/slub.c"].map(str::to_owned).to_vec(),
            places: vec![at(0, 0, 812), at(0, 0, 813), at(0, 1, 690), None, at(0, 1, 690), at(2, 2, 5), at(2, 1, 690)],
        }
    }

    #[test]
    fn text_and_back() {
        let text = places().to_text();
        assert!(text.ends_with("\n\n0 0 812\n813\n1 690\n?\n690\n2 2 5\n1 690\n"), "{text}");
        let again = Places::parse(&text).unwrap();
        assert_eq!(again, places());
        let header = Place { unit: "fs/btrfs/super.c", file: "include/linux/slab.h", line: 690 };
        assert_eq!((again.get(2), again.get(3), again.get(7)), (Some(header), None, None));
        assert_eq!((again.len(), again.is_empty()), (7, false));
        let counts = again.count_by_folder(1..9);
        assert_eq!(counts, BTreeMap::from([("?", 3), ("fs/btrfs", 3), ("mm", 2)]));
    }

    #[test]
    fn text_of_another_form_is_refused() {
        let text = places().to_text();
        for (from, to) in [("0 0 812", "812"), ("0 0 812", "0 812"), ("2 2 5", "3 2 5"), ("\n?", "\n-"), ("\n\n", "\n")]
        {
            assert_eq!(Places::parse(&text.replacen(from, to, 1)), None, "{from} and {to}");
        }
    }

    #[test]
    fn paths_are_relative_to_the_source() {
        let relative = |path| relative(path, "/tmp/b/source/out");
        assert_eq!(relative("../fs/btrfs/super.c"), "fs/btrfs/super.c");
        assert_eq!(relative("/tmp/b/source/out/../fs/./btrfs/x/../super.c"), "fs/btrfs/super.c");
        assert_eq!(relative("/tmp/b/source/out/arch/x86/lib/inat-tables.c"), "arch/x86/lib/inat-tables.c");
        assert_eq!(relative("/tmp/b/source/outer/a.c"), "/tmp/b/source/outer/a.c");
        assert_eq!(relative("/usr/include/a.h"), "/usr/include/a.h");
    }

    #[test]
    fn a_kernel_without_debug_information_is_refused() {
        assert!(matches!(Places::from_elf(&test_elf::kernel()), Err(ElfError::NoDebugInformation)));
        assert!(matches!(Places::from_elf(b"no ELF"), Err(ElfError::Malformed(_))));
    }
}
