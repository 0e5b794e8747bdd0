// SPDX-License-Identifier: GPL-2.0
/*
 * Commits: what the copy worker does with the core's groups, and changes of the generations for the control path.
 */
#include <linux/stddef.h>
#include "store_internal.h"

#define DM_MSG_PREFIX SNAP_NAME

/* The write path's items are the core's. */
static_assert(sizeof(struct snap_item) == sizeof(struct sd_item));
static_assert(offsetof(struct snap_item, chunk) == offsetof(struct sd_item, chunk));
static_assert(offsetof(struct snap_item, kind) == offsetof(struct sd_item, kind));
static_assert(offsetof(struct snap_item, crc) == offsetof(struct sd_item, crc));
static_assert(offsetof(struct snap_item, addr) == offsetof(struct sd_item, addr));
static_assert((int)SNAP_NONE == (int)SD_KIND_NONE && (int)SNAP_DATA == (int)SD_KIND_DATA);
static_assert((int)SNAP_ZERO == (int)SD_KIND_ZERO && (int)SNAP_BAD == (int)SD_KIND_BAD && SNAP_MARK == SD_KIND_MARK);
static_assert((int)SNAPDIFF_GEN_LIVE == (int)SD_GEN_LIVE && (int)SNAPDIFF_GEN_BOOKMARK == (int)SD_GEN_BOOKMARK);
static_assert((int)SNAPDIFF_GEN_LOST == (int)SD_GEN_LOST);
static_assert(SNAPDIFF_GEN_F_PINNED == SD_GEN_F_PINNED && SNAPDIFF_GEN_F_FROZEN == SD_GEN_F_FROZEN);
static_assert(SNAPDIFF_GEN_F_CHANGES_UNKNOWN == SD_GEN_F_CHANGES_UNKNOWN);

static void set_sealed(struct snap_sealed *out, struct sd_group *g)
{
	out->core = g;
	out->image = g->image;
	out->image_blocks = g->image_blocks;
	out->image_addr = g->image_addr;
}

/* The lock is held. A failure inside the core is noticed where it happens. */
static int core_error(struct snap_store *s, int err)
{
	struct sd_info info;

	if (err != -EIO)
		return err;
	sd_info(s->core, &info);
	if (info.failed)
		__snap_store_failed(s);
	return err;
}

/* The lock is held. */
static int seal_items(struct snap_store *s, struct snap_item *items, u32 nr, struct snap_sealed *out)
{
	struct sd_group *g;
	int taken, err;

	err = sd_group_begin(s->core, &g);
	if (err)
		return err;
	taken = sd_group_add_items(s->core, g, (struct sd_item *)items, nr);
	if (taken > 0) {
		err = sd_group_seal(s->core, g);
		if (!err) {
			set_sealed(out, g);
			return taken;
		}
		taken = err;
	}
	sd_group_destroy(s->core, g);
	return taken ?: -EIO;
}

/**
 * snap_store_seal_items() - [copy worker] addresses and journal image for the first of @items
 *
 * May block (allocation bitmaps are read). @items stay where they are until commit. Return: how many were taken (>= 1);
 * -ENOSPC, -EAGAIN (background thread must checkpoint), -EBUSY (rationed: a moment later), -ENOMEM, -EIO (store failed).
 */
int snap_store_seal_items(struct snap_store *s, struct snap_item *items, u32 nr, struct snap_sealed *out)
{
	unsigned int noio = snap_store_lock(s);
	int n = s->failed ? -EIO : __snap_store_ration(s, nr);

	if (!n)
		n = -EBUSY;
	else if (n > 0)
		n = core_error(s, seal_items(s, items, n, out));
	if (n > 0)
		s->exhausted = false;
	snap_store_unlock(s, noio);
	return n;
}

static void pack_gen(struct sd_gen *d, const struct snap_gen *g)
{
	memset(d, 0, sizeof(*d));
	d->number = g->number;
	d->state = g->state;
	d->flags = g->flags & ~SNAPDIFF_GEN_F_ACTIVE;
	d->created_ns = g->created_ns;
	d->size_sectors = g->size >> SECTOR_SHIFT;
	memcpy(d->uuid, g->uuid, sizeof(d->uuid));
	strscpy(d->label, g->label, sizeof(d->label));
}

/* The lock is held. The count of changed chunks is the core's own: it goes back as it is now. */
static int put_gen(struct snap_store *s, struct sd_group *group, const struct snap_gen *gen)
{
	struct sd_gen old, new;

	pack_gen(&new, gen);
	if (!sd_gen_find(s->core, gen->number, &old)) {
		if (old.state == SD_GEN_LOST && new.state != SD_GEN_LOST)
			return -EIO;
		new.changed = old.changed;
	}
	return sd_group_put_gen(s->core, group, &new);
}

/* The lock is held. */
static int add_change(struct snap_store *s, struct sd_group *group, const struct snap_change *c)
{
	switch (c->op) {
	case SNAP_OP_PUT:
		return put_gen(s, group, c->gen);
	case SNAP_OP_DEL:
		return sd_group_del_gens(s->core, group, c->first, c->last);
	case SNAP_OP_LOSE:
		return sd_group_lose_gens(s->core, group, c->first, c->last, c->unknown);
	}
	return -EINVAL;
}

/* The lock is held. */
static int seal_change(struct snap_store *s, const struct snap_change *change, struct snap_sealed *out)
{
	struct sd_group *g;
	int err;

	err = sd_group_begin(s->core, &g);
	if (err)
		return err;
	err = add_change(s, g, change);
	if (!err)
		err = sd_group_seal(s->core, g);
	if (err)
		sd_group_destroy(s->core, g);
	else
		set_sealed(out, g);
	return err;
}

/** snap_store_seal_change() - [copy worker] a group for one change of the generations. May block. Return: 0 or as snap_store_seal_items(), -EINVAL, -E2BIG */
int snap_store_seal_change(struct snap_store *s, struct snap_change *change, struct snap_sealed *out)
{
	unsigned int noio = snap_store_lock(s);
	int err = s->failed ? -EIO : core_error(s, seal_change(s, change, out));

	snap_store_unlock(s, noio);
	return err;
}

/** snap_store_relocate() - [copy worker] data could not be written: other addresses, image rebuilt. May block. 0 or -ENOSPC */
int snap_store_relocate(struct snap_store *s, struct snap_sealed *sealed)
{
	unsigned int noio = snap_store_lock(s);
	int err = s->failed ? -EIO : sd_group_relocate(s->core, sealed->core);

	if (!err)
		set_sealed(sealed, sealed->core);
	snap_store_unlock(s, noio);
	return err;
}

/* The lock is held. */
static void change_committed(struct snap_store *s, const struct snap_change *c)
{
	if (c->op == SNAP_OP_PUT)
		__snap_store_resync(s, c->gen->number, c->gen->number);
	else
		__snap_store_resync(s, c->first, c->last);
	__snap_store_refresh(s);
	s->exhausted = false;
}

/*
 * Time to look at the watermarks: a hundredth of the diff has been used since. Steps and idle moments alone would notice a burst too late, and
 * generations have to be given up before there is no room left, not then. The lock is held.
 */
static bool much_copied(struct snap_store *s, const struct sd_group *g)
{
	s->copied += (u64)g->nr_items * (s->vol->chunk_sectors / SNAP_BLOCK_SECTORS);
	if (s->copied < s->dev.nr_blocks / 128)
		return false;
	s->copied = 0;
	return true;
}

/**
 * snap_store_commit() - [copy worker] the group is durable: make it visible
 * @change: what it was sealed for, or NULL
 *
 * In order of sealing. Return: false: the store has failed meanwhile, the group was dropped.
 */
bool snap_store_commit(struct snap_store *s, struct snap_sealed *sealed, struct snap_change *change)
{
	unsigned int noio = snap_store_lock(s);
	bool ok = !s->failed;
	bool kick = false, look = false;

	if (ok) {
		look = much_copied(s, sealed->core);
		sd_group_commit(s->core, sealed->core);
		if (change)
			change_committed(s, change);
		kick = sd_background_work(s->core) >= (change ? SD_WORK_IDLE : SD_WORK_SOON);
		WRITE_ONCE(s->active, true);
	} else {
		sd_group_destroy(s->core, sealed->core);
	}
	snap_store_unlock(s, noio);
	if (kick)
		snap_store_kick(s);
	if (look)
		snap_cow_house(s->vol->cow, SNAP_HOUSE_SPACE);
	return ok;
}

/** snap_store_drop() - [copy worker] the store has failed: this group will never be durable */
void snap_store_drop(struct snap_store *s, struct snap_sealed *sealed)
{
	unsigned int noio = snap_store_lock(s);

	sd_group_destroy(s->core, sealed->core);
	snap_store_unlock(s, noio);
}

/* ---- for the control path ----------------------------------------------------------------------- */

static int submit_change(struct snap_volume *vol, struct snap_change *change)
{
	struct snap_store *s = vol->store;
	int err;

	down_read(&s->alive);
	mutex_lock(&s->changes);
	if (!s->core || s->closing)
		err = -ENODEV;
	else if (snap_store_failed(s))
		err = -EIO;
	else
		err = snap_cow_change(vol->cow, change);
	mutex_unlock(&s->changes);
	up_read(&s->alive);
	return err;
}

/**
 * snap_store_put_gen() - create a generation, or replace its descriptor; durable when it returns 0
 *
 * May block. For a new one the gate is closed by the caller. Return: 0; -EINVAL, -EMFILE, -ENOSPC, -EIO (store failed, or the
 * generation is lost and @gen would bring it back), -ENODEV (volume gone), -ENOMEM.
 */
int snap_store_put_gen(struct snap_volume *vol, const struct snap_gen *gen)
{
	struct snap_change change = { .op = SNAP_OP_PUT, .gen = gen };
	int err;

	/* so that the commit has nothing to allocate */
	err = xa_reserve(&vol->store->gens, gen->number, GFP_NOIO);
	if (err)
		return err;
	err = submit_change(vol, &change);
	if (err)
		xa_release(&vol->store->gens, gen->number);
	return err;
}

/** snap_store_del_gens() - delete the generations @first..@last; durable when it returns 0. May block */
int snap_store_del_gens(struct snap_volume *vol, u32 first, u32 last)
{
	struct snap_change change = { .op = SNAP_OP_DEL, .first = first, .last = last };

	return submit_change(vol, &change);
}

/** snap_store_lose_gens() - live ones among @first..@last are lost; durable when it returns 0. May block, but not for vol->control */
int snap_store_lose_gens(struct snap_volume *vol, u32 first, u32 last, bool changes_unknown)
{
	struct snap_change change = { .op = SNAP_OP_LOSE, .first = first, .last = last, .unknown = changes_unknown };

	return submit_change(vol, &change);
}
