// SPDX-License-Identifier: GPL-2.0-or-later
/* snapctl create: cut a generation of one volume, or of several at one instant. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "snapctl.h"

static int check_names(char **names, int n, struct snap_err *e)
{
	int i, j, err;

	for (i = 0; i < n; i++) {
		err = snap_check_volume_name(names[i], e);
		if (err)
			return err;
		for (j = 0; j < i; j++)
			if (!strcmp(names[i], names[j]))
				return snap_err_set(e, -EINVAL, names[i], "named twice");
	}
	return 0;
}

static int create(char **names, int n, const char *label, enum snap_freeze freeze, struct snap_err *e)
{
	char sole[SNAP_VOLUME_BUF];
	char *sole_names[1] = { sole };
	struct snap_gen *gens;
	struct snap_nl *nl;
	int i, err;

	err = snap_nl_open(&nl, e);
	if (err)
		return err;
	if (!n) {
		err = snap_nl_sole_volume(nl, sole, e);
		names = sole_names;
		n = 1;
	}
	gens = calloc(n, sizeof(*gens));
	if (!err && !gens)
		err = snap_err_sys(e, -ENOMEM, NULL, "create");
	if (!err)
		err = snap_nl_create(nl, (const char *const *)names, n, label, freeze, gens, e);
	for (i = 0; i < n && !err; i++)
		printf("%s@%u\n", gens[i].volume[0] ? gens[i].volume : names[i], gens[i].number);
	free(gens);
	snap_nl_close(nl);
	return err;
}

static int create_there(char **names, int n, const char *label, enum snap_freeze freeze, struct snap_err *e)
{
	json_t *o = json_object(), *volumes = json_array();

	for (int i = 0; i < n; i++)
		json_array_append_new(volumes, json_string(names[i]));
	json_object_set_new(o, "volumes", volumes);
	if (label && json_object_set_new(o, "label", json_string(label))) {
		json_decref(o);
		return snap_err_set(e, -EINVAL, label, "not UTF-8");
	}
	if (freeze != SNAP_FREEZE_AUTO)
		json_object_set_new(o, "freeze", json_boolean(freeze == SNAP_FREEZE_YES));
	return remote_do("create", o, e);
}

static int run_create(int argc, char **argv)
{
	enum snap_freeze freeze = SNAP_FREEZE_AUTO;
	struct snap_err e = SNAP_ERR_INIT;
	bool yes = false, no = false;
	const char *label = NULL;
	const struct snap_opt opts[] = {
		{ "label", 'l', SNAP_OPT_STRING, "TEXT", &label, "label of the generation, at most 63 bytes" },
		{ "freeze", 0, SNAP_OPT_FLAG, NULL, &yes, "freeze the filesystem around the cut, or fail" },
		{ "no-freeze", 0, SNAP_OPT_FLAG, NULL, &no, "do not freeze: crash-consistent" },
		{ 0 }
	};
	int rc = snap_opts(&cmd_create, opts, &argc, &argv);

	if (rc >= 0)
		return rc;
	if (yes && no)
		return snap_usage_error("create: --freeze and --no-freeze exclude each other");
	if (label && strlen(label) > SNAPDIFF_LABEL_MAX)
		return snap_usage_error("create: label too long: %zu bytes, at most %d", strlen(label), SNAPDIFF_LABEL_MAX);
	if (yes || no)
		freeze = yes ? SNAP_FREEZE_YES : SNAP_FREEZE_NO;
	if (check_names(argv, argc, &e) || (snapctl_host ? create_there : create)(argv, argc, label, freeze, &e))
		return snap_err_report(&e);
	return SNAP_EXIT_OK;
}

const struct snap_cmd cmd_create = {
	.name = "create",
	.args = "[NAME...]",
	.summary = "Create a generation and print its name, NAME@N",
	.help = "Several volumes are cut at one instant. Without NAME: the only attached volume.\n"
		"By default a mounted filesystem is frozen for the moment of the cut.",
	.min_args = 0,
	.max_args = -1,
	.run = run_create,
};
