//! The likelihood that a fault happens in real life, and why.
//!
//! An allocation of one page or less that may wait (`GFP_KERNEL`) practically never fails: the page
//! allocator tries again and calls the OOM killer (`__alloc_pages_slowpath()` and
//! `should_reclaim_retry()` in `mm/page_alloc.c`, 6.12). One that may not wait, or of many pages in
//! one piece, does fail. I/O errors come with every worn disk.

use serde::Serialize;

/// The likelihood of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Chance {
    /// It happens in everyday life.
    Ordinary,
    /// It can happen.
    Possible,
    /// It practically never happens.
    Rare,
}

impl Chance {
    /// Gives it in words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Ordinary => "happens",
            Self::Possible => "can happen",
            Self::Rare => "practically never happens",
        }
    }
}

/// `___GFP_DIRECT_RECLAIM`, `___GFP_RETRY_MAYFAIL` and `___GFP_NORETRY`
/// (`include/linux/gfp_types.h`, 6.12; the same bits in `include/linux/gfp.h`, 6.1).
const GFP_DIRECT_RECLAIM: u64 = 1 << 10;
const GFP_RETRY_MAYFAIL: u64 = 1 << 14;
const GFP_NORETRY: u64 = 1 << 16;
/// `PAGE_ALLOC_COSTLY_ORDER` (`include/linux/mmzone.h`, 6.12): the allocator tries less for more.
const COSTLY_ORDER: u64 = 3;

/// Starts of the names of functions that only pass an allocation on.
#[rustfmt::skip]
const ALLOCATORS: &[&str] = &[
    "kmem_cache_", "__kmem_cache_", "__kmalloc", "___kmalloc", "kmalloc", "kvmalloc", "__kvmalloc", "krealloc",
    "mempool_", "new_slab", "allocate_slab", "___slab_alloc", "__slab_alloc", "alloc_pages", "__alloc_pages",
    "folio_alloc", "__folio_alloc", "get_free_pages", "__get_free_pages", "vmalloc", "__vmalloc", "kstrdup",
    "kmemdup", "xas_", "__xas_", "radix_tree_",
];

/// Callers that change how likely a failure is, each with the reason. A name ending in `*` stands
/// for all that start so. Only the allocator's functions and the first beyond them count.
#[rustfmt::skip]
const CALLERS: &[(&str, Chance, &str)] = &[
    ("mempool_alloc*", Chance::Ordinary,
        "the mempool's first attempt may not wait and does fail; the pool's reserve must step in"),
    ("xas_alloc", Chance::Ordinary, "xas_alloc() may not wait (lib/xarray.c), and such allocations do fail"),
    ("alloc_extent_state_atomic", Chance::Ordinary, "it is atomic (fs/btrfs/extent-io-tree.c), and such allocations do fail"),
    ("radix_tree_node_alloc", Chance::Ordinary, "it may not wait (lib/radix-tree.c), and such allocations do fail"),
    ("allocate_slab", Chance::Possible, "SLUB asks for a large page first, and takes a small one when that fails"),
    ("__kmalloc_large*", Chance::Possible, "kmalloc() of more than 8 KiB takes pages in one piece, which can fail"),
    ("___kmalloc_large*", Chance::Possible, "kmalloc() of more than 8 KiB takes pages in one piece, which can fail"),
];

/// Errors of functions that are no allocations, each with the reason.
const ERRORS: &[(&str, Chance, &str)] = &[
    ("EIO", Chance::Ordinary, "I/O errors happen: a disk is worn, unplugged or too slow"),
    ("ENOSPC", Chance::Ordinary, "a full disk is ordinary"),
    ("EDQUOT", Chance::Ordinary, "a used-up quota is ordinary"),
    ("EUCLEAN", Chance::Ordinary, "damaged blocks are read from worn disks"),
];

/// A fault as this module looks at it.
pub(crate) struct Failure<'a> {
    pub(crate) function: &'a str,
    pub(crate) error: Option<&'a str>,
    /// Innermost caller first.
    pub(crate) call_path: &'a [String],
    /// Arguments of the call, where they are known.
    pub(crate) arguments: &'a [u64],
    /// The kernel source that says when the function fails so, where that is known.
    pub(crate) contract: Option<&'a str>,
}

/// Says how likely a failure is, and why.
pub(crate) fn chance(failure: &Failure<'_>) -> (Chance, String) {
    let (flags, order) = match failure.function {
        "should_failslab" => (failure.arguments.get(1), Some(0)),
        "should_fail_alloc_page" => (failure.arguments.first(), failure.arguments.get(1).copied()),
        _ => return other(failure),
    };
    if let Some(order) = order.filter(|order| *order > COSTLY_ORDER) {
        return (Chance::Ordinary, format!("{} pages in one piece are often not there", 1_u64 << order.min(40)));
    }
    if let Some(flags) = flags {
        if flags & GFP_DIRECT_RECLAIM == 0 {
            return (Chance::Ordinary, format!("it may not wait (GFP flags {flags:#x}), and such allocations do fail"));
        }
        if flags & (GFP_NORETRY | GFP_RETRY_MAYFAIL) != 0 {
            return (Chance::Possible, format!("it asks not to try for long (GFP flags {flags:#x})"));
        }
    }
    // The allocator's own functions, and the first beyond them.
    let own = failure.call_path.iter().take_while(|function| is_allocator(function)).count();
    if let Some((chance, reason)) = failure.call_path.iter().take(own + 1).find_map(|function| rule(function)) {
        return (chance, reason.to_owned());
    }
    let known = if flags.is_some() { "" } else { ", as far as its callers tell" };
    let reason =
        format!("a small allocation that may wait{known}; only tasks that the OOM killer has chosen see it fail");
    (Chance::Rare, reason)
}

fn is_allocator(function: &str) -> bool {
    ALLOCATORS.iter().any(|start| function.starts_with(start))
}

fn rule(function: &str) -> Option<(Chance, &'static str)> {
    let fits = |name: &str| match name.strip_suffix('*') {
        Some(start) => function.starts_with(start),
        None => function == name,
    };
    CALLERS.iter().find(|(name, ..)| fits(name)).map(|(_, chance, reason)| (*chance, *reason))
}

/// Judges a function that is no allocator.
fn other(failure: &Failure<'_>) -> (Chance, String) {
    let found = ERRORS.iter().find(|(error, ..)| failure.error == Some(error));
    let (chance, mut reason) = match found {
        Some((_, chance, reason)) => (*chance, (*reason).to_owned()),
        None => (Chance::Possible, "the function is known to fail so".to_owned()),
    };
    if let Some(contract) = failure.contract {
        reason.push_str(&format!("; the source says when: {contract}"));
    }
    (chance, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(function: &str, error: &str, callers: &str, arguments: &[u64]) -> Chance {
        let call_path: Vec<_> = callers.split(' ').map(str::to_owned).collect();
        chance(&Failure { function, error: Some(error), call_path: &call_path, arguments, contract: None }).0
    }

    #[test]
    fn a_small_allocation_never_fails_and_others_do() {
        let small = "kmem_cache_alloc_noprof btrfs_alloc_path f";
        assert_eq!(of("should_failslab", "ENOMEM", small, &[]), Chance::Rare);
        // GFP_KERNEL and GFP_ATOMIC of 6.12.
        assert_eq!(of("should_failslab", "ENOMEM", small, &[1, 0xcc0]), Chance::Rare);
        assert_eq!(of("should_failslab", "ENOMEM", small, &[1, 0x820]), Chance::Ordinary);
        assert_eq!(of("should_fail_alloc_page", "true", "alloc_pages f", &[0xcc0, 0]), Chance::Rare);
        assert_eq!(of("should_fail_alloc_page", "true", "alloc_pages f", &[0xcc0, 4]), Chance::Ordinary);
        assert_eq!(of("should_fail_alloc_page", "true", "alloc_pages f", &[0xcc0, u64::MAX]), Chance::Ordinary);
    }

    #[test]
    fn callers_say_what_arguments_do_not() {
        let xarray = "kmem_cache_alloc_lru_noprof xas_alloc xas_create xas_store __filemap_add_folio";
        assert_eq!(of("should_failslab", "ENOMEM", xarray, &[]), Chance::Ordinary);
        let pool = "kmem_cache_alloc_noprof mempool_alloc_slab mempool_alloc_noprof bio_alloc_bioset f";
        assert_eq!(of("should_failslab", "ENOMEM", pool, &[]), Chance::Ordinary);
        let beyond = "kmem_cache_alloc_noprof btrfs_alloc_path f xas_alloc";
        assert_eq!(of("should_failslab", "ENOMEM", beyond, &[]), Chance::Rare, "another allocation's caller");
    }

    #[test]
    fn other_functions_fail_as_their_contract_says() {
        assert_eq!(of("should_fail_bio", "EIO", "submit_bio", &[]), Chance::Ordinary);
        let failure = Failure {
            function: "btrfs_update_inode",
            error: Some("ENOENT"),
            call_path: &[],
            arguments: &[],
            contract: Some("fs/btrfs/inode.c, 6.12"),
        };
        let (likely, reason) = chance(&failure);
        assert!(
            likely == Chance::Possible && reason.ends_with("the source says when: fs/btrfs/inode.c, 6.12"),
            "{reason}"
        );
    }
}
