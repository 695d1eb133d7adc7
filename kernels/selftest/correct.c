// SPDX-License-Identifier: GPL-2.0
/*
 * Correct code: whatever fails here, nothing may crash. It shows that faults go
 * where the plan says, and never where the kernel promises that calls succeed.
 */
#include <linux/bug.h>
#include <linux/errno.h>
#include <linux/fs.h>
#include <linux/gfp.h>
#include <linux/highmem.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/types.h>

#include "selftest.h"

/* --- clean: the same kind of unwinding as in bugs.c, done right. */

struct selftest_volume {
	char *label;
	u64 *table;
	unsigned long page;
	void *journal;
};

static noinline int selftest_volume_label(struct selftest_volume *volume)
{
	volume->label = kstrdup("clean", GFP_KERNEL);
	return volume->label ? 0 : -ENOMEM;
}

static noinline int selftest_volume_table(struct selftest_volume *volume)
{
	volume->table = kcalloc(32, sizeof(u64), GFP_KERNEL);
	return volume->table ? 0 : -ENOMEM;
}

static noinline int selftest_volume_page(struct selftest_volume *volume)
{
	volume->page = __get_free_page(GFP_KERNEL);
	return volume->page ? 0 : -ENOMEM;
}

static noinline int selftest_volume_journal(struct selftest_volume *volume)
{
	volume->journal = kzalloc(1024, GFP_KERNEL);
	return volume->journal ? 0 : -ENOMEM;
}

/* Returns 0, or -ENOMEM when any of its five allocations fails. */
noinline int selftest_clean(void)
{
	struct selftest_volume *volume;
	int err;

	volume = kzalloc(sizeof(*volume), GFP_KERNEL);
	if (!volume)
		return -ENOMEM;
	err = selftest_volume_label(volume);
	if (err)
		goto free_volume;
	err = selftest_volume_table(volume);
	if (err)
		goto free_label;
	err = selftest_volume_page(volume);
	if (err)
		goto free_table;
	err = selftest_volume_journal(volume);
	if (err)
		goto free_page;

	kfree(volume->journal);
free_page:
	free_page(volume->page);
free_table:
	kfree(volume->table);
free_label:
	kfree(volume->label);
free_volume:
	kfree(volume);
	return err;
}

/* --- nofail: an allocation that the kernel promises never to fail. */

static noinline u64 *selftest_nofail_alloc(void)
{
	return kmalloc(224, GFP_KERNEL | __GFP_NOFAIL);
}

/* Always returns 0: a crash here is the injector's fault. */
noinline int selftest_nofail(void)
{
	u64 *counter = selftest_nofail_alloc();

	WRITE_ONCE(*counter, 1);
	kfree(counter);
	return 0;
}

/* --- nofail_page: a page that the kernel promises to find. */

static noinline struct page *selftest_nofail_page_alloc(void)
{
	return alloc_page(GFP_KERNEL | __GFP_NOFAIL);
}

/* Always returns 0: a crash here is the injector's fault. */
noinline int selftest_nofail_page(void)
{
	struct page *page = selftest_nofail_page_alloc();

	clear_highpage(page);
	__free_page(page);
	return 0;
}

/* --- nofail_folio: the page cache may refuse one folio, and not the other. */

static noinline int selftest_folio_may_add(struct folio *folio)
{
	return filemap_add_folio(selftest_inode->i_mapping, folio, 0, GFP_KERNEL);
}

static noinline int selftest_folio_must_add(struct folio *folio)
{
	int err = filemap_add_folio(selftest_inode->i_mapping, folio, 0,
				    GFP_KERNEL | __GFP_NOFAIL);

	WARN_ON(err);
	return err;
}

static noinline int selftest_folio(int (*add)(struct folio *folio))
{
	struct folio *folio = filemap_alloc_folio(GFP_KERNEL, 0);
	int err;

	if (!folio)
		return -ENOMEM;
	err = add(folio);
	if (!err) {
		filemap_remove_folio(folio);
		folio_unlock(folio);
	}
	folio_put(folio);
	return err;
}

/*
 * Returns 0, or the error of selftest_folio_may_add(), or -ENOMEM when there
 * are no folios. A warning here is the injector's fault.
 */
noinline int selftest_nofail_folio(void)
{
	int err = selftest_folio(selftest_folio_may_add);

	if (err)
		return err;
	return selftest_folio(selftest_folio_must_add);
}

/* --- bootstrap: the cache that all caches are allocated from. */

/* A cache that has a constructor is not merged with another one. */
static void selftest_cache_init(void *object)
{
	memset(object, 0, sizeof(u64));
}

static noinline struct kmem_cache *selftest_cache_create(void)
{
	return kmem_cache_create("fuzz_selftest", sizeof(u64), 0, 0,
				 selftest_cache_init);
}

/* Returns 0, or -ENOMEM when an allocation from any other cache fails. */
noinline int selftest_bootstrap(void)
{
	struct kmem_cache *cache = selftest_cache_create();

	if (!cache)
		return -ENOMEM;
	kmem_cache_destroy(cache);
	return 0;
}

/* --- reachable: one allocation, two ways to it. */

static noinline void *selftest_inner_alloc(void)
{
	return kzalloc(288, GFP_KERNEL);
}

static noinline int selftest_path_a(void)
{
	void *memory = selftest_inner_alloc();

	if (!memory)
		return -EREMOTE;
	kfree(memory);
	return 0;
}

static noinline int selftest_path_b(void)
{
	void *memory = selftest_inner_alloc();

	if (!memory)
		return -EXDEV;
	kfree(memory);
	return 0;
}

/*
 * Returns -EREMOTE when the allocation below selftest_path_a() fails, -EXDEV
 * when the one below selftest_path_b() does, else 0. Path a comes first.
 */
noinline int selftest_reachable(void)
{
	int err = selftest_path_a();

	if (err)
		return err;
	return selftest_path_b();
}

/* --- occurrence: one call path, walked five times. */

#define OCCURRENCES 5

static noinline void *selftest_occurrence_alloc(void)
{
	return kzalloc(352, GFP_KERNEL);
}

/*
 * Returns -(100 + n) when the n-th of its five allocations fails, n from 1:
 * -ENETUNREACH, -ENETRESET, -ECONNABORTED, -ECONNRESET, -ENOBUFS; else 0.
 */
noinline int selftest_occurrence(void)
{
	int n;

	for (n = 1; n <= OCCURRENCES; n++) {
		void *memory = selftest_occurrence_alloc();

		if (!memory)
			return -(100 + n);
		kfree(memory);
	}
	return 0;
}

/* --- drift: no bug, but a failure that is remembered for good. */

static bool selftest_drifted;

static noinline int selftest_drift_alloc(void)
{
	void *entry = kmalloc(64, GFP_KERNEL);

	if (!entry) {
		selftest_drifted = true;
		return -ENOMEM;
	}
	kfree(entry);
	return 0;
}

/* Makes one allocation, or forty ever after one has failed. */
noinline int selftest_drift(void)
{
	int left, err;

	for (left = selftest_drifted ? 40 : 1; left; left--) {
		err = selftest_drift_alloc();
		if (err)
			return err;
	}
	return 0;
}
