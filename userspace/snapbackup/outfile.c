// SPDX-License-Identifier: GPL-2.0-or-later
#include "outfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "blk.h"
#include "store.h"

static int open_device(struct outfile *f, struct sm_err *e)
{
	struct snap_err se = SNAP_ERR_INIT;

	f->fd = snap_blk_open_excl(f->path, O_WRONLY, &se);
	return f->fd < 0 ? sm_fail(e, f->fd, "%s%s%s", se.object, se.object[0] ? ": " : "", se.text) : 0;
}

/* Two at once would make a mixture of both. What has got its name since we opened it is not ours, either. */
static int claim_part(struct outfile *f, struct sm_err *e)
{
	struct stat mine, now;
	bool held = !flock(f->fd, LOCK_EX | LOCK_NB) || errno != EWOULDBLOCK;	/* some file systems have no locks */

	if (!held || fstat(f->fd, &mine) || stat(f->part, &now) || mine.st_ino != now.st_ino || mine.st_dev != now.st_dev) {
		f->part[0] = '\0';
		return sm_fail(e, -EBUSY, "%s: is being written by somebody else", f->path);
	}
	return ftruncate(f->fd, 0) ? sm_fail(e, -errno, "%s: cannot write: %s", f->path, strerror(errno)) : 0;
}

static int open_path(struct outfile *f, bool force, struct sm_err *e)
{
	struct stat st;
	bool there = !stat(f->path, &st);

	if (there && S_ISBLK(st.st_mode))
		return open_device(f, e);
	if (there && !S_ISREG(st.st_mode)) {
		f->fd = open(f->path, O_WRONLY | O_CLOEXEC);	/* a pipe, a tape */
	} else if (there && !force) {
		return sm_fail(e, -EEXIST, "%s: exists (--force replaces it)", f->path);
	} else {
		snprintf(f->part, sizeof(f->part), "%s.part", f->path);
		f->fd = open(f->part, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
		if (f->fd >= 0)
			return claim_part(f, e);
	}
	if (f->fd >= 0)
		return 0;
	f->part[0] = '\0';
	return sm_fail(e, -errno, "%s: cannot write: %s", f->path, strerror(errno));
}

int outfile_open(struct outfile *f, const struct sm_dest *d, bool force, struct sm_err *e)
{
	*f = (struct outfile){ .path = d->path, .fd = -1 };
	if (d->kind != SM_DEST_STDIO)
		return open_path(f, force, e);
	f->path = "stdout";
	if (isatty(1))
		return sm_fail(e, -EINVAL, "stdout is a terminal: no stream goes there");
	f->fd = 1;
	return 0;
}

int outfile_finish(struct outfile *f, struct sm_err *e)
{
	if (fsync(f->fd) && errno != EINVAL && errno != EROFS)	/* pipes cannot */
		return sm_fail(e, -errno, "%s: cannot write: %s", f->path, strerror(errno));
	if (!f->part[0])
		return 0;
	if (rename(f->part, f->path))
		return sm_fail(e, -errno, "%s: cannot write: %s", f->path, strerror(errno));
	f->part[0] = '\0';
	return sm_fsync_parent(f->path, e);	/* --keep bookmark gives the generation up next */
}

void outfile_close(struct outfile *f)
{
	if (f->part[0])
		unlink(f->part);
	f->part[0] = '\0';
	if (f->fd > 1)
		close(f->fd);
	f->fd = -1;
}
