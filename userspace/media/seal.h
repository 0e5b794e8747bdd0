/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Encryption by the client: what leaves the storage host is sealed with a key that the media server never has.
 * The argument is in seal.c.
 */
#ifndef SNAPMEDIA_SEAL_H
#define SNAPMEDIA_SEAL_H

#include "extent.h"
#include "manifest.h"

#define SM_SECRET		32u
#define SM_SECRET_ID_TEXT	(2 * SM_SECRET_ID + 1)

struct sm_secret {
	uint8_t key[SM_SECRET];
	uint8_t id[SM_SECRET_ID];	/* tells keys apart, tells nothing about the key */
};

/* Begins the stored bytes of a DATA payload with SM_CODEC_SEALED; the ciphertext follows. */
struct sm_wire_seal {
	uint8_t version;	/* 1 */
	uint8_t reserved[3];
	uint8_t id[SM_SECRET_ID];
	uint8_t generation[SM_UUID];
	uint8_t salt[16];
	uint8_t nonce[12];
	uint8_t tag[16];
	/* ciphertext of: 1 byte codec, then the bytes as that codec has them */
} __attribute__((packed));
_Static_assert(sizeof(struct sm_wire_seal) == 72, "seal");

#define SM_SEAL_ROOM	(sizeof(struct sm_wire_seal) + 1)	/* more than without, of a payload */

/**
 * sm_secret_make() - a new key, in a new file of mode 0600, durable
 *
 * Return: 0, -EEXIST (a file is never replaced), -errno.
 */
int sm_secret_make(const char *path, struct sm_secret *k, struct sm_err *e);
/**
 * sm_secret_load() - read a key file
 *
 * Refuses one that others than its owner can read, or that belongs to another user. Return: 0, -ENOENT, -EACCES, -EUCLEAN no key file, -errno.
 */
int sm_secret_load(const char *path, struct sm_secret *k, struct sm_err *e);
void sm_secret_wipe(struct sm_secret *k);
void sm_secret_id_text(const uint8_t id[SM_SECRET_ID], char text[SM_SECRET_ID_TEXT]);

/* ---- sealing ---- */

/* One run of snapbackup: a salt of its own, so a subkey that nobody else has, and a counter for the nonces. */
struct sm_sealer {
	uint8_t subkey[SM_SECRET], volume[SM_UUID];
	struct sm_wire_seal head;
	uint64_t counter;		/* atomic: of the next frame */
};

/* sm_sealer_init() - for one generation of one volume. Return: 0, -EIO no random numbers */
int sm_sealer_init(struct sm_sealer *s, const struct sm_secret *k, const uint8_t volume[SM_UUID], const uint8_t generation[SM_UUID],
		   struct sm_err *e);
/**
 * sm_seal() - seal a DATA payload where it stands
 * @payload: as sm_data_pack() made it, @len bytes, with room for SM_SEAL_ROOM more
 *
 * From several threads at once. Return: its new length, -errno.
 */
ssize_t sm_seal(struct sm_sealer *s, void *payload, size_t len, struct sm_err *e);
/* sm_seal_manifest() - what the key says of all of a manifest: sets m->seal_tag, after everything else is */
int sm_seal_manifest(const struct sm_secret *k, struct sm_manifest *m, struct sm_err *e);

/* ---- opening ---- */

/**
 * sm_unseal_manifest() - may what this manifest describes be opened with this key, and did who has the key make it?
 * @k: NULL: none was given
 *
 * Return: 0 (also: neither sealed nor a key given), -EACCES no key, another one, or a key for what is not sealed (the text names
 * the key wanted), -EPROTO a manifest that was changed.
 */
int sm_unseal_manifest(const struct sm_secret *k, const struct sm_manifest *m, struct sm_err *e);

/* sm_unseal_info() - the same as far as can be said before the manifest is there: is it this key? */
int sm_unseal_info(const struct sm_secret *k, const struct sm_gen_info *g, struct sm_err *e);

/* What frames are to be opened with. @k NULL: only what is not sealed can be. */
struct sm_opener {
	const struct sm_secret *k;
	uint8_t volume[SM_UUID];
	bool strict;			/* all must be sealed: a frame that is not was put there by somebody else */
};

/**
 * sm_data_open() - the raw bytes of a DATA payload, sealed or not
 * @o: NULL: as one without key
 * @raw: SM_MAX_RAW bytes
 *
 * Return: 0; -EACCES sealed, and this is not its key; -EPROTO: digest wrong, or not sealed for this place of this volume.
 */
int sm_data_open(const struct sm_data *d, const struct sm_opener *o, uint8_t *raw, struct sm_err *e);

/* sm_data_seal() - the head of a sealed payload's stored bytes; NULL: it is not sealed */
const struct sm_wire_seal *sm_data_seal(const struct sm_data *d);

#endif
