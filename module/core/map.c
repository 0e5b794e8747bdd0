// SPDX-License-Identifier: GPL-2.0
/*
 * Reading the map: lookups, windows of the changed set, extents.
 *
 * The record of a chunk with the smallest generation >= h holds the chunk's content at h. Of two tables the older one has the smaller generations for a
 * chunk, so tables are asked from the oldest on and the first answer is the right one; tables that only hold generations below h are not asked.
 */
#include "internal.h"

static int rec_check(struct sd_version *v, const struct sd_rec *rec)
{
	if (rec->kind == SD_KIND_DATA && rec->addr + v->s->chunk_blocks <= READ_ONCE(v->s->nr_blocks))
		return 0;
	if (rec->kind == SD_KIND_ZERO || rec->kind == SD_KIND_BAD)
		return 0;
	sd_complain_block(v->s, rec->addr, "kind of a record that is read", SD_KIND_DATA, rec->kind);
	return -EUCLEAN;
}

static bool mem_lookup(struct sd_mem *m, u64 chunk, u32 gen, struct sd_rec *rec)
{
	return m && sd_mem_fetch(m, chunk, gen, rec, 1) && rec->chunk == chunk;
}

int sd_lookup(struct sd_version *v, u64 chunk, u32 gen, struct sd_rec *rec)
{
	u32 i, nr;
	int err;

	for (i = 0; i < v->nr_runs; i++) {
		const struct sd_run *r = v->runs[i];

		if (r->gen_max < gen || chunk < r->lo)
			continue;
		err = sd_run_fetch(v->s, r, chunk, gen, rec, 1, &nr);
		if (err)
			return err;
		if (nr && rec->chunk == chunk)
			return rec_check(v, rec);
	}
	if (mem_lookup(v->frozen, chunk, gen, rec) || mem_lookup(v->active, chunk, gen, rec))
		return rec_check(v, rec);
	memset(rec, 0, sizeof(*rec));
	rec->chunk = chunk;
	return 0;
}

bool sd_lookup_new(struct sd_version *v, u64 chunk, u32 gen)
{
	struct sd_rec rec;

	return mem_lookup(v->frozen, chunk, gen, &rec) || mem_lookup(v->active, chunk, gen, &rec);
}

static int table_fetch(struct sd_version *v, const struct sd_run *r, struct sd_mem *m, u64 chunk, u32 gen, struct sd_rec *recs,
		       u32 max, u32 *nr)
{
	if (r)
		return sd_run_fetch(v->s, r, chunk, gen, recs, max, nr);
	*nr = sd_mem_fetch(m, chunk, gen, recs, max);
	return 0;
}

#define BATCH	32u

/* For chunks of the range that have no answer yet: the answer of one table. */
static int range_from_table(struct sd_version *v, const struct sd_run *r, struct sd_mem *m, u64 first, u32 nr, u32 gen,
			    struct sd_rec *recs)
{
	struct sd_rec got[BATCH];
	u64 chunk = first;
	u32 from = gen, i, n;
	int err;

	while (chunk < first + nr) {
		err = table_fetch(v, r, m, chunk, from, got, BATCH, &n);
		if (err)
			return err;
		if (!n)
			return 0;
		for (i = 0; i < n; i++) {
			struct sd_rec *slot;

			if (got[i].chunk >= first + nr)
				return 0;
			slot = &recs[got[i].chunk - first];
			if (got[i].gen >= gen && slot->kind == SD_KIND_NONE) {
				*slot = got[i];
				err = rec_check(v, slot);
				if (err)
					return err;
			}
		}
		/* Go on at the next key; past older or newer generations of the last chunk. */
		chunk = got[n - 1].chunk;
		from = gen;
		if (got[n - 1].gen >= gen)
			chunk++;
	}
	return 0;
}

int sd_lookup_range(struct sd_version *v, u64 first, u32 nr, u32 gen, struct sd_rec *recs)
{
	u32 i;
	int err;

	if (nr == 1)
		return sd_lookup(v, first, gen, recs);
	memset(recs, 0, nr * sizeof(*recs));
	for (i = 0; i < nr; i++)
		recs[i].chunk = first + i;
	for (i = 0; i < v->nr_runs; i++) {
		if (v->runs[i]->gen_max < gen)
			continue;
		err = range_from_table(v, v->runs[i], NULL, first, nr, gen, recs);
		if (err)
			return err;
	}
	err = v->frozen ? range_from_table(v, NULL, v->frozen, first, nr, gen, recs) : 0;
	return err ? err : range_from_table(v, NULL, v->active, first, nr, gen, recs);
}

/* The record of the chunk with the highest generation in one table. */
static int table_newest(struct sd_version *v, const struct sd_run *r, struct sd_mem *m, u64 chunk, struct sd_rec *rec, bool *found)
{
	struct sd_rec got[BATCH];
	u32 from = 0, i, n;
	int err;

	for (;;) {
		err = table_fetch(v, r, m, chunk, from, got, BATCH, &n);
		if (err)
			return err;
		for (i = 0; i < n && got[i].chunk == chunk; i++) {
			*rec = got[i];
			*found = true;
		}
		if (!i || i < n || rec->gen == U32_MAX)
			return 0;
		from = rec->gen + 1;
	}
}

int sd_lookup_newest(struct sd_version *v, u64 chunk, struct sd_rec *rec)
{
	bool found = false;
	u32 i;
	int err = table_newest(v, NULL, v->active, chunk, rec, &found);

	if (!err && !found && v->frozen)
		err = table_newest(v, NULL, v->frozen, chunk, rec, &found);
	for (i = v->nr_runs; !err && !found && i; i--)
		err = table_newest(v, v->runs[i - 1], NULL, chunk, rec, &found);
	if (!err && !found) {
		memset(rec, 0, sizeof(*rec));
		rec->chunk = chunk;
	}
	return err;
}

static int window_from_table(struct sd_version *v, const struct sd_run *r, struct sd_mem *m, u32 min_gen, u64 first, u32 nr,
			     unsigned long *bitmap)
{
	struct sd_rec got[BATCH];
	u64 chunk = first;
	u32 i, n;
	int err;

	while (chunk < first + nr) {
		err = table_fetch(v, r, m, chunk, min_gen, got, BATCH, &n);
		if (err)
			return err;
		for (i = 0; i < n; i++) {
			if (got[i].chunk >= first + nr)
				return 0;
			if (got[i].gen >= min_gen)
				__set_bit(got[i].chunk - first, bitmap);
		}
		if (!n)
			return 0;
		chunk = got[n - 1].chunk + (got[n - 1].gen >= min_gen);
	}
	return 0;
}

int sd_window_fill(struct sd_version *v, u32 min_gen, u64 first, u32 nr, unsigned long *bitmap)
{
	u32 i;
	int err = 0;

	for (i = 0; !err && i < v->nr_runs; i++)
		if (v->runs[i]->gen_max >= min_gen)
			err = window_from_table(v, v->runs[i], NULL, min_gen, first, nr, bitmap);
	if (!err && v->frozen)
		err = window_from_table(v, NULL, v->frozen, min_gen, first, nr, bitmap);
	return err ? err : window_from_table(v, NULL, v->active, min_gen, first, nr, bitmap);
}

/* ---- extents ---------------------------------------------------------------------------------------------- */

/* Append [chunk, chunk + nr) or join it with the last one. Returns false when the array is full. */
static bool extent_add(struct sd_extent *out, u32 *n, u32 max, u32 chunk_blocks, u64 chunk, u64 nr, u32 kind, u64 addr)
{
	struct sd_extent *l = *n ? &out[*n - 1] : NULL;

	if (l && l->kind == kind && l->chunk + l->nr == chunk &&
	    (kind != SD_KIND_DATA || l->addr + l->nr * chunk_blocks == addr)) {
		l->nr += nr;
		return true;
	}
	if (*n == max)
		return false;
	l = &out[(*n)++];
	l->chunk = chunk;
	l->nr = nr;
	l->kind = kind;
	l->addr = addr;
	return true;
}

/* One record more has been looked at. Is that enough, and is the caller farther than he was at @start? */
static bool work_done(u32 *work, u64 pos, u64 start)
{
	if (!work)
		return false;
	if (*work)
		--*work;
	return !*work && pos > start;
}

int sd_map_slice(struct sd_version *v, u32 gen, u64 *pos, u64 end, struct sd_extent *out, u32 max, u32 *work)
{
	u32 cb = v->s->chunk_blocks, n = 0;
	u64 start = *pos;
	struct sd_iter it;
	struct sd_rec rec;
	bool done = false;
	int ret = sd_iter_init(&it, v, gen, U32_MAX);

	if (ret)
		return ret;
	ret = sd_iter_seek(&it, *pos, gen);
	while (!ret && !done && *pos < end) {
		ret = sd_iter_next(&it, &rec, NULL);
		if (ret < 0)
			break;
		if (!ret || rec.chunk >= end) {
			ret = 0;
			if (extent_add(out, &n, max, cb, *pos, end - *pos, SD_KIND_NONE, 0))
				*pos = end;
			break;
		}
		ret = 0;
		done = work_done(work, max(rec.chunk, *pos), start);
		if (rec.gen < gen || rec.chunk < *pos) {
			/* an older generation's, or a newer record of a chunk that is done; up to it there is nothing */
			if (done && rec.chunk > *pos && extent_add(out, &n, max, cb, *pos, rec.chunk - *pos, SD_KIND_NONE, 0))
				*pos = rec.chunk;
			continue;
		}
		if (rec.chunk > *pos && !extent_add(out, &n, max, cb, *pos, rec.chunk - *pos, SD_KIND_NONE, 0))
			break;
		*pos = rec.chunk;
		ret = rec_check(v, &rec);
		if (ret || !extent_add(out, &n, max, cb, rec.chunk, 1, rec.kind, rec.kind == SD_KIND_DATA ? rec.addr : 0))
			break;
		*pos = rec.chunk + 1;
	}
	sd_iter_exit(&it);
	return ret ? ret : (int)n;
}

int sd_map_extents(struct sd_version *v, u32 gen, u64 *pos, u64 end, struct sd_extent *out, u32 max)
{
	return sd_map_slice(v, gen, pos, end, out, max, NULL);
}

int sd_change_slice(struct sd_version *v, u32 g1, u32 g2, u64 *pos, u64 end, struct sd_extent *out, u32 max, u32 *work)
{
	u64 start = *pos;
	struct sd_iter it;
	struct sd_rec rec;
	bool done = false;
	u32 n = 0;
	int ret;

	if (g1 >= g2) {
		*pos = end;
		return 0;
	}
	ret = sd_iter_init(&it, v, g1, g2 - 1);
	if (ret)
		return ret;
	ret = sd_iter_seek(&it, *pos, g1);
	while (!ret && !done && *pos < end) {
		ret = sd_iter_next(&it, &rec, NULL);
		if (ret < 0)
			break;
		if (!ret || rec.chunk >= end) {
			ret = 0;
			*pos = end;
			break;
		}
		ret = 0;
		done = work_done(work, max(rec.chunk, *pos), start);
		if (rec.chunk < *pos || rec.gen < g1 || rec.gen >= g2) {
			if (done)
				*pos = max(rec.chunk, *pos);
			continue;
		}
		if (!extent_add(out, &n, max, 1, rec.chunk, 1, SD_KIND_NONE, 0)) {
			*pos = rec.chunk;
			break;
		}
		*pos = rec.chunk + 1;
	}
	sd_iter_exit(&it);
	return ret ? ret : (int)n;
}

int sd_change_extents(struct sd_version *v, u32 g1, u32 g2, u64 *pos, u64 end, struct sd_extent *out, u32 max)
{
	return sd_change_slice(v, g1, g2, pos, end, out, max, NULL);
}
