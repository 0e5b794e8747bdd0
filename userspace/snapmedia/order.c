// SPDX-License-Identifier: GPL-2.0-or-later
#include "order.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

#include "admin.h"
#include "confine.h"
#include "session.h"

int order_begin(struct order *o, const char *verb, int argc, char **argv)
{
	if (argc && o->host)
		return snap_usage_error("REPO or --host, not both");
	o->repo = repo_default(argc ? argv[0] : NULL);
	o->json = json_object();
	json_object_set_new(o->json, "verb", json_string(verb));
	if (o->client)
		json_object_set_new(o->json, "client", json_string(o->client));
	if (o->volume)
		json_object_set_new(o->json, "volume", json_string(o->volume));
	return SNAP_OPTS_GO;
}

static int send_there(struct order *o, int (*row)(json_t *, void *), void *arg, struct sm_err *e)
{
	struct sm_client c;
	struct sm_dest d;
	int err = sm_dest_parse(o->host, &d, e);

	if (!err && d.kind != SM_DEST_TCP && d.kind != SM_DEST_SSH)
		err = sm_fail(e, -EINVAL, "%s: not a host", o->host);
	if (!err) {
		signal(SIGPIPE, SIG_IGN);
		err = sm_client_connect(&c, &d, SM_ROLE_OPERATOR | SM_ROLE_AUDITOR, e);
	}
	if (err) {
		json_decref(o->json);
		return err;
	}
	err = sm_client_order(&c, o->json, row, arg, e);
	sm_client_end(&c, !err);
	return err;
}

int order_send(struct order *o, int (*row)(json_t *, void *), void *arg, struct sm_err *e)
{
	struct sm_admin a = { row, NULL, arg, o->key };
	struct sm_repo r;
	int err;

	if (o->host)
		return send_there(o, row, arg, e);
	err = sm_become(NULL, o->repo, e);	/* what it makes belongs to who serves it */
	if (!err)
		err = sm_repo_open(o->repo, &r, e);
	if (!err) {
		err = sm_admin(&r, o->json, &a, e);
		sm_repo_close(&r);
	}
	json_decref(o->json);
	return err;
}

int order_table(struct order *o, const char *list, const struct snap_col *cols, size_t nr, const struct snap_out_opts *oo)
{
	struct snap_err se = SNAP_ERR_INIT;
	struct sm_err e = { 0 };
	struct snap_out *out;
	int err;

	if (snap_out_open(&out, list, SNAP_OUT_TABLE, cols, nr, oo, &se)) {
		json_decref(o->json);
		return snap_err_report(&se);
	}
	err = order_send(o, snap_out_json_row, out, &e);
	if (snap_out_close(out, &se) && !err)
		return snap_err_report(&se);
	return snap_report(err, e.text);
}
