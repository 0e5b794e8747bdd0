// SPDX-License-Identifier: GPL-2.0
/*
 * The copy path: what happens to a write whose old content may still be needed.
 *
 * The argument
 * ------------
 * A write to a chunk may reach the primary when the chunk is in the current changed set: its old content and the record of it are durable and visible in the table (or it
 * is known not to be needed). Everything else here serves that sentence.
 *
 *   bio:  map ──► incoming ──► deferred ──► released to the primary
 *                                 │  ▲
 *            a chunk of it is     ▼  │ that run is committed
 *            claimed by a run:  waiters of the run
 *
 *   run:  claimed, reading ──► done ──► ready ──► items of the open group ──► group sealed, written, flushed ──► committed, freed
 *         (copy.c)                                 (group.c)
 *
 * One worker does all of that for a volume: it alone claims, seals, commits, sets bits, fills windows of bits and releases. Completion handlers
 * only move objects to a list, or count down, and wake it. So there is one order of events, the worker's:
 *
 *   - One copy: a chunk is claimed before it is read, the claim ends after its bit was set. A second writer finds the claim, waits in the run's list
 *     and then looks at the chunk again.
 *   - I1: a bio is released when every chunk of it has been passed by its cursor (bit set) or belonged to a run of its own that is committed. Commit comes
 *     after the group's data, journal image and (volatile cache) flush have ended without error.
 *   - The interval: a bio is inside the gate from before its bits are tested until the primary has completed it. A cut waits for an empty gate, so while there is
 *     a claim the highest generation does not change, and all copies go to the interval in which they were begun.
 *   - I2: commit makes the record visible before the write is released; who read new data from the primary finds the record when he looks again.
 *   - I3: whatever goes wrong with the diff ends in snap_cow_fail(): the store is failed, all generations are lost, all bios are released. Waiting for space or for the
 *     background thread is bounded in time. An error of the primary's own read makes a bad record; an error of its write is the bio's own.
 *   - Memory: bounded by SNAP_MAX_CHUNKS and SNAP_MAX_BYTES in flight; copy.c says why the worker never waits for itself. A bio of gigabytes (write-zeroes)
 *     is one object with a cursor; it goes to the end of the queue after each piece.
 *
 *   - Turns: deferred bios wait in one queue for each submitting task (a hash of it), and the queues take turns of TURN_CHUNKS. Who has queued a million chunks
 *     is not in the way of who writes one and waits for it: before him are what is in flight and one turn of each other writer.
 *
 * Discards are advisory: the parts that are in the set pass, the others are dropped. They claim nothing.
 *
 * Changes of the generations (create, delete, lose) pass through the same queue of groups, each as a group of its own, and are ordered with the copies by that.
 *
 * The housekeeping work does what the worker must not wait for: giving up generations when the diff is full (it queues a change here and waits for it),
 * watermarks, events.
 */
#include <linux/bitmap.h>
#include <linux/hash.h>
#include <linux/jiffies.h>
#include <linux/kthread.h>
#include <linux/list_sort.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include "cow.h"

#define PIECE_CHUNKS	256u			/* of one bio, then others have a turn */
#define PIECE_PARTS	64u			/* of a discard */
#define TURN_CHUNKS	SNAP_BATCH		/* of one flow, then others have a turn */
#define ROOM_PAUSE	(HZ / 20)
#define ROOM_PATIENCE	(5 * HZ)		/* without progress of reclaiming: then all generations are given up, */
#define MARK_PATIENCE	(HZ / 2)		/* the same where only changed sets are left to give up */
#define ROOM_LIMIT	(20 * HZ)		/* and after so long in any case */
#define PLUG_BIOS	128u			/* then the worker gets them before the plug ends */
#define WAKES		16u
#define WAKES_NS	(2 * NSEC_PER_MSEC)
#define STALL_LIMIT	(30 * HZ)		/* without progress: then the store is given up, */
#define STALL_MAX	(60 * HZ)		/* and after so long in any case */

/* ---- waking ---------------------------------------------------------------------------------- */

/**
 * snap_cow_kick() - [any context] something has happened that the worker waits for
 *
 * Who hands the last object over and has no other hold on the volume kicks under cow->lock: the worker may otherwise finish with it, and the volume go away, in
 * between. snap_cow_destroy() passes through the lock once.
 */
void snap_cow_kick(struct snap_cow *cow)
{
	if (!test_and_set_bit(0, &cow->kicked))
		wake_up(&cow->wait);
}

/** snap_cow_house() - [any context] ask the housekeeping work for one of SNAP_HOUSE_* */
void snap_cow_house(struct snap_cow *cow, int what)
{
	set_bit(what, &cow->house_flags);
	queue_work(cow->house, &cow->house_work);
}

static void cow_busy_dec(struct snap_cow *cow)
{
	if (atomic_dec_and_test(&cow->busy))
		wake_up_all(&cow->idle);
}

/** snap_cow_drain() - wait until no write is deferred and no change is under way */
void snap_cow_drain(struct snap_cow *cow)
{
	wait_event(cow->idle, !atomic_read(&cow->busy));
}

/*
 * What a task with a plug has deferred so far; the plug's end, or the task's sleep, gives it to the worker: one large group instead of many small ones. It is in the plug
 * only while it has a bio, because nothing but these bios keeps the volume, and at last this code, where they are.
 */
struct plugged {
	struct blk_plug_cb cb;
	struct list_head bios;		/* pbios */
	unsigned int nr;
};

/* @p ends here. */
static void plugged_to_worker(struct snap_cow *cow, struct plugged *p)
{
	unsigned long flags;
	LIST_HEAD(bios);

	list_splice_init(&p->bios, &bios);
	kfree(p);
	spin_lock_irqsave(&cow->lock, flags);
	list_splice_tail(&bios, &cow->incoming);
	snap_cow_kick(cow);
	spin_unlock_irqrestore(&cow->lock, flags);
}

static void unplug(struct blk_plug_cb *cb, bool from_schedule)
{
	plugged_to_worker(cb->data, container_of(cb, struct plugged, cb));
}

static bool plug_bio(struct snap_cow *cow, struct snap_pbio *pb)
{
	struct blk_plug_cb *cb = blk_check_plugged(unplug, cow, sizeof(struct plugged));
	struct plugged *p;

	if (!cb)
		return false;
	p = container_of(cb, struct plugged, cb);
	if (!p->bios.next)
		INIT_LIST_HEAD(&p->bios);	/* zeroed when it is new */
	list_add_tail(&pb->list, &p->bios);
	if (++p->nr >= PLUG_BIOS) {
		list_del(&cb->list);
		plugged_to_worker(cow, p);
	}
	return true;
}

/**
 * snap_cow_defer() - [any context] hand a write or discard to the worker
 * @bio: remapped to the primary; it has entered the gate
 * @first: first chunk it touches
 * @last: last one
 *
 * The worker submits or ends it.
 */
void snap_cow_defer(struct snap_cow *cow, struct bio *bio, u64 first, u64 last)
{
	struct snap_pbio *pb = snap_bio_pbio(bio);
	unsigned long flags;

	bio->bi_opf &= ~REQ_POLLED;
	pb->cursor = first;
	pb->last = last;
	pb->missing = 0;
	pb->flow = hash_32(current->pid, ilog2(SNAP_FLOWS));
	atomic_inc(&cow->busy);
	if (plug_bio(cow, pb))
		return;
	spin_lock_irqsave(&cow->lock, flags);
	list_add_tail(&pb->list, &cow->incoming);
	snap_cow_kick(cow);
	spin_unlock_irqrestore(&cow->lock, flags);
}

/* ---- changes of the generations --------------------------------------------------------------- */

/**
 * snap_cow_change() - make a change of the generations durable
 *
 * May block. Not from the worker, the background thread. Return: 0; the core's -EINVAL, -ENOSPC, -E2BIG; -EIO when the store has failed.
 */
int snap_cow_change(struct snap_cow *cow, struct snap_change *change)
{
	init_completion(&change->done);
	atomic_inc(&cow->busy);
	spin_lock_irq(&cow->lock);
	list_add_tail(&change->list, &cow->changes);
	spin_unlock_irq(&cow->lock);
	snap_cow_kick(cow);
	wait_for_completion(&change->done);
	cow_busy_dec(cow);
	return change->err;
}

/** snap_cow_change_done() - [worker] @change belongs to its caller again */
void snap_cow_change_done(struct snap_cow *cow, struct snap_change *change, int err)
{
	change->err = err;
	complete(&change->done);
}

/** snap_cow_summary() - [worker] the generations have changed: which set of chunks counts as preserved now? */
void snap_cow_summary(struct snap_cow *cow)
{
	struct snap_summary sum;

	snap_store_summary(cow->vol->store, &sum);
	if (sum.newest_kept != cow->sum.newest_kept)
		snap_bits_drop(cow->vol->bits);
	cow->sum = sum;
	WRITE_ONCE(cow->kept, sum.newest_kept);
}

/** snap_cow_refresh() - the store has been opened or attached; no bio has come yet */
void snap_cow_refresh(struct snap_cow *cow)
{
	snap_cow_summary(cow);
}

/* ---- failing ---------------------------------------------------------------------------------- */

/**
 * snap_cow_fail() - [worker] the store is given up
 *
 * Durable (if the diff still takes it) when it returns. From here on every write passes: runs in flight end as they come back.
 */
void snap_cow_fail(struct snap_cow *cow, int err, const char *what)
{
	if (cow->failed)
		return;
	cow->failed = true;
	cow->fail_err = err;
	cow->fail_what = what;
	snap_store_fail(cow->vol->store, err, what);
	snap_cow_summary(cow);
	snap_cow_house(cow, SNAP_HOUSE_FAILED);
}

/* ---- no space --------------------------------------------------------------------------------- */

/*
 *	below a sixteenth of the room, and more is coming	rationed: each 50 ms a sixteenth of what is left (store_space.c). Writers become slow, they do not stop
 *	none, reclaiming goes on				wait
 *	none, nothing is left to reclaim			a generation is given up, the next one when all of that one has been reclaimed (full.c)
 *	none, and reclaiming does not get on for 5 s,		all generations are given up: then writes are only marked, and pass without any room
 *	or 20 s in all;						when none is left, what changed since the lost ones: then nothing is recorded any more
 *	not even that helps					the store is given up
 */
static void ask_for_room(struct snap_cow *cow, bool last_resort)
{
	if (cow->room_asked || time_before(jiffies, cow->room_after))
		return;
	cow->room_asked = true;
	snap_cow_house(cow, last_resort ? SNAP_HOUSE_LAST_RESORT : SNAP_HOUSE_ROOM);
}

/* Without progress */
static unsigned long patience(const struct snap_cow *cow)
{
	return cow->sum.newest_live ? ROOM_PATIENCE : MARK_PATIENCE;
}

static void no_space(struct snap_cow *cow)
{
	bool late = time_after(jiffies, cow->progress_at + patience(cow)) || time_after(jiffies, cow->stalled_since + ROOM_LIMIT);

	if (snap_store_reclaim(cow->vol->store) == SNAP_RECLAIM_NOTHING || late)
		ask_for_room(cow, late);
}

/** snap_cow_waits_long() - [any context] is patience at its end? An answer of a moment ago is as good */
bool snap_cow_waits_long(struct snap_cow *cow)
{
	return READ_ONCE(cow->stalled) && time_after(jiffies, READ_ONCE(cow->stalled_since) + ROOM_PATIENCE);
}

/* The table in memory or the journal is full. Checkpoints that do not get on may have no room either. */
static void no_checkpoint(struct snap_cow *cow)
{
	snap_store_reclaim(cow->vol->store);
	if (time_after(jiffies, cow->progress_at + patience(cow)))
		ask_for_room(cow, true);
}

/* How long has the worker waited, and for how long has nothing moved? */
static void watch_stall(struct snap_cow *cow)
{
	unsigned long progress = snap_store_progress(cow->vol->store);

	if (!cow->stalled) {
		cow->room_after = cow->progress_at = jiffies;
		WRITE_ONCE(cow->stalled_since, jiffies);
		WRITE_ONCE(cow->stalled, true);
	} else if (progress != cow->progress) {
		cow->progress_at = jiffies;
	}
	cow->progress = progress;
}

/**
 * snap_cow_cannot_seal() - [worker] the open group stays as it is; it is tried again whenever the worker is kicked, and once in a while
 *
 * First what the background thread can reclaim; then generations are given up; then the store.
 */
void snap_cow_cannot_seal(struct snap_cow *cow, int err)
{
	if (err == -EBUSY) {
		/* Nothing has been sealed: a stall goes on. There may be room, but not in one piece. */
		cow->rationed = true;
		return;
	}
	watch_stall(cow);
	if (err == -EIO || (err != -ENOSPC && err != -EAGAIN && err != -ENOMEM)) {
		snap_cow_fail(cow, err, "metadata could not be written");
		return;
	}
	if (time_after(jiffies, cow->progress_at + STALL_LIMIT) || time_after(jiffies, cow->stalled_since + STALL_MAX)) {
		snap_cow_fail(cow, err, err == -ENOSPC ? "no space, and nothing left to give up" : "no progress of checkpoints");
		return;
	}
	if (err == -ENOSPC)
		no_space(cow);
	else if (err == -EAGAIN)
		no_checkpoint(cow);
}

static void take_room_answer(struct snap_cow *cow)
{
	bool done;

	spin_lock_irq(&cow->lock);
	done = cow->room_done;
	cow->room_done = false;
	spin_unlock_irq(&cow->lock);
	if (!done)
		return;
	cow->room_asked = false;
	if (!cow->room_err)
		cow->progress_at = jiffies;	/* to find what to give up may have taken long; reclaiming begins now */
	cow->room_after = cow->room_err ? jiffies + ROOM_PAUSE : jiffies;
}

static void house_room(struct snap_cow *cow, bool last_resort)
{
	int err = snap_gen_make_room(cow->vol, last_resort);

	spin_lock_irq(&cow->lock);
	cow->room_done = true;
	cow->room_err = err;
	spin_unlock_irq(&cow->lock);
	snap_cow_kick(cow);
}

static void house_work(struct work_struct *work)
{
	struct snap_cow *cow = container_of(work, struct snap_cow, house_work);
	unsigned int noio = snap_memalloc_save();

	if (test_and_clear_bit(SNAP_HOUSE_FAILED, &cow->house_flags))
		snap_event(cow->vol, SNAPDIFF_EVENT_STORE_FAILED, 0, -cow->fail_err, cow->fail_what);
	if (test_and_clear_bit(SNAP_HOUSE_LAST_RESORT, &cow->house_flags))
		house_room(cow, true);
	if (test_and_clear_bit(SNAP_HOUSE_ROOM, &cow->house_flags))
		house_room(cow, false);
	if (test_and_clear_bit(SNAP_HOUSE_SPACE, &cow->house_flags))
		snap_gen_check_space(cow->vol);
	if (test_and_clear_bit(SNAP_HOUSE_BAD, &cow->house_flags))
		snap_event(cow->vol, SNAPDIFF_EVENT_BAD_CHUNK, 0, EIO, "a part of the primary could not be read before it was overwritten");
	snap_memalloc_restore(noio);
}

/* ---- deferred writes --------------------------------------------------------------------------- */

enum scan { SCAN_END, SCAN_PARKED, SCAN_FULL, SCAN_TURN };

static void release(struct snap_cow *cow, struct snap_pbio *pb)
{
	list_del_init(&pb->list);
	submit_bio_noacct(snap_pbio_bio(pb));
	cow_busy_dec(cow);
}

/**
 * snap_cow_run_committed() - [worker] all chunks of @run are recorded, or need not be any more
 *
 * 1. who waited for it looks at his chunk again, before all others
 * 2. the claim and the pages are given back
 * 3. its owner goes to the primary if that was all it waited for
 */
void snap_cow_run_committed(struct snap_cow *cow, struct snap_run *run)
{
	struct snap_pbio *pb = run->owner;

	list_splice_init(&run->waiters, &cow->again);
	snap_run_free(run);
	if (!--pb->missing && pb->cursor > pb->last)
		release(cow, pb);
}

/* How many of @nr chunks may be begun now: bounded in number and bytes, but one is always possible. */
static u32 budget(struct snap_cow *cow, u32 nr)
{
	u32 chunks = cow->chunks < SNAP_MAX_CHUNKS ? SNAP_MAX_CHUNKS - cow->chunks : 0;
	u32 bytes = cow->bytes < SNAP_MAX_BYTES ? (SNAP_MAX_BYTES - cow->bytes) / cow->chunk_bytes : 0;

	if (!cow->chunks)
		return max(1u, min3(nr, chunks, bytes));
	return min3(nr, chunks, bytes);
}

/*
 * While a bookmark is newer than the newest live generation, a chunk that the sets from the newest live one on already cover is only marked.
 * Cuts *@nr to chunks that are treated alike.
 */
static int must_mark(struct snap_cow *cow, u64 chunk, u32 *nr, bool *mark)
{
	DECLARE_BITMAP(covered, 256);
	int err;

	*mark = false;
	if (cow->sum.newest_kept == cow->sum.newest_live)
		return 0;
	*mark = true;
	if (!cow->sum.newest_live)
		return 0;
	*nr = min(*nr, 256u);
	bitmap_zero(covered, 256);
	err = snap_store_fill(cow->vol->store, cow->sum.newest_live, chunk, *nr, covered);
	if (err)
		return err;
	*mark = test_bit(0, covered);
	*nr = *mark ? find_next_zero_bit(covered, *nr, 0) : find_next_bit(covered, *nr, 0);
	return 0;
}

/* The table could not be read: it is not known what is preserved. */
static enum scan lookup_failed(struct snap_cow *cow, int err)
{
	if (err == -ENOMEM) {
		cow->wait_memory = true;
		return SCAN_FULL;
	}
	snap_cow_fail(cow, err, "the mapping table could not be read");
	return SCAN_TURN;
}

/* The chunk at the cursor is not in the set. */
static enum scan preserve(struct snap_cow *cow, struct snap_pbio *pb, u32 *started)
{
	struct snap_run *run;
	u64 next;
	bool mark;
	u32 nr;
	int err;

	run = snap_run_find(cow, pb->cursor, &next);
	if (run) {
		list_move_tail(&pb->list, &run->waiters);
		return SCAN_PARKED;
	}
	nr = min3(pb->last - pb->cursor + 1, next - pb->cursor, (u64)cow->run_chunks);
	nr = budget(cow, snap_bits_zeros(cow->vol->bits, pb->cursor, nr));
	if (!nr)
		return SCAN_FULL;
	err = must_mark(cow, pb->cursor, &nr, &mark);
	if (err)
		return lookup_failed(cow, err);
	run = snap_run_start(cow, pb, pb->cursor, nr, mark);
	if (!run) {
		cow->wait_memory = true;
		return SCAN_FULL;
	}
	if (mark) {
		list_add_tail(&run->list, &cow->ready);
		cow->ready_chunks += nr;
	}
	pb->cursor += nr;
	*started += nr;
	return SCAN_END;
}

static enum scan scan_write(struct snap_cow *cow, struct snap_pbio *pb)
{
	u32 started = 0;
	u64 zero, end;
	enum scan r;
	int err;

	while (pb->cursor <= pb->last) {
		if (!cow->kept) {
			pb->cursor = pb->last + 1;
			break;
		}
		if (started >= PIECE_CHUNKS)
			return SCAN_TURN;
		err = snap_bits_next_zero(cow->vol->bits, pb->cursor, &zero, &end);
		if (err)
			return lookup_failed(cow, err);
		if (zero > pb->cursor) {
			pb->cursor = zero;
			continue;
		}
		r = preserve(cow, pb, &started);
		if (r != SCAN_END)
			return r;
	}
	list_del_init(&pb->list);
	if (!pb->missing)
		release(cow, pb);
	return SCAN_END;
}

/* ---- deferred discards ------------------------------------------------------------------------- */

/* The chunks first..last are preserved: what the discard has of them goes down, if that is worth it. */
static void pass_discard(struct snap_cow *cow, struct bio *bio, u64 first, u64 last)
{
	sector_t from = max_t(sector_t, bio->bi_iter.bi_sector, first << cow->vol->chunk_shift);
	sector_t to = min_t(sector_t, bio_end_sector(bio), (last + 1) << cow->vol->chunk_shift);
	struct bio *part;

	if (to <= from || ((to - from) << SECTOR_SHIFT) < bdev_discard_granularity(cow->vol->primary_bdev))
		return;
	/* waits at most for other parts, whose bios their own completion gives back */
	part = bio_alloc_bioset(cow->vol->primary_bdev, 0, REQ_OP_DISCARD | (bio->bi_opf & REQ_SYNC), GFP_NOIO, &cow->discards);
	part->bi_iter.bi_sector = from;
	part->bi_iter.bi_size = (to - from) << SECTOR_SHIFT;
	bio_chain(part, bio);
	submit_bio_noacct(part);
}

static enum scan scan_discard(struct snap_cow *cow, struct snap_pbio *pb)
{
	struct bio *bio = snap_pbio_bio(pb);
	unsigned int parts = 0;
	u64 zero, end;
	int err;

	while (pb->cursor <= pb->last) {
		if (!cow->kept) {
			pass_discard(cow, bio, pb->cursor, pb->last);
			break;
		}
		if (++parts > PIECE_PARTS)
			return SCAN_TURN;
		err = snap_bits_next_zero(cow->vol->bits, pb->cursor, &zero, &end);
		if (err)
			return lookup_failed(cow, err);
		if (zero > pb->cursor) {
			pass_discard(cow, bio, pb->cursor, min(zero - 1, pb->last));
			pb->cursor = zero;
			continue;
		}
		pb->cursor += snap_bits_zeros(cow->vol->bits, zero, min_t(u64, pb->last - zero + 1, U32_MAX));
		snap_count(cow->vol, SNAP_C_DISCARDS_DROPPED);
	}
	list_del_init(&pb->list);
	bio_endio(bio);
	cow_busy_dec(cow);
	return SCAN_END;
}

/* ---- the worker -------------------------------------------------------------------------------- */

/* Whose turn is it? Once round, and once more to who has used up his turn and is alone. NULL: nobody is there. */
static struct snap_pbio *next_deferred(struct snap_cow *cow)
{
	unsigned int i;

	if (!list_empty(&cow->again))
		return list_first_entry(&cow->again, struct snap_pbio, list);
	for (i = 0; i <= SNAP_FLOWS; i++) {
		if (cow->turn && !list_empty(&cow->flows[cow->flow]))
			return list_first_entry(&cow->flows[cow->flow], struct snap_pbio, list);
		cow->flow = (cow->flow + 1) % SNAP_FLOWS;
		cow->turn = TURN_CHUNKS;
	}
	return NULL;
}

/* The bio itself may be gone: what it cost is what is in flight now and was not before. */
static void charge(struct snap_cow *cow, u32 chunks_before)
{
	cow->turn -= min(cow->turn, max(cow->chunks - chunks_before, 1u));
}

static bool scan_deferred(struct snap_cow *cow)
{
	struct blk_plug plug;
	struct snap_pbio *pb;
	bool progress = false;

	cow->wait_memory = false;
	blk_start_plug(&plug);
	while ((pb = next_deferred(cow))) {
		u64 before = pb->cursor;
		u32 chunks = cow->chunks;
		enum scan r;

		/* What has been read goes on while it is in the processor's cache. */
		if (READ_ONCE(cow->done_chunks) >= SNAP_BATCH) {
			progress = true;
			break;
		}

		r = bio_op(snap_pbio_bio(pb)) == REQ_OP_DISCARD ? scan_discard(cow, pb) : scan_write(cow, pb);
		charge(cow, chunks);
		if (r == SCAN_FULL) {
			progress |= pb->cursor != before;
			break;
		}
		progress = true;
		if (r == SCAN_TURN)
			list_move_tail(&pb->list, &cow->flows[pb->flow]);
	}
	blk_finish_plug(&plug);
	return progress;
}

static int by_cursor(void *unused, const struct list_head *a, const struct list_head *b)
{
	return list_entry(a, struct snap_pbio, list)->cursor > list_entry(b, struct snap_pbio, list)->cursor;
}

/* What came in together is taken up in the order of its place: reads, records and at last the writes themselves. */
static bool reads_done(struct snap_cow *cow)
{
	struct snap_pbio *pb, *next_pb;
	struct snap_run *run, *next;
	LIST_HEAD(incoming);
	LIST_HEAD(done);

	spin_lock_irq(&cow->lock);
	list_splice_init(&cow->done, &done);
	cow->done_chunks = 0;
	list_splice_init(&cow->incoming, &incoming);
	spin_unlock_irq(&cow->lock);
	list_sort(NULL, &incoming, by_cursor);
	list_for_each_entry_safe(pb, next_pb, &incoming, list)
		list_move_tail(&pb->list, &cow->flows[pb->flow]);
	if (list_empty(&done))
		return false;
	list_for_each_entry_safe(run, next, &done, list) {
		list_del_init(&run->list);
		if (!snap_run_read_done(run))
			continue;
		list_add_tail(&run->list, &cow->ready);
		cow->ready_chunks += run->nr;
	}
	return true;
}

static void work(struct snap_cow *cow)
{
	bool progress;

	take_room_answer(cow);
	cow->rationed = false;
	if (!cow->failed && snap_store_failed(cow->vol->store))
		snap_cow_fail(cow, -EIO, "metadata could not be read or written");
	do {
		progress = reads_done(cow);
		progress |= snap_group_finish(cow);
		progress |= scan_deferred(cow);
		progress |= snap_group_start(cow);
		cond_resched();
	} while (progress);
}

static bool kicked(struct snap_cow *cow)
{
	return test_and_clear_bit(0, &cow->kicked) || kthread_should_stop();
}

/*
 * Woken many times a millisecond, each time for a bio or two: who wakes us shares our CPU and has more to submit. Letting him go on makes the groups larger. It cannot slow
 * down writes that come one at a time: then there are not so many wake-ups.
 */
static bool in_a_hurry(struct snap_cow *cow)
{
	u64 now;

	if (++cow->wakes % WAKES)
		return cow->hurry;
	now = ktime_get_ns();
	cow->hurry = now - cow->wakes_since < WAKES_NS;
	cow->wakes_since = now;
	return cow->hurry;
}

static int worker(void *data)
{
	struct snap_cow *cow = data;
	unsigned int noio = snap_memalloc_save();

	while (!kthread_should_stop()) {
		work(cow);
		if (cow->stalled || cow->rationed || cow->wait_memory || !list_empty(&cow->changes))
			wait_event_idle_timeout(cow->wait, kicked(cow), HZ / 50);
		else
			wait_event_idle(cow->wait, kicked(cow));
		if (in_a_hurry(cow))
			yield();
	}
	WARN_ON_ONCE(next_deferred(cow) || !list_empty(&cow->writing) || cow->chunks);
	snap_memalloc_restore(noio);
	return 0;
}

/* ---- life -------------------------------------------------------------------------------------- */

static void cow_setup(struct snap_cow *cow, struct snap_volume *vol)
{
	unsigned int i;

	cow->vol = vol;
	cow->chunk_bytes = vol->chunk_sectors << SECTOR_SHIFT;
	cow->seg = min_t(u32, cow->chunk_bytes, PAGE_SIZE);
	cow->segs = cow->chunk_bytes / cow->seg;
	cow->run_chunks = clamp_t(u32, SNAP_RUN_BYTES / cow->chunk_bytes, 1, BIO_MAX_VECS / cow->segs);
	spin_lock_init(&cow->lock);
	init_waitqueue_head(&cow->wait);
	init_waitqueue_head(&cow->idle);
	INIT_LIST_HEAD(&cow->incoming);
	INIT_LIST_HEAD(&cow->changes);
	INIT_LIST_HEAD(&cow->done);
	INIT_LIST_HEAD(&cow->again);
	for (i = 0; i < SNAP_FLOWS; i++)
		INIT_LIST_HEAD(&cow->flows[i]);
	INIT_LIST_HEAD(&cow->ready);
	INIT_LIST_HEAD(&cow->writing);
	INIT_LIST_HEAD(&cow->free_groups);
	cow->claims = RB_ROOT;
	INIT_WORK(&cow->house_work, house_work);
}

/**
 * snap_cow_create() - the copy path of a volume; vol->chunk_sectors and vol->bits are known
 *
 * May block, allocates everything. Return: ERR_PTR on failure.
 */
struct snap_cow *snap_cow_create(struct snap_volume *vol)
{
	struct snap_cow *cow = kzalloc(sizeof(*cow), GFP_KERNEL);
	int err;

	if (!cow)
		return ERR_PTR(-ENOMEM);
	cow_setup(cow, vol);
	err = snap_copy_init(cow);
	if (!err)
		err = snap_groups_init(cow);
	if (!err)
		err = bioset_init(&cow->discards, 4, 0, 0);
	if (err)
		goto fail;
	err = -ENOMEM;
	cow->house = alloc_ordered_workqueue("snapdiff-%s", WQ_MEM_RECLAIM, vol->name);
	if (!cow->house)
		goto fail;
	cow->worker = kthread_create(worker, cow, "snapdiff/%s", vol->name);
	if (!IS_ERR(cow->worker))
		return cow;
	err = PTR_ERR(cow->worker);
	cow->worker = NULL;
fail:
	snap_cow_destroy(cow);
	return ERR_PTR(err);
}

/** snap_cow_start() - let the worker run */
void snap_cow_start(struct snap_cow *cow)
{
	cow->failed = snap_store_failed(cow->vol->store);	/* in an earlier life: no news */
	snap_cow_refresh(cow);
	wake_up_process(cow->worker);
}

/**
 * snap_cow_stop() - end worker and housekeeping
 *
 * No bio is in the target, nobody can ask for a change any more. May block.
 */
void snap_cow_stop(struct snap_cow *cow)
{
	flush_work(&cow->house_work);
	snap_cow_drain(cow);
	if (cow->worker)
		kthread_stop(cow->worker);
	cow->worker = NULL;
	flush_work(&cow->house_work);
}

/** snap_cow_destroy() - after snap_cow_stop(), or when it was never started */
void snap_cow_destroy(struct snap_cow *cow)
{
	if (!cow)
		return;
	if (cow->worker)
		kthread_stop(cow->worker);
	if (cow->house)
		destroy_workqueue(cow->house);
	/* the last completion handler may still be in there */
	spin_lock_irq(&cow->lock);
	spin_unlock_irq(&cow->lock);
	bioset_exit(&cow->discards);
	snap_groups_exit(cow);
	snap_copy_exit(cow);
	kfree(cow);
}
