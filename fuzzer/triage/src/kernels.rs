//! What a report asks about kernels. Whoever has the cache answers.

use std::path::PathBuf;

/// A kernel of the cache.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownKernel {
    /// Its name in the catalogue.
    pub name: String,
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

    /// Gives the lines of source of a caller's `frame`, such as `name+0x12` or `name+0x12/0x34`,
    /// `fs/f.c:7` each, those of the innermost inlined function first. The call stands before the
    /// frame's address.
    fn lines(&self, build_id: &str, frame: &str) -> Vec<String>;

    /// Writes a report with lines of source in place of offsets, where the cache has the kernel's
    /// debug information.
    fn decode(&self, build_id: &str, report: &str) -> Option<String>;

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

    fn lines(&self, _build_id: &str, _frame: &str) -> Vec<String> {
        Vec::new()
    }

    fn decode(&self, _build_id: &str, _report: &str) -> Option<String> {
        None
    }

    fn file(&self, _build_id: &str, _function: &str) -> Option<String> {
        None
    }

    fn contract(&self, _function: &str) -> Option<String> {
        None
    }
}
