//! The table of a campaign's statistics.
//!
//! A new one is a row here and the place that counts it. `stats.jsonl`, the summary and LibAFL's
//! monitors read the table.

use std::collections::BTreeMap;

use guest_protocol::TraceRole;
use libafl::monitors::stats::{AggregatorOps, ClientStats, UserStats, UserStatsValue};
use libafl_bolts::impl_serdeany;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _, ser::SerializeMap};

/// The way in which the values of several clients become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverClients {
    /// Each client counts its own; they add up.
    Sum,
    /// The largest counts.
    Max,
    /// It is known of the campaign as a whole; the client that reported last knows best.
    Last,
}

/// A file in which a statistic is shown, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// The lines of `stats.jsonl`.
    Line,
    /// The summary.
    Summary,
    /// The object `counters` in the summary.
    Counters,
}

/// A row of the table.
pub struct StatisticRow {
    /// Its name in files and in LibAFL's monitors.
    pub name: &'static str,
    /// The unit of its values.
    pub unit: &'static str,
    /// The way in which clients' values become one.
    pub over_clients: OverClients,
    /// The files in which it is shown.
    pub shown: &'static [Shown],
    get: fn(&Statistics) -> u64,
    get_mut: fn(&mut Statistics) -> &mut u64,
}

macro_rules! statistics {
    ($($(#[$doc:meta])+ $name:ident: $unit:literal, $over_clients:ident, [$($shown:ident),*];)+) => {
        /// The values of all statistics: those of a client, or of a campaign.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub struct Statistics {
            $($(#[$doc])+ pub $name: u64,)+
        }

        /// The table.
        pub const STATISTICS: &[StatisticRow] = &[$(StatisticRow {
            name: stringify!($name),
            unit: $unit,
            over_clients: OverClients::$over_clients,
            shown: &[$(Shown::$shown),*],
            get: |statistics| statistics.$name,
            get_mut: |statistics| &mut statistics.$name,
        }),+];
    };
}

statistics! {
    /// Executions.
    executions: "executions", Sum, [Line, Summary];
    /// Corpus entries.
    corpus: "plans", Max, [Line, Summary];
    /// Places in the kernel's code that the fault-free executions covered, in whatever task.
    fault_free_coverage: "places", Last, [Summary];
    /// Places covered in all, in whatever task, earlier starts included.
    coverage: "places", Last, [Line, Summary];
    /// Those that the workload's task covered.
    coverage_workload: "places", Last, [Summary];
    /// Those that other user tasks covered.
    coverage_tasks: "places", Last, [Summary];
    /// Those that kernel threads and work items covered.
    coverage_threads: "places", Last, [Summary];
    /// Points found on the explorers' kernel, earlier starts included.
    points: "points", Last, [Line, Summary];
    /// Those at which a fault fired.
    points_failed: "points", Last, [Line, Summary];
    /// Points times errors on the explorers' kernel, earlier starts included.
    cells: "point × error", Last, [Line, Summary];
    /// Those that were failed with as few faults as reach the point.
    cells_failed: "point × error", Last, [Line, Summary];
    /// Those in vain: the fault did not fire, or no guest got through.
    cells_unreached: "point × error", Last, [Line, Summary];
    /// Those still to be failed alone. The search begins when none is left.
    alone_left: "point × error", Last, [Line, Summary];
    /// Points times errors on the checkers' kernel, earlier starts included.
    judged_cells: "point × error", Last, [Line, Summary];
    /// Those that were failed there.
    judged_failed: "point × error", Last, [Line, Summary];
    /// Those in vain.
    judged_unreached: "point × error", Last, [Line, Summary];
    /// Crashes with different keys, earlier starts included.
    crashes: "crashes", Last, [Line];
    /// Plans that ran on the checkers' kernel after the explorers'.
    checked: "plans", Last, [Line, Summary];
    /// Of those, plans that did something else there.
    different: "plans", Last, [Line, Summary];
    /// Plans of which a fault did not fire there, although it had fired on the explorers' kernel.
    unfired: "plans", Last, [Line, Summary];
    /// Plans that still wait for that.
    unchecked: "plans", Last, [Line, Summary];
    /// Executions whose plan has a fault.
    with_faults: "executions", Sum, [Line, Counters];
    /// Those of them in which at least one fault fired.
    fired: "executions", Sum, [Line, Counters];
    /// Executions that ended in a finding other than a hang.
    crashed: "executions", Sum, [Counters];
    /// Executions that hung.
    hung: "executions", Sum, [Counters];
    /// Plans that a guest refused.
    refused: "plans", Sum, [Counters];
    /// Plans given up because guests failed under them, or because the host was too busy to tell
    /// whether they hang.
    given_up: "plans", Sum, [Counters];
    /// Executions with more calls or coverage than a guest has room to record.
    incomplete: "executions", Sum, [Counters];
    /// Those of them that filled the trace of the workload's task, so that its end is missing.
    overflowed_workload: "executions", Sum, [Counters];
    /// Those that filled the trace of other user tasks.
    overflowed_tasks: "executions", Sum, [Counters];
    /// Those that filled the trace of kernel threads.
    overflowed_threads: "executions", Sum, [Counters];
    /// Calls left alone because the kernel promises that they do not fail.
    guarded: "calls", Sum, [Counters];
    /// Covered addresses that are no known coverage point.
    unknown_pcs: "addresses", Sum, [Counters];
    /// Guests started.
    guests: "guests", Sum, [Line, Summary];
    /// Executions lost to trouble of guest or host, and tried again.
    harness_errors: "executions", Sum, [Line, Summary];
    /// Guests replaced because something was left in use.
    leftovers: "guests", Sum, [Line, Summary];
    /// Fault-free executions that were compared with the first ones.
    controls: "executions", Sum, [Summary];
    /// Guests replaced because such an execution was another one than at first, or their disk was.
    drifted: "guests", Sum, [Line, Summary];
    /// Guests replaced because a detector of their kernel had switched itself off, memory had run
    /// short, or their table of injection sites was full.
    worn: "guests", Sum, [Line, Summary];
    /// Calls by which the last control run of a guest was off, in a million of them.
    control_off_ppm: "calls in a million", Max, [Line];
    /// Executions that showed what comes of what others left in use.
    aftermath_executions: "executions", Sum, [Line, Summary];
    /// Time of these.
    aftermath_ms: "ms", Sum, [Line, Summary];
    /// The most executions of one guest.
    longest_life: "executions", Max, [Summary];
    /// Memory that the processes of the present guests have of their own.
    guest_kib: "KiB", Sum, [];
    /// Clients that have ended.
    ended: "clients", Sum, [];
}

impl_serdeany!(Statistics);

impl StatisticRow {
    /// Gives its value.
    #[must_use]
    pub fn value(&self, statistics: &Statistics) -> u64 {
        (self.get)(statistics)
    }

    /// Gives its value as LibAFL's monitors take it.
    pub(crate) fn user_stats(&self, statistics: &Statistics) -> UserStats {
        let aggregator = match self.over_clients {
            OverClients::Sum => AggregatorOps::Sum,
            OverClients::Max | OverClients::Last => AggregatorOps::Max,
        };
        UserStats::new(UserStatsValue::Number(self.value(statistics)), aggregator)
    }
}

impl Statistics {
    /// Gives the count of executions that filled the trace of these tasks.
    pub(crate) fn overflowed(&mut self, role: TraceRole) -> &mut u64 {
        match role {
            TraceRole::Workload => &mut self.overflowed_workload,
            TraceRole::Tasks => &mut self.overflowed_tasks,
            TraceRole::Threads => &mut self.overflowed_threads,
        }
    }

    /// Gives the values that a client has told LibAFL's monitors; nothing of one that told none.
    pub(crate) fn of(client: &ClientStats) -> Option<Self> {
        let mut statistics = Self::default();
        client.get_user_stats(STATISTICS.first()?.name)?;
        for row in STATISTICS {
            if let Some(UserStatsValue::Number(value)) = client.get_user_stats(row.name).map(UserStats::value) {
                *(row.get_mut)(&mut statistics) = *value;
            }
        }
        Some(statistics)
    }

    /// Makes the values of a campaign from those of its `clients` and what is known of it as a
    /// whole.
    pub(crate) fn over(clients: &[Self], campaign: &Self) -> Self {
        let mut statistics = Self::default();
        for row in STATISTICS {
            let values = clients.iter().map(|client| row.value(client));
            *(row.get_mut)(&mut statistics) = match row.over_clients {
                OverClients::Sum => values.sum(),
                OverClients::Max => values.max().unwrap_or(0),
                OverClients::Last => row.value(campaign),
            };
        }
        statistics
    }

    /// Sets what is known of the campaign as a whole.
    pub(crate) fn set_campaign(&mut self, campaign: &Self) {
        for row in STATISTICS.iter().filter(|row| row.over_clients == OverClients::Last) {
            *(row.get_mut)(self) = row.value(campaign);
        }
    }
}

fn shown(place: Shown) -> impl Iterator<Item = &'static StatisticRow> {
    STATISTICS.iter().filter(move |row| row.shown.contains(&place))
}

/// The statistics in a line of `stats.jsonl`.
pub(super) mod line {
    use super::*;

    /// Writes those that are shown there.
    pub(in crate::statistics) fn serialize<S: Serializer>(
        statistics: &Statistics,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        shown(Shown::Line).try_for_each(|row| map.serialize_entry(row.name, &row.value(statistics)))?;
        map.end()
    }

    /// Reads those that are shown there. All of them must be there.
    pub(in crate::statistics) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Statistics, D::Error> {
        let values = BTreeMap::<String, serde_json::Value>::deserialize(deserializer)?;
        let mut statistics = Statistics::default();
        for row in shown(Shown::Line) {
            let value = values.get(row.name).and_then(serde_json::Value::as_u64);
            *(row.get_mut)(&mut statistics) = value.ok_or_else(|| D::Error::missing_field(row.name))?;
        }
        Ok(statistics)
    }
}

/// The statistics in a summary.
pub(super) mod summary {
    use super::*;

    /// Writes those that are shown there, and those of the object `counters`.
    pub(in crate::statistics) fn serialize<S: Serializer>(
        statistics: &Statistics,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let of = |place| shown(place).map(|row| (row.name, row.value(statistics)));
        let mut map = serializer.serialize_map(None)?;
        of(Shown::Summary).try_for_each(|(name, value)| map.serialize_entry(name, &value))?;
        map.serialize_entry("counters", &of(Shown::Counters).collect::<BTreeMap<_, _>>())?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_counts_add_up_and_what_is_known_of_the_campaign_does_not() {
        let client =
            |executions, longest_life, points| Statistics { executions, longest_life, points, ..Statistics::default() };
        let campaign = client(0, 0, 44);
        let statistics = Statistics::over(&[client(10, 7, 40), client(5, 9, 0)], &campaign);
        assert_eq!(statistics, client(15, 9, 44));
        let mut reported = client(3, 2, 1);
        reported.set_campaign(&campaign);
        assert_eq!(reported, client(3, 2, 44));
    }

    #[test]
    fn a_name_is_one_row() {
        let mut names: Vec<_> = STATISTICS.iter().map(|row| row.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), STATISTICS.len());
    }
}
