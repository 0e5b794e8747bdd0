// SPDX-License-Identifier: GPL-2.0-or-later
#include "snapmeta.h"

static void complain(void *ctx, const char *text)
{
	struct meta *m = ctx;

	m->complaints++;
	fprintf(stderr, "%s: %s: %s\n", snap_prog(), m->path, text);
}

static int open_error(int err, const char *path, struct snap_err *e)
{
	switch (err) {
	case -ENODATA:
		return snap_err_set(e, -ENOENT, path, "not a differential volume: neither superblock is one of snapdiff");
	case -EUCLEAN:
		return snap_err_set(e, -EIO, path, "damaged: the block named above cannot be used");
	case -ENOTSUPP:
		return snap_err_set(e, -EINVAL, path, "written by another version of snapdiff, in a format that this one does not know");
	case -ENOSPC:
		return snap_err_set(e, -EINVAL, path, "device is smaller than the store on it");
	default:
		return snap_err_sys(e, err, path, "cannot read the store");
	}
}

int meta_open(struct meta *m, const char *path, struct snap_err *e)
{
	struct sd_open_opts opts = { .read_only = true, .complain = complain, .complain_ctx = m };
	int err;

	m->path = path;
	m->complaints = 0;
	err = filedev_open(&m->file, path, true, true);
	if (err == -EBUSY)
		return snap_err_set(e, err, path, "in use: detach the volume first");
	if (err)
		return snap_err_sys(e, err, path, "cannot open");
	err = sd_open(&m->file.dev, &opts, &m->store);
	if (!err)
		return 0;
	filedev_close(&m->file);
	return open_error(err, path, e);
}

void meta_close(struct meta *m)
{
	sd_close(m->store);
	filedev_close(&m->file);
}
