//! Drift: says whether a guest still does what it did at first, by running the fault-free plan now
//! and then. Only the workload's own calls count: other tasks do their work when they like.

use std::collections::{HashMap, HashSet};

use guest_protocol::Hit;

/// Executions of a guest from one control run to the next.
pub(super) const CONTROL_INTERVAL: u64 = 50;
/// Fault-free executions that show what is normal. Differences between them are noise.
const LEARNING_RUNS: u32 = 8;
/// A run is off when more calls of a million are missing or too many, beyond the noise. Measured:
/// mostly below 10,000, once in sixty runs 25,000.
const TOLERATED_PPM: u64 = 50_000;
/// A workload of fewer calls is compared as if it had so many: there is too little to tell.
const FEW_CALLS: u32 = 20;
/// A guest has drifted when so many control runs in a row were off.
const RUNS_OFF: u32 = 2;

/// The hits of the fault-free plan in a guest as it should be.
#[derive(Debug, Default)]
struct Normal {
    runs: u32,
    calls: u32,
    /// The fewest and the most hits of each site in the learning runs.
    hits: HashMap<u64, (u32, u32)>,
}

impl Normal {
    /// Takes in the workload's own hits in a fault-free execution. Gives how many of a million
    /// calls are off: none of the first runs, which show what is normal.
    fn off_ppm(&mut self, hits: &[Hit]) -> u64 {
        if self.runs < LEARNING_RUNS {
            self.learn(hits);
            return 0;
        }
        u64::from(self.distance(hits)) * 1_000_000 / u64::from(self.calls.max(FEW_CALLS))
    }

    fn learn(&mut self, hits: &[Hit]) {
        let reached: HashSet<u64> = hits.iter().map(|hit| hit.site).collect();
        for (_, (fewest, _)) in self.hits.iter_mut().filter(|(site, _)| !reached.contains(site)) {
            *fewest = 0;
        }
        for hit in hits {
            let unknown = if self.runs == 0 { (hit.count, hit.count) } else { (0, hit.count) };
            let (fewest, most) = self.hits.entry(hit.site).or_insert(unknown);
            (*fewest, *most) = ((*fewest).min(hit.count), (*most).max(hit.count));
        }
        self.calls = self.calls.max(hits.iter().map(|hit| hit.count).fold(0, u32::saturating_add));
        self.runs += 1;
    }

    /// Counts calls too few and too many, at all sites.
    fn distance(&self, hits: &[Hit]) -> u32 {
        let mut counts: HashMap<u64, u32> = hits.iter().map(|hit| (hit.site, hit.count)).collect();
        let mut distance = 0_u32;
        for (site, (fewest, most)) in &self.hits {
            let count = counts.remove(site).unwrap_or(0);
            distance =
                distance.saturating_add(fewest.saturating_sub(count)).saturating_add(count.saturating_sub(*most));
        }
        counts.into_values().fold(distance, u32::saturating_add)
    }
}

/// The executions of the guest at hand, compared with those of all guests at first.
#[derive(Debug)]
pub(super) struct Drift {
    normal: Normal,
    /// Executions of the guest at hand.
    pub(super) executions: u64,
    /// When the next control run is due, in executions.
    next_control: u64,
    /// Control runs in a row that were off.
    off: u32,
}

/// The outcome of a control run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Controlled {
    /// Calls off in a million.
    pub(super) off_ppm: u64,
    /// True when the guest must be replaced.
    pub(super) drifted: bool,
}

impl Default for Drift {
    fn default() -> Self {
        Self { normal: Normal::default(), executions: 0, next_control: CONTROL_INTERVAL, off: 0 }
    }
}

impl Drift {
    /// Takes in that there is a fresh guest.
    pub(super) fn fresh_guest(&mut self) {
        (self.executions, self.next_control, self.off) = (0, CONTROL_INTERVAL, 0);
    }

    /// Takes in that the guest has executed something.
    pub(super) fn executed(&mut self) {
        self.executions += 1;
    }

    /// Says whether the guest is to run the fault-free plan before another one.
    pub(super) fn is_due(&self) -> bool {
        self.executions >= self.next_control
    }

    /// Takes in the workload's own hits in a fault-free execution.
    pub(super) fn control(&mut self, hits: &[Hit]) -> Controlled {
        let off_ppm = self.normal.off_ppm(hits);
        let off = off_ppm > TOLERATED_PPM;
        self.off = if off { self.off + 1 } else { 0 };
        self.next_control = self.executions + if off { 0 } else { CONTROL_INTERVAL };
        Controlled { off_ppm, drifted: self.off == RUNS_OFF }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hits(counts: &[(u64, u32)]) -> Vec<Hit> {
        counts.iter().map(|(site, count)| Hit { site: *site, count: *count, first_sequence: 1 }).collect()
    }

    /// Sites 1 and 2, the second with noise, and now and then a third.
    fn learned() -> Normal {
        let mut normal = Normal::default();
        for run in 0..LEARNING_RUNS {
            let mut counts = vec![(1, 60), (2, 40 + run % 3)];
            if run == 3 {
                counts.push((3, 2));
            }
            assert_eq!(normal.off_ppm(&hits(&counts)), 0);
        }
        normal
    }

    #[test]
    fn noise_is_normal() {
        let mut normal = learned();
        for counts in
            [&[(1, 60), (2, 40)][..], &[(1, 60), (2, 42), (3, 1)], &[(1, 58), (2, 43)], &[(1, 60), (2, 40), (9, 4)]]
        {
            assert!(normal.off_ppm(&hits(counts)) <= TOLERATED_PPM, "{counts:?}");
        }
    }

    #[test]
    fn missing_and_new_calls_are_off() {
        let mut normal = learned();
        for counts in [&[(1, 60)][..], &[(1, 50), (2, 40)], &[(1, 60), (2, 60)], &[(1, 60), (2, 40), (9, 20)], &[]] {
            assert!(normal.off_ppm(&hits(counts)) > TOLERATED_PPM, "{counts:?}");
        }
    }

    #[test]
    fn a_guest_has_drifted_when_two_control_runs_in_a_row_are_off() {
        let mut drift = Drift { normal: learned(), ..Drift::default() };
        (0..CONTROL_INTERVAL).for_each(|_| drift.executed());
        assert!(drift.is_due());
        let (normal, other) = (hits(&[(1, 60), (2, 40)]), hits(&[(1, 10)]));
        assert!(!drift.control(&other).drifted && drift.is_due(), "once may be noise: it is run again at once");
        assert!(!drift.control(&normal).drifted && !drift.is_due());
        assert!(!drift.control(&other).drifted);
        assert!(drift.control(&other).drifted);
        drift.fresh_guest();
        assert!(!drift.control(&other).drifted, "another guest begins anew");
    }
}
