// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The locks of a repository, all of them flock() on files that hold nothing: they go with the process that had them.
 *
 *	uploads/SID/lock		one session sends a generation
 *	locks/VID			one process changes what a volume has: publishes, prunes, collects garbage
 *	locks/VID.NNNNNNNNNN		shared by who reads a generation, had alone by who deletes it
 *	locks/session.CLIENT.N		sessions of a client (snapmediad)
 *
 * Order: SID, then VID, then VID.N; the last is never waited for.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "upload_internal.h"

/* Root restores from a repository that another user serves: that user must be able to take the same lock. */
static void give_to_owner(int fd, const char *path)
{
	char dir[PATH_MAX], *slash;
	struct stat st;

	snprintf(dir, sizeof(dir), "%s", path);
	slash = strrchr(dir, '/');
	if (slash)
		*slash = '\0';
	if (!stat(dir, &st) && st.st_uid && fchown(fd, st.st_uid, st.st_gid))
		return;		/* then it is root's */
}

int lock_file(const char *path, int how, struct sm_err *e)
{
	for (;;) {
		int fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0600);
		struct stat st;

		if (fd < 0)
			return sm_fail(e, -errno, "%s: cannot lock: %s", path, strerror(errno));
		if (flock(fd, how) || fstat(fd, &st)) {
			int err = errno == EWOULDBLOCK ? -EBUSY : -errno;

			close(fd);
			return sm_fail(e, err, "%s: cannot lock: %s", path, strerror(-err));
		}
		if (!st.st_uid && !geteuid())
			give_to_owner(fd, path);
		if (st.st_nlink)
			return fd;
		close(fd);	/* removed while we waited: that lock protects nothing any more */
	}
}

int volume_lock(struct sm_repo *r, const char *vid, struct sm_err *e)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%.*s/locks/%s", PATH_MAX - 64, r->path, vid);
	return lock_file(path, LOCK_EX, e);
}

static void generation_path(const struct sm_repo *r, char path[PATH_MAX], const char *vid, uint32_t number)
{
	snprintf(path, PATH_MAX, "%.*s/locks/%s.%010u", PATH_MAX - 64, r->path, vid, number);
}

int generation_lock(struct sm_repo *r, const char *vid, uint32_t number, bool alone, struct sm_err *e)
{
	char path[PATH_MAX];

	generation_path(r, path, vid, number);
	return lock_file(path, (alone ? LOCK_EX : LOCK_SH) | LOCK_NB, e);
}

void generation_unlock_gone(struct sm_repo *r, const char *vid, uint32_t number, int lock)
{
	char path[PATH_MAX];

	generation_path(r, path, vid, number);
	unlink(path);
	close(lock);
}
