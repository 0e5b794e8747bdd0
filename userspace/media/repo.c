// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The repository's frame: opening it, its names, and its list of generations.
 *
 * A manifest object is three lines: the client's manifest (its SHA-256 is the generation's name for
 * increments), the server's record, and the SHA-256 of the two lines with their line ends.
 */
#include "index.h"
#include "keep.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define REPO_FORMAT	"snapdiff-repository"
#define RECORD_FORMAT	"snapdiff-server-record"
#define OBJECT_MAX	(1u << 20)
#define SEGMENTS_MAX	1024u

void sm_key_pack(char key[SM_KEY_MAX], const char *vid, const uint8_t id[SM_DIGEST])
{
	char hex[SM_DIGEST_HEX];

	sm_hex(id, SM_DIGEST, hex);
	snprintf(key, SM_KEY_MAX, "volumes/%s/packs/%s.pack", vid, hex);
}

void sm_key_map(char key[SM_KEY_MAX], const char *vid, const uint8_t id[SM_DIGEST])
{
	char hex[SM_DIGEST_HEX];

	sm_hex(id, SM_DIGEST, hex);
	snprintf(key, SM_KEY_MAX, "volumes/%s/maps/%s.map", vid, hex);
}

void sm_key_manifest(char key[SM_KEY_MAX], const char *vid, uint32_t number)
{
	snprintf(key, SM_KEY_MAX, "volumes/%s/manifests/%010u.manifest", vid, number);
}

bool sm_client_valid(const char *c)
{
	size_t n = strlen(c);

	if (!n || n >= SM_CLIENT_MAX || c[0] == '.' || c[0] == '-')
		return false;
	return strspn(c, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == n;
}

void sm_volume_id(const char *client, const uint8_t volume[SM_UUID], char vid[SM_VID_TEXT])
{
	uint8_t digest[SM_DIGEST];
	struct sm_sha s;

	sm_sha_init(&s);
	sm_sha_update(&s, "snapdiff-volume", 16);
	sm_sha_update(&s, client, strlen(client) + 1);
	sm_sha_update(&s, volume, SM_UUID);
	sm_sha_final(&s, digest);
	sm_hex(digest, 16, vid);
}

/* ---- the repository itself ---- */

int sm_repo_make_dirs(const char *path, struct sm_err *e)
{
	static const char *const sub[] = SM_REPO_DIRS;
	char p[PATH_MAX + 16];

	for (size_t i = 0; i < sizeof(sub) / sizeof(*sub); i++) {
		int err;

		snprintf(p, sizeof(p), "%s/%s", path, sub[i]);
		err = sm_mkdir_durable(p, e);
		if (err)
			return err;
	}
	return 0;
}

static char *repo_text(void)
{
	json_t *o = json_object();
	uint8_t uuid[SM_UUID];
	char *text = NULL;

	if (o && !sm_random(uuid, SM_UUID) && !json_object_set_new(o, "format", json_string(REPO_FORMAT)) &&
	    !json_object_set_new(o, "version", json_integer(1)) && !sm_json_set_uuid(o, "uuid", uuid) &&
	    !json_object_set_new(o, "features", json_array()))
		text = sm_json_canonical(o);
	json_decref(o);
	return text;
}

static bool ours(const char *name)
{
	static const char *const sub[] = SM_REPO_DIRS;

	for (size_t i = 0; i < sizeof(sub) / sizeof(*sub); i++)
		if (!strcmp(name, sub[i]))
			return true;
	return false;
}

/* Nothing but what an earlier try of ours may have left. */
static int check_empty(const char *path, struct sm_err *e)
{
	DIR *d = opendir(path);
	struct dirent *de;
	int err = 0;

	if (!d)
		return sm_fail(e, -errno, "%s: %s", path, strerror(errno));
	while (!err && (de = readdir(d)))
		if (strcmp(de->d_name, ".") && strcmp(de->d_name, "..") && strcmp(de->d_name, "lost+found") && !ours(de->d_name))
			err = strcmp(de->d_name, "repository.json") ?
			      sm_fail(e, -ENOTEMPTY, "%s: is not empty", path) :
			      sm_fail(e, -EEXIST, "%s: is a repository already", path);
	closedir(d);
	return err;
}

int sm_repo_init(const char *path, struct sm_err *e)
{
	char tmp[PATH_MAX + 16];
	struct sm_store *s;
	char *text;
	int err;

	snprintf(tmp, sizeof(tmp), "%s/tmp", path);
	if ((err = sm_mkdir_durable(path, e)) || (err = check_empty(path, e)) || (err = sm_repo_make_dirs(path, e)) ||
	    (err = sm_store_dir(path, tmp, &s, e)))
		return err;
	text = repo_text();
	err = text ? s->ops->put(s, "repository.json", text, strlen(text), e) : sm_fail(e, -ENOMEM, "no memory");
	if (err == -EEXIST)
		sm_fail(e, err, "%s: is a repository already", path);
	free(text);
	s->ops->free(s);
	if (!err) {
		struct sm_repo r = { .store = NULL };

		snprintf(r.path, sizeof(r.path), "%s", path);
		sm_ballast_make(&r);
	}
	return err;
}

static int read_repo_file(struct sm_repo *r, struct sm_err *e)
{
	const char *format;
	struct sm_store *s;
	uint64_t version;
	json_t *o;
	char *text;
	size_t len;
	int err;

	if ((err = sm_store_dir(r->path, r->path, &s, e)))
		return err;
	err = sm_store_get(s, "repository.json", OBJECT_MAX, &text, &len, e);
	s->ops->free(s);
	if (err)
		return sm_fail(e, err, "%s: not a repository%s%s", r->path, err == -ENOENT ? "" : ": ",
			       err == -ENOENT ? "" : strerror(-err));
	o = sm_json_parse(text, len, OBJECT_MAX, e);
	free(text);
	format = json_string_value(json_object_get(o, "format"));
	if (!o || !format || strcmp(format, REPO_FORMAT))
		err = sm_fail(e, -EUCLEAN, "%s/repository.json: not a repository's", r->path);
	else if ((err = sm_json_u64(o, "version", UINT32_MAX, &version, e)) || version != 1)
		err = sm_fail(e, -EUCLEAN, "%s/repository.json: unknown version", r->path);
	else if (json_array_size(json_object_get(o, "features")))
		err = sm_fail(e, -EUCLEAN, "%s: has features that this program does not know", r->path);
	else
		err = sm_json_uuid(o, "uuid", r->uuid, e);
	json_decref(o);
	return err;
}

int sm_repo_open(const char *path, struct sm_repo *r, struct sm_err *e)
{
	char objects[PATH_MAX + 16], tmp[PATH_MAX + 16];
	int err;

	memset(r, 0, sizeof(*r));
	if (!realpath(path, r->path))
		return sm_fail(e, -errno, "%s: %s", path, strerror(errno));
	err = read_repo_file(r, e);
	if (err)
		return err;
	snprintf(objects, sizeof(objects), "%s/objects", r->path);
	snprintf(tmp, sizeof(tmp), "%s/tmp", r->path);
	return sm_store_dir(objects, tmp, &r->store, e);
}

void sm_repo_tmp(const struct sm_repo *r, char path[PATH_MAX])
{
	snprintf(path, PATH_MAX, "%.*s/tmp", PATH_MAX - 8, r->path);
}

void sm_repo_close(struct sm_repo *r)
{
	if (r->store)
		r->store->ops->free(r->store);
	r->store = NULL;
}

/* ---- manifest objects ---- */

static json_t *segments_json(const struct sm_generation *g)
{
	json_t *a = json_array();

	for (uint32_t i = 0; a && i < g->nr_segments; i++) {
		json_t *o = json_object();

		sm_json_set_hex(o, "id", g->segments[i].id, SM_DIGEST);
		json_object_set_new(o, "entries", json_integer(g->segments[i].entries));
		json_array_append_new(a, o);
	}
	return a;
}

static char *record_text(const struct sm_generation *g)
{
	json_t *o = json_object();
	char *text = NULL;

	if (o && !json_object_set_new(o, "format", json_string(RECORD_FORMAT)) &&
	    !json_object_set_new(o, "version", json_integer(1)) && !sm_json_set_text(o, "client", g->client) &&
	    !sm_json_set_hex(o, "manifest", g->hash, SM_DIGEST) &&
	    !json_object_set_new(o, "sequence", json_integer(g->sequence)) &&
	    !json_object_set_new(o, "received", json_integer(g->received)) &&
	    !json_object_set_new(o, "stored_bytes", json_integer(g->stored_bytes)) &&
	    !json_object_set_new(o, "packs", json_integer(g->packs)) &&
	    !sm_json_set_uuid(o, "upload", g->upload) && !json_object_set_new(o, "map", segments_json(g)))
		text = sm_json_canonical(o);
	json_decref(o);
	return text;
}

char *sm_generation_text(const struct sm_generation *g, const char *manifest)
{
	char *record = record_text(g), *both = NULL, *all = NULL, hex[SM_DIGEST_HEX];
	uint8_t digest[SM_DIGEST];

	if (record && asprintf(&both, "%s\n%s\n", manifest, record) >= 0) {
		sm_sha256(both, strlen(both), digest);
		sm_hex(digest, SM_DIGEST, hex);
		if (asprintf(&all, "%s%s\n", both, hex) < 0)
			all = NULL;
		free(both);
	}
	free(record);
	return all;
}

static int parse_segments(const json_t *a, struct sm_generation *g, struct sm_err *e)
{
	size_t nr = json_array_size(a);

	if (!json_is_array(a) || nr > SEGMENTS_MAX)
		return sm_fail(e, -EPROTO, "\"map\" is not a list");
	g->segments = calloc(nr + 1, sizeof(*g->segments));
	if (!g->segments)
		return sm_fail(e, -ENOMEM, "no memory");
	for (size_t i = 0; i < nr; i++) {
		const json_t *o = json_array_get(a, i);
		int err;

		if ((err = sm_json_digest(o, "id", g->segments[i].id, e)) ||
		    (err = sm_json_u64(o, "entries", INT64_MAX, &g->segments[i].entries, e)))
			return err;
	}
	g->nr_segments = nr;
	return 0;
}

static int parse_record(const char *text, size_t len, struct sm_generation *g, struct sm_err *e)
{
	json_t *o = sm_json_parse(text, len, OBJECT_MAX, e);
	uint8_t hash[SM_DIGEST];
	uint64_t version;
	int err;

	if (!o)
		return -EPROTO;
	if ((err = sm_json_u64(o, "version", 1, &version, e)) ||
	    (err = sm_json_text(o, "client", g->client, sizeof(g->client), e)) ||
	    (err = sm_json_digest(o, "manifest", hash, e)) ||
	    (err = sm_json_u64(o, "sequence", INT64_MAX, &g->sequence, e)) ||
	    (err = sm_json_u64(o, "received", INT64_MAX, &g->received, e)) ||
	    (err = sm_json_u64(o, "stored_bytes", INT64_MAX, &g->stored_bytes, e)) ||
	    (err = sm_json_u64(o, "packs", INT64_MAX, &g->packs, e)) ||
	    (err = sm_json_uuid(o, "upload", g->upload, e)))
		;
	else if (memcmp(hash, g->hash, SM_DIGEST))
		err = sm_fail(e, -EPROTO, "the record is of another manifest");
	else
		err = parse_segments(json_object_get(o, "map"), g, e);
	json_decref(o);
	return err;
}

/* Take an object apart; every byte of it is under the digest in its last line. */
static int parse_object(char *text, size_t len, struct sm_generation *g, struct sm_err *e)
{
	char *record = memchr(text, '\n', len), *check, hex[SM_DIGEST_HEX];
	uint8_t digest[SM_DIGEST];
	int err;

	record = record ? record + 1 : NULL;
	check = record ? memchr(record, '\n', text + len - record) : NULL;
	check = check ? check + 1 : NULL;
	if (!check || text + len - check != SM_DIGEST_HEX || text[len - 1] != '\n')
		return sm_fail(e, -EPROTO, "not three lines");
	sm_sha256(text, check - text, digest);
	sm_hex(digest, SM_DIGEST, hex);
	if (memcmp(hex, check, SM_DIGEST_HEX - 1))
		return sm_fail(e, -EPROTO, "digest wrong");
	sm_sha256(text, record - 1 - text, g->hash);
	err = sm_manifest_parse(text, record - 1 - text, &g->manifest, e);
	return err ? err : parse_record(record, check - 1 - record, g, e);
}

int sm_repo_generation(struct sm_repo *r, const char *vid, uint32_t number, struct sm_generation *g,
		       struct sm_err *e)
{
	char key[SM_KEY_MAX], *text, own[SM_VID_TEXT];
	struct sm_err why = { 0 };
	size_t len;
	int err;

	memset(g, 0, sizeof(*g));
	snprintf(g->vid, sizeof(g->vid), "%s", vid);
	sm_key_manifest(key, vid, number);
	err = sm_store_get(r->store, key, OBJECT_MAX, &text, &len, e);
	if (err)
		return err == -ENOENT ? sm_fail(e, err, "generation %u is not there", number) : err;
	err = parse_object(text, len, g, &why);
	free(text);
	if (!err) {
		sm_volume_id(g->client, g->manifest.info.volume, own);
		if (g->manifest.info.number == number && !strcmp(own, vid))
			return 0;
		sm_fail(&why, -EPROTO, "it is of another generation or volume");
	}
	sm_generation_done(g);
	return sm_fail(e, err == -ENOMEM ? err : -EUCLEAN, "%s: damaged manifest: %s", key, why.text);
}

void sm_generation_done(struct sm_generation *g)
{
	free(g->segments);
	g->segments = NULL;
	g->nr_segments = 0;
}

/* ---- lists ---- */

int sm_numbers_add(struct sm_numbers *n, uint32_t number)
{
	if (n->nr == n->room) {
		size_t room = n->room ? 2 * n->room : 64;
		void *v = realloc(n->v, room * sizeof(*n->v));

		if (!v)
			return -ENOMEM;
		n->v = v;
		n->room = room;
	}
	n->v[n->nr++] = number;
	return 0;
}

bool sm_numbers_have(const struct sm_numbers *n, uint32_t number)
{
	for (size_t i = 0; i < n->nr; i++)
		if (n->v[i] == number)
			return true;
	return false;
}

static int add_number(const char *name, void *arg)
{
	unsigned int number;
	char tail;

	if (sscanf(name, "%10u.manifes%c", &number, &tail) != 2 || strlen(name) != 19)
		return 0;
	return sm_numbers_add(arg, number);
}

static int by_number(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

int sm_repo_numbers(struct sm_repo *r, const char *vid, struct sm_numbers *n, struct sm_err *e)
{
	char prefix[SM_KEY_MAX];
	int err;

	memset(n, 0, sizeof(*n));
	snprintf(prefix, sizeof(prefix), "volumes/%s/manifests", vid);
	err = r->store->ops->list(r->store, prefix, add_number, n, e);
	if (!err && n->nr)
		qsort(n->v, n->nr, sizeof(*n->v), by_number);
	return err;
}

int sm_repo_generations(struct sm_repo *r, const char *vid, struct sm_generations *g, struct sm_err *e)
{
	struct sm_numbers n;
	int err;

	memset(g, 0, sizeof(*g));
	err = sm_repo_numbers(r, vid, &n, e);
	if (!err)
		g->v = calloc(n.nr + 1, sizeof(*g->v));
	if (!err && !g->v)
		err = sm_fail(e, -ENOMEM, "no memory");
	for (size_t i = 0; !err && i < n.nr; i++) {
		struct sm_err why;

		err = sm_repo_generation(r, vid, n.v[i], &g->v[g->nr], &why);
		if (!err) {
			g->nr++;
		} else if (err == -ENOENT) {	/* pruned since the directory was read */
			err = 0;
		} else if (sm_manifest_lost(err)) {
			if (!g->damaged.nr)
				g->why = why;
			err = sm_numbers_add(&g->damaged, n.v[i]) ? sm_fail(e, -ENOMEM, "no memory") : 0;
		} else if (e) {
			*e = why;
		}
	}
	free(n.v);
	if (err)
		sm_generations_free(g);
	return err;
}

int sm_generations_whole(const struct sm_generations *g, struct sm_err *e)
{
	char more[64] = "";

	if (!g->damaged.nr)
		return 0;
	if (g->damaged.nr > 1)
		snprintf(more, sizeof(more), " (and %zu more)", g->damaged.nr - 1);
	return sm_fail(e, -EUCLEAN, "%.400s%s", g->why.text, more);
}

void sm_generations_free(struct sm_generations *g)
{
	for (size_t i = 0; i < g->nr; i++)
		sm_generation_done(&g->v[i]);
	free(g->v);
	free(g->damaged.v);
	memset(g, 0, sizeof(*g));
}

int sm_generations_segments(const struct sm_generations *g, uint8_t (**ids)[SM_DIGEST], size_t *nr, struct sm_err *e)
{
	size_t n = 0;

	for (size_t i = 0; i < g->nr; i++)
		n += g->v[i].nr_segments;
	*nr = 0;
	*ids = malloc((n + 1) * SM_DIGEST);
	if (!*ids)
		return sm_fail(e, -ENOMEM, "no memory");
	for (size_t i = 0; i < g->nr; i++)
		for (uint32_t k = 0; k < g->v[i].nr_segments; k++)
			memcpy((*ids)[(*nr)++], g->v[i].segments[k].id, SM_DIGEST);
	qsort(*ids, n, SM_DIGEST, sm_by_digest);
	return 0;
}

struct vids {
	struct sm_repo *r;
	const char *client;
	char (*v)[SM_VID_TEXT];
	size_t nr;
	struct sm_err *e;
};

static int read_client(struct sm_repo *r, const char *vid, char client[SM_CLIENT_MAX], struct sm_err *e)
{
	char key[SM_KEY_MAX], *text;
	size_t len;
	json_t *o;
	int err;

	snprintf(key, sizeof(key), "volumes/%s/volume.json", vid);
	err = sm_store_get(r->store, key, OBJECT_MAX, &text, &len, e);
	if (err)
		return err;
	o = sm_json_parse(text, len, OBJECT_MAX, NULL);
	free(text);
	err = o ? sm_json_text(o, "client", client, SM_CLIENT_MAX, NULL) : -EUCLEAN;
	json_decref(o);
	return err ? sm_fail(e, -EUCLEAN, "%s: damaged", key) : 0;
}

/* Damage in one volume must not keep the others' clients out: every manifest names the client, too. -ENOENT: nobody's, as far as can be read. */
static int find_client(struct sm_repo *r, const char *vid, char client[SM_CLIENT_MAX], struct sm_err *e)
{
	int err = read_client(r, vid, client, e);
	struct sm_generations g;

	if (!sm_manifest_lost(err))
		return err;
	err = sm_repo_generations(r, vid, &g, e);
	if (!err && g.nr)
		snprintf(client, SM_CLIENT_MAX, "%s", g.v[0].client);
	else if (!err)
		err = -ENOENT;
	sm_generations_free(&g);
	return err;
}

static int volume_of(struct vids *x, const char *vid, bool *mine)
{
	char client[SM_CLIENT_MAX];
	int err = x->client ? find_client(x->r, vid, client, x->e) : 0;

	*mine = !err && (!x->client || !strcmp(client, x->client));
	return err == -ENOENT ? 0 : err;
}

static int add_vid(const char *name, void *arg)
{
	struct vids *x = arg;
	uint8_t id[16];
	bool mine;
	void *v;
	int err;

	if (sm_unhex(name, id, sizeof(id)))
		return 0;
	err = volume_of(x, name, &mine);
	if (err || !mine)
		return err;
	v = realloc(x->v, (x->nr + 1) * sizeof(*x->v));
	if (!v)
		return -ENOMEM;
	x->v = v;
	snprintf(x->v[x->nr++], SM_VID_TEXT, "%s", name);
	return 0;
}

static int by_vid(const void *a, const void *b)
{
	return strcmp(a, b);
}

int sm_repo_volumes(struct sm_repo *r, const char *client, char (**vids)[SM_VID_TEXT], size_t *nr,
		    struct sm_err *e)
{
	struct vids x = { .r = r, .client = client, .e = e };
	int err = r->store->ops->list(r->store, "volumes", add_vid, &x, e);

	if (err) {
		free(x.v);
		return err;
	}
	if (x.nr)
		qsort(x.v, x.nr, sizeof(*x.v), by_vid);
	*vids = x.v;
	*nr = x.nr;
	return 0;
}

/* Does the volume have this name (of its latest generation that can be read) or uuid? 1 yes, 0 no, -errno. */
static int volume_is(struct sm_repo *r, const char *vid, const char *which, struct sm_err *e)
{
	const struct sm_brief *last;
	struct sm_generation g;
	struct sm_briefs b;
	char uuid[SM_UUID_TEXT];
	int err = sm_briefs_load(r, vid, &b, e), yes;

	if (err)
		return err;
	yes = !which && b.damaged.nr;
	while ((last = sm_briefs_newest(&b))) {
		err = sm_repo_generation(r, vid, last->number, &g, e);
		if (!err) {
			sm_uuid_format(g.manifest.info.volume, uuid);
			yes = !which || !strcmp(which, g.manifest.info.volume_name) || !strcasecmp(which, uuid);
			sm_generation_done(&g);
			break;
		}
		if (err != -ENOENT && !sm_manifest_lost(err))
			break;
		err = 0;
		sm_briefs_forget(&b, last);
	}
	sm_briefs_free(&b);
	return err ? err : yes;
}

int sm_repo_find(struct sm_repo *r, const char *client, const char *which, char vid[SM_VID_TEXT],
		 struct sm_err *e)
{
	char (*vids)[SM_VID_TEXT];
	size_t nr, found = 0;
	int err = sm_repo_volumes(r, client, &vids, &nr, e);

	if (err)
		return err;
	for (size_t i = 0; i < nr && err >= 0; i++) {
		err = volume_is(r, vids[i], which, e);
		if (err > 0 && !found++)
			memcpy(vid, vids[i], SM_VID_TEXT);
	}
	free(vids);
	if (err < 0)
		return err;
	if (found > 1)
		return sm_fail(e, -EINVAL, "%s: there are several such volumes, say which by uuid", which ? which : "volume");
	if (!found)
		return sm_fail(e, -ENOENT, "%s: there is no such volume", which ? which : "volume");
	return 0;
}
