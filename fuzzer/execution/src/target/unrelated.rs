//! Work of other tasks that has nothing to do with the workload: `corpus/unrelated.toml`.

use std::path::Path;

use files::{TextFile, TextFileError};
use guest_protocol::MAX_UNRELATED;
use serde::Deserialize;
use toml::Spanned;

/// The file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UnrelatedFile {
    unrelated: Vec<Spanned<Entry>>,
}

/// A function below which calls are left alone.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// Function among the callers, mostly that of the thread or work item.
    caller: String,
    /// Reason why it has nothing to do with any workload, with the place in the kernel's source.
    reason: String,
}

/// The functions that the file in the folder `corpus` names; none where there is no file.
///
/// # Errors
///
/// The file cannot be read or is refused.
pub(super) fn load(corpus: &Path) -> Result<Vec<String>, TextFileError> {
    let path = corpus.join("unrelated.toml");
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text = TextFile::read(&path)?;
    let entries = text.toml::<UnrelatedFile>()?.unrelated;
    let mut names: Vec<String> = Vec::with_capacity(entries.len());
    for entry in entries {
        let offset = entry.span().start;
        let Entry { caller, reason } = entry.into_inner();
        let defect = match () {
            () if caller.trim().is_empty() => Some("an entry has no caller".to_owned()),
            () if reason.trim().is_empty() => Some(format!("\"{caller}\" has no reason")),
            () if names.contains(&caller) => Some(format!("\"{caller}\" is there twice")),
            () if names.len() == MAX_UNRELATED => Some(format!("more than {MAX_UNRELATED} entries")),
            () => None,
        };
        if let Some(defect) = defect {
            return Err(text.invalid(offset, defect));
        }
        names.push(caller);
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn loaded(text: &str) -> Result<Vec<String>, String> {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("unrelated.toml"), text).unwrap();
        load(folder.path()).map_err(|error| error.to_string())
    }

    #[test]
    fn each_has_a_reason_and_is_there_once() {
        let good = "[[unrelated]]\ncaller = 'f'\nreason = 'f.c, 6.12: nobody waits for it'\n";
        assert_eq!(loaded(good).unwrap(), ["f"]);
        assert!(loaded(&good.repeat(2)).unwrap_err().ends_with("unrelated.toml:4: \"f\" is there twice"));
        let silent = good.replace("f.c, 6.12: nobody waits for it", " ");
        assert!(loaded(&silent).unwrap_err().ends_with(":1: \"f\" has no reason"));
        assert!(load(Path::new("/no/such/folder")).unwrap().is_empty());
    }
}
