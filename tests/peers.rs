//! Two hosts that fuzz the same target, as a user runs them: each is a network namespace, and a
//! cable is between them. This needs root, and fails without it.

use std::{
    fs::{self, File},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use campaign::PlanInput;
use fault_plan::{CallPath, Errno, Fault, FaultPlan, InjectedError, REPRODUCER_VERSION, Reproducer};
use libafl::inputs::Input;
use tempfile::TempDir;

use crate::common::LEAN;

const PORT: u16 = 7070;
/// Booting and preparing a guest takes a while when no earlier start has left one.
const READY: Duration = Duration::from_secs(180);
/// Time that anything else may take.
const SOON: Duration = Duration::from_secs(120);
/// Time in which two hosts that do not hear each other notice it at the latest, and a bit.
const NOTICED: Duration = Duration::from_secs(15);

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output();
    let failed = |reason: String| -> ! {
        panic!("`{program} {}` failed, which needs root and the package iproute2: {reason}", arguments.join(" "))
    };
    match output {
        Ok(output) if output.status.success() => {}
        Ok(output) => failed(String::from_utf8_lossy(&output.stderr).into_owned()),
        Err(error) => failed(error.to_string()),
    }
}

/// Two network namespaces and a cable between them.
struct Network {
    names: [String; 2],
}

impl Network {
    fn new() -> Self {
        let names = ["a", "b"].map(|host| format!("fuzz-{}-{host}", process::id()));
        let network = Self { names };
        let [a, b] = &network.names;
        for (name, host) in [(a, 0), (b, 1)] {
            run("ip", &["netns", "add", name]);
            if host == 1 {
                run("ip", &["link", "add", "cable", "netns", a, "type", "veth", "peer", "name", "cable", "netns", b]);
            }
        }
        for (host, name) in network.names.iter().enumerate() {
            run("ip", &["-n", name, "address", "add", &format!("{}/24", address(host)), "dev", "cable"]);
            for device in ["lo", "cable"] {
                run("ip", &["-n", name, "link", "set", device, "up"]);
            }
        }
        network
    }

    /// Pulls the first host's end of the cable, or plugs it in.
    fn plug(&self, state: &str) {
        run("ip", &["-n", &self.names[0], "link", "set", "cable", state]);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = Command::new("ip").args(["netns", "delete", name]).stderr(Stdio::null()).status();
        }
    }
}

fn address(host: usize) -> IpAddr {
    Ipv4Addr::new(10, 77, 0, if host == 0 { 1 } else { 2 }).into()
}

/// A campaign in one of the namespaces. It is killed when the test ends, also by a panic.
struct Campaign {
    child: Child,
    words: PathBuf,
}

impl Campaign {
    fn command(network: &Network, host: usize, folder: &Path, options: &[&str]) -> Command {
        // As `ip netns exec`, which would also put another /sys in place.
        let namespace = format!("--net=/run/netns/{}", network.names[host]);
        let mut command = Command::new("nsenter");
        command.arg(namespace).arg(env!("CARGO_BIN_EXE_fuzz"));
        command.args(["--target", "selftest", "--vms", "1", "--kernel", LEAN, "--out"]).arg(folder).args(options);
        command.env("FUZZ_LOG", "fuzz=debug").stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    fn start(network: &Network, host: usize, folder: &Path, options: &[&str]) -> Self {
        let words = folder.with_extension("log");
        let log = File::create(&words).unwrap();
        let child = Self::command(network, host, folder, options).stderr(log).spawn();
        Self { child: child.expect("nsenter is in the package util-linux"), words }
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.words).unwrap()
    }

    fn wait(&mut self, what: &str, most: Duration, holds: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + most;
        while !holds(self) {
            assert_eq!(self.child.try_wait().unwrap(), None, "{what}: ended by itself\n{}", self.said());
            assert!(Instant::now() < deadline, "{what}: not within {most:?}\n{}", self.said());
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn wait_for(&mut self, words: &str, most: Duration) {
        self.wait(words, most, |campaign| campaign.said().contains(words));
    }

    /// Waits until a client runs `plan`.
    fn takes_in(&mut self, plan: &FaultPlan) {
        let name = PlanInput(plan.clone()).generate_name(None);
        self.wait_for(&format!("takes in a plan plan=\"{name}\""), SOON);
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Lists the addresses at which it listens.
    fn listens(&self) -> Vec<SocketAddr> {
        let read = |name: &str| fs::read_to_string(format!("/proc/{}/net/{name}", self.child.id())).unwrap();
        assert!(read("tcp6").lines().skip(1).count() == 0, "{}", read("tcp6"));
        let listening = |line: &str| {
            let mut words = line.split_whitespace().skip(1);
            let (local, state) = (words.next()?, words.nth(1)?);
            let (address, port) = local.split_once(':')?;
            let address = Ipv4Addr::from(u32::from_str_radix(address, 16).ok()?.to_le_bytes());
            (state == "0A").then_some((address, u16::from_str_radix(port, 16).ok()?).into())
        };
        read("tcp").lines().skip(1).filter_map(listening).collect()
    }
}

impl Drop for Campaign {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A plan that no search makes.
fn plan(caller: &str) -> FaultPlan {
    let (function, call_path) = ("should_failslab".to_owned(), CallPath(vec![caller.to_owned()]));
    let error = InjectedError::Errno(Errno::ENOMEM);
    FaultPlan { faults: vec![Fault::new(function, call_path, 77, error)], ..FaultPlan::fault_free("selftest") }
}

/// Puts into a campaign's folder a plan and a crash that an earlier start could have found.
fn plant(folder: &Path, name: &str) {
    let crash = folder.join("crashes").join(name);
    fs::create_dir_all(folder.join("corpus")).unwrap();
    fs::create_dir_all(&crash).unwrap();
    fs::write(folder.join("corpus").join(format!("{name}.json")), plan(name).to_json()).unwrap();
    let reproducer = Reproducer {
        reproducer_version: REPRODUCER_VERSION,
        key: name.to_owned(),
        title: name.to_owned(),
        kernel: LEAN.to_owned(),
        kernel_build_id: "0".to_owned(),
        plan: plan(name),
        target: None,
    };
    fs::write(crash.join("reproducer.json"), reproducer.to_json()).unwrap();
    let meta = serde_json::json!({
        "version": 1, "key": name, "title": name, "kind": "bug", "fired": [], "stack": [], "tried": 3, "reproduced": 3,
    });
    fs::write(crash.join("meta.json"), meta.to_string()).unwrap();
}

/// The crashes in a folder: title, and whether another host found it.
fn crashes(folder: &Path) -> Vec<(String, bool)> {
    let metas = fs::read_dir(folder.join("crashes")).into_iter().flatten().flatten().filter_map(|entry| {
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        let text = fs::read_to_string(entry.path().join("meta.json")).ok().filter(|_| !hidden)?;
        serde_json::from_str::<serde_json::Value>(&text).ok()
    });
    let mut crashes: Vec<_> =
        metas.map(|meta| (meta["title"].as_str().unwrap().to_owned(), meta["origin"].is_string())).collect();
    crashes.sort();
    crashes
}

fn has_foreign(folder: &Path, title: &str) -> bool {
    crashes(folder).contains(&(title.to_owned(), true))
}

/// The crashes that the target is known for, on this kernel.
fn own(folder: &Path) -> Vec<(String, bool)> {
    crashes(folder).into_iter().filter(|(title, _)| !title.starts_with("planted")).collect()
}

fn alone_it_listens_nowhere(network: &Network, folder: &Path) {
    let mut alone = Campaign::start(network, 1, folder, &[]);
    alone.wait("it runs plans", SOON, |campaign| campaign.said().contains("executions"));
    assert_eq!(alone.listens(), [], "nobody can connect to its clients");
    assert!(!alone.said().contains("  peers "), "{}", alone.said());
    alone.kill();
}

#[test]
fn two_hosts_share_what_they_find_and_lose_nothing_when_cut_off_or_killed() {
    let network = Network::new();
    let work: TempDir = tempfile::tempdir().unwrap();
    let [a, b, c] = ["a", "b", "c"].map(|name| work.path().join(name));
    plant(&a, "planted_on_a");
    plant(&b, "planted_on_b");
    let listen = SocketAddr::from((address(0), PORT)).to_string();

    let listening = ["--listen", listen.as_str(), "--seed", "1"];
    let mut first = Campaign::start(&network, 0, &a, &listening);
    first.wait("the first host finds its bugs by itself", READY, |_| own(&a).len() >= 2);
    let found = own(&a);
    assert!(first.said().contains("without a password"), "{}", first.said());
    let addresses = first.listens();
    assert_eq!(addresses, [listen.parse().unwrap()]);

    let refused = Campaign::command(&network, 0, &c, &listening).output().unwrap();
    let reason = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(3) && reason.contains(&format!("cannot listen at {listen}")), "{reason}");

    alone_it_listens_nowhere(&network, &c);

    let joining = ["--join", listen.as_str(), "--seed", "2"];
    let mut second = Campaign::start(&network, 1, &b, &joining);
    second.wait_for("connected to another host", SOON);
    second.takes_in(&plan("planted_on_a"));
    first.takes_in(&plan("planted_on_b"));
    second.wait("the first host's crash", SOON, |_| has_foreign(&b, "planted_on_a"));
    first.wait("the second host's crash", SOON, |_| has_foreign(&a, "planted_on_b"));
    second.wait("the bugs that the first host had found", SOON, |_| {
        found.iter().all(|(title, _)| has_foreign(&b, title))
    });
    second.wait_for("  peers 1", SOON);
    assert_eq!(second.listens(), []);

    network.plug("down");
    for host in [&mut first, &mut second] {
        host.wait_for("no longer connected to another host", NOTICED);
    }
    second.kill();
    plant(&b, "planted_meanwhile");
    let mut second = Campaign::start(&network, 1, &b, &joining);
    second.wait_for("cannot be joined, to be tried again", SOON);
    second.wait_for("executions so far", SOON);
    assert!(!has_foreign(&a, "planted_meanwhile"));
    network.plug("up");
    second.wait_for("connected to another host", SOON);
    first.takes_in(&plan("planted_meanwhile"));
    first.wait("the crash that the second host found meanwhile", SOON, |_| has_foreign(&a, "planted_meanwhile"));
    second.takes_in(&plan("planted_on_a"));

    first.kill();
    let before = crashes(&a);
    second.wait("the first host's end is noticed", NOTICED, |campaign| {
        campaign.said().contains("no longer connected to another host")
    });
    plant(&a, "planted_late");
    let mut first = Campaign::start(&network, 0, &a, &listening);
    first.wait_for("connected to another host", SOON);
    second.takes_in(&plan("planted_late"));
    second.wait("the crash that the first host has now", SOON, |_| has_foreign(&b, "planted_late"));
    let after = crashes(&a);
    assert!(before.iter().all(|crash| after.contains(crash)), "{before:?} {after:?}");
    let titles = |folder: &Path| crashes(folder).into_iter().map(|(title, _)| title).collect::<Vec<_>>();
    second.wait("each host has every title", SOON, |_| titles(&a) == titles(&b));
}
