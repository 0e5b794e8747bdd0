// SPDX-License-Identifier: GPL-2.0-or-later
#include "place.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Nobody else can put something else in the place of what is in there; in one with the sticky bit not in the place of what is ours. */
static bool ours_alone(const struct stat *st, bool last)
{
	return (!st->st_uid || st->st_uid == geteuid()) && (!(st->st_mode & 022) || (!last && st->st_mode & S_ISVTX));
}

/* Step by step from the root: no step is a link, each is safe. Return: a descriptor, -errno */
static int open_directory(const char *path, struct sm_err *e)
{
	int fd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct stat st;

	for (const char *part = path; fd >= 0; ) {
		char name[DEST_ADDRESS];
		size_t len;
		int next;

		part += strspn(part, "/");
		len = strcspn(part, "/");
		if (fstat(fd, &st) || !ours_alone(&st, !len)) {
			close(fd);
			return sm_fail(e, -EACCES, "%s: users other than root can change what is there, or in a directory above it", path);
		}
		if (!len)
			return fd;
		snprintf(name, sizeof(name), "%.*s", (int)len, part);
		next = openat(fd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		close(fd);
		fd = next;
		part += len;
	}
	return sm_fail(e, -errno, "%s: %s", path, errno == ENOTDIR ? "not a directory, or there is a link in it" : strerror(errno));
}

static int open_file(const char *path, struct place *p, struct sm_err *e)
{
	const char *slash = strrchr(path, '/');
	char dir[DEST_ADDRESS];
	struct stat st;

	snprintf(dir, sizeof(dir), "%.*s", (int)(slash - path), path);
	p->dir = open_directory(dir, e);
	if (p->dir < 0)
		return p->dir;
	snprintf(p->path, sizeof(p->path), ".%s", slash);
	if (fstatat(p->dir, slash + 1, &st, AT_SYMLINK_NOFOLLOW)) {
		if (errno == ENOENT)
			return 0;
		return sm_fail(e, -errno, "%s: %s", path, strerror(errno));
	}
	if (!S_ISREG(st.st_mode) || st.st_nlink != 1)
		return sm_fail(e, -EINVAL, "%s: is there, and not a file with this name alone", path);
	return 0;
}

static int open_device(const char *path, struct place *p, struct sm_err *e)
{
	struct stat st;

	if (!realpath(path, p->path) || stat(p->path, &st))
		return sm_fail(e, -errno, "%s: %s", path, strerror(errno));
	return S_ISBLK(st.st_mode) ? 0 : sm_fail(e, -EINVAL, "%s: not a block device", path);
}

int place_open(const struct config *c, const char *path, struct place *p, struct sm_err *e)
{
	const struct config_target *t = config_may_restore(c, path);
	struct stat st;
	int err;

	p->dir = -1;
	if (!t)
		return sm_fail(e, -EACCES, "%s: not a target of this host's agent.conf", path);
	/* A device's name that is not there is no file's name. */
	if (!t->directory && (!strncmp(path, "/dev/", 5) || (!stat(path, &st) && S_ISBLK(st.st_mode))))
		return open_device(path, p, e);
	err = open_file(path, p, e);
	if (err)
		place_close(p);
	return err;
}

void place_close(struct place *p)
{
	if (p->dir >= 0)
		close(p->dir);
	p->dir = -1;
}
