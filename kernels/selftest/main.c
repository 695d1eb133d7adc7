// SPDX-License-Identifier: GPL-2.0
/*
 * /sys/kernel/debug/fuzz_selftest: one write-only file per trigger. Writing
 * anything runs the trigger in the writer's context; write() returns the length
 * or the trigger's error. The file system fuzz_selftest has bugs of its own.
 */
#include <linux/dcache.h>
#include <linux/debugfs.h>
#include <linux/err.h>
#include <linux/fs.h>
#include <linux/init.h>
#include <linux/kernel.h>

#include "selftest.h"

struct inode *selftest_inode;

struct selftest_trigger {
	const char *name;
	int (*run)(void);
};

static const struct selftest_trigger triggers[] = {
	{ "null_deref", selftest_null_deref },
	{ "unwind_uaf", selftest_unwind_uaf },
	{ "two_faults", selftest_two_faults },
	{ "hang", selftest_hang },
	{ "warn", selftest_warn },
	{ "two_warns", selftest_two_warns },
	{ "off_list", selftest_off_list },
	{ "retries", selftest_retries },
	{ "leak", selftest_leak },
	{ "lock_kept", selftest_lock_kept },
	{ "wrong_errno", selftest_wrong_errno },
	{ "work_item", selftest_work_item },
	{ "thread", selftest_thread },
	{ "late_work", selftest_late_work },
	{ "clean", selftest_clean },
	{ "nofail", selftest_nofail },
	{ "nofail_page", selftest_nofail_page },
	{ "nofail_folio", selftest_nofail_folio },
	{ "bootstrap", selftest_bootstrap },
	{ "reachable", selftest_reachable },
	{ "occurrence", selftest_occurrence },
	{ "drift", selftest_drift },
};

static ssize_t selftest_write(struct file *file, const char __user *buffer,
			      size_t length, loff_t *offset)
{
	const struct selftest_trigger *trigger = file->private_data;
	int err = trigger->run();

	return err ? err : length;
}

static const struct file_operations selftest_operations = {
	.open = simple_open,
	.write = selftest_write,
	.llseek = noop_llseek,
};

static int __init selftest_init(void)
{
	struct dentry *folder = debugfs_create_dir("fuzz_selftest", NULL);
	int err, i;

	if (IS_ERR(folder))
		return PTR_ERR(folder);
	selftest_inode = d_inode(folder);
	for (i = 0; i < ARRAY_SIZE(triggers); i++)
		debugfs_create_file(triggers[i].name, 0200, folder,
				    (void *)&triggers[i], &selftest_operations);
	err = selftest_filesystem_init();
	if (err)
		return err;
	return selftest_async_init();
}
late_initcall(selftest_init);
