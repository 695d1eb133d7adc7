/* SPDX-License-Identifier: GPL-2.0 */
#ifndef FUZZ_SELFTEST_H
#define FUZZ_SELFTEST_H

struct inode;

/*
 * Every function below main.c is noinline, so that it shows in a call path
 * under its own name. Callers stay on the stack because CONFIG_FRAME_POINTER
 * builds the kernel with -fno-optimize-sibling-calls.
 *
 * A trigger returns 0 or -errno. Unless an allocation fails, all return 0.
 */

/* Inode of the triggers' folder. Its page cache is empty. */
extern struct inode *selftest_inode;

/* bugs.c: one planted bug each, two in selftest_two_warns(). */
int selftest_null_deref(void);
int selftest_unwind_uaf(void);
int selftest_two_faults(void);
int selftest_hang(void);
int selftest_warn(void);
int selftest_two_warns(void);
int selftest_off_list(void);
int selftest_retries(void);
int selftest_leak(void);
int selftest_lock_kept(void);
int selftest_wrong_errno(void);

/* async.c: bugs outside of the task that runs the trigger. */
int selftest_work_item(void);
int selftest_thread(void);
int selftest_late_work(void);

/* Starts the thread that they need. Returns 0 or -errno. */
int selftest_async_init(void);

/* filesystem.c: bugs in what the disk holds. Returns 0 or -errno. */
int selftest_filesystem_init(void);

/* correct.c: no fault that the kernel allows may crash these. */
int selftest_clean(void);
int selftest_nofail(void);
int selftest_nofail_page(void);
int selftest_nofail_folio(void);
int selftest_bootstrap(void);
int selftest_reachable(void);
int selftest_occurrence(void);
int selftest_drift(void);

#endif
