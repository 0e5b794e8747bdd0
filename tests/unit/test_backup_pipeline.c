// SPDX-License-Identifier: GPL-2.0-or-later
/* What comes out of the pipeline is what the source has, whichever way it was read; and it ends, whatever fails. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "pipeline.h"
#include "reader.h"

#define BLOCKS	3000u
#define SIZE	(BLOCKS * SM_BLOCK - 100)

static uint8_t data[BLOCKS * SM_BLOCK], got[BLOCKS * SM_BLOCK];
static int fd;			/* what the source gives to read from, -1 */
static uint64_t nr_read;	/* bytes by read() */
static uint64_t bad = UINT64_MAX;	/* read() fails there */

static ssize_t read_data(struct source *s, void *buf, size_t len, uint64_t offset)
{
	len = len < SIZE - offset ? len : SIZE - offset;
	if (bad >= offset && bad < offset + len)
		return -EIO;
	memcpy(buf, data + offset, len);
	__atomic_add_fetch(&nr_read, len, __ATOMIC_RELAXED);
	return len;
}

static int give_fd(struct source *s)
{
	return fd;
}

static const struct source_ops ops = { .read = read_data, .fd = give_fd };

struct collect {
	struct sink k;
	unsigned int left;	/* batches until it fails */
};

static int take(struct sink *k, const struct batch *b, struct sm_err *e)
{
	struct collect *c = (struct collect *)k;
	const uint8_t *from = b->raw;

	if (!c->left--)
		return sm_fail(e, -EPIPE, "planted");
	for (uint32_t i = 0; i < b->nr_data; from += b->data[i++].length)
		memcpy(got + b->data[i].offset, from, b->data[i].length);
	for (uint32_t i = 0; i < b->nr_zero; i++)
		memset(got + b->zeros[i].offset, 0, b->zeros[i].length);
	return 0;
}

static int flush(struct sink *k, struct sm_err *e)
{
	return 0;
}

/* All of it, or every other block (and some long runs). */
static int run(bool scattered, unsigned int batches)
{
	struct source s = { .ops = &ops, .name = "test", .size = SIZE };
	struct pipeline_options o = { .threads = 3 };
	struct sent sent = { 0 };
	struct collect c = { { .write = take, .flush = flush, .sent = &sent }, batches };
	struct sm_err e;
	struct plan p;
	int err;

	plan_init(&p);
	for (uint64_t at = 0, n; at < BLOCKS; at += n + (scattered ? 1 : 0)) {
		n = !scattered ? BLOCKS : at % 7 ? 1 : 1 + at % 200;
		n = n < BLOCKS - at ? n : BLOCKS - at;
		assert_int_equal(add_range(&p.ranges, at * SM_BLOCK, (at + n) * SM_BLOCK < SIZE ? n * SM_BLOCK : SIZE - at * SM_BLOCK, false, NULL), 0);
	}
	memcpy(got, data, sizeof(got));
	for (size_t i = 0; i < p.ranges.nr; i++) {
		const struct range *r = sm_spill_at(&p.ranges, i);

		memset(got + r->offset, 0x55, r->length);
	}
	nr_read = 0;
	err = pipeline_run(&s, &p, &c.k, &o, &e);
	plan_free(&p);
	return err;
}

static void fill_data(void)
{
	for (size_t i = 0; i < SIZE; i++)
		data[i] = i / SM_BLOCK % 5 == 3 ? 0 : i / SM_BLOCK * 7 + i;
}

static int file_of(size_t bytes)
{
	int f = memfd_create("data", 0);

	assert_true(f >= 0);
	assert_int_equal(write(f, data, bytes), bytes);
	return f;
}

static void whichever_way_it_is_read(void **state)
{
	size_t half = SIZE / 2 / SM_BLOCK * SM_BLOCK + 100;

	fill_data();
	for (int scattered = 0; scattered < 2; scattered++) {
		for (int way = 0; way < 4; way++) {
			/* not at all; all there; ends in the middle; cannot be read */
			fd = way == 0 ? -1 : way == 3 ? open("/dev/null", O_WRONLY) : file_of(way == 1 ? SIZE : half);
			assert_int_equal(run(scattered, -1), 0);
			assert_memory_equal(got, data, SIZE);
			if (way != 1)
				assert_true(nr_read >= SIZE / 4);
			if (fd >= 0)
				close(fd);
		}
	}
}

static void it_ends_when_something_fails(void **state)
{
	fill_data();
	fd = file_of(SIZE / 2);
	for (unsigned int n = 0; n < 20; n++)
		assert_int_equal(run(n % 2, n), -EPIPE);
	/* What the descriptor does not give and read() does not either is an error, never zeros. */
	bad = SIZE - 3 * SM_BLOCK;
	assert_int_equal(run(false, -1), -EIO);
	bad = UINT64_MAX;
	close(fd);
}

static void note_end(struct fetch *f, void *arg)
{
	__atomic_store_n((bool *)arg, true, __ATOMIC_RELAXED);
}

static void *write_late(void *arg)
{
	usleep(300000);
	assert_int_equal(write(*(int *)arg, data, SM_BLOCK), SM_BLOCK);
	return NULL;
}

/* Whoever ends it frees the buffers next. */
static void what_is_under_way_is_waited_for(void **state)
{
	uint8_t *buf = aligned_alloc(SM_BLOCK, SM_BLOCK);
	struct sm_extent x = { 0, SM_BLOCK };
	bool ended = false;
	struct fetch f;
	struct reader *r;
	pthread_t t;
	int line[2];

	assert_int_equal(pipe(line), 0);
	r = reader_new(line[0], 1, note_end, &ended);
	if (!r)
		skip();		/* no io_uring here */
	assert_int_equal(reader_fetch(r, &f, &x, 1, buf), 0);
	assert_int_equal(pthread_create(&t, NULL, write_late, &line[1]), 0);
	reader_free(r);
	assert_true(ended);
	assert_false(f.failed);
	pthread_join(t, NULL);
	close(line[0]);
	close(line[1]);
	free(buf);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(whichever_way_it_is_read),
		cmocka_unit_test(it_ends_when_something_fails),
		cmocka_unit_test(what_is_under_way_is_waited_for),
	};

	return cmocka_run_group_tests_name("backup_pipeline", tests, NULL, NULL);
}
