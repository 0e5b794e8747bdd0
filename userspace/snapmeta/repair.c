// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What damage means for each generation, and a new store without it.
 *
 * The content of chunk c at generation h is the record (c, g) with the smallest g >= h, or the primary. So a record that may be missing, (c, m), makes wrong what is found for
 * h exactly if h <= m and no record of c lies in [h, m):
 *
 *	records        (c,2)            (c,5)              primary
 *	missing               3 ?    4 ?         6 ?
 *	content at h   1  2  | 3      4  |  5  |  6     |  7 …
 *	               known |  EIO      |known| EIO    |  known
 *
 * For each stretch between two records, therefore, a *bad* record is put at the highest generation that may be missing there: what it answers is EIO, all else stays exact. Where the chunks of
 * a hole are too many for that, the generations up to its highest are lost. A record that may be missing is also a change that may have been: the changed sets of
 * the generations that the hole touches become unknown. (Too large a set would be allowed, but the hole does not say where in its generations the change was.)
 *
 * Then the rule of merging (module/core/merge.c) over all records at once drops what nobody needs any more. That must come before preserved data is looked at: data of unneeded
 * records may have been used again.
 *
 * The records go by twice: once to see which blocks are in use, and which records cannot be true, and once to be written.
 */
#include "rebuild.h"
#include "repair.h"
#include "salvage.h"

struct source {
	const struct sal_run *run;	/* NULL: the journal */
	u64 next;			/* leaf, or record of the journal */
	struct sd_disk_leaf *block;
	struct sd_leaf leaf;
	u32 pos;
	bool end;
	struct sd_rec rec;		/* the next one */
};

struct wrong {
	u64 chunk;
	u32 gen;
};

struct repairing {
	struct salvage sal;
	struct sd_dev *in, *out;
	const struct repair_opts *opts;
	struct repair_result *res;
	struct sd_gens gens;
	struct hole *hole;		/* one chunk each, sorted */
	u64 nr_hole, cap_hole;
	struct source *src;		/* oldest first */
	u32 nr_src;
	struct sd_rec *rec;		/* of one chunk */
	u64 nr_rec, cap_rec;
	struct wrong *wrong;		/* data records that cannot be served, in order */
	u64 nr_wrong, cap_wrong, at_wrong;
	bool second;			/* pass */
	u64 records, bad;
	u8 *used;			/* a bit for each block: preserved data */
	u8 *chunk;
	struct rebuild rb;
};

/* ---- from holes to generations ------------------------------------------------------------------------------- */

/* A change of these generations may not have been recorded. */
static void doubt_changes(struct repairing *r, u32 lo, u32 hi)
{
	u32 from = sd_gens_floor(r->gens.kept, r->gens.nr_kept, lo), i;

	for (i = 0; i < r->gens.nr_kept; i++) {
		struct sd_disk_gen *d;

		if (r->gens.kept[i] < from || r->gens.kept[i] > hi)
			continue;
		d = sd_cat_edit(r->sal.s, SD_CAT_KEY(SD_CAT_GEN, r->gens.kept[i]));
		if (d)
			d->flags |= cpu_to_le32(SD_GEN_F_CHANGES_UNKNOWN);
	}
}

static u64 chunks_of_gens(struct repairing *r)
{
	u64 sectors = 0, cs = r->sal.s->chunk_size >> 9;
	struct sd_gen g;
	u32 n = 0;

	for (; !sd_gen_next(r->sal.s, n, &g); n = g.number + 1)
		if (g.state == SD_GEN_LIVE)
			sectors = max(sectors, g.size_sectors);
	return sectors / cs + !!(sectors % cs);
}

static int by_first(const void *a, const void *b)
{
	const struct hole *x = a, *y = b;

	return x->first < y->first ? -1 : x->first > y->first;
}

/* Large holes cost their generations, small ones become holes of one chunk. */
static int spread_holes(struct repairing *r)
{
	u64 max_bad = r->opts->max_bad ? r->opts->max_bad : REPAIR_MAX_BAD, i, c;
	int err = 0;

	r->sal.nr_chunks = chunks_of_gens(r);
	for (i = 0; !err && i < r->sal.nr_hole; i++) {
		struct hole h = r->sal.hole[i];

		doubt_changes(r, h.lo, h.hi);
		if (!r->sal.nr_chunks || h.first >= r->sal.nr_chunks)
			continue;	/* no live generation reaches so far */
		h.last = min(h.last, r->sal.nr_chunks - 1);
		if (h.last - h.first >= max_bad - min(max_bad, r->nr_hole)) {
			sal_say(&r->sal, "chunks %llu to %llu are not known of any generation up to %u: lost", (unsigned long long)h.first,
				(unsigned long long)h.last, min(h.hi, r->sal.s->sum.highest));
			err = sal_lose(&r->sal, h.hi, false);
			continue;
		}
		for (c = h.first; !err && c <= h.last; c++) {
			err = sal_grow(&r->hole, r->nr_hole, &r->cap_hole, sizeof(*r->hole));
			if (!err)
				r->hole[r->nr_hole++] = (struct hole){ c, c, h.lo, min(h.hi, r->sal.s->sum.highest) };
		}
	}
	if (r->nr_hole)
		qsort(r->hole, r->nr_hole, sizeof(*r->hole), by_first);
	return err;
}

/* ---- all records in order ----------------------------------------------------------------------------------- */

static int source_next(struct repairing *r, struct source *src)
{
	int err;

	if (!src->run) {
		src->end = src->next == r->sal.nr_log;
		if (!src->end)
			src->rec = r->sal.log[src->next++];
		return 0;
	}
	do {
		while (src->pos == src->leaf.nr) {
			src->end = src->next == src->run->nr_leaf;
			if (src->end)
				return 0;
			err = sd_block_read(r->sal.s, src->run->leaf[src->next++], SD_MAGIC_LEAF, SD_LEAF_MOST, src->block);
			if (err)
				return err;	/* it was good a moment ago */
			src->pos = 0;
			sd_leaf_open(&src->leaf, src->block);
		}
		sd_leaf_get(&src->leaf, src->pos++, &src->rec);
	} while (src->rec.chunk < src->run->lo);
	return 0;
}

static int sources_begin(struct repairing *r)
{
	u32 i;
	int err = 0;

	r->src = calloc(r->sal.nr_run + 1, sizeof(*r->src));
	if (!r->src)
		return -ENOMEM;
	r->nr_src = r->sal.nr_run + 1;
	for (i = 0; !err && i < r->nr_src; i++) {
		r->src[i].run = i < r->sal.nr_run ? &r->sal.run[i] : NULL;
		r->src[i].block = sd_malloc(SD_BLOCK_SIZE);
		err = r->src[i].block ? source_next(r, &r->src[i]) : -ENOMEM;
	}
	return err;
}

static void sources_end(struct repairing *r)
{
	u32 i;

	for (i = 0; i < r->nr_src; i++)
		sd_free(r->src[i].block);
	free(r->src);
	r->src = NULL;
	r->nr_src = 0;
}

static int add_rec(struct repairing *r, u64 at, const struct sd_rec *rec)
{
	int err = sal_grow(&r->rec, r->nr_rec, &r->cap_rec, sizeof(*r->rec));

	if (err)
		return err;
	memmove(&r->rec[at + 1], &r->rec[at], (r->nr_rec - at) * sizeof(*rec));
	r->rec[at] = *rec;
	r->nr_rec++;
	return 0;
}

/* All records of the chunk, by generation. Of two with one key the older table's counts: lookups ask it first. */
static int gather(struct repairing *r, u64 chunk)
{
	u32 i;
	u64 at;
	int err = 0;

	r->nr_rec = 0;
	for (i = 0; !err && i < r->nr_src; i++) {
		struct source *src = &r->src[i];

		while (!err && !src->end && src->rec.chunk == chunk) {
			for (at = r->nr_rec; at && r->rec[at - 1].gen >= src->rec.gen; at--)
				;
			if (at == r->nr_rec || r->rec[at].gen != src->rec.gen)
				err = add_rec(r, at, &src->rec);
			if (!err)
				err = source_next(r, src);
		}
	}
	return err;
}

/* See the drawing above. A bad record that is put in is marked by an address, which bad records do not have. */
#define FROM_DAMAGE	1u

static int fill_hole(struct repairing *r, u64 chunk, u32 lo, u32 hi)
{
	u64 i;
	int err = 0;

	for (i = 0; !err && i <= r->nr_rec; i++) {
		u32 before = i ? r->rec[i - 1].gen : 0, upto = i < r->nr_rec ? min(hi, r->rec[i].gen - 1) : hi;
		struct sd_rec bad = { .chunk = chunk, .gen = upto, .kind = SD_KIND_BAD, .addr = FROM_DAMAGE };

		if (upto >= lo && upto > before) {
			err = add_rec(r, i, &bad);
			i++;
		}
	}
	return err;
}

/* ---- one record ----------------------------------------------------------------------------------------------- */

static void count_bad(struct repairing *r, u32 prev, u32 gen)
{
	u32 i;

	for (i = 0; i < r->res->nr_gen; i++)
		if (r->res->gen[i].gen.number > prev && r->res->gen[i].gen.number <= gen)
			r->res->gen[i].bad++;
}

static int data_state(struct repairing *r, const struct sd_rec *rec)
{
	struct sd_store *s = r->sal.s;
	u64 i, bit;
	int err;

	if (rec->addr < s->alloc.start || rec->addr >= s->nr_blocks || s->nr_blocks - rec->addr < s->chunk_blocks)
		return -EUCLEAN;
	bit = (rec->addr - s->alloc.start) % SD_GROUP_BLOCKS;
	if (bit < 2 || bit + s->chunk_blocks > SD_GROUP_BLOCKS)
		return -EUCLEAN;
	for (i = rec->addr; i < rec->addr + s->chunk_blocks; i++)
		if ((r->used[i / 8] | r->sal.seen[i / 8]) >> i % 8 & 1)
			return -EUCLEAN;
	if (!r->opts->data && r->in == r->out)
		return 0;
	err = r->in->ops->read(r->in->ctx, rec->addr, s->chunk_blocks, r->chunk);
	if (err == -EIO || (!err && crc32c(~0u, r->chunk, s->chunk_size) != rec->crc))
		return -EUCLEAN;
	return err;
}

/* First pass: is the data of the record there, and nobody else's? */
static int claim_data(struct repairing *r, struct sd_rec *rec)
{
	u64 i;
	int err = data_state(r, rec);

	if (!err) {
		for (i = rec->addr; i < rec->addr + r->sal.s->chunk_blocks; i++)
			r->used[i / 8] |= 1 << i % 8;
		return 0;
	}
	if (err != -EUCLEAN)
		return err;
	sal_say(&r->sal, "chunk %llu of generation %u: its data at block %llu is damaged or somebody else's", (unsigned long long)rec->chunk,
		rec->gen, (unsigned long long)rec->addr);
	err = sal_grow(&r->wrong, r->nr_wrong, &r->cap_wrong, sizeof(*r->wrong));
	if (!err)
		r->wrong[r->nr_wrong++] = (struct wrong){ rec->chunk, rec->gen };
	rec->kind = SD_KIND_BAD;
	rec->addr = FROM_DAMAGE;
	return err;
}

static int place_data(struct repairing *r, struct sd_rec *rec)
{
	struct sd_store *s = r->sal.s;
	int err = 0;

	if (r->at_wrong < r->nr_wrong && r->wrong[r->at_wrong].chunk == rec->chunk && r->wrong[r->at_wrong].gen == rec->gen) {
		r->at_wrong++;
		rec->kind = SD_KIND_BAD;
		rec->addr = FROM_DAMAGE;
		return 0;
	}
	if (r->in == r->out)
		return 0;
	err = r->in->ops->read(r->in->ctx, rec->addr, s->chunk_blocks, r->chunk);
	return err ? err : r->out->ops->write(r->out->ctx, rec->addr, s->chunk_blocks, r->chunk);
}

static int take_record(struct repairing *r, struct sd_rec *rec, u32 prev)
{
	bool content = sd_gens_floor(r->gens.live, r->gens.nr_live, rec->gen) > prev;
	bool key = sd_gens_floor(r->gens.kept, r->gens.nr_kept, rec->gen) > prev;
	int err = 0;

	if (!content && !key)
		return 0;
	if (!content) {
		rec->kind = SD_KIND_MARK;
	} else if (rec->kind == SD_KIND_MARK || rec->kind < SD_KIND_DATA || rec->kind > SD_KIND_MARK) {
		rec->kind = SD_KIND_BAD;	/* never an answer */
		rec->addr = FROM_DAMAGE;
		if (!r->second)
			sal_say(&r->sal, "chunk %llu of generation %u: has no content", (unsigned long long)rec->chunk, rec->gen);
	}
	if (rec->kind == SD_KIND_DATA)
		err = r->second ? place_data(r, rec) : claim_data(r, rec);
	if (err)
		return err;
	r->records++;
	if (rec->kind == SD_KIND_BAD && rec->addr == FROM_DAMAGE) {
		r->bad++;
		if (!r->second)
			count_bad(r, prev, rec->gen);
	}
	if (rec->kind != SD_KIND_DATA)
		rec->addr = rec->crc = 0;
	return r->second ? rebuild_add(&r->rb, rec) : 0;
}

static int one_chunk(struct repairing *r, u64 chunk, u64 *hole)
{
	u32 prev = 0, gen;
	u64 i;
	int err = gather(r, chunk);

	for (; !err && *hole < r->nr_hole && r->hole[*hole].first == chunk; ++*hole)
		err = fill_hole(r, chunk, r->hole[*hole].lo, r->hole[*hole].hi);
	for (i = 0; !err && i < r->nr_rec; i++, prev = gen) {
		gen = r->rec[i].gen;
		err = take_record(r, &r->rec[i], prev);
	}
	return err;
}

static int pass(struct repairing *r)
{
	u64 hole = 0, chunk;
	u32 i;
	int err = sources_begin(r);

	r->records = r->bad = r->at_wrong = 0;
	while (!err) {
		bool any = hole < r->nr_hole;

		chunk = any ? r->hole[hole].first : U64_MAX;
		for (i = 0; i < r->nr_src; i++) {
			if (r->src[i].end)
				continue;
			any = true;
			chunk = min(chunk, r->src[i].rec.chunk);
		}
		if (!any)
			break;
		err = one_chunk(r, chunk, &hole);
	}
	sources_end(r);
	return err;
}

/* ---- the whole ---------------------------------------------------------------------------------------------------- */

static int note_gens(struct repairing *r)
{
	struct sd_gen g;
	u32 n = 0;
	u64 i;

	r->res->gen = calloc(r->sal.s->nr_gens + 1, sizeof(*r->res->gen));
	if (!r->res->gen)
		return -ENOMEM;
	for (; r->res->nr_gen < r->sal.s->nr_gens && !sd_gen_next(r->sal.s, n, &g); n = g.number + 1) {
		struct repair_gen *rg = &r->res->gen[r->res->nr_gen++];

		rg->gen = g;
		for (i = 0; i < r->sal.nr_lost; i++)
			rg->was_live |= r->sal.lost[i] == g.number;
		r->res->lost += rg->was_live;
		rg->was_live |= g.state == SD_GEN_LIVE;
	}
	return 0;
}

static void fill_params(const struct repairing *r, struct rebuild_params *p)
{
	const struct sd_disk_super *d = &r->sal.super;

	memset(p, 0, sizeof(*p));
	memcpy(p->uuid, d->hdr.uuid, sizeof(p->uuid));
	memcpy(p->fingerprint, d->fingerprint, sizeof(p->fingerprint));
	p->chunk_size = r->sal.s->chunk_size;
	p->nr_blocks = r->sal.s->nr_blocks;
	p->journal_blocks = r->sal.s->j.blocks;
	p->primary_sectors = le64_to_cpu(d->primary_sectors);
	p->created_ns = le64_to_cpu(d->created_ns);
	p->suspect_gen = le32_to_cpu(d->suspect_gen);
	p->highest = r->sal.s->sum.highest;
	p->clean = r->sal.clean;
}

/* Each maximal stretch of set bits. */
static int each_stretch(const u8 *map, u64 end, struct rebuild *rb, int (*fn)(struct rebuild *rb, u64 addr, u64 nr))
{
	u64 i, n;
	int err = 0;

	for (i = 0; !err && i < end; i += n) {
		n = 1;
		if (!(map[i / 8] >> i % 8 & 1))
			continue;
		while (i + n < end && map[(i + n) / 8] >> (i + n) % 8 & 1 && n < 64)
			n++;
		err = fn(rb, i, n);
	}
	return err;
}

/* A stretch may end one group and begin the next: their bitmaps lie between, so it never does. */
static int write_store(struct repairing *r)
{
	struct rebuild_params p;
	u32 i;
	int err;

	fill_params(r, &p);
	err = rebuild_begin(&r->rb, r->out, &p);
	for (i = 0; !err && i < r->res->nr_gen; i++)
		err = rebuild_gen(&r->rb, &r->res->gen[i].gen);
	if (!err)
		err = each_stretch(r->used, p.nr_blocks, &r->rb, rebuild_use);
	if (!err && r->in == r->out)
		err = each_stretch(r->sal.seen, p.nr_blocks, &r->rb, rebuild_avoid);
	if (!err && r->in == r->out)
		memcpy(r->rb.old, r->sal.group, r->rb.s->alloc.nr_groups * sizeof(*r->rb.old));
	if (!err) {
		rebuild_count(&r->rb, r->records);
		r->second = true;
		err = pass(r);
	}
	if (!err)
		err = rebuild_commit(&r->rb);
	rebuild_end(&r->rb);
	return err;
}

static int plan(struct repairing *r)
{
	int err = sd_gens_snapshot(r->sal.s, &r->gens);

	if (!err)
		err = spread_holes(r);
	if (err)
		return err;
	sd_gens_free(&r->gens);		/* some are lost now */
	err = sd_gens_snapshot(r->sal.s, &r->gens);
	if (!err)
		err = note_gens(r);
	r->used = calloc(r->sal.s->nr_blocks / 8 + 1, 1);
	r->chunk = sd_malloc(r->sal.s->chunk_size);
	if (!err && (!r->used || !r->chunk))
		err = -ENOMEM;
	return err ? err : pass(r);
}

static void repairing_free(struct repairing *r)
{
	sd_gens_free(&r->gens);
	free(r->hole);
	free(r->rec);
	free(r->wrong);
	free(r->used);
	sd_free(r->chunk);
	salvage_free(&r->sal);
	memset(r, 0, sizeof(*r));
}

/* Load and plan with one superblock. The result is in r->res. */
static int attempt(struct repairing *r, struct sd_dev *in, struct sd_dev *out, const struct repair_opts *opts, struct repair_result *res,
		   const struct sd_disk_super *super, const struct sd_disk_super *newer)
{
	int err;

	memset(r, 0, sizeof(*r));
	memset(res, 0, sizeof(*res));
	r->in = in;
	r->out = out;
	r->opts = opts;
	r->res = res;
	err = salvage_load(&r->sal, in, super, newer, newer ? NULL : opts->say, opts->ctx);
	if (!err)
		err = plan(r);
	res->older = newer;
	res->transaction = le64_to_cpu(super->hdr.txid);
	res->findings = r->sal.findings;
	res->records = r->records;
	res->bad = r->bad;
	return err;
}

static bool costs(const struct repair_result *res)
{
	return res->lost || res->bad;
}

static bool better(const struct repair_result *a, const struct repair_result *b)
{
	return a->lost != b->lost ? a->lost < b->lost : a->bad < b->bad;
}

/* What only the kernel's own reading finds: bitmaps and counts, which are made anew. */
static int kernel_check(struct repairing *r)
{
	struct sd_open_opts o = { .read_only = true, .complain = r->opts->say, .complain_ctx = r->opts->ctx };
	struct sd_check_result c;
	struct sd_store *s;
	int err = sd_open(r->in, &o, &s);

	if (err == -EUCLEAN || err == -EIO) {
		r->res->findings++;
		return 0;
	}
	if (err)
		return err;
	err = sd_check(s, 0, &c);
	r->res->findings += c.errors + (err == -EIO);
	sd_close(s);
	return err == -EIO ? 0 : err;
}

/* The older superblock may lead to more: then *r and *res are its. */
static int try_older(struct repairing *r, struct repair_result *res, const struct sd_disk_super super[2])
{
	struct repair_result res2;
	struct repairing r2;
	int err = attempt(&r2, r->in, r->out, r->opts, &res2, &super[1], &super[0]);
	bool take = !err && better(&res2, res);

	if (take) {
		struct repairing r1 = *r;
		struct repair_result res1 = *res;

		*r = r2;
		*res = res2;
		r->res = res;
		res->findings += res1.findings;
		r2 = r1;
		res2 = res1;
	}
	repairing_free(&r2);
	repair_result_free(&res2);
	return err == -EUCLEAN ? 0 : err;
}

int repair(struct sd_dev *in, struct sd_dev *out, const struct repair_opts *opts, struct repair_result *res)
{
	struct sd_disk_super *super = sd_zalloc(2 * SD_BLOCK_SIZE);
	struct repairing r;
	u32 nr = 0;
	int err = super ? salvage_supers(in, super, &nr) : -ENOMEM;

	memset(res, 0, sizeof(*res));
	if (!err && !nr)
		err = -ENODATA;
	if (err) {
		sd_free(super);
		return err;
	}
	err = attempt(&r, in, out, opts, res, &super[0], NULL);
	if (!err && nr < 2) {
		sal_say(&r.sal, "one of the two superblocks cannot be used");
		res->findings++;
	}
	if (!err && nr == 2 && costs(res))
		err = try_older(&r, res, super);
	if (!err && !res->findings)
		err = kernel_check(&r);
	if (!err && res->findings && !opts->dry_run)
		err = write_store(&r);
	repairing_free(&r);
	sd_free(super);
	return err;
}

void repair_result_free(struct repair_result *res)
{
	free(res->gen);
	memset(res, 0, sizeof(*res));
}
