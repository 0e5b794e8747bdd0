/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SNAPMEDIAD_DAEMON_H
#define SNAPMEDIAD_DAEMON_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "clients.h"
#include "session.h"

#define MAX_LISTEN	8

struct child {
	pid_t pid;
	time_t since;
	bool http;
	char peer[64];
};

struct daemon {
	struct sm_repo repo;
	struct sm_identity id;		/* of who comes without TLS */
	struct sm_key *key;		/* NULL: plaintext, on loopback */
	uint32_t max_sessions, sessions, expire_days;
	uint64_t served, refused;	/* sessions since the start */
	time_t started;
	struct child *child;		/* sessions running, max_sessions of them, and a few of HTTP */
	uint32_t children;
	int fd[MAX_LISTEN], nr;
	int http;			/* listens for HTTP; -1 */
	time_t next_expire;
	bool quiet, foreground;
};

/*
 * note() - a line of the log on stderr: "snapmediad[PID]: EVENT key=value ...". Values that come from
 * outside are put into quotes by quoted().
 */
void note(const struct daemon *d, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
#define QUOTED	1100u
char *quoted(const char *text, char out[QUOTED]);

/* session() - one session to its end, in this process. @tls: shake hands first. Return: exit status. */
int session(struct daemon *d, int in, int out, const char *peer, bool tls, const sigset_t *wait_mask);

/* net_listen() - HOST[:PORT][,...]; NULL: what systemd handed over, or the default. net_serve() - until told to stop. */
int net_listen(struct daemon *d, const char *where, const char *http, struct sm_err *e);
int net_serve(struct daemon *d, struct sm_err *e);
int serve_stdio(struct daemon *d);

/* http_answer() - one request on a descriptor, in a process of its own */
int http_answer(const struct daemon *d, int fd);

/* Type=notify: tell systemd, if it listens */
void notify(const char *state);

extern const struct snap_cmd cmd_init;

#endif
