//! The files of a campaign's folder as a report reads them: unknown fields are left alone, and a
//! field that is not there is not known. So folders of other versions can be reported on.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// `campaign.json`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct CampaignJson {
    pub(crate) target: String,
    pub(crate) kernel: String,
    pub(crate) kernel_build_id: String,
    pub(crate) fuzz_version: String,
    pub(crate) executions: u64,
    pub(crate) seconds: u64,
}

/// `meta.json` of a crash.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct MetaJson {
    pub(crate) key: String,
    pub(crate) title: String,
    pub(crate) kind: String,
    pub(crate) fired: Vec<FiredJson>,
    pub(crate) stack: Vec<String>,
    pub(crate) found_ms: Option<u64>,
    pub(crate) tried: u32,
    pub(crate) reproduced: u32,
    pub(crate) exact: Option<bool>,
    pub(crate) same_as: Option<String>,
    pub(crate) origin: Option<String>,
    pub(crate) minimized: Option<MinimizedJson>,
    /// Outcome of each reproducer without the fuzzer, by its kind.
    pub(crate) repro: BTreeMap<String, Value>,
}

/// A fault that fired.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct FiredJson {
    pub(crate) fault: usize,
    pub(crate) function: String,
    pub(crate) sequence: u32,
    pub(crate) step: Option<u32>,
    pub(crate) task: Option<String>,
    pub(crate) call_path: Vec<String>,
    /// `name+0x12` of each caller, innermost first.
    pub(crate) frames: Vec<String>,
    pub(crate) arguments: Vec<u64>,
    /// The arguments that matter, in words.
    pub(crate) words: String,
    pub(crate) returns: Vec<ReturnJson>,
}

/// What a function on a fault's call path returned.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ReturnJson {
    pub(crate) function: String,
    pub(crate) returned: String,
    pub(crate) mark: Option<String>,
}

/// Work of the minimiser.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct MinimizedJson {
    pub(crate) executions: u64,
    pub(crate) faults: [u64; 2],
}

/// A line of a matrix: what a report counts.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct PointJson {
    pub(crate) function: String,
    pub(crate) call_path: Vec<String>,
    pub(crate) step: u32,
    pub(crate) scope: String,
    pub(crate) cells: Vec<CellJson>,
}

/// A cell of a matrix.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct CellJson {
    pub(crate) faults: Option<u32>,
    pub(crate) findings: Vec<String>,
}

/// A line of `stats.jsonl`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct StatsJson {
    pub(crate) seconds: f64,
    pub(crate) executions: u64,
    pub(crate) coverage: u64,
    pub(crate) points: u64,
    pub(crate) points_failed: u64,
    pub(crate) crashes: u64,
}
