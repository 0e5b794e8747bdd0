// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Power cuts.
 *
 * A cut is a question: had the power failed at this moment, what would the next start find? It is asked of a copy, and the run goes on; so it can be asked anywhere,
 * also in the middle of a recovery, and that of the recovery's copy again. Now and then the power really fails: then the device answers nothing but errors
 * until the driver has unwound, and the run goes on with what a crash has left.
 */
#include "sim.h"
#include "reader.h"

#define MAX_DEPTH	3u

static u32 depth_now;

void open_opts(struct sd_open_opts *o)
{
	memset(o, 0, sizeof(*o));
	o->mem_records = S.mem_records;
}

/* The last group that the store has found. */
static u64 survivor(const struct sd_store *s)
{
	u64 seq = s->j.done_seq, last = S.acked + S.nr_fly;

	if (seq < S.acked || seq > last)
		fail("group %llu is the last one after a crash; %llu was acknowledged, %llu sealed", (unsigned long long)seq,
		     (unsigned long long)S.acked, (unsigned long long)last);
	return seq;
}

/* The model with the groups in flight that the store has found. */
static void expected_model(const struct sd_store *s, struct model *m)
{
	u64 seq = survivor(s);
	u32 i;

	*m = S.m;
	for (i = 0; i < S.nr_fly && S.fly[i]->seq <= seq; i++)
		model_apply(m, S.fly[i]);
}

static void cut_hook(struct simdev *d, const char *what)
{
	if (*what != 'w' && *what != 'f')
		return;
	if (depth_now < MAX_DEPTH && !rnd(24)) {
		C.nested++;
		cut(d, depth_now + 1);
	}
}

static void check_state(struct sd_store *s)
{
	struct sd_info info;

	sd_info(s, &info);
	if (info.failed && !S.failed)
		fail("the store has failed");
	if (!info.failed && S.failed == FAIL_DURABLE)
		fail("the store had failed, durably, and has not any more");
	if (S.disk != ON_EITHER && info.was_clean != (S.disk == ON_CLEAN) && !info.failed)
		fail("the store says %s", info.was_clean ? "clean" : "not clean");
	if (info.was_clean && info.primary_sectors && S.disk == ON_CLEAN && memcmp(info.fingerprint, S.fingerprint, sizeof(S.fingerprint)))
		fail("another fingerprint");
	C.replayed += info.replayed_groups;
	C.dropped += info.dropped_groups;
}

void cut(const struct simdev *crashed, u32 depth)
{
	static struct model m[MAX_DEPTH + 1];
	struct sd_open_opts o;
	struct sd_store *s;
	struct simdev d;
	struct reading *second = NULL;
	u64 second_seq = 0;
	bool second_failed = false;
	int err;

	C.cuts++;
	simdev_from_crash(&d, crashed);
	d.hook = cut_hook;
	open_opts(&o);
	o.read_only = d.forbid_writes = !rnd(8);
	depth_now = depth;
	if (!rnd(6))
		second = reader_read(&d, &second_seq, &second_failed);
	err = sd_open(&d.dev, &o, &s);
	if (err)
		fail("open after a crash: %d", err);
	d.hook = NULL;
	check_state(s);
	if (second && second_failed != s->failed)
		fail("failed for one reader only");
	if (s->failed) {
		verify_failed(s);
	} else {
		expected_model(s, &m[depth]);
		if (second && second_seq != s->j.done_seq)
			fail("the log ends with group %llu for one reader, %llu for the other",
			     (unsigned long long)s->j.done_seq, (unsigned long long)second_seq);
		if (second) {
			reader_compare(second, &m[depth]);
			C.second++;
		}
		verify(s, &d, &m[depth], o.read_only || rnd(2) ? 0 : VERIFY_CHECK);
	}
	if (second)
		reader_free(second);
	sd_close(s);
	simdev_exit(&d);
	depth_now = depth ? depth - 1 : 0;
}

void maybe_cut(u32 places)
{
	if (S.cut_rate && !S.dev->dead && !depth_now && !rnd(S.cut_rate * places))
		cut(S.dev, 0);
}

/* The table is frozen and its run not written yet. */
static bool checkpoint_begun(void)
{
	return S.store->step && S.store->step->frozen && !S.store->step->built;
}

/* The hook of the device that the run goes on with. */
void run_hook(struct simdev *d, const char *what)
{
	if (*what == 'f' || *what == 'w')
		maybe_cut(*what == 'f' ? 2 : 6);
	if (S.death_rate && !rnd(S.death_rate * 2))
		d->dead = true;
	if (!d->dead && S.in_background && !S.no_foreground && rnd(2))
		foreground();
	/* Last: it is the step's own call that fails, not what a reader asks for in between. */
	if (!d->dead && S.in_background && S.fault_rate && !rnd(S.fault_rate)) {
		d->fault = S.faulted = true;
		C.faults++;
		if ((S.in_write || checkpoint_begun()) && !S.failed)
			S.failed = FAIL_TRIED;	/* nothing is released from now on */
	}
}

bool open_and_attach(void)
{
	struct sd_open_opts o;
	int err;

	open_opts(&o);
	err = sd_open(&S.dev->dev, &o, &S.store);
	if (err && !S.dev->dead)
		fail("open: %d", err);
	if (err)
		return false;
	S.store->slice_records = S.slice_records;
	if (S.tight)
		S.store->alloc.reserve = S.tight;
	check_state(S.store);
	if (S.failed == FAIL_TRIED && !S.store->failed)
		S.failed = FAIL_NO;
	if (!S.store->failed) {
		drop_flights(survivor(S.store));
		if (!S.dev->dead)
			verify_now(VERIFY_CHECK);
	}
	S.disk = S.disk == ON_ACTIVE ? ON_ACTIVE : ON_EITHER;
	err = sd_attach(S.store, (u64)S.m.nr_chunks * S.chunk_blocks * 8);
	if (err && !S.dev->dead)
		fail("attach: %d", err);
	if (err) {
		sd_close(S.store);
		S.store = NULL;
		return false;
	}
	S.disk = ON_ACTIVE;
	return true;
}

/* Everything in memory is lost. */
static void unwind(void)
{
	u32 i;

	S.dev->dead = true;
	if (!S.store)
		return;
	drop_readers();
	sd_store_fail(S.store);		/* reaches memory only: a group that was sealed can only go with its store */
	for (i = 0; i < S.nr_fly; i++)
		sd_group_destroy(S.store, S.fly[i]->group);
	sd_close(S.store);
	S.store = NULL;
}

bool power_cycle(void)
{
	u32 i;

	for (i = 0; i < 1000; i++) {
		struct simdev *d = xmalloc(sizeof(*d));

		unwind();
		C.deaths++;
		simdev_from_crash(d, S.dev);
		simdev_exit(S.dev);
		free(S.dev);
		S.dev = d;
		d->hook = run_hook;
		if (open_and_attach())
			return true;
	}
	fail("the power failed 1000 times in a row");
}
