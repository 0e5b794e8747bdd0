// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * One session: who is it, may it come in, serve it.
 *
 *	TLS		the key proved in the handshake names the client
 *	--stdio		the command line does (a forced command)
 *	plaintext	from loopback only, and only in a repository without a server key: client "local"
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "cmd.h"
#include "daemon.h"

#define SILENCE_MS	(15 * 60 * 1000)
#define HANDSHAKE_MS	10000
#define LINGER_SECONDS	2

struct who {
	struct daemon *d;
	struct sm_registered client;
	bool found;
};

static bool known(const uint8_t pin[SM_DIGEST], void *arg)
{
	struct who *w = arg;

	w->found = !sm_clients_find(&w->d->repo, pin, &w->client, NULL);
	return w->found;
}

/* One of so many locks of this client; it goes with the process. Return: descriptor, -EBUSY, -errno. */
static int take_slot(struct daemon *d, const char *client, uint32_t max, struct sm_err *e)
{
	for (uint32_t i = 0; i < max; i++) {
		char path[PATH_MAX];
		int fd;

		snprintf(path, sizeof(path), "%.*s/locks/session.%s.%u", PATH_MAX - 128, d->repo.path, client, i);
		fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0600);
		if (fd < 0)
			return sm_fail(e, -errno, "%s: %s", path, strerror(errno));
		if (!flock(fd, LOCK_EX | LOCK_NB))
			return fd;
		close(fd);
	}
	return sm_fail(e, -EBUSY, "client %s has %u sessions, its limit", client, max);
}

/* Limits of a registered client, whichever way it came. @w->found: it has an entry. */
static int admit(struct daemon *d, const struct who *w, struct sm_identity *id, struct sm_err *e)
{
	int slot;

	if (!w->found)
		return 0;
	snprintf(id->client, sizeof(id->client), "%s", w->client.name);
	id->quota = w->client.quota;
	if (!w->client.max_sessions)
		return 0;
	slot = take_slot(d, w->client.name, w->client.max_sessions, e);
	return slot < 0 ? slot : 0;
}

static int greet(struct daemon *d, struct sm_chan *c, bool tls, struct sm_identity *id, struct sm_err *e)
{
	struct who w = { .d = d };
	int err = 0;

	*id = d->id;
	if (tls) {
		id->roles = 0;
		err = sm_tls_accept(&c->tls, c->in, d->key, known, &w, HANDSHAKE_MS, e);
		if (!err && !w.found)	/* cannot be: a handshake without a known key fails */
			err = sm_fail(e, -EACCES, "no client");
		if (!err)
			id->roles = w.client.roles;
	} else {
		/* By name: what its entry does not allow the command line cannot give. */
		err = sm_clients_get(&d->repo, id->client, &w.client, e);
		w.found = !err;
		if (w.found)
			id->roles &= w.client.roles;
		err = err == -ENOENT ? 0 : err;
	}
	return err ? err : admit(d, &w, id, e);
}

/*
 * The peer may be sending still. Closing now would reset the connection, and take with it what we have just said to it;
 * so it gets a moment to read that and leave.
 */
static void linger(int fd)
{
	static char waste[64 << 10];
	struct timespec now, until;

	if (shutdown(fd, SHUT_WR))
		return;		/* not a socket */
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += LINGER_SECONDS;
	do {
		struct pollfd p = { .fd = fd, .events = POLLIN };

		if (poll(&p, 1, LINGER_SECONDS * 1000) <= 0 || read(fd, waste, sizeof(waste)) <= 0)
			return;
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while (now.tv_sec < until.tv_sec);
}

int session(struct daemon *d, int in, int out, const char *peer, bool tls, const sigset_t *wait_mask)
{
	char roles[SM_ROLES_TEXT], text[QUOTED];
	struct sm_err e = { 0 };
	struct sm_identity id;
	struct sm_chan c;
	int err;

	sm_chan_init(&c, in, out);
	c.timeout_ms = SILENCE_MS;
	err = greet(d, &c, tls, &id, &e);
	if (err) {
		note(d, "refused peer=%s why=%s", peer, quoted(e.text, text));
		if (err == -EBUSY || !tls)
			sm_send_error(&c, err, e.text);
		sm_chan_free(&c);
		linger(out);
		return SNAP_EXIT_IO;
	}
	c.wait_mask = wait_mask;
	note(d, "begin peer=%s client=%s roles=%s", peer, id.client, sm_roles_text(id.roles, roles));
	err = sm_serve(&d->repo, &c, &id, &e);
	note(d, "end peer=%s client=%s in=%llu out=%llu%s%s", peer, id.client, (unsigned long long)c.bytes_in,
	     (unsigned long long)c.bytes_out, err ? " error=" : "", err ? quoted(e.text, text) : "");
	sm_chan_free(&c);
	if (err)
		linger(out);
	return err ? SNAP_EXIT_IO : 0;
}
