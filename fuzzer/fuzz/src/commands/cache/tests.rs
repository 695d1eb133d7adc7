//! A cache with something of every kind, and what of it stays.

use super::*;

fn write(cache: &Path, path: &str, content: &str) -> PathBuf {
    let path = cache.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, content).unwrap();
    path
}

/// A cache with something of every kind, and what is named of it.
fn full() -> (tempfile::TempDir, Named) {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path();
    let kernel = |id: &str| {
        format!(
            r#"{{"name":"k","release":"6","build_id":"{id}","key":"","compiler":"","source":"","objects":1,"seconds":1}}"#
        )
    };
    let template = |id: &str| format!(r#"{{"about":{{"hello":{{"kernel_build_id":"{id}"}}}}}}"#);
    write(cache, "kernels/new-11/meta.json", &kernel("aa"));
    write(cache, "kernels/old-22/meta.json", &kernel("bb"));
    write(cache, "kernels/new-11.log", "");
    write(cache, "kernels/.build-old-33-4/source/Makefile", "");
    write(cache, "templates/01/meta.json", &template("aa"));
    write(cache, "templates/02/meta.json", &template("bb"));
    write(cache, "templates/.03/memory", "");
    write(cache, "images/aa.raw", "");
    write(cache, "images/bb.7.tmp", "");
    write(cache, "sources/linux-source-6.12_6.12.1-1/linux.tar.xz", "");
    write(cache, "sources/.fetch-linux-source-6.12-9/lists/one", "");
    write(cache, "ccache/0/1", "");
    write(cache, "bpf-linker-1/bin/bpf-linker", "");
    write(cache, "kvm.json", "");
    let kernels = BTreeSet::from([cache.join("kernels/new-11")]);
    let named = Named { kernels, build_ids: BTreeSet::from(["aa".to_owned()]), sources: Vec::new() };
    (folder, named)
}

fn states(items: &[Item], state: State) -> Vec<&str> {
    items
        .iter()
        .filter(|item| item.state == state)
        .map(|item| item.path.file_name().unwrap().to_str().unwrap())
        .collect()
}

fn left(folder: &Path, named: &Named, options: &PruneOptions) -> Vec<String> {
    prune(&items(folder, named), options, &mut Vec::new()).unwrap();
    let left = items(folder, named);
    left.iter().map(|item| item.path.file_name().unwrap().to_string_lossy().into_owned()).collect()
}

#[test]
fn what_kernels_toml_does_not_name_and_what_was_killed_goes() {
    let (folder, named) = full();
    let items = items(folder.path(), &named);
    assert_eq!(states(&items, State::Useful), ["new-11", "01", "aa.raw", "ccache", "bpf-linker-1"]);
    assert_eq!(states(&items, State::Unnamed), ["old-22", "02", "linux-source-6.12_6.12.1-1"]);
    let killed = ["bb.7.tmp", ".build-old-33-4", ".fetch-linux-source-6.12-9", ".03"];
    assert_eq!(states(&items, State::Killed), killed);
    let dry = PruneOptions { dry_run: true, ..PruneOptions::default() };
    assert_eq!(left(folder.path(), &named, &dry).len(), items.len());
    let useful = left(folder.path(), &named, &PruneOptions::default());
    assert_eq!(useful, ["new-11", "01", "aa.raw", "ccache", "bpf-linker-1"]);
    let all = PruneOptions { all: true, keep: vec![Kind::Tool, Kind::Ccache], ..PruneOptions::default() };
    assert_eq!(left(folder.path(), &named, &all), ["ccache", "bpf-linker-1"]);
}

#[test]
fn what_is_in_use_stays() {
    let (folder, named) = full();
    let _build = cache::lock(&folder.path().join("kernels/old-33.lock"), || {}).unwrap();
    let _fetch = cache::lock(&folder.path().join("sources/linux-source-6.12.lock"), || {}).unwrap();
    let _guest = fs::File::open(folder.path().join("templates/02/meta.json")).unwrap();
    let items = items(folder.path(), &named);
    let used = [
        "old-22",
        "02",
        "aa.raw",
        "linux-source-6.12_6.12.1-1",
        "ccache",
        "bpf-linker-1",
        ".build-old-33-4",
        ".fetch-linux-source-6.12-9",
    ];
    assert_eq!(states(&items, State::Used), used, "all that a guest and a build need too");
    let left = left(folder.path(), &named, &PruneOptions { all: true, ..PruneOptions::default() });
    assert_eq!(left, used);
}

#[test]
fn a_lock_file_goes_with_its_template_unless_somebody_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let templates = folder.path().join("templates");
    for lock in ["there.lock", "made.lock", "gone.lock", "held.lock"] {
        write(&templates, lock, "");
    }
    write(&templates, "there/meta.json", "");
    write(&templates, ".made/memory", "");
    let _held = cache::lock(&templates.join("held.lock"), || {}).unwrap();
    remove_locks(&templates).unwrap();
    let mut left: Vec<_> = entries(&templates).map(|(name, _)| name).filter(|name| name.ends_with(".lock")).collect();
    left.sort();
    assert_eq!(left, ["held.lock", "made.lock", "there.lock"]);
    remove_locks(&folder.path().join("no-templates")).unwrap();
}

#[test]
fn a_setup_that_unpacks_qemu_is_not_disturbed() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), ".qemu-7/tree/usr/bin/qemu-system-x86_64", "");
    let setup = cache::lock(&folder.path().join("setup.lock"), || {}).unwrap();
    let all = PruneOptions { all: true, ..PruneOptions::default() };
    assert_eq!(left(folder.path(), &Named::default(), &all), [".qemu-7"]);
    drop(setup);
    assert!(left(folder.path(), &Named::default(), &PruneOptions::default()).is_empty());
}

#[test]
fn one_that_cannot_be_removed_does_not_save_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "file", "");
    let of = |path| Item { kind: Kind::Leftover, path, bytes: 1, state: State::Killed, lock: None };
    // No file is below a file; one that somebody else has removed is no failure.
    let (below, gone) = (file.join("below"), folder.path().join("gone"));
    let items = [of(below.clone()), of(gone), of(file.join("second")), of(file.clone())];
    let error = prune(&items, &PruneOptions::default(), &mut Vec::new()).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot remove {} and 1 more in the cache", below.display()));
    assert_eq!(error.status(), 3);
    assert!(!file.exists());
}

#[test]
fn sizes_are_those_on_disk_and_told_for_people() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "memory", "");
    fs::File::options().write(true).open(path).unwrap().set_len(1 << 30).unwrap();
    assert!(size(folder.path()) < 1 << 20, "holes take no space");
    assert_eq!(Size(3 << 19).to_string(), "1.5 MiB");
    assert_eq!(Size(5 << 29).to_string(), "2.5 GiB");
}
