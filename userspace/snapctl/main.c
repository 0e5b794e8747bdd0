// SPDX-License-Identifier: GPL-2.0-or-later
#include "snapctl.h"

static const struct snap_cmd *const cmds[] = {
	&cmd_format,
	&cmd_attach,
	&cmd_detach,
	&cmd_create,
	&cmd_list,
	&cmd_delete,
	&cmd_bookmark,
	&cmd_pin,
	&cmd_unpin,
	&cmd_label,
	&cmd_activate,
	&cmd_deactivate,
	&cmd_status,
	&cmd_set,
	&cmd_resize,
	&cmd_map,
	&cmd_diff,
	&cmd_monitor,
	NULL
};

static const struct snap_program snapctl = {
	.name = "snapctl",
	.summary = "Control snapdiff volumes and their generations",
	.cmds = cmds,
};

int main(int argc, char **argv)
{
	return snap_main(&snapctl, argc, argv);
}
