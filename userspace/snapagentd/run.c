// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * One pass over the schedule: cut, send, give up. Each step is judged anew from what is there then, so that a pass that was cut off
 * is simply followed by the next one. A destination that fails is left for this pass; the others go on.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd.h"
#include "job.h"
#include "run.h"
#include "state.h"

struct pass {
	struct snap_nl *nl;
	struct config c;
	struct sched s;
	struct state state;
	bool dry;
	int first;			/* error of all */
};

static void say(const struct pass *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void say(const struct pass *p, const char *fmt, ...)
{
	va_list ap;

	printf("%s: ", p->s.v->name);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
	fflush(stdout);
}

static void failed(struct pass *p, int err, const char *what, const char *why)
{
	struct snap_err se;

	if (!p->first)
		p->first = err;
	snap_err_set(&se, err, p->s.v->name, "%s: %s", what, why);
	snap_err_report(&se);
}

static void failed_snap(struct pass *p, int err, const char *what, const struct snap_err *se)
{
	failed(p, err, what, se->text[0] ? se->text : strerror(-err));
}

/* ---- what is there ---- */

static bool ours(const struct config_volume *v, const struct snap_gen *g)
{
	return !strcmp(g->label, v->label);
}

int sched_load(struct snap_nl *nl, struct sched *s, struct snap_err *se)
{
	struct snap_volume vol;
	struct snap_gen *gens;
	uint64_t size;
	size_t n;
	int err = snap_nl_volume(nl, s->v->name, &vol, se);

	free(s->gen);
	s->gen = NULL;
	s->nr = 0;
	s->now = sm_now_ns();
	if (err || (err = snap_nl_gens(nl, s->v->name, &gens, &n, se)))
		return err;
	s->gen = calloc(n + 2, sizeof(*s->gen));	/* room for the one that a dry run imagines */
	for (size_t i = 0; s->gen && i < n; i++)
		if (ours(s->v, &gens[i])) {
			struct sched_gen *g = &s->gen[s->nr++];

			*g = (struct sched_gen){ .number = gens[i].number, .created = gens[i].created, .state = gens[i].state,
						 .pinned = gens[i].flags & SNAPDIFF_GEN_F_PINNED, .in_use = gens[i].virt_index != SNAP_NO_VIRT };
			memcpy(g->uuid, gens[i].uuid, 16);
		}
	free(gens);
	size = vol.stats[SNAPDIFF_STAT_DIFF_SIZE];
	s->highest = vol.highest_gen;
	s->free_percent = size ? vol.stats[SNAPDIFF_STAT_DIFF_FREE] * 100.0 / size : 0;
	return s->gen ? 0 : snap_err_sys(se, -ENOMEM, s->v->name, "schedule");
}

static int reload(struct pass *p)
{
	struct snap_err se = SNAP_ERR_INIT;
	int err = sched_load(p->nl, &p->s, &se);

	if (err)
		failed_snap(p, err, "schedule", &se);
	else
		state_apply(&p->state, &p->s);
	return err;
}

/* ---- cut ---- */

static int cut(struct pass *p)
{
	const struct config_volume *v = p->s.v;
	struct snap_err se = SNAP_ERR_INIT;
	const char *name = v->name;
	struct snap_gen g;
	char why[SCHED_WHY];
	int err;

	if (!sched_cut(&p->s, why)) {
		if (p->dry && v->cut)
			say(p, "no cut: %s", why);
		return 0;
	}
	if (p->dry) {
		say(p, "would cut: %s", why);
		p->s.gen[p->s.nr] = (struct sched_gen){ .number = p->s.highest + 1, .created = p->s.now,
							.state = SNAPDIFF_GEN_LIVE };
		p->s.nr++;
		return 0;
	}
	err = snap_nl_create(p->nl, &name, 1, v->label, v->freeze, &g, &se);
	if (err) {
		failed_snap(p, err, "cannot cut", &se);
		return 0;	/* what is there can still be sent */
	}
	say(p, "cut generation %u: %s", g.number, why);
	return reload(p);
}

/* ---- send ---- */

/* Return: 0; -EINTR everything is to stop; -errno this destination has failed */
static int send_one(struct pass *p, const char *dest, const struct sched_gen *g)
{
	struct job j = { .generation = g->number, .level = -1, .client = JOB_LOCAL };
	struct sm_err e = { 0 }, e2;
	char what[128];
	int lock, err;

	snprintf(j.volume, sizeof(j.volume), "%s", p->s.v->name);
	snprintf(j.dest, sizeof(j.dest), "%s", dest);
	err = job_create(&j, &e);
	lock = err ? err : job_lock(j.id, &e);
	err = lock < 0 ? lock : job_run(&j, lock, &e);
	if (lock >= 0)
		close(lock);
	job_done(&j);
	if (!err) {
		say(p, "generation %u is on %s (job %u)", g->number, dest, j.id);
		err = state_shipped(&p->state, &p->s, dest, g, &e);
	} else if (err != -EINTR && state_failed(&p->state, dest, e.text, p->s.now, &e2)) {
		failed(p, -EIO, "cannot note a failure", e2.text);
	}
	snprintf(what, sizeof(what), "generation %u to %.64s", g->number, dest);
	if (err)
		failed(p, err, what, e.text);
	return err;
}

static int send_all(struct pass *p, uint32_t ship)
{
	const char *dest = p->c.dest[p->s.v->ship[ship].dest].name;
	int i, err;

	while ((i = sched_next(&p->s, ship, NULL)) >= 0) {
		struct sched_gen *g = &p->s.gen[i];

		if (p->dry) {
			say(p, "would send generation %u to %s", g->number, dest);
			g->shipped |= 1u << ship;
			p->s.last[ship].number = g->number;
			p->s.last[ship].created = g->created;
			continue;
		}
		err = send_one(p, dest, g);
		if (err)
			return err;
		if (reload(p))
			return -EIO;
	}
	return 0;
}

/* ---- give up ---- */

static void give_up(struct pass *p, const struct sched_gen *g, const struct sched_verdict *v)
{
	static const char *const would[] = { "keep", "would bookmark", "would delete" }, *const did[] = { "", "bookmarked", "deleted" };
	struct snap_err se = SNAP_ERR_INIT;
	int err = 0;

	if (v->missed) {
		char what[64];

		snprintf(what, sizeof(what), "generation %u", g->number);
		failed(p, -ENODATA, what, "its data is gone before any destination had it (the diff was full, or it was given up by hand)");
	}
	if (p->dry) {
		say(p, "%s generation %u: %s", would[v->fate], g->number, v->why);
		return;
	}
	if (v->fate == SCHED_BOOKMARK)
		err = snap_nl_bookmark(p->nl, p->s.v->name, g->number, &se);
	else if (v->fate == SCHED_DELETE)
		err = snap_nl_delete(p->nl, p->s.v->name, g->number, g->number, &se);
	if (err)
		failed_snap(p, err, v->fate == SCHED_BOOKMARK ? "cannot bookmark" : "cannot delete", &se);
	else if (v->fate != SCHED_KEEP)
		say(p, "%s generation %u: %s", did[v->fate], g->number, v->why);
}

static void give_up_all(struct pass *p)
{
	struct sched_verdict *v = calloc(p->s.nr + 1, sizeof(*v));

	if (!v || sched_keep(&p->s, v))
		failed(p, -ENOMEM, "schedule", "no memory");
	else
		for (size_t i = 0; i < p->s.nr; i++)
			give_up(p, &p->s.gen[i], &v[i]);
	free(v);
}

/* ---- a pass ---- */

static int pass_volume(struct pass *p)
{
	struct snap_err se = SNAP_ERR_INIT;
	struct snap_volume vol;
	struct sm_err e = { 0 };
	int lock, err = snap_nl_volume(p->nl, p->s.v->name, &vol, &se);

	if (err) {
		failed_snap(p, err, "schedule", &se);
		return 0;
	}
	err = state_load(vol.uuid, &p->state, &e);
	lock = err ? err : state_lock(&p->state, &e);
	if (lock >= 0) {	/* who had the lock has written */
		state_free(&p->state);
		err = state_load(vol.uuid, &p->state, &e);
	}
	if (lock < 0 || err) {
		failed(p, lock < 0 ? lock : err, "schedule", e.text);
		err = 0;
	} else if (!reload(p) && !cut(p)) {
		for (uint32_t i = 0; err != -EINTR && i < p->s.v->nr_ships; i++)
			err = send_all(p, i);
		if (err != -EINTR && (p->dry || !reload(p)))
			give_up_all(p);
	}
	if (lock >= 0)
		close(lock);
	state_free(&p->state);
	free(p->s.gen);
	p->s.gen = NULL;
	return err == -EINTR ? err : 0;
}

static int pass(const char *only, bool dry)
{
	struct pass p = { .dry = dry };
	struct snap_err se = SNAP_ERR_INIT;
	struct sm_err e = { 0 };
	bool found = false;
	int err = agent_config(&p.c, &e);

	if (err)
		return snap_report(err, e.text);
	if (snap_nl_open(&p.nl, &se)) {
		config_free(&p.c);
		return snap_err_report(&se);
	}
	for (uint32_t i = 0; !err && i < p.c.nr_volumes; i++) {
		if (only && strcmp(only, p.c.volume[i].name))
			continue;
		found = true;
		memset(&p.s, 0, sizeof(p.s));
		p.s.c = &p.c;
		p.s.v = &p.c.volume[i];
		err = pass_volume(&p);
	}
	if (only && !found) {
		snap_err_set(&se, -ENOENT, only, "agent.conf has no such volume");
		p.first = -ENOENT;
		snap_err_report(&se);
	}
	snap_nl_close(p.nl);
	config_free(&p.c);
	return snap_err_exit(p.first);
}

static int run(int argc, char **argv)
{
	bool dry = false;
	const struct snap_opt opts[] = {
		{ "dry-run", 'n', SNAP_OPT_FLAG, NULL, &dry, "say what would be done, and why" },
		{ 0 }
	};
	int rc = snap_opts(&cmd_run, opts, &argc, &argv);

	return rc >= 0 ? rc : pass(argc ? argv[0] : NULL, dry);
}

const struct snap_cmd cmd_run = {
	.name = "run", .args = "[VOLUME]", .summary = "one pass over the schedule: cut, send, give up what is due",
	.help = "As agent.conf(5) says, for all its volumes or for one. snapdiff-agent.timer runs it. A destination that fails does not stop the\n"
		"others, is tried again by the next pass, and is the exit status.",
	.min_args = 0, .max_args = 1, .run = run,
};
