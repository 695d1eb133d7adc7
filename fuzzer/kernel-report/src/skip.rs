//! Functions that never are the culprit: a title names the first function of a trace that is not
//! among them.
//!
//! A name ending in `*` stands for all that start so. Compiler suffixes are gone already.

mod helpers;
mod reporting;
mod standing;

use self::{
    helpers::{FRAMELESS, HELPERS},
    reporting::REPORTING,
    standing::{ENTRY, IDLE, SPINNING, WAITING},
};

/// Says whether a processor that is in `function`, or below it, has nothing to do.
pub(super) fn idles(function: &str) -> bool {
    is_among(function, IDLE)
}

/// Says whether a processor stands still in `function`.
pub(super) fn spins(function: &str) -> bool {
    is_among(function, SPINNING)
}

/// Says whether everybody comes by `function`.
pub(super) fn is_entry(function: &str) -> bool {
    is_among(function, ENTRY)
}

/// Says whether a title never names `function`. In a report about something that `waits`, a title
/// does not name functions that wait either.
pub(super) fn is_skipped(function: &str, waits: bool) -> bool {
    is_reporting(function)
        || is_among(function, HELPERS)
        || is_frameless(function)
        || waits && is_among(function, WAITING)
}

/// Functions that register, name or start something for whoever calls them. When one fails, its
/// caller is who must undo what was done before.
const INFRASTRUCTURE: &[&str] = &[
    // devices and sysfs
    "bdi_*",
    "super_setup_bdi_name",
    "fprop_*",
    "device_*",
    "dev_set_name",
    "kobject_*",
    "kset_*",
    "kernfs_*",
    "__kernfs_*",
    "sysfs_*",
    "__sysfs_*",
    "internal_create_*",
    "debugfs_*",
    "proc_create*",
    // threads and work
    "kthread_*",
    "__kthread_*",
    "__alloc_workqueue",
    "init_srcu_struct*",
    // numbers and trees
    "idr_*",
    "ida_*",
    "xa_*",
    "__xa_*",
    "xas_*",
    "__xas_*",
    "radix_tree_*",
    "__radix_tree_*",
    "rhashtable_*",
    // other services
    "crypto_*",
    "shrinker_*",
    "filemap_add_folio",
    "submit_bio*",
    "__submit_bio*",
    "submit_bh*",
];

/// Says whether what `function` was called for says more of a failure in it than its own name:
/// infrastructure, and what is called so because it allocates (`bdi_alloc`, `btrfs_alloc_path`).
pub(super) fn is_service(function: &str) -> bool {
    is_among(function, INFRASTRUCTURE) || function.split('_').any(|word| word == "alloc")
}

/// Says whether `function` only takes part in reporting.
pub(super) fn is_reporting(function: &str) -> bool {
    is_among(function, REPORTING)
}

/// Says whether `function` has no frame of its own.
pub(super) fn is_frameless(function: &str) -> bool {
    is_among(function, FRAMELESS)
}

fn is_among(function: &str, names: &[&str]) -> bool {
    names.iter().any(|name| match name.strip_suffix('*') {
        Some(start) => function.starts_with(start),
        None => function == *name,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_only_at_the_end_and_nothing_is_listed_twice() {
        let mut seen = std::collections::BTreeSet::new();
        for name in [REPORTING, HELPERS, FRAMELESS, WAITING, INFRASTRUCTURE].concat() {
            assert!(!name.trim_end_matches('*').contains('*') && !name.ends_with("**"), "{name}");
            assert!(seen.insert(name), "{name} is there twice");
        }
        for name in ["cancel_delayed_work_sync", "__cancel_work_timer", "srso_alias_return_thunk"] {
            assert!(is_skipped(name, true) && !is_skipped(name, false), "{name}");
        }
        assert!(is_skipped("_find_next_bit", false) && is_skipped("memset_orig", false));
    }

    #[test]
    fn who_uses_a_service_says_more_than_the_service() {
        for service in
            ["bdi_alloc", "device_create_groups_vargs", "__kernfs_new_node", "btrfs_alloc_path", "submit_bh_wbc"]
        {
            assert!(is_service(service), "{service}");
        }
        for user in ["super_setup_bdi", "open_ctree", "btrfs_init_workqueues", "allocate_slab"] {
            assert!(!is_service(user), "{user}");
        }
    }

    #[test]
    fn a_star_stands_for_any_ending() {
        assert!(is_skipped("kasan_report", false));
        assert!(is_skipped("down", false) && is_skipped("down_read_nested", false));
        assert!(!is_skipped("downstream", false));
        assert!(!is_skipped("schedule_timeout", false) && is_skipped("schedule_timeout", true));
        assert!(is_skipped("kfree", false) && !is_reporting("kfree"));
        assert!(!is_skipped("open_ctree", true));
    }
}
