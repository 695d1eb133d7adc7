// SPDX-License-Identifier: GPL-2.0
/*
 * Planted bugs in code that runs for the one who triggers it, and not in his
 * task: a work item, a kernel thread.
 */
#include <linux/compiler.h>
#include <linux/container_of.h>
#include <linux/err.h>
#include <linux/errno.h>
#include <linux/init.h>
#include <linux/jiffies.h>
#include <linux/kthread.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/types.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "selftest.h"

/* --- work_item: a work item takes its memory for granted. */

static noinline u64 *selftest_job_alloc(void)
{
	return kzalloc(416, GFP_KERNEL);
}

/* The bug: nobody asks whether there is memory. */
static noinline void selftest_job_run(struct work_struct *work)
{
	u64 *result = selftest_job_alloc();

	result[0] = 1;
	kfree(result);
}

/* Fail the allocation in selftest_job_alloc(), in the work item. */
noinline int selftest_work_item(void)
{
	struct work_struct work;

	INIT_WORK_ONSTACK(&work, selftest_job_run);
	schedule_work(&work);
	flush_work(&work);
	destroy_work_on_stack(&work);
	return 0;
}

/* --- thread: a kernel thread frees what it failed to make a part of. */

struct selftest_batch {
	u64 *items;
	int count;
};

static DECLARE_WAIT_QUEUE_HEAD(selftest_wait);
static bool selftest_asked;
static bool selftest_answered;

static noinline int selftest_batch_fill(struct selftest_batch *batch)
{
	batch->items = kzalloc(448, GFP_KERNEL);
	if (!batch->items) {
		kfree(batch);
		return -ENOMEM;
	}
	batch->count = 1;
	return 0;
}

/* The bug: selftest_batch_fill() has already freed the batch when it fails. */
static noinline void selftest_batch_work(void)
{
	struct selftest_batch *batch = kzalloc(sizeof(*batch), GFP_KERNEL);

	if (!batch)
		return;
	if (selftest_batch_fill(batch))
		WRITE_ONCE(batch->count, -1);
	else
		kfree(batch->items);
	kfree(batch);
}

static int selftest_thread_main(void *unused)
{
	for (;;) {
		wait_event_idle(selftest_wait, READ_ONCE(selftest_asked));
		WRITE_ONCE(selftest_asked, false);
		selftest_batch_work();
		WRITE_ONCE(selftest_answered, true);
		wake_up(&selftest_wait);
	}
	return 0;
}

/* Fail the allocation in selftest_batch_fill(), in the thread. */
noinline int selftest_thread(void)
{
	WRITE_ONCE(selftest_answered, false);
	WRITE_ONCE(selftest_asked, true);
	wake_up(&selftest_wait);
	wait_event(selftest_wait, READ_ONCE(selftest_answered));
	return 0;
}

/* --- late_work: a work item that nobody waits for. */

static void selftest_late_run(struct work_struct *work);
static DECLARE_DELAYED_WORK(selftest_late, selftest_late_run);

static noinline void *selftest_late_alloc(void)
{
	return kzalloc(480, GFP_KERNEL);
}

/* The bug: it tries again, and for ever. */
static noinline void selftest_late_run(struct work_struct *work)
{
	static bool failed;
	void *memory = failed ? NULL : selftest_late_alloc();

	failed = !memory;
	if (failed)
		schedule_work(work);
	kfree(memory);
}

/*
 * Returns before the work item runs. Fail the allocation in
 * selftest_late_alloc(): then the work never ends.
 */
noinline int selftest_late_work(void)
{
	schedule_delayed_work(&selftest_late, msecs_to_jiffies(20));
	return 0;
}

int __init selftest_async_init(void)
{
	struct task_struct *thread;

	thread = kthread_run(selftest_thread_main, NULL, "fuzz_selftest");
	return PTR_ERR_OR_ZERO(thread);
}
