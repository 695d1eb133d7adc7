//! The two forms in which people and programs read a campaign's statistics.

use serde::{Deserialize, Serialize};

use super::table::{self, Statistics};

/// A line of `stats.jsonl`. Executions, corpus, coverage, sites and crashes are totals over all
/// starts of the campaign; the others are of this start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StatsLine {
    /// Seconds of fuzzing in this start.
    pub seconds: f64,
    /// Executions per second in this start.
    pub executions_per_second: f64,
    /// All that the table of statistics shows in a line.
    #[serde(flatten, with = "table::line")]
    pub statistics: Statistics,
    /// Resident memory of this process, in MiB; its guests' is not in it.
    pub resident_mib: u64,
    /// Memory that the guests' processes have of their own, in MiB.
    pub guests_mib: u64,
    /// Other hosts that are connected now. Not there when the campaign is to have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peers: Option<usize>,
}

/// The outcome of a start of a campaign.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Seconds of fuzzing.
    pub seconds: u64,
    /// All that the table of statistics shows in a summary.
    #[serde(flatten, serialize_with = "table::summary::serialize")]
    pub statistics: Statistics,
    /// Crashes that are among the others by another title.
    pub same: usize,
    /// The others: title, how often the reproducer made it again, of how many tries.
    pub crashes: Vec<(String, u32, u32)>,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_line_is_flat_and_comes_back_as_it_was() {
        let statistics = Statistics { executions: 7, control_off_ppm: 9, ..Statistics::default() };
        let line = StatsLine { seconds: 1.5, statistics, guests_mib: 3, ..StatsLine::default() };
        let text = serde_json::to_string(&line).unwrap();
        assert_eq!(serde_json::from_str::<StatsLine>(&text).unwrap(), line);
        let value: Value = serde_json::from_str(&text).unwrap();
        let names: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "aftermath_executions",
                "aftermath_ms",
                "alone_left",
                "cells",
                "cells_failed",
                "cells_unreached",
                "checked",
                "control_off_ppm",
                "corpus",
                "coverage",
                "crashes",
                "different",
                "drifted",
                "executions",
                "executions_per_second",
                "fired",
                "guests",
                "guests_mib",
                "harness_errors",
                "judged_cells",
                "judged_failed",
                "judged_unreached",
                "leftovers",
                "points",
                "points_failed",
                "resident_mib",
                "seconds",
                "unchecked",
                "unfired",
                "with_faults",
                "worn",
            ]
        );
        assert!(serde_json::from_str::<StatsLine>(&text.replace("fired", "failed")).is_err(), "a number is missing");
    }

    #[test]
    fn a_summary_has_its_counters_in_an_object() {
        let statistics = Statistics { executions: 7, with_faults: 5, longest_life: 3, ..Statistics::default() };
        let crashes = vec![("BUG in f".to_owned(), 1, 3)];
        let value = serde_json::to_value(Summary { seconds: 2, statistics, same: 0, crashes }).unwrap();
        let counters = json!({
            "with_faults": 5, "fired": 0, "crashed": 0, "hung": 0, "refused": 0, "given_up": 0, "incomplete": 0,
            "guarded": 0, "unknown_pcs": 0, "overflowed_workload": 0, "overflowed_tasks": 0, "overflowed_threads": 0,
        });
        let expected = json!({
            "executions": 7, "seconds": 2, "corpus": 0, "fault_free_coverage": 0, "coverage": 0, "points": 0,
            "coverage_workload": 0, "coverage_tasks": 0, "coverage_threads": 0,
            "points_failed": 0, "cells": 0, "cells_failed": 0, "cells_unreached": 0, "alone_left": 0,
            "judged_cells": 0, "judged_failed": 0, "judged_unreached": 0, "unfired": 0, "counters": counters, "guests": 0, "harness_errors": 0, "leftovers": 0, "controls": 0,
            "drifted": 0, "worn": 0, "aftermath_executions": 0, "aftermath_ms": 0, "longest_life": 3, "checked": 0, "different": 0, "unchecked": 0, "same": 0,
            "crashes": [["BUG in f", 1, 3]],
        });
        assert_eq!(value, expected);
    }
}
