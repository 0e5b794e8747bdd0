// SPDX-License-Identifier: GPL-2.0-or-later
/* snapctl set: what can be changed of a volume while it runs. */
#include "snapctl.h"

static int run_set(int argc, char **argv)
{
	struct snap_err e = SNAP_ERR_INIT;
	const char *on_full = NULL;
	const struct snap_opt opts[] = {
		{ "on-full", 0, SNAP_OPT_STRING, "POLICY", &on_full, "drop-oldest, drop-all or fail-snapshots" },
		{ 0 }
	};
	struct snap_nl *nl;
	uint8_t policy;
	int rc = snap_opts(&cmd_set, opts, &argc, &argv), err;

	if (rc >= 0)
		return rc;
	if (!on_full)
		return snap_usage_error("set: what is to be changed? (--on-full)");
	if (snap_check_volume_name(argv[0], &e) || snap_parse_on_full(on_full, &policy, &e) || snap_nl_open(&nl, &e))
		return snap_err_report(&e);
	err = snap_nl_set_on_full(nl, argv[0], policy, &e);
	snap_nl_close(nl);
	return err ? snap_err_report(&e) : SNAP_EXIT_OK;
}

const struct snap_cmd cmd_set = {
	.name = "set",
	.args = "NAME",
	.summary = "Change a volume while it runs",
	.help = "Holds until the volume is detached, and is in its table line (dmsetup table).",
	.min_args = 1,
	.max_args = 1,
	.run = run_set,
};
