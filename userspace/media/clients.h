/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The server's side of identity: its key and the clients it knows, in the repository's directory.
 *
 *	REPO/server.key			0600; made by "snapmediad init"
 *	REPO/clients/NAME.json		pin, roles and limits of a client; replaced as a whole
 *
 * Whoever proves to have the key behind a pin is the client of that name, and nobody else is.
 */
#ifndef SNAPMEDIA_CLIENTS_H
#define SNAPMEDIA_CLIENTS_H

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
int sm_server_key(const struct sm_repo *r, bool make, struct sm_key **k, struct sm_err *e);

/**
 * sm_clients_put() - register a client
 * @replace: or fail with -EEXIST
 *
 * A pin may belong to one name only (-EEXIST). Durable, whole or not at all.
 */
int sm_clients_put(const struct sm_repo *r, const struct sm_registered *c, bool replace, struct sm_err *e);
/* sm_clients_remove() - it cannot connect any more; its volumes stay. -ENOENT */
int sm_clients_remove(const struct sm_repo *r, const char *name, struct sm_err *e);
/* sm_clients_get() - by name; -ENOENT, -EUCLEAN */
int sm_clients_get(const struct sm_repo *r, const char *name, struct sm_registered *c, struct sm_err *e);
/* sm_clients_find() - by pin; -ENOENT. An unreadable entry is passed over: it lets nobody in. */
int sm_clients_find(const struct sm_repo *r, const uint8_t pin[SM_DIGEST], struct sm_registered *c, struct sm_err *e);
/* sm_clients_list() - by name, ascending; free() it */
int sm_clients_list(const struct sm_repo *r, struct sm_registered **v, size_t *nr, struct sm_err *e);

#endif
