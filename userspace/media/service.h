/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the daemons have in common: addresses to listen on (their own or systemd's), a process for each session, limits, a
 * graceful stop, a log of structured lines.
 */
#ifndef SNAPMEDIA_SERVICE_H
#define SNAPMEDIA_SERVICE_H

#include <signal.h>
#include <time.h>

#include "util.h"

#define SM_MAX_LISTEN	8

enum sm_service_kind {
	SM_CHILD_WAITING,	/* a connection that has not said anything: no process yet */
	SM_CHILD_STRANGER,	/* a process that finds out who it is */
	SM_CHILD_SESSION,	/* let in */
	SM_CHILD_HTTP,
	SM_CHILD_WORK,		/* of the daemon's own */
	SM_CHILD_DYING,		/* killed, not reaped yet */
};

struct sm_service_child {
	enum sm_service_kind kind;
	uint64_t id;		/* of epoll's events */
	pid_t pid;		/* 0: WAITING */
	int fd;			/* WAITING: the connection; STRANGER: the line on which it asks to be let in; or -1 */
	time_t since;
	uint64_t came;		/* ms of a clock that is not set; of coming */
	char peer[64];
	uint8_t from[16];	/* address, or the network that somebody has to himself: what the limit is for */
};

struct sm_service {
	/* set by the daemon */
	const char *program;		/* before each line of the log */
	const char *port, *http_port;	/* defaults */
	bool anywhere;			/* sessions are TLS; without it only loopback addresses */
	bool quiet, foreground;
	uint32_t max_sessions;
	bool strangers;			/* session() calls sm_service_admit(); until then it is a stranger's. Else every process is a session */
	/* One session to its end, in a process of its own (or on stdin and stdout). @tls: shake hands first. Return: exit status */
	int (*session)(struct sm_service *s, int in, int out, const char *peer, bool tls, const sigset_t *wait_mask);
	int (*http_answer)(struct sm_service *s, int fd);	/* one request, in a process of its own */
	void (*hourly)(struct sm_service *s);	/* also at the start; may be NULL */
	void (*stopping)(struct sm_service *s);	/* told to stop, sessions are still there; may be NULL */

	/* read by the daemon */
	uint32_t sessions;
	uint64_t served, refused, dropped;	/* since the start: sessions, refused ones, connections that gave way before they said who they are */
	time_t started;
	struct sm_service_child *child;	/* what is running */
	uint32_t children;

	/* its own */
	int fd[SM_MAX_LISTEN], nr;
	int http;			/* listens for HTTP; -1 none: set by the daemon at first */
	time_t next_hour, last_drop;
	uint64_t next_id, dropped_said;
	uint32_t room;			/* of child */
	int epoll, gate;		/* gate: in a session's process; -1 none */
};

/* sm_service_listen() - HOST[:PORT][,...]; NULL: what systemd handed over, or the default. @http: loopback only; NULL: none */
int sm_service_listen(struct sm_service *s, const char *where, const char *http, struct sm_err *e);
/* sm_service_run() - serve until told to stop (SIGTERM, SIGINT) */
int sm_service_run(struct sm_service *s, struct sm_err *e);
/* sm_service_stdio() - one session on stdin and stdout. Return: its exit status */
int sm_service_stdio(struct sm_service *s);

/* sm_service_admit() - in a session: the peer is known; may it come in? false: there are too many sessions */
bool sm_service_admit(struct sm_service *s);

/*
 * sm_service_fork() - a process for work of the daemon's own, from hourly(): it has no share in connections or listening sockets,
 * and is ended with the daemon. As fork()
 */
pid_t sm_service_fork(struct sm_service *s);

/* sm_linger() - give the peer a moment to read what was said to it last */
void sm_linger(int fd);

/*
 * sm_note() - a line of the log on stderr: "PROGRAM[PID]: EVENT key=value ...". Values that come from
 * outside are put into quotes by sm_quoted().
 */
void sm_note(const struct sm_service *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
#define SM_QUOTED	1100u
char *sm_quoted(const char *text, char out[SM_QUOTED]);

/* sm_notify() - Type=notify: tell systemd, if it listens */
void sm_notify(const char *state);

#endif
