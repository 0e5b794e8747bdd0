// SPDX-License-Identifier: GPL-2.0-or-later
/* snapctl delete: generations by number or range. All arguments are parsed before the first is deleted. */
#include <errno.h>
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

/*
 * Does what is named exist? So that a wrong argument behind good ones does not leave half of the work done. Of a range one
 * generation is enough.
 */
static int check_ref(struct snap_nl *nl, const struct snap_ref *r, struct snap_err *e)
{
	struct snap_gen *gens, g;
	bool found = false;
	size_t n, i;
	int err;

	if (!r->range)
		return snap_nl_gen(nl, r->volume, r->first, &g, e);
	err = snap_nl_gens(nl, r->volume, &gens, &n, e);
	for (i = 0; i < n && !err && !found; i++)
		found = gens[i].number >= r->first && gens[i].number <= r->last;
	free(gens);
	if (!err && !found)
		err = snap_err_set(e, -ENOENT, r->volume, "no generation between %u and %u", r->first, r->last);
	return err;
}

static int delete_all(const struct snap_ref *refs, int n, struct snap_err *e)
{
	struct snap_nl *nl;
	int i, err;

	err = snap_nl_open(&nl, e);
	if (err)
		return err;
	for (i = 0; i < n && !err; i++)
		err = check_ref(nl, &refs[i], e);
	for (i = 0; i < n && !err; i++)
		err = snap_nl_delete(nl, refs[i].volume, refs[i].first, refs[i].last, e);
	snap_nl_close(nl);
	return err;
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
		err = delete_all(refs, argc, &e);
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
