// SPDX-License-Identifier: GPL-2.0-or-later
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>
#include "filedev.h"

static int whole(ssize_t (*io)(int, void *, size_t, off_t), int fd, void *buf, size_t len, off_t off)
{
	while (len) {
		ssize_t n = io(fd, buf, len, off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EIO;
		buf = (char *)buf + n;
		len -= n;
		off += n;
	}
	return 0;
}

static ssize_t pwrite_v(int fd, void *buf, size_t len, off_t off)
{
	return pwrite(fd, buf, len, off);
}

static int fd_read(void *ctx, u64 block, u32 nr, void *buf)
{
	struct filedev *f = ctx;

	return whole(pread, f->fd, buf, (size_t)nr << SD_BLOCK_SHIFT, (off_t)block << SD_BLOCK_SHIFT);
}

static int fd_write(void *ctx, u64 block, u32 nr, const void *buf)
{
	struct filedev *f = ctx;

	if (f->read_only)
		return -EROFS;
	return whole(pwrite_v, f->fd, (void *)buf, (size_t)nr << SD_BLOCK_SHIFT, (off_t)block << SD_BLOCK_SHIFT);
}

static int fd_flush(void *ctx)
{
	struct filedev *f = ctx;

	if (f->read_only)
		return 0;
	return fdatasync(f->fd) ? -errno : 0;
}

static int fd_get(void *ctx, u64 block, struct sd_buf *buf)
{
	void *data = sd_malloc(SD_BLOCK_SIZE);
	int err = data ? fd_read(ctx, block, 1, data) : -ENOMEM;

	if (err) {
		free(data);
		return err;
	}
	buf->data = buf->priv = data;
	buf->validated = NULL;
	return 0;
}

static void fd_put(void *ctx, struct sd_buf *buf)
{
	(void)ctx;
	free(buf->priv);
}

static void fd_forget(void *ctx, u64 block, u32 nr)
{
	(void)ctx;
	(void)block;
	(void)nr;
}

static const struct sd_dev_ops ops = {
	.read = fd_read, .write = fd_write, .flush = fd_flush, .get = fd_get, .put = fd_put, .forget = fd_forget,
};

static int size_of(int fd, u64 *bytes, bool *is_block)
{
	struct stat st;

	if (fstat(fd, &st))
		return -errno;
	*is_block = S_ISBLK(st.st_mode);
	*bytes = st.st_size;
	if (*is_block && ioctl(fd, BLKGETSIZE64, bytes))
		return -errno;
	return *is_block || S_ISREG(st.st_mode) ? 0 : -ENOTBLK;
}

int filedev_open(struct filedev *f, const char *path, bool read_only, bool exclusive)
{
	u64 bytes;
	bool is_block = false;
	int err;

	f->read_only = read_only;
	f->fd = open(path, (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);
	if (f->fd < 0)
		return -errno;
	err = size_of(f->fd, &bytes, &is_block);
	if (!err && is_block && exclusive) {
		/* O_EXCL means something else for a regular file. */
		close(f->fd);
		f->fd = open(path, (read_only ? O_RDONLY : O_RDWR) | O_EXCL | O_CLOEXEC);
		err = f->fd < 0 ? -errno : 0;
	}
	if (err) {
		if (f->fd >= 0)
			close(f->fd);
		return err;
	}
	f->dev.ops = &ops;
	f->dev.ctx = f;
	f->dev.nr_blocks = bytes >> SD_BLOCK_SHIFT;
	return 0;
}

void filedev_close(struct filedev *f)
{
	close(f->fd);
}
