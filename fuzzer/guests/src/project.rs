//! Places of the project's folders, of the agent and of the targets.

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
        /// Folder in which the search started.
        start: PathBuf,
    },
    /// `FUZZ_ROOT` is no project folder.
    #[error("FUZZ_ROOT is {path}, but there is no kernels/kernels.toml: set it to the checkout or not at all")]
    WrongRoot {
        /// Value of the variable.
        path: PathBuf,
    },
    /// The agent is not built.
    #[error("the guest's agent is not built ({path} is missing): run scripts/build, or set FUZZ_AGENT")]
    NoAgent {
        /// Path that the agent should have.
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
    /// There is none, or `FUZZ_ROOT` is set to something else.
    pub fn find() -> Result<Self, ProjectError> {
        let named = env::var_os("FUZZ_ROOT").filter(|value| !value.is_empty()).map(PathBuf::from);
        let start = env::current_dir().unwrap_or_else(|_| PathBuf::from("."));
        Self::find_from(named, start, &env::current_exe().unwrap_or_default())
    }

    fn find_from(named: Option<PathBuf>, start: PathBuf, program: &Path) -> Result<Self, ProjectError> {
        let is_root = |path: &Path| path.join("kernels/kernels.toml").is_file();
        if let Some(root) = named {
            return if is_root(&root) { Ok(Self { root }) } else { Err(ProjectError::WrongRoot { path: root }) };
        }
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_checkout_that_is_named_is_the_one_or_there_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let checkout = |name: &str| {
            let root = folder.path().join(name);
            fs::create_dir_all(root.join("kernels/inner")).unwrap();
            fs::write(root.join("kernels/kernels.toml"), "").unwrap();
            root
        };
        let (one, other) = (checkout("one"), checkout("other"));
        let find = |named: Option<&Path>, start: &Path, program: &Path| {
            Project::find_from(named.map(Path::to_owned), start.to_owned(), program).map(|project| project.root)
        };
        assert_eq!(find(None, &one.join("kernels/inner"), &other).unwrap(), one);
        assert_eq!(find(None, folder.path(), &other.join("target/release/fuzz")).unwrap(), other);
        assert_eq!(find(Some(&other), &one, &one).unwrap(), other);
        assert!(matches!(find(None, folder.path(), Path::new("")), Err(ProjectError::NoRoot { .. })));
        let wrong = find(Some(&one.join("kernels")), &one, &one).unwrap_err().to_string();
        assert!(wrong.contains("one/kernels, but there is no kernels/kernels.toml"), "{wrong}");
    }
}
