// SPDX-License-Identifier: GPL-2.0-or-later
/* snapctl label: another label for a generation, or none. */
#include <errno.h>
#include <string.h>

#include "snapctl.h"

static int label(struct snap_nl *nl, const struct snap_ref *ref, const char *text, struct snap_err *e)
{
	if (strlen(text) > SNAPDIFF_LABEL_MAX)
		return snap_err_set(e, -EINVAL, ref->volume, "label too long: %zu bytes, at most %d", strlen(text), SNAPDIFF_LABEL_MAX);
	return snap_nl_label(nl, ref->volume, ref->first, text, e);
}

static int run_label(int argc, char **argv)
{
	return frame_gen(&cmd_label, argc, argv, label);
}

const struct snap_cmd cmd_label = {
	.name = "label",
	.args = "NAME@N TEXT",
	.summary = "Change the label of a generation",
	.help = "At most 63 bytes; an empty TEXT takes the label away.",
	.min_args = 2,
	.max_args = 2,
	.run = run_label,
};
