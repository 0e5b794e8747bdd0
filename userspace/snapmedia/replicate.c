// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * replicate: generations of this repository to a second media server, those that it has not.
 *
 * A generation goes as it came: the records of its packs and its manifest, so that it is the same generation with the
 * same hash there, and what builds on it finds its parent. In order of publishing, so parents come first.
 *
 *	parent (by its hash) is there			as it is
 *	the parent generation is there by another hash	the same records; the manifest names that hash
 *	the parent is in neither place any more		the whole image, as a full backup (whose hash is new)
 *
 * It is a client's session like any other: the receiver checks every frame and the sum of them, publishes at once or not at all, and says
 * what it has of a transfer that was cut. Each record was checked against its digest when it was read here. A generation that is damaged here is
 * left out, and said to be; what builds on it is tried as a whole, and left out when it needs the damaged part. So is what is encrypted and would have to
 * be put on another parent.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "confine.h"
#include "name.h"
#include "pack.h"
#include "session.h"
#include "verbs.h"

struct there {
	uint8_t uuid[SM_UUID], hash[SM_DIGEST];
};

struct have {
	uint64_t first;
	uint8_t digest[SM_DIGEST];	/* of a ZERO's extent: zeros */
};

struct pack_of {
	uint8_t id[SM_DIGEST], upload[SM_UUID];
};

struct copy {
	struct sm_repo repo;
	struct sm_client to;
	bool dry_run;
	struct sm_spill there, packs, have;	/* of the volume; of the volume; of the generation */
	uint8_t *buf;				/* SM_DATA_ROOM(1, SM_SEND_RAW) and SM_MAX_PAYLOAD */
	uint64_t sent, copied, was_there, damaged, alone;
};

static const struct there *find_there(const struct copy *c, const uint8_t *uuid, const uint8_t *hash)
{
	for (size_t i = 0; i < c->there.nr; i++) {
		const struct there *t = sm_spill_at(&c->there, i);

		if ((uuid && !memcmp(t->uuid, uuid, SM_UUID)) || (hash && !memcmp(t->hash, hash, SM_DIGEST)))
			return t;
	}
	return NULL;
}

static int note_there(struct copy *c, const uint8_t uuid[SM_UUID], const uint8_t hash[SM_DIGEST])
{
	struct there *t = sm_spill_add(&c->there);

	if (!t)
		return -ENOMEM;
	memcpy(t->uuid, uuid, SM_UUID);
	memcpy(t->hash, hash, SM_DIGEST);
	return 0;
}

static int listed(const struct sm_listed *l, void *arg)
{
	return note_there(arg, l->manifest.info.uuid, l->hash);
}

/* ---- packs of the volume, by the upload that wrote them ---- */

struct packs_arg {
	struct copy *c;
	const char *vid;
};

static int note_pack(const char *name, void *arg)
{
	const struct packs_arg *a = arg;
	struct sm_store *s = a->c->repo.store;
	struct sm_pack_header h;
	char key[SM_KEY_MAX], hex[SM_DIGEST_HEX];
	struct sm_object *o;
	uint8_t id[SM_DIGEST];
	struct pack_of *p;
	int err;

	snprintf(hex, sizeof(hex), "%s", name);
	if (strlen(name) != SM_DIGEST_HEX - 1 + 5 || sm_unhex(hex, id, SM_DIGEST))
		return 0;
	sm_key_pack(key, a->vid, id);
	err = s->ops->open(s, key, &o, NULL);
	if (err)
		return err == -ENOENT ? 0 : err;
	if (s->ops->pread(o, &h, sizeof(h), 0) != sizeof(h))
		err = -EIO;
	s->ops->close(o);
	p = err ? NULL : sm_spill_add(&a->c->packs);
	if (!p)
		return err ? err : -ENOMEM;
	memcpy(p->id, id, SM_DIGEST);
	memcpy(p->upload, h.upload, SM_UUID);
	return 0;
}

/* ---- what the other side has of a transfer that was cut ---- */

static int have_data(const void *head, size_t len, void *arg, struct sm_err *e)
{
	struct copy *c = arg;
	struct have *h = sm_spill_add(&c->have);
	struct sm_data d;
	int err = sm_data_parse(head, len, sm_data_end(head, len), true, &d, e);

	if (!h)
		return sm_fail(e, -ENOMEM, "no memory");
	if (err)
		return err;
	h->first = le64toh(d.extents[0].offset);
	memcpy(h->digest, d.digest, SM_DIGEST);
	return 0;
}

static int have_zero(uint64_t offset, uint64_t length, void *arg, struct sm_err *e)
{
	struct have *h = sm_spill_add(&((struct copy *)arg)->have);

	(void)length;
	if (!h)
		return sm_fail(e, -ENOMEM, "no memory");
	h->first = offset;
	return 0;
}

static int by_first(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct have));	/* any order that is one */
}

static bool has(const struct copy *c, uint64_t first, const uint8_t *digest)
{
	struct have h = { .first = first };

	if (digest)
		memcpy(h.digest, digest, SM_DIGEST);
	return c->have.nr && bsearch(&h, c->have.map, c->have.nr, sizeof(h), by_first);
}

static int open_there(struct copy *c, const struct sm_gen_info *info, struct sm_receipt *receipt, struct sm_err *e)
{
	static const struct sm_have_ops ops = { have_data, have_zero };
	int err;

	sm_spill_free(&c->have);
	sm_spill_init(&c->have, sizeof(struct have), NULL);
	err = sm_client_open(&c->to, info, &ops, c, receipt, e);
	if (!err && c->have.nr)
		qsort(c->have.map, c->have.nr, sizeof(struct have), by_first);
	return err;
}

static int send(struct copy *c, uint16_t type, const void *payload, size_t len, struct sm_err *e)
{
	uint64_t first = le64toh(type == SM_DATA ? ((const struct sm_wire_extent *)((const struct sm_wire_data *)payload + 1))->offset :
				 ((const struct sm_wire_extent *)((const struct sm_wire_zero *)payload + 1))->offset);

	if (has(c, first, type == SM_DATA ? ((const struct sm_wire_data *)payload)->digest : NULL))
		return 0;
	c->sent += len;
	return sm_client_send(&c->to, type, payload, len, e);
}

/* ---- as it came ---- */

static int send_records(struct copy *c, const struct sm_generation *g, struct sm_err *e)
{
	uint64_t packs = 0;
	int err = 0;

	for (size_t i = 0; !err && i < c->packs.nr; i++) {
		const struct pack_of *x = sm_spill_at(&c->packs, i);
		char key[SM_KEY_MAX];
		struct sm_pack p;

		if (memcmp(x->upload, g->upload, SM_UUID))
			continue;
		sm_key_pack(key, g->vid, x->id);
		err = sm_pack_open(c->repo.store, key, x->id, &p, e);
		if (err)
			return err;
		packs++;
		for (uint32_t k = 0; !err && k < p.nr; k++) {
			ssize_t n = sm_pack_read(&p, k, c->buf, e);

			err = n < 0 ? (int)n : send(c, le32toh(p.index[k].type), c->buf, n, e);
		}
		sm_pack_done(&p);
	}
	if (!err && packs != g->packs)
		err = sm_fail(e, -EUCLEAN, "generation %u: %llu packs are here, of %llu", g->manifest.info.number,
			      (unsigned long long)packs, (unsigned long long)g->packs);
	return err;
}

/* ---- as a whole ---- */

static int send_zero(struct copy *c, struct sm_manifest *m, struct sm_map_hash *map, const struct sm_image_piece *p, struct sm_err *e)
{
	struct {
		struct sm_wire_zero h;
		struct sm_wire_extent x;
	} __attribute__((packed)) z = { { htole32(1), 0 }, { htole64(p->offset), htole64(p->length) } };

	m->zero_bytes += p->length;
	sm_map_hash_zero(map, p->offset, p->length);
	return send(c, SM_ZERO, &z, sizeof(z), e);
}

static int send_piece(struct copy *c, struct sm_manifest *m, struct sm_map_hash *map, const struct sm_image_piece *p, struct sm_err *e)
{
	uint8_t leaf[SM_DIGEST];
	struct sm_data d;
	int err = 0;

	if (p->zero)
		return send_zero(c, m, map, p, e);
	for (uint64_t done = 0; !err && done < p->length; done += SM_SEND_RAW) {
		struct sm_extent x = { p->offset + done, p->length - done < SM_SEND_RAW ? p->length - done : SM_SEND_RAW };
		ssize_t n = sm_data_pack(&x, 1, p->data + done, x.length, 1, c->buf, e);

		err = n < 0 ? (int)n : sm_data_parse(c->buf, n, m->info.size, false, &d, e);
		if (err)
			return err;
		sm_data_leaf(&d, leaf);
		sm_map_hash_data(map, x.offset, leaf);
		m->data_bytes += x.length;
		err = send(c, SM_DATA, c->buf, n, e);
	}
	return err;
}

static int send_image(struct copy *c, const struct sm_generation *g, struct sm_manifest *m, struct sm_err *e)
{
	struct sm_image_piece p;
	struct sm_map_hash map;
	struct sm_image *img;
	int r = sm_image_open(&c->repo, g, &img, e);

	if (r)
		return r;
	m->data_bytes = m->zero_bytes = 0;
	sm_map_hash_init(&map);
	while ((r = sm_image_next(img, &p, e)) > 0) {
		r = send_piece(c, m, &map, &p, e);
		if (r)
			break;
	}
	m->frames = map.frames;
	sm_map_hash_final(&map, m->map_hash);
	sm_image_close(img);
	return r;
}

/* The manifest of a full backup of it. */
static void make_full(struct sm_manifest *m)
{
	struct sm_range_hash h;

	m->info.has_parent = false;
	memset(m->info.parent, 0, SM_DIGEST);
	m->info.extents = 1;
	m->info.bytes = m->info.size;
	sm_range_hash_init(&h);
	sm_range_hash_add(&h, 0, m->info.size);
	sm_range_hash_final(&h, m->info.change_digest);
}

/* ---- one generation, one volume, all ---- */

/* Which of the three ways: see above. Changes @m. Return: the image is to be sent. */
static bool choose(const struct copy *c, const struct sm_generations *all, struct sm_manifest *m)
{
	const struct there *t;

	if (!m->info.has_parent || find_there(c, NULL, m->info.parent))
		return false;
	for (size_t i = 0; i < all->nr; i++)
		if (!memcmp(all->v[i].hash, m->info.parent, SM_DIGEST)) {
			t = find_there(c, all->v[i].manifest.info.uuid, NULL);
			if (!t)
				break;
			memcpy(m->info.parent, t->hash, SM_DIGEST);
			return false;
		}
	make_full(m);
	return true;
}

/* While the image is open nobody prunes the generation, and so nobody collects its packs. */
static int send_held(struct copy *c, const struct sm_generation *g, struct sm_err *e)
{
	struct sm_image *img;
	int err = sm_image_open(&c->repo, g, &img, e);

	if (err)
		return err;
	err = send_records(c, g, e);
	sm_image_close(img);
	return err;
}

static int transfer(struct copy *c, const struct sm_generation *g, struct sm_manifest *m, bool image, struct sm_err *e)
{
	struct sm_receipt receipt;
	char *text;
	int err = open_there(c, &m->info, &receipt, e);

	if (err)
		return err < 0 ? err : note_there(c, m->info.uuid, receipt.manifest);
	err = image ? send_image(c, g, m, e) : send_held(c, g, e);
	if (err)
		return err;
	text = sm_manifest_text(m);
	err = text ? sm_client_commit(&c->to, text, &receipt, e) : sm_fail(e, -ENOMEM, "no memory");
	free(text);
	return err ? err : note_there(c, m->info.uuid, receipt.manifest);
}

static int one(struct copy *c, const struct sm_generations *all, const struct sm_generation *g, struct sm_err *e)
{
	struct sm_manifest m = g->manifest;
	uint64_t before = c->sent;
	bool image;
	int err = 0;

	if (find_there(c, m.info.uuid, NULL)) {
		c->was_there++;
		return 0;
	}
	image = choose(c, all, &m);
	if (m.info.sealed && (image || memcmp(m.info.parent, g->manifest.info.parent, SM_DIGEST)))
		return sm_fail(e, -ENOKEY, "is encrypted and its parent is not there: only who has the key could put it on another one");
	if (!c->dry_run)
		err = transfer(c, g, &m, image, e);
	else
		err = note_there(c, m.info.uuid, g->hash);
	if (err)
		return err;
	c->copied++;
	printf("%s@%u: %s%s, %llu bytes sent\n", m.info.volume_name, m.info.number, c->dry_run ? "would go " : "",
	       image ? "as a whole (its parent is gone)" : m.info.has_parent ? "as an increment" : "full",
	       (unsigned long long)(c->sent - before));
	return 0;
}

static int left_out(struct copy *c, const struct sm_generation *g, int err, struct sm_err *e)
{
	fprintf(stderr, "%s: %s@%u: not sent: %s\n", snap_prog(), g->manifest.info.volume_name, g->manifest.info.number, e->text);
	c->damaged += err != -ENOKEY;
	c->alone += err == -ENOKEY;
	return 0;
}

static int by_sequence(const void *a, const void *b)
{
	const struct sm_generation *const *x = a, *const *y = b;

	return (*x)->sequence < (*y)->sequence ? -1 : (*x)->sequence > (*y)->sequence;
}

static int all_of(struct copy *c, const char *vid, const struct sm_generations *g, struct sm_err *e)
{
	const struct sm_generation **order = calloc(g->nr, sizeof(*order));
	struct packs_arg a = { c, vid };
	char prefix[SM_KEY_MAX], uuid[SM_UUID_TEXT];
	int err = order ? 0 : sm_fail(e, -ENOMEM, "no memory");

	if (err)
		return err;
	for (size_t i = 0; i < g->nr; i++)
		order[i] = &g->v[i];
	qsort(order, g->nr, sizeof(*order), by_sequence);
	sm_uuid_format(g->v[0].manifest.info.volume, uuid);
	snprintf(prefix, sizeof(prefix), "volumes/%s/packs", vid);
	err = c->repo.store->ops->list(c->repo.store, prefix, note_pack, &a, e);
	if (!err)
		err = sm_client_list(&c->to, uuid, 0, listed, c, e);
	for (size_t i = 0; !err && i < g->nr; i++) {
		err = one(c, g, order[i], e);
		if (err == -EUCLEAN || err == -EIO || err == -ENOKEY)
			err = left_out(c, order[i], err, e);
	}
	if (!err && sm_generations_whole(g, e)) {
		fprintf(stderr, "%s: not sent: %s\n", snap_prog(), e->text);
		c->damaged += g->damaged.nr;
	}
	free(order);
	return err;
}

static int volume(struct copy *c, const char *vid, struct sm_err *e)
{
	struct sm_generations g;
	int err = sm_repo_generations(&c->repo, vid, &g, e);

	if (err)
		return err;
	sm_spill_init(&c->there, sizeof(struct there), NULL);
	sm_spill_init(&c->packs, sizeof(struct pack_of), NULL);
	sm_spill_init(&c->have, sizeof(struct have), NULL);
	if (g.nr)
		err = all_of(c, vid, &g, e);
	sm_spill_free(&c->there);
	sm_spill_free(&c->packs);
	sm_spill_free(&c->have);
	sm_generations_free(&g);
	return err;
}

static int volumes(struct copy *c, const char *client, const char *which, struct sm_err *e)
{
	char (*vids)[SM_VID_TEXT], vid[SM_VID_TEXT];
	size_t nr;
	int err;

	if (which) {
		err = sm_repo_find(&c->repo, client, which, vid, e);
		return err ? err : volume(c, vid, e);
	}
	err = sm_repo_volumes(&c->repo, client, &vids, &nr, e);
	if (err)
		return err;
	for (size_t i = 0; !err && i < nr; i++)
		err = volume(c, vids[i], e);
	free(vids);
	return err;
}

static int replicate(struct copy *c, const char *repo, const char *dest, const char *client, const char *which, struct sm_err *e)
{
	struct sm_dest d;
	int err = sm_dest_parse(dest, &d, e);

	if (!err && d.kind != SM_DEST_TCP && d.kind != SM_DEST_SSH && d.kind != SM_DEST_REPO)
		err = sm_fail(e, -EINVAL, "%s: neither a media server nor a repository", dest);
	if (!err)
		err = sm_client_connect(&c->to, &d, SM_ROLE_BACKUP, e);
	if (err)
		return err;
	err = sm_become(NULL, repo, e);		/* after the key, which is root's */
	if (!err)
		err = sm_repo_open(repo, &c->repo, e);
	if (!err) {
		err = volumes(c, client, which, e);
		sm_repo_close(&c->repo);
	}
	sm_client_end(&c->to, !err);
	return err;
}

static const char help[] =
	"Sends to the media server DEST (HOST[:PORT], ssh://..., or a repository directory) the generations that it has not, parents first,\n"
	"with their manifests: they are the same generations there. A transfer that was cut is taken up. The volumes belong to the client\n"
	"there that our key is; it needs the role backup. When a parent is gone from both places its child goes as a whole.";

static int run(int argc, char **argv)
{
	const char *client = NULL, *which = NULL, *to = NULL;
	struct copy c = { .buf = malloc(SM_MAX_PAYLOAD + SM_DATA_ROOM(1, SM_SEND_RAW)) };
	const struct snap_opt opts[] = {
		{ "to", 't', SNAP_OPT_STRING, "DEST", &to, "the other media server" },
		{ "client", 'c', SNAP_OPT_STRING, "NAME", &client, "this client's volumes only" },
		{ "volume", 'V', SNAP_OPT_STRING, "NAME|UUID", &which, "this volume only" },
		{ "dry-run", 'n', SNAP_OPT_FLAG, NULL, &c.dry_run, "only say what would go" }, { 0 }
	};
	struct sm_err e = { 0 };
	int rc = snap_opts(&cmd_replicate, opts, &argc, &argv), err;

	if (rc < 0 && !to)
		rc = snap_usage_error("replicate: --to is needed");
	if (rc < 0) {
		signal(SIGPIPE, SIG_IGN);
		err = c.buf ? replicate(&c, repo_default(argc ? argv[0] : NULL), to, client, which, &e) : sm_fail(&e, -ENOMEM, "no memory");
		if (!err)
			printf("%llu generations %s, %llu were there\n", (unsigned long long)c.copied, c.dry_run ? "would go" : "sent",
			       (unsigned long long)c.was_there);
		if (!err && c.damaged)
			err = sm_fail(&e, -EUCLEAN, "%llu generations are damaged here and were not sent", (unsigned long long)c.damaged);
		else if (!err && c.alone)
			err = sm_fail(&e, -EACCES, "%llu generations are encrypted, their parents are not there, and they were not sent",
				      (unsigned long long)c.alone);
		rc = snap_report(err, e.text);
	}
	free(c.buf);
	return rc;
}

const struct snap_cmd cmd_replicate = {
	.name = "replicate", .args = "[REPO] --to DEST", .summary = "send what a second media server has not", .help = help,
	.max_args = 1, .run = run,
};
