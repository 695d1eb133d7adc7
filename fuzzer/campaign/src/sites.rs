//! Injection sites that a campaign has discovered: the supply of faults to try.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use fault_plan::{CallPath, Fault, InjectedError, MAX_CALL_PATH};
use guest_protocol::{Hit, SiteDescription};
use libafl_bolts::impl_serdeany;
use serde::{Deserialize, Serialize};

/// A site in one step of the workload, and what was tried there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Site {
    /// The injectable function.
    pub function: String,
    /// The callers, innermost first.
    pub call_path: Vec<String>,
    /// True when there were more callers than are read.
    pub truncated: bool,
    /// The step of the workload, from 1. Versions that told no steps apart wrote none.
    #[serde(default)]
    pub step: u32,
    /// Most calls in one execution.
    pub most_calls: u32,
    /// Executions that reached it.
    pub executions: u64,
    /// Faults that fired here.
    pub failed: u64,
    /// Those of them that were the last of their execution, and cost its guest.
    #[serde(default)]
    pub fatal: u64,
    /// True when the first-failure stage has had its turn on it.
    pub attempted: bool,
}

/// Number of fatal faults from which a site is known for them.
const KNOWN_AS_FATAL: u64 = 3;

impl Site {
    /// Makes the fault that fails the `occurrence`-th call at this very site in this step.
    #[must_use]
    pub fn fault(&self, occurrence: u32, error: InjectedError) -> Fault {
        let mut call_path = self.call_path.clone();
        call_path.truncate(MAX_CALL_PATH);
        let (function, call_path) = (self.function.clone(), CallPath(call_path));
        Fault { function, call_path, occurrence, error, step: Some(self.step) }
    }

    /// Says whether the calls here are among those that `fault` counts.
    pub(crate) fn is_matched_by(&self, fault: &Fault) -> bool {
        self.function == fault.function
            && fault.step.is_none_or(|step| step == self.step)
            && fault.call_path.matches(&self.call_path)
    }

    /// Says whether most faults here are known to cost the guest.
    fn is_fatal(&self) -> bool {
        self.fatal >= KNOWN_AS_FATAL && self.fatal * 2 > self.failed
    }

    /// Says whether `fault` is one at this very site.
    fn has(&self, fault: &Fault) -> bool {
        let length = self.call_path.len().min(MAX_CALL_PATH);
        self.function == fault.function
            && fault.step == Some(self.step)
            && self.call_path[..length] == fault.call_path.0
    }
}

/// Position of a site in [`Sites`].
pub(crate) type SiteIndex = u32;

/// The injection sites discovered so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sites {
    /// In the order in which they were discovered.
    sites: Vec<Site>,
    /// Their indices, by the numbers that the agent gives them.
    indices: HashMap<u64, SiteIndex>,
    /// Those of them where most faults cost the guest.
    fatal: BTreeSet<SiteIndex>,
    /// Sites of earlier starts that no guest has numbered yet, by [`key`].
    remembered: BTreeMap<String, Site>,
}

fn key(step: u32, function: &str, call_path: &[String]) -> String {
    format!("{step} {function} {}", call_path.join(" "))
}

impl Sites {
    /// Makes sites that know `sites` from earlier starts, but for those of no step, which nothing
    /// reaches any more.
    pub(crate) fn remembering(sites: Vec<Site>) -> Self {
        let of_steps = sites.into_iter().filter(|site| site.step != 0);
        let remembered = of_steps.map(|site| (key(site.step, &site.function, &site.call_path), site));
        Self { remembered: remembered.collect(), ..Self::default() }
    }

    /// Takes in an execution's descriptions and hits. Returns whether a site is new.
    pub(crate) fn learn(&mut self, descriptions: &[Arc<SiteDescription>], hits: &[Hit]) -> bool {
        let before = self.len();
        for description in descriptions {
            let SiteDescription { site, function, call_path, truncated, step } = &**description;
            if !self.indices.contains_key(site) {
                let (function, call_path, truncated, step) = (function.clone(), call_path.clone(), *truncated, *step);
                let known = self.remembered.remove(&key(step, &function, &call_path));
                let new = || Site {
                    function,
                    call_path,
                    truncated,
                    step,
                    most_calls: 0,
                    executions: 0,
                    failed: 0,
                    fatal: 0,
                    attempted: false,
                };
                let index = SiteIndex::try_from(self.sites.len()).unwrap_or(SiteIndex::MAX);
                self.sites.push(known.unwrap_or_else(new));
                self.indices.insert(*site, index);
                self.judge(index);
            }
        }
        for hit in hits {
            if let Some((_, site)) = self.numbered(hit.site) {
                site.most_calls = site.most_calls.max(hit.count);
                site.executions += 1;
            }
        }
        self.len() > before
    }

    /// Takes in that a fault fired at the site with this number.
    pub(crate) fn fired(&mut self, site: u64) {
        if let Some((index, known)) = self.numbered(site) {
            known.failed += 1;
            self.judge(index);
        }
    }

    /// Takes in that a fault at the site with this number, the last one of its execution, cost the
    /// guest.
    pub(crate) fn was_fatal(&mut self, site: u64) {
        if let Some((index, known)) = self.numbered(site) {
            known.fatal += 1;
            self.judge(index);
        }
    }

    /// Gives the site with this number of the agent's.
    fn numbered(&mut self, site: u64) -> Option<(SiteIndex, &mut Site)> {
        let index = *self.indices.get(&site)?;
        Some((index, self.sites.get_mut(index as usize)?))
    }

    fn judge(&mut self, site: SiteIndex) {
        if self.get(site).is_some_and(Site::is_fatal) {
            self.fatal.insert(site);
        } else {
            self.fatal.remove(&site);
        }
    }

    /// Says whether `fault` is one at a site where most are known to cost the guest.
    pub(crate) fn is_fatal(&self, fault: &Fault) -> bool {
        self.fatal.iter().filter_map(|site| self.get(*site)).any(|site| site.has(fault))
    }

    /// Gives the calls of an execution that was learnt, for its corpus entry.
    pub(crate) fn reached(&self, hits: &[Hit]) -> Reached {
        let calls = |hit: &Hit| Some(Calls { site: *self.indices.get(&hit.site)?, count: hit.count });
        Reached::pack(hits.iter().filter_map(calls).collect())
    }

    /// Gives the site at this index.
    pub(crate) fn get(&self, site: SiteIndex) -> Option<&Site> {
        self.sites.get(site as usize)
    }

    /// Counts the sites that are known.
    pub(crate) fn len(&self) -> usize {
        self.sites.len() + self.remembered.len()
    }

    /// Counts the sites that were failed at least once.
    pub(crate) fn failed(&self) -> usize {
        self.all().filter(|site| site.failed > 0).count()
    }

    /// Marks a site as attempted by the first-failure stage.
    pub(crate) fn attempt(&mut self, site: SiteIndex) {
        if let Some(site) = self.sites.get_mut(site as usize) {
            site.attempted = true;
        }
    }

    /// Says whether the first-failure stage has had its turn on the site, or a fault fired there
    /// anyway.
    pub(crate) fn attempted(&self, site: SiteIndex) -> bool {
        self.get(site).is_some_and(|site| site.attempted || site.failed > 0)
    }

    fn all(&self) -> impl Iterator<Item = &Site> {
        self.sites.iter().chain(self.remembered.values())
    }

    /// Copies the sites for `sites.json`, sorted by name.
    pub(crate) fn to_file(&self) -> Vec<Site> {
        let mut sites: Vec<Site> = self.all().cloned().collect();
        sites.sort_by(|a, b| (&a.function, &a.call_path, a.step).cmp(&(&b.function, &b.call_path, b.step)));
        sites
    }
}

/// The calls at one site in one execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Calls {
    pub(crate) site: SiteIndex,
    pub(crate) count: u32,
}

/// The calls that the execution of one corpus entry made, by site. Packed, as this is most of what
/// an entry takes in memory, and there may be thousands of both.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Reached {
    /// [`Calls`] as `postcard` writes them, small numbers in one byte, each `site` less the one
    /// before: three bytes instead of eight.
    packed: Box<[u8]>,
}

impl_serdeany!(Reached);

impl Reached {
    fn pack(mut calls: Vec<Calls>) -> Self {
        calls.sort_unstable_by_key(|calls| calls.site);
        let mut before = 0;
        for calls in &mut calls {
            calls.site -= std::mem::replace(&mut before, calls.site);
        }
        // Numbers in memory can always be written.
        Self { packed: postcard::to_stdvec(&calls).unwrap_or_default().into() }
    }

    /// Gives the calls, in the order in which the sites has their sites.
    pub(crate) fn calls(&self) -> Vec<Calls> {
        let mut all: Vec<Calls> = postcard::from_bytes(&self.packed).unwrap_or_default();
        let mut before = 0;
        for calls in &mut all {
            before += calls.site;
            calls.site = before;
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn description(site: u64, function: &str) -> Arc<SiteDescription> {
        let (function, call_path) = (function.to_owned(), vec!["caller".to_owned()]);
        Arc::new(SiteDescription { site, function, call_path, truncated: false, step: 1 })
    }

    #[test]
    fn a_site_is_new_once() {
        let mut sites = Sites::default();
        let hits = [Hit { site: 1, count: 3, first_sequence: 1 }, Hit { site: 9, count: 1, first_sequence: 2 }];
        assert!(sites.learn(&[description(1, "f")], &hits));
        assert!(!sites.learn(&[description(1, "f")], &hits));
        let site = sites.get(0).unwrap();
        assert_eq!((site.most_calls, site.executions, site.failed), (3, 2, 0));
        sites.fired(1);
        sites.fired(2);
        assert_eq!((sites.failed(), sites.len()), (1, 1));
        assert!(sites.attempted(0));
    }

    #[test]
    fn calls_are_packed_small_and_come_out_as_they_were() {
        let mut sites = Sites::default();
        let numbers: Vec<u64> = (0..300).map(|index: u64| index.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
        let descriptions: Vec<_> = numbers.iter().map(|number| description(*number, &number.to_string())).collect();
        sites.learn(&descriptions, &[]);
        assert!(sites.reached(&[]).calls().is_empty());
        let hit = |(site, count)| Hit { site, count, first_sequence: 1 };
        let hits: Vec<Hit> = numbers.iter().rev().copied().zip(1..).map(hit).collect();
        let stranger = [Hit { site: 7, count: 1, first_sequence: 1 }];
        let reached = sites.reached(&[&hits[..], &stranger].concat());
        let calls: Vec<_> = (0..300).map(|site| Calls { site, count: 300 - site }).collect();
        assert_eq!(reached.calls(), calls);
        assert!(reached.packed.len() <= 3 * 300 + 2, "{}", reached.packed.len());
        assert!(sites.reached(&hits[299..]).calls() == [Calls { site: 0, count: 300 }]);
    }

    #[test]
    fn a_site_where_most_faults_cost_the_guest_is_known_for_it() {
        let mut sites = Sites::default();
        sites.learn(&[description(1, "f"), description(2, "g")], &[]);
        let fault = sites.get(0).unwrap().fault(7, InjectedError::True);
        for _ in 0..KNOWN_AS_FATAL {
            assert!(!sites.is_fatal(&fault));
            sites.fired(1);
            sites.was_fatal(1);
        }
        assert!(sites.is_fatal(&fault));
        assert!(!sites.is_fatal(&sites.get(1).unwrap().fault(1, InjectedError::True)));
        let wider = Fault { call_path: CallPath::default(), ..fault.clone() };
        assert!(!sites.is_fatal(&wider), "it can hit other calls");
        assert!(!sites.is_fatal(&Fault { step: None, ..fault.clone() }), "it can hit calls of other steps");
        let mut later = Sites::remembering(sites.to_file());
        later.learn(&[description(9, "f")], &[]);
        assert!(later.is_fatal(&fault));
        for _ in 0..KNOWN_AS_FATAL {
            sites.fired(1);
        }
        assert!(!sites.is_fatal(&fault), "half of them are not most");
    }

    #[test]
    fn a_site_of_an_earlier_start_is_not_new() {
        let mut sites = Sites::default();
        sites.learn(&[description(1, "f"), description(2, "g")], &[]);
        sites.attempt(0);
        let mut later = Sites::remembering(sites.to_file());
        assert_eq!(later.len(), 2);
        assert!(!later.learn(&[description(7, "f")], &[]));
        assert!(later.attempted(0));
        assert_eq!(later.to_file(), sites.to_file());
        assert!(later.learn(&[description(8, "h")], &[]));
    }
}
