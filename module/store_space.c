// SPDX-License-Identifier: GPL-2.0
/*
 * Room on the diff: how much there is, what giving up generations would free, and who gets the last of it.
 *
 * Reclaiming takes some transactions, on a slow diff seconds. Writers that come meanwhile could use up the rest of the room in a moment and would then stand still until
 * reclaiming is through. So the rest is rationed: with less than a sixteenth of all room left, and more to come, a sixteenth of what is left may go each 50 ms. That
 * lasts for seconds, and writers never stop. When nothing is coming there is nothing to wait for, and nothing is rationed.
 */
#include <linux/jiffies.h>
#include <linux/slab.h>
#include "store_internal.h"

#define RATION_PART	16u
#define RATION_PAUSE	(HZ / 20 ?: 1)

/** snap_store_progress() - [any context] a number that changes while the background thread gets on */
unsigned long snap_store_progress(struct snap_store *s)
{
	return READ_ONCE(s->progress);
}

/* How many of @nr chunks may be placed now? 0: none, in a moment again. The lock is held. */
u32 __snap_store_ration(struct snap_store *s, u32 nr)
{
	u32 chunk_blocks = s->vol->chunk_sectors / SNAP_BLOCK_SECTORS, some;
	struct sd_space space;

	lockdep_assert_held(&s->lock);
	sd_space(s->core, &space);
	if (!space.coming || space.room < chunk_blocks || space.room >= space.usable / RATION_PART)
		return nr;
	s->urgent = true;
	snap_store_kick(s);
	if (time_before(jiffies, s->ration_after))
		return 0;
	s->ration_after = jiffies + RATION_PAUSE;
	some = min_t(u64, div_u64(space.room, chunk_blocks * RATION_PART), nr);
	return max(some, 1u);
}

/** snap_store_room() - May block. All 0 when the store is closed */
void snap_store_room(struct snap_store *s, struct snap_room *out)
{
	struct sd_space space = { };
	unsigned int noio;

	down_read(&s->alive);
	if (s->core) {
		noio = snap_store_lock(s);
		sd_space(s->core, &space);
		snap_store_unlock(s, noio);
	}
	up_read(&s->alive);
	out->usable = space.usable * SD_BLOCK_SIZE;
	out->room = space.room * SD_BLOCK_SIZE;
	out->coming = space.coming * SD_BLOCK_SIZE;
}

static int gain(struct snap_store *s, struct sd_gain *g)
{
	unsigned int noio = memalloc_noio_save();
	int err;

	do {
		struct sd_version *v = sd_version_get(s->core);

		err = sd_gain(v, g);
		sd_version_put(v);
		if (err > 0 && snap_cow_waits_long(s->vol->cow))
			err = -EINTR;
	} while (err > 0);
	memalloc_noio_restore(noio);
	return err;
}

/**
 * snap_store_gain() - who needs the copies that there are?
 * @g: all live generations, ascending
 * @seen: copies that were looked at: all, or a sample
 *
 * May block for some thousand reads of metadata. Return: 0; -ENODEV; -EINTR: writes have been waiting for room too long; -EIO, -EUCLEAN, -ENOMEM.
 */
int snap_store_gain(struct snap_volume *vol, struct snap_gain *g, u32 nr, u64 *seen)
{
	struct snap_store *s = vol->store;
	struct sd_gain_of *of = kvmalloc_array(nr, sizeof(*of), GFP_NOIO);
	u32 *live = kvmalloc_array(nr, sizeof(*live), GFP_NOIO);
	struct sd_gain core = { .live = live, .nr = nr, .gain = of };
	int err = of && live ? 0 : -ENOMEM;
	u32 i;

	for (i = 0; !err && i < nr; i++) {
		live[i] = g[i].gen;
		of[i].keep = g[i].keep;
	}
	down_read(&s->alive);
	if (!err)
		err = s->core ? gain(s, &core) : -ENODEV;
	up_read(&s->alive);
	for (i = 0; !err && i < nr; i++) {
		g[i].alone = of[i].alone;
		g[i].shared = of[i].shared;
	}
	*seen = core.seen;
	kvfree(live);
	kvfree(of);
	return err;
}
