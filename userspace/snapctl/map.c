// SPDX-License-Identifier: GPL-2.0-or-later
/* snapctl map: where each extent of a generation lies. */
#include "snapctl.h"

struct range {
	struct snap_ref ref;
	uint64_t offset, length;
};

static int walk(struct snap_nl *nl, struct extent_printer *p, void *arg, struct snap_err *e)
{
	const struct range *r = arg;

	return snap_nl_map(nl, r->ref.volume, r->ref.first, r->offset, r->length, extents_print, p, e);
}

static int run_map(int argc, char **argv)
{
	struct snap_err e = SNAP_ERR_INIT;
	struct snap_out_opts oo = { 0 };
	struct range r = { 0 };
	const struct snap_opt opts[] = {
		{ "offset", 0, SNAP_OPT_SIZE, "SIZE", &r.offset, "begin there (default 0)" },
		{ "length", 0, SNAP_OPT_SIZE, "SIZE", &r.length, "only so much (default to the end)" },
		SNAP_OPT_OUTPUT(&oo),
		{ 0 }
	};
	int rc = snap_opts(&cmd_map, opts, &argc, &argv);

	if (rc >= 0)
		return rc;
	if (snap_parse_ref(argv[0], SNAP_REF_GEN, &r.ref, &e))
		return snap_err_report(&e);
	return frame_extents(true, &oo, walk, &r);
}

const struct snap_cmd cmd_map = {
	.name = "map",
	.args = "NAME@N",
	.summary = "Print the extents of a generation and where they lie",
	.help = "One line an extent, all in bytes: offset, length, where (primary, diff, zero, bad), place (offset on the\n"
		"primary or on the diff). An extent that lies on the primary can move to the diff at any moment.",
	.min_args = 1,
	.max_args = 1,
	.run = run_map,
};
