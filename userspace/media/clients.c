// SPDX-License-Identifier: GPL-2.0-or-later
#include "clients.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "frame.h"

#define ENTRY_MAX	(64u << 10)
#define FORMAT		"snapdiff-client"

static const struct {
	const char *word;
	uint32_t role;
} role_words[] = {
	{ "backup", SM_ROLE_BACKUP },
	{ "restore", SM_ROLE_RESTORE },
	{ "operator", SM_ROLE_OPERATOR },
	{ "auditor", SM_ROLE_AUDITOR },
};
#define NR_ROLES	(sizeof(role_words) / sizeof(*role_words))

int sm_roles_parse(const char *text, uint32_t *roles)
{
	*roles = 0;
	while (*text) {
		size_t len = strcspn(text, ","), i;

		for (i = 0; i < NR_ROLES; i++)
			if (strlen(role_words[i].word) == len && !strncmp(text, role_words[i].word, len))
				break;
		if (i == NR_ROLES)
			return -EINVAL;
		*roles |= role_words[i].role;
		text += len;
		text += *text == ',';
	}
	return *roles ? 0 : -EINVAL;
}

char *sm_roles_text(uint32_t roles, char text[SM_ROLES_TEXT])
{
	*text = '\0';
	for (size_t i = 0; i < NR_ROLES; i++)
		if (roles & role_words[i].role) {
			strcat(text, *text ? "," : "");
			strcat(text, role_words[i].word);
		}
	return text;
}

static void in_dir(const char *dir, char path[PATH_MAX], const char *name, const char *suffix)
{
	snprintf(path, PATH_MAX, "%.*s/%s%s", PATH_MAX - 128, dir, name, suffix);
}

int sm_server_key(const char *dir, bool make, struct sm_key **k, struct sm_err *e)
{
	char path[PATH_MAX];
	int err;

	in_dir(dir, path, "server.key", "");
	err = sm_key_load(path, k, e);
	if (err != -ENOENT || !make)
		return err;
	err = sm_key_create(path, e);
	return err ? err : sm_key_load(path, k, e);
}

/* ---- entries ---- */

static void entry_path(const char *dir, char path[PATH_MAX], const char *name, const char *suffix)
{
	char part[SM_CLIENT_MAX + 16];

	snprintf(part, sizeof(part), "clients/%s", name);
	in_dir(dir, path, part, suffix);
}

static int parse(const char *text, size_t len, struct sm_registered *c, struct sm_err *e)
{
	json_t *o = sm_json_parse(text, len, ENTRY_MAX, e), *pin;
	char roles[SM_ROLES_TEXT], hex[SM_PIN_TEXT];
	uint64_t version, sessions;
	int err;

	if (!o)
		return -EUCLEAN;
	pin = json_object_get(o, "pin");
	c->has_pin = !json_is_null(pin);
	if ((err = sm_json_u64(o, "version", 1, &version, e)) ||
	    (c->has_pin && (err = sm_json_text(o, "pin", hex, sizeof(hex), e))) ||
	    (err = sm_json_text(o, "roles", roles, sizeof(roles), e)) ||
	    (err = sm_json_u64(o, "quota", INT64_MAX, &c->quota, e)) ||
	    (err = sm_json_u64(o, "max_sessions", UINT32_MAX, &sessions, e)))
		;
	else if ((c->has_pin && sm_pin_parse(hex, c->pin)) || sm_roles_parse(roles, &c->roles))
		err = sm_fail(e, -EUCLEAN, "pin or roles");
	else
		c->max_sessions = sessions;
	json_decref(o);
	return err ? -EUCLEAN : 0;
}

int sm_clients_get(const char *dir, const char *name, struct sm_registered *c, struct sm_err *e)
{
	char path[PATH_MAX], *text;
	struct sm_err why = { 0 };
	ssize_t n;
	int fd, err;

	memset(c, 0, sizeof(*c));
	if (!sm_client_valid(name))
		return sm_fail(e, -EINVAL, "%s: not a client's name", name);
	snprintf(c->name, sizeof(c->name), "%s", name);
	entry_path(dir, path, name, ".json");
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return sm_fail(e, -errno, "client %s: %s", name, errno == ENOENT ? "is not known" : strerror(errno));
	text = malloc(ENTRY_MAX + 1);
	n = text ? sm_read_full(fd, text, ENTRY_MAX + 1) : -ENOMEM;
	close(fd);
	err = n < 0 ? (int)n : parse(text, n, c, &why);
	free(text);
	return err ? sm_fail(e, err, "%s: damaged: %s", path, n < 0 ? strerror(-n) : why.text) : 0;
}

static char *entry_text(const struct sm_registered *c)
{
	char roles[SM_ROLES_TEXT], pin[SM_PIN_TEXT], *text = NULL;
	json_t *o = json_object();

	sm_pin_format(c->pin, pin);
	if (o && !json_object_set_new(o, "format", json_string(FORMAT)) &&
	    !json_object_set_new(o, "version", json_integer(1)) &&
	    !json_object_set_new(o, "pin", c->has_pin ? json_string(pin) : json_null()) &&
	    !json_object_set_new(o, "roles", json_string(sm_roles_text(c->roles, roles))) &&
	    !json_object_set_new(o, "quota", json_integer(c->quota)) &&
	    !json_object_set_new(o, "max_sessions", json_integer(c->max_sessions)))
		text = sm_json_canonical(o);
	json_decref(o);
	return text;
}

static int write_entry(const char *dir, const struct sm_registered *c, bool replace, struct sm_err *e)
{
	char path[PATH_MAX], *text = entry_text(c);
	int err;

	if (!text)
		return sm_fail(e, -ENOMEM, "no memory");
	entry_path(dir, path, c->name, ".json");
	err = sm_save_file(path, text, !replace, e);
	free(text);
	return err == -EEXIST ? sm_fail(e, err, "client %s: is known already", c->name) : err;
}

/* One who registers at a time: no pin gets two names. */
static int lock_clients(const char *dir, struct sm_err *e)
{
	char path[PATH_MAX];
	int fd, err;

	in_dir(dir, path, "clients", "");
	err = sm_mkdir_durable(path, e);
	if (err)
		return err;
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0 && !flock(fd, LOCK_EX))
		return fd;
	err = -errno;
	if (fd >= 0)
		close(fd);
	return sm_fail(e, err, "%s: cannot lock: %s", path, strerror(-err));
}

int sm_clients_put(const char *dir, const struct sm_registered *c, bool replace, struct sm_err *e)
{
	struct sm_registered other;
	int lock, err = 0;

	if (!sm_client_valid(c->name))
		return sm_fail(e, -EINVAL, "%s: letters, digits, dot, dash, underscore, 63 at most", c->name);
	lock = lock_clients(dir, e);
	if (lock < 0)
		return lock;
	if (c->has_pin && !sm_clients_find(dir, c->pin, &other, NULL) && strcmp(other.name, c->name))
		err = sm_fail(e, -EEXIST, "this pin is client %s's already", other.name);
	if (!err)
		err = write_entry(dir, c, replace, e);
	close(lock);
	return err;
}

int sm_clients_remove(const char *dir, const char *name, struct sm_err *e)
{
	char path[PATH_MAX], all[PATH_MAX];

	if (!sm_client_valid(name))
		return sm_fail(e, -EINVAL, "%s: not a client's name", name);
	entry_path(dir, path, name, ".json");
	in_dir(dir, all, "clients", "");
	if (unlink(path))
		return sm_fail(e, -errno, "client %s: %s", name, errno == ENOENT ? "is not known" : strerror(errno));
	return sm_fsync_dir(all, e);
}

/* ---- all of them ---- */

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct sm_registered *)a)->name, ((const struct sm_registered *)b)->name);
}

int sm_clients_list(const char *dir, struct sm_registered **out, size_t *out_nr, struct sm_err *e)
{
	struct sm_registered *v = NULL;
	char path[PATH_MAX];
	struct dirent *de;
	size_t nr = 0;
	int err = 0;
	DIR *d;

	in_dir(dir, path, "clients", "");
	d = opendir(path);
	if (!d && errno != ENOENT)
		return sm_fail(e, -errno, "%s: %s", path, strerror(errno));
	while (d && !err && (de = readdir(d))) {
		size_t len = strlen(de->d_name);
		char name[SM_CLIENT_MAX];
		void *more;

		if (len < 6 || len - 5 >= sizeof(name) || strcmp(de->d_name + len - 5, ".json"))
			continue;
		snprintf(name, sizeof(name), "%.*s", (int)len - 5, de->d_name);
		more = realloc(v, (nr + 1) * sizeof(*v));
		if (!more) {
			err = sm_fail(e, -ENOMEM, "no memory");
			break;
		}
		v = more;
		if (!sm_clients_get(dir, name, &v[nr], NULL))
			nr++;
	}
	if (d)
		closedir(d);
	if (err) {
		free(v);
		return err;
	}
	if (nr)
		qsort(v, nr, sizeof(*v), by_name);
	*out = v;
	*out_nr = nr;
	return 0;
}

int sm_clients_find(const char *dir, const uint8_t pin[SM_DIGEST], struct sm_registered *c, struct sm_err *e)
{
	struct sm_registered *v;
	size_t nr, i;
	int err = sm_clients_list(dir, &v, &nr, e);

	if (err)
		return err;
	for (i = 0; i < nr; i++)
		if (v[i].has_pin && !memcmp(v[i].pin, pin, SM_DIGEST))
			break;
	if (i < nr)
		*c = v[i];
	free(v);
	return i < nr ? 0 : sm_fail(e, -ENOENT, "no client has this pin");
}

/* ---- sessions ---- */

#define HANDSHAKE_MS	10000

struct who {
	const char *dir;
	struct sm_registered *client;
	bool found;
};

static bool known(const uint8_t pin[SM_DIGEST], void *arg)
{
	struct who *w = arg;

	w->found = !sm_clients_find(w->dir, pin, w->client, NULL);
	return w->found;
}

int sm_clients_accept(const char *dir, const struct sm_key *key, struct sm_chan *chan, struct sm_registered *client, struct sm_err *e)
{
	struct who w = { .dir = dir, .client = client };
	int err = sm_tls_accept(&chan->tls, chan->in, key, known, &w, HANDSHAKE_MS, e);

	if (!err && !w.found)	/* cannot be: a handshake without a known key fails */
		err = sm_fail(e, -EACCES, "no client");
	return err;
}

int sm_clients_slot(const char *dir, const char *client, uint32_t max, struct sm_err *e)
{
	for (uint32_t i = 0; i < max; i++) {
		char path[PATH_MAX];
		int fd;

		snprintf(path, sizeof(path), "%.*s/locks/session.%s.%u", PATH_MAX - 128, dir, client, i);
		fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0600);
		if (fd < 0)
			return sm_fail(e, -errno, "%s: %s", path, strerror(errno));
		if (!flock(fd, LOCK_EX | LOCK_NB))
			return fd;
		close(fd);
	}
	return sm_fail(e, -EBUSY, "client %s has %u sessions, its limit", client, max);
}
