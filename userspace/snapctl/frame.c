// SPDX-License-Identifier: GPL-2.0-or-later
/* The frames that several verbs run in: options, connection, output, exit code. */
#include "snapctl.h"

int frame_show(const struct snap_cmd *cmd, const struct show *show, int argc, char **argv)
{
	struct snap_err e = SNAP_ERR_INIT;
	struct snap_out_opts oo = { 0 };
	const struct snap_opt opts[] = { SNAP_OPT_OUTPUT(&oo), { 0 } };
	struct snap_out *out;
	struct snap_nl *nl;
	int rc = snap_opts(cmd, opts, &argc, &argv), err;

	if (rc >= 0)
		return rc;
	if (argc && snap_check_volume_name(argv[0], &e))
		return snap_err_report(&e);
	if (snap_out_open(&out, show->list, show->layout, show->cols, show->nr_cols, &oo, &e))
		return snap_err_report(&e);
	err = snapctl_host ? remote_show(show->verb, argc ? argv[0] : NULL, out, &e) : snap_nl_open(&nl, &e);
	if (!err && !snapctl_host) {
		err = show->rows(nl, argc ? argv[0] : NULL, out, &e);
		snap_nl_close(nl);
	}
	if (err) {
		snap_out_abort(out);
		return snap_err_report(&e);
	}
	return snap_out_close(out, &e) ? snap_err_report(&e) : SNAP_EXIT_OK;
}

int frame_extents(bool with_place, const struct snap_out_opts *oo, frame_walk_fn walk, void *arg)
{
	struct snap_err e = SNAP_ERR_INIT;
	struct extent_printer *p;
	struct snap_nl *nl;
	int err;

	if (extents_open(&p, with_place, oo, &e))
		return snap_err_report(&e);
	err = snap_nl_open(&nl, &e);
	if (!err) {
		err = walk(nl, p, arg, &e);
		snap_nl_close(nl);
	}
	if (err && !e.err)		/* the printer's errno comes without a text */
		snap_err_sys(&e, err, NULL, "cannot write the output");
	if (!extents_close(p, err, &e) && !err)
		return SNAP_EXIT_OK;
	return snap_err_report(&e);
}

int frame_gen(const struct snap_cmd *cmd, int argc, char **argv, frame_gen_fn fn)
{
	struct snap_err e = SNAP_ERR_INIT;
	const struct snap_opt opts[] = { { 0 } };
	struct snap_ref ref;
	struct snap_nl *nl;
	int rc = snap_opts(cmd, opts, &argc, &argv), err;

	if (rc >= 0)
		return rc;
	if (snap_parse_ref(argv[0], SNAP_REF_GEN, &ref, &e))
		return snap_err_report(&e);
	if (snapctl_host)
		return remote_gen(cmd->name, &ref, &e) ? snap_err_report(&e) : SNAP_EXIT_OK;
	if (snap_nl_open(&nl, &e))
		return snap_err_report(&e);
	err = fn(nl, &ref, argc > 1 ? argv[1] : NULL, &e);
	snap_nl_close(nl);
	return err ? snap_err_report(&e) : SNAP_EXIT_OK;
}
