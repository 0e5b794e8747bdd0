// SPDX-License-Identifier: GPL-2.0-or-later
/* snapmeta check: exit status as fsck's. */
#include "snapmeta.h"

static void print_json(const struct meta *m, const struct sd_check_result *r)
{
	printf("{\"device\":\"%s\",\"errors\":%llu,\"records\":%llu,\"blocks_used\":%llu,\"blocks_leaked\":%llu,"
	       "\"blocks_missing\":%llu,\"data_bad\":%llu,\"clean\":%s,\"failed\":%s}\n",
	       m->path, (unsigned long long)r->errors, (unsigned long long)r->records, (unsigned long long)r->blocks_used,
	       (unsigned long long)r->blocks_leaked, (unsigned long long)r->blocks_missing, (unsigned long long)r->data_bad,
	       m->store->was_clean ? "true" : "false", m->store->failed ? "true" : "false");
}

static void print_text(const struct meta *m, const struct sd_check_result *r, bool data)
{
	printf("%s: %s, %llu generations, %llu records in %u runs, %llu blocks in use\n", m->path,
	       m->store->failed ? "failed (all generations are lost)" : m->store->was_clean ? "clean" : "not detached cleanly",
	       (unsigned long long)m->store->nr_gens, (unsigned long long)r->records, m->store->cur->nr_runs,
	       (unsigned long long)r->blocks_used);
	if (r->errors)
		printf("%s: %llu errors: %llu blocks leaked, %llu missing, %llu preserved chunks damaged\n", m->path,
		       (unsigned long long)r->errors, (unsigned long long)r->blocks_leaked, (unsigned long long)r->blocks_missing,
		       (unsigned long long)r->data_bad);
	else
		printf("%s: no errors%s\n", m->path, data ? ", all preserved data read" : "");
}

static int run(int argc, char **argv)
{
	bool data = false, json = false, quiet = false;
	struct snap_err e = SNAP_ERR_INIT;
	struct sd_check_result res;
	struct meta m;
	const struct snap_opt opts[] = {
		{ "data", 'd', SNAP_OPT_FLAG, NULL, &data, "also read all preserved chunks and compare their checksums" },
		{ "json", 'J', SNAP_OPT_FLAG, NULL, &json, "print JSON" },
		{ "quiet", 'q', SNAP_OPT_FLAG, NULL, &quiet, "print errors only" },
		{ 0 }
	};
	int rc = snap_opts(&cmd_check, opts, &argc, &argv);
	int err;

	if (rc >= 0)
		return rc ? FSCK_USAGE : FSCK_OK;
	err = meta_open(&m, argv[0], &e);
	if (err) {
		snap_err_report(&e);
		return m.complaints ? FSCK_ERRORS : FSCK_OPERATIONAL;
	}
	err = sd_check(m.store, data ? SD_CHECK_DATA : 0, &res);
	if (err) {
		snap_err_sys(&e, err, argv[0], "check could not be finished");
		snap_err_report(&e);
		rc = FSCK_OPERATIONAL;
	} else {
		if (json)
			print_json(&m, &res);
		else if (!quiet)
			print_text(&m, &res, data);
		rc = res.errors ? FSCK_ERRORS : FSCK_OK;
	}
	meta_close(&m);
	return rc;
}

const struct snap_cmd cmd_check = {
	.name = "check",
	.args = "DIFF|IMAGE",
	.summary = "Compare all metadata of a differential volume with itself",
	.help = "Nothing is written. Exit status: 0 no errors, 4 errors found, 8 the check could not be done, 16 usage.",
	.min_args = 1,
	.max_args = 1,
	.run = run,
};
