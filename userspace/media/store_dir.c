// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The directory backend. An object is written to a temporary file, synced, linked to its name
 * (link() refuses an existing one: put if absent), and the directory is synced. Until the link
 * nothing is visible; what a crash leaves in the temporary directory is removed by its owner.
 */
#include "store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int (*sm_fault_hook)(const char *step);

struct dir_store {
	struct sm_store s;
	char root[PATH_MAX];
	char tmp[PATH_MAX];
};

struct sm_object {
	int fd;
	uint64_t size;
};

int sm_fsync_dir(const char *path, struct sm_err *e)
{
	int err = sm_fault("fsync-dir"), fd;

	if (err)
		return sm_fail(e, err, "%s: %s", path, strerror(-err));
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fsync(fd))
		err = sm_fail(e, -errno, "%s: cannot sync: %s", path, strerror(errno));
	if (fd >= 0)
		close(fd);
	return err;
}

static void parent_of(const char *path, char out[PATH_MAX])
{
	char *slash;

	snprintf(out, PATH_MAX, "%s", path);
	slash = strrchr(out, '/');
	if (!slash)
		strcpy(out, ".");
	else
		slash[slash == out] = '\0';
}

int sm_fsync_parent(const char *path, struct sm_err *e)
{
	char parent[PATH_MAX];

	parent_of(path, parent);
	return sm_fsync_dir(parent, e);
}

int sm_save_file(const char *path, const char *text, bool exclusive, struct sm_err *e)
{
	char tmp[PATH_MAX + 8];
	int fd, err = 0;

	snprintf(tmp, sizeof(tmp), "%s.tmp", path);
	fd = open(tmp, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return sm_fail(e, -errno, "%s: cannot write: %s", tmp, strerror(errno));
	err = sm_write_full(fd, text, strlen(text));
	if (!err && fsync(fd))
		err = -errno;
	close(fd);
	if (!err && renameat2(AT_FDCWD, tmp, AT_FDCWD, path, exclusive ? RENAME_NOREPLACE : 0))
		err = -errno;
	if (err) {
		unlink(tmp);
		return sm_fail(e, err, "%s: cannot write: %s", path, strerror(-err));
	}
	return sm_fsync_parent(path, e);
}

int sm_mkdir_durable(const char *path, struct sm_err *e)
{
	int err = sm_fault("mkdir");

	if (err)
		return sm_fail(e, err, "%s: %s", path, strerror(-err));
	if (mkdir(path, 0700)) {
		if (errno == EEXIST)
			return 0;
		return sm_fail(e, -errno, "%s: cannot make directory: %s", path, strerror(errno));
	}
	return sm_fsync_parent(path, e);
}

static int make_path(struct dir_store *d, const char *key, char path[PATH_MAX], struct sm_err *e)
{
	if (snprintf(path, PATH_MAX, "%s/%s", d->root, key) >= PATH_MAX)
		return sm_fail(e, -ENAMETOOLONG, "%s/%s: name too long", d->root, key);
	return 0;
}

/* Every directory between the root and the object, each durable before the next. */
static int make_dirs(struct dir_store *d, const char *key, struct sm_err *e)
{
	char path[PATH_MAX];
	struct stat st;

	for (const char *p = strchr(key, '/'); p; p = strchr(p + 1, '/')) {
		int err;

		if (snprintf(path, sizeof(path), "%s/%.*s", d->root, (int)(p - key), key) >= PATH_MAX)
			return sm_fail(e, -ENAMETOOLONG, "%s: name too long", key);
		if (!stat(path, &st))
			continue;
		err = sm_mkdir_durable(path, e);
		if (err)
			return err;
	}
	return 0;
}

static int dir_put_file(struct sm_store *s, const char *key, const char *from, struct sm_err *e)
{
	struct dir_store *d = (struct dir_store *)s;
	char path[PATH_MAX];
	int err;

	if ((err = make_path(d, key, path, e)) || (err = make_dirs(d, key, e)))
		return err;
	err = sm_fault("link");
	if (!err && link(from, path))
		err = -errno;
	if (err)
		return sm_fail(e, err, "%s: cannot store: %s", path, strerror(-err));
	return sm_fsync_parent(path, e);
}

static int write_tmp(struct dir_store *d, char path[PATH_MAX], const void *buf, size_t len, struct sm_err *e)
{
	int fd, err;

	if (snprintf(path, PATH_MAX, "%s/put-XXXXXX", d->tmp) >= PATH_MAX)
		return sm_fail(e, -ENAMETOOLONG, "%s: name too long", d->tmp);
	fd = mkostemp(path, O_CLOEXEC);
	if (fd < 0)
		return sm_fail(e, -errno, "%s: cannot write: %s", d->tmp, strerror(errno));
	err = sm_fault("write");
	if (!err)
		err = sm_write_full(fd, buf, len);
	if (!err)
		err = sm_fault("fsync");
	if (!err && fsync(fd))
		err = -errno;
	close(fd);
	if (!err)
		return 0;
	unlink(path);
	return sm_fail(e, err, "%s: cannot write: %s", path, strerror(-err));
}

static int dir_put(struct sm_store *s, const char *key, const void *buf, size_t len, struct sm_err *e)
{
	struct dir_store *d = (struct dir_store *)s;
	char tmp[PATH_MAX];
	int err = write_tmp(d, tmp, buf, len, e);

	if (err)
		return err;
	err = dir_put_file(s, key, tmp, e);
	unlink(tmp);
	return err;
}

static int dir_open(struct sm_store *s, const char *key, struct sm_object **out, struct sm_err *e)
{
	struct dir_store *d = (struct dir_store *)s;
	char path[PATH_MAX];
	struct sm_object *o;
	struct stat st;
	int err = make_path(d, key, path, e);

	if (err)
		return err;
	o = calloc(1, sizeof(*o));
	if (!o)
		return sm_fail(e, -ENOMEM, "no memory");
	o->fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (o->fd < 0 || fstat(o->fd, &st)) {
		err = sm_fail(e, -errno, "%s: cannot open: %s", path, strerror(errno));
		if (o->fd >= 0)
			close(o->fd);
		free(o);
		return err;
	}
	o->size = st.st_size;
	*out = o;
	return 0;
}

static ssize_t dir_pread(struct sm_object *o, void *buf, size_t len, uint64_t offset)
{
	return sm_pread_full(o->fd, buf, len, offset);
}

static uint64_t dir_size(struct sm_object *o)
{
	return o->size;
}

static void dir_close(struct sm_object *o)
{
	close(o->fd);
	free(o);
}

static int dir_list(struct sm_store *s, const char *prefix, int (*fn)(const char *, void *), void *arg,
		    struct sm_err *e)
{
	struct dir_store *d = (struct dir_store *)s;
	char path[PATH_MAX];
	struct dirent *de;
	int err = make_path(d, prefix, path, e);
	DIR *dir;

	if (err)
		return err;
	dir = opendir(path);
	if (!dir)
		return errno == ENOENT ? 0 : sm_fail(e, -errno, "%s: cannot list: %s", path, strerror(errno));
	for (errno = 0; !err && (de = readdir(dir)); errno = 0)
		if (de->d_name[0] != '.')
			err = fn(de->d_name, arg);
	if (!err && errno)
		err = sm_fail(e, -errno, "%s: cannot list: %s", path, strerror(errno));
	closedir(dir);
	return err;
}

static int dir_remove(struct sm_store *s, const char *key, struct sm_err *e)
{
	struct dir_store *d = (struct dir_store *)s;
	char path[PATH_MAX];
	int err = make_path(d, key, path, e);

	if (!err)
		err = sm_fault("unlink");
	if (!err && unlink(path))
		err = sm_fail(e, -errno, "%s: cannot remove: %s", path, strerror(errno));
	return err;
}

static int dir_release(struct sm_store *s, const char *key, uint64_t offset, uint64_t length, struct sm_err *e)
{
	struct dir_store *d = (struct dir_store *)s;
	char path[PATH_MAX];
	int fd, err = make_path(d, key, path, e);

	if (!err)
		err = sm_fault("punch");
	if (err)
		return err;
	fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0 || fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length))
		err = errno == EOPNOTSUPP ? 0 : sm_fail(e, -errno, "%s: cannot give back space: %s", path, strerror(errno));
	if (fd >= 0)
		close(fd);
	return err;
}

static uint64_t dir_allocated(struct sm_store *s, const char *key)
{
	struct dir_store *d = (struct dir_store *)s;
	char path[PATH_MAX];
	struct stat st;

	return make_path(d, key, path, NULL) || stat(path, &st) ? 0 : (uint64_t)st.st_blocks * 512;
}

static int dir_stamp(struct sm_store *s, const char *key, uint64_t stamp[3])
{
	struct dir_store *d = (struct dir_store *)s;
	char path[PATH_MAX];
	struct stat st;

	if (make_path(d, key, path, NULL))
		return -ENAMETOOLONG;
	if (lstat(path, &st))
		return -errno;
	stamp[0] = st.st_ino;
	stamp[1] = st.st_size;
	stamp[2] = (uint64_t)st.st_mtim.tv_sec * 1000000000u + st.st_mtim.tv_nsec;
	return 0;
}

static int dir_settle(struct sm_store *s, const char *prefix, struct sm_err *e)
{
	struct dir_store *d = (struct dir_store *)s;
	char path[PATH_MAX];
	struct stat st;
	int err = make_path(d, prefix, path, e);

	return err || stat(path, &st) ? err : sm_fsync_dir(path, e);
}

static void dir_free(struct sm_store *s)
{
	free(s);
}

static const struct sm_store_ops dir_ops = {
	.put = dir_put,
	.put_file = dir_put_file,
	.open = dir_open,
	.pread = dir_pread,
	.size = dir_size,
	.close = dir_close,
	.list = dir_list,
	.remove = dir_remove,
	.release = dir_release,
	.allocated = dir_allocated,
	.stamp = dir_stamp,
	.settle = dir_settle,
	.free = dir_free,
};

int sm_store_dir(const char *root, const char *tmp, struct sm_store **s, struct sm_err *e)
{
	struct dir_store *d = calloc(1, sizeof(*d));

	if (!d)
		return sm_fail(e, -ENOMEM, "no memory");
	d->s.ops = &dir_ops;
	if (snprintf(d->root, PATH_MAX, "%s", root) >= PATH_MAX || snprintf(d->tmp, PATH_MAX, "%s", tmp) >= PATH_MAX) {
		free(d);
		return sm_fail(e, -ENAMETOOLONG, "%s: name too long", root);
	}
	*s = &d->s;
	return 0;
}

int sm_store_get(struct sm_store *s, const char *key, size_t max, char **buf, size_t *len, struct sm_err *e)
{
	struct sm_object *o;
	int err = s->ops->open(s, key, &o, e);
	ssize_t r;

	if (err)
		return err;
	*len = s->ops->size(o);
	*buf = *len <= max ? malloc(*len + 1) : NULL;
	if (!*buf) {
		err = sm_fail(e, *len <= max ? -ENOMEM : -EFBIG, "%s: %zu bytes are too much", key, *len);
	} else {
		r = s->ops->pread(o, *buf, *len, 0);
		if (r != (ssize_t)*len) {
			err = sm_fail(e, r < 0 ? r : -EIO, "%s: cannot read", key);
			free(*buf);
		} else {
			(*buf)[r] = '\0';
		}
	}
	s->ops->close(o);
	return err;
}
