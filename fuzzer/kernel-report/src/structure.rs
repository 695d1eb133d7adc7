//! Structure of a report: what its text says, as data.

use serde::{Deserialize, Serialize};

use super::{
    frames, key,
    rules::{Rule, Wording},
    skip,
    stacks::{self, Section},
};

/// Function that a report blames.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guilty {
    /// Its name without compiler suffixes.
    pub function: String,
    /// Source file of the place in it, relative to the kernel's source. Only checks of the source
    /// print it; for others `kcov_parser::SourceLines` knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Line in that file, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
}

/// Access to memory that a report is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// The access: `Read`, `Write`, `free`, `call`, or `access` where the processor does not say.
    pub what: String,
    /// Bytes of it, where the report says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Address of it; the lowest where only a range is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<u64>,
}

/// Describes the function `blamed` by the report whose header, by `rule`, is the first of `body`.
pub(super) fn guilty(rule: &Rule, context: &[&str], body: &[&str], blamed: Option<&str>) -> Option<Guilty> {
    let function = blamed.filter(|function| !skip::is_reporting(function))?;
    let place = match rule.wording {
        Wording::Bug(_) | Wording::Warning => key::place_of_caller(context, body),
        Wording::Ubsan => body.first().and_then(|header| Some(header.rsplit_once(" in ")?.1.to_owned())),
        // "fs/f.c:7 suspicious rcu_dereference_check() usage!" stands below
        // (`lockdep_rcu_suspicious()` in `kernel/locking/lockdep.c`, 6.12).
        Wording::In(_) => body.iter().take(8).find_map(|line| Some(line.split_once(" suspicious rcu_")?.0.to_owned())),
        _ => None,
    };
    let place = place.as_deref().and_then(file_and_line).filter(|(file, _)| !file.starts_with("include/"));
    let (file, line) = place.unzip();
    Some(Guilty { function: function.to_owned(), file, line })
}

/// Reads `./fs/f.c:7` or `fs/f.c:7:12`.
fn file_and_line(place: &str) -> Option<(String, u32)> {
    let (file, rest) = place.trim().trim_start_matches("./").split_once(':')?;
    let line = rest.split(':').next()?.parse().ok()?;
    (file.contains('.') && !file.contains(' ')).then(|| (file.to_owned(), line))
}

/// Says whether parts are missing in the report whose header, by `rule`, is the first of `body`, or
/// other text has run into it. `ended` says whether something but the log's end ended it.
pub(super) fn is_truncated(rule: &Rule, body: &[&str], sections: &[Section<'_>], ended: bool) -> bool {
    // console_prepend_dropped() in kernel/printk/printk.c, 6.12.
    let lost = body.iter().any(|line| line.starts_with("** ") && line.contains(" printk messages dropped"));
    let has_trace = !matches!(
        rule.wording,
        Wording::Only(_) | Wording::Alone(_) | Wording::HeldLock(_) | Wording::Header | Wording::Panic
    );
    // Sections with the memory's history follow the trace.
    let open = rule.wording == Wording::Kasan && !ended;
    let cut = body.last().is_some_and(|line| frames::is_broken(line));
    lost || open || cut || has_trace && !stacks::has_trace(sections) || sections.iter().any(Section::is_damaged)
}
