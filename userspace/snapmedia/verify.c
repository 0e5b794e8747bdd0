// SPDX-License-Identifier: GPL-2.0-or-later
#include <errno.h>
#include <stdio.h>

#include "verbs.h"

static void on_error(const char *what, void *arg)
{
	(void)arg;
	fprintf(stderr, "snapmedia: %s\n", what);
}

static void print(const struct sm_verify *v, bool json)
{
	static const char *const text = "%llu volumes, %llu generations, %llu packs, %llu records, %llu bytes, %llu maps read, %llu orphans: %llu errors\n";
	static const char *const as_json = "{\"volumes\":%llu,\"generations\":%llu,\"packs\":%llu,\"records\":%llu,\"bytes\":%llu,\"maps\":%llu,\"orphans\":%llu,\"errors\":%llu}\n";
	typedef unsigned long long u;

	if (json)
		printf(as_json, (u)v->volumes, (u)v->generations, (u)v->packs, (u)v->records, (u)v->bytes, (u)v->maps, (u)v->orphans, (u)v->errors);
	else
		printf(text, (u)v->volumes, (u)v->generations, (u)v->packs, (u)v->records, (u)v->bytes, (u)v->maps, (u)v->orphans, (u)v->errors);
}

static int run(int argc, char **argv)
{
	bool json = false;
	const struct snap_opt opts[] = { { "json", 'J', SNAP_OPT_FLAG, NULL, &json, "print JSON" }, { 0 } };
	struct sm_verify v = { .report = on_error };
	struct sm_err e = { 0 };
	struct sm_repo r;
	int rc = snap_opts(&cmd_verify, opts, &argc, &argv), err;

	if (rc >= 0)
		return rc;
	err = sm_repo_open(argv[0], &r, &e);
	if (!err) {
		err = sm_repo_verify(&r, &v, &e);
		sm_repo_close(&r);
	}
	if (err)
		return report(err, &e);
	print(&v, json);
	return v.errors ? SNAP_EXIT_IO : 0;
}

const struct snap_cmd cmd_verify = {
	.name = "verify", .args = "REPO", .summary = "read and hash everything; exit 6 when something is damaged",
	.min_args = 1, .max_args = 1, .run = run,
};
