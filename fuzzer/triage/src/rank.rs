//! Ranking: what does most harm and can happen comes first, alarms by design come last.
//!
//! ```text
//! standing        findings, then other names of theirs, then alarms by design
//!   └─ impact     as in `impact`
//!        └─ chance   that of the least likely fault
//!             └─ faults   one before several
//!                  └─ replays   what comes again first; then what was found first
//! ```

use std::collections::BTreeMap;

use crate::{
    alarm::{self, Injected},
    chance::Chance,
    impact::Impact,
    meta::FiredJson,
    model::{Crash, NamedFault, Standing},
};

/// What is known of a crash when it is judged.
pub(crate) struct Evidence<'a> {
    pub(crate) kind: &'a str,
    pub(crate) key: &'a str,
    pub(crate) title: &'a str,
    pub(crate) report: &'a str,
    pub(crate) stack: &'a [String],
    pub(crate) fired: &'a [FiredJson],
    pub(crate) faults: &'a [NamedFault],
    pub(crate) same_as: Option<&'a str>,
    /// Fresh guests in which the key came again, and those in which that was tried.
    pub(crate) tried: (u32, u32),
}

/// The judgement on a crash.
pub(crate) struct Judged {
    pub(crate) standing: Standing,
    pub(crate) impact: Impact,
    pub(crate) chance: Chance,
    pub(crate) reasons: Vec<String>,
}

/// Judges a crash.
pub(crate) fn judge(evidence: &Evidence<'_>) -> Judged {
    let head: Vec<_> = alarm::head(evidence.report).collect();
    let text = format!("{}\n{}\n{}", evidence.title, evidence.key, head.join("\n"));
    let impact = Impact::of(evidence.kind, &text);
    let mut reasons = vec![impact.words().to_owned()];
    let worst = evidence.faults.iter().max_by_key(|fault| fault.chance);
    // Without a fault, nobody knows what else it takes.
    let chance = worst.map_or(Chance::Possible, |fault| fault.chance);
    match (evidence.faults.len(), worst) {
        (0, _) | (_, None) => reasons.push("which faults fired is not known".to_owned()),
        (1, Some(fault)) => reasons.push(format!("its fault {}: {}", chance.words(), fault.chance_reason)),
        (count, Some(fault)) => reasons.push(format!(
            "it takes {count} faults, the least likely of which {}: {}",
            chance.words(),
            fault.chance_reason
        )),
    }
    match evidence.tried {
        (_, 0) => reasons.push("its reproducer was not tried yet".to_owned()),
        (0, tried) => reasons.push(format!("its reproducer did not make it again in {tried} fresh guests")),
        _ => {}
    }
    let injected: Vec<_> = evidence
        .faults
        .iter()
        .zip(evidence.fired)
        .filter_map(|(fault, fired)| Some(Injected { error: fault.error.as_deref()?, call_path: &fired.call_path }))
        .collect();
    let standing =
        if let Some(reason) = alarm::alarm((evidence.kind, evidence.key), evidence.report, evidence.stack, &injected) {
            reasons.insert(0, format!("alarm by design: {reason}"));
            Standing::Alarm
        } else if let Some(same) = evidence.same_as {
            reasons.insert(0, format!("on the kernel that judges, or whenever it is tried, it is \"{same}\""));
            Standing::Same
        } else {
            Standing::Finding
        };
    Judged { standing, impact, chance, reasons }
}

/// Sorts crashes by rank, and numbers them.
///
/// A crash whose faults include those of a crash with fewer most likely follows from that one. If
/// it does the same damage, it is the same.
pub(crate) fn sort(crashes: &mut [Crash]) {
    let causes: BTreeMap<String, String> =
        crashes.iter().filter_map(|crash| Some((crash.key.clone(), cause(crash, crashes)?.key.clone()))).collect();
    let damage: BTreeMap<_, _> =
        crashes.iter().map(|crash| (crash.key.clone(), (crash.impact, crash.kind.clone()))).collect();
    for crash in crashes.iter_mut().filter(|crash| crash.standing == Standing::Finding) {
        if causes.get(&crash.key).is_some_and(|cause| damage.get(cause) == damage.get(&crash.key)) {
            crash.standing = Standing::Same;
        }
    }
    crashes.sort_by(|left, right| {
        let found = |crash: &Crash| crash.found_s.unwrap_or(f64::INFINITY);
        order(left)
            .cmp(&order(right))
            .then_with(|| found(left).total_cmp(&found(right)))
            .then_with(|| left.key.cmp(&right.key))
    });
    crashes.iter_mut().zip(1..).for_each(|(crash, rank)| crash.rank = rank);
    let ranks: BTreeMap<_, _> = crashes.iter().map(|crash| (crash.key.clone(), crash.rank)).collect();
    for crash in crashes.iter_mut() {
        let Some(rank) = causes.get(&crash.key).and_then(|cause| ranks.get(cause)) else { continue };
        let what = if crash.standing == Standing::Same && crash.same_as.is_none() {
            "is most likely"
        } else {
            "may follow from"
        };
        crash.reasons.insert(0, format!("it {what} the crash of rank {rank}, whose faults fired here too"));
    }
}

fn order(crash: &Crash) -> impl Ord + use<> {
    let faults = if crash.plan_faults > 0 { crash.plan_faults } else { crash.faults.len() };
    (crash.standing, crash.impact, crash.chance, faults, crash.reproduced == 0)
}

/// Finds the crash with the fewest faults that all fired before `crash` too, which had more.
fn cause<'a>(crash: &Crash, crashes: &'a [Crash]) -> Option<&'a Crash> {
    let fired = |fault: &NamedFault| {
        let same = |other: &&NamedFault| (&other.function, &other.caller) == (&fault.function, &fault.caller);
        fault.caller.is_some() && crash.faults.iter().any(|other| same(&other))
    };
    let may = |other: &&Crash| {
        let judged = other.standing == Standing::Finding && other.reproduced > 0;
        judged && !other.faults.is_empty() && other.faults.len() < crash.faults.len() && other.faults.iter().all(fired)
    };
    // Of several the one that repeats exactly that damage says most.
    let rank = |other: &&Crash| (other.impact != crash.impact, other.faults.len(), other.key.clone());
    crashes.iter().filter(may).min_by_key(rank)
}

#[cfg(test)]
mod tests;
