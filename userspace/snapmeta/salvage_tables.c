// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Catalog and runs of a damaged store.
 *
 * The index blocks and the fences say what lies below each address, up to where the next one begins. So a block that cannot be read is a range of keys of
 * the catalog, or a range of records of one run, and nothing else. A block is read when its header, checksum and place are right, when it is not newer than the superblock (then
 * a transaction that never ended has used it again), when nothing else refers to it, and when its keys are sorted and within the range that the block above names.
 */
#include "salvage.h"

/* ---- catalog -------------------------------------------------------------------------------------------- */

struct piece {
	u64 first;		/* key */
	u64 ref;		/* 0: an index block that could not be read */
};

static int lose_keys(struct salvage *sal, u64 from, u64 to)
{
	u64 cap = sal->cap_lost_keys;
	int err = sal_grow(&sal->lost_keys, sal->nr_lost_keys, &cap, sizeof(*sal->lost_keys));

	if (err)
		return err;
	sal->cap_lost_keys = cap;
	sal->lost_keys[sal->nr_lost_keys].from = from;
	sal->lost_keys[sal->nr_lost_keys++].to = to;
	return 0;
}

static bool keys_lost(const struct salvage *sal, u64 from, u64 to)
{
	u32 i;

	for (i = 0; i < sal->nr_lost_keys; i++)
		if (sal->lost_keys[i].from <= to && sal->lost_keys[i].to >= from)
			return true;
	return false;
}

static int add_piece(struct piece **p, u64 *nr, u64 *cap, u64 first, u64 ref)
{
	int err = sal_grow(p, *nr, cap, sizeof(**p));

	if (err)
		return err;
	(*p)[*nr].first = first;
	(*p)[(*nr)++].ref = ref;
	return 0;
}

/* Leaves by their first keys. An index block that is gone leaves a piece without address. */
static int read_index(struct salvage *sal, struct piece **p, u64 *nr)
{
	struct sd_disk_index *b = sd_malloc(SD_BLOCK_SIZE);
	u64 cap = 0, last = 0;
	u32 i, k;
	int err = b ? 0 : -ENOMEM;

	for (i = 0; !err && i < le32_to_cpu(sal->super.nr_index); i++) {
		u64 ref = le64_to_cpu(sal->super.index[i]);

		err = sal_block(sal, SD_REF_ADDR(ref), SD_MAGIC_INDEX, SD_INDEX_ENTRIES, SD_REF_TXID(ref), 0xffff, b);
		if (err == -EUCLEAN) {
			err = add_piece(p, nr, &cap, last, 0);
			continue;
		}
		for (k = 0; !err && k < le16_to_cpu(b->hdr.nr); k++) {
			u64 key = le64_to_cpu(b->e[k].key);

			if (*nr && key <= last && !(key == last && !(*p)[*nr - 1].ref)) {
				sal_say(sal, "block %llu: keys of the catalog's index are not sorted",
					(unsigned long long)SD_REF_ADDR(ref));
				err = add_piece(p, nr, &cap, last, 0);
				break;
			}
			last = key;
			err = add_piece(p, nr, &cap, key, le64_to_cpu(b->e[k].ref));
		}
	}
	sd_free(b);
	return err;
}

static bool leaf_sorted(const struct sd_disk_catalog *b, u64 from, u64 to)
{
	u32 i;
	u64 key, last = 0;

	for (i = 0; i < le16_to_cpu(b->hdr.nr); i++, last = key) {
		key = le64_to_cpu(b->e[i].key);
		if (key < from || key > to || (i && key <= last))
			return false;
	}
	return true;
}

static int read_leaf(struct salvage *sal, u64 ref, u64 from, u64 to)
{
	struct sd_disk_catalog *b = sd_malloc(SD_BLOCK_SIZE);
	u32 i;
	int err = b ? sal_block(sal, SD_REF_ADDR(ref), SD_MAGIC_CATALOG, SD_CAT_ENTRIES, SD_REF_TXID(ref), 0xffff, b) : -ENOMEM;

	if (!err && !leaf_sorted(b, from, to)) {
		sal_say(sal, "block %llu: keys of the catalog are not sorted", (unsigned long long)SD_REF_ADDR(ref));
		err = -EUCLEAN;
	}
	for (i = 0; !err && i < le16_to_cpu(b->hdr.nr); i++) {
		err = sal_grow(&sal->entry, sal->nr_entry, &sal->cap_entry, sizeof(*sal->entry));
		if (err)
			break;
		sal->entry[sal->nr_entry].key = le64_to_cpu(b->e[i].key);
		memcpy(sal->entry[sal->nr_entry++].value, b->e[i].value, SD_CAT_VALUE);
	}
	sd_free(b);
	return err;
}

static int read_pieces(struct salvage *sal)
{
	struct piece *p = NULL;
	u64 nr = 0, i;
	int err = read_index(sal, &p, &nr);

	for (i = 0; !err && i < nr; i++) {
		u64 from = i ? p[i].first : 0, to = i + 1 < nr ? p[i + 1].first - 1 : U64_MAX;

		if (!p[i].ref && i + 1 < nr && p[i + 1].first == p[i].first)
			to = p[i].first;	/* two index blocks in a row */
		err = p[i].ref ? read_leaf(sal, p[i].ref, from, to) : -EUCLEAN;
		if (err == -EUCLEAN)
			err = lose_keys(sal, from, to);
	}
	free(p);
	return err;
}

static int load_gen(struct salvage *sal, u64 number, const struct sd_disk_gen *d)
{
	struct sd_store *s = sal->s;
	u32 state = le32_to_cpu(d->state);
	int err;

	if (!number || number > s->sum.highest || state < SD_GEN_LIVE || state > SD_GEN_LOST) {
		sal_say(sal, "generation %llu has a descriptor that makes no sense", (unsigned long long)number);
		return lose_keys(sal, SD_CAT_KEY(SD_CAT_GEN, number), SD_CAT_KEY(SD_CAT_GEN, number));
	}
	err = sd_cat_put(s, SD_CAT_KEY(SD_CAT_GEN, number), d);
	s->nr_gens += !err;
	return err;
}

static void load_groups(struct salvage *sal, u64 page, const struct sd_disk_group_desc *d)
{
	u32 i;

	for (i = 0; i < SD_GROUPS_PER_ENTRY; i++)
		if (page < sal->s->alloc.nr_groups && page * SD_GROUPS_PER_ENTRY + i < sal->s->alloc.nr_groups)
			sal->group[page * SD_GROUPS_PER_ENTRY + i] = d[i];
}

/* Descriptors are gone: what was written since those cuts counts for the generation before, and nobody knows whether that was all. */
static void gens_gone(struct salvage *sal, u64 from, u64 to)
{
	u64 lo = max(from, SD_CAT_KEY(SD_CAT_GEN, 1)), hi = min(to, SD_CAT_KEY(SD_CAT_GEN, sal->s->sum.highest));
	struct sd_disk_gen *d;
	u64 key;

	if (lo > hi)
		return;
	sal_say(sal, "descriptors of generations from %llu to %llu are gone", (unsigned long long)SD_CAT_ID(lo),
		(unsigned long long)SD_CAT_ID(hi));
	d = sd_cat_prev(sal->s, lo - 1, &key);
	d = d ? sd_cat_edit(sal->s, key) : NULL;
	if (d)
		d->flags |= cpu_to_le32(SD_GEN_F_CHANGES_UNKNOWN);
}

int sal_catalog(struct salvage *sal)
{
	u64 i;
	u32 k;
	int err = read_pieces(sal);

	for (i = 0; !err && i < sal->nr_entry; i++) {
		u64 key = sal->entry[i].key;

		if (SD_CAT_TYPE(key) == SD_CAT_GEN)
			err = load_gen(sal, SD_CAT_ID(key), (void *)sal->entry[i].value);
		else if (SD_CAT_TYPE(key) == SD_CAT_GROUPS)
			load_groups(sal, SD_CAT_ID(key), (void *)sal->entry[i].value);
	}
	for (k = 0; !err && k < sal->nr_lost_keys; k++)
		gens_gone(sal, sal->lost_keys[k].from, sal->lost_keys[k].to);
	return err;
}

/* ---- runs ------------------------------------------------------------------------------------------------ */

struct key {
	u64 chunk;
	u32 gen;
};

static int cmp_key(struct key a, struct key b)
{
	if (a.chunk != b.chunk)
		return a.chunk < b.chunk ? -1 : 1;
	return a.gen < b.gen ? -1 : a.gen > b.gen;
}

/* Records with keys of [from, to) of the run may be missing. */
static int lose_records(struct salvage *sal, const struct sal_run *r, struct key from, struct key to)
{
	u64 last;
	int err = 0;

	if (from.chunk < r->lo)
		from = (struct key){ r->lo, 0 };
	if (cmp_key(from, to) >= 0)
		return 0;
	last = to.gen > r->gen_min ? to.chunk : to.chunk - 1;
	if (!to.chunk && to.gen <= r->gen_min)
		return 0;
	/* The first and the last chunk have records elsewhere in the run: only a part of their generations is in doubt. */
	if (from.chunk == to.chunk)
		return sal_hole(sal, from.chunk, from.chunk, max(from.gen, r->gen_min), min(to.gen - 1, r->gen_max));
	if (from.gen > r->gen_min) {
		err = from.gen > r->gen_max ? 0 : sal_hole(sal, from.chunk, from.chunk, from.gen, r->gen_max);
		from.chunk++;
	}
	if (!err && last == to.chunk && to.chunk != U64_MAX) {
		err = sal_hole(sal, to.chunk, to.chunk, r->gen_min, min(to.gen - 1, r->gen_max));
		last--;
	}
	return !err && from.chunk <= last ? sal_hole(sal, from.chunk, last, r->gen_min, r->gen_max) : err;
}

static bool leaf_good(const struct sal_run *r, const void *block, struct key from, struct key to)
{
	struct key last = from;
	struct sd_leaf leaf;
	u32 i;

	sd_leaf_open(&leaf, block);
	for (i = 0; i < leaf.nr; i++) {
		struct sd_rec rec;
		struct key k;

		sd_leaf_get(&leaf, i, &rec);
		k = (struct key){ rec.chunk, rec.gen };
		if (i ? cmp_key(last, k) >= 0 : k.chunk != from.chunk || (from.gen && k.gen != from.gen))
			return false;
		if (cmp_key(k, to) >= 0 || k.gen < r->gen_min || k.gen > r->gen_max)
			return false;
		last = k;
	}
	return leaf.nr;
}

static bool fences_good(const struct sd_disk_fences *b, u32 level, struct key from, struct key to)
{
	struct key last = from;
	u32 i, nr = le16_to_cpu(b->hdr.nr);

	for (i = 0; i < nr; i++) {
		struct key k = { le64_to_cpu(b->f[i].chunk), le32_to_cpu(b->f[i].gen) };

		if (i ? cmp_key(last, k) >= 0 : k.chunk != from.chunk || (from.gen && k.gen != from.gen))
			return false;
		if (cmp_key(k, to) >= 0)
			return false;
		last = k;
	}
	return nr && le16_to_cpu(b->hdr.level) == level;
}

static int bad_node(struct salvage *sal, const struct sal_run *r, u64 addr, int err, struct key from, struct key to)
{
	if (!err) {
		sal_say(sal, "block %llu: records or fences out of order", (unsigned long long)addr);
		err = -EUCLEAN;
	}
	return err == -EUCLEAN ? lose_records(sal, r, from, to) : err;
}

/* The keys below @addr are [from, to); from.gen 0: only the chunk is known. Levels end the recursion. */
static int walk(struct salvage *sal, struct sal_run *r, u64 txid, u64 addr, u32 level, struct key from, struct key to, u64 *records)
{
	struct sd_disk_fences *b = sd_malloc(SD_BLOCK_SIZE);
	u32 i, nr;
	int err = b ? sal_block(sal, addr, level ? SD_MAGIC_FENCE : SD_MAGIC_LEAF, level ? SD_FENCES : SD_LEAF_MOST, txid, U64_MAX, b) : -ENOMEM;

	if (err || !(level ? fences_good(b, level, from, to) : leaf_good(r, b, from, to))) {
		sd_free(b);
		return err == -ENOMEM ? err : bad_node(sal, r, addr, err, from, to);
	}
	nr = le16_to_cpu(b->hdr.nr);
	if (!level) {
		err = sal_grow(&r->leaf, r->nr_leaf, &r->cap_leaf, sizeof(*r->leaf));
		if (!err)
			r->leaf[r->nr_leaf++] = addr;
		*records += nr;
	}
	for (i = 0; level && !err && i < nr; i++) {
		struct key k = { le64_to_cpu(b->f[i].chunk), le32_to_cpu(b->f[i].gen) }, end = to;

		if (i + 1 < nr)
			end = (struct key){ le64_to_cpu(b->f[i + 1].chunk), le32_to_cpu(b->f[i + 1].gen) };
		err = walk(sal, r, txid, le64_to_cpu(b->f[i].addr), level - 1, k, end, records);
	}
	sd_free(b);
	return err;
}

static int load_segment(struct salvage *sal, struct sal_run *r, const struct sd_disk_seg *d, u64 end)
{
	struct key from = { le64_to_cpu(d->first_chunk), 0 }, to = { end, 0 };
	u64 records = 0, holes = sal->nr_hole, findings = sal->findings;
	int err;

	if (from.chunk >= end || le32_to_cpu(d->levels) > 5)
		return bad_node(sal, r, le64_to_cpu(d->root), 0, (struct key){ r->lo, 0 }, (struct key){ U64_MAX, 0 });
	err = walk(sal, r, le64_to_cpu(d->txid), le64_to_cpu(d->root), le32_to_cpu(d->levels), from, to, &records);
	if (!err && sal->nr_hole == holes && sal->findings == findings && records != le64_to_cpu(d->records)) {
		sal_say(sal, "segment with root %llu has %llu records instead of %llu", (unsigned long long)le64_to_cpu(d->root),
			(unsigned long long)records, (unsigned long long)le64_to_cpu(d->records));
		err = lose_records(sal, r, from, to);
	}
	return err;
}

/* Entries of the catalog are sorted: the first with a key >= @key. */
static u64 entry_at(const struct salvage *sal, u64 key)
{
	u64 lo = 0, hi = sal->nr_entry;

	while (lo < hi) {
		u64 mid = (lo + hi) / 2;

		if (sal->entry[mid].key < key)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static int load_run_segments(struct salvage *sal, struct sal_run *r)
{
	u64 key = SD_CAT_KEY(SD_CAT_SEG, SD_CAT_SEG_ID(r->id, 0)), end = key + (1ull << 24), i = entry_at(sal, key), n = 0;
	int err = 0;

	for (; !err && i < sal->nr_entry && sal->entry[i].key < end; i++, n++) {
		const struct sd_disk_seg *d = (void *)sal->entry[i].value, *next = (void *)sal->entry[i + 1].value;
		bool more = i + 1 < sal->nr_entry && sal->entry[i + 1].key < end;

		err = load_segment(sal, r, d, more ? le64_to_cpu(next->first_chunk) : U64_MAX);
	}
	if (err || n == r->nr_segs)
		return err;
	sal_say(sal, "run %u: %u of %u segments are in the catalog", r->id, (u32)n, r->nr_segs);
	return sal_hole(sal, r->lo, U64_MAX, r->gen_min, r->gen_max);
}

static int load_run(struct salvage *sal, u64 id, const struct sd_disk_run *d)
{
	struct sal_run *r = &sal->run[sal->nr_run];
	u32 min_gen = le32_to_cpu(d->gen_min), max_gen = le32_to_cpu(d->gen_max);

	memset(r, 0, sizeof(*r));
	if (id >= U32_MAX || (le32_to_cpu(d->nr_segs) && (!min_gen || min_gen > max_gen || max_gen > sal->s->sum.highest))) {
		sal_say(sal, "run %llu has a descriptor that makes no sense", (unsigned long long)id);
		return sal_hole(sal, 0, U64_MAX, 1, sal->s->sum.highest);
	}
	sal->nr_run++;
	r->id = id;
	r->gen_min = min_gen;
	r->gen_max = max_gen;
	r->age = le64_to_cpu(d->age);
	r->lo = le64_to_cpu(d->lo);
	r->flags = le32_to_cpu(d->flags);
	r->nr_segs = le32_to_cpu(d->nr_segs);
	return load_run_segments(sal, r);
}

static int by_age(const void *a, const void *b)
{
	const struct sal_run *x = a, *y = b;

	if (x->age != y->age)
		return x->age < y->age ? -1 : 1;
	return x->id < y->id ? -1 : x->id > y->id;
}

int sal_runs(struct salvage *sal)
{
	u64 i = entry_at(sal, SD_CAT_KEY(SD_CAT_RUN, 0)), n = entry_at(sal, SD_CAT_KEY(SD_CAT_RUN + 1, 0)) - i;
	int err = 0;

	sal->run = calloc(n + 1, sizeof(*sal->run));
	if (!sal->run)
		return -ENOMEM;
	for (; !err && n; i++, n--)
		err = load_run(sal, SD_CAT_ID(sal->entry[i].key), (void *)sal->entry[i].value);
	qsort(sal->run, sal->nr_run, sizeof(*sal->run), by_age);
	if (!err && keys_lost(sal, SD_CAT_KEY(SD_CAT_RUN, 0), SD_CAT_KEY(SD_CAT_RUN + 1, 0) - 1)) {
		sal_say(sal, "descriptors of runs are gone");
		err = sal_hole(sal, 0, U64_MAX, 1, sal->s->sum.highest);
	}
	return err;
}
