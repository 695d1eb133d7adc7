//! Tests of targets as a whole.

use super::*;

pub(super) const GOOD: &str = r#"description = "one"
kernel = "k"
steps = [
    { mount = { fstype = "btrfs" } },
    { umount = {} },
]
[image]
mkfs = ["mkfs.btrfs", "-q"]
size_mib = 128
[[functions]]
name = "should_failslab"
errors = ["ENOMEM"]
"#;

fn parse(text: &str) -> Result<Target, String> {
    let file = TextFile { path: "t/target.toml".into(), text: text.to_owned() };
    file::parse("t", Path::new("t"), &file, &FunctionGroups::default(), None).map_err(|error| error.to_string())
}

#[test]
fn a_target_is_read() {
    let target = parse(GOOD).unwrap();
    assert_eq!(target.steps.len(), 2);
    assert_eq!(target.errors("should_failslab").len(), 1);
    assert_eq!(target.setup().disks, ["/dev/ram0"]);
}

#[test]
fn what_is_wrong_is_refused_with_the_line() {
    let refused = |from: &str, to: &str| parse(&GOOD.replace(from, to)).unwrap_err();
    assert!(refused("kernel =", "kernal =").starts_with("t/target.toml:2: unknown field `kernal`"));
    assert!(refused("ENOMEM", "ENOMEMM").starts_with("t/target.toml:12: "));
    assert!(refused("128", "0").starts_with("t/target.toml:7: size_mib is 0"));
    assert!(parse(&GOOD.replace("128", "1024")).is_ok());
    assert!(refused("128", "1025").contains("possible are 1 to 1024"));
    let memory = |mib: u32| GOOD.replace("steps =", &format!("memory_mib = {mib}\nsteps ="));
    assert!(parse(&memory(320)).is_ok());
    assert_eq!(parse(&memory(319)).unwrap_err(), "t/target.toml:3: memory_mib is 319, possible are 320 to 3072");
    let misleading = GOOD.replace("\"one\"", "\"[image]\"").replace("128", "0");
    assert!(parse(&misleading).unwrap_err().starts_with("t/target.toml:7: "));
    assert!(
        refused("{ umount = {} }", "{ mkdir = { path = \"../x\" } }")
            .contains("target.toml:5: step \"mkdir\": \"../x\" is not a plain path")
    );
    assert!(refused("umount = {}", "unmount = {}").contains("target.toml:5: step \"unmount\": unknown variant"));
    assert!(refused("fstype", "fstipe").starts_with("t/target.toml:4: step \"mount\": unknown field"));
    assert_eq!(
        refused("{ umount = {} }", "{ sleep = { ms = 5001 } }"),
        "t/target.toml:5: step \"sleep\": ms is 5001, at most 5000 are possible"
    );
    assert!(refused("errors = [\"ENOMEM\"]", "errors = []").contains("no errors"));
}

#[test]
fn memory_follows_the_disk() {
    let memory = |mib: u32| parse(&GOOD.replace("128", &mib.to_string())).unwrap().memory_mib();
    assert_eq!([1, 128, 320, 1024].map(memory), [512, 512, 736, 1792]);
    for source in [
        ImageSource::Script { name: "make".to_owned(), text: "#!".to_owned() },
        ImageSource::File { name: "disk".to_owned(), sha256: String::new(), path: None },
    ] {
        let with = |size_mib| {
            Some(ImageRecipe { size_mib, disks: 1, kind: DiskKind::Memory, steps: Vec::new(), source: source.clone() })
        };
        let memory = |mib| Target { image: with(mib), ..parse(GOOD).unwrap() }.memory_mib();
        assert_eq!([1, 128, 320, 1024].map(memory), [512, 512, 896, 2304], "the agent has a copy");
    }
    let given = GOOD.replace("steps =", "memory_mib = 600\nsteps =");
    assert_eq!(parse(&given).unwrap().memory_mib(), 600);
}

#[test]
fn steps_may_fail_and_a_set_up_comes_before_them() {
    let text = GOOD
        .replace("{ umount = {} }", "{ umount = {}, expect = \"EBUSY\" }")
        .replace("steps = [", "setup = [{ mount = { fstype = \"btrfs\" } }]\nsteps = [");
    let setup = parse(&text).unwrap().setup();
    assert_eq!((setup.setup_steps.len(), setup.steps[1].expect.as_slice()), (1, [16].as_slice()));
    let refused = parse(&text.replace("EBUSY", "BUSY")).unwrap_err();
    assert!(refused.starts_with("t/target.toml:6: step \"umount\": unknown error \"BUSY\""), "{refused}");
    let refused = parse(&text.replace("[image]\nmkfs = [\"mkfs.btrfs\", \"-q\"]\nsize_mib = 128\n", "")).unwrap_err();
    assert!(refused.starts_with("t/target.toml:3: a mount needs an [image]"), "{refused}");
}

#[test]
fn a_variant_is_the_target_with_other_options_image_or_functions() {
    let folder = tempfile::tempdir().unwrap();
    let write = |more: &str| fs::write(folder.path().join("target.toml"), format!("{GOOD}{more}")).unwrap();
    let find = |variant: &str| {
        fs::create_dir_all(folder.path().join("functions")).unwrap();
        let name = format!("{}:{variant}", folder.path().display());
        Target::find(folder.path(), &name).map_err(|error| error.to_string())
    };
    write(
        "[variants.v1]\ndescription = 'old'\noptions = 'space_cache=v1'\nimage = { mkfs = ['mkfs.btrfs'] }\n\
         [variants.io]\noptions = { btrfs = 'ro' }\nfunctions = [{ name = 'should_fail_bio', errors = ['EIO'] }]\n",
    );
    let base = Target::load(folder.path(), &FunctionGroups::default()).unwrap();
    assert_eq!(base.variants, ["io", "v1"]);
    let v1 = find("v1").unwrap();
    assert_eq!((v1.name.as_str(), v1.description.as_str()), (format!("{}:v1", base.name).as_str(), "old"));
    let options = Step::Mount { fstype: "btrfs".into(), options: "space_cache=v1".into(), disk: None };
    assert_eq!(v1.steps[0].step, options);
    assert_eq!(v1.image.as_ref().unwrap().source, ImageSource::Mkfs(vec!["mkfs.btrfs".to_owned()]));
    assert_eq!((v1.seeds(), v1.errors("should_failslab").len()), (folder.path().join("seeds/v1"), 1));
    let io = find("io").unwrap();
    assert_eq!((io.errors("should_failslab").len(), io.errors("should_fail_bio").len()), (0, 1));
    assert!(find("v2").unwrap_err().contains("no variant is called \"v2\": there are io, v1"));
    write("[variants.x]\noptions = { xfs = 'ro' }\n");
    assert!(find("x").unwrap_err().ends_with("target.toml:13: no step mounts what its options are for"));
    write("[variants.'a/b']\n");
    assert!(find("x").unwrap_err().contains("\"a/b\" cannot be a variant's name"));
}

#[test]
fn a_name_with_a_slash_is_a_path() {
    let folder = tempfile::tempdir().unwrap();
    for (name, description) in [("corpus/t/u", "in the corpus"), ("t/u", "elsewhere")] {
        let target = folder.path().join(name);
        fs::create_dir_all(&target).unwrap();
        fs::write(target.join("target.toml"), GOOD.replace("one", description)).unwrap();
    }
    let corpus = folder.path().join("corpus");
    fs::create_dir(corpus.join("t/functions")).unwrap();
    fs::create_dir(corpus.join("functions")).unwrap();
    assert_eq!(Target::find(&corpus.join("t"), "u").unwrap().description, "in the corpus");
    let path = folder.path().join("t/u");
    assert_eq!(Target::find(&corpus, path.to_str().unwrap()).unwrap().description, "elsewhere");
    assert!(matches!(Target::find(&corpus, "t/u"), Err(TargetError::Unknown { .. })));
}

#[test]
fn the_kernel_has_the_last_word() {
    let target = parse(GOOD).unwrap();
    let function = |name: &str, error_type| InjectableFunction { name: name.to_owned(), error_type };
    let errno = fault_plan::ErrorType::Errno;
    let left_out = [LeftOut { function: "should_failslab".to_owned(), reason: "it was inlined".to_owned() }];
    assert!(target.check_against(&[function("should_failslab", errno)], &[]).is_ok());
    assert!(target.check_against(&[function("open_ctree", errno)], &[]).is_err());
    assert!(target.check_against(&[function("open_ctree", errno)], &left_out).is_ok());
    let null = fault_plan::ErrorType::Null;
    assert!(target.check_against(&[function("should_failslab", null)], &[]).unwrap_err().to_string().contains("NULL"));
}

#[test]
fn a_target_says_what_its_disks_are() {
    let disks = |extra: &str| GOOD.replace("size_mib = 128\n", &format!("size_mib = 128\ndisks = 2\n{extra}"));
    let (memory, virtio) = (parse(&disks("")).unwrap(), parse(&disks("disk = \"virtio\"\n")).unwrap());
    assert_eq!(memory.setup().disks, ["/dev/ram0", "/dev/ram1"]);
    assert_eq!(virtio.setup().disks, ["/dev/vdb", "/dev/vdc"]);
    assert!(virtio.memory_mib() < memory.memory_mib(), "the host has them");
    let explicit = parse(&disks("disk = \"memory\"\n")).unwrap();
    assert_eq!(explicit.digest(), memory.digest(), "a definition from before there was a choice");
    let again = Target::from_definition(&virtio.definition()).unwrap();
    assert_eq!((again.setup(), again.digest()), (virtio.setup(), virtio.digest()));
    assert_ne!(virtio.digest(), memory.digest());
    let refused = parse(&disks("disk = \"nvme\"\n")).unwrap_err();
    assert!(refused.contains("unknown variant `nvme`, expected `memory` or `virtio`"), "{refused}");
    let named = disks("disk = \"virtio\"\n").replace("\"btrfs\" }", "\"btrfs\", options = \"ro,device=/dev/ram1\" }");
    let refused = parse(&named).unwrap_err();
    assert!(refused.contains("option \"device=/dev/ram1\": the target's disks are /dev/vdb, /dev/vdc"), "{refused}");
    assert!(parse(&named.replace("ram1", "vdc")).is_ok());
}

#[test]
fn a_target_may_have_several_disks_and_an_image_made_by_steps() {
    let several = GOOD.replace(
        "size_mib = 128\n",
        "size_mib = 128\ndisks = 3\nsteps = [{ mount = { fstype = \"btrfs\" } }, { device-add = { disk = 2 } }, \
         { crash-copy = {} }]\n",
    );
    let target = parse(&several).unwrap();
    let setup = target.setup();
    assert_eq!((setup.disks.len(), setup.image_steps.len(), target.memory_mib()), (3, 3, 704));
    let again = Target::from_definition(&target.definition()).unwrap();
    assert_eq!((again.setup(), again.digest()), (setup, target.digest()));
    assert_ne!(target.digest(), parse(GOOD).unwrap().digest());
    let refused = |from: &str, to: &str| parse(&several.replace(from, to)).unwrap_err();
    assert!(
        refused("disks = 3", "disks = 2").contains("step \"device-add\": there is no disk 2: [image] has disks = 2")
    );
    assert!(refused("{ umount = {} }", "{ crash-copy = {} }").contains("only among the steps of [image]"));
    assert!(refused("{ crash-copy = {} }]", "{ crash-copy = {} }, { crash-copy = {} }]").contains("taken once"));
    assert!(
        refused("{ device-add = { disk = 2 } }", "{ write = { path = \"a\" } }").contains("missing field `length`")
    );
    let kept =
        several.replace("fstype = \"btrfs\" } },\n    { umount", "fstype = \"btrfs\", disk = 3 } },\n    { umount");
    assert!(parse(&kept).unwrap_err().contains("step \"mount\": there is no disk 3"));
}
