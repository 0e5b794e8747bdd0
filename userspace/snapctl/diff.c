// SPDX-License-Identifier: GPL-2.0-or-later
/* snapctl diff: what changed between two generations, or since one. */
#include <errno.h>
#include <string.h>

#include "snapctl.h"

struct pair {
	struct snap_ref from;
	uint32_t to;			/* 0: now */
};

static int parse_pair(char **argv, struct pair *pair, struct snap_err *e)
{
	struct snap_ref second;
	int err;

	err = snap_parse_ref(argv[0], SNAP_REF_GEN, &pair->from, e);
	if (!err)
		err = snap_parse_ref(argv[1], SNAP_REF_GEN | SNAP_REF_VOLUME, &second, e);
	if (err)
		return err;
	if (strcmp(pair->from.volume, second.volume))
		return snap_err_set(e, -EINVAL, argv[1], "another volume than %s", argv[0]);
	if (second.first && second.first <= pair->from.first)
		return snap_err_set(e, -EINVAL, argv[1], "not newer than %s", argv[0]);
	pair->to = second.first;
	return 0;
}

static int walk(struct snap_nl *nl, struct extent_printer *p, void *arg, struct snap_err *e)
{
	const struct pair *pair = arg;

	return snap_nl_changes(nl, pair->from.volume, pair->from.first, pair->to, 0, 0, extents_print, p, e);
}

static int run_diff(int argc, char **argv)
{
	struct snap_err e = SNAP_ERR_INIT;
	struct snap_out_opts oo = { 0 };
	const struct snap_opt opts[] = { SNAP_OPT_OUTPUT(&oo), { 0 } };
	struct pair pair = { 0 };
	int rc = snap_opts(&cmd_diff, opts, &argc, &argv);

	if (rc >= 0)
		return rc;
	if (parse_pair(argv, &pair, &e))
		return snap_err_report(&e);
	return frame_extents(false, &oo, walk, &pair);
}

const struct snap_cmd cmd_diff = {
	.name = "diff",
	.args = "NAME@A NAME@B | NAME@A NAME",
	.summary = "Print the extents that changed between two generations, or since one",
	.help = "One line an extent, in bytes: offset, length. The granularity is the volume's chunk; what was written\n"
		"with the content it had is listed too. What the volume has grown by since the older one is listed whole.",
	.min_args = 2,
	.max_args = 2,
	.run = run_diff,
};
