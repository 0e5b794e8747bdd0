// SPDX-License-Identifier: GPL-2.0
/*
 * Generations: cut, delete, bookmark, pin, label. (What is given up when the diff is full: full.c.)
 *
 * A cut of one or several volumes
 *
 *     lock control of all ─ freeze filesystems ─ close all gates ─ flush primaries ─ put a generation on each ─ open gates ─ thaw
 *
 *   * When all gates are closed no write is under way on any of the volumes: that is the instant. Everything acknowledged before it is in the
 *     generations, everything issued after it is not.
 *   * A chunk without a record is read from the primary. So what is in the primary's volatile cache at that instant has to be durable before the
 *     generation is: a power cut would take it away, and from a generation whose creation was acknowledged.
 *   * Freezing comes before the gates: it writes, and those writes pass the gates and the copy path as all others do. Thawing comes after them,
 *     as it writes, too. From the first freeze to the last thaw no allocation may start reclaim that waits for these filesystems or for the gates:
 *     memalloc_noio.
 *   * A freeze that fails, a cut that fails, a kill while waiting: nothing has happened. What was already cut is deleted again while the gates are
 *     closed (its number is used up: numbers are never reused).
 *
 * Volumes may be stacked: the primary of one lies on another (as dm device, partition, loop file). A write of the upper one passes the gate and the filesystem of the
 * lower one. So what is done to all is done from the top: a volume is younger than what it lies on, and the youngest comes first. What is undone is undone from
 * the bottom.
 *
 * A differential volume that lies on another volume of the group (or in a file of its filesystem) cannot be written while that one's gate is closed. Where it can be seen
 * it is refused. Where it cannot, the put that takes longer than PUT_PATIENCE fails the cut: the gates of the older volumes are opened and their filesystems thawed, so that it ends;
 * then all is undone. Its own gate stays closed until then: what has once been durable as a generation is of one instant, whatever becomes of it.
 *
 * Order of locks: control is taken for several volumes only under group_lock, so that two groups cannot wait for each other; who takes just one
 * control needs no order.
 */
#include <linux/blkdev.h>
#include <linux/ktime.h>
#include <linux/sched/mm.h>
#include <linux/uuid.h>
#include <linux/workqueue.h>
#include "snapdiff.h"

#define DM_MSG_PREFIX	SNAP_NAME

#define PUT_PATIENCE	(30 * HZ)	/* writes to the other volumes of a group wait no longer for one slow diff */

static DEFINE_MUTEX(group_lock);
static struct workqueue_struct *put_wq;

/* ---- refusals ------------------------------------------------------------------------------------- */

static int check_usable(struct snap_volume *vol, struct netlink_ext_ack *extack)
{
	if (!snap_volume_usable(vol)) {
		snap_refuse(extack, "%s: is not attached any more", vol->name);
		return -ENODEV;
	}
	if (snap_store_failed(vol->store)) {
		snap_refuse(extack, "%s: the differential volume has failed", vol->name);
		return -EIO;
	}
	return 0;
}

/* Lock the volume for one operation. Return: 0 with control held. */
static int control_enter(struct snap_volume *vol, struct netlink_ext_ack *extack)
{
	int err;

	mutex_lock(&vol->control);
	err = check_usable(vol, extack);
	if (err)
		mutex_unlock(&vol->control);
	return err;
}

static int find_gen(struct snap_volume *vol, u32 number, struct snap_gen *gen, struct netlink_ext_ack *extack)
{
	int err = snap_store_gen_find(vol->store, number, gen);

	if (err == -ENOENT)
		snap_refuse(extack, "%s@%u: no such generation", vol->name, number);
	else if (err)
		snap_refuse(extack, "%s@%u: the catalog cannot be read", vol->name, number);
	return err;
}

static int check_unused(struct snap_volume *vol, const struct snap_gen *gen, struct netlink_ext_ack *extack)
{
	int index = snap_virt_index(vol, gen->number);

	if (index >= 0) {
		snap_refuse(extack, "%s@%u: is active as /dev/snapvirt%d", vol->name, gen->number, index);
		return -EBUSY;
	}
	if (gen->flags & SNAPDIFF_GEN_F_PINNED) {
		snap_refuse(extack, "%s@%u: is pinned", vol->name, gen->number);
		return -EBUSY;
	}
	return 0;
}

static void refuse_commit(struct snap_volume *vol, u32 gen, int err, struct netlink_ext_ack *extack)
{
	switch (err) {
	case 0:
		break;
	case -ENOSPC:
		snap_refuse(extack, "%s@%u: no room on the differential volume", vol->name, gen);
		break;
	case -EMFILE:
	case -E2BIG:
		snap_refuse(extack, "%s@%u: too many generations", vol->name, gen);
		break;
	default:
		snap_refuse(extack, "%s@%u: could not be written to the differential volume: error %d", vol->name, gen, err);
	}
}

/* ---- cut -------------------------------------------------------------------------------------------- */

struct cut {
	struct snap_create_req *req;
	u8 order[SNAP_CUT_MAX];				/* of req->vols: the youngest volume first */
	unsigned int locked, frozen, closed, put;	/* how many in that order are so far */
	unsigned int noio;
};

static void cut_order(struct cut *c)
{
	struct snap_create_req *req = c->req;
	unsigned int i, k;

	for (i = 0; i < req->nr; i++) {
		for (k = i; k && req->vols[c->order[k - 1]]->position < req->vols[i]->position; k--)
			c->order[k] = c->order[k - 1];
		c->order[k] = i;
	}
}

static struct snap_volume *cut_volume(struct cut *c, unsigned int i)
{
	return c->req->vols[c->order[i]];
}

static struct snap_gen *cut_gen(struct cut *c, unsigned int i)
{
	return &c->req->out[c->order[i]];
}

static struct block_device *dm_bdev(struct snap_volume *vol)
{
	return dm_disk(vol->md)->part0;
}

static int cut_lock(struct cut *c)
{
	struct snap_create_req *req = c->req;
	int err;

	if (req->nr > 1)
		mutex_lock(&group_lock);
	for (c->locked = 0; c->locked < req->nr; c->locked++) {
		struct snap_volume *vol = cut_volume(c, c->locked);

		if (req->nr > 1)
			mutex_lock_nest_lock(&vol->control, &group_lock);
		else
			mutex_lock(&vol->control);
		err = check_usable(vol, req->extack);
		if (err) {
			mutex_unlock(&vol->control);
			return err;
		}
	}
	return 0;
}

static void cut_unlock(struct cut *c)
{
	while (c->locked)
		mutex_unlock(&cut_volume(c, --c->locked)->control);
	if (c->req->nr > 1)
		mutex_unlock(&group_lock);
}

static int cut_freeze(struct cut *c)
{
	struct snap_create_req *req = c->req;
	int err;

	if (!req->freeze)
		return 0;
	for (c->frozen = 0; c->frozen < req->nr; c->frozen++) {
		struct snap_volume *vol = cut_volume(c, c->frozen);

		err = bdev_freeze(dm_bdev(vol));
		if (err) {
			snap_refuse(req->extack, "%s: the filesystem could not be frozen: error %d", vol->name, err);
			return err;
		}
		if (snap_bdev_frozen_fs(dm_bdev(vol)))
			cut_gen(c, c->frozen)->flags |= SNAPDIFF_GEN_F_FROZEN;
	}
	return 0;
}

/* All but the first @left. */
static void cut_thaw(struct cut *c, unsigned int left)
{
	while (c->frozen > left) {
		struct snap_volume *vol = cut_volume(c, --c->frozen);
		int err = bdev_thaw(dm_bdev(vol));

		if (err)
			DMERR("%s: the filesystem could not be thawed: error %d", vol->name, err);
	}
}

static int cut_close(struct cut *c)
{
	struct snap_create_req *req = c->req;
	int err;

	for (c->closed = 0; c->closed < req->nr; c->closed++) {
		struct snap_volume *vol = cut_volume(c, c->closed);

		err = snap_gate_close(vol->gate);
		if (err) {
			snap_refuse(req->extack, "%s: interrupted while waiting for writes", vol->name);
			return err;
		}
	}
	return 0;
}

/* Everything acknowledged before the cut is in the generations, so it must not be lost from the primaries any more. */
static int cut_flush(struct cut *c)
{
	struct snap_create_req *req = c->req;
	unsigned int i;
	int err;

	for (i = 0; i < req->nr; i++) {
		struct snap_volume *vol = cut_volume(c, i);

		err = blkdev_issue_flush(vol->primary_bdev);
		if (err) {
			snap_refuse(req->extack, "%s: the primary could not be flushed: error %d", vol->name, err);
			return err;
		}
	}
	return 0;
}

/* All but the first @left. */
static void cut_open(struct cut *c, unsigned int left)
{
	while (c->closed > left)
		snap_gate_open(cut_volume(c, --c->closed)->gate);
}

static void describe(struct snap_volume *vol, struct snap_gen *gen, u64 now, const char *label)
{
	struct snap_summary sum;

	snap_store_summary(vol->store, &sum);
	gen->number = sum.highest + 1;
	gen->state = SNAPDIFF_GEN_LIVE;
	gen->created_ns = now;
	gen->size = (u64)READ_ONCE(vol->size) << SECTOR_SHIFT;
	generate_random_uuid(gen->uuid);
	strscpy(gen->label, label ?: "", sizeof(gen->label));
}

struct put {
	struct work_struct work;
	struct snap_volume *vol;
	const struct snap_gen *gen;
	struct completion done;
	int err;
};

static void put_work(struct work_struct *work)
{
	struct put *p = container_of(work, struct put, work);
	unsigned int noio = memalloc_noio_save();

	p->err = snap_store_put_gen(p->vol, p->gen);
	memalloc_noio_restore(noio);
	complete(&p->done);
}

/* Durable on volume c->put. Return: 0 or -errno; *late: the older volumes had to be let go. */
static int put_one(struct cut *c, const struct snap_gen *gen, bool *late)
{
	struct put p = { .vol = cut_volume(c, c->put), .gen = gen };

	if (c->put + 1 == c->closed)	/* nobody else waits */
		return snap_store_put_gen(p.vol, gen);
	init_completion(&p.done);
	INIT_WORK_ONSTACK(&p.work, put_work);
	queue_work(put_wq, &p.work);
	*late = !wait_for_completion_timeout(&p.done, PUT_PATIENCE);
	if (*late) {
		cut_open(c, c->put + 1);
		cut_thaw(c, c->put + 1);
	}
	flush_work(&p.work);
	destroy_work_on_stack(&p.work);
	return p.err;
}

static int cut_put(struct cut *c)
{
	struct snap_create_req *req = c->req;
	u64 now = ktime_get_real_ns();
	bool late = false;
	int err;

	for (c->put = 0; c->put < req->nr; c->put++) {
		struct snap_volume *vol = cut_volume(c, c->put);
		struct snap_gen *gen = cut_gen(c, c->put);

		describe(vol, gen, now, req->label);
		err = gen->number ? put_one(c, gen, &late) : -EMFILE;
		if (late) {
			snap_refuse(req->extack, "%s@%u: was not durable within %d s: does the differential volume lie on another volume of the group?", vol->name,
				    gen->number, PUT_PATIENCE / HZ);
			c->put += !err;		/* it is now */
			return -ETIMEDOUT;
		}
		if (err) {
			refuse_commit(vol, gen->number, err, req->extack);
			return err;
		}
	}
	return 0;
}

static void cut_undo(struct cut *c)
{
	while (c->put) {
		struct snap_volume *vol = cut_volume(c, --c->put);
		u32 number = cut_gen(c, c->put)->number;
		int err = snap_store_del_gens(vol, number, number);

		if (err)
			DMERR("%s@%u: is left over from a cut that failed: error %d", vol->name, number, err);
	}
}

/* As far as it can be seen from here: on the volume itself, or a partition of it. */
static int check_diffs(struct snap_create_req *req)
{
	unsigned int i, k;

	for (i = 0; i < req->nr; i++)
		for (k = 0; k < req->nr; k++)
			if (snap_volume_usable(req->vols[i]) && snap_volume_usable(req->vols[k]) &&
			    req->vols[i]->diff_bdev->bd_disk == dm_disk(req->vols[k]->md)) {
				snap_refuse(req->extack, "%s: its differential volume lies on %s: they cannot be cut at one instant", req->vols[i]->name,
					    req->vols[k]->name);
				return -EINVAL;
			}
	return 0;
}

static int check_distinct(struct snap_create_req *req)
{
	unsigned int i, k;

	for (i = 0; i < req->nr; i++)
		for (k = 0; k < i; k++)
			if (req->vols[i] == req->vols[k]) {
				snap_refuse(req->extack, "%s: named twice", req->vols[i]->name);
				return -EINVAL;
			}
	return 0;
}

/**
 * snap_gen_create() - cut one generation of each volume, all at one instant
 * @req: the request; the caller holds a reference to each volume, req->out gets the generations
 *
 * Context: blocks: for the freeze, for writes in flight, for one commit a volume. Killable while it waits for writes.
 * Return: 0: all generations are durable; -errno: none exists, the text is in req->extack. -ENODEV, -EIO (store failed), -EINVAL (named
 * twice, or a diff lies on one of the others), -EINTR, -ENOSPC, -EMFILE, -ETIMEDOUT (a diff did not answer), or what the filesystem said to the freeze.
 */
int snap_gen_create(struct snap_create_req *req)
{
	struct cut c = { .req = req };
	unsigned int i;
	int err;

	memset(req->out, 0, req->nr * sizeof(*req->out));
	err = req->nr <= SNAP_CUT_MAX ? check_distinct(req) : -E2BIG;
	if (err)
		return err;
	cut_order(&c);
	err = cut_lock(&c);
	if (err)
		goto unlock;
	err = check_diffs(req);
	if (err)
		goto unlock;
	c.noio = memalloc_noio_save();
	err = cut_freeze(&c);
	if (err)
		goto thaw;
	err = cut_close(&c);
	if (!err)
		err = cut_flush(&c);
	if (err)
		goto open;
	err = cut_put(&c);
	if (err)
		cut_undo(&c);
open:
	cut_open(&c, 0);
thaw:
	cut_thaw(&c, 0);
	memalloc_noio_restore(c.noio);
	for (i = 0; !err && i < req->nr; i++)
		snap_event(req->vols[i], SNAPDIFF_EVENT_CREATED, req->out[i].number, 0, req->label);
unlock:
	cut_unlock(&c);
	return err;
}

int snap_gen_init(void)
{
	put_wq = alloc_workqueue("snapdiff_put", WQ_UNBOUND | WQ_MEM_RECLAIM, 0);
	return put_wq ? 0 : -ENOMEM;
}

/* No volume is there any more. */
void snap_gen_exit(void)
{
	destroy_workqueue(put_wq);
}

/* ---- delete, bookmark, pin, label --------------------------------------------------------------------- */

/* Nothing in first..last may be in use. Return: how many there are, or -errno. */
static int check_deletable(struct snap_volume *vol, u32 first, u32 last, struct netlink_ext_ack *extack)
{
	struct snap_gen gen;
	u32 from = first;
	int err, n = 0;

	while (from <= last && !snap_store_gen_next(vol->store, from, &gen) && gen.number <= last) {
		err = check_unused(vol, &gen, extack);
		if (err)
			return err;
		n++;
		if (gen.number == U32_MAX)
			break;
		from = gen.number + 1;
	}
	return n;
}

/**
 * snap_gen_delete() - delete the generations @first..@last
 *
 * Those of a range that do not exist are skipped; if one of them is active or pinned none is deleted. Their space comes back in the background.
 * Context: blocks for a commit; takes vol->control.
 * Return: 0: durable; -ENOENT: there is none; -EBUSY; -EINVAL; -ENODEV; -EIO.
 */
int snap_gen_delete(struct snap_volume *vol, u32 first, u32 last, struct netlink_ext_ack *extack)
{
	char text[64];
	int err, n;

	if (!first || first > last) {
		snap_refuse(extack, "%s@%u..%u: not a range", vol->name, first, last);
		return -EINVAL;
	}
	err = control_enter(vol, extack);
	if (err)
		return err;
	n = check_deletable(vol, first, last, extack);
	if (n <= 0) {
		err = n ?: -ENOENT;
		if (!n && first == last)
			snap_refuse(extack, "%s@%u: no such generation", vol->name, first);
		else if (!n)
			snap_refuse(extack, "%s@%u..%u: no such generations", vol->name, first, last);
		goto out;
	}
	err = snap_store_del_gens(vol, first, last);
	refuse_commit(vol, first, err, extack);
	if (err)
		goto out;
	snprintf(text, sizeof(text), "%u..%u (%d generations)", first, last, n);
	snap_event(vol, SNAPDIFF_EVENT_DELETED, first, 0, first == last ? NULL : text);
out:
	mutex_unlock(&vol->control);
	return err;
}

/* Write the changed descriptor. It may have been given up meanwhile (see the head of the file). */
static int put_changed(struct snap_volume *vol, const struct snap_gen *gen, enum snapdiff_event event, bool tell,
		       struct netlink_ext_ack *extack)
{
	int err = snap_store_put_gen(vol, gen);

	refuse_commit(vol, gen->number, err, extack);
	if (!err && tell)
		snap_event(vol, event, gen->number, 0, NULL);
	return err;
}

/**
 * snap_gen_bookmark() - give up the data of a generation, keep its changed set
 *
 * Nothing happens to one that is a bookmark already. Context: blocks for a commit; takes vol->control.
 * Return: 0: durable; -ENOENT; -EBUSY: active or pinned; -EINVAL: lost; -ENODEV; -EIO.
 */
int snap_gen_bookmark(struct snap_volume *vol, u32 number, struct netlink_ext_ack *extack)
{
	struct snap_gen gen;
	int err;

	err = control_enter(vol, extack);
	if (err)
		return err;
	err = find_gen(vol, number, &gen, extack);
	if (err || gen.state == SNAPDIFF_GEN_BOOKMARK)
		goto out;
	if (gen.state == SNAPDIFF_GEN_LOST) {
		snap_refuse(extack, "%s@%u: is lost", vol->name, number);
		err = -EINVAL;
		goto out;
	}
	err = check_unused(vol, &gen, extack);
	if (err)
		goto out;
	gen.state = SNAPDIFF_GEN_BOOKMARK;
	err = put_changed(vol, &gen, SNAPDIFF_EVENT_BOOKMARKED, true, extack);
out:
	mutex_unlock(&vol->control);
	return err;
}

/**
 * snap_gen_pin() - keep a generation from being deleted, and from being given up as long as there is another way; or allow it again
 *
 * Context: blocks for a commit; takes vol->control. Return: 0: durable; -ENOENT; -EINVAL: a lost one cannot be pinned; -ENODEV; -EIO.
 */
int snap_gen_pin(struct snap_volume *vol, u32 number, bool pinned, struct netlink_ext_ack *extack)
{
	struct snap_gen gen;
	int err;

	err = control_enter(vol, extack);
	if (err)
		return err;
	err = find_gen(vol, number, &gen, extack);
	if (err || pinned == !!(gen.flags & SNAPDIFF_GEN_F_PINNED))
		goto out;
	if (pinned && gen.state == SNAPDIFF_GEN_LOST) {
		snap_refuse(extack, "%s@%u: is lost", vol->name, number);
		err = -EINVAL;
		goto out;
	}
	gen.flags ^= SNAPDIFF_GEN_F_PINNED;
	err = put_changed(vol, &gen, pinned ? SNAPDIFF_EVENT_PINNED : SNAPDIFF_EVENT_UNPINNED, true, extack);
out:
	mutex_unlock(&vol->control);
	return err;
}

/**
 * snap_gen_label() - another label
 * @label: at most SNAPDIFF_LABEL_MAX bytes; empty: none
 *
 * Context: blocks for a commit; takes vol->control. Return: 0: durable; -ENOENT; -ENODEV; -EIO.
 */
int snap_gen_label(struct snap_volume *vol, u32 number, const char *label, struct netlink_ext_ack *extack)
{
	struct snap_gen gen;
	int err;

	err = control_enter(vol, extack);
	if (err)
		return err;
	err = find_gen(vol, number, &gen, extack);
	if (err)
		goto out;
	strscpy_pad(gen.label, label, sizeof(gen.label));
	err = put_changed(vol, &gen, 0, false, extack);
out:
	mutex_unlock(&vol->control);
	return err;
}
