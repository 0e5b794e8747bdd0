// SPDX-License-Identifier: GPL-2.0-or-later
/* snapctl delete: generations by number or range. All arguments are parsed before the first is deleted. */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>

#include "snapctl.h"

static int parse_all(char **argv, int n, struct snap_ref *refs, struct snap_err *e)
{
	int i, err;

	for (i = 0; i < n; i++) {
		err = snap_parse_ref(argv[i], SNAP_REF_GEN | SNAP_REF_RANGE, &refs[i], e);
		if (err)
			return err;
	}
	return 0;
}

static int delete_here(const struct snap_ref *refs, int n, struct snap_err *e)
{
	struct snap_nl *nl;
	int err = snap_nl_open(&nl, e);

	if (err)
		return err;
	err = snap_gen_delete(nl, refs, n, e);
	snap_nl_close(nl);
	return err;
}

static int delete_there(char **names, int n, struct snap_err *e)
{
	json_t *o = json_object(), *refs = json_array();

	for (int i = 0; i < n; i++)
		json_array_append_new(refs, json_string(names[i]));
	json_object_set_new(o, "generations", refs);
	return remote_do("delete", o, e);
}

static int run_delete(int argc, char **argv)
{
	struct snap_err e = SNAP_ERR_INIT;
	const struct snap_opt opts[] = { { 0 } };
	struct snap_ref *refs;
	int rc = snap_opts(&cmd_delete, opts, &argc, &argv);
	int err;

	if (rc >= 0)
		return rc;
	refs = calloc(argc, sizeof(*refs));
	if (!refs)
		err = snap_err_sys(&e, -ENOMEM, NULL, "delete");
	else
		err = parse_all(argv, argc, refs, &e);
	if (!err)
		err = snapctl_host ? delete_there(argv, argc, &e) : delete_here(refs, argc, &e);
	free(refs);
	return err ? snap_err_report(&e) : SNAP_EXIT_OK;
}

const struct snap_cmd cmd_delete = {
	.name = "delete",
	.args = "NAME@N... | NAME@A..B",
	.summary = "Delete generations",
	.help = "A range is inclusive; numbers that do not exist in it are skipped. A generation that is active or\n"
		"pinned is refused.",
	.min_args = 1,
	.max_args = -1,
	.run = run_delete,
};
