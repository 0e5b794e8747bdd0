// SPDX-License-Identifier: GPL-2.0-or-later
/* Frames, extents and digests, with input from a peer that means no good. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "extent.h"
#include "frame.h"
#include "manifest.h"

struct pipe_pair {
	int fd[2];
	struct sm_chan tx, rx;
};

static int setup(void **state)
{
	struct pipe_pair *p = calloc(1, sizeof(*p));

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, p->fd), 0);
	sm_chan_init(&p->tx, -1, p->fd[0]);
	sm_chan_init(&p->rx, p->fd[1], -1);
	*state = p;
	return 0;
}

static int teardown(void **state)
{
	struct pipe_pair *p = *state;

	close(p->fd[0]);
	close(p->fd[1]);
	sm_chan_free(&p->rx);
	free(p);
	return 0;
}

static void frames_arrive_in_order(void **state)
{
	struct pipe_pair *p = *state;
	struct iovec iov[2] = { { "abc", 3 }, { "defg", 4 } };
	struct sm_frame f;

	assert_int_equal(sm_chan_send(&p->tx, SM_DATA, 0, iov, 2, NULL), 0);
	assert_int_equal(sm_chan_send(&p->tx, SM_BYE, 0, NULL, 0, NULL), 0);
	assert_int_equal(sm_chan_recv(&p->rx, &f, NULL), 1);
	assert_int_equal(f.type, SM_DATA);
	assert_int_equal(f.length, 7);
	assert_memory_equal(f.payload, "abcdefg", 7);
	assert_int_equal(sm_chan_recv(&p->rx, &f, NULL), 1);
	assert_int_equal(f.type, SM_BYE);
	assert_int_equal(f.sequence, 1);
	shutdown(p->fd[0], SHUT_WR);
	assert_int_equal(sm_chan_recv(&p->rx, &f, NULL), 0);
}

static void unknown_optional_is_skipped_mandatory_fatal(void **state)
{
	struct pipe_pair *p = *state;
	struct sm_frame f;

	sm_chan_send(&p->tx, 999, SM_F_OPTIONAL, NULL, 0, NULL);
	sm_chan_send(&p->tx, SM_BYE, 0, NULL, 0, NULL);
	sm_chan_send(&p->tx, 999, 0, NULL, 0, NULL);
	assert_int_equal(sm_chan_recv(&p->rx, &f, NULL), 1);
	assert_int_equal(f.type, SM_BYE);
	assert_int_equal(sm_chan_recv(&p->rx, &f, NULL), -EPROTO);
}

static void seal(struct sm_wire_header *h)
{
	h->header_crc = htole32(sm_crc32c(0, h, offsetof(struct sm_wire_header, header_crc)));
}

static int recv_raw(const void *bytes, size_t len)
{
	struct pipe_pair *p;
	struct sm_frame f;
	void *state;
	int r;

	setup(&state);
	p = state;
	assert_int_equal(write(p->fd[0], bytes, len), (ssize_t)len);
	shutdown(p->fd[0], SHUT_WR);
	r = sm_chan_recv(&p->rx, &f, NULL);
	/* A length that was refused must not have been allocated. */
	assert_true(p->rx.buf_size <= SM_MAX_PAYLOAD);
	teardown(&state);
	return r;
}

static void every_flipped_bit_is_noticed(void **state)
{
	struct {
		struct sm_wire_header h;
		char payload[5];
	} __attribute__((packed)) f = { { htole32(SM_MAGIC), htole16(SM_DATA), 0, 0, 0, htole32(5), 0, 0 }, "hallo" };

	f.h.payload_crc = htole32(sm_crc32c(0, f.payload, 5));
	seal(&f.h);
	assert_int_equal(recv_raw(&f, sizeof(f)), 1);
	for (size_t bit = 0; bit < 8 * sizeof(f); bit++) {
		((uint8_t *)&f)[bit / 8] ^= 1 << bit % 8;
		assert_true(recv_raw(&f, sizeof(f)) < 0);
		((uint8_t *)&f)[bit / 8] ^= 1 << bit % 8;
	}
	for (size_t len = 1; len < sizeof(f); len++)
		assert_int_equal(recv_raw(&f, len), -EPIPE);
}

static void lengths_and_sequence_are_checked(void **state)
{
	struct sm_wire_header h = { htole32(SM_MAGIC), htole16(SM_DATA), 0, 0, 0, 0, 0, 0 };

	h.length = htole32(SM_MAX_PAYLOAD + 1);
	seal(&h);
	assert_int_equal(recv_raw(&h, sizeof(h)), -EPROTO);
	h.length = htole32(UINT32_MAX);
	seal(&h);
	assert_int_equal(recv_raw(&h, sizeof(h)), -EPROTO);
	h.length = 0;
	h.sequence = htole64(1);
	seal(&h);
	assert_int_equal(recv_raw(&h, sizeof(h)), -EPROTO);
	h.sequence = 0;
	h.channel = htole32(1);
	seal(&h);
	assert_int_equal(recv_raw(&h, sizeof(h)), -EPROTO);
}

/* ---- DATA and ZERO payloads ---- */

#define VOLUME	(10 * SM_BLOCK + 100)

static size_t make_data(uint8_t *buf, const struct sm_extent *x, uint32_t nr, uint32_t raw_length, int level)
{
	static uint8_t raw[SM_MAX_RAW];
	ssize_t n;

	for (uint32_t i = 0; i < raw_length; i++)
		raw[i] = i / 97;
	n = sm_data_pack(x, nr, raw, raw_length, level, buf, NULL);
	assert_true(n > 0);
	return n;
}

static void data_round_trip(void **state)
{
	struct sm_extent x[] = { { 0, SM_BLOCK }, { 4 * SM_BLOCK, 2 * SM_BLOCK }, { 10 * SM_BLOCK, 100 } };
	uint8_t *buf = malloc(SM_MAX_PAYLOAD), *raw = malloc(SM_MAX_RAW), a[SM_DIGEST], b[SM_DIGEST];
	uint32_t length = 3 * SM_BLOCK + 100;
	struct sm_data d;

	for (int level = 0; level <= 3; level += 3) {
		size_t n = make_data(buf, x, 3, length, level);

		assert_int_equal(sm_data_parse(buf, n, VOLUME, false, &d, NULL), 0);
		assert_int_equal(d.codec, level ? SM_CODEC_ZSTD : SM_CODEC_NONE);
		assert_int_equal(sm_data_unpack(&d, raw, NULL), 0);
		for (uint32_t i = 0; i < length; i++)
			assert_int_equal(raw[i], (uint8_t)(i / 97));
		sm_data_leaf(&d, level ? b : a);
	}
	assert_memory_equal(a, b, SM_DIGEST);	/* the codec is no part of what was sent */
	free(buf);
	free(raw);
}

static int parse_extent(uint64_t offset, uint64_t length, uint32_t raw_length, uint64_t volume)
{
	uint8_t *buf = malloc(SM_MAX_PAYLOAD);
	struct sm_extent x = { offset, length };
	size_t n = make_data(buf, &x, 1, raw_length, 0);
	struct sm_data d;
	int r = sm_data_parse(buf, n, volume, false, &d, NULL);

	free(buf);
	return r;
}

static void bad_extents_are_refused(void **state)
{
	assert_int_equal(parse_extent(0, SM_BLOCK, SM_BLOCK, VOLUME), 0);
	assert_int_equal(parse_extent(10 * SM_BLOCK, 100, 100, VOLUME), 0);
	assert_int_equal(parse_extent(1, SM_BLOCK, SM_BLOCK, VOLUME), -EPROTO);		/* not aligned */
	assert_int_equal(parse_extent(0, 100, 100, VOLUME), -EPROTO);			/* part of a block */
	assert_int_equal(parse_extent(10 * SM_BLOCK, SM_BLOCK, SM_BLOCK, VOLUME), -EPROTO);	/* past the end */
	assert_int_equal(parse_extent(11 * SM_BLOCK, SM_BLOCK, SM_BLOCK, VOLUME), -EPROTO);
	assert_int_equal(parse_extent(-(uint64_t)SM_BLOCK, 2 * SM_BLOCK, 2 * SM_BLOCK, VOLUME), -EPROTO);	/* wraps */
	assert_int_equal(parse_extent(0, -(uint64_t)SM_BLOCK, SM_BLOCK, VOLUME), -EPROTO);
	assert_int_equal(parse_extent(0, 2 * SM_BLOCK, SM_BLOCK, VOLUME), -EPROTO);	/* not what the data is long */
	assert_int_equal(parse_extent(0, 0, SM_BLOCK, VOLUME), -EPROTO);
}

static void unsorted_and_overlapping_are_refused(void **state)
{
	struct sm_extent up[] = { { 2 * SM_BLOCK, SM_BLOCK }, { 0, SM_BLOCK } };
	struct sm_extent over[] = { { 0, 2 * SM_BLOCK }, { SM_BLOCK, SM_BLOCK } };
	uint8_t *buf = malloc(SM_MAX_PAYLOAD);
	struct sm_data d;

	assert_int_equal(sm_data_parse(buf, make_data(buf, up, 2, 2 * SM_BLOCK, 0), VOLUME, false, &d, NULL), -EPROTO);
	assert_int_equal(sm_data_parse(buf, make_data(buf, over, 2, 3 * SM_BLOCK, 0), VOLUME, false, &d, NULL), -EPROTO);
	free(buf);
}

/* Every field of the head to every strange value: refused or parsed, never read outside (the sanitizer looks on). */
static void heads_of_all_kinds(void **state)
{
	static const uint32_t odd[] = { 0, 1, 2, 4095, 4096, 4097, 1u << 20, (1u << 20) + 1, 1u << 28, UINT32_MAX };
	struct sm_extent x = { 0, SM_BLOCK };
	uint8_t *buf = malloc(SM_MAX_PAYLOAD);
	size_t n = make_data(buf, &x, 1, SM_BLOCK, 3);
	uint8_t *exact = malloc(n), *raw = malloc(SM_MAX_RAW);
	struct sm_wire_data *h = (void *)exact;
	struct sm_data d;

	for (size_t i = 0; i < 10; i++)
		for (size_t k = 0; k < 10; k++)
			for (size_t m = 0; m < 10; m++)
				for (int codec = 0; codec < 4; codec++) {
					memcpy(exact, buf, n);
					h->nr_extents = htole32(odd[i]);
					h->raw_length = htole32(odd[k]);
					h->stored_length = htole32(odd[m]);
					h->codec = codec;
					if (!sm_data_parse(exact, n, VOLUME, false, &d, NULL))
						assert_true(sm_data_unpack(&d, raw, NULL) < 0 || d.raw_length == SM_BLOCK);
					for (size_t cut = 0; cut < n; cut += 7)
						sm_data_parse(exact, cut, VOLUME, true, &d, NULL);
				}
	free(buf);
	free(exact);
	free(raw);
}

/* A frame that says 4 KiB and holds a megabyte of zeros, packed: the buffer of the declared size is all it gets. */
static void bomb_is_refused(void **state)
{
	struct sm_extent big = { 0, SM_MAX_RAW }, small = { 0, SM_BLOCK };
	uint8_t *buf = malloc(SM_MAX_PAYLOAD), *zeros = calloc(1, SM_MAX_RAW), *raw = malloc(SM_BLOCK);
	ssize_t n = sm_data_pack(&big, 1, zeros, SM_MAX_RAW, 3, buf, NULL);
	struct sm_wire_data *h = (void *)buf;
	struct sm_data d;

	assert_true(n > 0 && n < 1000);
	h->raw_length = htole32(SM_BLOCK);
	*(struct sm_wire_extent *)(h + 1) = (struct sm_wire_extent){ 0, htole64(small.length) };
	assert_int_equal(sm_data_parse(buf, n, VOLUME, false, &d, NULL), 0);
	assert_int_equal(sm_data_unpack(&d, raw, NULL), -EPROTO);
	free(buf);
	free(zeros);
	free(raw);
}

static void wrong_bytes_are_noticed(void **state)
{
	struct sm_extent x = { 0, SM_BLOCK };
	uint8_t *buf = malloc(SM_MAX_PAYLOAD), *raw = malloc(SM_BLOCK);
	size_t n = make_data(buf, &x, 1, SM_BLOCK, 0);
	struct sm_data d;

	buf[n - 1] ^= 1;
	assert_int_equal(sm_data_parse(buf, n, VOLUME, false, &d, NULL), 0);
	assert_int_equal(sm_data_unpack(&d, raw, NULL), -EPROTO);
	free(buf);
	free(raw);
}

static void ranges_hash_the_same_however_cut(void **state)
{
	struct sm_range_hash a, b;
	uint8_t x[SM_DIGEST], y[SM_DIGEST];

	sm_range_hash_init(&a);
	sm_range_hash_init(&b);
	assert_int_equal(sm_range_hash_add(&a, 0, 3 * SM_BLOCK), 0);
	assert_int_equal(sm_range_hash_add(&b, 0, SM_BLOCK), 0);
	assert_int_equal(sm_range_hash_add(&b, SM_BLOCK, 2 * SM_BLOCK), 0);
	assert_int_equal(sm_range_hash_add(&b, 2 * SM_BLOCK, SM_BLOCK), -EINVAL);
	sm_range_hash_final(&a, x);
	sm_range_hash_final(&b, y);
	assert_memory_equal(x, y, SM_DIGEST);
	assert_int_equal(b.nr, 1);
	assert_int_equal(b.bytes, 3 * SM_BLOCK);
}

/* Long ones are made in lanes: the same as byte after byte, wherever they begin and end. */
static void crc32c_of_long_ones(void **state)
{
	static uint8_t buf[4 * 3072 + 64];
	uint32_t want = 0;

	for (size_t i = 0; i < sizeof(buf); i++)
		buf[i] = i * i >> 3 ^ i;
	for (size_t len = 1; len <= sizeof(buf) - 3; len++) {
		want = sm_crc32c(want, buf + 3 + len - 1, 1);
		if (len % 1024 < 20 || len % 1024 > 1010 || len % 97 == 0) {
			assert_int_equal(sm_crc32c(0, buf + 3, len), want);
			assert_int_equal(sm_crc32c(sm_crc32c(0, buf + 3, len / 3), buf + 3 + len / 3, len - len / 3), want);
		}
	}
}

static void crc32c_is_the_known_one(void **state)
{
	uint8_t zeros[32] = { 0 };

	assert_int_equal(sm_crc32c(0, "123456789", 9), 0xe3069283u);
	assert_int_equal(sm_crc32c(0, zeros, 32), 0x8a9136aau);
	assert_int_equal(sm_crc32c(sm_crc32c(0, "1234", 4), "56789", 5), 0xe3069283u);
}

/* ---- manifests ---- */

static char *good_manifest(void)
{
	struct sm_manifest m = { .info = { .number = 3, .size = VOLUME, .extents = 1, .bytes = VOLUME } };

	strcpy(m.info.volume_name, "disk");
	strcpy(m.tool, "test");
	return sm_manifest_text(&m);
}

static int parse(const char *text)
{
	struct sm_manifest m;

	return sm_manifest_parse(text, strlen(text), &m, NULL);
}

/* Replace in a good manifest, and see that it is refused. */
static void refused(const char *from, const char *to)
{
	char *text = good_manifest(), *at = strstr(text, from), *bad = NULL;

	assert_non_null(at);
	assert_true(asprintf(&bad, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from)) > 0);
	assert_true(parse(bad) < 0);
	free(bad);
	free(text);
}

static void manifests_are_strict(void **state)
{
	char *text = good_manifest();

	assert_int_equal(parse(text), 0);
	free(text);
	refused("{\"", "{ \"");			/* not canonical */
	refused("\"version\":1", "\"version\":2");
	refused("\"generation\":3", "\"generation\":0");
	refused("\"generation\":3", "\"generation\":-3");
	refused("\"generation\":3", "\"generation\":3.0");
	refused("\"generation\":3", "\"generation\":99999999999");
	refused("\"volume_name\":\"disk\"", "\"volume_name\":\"di\\u001bsk\"");
	refused("\"volume_name\":\"disk\"", "\"volume_name\":7");
	refused("\"parent\":null,", "");
	refused("\"change_extents\":1", "\"change_extents\":2");	/* a full one has one range */
	refused("snapdiff-manifest", "something");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(frames_arrive_in_order, setup, teardown),
		cmocka_unit_test_setup_teardown(unknown_optional_is_skipped_mandatory_fatal, setup, teardown),
		cmocka_unit_test(every_flipped_bit_is_noticed),
		cmocka_unit_test(lengths_and_sequence_are_checked),
		cmocka_unit_test(data_round_trip),
		cmocka_unit_test(bad_extents_are_refused),
		cmocka_unit_test(unsorted_and_overlapping_are_refused),
		cmocka_unit_test(heads_of_all_kinds),
		cmocka_unit_test(bomb_is_refused),
		cmocka_unit_test(wrong_bytes_are_noticed),
		cmocka_unit_test(ranges_hash_the_same_however_cut),
		cmocka_unit_test(crc32c_is_the_known_one),
		cmocka_unit_test(crc32c_of_long_ones),
		cmocka_unit_test(manifests_are_strict),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
