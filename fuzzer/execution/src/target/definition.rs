//! Definitions of targets: all that says what a plan means, in one piece that goes with it.
//!
//! ```text
//! target.toml, variant, groups ─▶ Target ─definition─▶ JSON in reproducer.json ─from_definition─▶ Target
//!                                   └─digest─▶ says whether two are the same
//! ```

use std::path::PathBuf;

use fault_plan::{FaultPlan, Scope};
use guest_protocol::{MAX_FUNCTIONS, MAX_UNRELATED, WorkloadStep};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::{ImageRecipe, Oracle, Target, file::defect};
use crate::function_groups::TargetFunction;

/// Why a definition is refused.
#[derive(Debug, Error)]
pub enum DefinitionError {
    /// It is none.
    #[error("the target that the file carries is none")]
    Syntax(#[from] serde_json::Error),
    /// It says what cannot be.
    #[error("the target that the file carries: {0}")]
    Invalid(String),
}

/// The parts of a definition that do not change what a plan means.
const NAMES: [&str; 5] = ["digest", "name", "description", "kernel", "oracles"];

/// A definition as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    digest: String,
    name: String,
    description: String,
    kernel: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    memory_mib: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    image: Option<ImageRecipe>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    setup: Vec<WorkloadStep>,
    steps: Vec<WorkloadStep>,
    functions: Vec<TargetFunction>,
    /// Those of a target that was written before there were others.
    #[serde(default = "workload_alone", skip_serializing_if = "is_workload_alone")]
    scope: Vec<Scope>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    unrelated: Vec<String>,
    /// All in files from before there was a choice.
    #[serde(default = "all_oracles", skip_serializing_if = "is_all_oracles")]
    oracles: Vec<Oracle>,
}

fn all_oracles() -> Vec<Oracle> {
    Oracle::ALL.to_vec()
}

fn is_all_oracles(oracles: &[Oracle]) -> bool {
    oracles == Oracle::ALL
}

fn workload_alone() -> Vec<Scope> {
    vec![Scope::Workload]
}

fn is_workload_alone(scopes: &[Scope]) -> bool {
    scopes == [Scope::Workload]
}

impl Target {
    /// Gives the target's definition, which says as much as its folder and the groups of functions,
    /// but for the content of an image that is a file.
    ///
    /// # Panics
    ///
    /// Never: a definition has only string keys.
    #[must_use]
    pub fn definition(&self) -> Value {
        let record = Record {
            digest: String::new(),
            name: self.name.clone(),
            description: self.description.clone(),
            kernel: self.kernel.clone(),
            memory_mib: self.memory_mib,
            image: self.image.clone(),
            setup: self.setup_steps.clone(),
            steps: self.steps.clone(),
            functions: self.functions.clone(),
            scope: self.scopes.clone(),
            unrelated: self.unrelated.clone(),
            oracles: self.oracles.clone(),
        };
        let mut definition = serde_json::to_value(record).expect("a definition has only string keys");
        definition["digest"] = digest(&definition).into();
        definition
    }

    /// Hashes what decides what a plan for the target means: steps, image, memory, and functions
    /// with their contracts. Name and description do not, nor does the kernel.
    #[must_use]
    pub fn digest(&self) -> String {
        digest(&self.definition())
    }

    /// Gives the target with only those functions that `plan` fails, so that a file for one plan
    /// stays short. For a plan without faults those are left that are on a kernel's list, or all.
    #[must_use]
    pub fn narrowed(&self, plan: &FaultPlan) -> Self {
        let fails = |function: &TargetFunction| plan.all_faults().any(|fault| fault.function == function.name);
        let mut functions: Vec<_> = self.functions.iter().filter(|function| fails(function)).cloned().collect();
        if functions.is_empty() {
            functions.extend(self.functions.iter().filter(|function| function.error_type.is_none()).cloned());
        }
        if functions.is_empty() {
            functions.clone_from(&self.functions);
        }
        Self { functions, ..self.clone() }
    }

    /// Makes a target of its definition. It has no folder, and so no seeds and no known crashes.
    ///
    /// # Errors
    ///
    /// It is none, or says what cannot be.
    pub fn from_definition(definition: &Value) -> Result<Self, DefinitionError> {
        let record = Record::deserialize(definition)?;
        let Record {
            name,
            description,
            kernel,
            memory_mib,
            image,
            setup,
            steps,
            functions,
            scope,
            unrelated,
            oracles,
            ..
        } = record;
        let image_defect = image.as_ref().and_then(ImageRecipe::defect);
        let functions_defect = functions
            .iter()
            .find_map(|function| function.defect().map(|defect| format!("\"{}\" {defect}", function.name)))
            .or_else(|| {
                let possible = (1..=MAX_FUNCTIONS).contains(&functions.len());
                (!possible).then(|| format!("{} functions, possible are 1 to {MAX_FUNCTIONS}", functions.len()))
            });
        let many = (unrelated.len() > MAX_UNRELATED)
            .then(|| format!("{} unrelated functions, possible are {MAX_UNRELATED}", unrelated.len()));
        let target = Self {
            name,
            description,
            kernel,
            image,
            functions,
            scopes: scope,
            unrelated,
            oracles,
            setup_steps: setup,
            steps,
            memory_mib,
            variants: Vec::new(),
            folder: PathBuf::new(),
            variant: None,
        };
        match image_defect.or(functions_defect).or(many).or_else(|| defect(&target)) {
            Some(defect) => Err(DefinitionError::Invalid(defect)),
            None => Ok(target),
        }
    }
}

fn digest(definition: &Value) -> String {
    let mut meaning = definition.clone();
    if let Some(meaning) = meaning.as_object_mut() {
        meaning.retain(|key, _| !NAMES.contains(&key.as_str()));
    }
    for function in meaning["functions"].as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        // What reports tell of a call.
        function.remove("arguments");
    }
    let mut text = String::new();
    canonical(&meaning, &mut text);
    hex::encode(Sha256::digest(text))
}

/// Writes `value` with the keys of objects in their order, however they were kept.
fn canonical(value: &Value, text: &mut String) {
    match value {
        Value::Object(object) => {
            let mut entries: Vec<_> = object.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            text.push('{');
            for (key, value) in entries {
                text.push_str(&Value::from(key.as_str()).to_string());
                text.push(':');
                canonical(value, text);
                text.push(',');
            }
            text.push('}');
        }
        Value::Array(values) => {
            text.push('[');
            for value in values {
                canonical(value, text);
                text.push(',');
            }
            text.push(']');
        }
        plain => text.push_str(&plain.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use fault_plan::{CallPath, Errno, Fault, InjectedError, Round};

    use super::*;

    fn corpus() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../corpus")
    }

    #[test]
    fn a_definition_says_as_much_as_the_folder() {
        for target in Target::all(&corpus()).unwrap() {
            let text = target.definition().to_string();
            let again = Target::from_definition(&serde_json::from_str(&text).unwrap()).unwrap();
            assert_eq!((&again.name, again.setup()), (&target.name, target.setup()));
            assert_eq!((again.digest(), &again.image), (target.digest(), &target.image), "{}", target.name);
            assert_eq!(again.functions, target.functions, "{}", target.name);
            assert_eq!(Target::find(&corpus(), &target.name).unwrap().digest(), target.digest());
        }
    }

    #[test]
    fn known_reproducers_carry_a_definition() {
        for target in Target::all(&corpus()).unwrap() {
            for known in target.known().unwrap() {
                let carried = Target::from_definition(&known.target.unwrap()).unwrap();
                assert_eq!((&carried.name, &known.plan.target), (&target.name, &target.name), "{}", known.title);
            }
        }
    }

    #[test]
    fn the_digest_is_of_what_a_plan_means() {
        let folder = tempfile::tempdir().unwrap();
        let digest = |from: &str, to: &str| {
            let text = super::super::tests::GOOD.replace(from, to);
            fs::write(folder.path().join("target.toml"), text).unwrap();
            Target::load(folder.path(), &crate::FunctionGroups::default()).unwrap().digest()
        };
        let first = digest("", "");
        assert_eq!(digest("\"one\"", "\"two\""), first);
        for (from, to) in [("128", "129"), ("\"-q\"", ""), ("ENOMEM", "EIO"), ("{ umount = {} },", "")] {
            assert_ne!(digest(from, to), first, "{from} and {to}");
        }
    }

    #[test]
    fn a_target_for_one_plan_has_the_functions_that_it_fails() {
        let target = Target::find(&corpus(), "btrfs-mount").unwrap();
        let error = InjectedError::Errno(Errno::EIO);
        let fault = |function| Fault::new(function, CallPath::default(), 1, error);
        let earlier = vec![Round { faults: vec![fault("should_fail_bio")], reset: false }];
        let mut plan = FaultPlan { faults: vec![fault("btrfs_search_slot")], earlier, ..FaultPlan::fault_free("") };
        let names = |plan: &FaultPlan| {
            target.narrowed(plan).functions.into_iter().map(|function| function.name).collect::<Vec<_>>()
        };
        assert_eq!(names(&plan), ["should_fail_bio", "btrfs_search_slot"]);
        (plan.faults, plan.earlier) = (Vec::new(), Vec::new());
        assert!(names(&plan).starts_with(&["should_failslab".to_owned()]) && names(&plan).len() < 20);
    }

    #[test]
    fn a_definition_that_cannot_be_is_refused() {
        let target = Target::find(&corpus(), "btrfs-mount").unwrap();
        let refused = |change: fn(&mut Value)| {
            let mut definition = target.definition();
            change(&mut definition);
            crate::chain(&Target::from_definition(&definition).unwrap_err())
        };
        assert!(refused(|definition| definition["steps"] = Value::Array(Vec::new())).contains("0 steps"));
        assert!(refused(|definition| definition["image"]["size_mib"] = 0.into()).contains("size_mib is 0"));
        assert!(
            refused(|definition| definition["functions"][0]["errors"] = Value::Array(Vec::new())).contains("errors")
        );
        assert!(
            refused(|definition| {
                definition["image"] = serde_json::json!({ "file": "/dev/zero", "sha256": "", "size_mib": 1 });
            })
            .contains("\"/dev/zero\" is not a plain path")
        );
        assert!(refused(|definition| definition["step"] = 1.into()).contains("step"));
        assert!(refused(|definition| definition["image"] = Value::Null).contains("needs an [image]"));
    }
}
