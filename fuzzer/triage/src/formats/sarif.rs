//! The report as SARIF 2.1.0, which code hosts and editors read: a result for each crash.

use serde_json::{Value, json};

use super::FormatError;
use crate::{
    Report,
    model::{Crash, Guilty, Standing},
};

/// The schema that the result follows.
const SCHEMA: &str = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";

/// Writes the report as SARIF.
///
/// # Errors
///
/// It has no JSON.
pub fn sarif(report: &Report) -> Result<String, FormatError> {
    let mut kinds: Vec<_> = report.crashes.iter().map(|crash| crash.kind.as_str()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let rules: Vec<_> = kinds.into_iter().map(|kind| json!({ "id": kind })).collect();
    let driver = json!({ "name": "fuzz", "version": env!("CARGO_PKG_VERSION"), "rules": rules });
    let results = report.crashes.iter().map(result).collect::<Result<Vec<_>, _>>()?;
    let log = json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [ { "tool": { "driver": driver }, "results": results } ],
    });
    Ok(serde_json::to_string_pretty(&log)? + "\n")
}

fn result(crash: &Crash) -> Result<Value, FormatError> {
    let level = match crash.standing {
        Standing::Alarm | Standing::Same => "note",
        Standing::Finding if crash.kind == "warning" => "warning",
        Standing::Finding => "error",
    };
    let text = format!("{}\nFault: {}\n{}", crash.title, crash.fault_line(), crash.reasons.join("\n"));
    Ok(json!({
        "ruleId": crash.kind,
        "level": level,
        "message": { "text": text },
        "locations": crash.guilty.iter().map(location).collect::<Vec<_>>(),
        "partialFingerprints": { "key/v1": crash.key },
        "properties": {
            "rank": crash.rank,
            "impact": serde_json::to_value(crash.impact)?,
            "chance": serde_json::to_value(crash.chance)?,
            "standing": serde_json::to_value(crash.standing)?,
            "faults": crash.plan_faults,
            "tried": crash.tried,
            "reproduced": crash.reproduced,
        },
    }))
}

/// Gives the guilty place. A file is told from the root of the kernel's source.
fn location(guilty: &Guilty) -> Value {
    let mut location = json!({ "logicalLocations": [ { "name": guilty.function, "kind": "function" } ] });
    if let Some(file) = &guilty.file {
        location["physicalLocation"] = json!({ "artifactLocation": { "uri": file, "uriBaseId": "SRCROOT" } });
        if let Some(line) = guilty.line {
            location["physicalLocation"]["region"] = json!({ "startLine": line.max(1) });
        }
    }
    location
}
