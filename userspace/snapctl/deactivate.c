// SPDX-License-Identifier: GPL-2.0-or-later
/* snapctl deactivate: by generation or by device. */
#include <errno.h>
#include <limits.h>
#include <string.h>

#include "snapctl.h"

#define VIRT_PREFIX	"/dev/snapvirt"

static int parse_device(const char *path, uint32_t *index, struct snap_err *e)
{
	if (strncmp(path, VIRT_PREFIX, strlen(VIRT_PREFIX)) ||
	    snap_parse_u32(path + strlen(VIRT_PREFIX), 0, INT_MAX, index, NULL))
		return snap_err_set(e, -EINVAL, path, "NAME@N or /dev/snapvirtN expected");
	return 0;
}

static int run_deactivate(int argc, char **argv)
{
	struct snap_err e = SNAP_ERR_INIT;
	const struct snap_opt opts[] = { { 0 } };
	bool by_device;
	struct snap_ref ref;
	struct snap_nl *nl;
	uint32_t index;
	int rc = snap_opts(&cmd_deactivate, opts, &argc, &argv);
	int err;

	if (rc >= 0)
		return rc;
	by_device = argv[0][0] == '/';
	err = by_device ? parse_device(argv[0], &index, &e) : snap_parse_ref(argv[0], SNAP_REF_GEN, &ref, &e);
	if (err || snap_nl_open(&nl, &e))
		return snap_err_report(&e);
	err = by_device ? snap_nl_deactivate_index(nl, index, &e) : snap_nl_deactivate(nl, ref.volume, ref.first, &e);
	snap_nl_close(nl);
	return err ? snap_err_report(&e) : SNAP_EXIT_OK;
}

const struct snap_cmd cmd_deactivate = {
	.name = "deactivate",
	.args = "NAME@N | /dev/snapvirtN",
	.summary = "Remove a generation's device; the generation stays",
	.help = "Refused while somebody has the device open.",
	.min_args = 1,
	.max_args = 1,
	.run = run_deactivate,
};
