// SPDX-License-Identifier: GPL-2.0-or-later
/* Verbs carried out by the agent of a storage host (snapagentd), whose answers are printed as the local ones are. */
#include <errno.h>
#include <stdio.h>

#include "agent.h"
#include "snapctl.h"

const char *snapctl_host;

static int from_agent(struct snap_err *se, int err, const struct sm_err *e)
{
	return snap_err_set(se, err, snapctl_host, "%s", e->text);
}

static json_t *order_of(const char *verb, json_t *order)
{
	json_object_set_new(order, "verb", json_string(verb));
	return order;
}

int remote_show(const char *verb, const char *name, struct snap_out *out, struct snap_err *se)
{
	json_t *o = json_object();
	struct sm_err e = { 0 };
	int err;

	if (name)
		json_object_set_new(o, "volume", json_string(name));
	err = sm_agent_order(snapctl_host, order_of(verb, o), snap_out_json_row, out, &e);
	return err && e.text[0] ? from_agent(se, err, &e) : err ? snap_err_sys(se, err, NULL, "cannot write the output") : 0;
}

static int print_name(json_t *row, void *arg)
{
	char name[256];

	(void)arg;
	if (!sm_json_text(row, "name", name, sizeof(name), NULL))
		printf("%s\n", name);
	json_decref(row);
	return 0;
}

int remote_do(const char *verb, json_t *order, struct snap_err *se)
{
	struct sm_err e = { 0 };
	int err = sm_agent_order(snapctl_host, order_of(verb, order), print_name, NULL, &e);

	return err ? from_agent(se, err, &e) : 0;
}

int remote_gen(const char *verb, const struct snap_ref *ref, struct snap_err *se)
{
	json_t *o = json_object();

	json_object_set_new(o, "volume", json_string(ref->volume));
	json_object_set_new(o, "generation", json_integer(ref->first));
	return remote_do(verb, o, se);
}
