// SPDX-License-Identifier: GPL-2.0-or-later
/* snapctl status: everything about a volume that is a number. */
#include "snapctl.h"

static int run_status(int argc, char **argv)
{
	const struct show show = { "volumes", SNAP_OUT_RECORD, snap_vol_cols, snap_nr_vol_cols, snap_vol_rows, "status" };

	return frame_show(&cmd_status, &show, argc, argv);
}

const struct snap_cmd cmd_status = {
	.name = "status",
	.args = "[NAME]",
	.summary = "Show volumes: devices, state, use of the diff, counters",
	.help = "With -o as a table of the chosen columns, e.g. -o volume,state,diff_used_percent. Counters are since\n"
		"attach. The columns are the keys of --json.",
	.min_args = 0,
	.max_args = 1,
	.run = run_status,
};
