//! The kernels of the cache, as a report asks for them.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
    rc::Rc,
};

use files::{TextFile, cache};
use guests::{
    kernel::{Built, Meta, decode, find_built},
    project::Project,
};
use kcov_parser::SourceLines;
use serde::Deserialize;
use triage::{Kernels, KnownKernel};

use super::places::KernelPlaces;
use crate::exit::CommandError;

/// The kernels of the cache, each read when it is first asked for.
pub(super) struct CachedKernels {
    cache: PathBuf,
    /// By function: the kernel source that says when it fails.
    contracts: BTreeMap<String, String>,
    built: RefCell<HashMap<String, Option<Rc<Built>>>>,
    files: RefCell<HashMap<String, Rc<HashMap<String, String>>>>,
    lines: RefCell<HashMap<String, Option<Rc<SourceLines>>>>,
}

impl CachedKernels {
    /// Finds the cache and the contracts of the project's functions.
    ///
    /// # Errors
    ///
    /// There is neither a project nor a cache.
    pub(super) fn find() -> Result<Self, CommandError> {
        let contracts = contracts(&Project::find()?.corpus().join("functions"));
        let (built, files, lines) = (RefCell::default(), RefCell::default(), RefCell::default());
        Ok(Self { cache: cache::directory()?, contracts, built, files, lines })
    }

    /// Gives the kernel with this build id.
    pub(super) fn built(&self, build_id: &str) -> Option<Rc<Built>> {
        let find = || find_built(&self.cache, |meta| meta.build_id == build_id).map(Rc::new);
        self.built.borrow_mut().entry(build_id.to_owned()).or_insert_with(find).clone()
    }

    /// Gives the debug information of a kernel, which older builds do not have.
    fn lines_of(&self, build_id: &str) -> Option<Rc<SourceLines>> {
        let read = || Some(Rc::new(self.built(build_id)?.source_lines().ok()?));
        self.lines.borrow_mut().entry(build_id.to_owned()).or_insert_with(read).clone()
    }

    /// Gives the file of each function of a kernel.
    fn files_of(&self, build_id: &str) -> Rc<HashMap<String, String>> {
        if let Some(files) = self.files.borrow().get(build_id) {
            return Rc::clone(files);
        }
        let files = self.built(build_id).and_then(|built| {
            // An older build may not say it. Functions seldom move between two of one release.
            let similar = |meta: &Meta| (&meta.name, &meta.release) == (&built.meta.name, &built.meta.release);
            read_files(&built).or_else(|| read_files(&find_built(&self.cache, similar)?))
        });
        let files = Rc::new(files.unwrap_or_default());
        self.files.borrow_mut().insert(build_id.to_owned(), Rc::clone(&files));
        files
    }
}

/// A group of functions, as far as a report asks.
#[derive(Deserialize)]
struct Group {
    functions: Vec<Sourced>,
}

#[derive(Deserialize)]
struct Sourced {
    name: String,
    source: String,
}

/// Reads which kernel source says when each injectable function fails. Without it a report says
/// less.
fn contracts(folder: &Path) -> BTreeMap<String, String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let groups = entries.filter_map(|entry| TextFile::read(&entry.path()).ok()?.toml::<Group>().ok());
    groups.flat_map(|group| group.functions).map(|function| (function.name, function.source)).collect()
}

/// Splits `name+0x12/0x34` or `name+0x12`: name, offset and size.
fn place(frame: &str) -> Option<(&str, u64, Option<u64>)> {
    let hex = |digits: &str| u64::from_str_radix(digits.trim_start_matches("0x"), 16).ok();
    let (name, rest) = frame.split_once("+0x")?;
    let (offset, size) = rest.split_once('/').map_or((rest, None), |(offset, size)| (offset, Some(size)));
    Some((name, hex(offset)?, size.and_then(hex)))
}

/// Reads the file of each function that has a place of coverage.
fn read_files(built: &Built) -> Option<HashMap<String, String>> {
    let places = KernelPlaces::read(built).ok()?;
    let mut files = HashMap::new();
    for (_, function, place) in places.iter() {
        files.entry(function.to_owned()).or_insert_with(|| place.unit.to_owned());
    }
    Some(files)
}

impl Kernels for CachedKernels {
    fn known(&self, build_id: &str) -> Option<KnownKernel> {
        let built = self.built(build_id)?;
        let (meta, config) = (&built.meta, built.config.clone());
        let (release, source, compiler) = (meta.release.clone(), meta.source.clone(), meta.compiler.clone());
        Some(KnownKernel { name: meta.name.clone(), release, source, compiler, config })
    }

    fn lines(&self, build_id: &str, frame: &str) -> Vec<String> {
        let Some(lines) = self.lines_of(build_id) else { return Vec::new() };
        let found = place(frame).map(|(name, offset, size)| lines.in_symbol(name, offset.saturating_sub(1), size));
        found.unwrap_or_default().iter().map(|frame| format!("{}:{}", frame.file, frame.line)).collect()
    }

    fn decode(&self, build_id: &str, report: &str) -> Option<String> {
        Some(decode(report, &*self.lines_of(build_id)?))
    }

    fn file(&self, build_id: &str, function: &str) -> Option<String> {
        self.files_of(build_id).get(function).cloned()
    }

    fn contract(&self, function: &str) -> Option<String> {
        self.contracts.get(function).cloned()
    }
}
