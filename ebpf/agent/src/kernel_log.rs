//! The kernel's log of one execution, read from `/dev/kmsg`.

use std::{
    fs::{File, OpenOptions},
    io::{ErrorKind, Read, Seek, SeekFrom},
    os::unix::fs::OpenOptionsExt,
};

use anyhow::{Context, Result};
use guest_protocol::{LIMITS, LOG_LOST, cut};
use nix::libc::{EPIPE, O_NONBLOCK};

/// Larger than any record: `PRINTK_MESSAGE_MAX` of `kernel/printk/internal.h` (6.12) is 2048, with
/// a header and every byte written as four.
const RECORD_MAX_BYTES: usize = 16 << 10;

/// An open `/dev/kmsg`.
pub(crate) struct KernelLog {
    file: File,
    record: Vec<u8>,
    /// Time of the last record that was read, in microseconds.
    seen_us: u64,
}

impl KernelLog {
    /// Opens the log.
    pub(crate) fn open() -> Result<Self> {
        let file = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open("/dev/kmsg");
        Ok(Self { file: file.context("cannot open /dev/kmsg")?, record: vec![0; RECORD_MAX_BYTES], seen_us: 0 })
    }

    /// Leaves out everything logged until now.
    pub(crate) fn skip(&mut self) -> Result<()> {
        self.file.seek(SeekFrom::End(0)).map(|_| ()).context("cannot move to the end of /dev/kmsg")
    }

    /// Everything logged since, as lines of text like those on the console; cut off after
    /// [`guest_protocol::Limits::log_bytes`]. What is beyond that is left for the next time.
    pub(crate) fn read(&mut self) -> Result<String> {
        let mut log = String::new();
        while log.len() < LIMITS.log_bytes {
            match self.file.read(&mut self.record) {
                Ok(bytes) => {
                    let record = String::from_utf8_lossy(&self.record[..bytes]);
                    self.seen_us = time_us(&record).unwrap_or(self.seen_us);
                    append_record(&mut log, &record);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // The next read goes on with the oldest record that is left.
                Err(error) if error.raw_os_error() == Some(EPIPE) => log.push_str(LOG_LOST),
                Err(error) => return Err(error).context("cannot read /dev/kmsg"),
            }
        }
        Ok(cut(log, LIMITS.log_bytes))
    }

    /// Gives the time of the last record that was read, in microseconds of the kernel's log; 0
    /// where there was none.
    pub(crate) fn seen_us(&self) -> u64 {
        self.seen_us
    }
}

/// Gives the time in a record `level,sequence,time,flags;text`.
fn time_us(record: &str) -> Option<u64> {
    record.split_once(';')?.0.split(',').nth(2)?.parse().ok()
}

/// Appends the text of a record `level,sequence,time,flags;text` and of none of the `KEY=value`
/// lines that follow.
///
/// Mirrors `info_print_ext_header()` and `msg_print_ext_body()` of `kernel/printk/printk.c` (6.12):
/// what is no printable ASCII, and the backslash, is written as `\xNN`.
fn append_record(log: &mut String, record: &str) {
    let Some((_, body)) = record.split_once(';') else { return };
    let text = body.split('\n').next().unwrap_or_default();
    log.push_str(&unescaped(text));
    log.push('\n');
}

/// `text` with its escapes undone, but for those of control characters other than line feed and
/// tab.
fn unescaped(text: &str) -> String {
    if !text.contains('\\') {
        return text.to_owned();
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escaped = text_of_escape(after).filter(|_| *first == b'\\');
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &after[3..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The byte that `xNN` at the start of `text` stands for, when it is fit to print.
fn text_of_escape(text: &[u8]) -> Option<u8> {
    let digits = text.strip_prefix(b"x")?.get(..2)?;
    let digits = std::str::from_utf8(digits).ok()?;
    u8::from_str_radix(digits, 16).ok().filter(|byte| !byte.is_ascii_control() || matches!(byte, b'\n' | b'\t'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(record: &str) -> String {
        let mut log = String::new();
        append_record(&mut log, record);
        log
    }

    #[test]
    fn only_the_text_remains() {
        assert_eq!(text("6,339,5140900,-;BTRFS info (device ram0): a; b\n"), "BTRFS info (device ram0): a; b\n");
        assert_eq!(text("30,340,1,c,caller=T1;x\n SUBSYSTEM=acpi\n DEVICE=+acpi:PNP0A03:00\n"), "x\n");
        assert_eq!(text("no record at all"), "");
    }

    #[test]
    fn a_record_has_its_time() {
        assert_eq!(time_us("6,339,5140900,-;BTRFS info, 1,2,3\n"), Some(5_140_900));
        assert_eq!(time_us("no record, at, 7"), None);
    }

    #[test]
    fn escapes_are_undone() {
        assert_eq!(text("4,1,1,-;first\\x0asecond\\x09tab\\x5cx41\n"), "first\nsecond\ttab\\x41\n");
        assert_eq!(text("4,1,1,-;\\x4 \\xzz \\\n"), "\\x4 \\xzz \\\n");
        assert_eq!(text("4,1,1,-;\\x1b[2J\\x0d\\x00\\x7f\n"), "\\x1b[2J\\x0d\\x00\\x7f\n");
        assert_eq!(text("4,1,1,-;\\xc3\\xa9\\xff\n"), "é\u{fffd}\n");
    }
}
