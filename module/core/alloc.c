// SPDX-License-Identifier: GPL-2.0
/*
 * Block groups and their bitmaps.
 *
 * Each block is in one of four states, kept in two bits of memory:
 *
 *	busy disk
 *	  0    0	free
 *	  1    0	taken: given out, but no transaction refers to it yet (or: dropped, see below)
 *	  1    1	in use: the bitmap that the next transaction writes has it set
 *	  0    1	never
 *
 *	take: free → taken		commit: taken → in use		untake: taken → free
 *	drop: in use → dropped		release: dropped → free
 *
 * "Dropped" looks like "taken": the next transaction says that the block is free, but it may not be given out before that transaction is
 * durable (a block of the last durable transaction is never overwritten) and before the last reader of an older version has gone.
 * Who drops keeps the list (sd_version.retire); who takes, too. So a crash leaks nothing: neither commit groups that were in flight
 * nor half a merge are in any bitmap on disk.
 *
 * Room for recovery. A crash forgets what is taken, and gets back what the last durable transaction does not refer to. Opening has to close the log: it writes a run of the records
 * in it and a catalog, and must not run out of blocks in that. So this holds at any time:
 *
 *	avail + dropped by durable transactions  >=  run(records in the active table and in flight) + catalog [+ growth]	sd_alloc_floor()
 *
 * run() is for the worst of records; "catalog" is what prepare takes at most (sd_alloc_needs()). A step and the opening after it do not need it twice: until the step is durable, a crash gives
 * back what it has taken, and from then on the blocks that its catalog has replaced, as many but for "growth", what the step's own entries may add. Why it holds, and is enough:
 *
 *	a group is added	only as far as this allows, records without data and new generations, too. Records without data leave four merge slices beside it, so that
 *				reclaiming can begin, and go on until the first of its inputs is through (sd_alloc_floor_small()); data leaves far more
 *				(sd_alloc_reserve()); a generation leaves what its entry may need, so there is room for some hundred when nothing else fits
 *	a checkpoint begins	the run of the frozen table is taken: for what both tables have after a crash there is the taken space and what the right side says
 *	a merge begins		only if it still holds when the space for its output is taken: nothing but the output is lost when it is durable
 *	prepare			takes one "catalog", which is not asked for from then on. Before that there has always been as much among avail itself. What the
 *				frozen table's run did not need is given back, and asked for until the transaction is durable
 *	end			what was taken and is not in use is avail again; what was dropped counts now
 *
 * After a crash nothing is taken: the left side has all that was taken in addition, the run of the frozen table above all.
 *
 * A bitmap that cannot be read costs its group, not the store. Who wants to take passes it by: nothing is given out there any more, its free blocks count no
 * more as available. Who has to change something in it (blocks are dropped, or used by what is replayed) finds a bitmap with all blocks in use in its place, which the next
 * transaction writes: whatever is referred to stays, what is dropped from then on is free again, and only the blocks that were free are lost until the bitmaps are rebuilt (snapmeta
 * repair). It could not stay as it is: the next attachment may be able to read it, and what had been replayed into it would be free there.
 *
 * Pages are loaded when needed; one with busy == disk and not dirty can be thrown out again.
 * Only [M] calls come here: no locks.
 */
#include "internal.h"

struct sd_bpage {
	u64 disk[SD_BITMAP_WORDS];
	u64 busy[SD_BITMAP_WORDS];
	u32 pending;		/* bits with busy && !disk */
};

static u32 group_blocks(const struct sd_alloc *a, u32 group)
{
	return min_t(u64, SD_GROUP_BLOCKS, a->end - a->start - (u64)group * SD_GROUP_BLOCKS);
}

u32 sd_group_capacity(const struct sd_alloc *a, u32 group)
{
	return group_blocks(a, group) - 2;
}

static u64 group_addr(const struct sd_alloc *a, u32 group)
{
	return a->start + (u64)group * SD_GROUP_BLOCKS;
}

/* ---- words of bits ---------------------------------------------------------------------------- */

static bool get_bit(const u64 *w, u32 n)
{
	return w[n / 64] >> (n % 64) & 1;
}

/* First bit >= n that is @value; SD_GROUP_BLOCKS if none. */
static u32 find_bit(const u64 *w, u32 n, bool value)
{
	u64 flip = value ? 0 : ~0ull;
	u32 i = n / 64;
	u64 x;

	if (n >= SD_GROUP_BLOCKS)
		return SD_GROUP_BLOCKS;
	x = (w[i] ^ flip) & (~0ull << (n % 64));
	while (!x) {
		if (++i == SD_BITMAP_WORDS)
			return SD_GROUP_BLOCKS;
		x = w[i] ^ flip;
	}
	return i * 64 + __ffs64(x);
}

static void fill_bits(u64 *w, u32 n, u32 nr, bool value)
{
	while (nr) {
		u32 off = n % 64, len = min_t(u32, 64 - off, nr);
		u64 mask = (len == 64 ? ~0ull : (1ull << len) - 1) << off;

		if (value)
			w[n / 64] |= mask;
		else
			w[n / 64] &= ~mask;
		n += len;
		nr -= len;
	}
}

/* ---- pages ------------------------------------------------------------------------------------- */

static void page_fresh(struct sd_alloc *a, u32 group, struct sd_bpage *p)
{
	u32 blocks = group_blocks(a, group);

	memset(p, 0, sizeof(*p));
	fill_bits(p->disk, 0, 2, true);
	fill_bits(p->disk, blocks, SD_GROUP_BLOCKS - blocks, true);
}

static int page_read(struct sd_store *s, u32 group, struct sd_bpage *p)
{
	struct sd_ginfo *g = &s->alloc.g[group];
	u64 addr = group_addr(&s->alloc, group) + (g->flags & SD_GROUP_D_COPY_B && !sd_planted(SD_PLANT_COPY_CHOICE) ? 1 : 0);
	struct sd_disk_bitmap *b = sd_malloc(SD_BLOCK_SIZE);
	u32 i, used = 0;
	int err;

	if (!b)
		return -ENOMEM;
	err = sd_block_read(s, addr, SD_MAGIC_BITMAP, 0, b);
	if (!err && (u32)le64_to_cpu(b->hdr.txid) != g->txid) {
		sd_complain_block(s, addr, "transaction of a bitmap", g->txid, le64_to_cpu(b->hdr.txid));
		err = -EUCLEAN;
	}
	for (i = 0; !err && i < SD_BITMAP_WORDS; i++) {
		p->disk[i] = le64_to_cpu(b->bits[i]);
		used += hweight64(p->disk[i]);
	}
	if (!err && (!get_bit(p->disk, 0) || !get_bit(p->disk, 1) ||
		     find_bit(p->disk, group_blocks(&s->alloc, group), false) != SD_GROUP_BLOCKS)) {
		sd_complain_block(s, addr, "bitmap has blocks that cannot be free", 0, 0);
		err = -EUCLEAN;
	}
	if (!err && SD_GROUP_BLOCKS - used != g->free) {
		sd_complain_block(s, addr, "free blocks of a group", g->free, SD_GROUP_BLOCKS - used);
		err = -EUCLEAN;
	}
	sd_free(b);
	return err;
}

static void evict_some(struct sd_alloc *a)
{
	u32 n = a->nr_groups;

	while (a->nr_pages >= a->max_pages && n--) {
		struct sd_ginfo *g = &a->g[a->clock];

		a->clock = (a->clock + 1) % a->nr_groups;
		if (!g->page || g->page->pending || g->dirty || g->in_step)
			continue;
		sd_free(g->page);
		g->page = NULL;
		a->nr_pages--;
	}
}

static bool unreadable(int err)
{
	return err == -EUCLEAN || err == -EIO;
}

static void set_avail(struct sd_alloc *a, u32 group, u32 avail)
{
	struct sd_ginfo *g = &a->g[group];

	a->avail = a->avail - g->avail + avail;
	g->avail = avail;
}

/* Nothing is known of the group: nothing is taken from it. */
static void shun(struct sd_store *s, u32 group)
{
	sd_complain_block(s, group_addr(&s->alloc, group), "bitmap cannot be read: group is not used (free blocks)", s->alloc.g[group].free, 0);
	set_avail(&s->alloc, group, 0);
	s->alloc.g[group].shunned = true;
	s->alloc.damaged = true;
}

/* Nothing is known of the group, and something is to be changed in it: all of it is in use, and from the next transaction on this is what the device has. */
static void page_lost(struct sd_store *s, u32 group, struct sd_bpage *p)
{
	struct sd_alloc *a = &s->alloc;
	struct sd_ginfo *g = &a->g[group];

	sd_complain_block(s, group_addr(a, group), "bitmap cannot be read: its free blocks count as used", g->free, 0);
	memset(p->disk, 0xff, sizeof(p->disk));
	set_avail(a, group, 0);
	a->free -= g->free;
	g->free = 0;
	g->dirty = g->lost = true;
	a->damaged = true;
}

/* @must: a bitmap that cannot be read is replaced. */
static int load_page(struct sd_store *s, u32 group, bool must, struct sd_bpage **page)
{
	struct sd_alloc *a = &s->alloc;
	struct sd_ginfo *g = &a->g[group];
	struct sd_bpage *p;
	int err = 0;

	if (!g->page) {
		evict_some(a);
		p = sd_malloc_sure(sizeof(*p));
		if (!p)
			return -ENOMEM;
		p->pending = 0;
		if (g->flags & SD_GROUP_D_INIT)
			err = page_read(s, group, p);
		else
			page_fresh(a, group, p);
		if (must && unreadable(err)) {
			page_lost(s, group, p);
			err = 0;
		} else if (!err && g->shunned) {
			set_avail(a, group, g->free);
		}
		if (err) {
			sd_free(p);
			return err;
		}
		g->shunned = false;
		memcpy(p->busy, p->disk, sizeof(p->busy));
		g->page = p;
		a->nr_pages++;
	}
	*page = g->page;
	return 0;
}

int sd_alloc_get_page(struct sd_store *s, u32 group, struct sd_bpage **page)
{
	return load_page(s, group, false, page);
}

/* ---- set-up ------------------------------------------------------------------------------------ */

static void load_counts(struct sd_store *s, u32 group, const struct sd_disk_group_desc *d)
{
	struct sd_alloc *a = &s->alloc;
	struct sd_ginfo *g = &a->g[group];

	if (d && le16_to_cpu(d->flags) & SD_GROUP_D_INIT) {
		g->txid = le32_to_cpu(d->txid);
		g->free = min_t(u32, le16_to_cpu(d->free), sd_group_capacity(a, group));
		g->flags = le16_to_cpu(d->flags);
	} else {
		g->free = sd_group_capacity(a, group);
	}
	g->avail = g->free;
	a->free += g->free;
	a->avail += g->avail;
}

int sd_alloc_init(struct sd_store *s)
{
	struct sd_alloc *a = &s->alloc;
	u32 i;

	a->g = sd_zalloc((size_t)a->nr_groups * sizeof(*a->g));
	if (!a->g)
		return -ENOMEM;
	a->max_pages = 512;
	a->meta_group = a->nr_groups - 1;
	for (i = 0; i < a->nr_groups; i += SD_GROUPS_PER_ENTRY) {
		const struct sd_disk_group_desc *d = sd_cat_get(s, SD_CAT_KEY(SD_CAT_GROUPS, i / SD_GROUPS_PER_ENTRY));
		u32 k;

		for (k = 0; k < SD_GROUPS_PER_ENTRY && i + k < a->nr_groups; k++)
			load_counts(s, i + k, d ? &d[k] : NULL);
	}
	return 0;
}

void sd_alloc_limit(struct sd_store *s, u64 bytes)
{
	s->alloc.max_pages = max_t(u64, sd_div64(bytes, sizeof(struct sd_bpage)), 16);
}

u64 sd_alloc_bytes(const struct sd_store *s)
{
	return (u64)s->alloc.nr_groups * sizeof(*s->alloc.g) + (u64)s->alloc.nr_pages * sizeof(struct sd_bpage);
}

void sd_alloc_exit(struct sd_store *s)
{
	struct sd_alloc *a = &s->alloc;
	u32 i;

	for (i = 0; a->g && i < a->nr_groups; i++)
		sd_free(a->g[i].page);
	sd_free(a->g);
	a->g = NULL;
}

/* ---- growing ------------------------------------------------------------------------------------- */

int sd_alloc_grow(struct sd_store *s, u64 nr_blocks, struct sd_ginfo *g, struct sd_blocks *retire)
{
	struct sd_alloc *a = &s->alloc;
	u32 old = a->nr_groups, i;
	u64 from = a->end, to = min(nr_blocks, group_addr(a, old));
	struct sd_bpage *p;
	/* Its page shows what is behind the old end as in use. */
	int err = load_page(s, old - 1, true, &p);

	if (!err && from < to)
		err = sd_blocks_add(retire, from, to - from);
	if (err)
		return err;
	memcpy(g, a->g, (size_t)old * sizeof(*g));
	sd_free(a->g);
	a->g = g;
	a->end = nr_blocks;
	a->nr_groups = DIV_ROUND_UP(nr_blocks - a->start, SD_GROUP_BLOCKS);
	for (i = old; i < a->nr_groups; i++) {
		g[i].free = sd_group_capacity(a, i);
		a->free += g[i].free;
	}
	if (sd_planted(SD_PLANT_GROW_EARLY))
		sd_alloc_open_groups(s, old);
	return from < to ? sd_alloc_drop(s, from, to - from) : 0;
}

void sd_alloc_open_groups(struct sd_store *s, u32 from)
{
	struct sd_alloc *a = &s->alloc;

	for (; from < a->nr_groups; from++) {
		a->avail += a->g[from].free - a->g[from].avail;
		a->g[from].avail = a->g[from].free;
	}
}

/* ---- taking -------------------------------------------------------------------------------------- */

#define TAKE_ERRORS	8u	/* so many groups that the device does not read at once: it has gone */

/* First free stretch of at least @unit blocks at or after @from. */
static bool find_stretch(const struct sd_bpage *p, u32 from, u32 want, u32 unit, u32 *bit, u32 *len)
{
	u32 b = find_bit(p->busy, from, false);

	while (b < SD_GROUP_BLOCKS) {
		u32 e = find_bit(p->busy, b, true);

		if (e - b >= unit) {
			*bit = b;
			*len = min(want, (e - b) / unit * unit);
			return true;
		}
		b = find_bit(p->busy, e, false);
	}
	return false;
}

static void mark_taken(struct sd_alloc *a, u32 group, u32 bit, u32 len)
{
	struct sd_ginfo *g = &a->g[group];

	fill_bits(g->page->busy, bit, len, true);
	g->page->pending += len;
	g->avail -= len;
	a->avail -= len;
}

#define CATALOG_GROWTH	16u	/* blocks: the entries of a run and its segments, a leaf each, and what these add to sd_alloc_needs() */

u64 sd_alloc_needs(const struct sd_store *s)
{
	/* All leaves, each of them split, their index, and what was created since. */
	return 2ull * s->cat.nr + s->cat.nr_index + s->alloc.nr_groups / 128 + 16;
}

u64 sd_alloc_floor(const struct sd_store *s, u32 records)
{
	const struct sd_alloc *a = &s->alloc;
	u64 needs = sd_alloc_needs(s), floor = needs, coming = a->dropped - min(a->dropped, a->step_dropped);
	const struct sd_step *st = s->step;

	if (!st || !st->prepared)
		floor += CATALOG_GROWTH;
	else if (st->frozen)
		floor += sd_run_blocks(sd_mem_count(st->frozen)) - st->b.used;
	floor += sd_run_blocks((u64)sd_mem_count(s->cur->active) + s->mem_promised + records);
	return sd_planted(SD_PLANT_NO_FLOOR) ? 0 : max(needs, floor - min(floor, coming));
}

u64 sd_alloc_floor_small(const struct sd_store *s, u32 records)
{
	return sd_alloc_floor(s, records) + 4 * sd_run_blocks(s->slice_records);
}

u64 sd_alloc_reserve(const struct sd_store *s)
{
	/* What a transaction needs grows with the catalog, and with the records of one chunk, which a merge does not split. */
	u64 reserve = s->alloc.reserve + 2ull * s->cat.nr + s->alloc.nr_groups / 64 + s->sum.highest / 64;

	return sd_planted(SD_PLANT_NO_FLOOR) ? 0 : max(reserve, sd_alloc_floor_small(s, SD_GROUP_MAX_ITEMS));
}

int sd_alloc_take(struct sd_store *s, u32 want, u32 unit, bool meta, u64 *addr, u32 *got)
{
	struct sd_alloc *a = &s->alloc;
	u32 *cur = meta ? &a->meta_group : &a->data_group;
	u32 *cur_bit = meta ? &a->meta_bit : &a->data_bit;
	u32 i, bit, len, group, from, failed = 0;
	struct sd_bpage *p;
	int err;

again:
	group = *cur;
	from = *cur_bit;
	if (!meta) {
		u64 reserve = sd_alloc_reserve(s);

		if (a->avail < reserve + unit)
			return -ENOSPC;
		want = min_t(u64, want, sd_div64(a->avail - reserve, unit) * unit);
	}
	/* The group of the cursor is looked at twice: from the cursor on, and at the end from its beginning. */
	for (i = 0; i <= a->nr_groups; i++, from = 0) {
		if (a->g[group].avail >= unit) {
			err = sd_alloc_get_page(s, group, &p);
			if (unreadable(err) && (err == -EUCLEAN || ++failed < TAKE_ERRORS)) {
				shun(s, group);
				goto again;	/* there is less room than there was */
			}
			if (err)
				return err;
			if (find_stretch(p, from, want, unit, &bit, &len)) {
				mark_taken(a, group, bit, len);
				*cur = group;
				*cur_bit = bit + len;
				*addr = group_addr(a, group) + bit;
				*got = len;
				return 0;
			}
		}
		if (meta)	/* metadata grows from the end, so that data stays in one piece */
			group = group ? group - 1 : a->nr_groups - 1;
		else
			group = group + 1 < a->nr_groups ? group + 1 : 0;
	}
	return -ENOSPC;
}

int sd_alloc_take_list(struct sd_store *s, u64 want, struct sd_blocks *list)
{
	u32 got, i;
	u64 addr;
	int err = 0;

	while (want) {
		err = sd_alloc_take(s, min_t(u64, want, SD_GROUP_BLOCKS), 1, true, &addr, &got);
		if (!err) {
			err = sd_blocks_add(list, addr, got);
			if (err)
				sd_alloc_untake(s, addr, got);
		}
		if (err)
			break;
		want -= got;
	}
	if (!err)
		return 0;
	for (i = 0; i < list->nr; i++)
		sd_alloc_untake(s, list->r[i].addr, list->r[i].nr);
	sd_blocks_clear(list);
	return err;
}

/* ---- state changes: one part of an extent a group ---------------------------------------------------- */

static u32 split(const struct sd_alloc *a, u64 addr, u64 nr, u32 *group, u32 *bit)
{
	u64 off = addr - a->start;

	*group = sd_div64(off, SD_GROUP_BLOCKS);
	*bit = off - (u64)*group * SD_GROUP_BLOCKS;
	return min_t(u64, nr, SD_GROUP_BLOCKS - *bit);
}

bool sd_alloc_outside(struct sd_store *s, u64 addr, u64 nr)
{
	const struct sd_alloc *a = &s->alloc;

	if (addr >= a->start && addr < a->end && nr <= a->end - addr)
		return false;
	sd_complain_block(s, addr, "extent outside of the groups", a->end, addr + nr);
	return true;
}

void sd_alloc_commit(struct sd_store *s, u64 addr, u64 nr)
{
	struct sd_alloc *a = &s->alloc;
	u32 group, bit, len;

	for (; nr; addr += len, nr -= len) {
		struct sd_ginfo *g;

		len = split(a, addr, nr, &group, &bit);
		g = &a->g[group];
		fill_bits(g->page->disk, bit, len, true);	/* taken pages are never evicted */
		g->page->pending -= len;
		g->free -= len;
		a->free -= len;
		g->dirty = true;
	}
}

void sd_alloc_untake(struct sd_store *s, u64 addr, u64 nr)
{
	struct sd_alloc *a = &s->alloc;
	u32 group, bit, len;

	for (; nr; addr += len, nr -= len) {
		struct sd_ginfo *g;

		len = split(a, addr, nr, &group, &bit);
		g = &a->g[group];
		fill_bits(g->page->busy, bit, len, false);
		g->page->pending -= len;
		g->avail += len;
		a->avail += len;
	}
}

void sd_alloc_settle(struct sd_store *s, struct sd_blocks *list, u64 used)
{
	u32 i;

	for (i = 0; i < list->nr; i++) {
		struct sd_blockrange *r = &list->r[i];
		u64 n = min(used, r->nr);

		if (n)
			sd_alloc_commit(s, r->addr, n);
		if (n < r->nr)
			sd_alloc_untake(s, r->addr + n, r->nr - n);
		used -= n;
	}
	sd_blocks_clear(list);
}

void sd_alloc_release(struct sd_store *s, u64 addr, u64 nr)
{
	s->alloc.dropped -= min(s->alloc.dropped, nr);
	if (!sd_planted(SD_PLANT_REUSE_EARLY))
		sd_alloc_untake(s, addr, nr);
}

int sd_alloc_drop(struct sd_store *s, u64 addr, u64 nr)
{
	struct sd_alloc *a = &s->alloc;
	u32 group, bit, len;

	if (sd_alloc_outside(s, addr, nr))
		return -EUCLEAN;
	for (; nr; addr += len, nr -= len) {
		struct sd_bpage *p;
		int err;

		len = split(a, addr, nr, &group, &bit);
		err = load_page(s, group, true, &p);
		if (err)
			return err;
		if (find_bit(p->disk, bit, false) < bit + len) {
			sd_complain_block(s, addr, "block freed that is not in use", 1, 0);
			return -EUCLEAN;
		}
		fill_bits(p->disk, bit, len, false);
		p->pending += len;
		a->g[group].free += len;
		a->g[group].dirty = true;
		a->free += len;
		a->dropped += len;
		a->step_dropped += len;
		if (sd_planted(SD_PLANT_REUSE_EARLY))
			sd_alloc_untake(s, addr, len);
	}
	return 0;
}

int sd_alloc_replay(struct sd_store *s, u64 addr, u64 nr)
{
	struct sd_alloc *a = &s->alloc;
	u32 group, bit, len, i;

	if (sd_alloc_outside(s, addr, nr))
		return -EUCLEAN;
	for (; nr; addr += len, nr -= len) {
		struct sd_bpage *p;
		int err;

		len = split(a, addr, nr, &group, &bit);
		err = load_page(s, group, true, &p);
		if (err)
			return err;
		for (i = bit; i < bit + len; i++) {
			if (get_bit(p->disk, i))
				continue;	/* a transaction since has it already */
			mark_taken(a, group, i, 1);
			sd_alloc_commit(s, group_addr(a, group) + i, 1);
		}
	}
	return 0;
}

int sd_alloc_test(struct sd_store *s, u64 addr, bool *used)
{
	u32 group, bit;
	struct sd_bpage *p;
	int err;

	split(&s->alloc, addr, 1, &group, &bit);
	err = s->opts.read_only && s->alloc.g[group].lost ? -EUCLEAN : sd_alloc_get_page(s, group, &p);
	if (!err)
		*used = get_bit(p->disk, bit);
	return err;
}

/* The image of a dirty group's bitmap for transaction @txid, into the copy that is not valid now; updates what the catalog will say. */
void sd_alloc_encode(struct sd_store *s, u32 group, struct sd_disk_bitmap *out, u64 txid, u64 *addr)
{
	struct sd_ginfo *g = &s->alloc.g[group];
	u32 i;

	if (g->flags & SD_GROUP_D_INIT)
		g->flags ^= SD_GROUP_D_COPY_B;
	g->flags |= SD_GROUP_D_INIT;
	g->txid = (u32)txid;
	g->dirty = false;
	*addr = group_addr(&s->alloc, group) + (g->flags & SD_GROUP_D_COPY_B ? 1 : 0);
	for (i = 0; i < SD_BITMAP_WORDS; i++)
		out->bits[i] = cpu_to_le64(g->page->disk[i]);
	sd_block_seal(s, out, SD_MAGIC_BITMAP, *addr, txid);
}
