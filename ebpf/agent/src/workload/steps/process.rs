//! Processes: started, and waited for.
//!
//! ```text
//!   workload thread     child                                  its child
//!     clone ──────────▶ execve /init child, or exit_group
//!     (waits)             fork ──────────────────────────────▶ exit_group
//!     wait4 ◀──────────── exit_group
//! ```
//!
//! The child has the agent's memory until it executes or ends, and the thread waits for that
//! (`CLONE_VM`, `CLONE_VFORK`). With a copy of the memory each page that the agent writes to next
//! would have to be copied, which is an allocation that can fail. What executes has memory of its
//! own, and forks as others do.

use std::{
    ffi::{CStr, c_int, c_void},
    ptr,
};

use nix::{
    errno::Errno,
    libc,
    sys::wait::{WaitPidFlag, WaitStatus, waitpid},
    unistd::Pid,
};

use super::{PreparedStep, Workspace};

const PROGRAM: &CStr = c"/init";
/// The argument by which the agent knows that it is to be the child.
const CHILD: &CStr = c"child";
/// The child calls two functions that need little of it.
const STACK_WORDS: usize = 2048;

/// A stack, aligned as the processor wants it.
#[repr(C, align(16))]
struct Stack([u64; STACK_WORDS]);

/// Starts a process and waits for it and for all that come of it.
pub(super) struct Fork {
    stack: Box<Stack>,
    exec: bool,
}

impl Fork {
    pub(super) fn new(exec: bool) -> Self {
        Self { stack: Box::new(Stack([0; STACK_WORDS])), exec }
    }
}

/// Ends, or executes the program. It has the agent's memory, and leaves all of it alone but its
/// stack.
extern "C" fn child(exec: *mut c_void) -> c_int {
    if exec.is_null() {
        return 0;
    }
    let (arguments, environment) = ([PROGRAM.as_ptr(), CHILD.as_ptr(), ptr::null()], [ptr::null()]);
    // SAFETY: the texts end in zero, and the lists in null.
    unsafe { libc::execve(PROGRAM.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    Errno::last_raw()
}

impl PreparedStep for Fork {
    fn needs_mount(&self) -> bool {
        false
    }

    fn call(&mut self, _: &mut Workspace) -> nix::Result<i64> {
        let top = (&raw mut *self.stack).wrapping_add(1).cast::<c_void>();
        let argument = if self.exec { ptr::from_ref(PROGRAM).cast_mut().cast() } else { ptr::null_mut() };
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        // SAFETY: the stack is the child's alone, and stays until that has ended or executes: only
        // then does the call return.
        let process = Errno::result(unsafe { libc::clone(child, top, flags, argument) })?;
        let mut status = Err(Errno::ECHILD);
        loop {
            match waitpid(None, Some(WaitPidFlag::__WALL)) {
                Ok(WaitStatus::Exited(ended, code)) if ended == Pid::from_raw(process) => status = Ok(code),
                Ok(WaitStatus::Signaled(ended, ..)) if ended == Pid::from_raw(process) => status = Err(Errno::EINTR),
                // A process of the child's, of which this one is the parent when that has ended.
                Ok(_) => {}
                Err(Errno::ECHILD) => break,
                Err(error) => return Err(error),
            }
        }
        match status? {
            0 => Ok(0),
            code => Err(Errno::from_raw(code)),
        }
    }
}
