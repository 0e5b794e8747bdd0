/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is due, decided from what is there and what the clock says; nothing is done here.
 *
 * The schedule's own are the generations with its label. All others it neither sends nor touches.
 *
 *	cut	when the period that now is in is another than that of the newest one
 *	send	to each destination the first one of each of its periods, in order, from the last that it has on; what a destination has
 *		missed waits for it
 *	keep	what a keep rule names; what no destination has that should; while there is room in the diff, also what
 *		another destination should have; what is pinned or in use
 *	bookmark	the rest, where it is one of the last two that a destination has: the base of what is sent there next
 *	delete	the rest
 *
 * Periods are counted from 1970 in UTC, so that they do not drift with the moments of the passes. They are compared for being
 * different and generations by number: a clock that is set back stops nothing.
 */
#ifndef SNAPAGENTD_SCHEDULE_H
#define SNAPAGENTD_SCHEDULE_H

#include "config.h"

#define SCHED_WHY	160u

struct sched_gen {
	uint32_t number;
	uint8_t uuid[16];
	uint64_t created;		/* ns */
	uint8_t state;			/* enum snapdiff_gen_state */
	bool pinned, in_use;
	uint32_t shipped;		/* mask: these ships of the volume have taken it */
};

struct sched {
	const struct config *c;
	const struct config_volume *v;
	uint64_t now;			/* ns */
	uint32_t free_percent;		/* of the diff */
	uint32_t highest;		/* number that any generation of the volume has had */
	struct sched_gen *gen;		/* ascending */
	size_t nr;
	struct {
		uint32_t number;	/* newest generation that this destination has; 0: none */
		uint64_t created;	/* when it was cut */
	} last[MAX_SHIPS];
};

enum sched_fate { SCHED_KEEP, SCHED_BOOKMARK, SCHED_DELETE };

struct sched_verdict {
	enum sched_fate fate;
	bool missed;			/* its data is gone, no destination has it, and one should */
	char why[SCHED_WHY];
};

/* sched_cut() - is a cut due? */
bool sched_cut(const struct sched *s, char why[SCHED_WHY]);
/* sched_next() - the place of the oldest generation that is to be sent to a destination now; -1: none. @waiting: how many there are; may be NULL */
int sched_next(const struct sched *s, uint32_t ship, uint32_t *waiting);
/* sched_keep() - a verdict for each generation. Return: 0, -ENOMEM */
int sched_keep(const struct sched *s, struct sched_verdict *v);

#endif
