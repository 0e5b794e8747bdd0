/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the schedule has sent, by volume: STATE/schedule/VOLUME-UUID.json, replaced as a whole and durably after each
 * success and failure. Lost, it costs nothing but questions: a generation that the media server has is not sent again.
 *
 *	{"version":1,"destinations":{NAME:{"number","created","at","error","error_at","shipped":[{"generation","uuid"}]}}}
 */
#ifndef SNAPAGENTD_STATE_H
#define SNAPAGENTD_STATE_H

#include <jansson.h>

#include "schedule.h"

struct state {
	char file[64];			/* name of it */
	json_t *json;
};

/* state_load() - or an empty one. The caller calls state_free() */
int state_load(const uint8_t uuid[16], struct state *st, struct sm_err *e);
void state_free(struct state *st);
/* state_lock() - one pass at a time. Return: a descriptor, -EBUSY, -errno */
int state_lock(const struct state *st, struct sm_err *e);

/* state_apply() - note in @s what each destination has */
void state_apply(const struct state *st, struct sched *s);
/* state_shipped() - a destination has a generation now. Entries of generations that are not in @s any more are forgotten */
int state_shipped(struct state *st, const struct sched *s, const char *dest, const struct sched_gen *g, struct sm_err *e);
/* state_failed() - it has not taken what it should, and why */
int state_failed(struct state *st, const char *dest, const char *why, uint64_t now, struct sm_err *e);

/* state_dest() - what is noted of a destination; NULL: nothing */
const json_t *state_dest(const struct state *st, const char *dest);

#endif
