// SPDX-License-Identifier: GPL-2.0-or-later
/* What a server says that it has is compared with the plan and the source, before it gets into the manifest with the rest. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "plan.h"

#define BLOCKS	600u
#define SIZE	(BLOCKS * SM_BLOCK - 100)

static uint8_t data[BLOCKS * SM_BLOCK];
static uint64_t nr_read;

static ssize_t read_data(struct source *s, void *buf, size_t len, uint64_t offset)
{
	assert_int_equal(offset % SM_BLOCK, 0);
	assert_int_equal(len % SM_BLOCK, 0);
	if (offset >= SIZE)
		return 0;
	len = len < SIZE - offset ? len : SIZE - offset;
	memcpy(buf, data + offset, len);
	nr_read += len;
	return len;
}

static const struct source_ops ops = { .read = read_data };

/* Blocks 0-99 changed, 100-399 changed and known to be zeros, 400-599 changed. */
static int say(uint64_t first, uint64_t count, uint64_t *read)
{
	struct source s = { .ops = &ops, .name = "test", .size = SIZE };
	uint64_t end = (first + count) * SM_BLOCK;
	struct plan p;
	int err;

	plan_init(&p);
	assert_int_equal(add_range(&p.ranges, 0, 100 * SM_BLOCK, false, NULL), 0);
	assert_int_equal(add_range(&p.ranges, 100 * SM_BLOCK, 300 * SM_BLOCK, true, NULL), 0);
	assert_int_equal(add_range(&p.ranges, 400 * SM_BLOCK, SIZE - 400 * SM_BLOCK, false, NULL), 0);
	/* in pieces, the last first */
	assert_int_equal(plan_have_ops.zero((first + count / 2) * SM_BLOCK, (end < SIZE ? end : SIZE) - (first + count / 2) * SM_BLOCK, &p, NULL), 0);
	if (count > 1)
		assert_int_equal(plan_have_ops.zero(first * SM_BLOCK, count / 2 * SM_BLOCK, &p, NULL), 0);
	plan_resume(&p);
	nr_read = 0;
	err = plan_check_have(&p, &s, false, NULL);
	*read = nr_read;
	plan_free(&p);
	return err;
}

static void zeros_are_looked_at(void **state)
{
	uint64_t n;

	assert_int_equal(say(0, BLOCKS, &n), 0);
	assert_int_equal(n, SIZE - 300 * SM_BLOCK);
	assert_int_equal(say(150, 200, &n), 0);
	assert_int_equal(n, 0);
	assert_int_equal(say(90, 20, &n), 0);
	assert_int_equal(n, 10 * SM_BLOCK);
	for (uint64_t at = 0; at < BLOCKS; at++) {
		bool known = at >= 100 && at < 400;

		data[at * SM_BLOCK + at] = 1;	/* one byte of what is not zero */
		assert_int_equal(say(0, BLOCKS, &n), known ? 0 : -EPROTO);
		assert_int_equal(say(at, 1, &n), known ? 0 : -EPROTO);
		if (at > 2)
			assert_int_equal(say(0, at, &n), 0);
		data[at * SM_BLOCK + at] = 0;
	}
}

/* A frame of blocks, as its head tells: a byte of its data may be another one, and it may say to be encrypted. */
static void say_frame(struct plan *p, const struct sm_extent *x, uint32_t nr, bool wrong, bool sealed)
{
	static uint8_t payload[SM_DATA_ROOM(8, SM_MAX_RAW)], raw[SM_MAX_RAW];
	uint32_t len = 0;

	for (uint32_t i = 0; i < nr; i++) {
		memcpy(raw + len, data + x[i].offset, x[i].length);
		len += x[i].length;
	}
	raw[len - 1] ^= wrong;
	assert_true(sm_data_pack(x, nr, raw, len, 1, payload, NULL) > 0);
	if (sealed) {
		((struct sm_wire_data *)payload)->codec = SM_CODEC_SEALED;
		((struct sm_wire_data *)payload)->stored_length = htole32(len);
	}
	assert_int_equal(plan_have_ops.data(payload, sizeof(struct sm_wire_data) + nr * sizeof(struct sm_wire_extent), p, NULL), 0);
}

enum lie { NONE, BYTE, BYTE_LATER, OUTSIDE, TWICE, TWICE_ZERO, KIND };

/* Blocks 0-99 and 200-599 are to be sent; frames came out of order, one with the odd end. */
static int claim(enum lie lie, bool sealed)
{
	struct source s = { .ops = &ops, .name = "test", .size = SIZE };
	const struct sm_extent last = { 590 * SM_BLOCK, SIZE - 590 * SM_BLOCK }, outside = { 99 * SM_BLOCK, 2 * SM_BLOCK },
			       twice = { 51 * SM_BLOCK, SM_BLOCK },
			       parts[] = { { 10 * SM_BLOCK, SM_BLOCK }, { 50 * SM_BLOCK, 2 * SM_BLOCK }, { 200 * SM_BLOCK, 64 * SM_BLOCK } };
	struct plan p;
	int err;

	plan_init(&p);
	assert_int_equal(add_range(&p.ranges, 0, 100 * SM_BLOCK, false, NULL), 0);
	assert_int_equal(add_range(&p.ranges, 200 * SM_BLOCK, SIZE - 200 * SM_BLOCK, false, NULL), 0);
	say_frame(&p, &last, 1, lie == BYTE, sealed);
	say_frame(&p, parts, 3, lie == BYTE_LATER, sealed != (lie == KIND));
	assert_int_equal(plan_have_ops.zero(60 * SM_BLOCK, SM_BLOCK, &p, NULL), 0);
	if (lie == OUTSIDE || lie == TWICE)
		say_frame(&p, lie == OUTSIDE ? &outside : &twice, 1, false, sealed);
	if (lie == TWICE_ZERO)
		assert_int_equal(plan_have_ops.zero(60 * SM_BLOCK, SM_BLOCK, &p, NULL), 0);
	plan_resume(&p);
	err = plan_check_have(&p, &s, sealed, NULL);
	plan_free(&p);
	return err;
}

static void data_is_looked_at(void **state)
{
	for (size_t i = 0; i < SIZE; i++)
		data[i] = i / SM_BLOCK == 60 ? 0 : i / SM_BLOCK + i;
	assert_int_equal(claim(NONE, false), 0);
	assert_int_equal(claim(NONE, true), 0);
	assert_int_equal(claim(BYTE, false), -EPROTO);
	assert_int_equal(claim(BYTE_LATER, false), -EPROTO);
	for (enum lie lie = OUTSIDE; lie <= KIND; lie++) {
		assert_int_equal(claim(lie, false), -EPROTO);
		assert_int_equal(claim(lie, true), -EPROTO);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(zeros_are_looked_at),
		cmocka_unit_test(data_is_looked_at),
	};

	return cmocka_run_group_tests_name("backup_plan", tests, NULL, NULL);
}
