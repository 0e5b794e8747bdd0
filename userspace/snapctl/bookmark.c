// SPDX-License-Identifier: GPL-2.0-or-later
/* snapctl bookmark: give up a generation's data, keep its changed set. */
#include "snapctl.h"

static int bookmark(struct snap_nl *nl, const struct snap_ref *ref, const char *arg, struct snap_err *e)
{
	(void)arg;
	return snap_nl_bookmark(nl, ref->volume, ref->first, e);
}

static int run_bookmark(int argc, char **argv)
{
	return frame_gen(&cmd_bookmark, argc, argv, bookmark);
}

const struct snap_cmd cmd_bookmark = {
	.name = "bookmark",
	.args = "NAME@N",
	.summary = "Turn a generation into a bookmark",
	.help = "Its data is given up, its changed set is kept: it remains a base for incremental backups and costs no\n"
		"data space on the diff.",
	.min_args = 1,
	.max_args = 1,
	.run = run_bookmark,
};
