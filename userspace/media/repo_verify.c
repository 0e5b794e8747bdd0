// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Verify: every byte of every object, against what the manifests say.
 *
 *   packs		id over header and index; each record's payload digest; its raw bytes' digest
 *   uploads		the packs of one upload together give the map hash of its manifest: what the client sent is what is here
 *   maps		digest of the whole; each generation's sweep covers its size without a hole
 *   parents		are there; sequence numbers differ
 *   proofs		each says what its manifest says, and none is missing down to the full ancestor
 *   orphans		objects that no manifest leads to (an interrupted commit's): counted, no error
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frame.h"
#include "keep.h"
#include "pack.h"
#include "seal.h"
#include "upload_internal.h"

struct pack_info {
	uint8_t id[SM_DIGEST];
	uint8_t upload[SM_UUID];
	bool bad, used, seen;
	uint32_t nr;
	uint8_t *released, *hurt;	/* a bit a record, or NULL: none is */
};

struct check {
	struct sm_repo *r;
	struct sm_verify *v;
	const char *vid;
	struct sm_generations g;
	struct sm_opener opener;
	bool unknown;			/* a manifest of the volume is damaged */
	struct pack_info *packs;
	size_t nr, room;
	uint8_t (*maps)[SM_DIGEST];	/* there, and named by a manifest */
	size_t nr_maps;
	uint8_t *payload, *raw;
	struct sm_numbers hurt;		/* generations that need something damaged */
	bool touched;			/* one that is being looked at does */
	struct sm_err *e;
};

static void __attribute__((format(printf, 2, 3))) wrong(struct check *c, const char *fmt, ...)
{
	char text[768];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	c->v->errors++;
	if (c->v->report)
		c->v->report(text, c->v->arg);
}

static int add_pack(const char *name, void *arg)
{
	struct check *c = arg;
	char hex[SM_DIGEST_HEX];

	if (c->nr == c->room) {
		size_t room = c->room ? 2 * c->room : 64;
		void *v = realloc(c->packs, room * sizeof(*c->packs));

		if (!v)
			return -ENOMEM;
		c->packs = v;
		c->room = room;
	}
	memset(&c->packs[c->nr], 0, sizeof(*c->packs));
	snprintf(hex, sizeof(hex), "%.64s", name);
	if (strlen(name) != SM_DIGEST_HEX + 4 || sm_unhex(hex, c->packs[c->nr].id, SM_DIGEST))
		wrong(c, "volumes/%s/packs/%s: not a pack's name", c->vid, name);
	else
		c->nr++;
	return 0;
}

static int by_id(const void *a, const void *b)
{
	return memcmp(a, b, SM_DIGEST);
}

static struct pack_info *find_pack(struct check *c, const uint8_t id[SM_DIGEST])
{
	return c->nr ? bsearch(id, c->packs, c->nr, sizeof(*c->packs), by_id) : NULL;
}

/* Sealed with the key that was given. */
static bool ours(const struct check *c, const struct sm_data *d)
{
	const struct sm_wire_seal *h = sm_data_seal(d);

	return h && c->v->key && !memcmp(h->id, c->v->key->id, SM_SECRET_ID);
}

/* One record: payload and, of data, the raw bytes. */
static int check_record(struct check *c, struct sm_pack *p, uint32_t i, struct sm_err *why)
{
	ssize_t n = sm_pack_read(p, i, c->payload, why);
	struct sm_data d;
	uint64_t end;
	int err;

	if (n < 0)
		return n;
	c->v->records++;
	c->v->bytes += n;
	if (le32toh(p->index[i].type) == SM_ZERO)
		return 0;
	end = sm_data_end(c->payload, n);
	if (!end)
		return sm_fail(why, -EUCLEAN, "record %u is damaged", i);
	err = sm_data_parse(c->payload, n, end, false, &d, why);
	if (err || !ours(c, &d))
		return err ? err : sm_data_check(&d, c->raw, why);
	c->v->opened++;
	return sm_data_open(&d, &c->opener, c->raw, why);
}

static bool has_bit(const uint8_t *bits, const struct pack_info *x, uint32_t record)
{
	return bits && record < x->nr && bits[record / 8] >> record % 8 & 1;
}

static bool set_bit(uint8_t **bits, const struct pack_info *x, uint32_t record)
{
	if (!*bits)
		*bits = calloc(x->nr / 8 + 1, 1);
	if (*bits)
		(*bits)[record / 8] |= 1 << record % 8;
	return *bits;
}

static bool upload_lives(const struct check *c, const uint8_t upload[SM_UUID])
{
	for (size_t i = 0; i < c->g.nr; i++)
		if (!memcmp(c->g.v[i].upload, upload, SM_UUID))
			return true;
	return false;
}

/* A record whose head is zeros, in a pack whose generation is gone. Whether nobody reads it is seen in the maps. */
static bool take_released(struct check *c, struct pack_info *x, struct sm_pack *p, uint32_t i)
{
	struct sm_pack_record h;

	if (upload_lives(c, x->upload) ||
	    p->store->ops->pread(p->object, &h, sizeof(h), le64toh(p->index[i].offset) - sizeof(h)) != sizeof(h) ||
	    !sm_is_zero(&h, sizeof(h)))
		return false;
	if (!set_bit(&x->released, x, i))
		return false;
	c->v->released++;
	return true;
}

/* Is this record in the sample? Chance decides: who damages something cannot know what will be looked at. */
static bool chosen(struct check *c)
{
	uint32_t x;

	if (c->v->mode == SM_VERIFY_ALL)
		return true;
	return c->v->mode == SM_VERIFY_SAMPLE && !sm_random(&x, sizeof(x)) &&
	       (uint64_t)x * SM_SAMPLE_ALL >> 32 < c->v->sample;
}

static void check_pack(struct check *c, struct pack_info *x)
{
	char key[SM_KEY_MAX];
	struct sm_err why;
	struct sm_pack p;
	int err;

	sm_key_pack(key, c->vid, x->id);
	err = sm_pack_open(c->r->store, key, x->id, &p, &why);
	if (err) {
		x->bad = true;
		if (err != -ENOENT)		/* collected meanwhile: if anybody needs it, the maps will say so */
			wrong(c, "%s", why.text);
		return;
	}
	c->v->packs++;
	x->seen = true;
	x->nr = p.nr;
	memcpy(x->upload, p.header.upload, SM_UUID);
	for (uint32_t i = 0; i < p.nr; i++) {
		if (take_released(c, x, &p, i) || !chosen(c) || !check_record(c, &p, i, &why) || take_released(c, x, &p, i))
			continue;
		x->bad = true;
		set_bit(&x->hurt, x, i);
		wrong(c, "%s: %s", key, why.text);
	}
	sm_pack_done(&p);
	if (c->v->tick)
		c->v->tick(c->v->arg);
}

/* ---- the map hash of an upload, from its packs ---- */

struct item {
	uint64_t first, length;		/* length: of a zero extent */
	uint8_t leaf[SM_DIGEST];
};

static int by_first(const void *a, const void *b)
{
	const struct item *x = a, *y = b;

	return x->first < y->first ? -1 : x->first > y->first;
}

static int collect_record(struct check *c, struct sm_pack *p, uint32_t i, uint64_t size, struct sm_spill *data,
			  struct sm_spill *zero, struct sm_err *why)
{
	ssize_t n = sm_pack_read(p, i, c->payload, why);
	const struct sm_wire_extent *w;
	struct item *x;
	struct sm_data d;
	uint32_t nr;
	int err;

	if (n < 0)
		return n;
	if (le32toh(p->index[i].type) == SM_DATA) {
		err = sm_data_parse(c->payload, n, size, false, &d, why);
		x = err ? NULL : sm_spill_add(data);
		if (!x)
			return err ? err : -ENOMEM;
		x->first = le64toh(d.extents[0].offset);
		sm_data_leaf(&d, x->leaf);
		return 0;
	}
	err = sm_zero_parse(c->payload, n, size, &w, &nr, why);
	for (uint32_t k = 0; !err && k < nr; k++) {
		struct sm_extent v = sm_extent_at(w, k);

		x = sm_spill_add(zero);
		if (!x)
			return -ENOMEM;
		x->first = v.offset;
		x->length = v.length;
	}
	return err;
}

static int hash_items(const struct sm_spill *data, const struct sm_spill *zero, uint8_t digest[SM_DIGEST])
{
	struct sm_map_hash h;
	int err = 0;

	sm_map_hash_init(&h);
	if (data->nr)
		qsort(data->map, data->nr, data->elem, by_first);
	if (zero->nr)
		qsort(zero->map, zero->nr, zero->elem, by_first);
	for (size_t i = 0; !err && i < data->nr; i++) {
		const struct item *x = sm_spill_at(data, i);

		err = sm_map_hash_data(&h, x->first, x->leaf);
	}
	for (size_t i = 0; !err && i < zero->nr; i++) {
		const struct item *x = sm_spill_at(zero, i);

		err = sm_map_hash_zero(&h, x->first, x->length);
	}
	sm_map_hash_final(&h, digest);
	return err;
}

static void check_upload(struct check *c, const struct sm_generation *g)
{
	struct sm_spill data, zero;
	uint8_t digest[SM_DIGEST];
	char tmp[PATH_MAX];
	struct sm_err why = { 0 };
	uint64_t packs = 0;
	int err = 0;

	sm_repo_tmp(c->r, tmp);
	sm_spill_init(&data, sizeof(struct item), tmp);
	sm_spill_init(&zero, sizeof(struct item), tmp);
	for (size_t i = 0; !err && i < c->nr; i++) {
		char key[SM_KEY_MAX];
		struct sm_pack p;

		if (c->packs[i].bad || memcmp(c->packs[i].upload, g->upload, SM_UUID))
			continue;
		packs++;
		c->packs[i].used = true;
		sm_key_pack(key, c->vid, c->packs[i].id);
		if (c->v->mode != SM_VERIFY_ALL)
			continue;
		err = sm_pack_open(c->r->store, key, c->packs[i].id, &p, &why);
		if (err)
			break;
		for (uint32_t k = 0; !err && k < p.nr; k++)
			err = collect_record(c, &p, k, g->manifest.info.size, &data, &zero, &why);
		sm_pack_done(&p);
	}
	if (err)
		wrong(c, "%s generation %u: %s", c->vid, g->manifest.info.number, why.text);
	else if (packs != g->packs)
		wrong(c, "%s generation %u: %llu of its %llu packs are there and sound", c->vid, g->manifest.info.number,
		      (unsigned long long)packs, (unsigned long long)g->packs);
	else if (c->v->mode == SM_VERIFY_ALL && (hash_items(&data, &zero, digest) || memcmp(digest, g->manifest.map_hash, SM_DIGEST)))
		wrong(c, "%s generation %u: its packs are not what the manifest says", c->vid, g->manifest.info.number);
	sm_spill_free(&data);
	sm_spill_free(&zero);
}

/* ---- maps ---- */

static int sweep_all(struct check *c, const struct sm_generation *g, struct sm_layer *layer, struct sm_err *why)
{
	uint64_t blocks = (g->manifest.info.size + SM_BLOCK - 1) / SM_BLOCK, pos = 0;
	struct pack_info *x;
	struct sm_sweep s;
	struct sm_piece p;
	int r = sm_sweep_begin(&s, layer, g->nr_segments, why);

	while (!r && pos < blocks) {
		r = sm_sweep_next(&s, &p, why);
		if (r < 0)
			return r;
		if (!r || p.start != pos)
			return sm_fail(why, -EUCLEAN, "map has nothing for block %llu", (unsigned long long)pos);
		pos = p.start + p.count;
		r = 0;
		if (p.pack == SM_ZERO_PACK)
			continue;
		x = find_pack(c, layer[p.layer].packs[p.pack]);
		if (!x || !x->seen)
			return sm_fail(why, -EUCLEAN, "a pack of block %llu is missing", (unsigned long long)p.start);
		if (p.record >= x->nr || has_bit(x->released, x, p.record))
			return sm_fail(why, -EUCLEAN, "the record of block %llu is not there", (unsigned long long)p.start);
		x->used = true;
		c->touched |= has_bit(x->hurt, x, p.record);
	}
	return r;
}

static void check_map(struct check *c, const struct sm_generation *g)
{
	struct sm_segment *seg = calloc(g->nr_segments + 1, sizeof(*seg));
	struct sm_layer *layer = calloc(g->nr_segments + 1, sizeof(*layer));
	struct sm_err why = { .text = "no memory" };
	uint32_t n = 0;
	int err = seg && layer ? 0 : -ENOMEM;

	for (; !err && n < g->nr_segments; n++) {
		char key[SM_KEY_MAX];

		sm_key_map(key, c->vid, g->segments[n].id);
		err = sm_segment_open(c->r->store, key, g->segments[n].id, true, &seg[n], &why);
		if (err)
			break;
		sm_layer_of_segment(&layer[n], &seg[n]);
		c->v->maps++;
	}
	if (!err)
		err = sweep_all(c, g, layer, &why);
	if (err)
		wrong(c, "%s generation %u: %s", c->vid, g->manifest.info.number, why.text);
	while (n--)
		sm_segment_close(&seg[n]);
	free(seg);
	free(layer);
}

static void check_sequence(struct check *c, size_t i)
{
	const struct sm_generation *g = &c->g.v[i];

	for (size_t k = 0; k < c->g.nr; k++)
		if (k != i && c->g.v[k].sequence == g->sequence)
			wrong(c, "%s generation %u: has the sequence number of another", c->vid, g->manifest.info.number);
}

/* ---- orphans ---- */

static int orphan_map(const char *name, void *arg)
{
	struct check *c = arg;
	char hex[SM_DIGEST_HEX];
	uint8_t id[SM_DIGEST];

	snprintf(hex, sizeof(hex), "%.64s", name);
	if (strlen(name) != SM_DIGEST_HEX + 3 || sm_unhex(hex, id, SM_DIGEST))
		wrong(c, "volumes/%s/maps/%s: not a map's name", c->vid, name);
	else if (!c->nr_maps || !bsearch(id, c->maps, c->nr_maps, SM_DIGEST, sm_by_digest))
		c->v->orphans++;
	return 0;
}

/* With a damaged manifest nobody can say what is an orphan. */
static int count_orphans(struct check *c)
{
	char prefix[SM_KEY_MAX];
	int err;

	if (c->unknown)
		return 0;
	for (size_t i = 0; i < c->nr; i++)
		c->v->orphans += c->packs[i].seen && !c->packs[i].used && !c->packs[i].bad;
	err = sm_generations_segments(&c->g, &c->maps, &c->nr_maps, c->e);
	snprintf(prefix, sizeof(prefix), "volumes/%s/maps", c->vid);
	if (!err)
		err = c->r->store->ops->list(c->r->store, prefix, orphan_map, c, c->e);
	free(c->maps);
	return err;
}

/* ---- a volume ---- */

/* As a reader: nobody takes away what it needs meanwhile. */
static void check_tag(struct check *c, const struct sm_generation *g)
{
	const struct sm_gen_info *i = &g->manifest.info;
	struct sm_err why;

	if (c->v->key && i->sealed && !memcmp(i->seal_id, c->v->key->id, SM_SECRET_ID) && sm_unseal_manifest(c->v->key, &g->manifest, &why))
		wrong(c, "%s: %s", c->vid, why.text);
}

static void check_generation(struct check *c, size_t i)
{
	const struct sm_generation *g = &c->g.v[i];
	uint32_t number = g->manifest.info.number;
	uint64_t errors = c->v->errors;
	struct sm_generation again;
	int lock = generation_lock(c->r, c->vid, number, false, NULL);

	if (lock == -EBUSY)
		return;		/* about to be deleted */
	c->touched = false;
	if (!sm_repo_generation(c->r, c->vid, number, &again, NULL)) {
		sm_generation_done(&again);
		check_tag(c, g);
		check_upload(c, g);
		check_map(c, g);
		check_sequence(c, i);
		c->v->generations++;
	}
	if (c->touched || c->v->errors > errors)
		sm_numbers_add(&c->hurt, number);
	if (lock >= 0)
		close(lock);
}

/* What a sample has not looked at again is as damaged as it was. */
static int keep_damaged(struct check *c, struct sm_err *e)
{
	struct sm_numbers old = { .nr = 0 }, all = { .nr = 0 };
	int err = 0;

	sm_damaged_load(c->r, c->vid, &old);
	for (size_t i = 0; !err && i < c->g.nr; i++) {
		uint32_t n = c->g.v[i].manifest.info.number;

		if (sm_numbers_have(&c->hurt, n) || (c->v->mode != SM_VERIFY_ALL && sm_numbers_have(&old, n)))
			err = sm_numbers_add(&all, n) ? sm_fail(e, -ENOMEM, "no memory") : 0;
	}
	if (!err && (old.nr || all.nr))
		err = sm_damaged_save(c->r, c->vid, &all, e);
	free(old.v);
	free(all.v);
	return err;
}

static void keep_result(struct check *c, const struct sm_verify *before)
{
	const struct sm_verify *v = c->v;
	struct sm_verified done = { .at = sm_now_ns(), .generations = v->generations - before->generations,
				    .records = v->records - before->records, .bytes = v->bytes - before->bytes,
				    .errors = v->errors - before->errors };
	struct sm_err why;

	done.sample = v->mode == SM_VERIFY_ALL ? SM_SAMPLE_ALL : v->mode == SM_VERIFY_SAMPLE ? v->sample : 0;
	/* A repository on a medium that cannot be written is verified all the same. */
	if (v->keep && (keep_damaged(c, &why) || sm_verified_save(c->r, c->vid, &done, &why)) && v->report)
		v->report(why.text, v->arg);
}

static int load_generations(struct check *c)
{
	int err = sm_repo_generations(c->r, c->vid, &c->g, c->e);

	c->unknown = c->g.damaged.nr;
	for (size_t i = 0; !err && i < c->g.damaged.nr; i++) {
		struct sm_generation g;
		struct sm_err why = { .text = "damaged manifest" };

		if (!sm_repo_generation(c->r, c->vid, c->g.damaged.v[i], &g, &why))
			sm_generation_done(&g);
		wrong(c, "%s", why.text);
	}
	return err;
}

static void wrong_proof(void *arg, const char *what)
{
	struct check *c = arg;

	wrong(c, "%s: %s", c->vid, what);
}

static int check_volume(struct check *c)
{
	struct sm_verify before = *c->v;
	char prefix[SM_KEY_MAX];
	int err;

	c->nr = 0;
	memset(&c->g, 0, sizeof(c->g));
	snprintf(prefix, sizeof(prefix), "volumes/%s/packs", c->vid);
	err = c->r->store->ops->list(c->r->store, prefix, add_pack, c, c->e);
	if (!err)
		err = load_generations(c);
	if (err)
		return err;
	c->opener.k = c->v->key;
	if (c->g.nr)
		memcpy(c->opener.volume, c->g.v[0].manifest.info.volume, SM_UUID);
	if (c->nr)
		qsort(c->packs, c->nr, sizeof(*c->packs), by_id);
	for (size_t i = 0; i < c->nr; i++)
		check_pack(c, &c->packs[i]);
	for (size_t i = 0; i < c->g.nr; i++)
		check_generation(c, i);
	err = repo_verify_proofs(c->r, c->vid, &c->g, wrong_proof, c, c->e);
	if (!err)
		err = count_orphans(c);
	for (size_t i = 0; i < c->nr; i++) {
		free(c->packs[i].released);
		free(c->packs[i].hurt);
	}
	c->v->volumes++;
	if (!err)
		keep_result(c, &before);
	sm_generations_free(&c->g);
	free(c->hurt.v);
	return err;
}

int sm_volume_verify(struct sm_repo *r, const char *vid, struct sm_verify *v, struct sm_err *e)
{
	struct check c = { .r = r, .v = v, .e = e, .vid = vid, .payload = malloc(SM_MAX_PAYLOAD), .raw = malloc(SM_MAX_RAW) };
	int err = c.payload && c.raw ? check_volume(&c) : sm_fail(e, -ENOMEM, "no memory");

	free(c.payload);
	free(c.raw);
	free(c.packs);
	return err;
}

int sm_repo_verify(struct sm_repo *r, struct sm_verify *v, struct sm_err *e)
{
	char (*vids)[SM_VID_TEXT];
	size_t nr;
	int err = sm_repo_volumes(r, NULL, &vids, &nr, e);

	if (err)
		return err;
	for (size_t i = 0; !err && i < nr; i++)
		err = sm_volume_verify(r, vids[i], v, e);
	free(vids);
	return err;
}
