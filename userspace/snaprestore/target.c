// SPDX-License-Identifier: GPL-2.0-or-later
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "blk.h"
#include "restore.h"
#include "store.h"

#define WRITEBACK	(16u << 20)

static const uint8_t zeros[1 << 20];

static int open_device(struct target *t, struct sm_err *e)
{
	struct snap_err se = SNAP_ERR_INIT;
	uint64_t have;

	t->kind = TARGET_DEVICE;
	t->fd = snap_blk_open_excl(t->path, O_RDWR, &se);
	if (t->fd < 0)
		return sm_fail(e, t->fd, "%s%s%s", se.object, se.object[0] ? ": " : "", se.text);
	if (snap_blk_fd_size(t->fd, &have) || have < t->size)
		return sm_fail(e, -ENOSPC, "%s: has %llu bytes, the image %llu", t->path, (unsigned long long)have,
			       (unsigned long long)t->size);
	return 0;
}

/* The file that a signal removes: ours alone, and not under its name yet. */
static const char *volatile unfinished;

static void on_signal(int sig)
{
	if (unfinished)
		unlink(unfinished);
	signal(sig, SIG_DFL);
	raise(sig);	/* when we return */
}

void target_signals(void)
{
	static const int signals[] = { SIGINT, SIGTERM, SIGHUP };
	struct sigaction sa = { .sa_handler = on_signal };

	for (size_t i = 0; i < sizeof(signals) / sizeof(*signals); i++) {
		struct sigaction old;

		if (!sigaction(signals[i], NULL, &old) && old.sa_handler != SIG_IGN)	/* nohup */
			sigaction(signals[i], &sa, NULL);
	}
}

/* Two at once would make a mixture of both. What has got its name since we opened it is not ours, either. */
static int claim_part(struct target *t, struct sm_err *e)
{
	struct stat mine, now;
	bool held = !flock(t->fd, LOCK_EX | LOCK_NB) || errno != EWOULDBLOCK;	/* some file systems have no locks */

	if (!held || fstat(t->fd, &mine) || stat(t->part, &now) || mine.st_ino != now.st_ino || mine.st_dev != now.st_dev) {
		t->part[0] = '\0';
		return sm_fail(e, -EBUSY, "%s: is being written by somebody else", t->path);
	}
	unfinished = t->part;
	return 0;
}

static int open_file(struct target *t, struct sm_err *e)
{
	int err;

	t->kind = TARGET_FILE;
	if (snprintf(t->part, sizeof(t->part), "%s.part", t->path) >= PATH_MAX)
		return sm_fail(e, -ENAMETOOLONG, "%s: name too long", t->path);
	t->fd = open(t->part, O_CREAT | O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0600);	/* the name can be guessed */
	if (t->fd >= 0 && (err = claim_part(t, e)))
		return err;
	if (t->fd < 0 || ftruncate(t->fd, 0) || ftruncate(t->fd, t->size))
		return sm_fail(e, -errno, "%s: cannot write: %s", t->part, strerror(errno));
	return 0;
}

static int open_in_place(struct target *t, struct sm_err *e)
{
	struct stat st;

	t->kind = TARGET_FILE;
	t->fd = open(t->path, O_RDWR | O_CLOEXEC);
	if (t->fd < 0 || fstat(t->fd, &st) || ((uint64_t)st.st_size != t->size && ftruncate(t->fd, t->size)))
		return sm_fail(e, -errno, "%s: cannot write: %s", t->path, strerror(errno));
	return 0;
}

int target_open(struct target *t, uint64_t size, struct sm_err *e)
{
	struct stat st;

	t->fd = -1;
	t->size = size;
	if (!strcmp(t->path, "-") && t->diff)
		return sm_fail(e, -EINVAL, "stdout has nothing to compare with");
	if (!strcmp(t->path, "-")) {
		t->kind = TARGET_STDOUT;
		t->fd = 1;
		return isatty(1) ? sm_fail(e, -EINVAL, "stdout is a terminal: no image goes there") : 0;
	}
	if (stat(t->path, &st)) {
		if (errno != ENOENT)
			return sm_fail(e, -errno, "%s: %s", t->path, strerror(errno));
		/* A mistyped device name must not become a file in a memory file system. */
		if (t->diff)
			return sm_fail(e, -ENOENT, "%s: is not there, so there is nothing to compare with", t->path);
		if (!strncmp(t->path, "/dev/", 5))
			return sm_fail(e, -ENOENT, "%s: there is no such device", t->path);
		return open_file(t, e);
	}
	if (S_ISBLK(st.st_mode))
		return open_device(t, e);
	if (!S_ISREG(st.st_mode))
		return sm_fail(e, -EINVAL, "%s: neither a file nor a block device", t->path);
	if (t->diff)
		return open_in_place(t, e);
	if (!t->force)
		return sm_fail(e, -EEXIST, "%s: exists (--force replaces it)", t->path);
	return open_file(t, e);
}

static int failed(struct target *t, int err, struct sm_err *e)
{
	return sm_fail(e, err, "%s: cannot write: %s", t->path, strerror(-err));
}

#define COMPARE	4096u

/* What is there is read first; runs of blocks that differ are written. What cannot be read is taken to differ. */
static int write_differing(struct target *t, uint64_t offset, const uint8_t *buf, size_t len)
{
	uint8_t there[64 << 10];

	while (len) {
		size_t n = len < sizeof(there) ? len : sizeof(there), from = 0, to;
		ssize_t have = sm_pread_full(t->fd, there, n, offset);

		for (; from < n; from = to) {
			size_t block = n - from < COMPARE ? n - from : COMPARE;
			int err;

			to = from + block;
			if (have >= (ssize_t)to && !memcmp(there + from, buf + from, block))
				continue;
			for (; to < n; to += block) {
				block = n - to < COMPARE ? n - to : COMPARE;
				if (have >= (ssize_t)(to + block) && !memcmp(there + to, buf + to, block))
					break;
			}
			err = sm_pwrite_full(t->fd, buf + from, to - from, offset + from);
			if (err)
				return err;
			__atomic_add_fetch(&t->differed, to - from, __ATOMIC_RELAXED);
		}
		buf += n;
		offset += n;
		len -= n;
	}
	return 0;
}

/* The disk begins to write while there is more to come: the fsync at the end has little left to do. */
static void start_writeback(struct target *t, size_t len)
{
	uint64_t now = __atomic_add_fetch(&t->dirty, len, __ATOMIC_RELAXED);

	if (now / WRITEBACK != (now - len) / WRITEBACK)
		sync_file_range(t->fd, 0, 0, SYNC_FILE_RANGE_WRITE);
}

int target_write(struct target *t, uint64_t offset, const void *buf, size_t len, struct sm_err *e)
{
	int err;

	if (t->diff) {
		err = write_differing(t, offset, buf, len);
	} else if (t->kind == TARGET_STDOUT) {
		offset -= t->shift;
		if (offset != t->written)
			return sm_fail(e, -ESPIPE, "stdout cannot go back to offset %llu", (unsigned long long)offset);
		err = sm_write_full(t->fd, buf, len);
		t->written += len;
	} else {
		err = sm_pwrite_full(t->fd, buf, len, offset);
		start_writeback(t, len);
	}
	return err ? failed(t, err, e) : 0;
}

static int write_zeros(struct target *t, uint64_t offset, uint64_t length, struct sm_err *e)
{
	while (length) {
		size_t len = length < sizeof(zeros) ? length : sizeof(zeros);
		int err = target_write(t, offset, zeros, len, e);

		if (err)
			return err;
		offset += len;
		length -= len;
	}
	return 0;
}

/* A device may know how to write zeros itself; what is no multiple of its sectors it does not take. */
static bool device_zeros(struct target *t, uint64_t offset, uint64_t length)
{
	uint64_t range[2] = { offset, length };

	return t->kind == TARGET_DEVICE && length >= 64 * 1024 && !ioctl(t->fd, BLKZEROOUT, range);
}

int target_zero(struct target *t, uint64_t offset, uint64_t length, struct sm_err *e)
{
	if (t->diff)
		return write_zeros(t, offset, length, e);
	if (t->kind == TARGET_FILE && !fallocate(t->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length))
		return 0;
	if (device_zeros(t, offset, length))
		return 0;
	return write_zeros(t, offset, length, e);
}

int target_resize(struct target *t, uint64_t size, struct sm_err *e)
{
	uint64_t have;

	if (t->kind == TARGET_FILE && ftruncate(t->fd, size))
		return failed(t, -errno, e);
	if (t->kind == TARGET_DEVICE && (snap_blk_fd_size(t->fd, &have) || have < size))
		return sm_fail(e, -ENOSPC, "%s: has %llu bytes, the image %llu", t->path, (unsigned long long)have,
			       (unsigned long long)size);
	t->size = size;
	return 0;
}

int target_finish(struct target *t, struct sm_err *e)
{
	int err = 0;

	if (t->kind == TARGET_STDOUT)
		return t->written == t->size ? 0 : sm_fail(e, -EIO, "stdout: only %llu bytes written", (unsigned long long)t->written);
	if (fsync(t->fd))
		err = failed(t, -errno, e);
	if (!err && t->kind == TARGET_FILE && !t->diff) {
		/* Without --force a file that has appeared meanwhile stays. */
		int r = t->force ? rename(t->part, t->path) :
			renameat2(AT_FDCWD, t->part, AT_FDCWD, t->path, RENAME_NOREPLACE);

		if (r) {
			err = failed(t, -errno, e);
		} else {
			unfinished = NULL;
			t->part[0] = '\0';
		}
	}
	if (close(t->fd) && !err)
		err = failed(t, -errno, e);
	t->fd = -1;
	if (!err && t->kind == TARGET_FILE && !t->diff)
		err = sm_fsync_parent(t->path, e);
	return err;
}

void target_abort(struct target *t)
{
	if (t->fd > 1)
		close(t->fd);
	if (t->fd >= 0 && t->part[0])
		unlink(t->part);
	unfinished = NULL;
	t->fd = -1;
}
