// SPDX-License-Identifier: GPL-2.0
/*
 * Merging runs, and giving back what nobody needs.
 *
 * Which: four neighbours (by age) of one level become one run of the next level, so there are O(log n) runs; and a run that holds records nobody needs
 * any more (a generation was deleted) is rewritten alone. Merging goes in slices of a bounded number of records; a slice is one transaction: the output gets one more
 * segment, the inputs' run->lo moves up, segments of the inputs that are used up are freed. A reader sees either the versions before or after.
 * After a crash the merge goes on where the last transaction left it (SD_RUN_F_PARTIAL, merge_into, lo are in the catalog).
 *
 * The rule, for the records g1 < g2 < … of a chunk, prev being the one before:
 *	content needed	iff a live generation is in (prev, g]
 *	key needed	iff g is the first record of a merged interval: the greatest kept generation <= g is > prev
 *	neither		drop the record, free the data;  only the key: it becomes a MARK, the data is freed
 * Records of older runs that are not being merged count as prev as well ("context": they are read, not written); only those of generations >= the
 * greatest live one below the inputs can matter (or the greatest kept one, when none is live there). That prev itself may have been dropped earlier changes nothing: it was dropped because no
 * live generation, and no beginning of an interval, lies between it and its own predecessor.
 *
 * Live and kept generations are those at the beginning of the slice. One that is deleted meanwhile flags the output again; new ones have higher
 * numbers than any record here.
 *
 * When: rewriting a run costs what it holds, whatever is unneeded of it, so one generation of many must not cause it. Each run has an estimate of
 * its unneeded records (the changed set of what was deleted, shared out by the records that the runs have of an interval), and is rewritten when
 * these are a good part of it: the fuller the device, the smaller a part will do; when it is nearly full any. So what is rewritten is
 * proportional to what comes back. Tiny runs are rewritten at once. Merging gives back what it meets in any case.
 */
#include "internal.h"

#define NO_TAG		U32_MAX
#define SLICE_FREED	16384u	/* extents given back by a slice of the smallest size */
#define SLICE_GROWTH	4u	/* slices of large merges are so much larger: fewer transactions write the same bitmaps */
#define SLICE_LEAST	256u	/* where there is little room: each one is a segment, an entry of the catalog */
#define TINY_RECORDS	8192u

static u32 next_live(struct sd_store *s, u32 gen)
{
	struct sd_gen g;

	while (gen != U32_MAX && !sd_gen_next(s, gen + 1, &g)) {
		if (g.state == SD_GEN_LIVE)
			return g.number;
		gen = g.number;
	}
	return U32_MAX;
}

static bool holds(const struct sd_run *r, u32 from, u32 to)
{
	return r->gen_max >= from && r->gen_min < to;
}

/* Records that a run has of one interval, if they are spread evenly. */
static u64 weight(const struct sd_run *r)
{
	return sd_div64(r->records, r->gen_max - r->gen_min + 1) + 1;
}

static bool in_version(const struct sd_version *v, const struct sd_run *r)
{
	u32 i;

	for (i = 0; v && i < v->nr_runs; i++)
		if (v->runs[i] == r)
			return true;
	return false;
}

/* @nr records in [from, to), at most, are garbage in the runs of @v. Runs that @but has as well have been told. */
static void flag_runs(struct sd_store *s, struct sd_version *v, const struct sd_version *but, u32 from, u32 to, u64 nr)
{
	u64 sum = 0;
	u32 i;

	for (i = 0; v && i < v->nr_runs; i++)
		if (holds(v->runs[i], from, to))
			sum += weight(v->runs[i]);
	for (i = 0; v && i < v->nr_runs; i++) {
		struct sd_run *r = v->runs[i];
		struct sd_disk_run *d;

		if (!holds(r, from, to) || in_version(but, r))
			continue;
		r->flags |= SD_RUN_F_PURGE;
		/* in 1/65536: the product must fit */
		r->garbage += nr * ((weight(r) << 16) / sum) >> 16;
		d = sd_cat_edit(s, SD_CAT_KEY(SD_CAT_RUN, r->id));
		if (!d)
			continue;
		d->flags |= cpu_to_le32(SD_RUN_F_PURGE);
		d->garbage = cpu_to_le64(r->garbage);
	}
}

/*
 *	      p       gen        h (next live)
 *	──────┼────────┼──────────┼─────►
 *	               [ records of these generations may have lost their last reader )
 */
void sd_merge_garbage(struct sd_store *s, u32 gen, u64 nr)
{
	u32 to = next_live(s, gen), gen_min, gen_max;
	struct sd_step *st = s->step;

	s->garbage_stamp++;
	sd_mem_gens(s->cur->active, &gen_min, &gen_max);
	/* Groups in flight will come with the highest one. */
	if (to > min(gen_min, s->sum.highest)) {
		s->mem_garbage = true;
		s->garbage_until = s->j.next_seq - !s->building;
		s->mem_unneeded += min_t(u64, nr, sd_mem_count(s->cur->active));
	}
	if (st && st->frozen && !st->prepared) {	/* afterwards its run is told */
		sd_mem_gens(st->frozen, &gen_min, &gen_max);
		if (to > gen_min && gen <= gen_max) {
			st->garbage = true;
			st->unneeded += min_t(u64, nr, sd_mem_count(st->frozen));
		}
	}
	flag_runs(s, s->cur, NULL, gen, to, nr);
	if (st && st->prepared)
		flag_runs(s, st->next, s->cur, gen, to, nr);
}

/* ---- choosing -------------------------------------------------------------------------------------------- */

static bool mergeable(const struct sd_run *r)
{
	return !r->broken && !r->merge_into && !(r->flags & SD_RUN_F_PARTIAL);
}

/* A merge that is under way: its output and inputs. */
static bool pick_partial(struct sd_version *v, struct sd_merge *m)
{
	u32 i;

	for (i = 0; i < v->nr_runs; i++)
		if (v->runs[i]->flags & SD_RUN_F_PARTIAL && !v->runs[i]->broken)
			m->out = v->runs[i];
	if (!m->out)
		return false;
	for (i = 0; i < v->nr_runs && m->nr_in < SD_MERGE_MAX; i++)
		if (v->runs[i]->merge_into == m->out->id)
			m->in[m->nr_in++] = v->runs[i];
	m->out_id = m->out->id;
	m->level = m->out->level;
	m->age = m->out->age;
	m->from = m->nr_in ? m->in[0]->lo : U64_MAX;
	return true;
}

static bool pick_tier(struct sd_version *v, struct sd_merge *m)
{
	u32 i, n = 0;

	/* From the newest on: the first SD_MERGE_WIDTH neighbours of one level. Whole stretches of it, if there are more. */
	for (i = v->nr_runs; i; i--) {
		struct sd_run *r = v->runs[i - 1];

		if (!mergeable(r) || (n && r->level != v->runs[i]->level))
			n = 0;
		if (!mergeable(r))
			continue;
		if (++n == SD_MERGE_WIDTH) {
			while (i > 1 && n < SD_MERGE_MAX && mergeable(v->runs[i - 2]) && v->runs[i - 2]->level == r->level)
				i--, n++;
			break;
		}
	}
	if (n < SD_MERGE_WIDTH)
		return false;
	for (m->nr_in = 0; m->nr_in < n; m->nr_in++)
		m->in[m->nr_in] = v->runs[i - 1 + m->nr_in];
	m->level = m->in[0]->level + 1;
	return true;
}

/* Is so much of @records garbage that rewriting them pays? */
static bool worth(const struct sd_store *s, u64 garbage, u64 records)
{
	u64 all = s->nr_blocks, avail = s->alloc.avail;

	if (records <= TINY_RECORDS || s->starved || avail <= all / 8 + 2 * s->alloc.reserve)
		return true;
	if (avail > all / 2)
		return garbage * 2 >= records;
	return garbage * (avail > all / 4 ? 3 : 8) >= records;
}

bool sd_merge_purge_memory(const struct sd_store *s)
{
	return s->mem_garbage && sd_mem_count(s->cur->active) && worth(s, s->mem_unneeded, sd_mem_count(s->cur->active));
}

/* The first that pays; rather one of which some records at least go into @room. */
static bool pick_purge(const struct sd_store *s, struct sd_version *v, struct sd_merge *m, u64 room)
{
	bool found = false;
	u32 i;

	for (i = 0; i < v->nr_runs; i++) {
		const struct sd_run *r = v->runs[i];

		if (!(r->flags & SD_RUN_F_PURGE) || !mergeable(r) || !worth(s, r->garbage, r->records))
			continue;
		if (!found) {
			m->in[0] = v->runs[i];
			m->nr_in = 1;
			m->level = m->in[0]->level;
		}
		found = true;
		if (sd_run_blocks(min(r->records, SLICE_LEAST + (u64)s->sum.highest) + 1) > room)
			continue;
		m->in[0] = v->runs[i];
		m->level = m->in[0]->level;
		break;
	}
	return found;
}

enum sd_work sd_merge_wanted(struct sd_store *s)
{
	struct sd_merge *m = sd_zalloc(sizeof(*m));
	enum sd_work work = SD_WORK_NONE;

	if (!m)
		return SD_WORK_NONE;
	if (pick_partial(s->cur, m) || pick_tier(s->cur, m))
		work = SD_WORK_SOON;
	else if (pick_purge(s, s->cur, m, U64_MAX))
		work = SD_WORK_IDLE;
	sd_free(m);
	return work;
}

static void merge_destroy(struct sd_merge *m)
{
	sd_builder_exit(&m->b);
	sd_blocks_clear(&m->space);
	sd_blocks_clear(&m->freed);
	sd_gens_free(&m->gens);
	sd_free(m->shrink);
	sd_free(m->consumed);
	if (m->v)
		sd_version_put(m->v);
	sd_free(m);
}

/* Large merges take larger slices, where there is room, and all take smaller ones, where there is little. Records of one chunk are never split over two: so many may come on top. */
static void size_slice(const struct sd_store *s, struct sd_merge *m, u64 room)
{
	u64 total = 0;
	u32 i, grow;

	m->garbage = 0;
	for (i = 0; i < m->nr_in; i++) {
		total += m->in[i]->records;
		m->garbage += m->in[i]->garbage;
	}
	grow = s->alloc.avail < 4 * s->alloc.reserve ? 1 :
	       min_t(u64, SLICE_GROWTH, 1 + sd_div64(total, max(s->slice_records, TINY_RECORDS) * 32));
	m->slice_records = (u64)s->slice_records * grow;
	m->slice_freed = SLICE_FREED * grow;
	m->max_records = min(total, m->slice_records + s->sum.highest) + 1;
	while (sd_run_blocks(m->max_records) > room && m->slice_records > SLICE_LEAST) {
		m->slice_records /= 2;
		m->max_records = min(total, m->slice_records + s->sum.highest) + 1;
	}
}

/* Where nothing is kept nothing is written: on a device without any room that is how it comes back. */
static u64 output_blocks(const struct sd_merge *m)
{
	return m->gens.nr_kept || m->gens.nr_live ? sd_run_blocks(m->max_records) : 0;
}

/* With the space for its output, or -ENOSPC. What does not fit may do so in smaller slices; and where runs are too large to be merged, one that holds garbage may not be. */
static int choose(struct sd_store *s, struct sd_merge *m, bool idle_too, u64 leave)
{
	u64 room = s->alloc.avail - min(s->alloc.avail, leave);
	bool picked = pick_partial(m->v, m);

	/* With little room, what gives some back comes before what only makes fewer runs. */
	if (!picked && idle_too && room < sd_run_blocks(s->slice_records) && pick_purge(s, m->v, m, room)) {
		size_slice(s, m, room);
		if (output_blocks(m) <= room)
			return 0;
	}
	if (!picked)
		picked = pick_tier(m->v, m);
	if (picked) {
		size_slice(s, m, room);
		if (output_blocks(m) <= room || m->out)
			return output_blocks(m) <= room ? 0 : -ENOSPC;
	}
	if (!idle_too || !pick_purge(s, m->v, m, room))
		return picked ? -ENOSPC : -ENODATA;
	size_slice(s, m, room);
	return output_blocks(m) <= room ? 0 : -ENOSPC;
}

int sd_merge_begin(struct sd_store *s, bool idle_too, u64 leave, struct sd_merge **merge)
{
	struct sd_merge *m = sd_zalloc(sizeof(*m));
	int err;

	if (!m)
		return -ENOMEM;
	m->v = sd_version_get(s);
	err = sd_gens_snapshot(s, &m->gens);
	if (!err)
		err = choose(s, m, idle_too, leave);
	if (err) {
		merge_destroy(m);
		return err;
	}
	if (!m->out) {
		m->age = m->in[m->nr_in - 1]->age;
		m->out_id = s->next_id;
	}
	m->stamp = s->garbage_stamp;
	m->gen_min = U32_MAX;
	m->consumed = sd_zalloc(max(m->nr_in, 1u) * sizeof(u32));
	err = m->consumed ? sd_alloc_take_list(s, output_blocks(m), &m->space) : -ENOMEM;
	if (err) {
		merge_destroy(m);
		return err;
	}
	if (!m->out)
		s->next_id++;
	*merge = m;
	return 0;
}

/* ---- one slice --------------------------------------------------------------------------------------------- */

static int note_shrink(struct sd_merge *m, u32 gen)
{
	u32 i;

	for (i = m->nr_shrink; i && m->nr_shrink - i < 8; i--) {
		if (m->shrink[i - 1].gen == gen) {
			m->shrink[i - 1].n++;
			return 0;
		}
	}
	if (m->nr_shrink == m->cap_shrink) {
		u32 cap = m->cap_shrink ? 2 * m->cap_shrink : 64;
		void *p = sd_malloc_sure(cap * sizeof(*m->shrink));

		if (!p)
			return -ENOMEM;
		if (m->nr_shrink)
			memcpy(p, m->shrink, m->nr_shrink * sizeof(*m->shrink));
		sd_free(m->shrink);
		m->shrink = p;
		m->cap_shrink = cap;
	}
	m->shrink[m->nr_shrink].gen = gen;
	m->shrink[m->nr_shrink++].n = 1;
	return 0;
}

static int merge_record(struct sd_merge *m, struct sd_rec *rec, u32 prev)
{
	struct sd_store *s = m->v->s;
	u32 before = sd_planted(SD_PLANT_NO_PREV) ? 0 : prev;
	bool content = sd_gens_floor(m->gens.live, m->gens.nr_live, rec->gen) > before;
	bool key = sd_gens_floor(m->gens.kept, m->gens.nr_kept, rec->gen) > before;
	int err = 0;

	if (!content && rec->kind == SD_KIND_DATA)
		err = sd_blocks_add(&m->freed, rec->addr, s->chunk_blocks);
	if (err)
		return err;
	if (!key && !content)
		return note_shrink(m, rec->gen);
	if (!content) {
		rec->kind = SD_KIND_MARK;
		rec->addr = 0;
		rec->crc = 0;
	}
	m->gen_min = min(m->gen_min, rec->gen);
	m->gen_max = max(m->gen_max, rec->gen);
	return sd_builder_add(&m->b, rec);
}

/* Older runs whose records may be the prev of the inputs' ones. */
static void add_context(struct sd_iter *it, struct sd_merge *m)
{
	u32 i, k, gen_min = U32_MAX, from;

	for (i = 0; i < m->nr_in; i++)
		gen_min = min(gen_min, m->in[i]->gen_min);
	from = sd_gens_floor(m->gens.live, m->gens.nr_live, gen_min);
	if (!from)
		from = sd_gens_floor(m->gens.kept, m->gens.nr_kept, gen_min);
	for (i = 0; from && i < m->v->nr_runs; i++) {
		const struct sd_run *r = m->v->runs[i];
		bool input = r == m->out;

		for (k = 0; k < m->nr_in; k++)
			input |= r == m->in[k];
		if (!input && r->age < m->in[0]->age && r->gen_max >= from)
			sd_iter_add(it, r, NULL, NO_TAG);
	}
}

static int merge_stream(struct sd_merge *m, struct sd_iter *it)
{
	u64 chunk = U64_MAX;
	struct sd_rec rec;
	u32 prev = 0, tag;
	int ret;

	while ((ret = sd_iter_peek(it, &rec)) > 0) {
		if (rec.chunk != chunk) {
			if (m->b.records >= m->slice_records || m->freed.nr >= m->slice_freed) {
				m->to = rec.chunk;
				return 0;
			}
			chunk = rec.chunk;
			prev = 0;
		}
		if ((prev && rec.gen <= prev) || m->b.records == m->max_records) {
			sd_complain_block(m->v->s, 0, "records of runs that are merged (chunk)", 0, rec.chunk);
			return -EUCLEAN;	/* two of a key, or more than their runs say */
		}
		ret = sd_iter_next(it, &rec, &tag);
		/* What cannot be given back would fail the store in the middle of the transaction. */
		if (ret > 0 && tag != NO_TAG && rec.kind == SD_KIND_DATA && sd_alloc_outside(m->v->s, rec.addr, m->v->s->chunk_blocks)) {
			it->failed = tag;
			return -EUCLEAN;
		}
		if (ret > 0 && tag != NO_TAG)
			ret = merge_record(m, &rec, prev);
		if (ret < 0)
			return ret;
		prev = rec.gen;
	}
	m->last = !ret;
	m->to = U64_MAX;
	return ret;
}

/* Segments of the inputs with no record left at or behind m->to. */
static int free_consumed(struct sd_merge *m, u32 *failed)
{
	struct sd_store *s = m->v->s;
	u32 i, k;
	int err = 0;

	for (i = 0; !err && i < m->nr_in; i++) {
		const struct sd_run *r = m->in[i];

		for (k = 0; !err && k < r->nr_segs; k++) {
			if (!m->last && (k + 1 == r->nr_segs || r->seg[k + 1].first_chunk > m->to))
				break;
			err = sd_segment_blocks(s, &r->seg[k], &m->freed);
		}
		if (err)
			*failed = i;
		m->consumed[i] = k;
	}
	return err;
}

/*
 * @n: the input that could not be read. A merge that has not begun yet leaves the others as they are: they can be merged without it. One that is under way cannot go
 * on; and what other damage there is (NO_TAG: an older run, or records that contradict each other) is met by each of them again.
 */
static void mark_broken(struct sd_merge *m, u32 n)
{
	u32 i;

	if (!m->out && n < m->nr_in) {
		m->in[n]->broken = true;
		return;
	}
	for (i = 0; i < m->nr_in; i++)
		m->in[i]->broken = true;
	if (m->out)
		m->out->broken = true;
}

int sd_merge_run(struct sd_merge *m, u64 txid)
{
	struct sd_store *s = m->v->s;
	struct sd_iter it;
	u32 i, failed;
	int err = sd_builder_init(&m->b, s, txid, &m->space, m->max_records);

	if (!err)
		err = sd_iter_init_empty(&it, s, m->v->nr_runs);
	if (err)
		return err;
	for (i = 0; i < m->nr_in; i++)
		sd_iter_add(&it, m->in[i], NULL, i);
	if (m->nr_in)
		add_context(&it, m);
	err = sd_iter_seek(&it, m->from, 0);
	if (!err)
		err = merge_stream(m, &it);
	if (!err)
		err = sd_builder_finish(&m->b);
	failed = it.failed;
	if (!err)
		err = free_consumed(m, &failed);
	sd_iter_exit(&it);
	if (err == -EUCLEAN || err == -EIO)
		mark_broken(m, failed);
	return err;
}

/* ---- into the transaction ----------------------------------------------------------------------------------- */

static int commit_space(struct sd_store *s, struct sd_merge *m)
{
	u32 i;

	sd_alloc_settle(s, &m->space, m->b.used);
	for (i = 0; i < m->freed.nr; i++) {
		int err = sd_alloc_drop(s, m->freed.r[i].addr, m->freed.r[i].nr);

		if (!err)
			err = sd_blocks_add(&s->step->retire, m->freed.r[i].addr, m->freed.r[i].nr);
		if (err)
			return err;
	}
	return 0;
}

/* The output as it is after this slice, or NULL with *err == 0 when it is empty. */
static struct sd_run *make_output(struct sd_store *s, struct sd_merge *m, int *err)
{
	u32 old = m->out ? m->out->nr_segs : 0, nr = old + !!m->b.records;
	struct sd_run *r = sd_run_alloc(nr);
	u32 i;

	*err = r ? 0 : -ENOMEM;
	if (!r)
		return NULL;
	for (i = 0; i < old; i++)
		r->seg[i] = m->out->seg[i];
	if (m->b.records) {
		r->seg[old] = m->b.seg;
		r->seg[old].number = old ? r->seg[old - 1].number + 1 : 0;
		*err = sd_run_store_seg(s, m->out_id, &r->seg[old]);
	}
	r->id = m->out_id;
	r->level = m->level;
	r->age = m->age;
	r->gen_min = m->out ? min(m->out->gen_min, m->gen_min) : m->gen_min;
	r->gen_max = m->out ? max(m->out->gen_max, m->gen_max) : m->gen_max;
	r->records = (m->out ? m->out->records : 0) + m->b.records;
	r->flags = m->out ? m->out->flags & SD_RUN_F_PURGE : 0;
	r->garbage = m->out ? m->out->garbage : 0;
	if (s->garbage_stamp != m->stamp) {
		u64 now = 0;

		for (i = 0; i < m->nr_in; i++)
			now += m->in[i]->garbage;
		r->flags |= SD_RUN_F_PURGE;
		r->garbage += now > m->garbage ? now - m->garbage : 0;
	}
	if (!m->last)
		r->flags |= SD_RUN_F_PARTIAL;
	if (!*err && m->last && !r->nr_segs) {
		sd_cat_del(s, SD_CAT_KEY(SD_CAT_RUN, r->id));
		sd_run_put(r);
		return NULL;
	}
	if (!*err)
		*err = sd_run_store(s, r);
	return r;
}

/* An input after this slice; NULL when it is used up. */
static struct sd_run *trim_input(struct sd_store *s, struct sd_merge *m, u32 n, int *err)
{
	const struct sd_run *old = m->in[n];
	u32 gone = m->consumed[n], i;
	struct sd_run *r;

	for (i = 0; i < gone; i++)
		sd_cat_del(s, SD_CAT_KEY(SD_CAT_SEG, SD_CAT_SEG_ID(old->id, old->seg[i].number)));
	if (m->last) {
		sd_cat_del(s, SD_CAT_KEY(SD_CAT_RUN, old->id));
		return NULL;
	}
	r = sd_run_alloc(old->nr_segs - gone);
	if (!r) {
		*err = -ENOMEM;
		return NULL;
	}
	for (i = 0; i < r->nr_segs; i++)
		r->seg[i] = old->seg[gone + i];
	r->id = old->id;
	r->level = old->level;
	r->flags = old->flags;
	r->gen_min = old->gen_min;
	r->gen_max = old->gen_max;
	r->age = old->age;
	r->lo = m->to;
	r->merge_into = m->out_id;
	for (i = 0; i < r->nr_segs; i++)
		r->records += r->seg[i].records;
	r->garbage = min(old->garbage, r->records);
	*err = sd_run_store(s, r);
	return r;
}

static u32 input_index(const struct sd_merge *m, const struct sd_run *r)
{
	u32 i;

	for (i = 0; i < m->nr_in; i++)
		if (m->in[i] == r)
			return i;
	return NO_TAG;
}

int sd_merge_apply(struct sd_store *s, struct sd_merge *m, struct sd_version *next)
{
	struct sd_run *out;
	u32 i, k = 0, n;
	int err = commit_space(s, m);

	if (err)
		return err;
	out = make_output(s, m, &err);
	for (i = 0; i < next->nr_runs; i++) {
		struct sd_run *r = next->runs[i];

		n = input_index(m, r);
		if (!err && (n != NO_TAG || r == m->out)) {
			struct sd_run *with = NULL;

			if (n != NO_TAG)
				with = trim_input(s, m, n, &err);
			if (r == m->in[m->nr_in - 1] && out) {	/* the output stands behind its newest input */
				if (with)
					next->runs[k++] = with;
				if (k > i) {	/* no input has gone: make room, next has it */
					memmove(next->runs + i + 2, next->runs + i + 1,
						(next->nr_runs - i - 1) * sizeof(*next->runs));
					next->nr_runs++;
					i++;
				}
				with = out;
				out = NULL;
			}
			sd_run_put(r);
			if (with)
				next->runs[k++] = with;
			continue;
		}
		next->runs[k++] = r;
	}
	next->nr_runs = k;
	if (err) {	/* the store fails, and this version is thrown away */
		sd_run_put(out);
		return err;
	}
	for (i = 0; i < m->nr_shrink; i++)
		sd_gens_count_changed(s, m->shrink[i].gen, -(s64)m->shrink[i].n);
	s->merges++;
	return 0;
}

void sd_merge_free(struct sd_store *s, struct sd_merge *m, bool failed)
{
	if (failed)
		sd_alloc_settle(s, &m->space, 0);
	merge_destroy(m);
}
