// SPDX-License-Identifier: GPL-2.0-or-later
/* snapctl map: where each extent of a generation lies. */
#include <string.h>

#include "snapctl.h"

static int run_map(int argc, char **argv)
{
	struct snap_err e = SNAP_ERR_INIT;
	struct snap_out_opts oo = { 0 };
	uint64_t offset = 0, length = 0;
	const struct snap_opt opts[] = {
		{ "offset", 0, SNAP_OPT_SIZE, "SIZE", &offset, "begin there (default 0)" },
		{ "length", 0, SNAP_OPT_SIZE, "SIZE", &length, "only so much (default to the end)" },
		SNAP_OPT_OUTPUT(&oo),
		{ 0 }
	};
	struct extent_printer *p;
	struct snap_ref ref;
	struct snap_nl *nl;
	int rc = snap_opts(&cmd_map, opts, &argc, &argv);
	int err;

	if (rc >= 0)
		return rc;
	if (snap_parse_ref(argv[0], SNAP_REF_GEN, &ref, &e) || extents_open(&p, true, &oo, &e))
		return snap_err_report(&e);
	err = snap_nl_open(&nl, &e);
	if (!err) {
		err = snap_nl_map(nl, ref.volume, ref.first, offset, length, extents_print, p, &e);
		snap_nl_close(nl);
	}
	if (err && !e.err)		/* the printer's errno comes without a text */
		snap_err_sys(&e, err, NULL, "cannot write the output");
	if (!extents_close(p, err, &e) && !err)
		return SNAP_EXIT_OK;
	return snap_err_report(&e);
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
