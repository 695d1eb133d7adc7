//! Triggers of the self-test module.

use std::{
    fs::{File, OpenOptions},
    os::fd::AsFd,
    path::Path,
};

use anyhow::{Context, Result};
use guest_protocol::RelativePath;
use nix::unistd::write;

use super::{PreparedStep, Workspace, signed};

/// The module's folder.
const TRIGGERS: &str = "/sys/kernel/debug/fuzz_selftest";

/// Pulls a trigger: writes to its open file.
pub(super) struct Trigger(File);

impl Trigger {
    pub(super) fn new(name: &RelativePath) -> Result<Self> {
        let path = Path::new(TRIGGERS).join(name.as_str());
        let file = OpenOptions::new().write(true).open(&path);
        file.with_context(|| format!("cannot open {}", path.display())).map(Self)
    }
}

impl PreparedStep for Trigger {
    fn needs_mount(&self) -> bool {
        false
    }

    fn call(&mut self, _: &mut Workspace) -> nix::Result<i64> {
        write(self.0.as_fd(), b"1").map(signed)
    }
}
