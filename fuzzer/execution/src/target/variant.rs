//! Variants: one text for several images, mount options or functions.

use std::collections::BTreeMap;

use guest_protocol::{Step, WorkloadStep};
use serde::Deserialize;
use toml::Spanned;

use super::image::ImageText;
use crate::function_groups::WantedFunctions;

/// `[variants.NAME]` of a target's file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VariantText {
    /// One line for people.
    pub(super) description: Option<String>,
    /// Mount options besides those of the steps.
    options: Option<Options>,
    /// Part of the image that is another one.
    pub(super) image: Option<Spanned<ImageText>>,
    /// Functions in the place of the target's.
    pub(super) functions: Option<Spanned<WantedFunctions>>,
}

/// Mount options, for all mounts or by file system type.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "`options` are mount options, or a table of them by file system type")]
enum Options {
    All(String),
    ByType(BTreeMap<String, String>),
}

impl Options {
    fn of(&self, fstype: &str) -> Option<&str> {
        match self {
            Self::All(options) => Some(options),
            Self::ByType(by_type) => by_type.get(fstype).map(String::as_str),
        }
    }
}

impl VariantText {
    /// Adds its options to those of the mounts among `steps`.
    ///
    /// # Errors
    ///
    /// It has options, and no step mounts what they are for.
    pub(super) fn change_mounts<'a>(&self, steps: impl Iterator<Item = &'a mut WorkloadStep>) -> Result<(), String> {
        let Some(ours) = &self.options else { return Ok(()) };
        let mut mounts = 0;
        for step in steps {
            if let Step::Mount { fstype, options, .. } = &mut step.step
                && let Some(more) = ours.of(fstype)
            {
                if !options.is_empty() {
                    options.push(',');
                }
                options.push_str(more);
                mounts += 1;
            }
        }
        if mounts == 0 { Err("no step mounts what its options are for".to_owned()) } else { Ok(()) }
    }
}

/// Says whether `name` can be a variant's: a word that is a part of a folder's name.
pub(super) fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !name.is_empty() && !name.starts_with('.') && name.bytes().all(plain)
}
