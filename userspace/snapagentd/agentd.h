/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * snapagentd: the storage host's side for management clients, and its schedule.
 *
 *	main.c		the daemon			session.c	who is it, which order
 *	volumes.c	orders about generations	job_orders.c	orders about backups, restores
 *	job.c		a job's files			runner.c	the process that runs a job
 *	helper.c	starts jobs for a confined session
 *	place.c		what is restored onto		child.c		the program that does a job
 *	config.c	agent.conf			schedule.c	what is due (no I/O), plan.h
 *	state.c		what was shipped, when		run.c		one pass over the schedule
 *
 * No process keeps anything in memory that another needs: jobs and schedule are files, who runs what is known by locks.
 */
#ifndef SNAPAGENTD_H
#define SNAPAGENTD_H

#include <limits.h>

#include "agent.h"
#include "clients.h"
#include "config.h"
#include "netlink.h"
#include "service.h"

struct agent {
	struct sm_service service;	/* first: callbacks are given it */
	struct sm_key *key;
	char dir[PATH_MAX];		/* key and clients: agent_dir() */
};

/* agent_state_dir() - $SNAPDIFF_STATE_DIR or /var/lib/snapdiff; "agent", "jobs", "schedule" are in it. Returns @path */
char *agent_path(char path[PATH_MAX], const char *name);
/* agent_config() - read agent.conf; without a file all defaults */
int agent_config(struct config *c, struct sm_err *e);
/* agent_config_keep() - read it now; agent_config() parses what was there then: of a process that cannot open it later */
void agent_config_keep(void);

/* A session on behalf of a client. */
struct asker {
	struct sm_service *service;
	struct sm_chan *chan;
	char client[SM_CLIENT_MAX];
	uint32_t roles;
};

int session(struct sm_service *s, int in, int out, const char *peer, bool tls, const sigset_t *wait_mask);

/* asker_row() - send one line of the answer; takes @row */
int asker_row(struct asker *a, json_t *row, struct sm_err *e);
/* asker_fail() - what a library function of volumes says, as the answer's error */
int asker_fail(struct sm_err *e, const struct snap_err *se, int err);

struct verb {
	const char *name;
	uint32_t roles;			/* of which one is needed */
	int (*fn)(struct asker *a, const json_t *order, struct sm_err *e);
};
extern const struct verb volume_verbs[], job_verbs[];	/* end with a NULL name */

/* order_volume() - the member "volume", a valid name. Return: 1; 0 there is none; -EINVAL */
int order_volume(const json_t *order, char name[SNAP_VOLUME_BUF], struct sm_err *e);
/* order_number() - a number from 1 on */
int order_number(const json_t *order, const char *key, uint32_t *number, struct sm_err *e);

extern const struct snap_cmd cmd_init, cmd_client, cmd_run;

#endif
