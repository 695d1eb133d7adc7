//! A campaign's folder for tests: three findings, one of them hostile, and an alarm by design.

use std::{fmt::Write as _, fs, path::Path};

use serde_json::{Value, json};

/// Title, file and reason by which a guest tries to run a script in the page.
pub(crate) const HOSTILE: &str = "<script>document.title='owned'</script><img src=x onerror=document.title='owned'>";

fn path(functions: &str) -> Vec<&str> {
    functions.split(' ').collect()
}

fn put(folder: &Path, name: &str, text: &str) {
    let file = folder.join(name);
    fs::create_dir_all(file.parent().expect("a file is in a folder")).expect("a folder can be made");
    fs::write(file, text).expect("a file can be written");
}

/// A crash: folder, meta, faults of its plan, and report.
struct Crash<'a> {
    folder: &'a str,
    meta: Value,
    rounds: Value,
    report: &'a str,
}

fn write(campaign: &Path, crash: &Crash<'_>) {
    let folder = campaign.join("crashes").join(crash.folder);
    let reproducer = json!({
        "reproducer_version": 1, "key": crash.meta["key"], "title": crash.meta["title"],
        "kernel": "linux-6.12-check", "kernel_build_id": "ab12",
        "plan": { "version": 1, "target": "btrfs-mount", "rounds": crash.rounds },
        "target": { "image": { "mkfs": ["mkfs.btrfs", "-q"], "size_mib": 128 }, "steps": [ { "mount": { "fstype": "btrfs" } }, { "umount": {} } ] },
    });
    put(&folder, "meta.json", &crash.meta.to_string());
    put(&folder, "reproducer.json", &reproducer.to_string());
    put(&folder, "report.txt", crash.report);
}

const BDI: &str = "__kmalloc_cache_node_noprof bdi_alloc super_setup_bdi_name super_setup_bdi btrfs_get_tree vfs_get_tree \
                   fc_mount path_mount __x64_sys_mount do_syscall_64";
const BIO: &str = "submit_bio_noacct submit_bio btrfs_submit_dev_bio btrfs_submit_bio read_tree_block open_ctree \
                   btrfs_get_tree vfs_get_tree fc_mount path_mount __x64_sys_mount do_syscall_64";
const PATH: &str = "kmem_cache_alloc_noprof btrfs_alloc_path btrfs_lookup_inode btrfs_iget vfs_create do_syscall_64";

/// A fault that is planned for no step, so that only `fired` knows it.
fn fault(function: &str, call_path: &str, error: &str) -> Value {
    json!({ "function": function, "call_path": path(call_path), "occurrence": 1, "error": error })
}

fn fired(number: u32, function: &str, call_path: &str) -> Value {
    let words = if function == "should_failslab" { "size 64 bytes, flags GFP_KERNEL" } else { "operation READ" };
    json!({ "fault": number, "function": function, "sequence": 36 + number, "step": 1, "call_path": path(call_path), "words": words })
}

/// The same fault, of which a traced run told where the error went.
fn returned(mut fired: Value) -> Value {
    let functions = path(BDI);
    let value = |at| match at {
        0 | 1 => "NULL",
        9.. => "?",
        _ => "-ENOMEM",
    };
    let returns = functions.iter().enumerate().map(|(at, name)| json!({ "function": name, "returned": value(at) }));
    fired["returns"] = returns.collect();
    fired
}

/// Title by which a guest tries to add a header to a mail, and to command a terminal.
fn hostile_title() -> String {
    format!("{HOSTILE}\nBcc: x@evil\u{1b}[2J")
}

/// Writes the campaign.
pub(crate) fn write_campaign(folder: &Path) {
    let campaign = json!({
        "version": 1, "target": "btrfs-mount", "kernel": "linux-6.12-check", "kernel_build_id": "ab12",
        "fuzz_version": "0.1.0", "seed": 1, "executions": 2270, "seconds": 100,
    });
    put(folder, "campaign.json", &campaign.to_string());
    let mut stats = String::new();
    for (seconds, coverage, crashes) in [(1.0, 9000, 0), (20.0, 9700, 0), (60.0, 9900, 2), (100.0, 9950, 4)] {
        let line = json!({ "seconds": seconds, "executions": coverage / 5, "coverage": coverage, "points": coverage / 20,
                           "points_failed": coverage / 40, "crashes": crashes });
        writeln!(stats, "{line}").expect("a string takes all");
    }
    put(folder, "stats.jsonl", &stats);
    crashes(folder);
}

fn crashes(folder: &Path) {
    let read = "BUG: KASAN: slab-use-after-free in btrfs_state_to_string+0x250/0x290\n\
                Read of size 8 at addr ffff888005e71ac8 by task workload/34\n\n\
                CPU: 0 UID: 0 PID: 34 Comm: workload Not tainted 6.12.117-fuzz #1\nCall Trace:\n <TASK>\n \
                ? kasan_report+0xec/0x120\n btrfs_state_to_string+0x250/0x290\n _btrfs_printk+0x194/0x400\n \
                open_ctree+0x11/0x22\n </TASK>\n";
    write(
        folder,
        &Crash {
            folder: "read",
            meta: json!({
                "version": 1, "key": "access: bad memory Read in btrfs_state_to_string",
                "title": "KASAN: slab-use-after-free Read in btrfs_state_to_string", "kind": "kasan",
                "fired": [fired(1, "should_failslab", BDI), fired(2, "should_fail_bio", BIO)],
                "stack": ["btrfs_state_to_string", "_btrfs_printk", "open_ctree"],
                "found_ms": 27814, "tried": 3, "reproduced": 3, "exact": true,
                "minimized": { "executions": 41, "faults": [6, 2] },
            }),
            rounds: json!([ { "faults": [fault("should_failslab", BDI, "ENOMEM")] },
                            { "faults": [fault("should_fail_bio", BIO, "EIO")] } ]),
            report: read,
        },
    );
    write(
        folder,
        &Crash {
            folder: "left",
            meta: json!({
                "version": 1, "key": "device left open: super_setup_bdi",
                "title": "device left open after a failure in super_setup_bdi", "kind": "leftover",
                "fired": [returned(fired(1, "should_failslab", BDI))], "stack": path(BDI),
                "found_ms": 12000, "tried": 3, "reproduced": 3,
                "repro": { "c": "3 of 3" },
            }),
            rounds: json!([ { "faults": [fault("should_failslab", BDI, "ENOMEM")] } ]),
            report: "btrfs does not forget /dev/ram0: EBUSY: Device or resource busy\nstep 1 failed with error 12\n",
        },
    );
    put(folder, "crashes/left/repro.c", "/* cc -o repro repro.c && ./repro */\nint main(void) { return 0; }\n");
    warnings(folder);
}

fn warnings(folder: &Path) {
    let warning = "------------[ cut here ]------------\n\
                   WARNING: CPU: 0 PID: 34 at fs/btrfs/inode.c:5555 btrfs_lookup_inode+0x1/0x2\nCall Trace:\n \
                   btrfs_lookup_inode+0x1/0x2\n btrfs_iget+0x1/0x2\n vfs_create+0x1/0x2\n";
    write(
        folder,
        &Crash {
            folder: "alarm",
            meta: json!({
                "version": 1, "key": "check: fs/btrfs/inode.c btrfs_lookup_inode: WARN_ON(ret)",
                "title": "WARNING in btrfs_lookup_inode", "kind": "warning",
                "fired": [fired(1, "should_failslab", PATH)],
                "stack": ["btrfs_lookup_inode", "btrfs_iget", "vfs_create"], "found_ms": 55000, "tried": 3, "reproduced": 3,
            }),
            rounds: json!([ { "faults": [fault("should_failslab", PATH, "ENOMEM")] } ]),
            report: warning,
        },
    );
    write(
        folder,
        &Crash {
            folder: "hostile",
            meta: json!({
                "version": 1, "key": hostile_title(), "title": hostile_title(), "kind": "bug", "stack": [], "tried": 0, "reproduced": 0,
                "fired": [], "found_ms": 90000,
            }),
            rounds: json!([ { "faults": [] } ]),
            report: &format!("{HOSTILE}\u{1b}[2J\n</pre></details>{HOSTILE}\n"),
        },
    );
}
