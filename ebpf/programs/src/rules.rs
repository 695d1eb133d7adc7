//! The plan's rules.

use core::ffi::c_long;

use abi::{Control, MAX_FRAMES, MAX_MATCH_STEPS, MAX_RULES, Match, Verdict};

use crate::{
    Registers, call, maps,
    repeat::{BREAK, CONTINUE, repeat},
};

/// The rules evaluated for one call.
struct Evaluation {
    /// Slot of its site.
    site: u32,
    /// The rule that fires, plus 1; 0 for none.
    firing: u32,
    return_value: i64,
}

/// Counts the call with these `registers`, at the site in slot `site`, in every rule that it
/// matches. Returns what it must return when one fires; that is logged.
#[inline(always)]
pub(crate) fn apply(control: &Control, registers: &Registers, site: u32) -> Option<i64> {
    if control.rule_count == 0 {
        return None;
    }
    let mut evaluation = Evaluation { site, firing: 0, return_value: 0 };
    repeat(control.rule_count.min(MAX_RULES as u32), try_rule, &mut evaluation);
    let rule = evaluation.firing.checked_sub(1)?;
    log(control, registers, rule, site);
    Some(evaluation.return_value)
}

/// Counts the call in one rule.
extern "C" fn try_rule(index: u64, evaluation: *mut Evaluation) -> c_long {
    // SAFETY: it is what `apply` hands to the loop.
    let evaluation = unsafe { &mut *evaluation };
    let (Some(rule), Some(site)) = (maps::rule(index as u32), maps::site(evaluation.site)) else { return BREAK };
    let is_other_step = rule.step != 0 && rule.step != u32::from(site.step);
    if rule.function != site.function
        || is_other_step
        || rule.name_set & !site.name_set != 0
        || !matches(index as u32, evaluation.site)
    {
        return CONTINUE;
    }
    rule.seen += 1;
    if rule.seen == rule.occurrence && evaluation.firing == 0 {
        evaluation.firing = index as u32 + 1;
        evaluation.return_value = rule.return_value;
    }
    CONTINUE
}

/// Which rule is being matched with which site.
struct Matching {
    rule: u32,
    site: u32,
    matches: u32,
}

#[inline(always)]
fn matches(rule: u32, site: u32) -> bool {
    let Some(call) = maps::call() else { return false };
    call.state = Match::new();
    let mut matching = Matching { rule, site, matches: 0 };
    repeat(MAX_MATCH_STEPS, step, &mut matching);
    matching.matches != 0
}

/// One step of a match.
extern "C" fn step(_: u64, matching: *mut Matching) -> c_long {
    // SAFETY: it is what `matches` hands to the loop.
    let matching = unsafe { &mut *matching };
    let (Some(rule), Some(site)) = (maps::rule(matching.rule), maps::site(matching.site)) else { return BREAK };
    let Some(call) = maps::call() else { return BREAK };
    let mut state = call.state;
    let verdict = state.step(rule, site);
    call.state = state;
    match verdict {
        Verdict::Open => CONTINUE,
        Verdict::Differs => BREAK,
        Verdict::Matches => {
            matching.matches = 1;
            BREAK
        }
    }
}

#[inline(always)]
fn log(control: &Control, registers: &Registers, rule: u32, site: u32) {
    let (Some(log), Some(site), Some(call)) = (maps::fired(), maps::site(site), maps::call()) else { return };
    call::read(registers, call);
    let Some(fired) = log.fired.get_mut(log.count as usize) else { return };
    fired.rule = rule;
    fired.sequence = control.sequence;
    fired.depth = site.depth;
    fired.step = u32::from(site.step);
    fired.site = site.key;
    for index in 0..MAX_FRAMES {
        fired.stack[index] = call.stack[index];
    }
    log.generation = control.generation;
    log.count += 1;
}
