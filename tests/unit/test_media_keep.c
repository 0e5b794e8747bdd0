// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Keeping: the rules of prune against a second reading of them; histories with branches pruned at random and collected, all that
 * stays compared; and the process killed at every system call of a commit, a prune and a garbage collection.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "media_model.h"
#include "keep.h"
#include "store.h"

#define DAY	86400ull
#define NS	1000000000ull

/* ---- the rules ---- */

static struct sm_generation gen[400];
static struct sm_verdict verdict[400];

/* Newest first; @hours before now each. */
static void history(const uint32_t *hours, size_t nr, uint64_t now)
{
	for (size_t i = 0; i < nr; i++) {
		gen[i] = (struct sm_generation){ .sequence = nr - i, .received = (now - hours[i] * 3600ull) * NS };
		verdict[i] = (struct sm_verdict){ .g = &gen[i] };
	}
}

static void assert_kept(size_t nr, const char *want)
{
	char got[401];

	for (size_t i = 0; i < nr; i++)
		got[i] = verdict[i].fate == SM_FATE_KEEP ? "lhdwmy"[verdict[i].rule] : verdict[i].fate == SM_FATE_LOCKED ? 'L' : '.';
	got[nr] = '\0';
	assert_string_equal(got, want);
}

/* 2026-06-17, a Wednesday, 12:00 UTC. */
#define NOON	1781697600ull

static void rules_one_by_one(void **state)
{
	static const uint32_t hours[] = { 0, 1, 2, 24, 25, 48, 72, 24 * 8, 24 * 40, 24 * 400 };
	size_t nr = sizeof(hours) / sizeof(*hours);

	setenv("TZ", "UTC", 1);
	tzset();
	history(hours, nr, NOON);
	sm_prune_select(&(struct sm_policy){ { [SM_KEEP_LAST] = 3 } }, verdict, nr);
	assert_kept(nr, "lll.......");
	history(hours, nr, NOON);
	sm_prune_select(&(struct sm_policy){ { [SM_KEEP_DAILY] = 3 } }, verdict, nr);
	assert_kept(nr, "d..d.d....");		/* the newest of each day */
	history(hours, nr, NOON);
	/* Days that the first rule has covered do not count as days of the second. */
	sm_prune_select(&(struct sm_policy){ { [SM_KEEP_LAST] = 2, [SM_KEEP_DAILY] = 2 } }, verdict, nr);
	assert_kept(nr, "ll.d.d....");
	history(hours, nr, NOON);
	sm_prune_select(&(struct sm_policy){ { [SM_KEEP_HOURLY] = 2, [SM_KEEP_WEEKLY] = 2, [SM_KEEP_MONTHLY] = 1,
					       [SM_KEEP_YEARLY] = 5 } }, verdict, nr);
	/* Sunday and Tuesday are of one week, May is of another; of the year before the month is what keeps it. */
	assert_kept(nr, "hh....w.wm");
}

static void locked_ones_do_not_count(void **state)
{
	static const uint32_t hours[] = { 0, 24, 48, 72, 96 };

	setenv("TZ", "UTC", 1);
	tzset();
	history(hours, 5, NOON);
	verdict[1].fate = SM_FATE_LOCKED;
	sm_prune_select(&(struct sm_policy){ { [SM_KEEP_LAST] = 2 } }, verdict, 5);
	assert_kept(5, "lLl..");
}

/* The newest of its day, and worth nothing: the next one of that day stays, and one more of the last ones. It stays itself. */
static void damaged_ones_take_no_place(void **state)
{
	static const uint32_t hours[] = { 0, 1, 2, 24, 25, 48, 72 };

	setenv("TZ", "UTC", 1);
	tzset();
	history(hours, 7, NOON);
	verdict[0].damaged = true;
	sm_prune_select(&(struct sm_policy){ { [SM_KEEP_DAILY] = 2 } }, verdict, 7);
	assert_kept(7, "dd.d...");
	history(hours, 7, NOON);
	verdict[0].damaged = verdict[1].damaged = true;
	sm_prune_select(&(struct sm_policy){ { [SM_KEEP_LAST] = 2 } }, verdict, 7);
	assert_kept(7, "llll...");
	/* Of a day that has nothing else it stays, and counts as none. */
	history(hours, 7, NOON);
	verdict[5].damaged = true;
	sm_prune_select(&(struct sm_policy){ { [SM_KEEP_DAILY] = 3 } }, verdict, 7);
	assert_kept(7, "d..d.dd");
}

/* The server's clock went back: order is that of publishing. */
static void order_is_of_publishing(void **state)
{
	static const uint32_t hours[] = { 500, 1, 2 };

	history(hours, 3, NOON);
	sm_prune_select(&(struct sm_policy){ { [SM_KEEP_LAST] = 1 } }, verdict, 3);
	assert_kept(3, "l..");
}

/* A second reading of the documented rules, with strings for periods as a person would write them. */
static void period_name(int rule, const struct sm_generation *g, char text[32])
{
	static const char *const form[] = { "", "%F %H", "%F", "%G/%V", "%Y-%m", "%Y" };
	time_t t = g->received / NS;

	if (rule == SM_KEEP_LAST)
		snprintf(text, 32, "#%llu", (unsigned long long)g->sequence);
	else
		strftime(text, 32, form[rule], localtime(&t));
}

static void second_reading(const struct sm_policy *p, size_t nr, int *kept)
{
	bool gone[400] = { false };

	for (size_t i = 0; i < nr; i++)
		kept[i] = -1;
	for (int rule = 0; rule < SM_NR_RULES; rule++) {
		uint32_t left = p->keep[rule];
		int before[400];

		memcpy(before, kept, sizeof(before));
		for (size_t i = 0; i < nr && p->keep[rule]; i++) {
			bool covered = false, mine = false;
			char a[32], b[32];

			if (kept[i] >= 0 || gone[i])
				continue;
			period_name(rule, &gen[i], a);
			for (size_t k = 0; k < nr; k++) {
				if (k == i || kept[k] < 0)
					continue;
				period_name(rule, &gen[k], b);
				if (!strcmp(a, b) && before[k] >= 0)
					covered = true;
				else if (!strcmp(a, b))
					mine = true;
			}
			if (covered)
				continue;
			if (mine) {
				gone[i] = true;
				continue;
			}
			if (!left)
				break;
			left--;
			kept[i] = rule;
		}
	}
}

static void rules_against_a_second_reading(void **state)
{
	setenv("TZ", "Europe/Berlin", 1);
	tzset();
	srandom(5);
	for (int round = 0; round < 300; round++) {
		struct sm_policy p = { { 0 } };
		uint32_t hours[150], at = 0;
		size_t nr = 1 + random() % 150;
		int kept[400];

		for (size_t i = 0; i < nr; i++)
			hours[i] = at += random() % (round % 3 ? 30 : 700);
		history(hours, nr, NOON);
		for (int r = 0; r < SM_NR_RULES; r++)
			p.keep[r] = random() % 3 ? random() % 8 : 0;
		sm_prune_select(&p, verdict, nr);
		second_reading(&p, nr, kept);
		for (size_t i = 0; i < nr; i++) {
			assert_int_equal(verdict[i].fate == SM_FATE_KEEP, kept[i] >= 0);
			if (kept[i] >= 0)
				assert_int_equal(verdict[i].rule, kept[i]);
		}
	}
}

/* ---- a repository ---- */

static char vid[SM_VID_TEXT];

static int begin(void **state)
{
	sm_volume_id(CLIENT, volume, vid);
	return setup(state);
}

struct fates {
	uint32_t removed, kept, locked, base, read;
	bool gone[64];			/* of the first generations */
};

static int count_fate(const struct sm_verdict *v, void *arg)
{
	struct fates *f = arg;

	f->removed += v->fate == SM_FATE_REMOVED;
	f->kept += v->fate == SM_FATE_KEEP;
	f->locked += v->fate == SM_FATE_LOCKED;
	f->base += v->fate == SM_FATE_BASE;
	f->read += v->fate == SM_FATE_READ;
	if ((v->fate == SM_FATE_REMOVED || v->fate == SM_FATE_REMOVE) && v->g->manifest.info.number < 64)
		f->gone[v->g->manifest.info.number] = true;
	return 0;
}

static int keep_last(uint32_t n, bool apply, struct fates *f)
{
	struct sm_policy p = { { [SM_KEEP_LAST] = n } };

	memset(f, 0, sizeof(*f));
	return sm_prune(&repo, vid, &p, apply, count_fate, f, NULL);
}

static uint64_t orphans(void)
{
	struct sm_verify v = { 0 };

	assert_int_equal(sm_repo_verify(&repo, &v, NULL), 0);
	assert_int_equal(v.errors, 0);
	return v.orphans;
}

static uint64_t allocated(void)
{
	struct sm_usage u;
	int fd = open(dir, O_RDONLY);

	syncfs(fd);	/* delayed allocation */
	close(fd);
	assert_int_equal(sm_volume_usage(&repo, vid, &u, NULL), 0);
	return u.packs + u.maps + u.manifests;
}

static void assert_gone(uint32_t number)
{
	struct sm_generation g;

	assert_int_equal(sm_repo_generation(&repo, vid, number, &g, NULL), -ENOENT);
}

/* Branches, growth, shrinking; pruned at random between uploads; what stays is always right, and nothing is left over. */
static void pruned_histories_read_the_same(void **state)
{
	enum { COUNT = 48 };
	struct image now = make_image(400001, 1), old[COUNT + 1] = { { 0 } };
	uint8_t hash[COUNT + 1][SM_DIGEST];
	bool there[COUNT + 1] = { false };
	struct sm_gc gc;
	struct fates f;

	srandom(11);
	for (uint32_t i = 1; i <= COUNT; i++) {
		uint32_t parent = 0;
		struct backup b;

		for (int tries = 0; tries < 20 && i > 1 && !parent; tries++) {
			uint32_t k = random() % 4 ? i - 1 : 1 + random() % (i - 1);

			parent = there[k] ? k : 0;
		}
		change(&now);
		make_backup(&b, i, &now, parent ? &old[parent] : NULL, parent ? hash[parent] : NULL, 1 + random() % 16);
		assert_int_equal(store(&b, hash[i], NULL), 0);
		free_backup(&b);
		there[i] = true;
		old[i].size = now.size;
		old[i].data = malloc(now.size);
		memcpy(old[i].data, now.data, now.size);
		if (i % 5)
			continue;
		/* One in the middle stays by a lock: what is between it and the newest goes. */
		if (i == 20)
			assert_int_equal(sm_keep_set(&repo, vid, 13, INT64_MAX, NULL), 0);
		assert_int_equal(keep_last(1 + random() % 9, true, &f), 0);
		for (uint32_t k = 1; k <= i; k++)
			there[k] = there[k] && !f.gone[k];
		if (random() % 2) {
			assert_int_equal(sm_gc(&repo, vid, false, &gc, NULL), 0);
			assert_int_equal(orphans(), 0);
		}
		for (uint32_t k = 1; k <= i; k++)
			if (there[k])
				assert_stored(k, &old[k]);
			else
				assert_gone(k);
	}
	assert_int_equal(sm_keep_clear(&repo, vid, 13, NULL), 0);
	assert_int_equal(keep_last(1, true, &f), 0);
	assert_int_equal(sm_gc(&repo, vid, false, &gc, NULL), 0);
	assert_stored(COUNT, &old[COUNT]);
	assert_int_equal(orphans(), 0);
	for (uint32_t k = 1; k <= COUNT; k++)
		free(old[k].data);
	free(now.data);
}

/* The full backup goes; a twentieth of it is still read. Nearly all of its space comes back, and again costs nothing. */
static void space_comes_back_inside_packs(void **state)
{
	struct image base = make_image(400 * SM_BLOCK, 3), now = { malloc(400 * SM_BLOCK), 400 * SM_BLOCK };
	uint64_t before, after;
	uint8_t hash[SM_DIGEST];
	struct sm_verify v = { 0 };
	struct sm_gc gc, dry;
	struct backup b;
	struct fates f;

	srandom(9);
	for (uint64_t i = 0; i < base.size; i++)
		base.data[i] = random();
	memcpy(now.data, base.data, base.size);
	make_backup(&b, 1, &base, NULL, NULL, 4);
	assert_int_equal(store(&b, hash, NULL), 0);
	free_backup(&b);
	memset(now.data + 20 * SM_BLOCK, 0, 380 * SM_BLOCK);	/* cheap to keep */
	make_backup(&b, 2, &now, &base, hash, 4);
	assert_int_equal(store(&b, NULL, NULL), 0);
	free_backup(&b);
	before = allocated();
	assert_int_equal(keep_last(1, false, &f), 0);		/* dry: nothing happens */
	assert_int_equal(f.removed, 0);
	assert_true(f.gone[1]);
	assert_stored(1, &base);
	assert_int_equal(keep_last(1, true, &f), 0);
	assert_int_equal(f.removed, 1);
	assert_int_equal(sm_gc(&repo, vid, true, &dry, NULL), 0);
	assert_int_equal(allocated() / 65536, before / 65536);
	assert_int_equal(sm_gc(&repo, vid, false, &gc, NULL), 0);
	after = allocated();
	assert_int_equal(gc.packs, 0);
	assert_int_equal(gc.records, 95);	/* of 100 with four blocks each */
	assert_int_equal(gc.records, dry.records);
	assert_int_equal(gc.maps, dry.maps);
	assert_true(before - after >= 370 * SM_BLOCK);
	assert_true(gc.bytes >= 370 * SM_BLOCK);
	assert_stored(2, &now);
	assert_int_equal(sm_repo_verify(&repo, &v, NULL), 0);
	assert_int_equal(v.errors, 0);
	assert_int_equal(v.released, 95);
	assert_int_equal(sm_gc(&repo, vid, false, &gc, NULL), 0);
	assert_int_equal(gc.records + gc.packs + gc.maps, 0);
	free(base.data);
	free(now.data);
}

/* A hole where a generation that is there has its data is no "released" record but damage. */
static void a_hole_that_is_needed_is_damage(void **state)
{
	struct image m = make_image(200 * SM_BLOCK, 3);
	struct sm_verify v = { 0 };
	struct backup b;
	char cmd[300];

	make_backup(&b, 1, &m, NULL, NULL, 4);
	assert_int_equal(store(&b, NULL, NULL), 0);
	free_backup(&b);
	snprintf(cmd, sizeof(cmd), "dd if=/dev/zero of=$(echo %s/objects/volumes/*/packs/*.pack) bs=1 seek=64 count=4000 conv=notrunc status=none", dir);
	assert_int_equal(system(cmd), 0);
	assert_int_equal(sm_repo_verify(&repo, &v, NULL), 0);
	assert_true(v.errors > 0);
	assert_int_equal(v.released, 0);
	free(m.data);
}

static void locks_readers_and_uploads_hold(void **state)
{
	struct image m = make_image(90001, 1), next = make_image(90001, 2);
	uint8_t hash[5][SM_DIGEST];
	struct sm_generation g;
	struct sm_image *img;
	struct sm_image_piece p;
	struct sm_receipt r;
	struct sm_upload *u;
	struct backup b;
	struct fates f;

	for (uint32_t i = 1; i <= 4; i++) {
		make_backup(&b, i, &m, NULL, NULL, 3);
		assert_int_equal(store(&b, hash[i], NULL), 0);
		free_backup(&b);
	}
	assert_int_equal(sm_keep_set(&repo, vid, 1, sm_now_ns() + 3600 * NS, NULL), 0);
	assert_int_equal(sm_repo_generation(&repo, vid, 2, &g, NULL), 0);
	assert_int_equal(sm_image_open(&repo, &g, &img, NULL), 0);
	sm_generation_done(&g);
	make_backup(&b, 9, &next, &m, hash[3], 3);
	assert_int_equal(sm_upload_open(&repo, CLIENT, &b.info, &u, &r, NULL), 0);
	assert_int_equal(keep_last(1, true, &f), 0);
	assert_int_equal(f.locked, 1);
	assert_int_equal(f.read, 1);
	assert_int_equal(f.base, 1);
	assert_int_equal(f.removed, 0);
	assert_int_equal(sm_image_next(img, &p, NULL), 1);
	sm_image_close(img);
	assert_int_equal(send_frames(u, &b, 0, b.nr), 0);
	assert_int_equal(sm_upload_commit(u, b.text, strlen(b.text), &r, NULL), 0);
	sm_upload_close(u);
	free_backup(&b);
	/* Nobody holds 2 and 3 any more; the lock on 1 has run out. */
	assert_int_equal(sm_keep_set(&repo, vid, 1, sm_now_ns() - 1, NULL), 0);
	assert_int_equal(keep_last(1, true, &f), 0);
	assert_int_equal(f.removed, 4);
	assert_stored(9, &next);
	assert_int_equal(keep_last(0, true, &f), -EINVAL);	/* a policy that keeps nothing is a mistake */
	assert_stored(9, &next);
	free(m.data);
	free(next.data);
}

/* The base goes, is collected, and is sent again, all between OPEN's look at it and the staging that would have held it. */
static const struct backup *again;

static int exchange_base(const char *step)
{
	struct sm_gc gc;
	struct fates f;

	(void)step;
	sm_fault_hook = NULL;
	assert_int_equal(keep_last(1, true, &f), 0);
	assert_true(f.gone[1]);
	assert_int_equal(sm_gc(&repo, vid, false, &gc, NULL), 0);
	assert_int_equal(store(again, NULL, NULL), 0);
	return 0;
}

static void base_exchanged_for_its_equal(void **state)
{
	struct image m = make_image(400 * SM_BLOCK, 1), next = make_image(400 * SM_BLOCK, 1), other = make_image(90001, 3);
	uint8_t hash[SM_DIGEST];
	struct sm_receipt r;
	struct sm_upload *u;
	struct backup b[3];

	next.data[7]++;
	make_backup(&b[0], 1, &m, NULL, NULL, 3);
	make_backup(&b[1], 2, &other, NULL, NULL, 3);
	assert_int_equal(store(&b[0], hash, NULL), 0);
	assert_int_equal(store(&b[1], NULL, NULL), 0);
	make_backup(&b[2], 3, &next, &m, hash, 3);
	again = &b[0];
	sm_fault_hook = exchange_base;
	assert_int_equal(sm_upload_open(&repo, CLIENT, &b[2].info, &u, &r, NULL), 0);
	assert_null(sm_fault_hook);
	assert_int_equal(send_frames(u, &b[2], 0, b[2].nr), 0);
	assert_int_equal(sm_upload_commit(u, b[2].text, strlen(b[2].text), &r, NULL), 0);
	sm_upload_close(u);
	assert_stored(3, &next);
	for (int i = 0; i < 3; i++)
		free_backup(&b[i]);
	free(m.data);
	free(next.data);
	free(other.data);
}

static void samples_and_results(void **state)
{
	struct image m = make_image(400 * SM_BLOCK, 4);
	struct sm_verify v = { .keep = true }, few = { .mode = SM_VERIFY_SAMPLE, .sample = SM_SAMPLE_ALL / 4, .keep = true },
			 none = { .mode = SM_VERIFY_STRUCTURE };
	struct sm_verified done;
	struct backup b;
	char cmd[300];

	srandom(2);
	for (uint64_t i = 0; i < m.size; i++)
		m.data[i] = random();
	assert_int_equal(sm_verified_load(&repo, vid, &done, NULL), -ENOENT);
	make_backup(&b, 1, &m, NULL, NULL, 1);
	assert_int_equal(store(&b, NULL, NULL), 0);
	free_backup(&b);
	assert_int_equal(sm_repo_verify(&repo, &v, NULL), 0);
	assert_int_equal(v.records, 400);
	assert_int_equal(sm_verified_load(&repo, vid, &done, NULL), 0);
	assert_int_equal(done.records, 400);
	assert_int_equal(done.sample, SM_SAMPLE_ALL);
	assert_int_equal(done.errors, 0);
	assert_int_equal(sm_repo_verify(&repo, &few, NULL), 0);
	assert_in_range(few.records, 40, 160);	/* 100 expected: 40 is 7 standard deviations away */
	assert_int_equal(sm_verified_load(&repo, vid, &done, NULL), 0);
	assert_int_equal(done.sample, SM_SAMPLE_ALL / 4);
	assert_int_equal(done.records, few.records);
	assert_int_equal(sm_repo_verify(&repo, &none, NULL), 0);
	assert_int_equal(none.records, 0);
	/* One damaged byte: everything finds it, the structure does not show it. */
	snprintf(cmd, sizeof(cmd), "printf X | dd of=$(echo %s/objects/volumes/*/packs/*.pack) bs=1 seek=200000 conv=notrunc status=none", dir);
	assert_int_equal(system(cmd), 0);
	v = (struct sm_verify){ .keep = true };
	assert_int_equal(sm_repo_verify(&repo, &v, NULL), 0);
	assert_true(v.errors > 0);
	assert_int_equal(sm_verified_load(&repo, vid, &done, NULL), 0);
	assert_int_equal(done.errors, v.errors);
	assert_int_equal(sm_repo_verify(&repo, &none, NULL), 0);
	assert_int_equal(none.errors, 0);
	free(m.data);
}

static int note_damaged(uint32_t number, enum sm_lost how, void *arg)
{
	*(uint32_t *)arg = how == SM_LOST_DAMAGED ? number : 0;
	return 0;
}

/* What verification noted reaches the rules. */
static void prune_knows_what_is_damaged(void **state)
{
	struct image m = make_image(90001, 1);
	struct sm_numbers hurt = { 0 };
	struct backup b;
	struct fates f;

	for (uint32_t i = 1; i <= 3; i++) {
		make_backup(&b, i, &m, NULL, NULL, 3);
		assert_int_equal(store(&b, NULL, NULL), 0);
		free_backup(&b);
	}
	assert_int_equal(sm_numbers_add(&hurt, 3), 0);
	assert_int_equal(sm_damaged_save(&repo, vid, &hurt, NULL), 0);
	assert_int_equal(keep_last(1, true, &f), 0);
	assert_int_equal(f.kept, 2);
	assert_int_equal(f.removed, 1);
	assert_gone(1);
	assert_stored(2, &m);
	free(hurt.v);
	free(m.data);
}

static const struct sm_store_ops *sound_ops;
static unsigned int bad_reads;		/* of manifest 2, that still fail */

static int failing_open(struct sm_store *s, const char *key, struct sm_object **o, struct sm_err *e)
{
	if (strstr(key, "0000000002.manifest") && bad_reads && bad_reads--)
		return sm_fail(e, -EIO, "%s: planted", key);
	return sound_ops->open(s, key, o, e);
}

static int note_how(uint32_t number, enum sm_lost how, void *arg)
{
	assert_int_equal(number, 2);
	*(enum sm_lost *)arg = how;
	return 0;
}

/* An error of the disk that passes, or stays, deletes nothing. */
static void what_cannot_be_read_is_not_given_up(void **state)
{
	struct image m = make_image(90001, 1);
	struct sm_store_ops ops = *repo.store->ops;
	enum sm_lost how = SM_LOST_LOCKED;
	struct backup b;

	for (uint32_t i = 1; i <= 3; i++) {
		make_backup(&b, i, &m, NULL, NULL, 3);
		assert_int_equal(store(&b, NULL, NULL), 0);
		free_backup(&b);
	}
	sound_ops = repo.store->ops;
	ops.open = failing_open;
	repo.store->ops = &ops;
	bad_reads = 1;
	assert_int_equal(sm_prune_damaged(&repo, vid, true, note_how, &how, NULL), 0);
	assert_int_equal(how, SM_LOST_NOT);
	bad_reads = 1000;
	assert_int_equal(sm_prune_damaged(&repo, vid, true, note_how, &how, NULL), 0);
	assert_int_equal(how, SM_LOST_UNREADABLE);
	repo.store->ops = sound_ops;
	for (uint32_t i = 1; i <= 3; i++)
		assert_stored(i, &m);
	free(m.data);
}

/* A damaged manifest: what it needs stays, whatever goes; the rules see the sound ones only. */
static void doubt_gives_no_space_back(void **state)
{
	struct image m = make_image(90001, 1);
	struct sm_generations g;
	struct sm_usage before, after;
	uint32_t number = 0;
	struct backup b;
	struct sm_gc gc;
	struct fates f;
	char cmd[300];

	for (uint32_t i = 1; i <= 3; i++) {
		make_backup(&b, i, &m, NULL, NULL, 3);
		assert_int_equal(store(&b, NULL, NULL), 0);
		free_backup(&b);
	}
	snprintf(cmd, sizeof(cmd), "printf X | dd of=$(echo %s/objects/volumes/*/manifests/0000000002.manifest) bs=1 seek=100 conv=notrunc status=none", dir);
	assert_int_equal(system(cmd), 0);
	allocated();
	assert_int_equal(sm_volume_usage(&repo, vid, &before, NULL), 0);
	assert_int_equal(keep_last(1, true, &f), 0);
	assert_int_equal(f.kept, 1);
	assert_int_equal(f.removed, 1);
	assert_gone(1);
	assert_int_equal(sm_gc(&repo, vid, false, &gc, NULL), -EUCLEAN);
	assert_int_equal(sm_volume_usage(&repo, vid, &after, NULL), 0);
	assert_int_equal(after.packs, before.packs);
	assert_int_equal(after.maps, before.maps);
	assert_stored(3, &m);
	assert_int_equal(sm_repo_generations(&repo, vid, &g, NULL), 0);
	assert_int_equal(g.nr, 1);
	assert_int_equal(g.damaged.nr, 1);
	assert_int_equal(g.damaged.v[0], 2);
	sm_generations_free(&g);
	/* A lock holds here, too. */
	assert_int_equal(sm_keep_set(&repo, vid, 2, INT64_MAX, NULL), 0);
	assert_int_equal(sm_prune_damaged(&repo, vid, true, note_damaged, &number, NULL), 0);
	assert_int_equal(number, 0);
	assert_int_equal(sm_keep_clear(&repo, vid, 2, NULL), 0);
	assert_int_equal(sm_prune_damaged(&repo, vid, false, note_damaged, &number, NULL), 0);
	assert_int_equal(number, 2);
	assert_int_equal(sm_gc(&repo, vid, false, &gc, NULL), -EUCLEAN);
	assert_int_equal(sm_prune_damaged(&repo, vid, true, note_damaged, &number, NULL), 0);
	assert_gone(2);
	assert_int_equal(sm_gc(&repo, vid, false, &gc, NULL), 0);
	assert_int_equal(gc.packs, 2);
	assert_stored(3, &m);
	free(m.data);
}

/* ---- what a thousand generations cost ---- */

static const struct sm_store_ops *real_ops;
static uint64_t opened, bytes_read;

static int count_open(struct sm_store *s, const char *key, struct sm_object **o, struct sm_err *e)
{
	opened++;
	return real_ops->open(s, key, o, e);
}

static ssize_t count_pread(struct sm_object *o, void *buf, size_t len, uint64_t offset)
{
	bytes_read += len;
	return real_ops->pread(o, buf, len, offset);
}

struct cost {
	uint64_t publish_opens, publish_bytes, image_opens, image_bytes, stored;
};

static struct cost measure(struct image *m, uint32_t number, uint8_t hash[SM_DIGEST])
{
	struct image old = { malloc(m->size), m->size };
	struct sm_store_ops counting = *real_ops;
	struct sm_generation g;
	struct sm_image *img;
	struct backup b;
	struct cost c;

	memcpy(old.data, m->data, m->size);
	for (int i = 0; i < 4; i++)
		m->data[random() % m->size] ^= 1 + random() % 255;
	make_backup(&b, number, m, &old, hash, 4);
	counting.open = count_open;
	counting.pread = count_pread;
	repo.store->ops = &counting;
	opened = bytes_read = 0;
	assert_int_equal(store(&b, hash, NULL), 0);
	c.publish_opens = opened;
	c.publish_bytes = bytes_read;
	opened = bytes_read = 0;
	assert_int_equal(sm_repo_generation(&repo, vid, number, &g, NULL), 0);
	c.stored = g.stored_bytes;
	assert_int_equal(sm_image_open(&repo, &g, &img, NULL), 0);
	c.image_opens = opened;
	c.image_bytes = bytes_read;
	sm_image_close(img);
	sm_generation_done(&g);
	repo.store->ops = real_ops;
	free_backup(&b);
	free(old.data);
	return c;
}

static void most(struct cost *a, const struct cost *b)
{
#define MOST(f)	(a->f = b->f > a->f ? b->f : a->f)
	MOST(publish_opens), MOST(publish_bytes), MOST(image_opens), MOST(image_bytes), MOST(stored);
#undef MOST
}

/* Increments 201-300 against 901-1000: the dearest of each, as segments are merged now and then. */
static void a_thousand_increments_cost_no_more(void **state)
{
	struct image m = make_image(300 * SM_BLOCK, 3);
	struct cost early = { 0 }, late = { 0 };
	uint8_t hash[SM_DIGEST];
	struct backup b;
	char cmd[200];

	real_ops = repo.store->ops;
	srandom(4);
	make_backup(&b, 1, &m, NULL, NULL, 16);
	assert_int_equal(store(&b, hash, NULL), 0);
	free_backup(&b);
	for (uint32_t i = 2; i <= 1000; i++) {
		struct cost c = measure(&m, i, hash);

		if (i > 200 && i <= 300)
			most(&early, &c);
		if (i > 900)
			most(&late, &c);
	}
	print_message("publish: %llu objects, %llu bytes read (early %llu, %llu); open: %llu objects, %llu bytes (early %llu, %llu)\n",
		      (unsigned long long)late.publish_opens, (unsigned long long)late.publish_bytes,
		      (unsigned long long)early.publish_opens, (unsigned long long)early.publish_bytes,
		      (unsigned long long)late.image_opens, (unsigned long long)late.image_bytes,
		      (unsigned long long)early.image_opens, (unsigned long long)early.image_bytes);
	assert_true(late.publish_opens <= early.publish_opens + 2);
	assert_true(late.image_opens <= early.image_opens + 2);
	assert_true(late.publish_bytes <= early.publish_bytes + early.publish_bytes / 4);
	assert_true(late.image_bytes <= early.image_bytes + early.image_bytes / 4);
	assert_true(late.stored <= 5 * SM_BLOCK);
	assert_stored(1000, &m);
	/* A cache that is gone or torn is made anew; it costs, once. */
	snprintf(cmd, sizeof(cmd), "truncate -s -7 %s/cache/*.index", dir);
	assert_int_equal(system(cmd), 0);
	assert_true(measure(&m, 1001, hash).publish_opens > 1000);
	assert_true(measure(&m, 1002, hash).publish_opens <= early.publish_opens + 2);
	snprintf(cmd, sizeof(cmd), "rm -r %s/cache", dir);
	assert_int_equal(system(cmd), 0);
	measure(&m, 1003, hash);
	assert_stored(1003, &m);
	free(m.data);
}

/* ---- killed at every system call ---- */

/*
 * Does the call change anything durable, or make it so? A kill before any other is a kill before the next of these: the same.
 */
static bool changes(const struct __ptrace_syscall_info *i)
{
	static const uint64_t calls[] = {
		SYS_write, SYS_pwrite64, SYS_writev, SYS_pwritev, SYS_ftruncate, SYS_fallocate, SYS_fsync, SYS_fdatasync,
		SYS_renameat2, SYS_linkat, SYS_unlinkat, SYS_mkdirat,
#ifdef SYS_unlink
		SYS_rename, SYS_link, SYS_unlink, SYS_mkdir, SYS_rmdir,
#endif
	};

	if (i->entry.nr == SYS_openat)
		return i->entry.args[2] & (O_CREAT | O_TRUNC);
	for (size_t k = 0; k < sizeof(calls) / sizeof(*calls); k++)
		if (i->entry.nr == calls[k])
			return true;
	return false;
}

/* Run @fn in a child that is killed as it enters changing system call number @n. Return: did it come to its end? */
static bool killed_at(int n, void (*fn)(const void *arg), const void *arg)
{
	struct __ptrace_syscall_info info;
	int status, calls = 0;
	pid_t pid = fork();

	if (!pid) {
		if (ptrace(PTRACE_TRACEME, 0, NULL, NULL))
			_exit(99);
		raise(SIGSTOP);
		fn(arg);
		_exit(0);
	}
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSTOPPED(status));
	assert_int_equal(ptrace(PTRACE_SETOPTIONS, pid, NULL, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL), 0);
	for (bool entry = true;; entry = !entry) {
		assert_int_equal(ptrace(PTRACE_SYSCALL, pid, NULL, NULL), 0);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		if (WIFEXITED(status)) {
			assert_int_equal(WEXITSTATUS(status), 0);
			return true;
		}
		assert_true(WIFSTOPPED(status));
		assert_int_equal(WSTOPSIG(status), SIGTRAP | 0x80);
		if (!entry)
			continue;
		assert_true(ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof(info), &info) > 0);
		assert_int_equal(info.op, PTRACE_SYSCALL_INFO_ENTRY);
		if (changes(&info) && calls++ == n)
			break;
	}
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	return false;
}

static void do_store(const void *arg)
{
	if (store(arg, NULL, NULL) < 0)
		_exit(1);
}

/* "Not there", and then it can be finished; or complete. */
static void commit_killed_at_every_system_call(void **state)
{
	struct image base = make_image(60001, 6), now = make_image(65555, 8), got;
	int published = 0, absent = 0;
	uint8_t hash[SM_DIGEST];
	bool whole = false;
	struct backup b;

	make_backup(&b, 1, &base, NULL, NULL, 8);
	assert_int_equal(store(&b, hash, NULL), 0);
	free_backup(&b);
	for (int n = 0; !whole; n++) {
		int r;

		make_backup(&b, n + 2, &now, &base, hash, 8);
		whole = killed_at(n, do_store, &b);
		r = read_image(n + 2, &got);
		if (!r) {
			assert_int_equal(got.size, now.size);
			assert_memory_equal(got.data, now.data, now.size);
			free(got.data);
			published++;
			assert_int_equal(finish(&b), 1);
		} else {
			assert_int_equal(r, -ENOENT);
			absent++;
			assert_int_equal(finish(&b), 0);
			assert_stored(n + 2, &now);
		}
		free_backup(&b);
		/* The number of generations is kept small: what is done for each would grow. */
		if (n % 8 == 7) {
			struct sm_gc gc;
			struct fates f;

			assert_int_equal(sm_keep_set(&repo, vid, 1, INT64_MAX, NULL), 0);
			assert_int_equal(keep_last(1, true, &f), 0);
			assert_int_equal(sm_gc(&repo, vid, false, &gc, NULL), 0);
		}
	}
	assert_true(absent > 30);
	assert_true(published > 1);
	assert_int_equal(verify_errors(), 0);
	print_message("killed %d times before and %d times after the commit\n", absent, published);
	free(base.data);
	free(now.data);
}

static void do_prune(const void *arg)
{
	struct sm_gc gc;
	struct fates f;

	if (keep_last(2, true, &f) || sm_gc(&repo, vid, false, &gc, NULL))
		_exit(1);
}

/* A history of four, of which two are to go; one's pack stays in part. */
static void prepare(uint32_t from, struct image *m, uint8_t hash[SM_DIGEST])
{
	struct image old = { NULL, 0 };
	struct backup b;

	for (uint32_t i = from; i < from + 4; i++) {
		if (i > from)
			for (uint64_t at = (i - from) * 5 * SM_BLOCK; at < ((i - from) * 5 + 4) * SM_BLOCK; at++)
				m->data[at] ^= 0x55;
		make_backup(&b, i, m, i == from ? NULL : &old, i == from ? NULL : hash, 2);
		assert_int_equal(store(&b, hash, NULL), 0);
		free_backup(&b);
		old.data = realloc(old.data, m->size);
		old.size = m->size;
		memcpy(old.data, m->data, m->size);
	}
	free(old.data);
}

/* A generation is there, whole, or it is not there: at every point. And the next run cleans up what is left. */
static void prune_and_gc_killed_at_every_system_call(void **state)
{
	struct image m = make_image(40 * SM_BLOCK + 5, 6), got;
	uint8_t hash[SM_DIGEST];
	bool whole = false;
	uint32_t from = 1, n;

	for (n = 0; !whole; n += 1, from += 4) {
		struct sm_verify v = { 0 };

		prepare(from, &m, hash);
		whole = killed_at(n, do_prune, NULL);
		for (uint32_t i = 1; i < from + 4; i++) {
			int r = read_image(i, &got);

			assert_true(!r || r == -ENOENT);
			if (!r)
				free(got.data);
			else
				assert_true(i < from + 2);
		}
		assert_stored(from + 3, &m);
		assert_int_equal(sm_repo_verify(&repo, &v, NULL), 0);
		assert_int_equal(v.errors, 0);
		do_prune(NULL);
		assert_int_equal(orphans(), 0);
		assert_stored(from + 3, &m);
	}
	assert_true(n > 15);
	print_message("killed %u times\n", n - 1);
	free(m.data);
}

#define TEST(f)	cmocka_unit_test_setup_teardown(f, begin, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rules_one_by_one),
		cmocka_unit_test(damaged_ones_take_no_place),
		cmocka_unit_test(locked_ones_do_not_count),
		cmocka_unit_test(order_is_of_publishing),
		cmocka_unit_test(rules_against_a_second_reading),
		TEST(pruned_histories_read_the_same),
		TEST(space_comes_back_inside_packs),
		TEST(a_hole_that_is_needed_is_damage),
		TEST(locks_readers_and_uploads_hold),
		TEST(base_exchanged_for_its_equal),
		TEST(samples_and_results),
		TEST(prune_knows_what_is_damaged),
		TEST(what_cannot_be_read_is_not_given_up),
		TEST(doubt_gives_no_space_back),
		TEST(a_thousand_increments_cost_no_more),
		TEST(commit_killed_at_every_system_call),
		TEST(prune_and_gc_killed_at_every_system_call),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
