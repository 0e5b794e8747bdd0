/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Where a stream goes that nobody answers: stdout, a pipe, a device, or a file that has its name only when it is whole. */
#ifndef SNAPBACKUP_OUTFILE_H
#define SNAPBACKUP_OUTFILE_H

#include "dest.h"

struct outfile {
	const char *path;		/* for messages */
	int fd;				/* -1: not open */
	char part[PATH_MAX + 8];	/* a file's name until it is whole; or "" */
};

/**
 * outfile_open() - SM_DEST_STDIO or SM_DEST_FILE
 * @force: a file of that name may be replaced
 *
 * A block device is opened exclusively, and so is a file. Return: 0, -EINVAL a terminal, -EEXIST, -EBUSY, -errno.
 */
int outfile_open(struct outfile *f, const struct sm_dest *d, bool force, struct sm_err *e);
/* outfile_finish() - durable, where it can be, and under its name */
int outfile_finish(struct outfile *f, struct sm_err *e);
/* outfile_close() - a file that was not finished disappears */
void outfile_close(struct outfile *f);
/* outfile_new() - is it a file that was made just now, full of zeros? */
static inline bool outfile_new(const struct outfile *f)
{
	return f->part[0];
}

#endif
