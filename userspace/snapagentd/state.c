// SPDX-License-Identifier: GPL-2.0-or-later
#include "state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "job.h"
#include "store.h"

int state_load(const uint8_t uuid[16], struct state *st, struct sm_err *e)
{
	char dir[PATH_MAX], text[SNAP_UUID_TEXT];
	struct sm_err why = { 0 };
	uint64_t version;
	int err;

	snprintf(st->file, sizeof(st->file), "%s.json", snap_format_uuid(text, uuid));
	st->json = NULL;
	err = sm_mkdir_durable(agent_path(dir, "schedule"), e);
	if (err)
		return err;
	st->json = get_file(dir, st->file, &why);
	if (!st->json && why.code == -ENOENT)
		st->json = json_pack("{s:i,s:{}}", "version", 1, "destinations");
	else if (!st->json || sm_json_u64(st->json, "version", 1, &version, &why) ||
		 !json_is_object(json_object_get(st->json, "destinations")))
		err = sm_fail(e, -EUCLEAN, "%.300s/%s: damaged: remove it, nothing is sent twice because of that", dir, st->file);
	if (!err && !st->json)
		err = sm_fail(e, -ENOMEM, "no memory");
	if (err)
		state_free(st);
	return err;
}

void state_free(struct state *st)
{
	json_decref(st->json);
	st->json = NULL;
}

int state_lock(const struct state *st, struct sm_err *e)
{
	char name[96], path[PATH_MAX];
	int fd;

	snprintf(name, sizeof(name), "schedule/%s.lock", st->file);
	fd = open(agent_path(path, name), O_CREAT | O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return sm_fail(e, -errno, "%s: %s", path, strerror(errno));
	if (!flock(fd, LOCK_EX | LOCK_NB))
		return fd;
	close(fd);
	return sm_fail(e, -EBUSY, "another pass over this volume is running");
}

const json_t *state_dest(const struct state *st, const char *dest)
{
	return json_object_get(json_object_get(st->json, "destinations"), dest);
}

static uint64_t number(const json_t *o, const char *key)
{
	uint64_t v;

	return sm_json_u64(o, key, INT64_MAX, &v, NULL) ? 0 : v;
}

/* By number and uuid: a number alone is another generation when the diff was formatted anew. */
static bool is_entry(const json_t *entry, const struct sched_gen *g)
{
	uint8_t uuid[16];

	return number(entry, "generation") == g->number && !sm_json_uuid(entry, "uuid", uuid, NULL) && !memcmp(uuid, g->uuid, 16);
}

/*
 * Is the row of generations that a destination's last one stands in the one that is there? An older copy of the metadata that was put
 * back (snapmeta restore) gives numbers for the second time, and the volume keeps its uuid.
 */
static bool same_row(const json_t *list, uint64_t last, const struct sched *s)
{
	bool named = false;

	if (last > s->highest)
		return false;
	for (size_t i = 0; i < s->nr; i++)
		if (s->gen[i].number == last) {
			for (size_t k = 0; k < json_array_size(list); k++) {
				if (is_entry(json_array_get(list, k), &s->gen[i]))
					return true;
				named |= number(json_array_get(list, k), "generation") == last;
			}
			return !named;
		}
	return true;
}

void state_apply(const struct state *st, struct sched *s)
{
	for (uint32_t ship = 0; ship < s->v->nr_ships; ship++) {
		const json_t *d = state_dest(st, s->c->dest[s->v->ship[ship].dest].name);
		const json_t *list = json_object_get(d, "shipped");

		s->last[ship].number = number(d, "number");
		s->last[ship].created = number(d, "created");
		if (!same_row(list, s->last[ship].number, s))
			s->last[ship].number = s->last[ship].created = 0;
		for (size_t k = 0; k < json_array_size(list); k++)
			for (size_t i = 0; i < s->nr; i++)
				if (is_entry(json_array_get(list, k), &s->gen[i]))
					s->gen[i].shipped |= 1u << ship;
	}
}

static json_t *make_dest(struct state *st, const char *dest)
{
	json_t *all = json_object_get(st->json, "destinations"), *d = json_object_get(all, dest);

	if (!d) {
		d = json_object();
		json_object_set_new(all, dest, d);
	}
	return d;
}

static int save(struct state *st, struct sm_err *e)
{
	char dir[PATH_MAX];

	return put_file(agent_path(dir, "schedule"), st->file, json_incref(st->json), true, e);
}

static bool exists(const json_t *entry, const struct sched *s)
{
	for (size_t i = 0; i < s->nr; i++)
		if (is_entry(entry, &s->gen[i]))
			return true;
	return false;
}

int state_shipped(struct state *st, const struct sched *s, const char *dest, const struct sched_gen *g, struct sm_err *e)
{
	json_t *d = make_dest(st, dest), *old = json_object_get(d, "shipped"), *list = json_array(), *entry = json_object();

	for (size_t k = 0; k < json_array_size(old); k++)
		if (exists(json_array_get(old, k), s) && !is_entry(json_array_get(old, k), g))
			json_array_append(list, json_array_get(old, k));
	json_object_set_new(entry, "generation", json_integer(g->number));
	sm_json_set_uuid(entry, "uuid", g->uuid);
	json_array_append_new(list, entry);
	json_object_set_new(d, "shipped", list);
	json_object_set_new(d, "number", json_integer(g->number));
	json_object_set_new(d, "created", json_integer(g->created));
	json_object_set_new(d, "at", json_integer(s->now));
	json_object_del(d, "error");
	json_object_del(d, "error_at");
	return save(st, e);
}

int state_failed(struct state *st, const char *dest, const char *why, uint64_t now, struct sm_err *e)
{
	json_t *d = make_dest(st, dest);

	sm_json_set_text(d, "error", why);
	json_object_set_new(d, "error_at", json_integer(now));
	return save(st, e);
}
