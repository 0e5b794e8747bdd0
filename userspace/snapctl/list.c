// SPDX-License-Identifier: GPL-2.0-or-later
/* snapctl list: generations of one volume or of all. */
#include <stdlib.h>

#include "snapctl.h"

enum { COL_VOLUME, COL_GEN, COL_CREATED, COL_SIZE, COL_CHANGED, COL_STATE, COL_PINNED, COL_SUSPECT, COL_DEVICE,
	COL_FROZEN, COL_UNKNOWN, COL_UUID, COL_LABEL };

static const struct snap_col cols[] = {
	[COL_VOLUME]	= { "volume", "VOLUME", SNAP_COL_STRING },
	[COL_GEN]	= { "generation", "GEN", SNAP_COL_NUMBER },
	[COL_CREATED]	= { "created", "CREATED", SNAP_COL_TIME },
	[COL_SIZE]	= { "size", "SIZE", SNAP_COL_SIZE },
	[COL_CHANGED]	= { "changed_bytes", "CHANGED", SNAP_COL_SIZE },
	[COL_STATE]	= { "state", "STATE", SNAP_COL_STRING },
	[COL_PINNED]	= { "pinned", "PINNED", SNAP_COL_BOOL },
	[COL_SUSPECT]	= { "suspect", "SUSPECT", SNAP_COL_BOOL },
	[COL_DEVICE]	= { "device", "DEVICE", SNAP_COL_STRING },
	[COL_FROZEN]	= { "frozen", "FROZEN", SNAP_COL_BOOL, SNAP_COL_HIDDEN },
	[COL_UNKNOWN]	= { "changes_unknown", "UNKNOWN", SNAP_COL_BOOL, SNAP_COL_HIDDEN },
	[COL_UUID]	= { "uuid", "UUID", SNAP_COL_UUID, SNAP_COL_HIDDEN },
	[COL_LABEL]	= { "label", "LABEL", SNAP_COL_STRING },
};

static int print_gen(struct snap_out *out, const struct snap_gen *g)
{
	char device[32];

	snap_out_str(out, COL_VOLUME, g->volume);
	snap_out_num(out, COL_GEN, g->number);
	snap_out_num(out, COL_CREATED, g->created);
	snap_out_str(out, COL_LABEL, g->label);
	snap_out_num(out, COL_SIZE, g->size);
	snap_out_str(out, COL_STATE, snap_gen_state_name(g->state));
	snap_out_num(out, COL_CHANGED, g->changed);
	snap_out_num(out, COL_PINNED, !!(g->flags & SNAPDIFF_GEN_F_PINNED));
	snap_out_num(out, COL_SUSPECT, !!(g->flags & SNAPDIFF_GEN_F_SUSPECT));
	if (g->virt_index != SNAP_NO_VIRT)
		snap_out_str(out, COL_DEVICE, snap_virt_path(device, sizeof(device), g->virt_index));
	snap_out_num(out, COL_FROZEN, !!(g->flags & SNAPDIFF_GEN_F_FROZEN));
	snap_out_num(out, COL_UNKNOWN, !!(g->flags & SNAPDIFF_GEN_F_CHANGES_UNKNOWN));
	snap_out_uuid(out, COL_UUID, g->uuid);
	return snap_out_row(out);
}

static int rows(struct snap_nl *nl, const char *name, struct snap_out *out, struct snap_err *e)
{
	struct snap_gen *gens = NULL;
	struct snap_volume vol;
	size_t n = 0, i;
	int err = 0;

	if (name)		/* an unknown volume is an error, not an empty list */
		err = snap_nl_volume(nl, name, &vol, e);
	if (!err)
		err = snap_nl_gens(nl, name, &gens, &n, e);
	for (i = 0; i < n && !err; i++)
		err = print_gen(out, &gens[i]);
	free(gens);
	return err;
}

static int run_list(int argc, char **argv)
{
	static const struct show show = { "generations", SNAP_OUT_TABLE, cols, ARRAY_SIZE(cols), rows };

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
