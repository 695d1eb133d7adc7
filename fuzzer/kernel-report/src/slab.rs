//! Reports of the slab allocator about itself (`mm/slub.c`, 6.12).

/// Defect that the allocator reports.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Defect<'log> {
    /// The defect in words that have no numbers.
    pub(super) words: &'log str,
    /// The cache.
    pub(super) cache: String,
    /// True when the function that the trace shows has done it: it frees what it may not free. Else
    /// the damage is somebody else's, and the trace shows who noticed.
    pub(super) is_callers: bool,
}

/// Wordings of the allocator, each by its start: words for titles, and whether the caller has done
/// it. They are the arguments of `slab_err()`, `object_err()` and `slab_bug()`. KASAN has the same
/// words for what both see.
const WORDINGS: &[(&str, &str, bool)] = &[
    // free_debug_processing(), free_consistency_checks()
    ("Slab has ", "double-free", true),
    ("Object already free", "double-free", true),
    ("Invalid object pointer ", "invalid-free", true),
    ("Attempt to free object(", "invalid-free", true),
    ("No slab cache for object ", "invalid-free", true),
    ("page slab pointer corrupt", "free to another cache", true),
    ("Bulk free expected ", "corrupt list of a bulk free", false),
    // check_slab(), on_freelist(), alloc_consistency_checks()
    ("Not a valid slab page", "no slab page", false),
    ("objects ", "wrong number of objects", false),
    ("inuse ", "wrong number of objects", false),
    ("Wrong number of objects", "wrong number of objects", false),
    ("Wrong object count", "wrong number of objects", false),
    ("Slab disabled since ", "damaged slab", false),
    ("Freechain corrupt", "corrupt free list", false),
    ("Freepointer corrupt", "corrupt free list", false),
    ("Freelist Pointer check fails", "corrupt free list", false),
    // slab_pad_check(), check_bytes_and_report(); list_slab_objects()
    ("Padding overwritten", "Padding overwritten", false),
    ("Objects remaining ", "Objects remaining", false),
];

/// Reads the defect in `header`: "BUG kmalloc-96 (Tainted: G B): Slab has 0 allocated objects but 1
/// are to be freed". `detail` is what was printed above it and says more.
pub(super) fn defect<'log>(header: &'log str, detail: Option<&'log str>) -> Defect<'log> {
    let cache = header.split(' ').nth(1).unwrap_or_default();
    // The number of a randomized cache differs from boot to boot (`CONFIG_RANDOM_KMALLOC_CACHES`).
    let random = cache.strip_prefix("kmalloc-rnd-").and_then(|rest| rest.split_once('-'));
    let cache = random.map_or_else(|| cache.to_owned(), |(_, size)| format!("kmalloc-{size}"));
    let what = header.split_once("): ").map_or("", |(_, what)| what);
    let wording = WORDINGS.iter().find(|(start, ..)| what.starts_with(start)).filter(|_| detail.is_none());
    match wording {
        Some((_, words, is_callers)) => Defect { words, cache, is_callers: *is_callers },
        None => {
            let words = detail.unwrap_or_else(|| what.split(['.', '@', '(']).next().unwrap_or_default()).trim();
            Defect { words, cache, is_callers: false }
        }
    }
}
