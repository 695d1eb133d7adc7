// SPDX-License-Identifier: GPL-2.0
/*
 * Planted bugs. Each stands for a mistake that real error paths make, and is
 * reached only when the allocation named above its trigger fails.
 */
#include <linux/bug.h>
#include <linux/errno.h>
#include <linux/mutex.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/types.h>

#include "selftest.h"

#define INDEX_SLOTS 24

struct selftest_index {
	char *name;
	u64 *slots;
	u64 *spare;
};

/* --- null_deref: selftest_index_slots() is checked on one path, not on the other. */

static noinline u64 *selftest_index_slots(void)
{
	return kmalloc_array(INDEX_SLOTS, sizeof(u64), GFP_KERNEL);
}

static noinline int selftest_index_fill(struct selftest_index *index)
{
	index->slots = selftest_index_slots();
	if (!index->slots)
		return -ENOMEM;
	index->slots[0] = 1;
	return 0;
}

/* The bug: the second table is taken to exist, since the first one does. */
static noinline void selftest_index_grow(struct selftest_index *index)
{
	index->spare = selftest_index_slots();
	index->spare[0] = index->slots[0];
}

static noinline void selftest_index_free(struct selftest_index *index)
{
	kfree(index->spare);
	kfree(index->slots);
	kfree(index->name);
	kfree(index);
}

/* Fail the allocation in selftest_index_slots() below selftest_index_grow(). */
noinline int selftest_null_deref(void)
{
	struct selftest_index *index;
	int err = -ENOMEM;

	index = kzalloc(sizeof(*index), GFP_KERNEL);
	if (!index)
		return err;
	index->name = kstrdup("null_deref", GFP_KERNEL);
	if (!index->name)
		goto out;
	err = selftest_index_fill(index);
	if (err)
		goto out;
	selftest_index_grow(index);
out:
	selftest_index_free(index);
	return err;
}

/* --- unwind_uaf: the unwinding forgets that freeing the session ends it. */

struct selftest_session {
	u64 *log;
	u64 *window;
	int state;
};

enum { SESSION_OPEN = 1, SESSION_DEAD };

static noinline void selftest_session_free(struct selftest_session *session)
{
	kfree(session->window);
	kfree(session->log);
	kfree(session);
}

static noinline int selftest_session_log(struct selftest_session *session)
{
	session->log = kzalloc(96, GFP_KERNEL);
	return session->log ? 0 : -ENOMEM;
}

static noinline int selftest_session_window(struct selftest_session *session)
{
	session->window = kzalloc(512, GFP_KERNEL);
	return session->window ? 0 : -ENOMEM;
}

/* The bug: the state is written after the session was freed. */
static noinline void selftest_session_abort(struct selftest_session *session)
{
	selftest_session_free(session);
	WRITE_ONCE(session->state, SESSION_DEAD);
}

/* Fail the allocation in selftest_session_window(). */
noinline int selftest_unwind_uaf(void)
{
	struct selftest_session *session;
	int err;

	session = kzalloc(sizeof(*session), GFP_KERNEL);
	if (!session)
		return -ENOMEM;
	err = selftest_session_log(session);
	if (err)
		goto free;
	err = selftest_session_window(session);
	if (err)
		goto abort;
	session->state = SESSION_OPEN;
free:
	selftest_session_free(session);
	return err;
abort:
	selftest_session_abort(session);
	return err;
}

/* --- two_faults: one fault takes the fallback, the second one breaks it. */

struct selftest_queue {
	u64 *ring;
	u32 slots;
};

static noinline int selftest_queue_large(struct selftest_queue *queue)
{
	queue->slots = 256;
	queue->ring = kmalloc(256 * sizeof(u64), GFP_KERNEL | __GFP_NOWARN);
	return queue->ring ? 0 : -ENOMEM;
}

static noinline int selftest_queue_small(struct selftest_queue *queue)
{
	queue->slots = 8;
	queue->ring = kmalloc(8 * sizeof(u64), GFP_KERNEL);
	return queue->ring ? 0 : -ENOMEM;
}

static noinline void selftest_queue_free(struct selftest_queue *queue)
{
	kfree(queue->ring);
	kfree(queue);
}

static noinline int selftest_queue_fallback(struct selftest_queue *queue)
{
	int err = selftest_queue_small(queue);

	if (err)
		selftest_queue_free(queue);
	return err;
}

/*
 * The bug: the fallback has already freed the queue when it fails. Fail the
 * allocations in selftest_queue_large() and in selftest_queue_small().
 */
noinline int selftest_two_faults(void)
{
	struct selftest_queue *queue;
	int err;

	queue = kzalloc(sizeof(*queue), GFP_KERNEL);
	if (!queue)
		return -ENOMEM;
	err = selftest_queue_large(queue);
	if (err)
		err = selftest_queue_fallback(queue);
	if (!err)
		queue->ring[0] = queue->slots;
	selftest_queue_free(queue);
	return err;
}

/* --- hang: the error path waits for somebody who was never started. */

struct selftest_request {
	u64 *payload;
	int done;
};

static noinline void selftest_request_wait(struct selftest_request *request)
{
	while (!READ_ONCE(request->done))
		cond_resched();
}

static noinline int selftest_request_start(struct selftest_request *request)
{
	request->payload = kzalloc(192, GFP_KERNEL);
	if (!request->payload)
		return -ENOMEM;
	WRITE_ONCE(request->done, 1);
	return 0;
}

/*
 * Fail the allocation in selftest_request_start(). The loop yields and never
 * sleeps: neither the soft lockup nor the hung task detector sees it.
 */
noinline int selftest_hang(void)
{
	struct selftest_request *request;
	int err;

	request = kzalloc(sizeof(*request), GFP_KERNEL);
	if (!request)
		return -ENOMEM;
	err = selftest_request_start(request);
	selftest_request_wait(request);
	kfree(request->payload);
	kfree(request);
	return err;
}

/* --- warn: the unwinding finds a count that the error path left behind. */

struct selftest_group {
	u64 *member;
	int members;
};

static noinline int selftest_group_join(struct selftest_group *group)
{
	group->members++;
	group->member = kzalloc(160, GFP_KERNEL);
	return group->member ? 0 : -ENOMEM;
}

static noinline void selftest_group_leave(struct selftest_group *group)
{
	kfree(group->member);
	group->members--;
}

static noinline void selftest_group_free(struct selftest_group *group)
{
	WARN_ON(group->members);
	kfree(group);
}

/* Fail the allocation in selftest_group_join(). */
noinline int selftest_warn(void)
{
	struct selftest_group *group;
	int err;

	group = kzalloc(sizeof(*group), GFP_KERNEL);
	if (!group)
		return -ENOMEM;
	err = selftest_group_join(group);
	if (!err)
		selftest_group_leave(group);
	selftest_group_free(group);
	return err;
}

/* --- two_warns: one clean-up, two counts that the error paths leave behind. */

struct selftest_pair {
	u64 *left;
	u64 *right;
	int lefts;
	int rights;
};

static noinline int selftest_pair_left(struct selftest_pair *pair)
{
	pair->lefts++;
	pair->left = kzalloc(72, GFP_KERNEL);
	return pair->left ? 0 : -ENOMEM;
}

static noinline int selftest_pair_right(struct selftest_pair *pair)
{
	pair->rights++;
	pair->right = kzalloc(136, GFP_KERNEL);
	return pair->right ? 0 : -ENOMEM;
}

static noinline void selftest_pair_part(struct selftest_pair *pair)
{
	kfree(pair->right);
	pair->rights--;
}

/* Two bugs show in this function, each by a check of its own. */
static noinline void selftest_pair_free(struct selftest_pair *pair)
{
	WARN_ON(pair->lefts);
	WARN_ON(pair->rights &&
		!pair->right);
	kfree(pair);
}

/*
 * Fail the allocation in selftest_pair_left() for the first check, that in
 * selftest_pair_right() for the second one.
 */
noinline int selftest_two_warns(void)
{
	struct selftest_pair *pair;
	int err;

	pair = kzalloc(sizeof(*pair), GFP_KERNEL);
	if (!pair)
		return -ENOMEM;
	err = selftest_pair_left(pair);
	if (err)
		goto out;
	err = selftest_pair_right(pair);
	if (!err)
		selftest_pair_part(pair);
	kfree(pair->left);
	pair->lefts--;
out:
	selftest_pair_free(pair);
	return err;
}

/* --- off_list: only a function fails that is on no list of those that may. */

struct selftest_account {
	u64 *entries;
	int limit;
	int used;
};

/* Fails for nobody here, and would have done nothing then. */
static noinline int selftest_account_charge(struct selftest_account *account,
					    int entries)
{
	if (account->used + entries > account->limit)
		return -EDQUOT;
	account->used += entries;
	return 0;
}

static noinline void selftest_account_free(struct selftest_account *account)
{
	kfree(account->entries);
	kfree(account);
}

/*
 * The bug: an account that cannot be charged is freed twice. Fail
 * selftest_account_charge().
 */
noinline int selftest_off_list(void)
{
	struct selftest_account *account;
	int err;

	account = kzalloc(sizeof(*account), GFP_KERNEL);
	if (!account)
		return -ENOMEM;
	account->limit = 100;
	err = selftest_account_charge(account, 1);
	if (err)
		selftest_account_free(account);
	selftest_account_free(account);
	return err;
}

/* --- retries: three attempts, and the last one's failure was never tried. */

static noinline u64 *selftest_retry_alloc(void)
{
	return kmalloc(608, GFP_KERNEL | __GFP_NOWARN);
}

/* The bug: three failures in a row. Fail selftest_retry_alloc() each time. */
noinline int selftest_retries(void)
{
	u64 *memory = NULL;
	int left;

	for (left = 3; left && !memory; left--)
		memory = selftest_retry_alloc();
	memory[0] = left;
	kfree(memory);
	return 0;
}

/* --- leak: the unwinding forgets one of two parts. */

struct selftest_parcel {
	u64 *label;
	u64 *content;
};

static noinline u64 *selftest_parcel_label(void)
{
	return kmalloc(800, GFP_KERNEL);
}

static noinline u64 *selftest_parcel_content(void)
{
	return kmalloc(880, GFP_KERNEL);
}

/* The bug: the label is lost. Fail the allocation in selftest_parcel_content(). */
static noinline int selftest_parcel_pack(struct selftest_parcel *parcel)
{
	parcel->label = selftest_parcel_label();
	if (!parcel->label)
		return -ENOMEM;
	parcel->content = selftest_parcel_content();
	return parcel->content ? 0 : -ENOMEM;
}

/* A leak and nothing else: nobody looks at what was lost again. */
noinline int selftest_leak(void)
{
	struct selftest_parcel *parcel;
	int err;

	parcel = kzalloc(sizeof(*parcel), GFP_KERNEL);
	if (!parcel)
		return -ENOMEM;
	err = selftest_parcel_pack(parcel);
	if (!err) {
		kfree(parcel->content);
		kfree(parcel->label);
	}
	kfree(parcel);
	return err;
}

/* --- lock_kept: the error path returns with a lock held. */

static DEFINE_MUTEX(selftest_ledger_lock);

static noinline u64 *selftest_ledger_page(void)
{
	return kmalloc(336, GFP_KERNEL);
}

/*
 * The bug: without memory the lock is not given back. Fail the allocation in
 * selftest_ledger_page().
 */
noinline int selftest_lock_kept(void)
{
	u64 *page;

	mutex_lock(&selftest_ledger_lock);
	page = selftest_ledger_page();
	if (!page)
		return -ENOMEM;
	kfree(page);
	mutex_unlock(&selftest_ledger_lock);
	return 0;
}

/* --- wrong_errno: an error that the kernel has for itself reaches its caller. */

#define SELFTEST_ENOTSUPP 524

/* The bug: the error is ENOTSUPP, not EOPNOTSUPP. Fail the allocation. */
noinline int selftest_wrong_errno(void)
{
	u64 *memory = kmalloc(928, GFP_KERNEL);

	if (!memory)
		return -SELFTEST_ENOTSUPP;
	kfree(memory);
	return 0;
}
