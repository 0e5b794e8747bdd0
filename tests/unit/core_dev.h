/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A store in memory for the unit tests of the core, and the shortest way through a commit group. */
#ifndef TEST_CORE_DEV_H
#define TEST_CORE_DEV_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "internal.h"

struct memdev {
	struct sd_dev dev;
	u8 *data;
	u64 writes, reads;	/* blocks; reads with those that are looked at through the cache */
	char said[4096];	/* all complaints since open */
};

static inline int mem_read(void *ctx, u64 block, u32 nr, void *buf)
{
	struct memdev *m = ctx;

	assert_true(block + nr <= m->dev.nr_blocks);
	memcpy(buf, m->data + block * SD_BLOCK_SIZE, (size_t)nr * SD_BLOCK_SIZE);
	m->reads += nr;
	return 0;
}

static inline int mem_write(void *ctx, u64 block, u32 nr, const void *buf)
{
	struct memdev *m = ctx;

	assert_true(block + nr <= m->dev.nr_blocks);
	memcpy(m->data + block * SD_BLOCK_SIZE, buf, (size_t)nr * SD_BLOCK_SIZE);
	m->writes += nr;
	return 0;
}

static inline int mem_flush(void *ctx)
{
	return 0;
}

static inline int mem_get(void *ctx, u64 block, struct sd_buf *buf)
{
	struct memdev *m = ctx;

	assert_true(block < m->dev.nr_blocks);
	buf->data = m->data + block * SD_BLOCK_SIZE;
	buf->validated = NULL;
	m->reads++;
	return 0;
}

static inline void mem_put(void *ctx, struct sd_buf *buf)
{
}

static inline void mem_forget(void *ctx, u64 block, u32 nr)
{
}

static inline void memdev_init(struct memdev *m, u64 nr_blocks)
{
	static const struct sd_dev_ops ops = {
		.read = mem_read, .write = mem_write, .flush = mem_flush, .get = mem_get, .put = mem_put, .forget = mem_forget,
	};

	memset(m, 0, sizeof(*m));
	m->dev.ops = &ops;
	m->dev.ctx = m;
	m->dev.nr_blocks = nr_blocks;
	m->data = calloc(nr_blocks, SD_BLOCK_SIZE);
	assert_non_null(m->data);
}

static inline void memdev_exit(struct memdev *m)
{
	free(m->data);
}

static inline void keep_complaint(void *ctx, const char *text)
{
	struct memdev *m = ctx;

	size_t at = strlen(m->said);

	snprintf(m->said + at, sizeof(m->said) - at, "%s\n", text);
}

static inline int memdev_format(struct memdev *m, u32 chunk_size, u64 journal)
{
	struct sd_format_params p = { .chunk_size = chunk_size, .journal_blocks = journal };

	memset(p.uuid, 0x5a, sizeof(p.uuid));
	return sd_format(&m->dev, &p);
}

static inline int memdev_open(struct memdev *m, bool read_only, struct sd_store **s)
{
	struct sd_open_opts o = { .read_only = read_only, .complain = keep_complaint, .complain_ctx = m };

	m->said[0] = 0;
	return sd_open(&m->dev, &o, s);
}

/* Formatted, opened, attached. */
static inline struct sd_store *memdev_store(struct memdev *m, u64 nr_blocks, u32 chunk_size, u64 journal)
{
	struct sd_store *s;

	memdev_init(m, nr_blocks);
	assert_int_equal(memdev_format(m, chunk_size, journal), 0);
	assert_int_equal(memdev_open(m, false, &s), 0);
	assert_int_equal(sd_attach(s, 1 << 20), 0);
	return s;
}

static inline void write_image(struct memdev *m, struct sd_group *g)
{
	assert_int_equal(mem_write(m, g->image_addr, g->image_blocks, g->image), 0);
}

static inline void group_end(struct memdev *m, struct sd_store *s, struct sd_group *g)
{
	assert_int_equal(sd_group_seal(s, g), 0);
	write_image(m, g);
	sd_group_commit(s, g);
}

static inline void checkpoint(struct sd_store *s)
{
	assert_int_equal(sd_step_whole(s, SD_STEP_CHECKPOINT), 0);
}

static inline void until_idle(struct sd_store *s)
{
	u32 n = 0;

	while (sd_background_work(s)) {
		assert_int_equal(sd_step_whole(s, 0), 0);
		assert_true(++n < 10000);
	}
}

static inline void put_gen(struct memdev *m, struct sd_store *s, u32 number, u32 state)
{
	struct sd_gen gen = { .number = number, .state = state, .size_sectors = 1 << 20 };
	struct sd_group *g;

	assert_int_equal(sd_group_begin(s, &g), 0);
	assert_int_equal(sd_group_put_gen(s, g, &gen), 0);
	group_end(m, s, g);
}

static inline void del_gens(struct memdev *m, struct sd_store *s, u32 first, u32 last)
{
	struct sd_group *g;

	assert_int_equal(sd_group_begin(s, &g), 0);
	assert_int_equal(sd_group_del_gens(s, g, first, last), 0);
	group_end(m, s, g);
}

/* The content that a chunk is preserved with in these tests. */
static inline void fill_content(void *buf, u32 size, u64 chunk, u32 gen)
{
	u64 *w = buf, x = chunk * 1000003 + gen;

	for (; size; size -= 8)
		*w++ = x = x * 6364136223846793005ull + 1442695040888963407ull;
}

/* Preserve @nr chunks under the highest generation; checkpoints when told to. All in one group as far as it takes them. */
static inline void copy_chunks(struct memdev *m, struct sd_store *s, const u64 *chunks, u32 nr, u32 kind)
{
	struct sd_item items[64];
	struct sd_group *g;
	u8 *buf = malloc(s->chunk_size);
	int taken;
	u32 i;

	while (nr) {
		u32 n = min(nr, (u32)ARRAY_SIZE(items));

		for (i = 0; i < n; i++) {
			items[i] = (struct sd_item){ .chunk = chunks[i], .kind = kind };
			fill_content(buf, s->chunk_size, chunks[i], s->sum.highest);
			items[i].crc = kind == SD_KIND_DATA ? crc32c(~0u, buf, s->chunk_size) : 0;
		}
		assert_int_equal(sd_group_begin(s, &g), 0);
		taken = sd_group_add_items(s, g, items, n);
		if (taken == -EAGAIN) {
			sd_group_destroy(s, g);
			checkpoint(s);
			continue;
		}
		assert_true(taken > 0);
		for (i = 0; i < (u32)taken && kind == SD_KIND_DATA; i++) {
			fill_content(buf, s->chunk_size, chunks[i], s->sum.highest);
			mem_write(m, items[i].addr, s->chunk_blocks, buf);
		}
		group_end(m, s, g);
		chunks += taken;
		nr -= taken;
	}
	free(buf);
}

static inline void copy_chunk(struct memdev *m, struct sd_store *s, u64 chunk)
{
	copy_chunks(m, s, &chunk, 1, SD_KIND_DATA);
}

static inline void assert_clean(struct sd_store *s)
{
	struct sd_check_result r;

	assert_int_equal(sd_check(s, SD_CHECK_DATA, &r), 0);
	assert_int_equal(r.errors, 0);
	assert_int_equal(r.blocks_leaked, 0);
	assert_int_equal(r.blocks_missing, 0);
	assert_int_equal(r.data_bad, 0);
}

static inline struct sd_rec lookup(struct sd_store *s, u64 chunk, u32 gen)
{
	struct sd_version *v = sd_version_get(s);
	struct sd_rec rec;

	assert_int_equal(sd_lookup(v, chunk, gen, &rec), 0);
	sd_version_put(v);
	return rec;
}

/* A small generator of our own: the same numbers on every machine. */
static inline u32 dice(u64 *seed, u32 n)
{
	*seed = *seed * 6364136223846793005ull + 1442695040888963407ull;
	return (*seed >> 33) % n;
}

#endif
