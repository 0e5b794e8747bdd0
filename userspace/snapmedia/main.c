// SPDX-License-Identifier: GPL-2.0-or-later
#include <stdlib.h>

#include "verbs.h"

const char *repo_default(const char *path)
{
	const char *env = getenv("SNAPMEDIA_REPO");

	return path ? path : env && *env ? env : "/var/lib/snapmedia";
}

int main(int argc, char **argv)
{
	static const struct snap_cmd *const cmds[] = {
		&cmd_init, &cmd_list, &cmd_show, &cmd_du, &cmd_verify, &cmd_fsck, &cmd_prune, &cmd_gc,
		&cmd_reindex, &cmd_lock, &cmd_unlock, &cmd_export, &cmd_import, &cmd_replicate, &cmd_client, NULL
	};
	static const struct snap_program prog = { "snapmedia", "look after a media repository", cmds };

	return snap_main(&prog, argc, argv);
}
