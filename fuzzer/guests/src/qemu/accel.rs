//! Choice of the acceleration. Only a guest that boots proves that KVM can be used.
//!
//! `/dev/kvm` may exist, open and answer, and yet not run an ordinary kernel: where virtualization
//! is itself emulated, the guest hangs or dies early. So a guest is booted once, and the answer is
//! kept in a file as long as QEMU, the host's kernel and processor, and the guest's kernel are the
//! same. Trouble that can be the host's for the moment (no memory, a processor that is busy) is
//! kept as long as this process runs.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io,
    path::{Path, PathBuf},
    str::FromStr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use execution::Stop;

use super::{
    Accel, Disks, GuestConfig, GuestError,
    config::Birth,
    identity::identity,
    machine::{Machine, Wake},
    memory::MemoryFile,
};
use files::cache::write_file;

/// Acceleration that the user asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccelChoice {
    /// KVM where it works, else TCG.
    #[default]
    Auto,
    /// KVM or nothing.
    Kvm,
    /// TCG.
    Tcg,
}

impl FromStr for AccelChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "kvm" => Ok(Self::Kvm),
            "tcg" => Ok(Self::Tcg),
            _ => Err(format!("\"{text}\" is no acceleration: use auto, kvm or tcg")),
        }
    }
}

/// Acceleration that guests get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// Acceleration of the guest's processor.
    pub accel: Accel,
    /// Why, to show to the user.
    pub reason: String,
}

/// Time that a kernel may take to boot under KVM, some ten times what it takes.
const PROOF_DEADLINE: Duration = Duration::from_secs(20);

/// Last messages of a kernel without a file system (`init/do_mounts.c`, `init/main.c`).
const BOOTED: [&str; 2] = ["VFS: Unable to mount root fs", "No working init found"];

/// File of the answers in the cache folder.
const ANSWERS: &str = "kvm.json";

/// Reasons against KVM since this process began, by QEMU, that may be gone when the next process
/// begins. All kernels of a campaign run in the same way, and the second is not kept waiting.
static PASSING: Mutex<BTreeMap<PathBuf, String>> = Mutex::new(BTreeMap::new());

/// The answers by [`identity()`]: null where KVM works, else why it does not.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
struct Answers(BTreeMap<String, Option<String>>);

impl AccelChoice {
    /// Chooses the acceleration of guests. KVM has to prove itself: the kernel `vmlinux` has to
    /// boot under it. The answer is kept in the folder `cache`.
    ///
    /// # Errors
    ///
    /// KVM is asked for and does not work here, QEMU cannot be started, or the user asks to stop.
    pub fn choose(self, qemu: &Path, vmlinux: &Path, cache: &Path, stop: &Stop) -> Result<Chosen, GuestError> {
        if self == Self::Tcg {
            return Ok(Chosen { accel: Accel::Tcg, reason: "TCG was asked for".to_owned() });
        }
        let trouble = match device_trouble(Path::new("/dev/kvm")) {
            Some(trouble) => Some(trouble),
            None => remembered_trouble(qemu, vmlinux, cache, stop)?,
        };
        match (trouble, self) {
            (None, _) => Ok(Chosen { accel: Accel::Kvm, reason: "the kernel boots under KVM".to_owned() }),
            (Some(reason), Self::Kvm) => Err(GuestError::Accel { reason }),
            (Some(reason), _) => {
                Ok(Chosen { accel: Accel::Tcg, reason: format!("TCG, as KVM cannot be used: {reason}") })
            }
        }
    }
}

/// Why the device cannot be used, as far as opening it tells.
fn device_trouble(device: &Path) -> Option<String> {
    let error = OpenOptions::new().read(true).write(true).open(device).err()?;
    let device = device.display();
    Some(match error.kind() {
        io::ErrorKind::NotFound => {
            format!("there is no {device}: the host has no virtualization or it is switched off")
        }
        io::ErrorKind::PermissionDenied => format!("{device} may not be opened: add the user to its group"),
        _ => format!("{device} does not open: {error}"),
    })
}

/// Why KVM does not work, from the cache or by trying.
fn remembered_trouble(qemu: &Path, vmlinux: &Path, cache: &Path, stop: &Stop) -> Result<Option<String>, GuestError> {
    let file = cache.join(ANSWERS);
    let identity = identity(qemu, vmlinux)?;
    let kept = |reason: String| format!("{reason} (kept in {}; delete that file to try again)", file.display());
    // One proof at a time, so that no answer is written over another.
    let mut passing = PASSING.lock().unwrap_or_else(PoisonError::into_inner);
    // A file that cannot be read is as good as none: the answer is found anew.
    let mut answers: Answers =
        fs::read(&file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    if let Some(answer) = answers.0.get(&identity) {
        return Ok(answer.clone().map(kept));
    }
    if let Some(reason) = passing.get(qemu) {
        return Ok(Some(reason.clone()));
    }
    tracing::debug!("trying whether the kernel boots under KVM, for at most {} s", PROOF_DEADLINE.as_secs());
    let trouble = match boot(qemu, vmlinux, stop)? {
        Proof::Passing(reason) => return Ok(Some(passing.entry(qemu.to_owned()).or_insert(reason).clone())),
        Proof::Fails(reason) => Some(reason),
        Proof::Works => None,
    };
    answers.0.insert(identity, trouble.clone());
    if let Err(error) = write(&file, &answers) {
        tracing::warn!(file = %file.display(), %error, "whether KVM works cannot be remembered");
        return Ok(trouble);
    }
    Ok(trouble.map(kept))
}

/// Outcome of a boot under KVM.
#[derive(Debug, PartialEq, Eq)]
enum Proof {
    /// It works.
    Works,
    /// It does not, for this reason, and will not.
    Fails(String),
    /// It does not, for this reason, which another time may be gone.
    Passing(String),
}

/// Boots the kernel under KVM. It gets no initial file system, so that it panics when it has
/// started all of its drivers and finds none: that is the proof.
fn boot(qemu: &Path, vmlinux: &Path, stop: &Stop) -> Result<Proof, GuestError> {
    let config = GuestConfig {
        qemu: qemu.to_owned(),
        accel: Accel::Kvm,
        vmlinux: vmlinux.to_owned(),
        initramfs: Vec::new(),
        disks: Disks::default(),
        memory_mib: 512,
        kernel_options: String::new(),
        exact: false,
    };
    config.check()?;
    let memory = MemoryFile::new("guest memory", config.memory_bytes())?;
    let until = Instant::now() + PROOF_DEADLINE;
    let attempt = || {
        let mut machine = Machine::start(&config, Birth::Boot, &memory, &[], &[], None)?;
        let wake = machine.receive(stop, until)?;
        machine.settle();
        Ok::<_, GuestError>((wake, machine.console().all()))
    };
    let wake = match attempt() {
        Err(error) if error.was_killed() => attempt(),
        other => other,
    };
    match wake {
        Ok((wake, console)) => Ok(proof(&wake, &console)),
        Err(error @ GuestError::QemuDied { .. }) => Ok(Proof::Passing(error.to_string().lines().take(1).collect())),
        Err(error) => Err(error),
    }
}

fn proof(wake: &Wake, console: &str) -> Proof {
    let seconds = PROOF_DEADLINE.as_secs();
    match wake {
        _ if BOOTED.iter().any(|text| console.contains(text)) => Proof::Works,
        Wake::Deadline if console.is_empty() => Proof::Fails(format!("the kernel prints nothing in {seconds} s")),
        Wake::Deadline => Proof::Passing(format!("the kernel does not boot within {seconds} s")),
        _ => Proof::Fails("the kernel dies while it boots".to_owned()),
    }
}

fn write(file: &Path, answers: &Answers) -> io::Result<()> {
    write_file(file, &serde_json::to_vec_pretty(answers)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_is_looked_at_first() {
        let folder = tempfile::tempdir().unwrap();
        assert!(device_trouble(&folder.path().join("kvm")).unwrap().contains("there is no"));
        assert!(device_trouble(folder.path()).unwrap().contains("does not open"));
        fs::write(folder.path().join("kvm"), "").unwrap();
        assert_eq!(device_trouble(&folder.path().join("kvm")), None);
    }

    #[test]
    fn an_answer_is_remembered_until_the_kernel_changes() {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("cache");
        fs::create_dir(&cache).unwrap();
        let vmlinux = folder.path().join("vmlinux");
        fs::write(&vmlinux, "kernel").unwrap();
        let stop = Stop::new();
        let trouble = || remembered_trouble(Path::new("true"), &vmlinux, &cache, &stop).unwrap();
        // A QEMU that ends at once may not do so another time.
        assert!(trouble().unwrap().contains("qemu ended"));
        assert_eq!(fs::read_dir(&cache).unwrap().count(), 0, "it is not remembered");
        // With that program an answer of another kind can only come from the file.
        let before = identity(Path::new("true"), &vmlinux).unwrap();
        let file = cache.join(ANSWERS);
        let remember = |answer| write(&file, &Answers(BTreeMap::from([(before.clone(), answer)]))).unwrap();
        remember(Some("the kernel prints nothing".to_owned()));
        let kept = trouble().unwrap();
        assert!(kept.starts_with("the kernel prints nothing (kept in "), "{kept}");
        assert!(kept.contains(&file.display().to_string()), "{kept}");
        remember(None);
        assert_eq!(trouble(), None);
        fs::write(&vmlinux, "another kernel").unwrap();
        assert_ne!(identity(Path::new("true"), &vmlinux).unwrap(), before);
        assert!(trouble().is_some());
        // A QEMU that is not there says nothing about KVM.
        let missing = remembered_trouble(&folder.path().join("qemu"), &vmlinux, &cache, &stop);
        assert!(matches!(missing, Err(GuestError::Start { .. })));
    }

    #[test]
    fn only_a_kernel_that_dies_or_is_silent_proves_that_it_does_not_work() {
        let booted = "Kernel panic - not syncing: VFS: Unable to mount root fs";
        assert_eq!(proof(&Wake::Deadline, booted), Proof::Works);
        assert_eq!(proof(&Wake::Ended, booted), Proof::Works);
        assert!(matches!(proof(&Wake::Ended, "Linux version 6"), Proof::Fails(_)));
        assert!(matches!(proof(&Wake::Deadline, ""), Proof::Fails(_)));
        assert!(matches!(proof(&Wake::Deadline, "Linux version 6"), Proof::Passing(_)));
    }

    #[test]
    fn tcg_needs_no_proof() {
        let nowhere = Path::new("/nonexistent");
        let chosen = AccelChoice::Tcg.choose(nowhere, nowhere, nowhere, &Stop::new()).unwrap();
        assert_eq!(chosen.accel, Accel::Tcg);
    }
}
