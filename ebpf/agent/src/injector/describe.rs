//! What the programs saw, in the words of the protocol.

use abi::{Fired, MAX_FRAMES, Site};
use fault_plan::Scope;
use guest_protocol::{FiredFault, SiteDescription};

use crate::symbols::Symbols;

pub(super) fn describe(site: &Site, symbols: &Symbols) -> SiteDescription {
    let depth = (site.depth as usize).min(MAX_FRAMES);
    SiteDescription {
        site: site.key,
        function: symbols.name(site.function).to_owned(),
        call_path: site.stack[..depth].iter().map(|name| symbols.name(*name).to_owned()).collect(),
        truncated: site.truncated != 0,
        step: site.step.into(),
        scope: scope(site.scope.into()),
    }
}

/// The scope of this number; the kernel's memory may be corrupted.
fn scope(number: u32) -> Scope {
    u8::try_from(number).ok().and_then(Scope::from_number).unwrap_or_default()
}

/// The most bytes that the description takes in a message: of each text its length before it, of
/// the number ten, the step three, the scope one.
pub(super) fn bytes_of(description: &SiteDescription) -> usize {
    let texts = description.call_path.iter().chain([&description.function]);
    texts.map(|text| text.len() + 2).sum::<usize>() + 16
}

pub(super) fn fired_fault(fired: &Fired, symbols: &Symbols) -> FiredFault {
    let depth = (fired.depth as usize).min(MAX_FRAMES);
    FiredFault {
        fault: fired.rule,
        sequence: fired.sequence,
        site: fired.site,
        step: fired.step,
        scope: scope(fired.scope),
        times: fired.times,
        call_path: fired.stack[..depth].iter().map(|address| symbols.caller(*address).to_owned()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use abi::SITE_SLOTS;
    use guest_protocol::{FromAgent, Hit, LIMITS, Report};

    use super::{super::DESCRIPTIONS_BYTES, *};

    #[test]
    fn the_largest_report_fits_into_the_window() {
        let site = SiteDescription {
            site: u64::MAX,
            function: "f".repeat(30),
            call_path: vec!["c".repeat(60); MAX_FRAMES],
            truncated: true,
            step: 4096,
            scope: Scope::Thread,
        };
        let report = |sites| {
            let new_sites = vec![site.clone(); sites];
            let hit = Hit { site: u64::MAX, count: u32::MAX, first_sequence: u32::MAX };
            let log = "x".repeat(LIMITS.log_bytes);
            let hits = vec![hit; SITE_SLOTS];
            FromAgent::Report(Box::new(Report { hits, new_sites, log_before: log.clone(), log, ..Report::default() }))
        };
        assert!(report(SITE_SLOTS).encode().is_err(), "all of them would not fit");
        assert!(report(DESCRIPTIONS_BYTES / bytes_of(&site)).encode().is_ok());
        let empty = report(0).encode().unwrap().len();
        assert!(report(100).encode().unwrap().len() - empty <= 100 * bytes_of(&site));
    }
}
