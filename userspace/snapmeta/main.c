// SPDX-License-Identifier: GPL-2.0-or-later
#include "snapmeta.h"

static const struct snap_cmd *const cmds[] = {
	&cmd_check,
	&cmd_dump,
	&cmd_restore,
	&cmd_repair,
	&cmd_copy_generation,
	NULL
};

static const struct snap_program snapmeta = {
	.name = "snapmeta",
	.summary = "Check, dump, mend and read differential volumes offline",
	.cmds = cmds,
};

int main(int argc, char **argv)
{
	return snap_main(&snapmeta, argc, argv);
}
