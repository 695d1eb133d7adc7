//! Whoever reaches the port: what such a one can do, and cannot.

use std::io::Read;

use fault_plan::{Fault, Round};

use super::{
    super::{greeting::PROTOCOL, link::SILENCE},
    *,
};
use crate::stages::MOST_EARLIER_ROUNDS;

/// A start of a hello: magic and version.
const START: &[u8] = &start();
/// The time that a greeting may take, and a bit.
const GREETING: Duration = Duration::from_secs(5);

const fn start() -> [u8; 12] {
    let (magic, version) = (*b"fuzzpeer", PROTOCOL.to_be_bytes());
    let [a, b, c, d, e, f, g, h] = magic;
    let [i, j, k, l] = version;
    [a, b, c, d, e, f, g, h, i, j, k, l]
}

/// Makes a connection whose greeting is `said`.
fn saying(address: SocketAddr, said: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(said).unwrap();
    stream
}

/// Says whether the other side ends the connection in time.
fn is_ended(stream: &mut TcpStream, time: Duration) -> bool {
    stream.set_read_timeout(Some(time)).unwrap();
    let mut rest = Vec::new();
    // Unread bytes make of an end a reset.
    stream.read_to_end(&mut rest).map_or_else(|error| error.kind() == io::ErrorKind::ConnectionReset, |_| true)
}

#[test]
fn a_greeting_that_is_none_is_the_end() {
    let host = Host::new();
    connected(&[&host], &[], |addresses| {
        let long = [START, &[0xff; 4]].concat();
        let half = [START, &[0, 0, 0, 100], &[0; 50]].concat();
        let other_version = b"fuzzpeer\0\0\0\x01".as_slice();
        let greetings = [&[], &START[..5], START, &long, &half, other_version, b"GET / HTTP/1.1\r\n\r\n"];
        let mut streams: Vec<_> = greetings.iter().map(|said| saying(addresses[0], said)).collect();
        for (stream, said) in streams.iter_mut().zip(greetings) {
            assert!(is_ended(stream, GREETING), "{said:?}");
        }
        let other = target(&TARGET.replace("ENOMEM", "EIO"));
        for hello in [Hello::new(&other, 7, "raw".to_owned()), Hello::new(&target(TARGET), 7, "a/b".to_owned())] {
            let mut stream = TcpStream::connect(addresses[0]).unwrap();
            let _ = hello.exchange(&mut stream);
            assert!(is_ended(&mut stream, GREETING));
        }
        let mut stream = TcpStream::connect(addresses[0]).unwrap();
        let refused = Hello::new(&other, 7, "raw".to_owned()).exchange(&mut stream).unwrap_err();
        let reason = format!("another definition of the target \"fake\" (its digest is {}", target(TARGET).digest());
        assert!(refused.is_final() && refused.to_string().contains(&reason), "{refused}");
        let mut ourselves = TcpStream::connect(addresses[0]).unwrap();
        assert!(host.hub.hello().exchange(&mut ourselves).is_err());
        assert_eq!(host.peers(), 0);
        assert_eq!(Raw::greeted(addresses[0], 7).news().len(), 1, "who greets is welcome");
    });
}

/// Faults of a function that the target does not let fail.
fn panicking() -> Vec<Fault> {
    let mut faults = plan("caller").faults;
    faults[0].function = "panic".to_owned();
    faults
}

#[test]
fn news_that_is_none_is_the_end_and_leaves_nothing_behind() {
    let host = Host::new();
    let other_plan = |change: fn(&mut FaultPlan)| {
        let mut plan = plan("caller");
        change(&mut plan);
        News::Plan(PlanInput(plan)).frame().unwrap()
    };
    let other_crash = |title: &str| crash("away", title).frame().unwrap();
    let hostile = [
        vec![0xff; 4],
        vec![0, 0, 0, 3, 0xff, 0xff, 0xff],
        vec![0, 0, 0, 0],
        other_plan(|plan| plan.target = "other".to_owned()),
        other_plan(|plan| plan.faults[0].function = "panic".to_owned()),
        other_plan(|plan| plan.earlier = vec![Round { faults: panicking(), reset: true }]),
        other_plan(|plan| plan.earlier = vec![Round::default(); MOST_EARLIER_ROUNDS + 1]),
        other_plan(|plan| plan.faults[0].error = InjectedError::True),
        other_plan(|plan| plan.faults[0].occurrence = 0),
        other_crash("BUG\u{1b}[31m in a"),
        other_crash("BUG\nin a"),
        other_crash(&"x".repeat(1000)),
    ];
    connected(&[&host], &[], |addresses| {
        for frame in &hostile {
            let mut raw = Raw::greeted(addresses[0], 7);
            raw.0.write_all(frame).unwrap();
            assert!(raw.is_ended_within(GREETING), "{frame:?}");
        }
        assert_eq!(host.log().len(), 1, "the fault-free plan");
        assert_eq!(fs::read_dir(host.folder.path().join("crashes")).unwrap().count(), 0);
        let mut raw = Raw::greeted(addresses[0], 7);
        raw.0.write_all(&other_crash("../../BUG in a")).unwrap();
        eventually("heard", || host.meta("../../BUG in a").is_some());
        let folders: Vec<_> = fs::read_dir(host.folder.path().join("crashes")).unwrap().flatten().collect();
        assert_eq!(folders.len(), 1, "a title is no path: {folders:?}");
    });
}

#[test]
fn who_is_silent_is_dropped_and_who_gives_signs_of_life_is_not() {
    let host = Host::new();
    connected(&[&host], &[], |addresses| {
        let mut silent = Raw::greeted(addresses[0], 7);
        let mut half = Raw::greeted(addresses[0], 8);
        half.0.write_all(&[0, 0]).unwrap();
        let mut alive = Raw::greeted(addresses[0], 9);
        let started = Instant::now();
        while started.elapsed() < SILENCE + Duration::from_secs(2) {
            alive.0.write_all(&News::Ping.frame().unwrap()).unwrap();
            thread::sleep(Duration::from_secs(1));
        }
        assert!(silent.is_ended_within(Duration::from_secs(1)) && half.is_ended_within(Duration::from_secs(1)));
        eventually("counted out", || host.peers() <= 1);
        assert_eq!(host.peers(), 1);
    });
}

#[test]
fn there_is_room_for_a_few_only() {
    let host = Host::new();
    connected(&[&host], &[], |addresses| {
        let held: Vec<_> = (1..=16).map(|node| Raw::greeted(addresses[0], node)).collect();
        assert!(is_ended(&mut TcpStream::connect(addresses[0]).unwrap(), Duration::from_secs(2)), "one too many");
        eventually("counted in", || host.peers() >= 16);
        assert_eq!(host.peers(), 16);
        drop(held);
        eventually("gone", || host.peers() == 0);
        eventually("room again", || host.hub.guests().load(Ordering::Acquire) == 0);
        assert_eq!(Raw::greeted(addresses[0], 17).news().len(), 1);
    });
}
