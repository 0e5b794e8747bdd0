/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Jobs that the agent of a storage host runs, seen from the manager: asked for, followed, picked up, cancelled, listed. What is asked for is a job, which
 * does not end with the program that asked. All functions print what is to be said, and return an exit code.
 */
#ifndef SNAPMEDIA_AGENT_JOB_H
#define SNAPMEDIA_AGENT_JOB_H

#include "agent.h"

struct snap_progress;

struct sm_job_view {
	const char *host;
	uint32_t job;			/* sm_job_resume(), sm_job_cancel(): which */
	bool detach, quiet, progress_json, json;
	/* ours */
	struct snap_progress *progress;
	uint64_t total;
	json_t *last;			/* the job as it was told last */
};

/* sm_job_order() - an object with "verb" */
json_t *sm_job_order(const char *verb);
/* sm_job_begin() - ask for one, and follow it to its receipt unless detached; @order is taken */
int sm_job_begin(struct sm_job_view *r, json_t *order);
/* sm_job_resume() - follow it; if nobody runs it, have it started again */
int sm_job_resume(struct sm_job_view *r);
int sm_job_cancel(struct sm_job_view *r);
/* sm_job_table() - "jobs", "dests", "targets" */
int sm_job_table(const struct sm_job_view *r, const char *verb);
void sm_job_view_done(struct sm_job_view *r);

#endif
