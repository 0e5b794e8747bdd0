// SPDX-License-Identifier: GPL-2.0-or-later
/* snapctl pin and unpin. */
#include "snapctl.h"

static int pin(struct snap_nl *nl, const struct snap_ref *ref, const char *arg, struct snap_err *e)
{
	(void)arg;
	return snap_nl_pin(nl, ref->volume, ref->first, true, e);
}

static int unpin(struct snap_nl *nl, const struct snap_ref *ref, const char *arg, struct snap_err *e)
{
	(void)arg;
	return snap_nl_pin(nl, ref->volume, ref->first, false, e);
}

static int run_pin(int argc, char **argv)
{
	return frame_gen(&cmd_pin, argc, argv, pin);
}

static int run_unpin(int argc, char **argv)
{
	return frame_gen(&cmd_unpin, argc, argv, unpin);
}

const struct snap_cmd cmd_pin = {
	.name = "pin",
	.args = "NAME@N",
	.summary = "Protect a generation from being deleted",
	.help = "A pinned generation cannot be deleted and is the last to be given up when the diff is full.",
	.min_args = 1,
	.max_args = 1,
	.run = run_pin,
};

const struct snap_cmd cmd_unpin = {
	.name = "unpin",
	.args = "NAME@N",
	.summary = "Take a generation's protection away",
	.min_args = 1,
	.max_args = 1,
	.run = run_unpin,
};
