/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a session cannot do itself, because it is confined (session.c): start and stop the processes of jobs. A process that was forked before
 * does it, and takes two orders of eight bytes each. All that a job is it takes from the job's files and, anew, from agent.conf.
 */
#ifndef SNAPAGENTD_HELPER_H
#define SNAPAGENTD_HELPER_H

#include "job.h"

/* helper_begin() - fork it; it ends with us. @fds, @nr: of ours that it must not keep. 0 or -errno */
int helper_begin(const int *fds, int nr, struct sm_err *e);
/* helper_start() - run a job that is not running and not done, in a process that outlives both */
int helper_start(uint32_t job, struct sm_err *e);
/* helper_cancel() - SIGINT to whoever runs it. 0, -ESRCH nobody does, -errno */
int helper_cancel(uint32_t job);

#endif
