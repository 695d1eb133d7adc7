//! Sites and faults that fired, as the host is told of them: numbers become names again.

use abi::{Fired, MAX_FRAMES, NOT_SHOWN, Site, TEXT_HALF};
use fault_plan::Scope;
use guest_protocol::{FiredFault, SiteDescription};

use crate::symbols::Symbols;

/// The description of a site.
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

/// A fault that fired, by names.
pub(super) fn fired_fault(fired: &Fired, symbols: &Symbols) -> FiredFault {
    let depth = (fired.depth as usize).min(MAX_FRAMES);
    let stack: Vec<_> = fired.stack[..depth].iter().map(|low| TEXT_HALF | u64::from(*low)).collect();
    let text = fired.text.split(|byte| *byte == 0).next().unwrap_or_default();
    FiredFault {
        fault: fired.rule,
        sequence: fired.sequence,
        site: fired.site,
        step: fired.step,
        scope: scope(fired.scope),
        times: fired.times,
        call_path: stack.iter().map(|address| symbols.caller(*address).to_owned()).collect(),
        stack,
        arguments: fired.arguments.to_vec(),
        shown: fired.shown.iter().map(|value| Some(*value).filter(|value| *value != NOT_SHOWN)).collect(),
        text: String::from_utf8_lossy(text).into_owned(),
    }
}
