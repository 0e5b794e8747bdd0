// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Proofs as objects (proof.c says what for): volumes/VID/proofs/HASH.proof, HASH being the manifest's.
 *
 *	"SDPROOF\1"  length of the manifest (4)  manifest  { length (4)  CRC32C (4)  items }*
 *
 * One is made with each generation, before its manifest is put, and stays when the generation is pruned as long as a generation that is
 * there descends from it: the garbage collection walks the parents' hashes from the manifests. A proof is checked by who receives it, not here.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proof.h"
#include "upload_internal.h"

#define HEAD	12u
#define BACK_MAX	65536u		/* frames that may lie between two extents of one */

static const char magic[8] = "SDPROOF\1";

void sm_key_proof(char key[SM_KEY_MAX], const char *vid, const uint8_t hash[SM_DIGEST])
{
	char hex[SM_DIGEST_HEX];

	sm_hex(hash, SM_DIGEST, hex);
	snprintf(key, SM_KEY_MAX, "volumes/%s/proofs/%s.proof", vid, hex);
}

/* ---- writing ---- */

static int write_chunk(const void *buf, size_t len, void *arg, struct sm_err *e)
{
	uint32_t head[2] = { htole32(len), htole32(sm_crc32c(0, buf, len)) };
	FILE *f = arg;

	return fwrite(head, sizeof(head), 1, f) == 1 && fwrite(buf, len, 1, f) == 1 ? 0 : sm_fail(e, -EIO, "cannot write a proof");
}

/* Entries ascend, and so do leaves by their first block: a data entry either begins the next leaf's frame, or goes on with one. */
static int write_items(struct sm_upload *u, struct sm_proof_writer *w, struct sm_err *e)
{
	const struct upload_leaf *leaf = (const void *)u->leaves.map, *cur = NULL;
	size_t next = 0;
	int err = 0;

	for (size_t i = 0; !err && i < u->entries.nr; i++) {
		const struct sm_entry *x = sm_spill_at(&u->entries, i);
		uint64_t back = 0;

		if (x->pack == SM_ZERO_PACK) {
			err = sm_proof_item(w, x->start, x->count, SM_PROOF_ZERO, NULL, 0, e);
		} else if (next < u->leaves.nr && leaf[next].first == x->start * SM_BLOCK) {
			cur = &leaf[next++];
			err = sm_proof_item(w, x->start, x->count, SM_PROOF_NEW, cur->digest, 0, e);
		} else if (cur && cur->pack == x->pack && cur->record == x->record) {
			err = sm_proof_item(w, x->start, x->count, SM_PROOF_SAME, NULL, 0, e);
		} else {
			for (; back < next && back < BACK_MAX; back++) {
				cur = &leaf[next - 1 - back];
				if (cur->pack == x->pack && cur->record == x->record)
					break;
			}
			if (back == next || back == BACK_MAX)
				return sm_fail(e, -EPROTO, "frames are mixed up too much at offset %llu", (unsigned long long)x->start * SM_BLOCK);
			err = sm_proof_item(w, x->start, x->count, SM_PROOF_BACK, NULL, back, e);
		}
	}
	return err ? err : sm_proof_flush(w, e);
}

static int write_file(struct sm_upload *u, const char *path, const char *manifest, struct sm_err *e)
{
	struct sm_proof_writer *w = calloc(1, sizeof(*w));
	uint32_t len = htole32(strlen(manifest));
	FILE *f = w ? fopen(path, "wxe") : NULL;
	int err;

	if (!f) {
		err = sm_fail(e, w ? -errno : -ENOMEM, "%s: %s", path, w ? strerror(errno) : "no memory");
		free(w);
		return err;
	}
	w->chunk = write_chunk;
	w->arg = f;
	err = fwrite(magic, sizeof(magic), 1, f) == 1 && fwrite(&len, sizeof(len), 1, f) == 1 && fputs(manifest, f) >= 0 ? 0 : -EIO;
	if (!err)
		err = write_items(u, w, e);
	if (!err && (fflush(f) || fsync(fileno(f))))
		err = -errno;
	if (fclose(f) && !err)
		err = -errno;
	free(w);
	return err == -EPROTO || !err ? err : sm_fail(e, err, "%s: %s", path, strerror(-err));
}

int upload_store_proof(struct sm_upload *u, const char *manifest, const uint8_t hash[SM_DIGEST], struct sm_err *e)
{
	char path[PATH_MAX], key[SM_KEY_MAX];
	int err;

	upload_path(u, path, "new.proof");
	unlink(path);		/* it may be an object's second name already */
	err = write_file(u, path, manifest, e);
	if (err)
		return err;
	sm_key_proof(key, u->vid, hash);
	err = u->repo->store->ops->put_file(u->repo->store, key, path, e);
	return err == -EEXIST ? 0 : err;
}

/* ---- reading ---- */

static int damaged(const char *key, struct sm_err *e)
{
	return sm_fail(e, -EUCLEAN, "%s: damaged proof", key);
}

/* The manifest in a proof; it must have the hash that it is named by. @m may be NULL. free(*text). */
static int read_manifest(const struct sm_store_ops *ops, struct sm_object *o, const char *key, const uint8_t hash[SM_DIGEST], char **text,
			 uint32_t *len, struct sm_err *e)
{
	uint8_t head[HEAD], digest[SM_DIGEST];
	uint32_t n;

	*text = NULL;
	if (ops->pread(o, head, HEAD, 0) != HEAD || memcmp(head, magic, sizeof(magic)))
		return damaged(key, e);
	memcpy(&n, head + sizeof(magic), sizeof(n));
	*len = le32toh(n);
	if (*len > SM_MANIFEST_MAX)
		return damaged(key, e);
	*text = malloc(*len + 1);
	if (!*text)
		return sm_fail(e, -ENOMEM, "no memory for a proof");
	if (ops->pread(o, *text, *len, HEAD) != (ssize_t)*len)
		return damaged(key, e);
	sm_sha256(*text, *len, digest);
	return memcmp(digest, hash, SM_DIGEST) ? damaged(key, e) : 0;
}

static int read_chunks(const struct sm_store_ops *ops, struct sm_object *o, const char *key, uint64_t at, const struct sm_proof_ops *to,
		       void *arg, struct sm_err *e)
{
	uint8_t *buf = malloc(SM_PROOF_CHUNK);
	uint64_t size = ops->size(o);
	int err = buf ? 0 : sm_fail(e, -ENOMEM, "no memory for a proof");

	while (!err && at < size) {
		uint32_t head[2], len;

		if (ops->pread(o, head, sizeof(head), at) != sizeof(head) || (len = le32toh(head[0])) > SM_PROOF_CHUNK || !len ||
		    ops->pread(o, buf, len, at + sizeof(head)) != (ssize_t)len || sm_crc32c(0, buf, len) != le32toh(head[1])) {
			err = damaged(key, e);
			break;
		}
		at += sizeof(head) + len;
		err = to->chunk(buf, len, arg, e);
	}
	free(buf);
	return err;
}

/* One generation's; *@parent: the hash of the next, *@more: there is one. */
static int read_one(struct sm_repo *r, const char *vid, const uint8_t hash[SM_DIGEST], const struct sm_proof_ops *to, void *arg,
		    uint8_t parent[SM_DIGEST], bool *more, struct sm_err *e)
{
	const struct sm_store_ops *ops = r->store->ops;
	struct sm_manifest m;
	struct sm_object *o;
	char key[SM_KEY_MAX], *text;
	uint32_t len = 0;
	int err;

	sm_key_proof(key, vid, hash);
	err = ops->open(r->store, key, &o, e);
	if (err)
		return err == -ENOENT ? sm_fail(e, -EUCLEAN, "%s: is missing", key) : err;
	err = read_manifest(ops, o, key, hash, &text, &len, e);
	if (!err)
		err = sm_manifest_parse(text, len, &m, e);
	if (!err) {
		*more = m.info.has_parent;
		memcpy(parent, m.info.parent, SM_DIGEST);
	}
	if (!err && to)
		err = to->manifest(text, len, arg, e);
	if (!err && to)
		err = read_chunks(ops, o, key, HEAD + len, to, arg, e);
	free(text);
	ops->close(o);
	return err;
}

int sm_repo_proof(struct sm_repo *r, const char *vid, const uint8_t hash[SM_DIGEST], const struct sm_proof_ops *to, void *arg,
		  struct sm_err *e)
{
	uint8_t at[SM_DIGEST];
	bool more = true;
	int err = 0;

	memcpy(at, hash, SM_DIGEST);
	while (!err && more)
		err = read_one(r, vid, at, to, arg, at, &more, e);
	return err;
}

static int take_manifest(const char *text, size_t len, void *arg, struct sm_err *e)
{
	return sm_proof_manifest(arg, text, len, e);
}

static int take_chunk(const void *buf, size_t len, void *arg, struct sm_err *e)
{
	return sm_proof_chunk(arg, buf, len, e);
}

int sm_repo_prove(struct sm_repo *r, const struct sm_generation *g, const struct sm_secret *k, struct sm_proof **p, struct sm_err *e)
{
	static const struct sm_proof_ops ops = { take_manifest, take_chunk };
	int err;

	*p = sm_proof_new(g->hash, k, false);
	err = *p ? sm_repo_proof(r, g->vid, g->hash, &ops, *p, e) : sm_fail(e, -ENOMEM, "no memory for a proof");
	if (!err)
		err = sm_proof_end(*p, e);
	if (!err)
		return 0;
	sm_proof_free(*p);
	*p = NULL;
	return err;
}

/* ---- which are needed ---- */

struct hashes {
	uint8_t (*v)[SM_DIGEST];
	size_t nr, room;
};

static int add_hash(struct hashes *h, const uint8_t hash[SM_DIGEST])
{
	if (h->nr == h->room) {
		size_t room = h->room ? 2 * h->room : 64;
		void *v = realloc(h->v, room * SM_DIGEST);

		if (!v)
			return -ENOMEM;
		h->v = v;
		h->room = room;
	}
	memcpy(h->v[h->nr++], hash, SM_DIGEST);
	return 0;
}

static int note_proof(const char *name, void *arg)
{
	char hex[SM_DIGEST_HEX];
	uint8_t hash[SM_DIGEST];

	if (strlen(name) != SM_DIGEST_HEX - 1 + 6 || strcmp(name + SM_DIGEST_HEX - 1, ".proof"))
		return 0;
	snprintf(hex, sizeof(hex), "%.64s", name);
	return sm_unhex(hex, hash, SM_DIGEST) ? 0 : add_hash(arg, hash);
}

/* Of each that is there: is it needed? Walks from @hash until it meets one that is marked already. Return: 0, -ENOENT one is not there, -EUCLEAN */
static int mark(struct sm_repo *r, const char *vid, const struct hashes *there, bool *needed, const uint8_t hash[SM_DIGEST], struct sm_err *e)
{
	uint8_t at[SM_DIGEST];
	char key[SM_KEY_MAX];
	bool more = true;
	int err = 0;

	memcpy(at, hash, SM_DIGEST);
	while (!err && more) {
		uint8_t (*x)[SM_DIGEST] = there->nr ? bsearch(at, there->v, there->nr, SM_DIGEST, sm_by_digest) : NULL;

		if (!x) {
			sm_key_proof(key, vid, at);
			return sm_fail(e, -ENOENT, "%s: is missing", key);
		}
		if (needed[x - there->v])
			break;
		needed[x - there->v] = true;
		err = read_one(r, vid, at, NULL, NULL, at, &more, e);
	}
	return err;
}

static int list_proofs(struct sm_repo *r, const char *vid, struct hashes *there, bool **needed, struct sm_err *e)
{
	char key[SM_KEY_MAX];
	int err;

	snprintf(key, sizeof(key), "volumes/%s/proofs", vid);
	err = r->store->ops->list(r->store, key, note_proof, there, e);
	if (err)
		return err;
	if (there->nr)
		qsort(there->v, there->nr, SM_DIGEST, sm_by_digest);
	*needed = calloc(there->nr + 1, sizeof(**needed));
	return *needed ? 0 : sm_fail(e, -ENOMEM, "no memory");
}

int repo_sweep_proofs(struct sm_repo *r, const char *vid, const struct sm_generations *g, int (*drop)(void *arg, const char *key), void *arg,
		      struct sm_err *e)
{
	struct hashes there = { 0 };
	bool *needed = NULL, unknown = g->damaged.nr;
	char key[SM_KEY_MAX];
	int err = list_proofs(r, vid, &there, &needed, e);

	for (size_t i = 0; !err && i < g->nr; i++) {
		err = mark(r, vid, &there, needed, g->v[i].hash, e);
		if (err == -EUCLEAN)
			unknown = true;		/* as a damaged manifest: whose parents are not known. Nothing goes */
		if (err == -EUCLEAN || err == -ENOENT)
			err = 0;
	}
	for (size_t i = 0; !err && !unknown && i < there.nr; i++) {
		if (needed[i])
			continue;
		sm_key_proof(key, vid, there.v[i]);
		err = drop(arg, key);
	}
	free(needed);
	free(there.v);
	return err;
}

/* ---- verifying ---- */

static int verify_one(struct sm_repo *r, const char *vid, const uint8_t hash[SM_DIGEST], struct sm_err *e)
{
	static const struct sm_proof_ops ops = { take_manifest, take_chunk };
	struct sm_proof *p = sm_proof_new(hash, NULL, true);
	uint8_t parent[SM_DIGEST];
	bool more;
	int err = p ? read_one(r, vid, hash, &ops, p, parent, &more, e) : sm_fail(e, -ENOMEM, "no memory for a proof");

	if (!err)
		err = sm_proof_last(p, e);
	sm_proof_free(p);
	return err;
}

int repo_verify_proofs(struct sm_repo *r, const char *vid, const struct sm_generations *g, void (*wrong)(void *arg, const char *what), void *arg,
		       struct sm_err *e)
{
	struct hashes there = { 0 };
	bool *needed = NULL;
	struct sm_err why;
	int err = list_proofs(r, vid, &there, &needed, e);

	for (size_t i = 0; !err && i < g->nr; i++) {
		err = mark(r, vid, &there, needed, g->v[i].hash, &why);
		if (err == -ENOENT || err == -EUCLEAN) {
			wrong(arg, why.text);
			err = 0;
		}
	}
	for (size_t i = 0; !err && i < there.nr; i++)
		if (needed[i] && verify_one(r, vid, there.v[i], &why))
			wrong(arg, why.text);
	free(needed);
	free(there.v);
	return err;
}
