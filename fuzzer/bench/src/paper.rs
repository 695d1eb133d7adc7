//! `docs/measurements.md`: the measurements as tables.

use std::fmt::Write as _;

use serde_json::{Map, Value};

/// Form in which a number is shown.
#[derive(Clone, Copy)]
enum Unit {
    /// As it is, with this behind it.
    Plain(&'static str),
    /// KiB, shown in MiB.
    Mib,
    /// Millionths, shown in percent.
    Percent,
}

use Unit::{Mib, Percent, Plain};

/// A row: its words, the place of its number in the JSON, its unit.
type Row = (&'static str, &'static str, Unit);

const COST: [Row; 21] = [
    ("mount and unmount, no probes, no coverage", "/bare_run_ms", Plain(" ms")),
    ("bare execution with disk reset and reply", "/bare_execution_ms", Plain(" ms")),
    ("full execution with disk reset", "/full_execution_ms", Plain(" ms")),
    ("full rate", "/full_rate_per_s", Plain("/s")),
    ("full rate / bare rate", "/full_to_bare_execution", Plain("")),
    ("full rate / rate of mount and unmount", "/full_to_bare", Plain("")),
    ("phase arm", "/phases/arm_ms", Plain(" ms")),
    ("phase run", "/phases/run_ms", Plain(" ms")),
    ("phase collect", "/phases/collect_ms", Plain(" ms")),
    ("phase transfer", "/phases/transfer_ms", Plain(" ms")),
    ("phase digest", "/phases/digest_ms", Plain(" ms")),
    ("disk reset, part of it beside the digest, the rest in the transfer", "/phases/reset_ms", Plain(" ms")),
    ("search, for each execution of a campaign (mean)", "/search_ms", Plain(" ms")),
    ("executions of a campaign of one client", "/campaign_rate_per_s", Plain("/s")),
    ("boot of a guest to its agent", "/boot_s", Plain(" s")),
    ("preparation for the target", "/setup_s", Plain(" s")),
    ("clone until it answers", "/clone_answer_ms", Plain(" ms")),
    ("boot and preparation / clone", "/boot_to_clone", Plain("")),
    ("clone until its first, cold execution is done", "/clone_first_execution_ms", Plain(" ms")),
    ("crash until the next execution begins in a fresh guest", "/crash_to_next_ms", Plain(" ms")),
    ("resident memory of a guest, shared pages included", "/guest_resident_kib", Mib),
];

const EXACT: [Row; 4] = [
    ("plans", "/plans", Plain("")),
    ("runs of each", "/runs_each", Plain("")),
    ("plans with one title in all runs", "/one_title", Plain("")),
    ("plans with one title, the same hits and the same coverage in all runs", "/one_execution", Plain("")),
];

const STEADY: [Row; 6] = [
    ("seconds", "/seconds", Plain("")),
    ("executions", "/executions", Plain("")),
    ("guests", "/guests_started", Plain("")),
    ("harness errors", "/harness_errors", Plain("")),
    ("guests that drifted", "/drifted", Plain("")),
    ("control plan's calls off, most", "/control_off_ppm/most", Percent),
];

const TRENDS: [Row; 3] = [
    ("control plan's calls off", "/control_off_ppm/quarters", Percent),
    ("guests' own memory, MiB", "/guests_mib/quarters", Plain("")),
    ("memory of the campaign's process, MiB", "/resident_mib/quarters", Plain("")),
];

/// Gives the paper for the measurements `all`, by name.
pub(super) fn paper(all: &Map<String, Value>) -> String {
    let mut text = "`scripts/bench all` writes this file from measurements.json; it is not edited by hand.\n\n\
                    # Measurements\n"
        .to_owned();
    made_on(&mut text, all);
    if let (Some(check), Some(lean)) = (all.get("cost_check"), all.get("cost_lean")) {
        text += "\n## Cost of an execution\n\n\
                 Target `btrfs-mount`, one guest. Times are medians where nothing else is said. Ratios are medians \
                 over pairs of\nblocks.\n\n";
        table(&mut text, &["what", "checking kernel", "lean kernel"], &COST, &[check, lean]);
    }
    if let Some(scale) = all.get("scale") {
        several_guests(&mut text, scale);
    }
    if let Some(exact) = all.get("exact") {
        text += "\n## Exact repeats\n\n\
                 Plans of `btrfs-mount`, `btrfs-rw` and `selftest`, crashing ones too, each in fresh guests.\n\n";
        table(&mut text, &["what", "value"], &EXACT, &[exact]);
    }
    if let Some(kernels) = all.get("kernels") {
        two_kernels(&mut text, kernels);
    }
    if let Some(steady) = all.get("steady") {
        text += "\n## A steady campaign\n\n`btrfs-rw` with two guests.\n\n";
        table(&mut text, &["what", "value"], &STEADY, &[steady]);
        text += "\nMedians of the quarters:\n\n";
        row(&mut text, ["quarter".to_owned()].into_iter().chain((1..=4).map(|quarter| quarter.to_string())));
        rule(&mut text, 5);
        for (words, place, unit) in TRENDS {
            let numbers = steady.pointer(place).and_then(Value::as_array).into_iter().flatten();
            let shown = numbers.map(|number| show(Some(number), unit));
            row(&mut text, [words.to_owned()].into_iter().chain(shown));
        }
    }
    text
}

/// Writes on what each measurement was made.
fn made_on(text: &mut String, all: &Map<String, Value>) {
    *text += "\n";
    row(text, ["measurement", "commit", "host", "QEMU"].map(str::to_owned));
    rule(text, 4);
    for (name, value) in all {
        let word = |key: &str| {
            let places = [format!("/measured/{key}"), format!("/measured/0/{key}"), format!("/{key}")];
            let found = places.iter().find_map(|place| value.pointer(place)?.as_str());
            found.unwrap_or("–").replace('|', "/")
        };
        row(text, [name.clone(), word("commit"), word("host"), word("qemu")]);
    }
}

fn several_guests(text: &mut String, scale: &Value) {
    let steps = scale["steps"].as_array().map_or(&[][..], Vec::as_slice);
    *text += "\n## Several guests\n\n\
              Target `btrfs-mount`, lean kernel. Guests are bound to the processors in turn. One guest is the mean of \
              one on each.\n\n";
    let column = |key: &'static str| steps.iter().map(move |step| show(step.get(key), Plain("")));
    row(text, ["guests".to_owned()].into_iter().chain(column("guests")));
    rule(text, steps.len() + 1);
    row(text, ["executions per second, mean".to_owned()].into_iter().chain(column("rate_per_s")));
    row(text, ["over one guest".to_owned()].into_iter().chain(column("to_one")));
    *text += "\n";
    let rows: [Row; 2] = [
        (
            "start of `fuzz` until the end of the first execution, cache filled",
            "/start_to_first_execution_s",
            Plain(" s"),
        ),
        ("memory that a guest has written to, the rest is shared", "/private_mib_per_guest", Plain(" MiB")),
    ];
    table(text, &["what", "value"], &rows, &[scale]);
}

fn two_kernels(text: &mut String, kernels: &Value) {
    *text += "\n## Two kernels against one\n\n\
              An explorer and a checker, against two guests on the checking kernel. Median seconds until the crash was \
              found; a dash\nwhere most campaigns did not find it.\n\n";
    row(text, ["target", "seconds each", "crash", "two kernels", "checking kernel alone"].map(str::to_owned));
    rule(text, 5);
    for target in kernels["targets"].as_array().into_iter().flatten() {
        for (title, found) in target["found"].as_object().into_iter().flatten() {
            let target_name = format!("`{}`", target["target"].as_str().unwrap_or("–"));
            let seconds = |key: &str| show(found.get(key), Plain(""));
            let (two, alone) = (seconds("two_kernels_median_s"), seconds("checking_alone_median_s"));
            row(text, [target_name, show(target.get("seconds_each"), Plain("")), title.clone(), two, alone]);
        }
    }
}

fn table(text: &mut String, head: &[&str], rows: &[Row], values: &[&Value]) {
    row(text, head.iter().map(ToString::to_string));
    rule(text, head.len());
    for (words, place, unit) in rows {
        let shown = values.iter().map(|value| show(value.pointer(place), *unit));
        row(text, [(*words).to_owned()].into_iter().chain(shown));
    }
}

fn row(text: &mut String, cells: impl IntoIterator<Item = String>) {
    let cells: Vec<_> = cells.into_iter().collect();
    let _ = writeln!(text, "| {} |", cells.join(" | "));
}

fn rule(text: &mut String, columns: usize) {
    row(text, vec!["---".to_owned(); columns]);
}

/// Gives a number with three significant digits, and a dash where there is none.
fn show(value: Option<&Value>, unit: Unit) -> String {
    let Some(value) = value.filter(|value| !value.is_null()) else { return "–".to_owned() };
    let Some(number) = value.as_f64() else { return value.to_string() };
    let (number, behind) = match unit {
        Plain(behind) => (number, behind),
        Mib => (number / 1024.0, " MiB"),
        Percent => (number / 10_000.0, " %"),
    };
    let decimals = match number.abs() {
        _ if number.fract() == 0.0 => 0,
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    format!("{number:.decimals$}{behind}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_have_three_digits_and_their_unit() {
        let shown = |value: Value, unit| show(Some(&value), unit);
        assert_eq!(shown(json!(58.72), Plain(" ms")), "58.7 ms");
        assert_eq!(shown(json!(0.8512), Plain("")), "0.851");
        assert_eq!(shown(json!(30740), Plain("")), "30740");
        assert_eq!(shown(json!(177_152), Mib), "173 MiB");
        assert_eq!(shown(json!(11_000), Percent), "1.10 %");
        assert_eq!((shown(Value::Null, Mib), show(None, Mib)), ("–".to_owned(), "–".to_owned()));
    }

    /// `bench all` writes both: whoever edits one of them by hand is told.
    #[test]
    fn the_paper_is_that_of_the_figures() {
        let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/");
        let read = |name: &str| std::fs::read_to_string(format!("{docs}{name}")).unwrap();
        let all: Value = serde_json::from_str(&read("measurements.json")).unwrap();
        assert_eq!(read("measurements.md"), paper(all.as_object().unwrap()));
    }

    #[test]
    fn a_paper_has_what_was_measured_and_nothing_else() {
        let measured = json!({ "commit": "abc", "host": "2 x CPU", "qemu": "QEMU 7" });
        let all = json!({
            "exact": { "measured": [measured], "plans": 21, "runs_each": 10, "one_title": 21, "one_execution": 20 },
            "steady": { "commit": "def", "executions": 5, "resident_mib": { "quarters": [1, 2, 3, 4] } },
        });
        let text = paper(all.as_object().unwrap());
        assert!(
            text.contains("| exact | abc | 2 x CPU | QEMU 7 |") && text.contains("| steady | def | – | – |"),
            "{text}"
        );
        assert!(text.contains("in all runs | 20 |") && text.contains("process, MiB | 1 | 2 | 3 | 4 |"), "{text}");
        assert!(!text.contains("## Cost") && !text.contains("## Several"), "{text}");
    }
}
