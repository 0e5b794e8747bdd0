// SPDX-License-Identifier: GPL-2.0-or-later
/* The schedule's decisions, with a clock of our own; and a year of passes with destinations that come and go. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "schedule.h"

#define HOUR	3600000000000ull
#define DAY	(24 * HOUR)
#define START	(20000 * DAY)
#define MAX	4096

static struct config conf;
static struct config_volume vol;
static struct sched_gen gens[MAX];
static struct sched_verdict verdicts[MAX];

static void set_up(struct sched *s, uint32_t ships)
{
	memset(&conf, 0, sizeof(conf));
	memset(&vol, 0, sizeof(vol));
	memset(gens, 0, sizeof(gens));
	for (uint32_t i = 0; i < ships; i++) {
		snprintf(conf.dest[i].name, DEST_NAME, "dest%u", i);
		vol.ship[i].dest = i;
	}
	conf.nr_dests = vol.nr_ships = ships;
	vol.cut = HOUR;
	vol.bookmark = true;
	vol.room = 25;
	*s = (struct sched){ .c = &conf, .v = &vol, .now = START, .free_percent = 90, .gen = gens };
}

static struct sched_gen *add(struct sched *s, uint64_t at)
{
	struct sched_gen *g = &gens[s->nr++];

	*g = (struct sched_gen){ .number = s->nr > 1 ? g[-1].number + 1 : 1, .created = at, .state = SNAPDIFF_GEN_LIVE };
	return g;
}

static void ship(struct sched *s, size_t i, uint32_t to)
{
	gens[i].shipped |= 1u << to;
	s->last[to].number = gens[i].number;
	s->last[to].created = gens[i].created;
}

static void cut_by_period(void **state)
{
	char why[SCHED_WHY];
	struct sched s;

	(void)state;
	set_up(&s, 0);
	assert_true(sched_cut(&s, why));		/* the first */
	add(&s, START + 50 * 60 * 1000000000ull);
	s.now = START + 59 * 60 * 1000000000ull;
	assert_false(sched_cut(&s, why));
	s.now = START + HOUR;				/* ten minutes later, but the next period */
	assert_true(sched_cut(&s, why));
	s.now = START - 5 * DAY;			/* the clock was set back: nothing stops */
	assert_true(sched_cut(&s, why));
	vol.cut = 0;
	assert_false(sched_cut(&s, why));
}

static void first_of_each_period(void **state)
{
	uint32_t waiting;
	struct sched s;

	(void)state;
	set_up(&s, 2);
	vol.ship[1].every = DAY;
	for (int i = 0; i < 72; i++)
		add(&s, START + i * HOUR);
	assert_int_equal(sched_next(&s, 0, &waiting), 0);
	assert_int_equal(waiting, 72);
	assert_int_equal(sched_next(&s, 1, &waiting), 0);
	assert_int_equal(waiting, 3);
	ship(&s, 0, 1);
	assert_int_equal(sched_next(&s, 1, &waiting), 24);
	assert_int_equal(waiting, 2);
	/* What is to go there has lost its data: the next of that day goes */
	gens[24].state = SNAPDIFF_GEN_LOST;
	assert_int_equal(sched_next(&s, 1, &waiting), 25);
	ship(&s, 25, 1);
	ship(&s, 48, 1);
	assert_int_equal(sched_next(&s, 1, &waiting), -1);
	assert_int_equal(waiting, 0);
}

/* No destination answers, and the rules keep one: all of them wait. */
static void never_the_only_copy(void **state)
{
	struct sched s;

	(void)state;
	set_up(&s, 2);
	vol.has_keep = true;
	vol.keep.keep[SM_KEEP_LAST] = 1;
	for (int i = 0; i < 20; i++)
		add(&s, START + i * HOUR);
	s.free_percent = 1;
	assert_int_equal(sched_keep(&s, verdicts), 0);
	for (int i = 0; i < 20; i++)
		assert_int_equal(verdicts[i].fate, SCHED_KEEP);
	assert_non_null(strstr(verdicts[0].why, "no destination has it yet, dest0"));
	/* One has ten of them: with room they wait for the other, too */
	for (int i = 0; i < 10; i++)
		ship(&s, i, 0);
	s.free_percent = 25;
	assert_int_equal(sched_keep(&s, verdicts), 0);
	assert_int_equal(verdicts[0].fate, SCHED_KEEP);
	assert_non_null(strstr(verdicts[0].why, "dest1 does not have it yet"));
	/* Without room they do not; the last two stay as bases */
	s.free_percent = 24;
	assert_int_equal(sched_keep(&s, verdicts), 0);
	for (int i = 0; i < 20; i++)
		assert_int_equal(verdicts[i].fate, i < 8 ? SCHED_DELETE : i < 10 ? SCHED_BOOKMARK : SCHED_KEEP);
	vol.bookmark = false;
	assert_int_equal(sched_keep(&s, verdicts), 0);
	assert_int_equal(verdicts[9].fate, SCHED_DELETE);
}

static void left_alone(void **state)
{
	struct sched s;

	(void)state;
	set_up(&s, 1);
	vol.has_keep = true;
	vol.keep.keep[SM_KEEP_LAST] = 1;
	for (int i = 0; i < 6; i++)
		add(&s, START + i * HOUR);
	for (int i = 0; i < 6; i++)
		ship(&s, i, 0);
	gens[0].pinned = true;
	gens[1].in_use = true;
	gens[2].state = SNAPDIFF_GEN_BOOKMARK;
	gens[3].state = SNAPDIFF_GEN_LOST;
	assert_int_equal(sched_keep(&s, verdicts), 0);
	assert_int_equal(verdicts[0].fate, SCHED_KEEP);
	assert_int_equal(verdicts[1].fate, SCHED_KEEP);
	assert_int_equal(verdicts[2].fate, SCHED_DELETE);
	assert_int_equal(verdicts[3].fate, SCHED_DELETE);
	assert_int_equal(verdicts[4].fate, SCHED_BOOKMARK);
	assert_int_equal(verdicts[5].fate, SCHED_KEEP);
	for (int i = 0; i < 6; i++)
		assert_false(verdicts[i].missed);
	vol.has_keep = false;		/* no rules: what has its data keeps it */
	assert_int_equal(sched_keep(&s, verdicts), 0);
	assert_int_equal(verdicts[4].fate, SCHED_KEEP);
}

/* Given up by a full diff before anybody had it: told. */
static void missed(void **state)
{
	struct sched s;

	(void)state;
	set_up(&s, 1);
	vol.ship[0].every = DAY;
	for (int i = 0; i < 30; i++)
		add(&s, START + i * HOUR);
	gens[0].state = SNAPDIFF_GEN_LOST;
	gens[1].state = SNAPDIFF_GEN_BOOKMARK;
	gens[5].state = SNAPDIFF_GEN_LOST;	/* not its turn */
	assert_int_equal(sched_keep(&s, verdicts), 0);
	assert_true(verdicts[0].missed);
	assert_false(verdicts[1].missed);	/* nothing noted of anybody: it may be a base */
	assert_int_equal(verdicts[1].fate, SCHED_KEEP);
	s.last[0].number = 0;
	add(&s, START + 200 * DAY);
	gens[30].number = 31;
	gens[29].state = SNAPDIFF_GEN_BOOKMARK;
	ship(&s, 2, 0);
	gens[24].state = gens[25].state = SNAPDIFF_GEN_BOOKMARK;
	assert_int_equal(sched_keep(&s, verdicts), 0);
	assert_true(verdicts[24].missed);
	assert_true(verdicts[25].missed);
	assert_false(verdicts[1].missed);	/* older than what it has */
	assert_int_equal(verdicts[1].fate, SCHED_DELETE);
	s.nr = 24;
	s.last[0].number = 0;
	gens[2].shipped = 0;
	assert_int_equal(sched_keep(&s, verdicts), 0);
	assert_true(verdicts[0].missed);
	assert_false(verdicts[2].missed);
	assert_false(verdicts[5].missed);
	assert_int_equal(verdicts[0].fate, SCHED_DELETE);
	assert_int_equal(sched_next(&s, 0, NULL), 2);
}

static void apply(struct sched *s)
{
	size_t n = 0;

	for (size_t i = 0; i < s->nr; i++) {
		if (verdicts[i].fate == SCHED_DELETE)
			continue;
		if (verdicts[i].fate == SCHED_BOOKMARK)
			gens[i].state = SNAPDIFF_GEN_BOOKMARK;
		gens[n++] = gens[i];
	}
	s->nr = n;
}

/*
 * Passes every 20 minutes for 300 days, two destinations that are there or not by chance. A model of them says: each got
 * the first generation of each of its periods that had one, none twice; what is kept is bounded while they are there.
 */
static void three_hundred_days(void **state)
{
	uint32_t sent[2] = { 0 }, newest = 0, cuts = 0;
	uint64_t period[2] = { HOUR, DAY };
	char why[SCHED_WHY];
	size_t most = 0;
	struct sched s;

	(void)state;
	srand(7);
	set_up(&s, 2);
	vol.ship[1].every = DAY;
	vol.has_keep = true;
	vol.keep.keep[SM_KEEP_LAST] = 2;
	vol.keep.keep[SM_KEEP_DAILY] = 3;
	for (uint64_t t = 0; t < 300 * DAY; t += HOUR / 3) {
		bool up[2] = { t / (5 * DAY) % 3 != 1, rand() % 4 };
		int i;

		s.now = START + t;
		if (sched_cut(&s, why)) {
			add(&s, s.now)->number = ++newest;
			cuts++;
		}
		for (uint32_t d = 0; d < 2; d++)
			while (up[d] && (i = sched_next(&s, d, NULL)) >= 0) {
				assert_int_equal(gens[i].state, SNAPDIFF_GEN_LIVE);
				assert_false(gens[i].shipped & 1u << d);
				assert_true(gens[i].number > s.last[d].number);
				/* in order, one of each period, none left out */
				if (sent[d])
					assert_int_equal(gens[i].created / period[d], s.last[d].created / period[d] + 1);
				ship(&s, i, d);
				sent[d]++;
			}
		assert_int_equal(sched_keep(&s, verdicts), 0);
		for (size_t k = 0; k < s.nr; k++)
			if (verdicts[k].fate != SCHED_KEEP && gens[k].state == SNAPDIFF_GEN_LIVE)
				assert_true(gens[k].shipped);
		apply(&s);
		/* Each that has something has a base here */
		for (uint32_t d = 0; d < 2; d++) {
			bool base = !sent[d];

			for (size_t k = 0; k < s.nr; k++)
				base |= gens[k].number == s.last[d].number;
			assert_true(base);
		}
		most = s.nr > most ? s.nr : most;
		if (t % (15 * DAY) == 4 * DAY + 20 * HOUR)
			assert_true(s.nr < 16);
		assert_true(s.nr < 200);	/* five days without the one that takes all */
	}
	assert_int_equal(cuts, 300 * 24);
	assert_in_range(sent[0], 300 * 24 - 121, 300 * 24);
	assert_in_range(sent[1], 298, 300);
	print_message("most generations at once: %zu\n", most);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(cut_by_period), cmocka_unit_test(first_of_each_period), cmocka_unit_test(never_the_only_copy),
		cmocka_unit_test(left_alone), cmocka_unit_test(missed), cmocka_unit_test(three_hundred_days),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
