// SPDX-License-Identifier: GPL-2.0-or-later
#include "order.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

#include "admin.h"
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
	struct sm_admin a = { row, NULL, arg };
	struct sm_repo r;
	int err;

	if (o->host)
		return send_there(o, row, arg, e);
	err = sm_repo_open(o->repo, &r, e);
	if (!err) {
		err = sm_admin(&r, o->json, &a, e);
		sm_repo_close(&r);
	}
	json_decref(o->json);
	return err;
}

struct table {
	struct snap_out *out;
	const struct snap_col *cols;
	size_t nr;
};

/* A server may send anything: what has not the column's type is not there. */
static void put_cell(struct snap_out *out, size_t i, enum snap_col_type type, const json_t *v)
{
	uint8_t uuid[SM_UUID];

	if (type == SNAP_COL_UUID) {
		if (json_is_string(v) && !sm_uuid_parse(json_string_value(v), uuid))
			snap_out_uuid(out, i, uuid);
	} else if (type == SNAP_COL_STRING) {
		char clean[256];
		size_t n = 0;

		if (json_is_boolean(v))
			snap_out_str(out, i, json_is_true(v) ? "yes" : NULL);
		for (const char *s = json_string_value(v); s && *s && n < sizeof(clean) - 1; s++)
			clean[n++] = (unsigned char)*s < 0x20 || *s == 0x7f ? '?' : *s;
		clean[n] = '\0';
		if (n)
			snap_out_str(out, i, clean);
	} else if (json_is_integer(v) && json_integer_value(v) >= 0) {
		snap_out_num(out, i, json_integer_value(v));
	}
}

static int print_row(json_t *row, void *arg)
{
	struct table *t = arg;
	int err;

	for (size_t i = 0; i < t->nr; i++)
		put_cell(t->out, i, t->cols[i].type, json_object_get(row, t->cols[i].key));
	err = snap_out_row(t->out);
	json_decref(row);
	return err;
}

int order_table(struct order *o, const char *list, const struct snap_col *cols, size_t nr, const struct snap_out_opts *oo)
{
	struct table t = { .cols = cols, .nr = nr };
	struct snap_err se = SNAP_ERR_INIT;
	struct sm_err e = { 0 };
	int err;

	if (snap_out_open(&t.out, list, SNAP_OUT_TABLE, cols, nr, oo, &se)) {
		json_decref(o->json);
		return snap_err_report(&se);
	}
	err = order_send(o, print_row, &t, &e);
	if (snap_out_close(t.out, &se) && !err)
		return snap_err_report(&se);
	return report(err, &e);
}
