/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SNAPMEDIAD_DAEMON_H
#define SNAPMEDIAD_DAEMON_H

#include "clients.h"
#include "service.h"
#include "session.h"

struct daemon {
	struct sm_service service;	/* first: callbacks are given it */
	struct sm_repo repo;
	struct sm_identity id;		/* of who comes without TLS */
	struct sm_key *key;		/* NULL: plaintext, on loopback */
	uint32_t expire_days;
};

/* session() - one session to its end, in this process. @tls: shake hands first. Return: exit status. */
int session(struct sm_service *s, int in, int out, const char *peer, bool tls, const sigset_t *wait_mask);

/* confine() - nothing but the repository from here on, in a session's process */
int confine(const struct daemon *d, struct sm_err *e);

/* http_answer() - one request on a descriptor, in a process of its own */
int http_answer(struct sm_service *s, int fd);

extern const struct snap_cmd cmd_init;

#endif
