// SPDX-License-Identifier: GPL-2.0-or-later
/* Orders about volumes and generations: what snapctl does here, for who asks from elsewhere. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agentd.h"
#include "gens.h"

#define MAX_NAMES	64u

/* ---- tables ---- */

typedef int (*rows_fn)(struct snap_nl *nl, const char *name, struct snap_out *out, struct snap_err *e);

/* The table's JSON, a row a line, becomes ROW frames: what its columns are is said in one place, lib/gens.c. */
static int send_lines(struct asker *a, const char *text, size_t len, struct sm_err *e)
{
	const char *end = text + len;
	int err = 0;

	while (!err && text < end) {
		const char *nl = memchr(text, '\n', end - text);
		size_t n = (nl ? nl : end) - text;

		err = n > SM_MAX_CONTROL ? sm_fail(e, -E2BIG, "a row is too long") : sm_chan_send_buf(a->chan, SM_ROW, text, n, e);
		text += n + 1;
	}
	return err;
}

static int show(struct asker *a, const json_t *order, const struct snap_col *cols, size_t nr, rows_fn rows, struct sm_err *e)
{
	struct snap_err se = SNAP_ERR_INIT;
	char name[SNAP_VOLUME_BUF], *text = NULL;
	size_t len = 0;
	FILE *f = NULL;
	struct snap_out_opts oo = { .json = true, .lines = true, .raw = true };
	struct snap_out *out = NULL;
	struct snap_nl *nl = NULL;
	int has = order_volume(order, name, e), err;

	if (has < 0)
		return has;
	oo.file = f = open_memstream(&text, &len);
	if (!f)
		return sm_fail(e, -ENOMEM, "no memory");
	err = snap_nl_open(&nl, &se);
	if (!err)
		err = snap_out_open(&out, "rows", SNAP_OUT_TABLE, cols, nr, &oo, &se);
	if (!err)
		err = rows(nl, has ? name : NULL, out, &se);
	if (err)
		snap_out_abort(out);
	else
		err = snap_out_close(out, &se);
	snap_nl_close(nl);
	fclose(f);
	err = err ? asker_fail(e, &se, err) : send_lines(a, text, len, e);
	free(text);
	return err;
}

static int do_list(struct asker *a, const json_t *order, struct sm_err *e)
{
	return show(a, order, snap_gen_cols, snap_nr_gen_cols, snap_gen_rows, e);
}

static int do_status(struct asker *a, const json_t *order, struct sm_err *e)
{
	return show(a, order, snap_vol_cols, snap_nr_vol_cols, snap_vol_rows, e);
}

/* ---- create, delete ---- */

/* The texts of an array. Return: how many, -EINVAL */
static int texts(const json_t *order, const char *key, const char *v[MAX_NAMES], struct sm_err *e)
{
	const json_t *array = json_object_get(order, key), *t;
	size_t n = json_array_size(array);

	if ((array && !json_is_array(array)) || n > MAX_NAMES)
		return sm_fail(e, -EINVAL, "\"%s\" is not an array of at most %u", key, MAX_NAMES);
	for (size_t i = 0; i < n; i++) {
		t = json_array_get(array, i);
		if (!json_is_string(t) || strlen(json_string_value(t)) != json_string_length(t))
			return sm_fail(e, -EINVAL, "\"%s\": not a text", key);
		v[i] = json_string_value(t);
	}
	return n;
}

static int create(struct asker *a, struct snap_nl *nl, const char **names, int n, const char *label, enum snap_freeze freeze,
		  struct snap_err *se, struct sm_err *e)
{
	struct snap_gen gens[MAX_NAMES];
	char sole[SNAP_VOLUME_BUF], name[SNAP_VOLUME_BUF + 16];
	int err = 0;

	for (int i = 0; !err && i < n; i++) {
		err = snap_check_volume_name(names[i], se);
		for (int j = 0; !err && j < i; j++)
			if (!strcmp(names[i], names[j]))
				err = snap_err_set(se, -EINVAL, names[i], "named twice");
	}
	if (!err && !n) {
		err = snap_nl_sole_volume(nl, sole, se);
		names[0] = sole;
		n = 1;
	}
	if (!err)
		err = snap_nl_create(nl, names, n, label, freeze, gens, se);
	if (err)
		return asker_fail(e, se, err);
	for (int i = 0; !err && i < n; i++) {
		json_t *o = json_object();

		snprintf(name, sizeof(name), "%s@%u", names[i], gens[i].number);
		json_object_set_new(o, "name", json_string(name));
		json_object_set_new(o, "volume", json_string(names[i]));
		json_object_set_new(o, "generation", json_integer(gens[i].number));
		err = asker_row(a, o, e);
	}
	return err;
}

static int do_create(struct asker *a, const json_t *order, struct sm_err *e)
{
	const json_t *freeze = json_object_get(order, "freeze");
	enum snap_freeze how = !json_is_boolean(freeze) ? SNAP_FREEZE_AUTO : json_is_true(freeze) ? SNAP_FREEZE_YES : SNAP_FREEZE_NO;
	const char *names[MAX_NAMES];
	char label[SNAP_LABEL_BUF];
	struct snap_err se = SNAP_ERR_INIT;
	struct snap_nl *nl;
	bool labelled = json_object_get(order, "label");
	int n = texts(order, "volumes", names, e), err;

	if (n < 0 || (labelled && sm_json_text(order, "label", label, sizeof(label), e)))
		return -EINVAL;
	err = snap_nl_open(&nl, &se);
	if (err)
		return asker_fail(e, &se, err);
	err = create(a, nl, names, n, labelled ? label : NULL, how, &se, e);
	snap_nl_close(nl);
	return err;
}

static int do_delete(struct asker *a, const json_t *order, struct sm_err *e)
{
	struct snap_ref refs[MAX_NAMES];
	const char *names[MAX_NAMES];
	struct snap_err se = SNAP_ERR_INIT;
	struct snap_nl *nl = NULL;
	int n = texts(order, "generations", names, e), err = 0;

	(void)a;
	if (n < 0)
		return n;
	if (!n)
		return sm_fail(e, -EINVAL, "no generation named");
	for (int i = 0; !err && i < n; i++)
		err = snap_parse_ref(names[i], SNAP_REF_GEN | SNAP_REF_RANGE, &refs[i], &se);
	if (!err)
		err = snap_nl_open(&nl, &se);
	if (!err)
		err = snap_gen_delete(nl, refs, n, &se);
	snap_nl_close(nl);
	return err ? asker_fail(e, &se, err) : 0;
}

/* ---- one generation ---- */

static int pin(struct snap_nl *nl, const char *volume, uint32_t gen, struct snap_err *se)
{
	return snap_nl_pin(nl, volume, gen, true, se);
}

static int unpin(struct snap_nl *nl, const char *volume, uint32_t gen, struct snap_err *se)
{
	return snap_nl_pin(nl, volume, gen, false, se);
}

static int one(const json_t *order, int (*fn)(struct snap_nl *, const char *, uint32_t, struct snap_err *), struct sm_err *e)
{
	struct snap_err se = SNAP_ERR_INIT;
	char name[SNAP_VOLUME_BUF];
	struct snap_nl *nl;
	uint32_t number;
	int err = order_volume(order, name, e);

	if (err <= 0)
		return err ? err : sm_fail(e, -EINVAL, "no volume named");
	err = order_number(order, "generation", &number, e);
	if (err)
		return err;
	err = snap_nl_open(&nl, &se);
	if (!err) {
		err = fn(nl, name, number, &se);
		snap_nl_close(nl);
	}
	return err ? asker_fail(e, &se, err) : 0;
}

static int do_bookmark(struct asker *a, const json_t *order, struct sm_err *e)
{
	(void)a;
	return one(order, snap_nl_bookmark, e);
}

static int do_pin(struct asker *a, const json_t *order, struct sm_err *e)
{
	(void)a;
	return one(order, pin, e);
}

static int do_unpin(struct asker *a, const json_t *order, struct sm_err *e)
{
	(void)a;
	return one(order, unpin, e);
}

#define ALL	(SM_ROLE_BACKUP | SM_ROLE_OPERATOR | SM_ROLE_AUDITOR)

const struct verb volume_verbs[] = {
	{ "list", ALL, do_list },
	{ "status", ALL, do_status },
	{ "create", SM_ROLE_BACKUP | SM_ROLE_OPERATOR, do_create },
	{ "delete", SM_ROLE_OPERATOR, do_delete },
	{ "bookmark", SM_ROLE_OPERATOR, do_bookmark },
	{ "pin", SM_ROLE_OPERATOR, do_pin },
	{ "unpin", SM_ROLE_OPERATOR, do_unpin },
	{ NULL, 0, NULL }
};
