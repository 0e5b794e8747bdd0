// SPDX-License-Identifier: GPL-2.0-or-later
/* snapctl pin and unpin. */
#include "snapctl.h"

static int set_pinned(const struct snap_cmd *cmd, int argc, char **argv, bool pinned)
{
	struct snap_err e = SNAP_ERR_INIT;
	const struct snap_opt opts[] = { { 0 } };
	struct snap_ref ref;
	struct snap_nl *nl;
	int rc = snap_opts(cmd, opts, &argc, &argv);
	int err;

	if (rc >= 0)
		return rc;
	if (snap_parse_ref(argv[0], SNAP_REF_GEN, &ref, &e) || snap_nl_open(&nl, &e))
		return snap_err_report(&e);
	err = snap_nl_pin(nl, ref.volume, ref.first, pinned, &e);
	snap_nl_close(nl);
	return err ? snap_err_report(&e) : SNAP_EXIT_OK;
}

static int run_pin(int argc, char **argv)
{
	return set_pinned(&cmd_pin, argc, argv, true);
}

static int run_unpin(int argc, char **argv)
{
	return set_pinned(&cmd_unpin, argc, argv, false);
}

const struct snap_cmd cmd_pin = {
	.name = "pin",
	.args = "NAME@N",
	.summary = "Protect a generation from being deleted",
	.help = "A pinned generation cannot be deleted and is the last to be given up when the diff is full.",
	.min_args = 1,
	.max_args = 1,
	.run = run_pin,
};

const struct snap_cmd cmd_unpin = {
	.name = "unpin",
	.args = "NAME@N",
	.summary = "Take a generation's protection away",
	.min_args = 1,
	.max_args = 1,
	.run = run_unpin,
};
