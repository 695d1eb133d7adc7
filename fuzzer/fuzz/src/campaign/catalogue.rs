//! What the campaign knows about injection sites: the supply of faults to try.

use std::collections::{BTreeMap, BTreeSet};

use fault_plan::{CallPath, Fault, InjectedError, MAX_CALL_PATH};
use guest_protocol::{Hit, SiteDescription};
use libafl_bolts::impl_serdeany;
use serde::{Deserialize, Serialize};

/// A site and what was tried on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Site {
    /// The injectable function.
    pub function: String,
    /// The callers, innermost first.
    pub call_path: Vec<String>,
    /// Whether there were more callers than are read.
    pub truncated: bool,
    /// Most calls in one execution.
    pub most_calls: u32,
    /// Executions that reached it.
    pub executions: u64,
    /// Faults that fired here.
    pub failed: u64,
    /// Those of them that were the last of their execution, and cost its guest.
    #[serde(default)]
    pub fatal: u64,
    /// Whether the first-failure stage has had its turn on it.
    pub attempted: bool,
}

/// A site has so many fatal faults before it is known for that.
const KNOWN_AS_FATAL: u64 = 3;

impl Site {
    /// The fault that fails the `occurrence`-th call at this very site.
    #[must_use]
    pub fn fault(&self, occurrence: u32, error: InjectedError) -> Fault {
        let mut call_path = self.call_path.clone();
        call_path.truncate(MAX_CALL_PATH);
        Fault { function: self.function.clone(), call_path: CallPath(call_path), occurrence, error }
    }

    /// Whether most faults here are known to cost the guest.
    fn is_fatal(&self) -> bool {
        self.fatal >= KNOWN_AS_FATAL && self.fatal * 2 > self.failed
    }

    /// Whether `fault` is one at this very site.
    fn has(&self, fault: &Fault) -> bool {
        let length = self.call_path.len().min(MAX_CALL_PATH);
        self.function == fault.function && self.call_path[..length] == fault.call_path.0
    }
}

/// The injection sites discovered so far.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    /// By the number that the agent gives them.
    sites: BTreeMap<u64, Site>,
    /// Those of them where most faults cost the guest.
    fatal: BTreeSet<u64>,
    /// Sites of earlier starts that no guest has numbered yet, by [`key`].
    remembered: BTreeMap<String, Site>,
}

fn key(function: &str, call_path: &[String]) -> String {
    format!("{function} {}", call_path.join(" "))
}

impl Catalogue {
    /// A catalogue that knows `sites` from earlier starts.
    #[must_use]
    pub fn remembering(sites: Vec<Site>) -> Self {
        let remembered = sites.into_iter().map(|site| (key(&site.function, &site.call_path), site)).collect();
        Self { remembered, ..Self::default() }
    }

    /// Takes in an execution's descriptions and hits. Returns whether a site is new.
    pub fn learn(&mut self, descriptions: &[SiteDescription], hits: &[Hit]) -> bool {
        let before = self.len();
        for SiteDescription { site, function, call_path, truncated } in descriptions {
            if !self.sites.contains_key(site) {
                let (function, call_path, truncated) = (function.clone(), call_path.clone(), *truncated);
                let known = self.remembered.remove(&key(&function, &call_path));
                let new = || Site {
                    function,
                    call_path,
                    truncated,
                    most_calls: 0,
                    executions: 0,
                    failed: 0,
                    fatal: 0,
                    attempted: false,
                };
                self.sites.insert(*site, known.unwrap_or_else(new));
                self.judge(*site);
            }
        }
        for hit in hits {
            if let Some(site) = self.sites.get_mut(&hit.site) {
                site.most_calls = site.most_calls.max(hit.count);
                site.executions += 1;
            }
        }
        self.len() > before
    }

    /// Takes in that a fault fired at the site with this number.
    pub fn fired(&mut self, site: u64) {
        if let Some(known) = self.sites.get_mut(&site) {
            known.failed += 1;
            self.judge(site);
        }
    }

    /// Takes in that a fault at the site with this number, the last one of its execution, cost the guest.
    pub fn was_fatal(&mut self, site: u64) {
        if let Some(known) = self.sites.get_mut(&site) {
            known.fatal += 1;
            self.judge(site);
        }
    }

    fn judge(&mut self, site: u64) {
        if self.sites.get(&site).is_some_and(Site::is_fatal) {
            self.fatal.insert(site);
        } else {
            self.fatal.remove(&site);
        }
    }

    /// Whether `fault` is one at a site where most are known to cost the guest.
    #[must_use]
    pub fn is_fatal(&self, fault: &Fault) -> bool {
        self.fatal.iter().filter_map(|site| self.sites.get(site)).any(|site| site.has(fault))
    }

    /// The site with this number.
    #[must_use]
    pub fn get(&self, site: u64) -> Option<&Site> {
        self.sites.get(&site)
    }

    /// How many sites are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sites.len() + self.remembered.len()
    }

    /// Whether no site is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many sites were failed at least once.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.all().filter(|site| site.failed > 0).count()
    }

    /// Marks a site as attempted by the first-failure stage.
    pub fn attempt(&mut self, site: u64) {
        if let Some(site) = self.sites.get_mut(&site) {
            site.attempted = true;
        }
    }

    /// Whether the first-failure stage has had its turn on the site, or a fault fired there anyway.
    #[must_use]
    pub fn attempted(&self, site: u64) -> bool {
        self.sites.get(&site).is_some_and(|site| site.attempted || site.failed > 0)
    }

    fn all(&self) -> impl Iterator<Item = &Site> {
        self.sites.values().chain(self.remembered.values())
    }

    /// The sites for `sites.json`, sorted by name.
    #[must_use]
    pub fn to_file(&self) -> Vec<Site> {
        let mut sites: Vec<Site> = self.all().cloned().collect();
        sites.sort_by(|a, b| (&a.function, &a.call_path).cmp(&(&b.function, &b.call_path)));
        sites
    }
}

/// The sites that one corpus entry reached, in the order of their first call.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Reached(pub(super) Vec<Hit>);

impl_serdeany!(Reached);

impl Reached {
    /// The hits of an execution, sorted.
    #[must_use]
    pub(super) fn new(hits: &[Hit]) -> Self {
        let mut hits = hits.to_vec();
        hits.sort_by_key(|hit| hit.first_sequence);
        Self(hits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn description(site: u64, function: &str) -> SiteDescription {
        SiteDescription { site, function: function.to_owned(), call_path: vec!["caller".to_owned()], truncated: false }
    }

    #[test]
    fn a_site_is_new_once() {
        let mut catalogue = Catalogue::default();
        let hits = [Hit { site: 1, count: 3, first_sequence: 1 }, Hit { site: 9, count: 1, first_sequence: 2 }];
        assert!(catalogue.learn(&[description(1, "f")], &hits));
        assert!(!catalogue.learn(&[description(1, "f")], &hits));
        let site = catalogue.get(1).unwrap();
        assert_eq!((site.most_calls, site.executions, site.failed), (3, 2, 0));
        catalogue.fired(1);
        catalogue.fired(2);
        assert_eq!((catalogue.failed(), catalogue.len()), (1, 1));
        assert!(catalogue.attempted(1));
    }

    #[test]
    fn a_site_where_most_faults_cost_the_guest_is_known_for_it() {
        let mut catalogue = Catalogue::default();
        catalogue.learn(&[description(1, "f"), description(2, "g")], &[]);
        let fault = catalogue.get(1).unwrap().fault(7, InjectedError::True);
        for _ in 0..KNOWN_AS_FATAL {
            assert!(!catalogue.is_fatal(&fault));
            catalogue.fired(1);
            catalogue.was_fatal(1);
        }
        assert!(catalogue.is_fatal(&fault));
        assert!(!catalogue.is_fatal(&catalogue.get(2).unwrap().fault(1, InjectedError::True)));
        let wider = Fault { call_path: CallPath::default(), ..fault.clone() };
        assert!(!catalogue.is_fatal(&wider), "it can hit other calls");
        let mut later = Catalogue::remembering(catalogue.to_file());
        later.learn(&[description(9, "f")], &[]);
        assert!(later.is_fatal(&fault));
        for _ in 0..KNOWN_AS_FATAL {
            catalogue.fired(1);
        }
        assert!(!catalogue.is_fatal(&fault), "half of them are not most");
    }

    #[test]
    fn a_site_of_an_earlier_start_is_not_new() {
        let mut catalogue = Catalogue::default();
        catalogue.learn(&[description(1, "f"), description(2, "g")], &[]);
        catalogue.attempt(1);
        let mut later = Catalogue::remembering(catalogue.to_file());
        assert_eq!(later.len(), 2);
        assert!(!later.learn(&[description(7, "f")], &[]));
        assert!(later.attempted(7));
        assert_eq!(later.to_file(), catalogue.to_file());
        assert!(later.learn(&[description(8, "h")], &[]));
    }
}
