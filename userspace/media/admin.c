// SPDX-License-Identifier: GPL-2.0-or-later
#include "admin.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "frame.h"
#include "index.h"
#include "keep.h"

struct job {
	struct sm_repo *r;
	const json_t *order;
	const struct sm_admin *a;
	const char *vid;
	struct sm_err *e;
};

static void put(json_t *o, const char *key, uint64_t v)
{
	json_object_set_new(o, key, json_integer(v > INT64_MAX ? INT64_MAX : v));
}

static bool flag(const struct job *j, const char *key)
{
	return json_is_true(json_object_get(j->order, key));
}

/* Which generation: that every row about one begins with. */
static json_t *about(const struct sm_generation *g)
{
	json_t *o = json_object();

	sm_json_set_text(o, "client", g->client);
	sm_json_set_text(o, "volume", g->manifest.info.volume_name);
	sm_json_set_uuid(o, "volume_uuid", g->manifest.info.volume);
	put(o, "generation", g->manifest.info.number);
	return o;
}

static const struct sm_generation *newest(const struct sm_generations *g)
{
	const struct sm_generation *last = NULL;

	for (size_t i = 0; i < g->nr; i++)
		if (!last || g->v[i].sequence > last->sequence)
			last = &g->v[i];
	return last;
}

/* A row about a volume: its name from its newest generation, when that can be read. */
static json_t *about_volume(struct job *j, const struct sm_generations *g)
{
	const struct sm_generation *last = newest(g);
	json_t *o = last ? about(last) : json_object();

	json_object_del(o, "generation");
	sm_json_set_text(o, "id", j->vid);
	return o;
}

/* ---- list, show, du ---- */

static void put_parent(json_t *o, const struct sm_generations *all, const struct sm_generation *g)
{
	for (size_t i = 0; g->manifest.info.has_parent && i < all->nr; i++)
		if (!memcmp(all->v[i].hash, g->manifest.info.parent, SM_DIGEST))
			put(o, "parent", all->v[i].manifest.info.number);
}

static void put_lock(struct job *j, json_t *o, uint32_t number)
{
	uint64_t until = INT64_MAX;
	int is = sm_keep_get(j->r, j->vid, number, &until, NULL);

	if (is && until > sm_now_ns()) {
		json_object_set_new(o, "locked", json_true());
		if (until != INT64_MAX)
			put(o, "locked_until", until);
	}
}

static json_t *list_row(struct job *j, const struct sm_generations *all, const struct sm_generation *g, const struct sm_numbers *damaged)
{
	const struct sm_gen_info *i = &g->manifest.info;
	json_t *o = about(g);

	put_parent(o, all, g);
	put(o, "size", i->size);
	put(o, "changed_bytes", i->bytes);
	put(o, "stored_bytes", g->stored_bytes);
	put(o, "received", g->received);
	put(o, "created", i->created);
	if (*i->label)
		sm_json_set_text(o, "label", i->label);
	put(o, "sequence", g->sequence);
	sm_json_set_hex(o, "manifest", g->hash, SM_DIGEST);
	sm_json_set_uuid(o, "generation_uuid", i->uuid);
	put_lock(j, o, i->number);
	if (sm_numbers_have(damaged, i->number))
		json_object_set_new(o, "damaged", json_true());
	return o;
}

static int do_list(struct job *j)
{
	struct sm_numbers damaged;
	struct sm_generations g;
	int err = sm_repo_generations(j->r, j->vid, &g, j->e);

	sm_damaged_load(j->r, j->vid, &damaged);
	for (size_t i = 0; !err && i < g.nr; i++)
		err = j->a->row(list_row(j, &g, &g.v[i], &damaged), j->a->arg);
	free(damaged.v);
	if (!err)
		err = sm_generations_whole(&g, j->e);	/* told at the end: the others are there */
	sm_generations_free(&g);
	return err;
}

static int number_of(struct job *j, uint32_t *number)
{
	uint64_t v;
	int err = sm_json_u64(j->order, "generation", UINT32_MAX - 1, &v, j->e);

	*number = v;
	return err ? -EINVAL : 0;
}

static int do_show(struct job *j)
{
	json_t *o, *a = json_array();
	struct sm_generation g;
	uint32_t number;
	char *text;
	int err;

	if ((err = number_of(j, &number)) || (err = sm_repo_generation(j->r, j->vid, number, &g, j->e))) {
		json_decref(a);
		return err;
	}
	o = about(&g);
	text = sm_manifest_text(&g.manifest);
	json_object_set_new(o, "manifest_text", text ? json_string(text) : json_null());
	sm_json_set_hex(o, "manifest_hash", g.hash, SM_DIGEST);
	put(o, "sequence", g.sequence);
	put(o, "received", g.received);
	put(o, "stored_bytes", g.stored_bytes);
	put(o, "packs", g.packs);
	put_lock(j, o, number);
	for (uint32_t i = 0; i < g.nr_segments; i++) {
		json_t *s = json_object();

		sm_json_set_hex(s, "id", g.segments[i].id, SM_DIGEST);
		put(s, "entries", g.segments[i].entries);
		json_array_append_new(a, s);
	}
	json_object_set_new(o, "segments", a);
	free(text);
	sm_generation_done(&g);
	return j->a->row(o, j->a->arg);
}

struct staged_sum {
	const char *vid;
	uint64_t bytes;
};

static int add_staged(const struct sm_staged *s, void *arg)
{
	struct staged_sum *x = arg;

	if (!strcmp(s->vid, x->vid))
		x->bytes += s->bytes;
	return 0;
}

static int do_du(struct job *j)
{
	struct staged_sum staged = { .vid = j->vid };
	struct sm_generations g;
	struct sm_verified v;
	struct sm_usage u;
	json_t *o;
	int err;

	if ((err = sm_volume_usage(j->r, j->vid, &u, j->e)) || (err = sm_staged(j->r, add_staged, &staged, j->e)) ||
	    (err = sm_repo_generations(j->r, j->vid, &g, j->e)))
		return err;
	o = about_volume(j, &g);
	put(o, "generations", g.nr);
	if (newest(&g))
		put(o, "size", newest(&g)->manifest.info.size);
	put(o, "packs_bytes", u.packs);
	put(o, "maps_bytes", u.maps);
	put(o, "manifests_bytes", u.manifests);
	put(o, "staged_bytes", staged.bytes);
	put(o, "total_bytes", u.packs + u.maps + u.manifests + staged.bytes);
	if (!sm_verified_load(j->r, j->vid, &v, NULL)) {
		put(o, "verified", v.at);
		put(o, "verified_sample", v.sample);
		put(o, "verify_errors", v.errors);
	}
	sm_generations_free(&g);
	return j->a->row(o, j->a->arg);
}

/* ---- verify ---- */

struct verifying {
	struct job *j;
	int stop;
};

static void on_problem(const char *what, void *arg)
{
	struct verifying *v = arg;
	json_t *o = json_object();

	sm_json_set_text(o, "problem", what);
	if (!v->stop)
		v->stop = v->j->a->row(o, v->j->a->arg);
	else
		json_decref(o);
}

static void on_tick(void *arg)
{
	const struct sm_admin *a = ((struct verifying *)arg)->j->a;

	if (a->tick)
		a->tick(a->arg);
}

static int verify_volume(struct job *j, enum sm_verify_mode mode, uint32_t sample)
{
	struct verifying x = { .j = j };
	struct sm_verify v = { .mode = mode, .sample = sample, .keep = mode != SM_VERIFY_STRUCTURE, .key = j->a->key, .report = on_problem,
			       .tick = on_tick, .arg = &x };
	struct sm_generations g = { .nr = 0 };
	int err = sm_volume_verify(j->r, j->vid, &v, j->e);
	json_t *o;

	if (err || x.stop)
		return err ? err : x.stop;
	if (sm_repo_generations(j->r, j->vid, &g, NULL))
		g.nr = 0;
	o = about_volume(j, &g);
	sm_generations_free(&g);
	put(o, "generations", v.generations);
	put(o, "packs", v.packs);
	put(o, "records", v.records);
	put(o, "bytes", v.bytes);
	put(o, "maps", v.maps);
	put(o, "orphans", v.orphans);
	put(o, "released", v.released);
	put(o, "opened", v.opened);
	put(o, "errors", v.errors);
	return j->a->row(o, j->a->arg);
}

static int do_verify(struct job *j)
{
	uint64_t sample = SM_SAMPLE_ALL;

	if (json_object_get(j->order, "sample") && sm_json_u64(j->order, "sample", SM_SAMPLE_ALL, &sample, j->e))
		return -EINVAL;
	return verify_volume(j, sample == SM_SAMPLE_ALL ? SM_VERIFY_ALL : SM_VERIFY_SAMPLE, sample);
}

static int do_fsck(struct job *j)
{
	return verify_volume(j, SM_VERIFY_STRUCTURE, 0);
}

/* ---- prune, gc ---- */

static int gc_row(struct job *j, bool apply, struct sm_gc *gc)
{
	struct sm_generations g;
	json_t *o;
	int err = sm_gc(j->r, j->vid, !apply, gc, j->e);

	if (err)
		return err;
	if (sm_repo_generations(j->r, j->vid, &g, NULL))
		g.nr = 0;
	o = about_volume(j, &g);
	sm_generations_free(&g);
	put(o, "removed_packs", gc->packs);
	put(o, "removed_maps", gc->maps);
	put(o, "released_records", gc->records);
	put(o, "freed_bytes", gc->bytes);
	json_object_set_new(o, "applied", json_boolean(apply));
	return j->a->row(o, j->a->arg);
}

static int do_gc(struct job *j)
{
	struct sm_gc gc;

	return gc_row(j, flag(j, "apply"), &gc);
}

static int prune_row(const struct sm_verdict *v, void *arg)
{
	static const char *const words[] = {
		[SM_FATE_KEEP] = "keep", [SM_FATE_LOCKED] = "keep", [SM_FATE_BASE] = "keep", [SM_FATE_READ] = "keep",
		[SM_FATE_REMOVE] = "remove", [SM_FATE_REMOVED] = "removed",
	};
	static const char *const why[] = {
		[SM_FATE_LOCKED] = "locked", [SM_FATE_BASE] = "an upload builds on it", [SM_FATE_READ] = "is being read",
	};
	struct job *j = arg;
	json_t *o = about(v->g);
	const char *reason = v->fate == SM_FATE_KEEP ? sm_rule_names[v->rule] : v->fate <= SM_FATE_READ ? why[v->fate] : NULL;

	put(o, "sequence", v->g->sequence);
	put(o, "received", v->g->received);
	sm_json_set_text(o, "action", words[v->fate]);
	if (reason)
		sm_json_set_text(o, "reason", reason);
	if (v->damaged)
		json_object_set_new(o, "damaged", json_true());
	return j->a->row(o, j->a->arg);
}

static int prune_damaged_row(uint32_t number, enum sm_lost how, void *arg)
{
	static const char *const why[] = {
		[SM_LOST_DAMAGED] = "its manifest is damaged", [SM_LOST_LOCKED] = "locked", [SM_LOST_NOT] = "its manifest could be read this time",
		[SM_LOST_UNREADABLE] = "its manifest cannot be read, which may pass",
	};
	struct job *j = arg;
	struct sm_generations g;
	json_t *o;

	if (sm_repo_generations(j->r, j->vid, &g, NULL))
		g.nr = 0;
	o = about_volume(j, &g);
	sm_generations_free(&g);
	put(o, "generation", number);
	sm_json_set_text(o, "action", how != SM_LOST_DAMAGED ? "keep" : flag(j, "apply") ? "removed" : "remove");
	sm_json_set_text(o, "reason", why[how]);
	return j->a->row(o, j->a->arg);
}

static int do_prune(struct job *j)
{
	bool apply = flag(j, "apply");
	struct sm_policy p;
	int err;

	if (flag(j, "damaged"))
		return sm_prune_damaged(j->r, j->vid, apply, prune_damaged_row, j, j->e);
	for (int i = 0; i < SM_NR_RULES; i++) {
		uint64_t v = 0;

		if (json_object_get(j->order, sm_rule_names[i]) && sm_json_u64(j->order, sm_rule_names[i], UINT32_MAX, &v, j->e))
			return -EINVAL;
		p.keep[i] = v;
	}
	err = sm_prune(j->r, j->vid, &p, apply, prune_row, j, j->e);
	if (!err && apply && flag(j, "gc")) {
		struct sm_gc gc;

		err = sm_gc(j->r, j->vid, false, &gc, j->e);
	}
	return err;
}

/* ---- locks ---- */

static int lock_row(struct job *j, bool lock)
{
	const json_t *t = json_object_get(j->order, "until");
	struct sm_generation g;
	uint64_t until = INT64_MAX;
	uint32_t number;
	json_t *o;
	int err;

	if ((err = number_of(j, &number)) || (err = sm_repo_generation(j->r, j->vid, number, &g, j->e)))
		return err;
	if (lock && t && !json_is_null(t) && sm_json_u64(j->order, "until", INT64_MAX, &until, j->e))
		err = -EINVAL;
	else
		err = lock ? sm_keep_set(j->r, j->vid, number, until, j->e) : sm_keep_clear(j->r, j->vid, number, j->e);
	o = about(&g);
	put_lock(j, o, number);
	sm_generation_done(&g);
	if (!err)
		return j->a->row(o, j->a->arg);
	json_decref(o);
	return err;
}

static int do_lock(struct job *j)
{
	return lock_row(j, true);
}

static int do_unlock(struct job *j)
{
	return lock_row(j, false);
}

/* ---- caches ---- */

static int do_reindex(struct job *j)
{
	struct sm_generations g;
	struct sm_briefs b;
	json_t *o;
	int err;

	sm_briefs_drop(j->r, j->vid);
	err = sm_briefs_load(j->r, j->vid, &b, j->e);
	if (err)
		return err;
	if (sm_repo_generations(j->r, j->vid, &g, NULL))
		g.nr = 0;
	o = about_volume(j, &g);
	sm_generations_free(&g);
	put(o, "generations", b.nr);
	sm_briefs_free(&b);
	return j->a->row(o, j->a->arg);
}

/* ---- orders ---- */

static const struct {
	const char *verb;
	uint32_t roles;
	bool one;		/* is about one volume: the only one there, or one that is named */
	int (*fn)(struct job *j);
} verbs[] = {
	{ "list", SM_ROLE_OPERATOR | SM_ROLE_AUDITOR, false, do_list },
	{ "show", SM_ROLE_OPERATOR | SM_ROLE_AUDITOR, true, do_show },
	{ "du", SM_ROLE_OPERATOR | SM_ROLE_AUDITOR, false, do_du },
	{ "fsck", SM_ROLE_OPERATOR | SM_ROLE_AUDITOR, false, do_fsck },
	{ "verify", SM_ROLE_OPERATOR, false, do_verify },
	{ "prune", SM_ROLE_OPERATOR, false, do_prune },
	{ "gc", SM_ROLE_OPERATOR, false, do_gc },
	{ "reindex", SM_ROLE_OPERATOR, false, do_reindex },
	{ "lock", SM_ROLE_OPERATOR, true, do_lock },
	{ "unlock", SM_ROLE_OPERATOR, true, do_unlock },
};
#define NR_VERBS	(sizeof(verbs) / sizeof(*verbs))

static size_t find_verb(const char *verb)
{
	size_t i;

	for (i = 0; i < NR_VERBS; i++)
		if (verb && !strcmp(verbs[i].verb, verb))
			break;
	return i;
}

uint32_t sm_admin_roles(const char *verb)
{
	size_t i = find_verb(verb);

	return i < NR_VERBS ? verbs[i].roles : 0;
}

int sm_admin(struct sm_repo *r, const json_t *order, const struct sm_admin *a, struct sm_err *e)
{
	const char *client = json_string_value(json_object_get(order, "client"));
	const char *volume = json_string_value(json_object_get(order, "volume"));
	struct job j = { .r = r, .order = order, .a = a, .e = e };
	struct sm_err damaged = { 0 };
	size_t v = find_verb(json_string_value(json_object_get(order, "verb"))), nr;
	char (*vids)[SM_VID_TEXT], vid[SM_VID_TEXT];
	int err;

	if (v == NR_VERBS)
		return sm_fail(e, -EINVAL, "an order that is not known here");
	if (volume || verbs[v].one) {
		err = sm_repo_find(r, client, volume, vid, e);
		j.vid = vid;
		return err ? err : verbs[v].fn(&j);
	}
	err = sm_repo_volumes(r, client, &vids, &nr, e);
	if (err)
		return err;
	/* Damage in one volume does not hide the others; it is the answer's end. */
	for (size_t i = 0; !err && i < nr; i++) {
		j.vid = vids[i];
		err = verbs[v].fn(&j);
		if (err == -EUCLEAN) {
			if (!damaged.code)
				damaged = e ? *e : (struct sm_err){ .code = err };
			err = 0;
		}
	}
	free(vids);
	if (!err && damaged.code) {
		err = damaged.code;
		if (e)
			*e = damaged;
	}
	return err;
}
