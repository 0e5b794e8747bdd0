/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The repository: volumes of many clients, their generations, and uploads under way.
 *
 *	repository.json			format, version, uuid
 *	objects/volumes/VID/volume.json			client and volume uuid (VID is a hash of them)
 *	objects/volumes/VID/packs/ID.pack		sealed packs
 *	objects/volumes/VID/maps/ID.map			map segments
 *	objects/volumes/VID/proofs/HASH.proof		what restores are proven by; outlives its generation
 *	objects/volumes/VID/manifests/NNNNNNNNNN.manifest	one a generation; it exists = the generation exists
 *	uploads/SID/			staging of an upload: open.json, lock, NNNNNNNN.pack
 *	locks/VID			taken while a generation of the volume is published
 *	tmp/				objects being written, long lists of running programs
 *
 * Everything below objects/ is immutable and never visible unfinished. No name is a client's.
 * Exact formats: Documentation/design/repository.rst.
 */
#ifndef SNAPMEDIA_REPO_H
#define SNAPMEDIA_REPO_H

#include <errno.h>
#include <limits.h>

#include "extent.h"
#include "manifest.h"
#include "segment.h"
#include "store.h"

#define SM_CLIENT_MAX		64u
#define SM_CLIENT_DEFAULT	"local"
#define SM_VID_TEXT		33u

struct sm_repo {
	char path[PATH_MAX];
	uint8_t uuid[SM_UUID];
	struct sm_store *store;
};

/* Directories of a repository in which its programs write. */
#define SM_REPO_DIRS	{ "objects", "uploads", "locks", "tmp", "keep", "status", "cache", "ballast" }

/* sm_repo_make_dirs() - those that are not there yet */
int sm_repo_make_dirs(const char *path, struct sm_err *e);
/* sm_repo_tmp() - where temporary files may be made */
void sm_repo_tmp(const struct sm_repo *r, char path[PATH_MAX]);

int sm_repo_init(const char *path, struct sm_err *e);
int sm_repo_open(const char *path, struct sm_repo *r, struct sm_err *e);
void sm_repo_close(struct sm_repo *r);

/* A published generation: the manifest as the client made it, and what the server notes. */
struct sm_generation {
	char vid[SM_VID_TEXT];
	char client[SM_CLIENT_MAX];
	struct sm_manifest manifest;
	uint8_t hash[SM_DIGEST];	/* of the manifest's text */
	uint64_t sequence;		/* of the volume, from 1, in order of publishing */
	uint64_t received;		/* ns, the server's clock */
	uint64_t stored_bytes;		/* packs of its upload */
	uint64_t packs;
	uint8_t upload[SM_UUID];
	uint32_t nr_segments;
	struct sm_segment_ref *segments;	/* old to new */
};
void sm_generation_done(struct sm_generation *g);

/* sm_client_valid() - letters, digits, dot, dash, underscore; 1 to 63 */
bool sm_client_valid(const char *client);
void sm_volume_id(const char *client, const uint8_t volume[SM_UUID], char vid[SM_VID_TEXT]);

/* Numbers of the generations that have a manifest, ascending. */
struct sm_numbers {
	uint32_t *v;
	size_t nr, room;
};
/* The caller frees n->v, also after an error. */
int sm_repo_numbers(struct sm_repo *r, const char *vid, struct sm_numbers *n, struct sm_err *e);
int sm_numbers_add(struct sm_numbers *n, uint32_t number);

/*
 * Generations of one volume, ascending number; the caller frees with sm_generations_free(). A manifest that cannot be read, or is not
 * what its digest says, is one generation's loss and does not hide the others: its number is in @damaged.
 */
struct sm_generations {
	struct sm_generation *v;
	size_t nr;
	struct sm_numbers damaged;
	struct sm_err why;		/* of the first of these */
};
int sm_repo_generations(struct sm_repo *r, const char *vid, struct sm_generations *g, struct sm_err *e);
/* sm_generations_whole() - -EUCLEAN, with the reason, when there are damaged ones */
int sm_generations_whole(const struct sm_generations *g, struct sm_err *e);
void sm_generations_free(struct sm_generations *g);
/* sm_generations_segments() - what their manifests name, sorted, also more than once; free() it, also after an error */
int sm_generations_segments(const struct sm_generations *g, uint8_t (**ids)[SM_DIGEST], size_t *nr, struct sm_err *e);
/* sm_repo_generation() - -ENOENT; sm_manifest_lost() of what it returns: this generation is damaged, others may be sound */
int sm_repo_generation(struct sm_repo *r, const char *vid, uint32_t number, struct sm_generation *g,
		       struct sm_err *e);
static inline bool sm_manifest_lost(int err)
{
	return err == -EUCLEAN || err == -EIO;
}

/* sm_repo_volumes() - VIDs, ascending. @client: only those of this client; NULL: all. free() the array. */
int sm_repo_volumes(struct sm_repo *r, const char *client, char (**vids)[SM_VID_TEXT], size_t *nr,
		    struct sm_err *e);

/**
 * sm_repo_find() - a volume by name or uuid
 * @which: NULL: the only one there is
 *
 * Return: 0, -ENOENT, -EINVAL when several fit.
 */
int sm_repo_find(struct sm_repo *r, const char *client, const char *which, char vid[SM_VID_TEXT],
		 struct sm_err *e);

/* ---- uploads ---- */

struct sm_upload;

struct sm_receipt {
	uint8_t manifest[SM_DIGEST];
	uint64_t sequence, received, stored_bytes;
};

/**
 * sm_upload_open() - start an upload, or take up the one of the same generation where it was left
 * @client: whose it is; from the session's identity, never from a message
 * @receipt: of a generation that is published already
 *
 * An upload that was announced differently (size, parent, changes) is thrown away and begun anew.
 * Return: 0 with *@u; 1 when the generation (same number and uuid) is published already, with *@receipt;
 * -EEXIST another of that number or uuid; -ENOENT the parent is not here (the text says which are);
 * -EBUSY somebody else is sending it; -ENOSPC; -errno.
 */
int sm_upload_open(struct sm_repo *r, const char *client, const struct sm_gen_info *info, struct sm_upload **u,
		   struct sm_receipt *receipt, struct sm_err *e);

/**
 * sm_upload_limit() - hold the upload to its client's quota: from here on -EDQUOT instead of more than that
 * @quota: bytes of packs, maps and uploads of all the client's volumes
 *
 * Counted here once, and this upload's growth on top: other uploads of the same client that run at the same time may each use up
 * what was left when they began, so that the quota can be passed by the sessions' number times that, and by a pack.
 * Return: 0, -EDQUOT when it is used up already.
 */
int sm_upload_limit(struct sm_upload *u, uint64_t quota, struct sm_err *e);
/* sm_repo_usage() - bytes allocated for a client's packs, maps, manifests and uploads; NULL: all clients' */
int sm_repo_usage(struct sm_repo *r, const char *client, uint64_t *bytes, struct sm_err *e);

/* What is there durably. data: payloads' heads (with extents); zero: extents. In no order. */
struct sm_have_ops {
	int (*data)(const void *head, size_t len, void *arg, struct sm_err *e);
	int (*zero)(uint64_t offset, uint64_t length, void *arg, struct sm_err *e);
};
int sm_upload_have(struct sm_upload *u, const struct sm_have_ops *ops, void *arg, struct sm_err *e);
uint64_t sm_upload_stored(const struct sm_upload *u);

/* sm_upload_append() - take a DATA or ZERO payload: every rule and the digest are checked. Not durable yet. */
int sm_upload_append(struct sm_upload *u, uint16_t type, const void *payload, size_t len, struct sm_err *e);
/* sm_upload_sync() - all that was appended is durable */
int sm_upload_sync(struct sm_upload *u, struct sm_err *e);

/**
 * sm_upload_commit() - compare with the manifest, and publish
 *
 * Return: 0: the generation is durably there. -EPROTO: what was sent is not what the manifest says.
 * Any failure leaves the repository as it was and the upload resumable.
 */
int sm_upload_commit(struct sm_upload *u, const char *manifest, size_t len, struct sm_receipt *receipt,
		     struct sm_err *e);

/* sm_upload_close() - free; what was not committed can be taken up again */
void sm_upload_close(struct sm_upload *u);

/* sm_upload_abandon() - throw away what was staged, and close */
int sm_upload_abandon(struct sm_upload *u, struct sm_err *e);

/* sm_repo_expire_uploads() - remove uploads that nobody has touched for so long, and are not in use. Return: how many, or -errno. */
int sm_repo_expire_uploads(struct sm_repo *r, uint64_t seconds, struct sm_err *e);

/* ---- reading ---- */

struct sm_image;
struct sm_secret;

struct sm_image_piece {
	uint64_t offset, length;	/* bytes */
	bool zero;
	const uint8_t *data;		/* not zero: the bytes, checked; until the next call */
	const void *payload;		/* the whole DATA payload, when it is just this piece; or NULL */
	size_t payload_len;
	/* sm_image_forward() only: the parts of the payload that apply; NULL: all of it */
	const struct sm_extent *part;
	uint32_t nr_part;
};

/**
 * sm_image_open() - a generation as a whole image
 *
 * Opens and checks its map; cost does not depend on how many generations there are. sm_image_next() walks it
 * from 0 to its size without gaps: 1 with a piece of at most SM_MAX_RAW bytes of data (zeros may be longer), 0 at the end.
 * Every byte of data was checked up to the manifest when it is handed out.
 */
int sm_image_open(struct sm_repo *r, const struct sm_generation *g, struct sm_image **img, struct sm_err *e);
int sm_image_next(struct sm_image *img, struct sm_image_piece *p, struct sm_err *e);
void sm_image_close(struct sm_image *img);
/*
 * sm_image_unseal() - open encrypted data with this key, which must stay; before the first byte is read. Without it they are -EACCES.
 * Checks the manifest: sm_unseal_manifest(). @k NULL: is none needed?
 */
int sm_image_unseal(struct sm_image *img, const struct sm_generation *g, const struct sm_secret *k, struct sm_err *e);
/* sm_image_verbatim() - sm_image_forward() hands out each record as it is stored, however little of it is wanted */
void sm_image_verbatim(struct sm_image *img);
/* sm_image_prove() - from here on compare all that is handed out (but by sm_image_forward()) with a proof, which must stay */
struct sm_proof;
void sm_image_prove(struct sm_image *img, const struct sm_proof *p);
/* sm_image_seek() - sm_image_next() goes on at @offset, a multiple of SM_BLOCK inside the image */
int sm_image_seek(struct sm_image *img, uint64_t offset, struct sm_err *e);
/**
 * sm_image_forward() - as sm_image_next(), for who can send records as they are stored
 * @asked: what is wanted of the image: whole blocks (or up to its end), ascending, disjoint; the same in all calls
 * @end: stop there: the end of one of these, in which the image is
 *
 * Where at least half of a record's bytes are wanted, @p is the whole record the first time that one of them is met (payload, and
 * which parts of it; neither offset nor data), and the others are passed over. It is checked up to the manifest, but not unpacked: its
 * digest is the receiver's to compare. Other pieces are as of sm_image_next(), payload NULL.
 */
int sm_image_forward(struct sm_image *img, const struct sm_extent *asked, uint32_t nr, uint64_t end, struct sm_image_piece *p,
		     struct sm_err *e);
/* sm_image_read() - any range inside the image, checked as above; sequential reads cost no searching */
int sm_image_read(struct sm_image *img, void *buf, size_t len, uint64_t offset, struct sm_err *e);
/* sm_image_extent() - from @offset on, for *@len bytes, it is all zeros, or it is data; from the map alone */
int sm_image_extent(struct sm_image *img, uint64_t offset, uint64_t *len, bool *zero, struct sm_err *e);
uint64_t sm_image_size(const struct sm_image *img);

/* ---- proofs ---- */

/* What a generation's image is made of, from it to its full ancestor, pruned or not: for sm_proof_manifest() and sm_proof_chunk() */
struct sm_proof_ops {
	int (*manifest)(const char *text, size_t len, void *arg, struct sm_err *e);
	int (*chunk)(const void *buf, size_t len, void *arg, struct sm_err *e);
};
/* sm_repo_proof() - @hash: of the generation's manifest. -EUCLEAN: a proof is damaged or missing */
int sm_repo_proof(struct sm_repo *r, const char *vid, const uint8_t hash[SM_DIGEST], const struct sm_proof_ops *to, void *arg,
		  struct sm_err *e);

/* sm_repo_prove() - the same as a proof that has been checked: of all of @g; free it with sm_proof_free(). @k: as of sm_proof_new() */
int sm_repo_prove(struct sm_repo *r, const struct sm_generation *g, const struct sm_secret *k, struct sm_proof **p, struct sm_err *e);

/* ---- what it takes ---- */

struct sm_usage {
	uint64_t packs, maps, manifests;	/* bytes allocated; maps: and proofs */
};
int sm_volume_usage(struct sm_repo *r, const char *vid, struct sm_usage *u, struct sm_err *e);

/* An upload that is staged, running or not. */
struct sm_staged {
	char dir[PATH_MAX], client[SM_CLIENT_MAX], vid[SM_VID_TEXT];
	struct sm_gen_info info;
	uint64_t bytes;
};
/* sm_staged() - all of them; @fn may stop with a value other than 0, which is returned */
int sm_staged(struct sm_repo *r, int (*fn)(const struct sm_staged *s, void *arg), void *arg, struct sm_err *e);

/* ---- verify ---- */

/* Ticks of 1/1000 %: how much of the records is read. */
#define SM_SAMPLE_ALL	100000u

enum sm_verify_mode {
	SM_VERIFY_ALL,		/* everything, and each upload's map hash */
	SM_VERIFY_SAMPLE,	/* the structure, and some records chosen by chance */
	SM_VERIFY_STRUCTURE,	/* manifests, map segments, packs' indexes; no data */
};

struct sm_verify {
	enum sm_verify_mode mode;
	uint32_t sample;	/* of SM_SAMPLE_ALL */
	bool keep;		/* note the result for sm_verified_load() */
	const struct sm_secret *key;	/* open what is encrypted, too; NULL: only its stored bytes are checked */
	uint64_t volumes, generations, packs, records, bytes, maps, orphans, released, opened;
	uint64_t errors;
	/* Called for each thing found wrong; may be NULL. */
	void (*report)(const char *what, void *arg);
	/* Called now and then; may be NULL. */
	void (*tick)(void *arg);
	void *arg;
};

/*
 * sm_repo_verify() - read and hash. 0 also when errors were found (v->errors); -errno when it could not go on. Adds to the counts.
 * sm_volume_verify() - the same of one volume
 */
int sm_repo_verify(struct sm_repo *r, struct sm_verify *v, struct sm_err *e);
int sm_volume_verify(struct sm_repo *r, const char *vid, struct sm_verify *v, struct sm_err *e);

/* What the last verification of a volume found; kept in REPO/status/VID.verify. */
struct sm_verified {
	uint64_t at;			/* ns, the server's clock */
	uint32_t sample;		/* of SM_SAMPLE_ALL; 0: structure only */
	uint64_t generations, records, bytes, errors;
};
int sm_verified_load(struct sm_repo *r, const char *vid, struct sm_verified *v, struct sm_err *e);
int sm_verified_save(struct sm_repo *r, const char *vid, const struct sm_verified *v, struct sm_err *e);

/*
 * Generations of which a verification found something damaged, ascending; REPO/status/VID.damaged. Nothing is built on them. Only a
 * verification that reads everything takes one off the list. sm_damaged_load(): none known, or not readable: none; free n->v.
 */
void sm_damaged_load(struct sm_repo *r, const char *vid, struct sm_numbers *n);
int sm_damaged_save(struct sm_repo *r, const char *vid, const struct sm_numbers *n, struct sm_err *e);
bool sm_numbers_have(const struct sm_numbers *n, uint32_t number);

/*
 * A lock on a generation: it is not deleted before a time by the server's clock (ns; INT64_MAX: never).
 * sm_keep_get(): 1 locked (perhaps in the past), 0 not, -EUCLEAN a damaged note (to be taken for a lock), -errno.
 */
int sm_keep_get(struct sm_repo *r, const char *vid, uint32_t number, uint64_t *until, struct sm_err *e);
int sm_keep_set(struct sm_repo *r, const char *vid, uint32_t number, uint64_t until, struct sm_err *e);
int sm_keep_clear(struct sm_repo *r, const char *vid, uint32_t number, struct sm_err *e);

/* Keys of objects, for the parts of the repository. */
#define SM_KEY_MAX	192u
void sm_key_pack(char key[SM_KEY_MAX], const char *vid, const uint8_t id[SM_DIGEST]);
void sm_key_map(char key[SM_KEY_MAX], const char *vid, const uint8_t id[SM_DIGEST]);
void sm_key_proof(char key[SM_KEY_MAX], const char *vid, const uint8_t hash[SM_DIGEST]);
void sm_key_manifest(char key[SM_KEY_MAX], const char *vid, uint32_t number);
/* sm_generation_text() - the manifest object; free() it */
char *sm_generation_text(const struct sm_generation *g, const char *manifest);

#endif
