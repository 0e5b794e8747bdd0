// SPDX-License-Identifier: GPL-2.0
/*
 * Everything against everything: each block of the groups is used by what the metadata says, and by nothing else.
 *
 * A map of what is referenced is built from the bitmaps' own blocks, the catalog, the runs (every leaf is read: order, ranges, counts) and the records in
 * memory; then it is compared with the bitmaps.
 */
#include "internal.h"

struct check {
	struct sd_store *s;
	struct sd_check_result *res;
	u32 flags;
	u8 *seen;		/* a bit for each block of the device */
	void *chunk;
};

static void error(struct check *c, u64 addr, const char *what, u64 wanted, u64 found)
{
	c->res->errors++;
	sd_complain_block(c->s, addr, what, wanted, found);
}

static void use(struct check *c, u64 addr, u64 nr)
{
	for (; nr; addr++, nr--) {
		if (addr < c->s->alloc.start || addr >= c->s->nr_blocks) {
			error(c, addr, "reference outside of the groups", c->s->nr_blocks, addr);
			return;
		}
		if (c->seen[addr / 8] >> addr % 8 & 1)
			error(c, addr, "block has two owners", 1, 2);
		c->seen[addr / 8] |= 1 << addr % 8;
	}
}

static int check_rec(struct check *c, const struct sd_rec *rec)
{
	struct sd_store *s = c->s;
	int err;

	c->res->records++;
	if (rec->kind < SD_KIND_DATA || rec->kind > SD_KIND_MARK)
		error(c, rec->addr, "kind of a record", SD_KIND_DATA, rec->kind);
	if (!rec->gen || rec->gen > s->sum.highest)
		error(c, rec->addr, "generation of a record", s->sum.highest, rec->gen);
	if (rec->kind != SD_KIND_DATA)
		return 0;
	use(c, rec->addr, s->chunk_blocks);
	if (!(c->flags & SD_CHECK_DATA) || rec->addr + s->chunk_blocks > s->nr_blocks)
		return 0;
	err = s->dev->ops->read(s->dev->ctx, rec->addr, s->chunk_blocks, c->chunk);
	if (err && err != -EIO)
		return err;
	if (err || crc32c(~0u, c->chunk, s->chunk_size) != rec->crc) {
		c->res->data_bad++;
		error(c, rec->addr, err ? "data cannot be read" : "checksum of data", rec->crc, 0);
	}
	return 0;
}

static bool in_order(const struct sd_rec *a, const struct sd_rec *b)
{
	return a->chunk < b->chunk || (a->chunk == b->chunk && a->gen < b->gen);
}

static int check_segment(struct check *c, const struct sd_run *r, const struct sd_segment *seg, u64 end)
{
	struct sd_run *one = sd_run_alloc(1);	/* the segment alone, as a run */
	struct sd_rec *recs = sd_malloc(SD_FETCH * sizeof(*recs)), last = { .gen = 0 };
	struct sd_blocks blocks = { 0 };
	u64 n = 0, chunk = 0, total = 0;
	u32 gen = 0, i, nr;
	int err = one && recs ? 0 : -ENOMEM;

	if (one)
		one->seg[0] = *seg;
	while (!err && !(err = sd_run_fetch(c->s, one, chunk, gen, recs, SD_FETCH, &nr)) && nr) {
		for (i = 0; !err && i < nr; i++, n++) {
			if (n && !in_order(&last, &recs[i]))
				error(c, seg->root, "order of records", last.chunk, recs[i].chunk);
			if (recs[i].chunk < seg->first_chunk || recs[i].chunk >= end)
				error(c, seg->root, "record outside of its segment", seg->first_chunk, recs[i].chunk);
			if (recs[i].gen < r->gen_min || recs[i].gen > r->gen_max)
				error(c, seg->root, "record outside of its run's generations", r->gen_min, recs[i].gen);
			last = recs[i];
			if (recs[i].chunk >= r->lo)	/* what lies below has been merged: it belongs to the output */
				err = check_rec(c, &recs[i]);
		}
		if (err)
			break;
		chunk = last.chunk + (last.gen == U32_MAX);
		gen = last.gen + 1;
	}
	if (!err && n != seg->records)
		error(c, seg->root, "records of a segment", seg->records, n);
	if (!err)
		err = sd_segment_blocks(c->s, seg, &blocks);
	for (i = 0; !err && i < blocks.nr; i++) {
		use(c, blocks.r[i].addr, blocks.r[i].nr);
		total += blocks.r[i].nr;
	}
	if (!err && total != seg->blocks)
		error(c, seg->root, "blocks of a segment", seg->blocks, total);
	sd_blocks_clear(&blocks);
	sd_free(recs);
	sd_run_put(one);
	if (err == -EUCLEAN || err == -EIO) {
		error(c, seg->root, "segment cannot be read", 0, 0);
		err = 0;
	}
	return err;
}

static int check_runs(struct check *c)
{
	struct sd_version *v = c->s->cur;
	u32 i, k;
	int err = 0;

	for (i = 0; !err && i < v->nr_runs; i++) {
		const struct sd_run *r = v->runs[i];

		if (i && v->runs[i - 1]->gen_max > r->gen_min && v->runs[i - 1]->nr_segs && r->nr_segs &&
		    v->runs[i - 1]->age != r->age && v->runs[i - 1]->merge_into != r->merge_into &&
		    !(r->flags & SD_RUN_F_PARTIAL) && !(v->runs[i - 1]->flags & SD_RUN_F_PARTIAL))
			error(c, r->seg[0].root, "generations of neighbouring runs", v->runs[i - 1]->gen_max, r->gen_min);
		for (k = 0; !err && k < r->nr_segs; k++)
			err = check_segment(c, r, &r->seg[k], k + 1 < r->nr_segs ? r->seg[k + 1].first_chunk : U64_MAX);
	}
	return err;
}

static int check_mem(struct check *c, struct sd_mem *m)
{
	struct sd_rec rec;
	u64 chunk = 0;
	u32 gen = 0;
	int err = 0;

	while (m && !err && sd_mem_fetch(m, chunk, gen, &rec, 1)) {
		err = check_rec(c, &rec);
		chunk = rec.chunk + (rec.gen == U32_MAX);
		gen = rec.gen + 1;
	}
	return err;
}

static void check_catalog(struct check *c)
{
	struct sd_catalog *cat = &c->s->cat;
	u32 i;

	for (i = 0; i < cat->nr; i++)
		if (cat->leaf[i]->addr)
			use(c, cat->leaf[i]->addr, 1);
	for (i = 0; i < cat->nr_index; i++)
		if (cat->index_addr[i])
			use(c, cat->index_addr[i], 1);
}

static int check_group(struct check *c, u32 group)
{
	struct sd_alloc *a = &c->s->alloc;
	u64 addr = a->start + (u64)group * SD_GROUP_BLOCKS, end = addr + sd_group_capacity(a, group) + 2;
	u32 free = 0;
	bool used;
	int err;

	use(c, addr, 2);
	for (; addr < end; addr++) {
		bool seen = c->seen[addr / 8] >> addr % 8 & 1;

		err = sd_alloc_test(c->s, addr, &used);
		if (err == -EUCLEAN || err == -EIO) {
			error(c, addr, "bitmap cannot be read", 0, 0);
			return 0;
		}
		if (err)
			return err;
		free += !used;
		c->res->blocks_used += seen;
		if (seen && !used) {
			c->res->blocks_missing++;
			error(c, addr, "block in use is free in the bitmap", 1, 0);
		} else if (!seen && used) {
			c->res->blocks_leaked++;
			error(c, addr, "block of nobody is not free in the bitmap", 0, 1);
		}
	}
	if (free != a->g[group].free)
		error(c, a->start + (u64)group * SD_GROUP_BLOCKS, "free blocks of a group", a->g[group].free, free);
	return 0;
}

int sd_check(struct sd_store *s, u32 flags, struct sd_check_result *res)
{
	struct check c = { .s = s, .res = res, .flags = flags };
	u32 i;
	int err;

	memset(res, 0, sizeof(*res));
	sd_version_reap(s);
	c.seen = sd_zalloc(s->nr_blocks / 8 + 1);
	c.chunk = sd_malloc(s->chunk_size);
	err = c.seen && c.chunk ? 0 : -ENOMEM;
	if (!err)
		check_catalog(&c);
	if (!err)
		err = check_runs(&c);
	if (!err)
		err = check_mem(&c, s->cur->frozen);
	if (!err)
		err = check_mem(&c, s->cur->active);
	for (i = 0; !err && i < s->alloc.nr_groups; i++)
		err = check_group(&c, i);
	sd_free(c.seen);
	sd_free(c.chunk);
	return err;
}
