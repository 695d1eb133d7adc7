//! Configuration of a guest as command lines: QEMU's and the kernel's.

use std::{
    ffi::OsString,
    fmt,
    fs::File,
    path::{Path, PathBuf},
    time::Duration,
};

use guest_protocol::{PORT_NAME, WINDOW_BYTES, WINDOW_GUEST_ADDRESS};
use serde::{Deserialize, Serialize};

use super::{
    GuestError, clock,
    disks::{Disks, NOTIFIED_AT_ONCE},
};

/// Acceleration of the guest's processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Accel {
    /// The host's processor.
    Kvm,
    /// QEMU's translator.
    Tcg,
}

impl fmt::Display for Accel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        })
    }
}

/// Configuration of a guest.
#[derive(Clone, PartialEq, Eq)]
pub struct GuestConfig {
    /// `qemu-system-x86_64`, by path or by name.
    pub qemu: PathBuf,
    /// Acceleration of the guest's processor.
    pub accel: Accel,
    /// The kernel: an ELF image with a PVH entry.
    pub vmlinux: PathBuf,
    /// The initramfs with the agent; empty for none.
    pub initramfs: Vec<u8>,
    /// The disks.
    pub disks: Disks,
    /// Memory in MiB, 128 to 3072.
    pub memory_mib: u32,
    /// Options of the kernel's command line, besides those of every guest.
    pub kernel_options: String,
    /// True when the first executions of two clones that get the same request are the same,
    /// instruction for instruction. Time is then counted in instructions, which only TCG can do.
    /// That makes an execution slower.
    pub exact: bool,
}

impl fmt::Debug for GuestConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { qemu, accel, vmlinux, initramfs, disks, memory_mib, kernel_options, exact } = self;
        f.debug_struct("GuestConfig")
            .field("qemu", qemu)
            .field("accel", accel)
            .field("vmlinux", vmlinux)
            .field("initramfs_bytes", &initramfs.len())
            .field("disks", disks)
            .field("memory_mib", memory_mib)
            .field("kernel_options", kernel_options)
            .field("exact", exact)
            .finish()
    }
}

/// The least and the most memory of a guest, in MiB: with more the window could not be at its
/// address.
const MEMORY_MIB: std::ops::RangeInclusive<u32> = 128..=3072;

/// Memory in MiB that a guest needs besides a disk that is full.
const BESIDE_DISK_MIB: u32 = 128;

/// Increments in a millisecond of the time stamp counter of a guest whose instructions are counted:
/// one each nanosecond of its time (`icount_get()` in QEMU 7.2's `softmmu/icount.c`).
const EXACT_KHZ: u64 = 1_000_000;

/// Files and sockets of the host that a guest process finds open.
pub(super) struct Plumbing {
    /// Path of the file that is the guest's memory.
    pub(super) memory: String,
    /// Path of the file that is its window.
    pub(super) window: String,
    /// Paths of the files with the content of its disks: one for each of [`Disks::files`].
    pub(super) disks: Vec<String>,
    /// Path of the initramfs, if there is one and it boots.
    pub(super) initramfs: Option<String>,
    /// Socket of the doorbell.
    pub(super) doorbell: i32,
    /// Socket of the monitor.
    pub(super) qmp: i32,
    /// Writing end of the serial console's pipe.
    pub(super) console: i32,
    /// Place at which a debugger finds the guest.
    pub(super) gdb: Option<String>,
}

/// Start of a guest's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Birth {
    /// It boots the kernel and writes into the memory's file.
    Boot,
    /// It continues a saved guest and writes into the memory's file.
    Resume,
    /// It continues a saved guest and keeps its changes of the memory to itself.
    Clone,
}

impl GuestConfig {
    /// Checks what can be checked before QEMU starts.
    pub(super) fn check(&self) -> Result<(), GuestError> {
        if !MEMORY_MIB.contains(&self.memory_mib) {
            let (least, most) = (MEMORY_MIB.start(), MEMORY_MIB.end());
            let reason = format!("{} MiB of memory, possible are {least} to {most}", self.memory_mib);
            return Err(GuestError::Config { reason });
        }
        if self.exact && self.accel == Accel::Kvm {
            let reason =
                "executions repeat exactly only under TCG, which counts instructions: leave out --accel kvm".to_owned();
            return Err(GuestError::Config { reason });
        }
        if let Some(why) = self.disks.inexact().filter(|_| self.exact) {
            let reason = format!("{why}, and executions do not repeat exactly: leave out --exact and --gdb");
            return Err(GuestError::Config { reason });
        }
        let (disk, memory) = (self.disks.memory_mib(), self.memory_mib);
        if disk > 0 && disk + BESIDE_DISK_MIB > memory {
            let reason =
                format!("disks of {disk} MiB in {memory} MiB of memory, which need {BESIDE_DISK_MIB} MiB more");
            return Err(GuestError::Config { reason });
        }
        readable("the kernel", &self.vmlinux)?;
        self.disks.image.as_deref().map_or(Ok(()), |disk| readable("the disk image", disk))
    }

    /// Gives the time that booting may take, of that in which the host lets the guest run.
    /// Preparing the target may take as long. It is ten times the time that either takes on an idle
    /// machine.
    pub(super) fn boot_deadline(&self) -> Duration {
        Duration::from_secs(if self.accel == Accel::Kvm { 30 } else { 120 })
    }

    /// QEMU's name of the processor.
    pub(crate) fn processor(&self) -> &'static str {
        if self.accel == Accel::Kvm { "host" } else { "max,la57=off" }
    }

    pub(super) fn memory_bytes(&self) -> u64 {
        u64::from(self.memory_mib) << 20
    }

    /// Increments in a millisecond of the time stamp counter that the guest sees, where that has to
    /// be told.
    pub(crate) fn counter_khz(&self) -> Option<u64> {
        match self.accel {
            Accel::Kvm => None,
            Accel::Tcg if self.exact => Some(EXACT_KHZ),
            Accel::Tcg => clock::counter_khz(),
        }
    }

    /// The kernel's command line, which says at what rate its time stamp counter counts.
    pub(crate) fn kernel_command_line(&self, counter_khz: Option<u64>) -> String {
        let words = [
            // The console: errors and warnings, the least that a whole report needs.
            "console=ttyS0 loglevel=5",
            // Whatever the kernel finds fatal ends the guest at once. A soft lockup is one after
            // twice the threshold.
            "panic=-1 oops=panic watchdog_thresh=5 sysctl.kernel.softlockup_panic=1",
            "sysctl.kernel.hung_task_check_interval_secs=1 sysctl.kernel.hung_task_panic=1",
            "rcupdate.rcu_cpu_stall_timeout=20",
            // The host interrupts a kernel that hangs, to hear where.
            "unknown_nmi_panic",
            // The same addresses in every guest.
            "nokaslr norandmaps",
            "mitigations=off random.trust_cpu=on 8250.nr_uarts=1 io_delay=none",
        ];
        let mut words: Vec<String> = words.map(str::to_owned).into();
        if self.accel == Accel::Tcg {
            // ACPI's routing table of the pc machine is a program that a checking kernel interprets
            // for seconds, translated; the BIOS has it ready-made. Emulated, the HPET misses its
            // own deadlines and the kernel says so over and over.
            words.push("acpi=noirq hpet=disable".to_owned());
            words.extend(counter_khz.map(|khz| format!("tsc=reliable tsc_early_khz={khz}")));
        }
        // The clock of a guest that counts instructions does not go on while the host runs
        // something else, so that less of its time says as much.
        let hung_secs = if self.exact { 2 } else { 10 };
        words.push(format!("sysctl.kernel.hung_task_timeout_secs={hung_secs}"));
        if self.exact {
            // A processor that halts is woken by QEMU's main thread, when the host lets that one
            // run.
            words.push("idle=poll".to_owned());
        }
        if !self.kernel_options.is_empty() {
            words.push(self.kernel_options.clone());
        }
        words.push(self.disks.kernel_words());
        words.join(" ")
    }

    /// QEMU's arguments. Those of each birth make the same machine: they differ in whether the
    /// memory's file is written to, and only a boot gets a kernel, as the others' memory has one.
    pub(super) fn qemu_arguments(&self, plumbing: &Plumbing, birth: Birth) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = Vec::new();
        let mut add = |option: &str, value: String| arguments.extend([option.into(), value.into()]);
        let share = if birth == Birth::Clone { "off" } else { "on" };
        let memory_bytes = self.memory_bytes();
        add("-machine", format!("pc,memory-backend=ram,accel={}", self.accel));
        add("-cpu", self.processor().to_owned());
        add("-smp", "1".to_owned());
        add("-m", format!("{}M,slots=2,maxmem={}M", self.memory_mib, self.memory_mib + 1024));
        add("-object", memory_file("ram", memory_bytes, &plumbing.memory, share));
        add("-object", memory_file("window", WINDOW_BYTES as u64, &plumbing.window, "on"));
        add("-device", format!("pc-dimm,memdev=window,addr={WINDOW_GUEST_ADDRESS:#x}"));
        add("-chardev", format!("socket,id=doorbell,fd={}", plumbing.doorbell));
        add("-device", format!("virtio-serial-pci,max_ports=2,{NOTIFIED_AT_ONCE}"));
        add("-device", format!("virtserialport,chardev=doorbell,name={PORT_NAME}"));
        add("-chardev", format!("socket,id=qmp,fd={}", plumbing.qmp));
        add("-mon", "chardev=qmp,mode=control".to_owned());
        add("-chardev", format!("file,id=console,path=/proc/self/fd/{}", plumbing.console));
        add("-serial", "chardev:console".to_owned());
        // A guest that panics reboots; that ends it, and its end leaves it paused, so that it can
        // still be read.
        add("-action", "reboot=shutdown,shutdown=pause".to_owned());
        if self.exact {
            // An instruction takes two nanoseconds, and an idle processor waits for nothing.
            add("-icount", "shift=1,sleep=off".to_owned());
            add("-rtc", "base=2026-01-01,clock=vm".to_owned());
            // The seed fixes the numbers that the processor's RDRAND gives.
            add("-seed", "1".to_owned());
        }
        add("-display", "none".to_owned());
        add("-net", "none".to_owned());
        match birth {
            Birth::Boot => add("-append", self.kernel_command_line(self.counter_khz())),
            Birth::Resume | Birth::Clone => add("-incoming", "defer".to_owned()),
        }
        arguments.extend(["-nodefaults", "-no-user-config"].map(Into::into));
        if birth == Birth::Boot {
            arguments.extend(["-kernel".into(), self.vmlinux.clone().into()]);
        }
        if let Some(initramfs) = &plumbing.initramfs {
            arguments.extend(["-initrd".into(), initramfs.into()]);
        }
        if let Some(gdb) = &plumbing.gdb {
            arguments.extend(["-gdb".into(), gdb.into()]);
        }
        arguments.extend(self.disks.qemu_arguments(&plumbing.disks));
        arguments
    }
}

fn readable(what: &'static str, path: &Path) -> Result<(), GuestError> {
    let opened = File::open(path);
    opened.map(drop).map_err(|source| GuestError::File { what, path: path.to_owned(), source })
}

fn memory_file(id: &str, bytes: u64, path: &str, share: &str) -> String {
    format!("memory-backend-file,id={id},size={bytes},mem-path={path},share={share}")
}

#[cfg(test)]
mod tests {
    use execution::DiskKind;

    use super::*;

    fn config(accel: Accel) -> GuestConfig {
        GuestConfig {
            qemu: "qemu-system-x86_64".into(),
            accel,
            vmlinux: "/boot/vm linux".into(),
            initramfs: b"070701".to_vec(),
            disks: Disks { image: Some("/images/a,b.raw".into()), kind: DiskKind::Memory, count: 1, mib: 128 },
            memory_mib: 512,
            kernel_options: String::new(),
            exact: false,
        }
    }

    fn arguments(accel: Accel, birth: Birth) -> Vec<String> {
        let path = |number| format!("/proc/self/fd/{number}");
        let initramfs = (birth == Birth::Boot).then(|| path(15));
        let (memory, window, disks) = (path(10), path(11), Vec::new());
        let plumbing = Plumbing { memory, window, disks, initramfs, doorbell: 12, qmp: 13, console: 14, gdb: None };
        let arguments = config(accel).qemu_arguments(&plumbing, birth);
        arguments.into_iter().map(|argument| argument.into_string().unwrap()).collect()
    }

    /// A guest with so many disks.
    fn with_disks(kind: DiskKind, count: u8, mib: u32) -> GuestConfig {
        let config = config(Accel::Tcg);
        GuestConfig { disks: Disks { kind, count, mib, ..config.disks }, ..config }
    }

    fn value<'a>(arguments: &'a [String], option: &str) -> Vec<&'a str> {
        arguments.windows(2).filter(|pair| pair[0] == option).map(|pair| pair[1].as_str()).collect()
    }

    #[test]
    fn all_births_are_the_same_machine() {
        let boot = arguments(Accel::Tcg, Birth::Boot);
        let clone = arguments(Accel::Tcg, Birth::Clone);
        let resumed = arguments(Accel::Tcg, Birth::Resume);
        for option in ["-machine", "-cpu", "-smp", "-m", "-device", "-chardev", "-serial", "-blockdev", "-action"] {
            assert!(!value(&boot, option).is_empty(), "{option}");
            assert_eq!(value(&boot, option), value(&clone, option), "{option}");
            assert_eq!(value(&boot, option), value(&resumed, option), "{option}");
        }
        let objects = |arguments: &[String]| value(arguments, "-object").join("\n");
        assert_eq!(objects(&boot).replacen("share=on", "share=off", 1), objects(&clone));
        assert_eq!(objects(&boot), objects(&resumed));
        assert_eq!(value(&boot, "-kernel"), ["/boot/vm linux"]);
        assert_eq!(value(&boot, "-initrd"), ["/proc/self/fd/15"]);
        assert!(value(&clone, "-kernel").is_empty() && value(&clone, "-append").is_empty());
        assert_eq!((value(&clone, "-incoming"), value(&resumed, "-incoming")), (vec!["defer"], vec!["defer"]));
    }

    #[test]
    fn each_acceleration_has_its_processor() {
        assert_eq!(value(&arguments(Accel::Tcg, Birth::Boot), "-cpu"), ["max,la57=off"]);
        assert_eq!(value(&arguments(Accel::Kvm, Birth::Boot), "-cpu"), ["host"]);
        assert!(config(Accel::Tcg).kernel_command_line(None).contains("acpi=noirq"));
        assert!(!config(Accel::Kvm).kernel_command_line(None).contains("acpi=noirq"));
    }

    #[test]
    fn no_device_leaves_what_the_guest_asks_for_to_another_thread() {
        for birth in [Birth::Boot, Birth::Resume, Birth::Clone] {
            let arguments = arguments(Accel::Tcg, birth);
            let devices: Vec<_> = arguments.iter().filter(|argument| argument.contains("-pci")).collect();
            assert_eq!(devices.len(), 2);
            assert!(devices.iter().all(|device| device.ends_with(",ioeventfd=off")), "{devices:?}");
        }
    }

    #[test]
    fn an_exact_guest_counts_instructions() {
        let exact = GuestConfig { exact: true, kernel_options: "quiet".to_owned(), ..config(Accel::Tcg) };
        let command_line = exact.kernel_command_line(exact.counter_khz());
        assert!(command_line.contains("tsc_early_khz=1000000 ") && command_line.contains(" quiet "), "{command_line}");
        assert!(GuestConfig { accel: Accel::Kvm, ..exact }.check().unwrap_err().to_string().contains("only under TCG"));
        let virtio = GuestConfig { exact: true, ..with_disks(DiskKind::Virtio, 1, 128) };
        assert!(virtio.check().unwrap_err().to_string().contains("a virtio disk interrupts the guest"));
    }

    #[test]
    fn a_path_cannot_become_an_option() {
        let boot = arguments(Accel::Tcg, Birth::Boot);
        let node: serde_json::Value = serde_json::from_str(value(&boot, "-blockdev")[0]).unwrap();
        assert_eq!(node["file"]["filename"], "/images/a,b.raw");
        assert_eq!(node["read-only"], true);
    }

    #[test]
    fn sizes_are_checked() {
        let with = |memory_mib, mib| GuestConfig { memory_mib, ..with_disks(DiskKind::Memory, 1, mib) }.check();
        assert!(with(4096, 0).unwrap_err().to_string().contains("4096 MiB of memory"));
        assert!(with(256, 200).unwrap_err().to_string().contains("which need 128 MiB more"));
        // The sizes are fine, the files are not.
        assert!(with(256, 128).unwrap_err().to_string().contains("the kernel /boot/vm linux"));
        let reason = |config: GuestConfig| config.check().unwrap_err().to_string();
        assert!(reason(with_disks(DiskKind::Memory, 3, 128)).contains("the kernel"), "there is room");
        assert!(reason(with_disks(DiskKind::Memory, 4, 128)).contains("disks of 512 MiB in 512 MiB"));
        assert!(reason(with_disks(DiskKind::Virtio, 4, 1024)).contains("the kernel"), "they take none");
    }
}
