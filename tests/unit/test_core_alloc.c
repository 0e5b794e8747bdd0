// SPDX-License-Identifier: GPL-2.0-or-later
/* The allocator's states against an array of them, over two groups. */
#include "core_dev.h"

#define BLOCKS	(SD_GROUP_BLOCKS + 900ull)	/* behind the journal: one group whole, a short one */

enum block_state { FREE, TAKEN, USED, DROPPED };

struct world {
	struct memdev m;
	struct sd_store *s;
	u8 *state;		/* by block of the device */
	struct { u64 addr; u32 nr; enum block_state state; } ext[512];
	u32 nr;
	u64 seed;
};

static void mark(struct world *w, u64 addr, u32 nr, u8 from, u8 to)
{
	for (; nr; addr++, nr--) {
		assert_int_equal(w->state[addr], from);
		w->state[addr] = to;
	}
}

static void compare(struct world *w)
{
	u64 free = 0, avail = 0, a;
	const struct sd_alloc *al = &w->s->alloc;
	bool used;

	for (a = al->start; a < al->end; a++) {
		u64 off = (a - al->start) % SD_GROUP_BLOCKS;

		if (off < 2)
			continue;
		avail += w->state[a] == FREE;
		free += w->state[a] != USED;
		if (a % 97)
			continue;
		assert_int_equal(sd_alloc_test(w->s, a, &used), 0);
		assert_int_equal(used, w->state[a] == USED);
	}
	assert_int_equal(al->avail, avail);
	assert_int_equal(al->free, free);
}

static void take(struct world *w)
{
	bool meta = dice(&w->seed, 2);
	u32 unit = meta ? 1 : 1u << dice(&w->seed, 5), want = unit * (1 + dice(&w->seed, 100)), got;
	u64 addr, before = w->s->alloc.avail;
	int err = sd_alloc_take(w->s, want, unit, meta, &addr, &got);

	if (err) {
		assert_int_equal(err, -ENOSPC);
		return;
	}
	assert_in_range(got, unit, want);
	assert_int_equal(got % unit, 0);
	assert_true(meta || before - got >= w->s->alloc.reserve);
	mark(w, addr, got, FREE, TAKEN);
	w->ext[w->nr].addr = addr;
	w->ext[w->nr].nr = got;
	w->ext[w->nr++].state = TAKEN;
}

static void change(struct world *w, u32 i)
{
	u64 addr = w->ext[i].addr;
	u32 nr = w->ext[i].nr;

	switch (w->ext[i].state) {
	case TAKEN:
		if (dice(&w->seed, 3)) {
			sd_alloc_commit(w->s, addr, nr);
			mark(w, addr, nr, TAKEN, USED);
			w->ext[i].state = USED;
			return;
		}
		sd_alloc_untake(w->s, addr, nr);
		mark(w, addr, nr, TAKEN, FREE);
		break;
	case USED:
		assert_int_equal(sd_alloc_drop(w->s, addr, nr), 0);
		mark(w, addr, nr, USED, DROPPED);
		w->ext[i].state = DROPPED;
		return;
	default:
		sd_alloc_release(w->s, addr, nr);
		mark(w, addr, nr, DROPPED, FREE);
	}
	w->ext[i] = w->ext[--w->nr];
}

static void setup(struct world *w)
{
	u64 a;
	bool used;

	memset(w, 0, sizeof(*w));
	w->s = memdev_store(&w->m, 2 + 128 + BLOCKS, 4096, 128);
	w->seed = 4;
	assert_int_equal(w->s->alloc.nr_groups, 2);
	w->state = calloc(1, w->m.dev.nr_blocks);
	for (a = w->s->alloc.start; a < w->s->alloc.end; a++) {
		assert_int_equal(sd_alloc_test(w->s, a, &used), 0);
		if (used)
			w->state[a] = USED;
	}
}

static void teardown(struct world *w)
{
	sd_close(w->s);
	free(w->state);
	memdev_exit(&w->m);
}

static void random_life(void **state)
{
	struct world w;
	u32 i;

	setup(&w);
	for (i = 0; i < 30000; i++) {
		if (w.nr < 512 && dice(&w.seed, 5) < 3)
			take(&w);
		else if (w.nr)
			change(&w, dice(&w.seed, w.nr));
		if (i % 1000 == 0)
			compare(&w);
	}
	while (w.nr)
		change(&w, 0);
	compare(&w);
	teardown(&w);
}

/* Data stops at the reserve, metadata may have it all. */
static void reserve(void **state)
{
	struct world w;
	u64 addr;
	u32 got;

	setup(&w);
	while (!sd_alloc_take(w.s, 4096, 4, false, &addr, &got))
		assert_int_equal(got % 4, 0);
	assert_in_range(w.s->alloc.avail, w.s->alloc.reserve, w.s->alloc.reserve + 8);
	while (!sd_alloc_take(w.s, 4096, 1, true, &addr, &got))
		;
	assert_int_equal(w.s->alloc.avail, 0);
	teardown(&w);
}

/* A list is all or nothing. */
static void lists(void **state)
{
	struct sd_blocks l = { 0 };
	struct world w;
	u64 avail, n = 0;
	u32 i;

	setup(&w);
	avail = w.s->alloc.avail;
	assert_int_equal(sd_alloc_take_list(w.s, avail + 1, &l), -ENOSPC);
	assert_int_equal(l.nr, 0);
	assert_int_equal(w.s->alloc.avail, avail);
	assert_int_equal(sd_alloc_take_list(w.s, avail, &l), 0);
	for (i = 0; i < l.nr; i++)
		n += l.r[i].nr;
	assert_int_equal(n, avail);
	sd_blocks_clear(&l);
	teardown(&w);
}

static void wrong_frees_are_damage(void **state)
{
	struct world w;
	u64 addr;
	u32 got;

	setup(&w);
	assert_int_equal(sd_alloc_take(w.s, 4, 4, true, &addr, &got), 0);
	assert_int_equal(sd_alloc_drop(w.s, addr, 4), -EUCLEAN);	/* not in use yet */
	sd_alloc_commit(w.s, addr, 4);
	assert_int_equal(sd_alloc_drop(w.s, addr, 4), 0);
	assert_int_equal(sd_alloc_drop(w.s, addr, 4), -EUCLEAN);	/* twice */
	assert_int_equal(sd_alloc_drop(w.s, w.s->alloc.end - 1, 2), -EUCLEAN);
	assert_int_equal(sd_alloc_drop(w.s, w.s->alloc.start - 1, 2), -EUCLEAN);
	assert_int_equal(sd_alloc_drop(w.s, U64_MAX - 1, 4), -EUCLEAN);
	teardown(&w);
}

static u64 unreadable;

static int read_but_one(void *ctx, u64 block, u32 nr, void *buf)
{
	return block == unreadable ? -EIO : mem_read(ctx, block, nr, buf);
}

static int get_but_one(void *ctx, u64 block, struct sd_buf *buf)
{
	return block == unreadable ? -EIO : mem_get(ctx, block, buf);
}

/* A bitmap or a leaf that cannot be read is an error that is counted, like one with a wrong checksum; the rest is checked nevertheless. */
static void unreadable_blocks(void **state)
{
	struct sd_check_result r;
	struct sd_dev_ops ops;
	struct sd_store *s;
	struct memdev m;

	s = memdev_store(&m, SD_MIN_DIFF_BLOCKS, 4096, 0);
	put_gen(&m, s, 1, SD_GEN_LIVE);
	copy_chunk(&m, s, 7);
	checkpoint(s);
	unreadable = s->alloc.start + !!(s->alloc.g[0].flags & SD_GROUP_D_COPY_B);
	sd_close(s);
	assert_int_equal(memdev_open(&m, true, &s), 0);
	ops = *m.dev.ops;
	ops.read = read_but_one;
	ops.get = get_but_one;
	m.dev.ops = &ops;
	assert_int_equal(sd_check(s, SD_CHECK_DATA, &r), 0);
	assert_int_equal(r.errors, 1);
	assert_int_equal(r.records, 1);
	assert_non_null(strstr(m.said, "bitmap cannot be read"));
	unreadable = s->cur->runs[0]->seg[0].root;
	assert_int_equal(sd_check(s, SD_CHECK_DATA, &r), 0);
	assert_true(r.errors > 0);
	assert_non_null(strstr(m.said, "segment cannot be read"));
	sd_close(s);
	memdev_exit(&m);
}

/* ---- bitmaps that cannot be read ------------------------------------------------------------------------------------------ */

#define GROUPS	4u

static struct sd_store *several_groups(struct memdev *m)
{
	return memdev_store(m, (GROUPS - 1) * (u64)SD_GROUP_BLOCKS + 5000, 4096, 256);
}

static void break_bitmap(struct memdev *m, struct sd_store *s, u32 group)
{
	u64 addr = s->alloc.start + (u64)group * SD_GROUP_BLOCKS;

	memset(m->data + addr * SD_BLOCK_SIZE + 100, 0x77, SD_BLOCK_SIZE);	/* of both copies */
	memset(m->data + (addr + 1) * SD_BLOCK_SIZE + 100, 0x77, 1000);
}

static void copy_range(struct memdev *m, struct sd_store *s, u64 first, u32 nr)
{
	for (; nr; first++, nr--)
		copy_chunk(m, s, first);
}

static void assert_range(struct memdev *m, struct sd_store *s, u32 gen, u64 first, u32 nr)
{
	u8 want[4096];

	for (; nr; first++, nr--) {
		struct sd_rec rec = lookup(s, first, gen);

		assert_int_equal(rec.kind, SD_KIND_DATA);
		fill_content(want, sizeof(want), first, gen);
		assert_memory_equal(m->data + rec.addr * SD_BLOCK_SIZE, want, sizeof(want));
	}
}

/* Nothing is used that is free in a bitmap. Bitmaps that are not readable are errors of their own. */
static void assert_nothing_missing(struct sd_store *s)
{
	struct sd_check_result r;

	assert_int_equal(sd_check(s, SD_CHECK_DATA, &r), 0);
	assert_int_equal(r.blocks_missing, 0);
	assert_int_equal(r.data_bad, 0);
}

/* Of the metadata's group and the data's: the store goes on in others, and gives back what it has in them. */
static void a_bitmap_costs_its_group(void **state)
{
	const u8 fp[SD_FINGERPRINT_SIZE] = "fp";
	struct memdev m;
	struct sd_store *s = several_groups(&m);
	u64 avail;

	put_gen(&m, s, 1, SD_GEN_LIVE);
	copy_range(&m, s, 0, 300);
	put_gen(&m, s, 2, SD_GEN_LIVE);
	copy_range(&m, s, 0, 300);
	assert_int_equal(sd_detach(s, fp), 0);
	break_bitmap(&m, s, 0);
	break_bitmap(&m, s, GROUPS - 1);
	sd_close(s);

	assert_int_equal(memdev_open(&m, false, &s), 0);
	assert_int_equal(sd_attach(s, 1 << 20), 0);
	avail = s->alloc.avail;
	put_gen(&m, s, 3, SD_GEN_LIVE);
	copy_range(&m, s, 0, 50);
	checkpoint(s);
	assert_true(s->alloc.avail < avail - SD_GROUP_BLOCKS + 1000);
	assert_non_null(strstr(m.said, "cannot be read"));
	assert_range(&m, s, 1, 0, 300);
	/* Generation 1 is in the damaged groups. */
	del_gens(&m, s, 1, 1);
	checkpoint(s);
	until_idle(s);
	copy_range(&m, s, 50, 250);
	assert_int_equal(sd_detach(s, fp), 0);
	assert_false(s->failed);
	sd_close(s);

	assert_int_equal(memdev_open(&m, false, &s), 0);
	assert_range(&m, s, 2, 0, 300);
	assert_range(&m, s, 3, 0, 300);
	assert_nothing_missing(s);
	sd_close(s);
	memdev_exit(&m);
}

/* Copies in the log lie in a group whose bitmap cannot be read: they are not overwritten, in this attachment and in no later one. */
static void replay_into_a_damaged_group(void **state)
{
	struct memdev m;
	struct sd_store *s = several_groups(&m);
	u8 old[2 * SD_BLOCK_SIZE];
	u64 addr = s->alloc.start;

	put_gen(&m, s, 1, SD_GEN_LIVE);
	copy_range(&m, s, 0, 100);
	checkpoint(s);
	memcpy(old, m.data + addr * SD_BLOCK_SIZE, sizeof(old));
	copy_range(&m, s, 100, 100);
	break_bitmap(&m, s, 0);
	sd_close(s);

	assert_int_equal(memdev_open(&m, true, &s), 0);
	assert_range(&m, s, 1, 0, 200);
	sd_close(s);
	assert_int_equal(memdev_open(&m, false, &s), 0);
	assert_int_equal(sd_attach(s, 1 << 20), 0);
	sd_close(s);
	/* The old bitmap comes back, where it has not been written anew. */
	if (!memcmp(m.data + addr * SD_BLOCK_SIZE + 100, "\x77\x77\x77\x77", 4))
		memcpy(m.data + addr * SD_BLOCK_SIZE, old, SD_BLOCK_SIZE);
	if (!memcmp(m.data + (addr + 1) * SD_BLOCK_SIZE + 100, "\x77\x77\x77\x77", 4))
		memcpy(m.data + (addr + 1) * SD_BLOCK_SIZE, old + SD_BLOCK_SIZE, SD_BLOCK_SIZE);
	assert_int_equal(memdev_open(&m, false, &s), 0);
	assert_int_equal(sd_attach(s, 1 << 20), 0);
	copy_range(&m, s, 200, 300);
	checkpoint(s);
	assert_range(&m, s, 1, 0, 500);
	assert_nothing_missing(s);
	sd_close(s);
	memdev_exit(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_life),
		cmocka_unit_test(reserve),
		cmocka_unit_test(lists),
		cmocka_unit_test(wrong_frees_are_damage),
		cmocka_unit_test(unreadable_blocks),
		cmocka_unit_test(a_bitmap_costs_its_group),
		cmocka_unit_test(replay_into_a_damaged_group),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
