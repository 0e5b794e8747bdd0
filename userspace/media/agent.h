/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a management client and the agent on a storage host say to each other: the frames, TLS and roles of the media server, and
 * orders of its own (ORDER, ROW*, END). The agent's orders, their members and their rows: Documentation/design/agent.rst.
 */
#ifndef SNAPMEDIA_AGENT_H
#define SNAPMEDIA_AGENT_H

#include "session.h"

#define SM_AGENT_PORT	"7420"

/* sm_agent_dest() - HOST[:PORT] of an agent */
int sm_agent_dest(const char *text, struct sm_dest *d, struct sm_err *e);

/**
 * sm_agent_connect() - connect to the agent of a storage host
 * @host: HOST[:PORT]
 *
 * Asks for every role there is: what an order takes is the agent's to say.
 */
int sm_agent_connect(struct sm_client *c, const char *host, struct sm_err *e);

/**
 * sm_agent_order() - connect, give one order, leave
 * @order: its members and "verb"; taken
 * @fn: takes each row; not zero ends the order and is returned. May be NULL
 */
int sm_agent_order(const char *host, json_t *order, int (*fn)(json_t *row, void *arg), void *arg, struct sm_err *e);

#endif
