// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Publishing an upload.
 *
 *   1  seal the last pack; compare what arrived with the manifest          (nothing visible)
 *   2  under the volume's lock: look again for the parent and for rivals
 *   3  store packs, then the map segment, then the proof                   (objects that nothing refers to)
 *   4  put the manifest object, if absent                                  ← the commit
 *   5  remove the staging directory
 *
 * A crash before 4 leaves the generation not there: the upload is taken up again, and what 3 has stored
 * is stored once more under the same names, which is no change. A crash after 4 leaves it complete; what remains of
 * the staging directory is removed when the client comes back or by expiry.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "upload_internal.h"

static int by_start(const void *a, const void *b)
{
	const struct sm_entry *x = a, *y = b;

	return x->start < y->start ? -1 : x->start > y->start;
}

static int by_first(const void *a, const void *b)
{
	const struct upload_leaf *x = a, *y = b;

	return x->first < y->first ? -1 : x->first > y->first;
}

/* A client that sends in order costs no sort. */
static void sort_spill(struct sm_spill *s, int (*cmp)(const void *, const void *))
{
	for (size_t i = 1; i < s->nr; i++)
		if (cmp(sm_spill_at(s, i - 1), sm_spill_at(s, i)) > 0) {
			qsort(s->map, s->nr, s->elem, cmp);
			return;
		}
}

struct sums {
	struct sm_range_hash all;
	struct sm_map_hash map;
	uint64_t last_start, last_end;	/* of the last joined range */
};

static int sum_entries(struct sm_upload *u, struct sums *s, struct sm_err *e)
{
	for (size_t i = 0; i < u->entries.nr; i++) {
		const struct sm_entry *x = sm_spill_at(&u->entries, i);
		uint64_t offset = x->start * SM_BLOCK, end = offset + (uint64_t)x->count * SM_BLOCK;

		if (end > u->info.size)
			end = u->info.size;
		if (sm_range_hash_add(&s->all, offset, end - offset) ||
		    (x->pack == SM_ZERO_PACK && sm_map_hash_zero(&s->map, offset, end - offset)))
			return sm_fail(e, -EPROTO, "extents overlap at offset %llu", (unsigned long long)offset);
	}
	s->last_start = s->all.start;
	s->last_end = s->all.end;
	for (size_t i = 0; i < u->leaves.nr; i++) {
		const struct upload_leaf *l = sm_spill_at(&u->leaves, i);

		if (sm_map_hash_data(&s->map, l->first, l->digest))
			return sm_fail(e, -EPROTO, "frames overlap at offset %llu", (unsigned long long)l->first);
	}
	return 0;
}

/* What grew since the parent has no older content: it must have been sent, from the block with the parent's last byte. */
static bool tail_covered(const struct sm_upload *u, const struct sums *s)
{
	uint64_t old = u->info.has_parent ? u->parent.manifest.info.size : 0;

	if (u->info.size <= old)
		return true;
	return s->last_end == u->info.size && s->last_start <= old / SM_BLOCK * SM_BLOCK;
}

static bool same_info(const struct sm_gen_info *a, const struct sm_gen_info *b)
{
	json_t *x = sm_gen_info_json(a), *y = sm_gen_info_json(b);
	bool same = x && y && json_equal(x, y);

	json_decref(x);
	json_decref(y);
	return same;
}

static int compare(struct sm_upload *u, const struct sm_manifest *m, struct sm_err *e)
{
	uint8_t all[SM_DIGEST], map[SM_DIGEST];
	struct sums s;
	uint64_t ranges, bytes, frames;
	bool tail;
	int err;

	sort_spill(&u->entries, by_start);
	sort_spill(&u->leaves, by_first);
	sm_range_hash_init(&s.all);
	sm_map_hash_init(&s.map);
	err = sum_entries(u, &s, e);
	u->overlap = err;
	tail = !err && tail_covered(u, &s);
	frames = s.map.frames;
	sm_range_hash_final(&s.all, all);
	ranges = s.all.nr;
	bytes = s.all.bytes;
	sm_map_hash_final(&s.map, map);
	if (err)
		return err;
	if (!same_info(&m->info, &u->info))
		return sm_fail(e, -EPROTO, "the manifest is not of what was opened");
	if (memcmp(all, u->info.change_digest, SM_DIGEST) || ranges != u->info.extents || bytes != u->info.bytes)
		return sm_fail(e, -EPROTO, "%llu bytes in %llu ranges arrived, %llu in %llu were announced",
			       (unsigned long long)bytes, (unsigned long long)ranges,
			       (unsigned long long)u->info.bytes, (unsigned long long)u->info.extents);
	if (!tail)
		return sm_fail(e, -EPROTO, "the volume has grown and its new part was not sent");
	if (frames != m->frames || u->data_bytes != m->data_bytes || u->zero_bytes != m->zero_bytes ||
	    memcmp(map, m->map_hash, SM_DIGEST))
		return sm_fail(e, -EPROTO, "what arrived is not what the manifest says");
	return 0;
}

/* ---- storing ---- */

static int store_volume(struct sm_upload *u, struct sm_err *e)
{
	struct sm_store *s = u->repo->store;
	char key[SM_KEY_MAX], *text = NULL;
	json_t *o = json_object();
	int err = -ENOMEM;

	snprintf(key, sizeof(key), "volumes/%s/volume.json", u->vid);
	if (o && !sm_json_set_text(o, "client", u->client) && !sm_json_set_uuid(o, "volume", u->info.volume))
		text = sm_json_canonical(o);
	if (text)
		err = s->ops->put(s, key, text, strlen(text), e);
	free(text);
	json_decref(o);
	return err == -EEXIST ? 0 : err;
}

static int store_packs(struct sm_upload *u, struct sm_err *e)
{
	struct sm_store *s = u->repo->store;

	for (uint32_t i = 0; i < u->nr_packs; i++) {
		char key[SM_KEY_MAX];
		int err;

		sm_key_pack(key, u->vid, u->packs[i].id);
		err = s->ops->put_file(s, key, u->packs[i].path, e);
		if (err && err != -EEXIST)
			return err;
	}
	return 0;
}

static uint8_t (*pack_table(struct sm_upload *u))[SM_DIGEST]
{
	uint8_t (*t)[SM_DIGEST] = malloc((size_t)u->nr_packs * SM_DIGEST + 1);

	for (uint32_t i = 0; t && i < u->nr_packs; i++)
		memcpy(t[i], u->packs[i].id, SM_DIGEST);
	return t;
}

/* Merge the last @take segments of the parent with the new entries. */
static int merge_segment(struct sm_upload *u, uint32_t take, struct sm_segment_ref *ref, struct sm_err *e)
{
	uint32_t keep = u->parent.nr_segments - take, opened = 0;
	struct sm_segment *seg = calloc(take + 1, sizeof(*seg));
	struct sm_layer *layer = calloc(take + 1, sizeof(*layer));
	uint8_t (*table)[SM_DIGEST] = pack_table(u);
	char path[PATH_MAX], key[SM_KEY_MAX];
	int err = seg && layer && table ? 0 : sm_fail(e, -ENOMEM, "no memory for a map");

	while (!err && opened < take) {
		const uint8_t *id = u->parent.segments[keep + opened].id;

		sm_key_map(key, u->vid, id);
		err = sm_segment_open(u->repo->store, key, id, true, &seg[opened], e);
		if (!err) {
			sm_layer_of_segment(&layer[opened], &seg[opened]);
			opened++;
		}
	}
	if (!err) {
		layer[take] = (struct sm_layer){ .entries = (const void *)u->entries.map, .nr = u->entries.nr,
						 .packs = table, .nr_packs = u->nr_packs };
		upload_path(u, path, "new.map");
		unlink(path);	/* it may be an object's second name already */
		err = sm_segment_write(path, layer, take + 1, ref, e);
	}
	if (!err) {
		sm_key_map(key, u->vid, ref->id);
		err = u->repo->store->ops->put_file(u->repo->store, key, path, e);
		if (err == -EEXIST)
			err = 0;
	}
	for (uint32_t i = 0; i < opened; i++)
		sm_segment_close(&seg[i]);
	free(seg);
	free(layer);
	free(table);
	return err;
}

static int store_map(struct sm_upload *u, struct sm_generation *g, struct sm_err *e)
{
	uint32_t nr = u->parent.nr_segments, take = 0;
	int err;

	if (u->entries.nr)
		take = sm_segment_plan(u->parent.segments, nr, u->entries.nr);
	g->segments = calloc(nr + 1, sizeof(*g->segments));
	if (!g->segments)
		return sm_fail(e, -ENOMEM, "no memory");
	g->nr_segments = nr - take;
	if (g->nr_segments)
		memcpy(g->segments, u->parent.segments, g->nr_segments * sizeof(*g->segments));
	if (!u->entries.nr)
		return 0;
	err = merge_segment(u, take, &g->segments[g->nr_segments], e);
	if (!err)
		g->nr_segments++;
	return err;
}

static int put_manifest(struct sm_upload *u, struct sm_generation *g, const char *manifest, struct sm_err *e)
{
	char key[SM_KEY_MAX], *text = sm_generation_text(g, manifest);
	int err;

	if (!text)
		return sm_fail(e, -ENOMEM, "no memory");
	sm_key_manifest(key, u->vid, u->info.number);
	err = u->repo->store->ops->put(u->repo->store, key, text, strlen(text), e);
	free(text);
	return err;
}

static void describe(struct sm_upload *u, const struct sm_briefs *all, const char *manifest,
		     struct sm_generation *g)
{
	snprintf(g->vid, sizeof(g->vid), "%s", u->vid);
	snprintf(g->client, sizeof(g->client), "%s", u->client);
	sm_sha256(manifest, strlen(manifest), g->hash);
	for (size_t i = 0; i < all->nr; i++)
		if (all->v[i].sequence > g->sequence)
			g->sequence = all->v[i].sequence;
	g->sequence += 1 + all->damaged.nr;	/* theirs is not known */
	g->received = sm_now_ns();
	g->stored_bytes = u->stored;
	g->packs = u->nr_packs;
	memcpy(g->upload, u->id, SM_UUID);
}

static int publish_locked(struct sm_upload *u, const char *manifest, struct sm_receipt *receipt, struct sm_err *e)
{
	struct sm_generation g = { .nr_segments = 0 };
	struct sm_briefs all;
	ssize_t parent;
	int err = sm_briefs_load(u->repo, u->vid, &all, e);

	if (err)
		return err;
	err = upload_check_new(&u->info, &all, &parent, receipt, e);
	/* Pruned, collected and sent anew since OPEN, it has the same manifest and other segments. */
	if (!err && parent >= 0)
		err = upload_load_parent(u, &all.v[parent], e);
	if (!err) {
		describe(u, &all, manifest, &g);
		if (!(err = store_volume(u, e)) && !(err = store_packs(u, e)) && !(err = store_map(u, &g, e)) &&
		    !(err = upload_store_proof(u, manifest, g.hash, e)))
			err = put_manifest(u, &g, manifest, e);
		if (!err) {
			memcpy(receipt->manifest, g.hash, SM_DIGEST);
			receipt->sequence = g.sequence;
			receipt->received = g.received;
			receipt->stored_bytes = g.stored_bytes;
		}
	}
	sm_generation_done(&g);
	sm_briefs_free(&all);
	return err;
}

int sm_upload_commit(struct sm_upload *u, const char *text, size_t len, struct sm_receipt *receipt,
		     struct sm_err *e)
{
	struct sm_manifest m;
	char *manifest;
	int err, lock;

	if (u->dead)
		return sm_fail(e, -EPROTO, "this upload was given up");
	if ((err = sm_manifest_parse(text, len, &m, e)) || (err = upload_seal_last(u, e)))
		return err;
	err = compare(u, &m, e);
	if (err == -EPROTO && (u->overlap || u->data_bytes + u->zero_bytes >= u->info.bytes))
		upload_kill(u);		/* nothing that could still arrive would make it right */
	if (err)
		return err;
	lock = volume_lock(u->repo, u->vid, e);
	if (lock < 0)
		return lock;
	manifest = strndup(text, len);
	err = manifest ? publish_locked(u, manifest, receipt, e) : sm_fail(e, -ENOMEM, "no memory");
	free(manifest);
	close(lock);
	if (err < 0)
		return err;
	/* Published. What cannot be removed now is removed by expiry. */
	sm_fault("remove-staging");
	upload_remove(u->dir, NULL);
	return 0;
}

/* ---- expiry ---- */

static time_t newest(const char *dir)
{
	time_t t = 0;
	struct dirent *de;
	struct stat st;
	DIR *d = opendir(dir);

	if (!d)
		return time(NULL);
	while ((de = readdir(d)))
		if (de->d_name[0] != '.' && strcmp(de->d_name, "lock") && !fstatat(dirfd(d), de->d_name, &st, 0) &&
		    st.st_mtime > t)
			t = st.st_mtime;
	if (!t && !fstat(dirfd(d), &st))
		t = st.st_mtime;
	closedir(d);
	return t;
}

json_t *upload_read_open(const char *dir)
{
	char path[PATH_MAX + 16];

	snprintf(path, sizeof(path), "%s/open.json", dir);
	return json_load_file(path, JSON_REJECT_DUPLICATES, NULL);
}

static int no_record(uint32_t record, uint16_t type, const void *payload, size_t len, void *arg, struct sm_err *e)
{
	(void)record, (void)type, (void)payload, (void)len, (void)arg, (void)e;
	return 0;
}

/* Objects that a commit had stored before it died: packs with a second link. */
static void remove_linked(struct sm_repo *r, const char *dir, const char *vid, const uint8_t upload[SM_UUID])
{
	for (uint32_t i = 0;; i++) {
		struct sm_pack_writer p;
		char path[PATH_MAX + 16], key[SM_KEY_MAX];

		snprintf(path, sizeof(path), "%s/%08u.pack", dir, i);
		if (sm_pack_recover(&p, path, upload, i, no_record, NULL, NULL))
			return;
		if (p.sealed) {
			sm_key_pack(key, vid, p.id);
			r->store->ops->remove(r->store, key, NULL);
		}
		sm_pack_close(&p);
	}
}

static int expire_one(struct sm_repo *r, const char *dir, struct sm_err *e)
{
	json_t *o = upload_read_open(dir);
	char vid[SM_VID_TEXT], client[SM_CLIENT_MAX];
	struct sm_gen_info info;
	struct sm_generation g = { .nr_segments = 0 };
	uint8_t upload[SM_UUID];
	int lock = -1, err;

	if (o && !sm_gen_info_parse(json_object_get(o, "info"), &info, NULL) &&
	    !sm_json_text(o, "client", client, sizeof(client), NULL) && !sm_json_uuid(o, "upload", upload, NULL)) {
		sm_volume_id(client, info.volume, vid);
		lock = volume_lock(r, vid, e);
		err = lock < 0 ? lock : sm_repo_generation(r, vid, info.number, &g, NULL);
		if (err == -ENOENT || (!err && memcmp(g.upload, upload, SM_UUID)))
			remove_linked(r, dir, vid, upload);
		sm_generation_done(&g);
	}
	json_decref(o);
	err = upload_remove(dir, e);
	if (lock >= 0)
		close(lock);
	return err;
}

static void expire_tmp(struct sm_repo *r, time_t before)
{
	char path[PATH_MAX + 16];
	struct dirent *de;
	struct stat st;
	DIR *d;

	snprintf(path, sizeof(path), "%s/tmp", r->path);
	d = opendir(path);
	while (d && (de = readdir(d)))
		if (de->d_name[0] != '.' && !fstatat(dirfd(d), de->d_name, &st, AT_SYMLINK_NOFOLLOW) &&
		    st.st_mtime < before)
			unlinkat(dirfd(d), de->d_name, 0);
	if (d)
		closedir(d);
}

int sm_repo_expire_uploads(struct sm_repo *r, uint64_t seconds, struct sm_err *e)
{
	time_t before = time(NULL) - seconds;
	char path[PATH_MAX + 16];
	struct dirent *de;
	int n = 0, err = 0;
	DIR *d;

	expire_tmp(r, time(NULL) - 86400);
	snprintf(path, sizeof(path), "%s/uploads", r->path);
	d = opendir(path);
	if (!d)
		return sm_fail(e, -errno, "%s: %s", path, strerror(errno));
	while (!err && (de = readdir(d))) {
		char dir[PATH_MAX], lock[PATH_MAX + 8];
		int fd;

		if (de->d_name[0] == '.')
			continue;
		snprintf(dir, sizeof(dir), "%.*s/uploads/%.64s", PATH_MAX - 128, r->path, de->d_name);
		if (newest(dir) > before)
			continue;
		snprintf(lock, sizeof(lock), "%s/lock", dir);
		fd = open(lock, O_CREAT | O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0600);
		if (fd < 0)
			continue;
		if (!flock(fd, LOCK_EX | LOCK_NB)) {
			err = expire_one(r, dir, e);
			n += !err;
		}
		close(fd);
	}
	closedir(d);
	return err ? err : n;
}
