// SPDX-License-Identifier: GPL-2.0
/*
 * Commit groups: copies become durable together. (The argument of the copy path is in cow.c.)
 *
 *	open	  items are being added from runs that have been read; at most one group
 *	writing	  sealed: addresses known, data and journal image on their way, in parallel
 *	flushing  all written; the diff has a volatile cache and the group is large. A small one is written through the cache (FUA): for who waits for one write
 *		  it is one I/O less in a row
 *	done	  durable. Committed when every group sealed before it has been
 *
 * A data write that fails is tried again at other addresses, each time further away, with the image rebuilt. A journal write or flush that fails
 * fails the store: a sealed group cannot be skipped.
 *
 * A change of the generations is a group of its own, in the same order.
 */
#include <linux/blkdev.h>
#include <linux/ioprio.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>
#include "cow.h"

#define BLOCK_SECTORS	8u
#define RELOCATIONS	4u	/* of one group */
#define FUA_BYTES	65536u	/* of data: a larger group is flushed */
#define NR_GROUPS	(SNAP_GROUPS_INFLIGHT + 2)	/* in flight, the open one, one for a change */

static void group_put(struct snap_group *g)
{
	struct snap_cow *cow = g->cow;
	unsigned long flags;

	if (!atomic_dec_and_test(&g->pending))
		return;
	spin_lock_irqsave(&cow->lock, flags);
	smp_store_release(&g->ended, true);	/* pairs with group_ended() */
	snap_cow_kick(cow);
	spin_unlock_irqrestore(&cow->lock, flags);
}

static bool group_ended(struct snap_group *g)
{
	return smp_load_acquire(&g->ended);
}

static void data_endio(struct bio *bio)
{
	struct snap_group *g = bio->bi_private;

	if (bio->bi_status)
		WRITE_ONCE(g->data_status, bio->bi_status);
	bio_put(bio);
	group_put(g);
}

static void meta_endio(struct bio *bio)
{
	struct snap_group *g = bio->bi_private;

	if (bio->bi_status)
		WRITE_ONCE(g->meta_status, bio->bi_status);
	bio_put(bio);
	group_put(g);
}

/* Waits at most for other writes to the diff, whose bios their own completion gives back. */
static struct bio *diff_bio(struct snap_group *g, unsigned int vecs, blk_opf_t opf, u64 block, bio_end_io_t *endio)
{
	struct snap_cow *cow = g->cow;
	struct bio *bio = bio_alloc_bioset(cow->vol->diff_bdev, vecs, opf, GFP_NOIO, &cow->writes);

	bio->bi_iter.bi_sector = block * BLOCK_SECTORS;
	bio->bi_end_io = endio;
	bio->bi_private = g;
	bio->bi_ioprio = g->prio;
	atomic_inc(&g->pending);
	return bio;
}

/* Are the group's writes to be durable when they end? Else a flush follows if the diff has a volatile cache by then. */
static bool write_through(const struct snap_group *g)
{
	struct snap_cow *cow = g->cow;
	struct block_device *diff = cow->vol->diff_bdev;

	return bdev_write_cache(diff) && bdev_fua(diff) && g->nr <= FUA_BYTES / cow->chunk_bytes;
}

static blk_opf_t write_opf(const struct snap_group *g)
{
	return REQ_OP_WRITE | REQ_SYNC | (g->through ? REQ_FUA : 0);
}

/* One bio for as many items as lie one behind the other. */
static void submit_data(struct snap_group *g)
{
	struct snap_cow *cow = g->cow;
	u64 blocks = cow->chunk_bytes / 4096, next = 0;
	struct bio *bio = NULL;
	u32 i, s;

	for (i = 0; i < g->nr; i++) {
		struct snap_item *item = &g->items[i];

		if (item->kind != SNAP_DATA)
			continue;
		if (bio && (item->addr != next || bio->bi_vcnt + cow->segs > bio->bi_max_vecs)) {
			submit_bio_noacct(bio);
			bio = NULL;
		}
		if (!bio)
			bio = diff_bio(g, min_t(u32, BIO_MAX_VECS, (g->nr - i) * cow->segs), write_opf(g), item->addr, data_endio);
		for (s = 0; s < cow->segs; s++)
			__bio_add_page(bio, snap_run_seg(g->runs[i], item->chunk, s)->bv_page, cow->seg, 0);
		next = item->addr + blocks;
	}
	if (bio)
		submit_bio_noacct(bio);
}

static void submit_image(struct snap_group *g)
{
	unsigned int len = g->sealed.image_blocks * 4096, done = 0;
	char *image = g->sealed.image;
	struct bio *bio;

	if (is_vmalloc_addr(image))
		flush_kernel_vmap_range(image, len);
	bio = diff_bio(g, DIV_ROUND_UP(len, PAGE_SIZE) + 1, write_opf(g) | REQ_META, g->sealed.image_addr, meta_endio);
	while (done < len) {
		char *p = image + done;
		unsigned int part = min_t(unsigned int, len - done, PAGE_SIZE - offset_in_page(p));

		__bio_add_page(bio, is_vmalloc_addr(p) ? vmalloc_to_page(p) : virt_to_page(p), part, offset_in_page(p));
		done += part;
	}
	submit_bio_noacct(bio);
}

static void group_submit(struct snap_group *g)
{
	struct blk_plug plug;

	g->state = SNAP_GROUP_WRITING;
	g->ended = false;
	g->through = write_through(g);
	g->data_status = BLK_STS_OK;
	g->meta_status = BLK_STS_OK;
	atomic_set(&g->pending, 1);
	blk_start_plug(&plug);
	submit_data(g);
	submit_image(g);
	blk_finish_plug(&plug);
	group_put(g);
}

static void group_flush(struct snap_group *g)
{
	g->state = SNAP_GROUP_FLUSHING;
	g->ended = false;
	atomic_set(&g->pending, 1);
	submit_bio_noacct(diff_bio(g, 0, REQ_OP_WRITE | REQ_PREFLUSH | REQ_SYNC, 0, meta_endio));
	group_put(g);
}

static struct snap_group *take_free(struct snap_cow *cow)
{
	struct snap_group *g = list_first_entry_or_null(&cow->free_groups, struct snap_group, list);

	if (!g)
		return NULL;
	list_del_init(&g->list);
	g->nr = 0;
	g->change = NULL;
	g->relocated = 0;
	g->prio = 0;
	return g;
}

static void give_back(struct snap_group *g)
{
	g->state = SNAP_GROUP_FREE;
	g->nr = 0;
	list_add_tail(&g->list, &g->cow->free_groups);
}

static void group_launch(struct snap_cow *cow, struct snap_group *g)
{
	list_add_tail(&g->list, &cow->writing);
	cow->nr_writing++;
	snap_count(cow->vol, SNAP_C_GROUPS);
	group_submit(g);
}

/*
 * The most urgent of its copies makes a group urgent, none makes it less urgent than anybody's writes: groups become durable in order, and the next one may be waited
 * for. For the same reason its writes belong to no cgroup: one that is throttled would hold up all.
 */
static void raise_prio(struct snap_group *g, u16 prio)
{
	u16 now = g->prio ?: IOPRIO_PRIO_VALUE(IOPRIO_CLASS_BE, IOPRIO_BE_NORM);

	if (IOPRIO_PRIO_CLASS(prio) != IOPRIO_CLASS_NONE && prio < now)
		g->prio = prio;
}

/** snap_group_fill() - [worker] make items of runs that have been read, as many as the open group takes */
void snap_group_fill(struct snap_cow *cow)
{
	struct snap_group *g;

	if (!cow->open)
		cow->open = take_free(cow);
	g = cow->open;
	if (!g)
		return;
	g->state = SNAP_GROUP_OPEN;
	while (g->nr < SNAP_GROUP_ITEMS && !list_empty(&cow->ready)) {
		struct snap_run *run = list_first_entry(&cow->ready, struct snap_run, list);

		raise_prio(g, run->prio);
		while (g->nr < SNAP_GROUP_ITEMS && run->filled < run->nr) {
			snap_run_item(run, run->filled++, &g->items[g->nr]);
			g->runs[g->nr++] = run;
			cow->ready_chunks--;
		}
		if (run->filled == run->nr)
			list_del_init(&run->list);
	}
}

/* How many items from @i on are of consecutive chunks? */
static u32 neighbours(const struct snap_group *g, u32 i)
{
	u32 n = 1;

	while (i + n < g->nr && g->items[i + n].chunk == g->items[i].chunk + n)
		n++;
	return n;
}

/* The records of the items are in the table (or will never be needed): runs that are complete release their bios. */
static void items_done(struct snap_cow *cow, struct snap_group *g, bool recorded)
{
	static const enum snap_counter counter[] = {
		[SNAP_DATA] = SNAP_C_COPIED, [SNAP_ZERO] = SNAP_C_ZEROS, [SNAP_BAD] = SNAP_C_BAD, [SNAP_MARK] = SNAP_C_MARKED,
	};
	u32 i, n, nr[ARRAY_SIZE(counter)] = { 0 };

	for (i = 0; recorded && i < g->nr; i += n) {
		n = neighbours(g, i);
		snap_bits_set(cow->vol->bits, g->items[i].chunk, n);
	}
	for (i = 0; i < g->nr; i++) {
		struct snap_run *run = g->runs[i];

		nr[g->items[i].kind]++;
		if (++run->committed == run->nr)
			snap_cow_run_committed(cow, run);
	}
	for (i = SNAP_DATA; recorded && i < ARRAY_SIZE(counter); i++)
		snap_count_add(cow->vol, counter[i], nr[i]);
	if (recorded && nr[SNAP_BAD])
		snap_cow_house(cow, SNAP_HOUSE_BAD);
	g->nr = 0;
}

/* Generations may have gone since the items were made. */
static void revise(struct snap_cow *cow, struct snap_group *g)
{
	u32 i;

	if (cow->failed || !cow->sum.newest_kept) {
		items_done(cow, g, false);
		return;
	}
	if (cow->sum.newest_live)
		return;
	for (i = 0; i < g->nr; i++) {
		g->items[i].kind = SNAP_MARK;
		g->items[i].crc = 0;
	}
}

/* What the open group could not take along begins the next one. */
static void carry_over(struct snap_cow *cow, struct snap_group *g, u32 taken)
{
	struct snap_group *next = take_free(cow);
	u32 left = g->nr - taken;

	memcpy(next->items, g->items + taken, left * sizeof(*g->items));
	memcpy(next->runs, g->runs + taken, left * sizeof(*g->runs));
	next->nr = left;
	next->prio = g->prio;
	next->state = SNAP_GROUP_OPEN;
	g->nr = taken;
	cow->open = next;
}

static bool worth_starting(struct snap_cow *cow)
{
	u32 waiting = cow->ready_chunks + (cow->open ? cow->open->nr : 0);

	if (!waiting)
		return false;
	return cow->failed || !cow->nr_writing || !cow->reading || waiting >= SNAP_BATCH;
}

static bool start_items(struct snap_cow *cow)
{
	struct snap_group *g;
	int n;

	if (!worth_starting(cow))
		return false;
	snap_group_fill(cow);
	g = cow->open;
	if (!g || !g->nr)
		return false;
	revise(cow, g);
	if (!g->nr) {
		WRITE_ONCE(cow->stalled, false);
		return true;
	}
	n = snap_store_seal_items(cow->vol->store, g->items, g->nr, &g->sealed);
	if (n < 0) {
		snap_cow_cannot_seal(cow, n);
		return cow->failed;
	}
	WRITE_ONCE(cow->stalled, false);
	cow->open = NULL;
	if (n < g->nr)
		carry_over(cow, g, n);
	group_launch(cow, g);
	return true;
}

static struct snap_change *first_change(struct snap_cow *cow)
{
	struct snap_change *change;

	spin_lock_irq(&cow->lock);
	change = list_first_entry_or_null(&cow->changes, struct snap_change, list);
	spin_unlock_irq(&cow->lock);
	return change;
}

/* A change waits in the list until it has been sealed; only the worker takes from it. */
static bool start_change(struct snap_cow *cow)
{
	struct snap_change *change = first_change(cow);
	struct snap_group *g;
	int err;

	if (!change)
		return false;
	g = take_free(cow);
	if (!g)
		return false;
	err = cow->failed ? -EIO : snap_store_seal_change(cow->vol->store, change, &g->sealed);
	if (err == -EAGAIN) {
		give_back(g);
		snap_store_reclaim(cow->vol->store);
		return false;
	}
	spin_lock_irq(&cow->lock);
	list_del_init(&change->list);
	spin_unlock_irq(&cow->lock);
	if (err) {
		give_back(g);
		snap_cow_change_done(cow, change, err);
		return true;
	}
	g->change = change;
	group_launch(cow, g);
	return true;
}

/** snap_group_start() - [worker] seal and submit a change of the generations or the open group. Return: true if something was done */
bool snap_group_start(struct snap_cow *cow)
{
	if (cow->nr_writing >= SNAP_GROUPS_INFLIGHT)
		return false;
	return start_change(cow) || start_items(cow);
}

/* All its writes have ended. */
static void group_written(struct snap_cow *cow, struct snap_group *g)
{
	if (cow->failed) {
		g->state = SNAP_GROUP_DONE;
	} else if (g->meta_status) {
		snap_cow_fail(cow, blk_status_to_errno(g->meta_status), "the journal could not be written");
		g->state = SNAP_GROUP_DONE;
	} else if (g->data_status) {
		if (g->relocated == RELOCATIONS || snap_store_relocate(cow->vol->store, &g->sealed)) {
			snap_cow_fail(cow, blk_status_to_errno(g->data_status), "preserved data could not be written");
			g->state = SNAP_GROUP_DONE;
			return;
		}
		g->relocated++;
		group_submit(g);
	} else if (!g->through && bdev_write_cache(cow->vol->diff_bdev)) {
		group_flush(g);
	} else {
		g->state = SNAP_GROUP_DONE;
	}
}

static void group_flushed(struct snap_cow *cow, struct snap_group *g)
{
	if (g->meta_status && !cow->failed)
		snap_cow_fail(cow, blk_status_to_errno(g->meta_status), "the differential volume could not be flushed");
	g->state = SNAP_GROUP_DONE;
}

static void group_commit(struct snap_cow *cow, struct snap_group *g)
{
	bool ok;

	list_del_init(&g->list);
	cow->nr_writing--;
	if (cow->failed) {
		snap_store_drop(cow->vol->store, &g->sealed);
		ok = false;
	} else {
		ok = snap_store_commit(cow->vol->store, &g->sealed, g->change);
		if (!ok)
			snap_cow_fail(cow, -EIO, "metadata could not be written");
	}
	if (g->change) {
		snap_cow_summary(cow);
		snap_cow_change_done(cow, g->change, ok ? 0 : -EIO);
	} else {
		items_done(cow, g, ok);
	}
	give_back(g);
}

/** snap_group_finish() - [worker] next steps of the groups whose bios have ended; commits in order. Return: true if something was done */
bool snap_group_finish(struct snap_cow *cow)
{
	struct snap_group *g;
	struct blk_plug plug;
	bool progress = false;

	if (list_empty(&cow->writing))
		return false;
	blk_start_plug(&plug);	/* a commit releases many writes at once */
	list_for_each_entry(g, &cow->writing, list) {
		while (g->state != SNAP_GROUP_DONE && group_ended(g)) {
			if (g->state == SNAP_GROUP_WRITING)
				group_written(cow, g);
			else
				group_flushed(cow, g);
			progress = true;
		}
	}
	while ((g = list_first_entry_or_null(&cow->writing, struct snap_group, list)) && g->state == SNAP_GROUP_DONE) {
		group_commit(cow, g);
		progress = true;
	}
	blk_finish_plug(&plug);
	return progress;
}

/** snap_groups_init() - all memory that groups ever need on this side. May block */
int snap_groups_init(struct snap_cow *cow)
{
	unsigned int i;
	int err = bioset_init(&cow->writes, 2 * SNAP_GROUPS_INFLIGHT, 0, BIOSET_NEED_BVECS);

	if (err)
		return err;
	cow->groups = kcalloc(NR_GROUPS, sizeof(*cow->groups), GFP_KERNEL);
	if (!cow->groups)
		return -ENOMEM;
	for (i = 0; i < NR_GROUPS; i++) {
		struct snap_group *g = &cow->groups[i];

		g->cow = cow;
		g->items = kvcalloc(SNAP_GROUP_ITEMS, sizeof(*g->items), GFP_KERNEL);
		g->runs = kvcalloc(SNAP_GROUP_ITEMS, sizeof(*g->runs), GFP_KERNEL);
		if (!g->items || !g->runs)
			return -ENOMEM;
		list_add_tail(&g->list, &cow->free_groups);
	}
	return 0;
}

/** snap_groups_exit() - also after a snap_groups_init() that failed */
void snap_groups_exit(struct snap_cow *cow)
{
	unsigned int i;

	for (i = 0; cow->groups && i < NR_GROUPS; i++) {
		kvfree(cow->groups[i].items);
		kvfree(cow->groups[i].runs);
	}
	kfree(cow->groups);
	bioset_exit(&cow->writes);
}
