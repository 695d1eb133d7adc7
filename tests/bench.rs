//! The measurements that run whole campaigns, on the self-test's bugs.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::process::{Command, Output, Stdio};

fn bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bench")).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn long_and_compared_campaigns_are_measured() {
    let steady = bench(&["steady", "--target", "selftest", "--time", "6s"]);
    assert!(steady.status.success(), "{}", text(&steady.stderr));
    let steady: serde_json::Value = serde_json::from_slice(&steady.stdout).unwrap();
    assert!(steady["executions"].as_u64().unwrap() > 8 && steady["guests_started"].as_u64().unwrap() >= 2, "{steady}");
    assert!(steady["resident_mib"]["most"].as_u64().unwrap() > 0, "{steady}");
    assert!(steady["guests_mib"]["most"].as_u64().unwrap() > 0, "{steady}");

    let kernels = bench(&["kernels", "--target", "selftest", "--time", "2s", "--campaigns", "2"]);
    assert!(kernels.status.success(), "{}", text(&kernels.stderr));
    let kernels: serde_json::Value = serde_json::from_slice(&kernels.stdout).unwrap();
    let target = &kernels["targets"][0];
    let rate = |kernels: &str| target[format!("{kernels}_rate_per_s")].as_f64().unwrap();
    assert!(rate("two_kernels") > 0.0 && rate("checking_alone") > 0.0, "{kernels}");
    let found = target["found"].as_object().unwrap();
    assert!(!found.is_empty(), "the self-test's bugs take a few executions to find: {kernels}");
    for found in found.values() {
        let times = |kernels: &str| found[format!("{kernels}_s")].as_array().unwrap().len();
        assert_eq!((times("two_kernels"), times("checking_alone")), (2, 2), "{kernels}");
    }
}
