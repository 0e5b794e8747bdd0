// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * snapctl resize: take what the primary or the diff has become larger by, while the volume is written.
 *
 * Both are looked at before anything is done. The diff goes first: a larger primary may soon want its room.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "snapctl.h"

struct resize {
	const char *name;
	bool primary, diff;
	uint64_t primary_size, diff_size;	/* of the devices, bytes */
};

static int device_size(dev_t dev, uint64_t *size, struct snap_err *e)
{
	char path[64];
	int fd, err;

	snap_blk_name(dev, path, sizeof(path));
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return snap_err_sys(e, -errno, path, "cannot open");
	err = snap_blk_fd_size(fd, size);
	close(fd);
	return err ? snap_err_sys(e, err, path, "cannot tell the size") : 0;
}

static int refuse_smaller(const struct resize *r, const char *what, uint64_t device, uint64_t used, struct snap_err *e)
{
	return snap_err_set(e, -EMEDIUMTYPE, r->name, "cannot shrink: the %s has %llu bytes, the volume uses %llu of it", what,
			    (unsigned long long)device, (unsigned long long)used);
}

static int look(struct resize *r, const struct snap_volume *v, struct snap_err *e)
{
	int err = 0;

	if (r->primary)
		err = device_size(v->primary, &r->primary_size, e);
	if (!err && r->diff)
		err = device_size(v->diff, &r->diff_size, e);
	if (err)
		return err;
	if (r->primary && r->primary_size < v->size)
		return refuse_smaller(r, "primary", r->primary_size, v->size, e);
	if (r->diff && r->diff_size < v->stats[SNAPDIFF_STAT_DIFF_SIZE])
		return refuse_smaller(r, "diff", r->diff_size, v->stats[SNAPDIFF_STAT_DIFF_SIZE], e);
	return 0;
}

static void tell(const char *what, uint64_t from, uint64_t to)
{
	if (from == to)
		printf("%s: %llu bytes, as before\n", what, (unsigned long long)to);
	else
		printf("%s: from %llu to %llu bytes\n", what, (unsigned long long)from, (unsigned long long)to);
}

static int resize(struct resize *r, struct snap_nl *nl, struct snap_err *e)
{
	struct snap_volume before, now;
	int err = snap_nl_volume(nl, r->name, &before, e);

	if (!err)
		err = look(r, &before, e);
	if (!err && r->diff)
		err = snap_nl_reread_size(nl, r->name, e);
	if (!err && r->primary && r->primary_size > before.size)
		err = snap_dm_resize(r->name, r->primary_size, e);
	if (!err)
		err = snap_nl_volume(nl, r->name, &now, e);
	if (err)
		return err;
	if (r->primary)
		tell("primary", before.size, now.size);
	if (r->diff)
		tell("diff", before.stats[SNAPDIFF_STAT_DIFF_SIZE], now.stats[SNAPDIFF_STAT_DIFF_SIZE]);
	return 0;
}

static int run_resize(int argc, char **argv)
{
	struct snap_err e = SNAP_ERR_INIT;
	struct resize r = { 0 };
	const struct snap_opt opts[] = {
		{ "primary", 0, SNAP_OPT_FLAG, NULL, &r.primary, "the volume takes the size of its primary" },
		{ "diff", 0, SNAP_OPT_FLAG, NULL, &r.diff, "the store takes the whole of its differential volume" },
		{ 0 }
	};
	struct snap_nl *nl;
	int rc = snap_opts(&cmd_resize, opts, &argc, &argv), err;

	if (rc >= 0)
		return rc;
	r.name = argv[0];
	if (!r.primary && !r.diff)
		r.primary = r.diff = true;
	if (snap_check_volume_name(r.name, &e) || snap_nl_open(&nl, &e))
		return snap_err_report(&e);
	err = resize(&r, nl, &e);
	snap_nl_close(nl);
	return err ? snap_err_report(&e) : SNAP_EXIT_OK;
}

const struct snap_cmd cmd_resize = {
	.name = "resize",
	.args = "NAME",
	.summary = "Take the new size of a primary or diff that has grown",
	.help = "Without options: both. The volume may be mounted and written meanwhile. Generations keep the size they were\n"
		"cut with. Shrinking is refused.",
	.min_args = 1,
	.max_args = 1,
	.run = run_resize,
};
