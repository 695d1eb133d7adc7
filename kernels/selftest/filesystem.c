// SPDX-License-Identifier: GPL-2.0
/*
 * A file system whose bugs show only in what the disk holds afterwards, or in
 * what stays behind. Its root has at most one file, of at most DATA_BLOCKS
 * blocks. What is written stays in memory until it is flushed.
 *
 * On disk: the head is in block 0, block n of the file in block n + 1. A disk
 * with another magic number is one without the file.
 */
#include <linux/buffer_head.h>
#include <linux/dcache.h>
#include <linux/errno.h>
#include <linux/fs.h>
#include <linux/fs_context.h>
#include <linux/init.h>
#include <linux/minmax.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/stat.h>
#include <linux/string.h>
#include <linux/types.h>
#include <linux/uio.h>

#include "selftest.h"

#define DATA_MAGIC 0x66757a7a64617461ULL
#define DATA_BLOCKS 16
#define BLOCK_SIZE_HERE 4096
#define ROOT_INODE 1
#define DATA_INODE 2

struct selftest_head {
	u64 magic;
	u64 size;
};

/* The file: its blocks that are not on the disk yet. */
struct selftest_data {
	u8 *blocks[DATA_BLOCKS];
};

/* --- lost_write: a block that could not be written, and nobody is told. */

static noinline int selftest_block_write(struct super_block *sb, int number,
					 const void *content, size_t bytes)
{
	/* Stands for the request that a real one would need. */
	u64 *request = kmalloc(720, GFP_KERNEL);
	struct buffer_head *head;
	int err;

	if (!request)
		return -ENOMEM;
	head = sb_getblk(sb, number);
	if (!head) {
		kfree(request);
		return -ENOMEM;
	}
	lock_buffer(head);
	memset(head->b_data, 0, head->b_size);
	memcpy(head->b_data, content, bytes);
	set_buffer_uptodate(head);
	unlock_buffer(head);
	mark_buffer_dirty(head);
	err = sync_dirty_buffer(head);
	brelse(head);
	kfree(request);
	return err;
}

static noinline int selftest_head_write(struct inode *inode)
{
	struct selftest_head head = {
		.magic = DATA_MAGIC,
		.size = i_size_read(inode),
	};

	return selftest_block_write(inode->i_sb, 0, &head, sizeof(head));
}

/*
 * The bug: the next block's result takes the place of this one's error. Fail
 * the allocation in selftest_block_write() below this function.
 */
static noinline int selftest_data_flush(struct inode *inode)
{
	struct selftest_data *data = inode->i_private;
	int err = 0;
	int i;

	for (i = 0; i < DATA_BLOCKS; i++) {
		if (!data->blocks[i])
			continue;
		err = selftest_block_write(inode->i_sb, i + 1, data->blocks[i],
					   BLOCK_SIZE_HERE);
		kfree(data->blocks[i]);
		data->blocks[i] = NULL;
	}
	err = selftest_head_write(inode);
	return err;
}

static int selftest_data_fsync(struct file *file, loff_t start, loff_t end,
			       int datasync)
{
	struct inode *inode = file_inode(file);
	int err;

	inode_lock(inode);
	err = selftest_data_flush(inode);
	inode_unlock(inode);
	return err;
}

static int selftest_sync_fs(struct super_block *sb, int wait)
{
	struct dentry *dentry = sb->s_fs_info;

	return wait && dentry ? selftest_data_flush(d_inode(dentry)) : 0;
}

/* --- stale_data: the file is longer before there is room for its data. */

static noinline u8 *selftest_block_alloc(void)
{
	return kzalloc(BLOCK_SIZE_HERE, GFP_KERNEL);
}

static int selftest_block_read(struct super_block *sb, int index, u8 *block)
{
	struct buffer_head *head = sb_bread(sb, index + 1);

	if (!head)
		return -EIO;
	memcpy(block, head->b_data, BLOCK_SIZE_HERE);
	brelse(head);
	return 0;
}

/* Finds or makes a block of the file in memory. Returns 0 or -errno. */
static noinline int selftest_block_get(struct inode *inode, int index,
				       loff_t old_size)
{
	struct selftest_data *data = inode->i_private;
	int err = 0;

	if (data->blocks[index])
		return 0;
	data->blocks[index] = selftest_block_alloc();
	if (!data->blocks[index])
		return -ENOMEM;
	if ((loff_t)index * BLOCK_SIZE_HERE < old_size)
		err = selftest_block_read(inode->i_sb, index,
					  data->blocks[index]);
	return err;
}

/*
 * The bug: the size is not set back when there is no memory. Fail the
 * allocation in selftest_block_alloc(): the file then shows what the disk held
 * before.
 */
static noinline ssize_t selftest_data_write(struct inode *inode, loff_t at,
					    struct iov_iter *from)
{
	struct selftest_data *data = inode->i_private;
	loff_t old_size = i_size_read(inode);
	size_t bytes = iov_iter_count(from);
	size_t left = bytes;

	if (at + bytes > DATA_BLOCKS * BLOCK_SIZE_HERE)
		return -EFBIG;
	i_size_write(inode, max_t(loff_t, old_size, at + bytes));
	while (left) {
		int index = at / BLOCK_SIZE_HERE;
		size_t offset = at % BLOCK_SIZE_HERE;
		size_t some = min_t(size_t, left, BLOCK_SIZE_HERE - offset);
		int err = selftest_block_get(inode, index, old_size);

		if (err)
			return err;
		if (copy_from_iter(data->blocks[index] + offset, some, from) != some)
			return -EFAULT;
		at += some;
		left -= some;
	}
	return bytes;
}

static ssize_t selftest_write_iter(struct kiocb *iocb, struct iov_iter *from)
{
	struct inode *inode = file_inode(iocb->ki_filp);
	ssize_t written;

	inode_lock(inode);
	written = selftest_data_write(inode, iocb->ki_pos, from);
	inode_unlock(inode);
	if (written > 0)
		iocb->ki_pos += written;
	return written;
}

static ssize_t selftest_read_iter(struct kiocb *iocb, struct iov_iter *to)
{
	struct inode *inode = file_inode(iocb->ki_filp);
	struct selftest_data *data = inode->i_private;
	loff_t at = iocb->ki_pos, size = i_size_read(inode);
	u8 *block = NULL;
	ssize_t done = 0;

	if (at < size)
		block = selftest_block_alloc();
	if (at < size && !block)
		return -ENOMEM;
	while (at < size && iov_iter_count(to)) {
		int index = at / BLOCK_SIZE_HERE;
		size_t offset = at % BLOCK_SIZE_HERE;
		size_t some = min_t(loff_t, size - at, BLOCK_SIZE_HERE - offset);
		const u8 *from = data->blocks[index];

		if (!from) {
			int err = selftest_block_read(inode->i_sb, index, block);

			from = block;
			if (err && !done)
				done = err;
			if (err)
				break;
		}
		some = copy_to_iter(from + offset, some, to);
		at += some;
		done += some;
	}
	kfree(block);
	iocb->ki_pos = at;
	return done;
}

/* --- busy_inode: a file that could not be opened stays in use. */

static noinline void *selftest_handle_alloc(void)
{
	return kzalloc(144, GFP_KERNEL);
}

/*
 * The bug: the reference is not given back when there is no handle. Fail the
 * allocation in selftest_handle_alloc().
 */
static noinline int selftest_data_open(struct inode *inode, struct file *file)
{
	ihold(inode);
	file->private_data = selftest_handle_alloc();
	return file->private_data ? 0 : -ENOMEM;
}

static int selftest_data_release(struct inode *inode, struct file *file)
{
	kfree(file->private_data);
	iput(inode);
	return 0;
}

static const struct file_operations selftest_data_operations = {
	.open = selftest_data_open,
	.release = selftest_data_release,
	.read_iter = selftest_read_iter,
	.write_iter = selftest_write_iter,
	.fsync = selftest_data_fsync,
	.llseek = generic_file_llseek,
};

/* --- What the others need, done right. */

static const struct inode_operations selftest_data_inode_operations = {};

static struct inode *selftest_data_inode(struct super_block *sb, loff_t size)
{
	struct selftest_data *data = kzalloc(sizeof(*data), GFP_KERNEL);
	struct inode *inode = data ? new_inode(sb) : NULL;

	if (!inode) {
		kfree(data);
		return NULL;
	}
	inode->i_ino = DATA_INODE;
	inode->i_mode = S_IFREG | 0644;
	inode->i_private = data;
	inode->i_op = &selftest_data_inode_operations;
	inode->i_fop = &selftest_data_operations;
	simple_inode_init_ts(inode);
	i_size_write(inode, size);
	return inode;
}

static void selftest_evict_inode(struct inode *inode)
{
	struct selftest_data *data = inode->i_private;

	truncate_inode_pages_final(&inode->i_data);
	if (data)
		selftest_data_flush(inode);
	clear_inode(inode);
	kfree(data);
}

static int selftest_data_create(struct mnt_idmap *idmap, struct inode *dir,
				struct dentry *dentry, umode_t mode, bool excl)
{
	struct super_block *sb = dir->i_sb;
	struct inode *inode;

	if (sb->s_fs_info)
		return -ENOSPC;
	inode = selftest_data_inode(sb, 0);
	if (!inode)
		return -ENOMEM;
	/* The name is kept until the unmount, as the file is nowhere else. */
	d_instantiate(dentry, inode);
	sb->s_fs_info = dget(dentry);
	return 0;
}

static const struct inode_operations selftest_root_operations = {
	.lookup = simple_lookup,
	.create = selftest_data_create,
};

static const struct super_operations selftest_super_operations = {
	.statfs = simple_statfs,
	.evict_inode = selftest_evict_inode,
	.sync_fs = selftest_sync_fs,
};

/* Makes the file that is on the disk, if there is one. Returns 0 or -errno. */
static int selftest_data_load(struct super_block *sb)
{
	struct buffer_head *buffer = sb_bread(sb, 0);
	struct selftest_head head;
	struct dentry *dentry;
	struct inode *inode;

	if (!buffer)
		return -EIO;
	memcpy(&head, buffer->b_data, sizeof(head));
	brelse(buffer);
	if (head.magic != DATA_MAGIC)
		return 0;
	if (head.size > DATA_BLOCKS * BLOCK_SIZE_HERE)
		return -EUCLEAN;
	dentry = d_alloc_name(sb->s_root, "data");
	if (!dentry)
		return -ENOMEM;
	inode = selftest_data_inode(sb, head.size);
	if (!inode) {
		dput(dentry);
		return -ENOMEM;
	}
	d_add(dentry, inode);
	sb->s_fs_info = dentry;
	return 0;
}

static int selftest_fill_super(struct super_block *sb, struct fs_context *fc)
{
	struct inode *root;

	if (!sb_set_blocksize(sb, BLOCK_SIZE_HERE))
		return -EINVAL;
	sb->s_magic = DATA_MAGIC & 0x7fffffff;
	sb->s_maxbytes = DATA_BLOCKS * BLOCK_SIZE_HERE;
	sb->s_op = &selftest_super_operations;
	root = new_inode(sb);
	if (!root)
		return -ENOMEM;
	root->i_ino = ROOT_INODE;
	root->i_mode = S_IFDIR | 0755;
	root->i_op = &selftest_root_operations;
	root->i_fop = &simple_dir_operations;
	simple_inode_init_ts(root);
	set_nlink(root, 2);
	sb->s_root = d_make_root(root);
	if (!sb->s_root)
		return -ENOMEM;
	return selftest_data_load(sb);
}

static int selftest_get_tree(struct fs_context *fc)
{
	return get_tree_bdev(fc, selftest_fill_super);
}

static const struct fs_context_operations selftest_context_operations = {
	.get_tree = selftest_get_tree,
};

static int selftest_init_fs_context(struct fs_context *fc)
{
	fc->ops = &selftest_context_operations;
	return 0;
}

static void selftest_kill_sb(struct super_block *sb)
{
	struct dentry *dentry = sb->s_fs_info;

	sb->s_fs_info = NULL;
	dput(dentry);
	kill_block_super(sb);
}

static struct file_system_type selftest_type = {
	.owner = THIS_MODULE,
	.name = "fuzz_selftest",
	.init_fs_context = selftest_init_fs_context,
	.kill_sb = selftest_kill_sb,
	.fs_flags = FS_REQUIRES_DEV,
};

int __init selftest_filesystem_init(void)
{
	return register_filesystem(&selftest_type);
}
