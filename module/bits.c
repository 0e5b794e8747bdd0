// SPDX-License-Identifier: GPL-2.0
/*
 * The current changed set in memory: which chunks need no copy any more.
 *
 * The set is the chunks that have a record of a generation >= K, the newest generation whose changed set is kept. It is all in the store; here is a cache of
 * windows of 32768 chunks (one page of bits), filled when the copy worker first needs one, bounded in number.
 *
 *	a set bit	the record is durable and in the table: the write passes
 *	a clear bit	in a window that is there: the chunk must be preserved (or marked) first
 *	no window	not known: the bio is deferred, the worker fills the window
 *
 * Only the copy worker fills, sets, evicts and drops; it also commits the records. So a fill cannot miss a record that is committed meanwhile.
 * Map looks from any CPU under RCU. What it may see there:
 *	- a window that is being evicted: its bits are true all the same, the records are durable;
 *	- a window of a definition that has just been replaced. K changes in two ways: a cut raises it, but then the gate is closed and no write
 *	  is between its test and its end; a deletion lowers it, and a chunk with a record >= the old K has one >= the new.
 *	- a bit just being set: the record was made visible before (commit), so a reader of a generation that sees the new data
 *	  on the primary finds it when he looks again.
 */
#include <linux/bitmap.h>
#include <linux/bits.h>
#include <linux/hash.h>
#include <linux/mm.h>
#include <linux/rculist.h>
#include <linux/slab.h>
#include "cow.h"

#define WINDOW_SHIFT	15
#define WINDOW_CHUNKS	(1u << WINDOW_SHIFT)
#define WINDOW_BYTES	(WINDOW_CHUNKS / 8)

struct window {
	struct hlist_node hash;		/* RCU */
	struct list_head age;		/* oldest first */
	struct rcu_head rcu;
	u64 index;			/* chunk >> WINDOW_SHIFT */
	bool used;			/* since the clock hand passed */
	unsigned long *bits;		/* only ever set */
};

struct snap_bits {
	struct snap_volume *vol;
	struct hlist_head *table;
	unsigned int shift;		/* log2 of the buckets */
	struct list_head age;		/* worker's */
	unsigned int nr, max;		/* worker's; nr is read by anybody */
	struct window *spare;		/* so that one window is always possible */
};

static struct window *window_alloc(gfp_t gfp)
{
	struct window *w = kzalloc(sizeof(*w), gfp);

	if (!w)
		return NULL;
	w->bits = kzalloc(WINDOW_BYTES, gfp);
	if (!w->bits) {
		kfree(w);
		return NULL;
	}
	return w;
}

static void window_free(struct window *w)
{
	if (!w)
		return;
	kfree(w->bits);
	kfree(w);
}

static void window_free_rcu(struct rcu_head *rcu)
{
	window_free(container_of(rcu, struct window, rcu));
}

/**
 * snap_bits_create() - an empty cache
 *
 * May block. Return: NULL without memory.
 */
struct snap_bits *snap_bits_create(struct snap_volume *vol)
{
	struct snap_bits *bits = kzalloc(sizeof(*bits), GFP_KERNEL);

	if (!bits)
		return NULL;
	bits->vol = vol;
	bits->max = max_t(u64, 2, div_u64(vol->memory / 4, WINDOW_BYTES + sizeof(struct window)));
	bits->shift = clamp_t(unsigned int, ilog2(bits->max), 4, 16);
	INIT_LIST_HEAD(&bits->age);
	bits->table = kvcalloc(1u << bits->shift, sizeof(*bits->table), GFP_KERNEL);
	bits->spare = window_alloc(GFP_KERNEL);
	if (!bits->table || !bits->spare) {
		snap_bits_destroy(bits);
		return NULL;
	}
	return bits;
}

/** snap_bits_memory() - [any context] bytes in use, about: the worker changes it */
u64 snap_bits_memory(const struct snap_bits *bits)
{
	return (READ_ONCE(bits->nr) + 1ull) * (WINDOW_BYTES + sizeof(struct window)) + (sizeof(*bits->table) << bits->shift);
}

static void window_unhash(struct snap_bits *bits, struct window *w)
{
	hlist_del_rcu(&w->hash);
	list_del(&w->age);
	WRITE_ONCE(bits->nr, bits->nr - 1);
}

/** snap_bits_drop() - [worker] forget everything; see the top for why readers may still be inside */
void snap_bits_drop(struct snap_bits *bits)
{
	struct window *w, *next;

	list_for_each_entry_safe(w, next, &bits->age, age) {
		window_unhash(bits, w);
		if (!bits->spare) {
			synchronize_rcu();
			bits->spare = w;
			continue;
		}
		call_rcu(&w->rcu, window_free_rcu);
	}
}

/** snap_bits_destroy() - nobody uses it any more. May block */
void snap_bits_destroy(struct snap_bits *bits)
{
	if (!bits)
		return;
	snap_bits_drop(bits);
	rcu_barrier();
	window_free(bits->spare);
	kvfree(bits->table);
	kfree(bits);
}

static struct hlist_head *bucket(struct snap_bits *bits, u64 index)
{
	return &bits->table[hash_64(index, bits->shift)];
}

static struct window *window_find(struct snap_bits *bits, u64 index)
{
	struct window *w;

	hlist_for_each_entry_rcu(w, bucket(bits, index), hash, true) {
		if (w->index == index)
			return w;
	}
	return NULL;
}

/* Are the bits @from..@to set? Words are read whole, as window_set() writes them: find_next_zero_bit() does not promise that. */
static bool all_set(const unsigned long *bits, unsigned int from, unsigned int to)
{
	unsigned int i, end = BIT_WORD(to);
	unsigned long want = BITMAP_FIRST_WORD_MASK(from);

	for (i = BIT_WORD(from); i < end; i++, want = ~0ul) {
		if (want & ~READ_ONCE(bits[i]))
			return false;
	}
	return !(want & BITMAP_LAST_WORD_MASK(to + 1) & ~READ_ONCE(bits[end]));
}

static bool window_all(struct window *w, u64 first, u64 last)
{
	u64 base = w->index << WINDOW_SHIFT;
	unsigned int from = max(first, base) - base;
	unsigned int to = min_t(u64, last - base, WINDOW_CHUNKS - 1);

	if (!READ_ONCE(w->used))
		WRITE_ONCE(w->used, true);
	return all_set(w->bits, from, to);
}

/**
 * snap_bits_all() - [any context] are all chunks @first..@last known to be in the set?
 *
 * The caller is inside the gate.
 */
bool snap_bits_all(struct snap_bits *bits, u64 first, u64 last)
{
	u64 index;
	bool all = true;

	rcu_read_lock();
	for (index = first >> WINDOW_SHIFT; all && index <= last >> WINDOW_SHIFT; index++) {
		struct window *w = window_find(bits, index);

		all = w && window_all(w, first, last);
	}
	rcu_read_unlock();
	return all;
}

/* The least used window leaves the table. Readers may see it until a grace period has passed. */
static struct window *evict(struct snap_bits *bits)
{
	unsigned int tries = bits->nr;
	struct window *w;

	for (;;) {
		w = list_first_entry(&bits->age, struct window, age);
		if (!READ_ONCE(w->used) || !tries--)
			break;
		WRITE_ONCE(w->used, false);
		list_move_tail(&w->age, &bits->age);
	}
	window_unhash(bits, w);
	return w;
}

/* Never fails: the spare one is used when there is no memory, and the evicted one (after a grace period) becomes the spare one. */
static struct window *window_get_free(struct snap_bits *bits)
{
	struct window *w;

	if (bits->nr >= bits->max)
		call_rcu(&evict(bits)->rcu, window_free_rcu);
	w = window_alloc(GFP_NOWAIT | __GFP_NOWARN | __GFP_NOMEMALLOC);
	if (w)
		return w;
	if (!bits->spare) {
		w = evict(bits);
		synchronize_rcu();
		bits->spare = w;
	}
	w = bits->spare;
	bits->spare = NULL;
	memset(w->bits, 0, WINDOW_BYTES);
	return w;
}

static void window_release(struct snap_bits *bits, struct window *w)
{
	if (!bits->spare)
		bits->spare = w;
	else
		window_free(w);
}

static int window_fill(struct snap_bits *bits, u64 index, struct window **out)
{
	struct window *w = window_get_free(bits);
	int err;

	w->index = index;
	w->used = true;
	err = snap_store_fill(bits->vol->store, bits->vol->cow->sum.newest_kept, index << WINDOW_SHIFT, WINDOW_CHUNKS, w->bits);
	if (err) {
		window_release(bits, w);
		return err;
	}
	hlist_add_head_rcu(&w->hash, bucket(bits, index));
	list_add_tail(&w->age, &bits->age);
	WRITE_ONCE(bits->nr, bits->nr + 1);
	*out = w;
	return 0;
}

/**
 * snap_bits_next_zero() - [worker] the first chunk from @chunk on that is not in the set
 * @zero: it, or *@end
 * @end: the first chunk behind the window of @chunk
 *
 * Fills the window (metadata reads) when it is not there. Return: 0; -ENOMEM: try again; other: the table cannot be read.
 */
int snap_bits_next_zero(struct snap_bits *bits, u64 chunk, u64 *zero, u64 *end)
{
	u64 index = chunk >> WINDOW_SHIFT;
	u64 base = index << WINDOW_SHIFT;
	struct window *w = window_find(bits, index);
	int err;

	if (!w) {
		err = window_fill(bits, index, &w);
		if (err)
			return err;
	}
	WRITE_ONCE(w->used, true);
	*zero = base + find_next_zero_bit(w->bits, WINDOW_CHUNKS, chunk - base);
	*end = base + WINDOW_CHUNKS;
	return 0;
}

/** snap_bits_zeros() - [worker] chunks from @chunk on that are not in the set, at most @nr; its window is there */
u32 snap_bits_zeros(struct snap_bits *bits, u64 chunk, u32 nr)
{
	struct window *w = window_find(bits, chunk >> WINDOW_SHIFT);
	unsigned int from = chunk & (WINDOW_CHUNKS - 1);
	unsigned int to = min_t(u64, (u64)from + nr, WINDOW_CHUNKS);

	return find_next_bit(w->bits, to, from) - from;
}

/* The worker alone writes; words are written whole so that who tests a bit sees the old word or the new one. */
static void window_set(struct window *w, unsigned int from, unsigned int nr)
{
	unsigned int end = from + nr;

	while (from < end) {
		unsigned int bit = from % BITS_PER_LONG, n = min(end - from, BITS_PER_LONG - bit);
		unsigned long *word = &w->bits[from / BITS_PER_LONG];

		WRITE_ONCE(*word, *word | GENMASK(bit + n - 1, bit));
		from += n;
	}
}

/** snap_bits_set() - [worker] the records of these chunks are in the table */
void snap_bits_set(struct snap_bits *bits, u64 first, u32 nr)
{
	/* the commit before the bits: a map that sees a bit lets its write go, on whatever CPU */
	smp_mb();
	while (nr) {
		struct window *w = window_find(bits, first >> WINDOW_SHIFT);
		unsigned int from = first & (WINDOW_CHUNKS - 1);
		u32 n = min(nr, WINDOW_CHUNKS - from);

		if (w)
			window_set(w, from, n);
		first += n;
		nr -= n;
	}
}
