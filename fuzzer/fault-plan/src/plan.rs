//! The plan and its file format, version 1.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{CallPath, ErrorType, InjectableFunction, InjectedError};

/// The version that this crate reads and writes.
pub const PLAN_VERSION: u32 = 1;

/// The most faults in one plan.
pub const MAX_FAULTS: usize = 16;

/// One call that must fail: injection site, occurrence, error.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// The injectable function.
    pub function: String,
    /// Pattern of the callers, innermost first; empty for any.
    #[serde(default)]
    pub call_path: CallPath,
    /// Which of the calls that match fails, from 1; counted over all call paths that match.
    pub occurrence: u32,
    /// Error that the call returns.
    pub error: InjectedError,
}

/// The fuzzer's input: the faults of one execution of one target.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultPlan {
    /// Format version, [`PLAN_VERSION`].
    pub version: u32,
    /// Name of the target.
    pub target: String,
    /// Faults of the execution. A plan without any is the fault-free one.
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
    /// More faults than fit.
    #[error("{found} faults, at most {MAX_FAULTS} are possible")]
    TooManyFaults {
        /// Number of faults in the plan.
        found: usize,
    },
    /// A fault that cannot be.
    #[error("fault {index}: {reason}")]
    Fault {
        /// Position in the plan, from 1.
        index: usize,
        /// Defect, and what would be right.
        reason: String,
    },
}

impl FaultPlan {
    /// The plan for `target` in which nothing fails.
    #[must_use]
    pub fn fault_free(target: impl Into<String>) -> Self {
        Self { version: PLAN_VERSION, target: target.into(), faults: Vec::new() }
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
        if self.faults.len() > MAX_FAULTS {
            return Err(PlanError::TooManyFaults { found: self.faults.len() });
        }
        for (index, fault) in self.faults.iter().enumerate() {
            let refuse = |reason: String| Err(PlanError::Fault { index: index + 1, reason });
            if fault.function.is_empty() {
                return refuse("the function has no name".to_owned());
            }
            if fault.occurrence == 0 {
                return refuse("occurrence 0: occurrences are counted from 1".to_owned());
            }
            if let Some(defect) = fault.call_path.defect() {
                return refuse(format!("call path: {defect}"));
            }
        }
        Ok(())
    }

    /// Checks the plan against the functions that may fail.
    ///
    /// # Errors
    ///
    /// An unknown function, or an error that the function's type does not allow.
    pub fn check_against(&self, functions: &[InjectableFunction]) -> Result<(), PlanError> {
        for (index, fault) in self.faults.iter().enumerate() {
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
    use crate::Errno;

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

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            faults in prop::collection::vec(
                ("[a-z_]{1,12}", prop::collection::vec("[a-z_]{1,12}", 0..6), 1u32.., any_error()), 0..MAX_FAULTS),
        ) {
            let faults = faults
                .into_iter()
                .map(|(function, path, occurrence, error)| Fault { function, call_path: CallPath(path), occurrence, error })
                .collect();
            let plan = FaultPlan { version: PLAN_VERSION, target: "t".to_owned(), faults };
            prop_assert_eq!(FaultPlan::from_json(&plan.to_json()).unwrap(), plan);
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,200}") {
            let _ = FaultPlan::from_json(&text);
        }
    }
}
