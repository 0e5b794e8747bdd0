// SPDX-License-Identifier: GPL-2.0-or-later
#include "verbs.h"

static int run(int argc, char **argv)
{
	const struct snap_opt opts[] = { { 0 } };
	struct sm_err e = { 0 };
	int rc = snap_opts(&cmd_init, opts, &argc, &argv);

	return rc >= 0 ? rc : snap_report(sm_repo_init(argv[0], &e), e.text);
}

const struct snap_cmd cmd_init = {
	.name = "init", .args = "REPO", .summary = "make a repository (a directory that is not there yet, or is empty)",
	.min_args = 1, .max_args = 1, .run = run,
};
