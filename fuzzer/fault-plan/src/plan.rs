//! The plan and its file format, version 1.

use thiserror::Error;

use crate::{
    ErrorType, Fault, InjectableFunction,
    fault::{circle, retain_faults},
};

/// The version that this crate reads and writes.
pub const PLAN_VERSION: u32 = 1;

/// The most faults in one round of a plan.
pub const MAX_FAULTS: usize = 16;

/// The most rounds of a plan.
pub const MAX_ROUNDS: usize = 256;

/// One run of the workload before the last one of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Round {
    /// Its faults.
    pub faults: Vec<Fault>,
    /// True when the disk is put back before the next round.
    pub reset: bool,
}

/// Counts the faults of these rounds.
#[must_use]
pub fn faults_in(rounds: &[Round]) -> usize {
    rounds.iter().map(|round| round.faults.len()).sum()
}

/// The fuzzer's input: the faults of one execution of one target.
///
/// Mostly that is one run of the workload. A plan with earlier rounds has several in one guest,
/// each in the state that the one before left.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FaultPlan {
    /// Format version, [`PLAN_VERSION`].
    pub version: u32,
    /// Name of the target.
    pub target: String,
    /// The rounds before the last one, first to last.
    pub earlier: Vec<Round>,
    /// Faults of the last round. A plan without any fault is the fault-free one.
    pub faults: Vec<Fault>,
}

/// Why a plan is refused.
#[derive(Debug, Error)]
pub enum PlanError {
    /// The text is not a plan.
    #[error("not a fault plan")]
    Syntax(#[from] serde_json::Error),
    /// A version that this build does not read.
    #[error("plan version {found} is not supported, this build reads version {PLAN_VERSION}")]
    Version {
        /// Version that the file names.
        found: u32,
    },
    /// More rounds than fit.
    #[error("{found} rounds, at most {MAX_ROUNDS} are possible")]
    TooManyRounds {
        /// Number of rounds in the plan.
        found: usize,
    },
    /// More faults than fit.
    #[error("{found} faults, at most {MAX_FAULTS} are possible")]
    TooManyFaults {
        /// Number of faults in the plan.
        found: usize,
    },
    /// A fault that cannot be.
    #[error("fault {index}: {reason}")]
    Fault {
        /// Position among the faults of all rounds, from 1.
        index: usize,
        /// Defect, and what would be right.
        reason: String,
    },
}

impl FaultPlan {
    /// The plan for `target` in which nothing fails.
    #[must_use]
    pub fn fault_free(target: impl Into<String>) -> Self {
        Self { version: PLAN_VERSION, target: target.into(), earlier: Vec::new(), faults: Vec::new() }
    }

    /// Says whether it is the fault-free plan: one round, in which nothing fails.
    #[must_use]
    pub fn is_fault_free(&self) -> bool {
        self.earlier.is_empty() && self.faults.is_empty()
    }

    /// Says whether its rounds are one, run several times: a crash that comes by chance has such a
    /// plan.
    #[must_use]
    pub fn is_repeated(&self) -> bool {
        !self.earlier.is_empty() && self.earlier.iter().all(|round| round.faults == self.faults)
    }

    /// Counts the faults that it takes: where the rounds are one, those of that one.
    #[must_use]
    pub fn count(&self) -> usize {
        if self.is_repeated() { self.faults.len() } else { self.all_faults().count() }
    }

    /// Gives the faults of each round, the last one's at the end.
    pub fn rounds(&self) -> impl Iterator<Item = &Vec<Fault>> {
        self.earlier.iter().map(|round| &round.faults).chain([&self.faults])
    }

    /// Gives the faults of all rounds, in their order.
    pub fn all_faults(&self) -> impl Iterator<Item = &Fault> {
        self.earlier.iter().flat_map(|round| &round.faults).chain(&self.faults)
    }

    /// Gives the faults of all rounds, in their order, to change them.
    pub fn all_faults_mut(&mut self) -> impl Iterator<Item = &mut Fault> {
        self.earlier.iter_mut().flat_map(|round| &mut round.faults).chain(&mut self.faults)
    }

    /// Gives the plan with only those faults that `keep` says, by index from 0 among those of all
    /// rounds. Rounds stay, as each ran. A fault that came after one that goes no longer does.
    #[must_use]
    pub fn keeping(&self, keep: impl Fn(usize) -> bool) -> Self {
        let mut plan = self.clone();
        let mut before = 0;
        for faults in plan.earlier.iter_mut().map(|round| &mut round.faults).chain([&mut plan.faults]) {
            let count = faults.len();
            retain_faults(faults, |index| keep(before + index));
            before += count;
        }
        plan
    }

    /// Reads a plan from JSON and checks what can be checked without a kernel.
    ///
    /// # Errors
    ///
    /// Bad syntax, unknown fields, an unsupported version, occurrence 0, a useless call path, too
    /// many faults.
    pub fn from_json(text: &str) -> Result<Self, PlanError> {
        let plan: Self = serde_json::from_str(text)?;
        plan.check()?;
        Ok(plan)
    }

    /// The plan as indented JSON, ending in a line feed.
    ///
    /// # Panics
    ///
    /// Never: a plan has only string keys.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("a plan has only string keys");
        text.push('\n');
        text
    }

    /// Checks what can be checked without a kernel.
    ///
    /// # Errors
    ///
    /// As [`FaultPlan::from_json`], except for syntax.
    pub fn check(&self) -> Result<(), PlanError> {
        if self.version != PLAN_VERSION {
            return Err(PlanError::Version { found: self.version });
        }
        if self.earlier.len() >= MAX_ROUNDS {
            return Err(PlanError::TooManyRounds { found: self.earlier.len() + 1 });
        }
        if let Some(found) = self.rounds().map(Vec::len).find(|found| *found > MAX_FAULTS) {
            return Err(PlanError::TooManyFaults { found });
        }
        let mut before = 0;
        for faults in self.rounds() {
            let numbered = faults.iter().enumerate();
            let mut defects = numbered.filter_map(|(index, fault)| Some((index, fault.defect(index, faults.len())?)));
            let in_circle = || {
                let index = circle(faults)?;
                Some((index, "it comes after itself, by way of other faults".to_owned()))
            };
            if let Some((index, reason)) = defects.next().or_else(in_circle) {
                return Err(PlanError::Fault { index: before + index + 1, reason });
            }
            before += faults.len();
        }
        Ok(())
    }

    /// Checks the plan against the functions that may fail.
    ///
    /// # Errors
    ///
    /// An unknown function, or an error that the function's type does not allow.
    pub fn check_against(&self, functions: &[InjectableFunction]) -> Result<(), PlanError> {
        for (index, fault) in self.all_faults().enumerate() {
            let refuse = |reason: String| Err(PlanError::Fault { index: index + 1, reason });
            let Some(function) = functions.iter().find(|function| function.name == fault.function) else {
                return refuse(format!(
                    "\"{}\" may not fail: it is not among the target's injectable functions",
                    fault.function
                ));
            };
            if !function.error_type.allows(fault.error) {
                let expected = match function.error_type {
                    ErrorType::Errno => "an errno name",
                    ErrorType::ErrnoNull => "an errno name or \"NULL\"",
                    ErrorType::Null => "\"NULL\"",
                    ErrorType::True => "\"true\"",
                };
                return refuse(format!(
                    "\"{}\" is of type {} and cannot return {}: use {expected}",
                    fault.function, function.error_type, fault.error
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{ArgumentCondition, CallPath, Errno, FOR_EVER, InjectedError, Operand, Operator, Scope};

    const PLAN: &str = r#"{ "version": 1, "target": "btrfs-mount", "faults": [
        { "function": "should_failslab", "call_path": ["kmalloc", "...", "open_ctree"],
          "occurrence": 2, "error": "ENOMEM" } ] }"#;

    fn refusal(text: &str) -> String {
        let error = FaultPlan::from_json(text).unwrap_err();
        let mut message = error.to_string();
        if let PlanError::Syntax(source) = error {
            message = format!("{message}: {source}");
        }
        message
    }

    #[test]
    fn the_documented_example_is_read() {
        let plan = FaultPlan::from_json(PLAN).unwrap();
        assert_eq!(plan.faults[0].occurrence, 2);
        assert_eq!(plan.faults[0].error, InjectedError::Errno(Errno::ENOMEM));
        assert_eq!(plan.faults[0].call_path.0.len(), 3);
    }

    #[test]
    fn what_is_wrong_is_refused_with_the_reason() {
        let with = |from: &str, to: &str| refusal(&PLAN.replace(from, to));
        assert!(with("\"version\": 1", "\"version\": 2").contains("version 2"));
        assert!(with("\"occurrence\": 2", "\"occurrence\": 0").contains("counted from 1"));
        assert!(with("ENOMEM", "ENOMEMM").contains("unknown error \"ENOMEMM\""));
        assert!(with("\"occurrence\"", "\"ocurrence\"").contains("unknown field `ocurrence`"));
        assert!(with("\"kmalloc\"", "\"\"").contains("element is empty"));
        assert!(with("should_failslab", "").contains("no name"));
    }

    #[test]
    fn a_failure_for_ever_has_a_word() {
        let text = PLAN.replace("\"occurrence\": 2", "\"occurrence\": 2, \"times\": \"always\"");
        let plan = FaultPlan::from_json(&text).unwrap();
        assert_eq!(plan.faults[0].times, FOR_EVER);
        assert!(plan.to_json().contains("\"times\": \"always\""));
        assert!(refusal(&text.replace("always", "often")).contains("`times` is a number, or \"always\""));
    }

    #[test]
    fn the_kernel_decides_what_may_fail_and_how() {
        let functions = [
            InjectableFunction { name: "should_failslab".to_owned(), error_type: ErrorType::Errno },
            InjectableFunction { name: "should_fail_alloc_page".to_owned(), error_type: ErrorType::True },
        ];
        let mut plan = FaultPlan::from_json(PLAN).unwrap();
        plan.check_against(&functions).unwrap();
        plan.faults[0].function = "should_fail_alloc_page".to_owned();
        assert!(plan.check_against(&functions).unwrap_err().to_string().contains("cannot return ENOMEM"));
        plan.faults[0].function = "kmalloc".to_owned();
        assert!(plan.check_against(&functions).unwrap_err().to_string().contains("\"kmalloc\" may not fail"));
    }

    fn any_error() -> impl Strategy<Value = InjectedError> {
        prop_oneof![
            (1i64..130).prop_filter_map("not every number is one", |number| Errno::from_number(number)
                .map(InjectedError::Errno)),
            Just(InjectedError::Null),
            Just(InjectedError::True),
        ]
    }

    fn any_argument() -> impl Strategy<Value = ArgumentCondition> {
        (1u8..=6, prop::option::of(Just("file.f_inode".to_owned())), any::<u64>(), any::<bool>()).prop_map(
            |(argument, field, value, equal)| ArgumentCondition {
                argument,
                field,
                mask: Operand::Number(u64::MAX),
                operator: if equal { Operator::Equal } else { Operator::AtLeast },
                value: Operand::Number(value),
            },
        )
    }

    fn any_faults(most: usize) -> impl Strategy<Value = Vec<Fault>> {
        let path = prop::collection::vec("[a-z_]{1,12}", 0..6).prop_map(CallPath);
        let fault = ("[a-z_]{1,12}", path, 1u32.., any_error())
            .prop_map(|(function, path, occurrence, error)| Fault::new(function, path, occurrence, error));
        let times = prop_oneof![Just(1), 2u32..9, Just(FOR_EVER)];
        let task = prop::option::of(prop::sample::select(Scope::ALL.to_vec()));
        let arguments = prop::collection::vec(any_argument(), 0..=2);
        let conditions = (prop::option::of(1u32..9), task, arguments, any::<bool>(), times);
        prop::collection::vec((fault, conditions), 0..most).prop_map(|faults| {
            let with = |(number, (fault, (step, task, arguments, after, times))): (u32, (Fault, _))| Fault {
                step,
                task,
                arguments,
                after: (after && number > 0).then_some(number),
                times,
                ..fault
            };
            (0..).zip(faults).map(with).collect()
        })
    }

    #[test]
    fn conditions_are_read_and_checked() {
        let with = |conditions: &str| PLAN.replace("\"occurrence\"", &format!("{conditions}, \"occurrence\""));
        let second = r#"{ "function": "f", "occurrence": 1, "error": "EIO", "after": 1 }"#;
        let plan = FaultPlan::from_json(&with(
            r#""task": "worker", "times": 3, "arg": [{ "argument": 1, "field": "bio.bi_iter.bi_sector", "value": 8 }]"#,
        ))
        .unwrap();
        let Fault { task, times, arguments, after, .. } = &plan.faults[0];
        assert_eq!((task, times, after), (&Some(Scope::Worker), &3, &None));
        assert_eq!(arguments[0].field.as_deref(), Some("bio.bi_iter.bi_sector"));
        let refused = |conditions: &str| refusal(&with(conditions));
        assert!(refused("\"task\": \"nobody\"").contains("unknown variant `nobody`"));
        assert!(refused("\"times\": 0").contains("times 0"));
        assert!(refused("\"after\": 0").contains("after 0"));
        assert!(refused("\"after\": 1").contains("the fault itself"));
        assert!(refused("\"after\": 2").contains("the round has 1 faults"));
        assert!(refused("\"arg\": [{ \"caller\": \"f\" }]").contains("conditions on arguments"));
        let one = r#"{ "argument": 1, "value": 8 }"#;
        assert!(refused(&format!("\"arg\": [{one}, {one}, {one}]")).contains("at most 2"));
        let circle = with("\"after\": 2").replace("} ] }", &format!("}}, {second} ] }}"));
        assert!(refusal(&circle).contains("fault 1: it comes after itself"), "{}", refusal(&circle));
    }

    #[test]
    fn a_plan_with_rounds_is_read_and_one_round_is_none() {
        let rounds =
            r#"{ "version": 1, "target": "t", "rounds": [ { "faults": [], "reset": true }, { "faults": [] } ] }"#;
        let plan = FaultPlan::from_json(rounds).unwrap();
        assert_eq!((plan.earlier.len(), plan.earlier[0].reset, plan.is_fault_free()), (1, true, false));
        assert!(refusal(&rounds.replace("\"rounds\"", "\"faults\": [], \"rounds\"")).contains("not both"));
        assert!(refusal(r#"{ "version": 1, "target": "t", "rounds": [] }"#).contains("no round"));
        assert!(refusal(r#"{ "version": 1, "target": "t" }"#).contains("neither"));
        assert!(refusal(&PLAN.replace("\"occurrence\"", "\"step\": 0, \"occurrence\"")).contains("step 0"));
    }

    #[test]
    fn faults_are_kept_by_their_index_among_those_of_all_rounds() {
        let fault = |occurrence| Fault { occurrence, ..FaultPlan::from_json(PLAN).unwrap().faults[0].clone() };
        let earlier = vec![Round { faults: vec![fault(1), fault(2)], reset: true }, Round::default()];
        let plan = FaultPlan { earlier, faults: vec![fault(3), fault(4)], ..FaultPlan::fault_free("t") };
        let kept = plan.keeping(|index| index == 1 || index == 2);
        assert_eq!(kept.all_faults().map(|fault| fault.occurrence).collect::<Vec<_>>(), [2, 3]);
        assert_eq!((kept.earlier.len(), kept.earlier[0].reset), (2, true));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            faults in any_faults(MAX_FAULTS),
            earlier in prop::collection::vec((any_faults(4), any::<bool>()), 0..4),
        ) {
            let earlier = earlier.into_iter().map(|(faults, reset)| Round { faults, reset }).collect();
            let plan = FaultPlan { version: PLAN_VERSION, target: "t".to_owned(), earlier, faults };
            prop_assert_eq!(&FaultPlan::from_json(&plan.to_json()).unwrap(), &plan);
            let packed = postcard::to_stdvec(&plan).unwrap();
            prop_assert_eq!(&postcard::from_bytes::<FaultPlan>(&packed).unwrap(), &plan);
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,200}") {
            let _ = FaultPlan::from_json(&text);
        }
    }
}
