//! A debugger that holds a guest.

use std::path::PathBuf;

use crossbeam::channel::Sender;

/// Debugger of a guest. The guest stands still until the debugger has it go on.
#[derive(Clone, Debug)]
pub struct Debugger {
    /// Path of the socket at which QEMU waits for it.
    pub socket: PathBuf,
    /// Channel that gets a word once the guest has its request and waits.
    pub waits: Sender<()>,
}

impl Debugger {
    /// QEMU's argument of `-gdb`. A comma in a path is doubled, as it ends an option else.
    pub(super) fn device(&self) -> String {
        let path = self.socket.to_string_lossy().replace(',', ",,");
        format!("unix:{path},server=on,wait=off")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_cannot_become_an_option() {
        let debugger = Debugger { socket: "/tmp/a,b".into(), waits: crossbeam::channel::bounded(1).0 };
        assert_eq!(debugger.device(), "unix:/tmp/a,,b,server=on,wait=off");
    }
}
