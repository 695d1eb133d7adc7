//! QEMU's monitor protocol (QMP): one JSON object a line.

use serde_json::{Value, json};

/// The longest line that is read, in bytes. QEMU's are far shorter.
const LINE_MAX_BYTES: usize = 1 << 20;

/// A line from QEMU, as far as guests need it.
#[derive(Debug, PartialEq)]
pub(super) enum Line {
    /// The answer to the command with this number.
    Reply {
        /// The number the command carried.
        id: u64,
        /// Value that the command returned, or the reason for its refusal.
        result: Result<Value, String>,
    },
    /// Something that happened.
    Event(Event),
    /// Greetings, events that nobody waits for, and what is no QMP.
    Other,
}

/// Something that happened to a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// It stopped by itself: reset, panic, power off.
    Ended,
    /// A state is saved or loaded.
    Migrated,
    /// A state could not be saved or loaded.
    MigrationFailed,
}

impl Line {
    pub(super) fn parse(line: &[u8]) -> Self {
        let Ok(value) = serde_json::from_slice::<Value>(line) else { return Self::Other };
        if let Some(name) = value.get("event").and_then(Value::as_str) {
            let status = value.pointer("/data/status").and_then(Value::as_str).unwrap_or_default();
            return match (name, status) {
                // A host that ends QEMU by a signal says nothing of the guest.
                ("SHUTDOWN", _) if value.pointer("/data/guest") == Some(&Value::Bool(false)) => Self::Other,
                ("SHUTDOWN" | "GUEST_PANICKED", _) => Self::Event(Event::Ended),
                ("MIGRATION", "completed") => Self::Event(Event::Migrated),
                ("MIGRATION", "failed") => Self::Event(Event::MigrationFailed),
                _ => Self::Other,
            };
        }
        let Some(id) = value.get("id").and_then(Value::as_u64) else { return Self::Other };
        if let Some(returned) = value.get("return") {
            return Self::Reply { id, result: Ok(returned.clone()) };
        }
        match value.pointer("/error/desc").and_then(Value::as_str) {
            Some(reason) => Self::Reply { id, result: Err(reason.to_owned()) },
            None => Self::Other,
        }
    }
}

/// A command as a line.
pub(super) fn command(id: u64, name: &str, arguments: &Value) -> String {
    let mut line = json!({ "execute": name, "arguments": arguments, "id": id }).to_string();
    line.push('\n');
    line
}

/// Cuts a stream into lines.
#[derive(Debug, Default)]
pub(super) struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    /// Adds what was read and returns the lines that it completes. A line that is too long is cut
    /// into pieces, which are no QMP.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut complete = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.partial.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.partial.len() > LINE_MAX_BYTES {
                complete.push(std::mem::take(&mut self.partial));
            }
        }
        complete
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_are_told_apart() {
        let reply = |text: &str| Line::parse(text.as_bytes());
        assert_eq!(reply(r#"{"return": {"a": 1}, "id": 3}"#), Line::Reply { id: 3, result: Ok(json!({"a": 1})) });
        assert_eq!(
            reply(r#"{"id": 4, "error": {"class": "GenericError", "desc": "no such fd"}}"#),
            Line::Reply { id: 4, result: Err("no such fd".to_owned()) }
        );
        let shutdown = r#"{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "SHUTDOWN",
            "data": {"guest": true, "reason": "guest-reset"}}"#;
        assert_eq!(reply(shutdown), Line::Event(Event::Ended));
        let killed = r#"{"event": "SHUTDOWN", "data": {"guest": false, "reason": "host-signal"}}"#;
        assert_eq!(reply(killed), Line::Other);
        assert_eq!(reply(r#"{"event": "GUEST_PANICKED", "data": {}}"#), Line::Event(Event::Ended));
        let migration = |status| reply(&format!(r#"{{"event": "MIGRATION", "data": {{"status": "{status}"}}}}"#));
        assert_eq!(migration("active"), Line::Other);
        assert_eq!(migration("completed"), Line::Event(Event::Migrated));
        assert_eq!(migration("failed"), Line::Event(Event::MigrationFailed));
    }

    #[test]
    fn what_nobody_waits_for_is_other() {
        for text in [
            r#"{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}}, "capabilities": ["oob"]}}"#,
            r#"{"event": "RESUME"}"#,
            r#"{"return": {}}"#,
            r#"{"id": -1, "return": {}}"#,
            r#"{"id": 1}"#,
            "not json",
            "",
        ] {
            assert_eq!(Line::parse(text.as_bytes()), Line::Other, "{text}");
        }
    }

    #[test]
    fn a_command_is_one_line() {
        let line = command(7, "migrate", &json!({ "uri": "exec:cat >\n" }));
        assert_eq!(line.matches('\n').count(), 1);
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&value["execute"], &value["id"]), (&json!("migrate"), &json!(7)));
    }

    #[test]
    fn an_endless_line_is_cut() {
        let mut lines = Lines::default();
        let piece = vec![b'x'; LINE_MAX_BYTES];
        assert!(lines.push(&piece).is_empty());
        assert_eq!(lines.push(&piece).len(), 1);
        assert!(lines.partial.is_empty());
    }

    proptest! {
        #[test]
        fn lines_come_out_whole_however_they_come_in(
            texts in prop::collection::vec("[a-z]{0,8}", 0..8), chunk in 1usize..9,
        ) {
            let stream: Vec<u8> = texts.iter().flat_map(|text| format!("{text}\n").into_bytes()).collect();
            let mut lines = Lines::default();
            let found: Vec<Vec<u8>> = stream.chunks(chunk).flat_map(|bytes| lines.push(bytes)).collect();
            let expected: Vec<Vec<u8>> = texts.iter().map(|text| format!("{text}\n").into_bytes()).collect();
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn no_line_makes_it_panic(line in prop::collection::vec(any::<u8>(), 0..200)) {
            Line::parse(&line);
        }
    }
}
