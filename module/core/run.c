// SPDX-License-Identifier: GPL-2.0
/*
 * Runs: immutable sorted tables of records.
 *
 * A run is a list of segments with disjoint, growing ranges of chunks; each segment is a static tree: leaves of packed records (leaf.c), above them
 * levels of fence blocks (first key, address), the root last. A segment is written once, in ascending order of the blocks it was given; the root is the last of
 * them. Flushing the in-memory table makes a run of one segment, each slice of a merge appends one to its output.
 *
 * run->lo: records of smaller chunks have been merged into another run and are not to be looked for here.
 */
#include "internal.h"

struct sd_run *sd_run_alloc(u32 nr_segs)
{
	struct sd_run *r = sd_zalloc_sure(sizeof(*r) + nr_segs * sizeof(struct sd_segment));

	if (r) {
		refcount_set(&r->ref, 1);
		r->nr_segs = nr_segs;
	}
	return r;
}

void sd_run_put(struct sd_run *r)
{
	if (r && refcount_dec_and_test(&r->ref))
		sd_free(r);
}

u64 sd_run_blocks(u64 records)
{
	u64 n = DIV_ROUND_UP(records, SD_LEAF_FEWEST), sum = n;

	while (n > 1) {
		n = DIV_ROUND_UP(n, SD_FENCES);
		sum += n;
	}
	return sum;
}

/* ---- fetching ---------------------------------------------------------------------------------------- */

static bool fence_after(const struct sd_disk_fence *f, u64 chunk, u32 gen)
{
	u64 c = le64_to_cpu(f->chunk);

	return c > chunk || (c == chunk && le32_to_cpu(f->gen) > gen);
}

/* The child that can hold the key; *next: the key where the following child begins, if there is one. */
static const struct sd_disk_fence *fence_find(const struct sd_disk_fences *b, u64 chunk, u32 gen, u64 *next_chunk, u32 *next_gen, bool *has_next)
{
	u32 lo = 0, hi = le16_to_cpu(b->hdr.nr);

	while (hi - lo > 1) {
		u32 mid = (lo + hi) / 2;

		if (fence_after(&b->f[mid], chunk, gen))
			hi = mid;
		else
			lo = mid;
	}
	if (lo + 1 < le16_to_cpu(b->hdr.nr)) {
		*has_next = true;
		*next_chunk = le64_to_cpu(b->f[lo + 1].chunk);
		*next_gen = le32_to_cpu(b->f[lo + 1].gen);
	}
	return &b->f[lo];
}

struct node {
	u64 addr;
	u32 level;		/* 0: a leaf */
	u64 chunk;		/* key of its first entry */
	u32 gen;
	bool any_gen;		/* the root: only its chunk is known */
};

static struct node root_of(const struct sd_segment *seg)
{
	return (struct node){ .addr = seg->root, .level = seg->levels, .chunk = seg->first_chunk, .any_gen = true };
}

static struct node child_of(const struct node *n, const struct sd_disk_fence *f)
{
	return (struct node){ .addr = le64_to_cpu(f->addr), .level = n->level - 1, .chunk = le64_to_cpu(f->chunk), .gen = le32_to_cpu(f->gen) };
}

static void first_key(const void *block, u32 level, u64 *chunk, u32 *gen)
{
	const struct sd_disk_fences *b = block;

	if (!level) {
		sd_leaf_first(block, chunk, gen);
		return;
	}
	*chunk = le64_to_cpu(b->f[0].chunk);
	*gen = le32_to_cpu(b->f[0].gen);
}

/*
 * A block with a right header can still be another one than was referred to: what an earlier transaction wrote to its place, if the write of this
 * one was lost. It has to be of the segment's transaction, on its level, and begin where its fence says.
 */
static int check_node(struct sd_store *s, const struct sd_segment *seg, const struct node *n, const void *block)
{
	const struct sd_disk_header *h = block;
	const char *what = NULL;
	u64 wanted = 0, found = 0, chunk;
	u32 gen;

	first_key(block, n->level, &chunk, &gen);	/* of an empty block: anything */
	if (le64_to_cpu(h->txid) != seg->txid)
		what = "transaction of a block of a run", wanted = seg->txid, found = le64_to_cpu(h->txid);
	else if (le16_to_cpu(h->level) != n->level)
		what = "level of a block of a run", wanted = n->level, found = le16_to_cpu(h->level);
	else if (!le16_to_cpu(h->nr))
		what = "empty block of a run";
	else if (chunk != n->chunk || (!n->any_gen && gen != n->gen))
		what = "first key of a block of a run", wanted = n->chunk, found = chunk;
	if (!what)
		return 0;
	sd_complain_block(s, n->addr, what, wanted, found);
	return -EUCLEAN;
}

static int node_get(struct sd_store *s, const struct sd_segment *seg, const struct node *n, struct sd_buf *buf)
{
	int err = sd_block_get(s, n->addr, n->level ? SD_MAGIC_FENCE : SD_MAGIC_LEAF, n->level ? SD_FENCES : SD_LEAF_MOST, buf);

	if (err)
		return err;
	err = check_node(s, seg, n, buf->data);
	if (err)
		sd_block_put(s, buf);
	return err;
}

/*
 * Who takes whole leaves goes on to the next ones. Every 8 leaves the 16 behind are asked for: reading one at a time would take as long as the device needs for each.
 */
#define AHEAD	16u

static void read_ahead(struct sd_store *s, const struct sd_disk_fences *b, const struct sd_disk_fence *at)
{
	u32 i = at - b->f, end = min(i + 1 + AHEAD, (u32)le16_to_cpu(b->hdr.nr)), n;

	if (!s->dev->ops->read_ahead || i % (AHEAD / 2))
		return;
	for (i++; i < end; i += n) {
		u64 addr = le64_to_cpu(b->f[i].addr);

		for (n = 1; i + n < end && le64_to_cpu(b->f[i + n].addr) == addr + n; n++)
			;
		s->dev->ops->read_ahead(s->dev->ctx, addr, n);
	}
}

/*
 * One descent. If the leaf that should hold the key ends before it, the first record is in the next leaf, whose first key a fence on the way
 * gave: *again is set and the key replaced by it.
 */
static int segment_fetch(struct sd_store *s, const struct sd_segment *seg, u64 *chunk, u32 *gen, struct sd_rec *recs, u32 max,
			 u32 *nr, bool *again)
{
	struct node node = root_of(seg);
	u64 next_chunk = 0;
	bool has_next = false;
	struct sd_leaf leaf;
	struct sd_buf buf;
	u32 i, next_gen = 0;
	int err;

	*nr = 0;
	*again = false;
	while (node.level) {
		const struct sd_disk_fence *f;

		err = node_get(s, seg, &node, &buf);
		if (err)
			return err;
		f = fence_find(buf.data, *chunk, *gen, &next_chunk, &next_gen, &has_next);
		if (node.level == 1 && max >= SD_FETCH)
			read_ahead(s, buf.data, f);
		node = child_of(&node, f);
		sd_block_put(s, &buf);
	}
	err = node_get(s, seg, &node, &buf);
	if (err)
		return err;
	sd_leaf_open(&leaf, buf.data);
	for (i = sd_leaf_find(&leaf, *chunk, *gen); i < leaf.nr && *nr < max; i++)
		sd_leaf_get(&leaf, i, &recs[(*nr)++]);
	sd_block_put(s, &buf);
	if (!*nr && has_next) {
		*chunk = next_chunk;
		*gen = next_gen;
		*again = true;
	}
	return 0;
}

/* Last segment that begins at or before chunk; 0 if none does. */
static u32 segment_find(const struct sd_run *r, u64 chunk)
{
	u32 lo = 0, hi = r->nr_segs;

	while (hi - lo > 1) {
		u32 mid = (lo + hi) / 2;

		if (r->seg[mid].first_chunk <= chunk)
			lo = mid;
		else
			hi = mid;
	}
	return lo;
}

int sd_run_fetch(struct sd_store *s, const struct sd_run *r, u64 chunk, u32 gen, struct sd_rec *recs, u32 max, u32 *nr)
{
	bool again;
	u32 i;
	int err;

	*nr = 0;
	if (!r->nr_segs)
		return 0;
	if (chunk < r->lo) {
		chunk = r->lo;
		gen = 0;
	}
	for (i = segment_find(r, chunk); i < r->nr_segs; i++) {
		do {
			err = segment_fetch(s, &r->seg[i], &chunk, &gen, recs, max, nr, &again);
			if (err || *nr)
				return err;
		} while (again);
	}
	return 0;
}

/* *left: blocks that the segment may still have. However its fences are, this ends. */
static int collect_children(struct sd_store *s, const struct sd_segment *seg, const struct node *node, u64 *left, struct sd_blocks *list)
{
	const struct sd_disk_fences *b;
	struct sd_buf buf;
	struct node *child;
	u32 i, n = 0;
	int err = node_get(s, seg, node, &buf);

	if (err)
		return err;
	b = buf.data;
	child = sd_malloc(SD_FENCES * sizeof(*child));
	if (child)
		for (n = 0; n < le16_to_cpu(b->hdr.nr); n++)
			child[n] = child_of(node, &b->f[n]);
	sd_block_put(s, &buf);	/* one buffer at a time, however high the tree */
	err = child ? 0 : -ENOMEM;
	if (!err && *left < n) {
		sd_complain_block(s, node->addr, "number of blocks of a segment", seg->blocks, seg->blocks + n - *left);
		err = -EUCLEAN;
	}
	*left -= min(*left, (u64)n);
	for (i = 0; !err && i < n; i++) {
		if (child[i].level)
			err = collect_children(s, seg, &child[i], left, list);
		if (!err)
			err = sd_blocks_add(list, child[i].addr, 1);
	}
	sd_free(child);
	return err;
}

int sd_segment_blocks(struct sd_store *s, const struct sd_segment *seg, struct sd_blocks *list)
{
	struct node root = root_of(seg);
	u64 left = seg->blocks - 1;
	int err = 0;

	if (seg->levels)	/* the recursion is bounded by the loader's check of levels */
		err = collect_children(s, seg, &root, &left, list);
	return err ? err : sd_blocks_add(list, seg->root, 1);
}

/* ---- building ------------------------------------------------------------------------------------------ */

#define BUF_BLOCKS	64u

int sd_builder_init(struct sd_builder *b, struct sd_store *s, u64 txid, const struct sd_blocks *space, u64 max_records)
{
	memset(b, 0, sizeof(*b));
	b->s = s;
	b->txid = b->seg.txid = txid;
	b->space = space;
	b->cap_fence = DIV_ROUND_UP(max_records, SD_LEAF_FEWEST) + 1;
	b->fence = sd_malloc_sure(b->cap_fence * sizeof(*b->fence));
	b->leaf.most = s->leaf_most ? s->leaf_most : SD_LEAF_MOST;
	b->leaf.rec = sd_malloc_sure(SD_LEAF_MOST * sizeof(*b->leaf.rec));
	b->block = sd_malloc_sure(SD_BLOCK_SIZE);
	b->buf = sd_malloc_sure(BUF_BLOCKS * SD_BLOCK_SIZE);
	sd_packer_reset(&b->leaf);
	if (b->fence && b->leaf.rec && b->block && b->buf)
		return 0;
	sd_builder_exit(b);
	return -ENOMEM;
}

void sd_builder_exit(struct sd_builder *b)
{
	sd_free(b->fence);
	sd_free(b->leaf.rec);
	sd_free(b->block);
	sd_free(b->buf);
	b->fence = NULL;
	b->leaf.rec = NULL;
	b->block = NULL;
	b->buf = NULL;
}

static int flush_buf(struct sd_builder *b)
{
	struct sd_store *s = b->s;
	int err;

	if (!b->buf_nr)
		return 0;
	err = s->dev->ops->write(s->dev->ctx, b->buf_addr, b->buf_nr, b->buf);
	if (!err && !sd_planted(SD_PLANT_NO_FORGET))
		s->dev->ops->forget(s->dev->ctx, b->buf_addr, b->buf_nr);
	s->meta_written += b->buf_nr;
	b->buf_nr = 0;
	return err;
}

static int next_addr(struct sd_builder *b, u64 *addr)
{
	while (b->space_i < b->space->nr && b->space_off == b->space->r[b->space_i].nr) {
		b->space_i++;
		b->space_off = 0;
	}
	if (WARN_ON_ONCE(b->space_i == b->space->nr))
		return -ENOSPC;
	*addr = b->space->r[b->space_i].addr + b->space_off++;
	b->used++;
	return 0;
}

/* Give @block its address, seal it, put it into the write buffer. */
static int emit(struct sd_builder *b, void *block, u32 magic, u64 *addr)
{
	int err = next_addr(b, addr);

	if (!err && b->buf_nr && (b->buf_nr == BUF_BLOCKS || b->buf_addr + b->buf_nr != *addr))
		err = flush_buf(b);
	if (err)
		return err;
	if (!b->buf_nr)
		b->buf_addr = *addr;
	sd_block_seal(b->s, block, magic, *addr, b->txid);
	memcpy((u8 *)b->buf + (size_t)b->buf_nr++ * SD_BLOCK_SIZE, block, SD_BLOCK_SIZE);
	b->seg.root = *addr;
	return 0;
}

static int emit_leaf(struct sd_builder *b)
{
	struct sd_disk_fence *f = &b->fence[b->nr_fence];
	u64 addr;
	int err;

	if (WARN_ON_ONCE(b->nr_fence == b->cap_fence))
		return -ENOSPC;
	f->chunk = cpu_to_le64(b->leaf.rec[0].chunk);
	f->gen = cpu_to_le32(b->leaf.rec[0].gen);
	f->reserved = 0;
	sd_packer_write(&b->leaf, b->block);
	err = emit(b, b->block, SD_MAGIC_LEAF, &addr);
	if (err)
		return err;
	f->addr = cpu_to_le64(addr);
	b->nr_fence++;
	sd_packer_reset(&b->leaf);
	return 0;
}

int sd_builder_add(struct sd_builder *b, const struct sd_rec *rec)
{
	int err;

	if (rec->kind == SD_KIND_DATA && rec->addr >> SD_REF_ADDR_BITS) {
		sd_complain_block(b->s, rec->addr, "address of a record", b->s->nr_blocks, rec->addr);
		return -EUCLEAN;
	}
	if (!sd_packer_add(&b->leaf, rec)) {
		err = emit_leaf(b);
		if (err)
			return err;
		sd_packer_add(&b->leaf, rec);
	}
	if (!b->records++)
		b->seg.first_chunk = rec->chunk;
	return 0;
}

/* Fence blocks of one level; their own fences replace the ones they hold, from the front. */
static int emit_fences(struct sd_builder *b, u32 level)
{
	struct sd_disk_fences *out = b->block;
	u32 i, n, k = 0;
	u64 addr;
	int err;

	for (i = 0; i < b->nr_fence; i += n, k++) {
		struct sd_disk_fence first = b->fence[i];

		n = min_t(u32, SD_FENCES, b->nr_fence - i);
		memset(out, 0, SD_BLOCK_SIZE);
		memcpy(out->f, &b->fence[i], n * sizeof(*b->fence));
		out->hdr.nr = cpu_to_le16(n);
		out->hdr.level = cpu_to_le16(level);
		err = emit(b, out, SD_MAGIC_FENCE, &addr);
		if (err)
			return err;
		first.addr = cpu_to_le64(addr);
		b->fence[k] = first;
	}
	b->nr_fence = k;
	return 0;
}

int sd_builder_finish(struct sd_builder *b)
{
	u32 level = 0;
	int err = 0;

	if (!b->records)
		return 0;
	if (b->leaf.nr)
		err = emit_leaf(b);
	while (!err && b->nr_fence > 1)
		err = emit_fences(b, ++level);
	if (!err)
		err = flush_buf(b);
	b->seg.levels = level;
	b->seg.records = b->records;
	b->seg.blocks = b->used;
	return err;
}

/* ---- in the catalog --------------------------------------------------------------------------------------- */

int sd_run_store(struct sd_store *s, const struct sd_run *r)
{
	struct sd_disk_run d = {
		.age = cpu_to_le64(r->age), .lo = cpu_to_le64(r->lo), .records = cpu_to_le64(r->records),
		.gen_min = cpu_to_le32(r->gen_min), .gen_max = cpu_to_le32(r->gen_max), .level = cpu_to_le32(r->level),
		.flags = cpu_to_le32(r->flags), .merge_into = cpu_to_le32(r->merge_into), .nr_segs = cpu_to_le32(r->nr_segs),
		.garbage = cpu_to_le64(r->garbage),
	};

	return sd_cat_put(s, SD_CAT_KEY(SD_CAT_RUN, r->id), &d);
}

int sd_run_store_seg(struct sd_store *s, u32 run, const struct sd_segment *seg)
{
	struct sd_disk_seg d = {
		.first_chunk = cpu_to_le64(seg->first_chunk), .root = cpu_to_le64(seg->root), .records = cpu_to_le64(seg->records),
		.levels = cpu_to_le32(seg->levels), .blocks = cpu_to_le32(seg->blocks),
		.txid = cpu_to_le64(seg->txid),
	};

	return sd_cat_put(s, SD_CAT_KEY(SD_CAT_SEG, SD_CAT_SEG_ID(run, seg->number)), &d);
}

/* Bounds: what a walk over the segment takes in time and memory. */
static bool segment_ok(const struct sd_store *s, const struct sd_segment *seg, const struct sd_segment *before)
{
	return seg->levels <= 5 && !seg->levels == (seg->blocks == 1) && seg->blocks && seg->blocks <= s->nr_blocks &&
	       seg->records && seg->records <= (u64)seg->blocks * SD_LEAF_MOST &&
	       (!before || seg->first_chunk > before->first_chunk);
}

static int load_segs(struct sd_store *s, struct sd_run *r)
{
	u64 key, from = SD_CAT_KEY(SD_CAT_SEG, SD_CAT_SEG_ID(r->id, 0)), end = from + (1ull << 24), records = 0;
	const struct sd_disk_seg *d;
	u32 i = 0;

	for (; (d = sd_cat_next(s, from, &key)) && key < end && i < r->nr_segs; from = key + 1, i++) {
		r->seg[i].number = (u32)(key & 0xffffff);
		r->seg[i].first_chunk = le64_to_cpu(d->first_chunk);
		r->seg[i].root = le64_to_cpu(d->root);
		r->seg[i].records = le64_to_cpu(d->records);
		r->seg[i].txid = le64_to_cpu(d->txid);
		r->seg[i].levels = le32_to_cpu(d->levels);
		r->seg[i].blocks = le32_to_cpu(d->blocks);
		if (!segment_ok(s, &r->seg[i], i ? &r->seg[i - 1] : NULL)) {
			sd_complain_block(s, r->seg[i].root, "segment of a run", i, r->seg[i].levels);
			return -EUCLEAN;
		}
		records += r->seg[i].records;
	}
	if (i == r->nr_segs && records == r->records)
		return 0;
	sd_complain_block(s, i ? r->seg[0].root : 0, "segments of a run in the catalog", r->nr_segs, i);
	return -EUCLEAN;
}

static bool run_ok(const struct sd_store *s, const struct sd_run *r)
{
	return !(r->age >> 62) && (!r->nr_segs || (r->gen_min && r->gen_min <= r->gen_max && r->gen_max <= s->sum.highest));
}

/* *left: segments in the catalog that no run has claimed yet. */
static struct sd_run *load_run(struct sd_store *s, u32 id, const struct sd_disk_run *d, u32 *left, int *err)
{
	u32 nr_segs = le32_to_cpu(d->nr_segs);
	struct sd_run *r;

	if (nr_segs > *left) {
		sd_complain_block(s, 0, "segments of a run in the catalog", nr_segs, *left);
		*err = -EUCLEAN;
		return NULL;
	}
	*left -= nr_segs;
	r = sd_run_alloc(nr_segs);
	if (!r) {
		*err = -ENOMEM;
		return NULL;
	}
	r->id = id;
	r->age = le64_to_cpu(d->age);
	r->lo = le64_to_cpu(d->lo);
	r->records = le64_to_cpu(d->records);
	r->gen_min = le32_to_cpu(d->gen_min);
	r->gen_max = le32_to_cpu(d->gen_max);
	r->level = le32_to_cpu(d->level);
	r->flags = le32_to_cpu(d->flags);
	if (sd_planted(SD_PLANT_NO_PURGE))
		r->flags &= ~SD_RUN_F_PURGE;
	r->merge_into = le32_to_cpu(d->merge_into);
	r->garbage = min_t(u64, le64_to_cpu(d->garbage), r->records);
	*err = load_segs(s, r);
	if (!*err && !run_ok(s, r)) {
		sd_complain_block(s, nr_segs ? r->seg[0].root : 0, "run in the catalog (id)", 0, id);
		*err = -EUCLEAN;
	}
	if (*err) {
		sd_run_put(r);
		return NULL;
	}
	return r;
}

#define MAX_UNFINISHED	1024u	/* bounds the time of the check */

/*
 * An unfinished merge has one output and inputs that name it. Mostly there is one; but one that has met a damaged block is left alone for the rest of the
 * attachment, and others are begun.
 */
static int check_partial(struct sd_store *s, const struct sd_version *v)
{
	u32 i, k, outs = 0, inputs = 0, found = 0;

	for (i = 0; i < v->nr_runs; i++)
		inputs += !!v->runs[i]->merge_into;
	for (i = 0; i < v->nr_runs && outs <= MAX_UNFINISHED; i++) {
		const struct sd_run *out = v->runs[i];
		u32 n = 0;

		if (!(out->flags & SD_RUN_F_PARTIAL))
			continue;
		outs++;
		for (k = 0; k < v->nr_runs; k++)
			n += v->runs[k]->merge_into == out->id && !(v->runs[k]->flags & SD_RUN_F_PARTIAL);
		if (!n || n > SD_MERGE_MAX) {
			sd_complain_block(s, 0, "runs of an unfinished merge in the catalog (output)", n, out->id);
			return -EUCLEAN;
		}
		found += n;
	}
	if (outs <= MAX_UNFINISHED && found == inputs)
		return 0;
	sd_complain_block(s, 0, "runs that are merged into none", found, inputs);
	return -EUCLEAN;
}

/* Runs of the catalog into @v (whose array is large enough), by age; a partial output stands behind its inputs' newest. */
int sd_run_load_all(struct sd_store *s, struct sd_version *v)
{
	u64 key, from = SD_CAT_KEY(SD_CAT_RUN, 0);
	u32 left = sd_cat_count(s, SD_CAT_SEG);
	const struct sd_disk_run *d;
	int err = 0;

	for (v->nr_runs = 0; (d = sd_cat_next(s, from, &key)) && SD_CAT_TYPE(key) == SD_CAT_RUN; from = key + 1) {
		struct sd_run *r = load_run(s, SD_CAT_ID(key), d, &left, &err);
		u32 i;

		if (!r)
			return err;
		for (i = v->nr_runs; i && v->runs[i - 1]->age > r->age; i--)
			v->runs[i] = v->runs[i - 1];
		v->runs[i] = r;
		v->nr_runs++;
		s->next_age = max(s->next_age, r->age + 1);
		s->records_run += r->records;
	}
	if (left) {
		sd_complain_block(s, 0, "segments of no run in the catalog", 0, left);
		return -EUCLEAN;
	}
	return check_partial(s, v);
}
