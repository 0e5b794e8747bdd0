// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The map of a generation is a short list of segments, old to new. Each is an immutable sorted table
 * of entries (blocks → pack, record, place in it); where two have a block the newer one counts.
 * Generations share segments: an increment's list is its parent's list, plus a segment of its own
 * changes, with some of the last ones replaced by their merge.
 *
 * The choice. A copy-on-write tree of map nodes rewrites for a single changed block the path to it: some
 * kilobytes of nodes for 4 KiB of data, and for scattered changes all of the tree. A segment costs
 * 24 bytes an entry. The price is merging.
 *
 *   class(n) = floor(log8 n).   The list's classes never ascend from old to new.
 *   A new segment of class c takes in every smaller one at the end of the list (their sum is O(n)), and if
 *   then there are seven others of class c at the end, these too (and so on upwards).
 *
 * So a list has at most seven segments of each class: 7 · log8(entries), a dozen or two; opening a generation
 * opens these, whatever the number of generations. And an entry is written again only when it rises by a class,
 * eight times as many entries: at most log8(all / new) times, which for 1 % increments is twice or
 * three times 24 bytes, amortized over the eight increments that fill a class. Nothing is ever as
 * large as the volume unless an eighth of it has changed.
 *
 *      blocks   0        8        16       24       32
 *      full     [aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa]
 *      1..8          [bbbbb]           [bb]               what is underneath stays where it is
 *      9                  [ccc]
 *      sweep    [aaa][bbbb][ccc][aaaaa][bb][aaaaa]
 */
#include "segment.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CLASS_FILL	7u
#define MAX_PACKS	(1u << 26)

static const char magic[8] = "SDMAP\1\0";

static int damaged(struct sm_err *e, const char *key, const char *why)
{
	return sm_fail(e, -EUCLEAN, "%s: damaged map: %s", key, why);
}

static uint32_t header_crc(const struct sm_segment_header *h, const void *packs)
{
	uint32_t crc = sm_crc32c(0, h, offsetof(struct sm_segment_header, crc));

	return sm_crc32c(crc, packs, (size_t)le32toh(h->nr_packs) * SM_DIGEST);
}

static uint64_t pages_at(uint32_t nr_packs)
{
	uint64_t end = sizeof(struct sm_segment_header) + (uint64_t)nr_packs * SM_DIGEST;

	return (end + SM_PAGE - 1) / SM_PAGE * SM_PAGE;
}

static uint64_t nr_pages(uint64_t entries)
{
	return (entries + SM_PAGE_ENTRIES - 1) / SM_PAGE_ENTRIES;
}

static int load_header(struct sm_segment *g, const char *key, struct sm_err *e)
{
	const struct sm_store_ops *ops = g->store->ops;
	uint64_t size = ops->size(g->object);
	struct sm_segment_header h;
	size_t len;

	if (ops->pread(g->object, &h, sizeof(h), 0) != sizeof(h) || memcmp(h.magic, magic, 8) || h.flags)
		return damaged(e, key, "header");
	g->nr_entries = le64toh(h.nr_entries);
	g->blocks = le64toh(h.blocks);
	g->nr_packs = le32toh(h.nr_packs);
	if (g->nr_packs > MAX_PACKS || g->nr_entries > UINT64_MAX / SM_PAGE)
		return damaged(e, key, "counts");
	g->pages_at = pages_at(g->nr_packs);
	if (size != g->pages_at + nr_pages(g->nr_entries) * SM_PAGE)
		return damaged(e, key, "length");
	len = (size_t)g->nr_packs * SM_DIGEST;
	g->packs = malloc(len + 1);
	g->page = malloc(SM_PAGE);
	if (!g->packs || !g->page)
		return sm_fail(e, -ENOMEM, "no memory for a map");
	if (ops->pread(g->object, g->packs, len, sizeof(h)) != (ssize_t)len ||
	    header_crc(&h, g->packs) != le32toh(h.crc))
		return damaged(e, key, "pack table");
	return 0;
}

static int check_whole(struct sm_segment *g, const char *key, const uint8_t id[SM_DIGEST], struct sm_err *e)
{
	uint64_t size = g->store->ops->size(g->object);
	uint8_t digest[SM_DIGEST], *buf = malloc(1 << 20);
	struct sm_sha s;

	if (!buf)
		return sm_fail(e, -ENOMEM, "no memory for a map");
	sm_sha_init(&s);
	for (uint64_t at = 0; at < size; at += 1 << 20) {
		size_t len = size - at < 1 << 20 ? size - at : 1 << 20;

		if (g->store->ops->pread(g->object, buf, len, at) != (ssize_t)len)
			break;
		sm_sha_update(&s, buf, len);
	}
	sm_sha_final(&s, digest);
	free(buf);
	return memcmp(digest, id, SM_DIGEST) ? damaged(e, key, "digest") : 0;
}

int sm_segment_open(struct sm_store *s, const char *key, const uint8_t id[SM_DIGEST], bool whole,
		    struct sm_segment *g, struct sm_err *e)
{
	int err;

	memset(g, 0, sizeof(*g));
	g->store = s;
	g->page_no = UINT64_MAX;
	err = s->ops->open(s, key, &g->object, e);
	if (err)
		return err;
	err = load_header(g, key, e);
	if (!err && whole)
		err = check_whole(g, key, id, e);
	if (err)
		sm_segment_close(g);
	return err;
}

static int load_page(struct sm_segment *g, uint64_t no, struct sm_err *e)
{
	struct sm_segment_page *p = g->page;
	uint64_t first = no * SM_PAGE_ENTRIES;
	uint64_t left = g->nr_entries - first;

	g->page_no = UINT64_MAX;
	if (g->store->ops->pread(g->object, p, SM_PAGE, g->pages_at + no * SM_PAGE) != SM_PAGE ||
	    le32toh(p->crc) != sm_crc32c(0, &p->nr, SM_PAGE - sizeof(p->crc)) || le64toh(p->number) != no ||
	    le32toh(p->nr) != (left < SM_PAGE_ENTRIES ? left : SM_PAGE_ENTRIES))
		return sm_fail(e, -EUCLEAN, "damaged map: page %llu", (unsigned long long)no);
	g->page_no = no;
	return 0;
}

int sm_segment_entry(struct sm_segment *g, uint64_t i, struct sm_entry *x, struct sm_err *e)
{
	const struct sm_wire_entry *w;

	if (i / SM_PAGE_ENTRIES != g->page_no) {
		int err = load_page(g, i / SM_PAGE_ENTRIES, e);

		if (err)
			return err;
	}
	w = &g->page->entry[i % SM_PAGE_ENTRIES];
	*x = (struct sm_entry){ le64toh(w->start), le32toh(w->count), le32toh(w->pack), le32toh(w->record),
				le32toh(w->block) };
	if (!x->count || x->start > UINT64_MAX / SM_BLOCK - x->count ||
	    (x->pack != SM_ZERO_PACK && x->pack >= g->nr_packs))
		return sm_fail(e, -EUCLEAN, "damaged map: entry %llu", (unsigned long long)i);
	return 0;
}

int sm_segment_twin(const struct sm_segment *g, struct sm_segment *twin, struct sm_err *e)
{
	*twin = *g;
	twin->page_no = UINT64_MAX;
	twin->page = malloc(SM_PAGE);
	return twin->page ? 0 : sm_fail(e, -ENOMEM, "no memory for a map");
}

void sm_segment_close(struct sm_segment *g)
{
	if (g->object)
		g->store->ops->close(g->object);
	g->object = NULL;
	free(g->packs);
	free(g->page);
	g->packs = NULL;
	g->page = NULL;
}

void sm_layer_of_segment(struct sm_layer *l, struct sm_segment *g)
{
	memset(l, 0, sizeof(*l));
	l->segment = g;
	l->nr = g->nr_entries;
	l->packs = g->packs;
	l->nr_packs = g->nr_packs;
}

static int layer_load(struct sm_layer *l, struct sm_err *e)
{
	uint64_t end = l->has ? l->cur.start + l->cur.count : 0;

	l->has = l->next < l->nr;
	if (!l->has)
		return 0;
	if (l->segment) {
		int err = sm_segment_entry(l->segment, l->next, &l->cur, e);

		if (err)
			return err;
	} else {
		l->cur = l->entries[l->next];
	}
	l->next++;
	if (l->cur.start < end)
		return sm_fail(e, -EUCLEAN, "damaged map: entries overlap or go back");
	return 0;
}

/* Forget what of the layer lies before @pos. */
static int layer_skip(struct sm_layer *l, uint64_t pos, struct sm_err *e)
{
	while (l->has && l->cur.start < pos) {
		if (l->cur.start + l->cur.count > pos) {
			uint32_t cut = pos - l->cur.start;

			l->cur.start += cut;
			l->cur.count -= cut;
			if (l->cur.pack != SM_ZERO_PACK)
				l->cur.block += cut;
			return 0;
		}
		int err = layer_load(l, e);

		if (err)
			return err;
	}
	return 0;
}

int sm_sweep_begin(struct sm_sweep *s, struct sm_layer *layer, uint32_t nr, struct sm_err *e)
{
	s->layer = layer;
	s->nr = nr;
	for (uint32_t i = 0; i < nr; i++) {
		int err;

		layer[i].next = 0;
		layer[i].has = false;
		err = layer_load(&layer[i], e);
		if (err)
			return err;
	}
	return 0;
}

/* Does entry @i end behind @pos? 1, 0, -errno. */
static int ends_behind(struct sm_segment *g, uint64_t i, uint64_t pos, struct sm_err *e)
{
	struct sm_entry x;
	int err = sm_segment_entry(g, i, &x, e);

	return err ? err : x.start + x.count > pos;
}

/* What is looked for mostly lies in the page that is here, or in the next one: no need to search all of them. */
static int narrow(struct sm_segment *g, uint64_t pos, uint64_t *low, uint64_t *high, struct sm_err *e)
{
	uint64_t first = g->page_no * SM_PAGE_ENTRIES, last;
	int r;

	if (g->page_no == UINT64_MAX)
		return 0;
	last = first + le32toh(g->page->nr) - 1;
	r = ends_behind(g, first, pos, e);
	if (r) {
		*high = first;
		return r < 0 ? r : 0;
	}
	for (int i = 0; i < 2 && last < *high; i++) {
		r = ends_behind(g, last, pos, e);
		if (r) {
			*high = last;
			return r < 0 ? r : 0;
		}
		*low = last + 1;
		last += SM_PAGE_ENTRIES;
	}
	return 0;
}

/* The first entry of the layer that ends behind @pos, and what of it lies there. */
static int layer_seek(struct sm_layer *l, uint64_t pos, struct sm_err *e)
{
	uint64_t low = 0, high = l->nr;
	int r = l->segment ? narrow(l->segment, pos, &low, &high, e) : 0;

	if (r)
		return r;
	while (low < high) {
		uint64_t mid = low + (high - low) / 2;
		struct sm_entry x = l->segment ? (struct sm_entry){ 0 } : l->entries[mid];
		int err = l->segment ? sm_segment_entry(l->segment, mid, &x, e) : 0;

		if (err)
			return err;
		if (x.start + x.count <= pos)
			low = mid + 1;
		else
			high = mid;
	}
	l->next = low;
	l->has = false;
	r = layer_load(l, e);
	return r ? r : layer_skip(l, pos, e);
}

int sm_sweep_seek(struct sm_sweep *s, uint64_t pos, struct sm_err *e)
{
	int err = 0;

	for (uint32_t i = 0; !err && i < s->nr; i++)
		err = layer_seek(&s->layer[i], pos, e);
	return err;
}

int sm_sweep_next(struct sm_sweep *s, struct sm_piece *p, struct sm_err *e)
{
	uint64_t pos = UINT64_MAX, end;
	struct sm_layer *win = NULL;

	for (uint32_t i = 0; i < s->nr; i++) {
		struct sm_layer *l = &s->layer[i];

		if (l->has && l->cur.start <= pos) {	/* of equals the newer */
			pos = l->cur.start;
			win = l;
		}
	}
	if (!win)
		return 0;
	end = pos + win->cur.count;
	for (struct sm_layer *l = win + 1; l < s->layer + s->nr; l++)
		if (l->has && l->cur.start < end)
			end = l->cur.start;
	*p = (struct sm_piece){ pos, end - pos, win - s->layer, win->cur.pack, win->cur.record, win->cur.block };
	for (uint32_t i = 0; i < s->nr; i++) {
		int err = layer_skip(&s->layer[i], end, e);

		if (err)
			return err;
	}
	return 1;
}

/* ---- writing ---- */

struct seg_writer {
	int fd;
	struct sm_sha sha;
	struct sm_segment_page page;
	uint32_t in_page;
	uint64_t page_no;
	uint8_t (*packs)[SM_DIGEST];	/* sorted, those in use */
	uint32_t nr_packs;
	uint32_t **remap;		/* [layer][pack of the layer] → pack of ours */
	uint64_t entries, blocks;
};

/* First sweep: how many entries, and which packs are still in use. remap[l][p] = 1 marks them. */
static int count_pieces(struct seg_writer *w, struct sm_layer *layer, uint32_t nr, struct sm_err *e)
{
	struct sm_sweep s;
	struct sm_piece p;
	int r = sm_sweep_begin(&s, layer, nr, e);

	if (r)
		return r;
	while ((r = sm_sweep_next(&s, &p, e)) > 0) {
		w->entries++;
		w->blocks += p.count;
		if (p.pack != SM_ZERO_PACK)
			w->remap[p.layer][p.pack] = 1;
	}
	return r;
}

static int make_table(struct seg_writer *w, struct sm_layer *layer, uint32_t nr, struct sm_err *e)
{
	size_t used = 0, n = 0;

	for (uint32_t l = 0; l < nr; l++)
		for (uint32_t p = 0; p < layer[l].nr_packs; p++)
			used += w->remap[l][p];
	w->packs = malloc(used * SM_DIGEST + 1);
	if (!w->packs)
		return sm_fail(e, -ENOMEM, "no memory for a map");
	for (uint32_t l = 0; l < nr; l++)
		for (uint32_t p = 0; p < layer[l].nr_packs; p++)
			if (w->remap[l][p])
				memcpy(w->packs[n++], layer[l].packs[p], SM_DIGEST);
	qsort(w->packs, n, SM_DIGEST, sm_by_digest);
	for (size_t i = 0; i < n; i++)
		if (!i || memcmp(w->packs[i], w->packs[w->nr_packs - 1], SM_DIGEST))
			memmove(w->packs[w->nr_packs++], w->packs[i], SM_DIGEST);
	for (uint32_t l = 0; l < nr; l++)
		for (uint32_t p = 0; p < layer[l].nr_packs; p++) {
			void *at = w->remap[l][p] ? bsearch(layer[l].packs[p], w->packs, w->nr_packs, SM_DIGEST,
							    sm_by_digest) : NULL;

			w->remap[l][p] = at ? ((uint8_t *)at - (uint8_t *)w->packs) / SM_DIGEST : 0;
		}
	return 0;
}

static int emit(struct seg_writer *w, const void *buf, size_t len)
{
	sm_sha_update(&w->sha, buf, len);
	return sm_write_full(w->fd, buf, len);
}

static int emit_header(struct seg_writer *w)
{
	struct sm_segment_header h = { .nr_entries = htole64(w->entries), .blocks = htole64(w->blocks),
				       .nr_packs = htole32(w->nr_packs) };
	static const uint8_t zeros[SM_PAGE];
	size_t len = (size_t)w->nr_packs * SM_DIGEST;
	int err;

	memcpy(h.magic, magic, 8);
	h.crc = htole32(header_crc(&h, w->packs));
	err = emit(w, &h, sizeof(h));
	if (!err)
		err = emit(w, w->packs, len);
	if (!err)
		err = emit(w, zeros, pages_at(w->nr_packs) - sizeof(h) - len);
	return err;
}

static int flush_page(struct seg_writer *w)
{
	int err;

	if (!w->in_page)
		return 0;
	w->page.nr = htole32(w->in_page);
	w->page.number = htole64(w->page_no++);
	w->page.crc = htole32(sm_crc32c(0, &w->page.nr, SM_PAGE - sizeof(w->page.crc)));
	err = emit(w, &w->page, SM_PAGE);
	memset(&w->page, 0, SM_PAGE);
	w->in_page = 0;
	return err;
}

static int emit_pieces(struct seg_writer *w, struct sm_layer *layer, uint32_t nr, struct sm_err *e)
{
	struct sm_sweep s;
	struct sm_piece p;
	int r = sm_sweep_begin(&s, layer, nr, e);

	if (r)
		return r;
	while ((r = sm_sweep_next(&s, &p, e)) > 0) {
		bool zero = p.pack == SM_ZERO_PACK;

		w->page.entry[w->in_page++] = (struct sm_wire_entry){
			htole64(p.start), htole32(p.count),
			htole32(zero ? SM_ZERO_PACK : w->remap[p.layer][p.pack]),
			htole32(zero ? 0 : p.record), htole32(zero ? 0 : p.block) };
		if (w->in_page == SM_PAGE_ENTRIES && (r = flush_page(w)))
			return sm_fail(e, r, "map: cannot write: %s", strerror(-r));
	}
	if (!r && (r = flush_page(w)))
		return sm_fail(e, r, "map: cannot write: %s", strerror(-r));
	return r;
}

static int write_file(struct seg_writer *w, const char *path, struct sm_layer *layer, uint32_t nr,
		      struct sm_segment_ref *ref, struct sm_err *e)
{
	int err = sm_fault("segment-write");

	if (err)
		return sm_fail(e, err, "%s: %s", path, strerror(-err));
	w->fd = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (w->fd < 0)
		return sm_fail(e, -errno, "%s: cannot write: %s", path, strerror(errno));
	sm_sha_init(&w->sha);
	err = emit_header(w);
	if (err)
		sm_fail(e, err, "%s: cannot write: %s", path, strerror(-err));
	else
		err = emit_pieces(w, layer, nr, e);
	if (!err && fsync(w->fd))
		err = sm_fail(e, -errno, "%s: cannot sync: %s", path, strerror(errno));
	close(w->fd);
	sm_sha_final(&w->sha, ref->id);
	ref->entries = w->entries;
	return err;
}

int sm_segment_write(const char *path, struct sm_layer *layer, uint32_t nr, struct sm_segment_ref *ref,
		     struct sm_err *e)
{
	struct seg_writer w = { .fd = -1 };
	int err = 0;

	w.remap = calloc(nr + 1, sizeof(*w.remap));
	for (uint32_t i = 0; w.remap && i < nr; i++) {
		w.remap[i] = calloc(layer[i].nr_packs + 1, sizeof(**w.remap));
		if (!w.remap[i])
			err = -ENOMEM;
	}
	if (!w.remap || err)
		err = sm_fail(e, -ENOMEM, "no memory for a map");
	if (!err)
		err = count_pieces(&w, layer, nr, e);
	if (!err)
		err = make_table(&w, layer, nr, e);
	if (!err)
		err = write_file(&w, path, layer, nr, ref, e);
	for (uint32_t i = 0; w.remap && i < nr; i++)
		free(w.remap[i]);
	free(w.remap);
	free(w.packs);
	return err;
}

static int class_of(uint64_t n)
{
	return n ? (63 - __builtin_clzll(n)) / 3 : 0;
}

uint32_t sm_segment_plan(const struct sm_segment_ref *old, uint32_t nr, uint64_t entries)
{
	uint64_t sum = entries;
	uint32_t left = nr;

	for (;;) {
		int c = class_of(sum);
		uint32_t same = 0;

		for (; left && class_of(old[left - 1].entries) < c; left--)
			sum += old[left - 1].entries;
		if (class_of(sum) != c)
			continue;
		while (same < left && class_of(old[left - 1 - same].entries) == c)
			same++;
		if (same < CLASS_FILL)
			return nr - left;
		for (; same; same--, left--)
			sum += old[left - 1].entries;
	}
}
