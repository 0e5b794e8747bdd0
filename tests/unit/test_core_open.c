// SPDX-License-Identifier: GPL-2.0-or-later
/* The core: format, open, attach, detach; what damage of each kind of block does. */
#include "core_dev.h"

static void format_refuses(void **state)
{
	struct memdev m;

	memdev_init(&m, SD_MIN_DIFF_BLOCKS);
	assert_int_equal(memdev_format(&m, 2048, 0), -EINVAL);
	assert_int_equal(memdev_format(&m, 4096 * 3, 0), -EINVAL);
	assert_int_equal(memdev_format(&m, 2 << 20, 0), -EINVAL);
	assert_int_equal(memdev_format(&m, 0, 16), -EINVAL);
	assert_int_equal(memdev_format(&m, 0, SD_MIN_DIFF_BLOCKS), -ENOSPC);
	m.dev.nr_blocks = SD_MIN_DIFF_BLOCKS - 1;
	assert_int_equal(memdev_format(&m, 0, 0), -ENOSPC);
	assert_int_equal(m.writes, 0);
	memdev_exit(&m);
}

static void open_of_nothing(void **state)
{
	struct sd_store *s;
	struct memdev m;

	memdev_init(&m, SD_MIN_DIFF_BLOCKS);
	assert_int_equal(memdev_open(&m, false, &s), -ENODATA);
	memset(m.data, 0xff, SD_MIN_DIFF_BLOCKS * SD_BLOCK_SIZE);
	assert_int_equal(memdev_open(&m, false, &s), -ENODATA);
	assert_int_equal(m.writes, 0);
	memdev_exit(&m);
}

static void clean_life(void **state)
{
	u8 fingerprint[SD_FINGERPRINT_SIZE] = "as it was";
	struct sd_store *s;
	struct sd_info i;
	struct memdev m;

	memdev_init(&m, SD_MIN_DIFF_BLOCKS);
	assert_int_equal(memdev_format(&m, 0, 0), 0);
	assert_int_equal(memdev_open(&m, false, &s), 0);
	sd_info(s, &i);
	assert_true(i.was_clean);
	assert_int_equal(i.primary_sectors, 0);
	assert_int_equal(i.chunk_size, 4096);
	assert_int_equal(sd_attach(s, 4711), 0);
	assert_int_equal(sd_detach(s, fingerprint), 0);
	sd_close(s);
	assert_int_equal(memdev_open(&m, false, &s), 0);
	sd_info(s, &i);
	assert_true(i.was_clean);
	assert_int_equal(i.primary_sectors, 4711);
	assert_memory_equal(i.fingerprint, fingerprint, sizeof(fingerprint));
	assert_int_equal(sd_attach(s, 4711), 0);
	sd_close(s);			/* without detach: as a crash leaves it */
	assert_int_equal(memdev_open(&m, false, &s), 0);
	sd_info(s, &i);
	assert_false(i.was_clean);
	assert_clean(s);
	sd_close(s);
	memdev_exit(&m);
}

static void crash_replays(void **state)
{
	struct memdev m;
	struct sd_store *s = memdev_store(&m, SD_MIN_DIFF_BLOCKS, 16384, 0);
	struct sd_info i;
	u64 addr;

	put_gen(&m, s, 1, SD_GEN_LIVE);
	copy_chunk(&m, s, 77);
	addr = lookup(s, 77, 1).addr;
	sd_close(s);
	assert_int_equal(memdev_open(&m, false, &s), 0);
	sd_info(s, &i);
	assert_int_equal(i.replayed_groups, 2);
	assert_int_equal(i.dropped_groups, 0);
	assert_int_equal(i.records_new, 0);
	assert_int_equal(i.records_run, 1);
	assert_int_equal(lookup(s, 77, 1).kind, SD_KIND_DATA);
	assert_int_equal(lookup(s, 77, 1).addr, addr);
	assert_int_equal(lookup(s, 78, 1).kind, SD_KIND_NONE);
	assert_clean(s);
	sd_close(s);
	memdev_exit(&m);
}

static void group_without_its_data_is_dropped(void **state)
{
	struct memdev m;
	struct sd_store *s = memdev_store(&m, SD_MIN_DIFF_BLOCKS, 4096, 0);
	struct sd_item item = { .chunk = 5, .kind = SD_KIND_DATA, .crc = 12345 };
	struct sd_group *g;
	struct sd_info i;

	put_gen(&m, s, 1, SD_GEN_LIVE);
	assert_int_equal(sd_group_begin(s, &g), 0);
	assert_int_equal(sd_group_add_items(s, g, &item, 1), 1);
	group_end(&m, s, g);		/* its data never came */
	sd_close(s);
	assert_int_equal(memdev_open(&m, false, &s), 0);
	sd_info(s, &i);
	assert_int_equal(i.replayed_groups, 1);
	assert_int_equal(i.dropped_groups, 1);
	assert_int_equal(lookup(s, 5, 1).kind, SD_KIND_NONE);
	assert_clean(s);
	sd_close(s);
	memdev_exit(&m);
}

static void failed_stands_in_both_superblocks(void **state)
{
	struct sd_info i;
	u64 block;

	for (block = 0; block < 2; block++) {
		struct memdev m;
		struct sd_store *s = memdev_store(&m, SD_MIN_DIFF_BLOCKS, 4096, 0);

		put_gen(&m, s, 1, SD_GEN_LIVE);
		assert_int_equal(sd_store_fail(s), 0);
		sd_close(s);
		memset(m.data + block * SD_BLOCK_SIZE, 0, SD_BLOCK_SIZE);
		assert_int_equal(memdev_open(&m, false, &s), 0);
		sd_info(s, &i);
		assert_true(i.failed);
		sd_close(s);
		memdev_exit(&m);
	}
}

static u64 unreadable;

static int read_but_one(void *ctx, u64 block, u32 nr, void *buf)
{
	return block <= unreadable && unreadable < block + nr ? -EIO : mem_read(ctx, block, nr, buf);
}

/* While the newer superblock cannot be read, what the older one says must not be made the newest: its catalog's blocks may be others' by now. */
static void failing_beside_an_unreadable_superblock(void **state)
{
	struct memdev m;
	struct sd_store *s = memdev_store(&m, SD_MIN_DIFF_BLOCKS, 4096, 0);
	struct sd_dev_ops ops = *m.dev.ops;
	struct sd_gen gen;

	put_gen(&m, s, 1, SD_GEN_LIVE);
	checkpoint(s);
	put_gen(&m, s, 2, SD_GEN_LIVE);
	checkpoint(s);
	ops.read = read_but_one;
	m.dev.ops = &ops;
	unreadable = s->txid & 1;
	assert_int_equal(sd_store_fail(s), 0);
	unreadable = U64_MAX;
	sd_close(s);
	assert_int_equal(memdev_open(&m, false, &s), 0);
	assert_true(s->failed);
	assert_int_equal(sd_gen_find(s, 2, &gen), 0);
	assert_int_equal(gen.state, SD_GEN_LOST);
	sd_close(s);
	memdev_exit(&m);
}

static void read_only_writes_nothing(void **state)
{
	struct memdev m;
	struct sd_store *s = memdev_store(&m, SD_MIN_DIFF_BLOCKS, 4096, 0);
	u8 *before = malloc(SD_MIN_DIFF_BLOCKS * SD_BLOCK_SIZE);

	put_gen(&m, s, 1, SD_GEN_LIVE);
	copy_chunk(&m, s, 9);
	sd_close(s);
	memcpy(before, m.data, SD_MIN_DIFF_BLOCKS * SD_BLOCK_SIZE);
	m.writes = 0;
	assert_int_equal(memdev_open(&m, true, &s), 0);
	assert_int_equal(lookup(s, 9, 1).kind, SD_KIND_DATA);
	assert_clean(s);
	sd_close(s);
	assert_int_equal(m.writes, 0);
	assert_memory_equal(before, m.data, SD_MIN_DIFF_BLOCKS * SD_BLOCK_SIZE);
	free(before);
	memdev_exit(&m);
}

static void smaller_device(void **state)
{
	struct memdev m;
	struct sd_store *s = memdev_store(&m, SD_MIN_DIFF_BLOCKS + 100, 4096, 0);

	sd_close(s);
	m.dev.nr_blocks -= 1;
	assert_int_equal(memdev_open(&m, false, &s), -ENOSPC);
	memdev_exit(&m);
}

/* Change a superblock and give it a right checksum again. */
static void edit_super(struct memdev *m, u64 addr, void (*edit)(struct sd_disk_super *d))
{
	struct sd_disk_super *d = (void *)(m->data + addr * SD_BLOCK_SIZE);
	struct sd_store fake = { .dev = &m->dev };

	memcpy(fake.uuid, d->hdr.uuid, sizeof(fake.uuid));
	edit(d);
	sd_block_seal(&fake, d, SD_MAGIC_SUPER, addr, le64_to_cpu(d->hdr.txid));
}

static void add_feature(struct sd_disk_super *d)
{
	d->features_incompat = cpu_to_le64(1ull << 40);
}

static void next_version(struct sd_disk_super *d)
{
	d->version = cpu_to_le32(SD_FORMAT_VERSION + 1);
}

static void previous_version(struct sd_disk_super *d)
{
	d->version = cpu_to_le32(SD_FORMAT_VERSION - 1);
}

static void move_groups(struct sd_disk_super *d)
{
	d->group_start = cpu_to_le64(le64_to_cpu(d->group_start) + 1);
}

static void huge_chunk(struct sd_disk_super *d)
{
	d->chunk_size = cpu_to_le32(2u << 20);
}

static void too_many_index_blocks(struct sd_disk_super *d)
{
	d->nr_index = cpu_to_le32(SD_INDEX_MAX + 1);
}

static void no_number_after_it(struct sd_disk_super *d)
{
	d->highest_gen = cpu_to_le32(U32_MAX);
}

static void superblock_says_odd_things(void **state)
{
	static const struct {
		void (*edit)(struct sd_disk_super *d);
		int err;
	} cases[] = {
		{ add_feature, -ENOTSUPP }, { next_version, -ENOTSUPP }, { previous_version, -ENOTSUPP }, { move_groups, -EUCLEAN },
		{ huge_chunk, -EUCLEAN }, { too_many_index_blocks, -EUCLEAN }, { no_number_after_it, -EUCLEAN },
	};
	struct sd_store *s;
	struct memdev m;
	u32 i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		memdev_init(&m, SD_MIN_DIFF_BLOCKS);
		assert_int_equal(memdev_format(&m, 0, 0), 0);
		edit_super(&m, 0, cases[i].edit);
		edit_super(&m, 1, cases[i].edit);
		m.writes = 0;
		assert_int_equal(memdev_open(&m, false, &s), cases[i].err);
		assert_true(m.said[0]);
		assert_true(!strstr(m.said, "format version") == (cases[i].edit != next_version && cases[i].edit != previous_version));
		assert_int_equal(m.writes, 0);
		memdev_exit(&m);
	}
}

static void one_superblock_is_enough(void **state)
{
	u8 fingerprint[SD_FINGERPRINT_SIZE] = { 1 };
	struct memdev m;
	struct sd_store *s = memdev_store(&m, SD_MIN_DIFF_BLOCKS, 4096, 0);
	u64 newest;

	put_gen(&m, s, 1, SD_GEN_LIVE);
	copy_chunk(&m, s, 3);
	assert_int_equal(sd_detach(s, fingerprint), 0);
	newest = s->txid & 1;
	sd_close(s);
	m.data[newest * SD_BLOCK_SIZE + 500] ^= 1;
	assert_int_equal(memdev_open(&m, true, &s), 0);
	assert_int_equal(lookup(s, 3, 1).kind, SD_KIND_DATA);
	sd_close(s);
	m.data[(1 - newest) * SD_BLOCK_SIZE + 500] ^= 1;
	assert_int_equal(memdev_open(&m, true, &s), -EUCLEAN);
	memdev_exit(&m);
}

/* ---- damage ------------------------------------------------------------------------------------------- */

/* Blocks that the store refers to, by kind. */
static void referenced(struct sd_store *s, struct sd_blocks *out)
{
	u32 i, k;

	for (i = 0; i < s->cat.nr_index; i++)
		assert_int_equal(sd_blocks_add(out, s->cat.index_addr[i], 1), 0);
	for (i = 0; i < s->cat.nr; i++)
		assert_int_equal(sd_blocks_add(out, s->cat.leaf[i]->addr, 1), 0);
	for (i = 0; i < s->cur->nr_runs; i++)
		for (k = 0; k < s->cur->runs[i]->nr_segs; k++)
			assert_int_equal(sd_segment_blocks(s, &s->cur->runs[i]->seg[k], out), 0);
	for (i = 0; i < s->alloc.nr_groups; i++)
		assert_int_equal(sd_blocks_add(out, s->alloc.start + (u64)i * SD_GROUP_BLOCKS +
					       !!(s->alloc.g[i].flags & SD_GROUP_D_COPY_B), 1), 0);
}

/* Is it noticed by open or by a check, and is the block named? */
static bool noticed(struct memdev *m, u64 block)
{
	struct sd_check_result r;
	struct sd_store *s;
	char name[32];
	int err = memdev_open(m, true, &s);

	snprintf(name, sizeof(name), "block %llu:", (unsigned long long)block);
	if (err) {
		assert_int_equal(err, -EUCLEAN);
		return strstr(m->said, name);
	}
	err = sd_check(s, 0, &r);
	sd_close(s);
	return (err || r.errors) && strstr(m->said, name);
}

static void every_block_is_checked(void **state)
{
	static const u32 magics[] = { SD_MAGIC_BITMAP, SD_MAGIC_LEAF, SD_MAGIC_FENCE, SD_MAGIC_CATALOG, SD_MAGIC_INDEX };
	static const u32 offsets[] = { 0, 5, 9, 17, 24, 40, 64, 200, 4095 };
	u8 fingerprint[SD_FINGERPRINT_SIZE] = { 2 };
	struct sd_blocks list = { 0 };
	u32 seen[ARRAY_SIZE(magics)] = { 0 }, i, k, n;
	struct memdev m;
	struct sd_store *s = memdev_store(&m, SD_MIN_DIFF_BLOCKS, 4096, 0);
	u64 chunks[400];

	s->leaf_most = SD_LEAF_FEWEST;
	for (i = 1; i <= 40; i++)
		put_gen(&m, s, i, SD_GEN_LIVE);
	for (i = 0; i < ARRAY_SIZE(chunks); i++)
		chunks[i] = i * 3;
	copy_chunks(&m, s, chunks, ARRAY_SIZE(chunks), SD_KIND_DATA);
	assert_int_equal(sd_detach(s, fingerprint), 0);
	assert_clean(s);
	referenced(s, &list);
	sd_close(s);
	for (i = 0; i < list.nr; i++) {
		for (k = 0; k < list.r[i].nr; k++) {
			u8 *p = m.data + (list.r[i].addr + k) * SD_BLOCK_SIZE;

			for (n = 0; n < ARRAY_SIZE(magics); n++)
				seen[n] += le32_to_cpu(((struct sd_disk_header *)p)->magic) == magics[n];
			for (n = 0; n < ARRAY_SIZE(offsets); n++) {
				p[offsets[n]] ^= 0x10;
				if (!noticed(&m, list.r[i].addr + k))
					fail_msg("damage of block %llu at byte %u: %s", (unsigned long long)list.r[i].addr + k, offsets[n],
						 m.said);
				p[offsets[n]] ^= 0x10;
			}
		}
	}
	for (n = 0; n < ARRAY_SIZE(magics); n++)
		assert_int_not_equal(seen[n], 0);
	assert_int_equal(memdev_open(&m, true, &s), 0);
	assert_clean(s);
	sd_close(s);
	sd_blocks_clear(&list);
	memdev_exit(&m);
}

static void damaged_data_is_found(void **state)
{
	struct memdev m;
	struct sd_store *s = memdev_store(&m, SD_MIN_DIFF_BLOCKS, 4096, 0);
	struct sd_check_result r;
	struct sd_rec rec;

	put_gen(&m, s, 1, SD_GEN_LIVE);
	copy_chunk(&m, s, 1);
	checkpoint(s);
	rec = lookup(s, 1, 1);
	m.data[rec.addr * SD_BLOCK_SIZE + 99] ^= 4;
	assert_int_equal(sd_check(s, SD_CHECK_DATA, &r), 0);
	assert_int_equal(r.data_bad, 1);
	sd_close(s);
	memdev_exit(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(format_refuses),
		cmocka_unit_test(open_of_nothing),
		cmocka_unit_test(clean_life),
		cmocka_unit_test(crash_replays),
		cmocka_unit_test(group_without_its_data_is_dropped),
		cmocka_unit_test(failed_stands_in_both_superblocks),
		cmocka_unit_test(failing_beside_an_unreadable_superblock),
		cmocka_unit_test(read_only_writes_nothing),
		cmocka_unit_test(smaller_device),
		cmocka_unit_test(superblock_says_odd_things),
		cmocka_unit_test(one_superblock_is_enough),
		cmocka_unit_test(every_block_is_checked),
		cmocka_unit_test(damaged_data_is_found),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
