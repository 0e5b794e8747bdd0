// SPDX-License-Identifier: GPL-2.0
/*
 * A full diff (DESIGN §6): which generations are given up, and when.
 *
 *                        90 % used                                        no room for a copy
 *     drop-oldest        oldest live one, as long as another stays        oldest live one
 *     drop-all           nothing                                          all live ones
 *     fail-snapshots     nothing                                          all live ones
 *
 *   drop-all gives up the space in one go; fail-snapshots says in addition that nothing recorded since is to be trusted as a base for increments (changes unknown), as a
 *   full dm-snapshot does.
 *
 * "Used" is what will be used when everything has been reclaimed that can be: what was given up comes back some transactions later, and until then nothing more must go
 * for the same need. "No room" is asked only when there is nothing left to reclaim (cow.c: "no space").
 *
 * Pinned and active generations go last, and never at 90 %. But an old one of these needs what was copied since its cut, if the chunk had not been copied before. Giving up the
 * younger ones then gives nothing back:
 *
 *	live:		1 (pinned)	2	3	4
 *	chunk a		├─ copied here: needed by 1
 *	chunk b		                └─ copied here: needed by 1 and 2; it stays when 2 is given up
 *	chunk a again	                └─ copied here: needed by 2 only
 *
 * So when one that is to stay is older than the candidates, the copies are counted by who needs them (snap_store_gain()), and given up is the oldest of which something comes
 * back. If nothing comes back of any of them, none is touched at 90 %; without room the pinned and active ones are next, because with them there everything goes in the end.
 *
 * Who may not take vol->control here: both entries. A cutter holds it while he waits at the gate for the write that waits for room. They change the state of generations behind
 * the back of whoever does hold it; the store refuses a put that would bring a lost generation back.
 */
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include "snapdiff.h"

/* Percent of what copies can use (the metadata's reserve is not part of it). */
#define USED_LOW	80u	/* tell */
#define USED_OK		75u	/* tell that it is over */
#define USED_HIGH	90u	/* begin to drop */
#define WORTH		256u	/* a part of the copies that is worth a generation */
#define AT_ONCE		16u	/* given up in one go, at most */

/* ---- which -------------------------------------------------------------------------------------- */

/* The oldest live generation from *@from on; *@from goes behind it, 0 at the end. */
static bool next_live(struct snap_volume *vol, u32 *from, struct snap_gen *gen)
{
	while (*from && !snap_store_gen_next(vol->store, *from, gen)) {
		*from = gen->number + 1;
		if (gen->state == SNAPDIFF_GEN_LIVE)
			return true;
	}
	return false;
}

static bool in_use(struct snap_volume *vol, const struct snap_gen *gen)
{
	return (gen->flags & SNAPDIFF_GEN_F_PINNED) || snap_virt_index(vol, gen->number) >= 0;
}

/* The live generations, oldest first; NULL: no memory or none. */
static struct snap_gain *live_gens(struct snap_volume *vol, unsigned int *nr)
{
	struct snap_gain *g = NULL;
	unsigned int cap = 0;
	struct snap_gen gen;
	u32 from = 1;

	*nr = 0;
	while (next_live(vol, &from, &gen)) {
		if (*nr == cap) {
			struct snap_gain *more;

			cap = max(16u, 2 * cap);
			more = kvmalloc_array(cap, sizeof(*g), GFP_NOIO);
			if (more && *nr)
				memcpy(more, g, *nr * sizeof(*g));
			kvfree(g);
			g = more;
			if (!g)
				return NULL;
		}
		g[(*nr)++] = (struct snap_gain){ .gen = gen.number, .keep = in_use(vol, &gen) };
	}
	return g;
}

/* Without memory for the list: the oldest. */
static u32 just_the_oldest(struct snap_volume *vol, bool whatever)
{
	struct snap_gen gen;
	u32 from = 1;

	while (next_live(vol, &from, &gen))
		if (whatever || !in_use(vol, &gen))
			return gen.number;
	return 0;
}

/*
 * Of those that may go, the oldest of which enough comes back at once; else the oldest from which on enough comes back when younger ones go, too; else, if all together
 * have enough, the one with most. 0: it would be in vain.
 */
static u32 worth_giving_up(const struct snap_gain *g, unsigned int nr, u64 seen)
{
	u64 enough = seen / WORTH + 1, all = 0;
	const struct snap_gain *most = NULL;
	unsigned int i;

	for (i = 0; i < nr; i++)
		if (!g[i].keep && g[i].alone >= enough)
			return g[i].gen;
	for (i = 0; i < nr; i++) {
		u64 here = g[i].alone + g[i].shared;

		if (g[i].keep)
			continue;
		if (here >= enough)
			return g[i].gen;
		if (!most || here > most->alone + most->shared)
			most = &g[i];
		all += here;
	}
	return all >= enough ? most->gen : 0;
}

/* Nothing comes back of the others: the oldest of those in use that has something of its own, or just the oldest. */
static u32 one_in_use(const struct snap_gain *g, unsigned int nr, u64 seen)
{
	unsigned int i;

	for (i = 0; i < nr; i++)
		if (g[i].keep && g[i].alone >= seen / WORTH + 1)
			return g[i].gen;
	for (i = 0; i < nr; i++)
		if (g[i].keep)
			return g[i].gen;
	return nr ? g[0].gen : 0;
}

/* Which one is next? @whatever: there is no room, one has to go. 0: none */
static u32 pick(struct snap_volume *vol, bool whatever)
{
	unsigned int nr, i;
	struct snap_gain *g = live_gens(vol, &nr);
	u64 seen = 0;
	u32 gen = 0;

	if (!g)
		return just_the_oldest(vol, whatever);
	for (i = 0; i < nr && g[i].keep; i++)
		;
	if (i == 0)
		gen = g[0].gen;
	else if (i < nr && !snap_store_gain(vol, g, nr, &seen))
		gen = worth_giving_up(g, nr, seen);
	else if (i < nr && whatever)
		gen = g[i].gen;		/* not known what would come back: no reason to give up one in use */
	if (!gen && whatever)
		gen = one_in_use(g, nr, seen);
	kvfree(g);
	return gen;
}

/* ---- giving up ----------------------------------------------------------------------------------- */

static int lose_one(struct snap_volume *vol, u32 number, const char *why)
{
	int err = snap_store_lose_gens(vol, number, number, false);

	if (err)
		return err;
	snap_count(vol, SNAP_C_LOST_GENS);
	snap_event(vol, SNAPDIFF_EVENT_LOST, number, ENOSPC, why);
	return 0;
}

static int lose_all(struct snap_volume *vol, bool unknown)
{
	struct snap_summary sum;
	struct snap_gen gen;
	unsigned int live = 0;
	char text[96];
	u32 from = 1;
	int err;

	while (next_live(vol, &from, &gen))
		live++;
	snap_store_summary(vol->store, &sum);
	err = snap_store_lose_gens(vol, 1, sum.highest, unknown);
	if (err)
		return err;
	snap_count_add(vol, SNAP_C_LOST_GENS, live);
	if (live)
		snprintf(text, sizeof(text), "all %u live generations, the differential volume is full", live);
	else
		snprintf(text, sizeof(text), "what has changed is not known any more, the differential volume is full");
	snap_event(vol, SNAPDIFF_EVENT_LOST, 0, ENOSPC, text);
	return 0;
}

/* Is another live one there beside @gen? */
static bool another_lives(struct snap_volume *vol, u32 gen)
{
	struct snap_gen other;
	u32 from = 1;

	while (next_live(vol, &from, &other))
		if (other.number != gen)
			return true;
	return false;
}

static unsigned int percent(u64 free, u64 usable)
{
	return !usable || free >= usable ? 0 : 100 - div64_u64(free * 100, usable);
}

/* Down to USED_HIGH, when everything has come back, if one stays. */
static void drop_oldest(struct snap_volume *vol)
{
	struct snap_room room;
	unsigned int i, used;
	u32 gen;

	for (i = 0; i < AT_ONCE; i++) {
		snap_store_room(vol->store, &room);
		used = percent(room.room + room.coming, room.usable);
		if (used < USED_HIGH || used <= vol->space.vain)
			return;
		gen = pick(vol, false);
		vol->space.vain = gen ? 0 : used;	/* looked at again when it has become worse */
		if (!gen || !another_lives(vol, gen) || lose_one(vol, gen, "the differential volume is nearly full"))
			return;
	}
}

/**
 * snap_gen_make_room() - there is no room for a copy and nothing left to reclaim: give up generations
 * @last_resort: whatever it costs
 *
 * Context: housekeeping work of the copy path; blocks for a commit; never takes vol->control.
 * Return: 0: something has been given up, durably, or the store has failed: look at the summary again; -EAGAIN: nothing is left
 * to give up.
 */
int snap_gen_make_room(struct snap_volume *vol, bool last_resort)
{
	u8 policy = READ_ONCE(vol->on_full);
	struct snap_summary sum;
	u32 gen;

	if (!vol->space.full) {
		vol->space.full = vol->space.low = true;
		snap_event(vol, SNAPDIFF_EVENT_FULL, 0, ENOSPC, NULL);
	}
	snap_store_summary(vol->store, &sum);
	if (!sum.newest_live) {
		/* The changed sets of lost generations and of bookmarks are all that is left. */
		if (!last_resort || !sum.newest_kept)
			return -EAGAIN;
		return lose_all(vol, true) ? -EAGAIN : 0;
	}
	if (last_resort || policy != SNAPDIFF_ON_FULL_DROP_OLDEST) {
		lose_all(vol, policy == SNAPDIFF_ON_FULL_FAIL);
		return 0;
	}
	gen = pick(vol, true);
	vol->space.vain = 0;
	if (gen && !lose_one(vol, gen, "the differential volume is full"))
		drop_oldest(vol);
	return 0;
}

/**
 * snap_gen_check_space() - watermarks of the diff
 *
 * Context: housekeeping work of the copy path; may block for a commit; never takes vol->control.
 */
void snap_gen_check_space(struct snap_volume *vol)
{
	struct snap_room room;
	unsigned int used;
	char text[32];

	if (snap_store_failed(vol->store))
		return;
	snap_store_room(vol->store, &room);
	used = percent(room.room, room.usable);
	snprintf(text, sizeof(text), "%u %% used", used);
	if (used >= USED_LOW && !vol->space.low) {
		vol->space.low = true;
		snap_event(vol, SNAPDIFF_EVENT_LOW_SPACE, 0, 0, text);
	}
	if (used < USED_OK && vol->space.low) {
		vol->space.low = vol->space.full = false;
		snap_event(vol, SNAPDIFF_EVENT_SPACE_OK, 0, 0, text);
	}
	if (used < USED_HIGH)
		vol->space.vain = 0;
	else if (READ_ONCE(vol->on_full) == SNAPDIFF_ON_FULL_DROP_OLDEST)
		drop_oldest(vol);
}
