//! The files that steps made, and what the kernel said of them.
//!
//! Only what the kernel promised counts. `fsync` that returns 0 promises all that was written to
//! the file before. `syncfs` and a freeze promise that of all files, as long as no fault fired
//! before: they tell of no older error. An unmount cannot tell of any, so it promises only what no
//! fault has touched. After an error that was told, what was not on the disk is given up.

use std::collections::{BTreeMap, BTreeSet};

use guest_protocol::{
    Fallocate, RelativePath, Step, StepResult,
    pattern::{byte_at, shift_of},
};

use super::file::FileModel;

/// The owner of a path of which nobody knows what it leads to.
const NOBODY: usize = usize::MAX;

/// A mount, as a step made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mounted {
    pub(super) fstype: String,
    pub(super) options: String,
}

/// A file that still has a name.
pub(super) struct Named<'a> {
    pub(super) file: &'a FileModel,
    /// The paths that may lead to it, and to no other file.
    pub(super) paths: Vec<&'a str>,
    /// True when there are no others.
    pub(super) all: bool,
}

/// The files of one execution.
#[derive(Debug, Default)]
pub(super) struct Model {
    files: Vec<FileModel>,
    /// The names of files, as far as nothing failed.
    names: BTreeMap<String, usize>,
    /// The files that a path may ever have led to.
    owners: BTreeMap<String, BTreeSet<usize>>,
    /// The last mount that worked.
    pub(super) mounted: Option<Mounted>,
    /// Step in which the first fault fired; the end without one.
    first_fault: u32,
    /// True when the file system was stopped, and not mounted again.
    stopped: bool,
}

impl Model {
    /// The model of an execution whose first fault fired in this step, if one did.
    pub(super) fn new(first_fault: Option<u32>) -> Self {
        Self { first_fault: first_fault.unwrap_or(u32::MAX), ..Self::default() }
    }

    /// The files that still have a name.
    pub(super) fn files(&self) -> impl Iterator<Item = Named<'_>> {
        let named: BTreeSet<usize> = self.names.values().copied().collect();
        named.into_iter().map(|number| {
            let paths = self.owners.iter().filter(move |(_, owners)| owners.contains(&number));
            let (own, shared): (Vec<_>, Vec<_>) = paths.partition(|(_, owners)| owners.len() == 1);
            let paths = own.into_iter().map(|(path, _)| path.as_str()).collect();
            Named { file: &self.files[number], paths, all: shared.is_empty() }
        })
    }

    /// Takes in that the `number`-th step had this result; 0 is for those of the set-up, which no
    /// fault touches. `pattern` is its number in its own sequence.
    pub(super) fn step(&mut self, step: &Step, number: u32, pattern: u32, result: StepResult) {
        let worked = match result {
            StepResult::Done(_) => true,
            StepResult::Failed(_) => false,
            StepResult::Skipped => return,
        };
        match step {
            Step::Mount { fstype, options, .. } if worked => {
                self.mounted = Some(Mounted { fstype: fstype.clone(), options: options.clone() });
                self.stopped = false;
            }
            Step::Shutdown { .. } => self.stopped = true,
            Step::Umount {} if worked => self.unmounted(number),
            Step::Sync {} if worked => self.synced(number, self.first_fault >= number),
            // freeze_super() of fs/super.c, 6.12, hears of no failed write: sync_inodes_sb()
            // returns nothing.
            Step::Freeze {} if worked => self.synced(number, self.first_fault > number),
            Step::Fsync { path } => self.fsynced(path, number, worked),
            _ => self.changed(step, number, pattern, (worked, result)),
        }
    }

    fn unmounted(&mut self, number: u32) {
        let untouched = self.first_fault > number && !self.stopped;
        self.synced(number, untouched);
        if !untouched {
            self.files.iter_mut().for_each(FileModel::give_up);
        }
    }

    fn synced(&mut self, number: u32, promised: bool) {
        if promised && !self.stopped {
            self.files.iter_mut().for_each(|file| file.acknowledge(number));
        }
    }

    fn fsynced(&mut self, path: &RelativePath, number: u32, worked: bool) {
        let Some(file) = self.file(path) else { return };
        if worked { file.acknowledge(number) } else { file.give_up() }
    }

    /// Takes in a step that changes a file or a name.
    fn changed(&mut self, step: &Step, number: u32, pattern: u32, (worked, result): (bool, StepResult)) {
        match step {
            Step::Create { path } => self.created(path.as_str(), worked),
            Step::Write { path, offset, length, sync, .. } => {
                let whole = worked && result == StepResult::Done(i64::from(*length));
                let Some(file) = self.file(path) else { return };
                let promised = *sync && whole && file.is_acknowledged();
                let end = offset.saturating_add(u64::from(*length));
                file.change(whole, end, |content| fill(content, *offset, *length, shift_of(pattern)));
                if promised {
                    file.acknowledge(number);
                } else if *sync && !worked {
                    // The error was told: the next fsync returns 0.
                    file.give_up();
                }
            }
            Step::MmapWrite { path, offset, length } => {
                let Some(file) = self.file(path) else { return };
                let end = offset.saturating_add(u64::from(*length));
                file.change(worked, end, |content| fill(content, *offset, *length, shift_of(pattern)));
            }
            Step::Truncate { path, length } => {
                let Some(file) = self.file(path) else { return };
                file.change(worked, *length, |content| content.resize(index(*length), 0));
            }
            Step::Fallocate { path, mode, offset, length } => {
                let Some(file) = self.file(path) else { return };
                // A part that moves may have moved half way, and moves what is in doubt.
                let moves = matches!(mode, Fallocate::CollapseRange | Fallocate::InsertRange);
                if moves && !(worked && file.is_known()) {
                    return file.forget();
                }
                let end = offset.saturating_add(*length);
                file.change(worked, end, |content| allocate(content, *mode, index(*offset), index(*length)));
            }
            Step::Reflink { from, to, from_offset, to_offset, length } => {
                let known = self.file(from).filter(|from| from.is_known()).map(|from| from.now().to_vec());
                let Some(file) = self.file(to) else { return };
                let Some(from) = known else { return file.forget() };
                let part = from.get(index(*from_offset)..).unwrap_or_default();
                let part = if *length == 0 { part } else { part.get(..index(*length)).unwrap_or(part) };
                let end = to_offset.saturating_add(part.len() as u64);
                file.change(worked, end, |content| put(content, index(*to_offset), part));
            }
            Step::Rename { from, to } => self.renamed(from.as_str(), to.as_str(), worked),
            Step::Link { from, to } => self.linked(from.as_str(), to.as_str(), worked),
            Step::Unlink { path } | Step::SubvolumeDelete { path } => self.removed(path.as_str(), worked),
            // Only the file system knows what a request does.
            Step::Ioctl(request) => {
                self.forget(request.path.as_ref().map(RelativePath::as_str));
                if let Some(file) = &request.file {
                    self.forget(Some(file.path.as_str()));
                }
            }
            _ => {}
        }
    }

    fn file(&mut self, path: &RelativePath) -> Option<&mut FileModel> {
        let number = *self.names.get(path.as_str())?;
        self.files.get_mut(number)
    }

    fn own(&mut self, path: &str, number: usize) {
        self.owners.entry(path.to_owned()).or_default().insert(number);
    }

    fn created(&mut self, path: &str, worked: bool) {
        if !worked {
            return self.own(path, NOBODY);
        }
        // It is made with O_EXCL: what another step failed to make was not there.
        if let Some(owners) = self.owners.get_mut(path) {
            owners.remove(&NOBODY);
        }
        self.files.push(FileModel::new());
        let number = self.files.len() - 1;
        self.names.insert(path.to_owned(), number);
        self.own(path, number);
    }

    fn linked(&mut self, from: &str, to: &str, worked: bool) {
        let Some(number) = self.names.get(from).copied() else { return self.own(to, NOBODY) };
        self.own(to, number);
        if worked {
            self.names.insert(to.to_owned(), number);
        }
    }

    /// Takes in that a file, or a folder with all that is in it, has another name.
    fn renamed(&mut self, from: &str, to: &str, worked: bool) {
        for (path, number) in self.below(from) {
            let new = format!("{to}{}", &path[from.len()..]);
            // What was there before is gone, or is not: so nothing is said of it.
            if let Some(replaced) = self.names.get(&new).copied() {
                self.files[replaced].forget();
            }
            self.own(&new, number);
            if worked {
                self.names.remove(&path);
                self.names.insert(new, number);
            }
        }
        if !self.names.contains_key(to) {
            self.own(to, NOBODY);
        }
    }

    /// Takes in that a file, or a folder with all that is in it, is gone, or may be.
    fn removed(&mut self, path: &str, worked: bool) {
        if !worked {
            return self.forget(Some(path));
        }
        for (path, _) in self.below(path) {
            self.names.remove(&path);
        }
    }

    /// Takes in that nobody knows what the files at this path and below it hold, or all without a
    /// path.
    fn forget(&mut self, path: Option<&str>) {
        let Some(path) = path else { return self.files.iter_mut().for_each(FileModel::forget) };
        for (_, number) in self.below(path) {
            self.files[number].forget();
        }
    }

    /// The files at this path and below it.
    fn below(&self, path: &str) -> Vec<(String, usize)> {
        let is_below =
            |name: &str| name.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        self.names.iter().filter(|(name, _)| is_below(name)).map(|(name, number)| (name.clone(), *number)).collect()
    }
}

/// `bytes` as an index.
fn index(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX >> 1)
}

/// Writes the pattern of this shift.
fn fill(content: &mut Vec<u8>, offset: u64, length: u32, shift: usize) {
    let start = index(offset);
    let bytes: Vec<u8> = (start..start + length as usize).map(|at| byte_at(at, shift)).collect();
    put(content, start, &bytes);
}

fn put(content: &mut Vec<u8>, start: usize, bytes: &[u8]) {
    let end = start + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[start..end].copy_from_slice(bytes);
}

/// Does what `fallocate` does to what a file holds.
fn allocate(content: &mut Vec<u8>, mode: Fallocate, start: usize, length: usize) {
    let (end, size) = (start.saturating_add(length), content.len());
    match mode {
        Fallocate::Allocate | Fallocate::Unshare => content.resize(size.max(end), 0),
        Fallocate::KeepSize => {}
        Fallocate::PunchHole => content[start.min(size)..end.min(size)].fill(0),
        Fallocate::ZeroRange => {
            content.resize(size.max(end), 0);
            content[start..end].fill(0);
        }
        Fallocate::CollapseRange => drop(content.drain(start.min(size)..end.min(size))),
        Fallocate::InsertRange => drop(content.splice(start.min(size)..start.min(size), vec![0; length])),
    }
}

#[cfg(test)]
mod tests {
    use guest_protocol::LossKind::{Lost, Stale};

    use super::*;

    const DONE: StepResult = StepResult::Done(0);
    const FAILED: StepResult = StepResult::Failed(5);

    fn path(path: &str) -> RelativePath {
        path.parse().unwrap()
    }

    fn write(length: u32) -> (Step, StepResult) {
        let step = Step::Write { path: path("d/f"), offset: 0, length, direct: false, sync: false };
        (step, StepResult::Done(length.into()))
    }

    /// The model of these steps, with a fault in that one.
    fn model(first_fault: Option<u32>, steps: &[(Step, StepResult)]) -> Model {
        let mut model = Model::new(first_fault);
        for ((step, result), number) in steps.iter().zip(1..) {
            model.step(step, number, number, *result);
        }
        model
    }

    fn create() -> (Step, StepResult) {
        (Step::Create { path: path("d/f") }, DONE)
    }

    fn fsync(result: StepResult) -> (Step, StepResult) {
        (Step::Fsync { path: path("d/f") }, result)
    }

    /// Says whether the only file must be there.
    fn promised(model: &Model) -> bool {
        model.files().next().unwrap().file.must_exist()
    }

    #[test]
    fn fsync_promises_and_others_only_what_no_fault_touched() {
        let (sync, umount) = ((Step::Sync {}, DONE), (Step::Umount {}, DONE));
        for (fault, last, expected) in [
            (None, fsync(DONE), true),
            (Some(1), fsync(DONE), true),
            (Some(3), fsync(FAILED), false),
            (None, sync.clone(), true),
            (Some(3), sync.clone(), true),
            (Some(2), sync, false),
            (None, umount.clone(), true),
            (Some(4), umount.clone(), true),
            (Some(3), umount, false),
        ] {
            let model = model(fault, &[create(), write(9), last.clone()]);
            assert_eq!(promised(&model), expected, "{fault:?} {last:?}");
        }
        let freeze = (Step::Freeze {}, DONE);
        assert!(!promised(&model(Some(3), &[create(), write(9), freeze.clone()])), "it hears of no failed write");
        assert!(promised(&model(Some(4), &[create(), write(9), freeze])));
        let synchronous = Step::Write { path: path("d/f"), offset: 5, length: 1, direct: false, sync: true };
        let told = model(Some(3), &[create(), write(9), (synchronous, FAILED), fsync(DONE)]);
        assert!(!promised(&told), "the write told the error");
        let again = model(None, &[(Step::Create { path: path("d/f") }, FAILED), create(), write(9), fsync(DONE)]);
        assert!(promised(&again) && again.files().next().unwrap().all, "the name was free");
        let failed = model(Some(3), &[create(), write(9), fsync(FAILED), fsync(DONE)]);
        assert!(!promised(&failed), "the error was told once, and the pages count as written");
        let unmounted = model(Some(3), &[create(), write(9), (Step::Umount {}, DONE), fsync(DONE)]);
        assert!(!promised(&unmounted));
        let kept = model(Some(4), &[create(), write(9), fsync(DONE), (Step::Umount {}, DONE)]);
        assert!(promised(&kept));
        let stopped = (Step::Shutdown { how: guest_protocol::Shutdown::NoFlush }, DONE);
        assert!(!promised(&model(None, &[create(), write(9), stopped, (Step::Umount {}, DONE)])));
    }

    #[test]
    fn the_content_follows_the_steps() {
        let collapse = Step::Fallocate { path: path("d/f"), mode: Fallocate::CollapseRange, offset: 2, length: 3 };
        let hole = Step::Fallocate { path: path("d/f"), mode: Fallocate::PunchHole, offset: 1, length: 1 };
        let longer = Step::Truncate { path: path("d/f"), length: 8 };
        let steps = [create(), write(9), (collapse, DONE), (hole, DONE), (longer, DONE), fsync(DONE)];
        let model = model(None, &steps);
        let named = model.files().next().unwrap();
        let byte = |at| byte_at(at, shift_of(2));
        let expected = [byte(0), 0, byte(5), byte(6), byte(7), byte(8), 0, 0];
        assert_eq!(named.file.now(), expected);
        assert_eq!((named.paths, named.all), (vec!["d/f"], true));
        let (lost, stale) = (
            [byte(0), byte(1), byte(2), byte(3), byte(4), byte(5), 0, 0],
            [expected[0], 0xee, expected[2], expected[3], expected[4], expected[5], 0, 0],
        );
        assert_eq!(named.file.difference(&lost).map(|(kind, _)| kind), Some(Lost));
        assert_eq!(named.file.difference(&stale).map(|(kind, _)| kind), Some(Stale));
    }

    #[test]
    fn names_follow_the_steps() {
        let rename = |from: &str, to: &str, result| (Step::Rename { from: path(from), to: path(to) }, result);
        let model1 = model(None, &[create(), write(9), fsync(DONE), rename("d", "e", DONE)]);
        let named = model1.files().next().unwrap();
        assert_eq!((named.paths, named.all), (vec!["d/f", "e/f"], true), "either may be on the disk");
        let removed = model(None, &[create(), fsync(DONE), (Step::Unlink { path: path("d/f") }, DONE)]);
        assert_eq!(removed.files().count(), 0);
        let perhaps = model(None, &[create(), fsync(DONE), (Step::Unlink { path: path("d/f") }, FAILED)]);
        assert!(!promised(&perhaps));
        let link = (Step::Link { from: path("d/f"), to: path("g") }, DONE);
        let linked = model(None, &[create(), link, fsync(DONE), (Step::Unlink { path: path("d/f") }, DONE)]);
        assert!(promised(&linked));
        let again = model(None, &[create(), rename("d/f", "g", DONE), create(), fsync(DONE)]);
        assert!(again.files().all(|named| !named.all), "one path led to two files");
    }
}
