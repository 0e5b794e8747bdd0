/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where backups go to and come from, as users write it, and the connection to it.
 *
 *	HOST[:PORT]		media server: TLS when its pin is known (known.h); else plaintext, to loopback addresses only
 *	ssh://[USER@]HOST[:PORT][/REPO]	snapmediad --stdio at the other end of ssh; $SNAPDIFF_SSH replaces "ssh"
 *	-			stdin or stdout: a stream
 *	PATH			a repository directory, or a stream file (contains '/' or exists)
 */
#ifndef SNAPMEDIA_DEST_H
#define SNAPMEDIA_DEST_H

#include <limits.h>

#include "util.h"

enum sm_dest_kind {
	SM_DEST_TCP,
	SM_DEST_SSH,
	SM_DEST_STDIO,
	SM_DEST_FILE,
	SM_DEST_REPO,
};

struct sm_dest {
	enum sm_dest_kind kind;
	char host[256];		/* ssh: with USER@ */
	char port[16];		/* "" for ssh: its default */
	char path[PATH_MAX];	/* file, repository; ssh: repository there, or "" */
	bool agent;		/* not a media server: a storage host's agent (agent.h) */
};

int sm_dest_parse(const char *text, struct sm_dest *d, struct sm_err *e);

/* An open connection. */
struct sm_tls;

struct sm_carrier {
	int in, out;
	struct sm_tls *tls;	/* for the channel to take over; or NULL */
	pid_t child;		/* ssh, or the server of a local repository; 0: none */
};

/**
 * sm_carrier_open() - connect to a media server (TCP, SSH, REPO)
 *
 * A server whose pin is known is only ever spoken to in TLS, wherever it is. Ignore SIGPIPE before. Return: 0,
 * -ECONNREFUSED and the like, -EACCES not a loopback address and no pin, or another server than the pin's.
 */
int sm_carrier_open(const struct sm_dest *d, struct sm_carrier *c, struct sm_err *e);
/* sm_carrier_close() - close and wait for the child. Return: its exit status, 0 without one. */
int sm_carrier_close(struct sm_carrier *c);

struct sockaddr;
bool sm_is_loopback(const struct sockaddr *a);

/* sm_split_host() - "HOST", "HOST:PORT", "[V6]:PORT", "V6" into its parts */
int sm_split_host(const char *text, char *host, size_t host_size, char *port, size_t port_size,
		  const char *default_port, struct sm_err *e);

#endif
