/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SNAPAGENTD_RUN_H
#define SNAPAGENTD_RUN_H

#include "netlink.h"
#include "schedule.h"

/* sched_load() - the generations of s->v that are the schedule's, room, time. s->gen is the caller's to free */
int sched_load(struct snap_nl *nl, struct sched *s, struct snap_err *se);

#endif
