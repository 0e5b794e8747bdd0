// SPDX-License-Identifier: GPL-2.0-or-later
/* list, show, du: what is there. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "manifest.h"
#include "order.h"

#define H SNAP_COL_HIDDEN

static const struct snap_col generation_cols[] = {
	{ "client", "CLIENT", SNAP_COL_STRING, 0, 0 },
	{ "volume", "VOLUME", SNAP_COL_STRING, 0, 0 },
	{ "volume_uuid", "UUID", SNAP_COL_UUID, H, 0 },
	{ "generation", "GEN", SNAP_COL_NUMBER, 0, 0 },
	{ "parent", "PARENT", SNAP_COL_NUMBER, 0, 0 },
	{ "size", "SIZE", SNAP_COL_SIZE, 0, 0 },
	{ "changed_bytes", "CHANGED", SNAP_COL_SIZE, 0, 0 },
	{ "stored_bytes", "STORED", SNAP_COL_SIZE, 0, 0 },
	{ "received", "RECEIVED", SNAP_COL_TIME, 0, 0 },
	{ "created", "CREATED", SNAP_COL_TIME, H, 0 },
	{ "locked", "LOCKED", SNAP_COL_STRING, 0, 0 },
	{ "locked_until", "LOCKED-UNTIL", SNAP_COL_TIME, H, 0 },
	{ "damaged", "DAMAGED", SNAP_COL_STRING, 0, 0 },
	{ "label", "LABEL", SNAP_COL_STRING, 0, 0 },
	{ "sequence", "SEQ", SNAP_COL_NUMBER, H, 0 },
	{ "manifest", "MANIFEST", SNAP_COL_STRING, H, 0 },
	{ "generation_uuid", "GEN-UUID", SNAP_COL_UUID, H, 0 },
};

static const struct snap_col volume_cols[] = {
	{ "client", "CLIENT", SNAP_COL_STRING, 0, 0 },
	{ "volume", "VOLUME", SNAP_COL_STRING, 0, 0 },
	{ "volume_uuid", "UUID", SNAP_COL_UUID, H, 0 },
	{ "id", "ID", SNAP_COL_STRING, H, 0 },
	{ "generations", "GENS", SNAP_COL_NUMBER, 0, 0 },
	{ "size", "SIZE", SNAP_COL_SIZE, 0, 0 },
	{ "packs_bytes", "PACKS", SNAP_COL_SIZE, 0, 0 },
	{ "maps_bytes", "MAPS", SNAP_COL_SIZE, 0, 0 },
	{ "manifests_bytes", "MANIFESTS", SNAP_COL_SIZE, H, 0 },
	{ "staged_bytes", "STAGED", SNAP_COL_SIZE, 0, 0 },
	{ "total_bytes", "TOTAL", SNAP_COL_SIZE, 0, 0 },
	{ "verified", "VERIFIED", SNAP_COL_TIME, 0, 0 },
	{ "verified_sample", "SAMPLE", SNAP_COL_NUMBER, H, 0 },
	{ "verify_errors", "ERRORS", SNAP_COL_NUMBER, 0, 0 },
};

static int table(const struct snap_cmd *cmd, const char *list, const struct snap_col *cols, size_t nr, int argc, char **argv)
{
	struct snap_out_opts oo = { 0 };
	struct order o = { 0 };
	const struct snap_opt opts[] = { ORDER_WHERE(&o), ORDER_VOLUME(&o), SNAP_OPT_OUTPUT(&oo), { 0 } };
	int rc = snap_opts(cmd, opts, &argc, &argv);

	if (rc < 0)
		rc = order_begin(&o, cmd->name, argc, argv);
	return rc >= 0 ? rc : order_table(&o, list, cols, nr, &oo);
}

static int run_reindex(int argc, char **argv)
{
	return table(&cmd_reindex, "volumes", volume_cols, 5, argc, argv);
}

static int run_list(int argc, char **argv)
{
	return table(&cmd_list, "generations", generation_cols, sizeof(generation_cols) / sizeof(*generation_cols), argc, argv);
}

static int run_du(int argc, char **argv)
{
	return table(&cmd_du, "volumes", volume_cols, sizeof(volume_cols) / sizeof(*volume_cols), argc, argv);
}

const struct snap_cmd cmd_list = {
	.name = "list", .args = "[REPO]", .summary = "volumes and their generations", .max_args = 1, .run = run_list,
};

const struct snap_cmd cmd_du = {
	.name = "du", .args = "[REPO]", .summary = "what volumes take, and when they were verified", .max_args = 1, .run = run_du,
};

const struct snap_cmd cmd_reindex = {
	.name = "reindex", .args = "[REPO]", .summary = "make all caches anew", .max_args = 1, .run = run_reindex,
};

/* ---- show ---- */

static int print_json(json_t *row, void *arg)
{
	char *text = sm_json_canonical(row);

	printf("%s\n", text ? text : "{}");
	free(text);
	json_decref(row);
	return 0;
}

static int print_text(json_t *row, void *arg)
{
	static const char *const keys[] = { "manifest_text", "manifest_hash", "client", "sequence", "stored_bytes", "packs" };
	size_t i;
	json_t *s;

	for (i = 0; i < sizeof(keys) / sizeof(*keys); i++) {
		const json_t *v = json_object_get(row, keys[i]);

		if (json_is_integer(v))
			printf("%-14s %lld\n", keys[i], (long long)json_integer_value(v));
		else
			printf("%-14s %s\n", keys[i], json_is_string(v) ? json_string_value(v) : "");
	}
	json_array_foreach(json_object_get(row, "segments"), i, s)
		printf("map segment    %s, %lld entries\n", json_string_value(json_object_get(s, "id")),
		       (long long)json_integer_value(json_object_get(s, "entries")));
	json_decref(row);
	return 0;
}

static int run_show(int argc, char **argv)
{
	struct sm_err e = { 0 };
	struct order o = { 0 };
	uint32_t gen = 0;
	bool json = false;
	const struct snap_opt opts[] = {
		ORDER_WHERE(&o), ORDER_VOLUME(&o),
		{ "gen", 'g', SNAP_OPT_U32, "N", &gen, "generation" },
		{ "json", 'J', SNAP_OPT_FLAG, NULL, &json, "print JSON" }, { 0 }
	};
	int rc = snap_opts(&cmd_show, opts, &argc, &argv);

	if (rc >= 0)
		return rc;
	if (!gen)
		return snap_usage_error("--gen is needed");
	rc = order_begin(&o, "show", argc, argv);
	if (rc >= 0)
		return rc;
	json_object_set_new(o.json, "generation", json_integer(gen));
	return snap_report(order_send(&o, json ? print_json : print_text, NULL, &e), e.text);
}

const struct snap_cmd cmd_show = {
	.name = "show", .args = "[REPO] --gen N", .summary = "one generation: its manifest and its map",
	.max_args = 1, .run = run_show,
};
