//! The two forms of a plan: text for files, in which what is not needed is left out, and packed for
//! messages, in which every field has its place.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{CallPath, Condition, FOR_EVER, Fault, FaultPlan, InjectedError, Round, Scope};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FaultText {
    function: String,
    #[serde(default)]
    call_path: CallPath,
    occurrence: u32,
    error: InjectedError,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    step: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    task: Option<Scope>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    arg: Vec<Condition>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after: Option<u32>,
    #[serde(default, skip_serializing_if = "Times::is_once")]
    times: Times,
}

/// The number of calls in a row that fail, or all, as a plan says it.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "`times` is a number, or \"always\"")]
pub enum Times {
    /// So many.
    Number(u32),
    /// All.
    Word(Always),
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Always {
    /// The word `always`.
    Always,
}

impl Default for Times {
    fn default() -> Self {
        Self::Number(1)
    }
}

impl Times {
    fn is_once(&self) -> bool {
        *self == Self::default()
    }

    /// Gives it of a number, of which [`FOR_EVER`] is all.
    #[must_use]
    pub fn of(times: u32) -> Self {
        if times == FOR_EVER { Self::Word(Always::Always) } else { Self::Number(times) }
    }

    fn number(self) -> u32 {
        match self {
            Self::Number(times) => times,
            Self::Word(Always::Always) => FOR_EVER,
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RoundText {
    #[serde(default)]
    faults: Vec<Fault>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    reset: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanText {
    version: u32,
    target: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    faults: Option<Vec<Fault>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rounds: Option<Vec<Round>>,
}

impl Serialize for Fault {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { function, call_path, occurrence, error, step, task, arguments, after, times } = self;
        if !serializer.is_human_readable() {
            return (function, call_path, occurrence, error, (step, task, arguments, after, times))
                .serialize(serializer);
        }
        let text = FaultText {
            function: function.clone(),
            call_path: call_path.clone(),
            occurrence: *occurrence,
            error: *error,
            step: *step,
            task: *task,
            arg: arguments.iter().cloned().map(Condition::Argument).collect(),
            after: *after,
            times: Times::of(*times),
        };
        text.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Fault {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            let (function, call_path, occurrence, error, (step, task, arguments, after, times)) =
                Deserialize::deserialize(deserializer)?;
            return Ok(Self { function, call_path, occurrence, error, step, task, arguments, after, times });
        }
        let FaultText { function, call_path, occurrence, error, step, task, arg, after, times } =
            FaultText::deserialize(deserializer)?;
        let argument = |condition| match condition {
            Condition::Argument(condition) => Ok(condition),
            Condition::Caller(_) => Err(D::Error::custom("`arg` has conditions on arguments; callers are `call_path`")),
        };
        let arguments = arg.into_iter().map(argument).collect::<Result<_, _>>()?;
        let times = times.number();
        Ok(Self { function, call_path, occurrence, error, step, task, arguments, after, times })
    }
}

impl Serialize for Round {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { faults, reset } = self;
        if !serializer.is_human_readable() {
            return (faults, reset).serialize(serializer);
        }
        RoundText { faults: faults.clone(), reset: *reset }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Round {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            let (faults, reset) = Deserialize::deserialize(deserializer)?;
            return Ok(Self { faults, reset });
        }
        let RoundText { faults, reset } = RoundText::deserialize(deserializer)?;
        Ok(Self { faults, reset })
    }
}

impl Serialize for FaultPlan {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { version, target, earlier, faults } = self;
        if !serializer.is_human_readable() {
            return (version, target, earlier, faults).serialize(serializer);
        }
        let (version, target) = (*version, target.clone());
        if earlier.is_empty() {
            return PlanText { version, target, faults: Some(faults.clone()), rounds: None }.serialize(serializer);
        }
        let last = Round { faults: faults.clone(), reset: false };
        let rounds = earlier.iter().cloned().chain([last]).collect();
        PlanText { version, target, faults: None, rounds: Some(rounds) }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for FaultPlan {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            let (version, target, earlier, faults) = Deserialize::deserialize(deserializer)?;
            return Ok(Self { version, target, earlier, faults });
        }
        let PlanText { version, target, faults, rounds } = PlanText::deserialize(deserializer)?;
        let (earlier, faults) = match (faults, rounds) {
            (Some(faults), None) => (Vec::new(), faults),
            (None, Some(mut rounds)) => {
                let last = rounds.pop().ok_or_else(|| D::Error::custom("`rounds` has no round"))?;
                if last.reset {
                    return Err(D::Error::custom("the last round has `reset`, and nothing comes after it"));
                }
                (rounds, last.faults)
            }
            (Some(_), Some(_)) => return Err(D::Error::custom("a plan has `faults` or `rounds`, not both")),
            (None, None) => return Err(D::Error::custom("a plan has `faults` or `rounds`, and this has neither")),
        };
        Ok(Self { version, target, earlier, faults })
    }
}
