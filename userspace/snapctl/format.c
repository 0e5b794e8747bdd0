// SPDX-License-Identifier: GPL-2.0-or-later
/* snapctl format: make an empty store on a differential volume. */
#include "snapctl.h"

static int run_format(int argc, char **argv)
{
	struct snap_err e = SNAP_ERR_INIT;
	struct store_opts so = { 0 };
	uint64_t chunk = 0;
	const struct snap_opt opts[] = {
		{ "chunk", 'c', SNAP_OPT_SIZE, "SIZE", &chunk, "unit of preservation, 4k to 1M (default 4k)" },
		{ "journal-size", 'j', SNAP_OPT_SIZE, "SIZE", &so.journal_size, "journal (default by the size of DIFF)" },
		{ "force", 'f', SNAP_OPT_FLAG, NULL, &so.force, "overwrite whatever DIFF contains" },
		{ 0 }
	};
	int rc = snap_opts(&cmd_format, opts, &argc, &argv);

	if (rc >= 0)
		return rc;
	if (store_check_chunk(chunk, &e))
		return snap_err_report(&e);
	so.chunk_size = chunk;
	if (store_format(argv[0], &so, &e))
		return snap_err_report(&e);
	return SNAP_EXIT_OK;
}

const struct snap_cmd cmd_format = {
	.name = "format",
	.args = "DIFF",
	.summary = "Make an empty store on the differential volume DIFF",
	.help = "A device in use is refused always; one with a filesystem, a partition table or any other known\n"
		"signature, or with a snapdiff store, unless --force is given.",
	.min_args = 1,
	.max_args = 1,
	.run = run_format,
};
