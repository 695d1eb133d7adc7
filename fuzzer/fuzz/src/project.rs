//! Where things are: the project's folders, the agent, the targets.

use std::{
    env,
    path::{Path, PathBuf},
};

use thiserror::Error;

/// Why the project's files are not found.
#[derive(Debug, Error)]
pub enum ProjectError {
    /// No project folder.
    #[error(
        "no folder with kernels/kernels.toml above {start} or above this program: \
         run it through scripts/fuzz, or set FUZZ_ROOT to the checkout"
    )]
    NoRoot {
        /// Where the search started.
        start: PathBuf,
    },
    /// The agent is not built.
    #[error("the guest's agent is not built ({path} is missing): run scripts/build, or set FUZZ_AGENT")]
    NoAgent {
        /// Where it should be.
        path: PathBuf,
    },
}

/// A checkout of this project.
#[derive(Clone, Debug)]
pub struct Project {
    root: PathBuf,
}

impl Project {
    /// The checkout named by `FUZZ_ROOT`, or around the working directory, or around this program.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn find() -> Result<Self, ProjectError> {
        let is_root = |path: &Path| path.join("kernels/kernels.toml").is_file();
        if let Some(root) = env::var_os("FUZZ_ROOT").map(PathBuf::from).filter(|root| is_root(root)) {
            return Ok(Self { root });
        }
        let start = env::current_dir().unwrap_or_else(|_| PathBuf::from("."));
        let program = env::current_exe().unwrap_or_default();
        start
            .ancestors()
            .chain(program.ancestors())
            .find(|path| is_root(path))
            .map(|root| Self { root: root.to_owned() })
            .ok_or(ProjectError::NoRoot { start })
    }

    /// The checkout's folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder with a folder for each target.
    #[must_use]
    pub fn corpus(&self) -> PathBuf {
        self.root.join("corpus")
    }

    /// The agent's static binary, `FUZZ_AGENT` or the one that `scripts/build` makes.
    ///
    /// # Errors
    ///
    /// It is not there.
    pub fn agent(&self) -> Result<PathBuf, ProjectError> {
        let built = || self.root.join("target/x86_64-unknown-linux-gnu/release/agent");
        let path = env::var_os("FUZZ_AGENT").map_or_else(built, PathBuf::from);
        if path.is_file() { Ok(path) } else { Err(ProjectError::NoAgent { path }) }
    }
}
