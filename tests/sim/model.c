// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What generations are, in arrays: each has a copy of the primary at its cut. Nothing of records, intervals or runs is known here.
 */
#include "sim.h"

static u64 mix(u64 x)
{
	x ^= x >> 31;
	x *= 0x9e3779b97f4a7c15ull;
	x ^= x >> 29;
	x *= 0xbf58476d1ce4e5b9ull;
	return x ^ x >> 32;
}

u64 tag_of(u32 chunk, u32 version, u32 block)
{
	return mix((u64)chunk << 40 | (u64)block << 32 | version) | 1;
}

void fill_chunk(void *buf, u32 chunk, u32 version, u32 blocks)
{
	u64 *w = buf;
	u32 i, k;

	if (version == V_ZERO) {
		memset(buf, 0, (size_t)blocks * SD_BLOCK_SIZE);
		return;
	}
	for (i = 0; i < blocks; i++) {
		u64 x = tag_of(chunk, version, i);

		for (k = 0; k < SD_BLOCK_SIZE / 8; k++)
			*w++ = x += 0x9e3779b97f4a7c15ull;
	}
}

struct mgen *model_find(struct model *m, u32 number)
{
	u32 i;

	for (i = 0; i < m->nr; i++)
		if (m->g[i].number == number)
			return &m->g[i];
	return NULL;
}

bool model_is_kept(const struct mgen *g)
{
	return g->state == SD_GEN_LIVE || !(g->flags & SD_GEN_F_CHANGES_UNKNOWN);
}

u32 model_live(const struct model *m)
{
	u32 i;

	for (i = m->nr; i; i--)
		if (m->g[i - 1].state == SD_GEN_LIVE)
			return m->g[i - 1].number;
	return 0;
}

u32 model_kept(const struct model *m)
{
	u32 i;

	for (i = m->nr; i; i--)
		if (model_is_kept(&m->g[i - 1]))
			return m->g[i - 1].number;
	return 0;
}

static void apply_copy(struct model *m, u32 chunk, u32 kind)
{
	bool needed = false, key = false;
	u32 i;

	for (i = 0; i < m->nr; i++) {
		struct mgen *g = &m->g[i];

		if (g->state == SD_GEN_LIVE && !g->preserved[chunk]) {
			g->preserved[chunk] = needed = true;
			if (kind == SD_KIND_BAD)
				g->content[chunk] = V_BAD;
		}
	}
	if (m->nr) {
		key = model_is_kept(&m->g[m->nr - 1]) && !m->g[m->nr - 1].changed[chunk];
		m->g[m->nr - 1].changed[chunk] = true;
	}
	if ((kind == SD_KIND_MARK && !key) || (kind != SD_KIND_MARK && !needed))
		m->late[chunk] = true;
}

static void apply_create(struct model *m, const struct sd_gen *gen)
{
	struct mgen *g = &m->g[m->nr++];

	memset(g, 0, sizeof(*g));
	g->number = gen->number;
	g->state = gen->state;
	g->flags = gen->flags;
	memcpy(&g->label, gen->label, sizeof(g->label));
	memcpy(g->content, m->primary, sizeof(g->content));
	m->highest = g->number;
}

/* A descriptor that was made before the generation was lost or deleted does not bring it back. */
static void apply_put(struct model *m, const struct sd_gen *gen)
{
	struct mgen *g = model_find(m, gen->number);
	u32 unknown;

	if (!g)
		return;
	unknown = g->flags & SD_GEN_F_CHANGES_UNKNOWN;
	g->flags = gen->flags | unknown;
	memcpy(&g->label, gen->label, sizeof(g->label));
	if (g->state == SD_GEN_LIVE)
		g->state = gen->state;
}

static void delete_at(struct model *m, u32 i)
{
	u32 c;

	if (i) {
		struct mgen *p = &m->g[i - 1];

		for (c = 0; c < m->nr_chunks; c++)
			p->changed[c] |= m->g[i].changed[c];
		p->flags |= m->g[i].flags & SD_GEN_F_CHANGES_UNKNOWN;
	}
	memmove(&m->g[i], &m->g[i + 1], (m->nr - i - 1) * sizeof(m->g[0]));
	m->nr--;
}

void model_apply(struct model *m, const struct fly *f)
{
	u32 i;

	switch (f->op) {
	case OP_COPY:
		for (i = 0; i < f->nr; i++)
			apply_copy(m, f->item[i].chunk, f->item[i].kind);
		break;
	case OP_CREATE:
		apply_create(m, &f->gen);
		break;
	case OP_PUT:
		apply_put(m, &f->gen);
		break;
	case OP_DEL:
		for (i = 0; i < m->nr;) {
			if (m->g[i].number >= f->first && m->g[i].number <= f->last)
				delete_at(m, i);
			else
				i++;
		}
		break;
	case OP_LOSE:
		for (i = 0; i < m->nr; i++) {
			if (m->g[i].number < f->first || m->g[i].number > f->last)
				continue;
			if (m->g[i].state == SD_GEN_LIVE)
				m->g[i].state = SD_GEN_LOST;
			if (f->unknown)
				m->g[i].flags |= SD_GEN_F_CHANGES_UNKNOWN;
		}
		break;
	}
}
