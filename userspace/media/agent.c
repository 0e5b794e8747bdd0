// SPDX-License-Identifier: GPL-2.0-or-later
#include "agent.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

int sm_agent_dest(const char *text, struct sm_dest *d, struct sm_err *e)
{
	memset(d, 0, sizeof(*d));
	d->kind = SM_DEST_TCP;
	d->agent = true;
	return sm_split_host(text, d->host, sizeof(d->host), d->port, sizeof(d->port), SM_AGENT_PORT, e);
}

int sm_agent_connect(struct sm_client *c, const char *host, struct sm_err *e)
{
	struct sm_dest d;
	int err = sm_agent_dest(host, &d, e);

	signal(SIGPIPE, SIG_IGN);
	return err ? err : sm_client_connect(c, &d, SM_ROLE_BACKUP | SM_ROLE_RESTORE | SM_ROLE_OPERATOR | SM_ROLE_AUDITOR, e);
}

static int drop(json_t *row, void *arg)
{
	(void)arg;
	json_decref(row);
	return 0;
}

int sm_agent_order(const char *host, json_t *order, int (*fn)(json_t *, void *), void *arg, struct sm_err *e)
{
	struct sm_client c;
	int err = sm_agent_connect(&c, host, e);

	if (err) {
		json_decref(order);
		return err;
	}
	err = sm_client_order(&c, order, fn ? fn : drop, arg, e);
	sm_client_end(&c, !err);
	return err;
}
