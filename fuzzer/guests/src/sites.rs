//! Descriptions of injection sites, which all guests of one kernel share: a site's number is the
//! same in each of them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use guest_protocol::{Hit, SiteDescription};

/// The descriptions so far, by the sites' numbers.
#[derive(Debug, Default)]
pub(crate) struct Sites(Mutex<HashMap<u64, Arc<SiteDescription>>>);

impl Sites {
    /// Takes in descriptions, and gives those of the sites that were hit. Says also whether one of
    /// them is missing, so that the next guest is to describe all.
    pub(crate) fn of(&self, described: Vec<SiteDescription>, hits: &[Hit]) -> (Vec<Arc<SiteDescription>>, bool) {
        let mut sites = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for site in described {
            sites.entry(site.site).or_insert_with(|| Arc::new(site));
        }
        let found: Vec<_> = hits.iter().filter_map(|hit| sites.get(&hit.site).map(Arc::clone)).collect();
        let missing = found.len() < hits.len();
        (found, missing)
    }
}

#[cfg(test)]
mod tests {
    use fault_plan::Scope;

    use super::*;

    #[test]
    fn a_site_is_described_once_for_all() {
        let sites = Sites::default();
        let describe = |site| {
            let (function, call_path, scope) = ("f".to_owned(), Vec::new(), Scope::Workload);
            SiteDescription { site, function, call_path, truncated: false, step: 1, scope }
        };
        let hits = [1, 2].map(|site| Hit { site, count: 1, first_sequence: 1 });
        let (found, missing) = sites.of(vec![describe(1)], &hits);
        assert_eq!((found.len(), missing), (1, true));
        let (found, missing) = sites.of(vec![describe(2)], &hits);
        assert_eq!((found.iter().map(|site| site.site).collect::<Vec<_>>(), missing), (vec![1, 2], false));
    }
}
