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

struct sm_service_child {
	pid_t pid;
	time_t since;
	bool http;
	char peer[64];
};

struct sm_service {
	/* set by the daemon */
	const char *program;		/* before each line of the log */
	const char *port, *http_port;	/* defaults */
	bool anywhere;			/* sessions are TLS; without it only loopback addresses */
	bool quiet, foreground;
	uint32_t max_sessions;
	/* One session to its end, in a process of its own (or on stdin and stdout). @tls: shake hands first. Return: exit status */
	int (*session)(struct sm_service *s, int in, int out, const char *peer, bool tls, const sigset_t *wait_mask);
	int (*http_answer)(struct sm_service *s, int fd);	/* one request, in a process of its own */
	void (*hourly)(struct sm_service *s);	/* also at the start; may be NULL */
	void (*stopping)(struct sm_service *s);	/* told to stop, sessions are still there; may be NULL */

	/* read by the daemon */
	uint32_t sessions;
	uint64_t served, refused;	/* sessions since the start */
	time_t started;
	struct sm_service_child *child;	/* running: sessions, and a few of HTTP */
	uint32_t children;

	/* its own */
	int fd[SM_MAX_LISTEN], nr;
	int http;			/* listens for HTTP; -1 none: set by the daemon at first */
	time_t next_hour;
};

/* sm_service_listen() - HOST[:PORT][,...]; NULL: what systemd handed over, or the default. @http: loopback only; NULL: none */
int sm_service_listen(struct sm_service *s, const char *where, const char *http, struct sm_err *e);
/* sm_service_run() - serve until told to stop (SIGTERM, SIGINT) */
int sm_service_run(struct sm_service *s, struct sm_err *e);
/* sm_service_stdio() - one session on stdin and stdout. Return: its exit status */
int sm_service_stdio(struct sm_service *s);

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
