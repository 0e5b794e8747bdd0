// SPDX-License-Identifier: GPL-2.0
/*
 * Versions: what readers hold while they read.
 *
 * A version is the set of tables that together are the mapping: the active in-memory table, the frozen one while a checkpoint writes it, the runs.
 * All but the active table are immutable, and that one only grows. Versions stand in a list, oldest first; only [M] calls change it. A reader takes a reference of the
 * current one and drops it; nothing else, and no lock: the memory of a version outlives its last reference by an RCU grace period, so who has just been told that it is the
 * current one can try to take a reference, and fails if it has been let go meanwhile. sd_version_reap() frees the versions at the head of the list that nobody holds, and gives back the blocks that no later
 * version refers to. Those that nobody holds behind one that is held let go of their in-memory tables: what a slow reader keeps is the blocks and the tables of
 * his own version, not every table that comes after it.
 */
#include "internal.h"

struct sd_version *sd_version_alloc(struct sd_store *s, u32 nr_runs)
{
	struct sd_version *v = sd_zalloc_sure(sizeof(*v));

	if (!v)
		return NULL;
	v->runs = sd_zalloc_sure((nr_runs + 1) * sizeof(*v->runs));
	if (!v->runs) {
		sd_free(v);
		return NULL;
	}
	refcount_set(&v->ref, 1);
	INIT_LIST_HEAD(&v->list);
	v->s = s;
	return v;
}

/* Room for two more runs than @v has. */
struct sd_version *sd_version_clone(struct sd_version *v)
{
	struct sd_version *c = sd_version_alloc(v->s, v->nr_runs + 2);
	u32 i;

	if (!c)
		return NULL;
	c->active = v->active;
	sd_mem_get(c->active);
	c->frozen = v->frozen;
	if (c->frozen)
		sd_mem_get(c->frozen);
	for (i = 0; i < v->nr_runs; i++) {
		c->runs[i] = v->runs[i];
		refcount_inc(&c->runs[i]->ref);
	}
	c->nr_runs = v->nr_runs;
	return c;
}

void sd_version_discard(struct sd_version *v)
{
	u32 i;

	if (!v)
		return;
	for (i = 0; i < v->nr_runs; i++)
		sd_run_put(v->runs[i]);
	sd_mem_put(v->active);
	sd_mem_put(v->frozen);
	sd_blocks_clear(&v->retire);
	sd_free(v->runs);
	sd_free_rcu(v, rcu);
}

void sd_version_swap(struct sd_store *s, struct sd_version *v)
{
	struct sd_version *old = s->cur;

	v->number = old ? old->number + 1 : 1;
	list_add_tail(&v->list, &s->versions);
	smp_store_release(&s->cur, v);	/* pairs with sd_version_get() */
	if (old)
		sd_version_put(old);
}

/* Nobody will look into it any more; only what it retires has to wait. */
static void drop_tables(struct sd_version *v)
{
	sd_mem_put(v->active);
	sd_mem_put(v->frozen);
	v->active = NULL;
	v->frozen = NULL;
}

u32 sd_version_held(struct sd_store *s)
{
	struct sd_version *v;
	u32 n = 0;

	list_for_each_entry(v, &s->versions, list)
		n += v != s->cur && refcount_read(&v->ref);
	return n;
}

void sd_version_reap(struct sd_store *s)
{
	struct sd_version *v;
	u32 i;

	while (!list_empty(&s->versions)) {
		v = list_first_entry(&s->versions, struct sd_version, list);
		if (sd_planted(SD_PLANT_READERS_IGNORED) && v != s->cur) {
			for (i = 0; i < v->retire.nr; i++)
				sd_alloc_release(s, v->retire.r[i].addr, v->retire.r[i].nr);
			sd_blocks_clear(&v->retire);
		}
		if (v == s->cur || refcount_read(&v->ref))
			break;
		for (i = 0; i < v->retire.nr; i++)
			sd_alloc_release(s, v->retire.r[i].addr, v->retire.r[i].nr);
		list_del(&v->list);
		sd_version_discard(v);
	}
	list_for_each_entry(v, &s->versions, list)
		if (v != s->cur && !refcount_read(&v->ref))
			drop_tables(v);
}

struct sd_version *sd_version_get(struct sd_store *s)
{
	struct sd_version *v;

	sd_rcu_read_lock();
	do {
		v = smp_load_acquire(&s->cur);	/* pairs with sd_version_swap() */
	} while (!refcount_inc_not_zero(&v->ref));	/* replaced meanwhile: there is a newer one */
	sd_rcu_read_unlock();
	return v;
}

void sd_version_put(struct sd_version *v)
{
	/* Whoever mutates next finds it at zero: freeing here would need the store lock. */
	if (refcount_dec_and_test(&v->ref))
		return;
}

u64 sd_version_number(const struct sd_version *v)
{
	return v->number;
}
