/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The manifest: what one backup was, said by the client, compared by the server with what it has,
 * and published as it is. Canonical JSON (sorted keys, no blanks, no floats, UTF-8): its SHA-256
 * is the name by which a later increment refers to its parent.
 */
#ifndef SNAPMEDIA_MANIFEST_H
#define SNAPMEDIA_MANIFEST_H

#include <jansson.h>

#include "util.h"

#define SM_MANIFEST_MAX		(32u << 10)
#define SM_NAME_MAX		128u		/* with NUL */
#define SM_SECRET_ID		8u		/* of an encryption key (seal.h) */
#define SM_SIZE_MAX		(1ull << 53)	/* bytes of a volume, 8 PiB: bounds what one extent can cost */

/* What OPEN announces and the manifest repeats. */
struct sm_gen_info {
	uint8_t volume[SM_UUID];
	uint8_t uuid[SM_UUID];		/* of the generation */
	uint32_t number;
	bool has_parent;
	uint8_t parent[SM_DIGEST];	/* manifest hash */
	uint64_t size;			/* bytes, exact */
	uint64_t created;		/* ns since the epoch; the client's word, informational */
	uint64_t extents, bytes;	/* of the change list: what has to be sent, zeros included */
	uint8_t change_digest[SM_DIGEST];	/* range hash of the change list */
	char volume_name[SM_NAME_MAX];
	char label[SM_NAME_MAX];
	bool sealed;			/* encrypted by the client */
	uint8_t seal_id[SM_SECRET_ID];	/* then: with which key */
};

struct sm_manifest {
	struct sm_gen_info info;
	uint64_t frames;		/* DATA frames */
	uint64_t data_bytes, zero_bytes;
	uint8_t map_hash[SM_DIGEST];
	char tool[64];
	uint8_t seal_tag[SM_DIGEST];	/* sealed: by which who has the key knows all of this again */
};

/* All return text or objects that the caller frees (free(), json_decref()), NULL when out of memory. */
char *sm_json_canonical(const json_t *o);
json_t *sm_json_parse(const char *text, size_t len, size_t max, struct sm_err *e);

json_t *sm_gen_info_json(const struct sm_gen_info *g);
int sm_gen_info_parse(const json_t *o, struct sm_gen_info *g, struct sm_err *e);

char *sm_manifest_text(const struct sm_manifest *m);
/* sm_manifest_parse() - refuses text that is not canonical, and unknown versions */
int sm_manifest_parse(const char *text, size_t len, struct sm_manifest *m, struct sm_err *e);

/* Members of a JSON object, checked. All fail with -EPROTO and the member's name. */
int sm_json_u64(const json_t *o, const char *key, uint64_t max, uint64_t *v, struct sm_err *e);
int sm_json_text(const json_t *o, const char *key, char *buf, size_t size, struct sm_err *e);
int sm_json_uuid(const json_t *o, const char *key, uint8_t uuid[SM_UUID], struct sm_err *e);
int sm_json_hex(const json_t *o, const char *key, uint8_t *data, size_t len, struct sm_err *e);
int sm_json_digest(const json_t *o, const char *key, uint8_t digest[SM_DIGEST], struct sm_err *e);
/* sm_json_set_text() - bytes that are not UTF-8 become '?' */
int sm_json_set_text(json_t *o, const char *key, const char *text);
int sm_json_set_hex(json_t *o, const char *key, const uint8_t *data, size_t len);
int sm_json_set_uuid(json_t *o, const char *key, const uint8_t uuid[SM_UUID]);

#endif
