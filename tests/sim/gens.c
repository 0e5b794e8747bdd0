// SPDX-License-Identifier: GPL-2.0-or-later
/* Changes of generations. */
#include "sim.h"

u32 flying(enum op op)
{
	u32 i, n = 0;

	for (i = 0; i < S.nr_fly; i++)
		n += S.fly[i]->op == op;
	return n;
}

static void fill_gen(struct sd_gen *g, u32 number)
{
	u32 label = 1 + rnd(1u << 30);

	memset(g, 0, sizeof(*g));
	g->number = number;
	g->state = SD_GEN_LIVE;
	g->size_sectors = (u64)S.m.nr_chunks * S.chunk_blocks * 8;
	memcpy(g->label, &label, 3);
}

/* The gate is closed and nothing is in flight: what the primary is now is what the generation will be. */
static void cut_generation(void)
{
	struct fly *f = fly_new(OP_CREATE);

	fill_gen(&f->gen, S.m.highest + 1);
	if (!fly_seal(f, sd_group_put_gen(S.store, f->group, &f->gen)))
		S.gate = false;
	else
		C.gens++;
}

static void create(void)
{
	if (S.m.nr + 1 >= MAX_GENS)
		return;
	if (!S.gate && !flying(OP_CREATE))
		S.gate = true;
	if (!S.nr_fly && !S.nr_rel)
		cut_generation();
}

static struct mgen *any_gen(void)
{
	return S.m.nr ? &S.m.g[rnd(S.m.nr)] : NULL;
}

static void put(void)
{
	struct mgen *g = any_gen();
	struct fly *f;

	if (!g)
		return;
	f = fly_new(OP_PUT);
	if (sd_gen_find(S.store, g->number, &f->gen))
		fail("generation %u is not there", g->number);
	switch (rnd(4)) {
	case 0:
		f->gen.flags ^= SD_GEN_F_PINNED;
		break;
	case 1:
		memcpy(f->gen.label, "abc", 3);
		f->gen.label[0] += rnd(20);
		break;
	default:
		if (f->gen.state == SD_GEN_LIVE)
			f->gen.state = SD_GEN_BOOKMARK;
	}
	fly_seal(f, sd_group_put_gen(S.store, f->group, &f->gen));
}

static void range(struct fly *f)
{
	struct mgen *g = any_gen();

	f->first = f->last = g->number;
	if (!rnd(3))
		f->last += rnd(6);	/* also such that do not exist yet */
	if (!rnd(40))
		f->first = 1, f->last = U32_MAX;
}

static void delete(void)
{
	struct fly *f;

	if (!S.m.nr)
		return;
	f = fly_new(OP_DEL);
	range(f);
	fly_seal(f, sd_group_del_gens(S.store, f->group, f->first, f->last));
}

static void lose(void)
{
	struct fly *f;

	if (!S.m.nr)
		return;
	f = fly_new(OP_LOSE);
	range(f);
	f->unknown = !rnd(3);
	C.losses++;
	fly_seal(f, sd_group_lose_gens(S.store, f->group, f->first, f->last, f->unknown));
}

void change_generations(void)
{
	u32 dice = rnd(20);

	if (S.gate) {
		create();
		return;
	}
	if (S.nr_fly == MAX_FLY || S.dev->dead)
		return;
	if (dice < 9)
		create();
	else if (dice < (S.bookish ? 17 : 12))
		put();
	else if (dice < 19 && (S.m.nr > (S.bulk ? 9 : 3) || (dice < 14 && !S.bulk)))
		delete();
	else if (dice == 19)
		lose();
}

/* No space: the oldest live generation goes, so that its data can be given back. */
void give_up_oldest(void)
{
	struct fly *f;
	u32 i;

	if (flying(OP_LOSE) || S.nr_fly == MAX_FLY || S.gate)
		return;
	for (i = 0; i < S.m.nr && S.m.g[i].state != SD_GEN_LIVE; i++)
		;
	if (i == S.m.nr)
		return;
	f = fly_new(OP_LOSE);
	f->first = f->last = S.m.g[i].number;
	C.losses++;
	fly_seal(f, sd_group_lose_gens(S.store, f->group, f->first, f->last, false));
}
