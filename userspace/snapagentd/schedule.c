// SPDX-License-Identifier: GPL-2.0-or-later
#include "schedule.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BASES	2u	/* of each destination: the last two that it has */

static uint64_t period(uint64_t t, uint64_t every)
{
	return t / every;
}

bool sched_cut(const struct sched *s, char why[SCHED_WHY])
{
	const struct sched_gen *last = s->nr ? &s->gen[s->nr - 1] : NULL;
	char text[32];

	if (!s->v->cut)
		return snprintf(why, SCHED_WHY, "this volume is not cut by schedule"), false;
	if (!last)
		return snprintf(why, SCHED_WHY, "there is none yet"), true;
	snap_format_time(text, sizeof(text), last->created);
	if (period(s->now, s->v->cut) == period(last->created, s->v->cut))
		return snprintf(why, SCHED_WHY, "the last is of %s, of the same period", text), false;
	return snprintf(why, SCHED_WHY, "the last is of %s", text), true;
}

/*
 * Which ones should a destination have that it has not? Called in order; one without its data leaves its period to the next.
 * @number, @created: of the last that it has or waits for
 */
static bool should_have(const struct sched *s, uint32_t ship, const struct sched_gen *g, uint32_t number, uint64_t created)
{
	uint64_t every = s->v->ship[ship].every;

	if (g->shipped & 1u << ship || g->number <= number)
		return false;
	return !number || !every || period(g->created, every) != period(created, every);
}

/* A mask of the generations' places that wait for a destination; @gone: those whose turn it was and whose data is gone. */
static void waiting_for(const struct sched *s, uint32_t ship, bool *waits, bool *gone)
{
	uint32_t number = s->last[ship].number;
	uint64_t created = s->last[ship].created;

	for (size_t i = 0; i < s->nr; i++) {
		const struct sched_gen *g = &s->gen[i];
		bool should = should_have(s, ship, g, number, created);

		waits[i] = should && g->state == SNAPDIFF_GEN_LIVE;
		gone[i] |= should && g->state != SNAPDIFF_GEN_LIVE;
		if (waits[i]) {
			number = g->number;
			created = g->created;
		}
	}
}

int sched_next(const struct sched *s, uint32_t ship, uint32_t *waiting)
{
	bool *waits = calloc(2 * s->nr + 1, sizeof(*waits));
	int first = -1;

	if (waiting)
		*waiting = 0;
	if (!waits)
		return -1;
	waiting_for(s, ship, waits, waits + s->nr);
	for (size_t i = s->nr; i--;)
		if (waits[i]) {
			first = i;
			if (waiting)
				++*waiting;
		}
	free(waits);
	return first;
}

/* ---- keeping ---- */

/* What the rules name, of those that have their data; without rules all. */
static int apply_rules(const struct sched *s, bool *kept, const char **rule)
{
	struct sm_generation *g = calloc(s->nr + 1, sizeof(*g));
	struct sm_verdict *v = calloc(s->nr + 1, sizeof(*v));
	size_t *place = calloc(s->nr + 1, sizeof(*place)), n = 0;
	bool good = g && v && place;

	for (size_t i = s->nr; good && i--;) {
		if (s->gen[i].state != SNAPDIFF_GEN_LIVE)
			continue;
		g[n].received = s->gen[i].created;
		g[n].sequence = s->gen[i].number;
		v[n].g = &g[n];
		place[n++] = i;
	}
	if (good && s->v->has_keep)
		sm_prune_select(&s->v->keep, v, n);
	for (size_t k = 0; good && k < n; k++) {
		kept[place[k]] = !s->v->has_keep || v[k].fate == SM_FATE_KEEP;
		rule[place[k]] = s->v->has_keep ? sm_rule_names[v[k].rule] : "there are no keep rules";
	}
	free(g);
	free(v);
	free(place);
	return good ? 0 : -ENOMEM;
}

struct needs {
	bool *kept, *gone, *waits;	/* waits: nr for each ship */
	bool *base;
	const char **rule;
};

static void find_bases(const struct sched *s, bool *base)
{
	for (uint32_t ship = 0; ship < s->v->nr_ships; ship++) {
		uint32_t n = 0;

		for (size_t i = s->nr; i-- && n < BASES;)
			if (s->gen[i].shipped & 1u << ship && s->gen[i].state != SNAPDIFF_GEN_LOST) {
				base[i] = true;
				n++;
			}
	}
}

/* Does it wait for a destination, and may it? */
static bool may_wait(const struct sched *s, const struct needs *n, size_t i, char why[SCHED_WHY])
{
	for (uint32_t ship = 0; ship < s->v->nr_ships; ship++) {
		const char *name = s->c->dest[s->v->ship[ship].dest].name;

		if (!n->waits[ship * s->nr + i])
			continue;
		if (!s->gen[i].shipped)
			snprintf(why, SCHED_WHY, "no destination has it yet, %.64s should", name);
		else if (s->free_percent >= s->v->room)
			snprintf(why, SCHED_WHY, "%.64s does not have it yet", name);
		else
			continue;
		return true;
	}
	return false;
}

/* Nothing is noted of any destination, the notes may be gone: then a bookmark may be anybody's base. */
static bool no_notes(const struct sched *s)
{
	for (uint32_t ship = 0; ship < s->v->nr_ships; ship++)
		if (s->last[ship].number)
			return false;
	return s->v->nr_ships;
}

static void judge(const struct sched *s, const struct needs *n, size_t i, struct sched_verdict *v)
{
	const struct sched_gen *g = &s->gen[i];

	v->fate = SCHED_KEEP;
	v->missed = n->gone[i] && !g->shipped && !(g->state == SNAPDIFF_GEN_BOOKMARK && no_notes(s));
	if (g->pinned || g->in_use) {
		snprintf(v->why, SCHED_WHY, g->pinned ? "pinned" : "in use");
	} else if (g->state == SNAPDIFF_GEN_LIVE && n->kept[i]) {
		snprintf(v->why, SCHED_WHY, "%s", n->rule[i]);
	} else if (g->state == SNAPDIFF_GEN_LIVE && may_wait(s, n, i, v->why)) {
		;
	} else if (g->state == SNAPDIFF_GEN_LOST) {
		v->fate = SCHED_DELETE;
		snprintf(v->why, SCHED_WHY, "its data is lost");
	} else if (g->state == SNAPDIFF_GEN_BOOKMARK && no_notes(s)) {
		snprintf(v->why, SCHED_WHY, "nothing is noted of what destinations have");
	} else if (n->base[i] && s->v->bookmark) {
		v->fate = g->state == SNAPDIFF_GEN_LIVE ? SCHED_BOOKMARK : SCHED_KEEP;
		snprintf(v->why, SCHED_WHY, "base of what is sent next");
	} else {
		v->fate = SCHED_DELETE;
		snprintf(v->why, SCHED_WHY, "no rule keeps it");
	}
}

int sched_keep(const struct sched *s, struct sched_verdict *v)
{
	struct needs n = {
		.kept = calloc(s->nr + 1, sizeof(bool)), .gone = calloc(s->nr + 1, sizeof(bool)), .base = calloc(s->nr + 1, sizeof(bool)),
		.waits = calloc(s->nr * MAX_SHIPS + 1, sizeof(bool)), .rule = calloc(s->nr + 1, sizeof(*n.rule)),
	};
	int err = n.kept && n.gone && n.base && n.waits && n.rule ? apply_rules(s, n.kept, n.rule) : -ENOMEM;

	if (!err) {
		for (uint32_t ship = 0; ship < s->v->nr_ships; ship++)
			waiting_for(s, ship, n.waits + ship * s->nr, n.gone);
		find_bases(s, n.base);
		for (size_t i = 0; i < s->nr; i++)
			judge(s, &n, i, &v[i]);
	}
	free(n.kept);
	free(n.gone);
	free(n.base);
	free(n.waits);
	free(n.rule);
	return err;
}
