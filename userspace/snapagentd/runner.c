// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The process that runs a job: snapbackup or snaprestore as a child (child.c), in a process group of its own; its progress and last
 * words noted; its end noted, durably. It belongs to nobody's session.
 *
 *	SIGINT	 cancel: the child is asked to stop, the job is "cancelled"
 *	SIGTERM	 the same, and it is "interrupted" (the machine or the agent stops)
 *	SIGKILL	 the child is told by the kernel (PR_SET_PDEATHSIG); nobody notes anything, which is "interrupted", too
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "child.h"
#include "job.h"

#define LINE_BUF	4096u
#define RECEIPT_MAX	(64u << 10)
#define LOG_MAX		(256u << 10)
#define PATIENCE	10		/* seconds until a child that was asked to stop is asked again, and until it is killed */

struct runner {
	struct job *job;
	pid_t pid;
	int out, err, signals, log;
	char line[LINE_BUF], *receipt;
	size_t fill, receipt_len, logged;
	bool done, too_long;
	int status, why;		/* why: signal that we were sent */
	int asked;			/* how often it was asked to stop */
	time_t next;			/* when it is asked again */
};

static time_t seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec;
}

/* ---- the child ---- */

static int spawn(struct runner *r, const struct config_dest *d, const struct place *place, struct sm_err *e)
{
	pid_t parent = getpid();
	int out[2], err[2];

	if (pipe2(out, O_CLOEXEC))
		return sm_fail(e, -errno, "pipe: %s", strerror(errno));
	if (pipe2(err, O_CLOEXEC)) {
		close(out[0]);
		close(out[1]);
		return sm_fail(e, -errno, "pipe: %s", strerror(errno));
	}
	r->pid = fork();
	if (!r->pid) {
		setpgid(0, 0);
		prctl(PR_SET_PDEATHSIG, SIGTERM);
		if (getppid() != parent)
			_exit(127);
		child_exec(r->job, d, place, out[1], err[1]);
	}
	close(out[1]);
	close(err[1]);
	r->out = out[0];
	r->err = err[0];
	return r->pid < 0 ? sm_fail(e, -errno, "cannot start a process: %s", strerror(errno)) : 0;
}

static void ask_to_stop(struct runner *r)
{
	kill(-r->pid, r->asked > 2 ? SIGKILL : SIGTERM);
	r->asked++;
	r->next = seconds() + PATIENCE;
}

/* ---- what it says ---- */

static void note_progress(struct runner *r, json_t *o)
{
	static const char *const members[] = { "done", "total", "sent", "rate", "eta" };
	json_t *p = json_object();
	char dir[PATH_MAX];

	for (size_t i = 0; i < sizeof(members) / sizeof(*members); i++)
		if (json_is_integer(json_object_get(o, members[i])))
			json_object_set(p, members[i], json_object_get(o, members[i]));
	put_file(job_file(dir, r->job->id, ""), "progress.json", p, false, NULL);
}

static void take_line(struct runner *r)
{
	const char *text = r->line;
	size_t len = r->fill;
	json_t *o;

	r->line[len] = '\0';
	if (*text == '{' && (o = sm_json_parse(text, len, LINE_BUF, NULL))) {
		note_progress(r, o);
		json_decref(o);
		return;
	}
	if (r->logged + len + 1 <= LOG_MAX && r->log >= 0) {
		r->line[len] = '\n';
		if (!sm_write_full(r->log, text, len + 1))
			r->logged += len + 1;
		r->line[len] = '\0';
	}
	len = strlen(child_program(r->job));
	if (!strncmp(text, child_program(r->job), len) && !strncmp(text + len, ": ", 2))
		text += len + 2;
	if (strncmp(text, "Try '", 5))		/* the hint at --help behind what is wrong */
		snprintf(r->job->message, sizeof(r->job->message), "%.390s", text);
}

static bool take_errors(struct runner *r)
{
	char buf[LINE_BUF];
	ssize_t n = read(r->err, buf, sizeof(buf));

	for (ssize_t i = 0; i < n; i++) {
		if (buf[i] != '\n' && buf[i] != '\r') {
			if (r->fill < LINE_BUF - 2)
				r->line[r->fill++] = (unsigned char)buf[i] < 0x20 || buf[i] == 0x7f ? '?' : buf[i];
			continue;
		}
		if (r->fill)
			take_line(r);
		r->fill = 0;
	}
	return n > 0 || (n < 0 && errno == EINTR);
}

static bool take_output(struct runner *r)
{
	char buf[LINE_BUF];
	ssize_t n = read(r->out, buf, sizeof(buf));

	if (n > 0 && r->receipt_len + n <= RECEIPT_MAX) {
		memcpy(r->receipt + r->receipt_len, buf, n);
		r->receipt_len += n;
	} else if (n > 0) {
		r->too_long = true;
	}
	return n > 0 || (n < 0 && errno == EINTR);
}

static void take_signal(struct runner *r)
{
	struct signalfd_siginfo si;

	if (read(r->signals, &si, sizeof(si)) != sizeof(si))
		return;
	if (si.ssi_signo == SIGCHLD) {
		if (waitpid(r->pid, &r->status, WNOHANG) == r->pid)
			r->done = true;
		return;
	}
	if (!r->why)
		r->why = si.ssi_signo;
	if (!r->asked)
		ask_to_stop(r);
}

/* Until it has ended, and everything that it said is read. What it has started itself (ssh) may hold the pipes: that is not waited for. */
static void watch(struct runner *r)
{
	while (!r->done || r->out >= 0 || r->err >= 0) {
		struct pollfd p[] = { { r->out, POLLIN, 0 }, { r->err, POLLIN, 0 }, { r->signals, POLLIN, 0 } };
		int n = poll(p, 3, r->done ? 200 : 1000);

		if (r->done && n <= 0)
			break;
		if (p[0].revents && !take_output(r)) {
			close(r->out);
			r->out = -1;
		}
		if (p[1].revents && !take_errors(r)) {
			close(r->err);
			r->err = -1;
		}
		if (p[2].revents)
			take_signal(r);
		if (r->asked && !r->done && seconds() >= r->next)
			ask_to_stop(r);
	}
	if (r->fill)
		take_line(r);
}

/* ---- the job ---- */

static int ended(struct runner *r, struct sm_err *e)
{
	struct job *j = r->job;
	json_t *receipt = r->too_long ? NULL : sm_json_parse(r->receipt, r->receipt_len, RECEIPT_MAX, NULL);

	j->ended = sm_now_ns();
	j->exit = WIFEXITED(r->status) ? WEXITSTATUS(r->status) : 128 + WTERMSIG(r->status);
	if (receipt) {
		json_decref(j->receipt);
		j->receipt = receipt;
	}
	if (!j->exit && receipt) {
		j->state = JOB_DONE;
		*j->message = '\0';
	} else if (r->why) {
		j->state = r->why == SIGINT ? JOB_CANCELLED : JOB_INTERRUPTED;
	} else {
		j->state = JOB_FAILED;
		if (!*j->message)
			snprintf(j->message, sizeof(j->message), "%s ended with %d and without a word", child_program(j), j->exit);
	}
	return job_save_state(j, e);
}

static int result(const struct job *j, struct sm_err *e)
{
	static const int by_exit[] = { -EIO, -EINVAL, -EACCES, -ENOMEM, -ENOENT, -EBUSY, -EIO };

	if (j->state == JOB_DONE)
		return 0;
	if (j->state != JOB_FAILED)
		return sm_fail(e, -EINTR, "job %u: %s", j->id, job_state_name(j->state));
	return sm_fail(e, by_exit[j->exit > 0 && j->exit < 7 ? j->exit : 0], "job %u: %s", j->id, j->message);
}

static int begin(struct runner *r, int lock, struct sm_err *e)
{
	struct job *j = r->job;
	char path[PATH_MAX], pid[16];
	int n = snprintf(pid, sizeof(pid), "%d", (int)getpid());

	r->out = r->err = r->signals = r->log = -1;
	r->receipt = malloc(RECEIPT_MAX);
	if (!r->receipt)
		return sm_fail(e, -ENOMEM, "no memory");
	if (ftruncate(lock, 0) || pwrite(lock, pid, n, 0) != n)
		return sm_fail(e, -EIO, "job %u: cannot note who runs it: %s", j->id, strerror(errno));
	r->log = open(job_file(path, j->id, "log"), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC | O_NOFOLLOW, 0600);
	unlink(job_file(path, j->id, "progress.json"));
	j->state = JOB_RUNNING;
	j->attempts++;
	j->started = sm_now_ns();
	j->ended = 0;
	*j->message = '\0';
	return job_save_state(j, e);
}

/* Signals come through a descriptor; those that came before are still waiting. */
static int open_signals(sigset_t *old)
{
	sigset_t set;

	signal(SIGCHLD, SIG_DFL);	/* who ignores it is told of no child */
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, old);
	return signalfd(-1, &set, SFD_CLOEXEC);
}

/* By agent.conf as it is now, not as it was when the job was asked for. */
static int prepare(const struct job *j, struct config_dest *d, struct place *place, struct sm_err *e)
{
	struct config c;
	int err = agent_config(&c, e);

	if (err)
		return err;
	err = job_dest(j, &c, d, e);
	if (!err && j->kind == JOB_RESTORE)
		err = place_open(&c, j->dest, place, e);
	config_free(&c);
	return err;
}

int job_run(struct job *j, int lock, struct sm_err *e)
{
	struct runner *r = calloc(1, sizeof(*r));
	struct place place = { .dir = -1 };
	struct config_dest d;
	sigset_t old;
	int err;

	if (!r)
		return sm_fail(e, -ENOMEM, "no memory");
	r->job = j;
	err = begin(r, lock, e);
	r->signals = open_signals(&old);
	if (!err) {
		struct sm_err why = { 0 };

		err = prepare(j, &d, &place, &why);
		if (!err)
			err = spawn(r, &d, &place, &why);
		place_close(&place);
		if (err) {
			j->state = JOB_FAILED;
			j->exit = snap_err_exit(err);
			j->ended = sm_now_ns();
			snprintf(j->message, sizeof(j->message), "%.390s", why.text);
			err = job_save_state(j, e);
		} else {
			watch(r);
			err = ended(r, e);
		}
	}
	if (!err)
		err = result(j, e);
	sigprocmask(SIG_SETMASK, &old, NULL);
	close(r->signals);
	close(r->log);
	free(r->receipt);
	free(r);
	return err;
}

int job_start(struct job *j, int lock, struct sm_err *e)
{
	int low = 3, null, err;
	pid_t pid;

	/* Said before it is so: who follows it from now on is not told what it came to the last time. */
	j->state = JOB_RUNNING;
	err = job_save_state(j, e);
	if (err) {
		close(lock);
		return err;
	}
	/* Earlier ones of this session that have ended: nobody else waits for them while it lasts. */
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
	fflush(NULL);
	pid = fork();
	if (pid < 0) {		/* "running" without a lock: interrupted */
		err = sm_fail(e, -errno, "cannot start a process: %s", strerror(errno));
		close(lock);
		return err;
	}
	if (pid) {
		close(lock);
		return 0;
	}
	/* The connection, its TLS and whatever else the session had are not ours. */
	setsid();
	null = open("/dev/null", O_RDWR);
	dup2(null, 0);
	dup2(null, 1);
	if (lock != low)
		dup2(lock, low);
	close_range(low + 1, ~0u, 0);
	if (chdir("/"))
		_exit(1);
	_exit(job_run(j, low, NULL) ? 1 : 0);
}
