// SPDX-License-Identifier: GPL-2.0-or-later
/* snapctl activate: a generation as /dev/snapvirtN. */
#include <stdio.h>

#include "snapctl.h"

static int run_activate(int argc, char **argv)
{
	struct snap_err e = SNAP_ERR_INIT;
	bool partscan = false;
	const struct snap_opt opts[] = {
		{ "partscan", 'P', SNAP_OPT_FLAG, NULL, &partscan, "look for partitions on it" },
		{ 0 }
	};
	struct snap_ref ref;
	struct snap_nl *nl;
	char path[32];
	int rc = snap_opts(&cmd_activate, opts, &argc, &argv);
	int err, index;

	if (rc >= 0)
		return rc;
	if (snap_parse_ref(argv[0], SNAP_REF_GEN, &ref, &e) || snap_nl_open(&nl, &e))
		return snap_err_report(&e);
	err = snap_nl_activate(nl, ref.volume, ref.first, partscan, &index, &e);
	if (!err)
		err = snap_virt_wait(index, &e);
	snap_nl_close(nl);
	if (err)
		return snap_err_report(&e);
	puts(snap_virt_path(path, sizeof(path), index));
	return SNAP_EXIT_OK;
}

const struct snap_cmd cmd_activate = {
	.name = "activate",
	.args = "NAME@N",
	.summary = "Make a generation readable and print its device, /dev/snapvirtN",
	.help = "One that is active already is printed as it is. The device is read-only.",
	.min_args = 1,
	.max_args = 1,
	.run = run_activate,
};
