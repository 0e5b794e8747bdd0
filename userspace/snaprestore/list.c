// SPDX-License-Identifier: GPL-2.0-or-later
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "output.h"
#include "restore.h"

enum { C_VOLUME, C_UUID, C_GENERATION, C_SIZE, C_CHANGED, C_CREATED, C_LABEL, C_MANIFEST };

static const struct snap_col cols[] = {
	[C_VOLUME] = { "volume", "VOLUME", SNAP_COL_STRING, 0, 0 },
	[C_UUID] = { "volume_uuid", "UUID", SNAP_COL_UUID, 0, 0 },
	[C_GENERATION] = { "generation", "GEN", SNAP_COL_NUMBER, 0, 0 },
	[C_SIZE] = { "size", "SIZE", SNAP_COL_SIZE, 0, 0 },
	[C_CHANGED] = { "changed_bytes", "CHANGED", SNAP_COL_SIZE, 0, 0 },
	[C_CREATED] = { "created", "CREATED", SNAP_COL_TIME, 0, 0 },
	[C_LABEL] = { "label", "LABEL", SNAP_COL_STRING, 0, 0 },
	[C_MANIFEST] = { "manifest", "MANIFEST", SNAP_COL_STRING, SNAP_COL_HIDDEN, 0 },
};

static int print_one(struct snap_out *out, const struct sm_gen_info *i, const uint8_t hash[SM_DIGEST])
{
	char hex[SM_DIGEST_HEX];

	sm_hex(hash, SM_DIGEST, hex);
	snap_out_str(out, C_VOLUME, i->volume_name);
	snap_out_uuid(out, C_UUID, i->volume);
	snap_out_num(out, C_GENERATION, i->number);
	snap_out_num(out, C_SIZE, i->size);
	snap_out_num(out, C_CHANGED, i->bytes);
	snap_out_num(out, C_CREATED, i->created);
	snap_out_str(out, C_LABEL, *i->label ? i->label : NULL);
	snap_out_str(out, C_MANIFEST, hex);
	return snap_out_row(out);
}

static int print_listed(const struct sm_listed *l, void *arg)
{
	return print_one(arg, &l->manifest.info, l->hash);
}

static int list_server(const struct restore_options *o, struct snap_out *out, struct sm_err *e)
{
	struct sm_client c;
	int err = sm_client_connect(&c, &o->from, SM_ROLE_RESTORE, e);

	if (err)
		return err;
	err = sm_client_list(&c, o->volume, 0, print_listed, out, e);
	if (!err && c.damaged)
		snap_warn(NULL, "%llu more generations are there and cannot be restored: their manifests are damaged", (unsigned long long)c.damaged);
	sm_client_end(&c, !err);
	return err;
}

static int list_volume(struct sm_repo *r, const char *vid, struct snap_out *out, struct sm_err *e)
{
	struct sm_generations g;
	int err = sm_repo_generations(r, vid, &g, e);

	for (size_t i = 0; !err && i < g.nr; i++)
		err = print_one(out, &g.v[i].manifest.info, g.v[i].hash);
	for (size_t i = 0; !err && i < g.damaged.nr; i++)
		snap_warn(NULL, "generation %u cannot be restored: its manifest is damaged", g.damaged.v[i]);
	sm_generations_free(&g);
	return err;
}

static int list_repo(const struct restore_options *o, struct snap_out *out, struct sm_err *e)
{
	char (*vids)[SM_VID_TEXT] = NULL, vid[SM_VID_TEXT];
	struct sm_repo r;
	size_t nr = 0;
	int err = sm_repo_open(o->from.path, &r, e);

	if (err)
		return err;
	if (o->volume) {
		err = sm_repo_find(&r, NULL, o->volume, vid, e);
		if (!err)
			err = list_volume(&r, vid, out, e);
	} else {
		err = sm_repo_volumes(&r, NULL, &vids, &nr, e);
	}
	for (size_t i = 0; !err && i < nr; i++)
		err = list_volume(&r, vids[i], out, e);
	free(vids);
	sm_repo_close(&r);
	return err;
}

/* A stream says what it is at its begin, but only its end makes it a backup: it is read to the end. */
static int list_stream(const char *path, struct snap_out *out, struct sm_err *e)
{
	int fd = strcmp(path, "-") ? open(path, O_RDONLY | O_CLOEXEC) : 0, r;
	struct sm_incoming_frame f;
	struct sm_incoming in;
	struct sm_chan c;

	if (fd < 0)
		return sm_fail(e, -errno, "%s: %s", path, strerror(errno));
	sm_chan_init(&c, fd, -1);
	r = sm_incoming_stream(&in, &c, e);
	while (!r && (r = sm_incoming_next(&in, &f, e)) > 0)
		r = 0;
	if (!r)
		r = print_one(out, &in.info, in.hash);
	sm_incoming_done(&in);
	sm_chan_free(&c);
	if (fd > 0)
		close(fd);
	return r;
}

int list_generations(const struct restore_options *o, struct sm_err *e)
{
	struct snap_out_opts oo = { .json = o->json };
	struct snap_err se = SNAP_ERR_INIT;
	struct snap_out *out;
	int err = 0;

	if (snap_out_open(&out, "generations", SNAP_OUT_TABLE, cols, sizeof(cols) / sizeof(*cols), &oo, &se))
		return sm_fail(e, -ENOMEM, "%s", se.text);
	if (o->from.kind == SM_DEST_REPO)
		err = list_repo(o, out, e);
	else if (o->from.kind == SM_DEST_TCP || o->from.kind == SM_DEST_SSH)
		err = list_server(o, out, e);
	for (size_t i = 0; !err && i < o->nr_chain; i++)
		err = list_stream(o->chain[i], out, e);
	if (snap_out_close(out, &se) && !err)
		err = sm_fail(e, se.err, "%s", se.text);
	return err;
}
