//! Functions that are not on the kernel's list of those that may fail, and the source of coverage.

use std::{collections::BTreeSet, fs, path::Path};

use execution::{Execution, How, RunError, Stop};
use fault_plan::{Errno, ErrorType, Fault, InjectableFunction, InjectedError};
use guest_protocol::StepResult;
use guests::{
    prepare::{Wanted, prepare},
    progress::Silent,
    project::Project,
};
use kcov_parser::{CallSites, Place, Symbols};
use strum::VariantArray;
use tempfile::TempDir;

use crate::common::{Guests, KERNEL, LEAN, fails, guests, guests_on, plan};

const CHARGE: &str = "selftest_account_charge";

/// A target that pulls the trigger whose bug only [`CHARGE`]'s failure reaches, with further
/// functions: name and type.
fn target(functions: &[(&str, &str, &str)]) -> TempDir {
    let mut text = format!(
        "description = \"a test\"\nkernel = \"{KERNEL}\"\nsteps = [{{ trigger = {{ name = \"off_list\" }} }}]\n"
    );
    for (name, error_type, error) in functions {
        text.push_str(&format!("[[functions]]\nname = \"{name}\"\ntype = \"{error_type}\"\nerrors = [\"{error}\"]\n"));
    }
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("target.toml"), text).unwrap();
    folder
}

fn edquot() -> InjectedError {
    InjectedError::Errno(Errno::from_name("EDQUOT").unwrap())
}

fn why_not_prepared(folder: &Path) -> String {
    let Err(error) = prepare(&Wanted::new(folder.to_str().unwrap()), &Stop::new(), &Silent) else {
        panic!("it is prepared")
    };
    execution::chain(&error)
}

#[test]
fn a_function_off_the_list_fails_and_shows_a_bug_that_nothing_else_reaches() {
    let folder = target(&[(CHARGE, "ERRNO", "EDQUOT")]);
    for kernel in [KERNEL, LEAN] {
        let mut guest = guests_on(kernel, folder.path().to_str().unwrap());
        let about = guest.prepared.template().about();
        assert!(about.hello.injectable.iter().all(|listed| listed.name != CHARGE), "{kernel}: it is on the list");
        let expected = InjectableFunction { name: CHARGE.to_owned(), error_type: ErrorType::Errno };
        assert_eq!((&about.ready.functions, &about.ready.left_out), (&vec![expected], &Vec::new()), "{kernel}");
        let clean = guest.run(&plan(&[]));
        assert_eq!((&clean.steps, clean.findings.len()), (&vec![StepResult::Done(1)], 0), "{kernel}");
        let failed = guest.run_fresh(&plan(&[fails(CHARGE, &["selftest_off_list"], edquot())]));
        assert_eq!(failed.fired.len(), 1, "{kernel}");
        let [finding, ..] = failed.findings.as_slice() else { panic!("{kernel}: no finding") };
        assert!(finding.is_report(), "{kernel}: {finding:?}");
        if kernel == KERNEL {
            assert_eq!(finding.title, "KASAN: slab-use-after-free Read in selftest_account_free");
        }
    }
}

#[test]
fn a_function_that_a_kernel_cannot_fail_is_left_out_and_named_with_the_reason() {
    let others = [
        (CHARGE, "ERRNO", "EDQUOT"),
        ("btrfs_sb", "NULL", "NULL"),
        ("__sanitizer_cov_trace_pc", "NULL", "NULL"),
        ("btrfs_check_leaf", "NULL", "NULL"),
    ];
    let folder = target(&others);
    let mut guest = guests(folder.path());
    let ready = guest.prepared.template().about().ready.clone();
    assert_eq!(ready.functions.iter().map(|function| function.name.as_str()).collect::<Vec<_>>(), [CHARGE]);
    for (name, reason) in [
        ("btrfs_sb", "inlined wherever it is called"),
        ("__sanitizer_cov_trace_pc", "its calls cannot be traced"),
        ("btrfs_check_leaf", "lists it with the type ERRNO"),
    ] {
        let left_out = ready.left_out.iter().find(|left_out| left_out.function == name).unwrap();
        assert!(left_out.reason.contains(reason), "{left_out:?}");
    }
    let ran = guest.ran(&plan(&[fails("btrfs_sb", &["btrfs_statfs"], InjectedError::Null)]), How::Warm);
    let Err(RunError::Refused(reason)) = ran.execution else { panic!("not refused") };
    assert!(reason.contains("\"btrfs_sb\" may not fail"), "{reason}");
    let reason = why_not_prepared(target(&others[1..]).path());
    assert!(reason.contains("no function of the target can be made to fail on this kernel: "), "{reason}");
    assert!(reason.contains("btrfs_sb: inlined") && reason.contains("btrfs_check_leaf: "), "{reason}");
}

/// Functions of each type that are off the list, the error, a caller, and the result of the step
/// that then fails, by its number from 1.
const TYPES: &[(ErrorType, &str, &str, &str, usize, &str)] = &[
    (ErrorType::Errno, "btrfs_create_new_inode", "EDQUOT", "btrfs_create_common", 2, "EDQUOT"),
    // As a pointer, and the null pointer: such a name there is none.
    (ErrorType::ErrnoNull, "btrfs_lookup_dir_item", "EIO", "btrfs_lookup", 5, "EIO"),
    (ErrorType::ErrnoNull, "btrfs_lookup_dir_item", "NULL", "btrfs_lookup", 5, "ENOENT"),
    (ErrorType::Null, "__kvmalloc_node_noprof", "NULL", "btrfs_get_tree", 1, "ENOMEM"),
    // The checksum is wrong.
    (ErrorType::True, "btrfs_check_super_csum", "true", "open_ctree", 1, "EINVAL"),
];

#[test]
fn a_function_of_each_type_returns_what_its_callers_take_for_an_error() {
    let (mut functions, mut seen) = (String::new(), BTreeSet::new());
    for (error_type, function, error, ..) in TYPES {
        if seen.insert(function) {
            let errors =
                if *error_type == ErrorType::ErrnoNull { "\"EIO\", \"NULL\"".to_owned() } else { format!("{error:?}") };
            functions.push_str(&format!("{{ name = {function:?}, type = \"{error_type}\", errors = [{errors}] }}, "));
        }
    }
    for error_type in ErrorType::VARIANTS {
        assert!(TYPES.iter().any(|row| row.0 == *error_type), "{error_type} is tried");
    }
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "description = \"a test\"\nkernel = \"{KERNEL}\"\nfunctions = [{functions}]\nsteps = [\n\
         {{ mount = {{ fstype = \"btrfs\" }} }},\n{{ create = {{ path = \"file\" }} }},\n{{ umount = {{}} }},\n\
         {{ mount = {{ fstype = \"btrfs\" }} }},\n{{ read = {{ path = \"file\" }} }},\n{{ umount = {{}} }},\n]\n\
         [image]\nmkfs = [\"mkfs.btrfs\", \"-q\"]\nsize_mib = 128\n"
    );
    fs::write(folder.path().join("target.toml"), text).unwrap();
    for kernel in [KERNEL, LEAN] {
        let mut guest = guests_on(kernel, folder.path().to_str().unwrap());
        let ready = &guest.prepared.template().about().ready;
        assert_eq!((ready.functions.len(), &ready.left_out), (seen.len(), &Vec::new()), "{kernel}");
        for (_, function, error, caller, step, result) in TYPES {
            let error = InjectedError::from_name(error).unwrap();
            let fault = Fault { step: u32::try_from(*step).ok(), ..fails(function, &["...", caller], error) };
            let failed = guest.run(&plan(&[fault]));
            assert_eq!(failed.fired.len(), 1, "{kernel}: {function}: {:?}", failed.steps);
            let expected = StepResult::Failed(Errno::from_name(result).unwrap().number().into());
            assert_eq!(failed.steps[step - 1], expected, "{kernel}: {function}: {error}");
            assert!(failed.findings.is_empty(), "{kernel}: {function}: {:?}", failed.findings);
        }
        assert_eq!(guest.usage().guests, 1, "{kernel}: nothing here costs a guest");
    }
}

/// Where in the source the function `name` was covered.
fn covered<'places>(
    guest: &Guests,
    execution: &Execution,
    places: &'places kcov_parser::Places,
    name: &str,
) -> Vec<Place<'places>> {
    let elf = fs::read(&guest.prepared.kernel.vmlinux).unwrap();
    let (symbols, sites) = (Symbols::from_elf(&elf).unwrap(), CallSites::from_elf(&elf).unwrap());
    assert_eq!(places.len(), sites.len());
    let is_in = |pc: &u64| symbols.resolve(*pc - 1).is_some_and(|found| found.function == name);
    let covered = execution.covered().map(|(_, pc)| pc).filter(is_in);
    let indices = covered.map(|pc| sites.index_of(pc).unwrap());
    indices.map(|index| places.get(index).unwrap()).collect()
}

#[test]
fn coverage_is_known_by_its_place_in_the_source() {
    let folder = target(&[(CHARGE, "ERRNO", "EDQUOT")]);
    let mut guest = guests(folder.path());
    let execution = guest.run(&plan(&[]));
    let places = guest.prepared.kernel.places().unwrap();
    let source = fs::read_to_string(Project::find().unwrap().root().join("kernels/selftest/bugs.c")).unwrap();
    let charged = covered(&guest, &execution, &places, CHARGE);
    assert!(!charged.is_empty());
    let start = source.lines().position(|line| line.contains(&format!("{CHARGE}(struct"))).unwrap();
    for place in charged {
        assert_eq!((place.unit, place.file), ("drivers/fuzz_selftest/bugs.c", "drivers/fuzz_selftest/bugs.c"));
        assert!((start..start + 12).contains(&(place.line as usize)), "{place:?}, and it begins in line {start}");
    }
    let covered: BTreeSet<_> = execution.covered().map(|(_, pc)| pc).collect();
    let counts = guest.prepared.kernel.count_by_folder(covered.iter().copied()).unwrap();
    assert!(counts["drivers/fuzz_selftest"] > 5 && counts["fs"] > 5, "{counts:?}");
    assert_eq!(counts.values().sum::<u64>(), covered.len() as u64);
}
