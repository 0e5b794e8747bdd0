// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Garbage collection of a volume: mark from the manifests, sweep the objects.
 *
 *	map segment	stays when a manifest names it
 *	pack		stays as it is when the generation that brought it is there: the manifest's map hash is over all of it
 *			stays in part when a generation that is there still reads a record of it; the space of the others is
 *			given back by punching holes. The pack's name is a digest of header and index: it stays right
 *	proof		stays while a generation that is there descends from it (repo_proof.c)
 *	all else	goes
 *
 * What a generation reads is what a sweep over its segments yields: an entry that a newer segment hides is not needed, though
 * the segment's table of packs still names its pack. This is safe for what is merged later: a merge takes the end of a list, newest segments
 * first, so that all it writes is visible in the new generation.
 *
 * Under the volume's lock nothing is published meanwhile; readers have the generation that they read, and prune does not delete that.
 * Ended at any point, what is left over is found the next time. The first thing that happens is that the removal of manifests becomes
 * durable: a manifest must not come back after a power failure when its packs do not. While a manifest is damaged nothing is collected: what it
 * needs is not known, and it may come back from a replica.
 *
 * Memory: a bit a record of packs that are in question, and 40 bytes a pack.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "keep.h"
#include "pack.h"
#include "upload_internal.h"

struct pack_mark {
	uint8_t id[SM_DIGEST];
	bool live;		/* its upload's generation is there */
	uint32_t nr;		/* records, when not live */
	uint8_t *used;		/* a bit each */
	bool any;
};

struct collect {
	struct sm_repo *r;
	const char *vid;
	bool dry_run;
	struct sm_gc *gc;
	struct sm_generations g;
	struct pack_mark *packs;
	size_t nr, room;
	uint8_t (*segments)[SM_DIGEST];	/* named by manifests, sorted */
	size_t nr_segments;
	struct sm_err *e;
};

/* "HEX.pack" or "HEX.map": the digest; anything else is not ours to touch. */
static bool object_id(const char *name, const char *suffix, uint8_t id[SM_DIGEST])
{
	char hex[SM_DIGEST_HEX];

	if (strlen(name) != SM_DIGEST_HEX - 1 + strlen(suffix) || strcmp(name + SM_DIGEST_HEX - 1, suffix))
		return false;
	snprintf(hex, sizeof(hex), "%.64s", name);
	return !sm_unhex(hex, id, SM_DIGEST);
}

/* ---- what there is ---- */

static int add_pack(const char *name, void *arg)
{
	struct collect *c = arg;
	struct pack_mark x = { .nr = 0 };

	if (!object_id(name, ".pack", x.id))
		return 0;
	if (c->nr == c->room) {
		size_t room = c->room ? 2 * c->room : 64;
		void *v = realloc(c->packs, room * sizeof(*c->packs));

		if (!v)
			return -ENOMEM;
		c->packs = v;
		c->room = room;
	}
	c->packs[c->nr++] = x;
	return 0;
}

static bool upload_lives(const struct collect *c, const uint8_t upload[SM_UUID])
{
	for (size_t i = 0; i < c->g.nr; i++)
		if (!memcmp(c->g.v[i].upload, upload, SM_UUID))
			return true;
	return false;
}

/* Whose is it, and how many records has it? One that is damaged is left alone: verify tells about it. */
static int look_at_pack(struct collect *c, struct pack_mark *x)
{
	char key[SM_KEY_MAX];
	struct sm_pack p;
	int err;

	sm_key_pack(key, c->vid, x->id);
	err = sm_pack_open(c->r->store, key, x->id, &p, c->e);
	if (err == -EUCLEAN) {
		x->live = true;
		return 0;
	}
	if (err)
		return err;
	x->live = upload_lives(c, p.header.upload);
	x->nr = p.nr;
	sm_pack_done(&p);
	if (x->live)
		return 0;
	x->used = calloc(x->nr / 8 + 1, 1);
	return x->used ? 0 : sm_fail(c->e, -ENOMEM, "no memory");
}

static int list_packs(struct collect *c)
{
	char prefix[SM_KEY_MAX];
	int err;

	snprintf(prefix, sizeof(prefix), "volumes/%s/packs", c->vid);
	err = c->r->store->ops->list(c->r->store, prefix, add_pack, c, c->e);
	if (c->nr)
		qsort(c->packs, c->nr, sizeof(*c->packs), sm_by_digest);
	for (size_t i = 0; !err && i < c->nr; i++)
		err = look_at_pack(c, &c->packs[i]);
	return err;
}

/* ---- mark ---- */

/* The segment's packs as places in our list; -1 those that are not there (any more). */
static int64_t *translate(const struct collect *c, const struct sm_segment *g)
{
	int64_t *t = malloc(((size_t)g->nr_packs + 1) * sizeof(*t));

	for (uint32_t i = 0; t && i < g->nr_packs; i++) {
		struct pack_mark *x = c->nr ? bsearch(g->packs[i], c->packs, c->nr, sizeof(*c->packs), sm_by_digest) : NULL;

		t[i] = x ? x - c->packs : -1;
	}
	return t;
}

static int mark_pieces(struct collect *c, const struct sm_generation *g, struct sm_layer *layer, int64_t **place)
{
	uint64_t blocks = (g->manifest.info.size + SM_BLOCK - 1) / SM_BLOCK;
	struct sm_sweep s;
	struct sm_piece p;
	int r = sm_sweep_begin(&s, layer, g->nr_segments, c->e);

	while (!r && (r = sm_sweep_next(&s, &p, c->e)) > 0 && p.start < blocks) {
		int64_t at = p.pack == SM_ZERO_PACK ? -1 : place[p.layer][p.pack];
		struct pack_mark *x = at < 0 ? NULL : &c->packs[at];

		r = 0;
		if (p.pack != SM_ZERO_PACK && at < 0)
			return sm_fail(c->e, -EUCLEAN, "generation %u: a pack that it needs is missing", g->manifest.info.number);
		if (!x || x->live)
			continue;
		if (p.record >= x->nr)
			return sm_fail(c->e, -EUCLEAN, "generation %u: damaged map", g->manifest.info.number);
		x->used[p.record / 8] |= 1 << p.record % 8;
		x->any = true;
	}
	return r < 0 ? r : 0;
}

static int mark_generation(struct collect *c, const struct sm_generation *g)
{
	struct sm_segment *seg = calloc(g->nr_segments + 1, sizeof(*seg));
	struct sm_layer *layer = calloc(g->nr_segments + 1, sizeof(*layer));
	int64_t **place = calloc(g->nr_segments + 1, sizeof(*place));
	int err = seg && layer && place ? 0 : sm_fail(c->e, -ENOMEM, "no memory");
	uint32_t n = 0;

	while (!err && n < g->nr_segments) {
		char key[SM_KEY_MAX];

		sm_key_map(key, c->vid, g->segments[n].id);
		err = sm_segment_open(c->r->store, key, g->segments[n].id, true, &seg[n], c->e);
		if (err)
			break;
		sm_layer_of_segment(&layer[n], &seg[n]);
		place[n] = translate(c, &seg[n]);
		if (!place[n++])
			err = sm_fail(c->e, -ENOMEM, "no memory");
	}
	if (!err)
		err = mark_pieces(c, g, layer, place);
	while (n--) {
		sm_segment_close(&seg[n]);
		free(place[n]);
	}
	free(seg);
	free(layer);
	free(place);
	return err == -ENOENT ? -EUCLEAN : err;
}

/* ---- sweep ---- */

static int drop(struct collect *c, const char *key)
{
	c->gc->bytes += c->r->store->ops->allocated(c->r->store, key);
	return c->dry_run ? 0 : c->r->store->ops->remove(c->r->store, key, c->e);
}

struct map_list {
	uint8_t (*v)[SM_DIGEST];
	size_t nr;
};

static int add_map(const char *name, void *arg)
{
	struct map_list *l = arg;
	uint8_t id[SM_DIGEST];
	void *v;

	if (!object_id(name, ".map", id))
		return 0;
	v = realloc(l->v, (l->nr + 1) * SM_DIGEST);
	if (!v)
		return -ENOMEM;
	l->v = v;
	memcpy(l->v[l->nr++], id, SM_DIGEST);
	return 0;
}

static int sweep_maps(struct collect *c)
{
	struct map_list l = { .nr = 0 };
	char key[SM_KEY_MAX];
	int err;

	snprintf(key, sizeof(key), "volumes/%s/maps", c->vid);
	err = c->r->store->ops->list(c->r->store, key, add_map, &l, c->e);
	for (size_t i = 0; !err && i < l.nr; i++) {
		if (c->nr_segments && bsearch(l.v[i], c->segments, c->nr_segments, SM_DIGEST, sm_by_digest))
			continue;
		sm_key_map(key, c->vid, l.v[i]);
		err = drop(c, key);
		c->gc->maps += !err;
	}
	free(l.v);
	return err;
}

static bool is_used(const struct pack_mark *x, uint32_t record)
{
	return x->used[record / 8] >> record % 8 & 1;
}

/* Was the record given back already? Its head says so: a record that is there has a magic. */
static bool is_hole(struct sm_pack *p, uint32_t record)
{
	struct sm_pack_record h;
	uint64_t at = le64toh(p->index[record].offset) - sizeof(h);

	return p->store->ops->pread(p->object, &h, sizeof(h), at) == sizeof(h) && sm_is_zero(&h, sizeof(h));
}

/* Neighbours that go are one hole: a file system gives back whole blocks only. */
static int punch(struct collect *c, const char *key, struct sm_pack *p, const struct pack_mark *x)
{
	const struct sm_store_ops *ops = c->r->store->ops;
	int err = 0;

	for (uint32_t i = 0, end; !err && i < p->nr; i = end) {
		uint64_t from, to;
		bool fresh = false;

		end = i + 1;
		if (is_used(x, i))
			continue;
		for (end = i; end < p->nr && !is_used(x, end); end++)
			if (!is_hole(p, end)) {
				fresh = true;
				c->gc->records++;
			}
		from = le64toh(p->index[i].offset) - sizeof(struct sm_pack_record);
		to = le64toh(p->index[end - 1].offset) + le32toh(p->index[end - 1].length);
		if (!fresh)
			continue;
		if (c->dry_run)
			c->gc->bytes += to - from;
		else
			err = ops->release(c->r->store, key, from, to - from, c->e);
	}
	return err;
}

static int thin_pack(struct collect *c, const char *key, const struct pack_mark *x)
{
	const struct sm_store_ops *ops = c->r->store->ops;
	uint64_t before, after;
	struct sm_pack p;
	int err;

	if (!ops->release)
		return 0;
	before = ops->allocated(c->r->store, key);
	err = sm_pack_open(c->r->store, key, x->id, &p, c->e);
	if (err)
		return err;
	err = punch(c, key, &p, x);
	sm_pack_done(&p);
	after = ops->allocated(c->r->store, key);
	if (!c->dry_run && after < before)
		c->gc->bytes += before - after;
	return err;
}

static int sweep_packs(struct collect *c)
{
	int err = 0;

	for (size_t i = 0; !err && i < c->nr; i++) {
		const struct pack_mark *x = &c->packs[i];
		char key[SM_KEY_MAX];

		if (x->live)
			continue;
		sm_key_pack(key, c->vid, x->id);
		if (x->any) {
			err = thin_pack(c, key, x);
			continue;
		}
		err = drop(c, key);
		c->gc->packs += !err;
	}
	return err;
}

static int drop_proof(void *arg, const char *key)
{
	return drop(arg, key);
}

/* ---- all of it ---- */

static int collect(struct collect *c)
{
	char prefix[SM_KEY_MAX];
	struct sm_err why;
	int err;

	snprintf(prefix, sizeof(prefix), "volumes/%s/manifests", c->vid);
	if ((err = c->r->store->ops->settle(c->r->store, prefix, c->e)) ||
	    (err = sm_repo_generations(c->r, c->vid, &c->g, c->e)))
		return err;
	if (sm_generations_whole(&c->g, &why))
		return sm_fail(c->e, -EUCLEAN, "%.400s: no space is returned while it is there (\"snapmedia prune --damaged\" gives it up)", why.text);
	if ((err = list_packs(c)) || (err = sm_generations_segments(&c->g, &c->segments, &c->nr_segments, c->e)))
		return err;
	for (size_t i = 0; !err && i < c->g.nr; i++)
		err = mark_generation(c, &c->g.v[i]);
	if (!err)
		err = sweep_maps(c);
	if (!err)
		err = repo_sweep_proofs(c->r, c->vid, &c->g, drop_proof, c, c->e);
	return err ? err : sweep_packs(c);
}

int sm_gc(struct sm_repo *r, const char *vid, bool dry_run, struct sm_gc *gc, struct sm_err *e)
{
	struct collect c = { .r = r, .vid = vid, .dry_run = dry_run, .gc = gc, .e = e };
	int lock, err;

	memset(gc, 0, sizeof(*gc));
	if (!dry_run)
		sm_ballast_use(r);
	lock = volume_lock(r, vid, e);
	if (lock < 0)
		return lock;
	err = collect(&c);
	close(lock);
	for (size_t i = 0; i < c.nr; i++)
		free(c.packs[i].used);
	free(c.packs);
	free(c.segments);
	sm_generations_free(&c.g);
	if (!dry_run)
		sm_ballast_make(r);
	return err;
}
