//! The control plan: the fault-free one, run now and then to see whether a guest still does what it did at first.

use std::collections::{HashMap, HashSet};

use guest_protocol::Hit;

use super::GuestPool;
use crate::execution::{ExecuteError, Execution};

/// Executions of a guest from one control run to the next.
const CONTROL_INTERVAL: u64 = 50;
/// Fault-free executions that show what is normal. What differs between them is noise.
const LEARNING_RUNS: u32 = 8;
/// A run is off when more calls of a million are missing or too many, beyond the noise. Measured: mostly below 10,000, once in
/// sixty runs 25,000.
const TOLERATED_PPM: u64 = 50_000;
/// The calls of a workload of which there is too little to tell.
const FEW_CALLS: u32 = 20;
/// A guest has drifted when so many control runs in a row were off.
const RUNS_OFF: u32 = 2;

/// What the fault-free plan does in a guest as it should be.
#[derive(Debug, Default)]
pub(super) struct Control {
    runs: u32,
    calls: u32,
    /// The fewest and the most hits of each site in the learning runs.
    normal: HashMap<u64, (u32, u32)>,
}

impl Control {
    /// Takes in the hits of a fault-free execution. Returns how many of a million calls are off: none for the first ones, of
    /// which is learned what is normal.
    fn off_ppm(&mut self, hits: &[Hit]) -> u64 {
        if self.runs < LEARNING_RUNS {
            self.learn(hits);
            return 0;
        }
        u64::from(self.distance(hits)) * 1_000_000 / u64::from(self.calls.max(FEW_CALLS))
    }

    fn learn(&mut self, hits: &[Hit]) {
        let reached: HashSet<u64> = hits.iter().map(|hit| hit.site).collect();
        for (_, (fewest, _)) in self.normal.iter_mut().filter(|(site, _)| !reached.contains(site)) {
            *fewest = 0;
        }
        for hit in hits {
            let unknown = if self.runs == 0 { (hit.count, hit.count) } else { (0, hit.count) };
            let (fewest, most) = self.normal.entry(hit.site).or_insert(unknown);
            (*fewest, *most) = ((*fewest).min(hit.count), (*most).max(hit.count));
        }
        self.calls = self.calls.max(hits.iter().map(|hit| hit.count).fold(0, u32::saturating_add));
        self.runs += 1;
    }

    /// Calls too few and too many, at all sites.
    fn distance(&self, hits: &[Hit]) -> u32 {
        let mut counts: HashMap<u64, u32> = hits.iter().map(|hit| (hit.site, hit.count)).collect();
        let mut distance = 0_u32;
        for (site, (fewest, most)) in &self.normal {
            let count = counts.remove(site).unwrap_or(0);
            distance =
                distance.saturating_add(fewest.saturating_sub(count)).saturating_add(count.saturating_sub(*most));
        }
        counts.into_values().fold(distance, u32::saturating_add)
    }
}

/// What a guest has executed.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) executions: u64,
    /// When the next control run is due.
    next_control: u64,
    /// Control runs in a row that were off.
    off: u32,
}

impl Life {
    /// A guest's that is yet to be started.
    pub(super) const NEW: Self = Self { executions: 0, next_control: CONTROL_INTERVAL, off: 0 };
}

impl GuestPool {
    /// Takes in the hits of a fault-free execution. A guest that has drifted is discarded.
    pub(super) fn control_ran(&mut self, hits: &[Hit]) {
        self.counters.controls += 1;
        self.counters.control_off_ppm = self.control.off_ppm(hits);
        let off = self.counters.control_off_ppm > TOLERATED_PPM;
        self.life.off = if off { self.life.off + 1 } else { 0 };
        self.life.next_control = self.life.executions + if off { 0 } else { CONTROL_INTERVAL };
        if self.life.off == RUNS_OFF {
            tracing::debug!(executions = self.life.executions, "the guest has drifted, replacing it");
            self.counters.drifted += 1;
            self.discard();
        }
    }

    /// Runs the control plan as long as it is due. What it finds in this guest is the doing of the plan that ran before it,
    /// and so is what comes to light later.
    pub(super) fn check_control(&mut self) -> Result<(), ExecuteError> {
        let (last, guests) = (self.last.clone(), self.counters.guests);
        while self.inject && self.guest.is_some() && self.life.executions >= self.life.next_control {
            let execution = match self.attempts(&self.target.fault_free()) {
                Ok(execution) => execution,
                Err(ExecuteError::Stopped) => return Err(ExecuteError::Stopped),
                Err(error) => {
                    tracing::warn!("the control plan cannot be run: {}", crate::chain(&error));
                    break;
                }
            };
            // Whoever asks for the next execution has not heard of them.
            execution.new_sites.iter().for_each(|site| _ = self.described.remove(&site.site));
            let blamed = last.clone().filter(|_| self.counters.guests == guests);
            if execution.outcome.report().is_some() {
                let (plan, fired) =
                    blamed.map_or_else(|| (self.target.fault_free(), Vec::new()), |last| (last.plan, last.fired));
                self.late.push((plan, Execution { fired, ..execution }));
            } else if self.guest.is_some() && blamed.is_some() {
                self.last = blamed;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hits(counts: &[(u64, u32)]) -> Vec<Hit> {
        counts.iter().map(|(site, count)| Hit { site: *site, count: *count, first_sequence: 1 }).collect()
    }

    /// Sites 1 and 2, the second with noise, and now and then a third.
    fn learned() -> Control {
        let mut control = Control::default();
        for run in 0..LEARNING_RUNS {
            let mut counts = vec![(1, 60), (2, 40 + run % 3)];
            if run == 3 {
                counts.push((3, 2));
            }
            assert_eq!(control.off_ppm(&hits(&counts)), 0);
        }
        control
    }

    #[test]
    fn noise_is_normal() {
        let mut control = learned();
        for counts in
            [&[(1, 60), (2, 40)][..], &[(1, 60), (2, 42), (3, 1)], &[(1, 58), (2, 43)], &[(1, 60), (2, 40), (9, 4)]]
        {
            assert!(control.off_ppm(&hits(counts)) <= TOLERATED_PPM, "{counts:?}");
        }
    }

    #[test]
    fn what_is_missing_and_what_is_new_is_off() {
        let mut control = learned();
        for counts in [&[(1, 60)][..], &[(1, 50), (2, 40)], &[(1, 60), (2, 60)], &[(1, 60), (2, 40), (9, 20)], &[]] {
            assert!(control.off_ppm(&hits(counts)) > TOLERATED_PPM, "{counts:?}");
        }
    }
}
