// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * One session: who is it, may it come in, serve it.
 *
 *	TLS		the key proved in the handshake names the client
 *	--stdio		the command line does (a forced command)
 *	plaintext	from loopback only, and only in a repository without a server key: client "local"
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "cmd.h"
#include "confine.h"
#include "daemon.h"

#define SILENCE_MS	(15 * 60 * 1000)

/* Limits of a registered client, whichever way it came. */
static int admit(struct daemon *d, const struct sm_registered *client, struct sm_identity *id, struct sm_err *e)
{
	int slot;

	snprintf(id->client, sizeof(id->client), "%s", client->name);
	id->quota = client->quota;
	if (!client->max_sessions)
		return 0;
	slot = sm_clients_slot(d->repo.path, client->name, client->max_sessions, e);
	return slot < 0 ? slot : 0;
}

static int greet(struct daemon *d, struct sm_chan *c, bool tls, struct sm_identity *id, struct sm_err *e)
{
	struct sm_registered client;
	int err;

	*id = d->id;
	if (tls) {
		id->roles = 0;
		err = sm_clients_accept(d->repo.path, d->key, c, &client, e);
		if (!err)
			id->roles = client.roles;
	} else {
		/* By name: what its entry does not allow the command line cannot give. */
		err = sm_clients_get(d->repo.path, id->client, &client, e);
		if (err == -ENOENT)
			return 0;
		if (!err)
			id->roles &= client.roles;
	}
	return err ? err : admit(d, &client, id, e);
}

/* A session needs the repository's directories, and of what it is told who may come. Not the keys. */
int confine(const struct daemon *d, struct sm_err *e)
{
	static const char *const dirs[] = SM_REPO_DIRS;
	struct sm_allowed allowed[sizeof(dirs) / sizeof(*dirs) + 1];
	static char path[sizeof(allowed) / sizeof(*allowed)][PATH_MAX];
	unsigned int n;

	for (n = 0; n < sizeof(dirs) / sizeof(*dirs); n++) {
		snprintf(path[n], PATH_MAX, "%.*s/%s", PATH_MAX - 16, d->repo.path, dirs[n]);
		allowed[n] = (struct sm_allowed){ path[n], true };
	}
	snprintf(path[n], PATH_MAX, "%.*s/clients", PATH_MAX - 16, d->repo.path);
	allowed[n] = (struct sm_allowed){ path[n], false };
	return sm_confine(allowed, n + 1, e);
}

/* Most memory that this process has had, KiB. */
static long peak(void)
{
	struct rusage r = { .ru_maxrss = 0 };

	getrusage(RUSAGE_SELF, &r);
	return r.ru_maxrss;
}

int session(struct sm_service *svc, int in, int out, const char *peer, bool tls, const sigset_t *wait_mask)
{
	struct daemon *d = (struct daemon *)svc;
	char roles[SM_ROLES_TEXT], text[SM_QUOTED];
	struct sm_err e = { 0 };
	struct sm_identity id;
	struct sm_chan c;
	int err;

	sm_chan_init(&c, in, out);
	c.timeout_ms = SILENCE_MS;
	err = confine(d, &e);
	if (!err)
		err = greet(d, &c, tls, &id, &e);
	if (!err && !sm_service_admit(svc))
		err = sm_fail(&e, -EBUSY, "too many sessions");
	if (err) {
		sm_note(svc, "refused peer=%s why=%s", peer, sm_quoted(e.text, text));
		if (err == -EBUSY || !tls)
			sm_send_error(&c, err, e.text);
		sm_chan_free(&c);
		sm_linger(out);
		return SNAP_EXIT_IO;
	}
	c.wait_mask = wait_mask;
	sm_note(svc, "begin peer=%s client=%s roles=%s", peer, id.client, sm_roles_text(id.roles, roles));
	err = sm_serve(&d->repo, &c, &id, &e);
	sm_note(svc, "end peer=%s client=%s in=%llu out=%llu peak_kib=%ld%s%s", peer, id.client, (unsigned long long)c.bytes_in,
	     (unsigned long long)c.bytes_out, peak(), err ? " error=" : "", err ? sm_quoted(e.text, text) : "");
	sm_chan_free(&c);
	if (err)
		sm_linger(out);
	return err ? SNAP_EXIT_IO : 0;
}
