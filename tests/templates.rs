//! Prepared guests in the cache.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use execution::Stop;
use guest_protocol::Setup;
use guests::{
    prepare::bare_guest,
    project::Project,
    qemu::{Accel, GuestConfig, Template},
};
use nix::{
    sys::signal::{Signal, kill as kill_process},
    unistd::Pid,
};

use crate::common;

fn template(config: &GuestConfig, cache: &Path) -> (Template, bool) {
    template_of(config, &Setup::default(), cache)
}

/// Gives the template for a target, and whether it was made now.
fn template_of(config: &GuestConfig, setup: &Setup, cache: &Path) -> (Template, bool) {
    let mut made = false;
    let template = Template::cached(config.clone(), setup, cache, &Stop::new(), &mut || made = true).unwrap();
    (template, made)
}

/// Kills the QEMU with this word on its command line as soon as there is one. Gives its number.
fn kill(word: &str) -> i32 {
    loop {
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let is_guest = |line: String| line.contains("qemu") && line.contains(word);
            let number = entry.file_name().to_string_lossy().parse::<i32>();
            if let Ok(number) = number
                && fs::read_to_string(entry.path().join("cmdline")).is_ok_and(is_guest)
            {
                kill_process(Pid::from_raw(number), Signal::SIGKILL).unwrap();
                return number;
            }
        }
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_guest_is_booted_once_and_again_when_the_saved_one_is_damaged_or_outdated() {
    let cache = tempfile::tempdir().unwrap();
    let config = bare_guest(&Project::find().unwrap(), &common::kernel()).unwrap();
    let config = GuestConfig { accel: Accel::Tcg, ..config };
    let (first, booted) = template(&config, cache.path());
    assert!(booted);
    let started = Instant::now();
    let (second, booted) = template(&config, cache.path());
    assert!(!booted, "the first one was not found");
    assert_eq!(second.about(), first.about());
    assert!(started.elapsed() < first.about().boot_time, "finding it takes longer than booting");

    // A guest that is only booted, and the one that was prepared of it.
    let folders = || fs::read_dir(cache.path().join("templates")).unwrap().flatten().map(|entry| entry.path());
    let folders = || folders().filter(|path| path.is_dir());
    assert_eq!(folders().count(), 2);
    let setup = Setup { awake: true, ..Setup::default() };
    let (third, _) = template_of(&config, &setup, cache.path());
    assert_eq!((folders().count(), third.about().boot_time), (3, first.about().boot_time), "it was not booted again");
    for folder in folders() {
        File::options().write(true).open(folder.join("memory")).unwrap().write_all_at(b"damage", 300 << 20).unwrap();
    }
    let (second, made) = template(&config, cache.path());
    assert!(made && second.about().boot_time != first.about().boot_time, "damage was not seen");
    assert!(!template(&config, cache.path()).1, "it was not made anew");

    // Its first QEMU is killed while it boots.
    let other = GuestConfig { kernel_options: "quiet the_one_to_kill".to_owned(), ..config };
    let killer = thread::spawn(|| kill("the_one_to_kill"));
    assert!(template(&other, cache.path()).1, "a template for another command line was taken");
    assert!(killer.join().unwrap() > 0);
    assert_eq!(folders().count(), 5);
}
