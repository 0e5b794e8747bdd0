// SPDX-License-Identifier: GPL-2.0-or-later
/* snapctl list: generations of one volume or of all. */
#include "snapctl.h"

static int run_list(int argc, char **argv)
{
	const struct show show = { "generations", SNAP_OUT_TABLE, snap_gen_cols, snap_nr_gen_cols, snap_gen_rows, "list" };

	return frame_show(&cmd_list, &show, argc, argv);
}

const struct snap_cmd cmd_list = {
	.name = "list",
	.args = "[NAME]",
	.summary = "List generations",
	.help = "Columns: volume, generation, created, label, size, state (live, bookmark, lost), changed_bytes (first\n"
		"written between this generation and the next kept one), pinned, suspect (snapdiff(7)), frozen,\n"
		"changes_unknown, device, uuid.",
	.min_args = 0,
	.max_args = 1,
	.run = run_list,
};
