// SPDX-License-Identifier: GPL-2.0-or-later
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "verbs.h"

enum { C_CLIENT, C_VOLUME, C_UUID, C_GENERATION, C_PARENT, C_SIZE, C_CHANGED, C_STORED, C_RECEIVED, C_CREATED, C_LABEL,
	C_SEQUENCE, C_MANIFEST, C_GEN_UUID };

static const struct snap_col cols[] = {
	[C_CLIENT] = { "client", "CLIENT", SNAP_COL_STRING, 0, 0 },
	[C_VOLUME] = { "volume", "VOLUME", SNAP_COL_STRING, 0, 0 },
	[C_UUID] = { "volume_uuid", "UUID", SNAP_COL_UUID, SNAP_COL_HIDDEN, 0 },
	[C_GENERATION] = { "generation", "GEN", SNAP_COL_NUMBER, 0, 0 },
	[C_PARENT] = { "parent", "PARENT", SNAP_COL_NUMBER, 0, 0 },
	[C_SIZE] = { "size", "SIZE", SNAP_COL_SIZE, 0, 0 },
	[C_CHANGED] = { "changed_bytes", "CHANGED", SNAP_COL_SIZE, 0, 0 },
	[C_STORED] = { "stored_bytes", "STORED", SNAP_COL_SIZE, 0, 0 },
	[C_RECEIVED] = { "received", "RECEIVED", SNAP_COL_TIME, 0, 0 },
	[C_CREATED] = { "created", "CREATED", SNAP_COL_TIME, SNAP_COL_HIDDEN, 0 },
	[C_LABEL] = { "label", "LABEL", SNAP_COL_STRING, 0, 0 },
	[C_SEQUENCE] = { "sequence", "SEQ", SNAP_COL_NUMBER, SNAP_COL_HIDDEN, 0 },
	[C_MANIFEST] = { "manifest", "MANIFEST", SNAP_COL_STRING, SNAP_COL_HIDDEN, 0 },
	[C_GEN_UUID] = { "generation_uuid", "GEN-UUID", SNAP_COL_UUID, SNAP_COL_HIDDEN, 0 },
};

static const struct sm_generation *parent_of(const struct sm_generations *all, const struct sm_generation *g)
{
	for (size_t i = 0; g->manifest.info.has_parent && i < all->nr; i++)
		if (!memcmp(all->v[i].hash, g->manifest.info.parent, SM_DIGEST))
			return &all->v[i];
	return NULL;
}

static int print_one(struct snap_out *out, const struct sm_generations *all, const struct sm_generation *g)
{
	const struct sm_gen_info *i = &g->manifest.info;
	const struct sm_generation *parent = parent_of(all, g);
	char hash[SM_DIGEST_HEX];

	sm_hex(g->hash, SM_DIGEST, hash);
	snap_out_str(out, C_CLIENT, g->client);
	snap_out_str(out, C_VOLUME, i->volume_name);
	snap_out_uuid(out, C_UUID, i->volume);
	snap_out_num(out, C_GENERATION, i->number);
	if (parent)
		snap_out_num(out, C_PARENT, parent->manifest.info.number);
	snap_out_num(out, C_SIZE, i->size);
	snap_out_num(out, C_CHANGED, i->bytes);
	snap_out_num(out, C_STORED, g->stored_bytes);
	snap_out_num(out, C_RECEIVED, g->received);
	snap_out_num(out, C_CREATED, i->created);
	snap_out_str(out, C_LABEL, *i->label ? i->label : NULL);
	snap_out_num(out, C_SEQUENCE, g->sequence);
	snap_out_str(out, C_MANIFEST, hash);
	snap_out_uuid(out, C_GEN_UUID, i->uuid);
	return snap_out_row(out);
}

static int print_volume(struct sm_repo *r, const char *vid, struct snap_out *out, struct sm_err *e)
{
	struct sm_generations g;
	int err = sm_repo_generations(r, vid, &g, e);

	for (size_t i = 0; !err && i < g.nr; i++)
		err = print_one(out, &g, &g.v[i]);
	sm_generations_free(&g);
	return err;
}

static int print_all(struct sm_repo *r, const char *which, struct snap_out *out, struct sm_err *e)
{
	char (*vids)[SM_VID_TEXT], vid[SM_VID_TEXT];
	size_t nr;
	int err;

	if (which) {
		err = sm_repo_find(r, NULL, which, vid, e);
		return err ? err : print_volume(r, vid, out, e);
	}
	err = sm_repo_volumes(r, NULL, &vids, &nr, e);
	if (err)
		return err;
	for (size_t i = 0; !err && i < nr; i++)
		err = print_volume(r, vids[i], out, e);
	free(vids);
	return err;
}

static int list(const char *path, const char *which, const struct snap_out_opts *oo)
{
	struct snap_err se = SNAP_ERR_INIT;
	struct sm_err e = { 0 };
	struct snap_out *out;
	struct sm_repo r;
	int err;

	if (snap_out_open(&out, "generations", SNAP_OUT_TABLE, cols, sizeof(cols) / sizeof(*cols), oo, &se))
		return snap_err_report(&se);
	err = sm_repo_open(path, &r, &e);
	if (!err) {
		err = print_all(&r, which, out, &e);
		sm_repo_close(&r);
	}
	if (snap_out_close(out, &se) && !err)
		return snap_err_report(&se);
	return report(err, &e);
}

static int run_list(int argc, char **argv)
{
	struct snap_out_opts oo = { 0 };
	const char *volume = NULL;
	const struct snap_opt opts[] = {
		{ "volume", 0, SNAP_OPT_STRING, "NAME|UUID", &volume, "this volume only" },
		SNAP_OPT_OUTPUT(&oo), { 0 }
	};
	int rc = snap_opts(&cmd_list, opts, &argc, &argv);

	return rc >= 0 ? rc : list(argv[0], volume, &oo);
}

const struct snap_cmd cmd_list = {
	.name = "list", .args = "REPO", .summary = "volumes and their generations",
	.min_args = 1, .max_args = 1, .run = run_list,
};

/* ---- show ---- */

static int show(struct sm_repo *r, const char *which, uint32_t number, bool json, struct sm_err *e)
{
	char vid[SM_VID_TEXT], hash[SM_DIGEST_HEX], *text;
	struct sm_generation g;
	int err;

	if ((err = sm_repo_find(r, NULL, which, vid, e)) || (err = sm_repo_generation(r, vid, number, &g, e)))
		return err;
	text = sm_manifest_text(&g.manifest);
	sm_hex(g.hash, SM_DIGEST, hash);
	if (json) {
		printf("{\"manifest\":%s,\"manifest_hash\":\"%s\",\"client\":\"%s\",\"sequence\":%llu,\"received\":%llu,"
		       "\"stored_bytes\":%llu,\"packs\":%llu,\"segments\":%u}\n", text ? text : "null", hash, g.client,
		       (unsigned long long)g.sequence, (unsigned long long)g.received, (unsigned long long)g.stored_bytes,
		       (unsigned long long)g.packs, g.nr_segments);
	} else {
		printf("manifest      %s\nmanifest hash %s\nclient        %s\nsequence      %llu\nstored bytes  %llu\npacks         %llu\n",
		       text ? text : "", hash, g.client, (unsigned long long)g.sequence,
		       (unsigned long long)g.stored_bytes, (unsigned long long)g.packs);
		for (uint32_t i = 0; i < g.nr_segments; i++) {
			sm_hex(g.segments[i].id, SM_DIGEST, hash);
			printf("map segment   %s, %llu entries\n", hash, (unsigned long long)g.segments[i].entries);
		}
	}
	free(text);
	sm_generation_done(&g);
	return 0;
}

static int run_show(int argc, char **argv)
{
	const char *volume = NULL;
	uint32_t gen = 0;
	bool json = false;
	const struct snap_opt opts[] = {
		{ "volume", 0, SNAP_OPT_STRING, "NAME|UUID", &volume, "default: the only one" },
		{ "gen", 'g', SNAP_OPT_U32, "N", &gen, "generation" },
		{ "json", 'J', SNAP_OPT_FLAG, NULL, &json, "print JSON" }, { 0 }
	};
	struct sm_err e = { 0 };
	struct sm_repo r;
	int rc = snap_opts(&cmd_show, opts, &argc, &argv), err;

	if (rc >= 0)
		return rc;
	if (!gen)
		return snap_usage_error("--gen is needed");
	err = sm_repo_open(argv[0], &r, &e);
	if (!err) {
		err = show(&r, volume, gen, json, &e);
		sm_repo_close(&r);
	}
	return report(err, &e);
}

const struct snap_cmd cmd_show = {
	.name = "show", .args = "REPO --gen N", .summary = "one generation: its manifest and its map",
	.min_args = 1, .max_args = 1, .run = run_show,
};
