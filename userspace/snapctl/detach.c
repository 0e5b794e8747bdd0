// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * snapctl detach: refuse while anybody reads a generation or uses the volume; deactivate the virtual volumes that
 * nobody has open, then remove the device.
 */
#include <errno.h>
#include <stdlib.h>

#include "snapctl.h"

static int check_virts(const struct snap_virt *virts, size_t n, const char *name, struct snap_err *e)
{
	size_t i;

	for (i = 0; i < n; i++)
		if (virts[i].openers)
			return snap_err_set(e, -EBUSY, name, "cannot detach: generation %u is in use as /dev/snapvirt%d",
					    virts[i].gen, virts[i].index);
	return 0;
}

static int deactivate_idle(const char *name, struct snap_err *e)
{
	struct snap_virt *virts = NULL;
	struct snap_nl *nl;
	size_t n = 0, i;
	int err;

	err = snap_nl_open(&nl, e);
	if (err)
		return err;
	err = snap_nl_virts(nl, name, &virts, &n, e);
	if (!err)
		err = check_virts(virts, n, name, e);
	for (i = 0; i < n && !err; i++)
		err = snap_nl_deactivate_index(nl, virts[i].index, e);
	free(virts);
	snap_nl_close(nl);
	return err;
}

static int run_detach(int argc, char **argv)
{
	struct snap_err e = SNAP_ERR_INIT;
	const struct snap_opt opts[] = { { 0 } };
	int rc = snap_opts(&cmd_detach, opts, &argc, &argv);
	int err;

	if (rc >= 0)
		return rc;
	err = snap_check_volume_name(argv[0], &e);
	if (!err)
		err = snap_dm_check_detach(argv[0], &e);
	if (!err)
		err = deactivate_idle(argv[0], &e);
	if (!err)
		err = snap_dm_detach(argv[0], &e);
	return err ? snap_err_report(&e) : SNAP_EXIT_OK;
}

const struct snap_cmd cmd_detach = {
	.name = "detach",
	.args = "NAME",
	.summary = "Detach a volume; its generations stay on the diff",
	.help = "Refused while the volume is mounted or open, or one of its generations is. Virtual volumes that\n"
		"nobody has open are deactivated.",
	.min_args = 1,
	.max_args = 1,
	.run = run_detach,
};
