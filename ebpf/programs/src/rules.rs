//! The plan's rules.

use core::ffi::{c_long, c_void};

use abi::{
    ARGUMENTS, Condition, Control, Fired, MAX_FRAMES, MAX_MATCH_STEPS, MAX_RULES, MOST_FIRES, Match, NOT_SHOWN, Part,
    Rule, SHOWN_TEXT, Verdict,
};
use aya_ebpf::helpers::generated::bpf_probe_read_kernel_str;

use crate::{
    Registers, arguments, call, maps,
    memory::Reader,
    repeat::{BREAK, CONTINUE, repeat},
    returns,
};

/// The rules evaluated for one call.
struct Evaluation {
    /// Slot of its site.
    site: u32,
    /// Address of its saved registers.
    registers: u64,
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
    let mut evaluation = Evaluation { site, registers: registers.all, firing: 0, return_value: 0 };
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
        || rule.scopes >> (site.scope & 31) & 1 == 0
        || rule.name_set & !site.name_set != 0
        || !is_after(rule)
        || !conditions_hold(evaluation.registers, rule)
        || !matches(index as u32, evaluation.site)
    {
        return CONTINUE;
    }
    rule.seen += 1;
    let fires = rule.seen >= rule.occurrence && rule.seen - rule.occurrence <= rule.more;
    if fires && evaluation.firing == 0 {
        evaluation.firing = index as u32 + 1;
        evaluation.return_value = rule.return_value;
    }
    CONTINUE
}

/// Says whether the rule that must fire before this one has. Rules that fire are noted when all
/// have seen the call: none comes after another in the same call.
#[inline(always)]
fn is_after(rule: &Rule) -> bool {
    let Some(before) = rule.after.checked_sub(1) else { return true };
    maps::rule(before).is_some_and(|before| before.fired != 0)
}

/// Says whether the arguments are as the rule wants them.
#[inline(always)]
fn conditions_hold(registers: u64, rule: &mut Rule) -> bool {
    for condition in &mut rule.conditions {
        if condition.part.argument == Condition::NONE.part.argument {
            break;
        }
        if arguments::holds(Reader::new(), registers, condition) != Some(true) {
            return false;
        }
    }
    true
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

/// Notes what the rule wants to have noted of the arguments.
#[inline(always)]
fn show(registers: &Registers, rule: &Rule, fired: &mut Fired) {
    let reader = registers.reader;
    fired.text = [0; SHOWN_TEXT];
    for (number, (part, into)) in (1..).zip(rule.shown.iter().zip(&mut fired.shown)) {
        *into = NOT_SHOWN;
        if part.argument == Part::NONE.argument {
            continue;
        }
        let value = arguments::number(reader, registers.all, part).unwrap_or(0);
        *into = value;
        if number == rule.text {
            // SAFETY: the text is as long as is said, and the helper checks the address.
            unsafe {
                bpf_probe_read_kernel_str(fired.text.as_mut_ptr().cast(), SHOWN_TEXT as u32, value as *const c_void)
            };
        }
    }
}

/// Notes that a rule fires: the first time with the call, and later that it did so once more. So
/// the log has room for all. The last time of a loop is noted with the call: that one is in it.
/// What came after the fault came after its first time.
#[inline(always)]
fn log(control: &Control, registers: &Registers, rule_index: u32, site: u32) {
    let (Some(log), Some(site), Some(call)) = (maps::fired(), maps::site(site), maps::call()) else { return };
    let Some(rule) = maps::rule(rule_index) else { return };
    let entry = rule.fired.checked_sub(1);
    let Some(fired) = log.fired.get_mut(entry.unwrap_or(log.count) as usize) else { return };
    if entry.is_some() {
        fired.times = fired.times.wrapping_add(1);
        if fired.times != MOST_FIRES {
            return;
        }
    } else {
        fired.times = 1;
        fired.sequence = control.sequence;
    }
    call::read(registers, call);
    fired.rule = rule_index;
    fired.depth = site.depth;
    fired.step = u32::from(site.step);
    fired.site = site.key;
    fired.scope = u32::from(site.scope);
    for index in 0..MAX_FRAMES {
        fired.stack[index] = call.stack[index] as u32;
    }
    for (argument, offset) in fired.arguments.iter_mut().zip(ARGUMENTS) {
        *argument = registers.reader.number(registers.all.wrapping_add(u64::from(offset))).unwrap_or(0);
    }
    show(registers, rule, fired);
    if entry.is_some() {
        return;
    }
    returns::open(control, registers, rule_index);
    log.generation = control.generation;
    log.count += 1;
    rule.fired = log.count;
}
