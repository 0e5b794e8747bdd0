// SPDX-License-Identifier: GPL-2.0-or-later
/* init: the agent's key, its pin on stdout. client: who may ask, and for what. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agentd.h"
#include "cmd.h"
#include "store.h"

/* ---- init ---- */

static int init(struct sm_err *e)
{
	char dir[PATH_MAX], locks[PATH_MAX], text[SM_PIN_TEXT];
	uint8_t pin[SM_DIGEST];
	struct sm_key *k;
	int err;

	if ((err = sm_mkdir_durable(agent_path(dir, ""), e)) || (err = sm_mkdir_durable(agent_path(dir, "agent"), e)) ||
	    (err = sm_mkdir_durable(agent_path(locks, "agent/locks"), e)) || (err = sm_mkdir_durable(agent_path(locks, "jobs"), e)) ||
	    (err = sm_server_key(dir, true, &k, e)))
		return err;
	sm_key_pin(k, pin);
	sm_pin_format(pin, text);
	printf("%s\n", text);
	sm_key_free(k);
	return 0;
}

static int run_init(int argc, char **argv)
{
	const struct snap_opt opts[] = { { 0 } };
	struct sm_err e = { 0 };
	int rc = snap_opts(&cmd_init, opts, &argc, &argv);

	return rc >= 0 ? rc : snap_report(init(&e), e.text);
}

const struct snap_cmd cmd_init = {
	.name = "init", .args = "", .summary = "make the agent's key; print its pin",
	.help = "Makes the key, unless there is one ($SNAPDIFF_STATE_DIR or /var/lib/snapdiff, agent/server.key, mode 0600), and prints its pin,\n"
		"which management clients need: snapbackup enroll --agent HOST --pin PIN.",
	.min_args = 0, .max_args = 0, .run = run_init,
};

/* ---- client ---- */

struct arguments {
	const char *pin, *roles;
	uint32_t sessions;
};

enum { C_NAME, C_ROLES, C_SESSIONS, C_PIN };

static const struct snap_col cols[] = {
	[C_NAME] = { "name", "NAME", SNAP_COL_STRING, 0, 0 },
	[C_ROLES] = { "roles", "ROLES", SNAP_COL_STRING, 0, 0 },
	[C_SESSIONS] = { "max_sessions", "SESSIONS", SNAP_COL_NUMBER, 0, 0 },
	[C_PIN] = { "pin", "PIN", SNAP_COL_STRING, 0, 0 },
};

static int list(const char *dir, const struct snap_out_opts *oo)
{
	struct snap_err se = SNAP_ERR_INIT;
	struct sm_err e = { 0 };
	struct sm_registered *v;
	struct snap_out *out;
	size_t nr;
	int err = sm_clients_list(dir, &v, &nr, &e);

	if (err)
		return snap_report(err, e.text);
	if (snap_out_open(&out, "clients", SNAP_OUT_TABLE, cols, sizeof(cols) / sizeof(*cols), oo, &se)) {
		free(v);
		return snap_err_report(&se);
	}
	for (size_t i = 0; i < nr; i++) {
		char pin[SM_PIN_TEXT], roles[SM_ROLES_TEXT];

		sm_pin_format(v[i].pin, pin);
		snap_out_str(out, C_NAME, v[i].name);
		snap_out_str(out, C_ROLES, sm_roles_text(v[i].roles, roles));
		if (v[i].max_sessions)
			snap_out_num(out, C_SESSIONS, v[i].max_sessions);
		snap_out_str(out, C_PIN, v[i].has_pin ? pin : NULL);
		snap_out_row(out);
	}
	free(v);
	return snap_out_close(out, &se) ? snap_err_report(&se) : 0;
}

static int put(const char *dir, const char *name, const struct arguments *a, bool replace, struct sm_err *e)
{
	struct sm_registered c = { .quota = 0 };
	int err = replace ? sm_clients_get(dir, name, &c, e) : 0;

	if (err)
		return err;
	snprintf(c.name, sizeof(c.name), "%s", name);
	if (a->sessions != UINT32_MAX)
		c.max_sessions = a->sessions;
	if (a->pin && sm_pin_parse(a->pin, c.pin))
		return sm_fail(e, -EINVAL, "--pin: \"sha256:\" and 64 hexadecimal digits, as snapbackup enroll prints it");
	c.has_pin |= a->pin != NULL;
	if (!c.has_pin)
		return sm_fail(e, -EINVAL, "--pin is needed");
	if (a->roles && sm_roles_parse(a->roles, &c.roles))
		return sm_fail(e, -EINVAL, "--role: operator, auditor, backup, restore");
	if (!c.roles)
		return sm_fail(e, -EINVAL, "--role is needed");
	return sm_clients_put(dir, &c, replace, e);
}

static int run_client(int argc, char **argv)
{
	struct arguments a = { .sessions = UINT32_MAX };
	struct snap_out_opts oo = { 0 };
	const struct snap_opt opts[] = {
		{ "pin", 'p', SNAP_OPT_STRING, "PIN", &a.pin, "of its key" },
		{ "role", 'r', SNAP_OPT_STRING, "ROLE[,ROLE]", &a.roles, "what it may do" },
		{ "sessions", 's', SNAP_OPT_U32, "N", &a.sessions, "most sessions at once; 0: the agent's limit (default)" },
		SNAP_OPT_OUTPUT(&oo), { 0 }
	};
	int rc = snap_opts(&cmd_client, opts, &argc, &argv);
	struct sm_err e = { 0 };
	char dir[PATH_MAX];
	bool is_list;

	if (rc >= 0)
		return rc;
	agent_path(dir, "agent");
	is_list = !strcmp(argv[0], "list");
	if (!is_list && strcmp(argv[0], "add") && strcmp(argv[0], "set") && strcmp(argv[0], "remove"))
		return snap_usage_error("client: add, set, remove or list");
	if ((argc == 1) != is_list)
		return snap_usage_error(is_list ? "client list takes no name" : "client %s: which one?", argv[0]);
	if (is_list)
		return list(dir, &oo);
	if (!strcmp(argv[0], "remove"))
		return snap_report(sm_clients_remove(dir, argv[1], &e), e.text);
	return snap_report(put(dir, argv[1], &a, !strcmp(argv[0], "set"), &e), e.text);
}

const struct snap_cmd cmd_client = {
	.name = "client", .args = "add|set|remove NAME | list", .summary = "who may ask, and for what",
	.help = "add NAME --pin PIN --role ROLE[,ROLE]   let a management client in; \"snapbackup enroll --agent\" prints the line for it\n"
		"set NAME [OPTION...]                    change what is named, keep the rest\n"
		"remove NAME                             shut it out; its jobs go on\n"
		"list\n"
		"Roles: auditor (see everything), backup (see volumes; create generations; start, follow, cancel its own backups),\n"
		"operator (all that and: delete, bookmark, pin, jobs of others), restore (have generations restored onto the targets\n"
		"that agent.conf allows; no other role may).",
	.min_args = 1, .max_args = 2, .run = run_client,
};
