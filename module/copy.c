// SPDX-License-Identifier: GPL-2.0
/*
 * Runs: consecutive chunks whose old content is read from the primary with one bio. (The argument of the copy path is in cow.c.)
 *
 * A run is claimed (in the tree of claims) from its start until the records of all its chunks are in the table. Its bio carries the pages: one bvec a
 * page, or part of a page when pages are larger than chunks, so that any chunk's pages are found by index when they are written to the diff.
 *
 * Memory: nothing here waits for memory that only the worker itself could give back. Objects, pages and bios come from pools without waiting;
 * when there is none the worker goes on with what is in flight and asks again. The pools hold one chunk of the largest size, so that
 * with nothing in flight a run is always possible.
 *
 * A run and its bio are one object (the bio set's front pad). Pages that come back are kept by the worker, as many as a usual group has: the next run gets the one that was
 * used last, which is in the processor's cache. The pool is given its reserve first, so that what is kept is on top of it.
 */
#include <linux/highmem.h>
#include <linux/slab.h>
#include "cow.h"

#define RESERVED_RUNS	16
#define SNAP_NOWAIT	(GFP_NOWAIT | __GFP_NOWARN)

/** snap_run_find() - [worker] the run that claims @chunk, or NULL and *@next_claim, the first claimed chunk behind it (U64_MAX: none) */
struct snap_run *snap_run_find(struct snap_cow *cow, u64 chunk, u64 *next_claim)
{
	struct rb_node *n = cow->claims.rb_node;

	*next_claim = U64_MAX;
	while (n) {
		struct snap_run *run = rb_entry(n, struct snap_run, node);

		if (chunk < run->first) {
			*next_claim = run->first;
			n = n->rb_left;
		} else if (chunk >= run->first + run->nr) {
			n = n->rb_right;
		} else {
			return run;
		}
	}
	return NULL;
}

static void claim(struct snap_cow *cow, struct snap_run *run)
{
	struct rb_node **p = &cow->claims.rb_node, *parent = NULL;

	while (*p) {
		parent = *p;
		p = run->first < rb_entry(parent, struct snap_run, node)->first ? &parent->rb_left : &parent->rb_right;
	}
	rb_link_node(&run->node, parent, p);
	rb_insert_color(&run->node, &cow->claims);
}

/* To the worker: the read has ended. */
static void run_done(struct snap_run *run)
{
	struct snap_cow *cow = run->cow;
	unsigned long flags;

	spin_lock_irqsave(&cow->lock, flags);
	list_add_tail(&run->list, &cow->done);
	WRITE_ONCE(cow->done_chunks, cow->done_chunks + run->nr);
	snap_cow_kick(cow);
	spin_unlock_irqrestore(&cow->lock, flags);
}

/** snap_run_seg() - the bvec of part @seg of @chunk */
struct bio_vec *snap_run_seg(struct snap_run *run, u64 chunk, u32 seg)
{
	return &run->bio.bi_io_vec[(chunk - run->first) * run->cow->segs + seg];
}

static bool checksum(struct snap_run *run, u64 chunk, u32 *crc)
{
	struct snap_cow *cow = run->cow;
	bool zero = true;
	u32 i, sum = ~0u;

	for (i = 0; i < cow->segs; i++) {
		void *p = kmap_local_page(snap_run_seg(run, chunk, i)->bv_page);

		if (zero && memchr_inv(p, 0, cow->seg))
			zero = false;
		sum = crc32c(sum, p, cow->seg);
		kunmap_local(p);
	}
	*crc = sum;
	return zero;
}

/*
 * A device that is memory completes a read inside of its submission: in the worker, with the chunk in the processor's nearest cache. Larger runs, and what completes in an
 * interrupt, are summed up when they become items.
 */
static bool sum_at_once(const struct snap_run *run)
{
	return run->nr == 1 && !run->status && current == run->cow->worker && in_task();
}

static void run_endio(struct bio *bio)
{
	struct snap_run *run = bio->bi_private;

	run->status = bio->bi_status;
	if (sum_at_once(run)) {
		run->zero = checksum(run, run->first, &run->crc);
		run->summed = true;
	}
	run_done(run);
}

static void retry_endio(struct bio *bio)
{
	struct snap_run *run = bio->bi_private;

	run->status = bio->bi_status;
	bio_put(bio);
	run_done(run);
}

static struct page *take_page(struct snap_cow *cow)
{
	if (cow->nr_kept_pages)
		return cow->kept_pages[--cow->nr_kept_pages];
	return mempool_alloc(&cow->pages, SNAP_NOWAIT);
}

static void give_page_back(struct snap_cow *cow, struct page *page)
{
	if (cow->nr_kept_pages < SNAP_KEPT_PAGES && cow->pages.curr_nr >= cow->pages.min_nr)
		cow->kept_pages[cow->nr_kept_pages++] = page;
	else
		mempool_free(page, &cow->pages);
}

static void free_pages_of(struct snap_cow *cow, struct bio *bio)
{
	unsigned int i;

	for (i = 0; i < bio->bi_vcnt; i++)
		give_page_back(cow, bio->bi_io_vec[i].bv_page);
}

/* The copy is made on behalf of who writes: his cgroup is charged with it, and it is as urgent as his write. */
static void on_behalf_of(struct bio *bio, const struct snap_run *run)
{
	struct bio *owner = snap_pbio_bio(run->owner);

	bio_clone_blkg_association(bio, owner);
	bio->bi_ioprio = owner->bi_ioprio;
}

/* One bvec a page, in order; __bio_add_page() never merges them. */
static bool bio_add_own_pages(struct snap_cow *cow, struct bio *bio, unsigned int segs)
{
	while (bio->bi_vcnt < segs) {
		struct page *page = take_page(cow);

		if (!page) {
			free_pages_of(cow, bio);
			return false;
		}
		__bio_add_page(bio, page, cow->seg, 0);
	}
	return true;
}

/* What is behind the end of the primary is zero: the last chunk may be partial. */
static unsigned int limit_to_primary(struct snap_cow *cow, struct bio *bio, u64 first, u32 nr)
{
	u64 start = first << cow->vol->chunk_shift;
	u64 left = READ_ONCE(cow->vol->size) - start;
	u64 want = (u64)nr << cow->vol->chunk_shift;
	unsigned int i;

	if (want <= left)
		return nr * cow->chunk_bytes;
	for (i = (left << SECTOR_SHIFT) / cow->seg; i < bio->bi_vcnt; i++)
		memzero_page(bio->bi_io_vec[i].bv_page, 0, cow->seg);
	return left << SECTOR_SHIFT;
}

static void prepare_read(struct snap_run *run)
{
	struct snap_cow *cow = run->cow;
	struct bio *bio = &run->bio;

	bio->bi_bdev = cow->vol->primary_bdev;
	bio->bi_iter.bi_sector = run->first << cow->vol->chunk_shift;
	bio->bi_iter.bi_size = limit_to_primary(cow, bio, run->first, run->nr);
	bio->bi_end_io = run_endio;
	bio->bi_private = run;
	on_behalf_of(bio, run);
}

/* With the pages for so many bvecs. NULL: no memory. */
static struct snap_run *run_alloc(struct snap_cow *cow, unsigned int segs)
{
	/* Without a device: whose cgroup is charged is said once, by prepare_read(). */
	struct bio *bio = bio_alloc_bioset(NULL, segs, REQ_OP_READ | REQ_SYNC, SNAP_NOWAIT, &cow->reads);
	struct snap_run *run;

	if (!bio)
		return NULL;
	if (!bio_add_own_pages(cow, bio, segs)) {
		bio_put(bio);
		return NULL;
	}
	run = container_of(bio, struct snap_run, bio);
	memset(run, 0, offsetof(struct snap_run, bio));
	INIT_LIST_HEAD(&run->list);
	INIT_LIST_HEAD(&run->waiters);
	run->cow = cow;
	return run;
}

/**
 * snap_run_start() - [worker] claim chunks and start to read them
 * @mark: only the fact that they change is recorded: nothing to read
 *
 * @nr is at most cow->run_chunks, and nothing of it is claimed. Return: NULL: no memory, or too much in flight; ask again when something has ended.
 */
struct snap_run *snap_run_start(struct snap_cow *cow, struct snap_pbio *pb, u64 first, u32 nr, bool mark)
{
	struct snap_run *run = run_alloc(cow, mark ? 0 : nr * cow->segs);

	if (!run)
		return NULL;
	run->owner = pb;
	run->prio = snap_pbio_bio(pb)->bi_ioprio;
	run->first = first;
	run->nr = nr;
	run->mark = mark;
	if (!mark) {
		prepare_read(run);
		cow->bytes += (u64)nr * cow->chunk_bytes;
		cow->reading++;
	}
	claim(cow, run);
	cow->chunks += nr;
	pb->missing++;
	if (!mark)
		submit_bio_noacct(&run->bio);
	return run;
}

/* The bvecs of one chunk, read alone after the whole run could not be read. */
static void read_alone(struct snap_run *run)
{
	struct snap_cow *cow = run->cow;
	u64 chunk = run->first + run->retry;
	struct bio *bio;
	u32 i;

	/* waits at most for other retries, whose bios their own completion gives back */
	bio = bio_alloc_bioset(cow->vol->primary_bdev, cow->segs, REQ_OP_READ | REQ_SYNC, GFP_NOIO, &cow->retries);
	for (i = 0; i < cow->segs; i++)
		__bio_add_page(bio, snap_run_seg(run, chunk, i)->bv_page, cow->seg, 0);
	bio->bi_iter.bi_sector = chunk << cow->vol->chunk_shift;
	bio->bi_iter.bi_size = limit_to_primary(cow, bio, chunk, 1);
	bio->bi_end_io = retry_endio;
	bio->bi_private = run;
	on_behalf_of(bio, run);
	submit_bio_noacct(bio);
}

/**
 * snap_run_read_done() - [worker] a read of the run has ended
 *
 * When a run of several chunks could not be read, each of them is read alone: only those that really cannot be read become bad.
 * Return: true: its content is complete; false: another read has been started.
 */
bool snap_run_read_done(struct snap_run *run)
{
	if (!run->retrying) {
		if (!run->status)
			goto complete;
		if (run->nr > 1) {
			run->retrying = true;
			read_alone(run);
			return false;
		}
	}
	if (run->status)
		__set_bit(run->retry, run->bad);
	if (++run->retry < run->nr) {
		read_alone(run);
		return false;
	}
complete:
	run->cow->reading--;
	return true;
}

/* Is it all zeros? If not, *@crc. */
static bool content(struct snap_run *run, u64 chunk, u32 *crc)
{
	if (!run->summed)
		return checksum(run, chunk, crc);
	*crc = run->crc;
	return run->zero;
}

/** snap_run_item() - [worker] what is to be recorded of chunk @i of the run */
void snap_run_item(struct snap_run *run, u32 i, struct snap_item *item)
{
	item->chunk = run->first + i;
	item->crc = 0;
	item->addr = 0;
	if (run->mark)
		item->kind = SNAP_MARK;
	else if (test_bit(i, run->bad))
		item->kind = SNAP_BAD;
	else
		item->kind = content(run, item->chunk, &item->crc) ? SNAP_ZERO : SNAP_DATA;
	if (item->kind != SNAP_DATA)
		item->crc = 0;
}

/** snap_run_free() - [worker] the claim ends; nobody waits for it */
void snap_run_free(struct snap_run *run)
{
	struct snap_cow *cow = run->cow;

	WARN_ON_ONCE(!list_empty(&run->waiters));
	rb_erase(&run->node, &cow->claims);
	cow->chunks -= run->nr;
	if (!run->mark)
		cow->bytes -= (u64)run->nr * cow->chunk_bytes;
	free_pages_of(cow, &run->bio);
	bio_put(&run->bio);
}

/** snap_copy_init() - the pools. May block */
int snap_copy_init(struct snap_cow *cow)
{
	unsigned int reserve = max(2 * cow->segs, 64u);
	int err;

	err = mempool_init_page_pool(&cow->pages, reserve, 0);
	if (!err)
		err = bioset_init(&cow->reads, RESERVED_RUNS, offsetof(struct snap_run, bio), BIOSET_NEED_BVECS);
	if (!err)
		err = bioset_init(&cow->retries, 4, 0, BIOSET_NEED_BVECS);
	return err;
}

/** snap_copy_exit() - also after a snap_copy_init() that failed half-way, on zeroed memory */
void snap_copy_exit(struct snap_cow *cow)
{
	bioset_exit(&cow->retries);
	bioset_exit(&cow->reads);
	while (cow->nr_kept_pages)
		mempool_free(cow->kept_pages[--cow->nr_kept_pages], &cow->pages);
	mempool_exit(&cow->pages);
}
