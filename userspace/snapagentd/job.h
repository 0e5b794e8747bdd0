/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A job is a backup or a restore that the agent runs for somebody. It outlives the connection that asked for it, and the agent:
 *
 *	STATE/jobs/N/job.json		what was asked; never changed
 *	STATE/jobs/N/state.json		replaced as a whole, durably, when a run begins and ends
 *	STATE/jobs/N/progress.json	replaced while it runs
 *	STATE/jobs/N/lock		locked by the process that runs the job, for as long as it lives; has its pid
 *	STATE/jobs/N/log		what snapbackup or snaprestore said
 *
 *		   ┌─────────── job_start() ◄───────────┐
 *		   ▼					│
 *	new ──► running ──► done			│
 *		   ├──────► failed, cancelled ──────────┤
 *		   └──────► interrupted ────────────────┘
 *
 * "interrupted" is also what a job is of which the files say "running" and nobody has the lock: its process was killed, or the machine.
 * A backup that is started again sends what is missing: that is snapbackup's resuming. A restore begins anew.
 */
#ifndef SNAPAGENTD_JOB_H
#define SNAPAGENTD_JOB_H

#include "agentd.h"

#define JOB_RANGES	2048u
#define JOB_KEY_NONE	"none"
#define JOB_LOCAL	"-schedule"	/* client of the schedule's own jobs; not a name that a client can have */

enum job_state { JOB_NEW, JOB_RUNNING, JOB_DONE, JOB_FAILED, JOB_CANCELLED, JOB_INTERRUPTED };
const char *job_state_name(enum job_state s);
enum job_kind { JOB_BACKUP, JOB_RESTORE };
const char *job_kind_name(enum job_kind k);

struct job {
	uint32_t id;
	/* asked */
	enum job_kind kind;
	char client[SM_CLIENT_MAX], volume[SNAP_VOLUME_BUF], dest[DEST_ADDRESS];
	uint32_t generation;
	/* of a backup */
	char base[16];
	int level;			/* -1: as the destination says, or snapbackup's own */
	bool keep_bookmark;
	/* of a restore: dest is the target */
	char source[DEST_ADDRESS], key[DEST_NAME], ranges[JOB_RANGES], manifest[SM_DIGEST_HEX];
	bool diff, force;
	uint64_t created;
	/* came to */
	enum job_state state;
	uint32_t attempts;
	uint64_t started, ended;
	int exit;			/* of snapbackup; 128 + signal */
	char message[400];		/* its last words, when it failed */
	json_t *receipt;		/* or NULL */
};

/* job_create() - note a new job, durably; numbers it. Old jobs that have ended are forgotten. */
int job_create(struct job *j, struct sm_err *e);
/* job_load() - -ENOENT. @j->receipt is the caller's: job_done() */
int job_load(uint32_t id, struct job *j, struct sm_err *e);
void job_done(struct job *j);
int job_save_state(const struct job *j, struct sm_err *e);

/* job_numbers() - of all jobs, ascending; free() it */
int job_numbers(uint32_t **ids, size_t *nr, struct sm_err *e);

/* job_lock() - become the one who runs it. Return: a descriptor, -EBUSY it is running, -errno */
int job_lock(uint32_t id, struct sm_err *e);
/* job_running() - does somebody? */
bool job_running(uint32_t id);
/* job_signal() - to whoever runs it: SIGINT cancels it, SIGTERM interrupts it. Return: 0, -ESRCH nobody does */
int job_signal(uint32_t id, int sig);

/* job_cancel() - have who runs it stop, by @interrupt (SIGINT to it; as job_signal()); when nobody does, note that. What it is now is in @j. Return: 0, -EEXIST it is done, -errno */
int job_cancel(struct job *j, int (*interrupt)(uint32_t id), struct sm_err *e);

/* job_row() - what is told about a job; progress included while it runs */
json_t *job_row(const struct job *j);

/**
 * job_start() - run a job in a process of its own, which goes on when we end
 * @lock: of job_lock(), taken over
 */
int job_start(struct job *j, int lock, struct sm_err *e);
/* job_run() - run a job here, to its end; state and receipt are in @j then. @lock: stays the caller's. Return: 0 done, -errno with the reason */
int job_run(struct job *j, int lock, struct sm_err *e);

/*
 * job_dest() - the job's media server as it is now, and how to speak to it, by agent.conf: -EACCES when it does not allow it. A restore comes from
 * what is listed only, and with the key that the job names: that of the media server's own entry, of another's, or none.
 */
int job_dest(const struct job *j, const struct config *c, struct config_dest *d, struct sm_err *e);

/* job_file() - path of a file of a job; returns @path */
char *job_file(char path[PATH_MAX], uint32_t id, const char *name);

/* put_file() - replace a file as a whole; @durable: and know it on disk. @o is taken */
int put_file(const char *dir, const char *name, json_t *o, bool durable, struct sm_err *e);
/* get_file() - a JSON file of ours; NULL with -ENOENT and the like in e->code */
json_t *get_file(const char *dir, const char *name, struct sm_err *e);

#endif
