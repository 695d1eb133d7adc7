//! The reproducer: a file that makes the same crash again in a fresh guest.

use serde::{Deserialize, Serialize};

use crate::{FaultPlan, PlanError};

/// The version that this crate reads and writes.
pub const REPRODUCER_VERSION: u32 = 1;

/// A crash and the plan that makes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reproducer {
    /// Format version, [`REPRODUCER_VERSION`].
    pub reproducer_version: u32,
    /// Key of the crash: what a replay must show again. Empty in files of older versions.
    #[serde(default)]
    pub key: String,
    /// Title of the crash, for people.
    pub title: String,
    /// Name of the kernel in `kernels/kernels.toml`.
    pub kernel: String,
    /// Build id of the kernel it was found on, for the record: a plan survives a rebuild.
    pub kernel_build_id: String,
    /// Plan that makes the crash.
    pub plan: FaultPlan,
    /// Definition of the plan's target at the time, which this crate hands on as it is. Files of
    /// earlier versions have none, nor has what hosts tell each other.
    #[serde(default)]
    pub target: Option<serde_json::Value>,
}

impl Reproducer {
    /// Reads a reproducer. Its key and title become one printable line each.
    ///
    /// # Errors
    ///
    /// Bad syntax, unknown fields, an unsupported version, or a plan that is refused.
    pub fn from_json(text: &str) -> Result<Self, PlanError> {
        let mut reproducer: Self = serde_json::from_str(text)?;
        if reproducer.reproducer_version != REPRODUCER_VERSION {
            return Err(PlanError::Version { found: reproducer.reproducer_version });
        }
        reproducer.plan.check()?;
        reproducer.key = one_line(&reproducer.key);
        reproducer.title = one_line(&reproducer.title);
        Ok(reproducer)
    }

    /// The reproducer as indented JSON, ending in a line feed.
    ///
    /// # Panics
    ///
    /// Never: a reproducer has only string keys.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("a reproducer has only string keys");
        text.push('\n');
        text
    }

    /// Gives what the crash is recognised by: its key, or its title for want of one.
    #[must_use]
    pub fn identity(&self) -> &str {
        if self.key.is_empty() { &self.title } else { &self.key }
    }

    /// Says whether `text` is meant to be a reproducer rather than a plan.
    #[must_use]
    pub fn is_one(text: &str) -> bool {
        serde_json::from_str::<serde_json::Value>(text).is_ok_and(|value| value.get("reproducer_version").is_some())
    }
}

/// Gives a key or title as one printable line: `?` stands for each control character. Guests and
/// other hosts write them, and they end up in terminals, heads of mails and lists.
#[must_use]
pub fn one_line(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { '?' } else { character }).collect()
}

/// Gives a word as a shell takes it for one and nothing else: strangers' words are in commands that
/// people copy.
#[must_use]
pub fn shell_word(word: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./=,:@%+".contains(letter);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_stays_one_word_of_a_shell() {
        let words =
            [("-Lx_1.img", "-Lx_1.img"), ("", "''"), ("a b", "'a b'"), ("$(x)\n", "'$(x)\n'"), ("it's", r"'it'\''s'")];
        for (word, quoted) in words {
            assert_eq!(shell_word(word), quoted);
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let reproducer = Reproducer {
            reproducer_version: REPRODUCER_VERSION,
            key: "access: use-after-free Write in selftest_unwind".to_owned(),
            title: "KASAN: slab-use-after-free Write in selftest_unwind".to_owned(),
            kernel: "linux-6.12-check".to_owned(),
            kernel_build_id: "ab12".to_owned(),
            plan: FaultPlan::fault_free("selftest"),
            target: Some(serde_json::json!({ "digest": "cd34", "steps": [] })),
        };
        let text = reproducer.to_json();
        assert_eq!(Reproducer::from_json(&text).unwrap(), reproducer);
        assert!(Reproducer::is_one(&text));
        assert!(!Reproducer::is_one(&reproducer.plan.to_json()));
        assert!(Reproducer::from_json(&text.replace("\"title\"", "\"tittle\"")).is_err());
        assert_eq!(reproducer.identity(), reproducer.key);
        let key = format!("  \"key\": \"{}\",\n", reproducer.key);
        let older = Reproducer::from_json(&text.replace(&key, "")).unwrap();
        assert_eq!((older.key.as_str(), older.identity()), ("", reproducer.title.as_str()));
        let hostile = reproducer.key.clone() + "\n\u{1b}[2J";
        let read =
            Reproducer::from_json(&Reproducer { key: hostile.clone(), title: hostile, ..reproducer.clone() }.to_json());
        let plain = format!("{}??[2J", reproducer.key);
        assert_eq!(read.map(|read| (read.key, read.title)).unwrap(), (plain.clone(), plain));
        let earlier = r#"{ "reproducer_version": 1, "title": "a", "kernel": "b", "kernel_build_id": "c",
            "plan": { "version": 1, "target": "t", "faults": [] } }"#;
        assert_eq!(Reproducer::from_json(earlier).unwrap().target, None);
    }
}
