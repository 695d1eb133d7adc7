//! A fault that fired, and its way.

use fault_plan::{FOR_EVER, Times};
use serde::{Serialize, Serializer};

use crate::chance::Chance;

/// A fault that fired.
#[derive(Clone, Debug, Serialize)]
pub struct NamedFault {
    /// Its number in the plan, from 1.
    pub number: usize,
    /// The function that failed.
    pub function: String,
    /// The error that it returned, where the plan says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The nearest caller that says something: no allocator, nor a service of all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caller: Option<String>,
    /// The callers, innermost first.
    pub call_path: Vec<Caller>,
    /// Which of the calls that match the plan's fault failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub occurrence: Option<u32>,
    /// Calls in a row that fail from that one on, where it is more than one. In JSON [`FOR_EVER`]
    /// is `"always"`, as in a plan.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_in_a_plan")]
    pub times: Option<u32>,
    /// Position of the call among all of the execution.
    pub sequence: u32,
    /// Round of the plan, from 1, where it has several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub round: Option<usize>,
    /// Step of the workload, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<u32>,
    /// Whose call it was.
    pub scope: String,
    /// Arguments of the call that matter, in words; empty where they are not known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub arguments: String,
    /// Likelihood of such a failure.
    pub chance: Chance,
    /// Why so, a sentence.
    pub chance_reason: String,
}

/// A function on a fault's call path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Caller {
    /// Its name, with `+0x12` behind it where the place is known.
    pub function: String,
    /// Lines of source, the innermost inlined function's first, `fs/f.c:7` each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<String>,
    /// What it returned after the fault, such as `-ENOMEM`, where a traced run told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub returned: Option<String>,
    /// What it did to the error: `swallowed` or `changed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mark: Option<String>,
}

fn as_in_a_plan<S: Serializer>(times: &Option<u32>, serializer: S) -> Result<S::Ok, S::Error> {
    times.map(Times::of).serialize(serializer)
}

impl NamedFault {
    /// Gives it in one line: function, error, and the nearest telling caller.
    #[must_use]
    pub fn line(&self) -> String {
        let error = self.error.as_deref().unwrap_or("an error");
        match &self.caller {
            Some(caller) => format!("{} returned {error} in {caller}", self.function),
            None => format!("{} returned {error}", self.function),
        }
    }

    /// Says that calls fail behind the first one, too: ` and all later ones`, to be put behind
    /// words for that one; empty where none does.
    #[must_use]
    pub fn further(&self) -> String {
        match self.times {
            None => String::new(),
            Some(FOR_EVER) => " and all later ones".to_owned(),
            Some(times) => format!(" and the next {}", times - 1),
        }
    }
}

impl Caller {
    /// Gives its name without the place in it.
    #[must_use]
    pub fn name(&self) -> &str {
        self.function.split_once("+0x").map_or(&self.function, |(name, _)| name)
    }
}
