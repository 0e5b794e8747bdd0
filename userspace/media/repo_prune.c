// SPDX-License-Identifier: GPL-2.0-or-later
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "keep.h"
#include "upload_internal.h"

#define BALLAST		(1u << 20)
#define BALLAST_FILES	4

const char *const sm_rule_names[SM_NR_RULES] = {
	"keep-last", "keep-hourly", "keep-daily", "keep-weekly", "keep-monthly", "keep-yearly"
};

/* ---- the rules ---- */

/* A number for the period that a generation is of: equal within, different without. */
static uint64_t period(enum sm_rule rule, const struct sm_generation *g)
{
	time_t t = g->received / 1000000000u;
	char week[16];
	struct tm tm;

	localtime_r(&t, &tm);
	switch (rule) {
	case SM_KEEP_HOURLY:
		return ((uint64_t)tm.tm_year * 366 + tm.tm_yday) * 24 + tm.tm_hour;
	case SM_KEEP_DAILY:
		return (uint64_t)tm.tm_year * 366 + tm.tm_yday;
	case SM_KEEP_WEEKLY:		/* ISO: weeks do not end with the year */
		strftime(week, sizeof(week), "%G%V", &tm);
		return strtoull(week, NULL, 10);
	case SM_KEEP_MONTHLY:
		return (uint64_t)tm.tm_year * 12 + tm.tm_mon;
	case SM_KEEP_YEARLY:
		return tm.tm_year;
	default:
		return g->sequence;
	}
}

/* Periods that count: of generations that earlier rules have kept, and of this one's. Ours is a short list: linear. */
struct periods {
	uint64_t *v;
	size_t nr;
};

static bool has(const struct periods *p, uint64_t x)
{
	for (size_t i = 0; i < p->nr; i++)
		if (p->v[i] == x)
			return true;
	return false;
}

/*
 *	newest ──────────────────────────────► oldest
 *	 K     K     .     .     .     .     .		K: kept by earlier rules; their periods are taken
 *	             a     b     b     c     d		periods of the others, keep 2:
 *	             keep  keep  go    stop		more than one of b: the newest; after two periods no more is kept
 */
static void apply_rule(enum sm_rule rule, uint32_t keep, struct sm_verdict *v, size_t nr, bool *decided,
		       struct periods *taken, struct periods *mine)
{
	taken->nr = mine->nr = 0;
	for (size_t i = 0; i < nr; i++)
		if (decided[i] && v[i].fate == SM_FATE_KEEP)
			taken->v[taken->nr++] = period(rule, v[i].g);
	for (size_t i = 0; i < nr; i++) {
		uint64_t x;

		if (decided[i] || v[i].fate == SM_FATE_LOCKED)
			continue;
		x = period(rule, v[i].g);
		if (has(taken, x))
			continue;
		if (has(mine, x)) {
			decided[i] = true;
			continue;
		}
		if (mine->nr == keep)
			break;
		mine->v[mine->nr++] = x;
		decided[i] = true;
		v[i].fate = SM_FATE_KEEP;
		v[i].rule = rule;
	}
}

/* Fates by the rules; @sound: of the sound ones only, the others are as if they were not there. -ENOMEM */
static int run_rules(const struct sm_policy *p, struct sm_verdict *v, size_t nr, bool sound)
{
	struct periods taken = { malloc((nr + 1) * sizeof(uint64_t)), 0 }, mine = { malloc((nr + 1) * sizeof(uint64_t)), 0 };
	bool *decided = calloc(nr + 1, sizeof(*decided));
	bool good = taken.v && mine.v && decided;

	for (size_t i = 0; good && i < nr; i++) {
		if (v[i].fate != SM_FATE_LOCKED)
			v[i].fate = SM_FATE_REMOVE;
		decided[i] = sound && v[i].damaged;
	}
	for (int rule = 0; good && rule < SM_NR_RULES; rule++)
		if (p->keep[rule])
			apply_rule(rule, p->keep[rule], v, nr, decided, &taken, &mine);
	free(taken.v);
	free(mine.v);
	free(decided);
	return good ? 0 : -ENOMEM;
}

static void keep_all(struct sm_verdict *v, size_t nr)
{
	for (size_t i = 0; i < nr; i++)
		if (v[i].fate != SM_FATE_LOCKED)
			v[i].fate = SM_FATE_KEEP;
}

/*
 * Once over the sound ones: what they keep is not fewer because others are damaged. Once over all: what is damaged stays as long as it
 * would have stayed, since most of it may be whole, and the damage an error of the disk that passes.
 */
void sm_prune_select(const struct sm_policy *p, struct sm_verdict *v, size_t nr)
{
	struct sm_verdict *all = malloc((nr + 1) * sizeof(*all));

	if (all)
		memcpy(all, v, nr * sizeof(*v));
	if (!all || run_rules(p, v, nr, true) || run_rules(p, all, nr, false))
		keep_all(v, nr);	/* no memory: nothing goes */
	else
		for (size_t i = 0; i < nr; i++)
			if (v[i].fate == SM_FATE_REMOVE)
				v[i] = all[i];
	free(all);
}

/* ---- a volume ---- */

static int newest_first(const void *a, const void *b)
{
	const struct sm_verdict *x = a, *y = b;

	return x->g->sequence > y->g->sequence ? -1 : x->g->sequence < y->g->sequence;
}

/* A damaged note is a lock: what cannot be read cannot be said to have run out. 1: it is, until *@until; 0; -errno */
static int is_locked(struct sm_repo *r, const char *vid, uint32_t number, uint64_t *until, struct sm_err *e)
{
	int is;

	*until = INT64_MAX;
	is = sm_keep_get(r, vid, number, until, e);
	if (is < 0 && is != -EUCLEAN && is != -EPROTO)
		return is;
	return is && *until > sm_now_ns();
}

static int note_lock(struct sm_repo *r, const char *vid, struct sm_verdict *v, struct sm_err *e)
{
	uint64_t until;
	int is = is_locked(r, vid, v->g->manifest.info.number, &until, e);

	if (is > 0) {
		v->fate = SM_FATE_LOCKED;
		v->locked_until = until;
	}
	return is < 0 ? is : 0;
}

struct bases {
	const char *vid;
	struct sm_verdict *v;
	size_t nr;
};

static int note_base(const struct sm_staged *s, void *arg)
{
	struct bases *b = arg;

	if (strcmp(s->vid, b->vid) || !s->info.has_parent)
		return 0;
	for (size_t i = 0; i < b->nr; i++)
		if (b->v[i].fate == SM_FATE_REMOVE && !memcmp(b->v[i].g->hash, s->info.parent, SM_DIGEST))
			b->v[i].fate = SM_FATE_BASE;
	return 0;
}

/* Sent again it is another one. */
static void forget_damage(struct sm_repo *r, const char *vid, uint32_t number)
{
	struct sm_numbers n;

	sm_damaged_load(r, vid, &n);
	for (size_t i = 0; i < n.nr; i++)
		if (n.v[i] == number) {
			memmove(&n.v[i], &n.v[i + 1], (--n.nr - i) * sizeof(*n.v));
			sm_damaged_save(r, vid, &n, NULL);
			break;
		}
	free(n.v);
}

/* -EBUSY: somebody reads it */
static int remove_generation(struct sm_repo *r, const char *vid, uint32_t number, struct sm_err *e)
{
	char key[SM_KEY_MAX];
	int lock = generation_lock(r, vid, number, true, e), err;

	if (lock < 0)
		return lock;
	sm_key_manifest(key, vid, number);
	err = r->store->ops->remove(r->store, key, e);
	if (err) {
		close(lock);
		return err;
	}
	generation_unlock_gone(r, vid, number, lock);
	sm_keep_clear(r, vid, number, NULL);	/* a lock that has run out */
	forget_damage(r, vid, number);
	return 0;
}

static int remove_one(struct sm_repo *r, const char *vid, struct sm_verdict *v, struct sm_err *e)
{
	int err = remove_generation(r, vid, v->g->manifest.info.number, e);

	if (err && err != -EBUSY)
		return err;
	v->fate = err ? SM_FATE_READ : SM_FATE_REMOVED;
	return 0;
}

static int remove_all(struct sm_repo *r, const char *vid, struct sm_verdict *v, size_t nr, struct sm_err *e)
{
	char prefix[SM_KEY_MAX];
	int err = 0, settled;

	for (size_t i = nr; !err && i--;)	/* oldest first */
		if (v[i].fate == SM_FATE_REMOVE)
			err = remove_one(r, vid, &v[i], e);
	snprintf(prefix, sizeof(prefix), "volumes/%s/manifests", vid);
	settled = r->store->ops->settle(r->store, prefix, err ? NULL : e);
	return err ? err : settled;
}

static int prune_locked(struct sm_repo *r, const char *vid, const struct sm_policy *p, bool apply,
			int (*fn)(const struct sm_verdict *v, void *arg), void *arg, struct sm_err *e)
{
	struct sm_generations g;
	struct sm_numbers hurt;
	struct sm_verdict *v;
	int err = sm_repo_generations(r, vid, &g, e), told = 0;

	if (err)
		return err;
	sm_damaged_load(r, vid, &hurt);
	v = calloc(g.nr + 1, sizeof(*v));
	if (!v)
		err = sm_fail(e, -ENOMEM, "no memory");
	for (size_t i = 0; !err && i < g.nr; i++) {
		v[i].g = &g.v[i];
		v[i].damaged = sm_numbers_have(&hurt, g.v[i].manifest.info.number);
		err = note_lock(r, vid, &v[i], e);
	}
	if (!err) {
		struct bases b = { vid, v, g.nr };

		qsort(v, g.nr, sizeof(*v), newest_first);
		sm_prune_select(p, v, g.nr);
		err = sm_staged(r, note_base, &b, e);
	}
	if (!err && apply)
		err = remove_all(r, vid, v, g.nr, e);
	for (size_t i = 0; v && fn && !told && i < g.nr; i++)
		told = fn(&v[i], arg);
	free(v);
	free(hurt.v);
	sm_generations_free(&g);
	return err ? err : told;
}

int sm_prune(struct sm_repo *r, const char *vid, const struct sm_policy *p, bool apply,
	     int (*fn)(const struct sm_verdict *v, void *arg), void *arg, struct sm_err *e)
{
	uint32_t all = 0;
	int lock, err;

	for (int i = 0; i < SM_NR_RULES; i++)
		all |= p->keep[i];
	if (!all)
		return sm_fail(e, -EINVAL, "a policy that keeps nothing: say at least one of --keep-last, --keep-daily ...");
	if (apply)
		sm_ballast_use(r);
	lock = volume_lock(r, vid, e);
	if (lock < 0)
		return lock;
	err = prune_locked(r, vid, p, apply, fn, arg, e);
	close(lock);
	return err;
}

/*
 * The list found it lost; that may have been an error of the disk, which passes. It is looked at once more, and only bytes that were read
 * and are not what their digest says prove anything.
 */
static int judge_damaged(struct sm_repo *r, const char *vid, uint32_t number, enum sm_lost *how, struct sm_err *e)
{
	struct sm_generation g;
	uint64_t until;
	int is = is_locked(r, vid, number, &until, e), err;

	if (is < 0)
		return is;
	err = sm_repo_generation(r, vid, number, &g, NULL);
	if (!err)
		sm_generation_done(&g);
	*how = is ? SM_LOST_LOCKED : !err ? SM_LOST_NOT : err == -EUCLEAN ? SM_LOST_DAMAGED : SM_LOST_UNREADABLE;
	return 0;
}

static int prune_damaged_locked(struct sm_repo *r, const char *vid, bool apply, int (*fn)(uint32_t, enum sm_lost, void *), void *arg,
				struct sm_err *e)
{
	struct sm_generations g;
	int err = sm_repo_generations(r, vid, &g, e), told = 0;

	for (size_t i = 0; !err && !told && i < g.damaged.nr; i++) {
		enum sm_lost how;

		err = judge_damaged(r, vid, g.damaged.v[i], &how, e);
		if (!err && apply && how == SM_LOST_DAMAGED)
			err = remove_generation(r, vid, g.damaged.v[i], e);
		if (!err)
			told = fn(g.damaged.v[i], how, arg);
	}
	sm_generations_free(&g);
	return err ? err : told;
}

int sm_prune_damaged(struct sm_repo *r, const char *vid, bool apply, int (*fn)(uint32_t number, enum sm_lost how, void *arg), void *arg,
		     struct sm_err *e)
{
	int lock = volume_lock(r, vid, e), err;

	if (lock < 0)
		return lock;
	err = prune_damaged_locked(r, vid, apply, fn, arg, e);
	close(lock);
	return err;
}

/* ---- ballast ---- */

/* One with bytes, and more for the sake of being files: a full table of inodes is a full disk, too. */
static void ballast_path(const struct sm_repo *r, char path[PATH_MAX], int i)
{
	snprintf(path, PATH_MAX, "%.*s/ballast/%d", PATH_MAX - 64, r->path, i);
}

static bool room_for(const struct sm_repo *r, uint64_t bytes)
{
	struct statvfs v;

	/* Some file systems have no fixed number of files and say 0 of 0. */
	return !statvfs(r->path, &v) && (uint64_t)v.f_bavail * v.f_frsize >= bytes && (!v.f_files || v.f_favail >= 16);
}

void sm_ballast_use(struct sm_repo *r)
{
	char path[PATH_MAX];

	if (room_for(r, BALLAST))
		return;
	for (int i = 0; i < BALLAST_FILES; i++) {
		ballast_path(r, path, i);
		unlink(path);
	}
}

void sm_ballast_make(struct sm_repo *r)
{
	char path[PATH_MAX];

	if (!room_for(r, 64 * BALLAST))
		return;
	snprintf(path, sizeof(path), "%.*s/ballast", PATH_MAX - 64, r->path);
	mkdir(path, 0700);
	for (int i = 0; i < BALLAST_FILES; i++) {
		int fd;

		ballast_path(r, path, i);
		fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC | O_NOFOLLOW, 0600);
		if (fd < 0)
			return;
		if (!i)
			posix_fallocate(fd, 0, BALLAST);
		close(fd);
	}
}
