// SPDX-License-Identifier: GPL-2.0-or-later
#include "helper.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum op { OP_START = 1, OP_CANCEL };

struct order {
	uint32_t op, job;
};

struct answer {
	int32_t err;
	char text[sizeof(((struct sm_err *)0)->text)];
};

static int helper = -1;		/* our end */

/* ---- the helper ---- */

static int start(uint32_t id, struct sm_err *e)
{
	int lock = job_lock(id, e), err;
	struct job j;

	if (lock < 0)
		return lock;
	err = job_load(id, &j, e);
	if (!err && j.state == JOB_DONE)
		err = sm_fail(e, -EEXIST, "job %u: is done", id);
	if (err)
		close(lock);
	else
		err = job_start(&j, lock, e);
	job_done(&j);
	return err;
}

static void serve(int fd)
{
	struct order o;
	ssize_t n;

	while ((n = recv(fd, &o, sizeof(o), 0)) == sizeof(o) || (n < 0 && errno == EINTR)) {
		struct answer a = { .err = -EINVAL };
		struct sm_err e = { 0 };

		if (n < 0)
			continue;
		if (o.op == OP_START && o.job)
			a.err = start(o.job, &e);
		else if (o.op == OP_CANCEL && o.job)
			a.err = job_signal(o.job, SIGINT);
		snprintf(a.text, sizeof(a.text), "%s", e.text);
		if (send(fd, &a, sizeof(a), MSG_NOSIGNAL) != sizeof(a))
			return;
	}
}

int helper_begin(const int *fds, int nr, struct sm_err *e)
{
	int line[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, line))
		return sm_fail(e, -errno, "socketpair: %s", strerror(errno));
	pid = fork();
	if (!pid) {
		close(line[1]);
		for (int i = 0; i < nr; i++)
			if (fds[i] >= 0)
				close(fds[i]);
		serve(line[0]);
		_exit(0);
	}
	close(line[0]);
	if (pid > 0)
		helper = line[1];
	else
		close(line[1]);
	return pid < 0 ? sm_fail(e, -errno, "cannot start a process: %s", strerror(errno)) : 0;
}

/* ---- the session ---- */

static int ask(enum op op, uint32_t job, struct sm_err *e)
{
	struct order o = { op, job };
	struct answer a;
	ssize_t n;

	if (send(helper, &o, sizeof(o), MSG_NOSIGNAL) != sizeof(o))
		return sm_fail(e, -EPIPE, "the agent's helper is gone");
	while ((n = recv(helper, &a, sizeof(a), 0)) < 0 && errno == EINTR)
		;
	if (n != sizeof(a))
		return sm_fail(e, -EPIPE, "the agent's helper is gone");
	a.text[sizeof(a.text) - 1] = '\0';
	return a.err ? sm_fail(e, a.err, "%s", a.text) : 0;
}

int helper_start(uint32_t job, struct sm_err *e)
{
	return ask(OP_START, job, e);
}

int helper_cancel(uint32_t job)
{
	return ask(OP_CANCEL, job, NULL);
}
