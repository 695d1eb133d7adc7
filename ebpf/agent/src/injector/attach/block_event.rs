//! The trace event of a block device's requests, which tells what was written.

use std::fs;

use abi::block_event;
use anyhow::{Context, Result, bail};

use crate::kernel::trace_file;

const BLOCK_EVENT: &str = "events/block/block_bio_queue/format";

/// Compares the layout of the trace event with what the BPF program was built for.
pub(super) fn check() -> Result<()> {
    let path = trace_file(BLOCK_EVENT).context(
        "the trace event block/block_bio_queue is missing: is tracefs mounted, and CONFIG_BLOCK and CONFIG_FTRACE set?",
    )?;
    let format = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    if let Some(field) = moved_field(&format) {
        bail!("this kernel's trace event block/block_bio_queue has its field \"{field}\" elsewhere than expected");
    }
    Ok(())
}

/// The field of the event that is not where it is expected.
fn moved_field(format: &str) -> Option<&'static str> {
    let fields: [(&str, usize, usize); 4] = [
        ("dev_t dev", block_event::DEVICE, 4),
        ("sector_t sector", block_event::SECTOR, 8),
        ("unsigned int nr_sector", block_event::SECTORS, 4),
        ("char rwbs[", block_event::OPERATION, 1),
    ];
    fields.into_iter().find_map(|(field, offset, bytes)| {
        let line = format.lines().find(|line| line.contains(&format!("field:{field}")));
        let found = line.is_some_and(|line| {
            line.contains(&format!("offset:{offset};")) && (bytes == 1 || line.contains(&format!("size:{bytes};")))
        });
        (!found).then_some(field)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMAT: &str = "name: block_bio_queue\nID: 600\nformat:\n\
        \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\
        \n\
        \tfield:dev_t dev;\toffset:8;\tsize:4;\tsigned:0;\n\
        \tfield:sector_t sector;\toffset:16;\tsize:8;\tsigned:0;\n\
        \tfield:unsigned int nr_sector;\toffset:24;\tsize:4;\tsigned:0;\n\
        \tfield:char rwbs[8];\toffset:28;\tsize:8;\tsigned:0;\n";

    #[test]
    fn an_event_of_another_layout_is_noticed() {
        assert_eq!(moved_field(FORMAT), None);
        assert_eq!(moved_field(&FORMAT.replace("offset:16", "offset:12")), Some("sector_t sector"));
        assert_eq!(
            moved_field(&FORMAT.replace("size:4;\tsigned:0;\n\tfield:sector_t", "size:8;\n\tfield:sector_t")),
            Some("dev_t dev")
        );
        assert_eq!(moved_field(""), Some("dev_t dev"));
    }
}
