//! Coverage by file and function: what the workload runs, what faults add, what never runs.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{FileCoverage, FunctionCoverage, LineCoverage, Ran};

/// A folder matters for a target when at least one in so many points is called from it.
const SHARE: u64 = 20;

/// A place of the kernel's code that can report coverage.
#[derive(Clone, Copy, Debug)]
pub struct CoveredPlace<'a> {
    /// The function that holds it.
    pub function: &'a str,
    /// The file that this function is compiled from.
    pub unit: &'a str,
    /// The file that its line stands in; another one for what is inlined from a header.
    pub file: &'a str,
    /// The line.
    pub line: u32,
    /// Who ran it.
    pub ran: Ran,
}

/// Groups places by file and function: those of the folders from which at least one in twenty
/// points is called. `callers` has the points by the caller that says most.
#[must_use]
pub fn by_file(places: &[CoveredPlace<'_>], callers: &BTreeMap<String, u64>) -> Vec<FileCoverage> {
    let folders = folders(places, callers);
    let mut files: BTreeMap<&str, BTreeMap<&str, Counted>> = BTreeMap::new();
    for place in places.iter().filter(|place| folders.contains(folder(place.unit))) {
        let function = files.entry(place.unit).or_default().entry(place.function).or_default();
        function.count(place);
    }
    let file = |(file, functions): (&str, BTreeMap<&str, Counted>)| {
        let mut functions: Vec<_> = functions.into_iter().map(|(name, counted)| counted.finish(name)).collect();
        functions
            .sort_by(|left, right| first_line(left).cmp(&first_line(right)).then(left.function.cmp(&right.function)));
        FileCoverage { file: file.to_owned(), functions }
    };
    files.into_iter().map(file).collect()
}

/// Lines shown above a place, and below it.
const ABOVE: u32 = 4;
const BELOW: u32 = 1;

/// Adds the text of the lines of those functions that ran, and of the lines around. `read` gives
/// the text of a file of the source.
pub fn with_source(files: &mut [FileCoverage], read: &dyn Fn(&str) -> Option<String>) {
    for file in files {
        let ran = |function: &&mut FunctionCoverage| function.workload + function.faults > 0;
        if !file.functions.iter_mut().any(|function| ran(&function)) {
            continue;
        }
        let Some(text) = read(&file.file) else { continue };
        let texts: Vec<&str> = text.lines().collect();
        file.functions.iter_mut().filter(ran).for_each(|function| add_text(function, &texts));
    }
}

fn add_text(function: &mut FunctionCoverage, texts: &[&str]) {
    let ran: BTreeMap<u32, Option<Ran>> = function.lines.iter().map(|line| (line.line, line.ran)).collect();
    // What is inlined from elsewhere in the file stands far away.
    let near = |place: &u32| place.saturating_sub(ABOVE).max(1)..=place.saturating_add(BELOW);
    let shown: BTreeSet<u32> = ran.keys().flat_map(near).collect();
    let line = |line: u32| {
        let text = texts.get(line as usize - 1).map(|text| (*text).to_owned());
        LineCoverage { line, ran: ran.get(&line).copied().flatten(), text }
    };
    function.lines = shown.into_iter().map(line).collect();
}

fn first_line(function: &FunctionCoverage) -> u32 {
    function.lines.first().map_or(u32::MAX, |line| line.line)
}

fn folder(file: &str) -> &str {
    file.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// Finds the folders that matter.
fn folders<'a>(places: &[CoveredPlace<'a>], callers: &BTreeMap<String, u64>) -> BTreeSet<&'a str> {
    let units: BTreeMap<&str, &str> = places.iter().map(|place| (place.function, place.unit)).collect();
    let mut points: BTreeMap<&str, u64> = BTreeMap::new();
    for (caller, count) in callers {
        if let Some(unit) = units.get(caller.as_str()) {
            *points.entry(folder(unit)).or_default() += count;
        }
    }
    let all: u64 = points.values().sum();
    points.into_iter().filter(|(_, count)| count.saturating_mul(SHARE) >= all).map(|(folder, _)| folder).collect()
}

/// Places of one function.
#[derive(Default)]
struct Counted {
    /// Number of places by who ran them, in the order of [`Ran`].
    counts: [u32; 3],
    /// Of each line of its own file the one who ran it that says most.
    lines: BTreeMap<u32, Ran>,
}

impl Counted {
    fn count(&mut self, place: &CoveredPlace<'_>) {
        self.counts[place.ran as usize] += 1;
        if place.file == place.unit {
            let ran = self.lines.entry(place.line).or_insert(Ran::Never);
            *ran = (*ran).max(place.ran);
        }
    }

    fn finish(self, function: &str) -> FunctionCoverage {
        let [never, faults, workload] = self.counts;
        let lines =
            self.lines.into_iter().map(|(line, ran)| LineCoverage { line, ran: Some(ran), text: None }).collect();
        FunctionCoverage { function: function.to_owned(), workload, faults, never, lines }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_that_ran_get_their_source() {
        let place = |function, line, ran| CoveredPlace { function, unit: "fs/a.c", file: "fs/a.c", line, ran };
        let places = [place("ran", 6, Ran::Faults), place("ran", 40, Ran::Never), place("quiet", 2, Ran::Never)];
        let mut files = by_file(&places, &BTreeMap::from([("ran".to_owned(), 1)]));
        with_source(&mut files, &|file| (file == "fs/a.c").then(|| "1\n2\n3\n4\n5\n6\n7\n8\n".to_owned()));
        let [quiet, ran] = files[0].functions.as_slice() else { panic!("{files:?}") };
        assert!(quiet.lines.iter().all(|line| line.text.is_none()));
        let shown: Vec<_> = ran.lines.iter().map(|line| (line.line, line.ran, line.text.as_deref())).collect();
        assert_eq!(shown[0], (2, None, Some("2")));
        assert_eq!(shown[4], (6, Some(Ran::Faults), Some("6")));
        assert_eq!(shown.last(), Some(&(41, None, None)), "the source may be shorter than the kernel's");
        assert_eq!(shown.len(), 12, "far lines are left out: {shown:?}");
    }

    #[test]
    fn places_are_grouped_and_foreign_folders_left_out() {
        let place = |function, unit, file, line, ran| CoveredPlace { function, unit, file, line, ran };
        let places = [
            place("late", "fs/btrfs/a.c", "fs/btrfs/a.c", 90, Ran::Never),
            place("early", "fs/btrfs/a.c", "fs/btrfs/a.c", 7, Ran::Never),
            place("early", "fs/btrfs/a.c", "fs/btrfs/a.c", 7, Ran::Faults),
            place("early", "fs/btrfs/a.c", "include/linux/list.h", 3, Ran::Workload),
            place("kmalloc", "mm/slub.c", "mm/slub.c", 5, Ran::Workload),
        ];
        let callers = BTreeMap::from([("early".to_owned(), 40), ("kmalloc".to_owned(), 1), ("gone".to_owned(), 9)]);
        let files = by_file(&places, &callers);
        assert_eq!(files.len(), 1);
        let names: Vec<_> = files[0].functions.iter().map(|function| function.function.as_str()).collect();
        assert_eq!(names, ["early", "late"]);
        let early = &files[0].functions[0];
        assert_eq!((early.workload, early.faults, early.never), (1, 1, 1));
        assert_eq!(early.lines, [LineCoverage { line: 7, ran: Some(Ran::Faults), text: None }]);
    }
}
