// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The walk over extents against a kernel that is played here: this file stands in for the transport
 * (netlink.c) and for the lookups (netlink_ops.c), so that every interruption can be made to happen.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "../../userspace/lib/netlink_internal.h"

#define STEP	4096ULL
#define N	1000			/* extents in the played volume */
#define PER_MSG	7

static struct {
	int dumps;
	int intr_every;			/* this many messages into a dump it is interrupted; 0 never */
	bool intr_at_done;		/* only the end of the first dump says so */
	bool intr_always;		/* from the first message on, without progress */
	bool holes;			/* leave every second extent out (changes) */
	uint64_t unsorted_at, hole_at;	/* lie there */
	int fail;			/* errno of the dump */
} kernel;

int snap_nl_clone(struct snap_nl *nl, struct snap_nl **copy, struct snap_err *e)
{
	*copy = calloc(1, sizeof(**copy));
	return 0;
}

void snap_nl_close(struct snap_nl *nl)
{
	free(nl);
}

struct nl_msg *snap_nl_request(struct snap_nl *nl, uint8_t cmd, int flags)
{
	struct nl_msg *msg = nlmsg_alloc();

	genlmsg_put(msg, 1, 1, 0x20, 0, flags, cmd, 1);
	return msg;
}

int snap_nl_parse(struct nlmsghdr *nlh, struct nlattr **tb)
{
	return genlmsg_parse(nlh, 0, tb, SNAPDIFF_A_MAX, NULL) < 0 ? -EBADMSG : 0;
}

int snap_nl_gen(struct snap_nl *nl, const char *volume, uint32_t gen, struct snap_gen *out, struct snap_err *e)
{
	memset(out, 0, sizeof(*out));
	out->number = gen;
	out->size = N * STEP;
	return 0;
}

int snap_nl_volume(struct snap_nl *nl, const char *name, struct snap_volume *vol, struct snap_err *e)
{
	memset(vol, 0, sizeof(*vol));
	vol->size = N * STEP;
	return 0;
}

static struct snapdiff_extent extent_at(uint64_t i)
{
	struct snapdiff_extent x = { .offset = i * STEP, .length = STEP, .where = i % 3, .place = i * STEP };

	if (kernel.unsorted_at && i == kernel.unsorted_at)
		x.offset -= 2 * STEP;
	return x;
}

static int send_extents(struct snap_nl_reply *reply, const struct snapdiff_extent *x, int n, int flags)
{
	struct nl_msg *msg = nlmsg_alloc();
	int rc;

	genlmsg_put(msg, 1, 1, 0x20, 0, NLM_F_MULTI | flags, SNAPDIFF_CMD_MAP_GET, 1);
	nla_put(msg, SNAPDIFF_A_EXTENTS, n * sizeof(*x), x);
	if (flags & NLM_F_DUMP_INTR)
		reply->interrupted = true;
	rc = reply->fn(nlmsg_hdr(msg), reply->arg);
	nlmsg_free(msg);
	return rc;
}

/* The kernel's side of a dump. After an interruption it sends rubbish: nothing of it may be used. */
int snap_nl_call(struct snap_nl *nl, struct nl_msg *msg, struct snap_nl_reply *reply, const char *object,
		 const char *what, struct snap_err *e)
{
	struct nlattr *tb[SNAPDIFF_A_MAX + 1];
	struct snapdiff_extent x[PER_MSG];
	uint64_t i, end;
	int n = 0, msgs = 0, rc = 0, flags = 0;

	genlmsg_parse(nlmsg_hdr(msg), 0, tb, SNAPDIFF_A_MAX, NULL);
	i = nla_get_u64(tb[SNAPDIFF_A_OFFSET]) / STEP;
	end = i + nla_get_u64(tb[SNAPDIFF_A_LENGTH]) / STEP;
	nlmsg_free(msg);
	kernel.dumps++;
	if (kernel.fail)
		return snap_err_set(e, kernel.fail, object, "%s: refused", what);
	for (; i < end && !rc; i++) {
		if ((kernel.holes && i % 2) || (kernel.hole_at && i == kernel.hole_at))
			continue;
		x[n++] = extent_at(i);
		if (n < PER_MSG)
			continue;
		if (kernel.intr_always || (kernel.intr_every && ++msgs > kernel.intr_every)) {
			flags = NLM_F_DUMP_INTR;
			memset(x, 0xee, sizeof(x));
		}
		rc = send_extents(reply, x, n, flags);
		n = 0;
	}
	if (n && !rc)
		rc = send_extents(reply, x, n, flags);
	if (kernel.intr_at_done && kernel.dumps == 1)
		reply->interrupted = true;
	if (rc)
		reply->stopped = true;
	return rc < 0 ? rc : 0;
}

struct seen {
	uint64_t next, count, stop_at;
	int stop_with;
};

/* Each extent once, in order, unharmed. */
static int check_extent(const struct snapdiff_extent *x, void *arg)
{
	uint64_t i = x->offset / STEP;
	struct seen *s = arg;

	assert_true(x->offset >= s->next);
	assert_true(x->length == STEP && x->where == i % 3 && x->place == x->offset);
	s->next = x->offset + x->length;
	s->count++;
	return s->stop_at && s->count == s->stop_at ? s->stop_with : 0;
}

static int reset(void **state)
{
	memset(&kernel, 0, sizeof(kernel));
	return 0;
}

static int map_all(struct seen *s, struct snap_err *e)
{
	memset(s, 0, sizeof(*s));
	return snap_nl_map(NULL, "v", 1, 0, 0, check_extent, s, e);
}

static void whole_map(void **state)
{
	struct seen s;

	assert_int_equal(map_all(&s, NULL), 0);
	assert_int_equal(s.count, N);
	assert_int_equal(kernel.dumps, 1);
}

static void interrupted_map_is_resumed(void **state)
{
	struct seen s;

	kernel.intr_every = 3;
	assert_int_equal(map_all(&s, NULL), 0);
	assert_int_equal(s.count, N);
	assert_int_equal(s.next, N * STEP);
	assert_true(kernel.dumps > 40);
}

static void interrupted_at_its_end(void **state)
{
	struct seen s = { 0 };

	kernel.intr_at_done = true;
	kernel.holes = true;
	assert_int_equal(snap_nl_changes(NULL, "v", 1, 0, 0, 0, check_extent, &s, NULL), 0);
	assert_int_equal(s.count, N / 2);
	assert_int_equal(kernel.dumps, 2);
}

static void no_progress_ends(void **state)
{
	struct snap_err e = SNAP_ERR_INIT;
	struct seen s;

	kernel.intr_always = true;
	assert_int_equal(map_all(&s, &e), -EAGAIN);
	assert_int_equal(s.count, 0);
	assert_int_equal(kernel.dumps, SNAP_NL_RETRIES + 1);
}

static void range(void **state)
{
	struct seen s = { 0 };

	assert_int_equal(snap_nl_map(NULL, "v", 1, 10 * STEP, 5 * STEP, check_extent, &s, NULL), 0);
	assert_int_equal(s.count, 5);
	assert_int_equal(s.next, 15 * STEP);
	memset(&s, 0, sizeof(s));
	assert_int_equal(snap_nl_map(NULL, "v", 1, (N - 2) * STEP, UINT64_MAX, check_extent, &s, NULL), 0);
	assert_int_equal(s.count, 2);
	assert_int_equal(snap_nl_map(NULL, "v", 1, (N + 2) * STEP, 0, check_extent, &s, NULL), 0);
	assert_int_equal(s.count, 2);
}

static void caller_ends_it(void **state)
{
	struct seen s = { .stop_at = 10, .stop_with = 1 };

	assert_int_equal(snap_nl_map(NULL, "v", 1, 0, 0, check_extent, &s, NULL), 1);
	assert_int_equal(s.count, 10);
	s = (struct seen){ .stop_at = 10, .stop_with = -EPIPE };
	assert_int_equal(snap_nl_map(NULL, "v", 1, 0, 0, check_extent, &s, NULL), -EPIPE);
	assert_int_equal(kernel.dumps, 2);
}

static void nonsense_is_refused(void **state)
{
	struct snap_err e = SNAP_ERR_INIT;
	struct seen s;

	kernel.unsorted_at = 500;
	assert_int_equal(map_all(&s, &e), -EIO);
	assert_int_equal(s.count, 500);
	reset(NULL);
	kernel.hole_at = 300;
	assert_int_equal(map_all(&s, &e), -EIO);
	assert_int_equal(s.count, 300);
	reset(NULL);
	kernel.hole_at = N - 1;			/* nothing comes behind it */
	assert_int_equal(map_all(&s, &e), -EIO);
	assert_non_null(strstr(e.text, "ends at"));
}

static void refusal_keeps_its_text(void **state)
{
	struct snap_err e = SNAP_ERR_INIT;
	struct seen s = { 0 };

	kernel.fail = -ENODATA;
	assert_int_equal(snap_nl_changes(NULL, "v", 1, 2, 0, 0, check_extent, &s, &e), -ENODATA);
	assert_string_equal(e.object, "v@1..2");
	assert_string_equal(e.text, "changes: refused");
}

static void array_joins(void **state)
{
	struct snapdiff_extent in[] = {
		{ 0, 4096, 100 * STEP, SNAPDIFF_WHERE_DIFF, 0 }, { 4096, 4096, 101 * STEP, SNAPDIFF_WHERE_DIFF, 0 },
		{ 8192, 4096, 7 * STEP, SNAPDIFF_WHERE_DIFF, 0 },	/* elsewhere on the diff */
		{ 12288, 4096, 12288, SNAPDIFF_WHERE_PRIMARY, 0 }, { 16384, 4096, 16384, SNAPDIFF_WHERE_PRIMARY, 0 },
		{ 24576, 4096, 24576, SNAPDIFF_WHERE_PRIMARY, 0 },	/* behind a hole */
		{ 28672, 4096, 0, SNAPDIFF_WHERE_ZERO, 0 },
	};
	struct snap_extents x = { 0 };
	size_t i;

	for (i = 0; i < sizeof(in) / sizeof(in[0]); i++)
		assert_int_equal(snap_extents_add(&in[i], &x), 0);
	assert_int_equal(x.n, 5);
	assert_int_equal(x.v[0].length, 8192);
	assert_int_equal(x.v[2].length, 8192);
	snap_extents_free(&x);
	assert_null(x.v);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(whole_map, reset),
		cmocka_unit_test_setup(interrupted_map_is_resumed, reset),
		cmocka_unit_test_setup(interrupted_at_its_end, reset),
		cmocka_unit_test_setup(no_progress_ends, reset),
		cmocka_unit_test_setup(range, reset),
		cmocka_unit_test_setup(caller_ends_it, reset),
		cmocka_unit_test_setup(nonsense_is_refused, reset),
		cmocka_unit_test_setup(refusal_keeps_its_text, reset),
		cmocka_unit_test_setup(array_joins, reset),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
