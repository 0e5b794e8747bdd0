// SPDX-License-Identifier: GPL-2.0-or-later
/* client add|set|remove|list: who may connect, and what for. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clients.h"
#include "confine.h"
#include "name.h"
#include "verbs.h"

struct arguments {
	const char *repo, *pin, *roles;
	uint64_t quota;
	uint32_t sessions;
};

enum { C_NAME, C_ROLES, C_QUOTA, C_USED, C_SESSIONS, C_PIN };

static const struct snap_col cols[] = {
	[C_NAME] = { "name", "NAME", SNAP_COL_STRING, 0, 0 },
	[C_ROLES] = { "roles", "ROLES", SNAP_COL_STRING, 0, 0 },
	[C_QUOTA] = { "quota", "QUOTA", SNAP_COL_SIZE, 0, 0 },
	[C_USED] = { "used", "USED", SNAP_COL_SIZE, 0, 0 },
	[C_SESSIONS] = { "max_sessions", "SESSIONS", SNAP_COL_NUMBER, 0, 0 },
	[C_PIN] = { "pin", "PIN", SNAP_COL_STRING, 0, 0 },
};

static int list(struct sm_repo *r, struct snap_out *out, struct sm_err *e)
{
	struct sm_registered *v;
	size_t nr;
	int err = sm_clients_list(r->path, &v, &nr, e);

	if (err)
		return err;
	for (size_t i = 0; !err && i < nr; i++) {
		char pin[SM_PIN_TEXT], roles[SM_ROLES_TEXT];
		uint64_t used;

		sm_pin_format(v[i].pin, pin);
		snap_out_str(out, C_NAME, v[i].name);
		snap_out_str(out, C_ROLES, sm_roles_text(v[i].roles, roles));
		if (v[i].quota)
			snap_out_num(out, C_QUOTA, v[i].quota);
		if (!sm_repo_usage(r, v[i].name, &used, NULL))
			snap_out_num(out, C_USED, used);
		if (v[i].max_sessions)
			snap_out_num(out, C_SESSIONS, v[i].max_sessions);
		snap_out_str(out, C_PIN, v[i].has_pin ? pin : NULL);
		err = snap_out_row(out);
	}
	free(v);
	return err;
}

static int print_list(struct sm_repo *r, const struct snap_out_opts *oo)
{
	struct snap_err se = SNAP_ERR_INIT;
	struct sm_err e = { 0 };
	struct snap_out *out;
	int err;

	if (snap_out_open(&out, "clients", SNAP_OUT_TABLE, cols, sizeof(cols) / sizeof(*cols), oo, &se))
		return snap_err_report(&se);
	err = list(r, out, &e);
	if (snap_out_close(out, &se) && !err)
		return snap_err_report(&se);
	return snap_report(err, e.text);
}

static int put(struct sm_repo *r, const char *name, const struct arguments *a, bool replace, struct sm_err *e)
{
	struct sm_registered c = { .quota = a->quota, .max_sessions = a->sessions };
	int err = replace ? sm_clients_get(r->path, name, &c, e) : 0;

	if (err)
		return err;
	snprintf(c.name, sizeof(c.name), "%s", name);
	if (a->quota != UINT64_MAX)
		c.quota = a->quota;
	else if (!replace)
		c.quota = 0;
	if (a->sessions != UINT32_MAX)
		c.max_sessions = a->sessions;
	else if (!replace)
		c.max_sessions = 0;
	if (a->pin && sm_pin_parse(a->pin, c.pin))
		return sm_fail(e, -EINVAL, "--pin: \"sha256:\" and 64 hexadecimal digits, as snapbackup enroll prints it");
	c.has_pin |= a->pin != NULL;
	if (a->roles && sm_roles_parse(a->roles, &c.roles))
		return sm_fail(e, -EINVAL, "--role: backup, restore, operator, auditor");
	if (!c.roles)
		return sm_fail(e, -EINVAL, "--role is needed");
	return sm_clients_put(r->path, &c, replace, e);
}

static int act(const char *verb, const char *name, const struct arguments *a, const struct snap_out_opts *oo)
{
	struct sm_err e = { 0 };
	struct sm_repo r;
	int err = sm_become(NULL, a->repo, &e), rc;

	if (!err)
		err = sm_repo_open(a->repo, &r, &e);
	if (err)
		return snap_report(err, e.text);
	if (!strcmp(verb, "list"))
		rc = print_list(&r, oo);
	else if (!strcmp(verb, "remove"))
		rc = snap_report(sm_clients_remove(r.path, name, &e), e.text);
	else
		rc = snap_report(put(&r, name, a, !strcmp(verb, "set"), &e), e.text);
	sm_repo_close(&r);
	return rc;
}

static const char help[] =
	"add NAME --pin PIN --role ROLE[,ROLE]   let a client in; \"snapbackup enroll\" prints the line for it\n"
	"set NAME [OPTION...]                    change what is named, keep the rest\n"
	"remove NAME                             shut it out; its volumes stay\n"
	"list\n"
	"Roles: backup (add generations of its own volumes), restore (read its own volumes), operator (list all, prune, lock,\n"
	"unlock, collect garbage, verify), auditor (list all, see results). A client without a pin comes by forced command only.";

static int run(int argc, char **argv)
{
	struct arguments a = { .quota = UINT64_MAX, .sessions = UINT32_MAX };
	struct snap_out_opts oo = { 0 };
	const struct snap_opt opts[] = {
		{ "pin", 'p', SNAP_OPT_STRING, "PIN", &a.pin, "of its key" },
		{ "role", 'r', SNAP_OPT_STRING, "ROLE[,ROLE]", &a.roles, "what it may do" },
		{ "quota", 'q', SNAP_OPT_SIZE, "SIZE", &a.quota, "most bytes in the repository; 0: no limit (default)" },
		{ "sessions", 's', SNAP_OPT_U32, "N", &a.sessions, "most sessions at once; 0: the server's limit (default)" },
		{ "repo", 0, SNAP_OPT_STRING, "REPO", &a.repo, "default $SNAPMEDIA_REPO, or /var/lib/snapmedia" },
		SNAP_OPT_OUTPUT(&oo), { 0 }
	};
	int rc = snap_opts(&cmd_client, opts, &argc, &argv);
	bool is_list;

	if (rc >= 0)
		return rc;
	is_list = !strcmp(argv[0], "list");
	if (!is_list && strcmp(argv[0], "add") && strcmp(argv[0], "set") && strcmp(argv[0], "remove"))
		return snap_usage_error("client: add, set, remove or list");
	if ((argc == 1) != is_list)
		return snap_usage_error(is_list ? "client list takes no name" : "client %s: which one?", argv[0]);
	a.repo = repo_default(a.repo);
	return act(argv[0], argc > 1 ? argv[1] : NULL, &a, &oo);
}

const struct snap_cmd cmd_client = {
	.name = "client", .args = "add|set|remove NAME | list", .summary = "who may connect, and what for",
	.help = help, .min_args = 1, .max_args = 2, .run = run,
};
