//! Tests of logs that something happened to: lines lost, doubled, out of order, cut, run into each
//! other, bytes flipped.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::tests::{Golden, golden_files, is_a_good_key, is_a_good_title};

/// The golden logs: with and without a report. An announced error is not among the latter: without
/// its announcement its warning is a report.
static LOGS: LazyLock<(Vec<String>, Vec<String>)> = LazyLock::new(|| {
    let (without, with): (Vec<_>, Vec<_>) =
        golden_files().into_iter().partition(|file| file.header.starts_with("TITLE: none"));
    let logs = |files: Vec<Golden>| files.into_iter().map(|file| file.log).collect();
    (logs(with), logs(without).into_iter().filter(|log| !has_announcement(log)).collect())
});

/// Change of a log; numbers are places in it, modulo its length.
#[derive(Clone, Debug)]
enum Mutation {
    /// Lines from the first to the second are lost.
    Lose(usize, usize),
    /// So many lines from the first on stand twice.
    Double(usize, usize),
    /// Every so many lines there is one of another log.
    Interleave(usize, usize),
    /// The log ends behind this line.
    EndAfter(usize),
    /// It ends at this byte.
    Cut(usize),
    /// The end of this line is lost, so that the next one runs into it.
    Join(usize, usize),
    /// This byte is another one.
    Flip(usize, u8),
}

/// Gives changes that leave lines whole.
fn of_lines() -> impl Strategy<Value = Mutation> {
    let at = || any::<u16>().prop_map(usize::from);
    prop_oneof![
        (at(), 1..12_usize).prop_map(|(from, lines)| Mutation::Lose(from, lines)),
        (at(), 1..40_usize).prop_map(|(from, lines)| Mutation::Double(from, lines)),
        (at(), 1..5_usize).prop_map(|(log, every)| Mutation::Interleave(log, every)),
        at().prop_map(Mutation::EndAfter),
    ]
}

fn of_any_kind() -> impl Strategy<Value = Mutation> {
    let at = || any::<u16>().prop_map(usize::from);
    prop_oneof![
        3 => of_lines(),
        1 => at().prop_map(Mutation::Cut),
        2 => (at(), at()).prop_map(|(line, byte)| Mutation::Join(line, byte)),
        2 => (at(), any::<u8>()).prop_map(|(at, byte)| Mutation::Flip(at, byte)),
    ]
}

fn mutated(log: &str, mutations: &[Mutation], others: &[String]) -> String {
    let mut log = log.to_owned();
    for mutation in mutations {
        let mut lines: Vec<String> = log.split_inclusive('\n').map(str::to_owned).collect();
        if lines.is_empty() {
            break;
        }
        let (count, bytes) = (lines.len(), log.len());
        let range = |from: usize, length: usize| from % count..(from % count + length).min(count);
        match *mutation {
            Mutation::Lose(from, length) => drop(lines.drain(range(from, length))),
            Mutation::Double(from, length) => {
                let range = range(from, length);
                let again = lines[range.clone()].to_vec();
                lines.splice(range.end..range.end, again);
            }
            Mutation::Interleave(log, every) => {
                let other = others[log % others.len()].split_inclusive('\n');
                let chunks = lines.chunks(every).zip(other);
                let mixed = chunks.flat_map(|(own, other)| own.iter().cloned().chain([other.to_owned()])).collect();
                lines = mixed;
            }
            Mutation::EndAfter(line) => lines.truncate(line % count + 1),
            Mutation::Cut(at) => lines = vec![lines::cut(&log, at % bytes).to_owned()],
            Mutation::Join(line, byte) => {
                let line = &mut lines[line % count];
                *line = lines::cut(line, byte % (line.len() + 1)).trim_end().to_owned();
            }
            Mutation::Flip(at, byte) => {
                let mut raw = log.clone().into_bytes();
                raw[at % bytes] = byte;
                lines = vec![String::from_utf8_lossy(&raw).into_owned()];
            }
        }
        log = lines.concat();
    }
    log
}

fn changes(kind: impl Strategy<Value = Mutation>) -> impl Strategy<Value = Vec<Mutation>> {
    prop::collection::vec(kind, 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8_000))]

    #[test]
    fn a_mutated_log_is_survived(log in any::<usize>(), mutations in changes(of_any_kind())) {
        let (with, without) = &*LOGS;
        let log = mutated(&with[log % with.len()], &mutations, without);
        for report in reports(&log) {
            prop_assert!(is_a_good_title(&report.title), "{:?}", report.title);
            prop_assert!(is_a_good_key(&report.key), "{:?}", report.key);
            prop_assert!(report.stacks.iter().all(|stack| !stack.frames.is_empty()));
            prop_assert!(report.guilty.is_none_or(|guilty| !guilty.function.is_empty()));
            prop_assert!(read(&report.text).is_some(), "{}", report.text);
        }
        let _ = (notes(&log), corruption(&log), impairment(&log), has_announcement(&log), is_out_of_memory(&log));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn a_log_without_a_report_has_none_whatever_lines_are_lost(
        log in any::<usize>(),
        mutations in changes(of_lines()),
    ) {
        let (_, without) = &*LOGS;
        let log = mutated(&without[log % without.len()], &mutations, without);
        prop_assert_eq!(first_report(&log), None);
    }
}
