/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A server's side of identity: its key and the clients it knows, in a directory: a media server's repository, or the agent's state.
 *
 *	DIR/server.key			0600; made by "snapmediad init", "snapagentd init"
 *	DIR/clients/NAME.json		pin, roles and limits of a client; replaced as a whole
 *	DIR/locks/session.NAME.N	taken by a session of a client whose sessions are limited
 *
 * Whoever proves to have the key behind a pin is the client of that name, and nobody else is.
 */
#ifndef SNAPMEDIA_CLIENTS_H
#define SNAPMEDIA_CLIENTS_H

#include "frame.h"
#include "repo.h"
#include "tls.h"

struct sm_registered {
	char name[SM_CLIENT_MAX];
	bool has_pin;			/* none: by forced command only */
	uint8_t pin[SM_DIGEST];
	uint32_t roles;
	uint64_t quota;			/* bytes in the repository, uploads under way included; 0: none */
	uint32_t max_sessions;		/* at once; 0: the server's */
};

/* sm_roles_parse() - "backup,restore" into a mask; -EINVAL on unknown words or none. sm_roles_text() - the other way round. */
int sm_roles_parse(const char *text, uint32_t *roles);
#define SM_ROLES_TEXT	48u
char *sm_roles_text(uint32_t roles, char text[SM_ROLES_TEXT]);

/* sm_server_key() - @make: make it when there is none */
int sm_server_key(const char *dir, bool make, struct sm_key **k, struct sm_err *e);

/**
 * sm_clients_put() - register a client
 * @replace: or fail with -EEXIST
 *
 * A pin may belong to one name only (-EEXIST). Durable, whole or not at all.
 */
int sm_clients_put(const char *dir, const struct sm_registered *c, bool replace, struct sm_err *e);
/* sm_clients_remove() - it cannot connect any more; its volumes stay. -ENOENT */
int sm_clients_remove(const char *dir, const char *name, struct sm_err *e);
/* sm_clients_get() - by name; -ENOENT, -EUCLEAN */
int sm_clients_get(const char *dir, const char *name, struct sm_registered *c, struct sm_err *e);
/* sm_clients_find() - by pin; -ENOENT. An unreadable entry is passed over: it lets nobody in. */
int sm_clients_find(const char *dir, const uint8_t pin[SM_DIGEST], struct sm_registered *c, struct sm_err *e);
/* sm_clients_accept() - handshake of a server that has @key: only a client of @dir's comes in, *@client; as sm_tls_accept() */
int sm_clients_accept(const char *dir, const struct sm_key *key, struct sm_chan *chan, struct sm_registered *client, struct sm_err *e);
/* sm_clients_list() - by name, ascending; free() it */
int sm_clients_list(const char *dir, struct sm_registered **v, size_t *nr, struct sm_err *e);

/* sm_clients_slot() - take one of @max locks of this client; it goes with the process. Return: descriptor, -EBUSY, -errno */
int sm_clients_slot(const char *dir, const char *client, uint32_t max, struct sm_err *e);

#endif
