// SPDX-License-Identifier: GPL-2.0-or-later
/* snapctl diff: what changed between two generations, or since one. */
#include <errno.h>
#include <string.h>

#include "snapctl.h"

/* @to is 0 for "now". */
static int parse_range(char **argv, struct snap_ref *from, uint32_t *to, struct snap_err *e)
{
	struct snap_ref second;
	int err;

	err = snap_parse_ref(argv[0], SNAP_REF_GEN, from, e);
	if (!err)
		err = snap_parse_ref(argv[1], SNAP_REF_GEN | SNAP_REF_VOLUME, &second, e);
	if (err)
		return err;
	if (strcmp(from->volume, second.volume))
		return snap_err_set(e, -EINVAL, argv[1], "another volume than %s", argv[0]);
	if (second.first && second.first <= from->first)
		return snap_err_set(e, -EINVAL, argv[1], "not newer than %s", argv[0]);
	*to = second.first;
	return 0;
}

static int run_diff(int argc, char **argv)
{
	struct snap_err e = SNAP_ERR_INIT;
	struct snap_out_opts oo = { 0 };
	const struct snap_opt opts[] = { SNAP_OPT_OUTPUT(&oo), { 0 } };
	struct extent_printer *p;
	struct snap_ref from;
	struct snap_nl *nl;
	uint32_t to = 0;
	int rc = snap_opts(&cmd_diff, opts, &argc, &argv);
	int err;

	if (rc >= 0)
		return rc;
	if (parse_range(argv, &from, &to, &e) || extents_open(&p, false, &oo, &e))
		return snap_err_report(&e);
	err = snap_nl_open(&nl, &e);
	if (!err) {
		err = snap_nl_changes(nl, from.volume, from.first, to, 0, 0, extents_print, p, &e);
		snap_nl_close(nl);
	}
	if (err && !e.err)		/* the printer's errno comes without a text */
		snap_err_sys(&e, err, NULL, "cannot write the output");
	if (!extents_close(p, err, &e) && !err)
		return SNAP_EXIT_OK;
	return snap_err_report(&e);
}

const struct snap_cmd cmd_diff = {
	.name = "diff",
	.args = "NAME@A NAME@B | NAME@A NAME",
	.summary = "Print the extents that changed between two generations, or since one",
	.help = "One line an extent, in bytes: offset, length. The granularity is the volume's chunk; what was written\n"
		"with the content it had is listed too.",
	.min_args = 2,
	.max_args = 2,
	.run = run_diff,
};
