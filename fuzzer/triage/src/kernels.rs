//! What a report asks about kernels. Whoever has the cache answers.

use std::path::PathBuf;

/// A kernel of the cache.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownKernel {
    /// Its release, as `uname -r` says it.
    pub release: String,
    /// The source that it was built from, and its version.
    pub source: String,
    /// The compiler.
    pub compiler: String,
    /// Its configuration.
    pub config: PathBuf,
}

/// Answers about kernels, by build id.
pub trait Kernels {
    /// Gives the kernel, where the cache has it.
    fn known(&self, build_id: &str) -> Option<KnownKernel>;

    /// Gives the lines of source at `function`+`offset`, `fs/f.c:7` each, those of the innermost
    /// inlined function first. `returns` says that it is a return address: the call stands before
    /// it.
    fn lines(&self, build_id: &str, function: &str, offset: u64, returns: bool) -> Vec<String>;

    /// Gives the file of source that `function` stands in.
    fn file(&self, build_id: &str, function: &str) -> Option<String>;

    /// Gives the kernel source that says when the injectable `function` fails.
    fn contract(&self, function: &str) -> Option<String>;
}

/// Answers of somebody who knows no kernel.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoKernels;

impl Kernels for NoKernels {
    fn known(&self, _build_id: &str) -> Option<KnownKernel> {
        None
    }

    fn lines(&self, _build_id: &str, _function: &str, _offset: u64, _returns: bool) -> Vec<String> {
        Vec::new()
    }

    fn file(&self, _build_id: &str, _function: &str) -> Option<String> {
        None
    }

    fn contract(&self, _function: &str) -> Option<String> {
        None
    }
}
