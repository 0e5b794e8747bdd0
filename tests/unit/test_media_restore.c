// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What a server sends of a generation, and what a client makes of it: for generations, ranges and sizes of all kinds, for a client that takes
 * records as they are stored and for one that does not; how many records are packed anew; and servers that do not keep to the rules.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "media_model.h"
#include "session_restore.h"

#define GENERATIONS	14

/* Seen on the way. */
struct seen {
	uint64_t repacked, parts, data, bytes;	/* frames; bytes that travelled */
};

static int open_generation(uint32_t number, struct sm_image **img)
{
	struct sm_generation g;
	char vid[SM_VID_TEXT];
	int err;

	sm_volume_id(CLIENT, volume, vid);
	assert_int_equal(sm_repo_generation(&repo, vid, number, &g, NULL), 0);
	err = sm_image_open(&repo, &g, img, NULL);
	sm_generation_done(&g);
	return err;
}

/* Have it sent into a file. */
static int send_to_file(uint32_t number, bool parts, const struct sm_extent *x, uint32_t nr)
{
	int fd = memfd_create("restore", 0);
	struct sm_image *img;
	struct sm_chan c;

	sm_chan_init(&c, -1, fd);
	assert_int_equal(open_generation(number, &img), 0);
	assert_int_equal(sm_send_image(&c, img, parts, x, nr, NULL), 0);
	sm_image_close(img);
	sm_chan_free(&c);
	lseek(fd, 0, SEEK_SET);
	return fd;
}

/* Count the frames of a file, by type. */
static void count(int fd, struct seen *s)
{
	struct sm_wire_header h;
	uint64_t at = 0;

	memset(s, 0, sizeof(*s));
	while (pread(fd, &h, sizeof(h), at) == sizeof(h)) {
		s->parts += le16toh(h.type) == SM_PART;
		s->data += le16toh(h.type) == SM_DATA;
		at += sizeof(h) + le32toh(h.length);
	}
	s->bytes = at;
}

/* Take the frames of a file; what is not written stays 0xa5. Return: of the last sm_incoming_next(). */
static int take(int fd, const struct sm_extent *x, uint32_t nr, uint8_t *to, uint64_t size, struct seen *s)
{
	struct sm_incoming_frame f;
	struct sm_incoming in;
	struct sm_chan c;
	int r;

	memset(to, 0xa5, size);
	sm_chan_init(&c, fd, -1);
	assert_int_equal(sm_incoming_restore(&in, &c, size, x, nr, NULL), 0);
	while ((r = sm_incoming_next(&in, &f, NULL)) > 0) {
		struct sm_place at = { 0 };

		for (uint32_t i = 0; i < f.nr; i++) {
			struct sm_extent w = sm_extent_at(f.extents, i);

			assert_true(w.offset + w.length <= size);
			if (f.zero)
				memset(to + w.offset, 0, w.length);
			else
				memcpy(to + w.offset, sm_incoming_piece(&f, i, &at, &w), w.length);
		}
	}
	if (s)
		s->repacked = in.repacked;
	sm_incoming_done(&in);
	sm_chan_free(&c);
	return r;
}

/* All of it or some ranges, by both kinds of client, are those bytes and no others. */
static void assert_restored(uint32_t number, const struct image *m, bool parts, const struct sm_extent *x, uint32_t nr, struct seen *s)
{
	const struct sm_extent whole = { 0, m->size };
	uint8_t *got = malloc(m->size), *want = malloc(m->size);
	int fd = send_to_file(number, parts, nr ? x : &whole, nr ? nr : 1);

	memset(want, 0xa5, m->size);
	for (uint32_t i = 0; i < (nr ? nr : 1); i++) {
		const struct sm_extent *v = nr ? &x[i] : &whole;

		memcpy(want + v->offset, m->data + v->offset, v->length);
	}
	count(fd, s);
	assert_int_equal(take(fd, x, nr, got, m->size, s), 0);
	assert_memory_equal(got, want, m->size);
	close(fd);
	free(got);
	free(want);
}

static uint32_t some_ranges(uint64_t size, struct sm_extent *x, uint32_t max)
{
	uint32_t nr = 0;

	for (uint64_t at = random() % 5 * SM_BLOCK; at < size && nr < max; at += (1 + random() % 6) * SM_BLOCK) {
		uint64_t len = (1 + random() % 9) * SM_BLOCK;

		x[nr++] = (struct sm_extent){ at, len < size - at ? len : size - at };
		at += len;
	}
	return nr;
}

static void every_generation_comes_back(void **state)
{
	struct image now = make_image(300000, 7), base = { malloc(300000), 300000 };
	struct image all[GENERATIONS];
	uint8_t hash[SM_DIGEST];
	struct seen s, old;
	uint64_t parts = 0;

	memcpy(base.data, now.data, now.size);
	for (uint32_t g = 1; g <= GENERATIONS; g++) {
		struct backup b;

		make_backup(&b, g, &now, g > 1 ? &base : NULL, g > 1 ? hash : NULL, 1 + random() % 40);
		assert_int_equal(store(&b, hash, NULL), 0);
		free_backup(&b);
		all[g - 1] = (struct image){ malloc(now.size), now.size };
		memcpy(all[g - 1].data, now.data, now.size);
		free(base.data);
		base = (struct image){ malloc(now.size), now.size };
		memcpy(base.data, now.data, now.size);
		change(&now);
	}
	for (uint32_t g = 1; g <= GENERATIONS; g++) {
		assert_restored(g, &all[g - 1], true, NULL, 0, &s);
		assert_restored(g, &all[g - 1], false, NULL, 0, &old);
		assert_int_equal(old.parts, 0);
		parts += s.parts;
		for (int i = 0; i < 6; i++) {
			struct sm_extent x[20];
			uint32_t nr = some_ranges(all[g - 1].size, x, 20);

			assert_restored(g, &all[g - 1], true, x, nr, &s);
			assert_restored(g, &all[g - 1], false, x, nr, &s);
		}
		free(all[g - 1].data);
	}
	assert_true(parts > GENERATIONS);	/* or this has shown nothing */
	free(now.data);
	free(base.data);
}

/* Random bytes, other ones for every seed. */
static void fill(uint8_t *p, size_t len, unsigned int seed)
{
	srandom(seed);
	for (size_t i = 0; i < len; i++)
		p[i] = random() | 1;
}

/* Store @m as the next generation. */
static void store_next(uint32_t number, const struct image *m, const struct image *base, uint8_t hash[SM_DIGEST], uint32_t per)
{
	struct backup b;

	make_backup(&b, number, m, base, base ? hash : NULL, per);
	assert_int_equal(store(&b, hash, NULL), 0);
	free_backup(&b);
}

/* A record of which half is left goes out as it is, with one PART; with a block less it is packed anew; and it travels once. */
static void half_a_record(void **state)
{
	const uint32_t blocks = 64;
	struct image m = { malloc(blocks * SM_BLOCK), blocks * SM_BLOCK }, base = { malloc(m.size), m.size };
	uint8_t hash[SM_DIGEST];
	struct seen s;

	fill(m.data, m.size, 1);
	store_next(1, &m, NULL, hash, blocks);
	assert_restored(1, &m, true, NULL, 0, &s);
	assert_int_equal(s.data, 1);
	assert_int_equal(s.parts + s.repacked, 0);
	memcpy(base.data, m.data, m.size);
	for (uint32_t i = 0; i < blocks; i += 2)
		fill(m.data + i * SM_BLOCK, SM_BLOCK, 100 + i);
	store_next(2, &m, &base, hash, blocks);
	assert_restored(2, &m, true, NULL, 0, &s);
	assert_int_equal(s.data, 2);		/* each once, however scattered */
	assert_int_equal(s.parts, 1);
	assert_int_equal(s.repacked, 0);
	memcpy(base.data, m.data, m.size);
	fill(m.data + SM_BLOCK, SM_BLOCK, 99);
	store_next(3, &m, &base, hash, blocks);
	assert_restored(3, &m, true, NULL, 0, &s);
	assert_int_equal(s.data, 3);
	assert_int_equal(s.parts, 0);
	assert_int_equal(s.repacked, 1);
	assert_true(s.bytes < m.size + m.size / 20);
	free(m.data);
	free(base.data);
}

/* ---- a server that does not keep to the rules ---- */

#define BLOCKS	8u

struct extents {
	struct sm_wire_zero h;
	struct sm_wire_extent x[BLOCKS];
} __attribute__((packed));

static size_t make_extents(struct extents *e, const struct sm_extent *x, uint32_t nr)
{
	e->h = (struct sm_wire_zero){ htole32(nr), 0 };
	for (uint32_t i = 0; i < nr; i++)
		e->x[i] = (struct sm_wire_extent){ htole64(x[i].offset * SM_BLOCK), htole64(x[i].length * SM_BLOCK) };
	return sizeof(e->h) + nr * sizeof(e->x[0]);
}

struct bad {
	struct sm_extent part[2];	/* blocks; length 0: none */
	struct sm_extent second;	/* another PART */
	bool zero_behind;		/* ZERO where DATA was to come */
	int result;
};

/* A DATA frame of blocks 2, 3 and 6 to 9 of a volume of 8 (the record's had 10), and what comes before it. */
static int first_frame(const struct bad *b)
{
	static uint8_t raw[6 * SM_BLOCK], payload[SM_DATA_ROOM(3, 6 * SM_BLOCK)], to[BLOCKS * SM_BLOCK];
	const struct sm_extent x[] = { { 2 * SM_BLOCK, 2 * SM_BLOCK }, { 6 * SM_BLOCK, 2 * SM_BLOCK }, { 8 * SM_BLOCK, 2 * SM_BLOCK } };
	int fd = memfd_create("bad", 0), r;
	struct sm_incoming_frame f;
	struct sm_incoming in;
	struct extents e;
	struct sm_chan c;
	ssize_t n;

	fill(raw, sizeof(raw), 3);
	sm_chan_init(&c, -1, fd);
	if (b->part[0].length)
		sm_chan_send_buf(&c, SM_PART, &e, make_extents(&e, b->part, 1 + (b->part[1].length > 0)), NULL);
	if (b->second.length)
		sm_chan_send_buf(&c, SM_PART, &e, make_extents(&e, &b->second, 1), NULL);
	if (b->zero_behind)
		sm_chan_send_buf(&c, SM_ZERO, &e, make_extents(&e, &b->part[0], 1), NULL);
	n = sm_data_pack(x, 3, raw, sizeof(raw), 1, payload, NULL);
	sm_chan_send_buf(&c, SM_DATA, payload, n, NULL);
	sm_chan_free(&c);
	lseek(fd, 0, SEEK_SET);
	sm_chan_init(&c, fd, -1);
	assert_int_equal(sm_incoming_restore(&in, &c, BLOCKS * SM_BLOCK, NULL, 0, NULL), 0);
	r = sm_incoming_next(&in, &f, NULL);
	if (r == 1) {
		struct sm_place at = { 0 };
		struct sm_extent w;

		for (uint32_t i = 0; i < f.nr; i++) {
			const uint8_t *from = sm_incoming_piece(&f, i, &at, &w);

			assert_in_range(w.offset + w.length, 1, sizeof(to));
			assert_true(from >= f.raw && from + w.length <= f.raw + sizeof(raw));
		}
	}
	sm_incoming_done(&in);
	sm_chan_free(&c);
	close(fd);
	return r;
}

static void parts_must_be_of_their_frame(void **state)
{
	const struct bad t[] = {
		{ { { 2, 1 } }, .result = 1 },
		{ { { 2, 2 }, { 6, 2 } }, .result = 1 },
		{ { { 3, 1 }, { 7, 1 } }, .result = 1 },
		{ .result = -EPROTO },					/* reaches past the volume, and no parts */
		{ { { 8, 1 } }, .result = -EPROTO },			/* a part past the volume */
		{ { { 1, 2 } }, .result = -EPROTO },
		{ { { 3, 2 } }, .result = -EPROTO },
		{ { { 4, 1 } }, .result = -EPROTO },
		{ { { 2, 6 } }, .result = -EPROTO },
		{ { { 6, 1 }, { 2, 1 } }, .result = -EPROTO },		/* goes back */
		{ { { 2, 1 }, { 2, 1 } }, .result = -EPROTO },		/* twice */
		{ { { 2, 1 } }, .second = { 3, 1 }, .result = -EPROTO },
		{ { { 2, 1 } }, .zero_behind = true, .result = -EPROTO },
	};

	for (size_t i = 0; i < sizeof(t) / sizeof(*t); i++)
		assert_int_equal(first_frame(&t[i]), t[i].result);
}

/* The same frame twice: seen at once, not at an end that need not come. */
static void no_more_than_was_asked_for(void **state)
{
	const struct sm_extent x = { 0, 8 * SM_BLOCK };
	static uint8_t raw[8 * SM_BLOCK], payload[SM_DATA_ROOM(1, 8 * SM_BLOCK)];
	struct sm_incoming_frame f;
	struct sm_incoming in;
	struct sm_chan c;
	int fd = open(dir, O_TMPFILE | O_RDWR, 0600);
	ssize_t n;

	fill(raw, sizeof(raw), 4);
	n = sm_data_pack(&x, 1, raw, sizeof(raw), 1, payload, NULL);
	sm_chan_init(&c, -1, fd);
	for (int i = 0; i < 2; i++)
		sm_chan_send_buf(&c, SM_DATA, payload, n, NULL);
	sm_chan_free(&c);
	lseek(fd, 0, SEEK_SET);
	sm_chan_init(&c, fd, -1);
	assert_int_equal(sm_incoming_restore(&in, &c, sizeof(raw), NULL, 0, NULL), 0);
	assert_int_equal(sm_incoming_next(&in, &f, NULL), 1);
	assert_int_equal(sm_incoming_next(&in, &f, NULL), -EPROTO);
	sm_incoming_done(&in);
	sm_chan_free(&c);
	close(fd);
}

/* Checksums that are right again, after a byte was changed. */
static void fix_checksums(uint8_t *p, off_t len)
{
	for (off_t at = 0; at + (off_t)sizeof(struct sm_wire_header) <= len;) {
		struct sm_wire_header *h = (void *)(p + at);

		if (le32toh(h->length) > len - at - sizeof(*h))
			break;
		h->payload_crc = htole32(sm_crc32c(0, h + 1, le32toh(h->length)));
		h->header_crc = htole32(sm_crc32c(0, h, offsetof(struct sm_wire_header, header_crc)));
		at += sizeof(*h) + le32toh(h->length);
	}
}

/* Restores with a bit of them changed and good checksums: an error, or the right image. */
static void damaged_restores(void **state)
{
	struct image m = make_image(200000, 5), base = { malloc(200000), 200000 };
	uint8_t hash[SM_DIGEST], *good, *bad, *got = malloc(m.size);
	int fd, refused = 0;
	off_t len;

	memcpy(base.data, m.data, m.size);
	store_next(1, &m, NULL, hash, 16);
	for (uint32_t i = 3; i < 48; i += 5)
		fill(m.data + i * SM_BLOCK, SM_BLOCK, i);
	store_next(2, &m, &base, hash, 16);
	fd = send_to_file(2, true, &(struct sm_extent){ 0, m.size }, 1);
	len = lseek(fd, 0, SEEK_END);
	good = malloc(len);
	bad = malloc(len);
	assert_int_equal(pread(fd, good, len, 0), len);
	srandom(11);
	for (int i = 0; i < 400; i++) {
		memcpy(bad, good, len);
		bad[i % 2 ? random() % len : random() % 2000] ^= 1 << random() % 8;
		fix_checksums(bad, len);
		assert_int_equal(pwrite(fd, bad, len, 0), len);
		lseek(fd, 0, SEEK_SET);
		if (take(fd, NULL, 0, got, m.size, NULL) < 0)
			refused++;
		else
			assert_memory_equal(got, m.data, m.size);
	}
	assert_true(refused > 200);
	close(fd);
	free(good);
	free(bad);
	free(got);
	free(m.data);
	free(base.data);
}

#define TEST(f)	cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(every_generation_comes_back),
		TEST(half_a_record),
		cmocka_unit_test(parts_must_be_of_their_frame),
		TEST(no_more_than_was_asked_for),
		TEST(damaged_restores),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
