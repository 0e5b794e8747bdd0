// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Small notes of the server's own, beside the objects: results of verifications, locks on generations. Each is a
 * JSON file that is replaced as a whole.
 *
 *	status/VID.verify, status/VID.damaged
 *	keep/VID/NNNNNNNNNN.json	the generation may not be deleted
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "repo.h"

#define NOTE_MAX	(64u << 10)

static void note_path(const struct sm_repo *r, char path[PATH_MAX], const char *name)
{
	snprintf(path, PATH_MAX, "%.*s/%.128s", PATH_MAX - 160, r->path, name);
}

static int load(const struct sm_repo *r, const char *name, json_t **o, struct sm_err *e)
{
	char path[PATH_MAX], *text;
	ssize_t n;
	int fd;

	note_path(r, path, name);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return sm_fail(e, -errno, "%s: %s", path, strerror(errno));
	text = malloc(NOTE_MAX + 1);
	n = text ? sm_read_full(fd, text, NOTE_MAX + 1) : -ENOMEM;
	close(fd);
	*o = n >= 0 ? sm_json_parse(text, n, NOTE_MAX, e) : NULL;
	free(text);
	if (n < 0)
		return sm_fail(e, n, "%s: cannot read", path);
	return *o ? 0 : sm_fail(e, -EUCLEAN, "%s: damaged", path);
}

/* Takes @o. */
static int save(const struct sm_repo *r, const char *name, json_t *o, struct sm_err *e)
{
	char path[PATH_MAX], *text = o ? sm_json_canonical(o) : NULL;
	int err;

	json_decref(o);
	if (!text)
		return sm_fail(e, -ENOMEM, "no memory");
	note_path(r, path, name);
	err = sm_save_file(path, text, false, e);
	free(text);
	return err;
}

static int make_dir(const struct sm_repo *r, const char *name, struct sm_err *e)
{
	char path[PATH_MAX];

	note_path(r, path, name);
	return sm_mkdir_durable(path, e);
}

/* ---- verified ---- */

int sm_verified_load(struct sm_repo *r, const char *vid, struct sm_verified *v, struct sm_err *e)
{
	char name[128];
	uint64_t sample;
	json_t *o;
	int err;

	snprintf(name, sizeof(name), "status/%s.verify", vid);
	err = load(r, name, &o, e);
	if (err)
		return err;
	if ((err = sm_json_u64(o, "at", INT64_MAX, &v->at, e)) || (err = sm_json_u64(o, "sample", 100000, &sample, e)) ||
	    (err = sm_json_u64(o, "generations", INT64_MAX, &v->generations, e)) ||
	    (err = sm_json_u64(o, "records", INT64_MAX, &v->records, e)) ||
	    (err = sm_json_u64(o, "bytes", INT64_MAX, &v->bytes, e)) ||
	    (err = sm_json_u64(o, "errors", INT64_MAX, &v->errors, e)))
		;
	else
		v->sample = sample;
	json_decref(o);
	return err;
}

int sm_verified_save(struct sm_repo *r, const char *vid, const struct sm_verified *v, struct sm_err *e)
{
	json_t *o = json_object();
	char name[128];
	int err = make_dir(r, "status", e);

	if (err) {
		json_decref(o);
		return err;
	}
	json_object_set_new(o, "at", json_integer(v->at));
	json_object_set_new(o, "sample", json_integer(v->sample));
	json_object_set_new(o, "generations", json_integer(v->generations));
	json_object_set_new(o, "records", json_integer(v->records));
	json_object_set_new(o, "bytes", json_integer(v->bytes));
	json_object_set_new(o, "errors", json_integer(v->errors));
	snprintf(name, sizeof(name), "status/%s.verify", vid);
	return save(r, name, o, e);
}

/* The newest are those that something would be built on; the note has room for this many. */
#define DAMAGED_MAX	4096u

void sm_damaged_load(struct sm_repo *r, const char *vid, struct sm_numbers *n)
{
	char name[128];
	json_t *o, *x;
	size_t i;

	memset(n, 0, sizeof(*n));
	snprintf(name, sizeof(name), "status/%s.damaged", vid);
	if (load(r, name, &o, NULL))
		return;
	json_array_foreach(json_object_get(o, "generations"), i, x)
		if (json_integer_value(x) > 0 && json_integer_value(x) <= UINT32_MAX && sm_numbers_add(n, json_integer_value(x)))
			break;
	json_decref(o);
}

int sm_damaged_save(struct sm_repo *r, const char *vid, const struct sm_numbers *n, struct sm_err *e)
{
	json_t *o, *a;
	char name[128];
	int err = make_dir(r, "status", e);

	if (err)
		return err;
	o = json_object();
	a = json_array();
	for (size_t i = n->nr > DAMAGED_MAX ? n->nr - DAMAGED_MAX : 0; i < n->nr; i++)
		json_array_append_new(a, json_integer(n->v[i]));
	json_object_set_new(o, "generations", a);
	snprintf(name, sizeof(name), "status/%s.damaged", vid);
	return save(r, name, o, e);
}

/* ---- locks on generations ---- */

static void keep_name(char name[128], const char *vid, uint32_t number)
{
	snprintf(name, 128, "keep/%s/%010u.json", vid, number);
}

int sm_keep_get(struct sm_repo *r, const char *vid, uint32_t number, uint64_t *until, struct sm_err *e)
{
	char name[128];
	json_t *o;
	int err;

	keep_name(name, vid, number);
	err = load(r, name, &o, e);
	if (err == -ENOENT)
		return 0;
	if (err)
		return err;
	err = sm_json_u64(o, "until", INT64_MAX, until, e);
	json_decref(o);
	return err ? err : 1;
}

int sm_keep_set(struct sm_repo *r, const char *vid, uint32_t number, uint64_t until, struct sm_err *e)
{
	char name[128], dir[64];
	json_t *o;
	int err;

	snprintf(dir, sizeof(dir), "keep/%s", vid);
	if ((err = make_dir(r, "keep", e)) || (err = make_dir(r, dir, e)))
		return err;
	o = json_object();
	json_object_set_new(o, "until", json_integer(until));
	keep_name(name, vid, number);
	return save(r, name, o, e);
}

int sm_keep_clear(struct sm_repo *r, const char *vid, uint32_t number, struct sm_err *e)
{
	char path[PATH_MAX], name[128];

	keep_name(name, vid, number);
	note_path(r, path, name);
	if (unlink(path) && errno != ENOENT)
		return sm_fail(e, -errno, "%s: %s", path, strerror(errno));
	return 0;
}
