//! Further causes that a finding may have which is named after a failed call.
//!
//! A fault that lasts fails several calls, and one of the later ones may be what matters: a memory
//! pool stands in for the first. Only the first call's path is noted. So each call that may have
//! failed after it is a cause, too. A crash that has one of them for its name is the likeliest:
//! each point was failed alone before. So is one that the same call made of the data in another
//! way.

use std::{collections::BTreeSet, sync::Arc};

use execution::{Finding, Fired};
use fault_plan::{Fault, FaultPlan};
use guest_protocol::{Hit, SiteDescription};

use super::{leftover::telling, losses};

/// Adds to the `findings` of an execution of `plan` the keys that they have if a later call of a
/// fault that lasts is their cause, or if it shows in another way. These faults `fired`, and these
/// `sites` had these `hits`.
pub(super) fn add(
    findings: &mut [Finding],
    plan: &FaultPlan,
    fired: &[Fired],
    hits: &[Hit],
    sites: &[Arc<SiteDescription>],
) {
    let Some(last) = fired.last().and_then(telling).map(|caller| format!(": {caller}")) else { return };
    // Most executions find nothing.
    if findings.iter().all(Finding::is_report) {
        return;
    }
    let lasting = fired.iter().filter(|fired| fired.times > 1);
    let faults = lasting.filter_map(|fired| Some((plan.faults.get(fired.fault)?, fired)));
    let callers: BTreeSet<&str> = faults.flat_map(|(fault, fired)| later(fault, fired, hits, sites)).collect();
    for finding in findings.iter_mut().filter(|finding| !finding.is_report()) {
        let Finding { key, also, .. } = finding;
        let Some(words) = key.strip_suffix(&last) else { continue };
        let further = callers.iter().map(|caller| format!("{words}: {caller}"));
        let further: Vec<_> = further.filter(|other| other != key && !also.contains(other)).collect();
        also.extend(further);
        let shows: Vec<_> = [&*key].into_iter().chain(&*also).flat_map(|key| losses::also_shows(key)).collect();
        also.extend(shows);
    }
}

/// Gives the callers of the calls that may have failed after the first one of a `fault` that
/// `fired` more than once. A site that was called before may have been called again.
fn later<'a>(
    fault: &Fault,
    fired: &Fired,
    hits: &[Hit],
    sites: &'a [Arc<SiteDescription>],
) -> impl Iterator<Item = &'a str> {
    let first = |site: &SiteDescription| hits.iter().find(|hit| hit.site == site.site);
    let matching =
        sites.iter().filter(|site| fault.may_match(&site.function, &site.call_path, (site.step, site.scope)));
    let matching = matching.filter_map(|site| Some((first(site)?, site)));
    let (mut new, mut called): (Vec<_>, Vec<_>) = matching.partition(|(hit, _)| hit.first_sequence > fired.sequence);
    called.retain(|(hit, _)| hit.count > 1);
    new.sort_by_key(|(hit, _)| hit.first_sequence);
    // The first of these calls is the one that is noted.
    new.truncate(usize::try_from(fired.times - 1).unwrap_or(usize::MAX));
    called.into_iter().chain(new).filter_map(|(_, site)| kernel_report::telling_caller(&site.call_path))
}

#[cfg(test)]
mod tests {
    use execution::FindingKind;
    use fault_plan::{CallPath, Errno, InjectedError, Scope};

    use super::*;

    /// A site that was called first as call `first` of the execution, by `caller`.
    fn site(number: u64, caller: &str, step: u32) -> Arc<SiteDescription> {
        let call_path = vec!["kmem_cache_alloc_noprof".to_owned(), caller.to_owned()];
        let (function, scope) = ("should_failslab".to_owned(), Scope::Workload);
        Arc::new(SiteDescription { site: number, function, call_path, truncated: false, step, scope })
    }

    fn also(times: u32, key: &str) -> Vec<String> {
        let error = InjectedError::Errno(Errno::ENOMEM);
        let fault = Fault { times, step: Some(1), ..Fault::new("should_failslab", CallPath::default(), 3, error) };
        let plan = FaultPlan { faults: vec![fault], ..FaultPlan::fault_free("t") };
        let sites = vec![
            site(1, "before", 1),
            site(2, "before_and_after", 1),
            site(3, "first", 1),
            site(4, "third", 1),
            site(5, "second", 1),
            site(6, "other_step", 2),
        ];
        let hits = [(1, 1, 1), (2, 2, 2), (3, 1, 3), (4, 1, 5), (5, 1, 4), (6, 1, 6)]
            .map(|(site, count, first_sequence)| Hit { site, count, first_sequence });
        let fired = Fired { sequence: 3, times, call_path: sites[2].call_path.clone(), ..Fired::default() };
        let mut findings = [Finding::seen(FindingKind::Data, key, key, "")];
        add(&mut findings, &plan, &[fired], &hits, &sites);
        let [finding] = findings;
        finding.also
    }

    #[test]
    fn each_call_that_may_have_failed_is_a_cause_of_what_is_named_after_the_first() {
        let left = |callers: &[&str]| callers.iter().map(|caller| format!("mount left: {caller}")).collect::<Vec<_>>();
        assert_eq!(also(3, "mount left: first"), left(&["before_and_after", "second", "third"]));
        assert_eq!(also(2, "mount left: first"), left(&["before_and_after", "second"]));
        assert_eq!(also(1, "mount left: first"), left(&[]), "it fired once");
        assert_eq!(also(3, "btrfs check: root N"), left(&[]), "it is not named after a call");
    }

    #[test]
    fn data_that_a_call_loses_shows_in_other_ways_for_each_of_the_calls() {
        let causes = also(2, "stale data: first");
        assert_eq!(causes[..2], ["stale data: before_and_after", "stale data: second"]);
        assert!(causes.contains(&"error swallowed, data lost: first".to_owned()), "{causes:?}");
        assert!(causes.contains(&"error swallowed, data lost: second".to_owned()), "{causes:?}");
    }
}
