//! One crash: a key, the plan that stands for it, and what is known of that plan.
//!
//! ```text
//!                  found here, or told by another host
//!                                │
//!                                ▼
//!                ┌────────▶ untried ─────────┐
//!  another plan  │               │           │ made it again
//!  is found      │  did not make │           │ in a fresh guest
//!                │  it again     ▼           ▼
//!                └────────── doubtful ──▶ reproduced
//!                                  made it again in a guest that repeats exactly
//! ```
//!
//! - *found*: no crash of this key was known. The plan is tried in fresh guests.
//! - *did not make it again*: up to [`MOST_CANDIDATES`] plans are tried, then no more are taken.
//! - *another plan*: it replaces the doubtful one with all that was known of that.
//! - *made it again*: no other plan is wanted. An exact run may still say that it always does.
//! - *seen on the kernel that judges*, when another kernel found it: the crash is written once
//!   more, with that kernel's report and plan, whatever its standing, and tried there.
//!
//! Each plan is tried once in fresh guests. One that made its crash again there is minimised,
//! unless another host found it. Then, where there are such guests, the plan is tried once exactly.
//! Apart from its standing, a crash may be *the same* as another one: the kernel that judges gave
//! the crash of the same plan another key. The next plan starts without that knowledge.

use std::{sync::Arc, time::Instant};

use fault_plan::Round;

use crate::{input::PlanInput, kernels::CampaignKernel};

/// The most plans that are tried as the reproducer of one crash.
const MOST_CANDIDATES: u32 = 4;

/// The standing of a crash's reproducer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It was not tried yet. The number counts the plans that were tried before it in vain.
    Untried(u32),
    /// It made the crash again.
    Reproduced,
    /// It did not. The number counts the plans tried in vain, this one included.
    Doubtful(u32),
}

/// The next step of triage with a reproducer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It waits for fresh guests.
    Fresh,
    /// It waits to be made as simple as it can be.
    Minimal,
    /// It waits for a guest that repeats exactly.
    Exact,
    /// It waits for nothing: all was tried, or somebody is at it.
    Nothing,
}

/// A crash of a campaign.
#[derive(Debug)]
pub(super) struct Crash {
    /// One line for people.
    pub(super) title: String,
    /// The plan that stands for it.
    pub(super) plan: PlanInput,
    /// The rounds of the guest before the plan's last one.
    pub(super) history: Arc<[Round]>,
    /// Name of the kernel that it was found on.
    pub(super) kernel: String,
    /// True when it is another host's, of which this host has seen nothing yet.
    pub(super) foreign: bool,
    /// Moment from which this start of the campaign knows the plan.
    pub(super) since: Instant,
    /// The key that it has on the kernel that judges or whenever it is tried, where that is another
    /// one.
    pub(super) same_as: Option<String>,
    /// True when the kernel that judges has seen it: what it sees later is nothing new.
    pub(super) judged: bool,
    /// True when a version without keys found it, so that its title stands for its key.
    pub(super) by_title: bool,
    /// Tries in fresh guests at the last triage, in which the crash came again.
    pub(super) reproduced: u32,
    standing: Standing,
    next: Next,
    /// Its position among those that wait for the same step.
    queued: u64,
}

impl Crash {
    /// Makes the record of a crash that was just written. `in_vain` plans were tried before.
    pub(super) fn new(title: &str, plan: PlanInput, kernel: &str, foreign: bool, in_vain: u32, queued: u64) -> Self {
        Self {
            title: title.to_owned(),
            plan,
            history: Arc::default(),
            kernel: kernel.to_owned(),
            foreign,
            since: Instant::now(),
            same_as: None,
            judged: false,
            by_title: false,
            reproduced: 0,
            standing: Standing::Untried(in_vain),
            next: Next::Fresh,
            queued,
        }
    }

    /// Restores what an earlier start found out: how often the plan was tried in fresh guests, how
    /// often it made the crash again, whether it is minimised, and what it did in an exact run.
    pub(super) fn restore(&mut self, tried: u32, reproduced: u32, minimised: bool, exact: Option<bool>) {
        if tried > 0 {
            self.tried(reproduced, self.queued);
            if minimised {
                self.next = Next::Exact;
            }
            if let Some(again) = exact {
                if self.next == Next::Exact {
                    self.next = Next::Nothing;
                }
                self.tried_exactly(again);
            }
        }
    }

    /// Says how many plans were tried in vain, when another plan is wanted.
    pub(super) fn wants_another_plan(&self) -> Option<u32> {
        match self.standing {
            Standing::Doubtful(in_vain) if in_vain < MOST_CANDIDATES => Some(in_vain),
            _ => None,
        }
    }

    /// Says how many plans were tried in vain, when what `kernel` sees says more than what is
    /// known: `kernel` is the one that judges, and another one found this crash. Its report is the
    /// better one, and so is a plan that makes the crash there.
    pub(super) fn wants_judgement(&self, kernel: &str, judge: &str) -> Option<u32> {
        (kernel == judge && self.kernel != judge && !self.judged).then_some(match self.standing {
            Standing::Reproduced => 0,
            Standing::Untried(in_vain) | Standing::Doubtful(in_vain) => in_vain,
        })
    }

    /// Gives its position among those that wait for `step` on `kernel`, if it does.
    pub(super) fn waits_for(&self, step: Next, kernel: &CampaignKernel) -> Option<u64> {
        (self.next == step && self.kernel == kernel.name).then_some(self.queued)
    }

    /// Takes it out of the queue it is in: somebody tries its plan.
    pub(super) fn take(&mut self) {
        self.next = Next::Nothing;
    }

    /// Takes in that the plan that stands for it, which nobody could make it again with, is but the
    /// last round of this one, which makes it.
    pub(super) fn is_made_by(&mut self, sequence: PlanInput) {
        self.plan = sequence;
        self.history = Arc::default();
    }

    /// Puts it back to those that wait for fresh guests.
    pub(super) fn put_back(&mut self, queued: u64) {
        (self.next, self.queued) = (Next::Fresh, queued);
    }

    /// Takes in that its plan is as simple as it can be, or gave way to this one, which made the
    /// crash again so often in fresh guests.
    pub(super) fn is_minimal(&mut self, simpler: Option<(PlanInput, u32)>, queued: u64) {
        if let Some((plan, reproduced)) = simpler {
            (self.plan, self.reproduced) = (plan, reproduced);
        }
        (self.next, self.queued) = (Next::Exact, queued);
    }

    /// Takes in that the plan made the crash again so often in fresh guests.
    pub(super) fn tried(&mut self, reproduced: u32, queued: u64) {
        let in_vain = if let Standing::Untried(before) = self.standing { before } else { 0 };
        self.standing = if reproduced > 0 { Standing::Reproduced } else { Standing::Doubtful(in_vain + 1) };
        self.reproduced = reproduced;
        let next = if reproduced > 0 && !self.foreign { Next::Minimal } else { Next::Exact };
        (self.next, self.queued) = (next, queued);
    }

    /// Takes in whether the plan made the crash again in an exact run.
    pub(super) fn tried_exactly(&mut self, again: bool) {
        if again {
            self.standing = Standing::Reproduced;
        }
    }
}

#[cfg(test)]
mod tests {
    use fault_plan::FaultPlan;
    use kcov_parser::CallSites;

    use super::*;

    fn crash(in_vain: u32) -> Crash {
        Crash::new("BUG in f", PlanInput(FaultPlan::fault_free("fake")), "lean", false, in_vain, 1)
    }

    fn kernel(name: &str) -> CampaignKernel {
        let call_sites = Arc::new(CallSites::from_offsets(0, vec![0]));
        CampaignKernel { name: name.to_owned(), build_id: name.to_owned(), call_sites }
    }

    #[test]
    fn a_plan_waits_for_fresh_guests_then_for_an_exact_one_then_for_nothing() {
        let mut crash = crash(0);
        let waits = |crash: &Crash| [Next::Fresh, Next::Exact].map(|step| crash.waits_for(step, &kernel("lean")));
        assert_eq!(waits(&crash), [Some(1), None]);
        assert_eq!(crash.waits_for(Next::Fresh, &kernel("check")), None, "it was found on another kernel");
        crash.take();
        assert_eq!(waits(&crash), [None, None]);
        crash.put_back(2);
        assert_eq!(waits(&crash), [Some(2), None]);
        crash.take();
        crash.tried(0, 3);
        assert_eq!(waits(&crash), [None, Some(3)]);
        crash.take();
        crash.tried_exactly(false);
        assert_eq!(waits(&crash), [None, None]);
    }

    #[test]
    fn another_plan_is_wanted_while_few_were_tried_and_none_made_it_again() {
        for in_vain in 0..MOST_CANDIDATES {
            let mut crash = crash(in_vain);
            assert_eq!(crash.wants_another_plan(), None, "this one comes first");
            crash.tried(0, 2);
            assert_eq!(crash.wants_another_plan(), Some(in_vain + 1).filter(|tried| *tried < MOST_CANDIDATES));
        }
        let mut fresh = crash(0);
        fresh.tried(1, 2);
        let mut exact = crash(0);
        exact.tried(0, 2);
        exact.tried_exactly(true);
        for reproduced in [fresh, exact] {
            assert_eq!((reproduced.standing, reproduced.wants_another_plan()), (Standing::Reproduced, None));
        }
    }

    #[test]
    fn a_later_start_knows_what_an_earlier_one_found_out() {
        let restored = |tried, reproduced, minimised, exact| {
            let mut crash = crash(0);
            crash.restore(tried, reproduced, minimised, exact);
            (crash.standing, crash.next)
        };
        assert_eq!(restored(0, 0, false, None), (Standing::Untried(0), Next::Fresh));
        assert_eq!(restored(3, 0, false, None), (Standing::Doubtful(1), Next::Exact));
        assert_eq!(restored(3, 2, false, None), (Standing::Reproduced, Next::Minimal));
        assert_eq!(restored(3, 2, false, Some(true)), (Standing::Reproduced, Next::Minimal), "of an older version");
        assert_eq!(restored(3, 2, true, None), (Standing::Reproduced, Next::Exact));
        assert_eq!(restored(3, 2, true, Some(true)), (Standing::Reproduced, Next::Nothing));
        assert_eq!(restored(3, 0, false, Some(false)), (Standing::Doubtful(1), Next::Nothing));
        assert_eq!(restored(3, 0, false, Some(true)), (Standing::Reproduced, Next::Nothing));
    }

    #[test]
    fn a_crash_that_came_again_is_minimised_before_its_exact_run_unless_it_is_another_host_s() {
        let mut crash = crash(0);
        crash.tried(3, 2);
        assert_eq!((crash.next, crash.reproduced), (Next::Minimal, 3));
        crash.take();
        let simpler = PlanInput(FaultPlan::fault_free("simpler"));
        crash.is_minimal(Some((simpler.clone(), 2)), 3);
        assert_eq!((crash.next, crash.reproduced, crash.plan), (Next::Exact, 2, simpler));
        let mut foreign = Crash::new("BUG in f", PlanInput(FaultPlan::fault_free("fake")), "lean", true, 0, 1);
        foreign.tried(3, 2);
        assert_eq!(foreign.next, Next::Exact);
    }
}
