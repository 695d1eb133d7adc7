use std::path::PathBuf;

use fault_plan::{CallPath, CallerCondition, Errno, FOR_EVER, Fault, FaultPlan};

use super::*;
use crate::target::Target;

const GOOD: &str = r#"
[[functions]]
name = "f"
errors = ["EIO"]
source = "f.c, f(), 6.12"
never = [{ argument = 1, value = 0 }]
"#;

fn load(files: &[(&str, &str)]) -> Result<FunctionGroups, String> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    FunctionGroups::load(folder.path()).map_err(|error| error.to_string())
}

#[test]
fn a_group_is_a_file() {
    let groups = load(&[("one.toml", GOOD), ("two.toml", &GOOD.replace("\"f\"", "\"g\"")), ("readme", "?")]).unwrap();
    assert_eq!(groups.names().collect::<Vec<_>>(), ["one", "two"]);
    assert_eq!(groups.group("two").unwrap()[0].name, "g");
    assert_eq!(groups.group("one").unwrap()[0].never.len(), 1);
    assert!(groups.group("three").is_none());
}

#[test]
fn what_is_wrong_is_refused_with_the_line() {
    let typed = |kind: &str| load(&[("a.toml", &GOOD.replace("errors", &format!("type = {kind}\nerrors")))]);
    assert_eq!(typed("'ERRNO_NULL'").unwrap().group("a").unwrap()[0].error_type, Some(ErrorType::ErrnoNull));
    assert!(typed("'TRUE'").unwrap_err().ends_with("a.toml:2: \"f\" is of type TRUE and cannot return EIO"));
    assert!(typed("'BOOL'").unwrap_err().contains("unknown variant `BOOL`"));
    let refused = |from: &str, to: &str| load(&[("a.toml", &GOOD.replace(from, to))]).unwrap_err();
    assert!(refused("f.c, f(), 6.12", " ").ends_with("a.toml:2: \"f\" has no source"));
    assert!(refused("[\"EIO\"]", "[]").ends_with("a.toml:2: \"f\" has no errors to return"));
    assert!(refused("argument = 1", "argument = 9").contains("a.toml:6: there is no argument 9"));
    let five = format!("[{}]", "{ argument = 1, value = 0 },".repeat(5));
    assert!(refused("[{ argument = 1, value = 0 }]", &five).contains("under 5 conditions, possible are 4"));
    let many = format!("[{{ caller = [{}] }}]", "'g', ".repeat(13));
    assert!(refused("[{ argument = 1, value = 0 }]", &many).contains("below 13 callers, possible are 12"));
    let twice = load(&[("a.toml", &GOOD.repeat(2))]).unwrap_err();
    assert!(twice.ends_with("a.toml:8: \"f\" is there twice"), "{twice}");
    let shared = load(&[("a.toml", GOOD), ("b.toml", GOOD)]).unwrap_err();
    assert!(shared.ends_with("b.toml:2: \"f\" is in the group \"a\" already"), "{shared}");
    assert!(FunctionGroups::load(Path::new("/no/such/folder")).is_err());
}

const TARGET: &str = "description = 'one'\nkernel = 'k'\nsteps = [{ sync = {} }]\n";
const BY_NAME: &str = "description = 'one'\nkernel = 'k'\nsteps = [{ sync = {} }]\n\
    [[functions]]\nname = 'should_failslab'\nerrors = ['ENOMEM']\n";

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../corpus")
}

fn groups() -> FunctionGroups {
    FunctionGroups::load(&corpus().join("functions")).unwrap()
}

fn target(text: &str) -> Result<Target, String> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("target.toml"), text).unwrap();
    Target::load(folder.path(), &groups()).map_err(|error| error.to_string())
}

#[test]
fn functions_come_by_group_or_by_name() {
    let with = |functions: &str| {
        let text = format!("{TARGET}{functions}\n");
        target(&text)
    };
    let names = |target: &Target| target.functions.iter().map(|known| known.name.clone()).collect::<Vec<_>>();
    let mixed = with(r#"functions = ["block", { name = "f", errors = ["EIO"] }, "filemap"]"#).unwrap();
    assert_eq!(names(&mixed), ["should_fail_bio", "f", "__filemap_add_folio"]);
    assert!(mixed.functions[1].never.is_empty());
    assert_eq!(names(&with(r#"functions = "block""#).unwrap()), ["should_fail_bio"]);
    let alone = with(r#"functions = "blocks""#).unwrap_err();
    assert!(alone.contains("target.toml:4: no group of functions is called \"blocks\""), "{alone}");
    let unknown = with(r#"functions = ["memory", "blocks"]"#).unwrap_err();
    let known = "target.toml:4: no group of functions is called \"blocks\": there are block, block-layer, btrfs";
    assert!(unknown.contains(known), "{unknown}");
    for (functions, reason) in [
        (r#"["memory", "memory"]"#, "target.toml:4: \"should_failslab\" is there twice"),
        (r#"["block", { name = "should_fail_bio", errors = ["EIO"] }]"#, "\"should_fail_bio\" is there twice"),
        (r#"["block", { name = "f", error = ["EIO"] }]"#, "target.toml:4: unknown field `error`"),
        (r#"["block", 1]"#, "the name of a group of functions, or a table"),
        ("1", "the name of a group of functions, or a list"),
        (
            r#"[{ name = "f", type = "NULL", errors = ["NULL", "EIO"] }]"#,
            "target.toml:4: \"f\" is of type NULL and cannot return EIO",
        ),
        ("[]", "0 functions, possible are 1 to 512"),
    ] {
        let refusal = with(&format!("functions = {functions}")).unwrap_err();
        assert!(refusal.contains(reason), "{functions}: {refusal}");
    }
}

#[test]
fn what_the_kernel_promises_of_a_function_holds_however_it_is_named() {
    let by_name = target(BY_NAME).unwrap();
    assert_eq!(by_name.functions[0].never, groups().group("memory").unwrap()[0].never);
    let (by_argument, by_caller): (Vec<_>, Vec<_>) =
        by_name.functions[0].never.iter().partition(|condition| matches!(condition, Condition::Argument(_)));
    assert_eq!(by_argument.len(), 2, "no allocation that must not fail, no bootstrap cache");
    let callers = |names: &[&str], optional| {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        Condition::Caller(CallerCondition { names, optional })
    };
    let disk = callers(&["brd_submit_bio", "virtio_queue_rq", "virtio_queue_rqs"], false);
    let kasan = callers(&["stack_depot_save_flags", "__stack_depot_save"], true);
    let account = callers(&["alloc_slab_obj_exts"], true);
    let kmemleak = callers(&["__alloc_object", "create_object", "kmemleak_scan_area"], true);
    assert_eq!(by_caller, [&disk, &kasan, &account, &kmemleak], "no disk under test, and no memory of the detectors");
    assert_eq!(by_name.setup().functions[0].never, by_name.functions[0].never);
    let more = target(&format!("{BY_NAME}never = [{{ argument = 2, value = 7 }}]")).unwrap();
    assert_eq!(more.functions[0].never.len(), 7, "a target may add to it");
}

#[test]
fn a_function_off_the_list_has_its_type_however_it_is_named() {
    let groups = load(&[("a.toml", &GOOD.replace("errors", "type = 'ERRNO'\nerrors"))]).unwrap();
    let with = |entry: &str| {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("target.toml"), format!("{TARGET}functions = [{{ {entry} }}]\n")).unwrap();
        let target = Target::load(folder.path(), &groups).map_err(|error| error.to_string())?;
        Ok::<_, String>((target.setup().functions[0].error_type, target.definition()["functions"][0]["type"].clone()))
    };
    let named = with("name = 'f', errors = ['EIO']").unwrap();
    assert_eq!(named, (Some(ErrorType::Errno), "ERRNO".into()));
    let other = with("name = 'g', errors = ['EIO']").unwrap();
    assert_eq!(other, (None, serde_json::Value::Null));
    let contradicts = with("name = 'f', type = 'ERRNO_NULL', errors = ['EIO']").unwrap_err();
    assert!(contradicts.ends_with("\"f\" is of type ERRNO in the group \"a\", and not ERRNO_NULL"), "{contradicts}");
}

#[test]
fn every_file_system_has_functions_that_are_on_no_list() {
    let groups = groups();
    let off_list = |name: &str| groups.group(name).unwrap().iter().filter(|known| known.error_type.is_some()).count();
    for (name, least) in [("btrfs", 60), ("ext4", 40), ("xfs", 40), ("vfs", 20), ("jbd2", 10)] {
        assert!(off_list(name) >= least, "{name}: {}", off_list(name));
    }
    assert!(["vfs", "block-layer", "jbd2"].map(off_list).iter().sum::<usize>() >= 40);
}

#[test]
fn the_targets_of_the_corpus_have_their_functions() {
    let memory = ["should_failslab ENOMEM", "should_fail_alloc_page true"];
    let btrfs = [
        "should_fail_bio EIO",
        "__filemap_add_folio ENOMEM",
        "btrfs_search_slot EIO ENOMEM",
        "btrfs_cow_block ENOMEM EIO ENOSPC",
        "btrfs_check_leaf EUCLEAN",
        "btrfs_check_node EUCLEAN",
        "io_ctl_init ENOMEM",
    ];
    let all = [&memory[..], &btrfs].concat();
    let without_btrfs = &all[..4];
    let families = [("btrfs-", &all[..]), ("ext4-", without_btrfs), ("xfs-", without_btrfs), ("selftest", &memory)];
    for target in Target::all(&corpus()).unwrap() {
        let name = &target.name;
        let (_, expected) = families.iter().find(|(family, _)| name.starts_with(family)).unwrap();
        let function = |function: &TargetFunction| {
            let errors = function.errors.iter().map(|error| format!(" {error}"));
            format!("{}{}", function.name, errors.collect::<String>())
        };
        let first: Vec<_> = target.functions.iter().map(function).take(expected.len()).collect();
        assert_eq!(first, *expected, "{name}");
    }
}

#[test]
fn a_function_that_its_callers_call_until_it_works_fails_only_so_often() {
    let text = format!("{GOOD}times = 3\n");
    let groups = load(&[("a.toml", &text)]).unwrap();
    assert_eq!(groups.group("a").unwrap()[0].times.map(NonZeroU32::get), Some(3));
    assert!(load(&[("a.toml", &text.replace("= 3", "= 0"))]).unwrap_err().contains("nonzero"));
    let functions = r#"functions = [{ name = "f", errors = ["EIO"], times = 3 }, { name = "g", errors = ["EIO"] }]"#;
    let target = target(&format!("{TARGET}{functions}\n")).unwrap();
    let fault = |function: &str, times| Fault {
        times,
        ..Fault::new(function, CallPath::default(), 1, InjectedError::Errno(Errno::EIO))
    };
    let plan =
        FaultPlan { faults: vec![fault("f", 2), fault("f", FOR_EVER), fault("g", FOR_EVER)], ..target.fault_free() };
    let times: Vec<u32> = target.bounded(&plan).faults.iter().map(|fault| fault.times).collect();
    assert_eq!(times, [2, 3, FOR_EVER]);
}
