//! Small package archives of local files, asked through the real apt.

use std::process::Command;

use super::*;

const PINNED: &str = "6.12.1-1";

fn source(folder: &Path, content: &str) -> Source {
    let pinned = folder.join("pinned");
    fs::write(&pinned, content).unwrap();
    Source {
        name: "small".into(),
        package: "linux-source-small".into(),
        version: PINNED.into(),
        archive: "/usr/src/linux-source-small.tar.xz".into(),
        sha256: checksum(&pinned).unwrap(),
        patches: Vec::new(),
        uninstrumented: Vec::new(),
    }
}

/// A package archive in `folder` that has these versions, each with its content. Returns apt's
/// options for it.
fn archive(folder: &Path, versions: &[(&str, &str)]) -> Vec<OsString> {
    let repository = folder.join("repository");
    let _ = fs::remove_dir_all(&repository);
    fs::create_dir(&repository).unwrap();
    let mut packages = String::new();
    for (version, content) in versions {
        let tree = folder.join(format!("tree-{version}"));
        fs::create_dir_all(tree.join("usr/src")).unwrap();
        fs::create_dir_all(tree.join("DEBIAN")).unwrap();
        let control = format!(
            "Package: linux-source-small\nVersion: {version}\nArchitecture: all\nMaintainer: a test\nDescription: a test\n"
        );
        fs::write(tree.join("usr/src/linux-source-small.tar.xz"), content).unwrap();
        fs::write(tree.join("DEBIAN/control"), &control).unwrap();
        let file = repository.join(format!("{version}.deb"));
        let built = Command::new("dpkg-deb").args(["--root-owner-group", "--build"]).arg(&tree).arg(&file).output();
        assert!(built.unwrap().status.success());
        let (size, sum) = (fs::metadata(&file).unwrap().len(), checksum(&file).unwrap());
        packages += &format!("{control}Filename: ./{version}.deb\nSize: {size}\nSHA256: {sum}\n\n");
    }
    fs::write(repository.join("Packages"), packages).unwrap();
    let list = folder.join("sources.list");
    fs::write(&list, format!("deb [trusted=yes] file:{} ./\n", repository.display())).unwrap();
    let options = [
        format!("Dir::Etc::SourceList={}", list.display()),
        "Dir::Etc::SourceParts=-".to_owned(),
        format!("Dir::State::lists={}", folder.join("no-lists").display()),
        "Dir::Cache::pkgcache=".to_owned(),
        "Dir::Cache::srcpkgcache=".to_owned(),
    ];
    options.iter().flat_map(|option| ["-o".into(), option.into()]).collect()
}

fn obtained(source: &Source, cache: &Path, options: Vec<OsString>) -> (Result<Archive, KernelError>, Vec<Progress>) {
    let mut said = Vec::new();
    let result = obtain_with(source, cache, options, &Stop::new(), &mut |progress| said.push(progress));
    (result, said)
}

#[test]
fn an_installed_archive_is_used_where_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let mut source = source(folder.path(), "pinned");
    source.archive = folder.path().join("pinned");
    let (archive, _) = obtained(&source, folder.path(), Vec::new());
    assert_eq!(
        archive.unwrap(),
        Archive { path: source.archive.clone(), version: PINNED.into(), sha256: source.sha256.clone() }
    );
    assert!(!is_kept(&folder.path().join("sources/linux-source-small_6.12.1-1"), &source), "it is not copied");
}

#[test]
fn the_version_that_is_asked_for_is_fetched_once_and_checked() {
    if !Apt::is_installed() {
        return without_apt();
    }
    let folder = tempfile::tempdir().unwrap();
    let source = source(folder.path(), "pinned");
    let options = || archive(folder.path(), &[(PINNED, "pinned"), ("6.12.2-1", "newer")]);
    let (archive, _) = obtained(&source, folder.path(), options());
    let archive = archive.unwrap();
    assert_eq!((archive.version.as_str(), &archive.sha256), (PINNED, &source.sha256));
    assert_eq!(fs::read_to_string(&archive.path).unwrap(), "pinned");
    assert_eq!(obtained(&source, folder.path(), Vec::new()).0.unwrap(), archive, "the second time without apt");
    assert_eq!(substitute(&source, folder.path()), None);

    fs::write(&archive.path, "damaged").unwrap();
    assert_eq!(obtained(&source, folder.path(), options()).0.unwrap(), archive, "it is fetched again");
    fs::write(&archive.path, "damaged").unwrap();
    let other = Source { sha256: "0".repeat(64), ..source };
    let (refused, _) = obtained(&other, folder.path(), options());
    let refused = refused.unwrap_err().to_string();
    assert!(refused.starts_with("the archive in linux-source-small 6.12.1-1 has SHA-256"), "{refused}");
}

#[test]
fn the_newest_version_stands_in_for_one_that_is_gone() {
    if !Apt::is_installed() {
        return without_apt();
    }
    let folder = tempfile::tempdir().unwrap();
    let source = source(folder.path(), "pinned");
    let options = archive(folder.path(), &[("6.12.10-1", "newest"), ("6.12.9-1", "newer")]);
    let (archive, said) = obtained(&source, folder.path(), options);
    let archive = archive.unwrap();
    assert_eq!(archive.version, "6.12.10-1");
    assert_eq!(archive.sha256, checksum(&archive.path).unwrap());
    let line = said.last().unwrap().to_string();
    let expected = "linux-source-small 6.12.1-1 is no longer in the package archive: building from 6.12.10-1";
    assert_eq!(line, expected);
    assert_eq!(substitute(&source, folder.path()), Some(archive.clone()));
    assert_eq!(obtained(&source, folder.path(), Vec::new()).0.unwrap(), archive, "the second time without apt");

    let later = Source { version: "6.12.11-1".into(), ..source };
    assert_eq!(substitute(&later, folder.path()), None, "it does not stand in for another version");
}

#[test]
fn a_package_that_nobody_has_is_an_error_with_the_way_out() {
    if !Apt::is_installed() {
        return without_apt();
    }
    let folder = tempfile::tempdir().unwrap();
    let (archive, _) = obtained(&source(folder.path(), "pinned"), folder.path(), archive(folder.path(), &[]));
    let expected = "no kernel source, the package archive has no version of it: put the archive of Debian's \
                    linux-source-small 6.12.1-1 at /usr/src/linux-source-small.tar.xz";
    assert_eq!(archive.unwrap_err().to_string(), expected);
    let left = fs::read_dir(folder.path().join("sources")).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(left.into_iter().all(|name| !name.to_string_lossy().starts_with(FETCH_LEFTOVER)));
}

#[test]
fn no_version_stands_in_while_a_list_cannot_be_reached() {
    if !Apt::is_installed() {
        return without_apt();
    }
    let folder = tempfile::tempdir().unwrap();
    let source = source(folder.path(), "pinned");
    let half = |versions: &[(&str, &str)]| {
        let mut options = archive(folder.path(), versions);
        let list = folder.path().join("sources.list");
        let reached = fs::read_to_string(&list).unwrap();
        // Nobody listens at port 1.
        fs::write(&list, reached + "deb [trusted=yes] http://127.0.0.1:1/ ./\n").unwrap();
        for option in ["Acquire::http::Proxy::127.0.0.1=DIRECT", "Acquire::Retries=0"] {
            options.extend(["-o".into(), option.into()]);
        }
        options
    };
    let (refused, _) = obtained(&source, folder.path(), half(&[("6.12.2-1", "newer")]));
    let refused = refused.unwrap_err().to_string();
    assert!(refused.starts_with("fetching package lists failed"), "{refused}");
    let (archive, _) = obtained(&source, folder.path(), half(&[(PINNED, "pinned")]));
    assert_eq!(archive.unwrap().version, PINNED, "one that is in a list that is there is fetched");
}

#[test]
fn the_first_of_several_failures_is_told() {
    if !Apt::is_installed() {
        return without_apt();
    }
    let folder = tempfile::tempdir().unwrap();
    let options = archive(folder.path(), &[(PINNED, "pinned")]);
    // These stand for the machine's own lists.
    fs::create_dir_all(folder.path().join("no-lists/partial")).unwrap();
    let mut update = Command::new("apt-get");
    update.args(&options).args(["-o", "APT::Sandbox::User=root", "update"]);
    assert!(update.output().unwrap().status.success());
    fs::remove_dir_all(folder.path().join("repository")).unwrap();
    let (failed, _) = obtained(&source(folder.path(), "pinned"), folder.path(), options);
    let failed = failed.unwrap_err().to_string();
    assert!(failed.starts_with("downloading the source failed"), "{failed}");
}

/// Checks that the error says so where there is no apt.
fn without_apt() {
    let folder = tempfile::tempdir().unwrap();
    let (archive, _) = obtained(&source(folder.path(), "pinned"), folder.path(), Vec::new());
    assert!(archive.unwrap_err().to_string().starts_with("no kernel source, this machine has no apt"));
}
