// SPDX-License-Identifier: GPL-2.0-or-later
#include "index.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC		"SDIDX\1\0"
#define ENTRIES_MAX	(1u << 20)

/* The file: header, entries by number. Only ever read by the machine that wrote it; little-endian all the same. */
struct file_header {
	char magic[8];
	uint64_t nr;
	uint8_t digest[SM_DIGEST];	/* SHA-256 of the entries */
} __attribute__((packed));

struct file_entry {
	uint64_t stamp[3];
	uint64_t number, sequence, received, stored_bytes;
	uint8_t uuid[SM_UUID], hash[SM_DIGEST];
} __attribute__((packed));

static void cache_path(const struct sm_repo *r, char path[PATH_MAX], const char *vid)
{
	snprintf(path, PATH_MAX, "%.*s/cache/%s.index", PATH_MAX - 128, r->path, vid);
}

/* What the cache has; nothing at all when it is not there or not whole. */
static struct file_entry *load_cache(const struct sm_repo *r, const char *vid, size_t *nr)
{
	struct file_entry *v = NULL;
	struct file_header h;
	char path[PATH_MAX];
	uint8_t digest[SM_DIGEST];
	int fd;

	*nr = 0;
	cache_path(r, path, vid);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return NULL;
	if (sm_read_full(fd, &h, sizeof(h)) == sizeof(h) && !memcmp(h.magic, MAGIC, 8) && le64toh(h.nr) <= ENTRIES_MAX) {
		size_t len = le64toh(h.nr) * sizeof(*v);

		v = malloc(len + 1);
		if (v && sm_read_full(fd, v, len + 1) == (ssize_t)len) {
			sm_sha256(v, len, digest);
			if (!memcmp(digest, h.digest, SM_DIGEST))
				*nr = le64toh(h.nr);
		}
	}
	close(fd);
	return v;
}

/* No sync: a cache that is torn is known by its digest. */
static void save_cache(const struct sm_repo *r, const char *vid, const struct file_entry *v, size_t nr)
{
	char path[PATH_MAX], tmp[PATH_MAX + 8];
	struct file_header h = { .nr = htole64(nr) };
	int fd, err;

	snprintf(path, sizeof(path), "%.*s/cache", PATH_MAX - 128, r->path);
	mkdir(path, 0700);
	cache_path(r, path, vid);
	snprintf(tmp, sizeof(tmp), "%s.XXXXXX", path);
	memcpy(h.magic, MAGIC, 8);
	sm_sha256(v, nr * sizeof(*v), h.digest);
	fd = mkostemp(tmp, O_CLOEXEC);
	if (fd < 0)
		return;
	err = sm_write_full(fd, &h, sizeof(h));
	if (!err)
		err = sm_write_full(fd, v, nr * sizeof(*v));
	close(fd);
	if (err || rename(tmp, path))
		unlink(tmp);
}

static int read_manifest(struct sm_repo *r, const char *vid, uint32_t number, struct file_entry *x, struct sm_err *e)
{
	struct sm_generation g;
	int err = sm_repo_generation(r, vid, number, &g, e);

	if (err)
		return err;
	x->number = htole64(number);
	x->sequence = htole64(g.sequence);
	x->received = htole64(g.received);
	x->stored_bytes = htole64(g.stored_bytes);
	memcpy(x->uuid, g.manifest.info.uuid, SM_UUID);
	memcpy(x->hash, g.hash, SM_DIGEST);
	sm_generation_done(&g);
	return 0;
}

static void take(struct sm_brief *b, const struct file_entry *x)
{
	b->number = le64toh(x->number);
	b->sequence = le64toh(x->sequence);
	b->received = le64toh(x->received);
	b->stored_bytes = le64toh(x->stored_bytes);
	memcpy(b->uuid, x->uuid, SM_UUID);
	memcpy(b->hash, x->hash, SM_DIGEST);
}

/* Both lists ascend: one pass. @fresh gets what the cache should be. */
static int merge(struct sm_repo *r, const char *vid, const struct sm_numbers *n, const struct file_entry *old, size_t nr_old,
		 struct file_entry *fresh, struct sm_briefs *b, struct sm_err *e)
{
	const struct sm_store_ops *ops = r->store->ops;
	size_t k = 0;

	for (size_t i = 0; i < n->nr; i++) {
		struct file_entry *x = &fresh[b->nr];
		uint64_t stamp[3];
		char key[SM_KEY_MAX];
		int err;

		sm_key_manifest(key, vid, n->v[i]);
		err = ops->stamp ? ops->stamp(r->store, key, stamp) : 0;
		if (err == -ENOENT)
			continue;	/* pruned since the directory was read */
		while (k < nr_old && le64toh(old[k].number) < n->v[i])
			k++;
		if (!err && ops->stamp && k < nr_old && le64toh(old[k].number) == n->v[i] &&
		    !memcmp(stamp, old[k].stamp, sizeof(stamp))) {
			*x = old[k];
		} else {
			err = read_manifest(r, vid, n->v[i], x, e);
			if (sm_manifest_lost(err))
				err = sm_numbers_add(&b->damaged, n->v[i]) ? sm_fail(e, -ENOMEM, "no memory") : -ENOENT;
			if (err == -ENOENT)
				continue;
			if (err)
				return err;
			memcpy(x->stamp, stamp, sizeof(stamp));
			b->read++;
		}
		take(&b->v[b->nr++], x);
	}
	return 0;
}

int sm_briefs_load(struct sm_repo *r, const char *vid, struct sm_briefs *b, struct sm_err *e)
{
	struct file_entry *old, *fresh = NULL;
	struct sm_numbers n;
	size_t nr_old;
	int err;

	memset(b, 0, sizeof(*b));
	err = sm_repo_numbers(r, vid, &n, e);
	old = load_cache(r, vid, &nr_old);
	if (!err) {
		b->v = calloc(n.nr + 1, sizeof(*b->v));
		fresh = calloc(n.nr + 1, sizeof(*fresh));
		err = b->v && fresh ? merge(r, vid, &n, old, nr_old, fresh, b, e) : sm_fail(e, -ENOMEM, "no memory");
	}
	if (!err && r->store->ops->stamp && (b->read || b->nr != nr_old))
		save_cache(r, vid, fresh, b->nr);
	free(n.v);
	free(old);
	free(fresh);
	if (err)
		sm_briefs_free(b);
	return err;
}

void sm_briefs_free(struct sm_briefs *b)
{
	free(b->v);
	free(b->damaged.v);
	memset(b, 0, sizeof(*b));
}

void sm_briefs_forget(struct sm_briefs *b, const struct sm_brief *x)
{
	size_t i = x - b->v;

	memmove(&b->v[i], &b->v[i + 1], (--b->nr - i) * sizeof(*b->v));
}

const struct sm_brief *sm_briefs_newest(const struct sm_briefs *b)
{
	const struct sm_brief *last = NULL;

	for (size_t i = 0; i < b->nr; i++)
		if (!last || b->v[i].sequence > last->sequence)
			last = &b->v[i];
	return last;
}

void sm_briefs_drop(struct sm_repo *r, const char *vid)
{
	char path[PATH_MAX];

	cache_path(r, path, vid);
	unlink(path);
}
