//! Hubs that are connected over the loopback device, without guests.

mod exchange;
mod hostile;
mod wire;

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    net::{Ipv4Addr, TcpStream},
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use execution::{FindingKind, Stop};
use fault_plan::{FaultPlan, InjectedError, Reproducer};
use kernel_report::slug;
use tempfile::TempDir;

use super::{
    greeting::Hello,
    hub::Next,
    link::{accept, join},
    log::{Origin, Reader},
    wire::{HEAD_BYTES, MOST_BYTES, News, WireError, read_frame},
    *,
};
use crate::{
    clients::Lifecycle,
    crashes::{CrashMeta, Crashes},
    fake::{self, TARGET, target},
    input::PlanInput,
};

fn plan(caller: &str) -> FaultPlan {
    fake::plan(vec![caller.to_owned()], 1)
}

fn plan_news(caller: &str) -> News {
    News::Plan(PlanInput(plan(caller)))
}

fn crash(host: &str, title: &str) -> News {
    let reproducer = Reproducer { kernel_build_id: "0123abcd".to_owned(), ..fake::reproducer(title, &plan("guilty")) };
    News::Crash { host: host.to_owned(), crash: CrashNews { kind: FindingKind::Bug, reproducer } }
}

/// A host without guests.
struct Host {
    folder: TempDir,
    hub: Arc<Hub>,
}

impl Host {
    fn new() -> Self {
        Self::in_folder(tempfile::tempdir().unwrap())
    }

    fn in_folder(folder: TempDir) -> Self {
        let opened = Arc::new(fake::open(folder.path()));
        let crashes = Crashes::restore(Arc::clone(&opened), Duration::ZERO, None).unwrap();
        let lifecycle = Arc::new(Lifecycle::new(Stop::new(), None));
        let hub = Hub::open(Arc::new(target(TARGET)), Arc::new(crashes), lifecycle, &opened, &[]).unwrap();
        Self { folder, hub }
    }

    /// Gives all that it would tell somebody who knows nothing, in its order.
    fn log(&self) -> Vec<News> {
        let next = self.hub.next(Reader::Peer(0), &mut 0, usize::MAX, Duration::ZERO);
        let Next::Frames(frames) = next else { panic!("{next:?}") };
        frames.iter().map(|frame| News::read(&frame[HEAD_BYTES..]).unwrap()).collect()
    }

    fn peers(&self) -> usize {
        self.hub.peers().load(Ordering::Relaxed)
    }

    fn knows(&self, news: &News) -> bool {
        self.log().contains(news)
    }

    fn meta(&self, title: &str) -> Option<CrashMeta> {
        let path = self.folder.path().join("crashes").join(slug(title)).join("meta.json");
        Some(serde_json::from_str(&fs::read_to_string(path).ok()?).unwrap())
    }
}

fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: never");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Ends the hubs' threads, also when a test fails.
struct Closing<'a>(Vec<&'a Host>);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        for host in &self.0 {
            host.hub.close().unwrap();
        }
    }
}

/// Runs `test` while each of the `hosts` listens, at the address of the same number, and joins what
/// `joins` gives for it.
fn connected(hosts: &[&Host], joins: &[(usize, usize)], test: impl FnOnce(&[SocketAddr])) {
    let listeners: Vec<_> = hosts.iter().map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()).collect();
    let addresses: Vec<_> = listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
    thread::scope(|scope| {
        let closing = Closing(hosts.to_vec());
        for (host, listener) in hosts.iter().zip(&listeners) {
            listener.set_nonblocking(true).unwrap();
            scope.spawn(move || accept(&host.hub, scope, listener));
        }
        for (from, to) in joins {
            let (host, address) = (&hosts[*from], addresses[*to].to_string());
            scope.spawn(move || join(&host.hub, &address));
        }
        test(&addresses);
        drop(closing);
    });
}

/// The other end of a connection, in the hands of the test.
struct Raw(TcpStream);

impl Raw {
    fn greeted(address: SocketAddr, node: u64) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        Hello::new(&target(TARGET), node, "raw".to_owned()).exchange(&mut stream).unwrap();
        Self(stream)
    }

    /// Gives all that comes until there is nothing more to say.
    fn news(&mut self) -> Vec<News> {
        let mut news = Vec::new();
        loop {
            match News::read(&read_frame(&mut self.0, MOST_BYTES, Duration::from_secs(10)).unwrap()).unwrap() {
                News::Ping => return news,
                next => news.push(next),
            }
        }
    }

    /// Says whether the other side ends the connection, whatever it says before.
    fn is_ended_within(&mut self, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        loop {
            match read_frame(&mut self.0, MOST_BYTES, deadline.saturating_duration_since(Instant::now())) {
                Ok(_) => {}
                Err(WireError::End | WireError::Io(_)) => return true,
                Err(_) => return false,
            }
        }
    }
}

#[test]
fn a_log_begins_with_what_is_on_disk_and_takes_everything_once() {
    let host = Host::new();
    host.hub.add(Origin::Peer(7), &crash("away", "BUG in a")).unwrap();
    host.hub.add_own(&plan_news("once"));
    host.hub.add(Origin::Peer(7), &plan_news("once")).unwrap();
    host.hub.add(Origin::Peer(7), &crash("elsewhere", "BUG in a")).unwrap();
    let fault_free = News::Plan(PlanInput(FaultPlan::fault_free("fake")));
    assert_eq!(host.log(), [fault_free.clone(), crash("away", "BUG in a"), plan_news("once")]);
    let read_by = |reader| host.hub.next(reader, &mut 0, usize::MAX, Duration::ZERO);
    let Next::Frames(frames) = read_by(Reader::Peer(7)) else { panic!("there is own news") };
    assert_eq!(frames.len(), 2, "what the reader said itself is left out");
    assert_eq!(read_by(Reader::Clients), Next::Nothing, "clients know their own plans, and run no crashes");
    let Host { folder, hub } = host;
    drop(hub);
    let again = Host::in_folder(folder);
    assert_eq!(again.log(), [fault_free, crash("away", "BUG in a")], "the finder's name is kept");
}

#[test]
fn three_hosts_in_a_ring_tell_each_other_everything_once() {
    let hosts = [Host::new(), Host::new(), Host::new()];
    let all: Vec<_> = hosts.iter().collect();
    connected(&all, &[(0, 1), (1, 2), (2, 0)], |_| {
        eventually("connected", || hosts.iter().all(|host| host.peers() == 2));
        for number in 0..60 {
            hosts[number % 3].hub.add_own(&plan_news(&format!("caller_{number}")));
        }
        hosts[0].hub.add_own(&crash("first", "BUG in ring"));
        eventually("all know all", || hosts.iter().all(|host| host.log().len() == 62));
        thread::sleep(Duration::from_millis(300));
        for host in &hosts {
            let log = host.log();
            let different: BTreeSet<_> = log.iter().map(|news| format!("{news:?}")).collect();
            assert_eq!((log.len(), different.len()), (62, 62), "nothing comes back");
        }
        assert_eq!(hosts[2].meta("BUG in ring").unwrap().origin.as_deref(), Some("first"));
    });
}

#[test]
fn hosts_that_join_each_other_keep_one_connection() {
    let hosts = [Host::new(), Host::new()];
    connected(&[&hosts[0], &hosts[1]], &[(0, 1), (1, 0), (0, 1), (1, 0)], |_| {
        let both = || hosts.iter().all(|host| host.peers() == 1);
        eventually("connected", both);
        thread::sleep(Duration::from_secs(3));
        for _ in 0..300 {
            assert!(both(), "the connections come and go");
            thread::sleep(Duration::from_millis(10));
        }
    });
}

#[test]
fn whoever_connects_again_is_told_everything_again() {
    let host = Host::new();
    connected(&[&host], &[], |addresses| {
        host.hub.add_own(&plan_news("before"));
        let mut first = Raw::greeted(addresses[0], 7);
        assert_eq!(first.news().len(), 2, "the fault-free plan and one more");
        first.0.write_all(&plan_news("theirs").frame().unwrap()).unwrap();
        eventually("heard", || host.knows(&plan_news("theirs")));
        drop(first);
        host.hub.add_own(&plan_news("meanwhile"));
        eventually("noticed", || host.peers() == 0);
        let news = Raw::greeted(addresses[0], 7).news();
        assert!(news.contains(&plan_news("before")) && news.contains(&plan_news("meanwhile")), "{news:?}");
        assert!(!news.contains(&plan_news("theirs")), "it said so itself");
        let stranger = Raw::greeted(addresses[0], 8).news();
        assert!(stranger.contains(&plan_news("theirs")), "{stranger:?}");
    });
}

#[test]
fn what_was_found_last_arrives_before_the_end() {
    let hosts = [Host::new(), Host::new()];
    connected(&[&hosts[0], &hosts[1]], &[(0, 1)], |_| {
        eventually("connected", || hosts[0].peers() == 1);
        for number in 0..500 {
            hosts[0].hub.add_own(&plan_news(&format!("caller_{number}")));
        }
        hosts[0].hub.close().unwrap();
        assert!(hosts[1].knows(&plan_news("caller_499")), "the end waits for it");
    });
}

#[test]
fn addresses_are_read_or_refused_with_what_would_be_right() {
    assert_eq!(listen_address("7070").unwrap().to_string(), "127.0.0.1:7070");
    assert_eq!(listen_address("10.0.0.1:7070").unwrap().to_string(), "10.0.0.1:7070");
    assert!(listen_address("[::1]:7070").unwrap().ip().is_loopback());
    for wrong in ["", "host:7070", "10.0.0.1", "70707", ":7070"] {
        assert!(listen_address(wrong).unwrap_err().contains("use ADDR:PORT"), "{wrong}");
    }
    assert_eq!(join_address("host:7070").unwrap(), "host:7070");
    for wrong in ["", "host", "7070", ":7070", "host:0", "host:port"] {
        assert!(join_address(wrong).unwrap_err().contains("use HOST:PORT"), "{wrong}");
    }
}
