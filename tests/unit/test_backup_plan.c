// SPDX-License-Identifier: GPL-2.0-or-later
/* What a server says that it has of zeros is compared with the source, before it is signed with the rest. */
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

/* Blocks 0-99 changed, 100-399 changed and known to be zeros, 500-599 changed. */
static int say(uint64_t first, uint64_t count, uint64_t *read)
{
	struct source s = { .ops = &ops, .name = "test", .size = SIZE };
	uint64_t end = (first + count) * SM_BLOCK;
	struct plan p;
	int err;

	plan_init(&p);
	assert_int_equal(add_range(&p.ranges, 0, 100 * SM_BLOCK, false, NULL), 0);
	assert_int_equal(add_range(&p.ranges, 100 * SM_BLOCK, 300 * SM_BLOCK, true, NULL), 0);
	assert_int_equal(add_range(&p.ranges, 500 * SM_BLOCK, SIZE - 500 * SM_BLOCK, false, NULL), 0);
	/* in pieces, the last first */
	assert_int_equal(plan_have_ops.zero((first + count / 2) * SM_BLOCK, (end < SIZE ? end : SIZE) - (first + count / 2) * SM_BLOCK, &p, NULL), 0);
	if (count > 1)
		assert_int_equal(plan_have_ops.zero(first * SM_BLOCK, count / 2 * SM_BLOCK, &p, NULL), 0);
	plan_resume(&p);
	nr_read = 0;
	err = plan_check_zeros(&p, &s, NULL);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(zeros_are_looked_at),
	};

	return cmocka_run_group_tests_name("backup_plan", tests, NULL, NULL);
}
