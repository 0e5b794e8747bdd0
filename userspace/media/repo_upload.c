// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Staging of an upload.
 *
 *	uploads/SID/open.json	what OPEN said, the client's identity, a random upload id
 *	uploads/SID/lock	flock: one session at a time
 *	uploads/SID/NNNNNNNN.pack	records as they arrived
 *
 * SID is a hash of client, volume and generation uuid: a client that comes back finds its upload, and
 * nobody else can. There is no journal: the packs' records describe themselves, so what is there after any
 * crash is what can be read from the packs up to the first damaged record.
 */
#include "upload_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "frame.h"
#include "seal.h"

#define OPEN_MAX	(64u << 10)
#define SPACE_RESERVE	(16ull << 20)	/* never filled by uploads */

void upload_path(const struct sm_upload *u, char path[PATH_MAX], const char *name)
{
	snprintf(path, PATH_MAX, "%.*s/%s", PATH_MAX - 64, u->dir, name);
}

static void pack_path(const struct sm_upload *u, char path[PATH_MAX], uint32_t number)
{
	char name[32];

	snprintf(name, sizeof(name), "%08u.pack", number);
	upload_path(u, path, name);
}

static void staging_id(const char *vid, const uint8_t uuid[SM_UUID], char sid[SM_VID_TEXT])
{
	uint8_t digest[SM_DIGEST];
	struct sm_sha s;

	sm_sha_init(&s);
	sm_sha_update(&s, "snapdiff-upload", 16);
	sm_sha_update(&s, vid, SM_VID_TEXT);
	sm_sha_update(&s, uuid, SM_UUID);
	sm_sha_final(&s, digest);
	sm_hex(digest, 16, sid);
}

/* ---- may it be? ---- */

static int parent_unknown(const struct sm_gen_info *info, const struct sm_briefs *g, struct sm_err *e)
{
	char text[400] = "", hex[SM_DIGEST_HEX];
	size_t n = 0;

	for (size_t i = g->nr; i-- && n < 3; n++) {
		size_t at = strlen(text);

		sm_hex(g->v[i].hash, SM_DIGEST, hex);
		snprintf(text + at, sizeof(text) - at, "%s%u (%.16s)", n ? ", " : "", g->v[i].number, hex);
	}
	sm_hex(info->parent, SM_DIGEST, hex);
	return sm_fail(e, -ENOENT, "the parent with manifest %.16s is not here; %s%s", hex,
		       g->nr ? "the newest are generations " : "there is no generation of this volume", text);
}

int upload_check_new(const struct sm_gen_info *info, const struct sm_briefs *g, ssize_t *parent,
		     struct sm_receipt *receipt, struct sm_err *e)
{
	*parent = -1;
	for (size_t i = 0; i < g->damaged.nr; i++)
		if (g->damaged.v[i] == info->number)
			return sm_fail(e, -EEXIST, "generation %u is here already, with a damaged manifest", info->number);
	for (size_t i = 0; i < g->nr; i++) {
		const struct sm_brief *x = &g->v[i];
		bool number = x->number == info->number;
		bool uuid = !memcmp(x->uuid, info->uuid, SM_UUID);

		if (number && uuid) {
			memcpy(receipt->manifest, x->hash, SM_DIGEST);
			receipt->sequence = x->sequence;
			receipt->received = x->received;
			receipt->stored_bytes = x->stored_bytes;
			return 1;
		}
		if (number)
			return sm_fail(e, -EEXIST, "generation %u is here already, with another uuid", info->number);
		if (uuid)
			return sm_fail(e, -EEXIST, "this generation is here already, as number %u",
				       x->number);
		if (info->has_parent && !memcmp(x->hash, info->parent, SM_DIGEST))
			*parent = i;
	}
	return info->has_parent && *parent < 0 ? parent_unknown(info, g, e) : 0;
}

static int check_space(struct sm_repo *r, uint64_t bytes, struct sm_err *e)
{
	struct statvfs v;
	uint64_t avail;

	if (statvfs(r->path, &v))
		return sm_fail(e, -errno, "%s: %s", r->path, strerror(errno));
	avail = (uint64_t)v.f_bavail * v.f_frsize;
	/* Zeros cost nothing and text shrinks to a fifth; what will never fit is refused before it is sent. */
	if (avail < SPACE_RESERVE + bytes / 20)
		return sm_fail(e, -ENOSPC, "not enough space: %llu MiB are free", (unsigned long long)(avail >> 20));
	return 0;
}

/* ---- records ---- */

static int add_entry(struct sm_upload *u, uint64_t offset, uint64_t length, uint32_t pack, uint32_t record,
		     uint32_t block, struct sm_err *e)
{
	uint64_t start = offset >> SM_BLOCK_SHIFT, count = (length + SM_BLOCK - 1) >> SM_BLOCK_SHIFT;

	while (count) {
		uint32_t part = count > UINT32_MAX / 2 ? UINT32_MAX / 2 : count;
		struct sm_entry *x = sm_spill_add(&u->entries);

		if (!x)
			return sm_fail(e, -errno, "no room for the map: %s", strerror(errno));
		*x = (struct sm_entry){ start, part, pack, record, block };
		start += part;
		count -= part;
	}
	return 0;
}

static int note_data(struct sm_upload *u, const struct sm_data *d, uint32_t pack, uint32_t record, struct sm_err *e)
{
	struct upload_leaf *leaf = sm_spill_add(&u->leaves);
	uint64_t raw = 0;

	if (!leaf)
		return sm_fail(e, -errno, "no room for the map: %s", strerror(errno));
	leaf->first = le64toh(d->extents[0].offset);
	sm_data_leaf(d, leaf->digest);
	leaf->pack = pack;
	leaf->record = record;
	for (uint32_t i = 0; i < d->nr; i++) {
		struct sm_extent x = sm_extent_at(d->extents, i);
		int err = add_entry(u, x.offset, x.length, pack, record, raw >> SM_BLOCK_SHIFT, e);

		if (err)
			return err;
		raw += x.length;
	}
	u->data_bytes += d->raw_length;
	return 0;
}

static int note_zero(struct sm_upload *u, const struct sm_wire_extent *w, uint32_t nr, struct sm_err *e)
{
	for (uint32_t i = 0; i < nr; i++) {
		struct sm_extent x = sm_extent_at(w, i);
		int err = add_entry(u, x.offset, x.length, SM_ZERO_PACK, 0, 0, e);

		if (err)
			return err;
		u->zero_bytes += x.length;
	}
	return 0;
}

/* sm_pack_fn of a recovery: a record that cannot be ours ends the pack. */
static int take_record(uint32_t record, uint16_t type, const void *payload, size_t len, void *arg, struct sm_err *e)
{
	struct sm_upload *u = arg;
	const struct sm_wire_extent *w;
	struct sm_data d;
	uint32_t nr;
	int err;

	if (type == SM_DATA) {
		err = sm_data_parse(payload, len, u->info.size, false, &d, e);
		return err ? err : note_data(u, &d, u->nr_packs, record, e);
	}
	if (type != SM_ZERO)
		return -EPROTO;
	err = sm_zero_parse(payload, len, u->info.size, &w, &nr, e);
	return err ? err : note_zero(u, w, nr, e);
}

static struct sm_pack_writer *new_pack(struct sm_upload *u, struct sm_err *e)
{
	void *v = realloc(u->packs, (u->nr_packs + 1) * sizeof(*u->packs));

	if (!v) {
		sm_fail(e, -ENOMEM, "no memory for a pack");
		return NULL;
	}
	u->packs = v;
	return &u->packs[u->nr_packs];
}

int upload_seal_last(struct sm_upload *u, struct sm_err *e)
{
	struct sm_pack_writer *p = u->nr_packs ? &u->packs[u->nr_packs - 1] : NULL;
	int err = 0;

	if (!p || p->fd < 0)
		return 0;
	if (!p->sealed)
		err = sm_pack_seal(p, e);
	if (!err)
		sm_pack_close(p);
	return err;
}

/* The pack that takes the next record. */
static int current_pack(struct sm_upload *u, struct sm_pack_writer **out, struct sm_err *e)
{
	struct sm_pack_writer *p = u->nr_packs ? &u->packs[u->nr_packs - 1] : NULL;
	char path[PATH_MAX];
	int err;

	if (p && p->fd >= 0 && !p->sealed && !sm_pack_full(p)) {
		*out = p;
		return 0;
	}
	if ((err = upload_seal_last(u, e)) || (err = check_space(u->repo, 0, e)))
		return err;
	p = new_pack(u, e);
	if (!p)
		return -ENOMEM;
	pack_path(u, path, u->nr_packs);
	err = sm_pack_create(p, path, u->id, u->nr_packs, e);
	if (err)
		return err;
	u->nr_packs++;
	*out = p;
	return sm_fsync_dir(u->dir, e);
}

static uint64_t zero_bytes(const struct sm_wire_extent *w, uint32_t nr)
{
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < nr; i++)
		bytes += le64toh(w[i].length);
	return bytes;
}

/* Never more than was announced: it bounds what a client can fill, and something must have come twice. */
static int check_total(struct sm_upload *u, uint64_t more, struct sm_err *e)
{
	if (u->dead)
		return sm_fail(e, -EPROTO, "this upload was given up");
	if (u->data_bytes + u->zero_bytes + more <= u->info.bytes)
		return 0;
	upload_kill(u);
	return sm_fail(e, -EPROTO, "more arrives than the %llu bytes that were announced: begin anew",
		       (unsigned long long)u->info.bytes);
}

/* What an increment on it, or who restores, would find out too late. */
static int check_seal(const struct sm_upload *u, const struct sm_data *d, struct sm_err *e)
{
	const struct sm_wire_seal *h = sm_data_seal(d);

	if (!u->info.sealed != !h || (h && (memcmp(h->id, u->info.seal_id, SM_SECRET_ID) || memcmp(h->generation, u->info.uuid, SM_UUID))))
		return sm_fail(e, -EPROTO, "data frame encrypted otherwise than was announced");
	return 0;
}

int sm_upload_append(struct sm_upload *u, uint16_t type, const void *payload, size_t len, struct sm_err *e)
{
	const struct sm_wire_extent *w = NULL;
	struct sm_pack_writer *p;
	uint32_t nr = 0, record;
	struct sm_data d;
	uint64_t end;
	int err;

	if (type == SM_DATA) {
		err = sm_data_parse(payload, len, u->info.size, false, &d, e);
		if (!err)
			err = check_seal(u, &d, e);
		if (!err)
			err = sm_data_check(&d, u->raw, e);
	} else {
		err = sm_zero_parse(payload, len, u->info.size, &w, &nr, e);
	}
	if (!err)
		err = check_total(u, type == SM_DATA ? d.raw_length : zero_bytes(w, nr), e);
	if (!err && u->limit && u->stored + len > u->limit)
		err = sm_fail(e, -EDQUOT, "the client's quota is used up");
	if (err || (err = current_pack(u, &p, e)))
		return err;
	record = p->nr;
	end = p->end;
	if (type == SM_DATA)
		err = sm_pack_append(p, type, payload, len, d.nr, d.raw_length, le64toh(d.extents[0].offset), e);
	else
		err = sm_pack_append(p, type, payload, len, nr, 0, le64toh(w[0].offset), e);
	if (err)
		return err;
	u->stored += p->end - end;
	return type == SM_DATA ? note_data(u, &d, u->nr_packs - 1, record, e) : note_zero(u, w, nr, e);
}

int sm_upload_sync(struct sm_upload *u, struct sm_err *e)
{
	struct sm_pack_writer *p = u->nr_packs ? &u->packs[u->nr_packs - 1] : NULL;

	return p && p->fd >= 0 && !u->dead ? sm_pack_sync(p, e) : 0;	/* sealed ones are durable */
}

uint64_t sm_upload_stored(const struct sm_upload *u)
{
	return u->stored;
}

/* ---- taking up what is there ---- */

int upload_remove(const char *dir, struct sm_err *e)
{
	struct dirent *de;
	int err = 0;
	DIR *d = opendir(dir);

	if (!d)
		return errno == ENOENT ? 0 : sm_fail(e, -errno, "%s: %s", dir, strerror(errno));
	while ((de = readdir(d)))
		if (strcmp(de->d_name, ".") && strcmp(de->d_name, "..") && strcmp(de->d_name, "lock") &&
		    unlinkat(dirfd(d), de->d_name, 0))
			err = sm_fail(e, -errno, "%s/%s: cannot remove: %s", dir, de->d_name, strerror(errno));
	if (!err) {
		unlinkat(dirfd(d), "lock", 0);	/* last: whoever holds it may do this, nobody else looks in meanwhile */
		if (rmdir(dir))
			err = sm_fail(e, -errno, "%s: cannot remove: %s", dir, strerror(errno));
	}
	closedir(d);
	return err;
}

static json_t *open_json(const struct sm_upload *u)
{
	json_t *o = json_object();

	json_object_set_new(o, "info", sm_gen_info_json(&u->info));
	sm_json_set_text(o, "client", u->client);
	sm_json_set_uuid(o, "upload", u->id);
	return o;
}

static int write_open(struct sm_upload *u, struct sm_err *e)
{
	char path[PATH_MAX];
	json_t *o = open_json(u);
	char *text = o ? sm_json_canonical(o) : NULL;
	int err;

	json_decref(o);
	if (!text)
		return sm_fail(e, -ENOMEM, "no memory");
	upload_path(u, path, "open.json");
	err = sm_save_file(path, text, false, e);
	free(text);
	return err;
}

/* Is the open.json there the one that we would write? Takes over its upload id. */
static bool same_open(struct sm_upload *u)
{
	uint8_t id[SM_UUID];
	char path[PATH_MAX], *buf, *a = NULL, *b = NULL;
	bool same = false;
	json_t *o = NULL;
	ssize_t n;
	int fd;

	upload_path(u, path, "open.json");
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return false;
	buf = malloc(OPEN_MAX);
	n = buf ? sm_read_full(fd, buf, OPEN_MAX) : -ENOMEM;
	close(fd);
	if (n > 0)
		o = sm_json_parse(buf, n, OPEN_MAX, NULL);
	free(buf);
	if (o && !sm_json_uuid(o, "upload", id, NULL)) {
		json_t *mine;

		memcpy(u->id, id, SM_UUID);
		mine = open_json(u);
		a = sm_json_canonical(o);
		b = mine ? sm_json_canonical(mine) : NULL;
		same = a && b && !strcmp(a, b);
		json_decref(mine);
	}
	free(a);
	free(b);
	json_decref(o);
	return same;
}

static void drop_packs_from(struct sm_upload *u, uint32_t number)
{
	char path[PATH_MAX];

	do
		pack_path(u, path, number++);
	while (!unlink(path));
}

void upload_kill(struct sm_upload *u)
{
	char path[PATH_MAX];

	u->dead = true;
	upload_path(u, path, "open.json");
	unlink(path);
	drop_packs_from(u, 0);
}

static int recover_packs(struct sm_upload *u, struct sm_err *e)
{
	for (;;) {
		struct sm_pack_writer *p = new_pack(u, e);
		char path[PATH_MAX];
		int err;

		if (!p)
			return -ENOMEM;
		pack_path(u, path, u->nr_packs);
		err = sm_pack_recover(p, path, u->id, u->nr_packs, take_record, u, e);
		if (err == -ENOENT)
			return 0;
		if (err == -EUCLEAN) {	/* not even a header: the crash came before anything of it was acknowledged */
			drop_packs_from(u, u->nr_packs);
			return 0;
		}
		if (err)
			return err;
		u->stored += p->end - sizeof(struct sm_pack_header);
		u->nr_packs++;
		/* Durable before anybody is told that it is here. All but the last are final. */
		pack_path(u, path, u->nr_packs);
		err = access(path, F_OK) ? sm_pack_sync(p, e) : upload_seal_last(u, e);
		if (err)
			return err;
	}
}

static int prepare_dir(struct sm_upload *u, struct sm_err *e)
{
	char path[PATH_MAX];
	int err;

	for (;;) {
		err = sm_mkdir_durable(u->dir, e);
		if (err)
			return err;
		upload_path(u, path, "lock");
		u->lock = lock_file(path, LOCK_EX | LOCK_NB, e);
		if (u->lock != -ENOENT)		/* removed between the two: once more */
			break;
	}
	if (u->lock == -EBUSY)
		return sm_fail(e, -EBUSY, "generation %u is being sent by another session", u->info.number);
	if (u->lock < 0)
		return u->lock;
	if (same_open(u))
		return recover_packs(u, e);
	drop_packs_from(u, 0);
	err = sm_random(u->id, SM_UUID);
	return err ? sm_fail(e, err, "no random numbers") : write_open(u, e);
}

int upload_load_parent(struct sm_upload *u, const struct sm_brief *b, struct sm_err *e)
{
	int err;

	sm_generation_done(&u->parent);
	err = sm_repo_generation(u->repo, u->vid, b->number, &u->parent, e);

	if (!err && memcmp(u->parent.hash, u->info.parent, SM_DIGEST))
		err = sm_fail(e, -EBUSY, "generation %u has just been replaced: try again", b->number);
	return err;
}

int sm_upload_open(struct sm_repo *r, const char *client, const struct sm_gen_info *info, struct sm_upload **out,
		   struct sm_receipt *receipt, struct sm_err *e)
{
	struct sm_briefs g = { 0 };
	char sid[SM_VID_TEXT];
	struct sm_upload *u;
	ssize_t parent;
	int err;

	u = calloc(1, sizeof(*u));
	if (!u)
		return sm_fail(e, -ENOMEM, "no memory");
	u->repo = r;
	u->lock = -1;
	u->info = *info;
	u->raw = malloc(SM_MAX_RAW);
	snprintf(u->client, sizeof(u->client), "%s", client);
	sm_volume_id(client, info->volume, u->vid);
	staging_id(u->vid, info->uuid, sid);
	snprintf(u->dir, sizeof(u->dir), "%.*s/uploads/%s", PATH_MAX - 64, r->path, sid);
	sm_spill_init(&u->entries, sizeof(struct sm_entry), u->dir);
	sm_spill_init(&u->leaves, sizeof(struct upload_leaf), u->dir);
	err = u->raw ? sm_briefs_load(r, u->vid, &g, e) : sm_fail(e, -ENOMEM, "no memory");
	if (!err)
		err = upload_check_new(info, &g, &parent, receipt, e);
	if (!err && parent >= 0)
		err = upload_load_parent(u, &g.v[parent], e);
	sm_briefs_free(&g);
	if (!err)
		err = check_space(r, info->bytes, e);
	if (!err)
		err = prepare_dir(u, e);
	if (err) {
		sm_upload_close(u);
		return err;
	}
	*out = u;
	return 0;
}

void sm_upload_close(struct sm_upload *u)
{
	for (uint32_t i = 0; i < u->nr_packs; i++)
		sm_pack_close(&u->packs[i]);
	free(u->packs);
	sm_spill_free(&u->entries);
	sm_spill_free(&u->leaves);
	sm_generation_done(&u->parent);
	if (u->lock >= 0)
		close(u->lock);
	free(u->raw);
	free(u);
}

int sm_upload_abandon(struct sm_upload *u, struct sm_err *e)
{
	int err = upload_remove(u->dir, e);

	sm_upload_close(u);
	return err;
}

/* ---- telling what is there ---- */

static int tell_record(struct sm_upload *u, uint16_t type, const uint8_t *head, size_t len, const struct sm_have_ops *ops,
		       void *arg, struct sm_err *e)
{
	const struct sm_wire_extent *w;
	struct sm_data d;
	uint32_t nr;
	int err;

	if (type == SM_DATA) {
		err = sm_data_parse(head, len, u->info.size, true, &d, e);
		return err ? err : ops->data(head, d.head_length, arg, e);
	}
	err = sm_zero_parse(head, len, u->info.size, &w, &nr, e);
	for (uint32_t i = 0; !err && i < nr; i++) {
		struct sm_extent x = sm_extent_at(w, i);

		err = ops->zero(x.offset, x.length, arg, e);
	}
	return err;
}

static int tell_pack(struct sm_upload *u, uint32_t number, const struct sm_have_ops *ops, void *arg, struct sm_err *e)
{
	const size_t most = sizeof(struct sm_wire_data) + SM_MAX_EXTENTS * sizeof(struct sm_wire_extent);
	uint64_t at = sizeof(struct sm_pack_header), end = u->packs[number].end;
	uint8_t *head = malloc(most);
	char path[PATH_MAX];
	int fd, err = 0;

	pack_path(u, path, number);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0 || !head)
		err = sm_fail(e, head ? -errno : -ENOMEM, "%s: cannot open", path);
	while (!err && at < end) {
		struct sm_pack_record r;
		size_t len;
		ssize_t n;

		n = sm_pread_full(fd, &r, sizeof(r), at);
		len = le32toh(r.length) < most ? le32toh(r.length) : most;
		if (n == sizeof(r))
			n = sm_pread_full(fd, head, len, at + sizeof(r));
		if (n != (ssize_t)len)
			err = sm_fail(e, -EIO, "%s: cannot read", path);
		else
			err = tell_record(u, le16toh(r.type), head, len, ops, arg, e);
		at += sizeof(r) + le32toh(r.length);
	}
	if (fd >= 0)
		close(fd);
	free(head);
	return err;
}

int sm_upload_have(struct sm_upload *u, const struct sm_have_ops *ops, void *arg, struct sm_err *e)
{
	int err = 0;

	for (uint32_t i = 0; !err && i < u->nr_packs; i++)
		err = tell_pack(u, i, ops, arg, e);
	return err;
}
