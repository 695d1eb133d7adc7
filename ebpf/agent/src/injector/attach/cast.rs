//! Lets the BPF programs read the kernel's memory by plain loads, where the running kernel has what
//! that takes: its types (`CONFIG_DEBUG_INFO_BTF`) and the function `bpf_rdonly_cast()` (6.2 and
//! later).

use abi::CAST;
use aya::Btf;
use aya_obj::btf::BtfKind;

/// `BPF_JMP | BPF_CALL` of `include/uapi/linux/bpf.h`.
const CALL: u8 = 0x85;
/// The source register of a call of one of the kernel's functions: `BPF_PSEUDO_KFUNC_CALL` there.
const KERNEL_FUNCTION: u8 = 2 << 4;

/// Ids among the running kernel's types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cast {
    /// Of the function `bpf_rdonly_cast()`.
    function: u32,
    /// Of `struct stack_frame { struct stack_frame *next_frame; unsigned long return_address; }` of
    /// `arch/x86/include/asm/stacktrace.h` (6.12).
    pub(super) frame: u32,
}

impl Cast {
    /// Nothing when the kernel tells no types, or has no such function.
    pub(super) fn find() -> Option<Self> {
        let types = Btf::from_sys_fs().ok()?;
        let id = |name, kind| types.id_by_type_name_kind(name, kind).ok();
        Some(Self { function: id("bpf_rdonly_cast", BtfKind::Func)?, frame: id("stack_frame", BtfKind::Struct)? })
    }

    /// Has the programs of `object` call the function. Returns how many calls there are.
    pub(super) fn link(self, object: &mut [u8]) -> usize {
        let calls = object.as_chunks_mut().0.iter_mut().filter(|instruction| **instruction == call(0, CAST));
        calls.map(|instruction| *instruction = call(KERNEL_FUNCTION, self.function)).count()
    }
}

/// The instruction that calls the function with this number.
fn call(registers: u8, function: u32) -> [u8; 8] {
    let [a, b, c, d] = function.to_le_bytes();
    [CALL, registers, 0, 0, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_the_placeholder_become_calls_of_the_kernels_function() {
        let mut object = [call(0, 6), call(0, CAST), call(0, CAST + 1), call(0, CAST)].concat();
        assert_eq!(Cast { function: 0x1_2345, frame: 7 }.link(&mut object), 2);
        let linked = [0x85, 0x20, 0, 0, 0x45, 0x23, 1, 0];
        assert_eq!(object, [call(0, 6), linked, call(0, CAST + 1), linked].concat());
    }

    #[test]
    fn the_programs_have_calls_to_replace() {
        let mut object = super::super::OBJECT.to_vec();
        let cast = Cast { function: 1, frame: 1 };
        assert!(cast.link(&mut object) > 0);
        assert_eq!(cast.link(&mut object), 0, "all are replaced");
    }
}
