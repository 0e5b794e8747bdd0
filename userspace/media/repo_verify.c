// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Verify: every byte of every object, against what the manifests say.
 *
 *   packs		id over header and index; each record's payload digest; its raw bytes' digest
 *   uploads		the packs of one upload together give the map hash of its manifest: what the client sent is what is here
 *   maps		digest of the whole; each generation's sweep covers its size without a hole
 *   parents		are there; sequence numbers differ
 *   orphans		objects that no manifest leads to (an interrupted commit's): counted, no error
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frame.h"
#include "pack.h"
#include "repo.h"

struct pack_info {
	uint8_t id[SM_DIGEST];
	uint8_t upload[SM_UUID];
	bool bad, used;
};

struct check {
	struct sm_repo *r;
	struct sm_verify *v;
	const char *vid;
	struct sm_generations g;
	struct pack_info *packs;
	size_t nr, room;
	uint8_t *payload, *raw;
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

/* One record: payload and, of data, the raw bytes. */
static int check_record(struct check *c, struct sm_pack *p, uint32_t i, struct sm_err *why)
{
	ssize_t n = sm_pack_read(p, i, c->payload, why);
	const struct sm_wire_data *h = (const void *)c->payload;
	uint64_t nr = le32toh(h->nr_extents);
	struct sm_extent last;
	struct sm_data d;
	int err;

	if (n < 0)
		return n;
	c->v->records++;
	c->v->bytes += n;
	if (le32toh(p->index[i].type) == SM_ZERO)
		return 0;
	if (n < (ssize_t)sizeof(*h) || !nr || sizeof(*h) + nr * sizeof(struct sm_wire_extent) > (size_t)n)
		return sm_fail(why, -EUCLEAN, "record %u is damaged", i);
	last = sm_extent_at((const struct sm_wire_extent *)(h + 1), nr - 1);
	err = sm_data_parse(c->payload, n, last.offset + last.length, false, &d, why);
	return err ? err : sm_data_unpack(&d, c->raw, why);
}

static void check_pack(struct check *c, struct pack_info *x)
{
	char key[SM_KEY_MAX];
	struct sm_err why;
	struct sm_pack p;

	sm_key_pack(key, c->vid, x->id);
	if (sm_pack_open(c->r->store, key, x->id, &p, &why)) {
		x->bad = true;
		wrong(c, "%s", why.text);
		return;
	}
	c->v->packs++;
	memcpy(x->upload, p.header.upload, SM_UUID);
	for (uint32_t i = 0; i < p.nr; i++)
		if (check_record(c, &p, i, &why)) {
			x->bad = true;
			wrong(c, "%s: %s", key, why.text);
		}
	sm_pack_done(&p);
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
	struct sm_err why = { 0 };
	uint64_t packs = 0;
	int err = 0;

	sm_spill_init(&data, sizeof(struct item), c->r->path);
	sm_spill_init(&zero, sizeof(struct item), c->r->path);
	for (size_t i = 0; !err && i < c->nr; i++) {
		char key[SM_KEY_MAX];
		struct sm_pack p;

		if (c->packs[i].bad || memcmp(c->packs[i].upload, g->upload, SM_UUID))
			continue;
		packs++;
		c->packs[i].used = true;
		sm_key_pack(key, c->vid, c->packs[i].id);
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
	else if (hash_items(&data, &zero, digest) || memcmp(digest, g->manifest.map_hash, SM_DIGEST))
		wrong(c, "%s generation %u: its packs are not what the manifest says", c->vid, g->manifest.info.number);
	sm_spill_free(&data);
	sm_spill_free(&zero);
}

/* ---- maps ---- */

static int sweep_all(struct check *c, const struct sm_generation *g, struct sm_layer *layer, struct sm_err *why)
{
	uint64_t blocks = (g->manifest.info.size + SM_BLOCK - 1) / SM_BLOCK, pos = 0;
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
		if (p.pack != SM_ZERO_PACK && !find_pack(c, layer[p.layer].packs[p.pack]))
			return sm_fail(why, -EUCLEAN, "a pack of block %llu is missing", (unsigned long long)p.start);
		r = 0;
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

static void check_parent(struct check *c, size_t i)
{
	const struct sm_generation *g = &c->g.v[i];
	bool found = !g->manifest.info.has_parent;

	for (size_t k = 0; k < c->g.nr; k++) {
		if (k != i && c->g.v[k].sequence == g->sequence)
			wrong(c, "%s generation %u: has the sequence number of another", c->vid, g->manifest.info.number);
		if (g->manifest.info.has_parent && !memcmp(c->g.v[k].hash, g->manifest.info.parent, SM_DIGEST))
			found = true;
	}
	if (!found)
		wrong(c, "%s generation %u: its parent is missing", c->vid, g->manifest.info.number);
}

/* With a damaged manifest the volume's other generations are not judged; its packs still are. */
static int load_generations(struct check *c)
{
	struct sm_err why;
	int err = sm_repo_generations(c->r, c->vid, &c->g, &why);

	if (err && err != -EUCLEAN)
		return sm_fail(c->e, err, "%s", why.text);
	if (err)
		wrong(c, "%s", why.text);
	return 0;
}

static int check_volume(struct check *c)
{
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
	if (c->nr)
		qsort(c->packs, c->nr, sizeof(*c->packs), by_id);
	for (size_t i = 0; i < c->nr; i++)
		check_pack(c, &c->packs[i]);
	for (size_t i = 0; i < c->g.nr; i++) {
		check_upload(c, &c->g.v[i]);
		check_map(c, &c->g.v[i]);
		check_parent(c, i);
		c->v->generations++;
	}
	for (size_t i = 0; i < c->nr; i++)
		c->v->orphans += !c->packs[i].used && !c->packs[i].bad;
	c->v->volumes++;
	sm_generations_free(&c->g);
	return 0;
}

int sm_repo_verify(struct sm_repo *r, struct sm_verify *v, struct sm_err *e)
{
	struct check c = { .r = r, .v = v, .e = e };
	char (*vids)[SM_VID_TEXT];
	size_t nr;
	int err = sm_repo_volumes(r, NULL, &vids, &nr, e);

	if (err)
		return err;
	c.payload = malloc(SM_MAX_PAYLOAD);
	c.raw = malloc(SM_MAX_RAW);
	if (!c.payload || !c.raw)
		err = sm_fail(e, -ENOMEM, "no memory");
	for (size_t i = 0; !err && i < nr; i++) {
		c.vid = vids[i];
		err = check_volume(&c);
	}
	free(c.payload);
	free(c.raw);
	free(c.packs);
	free(vids);
	return err;
}
