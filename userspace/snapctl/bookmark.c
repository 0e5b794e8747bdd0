// SPDX-License-Identifier: GPL-2.0-or-later
/* snapctl bookmark: give up a generation's data, keep its changed set. */
#include "snapctl.h"

static int run_bookmark(int argc, char **argv)
{
	struct snap_err e = SNAP_ERR_INIT;
	const struct snap_opt opts[] = { { 0 } };
	struct snap_ref ref;
	struct snap_nl *nl;
	int rc = snap_opts(&cmd_bookmark, opts, &argc, &argv);
	int err;

	if (rc >= 0)
		return rc;
	if (snap_parse_ref(argv[0], SNAP_REF_GEN, &ref, &e) || snap_nl_open(&nl, &e))
		return snap_err_report(&e);
	err = snap_nl_bookmark(nl, ref.volume, ref.first, &e);
	snap_nl_close(nl);
	return err ? snap_err_report(&e) : SNAP_EXIT_OK;
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
