// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A restore is compared with the manifest as a whole, before a byte of it is written.
 *
 * A manifest's map hash is over the frames of one backup. For an increment that is not the image: most of it comes from its ancestors' frames. Frames are
 * genuine one by one (each has its digest, or is sealed), and still a server could mix: an older frame of a block where a newer one is, or
 * zeros. What an image is, is said by the chain of manifests, each naming its parent by hash down to a full backup; and what each of them
 * says of its own backup, by two digests over it: which blocks (change_digest), and which frames and zeros (map_hash).
 *
 * So before the data the server sends, for each generation from the one asked for to its full ancestor, the manifest and its *items*: these blocks are of
 * that frame (told by its leaf, protocol.rst), or zeros. The client
 *
 *	1  has each manifest's hash: from the child before it; of the first it is what it asked for (or what the key's tag vouches for)
 *	2  compares the blocks of all items with change_digest, leaves and zeros with map_hash: nothing left out, nothing more
 *	3  lays the generations over each other, the newest on top, which gives for each block the one frame it must be of
 *	4  takes of the data that comes only blocks of a frame with that very leaf, and zeros only where zeros belong
 *
 * Can items lie and pass 2? They could say that a block is of another frame of the same backup: the leaf of a frame has its extents in it, so that
 * 4 never lets this pass for a frame that is used; and of frames that are wholly covered by newer ones it does not matter. Zeros cannot be exchanged
 * with data, both are in digests of their own. Leaves cannot be exchanged or left out: D of the map hash is over all of them, in order.
 *
 * A resumed upload has leaves in its map hash that the client has only the server's word for (HAVE): there a server can put the leaf of an older
 * frame of the same blocks. So a sealed frame must also be of the very generation whose leaf it is, by the uuid that is sealed with it.
 *
 * The price is that a generation's items are needed as long as anybody descends from it, also when it has been pruned: about 40 bytes for a frame of
 * 256 KiB, and 3 for each scattered block. repo_proof.c keeps them. The chain begins anew with each full backup.
 *
 * The items' coding. Ascending, disjoint: blocks between the end of the last one and this (varint), number of blocks (varint), one byte
 * zeros / same frame as the last data / new frame, 32 bytes of leaf follow / earlier frame, how many back (varint). Frames come in the order of their first
 * block, so each is new once. A varint is 7 bits a byte, low ones first, bit 7: more follow; at most 9 bytes.
 */
#include "proof.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "segment.h"

#define ITEM_MAX	(3 * 9 + 1 + SM_DIGEST)
#define CHAIN_MAX	(1u << 20)

/* ---- writing ---- */

static void put_varint(struct sm_proof_writer *w, uint64_t v)
{
	for (; v > 0x7f; v >>= 7)
		w->buf[w->len++] = v | 0x80;
	w->buf[w->len++] = v;
}

int sm_proof_flush(struct sm_proof_writer *w, struct sm_err *e)
{
	size_t len = w->len;

	w->len = 0;
	return len ? w->chunk(w->buf, len, w->arg, e) : 0;
}

int sm_proof_item(struct sm_proof_writer *w, uint64_t start, uint64_t count, enum sm_proof_ref ref, const uint8_t *leaf, uint64_t back,
		  struct sm_err *e)
{
	int err = w->len + ITEM_MAX > sizeof(w->buf) ? sm_proof_flush(w, e) : 0;

	if (err)
		return err;
	put_varint(w, start - w->end);
	put_varint(w, count);
	w->buf[w->len++] = ref;
	if (ref == SM_PROOF_NEW) {
		memcpy(w->buf + w->len, leaf, SM_DIGEST);
		w->len += SM_DIGEST;
	} else if (ref == SM_PROOF_BACK) {
		put_varint(w, back);
	}
	w->end = start + count;
	return 0;
}

/* ---- reading ---- */

/* One generation of the chain. */
struct link {
	struct sm_manifest m;
	struct sm_spill entries;	/* struct sm_entry; record: index of the leaf */
	struct sm_spill leaves;		/* 32 bytes each */
	uint64_t end, same;
	struct sm_range_hash all;
	struct sm_map_hash map;
	bool hashing;
};

/* A stretch of the image. */
struct stretch {
	uint64_t start, count;		/* blocks */
	uint32_t link, leaf;		/* link UINT32_MAX: zeros */
};

struct sm_proof {
	uint8_t hash[SM_DIGEST];	/* of the manifest that has to come next */
	const struct sm_secret *k;
	bool keyless;
	struct link **link;		/* new to old */
	uint32_t nr, room;
	struct sm_spill image;		/* struct stretch, ascending, from 0 to the size */
	bool whole;
};

struct sm_proof *sm_proof_new(const uint8_t hash[SM_DIGEST], const struct sm_secret *k, bool keyless)
{
	struct sm_proof *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	memcpy(p->hash, hash, SM_DIGEST);
	p->k = k;
	p->keyless = keyless;
	sm_spill_init(&p->image, sizeof(struct stretch), NULL);
	return p;
}

static void free_link(struct link *l)
{
	if (l->hashing) {
		sm_map_hash_drop(&l->map);
		sm_sha_drop(&l->all.sha);
	}
	sm_spill_free(&l->entries);
	sm_spill_free(&l->leaves);
	free(l);
}

void sm_proof_free(struct sm_proof *p)
{
	if (!p)
		return;
	for (uint32_t i = 0; i < p->nr; i++)
		free_link(p->link[i]);
	free(p->link);
	sm_spill_free(&p->image);
	free(p);
}

static int wrong(const struct link *l, struct sm_err *e, const char *why)
{
	return sm_fail(e, -EPROTO, "the proof of generation %u: %s", l->m.info.number, why);
}

static int no_room(struct sm_err *e)
{
	return sm_fail(e, -errno, "no room for a proof: %s", strerror(errno));
}

/* Step 2, when all items are there. */
static int finish_link(struct link *l, struct sm_err *e)
{
	const struct sm_gen_info *g = &l->m.info;
	uint8_t all[SM_DIGEST], map[SM_DIGEST];
	uint64_t nr, bytes, frames = l->map.frames;

	l->hashing = false;
	sm_range_hash_final(&l->all, all);
	nr = l->all.nr;
	bytes = l->all.bytes;
	sm_map_hash_final(&l->map, map);
	if (memcmp(all, g->change_digest, SM_DIGEST) || nr != g->extents || bytes != g->bytes)
		return wrong(l, e, "not the blocks that its manifest says");
	if (memcmp(map, l->m.map_hash, SM_DIGEST) || frames != l->m.frames)
		return wrong(l, e, "not the frames and zeros that its manifest says");
	return 0;
}

/* What a child does not have of its parent it must be able to take from it. */
static int check_parent(const struct link *child, const struct sm_manifest *m, struct sm_err *e)
{
	const struct sm_gen_info *c = &child->m.info, *g = &m->info;
	const struct sm_entry *last = child->entries.nr ? sm_spill_at(&child->entries, child->entries.nr - 1) : NULL;

	if (memcmp(c->volume, g->volume, SM_UUID) || g->number >= c->number || !g->sealed != !c->sealed)
		return sm_fail(e, -EPROTO, "generation %u cannot be an increment on %u", c->number, g->number);
	if (c->size > g->size && (!last || (last->start + last->count) * SM_BLOCK < c->size))
		return wrong(child, e, "the volume has grown and its new part is not there");
	return 0;
}

static int add_link(struct sm_proof *p, struct link **out, struct sm_err *e)
{
	void *v;

	if (p->nr == CHAIN_MAX)
		return sm_fail(e, -EPROTO, "a proof of more than %u generations", CHAIN_MAX);
	if (p->nr == p->room) {
		v = realloc(p->link, (p->room + 64) * sizeof(*p->link));
		if (!v)
			return sm_fail(e, -ENOMEM, "no memory for a proof");
		p->link = v;
		p->room += 64;
	}
	*out = calloc(1, sizeof(**out));
	if (!*out)
		return sm_fail(e, -ENOMEM, "no memory for a proof");
	sm_spill_init(&(*out)->entries, sizeof(struct sm_entry), NULL);
	sm_spill_init(&(*out)->leaves, SM_DIGEST, NULL);
	(*out)->same = UINT64_MAX;
	p->link[p->nr++] = *out;
	return 0;
}

int sm_proof_manifest(struct sm_proof *p, const char *text, size_t len, struct sm_err *e)
{
	struct link *child = p->nr ? p->link[p->nr - 1] : NULL, *l;
	uint8_t hash[SM_DIGEST];
	int err = child ? finish_link(child, e) : 0;

	if (err)
		return err;
	sm_sha256(text, len, hash);
	if (p->whole || (child && !child->m.info.has_parent) || memcmp(hash, p->hash, SM_DIGEST))
		return sm_fail(e, -EPROTO, "the manifest that came is not the one that is to come");
	err = add_link(p, &l, e);
	if (err || (err = sm_manifest_parse(text, len, &l->m, e)) || (!p->keyless && (err = sm_unseal_manifest(p->k, &l->m, e))) ||
	    (child && (err = check_parent(child, &l->m, e))))
		return err;
	sm_range_hash_init(&l->all);
	sm_map_hash_init(&l->map);
	l->hashing = true;
	memcpy(p->hash, l->m.info.parent, SM_DIGEST);
	return 0;
}

struct cursor {
	const uint8_t *at, *end;
};

static bool get_varint(struct cursor *c, uint64_t *v)
{
	*v = 0;
	for (unsigned int shift = 0; shift < 63 && c->at < c->end; shift += 7) {
		uint8_t b = *c->at++;

		*v |= (uint64_t)(b & 0x7f) << shift;
		if (!(b & 0x80))
			return true;
	}
	return false;
}

/* The leaf that an item names, made if it is new: its index, -errno. */
static int64_t get_frame(struct link *l, struct cursor *c, uint8_t ref, uint64_t start, struct sm_err *e)
{
	uint64_t back = 0;
	void *leaf;

	if (ref == SM_PROOF_NEW) {
		if (c->end - c->at < SM_DIGEST || l->leaves.nr == UINT32_MAX - 1)
			return wrong(l, e, "ends within an item");
		leaf = sm_spill_add(&l->leaves);
		if (!leaf)
			return no_room(e);
		memcpy(leaf, c->at, SM_DIGEST);
		c->at += SM_DIGEST;
		l->same = l->leaves.nr - 1;
		if (sm_map_hash_data(&l->map, start * SM_BLOCK, leaf))
			return wrong(l, e, "frames do not ascend");
	} else if (ref == SM_PROOF_BACK) {
		if (!get_varint(c, &back) || back >= l->leaves.nr)
			return wrong(l, e, "an item of no frame");
		l->same = l->leaves.nr - 1 - back;
	} else if (ref != SM_PROOF_SAME || l->same == UINT64_MAX) {
		return wrong(l, e, "an item of no frame");
	}
	return l->same;
}

static int add_entries(struct link *l, uint64_t start, uint64_t count, uint32_t pack, uint32_t record, struct sm_err *e)
{
	while (count) {
		uint32_t part = count > UINT32_MAX / 2 ? UINT32_MAX / 2 : count;
		struct sm_entry *x = sm_spill_add(&l->entries);

		if (!x)
			return no_room(e);
		*x = (struct sm_entry){ start, part, pack, record, 0 };
		start += part;
		count -= part;
	}
	return 0;
}

static int get_item(struct link *l, struct cursor *c, struct sm_err *e)
{
	uint64_t blocks = (l->m.info.size + SM_BLOCK - 1) / SM_BLOCK, gap, count, start, offset, length;
	int64_t frame = 0;
	uint8_t ref;

	if (!get_varint(c, &gap) || !get_varint(c, &count) || c->at == c->end)
		return wrong(l, e, "ends within an item");
	ref = *c->at++;
	if (gap > blocks - l->end || !count || count > blocks - l->end - gap)
		return wrong(l, e, "an item outside of the volume");
	start = l->end + gap;
	l->end = start + count;
	offset = start * SM_BLOCK;
	length = count * SM_BLOCK < l->m.info.size - offset ? count * SM_BLOCK : l->m.info.size - offset;
	if (ref != SM_PROOF_ZERO && (frame = get_frame(l, c, ref, start, e)) < 0)
		return frame;
	if (sm_range_hash_add(&l->all, offset, length) || (ref == SM_PROOF_ZERO && sm_map_hash_zero(&l->map, offset, length)))
		return wrong(l, e, "items overlap");
	return add_entries(l, start, count, ref == SM_PROOF_ZERO ? SM_ZERO_PACK : 0, frame, e);
}

int sm_proof_chunk(struct sm_proof *p, const void *buf, size_t len, struct sm_err *e)
{
	struct cursor c = { buf, (const uint8_t *)buf + len };
	int err = 0;

	if (!p->nr || p->whole)
		return sm_fail(e, -EPROTO, "a proof of no generation");
	while (!err && c.at < c.end)
		err = get_item(p->link[p->nr - 1], &c, e);
	return err;
}

/* Step 3. Neighbours of one frame are one stretch. */
static int lay_over(struct sm_proof *p, struct sm_layer *layer, struct sm_err *e)
{
	uint64_t blocks = (p->link[0]->m.info.size + SM_BLOCK - 1) / SM_BLOCK, pos = 0;
	struct sm_sweep s;
	struct sm_piece x;
	int r = sm_sweep_begin(&s, layer, p->nr, e);

	while (!r && pos < blocks) {
		struct stretch *last = p->image.nr ? sm_spill_at(&p->image, p->image.nr - 1) : NULL;
		struct stretch n = { .link = UINT32_MAX };

		r = sm_sweep_next(&s, &x, e);
		if (r < 0)
			return r;
		if (!r || x.start != pos)
			return sm_fail(e, -EPROTO, "the proof has nothing for offset %llu", (unsigned long long)pos * SM_BLOCK);
		if (x.pack != SM_ZERO_PACK) {
			n.link = p->nr - 1 - x.layer;
			n.leaf = x.record;
		}
		n.start = pos;
		n.count = x.count < blocks - pos ? x.count : blocks - pos;
		pos += n.count;
		r = 0;
		if (last && last->link == n.link && last->leaf == n.leaf) {
			last->count += n.count;
			continue;
		}
		last = sm_spill_add(&p->image);
		if (!last)
			return no_room(e);
		*last = n;
	}
	return r;
}

int sm_proof_last(struct sm_proof *p, struct sm_err *e)
{
	return p->nr ? finish_link(p->link[p->nr - 1], e) : sm_fail(e, -EPROTO, "a proof of no generation");
}

int sm_proof_end(struct sm_proof *p, struct sm_err *e)
{
	struct link *oldest = p->nr ? p->link[p->nr - 1] : NULL;
	struct sm_layer *layer;
	int err;

	if (!oldest || oldest->m.info.has_parent)
		return sm_fail(e, -EPROTO, "the proof does not reach a full backup");
	err = finish_link(oldest, e);
	if (err)
		return err;
	layer = calloc(p->nr, sizeof(*layer));
	if (!layer)
		return sm_fail(e, -ENOMEM, "no memory for a proof");
	for (uint32_t i = 0; i < p->nr; i++) {
		const struct sm_spill *x = &p->link[p->nr - 1 - i]->entries;

		layer[i] = (struct sm_layer){ .entries = (const void *)x->map, .nr = x->nr };
	}
	err = lay_over(p, layer, e);
	free(layer);
	for (uint32_t i = 0; i < p->nr; i++)
		sm_spill_free(&p->link[i]->entries);
	p->whole = !err;
	return err;
}

/* ---- comparing ---- */

static const struct stretch *find(const struct sm_proof *p, uint64_t block)
{
	size_t low = 0, high = p->image.nr;

	while (low + 1 < high) {
		size_t mid = low + (high - low) / 2;

		if (((const struct stretch *)sm_spill_at(&p->image, mid))->start <= block)
			low = mid;
		else
			high = mid;
	}
	return p->image.nr ? sm_spill_at(&p->image, low) : NULL;
}

/* Step 4. @leaf NULL: zeros. @seal: of a sealed frame, or NULL. */
static int compare(const struct sm_proof *p, const struct sm_wire_extent *w, uint32_t nr, const uint8_t *leaf, const struct sm_wire_seal *seal,
		   struct sm_err *e)
{
	const struct stretch *end = p->image.nr ? (const struct stretch *)sm_spill_at(&p->image, p->image.nr) : NULL;

	if (!p->whole)
		return sm_fail(e, -EPROTO, "data without a proof");
	for (uint32_t i = 0; i < nr; i++) {
		struct sm_extent x = sm_extent_at(w, i);
		uint64_t block = x.offset / SM_BLOCK, to = (x.offset + x.length + SM_BLOCK - 1) / SM_BLOCK;

		for (const struct stretch *s = find(p, block); block < to; block = s->start + s->count, s++) {
			bool zero = s && s < end && s->link == UINT32_MAX;

			if (!s || s >= end || zero != !leaf ||
			    (leaf && memcmp(sm_spill_at(&p->link[s->link]->leaves, s->leaf), leaf, SM_DIGEST)) ||
			    (seal && memcmp(seal->generation, p->link[s->link]->m.info.uuid, SM_UUID)))
				return sm_fail(e, -EPROTO, "offset %llu: what came is not of this generation: an older one, or another place's",
					       (unsigned long long)block * SM_BLOCK);
		}
	}
	return 0;
}

int sm_proof_data(const struct sm_proof *p, const struct sm_wire_extent *x, uint32_t nr, const uint8_t leaf[SM_DIGEST], struct sm_err *e)
{
	return compare(p, x, nr, leaf, NULL, e);
}

int sm_proof_frame(const struct sm_proof *p, const struct sm_wire_extent *x, uint32_t nr, const struct sm_data *d, struct sm_err *e)
{
	uint8_t leaf[SM_DIGEST];

	sm_data_leaf(d, leaf);
	return compare(p, x, nr, leaf, sm_data_seal(d), e);
}

int sm_proof_zero(const struct sm_proof *p, const struct sm_wire_extent *x, uint32_t nr, struct sm_err *e)
{
	return compare(p, x, nr, NULL, NULL, e);
}
