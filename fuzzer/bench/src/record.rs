//! `bench all`: makes the measurements one after the other, keeps each in `docs/measurements.json`
//! as soon as it is there, and writes `docs/measurements.md` from that file.

use std::{fs, io, path::Path};

use files::write_file;
use fuzz::exit::CommandError;
use guests::project::Project;
use serde_json::{Map, Value};

use super::{Measurement, Options, Session, measure, paper};

/// The members of the file: name, measurement, kernel, executions.
///
/// Of each pair of guests one is faster by up to a tenth: the ratio wants many pairs, and an
/// execution on the lean kernel is short.
const MEMBERS: [(&str, Measurement, Option<&str>, u32); 6] = [
    ("cost_lean", Measurement::Cost, Some("linux-6.12-lean"), 600),
    ("cost_check", Measurement::Cost, Some("linux-6.12-check"), 100),
    ("scale", Measurement::Scale, Some("linux-6.12-lean"), 0),
    ("exact", Measurement::Exact, None, 0),
    ("kernels", Measurement::Kernels, None, 0),
    ("steady", Measurement::Steady, None, 0),
];

/// Makes the measurements that the options name, or all.
///
/// # Errors
///
/// A name is none, a measurement fails, or a file cannot be written.
pub(super) fn record(session: &Session<'_>) -> Result<Value, CommandError> {
    let names = MEMBERS.map(|(name, ..)| name);
    if let Some(unknown) = session.options.only.iter().find(|name| !names.contains(&name.as_str())) {
        return Err(CommandError::Input(format!("no measurement \"{unknown}\": there are {}", names.join(", "))));
    }
    let docs = Project::find()?.root().join("docs");
    let file = docs.join("measurements.json");
    let mut all = read(&file)?;
    let wanted = |name: &str| session.options.only.is_empty() || session.options.only.iter().any(|only| only == name);
    for (name, what, kernel, executions) in MEMBERS.into_iter().filter(|(name, ..)| wanted(name)) {
        session.progress.say(&format!("measuring {name}"));
        let mut options = Options { what, executions, ..session.options.clone() };
        options.guest.kernel = kernel.map(str::to_owned);
        all.insert(name.to_owned(), measure(&Session { options: &options, ..*session })?);
        let text = serde_json::to_string_pretty(&all).map_err(io::Error::other)?;
        write_file(&file, format!("{text}\n").as_bytes())?;
        write_file(&docs.join("measurements.md"), paper::paper(&all).as_bytes())?;
    }
    Ok(Value::Object(all))
}

/// Reads the measurements that were made before.
fn read(file: &Path) -> Result<Map<String, Value>, CommandError> {
    match fs::read_to_string(file) {
        Ok(text) => serde_json::from_str(&text)
            .map_err(|error| CommandError::Input(format!("{}: {error}; remove that file", file.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Map::new()),
        Err(error) => Err(error.into()),
    }
}
