// SPDX-License-Identifier: GPL-2.0-or-later
#include <string.h>

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
	.summary = "Control snapdiff volumes and their generations; with --host HOST before the command those of another\n"
		   "machine, by its agent: list, status, create, delete, bookmark, pin, unpin",
	.cmds = cmds,
};

/* What the agent of another machine does as well. */
static bool remote_verb(const char *verb)
{
	static const char *const verbs[] = { "list", "status", "create", "delete", "bookmark", "pin", "unpin", "help", "--help", "-h" };

	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
		if (!strcmp(verb, verbs[i]))
			return true;
	return false;
}

/* --host HOST or --host=HOST before the verb; takes it out of the arguments. Return: exit code, or -1 */
static int take_host(int *argc, char ***argv)
{
	char **v = *argv;
	int n = 0;

	if (*argc > 1 && (!strcmp(v[1], "--host") || !strcmp(v[1], "-H")))
		n = 2;
	else if (*argc > 1 && !strncmp(v[1], "--host=", 7))
		n = 1;
	if (!n)
		return -1;
	snapctl_host = n == 1 ? v[1] + 7 : *argc > 2 ? v[2] : "";
	if (!*snapctl_host)
		return snap_usage_error("--host: which one?");
	v[n] = v[0];
	*argc -= n;
	*argv += n;
	if (*argc > 1 && !remote_verb(v[n + 1]))
		return snap_usage_error("%s: not with --host", v[n + 1]);
	return -1;
}

int main(int argc, char **argv)
{
	int rc = take_host(&argc, &argv);

	return rc >= 0 ? rc : snap_main(&snapctl, argc, argv);
}
