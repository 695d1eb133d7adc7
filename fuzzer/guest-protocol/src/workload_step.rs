//! A step with the result that it has without faults.
//!
//! In files it is the step's table, with `expect` beside the step:
//!
//! ```toml
//! { mount = { fstype = "btrfs" }, expect = "EUCLEAN" }
//! ```

use std::fmt;

use fault_plan::Errno;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, Visitor, value::MapAccessDeserializer},
    ser::SerializeMap,
};

use crate::{Step, StepResult};

/// The key of a file that is no step.
const EXPECT: &str = "expect";

/// A step of a workload.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WorkloadStep {
    /// The step.
    pub step: Step,
    /// Positive error numbers, of which it fails with one when nothing is made to fail; empty when
    /// it works.
    pub expect: Vec<u16>,
}

impl From<Step> for WorkloadStep {
    /// A step that works.
    fn from(step: Step) -> Self {
        Self { step, expect: Vec::new() }
    }
}

impl WorkloadStep {
    /// The word for the step in files and reports.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        self.step.kind()
    }

    /// Says whether `result` is the one that the step has without faults.
    #[must_use]
    pub fn expects(&self, result: StepResult) -> bool {
        match result {
            StepResult::Done(_) => self.expect.is_empty(),
            StepResult::Failed(number) => self.expect.iter().any(|wanted| i32::from(*wanted) == number),
            StepResult::Skipped => false,
        }
    }

    /// Says of the first of `steps` that does not have its result what was wanted and what came.
    #[must_use]
    pub fn defect(steps: &[Self], results: &[StepResult]) -> Option<String> {
        let mut numbered = steps.iter().zip(results).zip(1..);
        let ((step, result), number) = numbered.find(|((step, result), _)| !step.expects(**result))?;
        let got = match result {
            StepResult::Done(_) => "worked".to_owned(),
            StepResult::Failed(_) => result.text(),
            StepResult::Skipped => "was skipped, as the disk was not mounted".to_owned(),
        };
        let wanted = if step.expect.is_empty() { "to work".to_owned() } else { step.expected().join(" or ") };
        Some(format!("step {number} ({}) {got}, expected is {wanted}", step.kind()))
    }

    /// The names of the errors that it fails with.
    fn expected(&self) -> Vec<&'static str> {
        self.expect.iter().map(|number| Errno::from_number(i64::from(*number)).map_or("E?", Errno::name)).collect()
    }
}

/// A name or a list of names.
#[derive(Deserialize)]
#[serde(untagged, expecting = "`expect` is the name of an error, such as \"EROFS\", or a list of names")]
enum Expected {
    One(String),
    Some(Vec<String>),
}

impl Expected {
    fn numbers<E: Error>(self) -> Result<Vec<u16>, E> {
        let names = match self {
            Self::One(name) => vec![name],
            Self::Some(names) => names,
        };
        if names.is_empty() {
            return Err(E::custom("`expect` is an empty list: leave it out for a step that works"));
        }
        let number = |name: &String| {
            let errno = Errno::from_name(name).ok_or_else(|| E::custom(format_args!("unknown error \"{name}\"")))?;
            Ok(errno.number())
        };
        names.iter().map(number).collect()
    }
}

impl Serialize for WorkloadStep {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { step, expect } = self;
        if !serializer.is_human_readable() {
            return (step, expect).serialize(serializer);
        }
        let mut step = serde_json::to_value(step).map_err(serde::ser::Error::custom)?;
        let mut map = serializer.serialize_map(None)?;
        for (kind, fields) in step.as_object_mut().into_iter().flatten() {
            // Files from before there was the field say the same: so do their digests.
            if let Some(fields) = fields.as_object_mut() {
                fields.retain(|_, value| !value.is_null() && *value != false);
            }
            map.serialize_entry(kind, fields)?;
        }
        match self.expected().as_slice() {
            [] => {}
            [one] => map.serialize_entry(EXPECT, one)?,
            several => map.serialize_entry(EXPECT, several)?,
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for WorkloadStep {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            let (step, expect) = Deserialize::deserialize(deserializer)?;
            return Ok(Self { step, expect });
        }
        deserializer.deserialize_map(InFile)
    }
}

/// Reads a step's table.
struct InFile;

impl<'de> Visitor<'de> for InFile {
    type Value = WorkloadStep;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table with one step")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<WorkloadStep, A::Error> {
        let (mut step, mut expect) = (None, None);
        while let Some(key) = map.next_key::<String>()? {
            if key == EXPECT {
                expect = Some(map.next_value::<Expected>()?.numbers()?);
            } else if step.is_none() {
                let one = OneEntry { key: Some(key), map: &mut map };
                step = Some(Step::deserialize(MapAccessDeserializer::new(one))?);
            } else {
                map.next_value::<IgnoredAny>()?;
                return Err(A::Error::custom(format_args!("\"{key}\" stands beside another step")));
            }
        }
        let step = step.ok_or_else(|| A::Error::custom("there is no step in the table"))?;
        Ok(WorkloadStep { step, expect: expect.unwrap_or_default() })
    }
}

/// An entry of a map whose key was read already.
struct OneEntry<'a, A> {
    key: Option<String>,
    map: &'a mut A,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for OneEntry<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        use serde::de::IntoDeserializer;
        self.key.take().map(|key| seed.deserialize(key.into_deserializer())).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<WorkloadStep, String> {
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| error.to_string())?;
        table.try_into().map_err(|error: toml::de::Error| error.message().to_owned())
    }

    #[test]
    fn a_step_may_say_what_it_gives() {
        let plain = read("mount = { fstype = 'btrfs' }").unwrap();
        assert_eq!(plain, Step::Mount { fstype: "btrfs".to_owned(), options: String::new(), disk: None }.into());
        let one = read("expect = 'EUCLEAN'\nmount = { fstype = 'btrfs' }").unwrap();
        assert_eq!((one.kind(), one.expect.as_slice()), ("mount", [117].as_slice()));
        let two = read("sync = {}\nexpect = ['ENOSPC', 'EIO']").unwrap();
        assert_eq!((two.kind(), two.expect.as_slice()), ("sync", [28, 5].as_slice()));
        let text = serde_json::to_string(&plain).unwrap();
        assert_eq!(text, r#"{"mount":{"fstype":"btrfs","options":""}}"#, "as before there were several disks");
        let direct = read("write = { path = 'a', length = 512, direct = true }").unwrap();
        for step in [plain, one, two, direct] {
            let text = serde_json::to_string(&step).unwrap();
            assert_eq!(serde_json::from_str::<WorkloadStep>(&text).unwrap(), step, "{text}");
            let packed = postcard::to_stdvec(&step).unwrap();
            assert_eq!(postcard::from_bytes::<WorkloadStep>(&packed).unwrap(), step);
        }
    }

    #[test]
    fn what_is_no_step_is_refused() {
        let refused = |text: &str| read(text).unwrap_err();
        assert!(refused("sync = {}\nexpect = 'EUNCLEAN'").contains("unknown error \"EUNCLEAN\""));
        assert!(refused("sync = {}\nexpect = []").contains("empty list"));
        assert!(refused("sync = {}\nexpect = 5").contains("`expect` is the name of an error"));
        assert!(refused("sync = {}\numount = {}").contains("beside another step"));
        assert!(refused("expect = 'EIO'").contains("no step"));
        assert!(refused("sink = {}").contains("unknown variant `sink`"));
    }

    #[test]
    fn a_result_that_is_not_the_expected_one_is_told() {
        let works = WorkloadStep::from(Step::Umount {});
        let fails = WorkloadStep { expect: vec![30, 117], ..Step::Sync {}.into() };
        let steps = [works, fails];
        let defect = |results: [StepResult; 2]| WorkloadStep::defect(&steps, &results).unwrap_or_default();
        assert_eq!(defect([StepResult::Done(0), StepResult::Failed(117)]), "");
        assert_eq!(
            defect([StepResult::Failed(12), StepResult::Failed(117)]),
            "step 1 (umount) failed with ENOMEM (12), expected is to work"
        );
        assert_eq!(
            defect([StepResult::Done(0), StepResult::Done(1)]),
            "step 2 (sync) worked, expected is EROFS or EUCLEAN"
        );
        assert_eq!(
            defect([StepResult::Done(0), StepResult::Failed(5)]),
            "step 2 (sync) failed with EIO (5), expected is EROFS or EUCLEAN"
        );
        assert!(defect([StepResult::Skipped, StepResult::Done(0)]).starts_with("step 1 (umount) was skipped"));
    }
}
