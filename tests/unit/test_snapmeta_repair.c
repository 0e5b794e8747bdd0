// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * snapmeta repair: stores with a history, damaged at random, repaired, and compared with a model that knows only arrays.
 *
 * After a repair the checker finds nothing, every chunk of every live generation is what the model says, or EIO, and a changed set that is not marked unknown has all
 * changes. Then the store goes on: more writes, generations, deletions, merges, the same comparison.
 */
#include "core_world.h"
#include "repair.h"

static struct { u64 images, untouched, older, none; } count;

/* ---- damage ------------------------------------------------------------------------------------------------------ */

static bool is_metadata(const struct world *w, u64 block)
{
	static const u32 magic[] = { SD_MAGIC_SUPER, SD_MAGIC_BITMAP, SD_MAGIC_JOURNAL, SD_MAGIC_LEAF, SD_MAGIC_FENCE, SD_MAGIC_CATALOG,
		SD_MAGIC_INDEX };
	const struct sd_disk_header *h = (void *)(w->m.data + block * SD_BLOCK_SIZE);
	u32 i;

	for (i = 0; i < ARRAY_SIZE(magic); i++)
		if (le32_to_cpu(h->magic) == magic[i])
			return true;
	return false;
}

static void damage(struct world *w, u64 block)
{
	u8 *b = w->m.data + block * SD_BLOCK_SIZE;
	u32 i;

	switch (roll(w, 5)) {
	case 0:
		b[roll(w, SD_BLOCK_SIZE)] ^= 1 << roll(w, 8);
		break;
	case 1:
		memset(b, 0, SD_BLOCK_SIZE);
		break;
	case 2:
		for (i = 0; i < 512; i++)
			b[roll(w, 8) * 512 + i] = roll(w, 256);
		break;
	case 3:		/* another block in its place */
		memcpy(b, w->m.data + (u64)roll(w, BLOCKS) * SD_BLOCK_SIZE, SD_BLOCK_SIZE);
		break;
	case 4:
		w->bad_block = block > 1 ? block : 0;
		break;
	}
}

/* The newest image, which nothing after it vouches for. */
static u64 last_image(const struct world *w)
{
	u64 b, at = 0, seq = 0;

	for (b = 2; b < 66; b++) {
		const struct sd_disk_journal *d = (void *)(w->m.data + b * SD_BLOCK_SIZE);

		if (le32_to_cpu(d->hdr.magic) == SD_MAGIC_JOURNAL && le64_to_cpu(d->hdr.txid) >= seq) {
			seq = le64_to_cpu(d->hdr.txid);
			at = b;
		}
	}
	return at;
}

static void damage_some(struct world *w)
{
	u32 n = 1 + roll(w, 4), tries = 0;
	u64 last = last_image(w);

	while (n && tries++ < 100000) {
		u64 b = roll(w, BLOCKS);

		if (b == last || (is_metadata(w, b) ? b < 66 && roll(w, 4) : roll(w, 400)))
			continue;
		damage(w, b);
		n--;
	}
}

/* ---- the tests ------------------------------------------------------------------------------------------------- */

static void print_finding(void *ctx, const char *text)
{
	(void)ctx;
	if (getenv("REPAIR_VERBOSE"))
		print_message("%s\n", text);
}

static void check_repaired(struct world *w)
{
	struct sd_check_result res;

	assert_int_equal(sd_check(w->s, SD_CHECK_DATA, &res), 0);
	assert_int_equal(res.errors - res.data_bad, 0);
}

/* In place, or onto a device full of something else. */
static int do_repair(struct world *w, bool elsewhere, struct repair_result *res)
{
	struct repair_opts o = { .data = roll(w, 2), .max_bad = roll(w, 3) ? 0 : 1 + roll(w, 100), .say = print_finding };
	struct memdev out;
	int err;

	if (!elsewhere) {
		err = repair(&w->m.dev, &w->m.dev, &o, res);
		w->bad_block = 0;	/* rewritten, or nobody's */
		return err;
	}
	memdev_init(&out, BLOCKS);
	memcpy(out.data, w->m.data, BLOCKS / 2 * SD_BLOCK_SIZE);
	err = repair(&w->m.dev, &out.dev, &o, res);
	if (!err && res->findings)
		memcpy(w->m.data, out.data, BLOCKS * SD_BLOCK_SIZE);
	else
		count.untouched += !err;
	w->bad_block = 0;
	memdev_exit(&out);
	return err;
}

static void one_image(u64 seed, bool damaged)
{
	struct world *w = malloc(sizeof(*w));
	struct repair_result res;
	bool clean;
	int err;

	begin(w, seed);
	create(w);
	live_on(w, 40 + roll(w, 120));
	clean = roll(w, 2);
	end(w, clean);
	if (damaged)
		damage_some(w);
	err = do_repair(w, damaged && roll(w, 3) == 0, &res);
	count.images++;
	if (err == -ENODATA) {
		count.none++;
		goto out;
	}
	assert_int_equal(err, 0);
	assert_true(damaged || !res.findings);
	count.older += res.older;
	open_again(w);
	check_repaired(w);
	compare(w, damaged);
	live_on(w, 40);
	compare(w, damaged);
	until_idle(w->s);
	check_repaired(w);
	end(w, true);
out:
	repair_result_free(&res);
	memdev_exit(&w->m);
	free(w);
}

static u64 images(u64 n)
{
	const char *env = getenv("REPAIR_IMAGES");

	return env ? strtoull(env, NULL, 10) : n;
}

static void whole_stores_stay_as_they_are(void **state)
{
	u64 i;

	memset(&total, 0, sizeof(total));
	for (i = 0; i < 10; i++)
		one_image(i, false);
	assert_int_equal(total.lost + total.gone + total.eio, 0);
}

static void damaged_stores_tell_no_lies(void **state)
{
	const char *from = getenv("REPAIR_SEED");
	u64 first = from ? strtoull(from, NULL, 10) : 1000, i;

	memset(&total, 0, sizeof(total));
	memset(&count, 0, sizeof(count));
	for (i = 0; i < images(200); i++) {
		if (getenv("REPAIR_VERBOSE"))
			print_message("seed %llu\n", (unsigned long long)(first + i));
		one_image(first + i, true);
	}
	print_message("%llu images: %llu generations live, %llu lost, %llu gone; %llu chunks exact, %llu EIO; %llu from the older superblock, %llu without one\n",
		      (unsigned long long)count.images, (unsigned long long)total.live, (unsigned long long)total.lost,
		      (unsigned long long)total.gone, (unsigned long long)total.exact, (unsigned long long)total.eio,
		      (unsigned long long)count.older, (unsigned long long)count.none);
	/* Not by giving everything up. */
	assert_true(from || (total.live > 5 * total.lost && total.exact > 20 * total.eio && total.eio && total.lost));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(whole_stores_stay_as_they_are),
		cmocka_unit_test(damaged_stores_tell_no_lies),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
