// SPDX-License-Identifier: GPL-2.0-or-later
/* A store against the model: generations, the content of each live one chunk by chunk, the changed sets, and what the store says of itself. */
#include "sim.h"

static void same_data(const struct simdev *d, u64 addr, u32 chunk, u32 version, const char *who, u32 gen)
{
	static u8 buf[1u << 20];
	u32 i;

	for (i = 0; i < S.chunk_blocks; i++)
		if (simdev_peek(d, addr + i)->tag != tag_of(chunk, version, i))
			break;
	if (i == S.chunk_blocks)
		return;
	fill_chunk(buf, chunk, version, S.chunk_blocks);
	for (i = 0; i < S.chunk_blocks; i++)
		if (memcmp(simdev_peek(d, addr + i)->data, buf + i * SD_BLOCK_SIZE, SD_BLOCK_SIZE))
			fail("%s: chunk %u of generation %u at block %llu has other content than version %u", who, chunk, gen,
			     (unsigned long long)addr, version);
}

void verify_chunk(const struct simdev *d, const struct model *m, const struct mgen *g, u32 c, u32 kind, u64 addr)
{
	if ((kind != SD_KIND_NONE) != g->preserved[c])
		fail("chunk %u of generation %u: kind %u, the model says %s", c, g->number, kind,
		     g->preserved[c] ? "preserved" : "not preserved");
	if (kind == SD_KIND_DATA)
		same_data(d, addr, c, g->content[c], "read", g->number);
	else if (kind == SD_KIND_NONE && m->primary[c] != g->content[c])
		fail("chunk %u of generation %u: no record, but the primary has version %u instead of %u", c, g->number, m->primary[c],
		     g->content[c]);
	else if (kind == SD_KIND_ZERO && g->content[c] != V_ZERO)
		fail("chunk %u of generation %u: zero instead of version %u", c, g->number, g->content[c]);
	if ((kind == SD_KIND_BAD) != (g->content[c] == V_BAD))
		fail("chunk %u of generation %u: kind %u, version %u", c, g->number, kind, g->content[c]);
}

static void verify_content(struct sd_version *v, const struct simdev *d, const struct model *m, const struct mgen *g)
{
	struct sd_extent e[16];
	u64 pos = 0, at = 0;
	int i, n;
	u32 k, max = 1 + rnd(16);

	while (pos < m->nr_chunks) {
		n = sd_map_extents(v, g->number, &pos, m->nr_chunks, e, max);
		if (n <= 0)
			fail("map of generation %u at chunk %llu: %d", g->number, (unsigned long long)pos, n);
		for (i = 0; i < n; i++) {
			if (e[i].chunk != at || !e[i].nr)
				fail("map of generation %u: extent at %llu instead of %llu", g->number,
				     (unsigned long long)e[i].chunk, (unsigned long long)at);
			for (k = 0; k < e[i].nr; k++)
				verify_chunk(d, m, g, at + k, e[i].kind, e[i].addr + (u64)k * S.chunk_blocks);
			at += e[i].nr;
		}
		if (at != pos)
			fail("map of generation %u: position %llu instead of %llu", g->number, (unsigned long long)pos, (unsigned long long)at);
	}
}

/* The same by the other ways of asking. */
static void verify_lookups(struct sd_version *v, const struct simdev *d, const struct model *m, const struct mgen *g)
{
	u32 first = rnd(m->nr_chunks), nr = 1 + rnd(min(m->nr_chunks - first, 48u)), i;
	struct sd_rec one, recs[48];
	int err = sd_lookup_range(v, first, nr, g->number, recs);

	if (err)
		fail("lookup of chunks %u + %u of generation %u: %d", first, nr, g->number, err);
	for (i = 0; i < nr; i++)
		verify_chunk(d, m, g, first + i, recs[i].kind, recs[i].addr);
	i = rnd(nr);
	err = sd_lookup(v, first + i, g->number, &one);
	if (err || one.kind != recs[i].kind || one.addr != recs[i].addr || one.crc != recs[i].crc)
		fail("lookup of chunk %u of generation %u: %d, kind %u instead of %u", first + i, g->number, err, one.kind, recs[i].kind);
	if (sd_lookup_new(v, first + i, g->number) && one.kind == SD_KIND_NONE)
		fail("lookup_new of chunk %u of generation %u: there is none", first + i, g->number);
}

static void verify_window(struct sd_version *v, const struct model *m)
{
	unsigned long map[MAX_CHUNKS / BITS_PER_LONG + 1] = { 0 };
	u32 kept = model_kept(m), first = rnd(m->nr_chunks), nr = 1 + rnd(m->nr_chunks - first), c, i;
	int err = kept ? sd_window_fill(v, kept, first, nr, map) : 0;

	if (err)
		fail("window: %d", err);
	for (c = 0; kept && c < nr; c++) {
		bool want = false;

		for (i = 0; i < m->nr; i++)
			want |= m->g[i].number >= kept && m->g[i].changed[first + c];
		if (test_bit(c, map) != want && !m->late[first + c])
			fail("window of generation %u: chunk %u is %d", kept, first + c, !want);
	}
}

static void verify_changes(struct sd_version *v, const struct model *m, u32 from, u32 to)
{
	u32 g1 = m->g[from].number, g2 = to < m->nr ? m->g[to].number : m->highest + 1, max = 1 + rnd(16), c, i;
	bool want[MAX_CHUNKS] = { false }, found[MAX_CHUNKS] = { false };
	struct sd_extent e[16];
	u64 pos = 0, k;
	int n;

	for (i = from; i < to; i++) {
		if (m->g[i].flags & SD_GEN_F_CHANGES_UNKNOWN)
			return;
		for (c = 0; c < m->nr_chunks; c++)
			want[c] |= m->g[i].changed[c];
	}
	while (pos < m->nr_chunks) {
		n = sd_change_extents(v, g1, g2, &pos, m->nr_chunks, e, max);
		if (n < 0 || (!n && pos < m->nr_chunks))
			fail("changes %u..%u: %d", g1, g2, n);
		for (i = 0; i < (u32)n; i++)
			for (k = e[i].chunk; k < e[i].chunk + e[i].nr && k < m->nr_chunks; k++)
				found[k] = true;
	}
	for (c = 0; c < m->nr_chunks; c++) {
		if (want[c] != found[c] && !(found[c] && m->late[c]))
			fail("changes %u..%u: chunk %u %s", g1, g2, c, want[c] ? "is missing" : "was not written");
		C.changed_seen += found[c];
	}
}

static void verify_gens(struct sd_store *s, const struct model *m)
{
	struct sd_summary sum;
	struct sd_info info;
	struct sd_gen g;
	u32 i, c, n, from = 0;

	sd_summary(s, &sum);
	sd_info(s, &info);
	if (sum.highest != m->highest || sum.newest_live != model_live(m) || sum.newest_kept != model_kept(m))
		fail("summary %u %u %u, the model says %u %u %u", sum.highest, sum.newest_live, sum.newest_kept, m->highest, model_live(m),
		     model_kept(m));
	if (info.nr_gens != m->nr)
		fail("%u generations instead of %u", info.nr_gens, m->nr);
	for (i = 0; i < m->nr; i++, from = g.number + 1) {
		const struct mgen *w = &m->g[i];

		if (sd_gen_next(s, from, &g) || g.number != w->number || g.state != w->state || g.flags != w->flags ||
		    memcmp(g.label, &w->label, sizeof(w->label)))
			fail("generation %u: found %u, state %u flags %x instead of %u %x", w->number, g.number, g.state, g.flags,
			     w->state, w->flags);
		for (n = c = 0; c < m->nr_chunks; c++)
			n += w->changed[c];
		if (g.changed < n && !(g.flags & SD_GEN_F_CHANGES_UNKNOWN))
			fail("generation %u counts %llu changed chunks, %u were", g.number, (unsigned long long)g.changed, n);
	}
	if (!sd_gen_next(s, from, &g))
		fail("generation %u should not be there", g.number);
}

/* Every record that is left has somebody who needs it: the rule, told once more. */
static void verify_garbage(struct sd_store *s, struct sd_version *v, const struct model *m)
{
	u64 chunk = U64_MAX;
	struct sd_iter it;
	struct sd_rec rec;
	u32 prev = 0, i;
	int ret = sd_iter_init(&it, v, 0, U32_MAX);

	if (!ret)
		ret = sd_iter_seek(&it, 0, 0);
	while (!ret && (ret = sd_iter_next(&it, &rec, NULL)) > 0) {
		bool content = false, key = false;

		ret = 0;
		if (rec.chunk != chunk)
			prev = 0;
		for (i = 0; i < m->nr; i++) {
			bool inside = m->g[i].number > prev && m->g[i].number <= rec.gen;

			content |= inside && m->g[i].state == SD_GEN_LIVE;
			key |= inside && model_is_kept(&m->g[i]);
		}
		/* The first of a merged interval: the greatest kept one is what counts, and "inside" has it. */
		if ((rec.kind == SD_KIND_DATA ? !content : !key && !content) && !m->late[rec.chunk])
			fail("record (%llu, %u) of kind %u is not needed and still there", (unsigned long long)rec.chunk, rec.gen, rec.kind);
		chunk = rec.chunk;
		prev = rec.gen;
	}
	sd_iter_exit(&it);
	if (ret < 0)
		fail("reading all records: %d", ret);
}

static void verify_check(struct sd_store *s)
{
	struct sd_check_result r;
	int err = sd_check(s, rnd(4) ? 0 : SD_CHECK_DATA, &r);

	if (err || r.errors || r.blocks_leaked || r.blocks_missing || r.data_bad)
		fail("check: %d, %llu errors, %llu blocks leaked, %llu missing, %llu chunks bad", err, (unsigned long long)r.errors,
		     (unsigned long long)r.blocks_leaked, (unsigned long long)r.blocks_missing, (unsigned long long)r.data_bad);
}

void verify(struct sd_store *s, const struct simdev *d, const struct model *m, u32 flags)
{
	struct sd_version *v = sd_version_get(s);
	u32 i;

	verify_gens(s, m);
	for (i = 0; i < m->nr; i++) {
		if (m->g[i].state == SD_GEN_LIVE) {
			verify_content(v, d, m, &m->g[i]);
			if (!rnd(4))
				verify_lookups(v, d, m, &m->g[i]);
		}
		verify_changes(v, m, i, i + 1);
	}
	if (m->nr)
		verify_changes(v, m, rnd(m->nr), m->nr);
	if (!rnd(4))
		verify_window(v, m);
	if (flags & VERIFY_GARBAGE)
		verify_garbage(s, v, m);
	sd_version_put(v);
	if (flags & VERIFY_CHECK)
		verify_check(s);
}

/* A failed store: nothing is live, for ever. */
void verify_failed(struct sd_store *s)
{
	struct sd_summary sum;
	struct sd_gen g;
	u32 n = 0;

	sd_summary(s, &sum);
	if (sum.newest_live || sum.newest_kept)
		fail("a failed store has generations %u %u", sum.newest_live, sum.newest_kept);
	for (; !sd_gen_next(s, n, &g); n = g.number + 1)
		if (g.state != SD_GEN_LOST)
			fail("a failed store has generation %u in state %u", g.number, g.state);
}

/* What a reader's version says of the generations that were live when it took the reference: they may be gone by now, their data may not. */
void verify_reader(const struct reader *r, const struct simdev *d)
{
	u32 i, k, c;

	for (i = 0; i < r->nr; i++) {
		for (k = 0; k < 16; k++) {
			struct sd_rec rec;
			int err;

			c = rnd(S.m.nr_chunks);
			if (!r->g[i].preserved[c])
				continue;	/* the primary had it, and that has gone on */
			err = sd_lookup(r->v, c, r->g[i].number, &rec);
			if (err == -EIO && d->dead)
				return;
			if (err)
				fail("an old version: lookup of chunk %u of generation %u: %d", c, r->g[i].number, err);
			if (rec.kind == SD_KIND_NONE)
				fail("an old version: chunk %u of generation %u is not there", c, r->g[i].number);
			if (rec.kind == SD_KIND_DATA)
				same_data(d, rec.addr, c, r->g[i].content[c], "an old version", r->g[i].number);
		}
	}
}
