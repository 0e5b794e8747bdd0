/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A repository to play with, backups made from memory, and what has come of them. For the tests of the media repository. */
#ifndef MEDIA_MODEL_H
#define MEDIA_MODEL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "frame.h"
#include "repo.h"

#define CLIENT	"tester"

extern char dir[64];
extern struct sm_repo repo;
extern const uint8_t volume[SM_UUID];

int setup(void **state);	/* cmocka's: an empty repository */
int teardown(void **state);

/* ---- a backup from memory ---- */

struct image {
	uint8_t *data;
	uint64_t size;
};

struct frame {
	uint16_t type;
	size_t len;
	uint8_t *payload;
};

struct backup {
	struct sm_gen_info info;
	struct sm_manifest manifest;
	struct frame frame[512];
	uint32_t nr;
	char *text;
};

/* Frames of up to @per blocks; blocks of zeros become ZERO frames. @base, @parent: NULL for a full one. */
void make_backup(struct backup *b, uint32_t number, const struct image *now, const struct image *base,
		 const uint8_t *parent, uint32_t per);
void free_backup(struct backup *b);
int send_frames(struct sm_upload *u, const struct backup *b, uint32_t from, uint32_t to);
/* store() - open, send, commit. @hash: of the manifest; may be NULL */
int store(const struct backup *b, uint8_t hash[SM_DIGEST], struct sm_err *e);
/* finish() - send what is missing, frame by frame, and commit. Return: 1 it was there already */
int finish(const struct backup *b);

struct image make_image(uint64_t size, unsigned int seed);
/* change() - some ranges, and sometimes the size */
void change(struct image *m);

struct have_count {
	uint64_t bytes;
};
extern const struct sm_have_ops have_ops;	/* adds to a struct have_count */
uint64_t frame_bytes(const struct backup *b, uint32_t nr);

/* ---- looking at it ---- */

/* read_image() - a generation as it comes back; the caller frees out->data when it returns 0 */
int read_image(uint32_t number, struct image *out);
void assert_stored(uint32_t number, const struct image *want);
uint64_t verify_errors(void);

#endif
