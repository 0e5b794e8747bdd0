/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Digests of parts of a generation, for a client that wants to know what of its own data differs from it.
 *
 * Each range is cut into units from its begin; a digest is the SHA-256 of a unit's bytes as far as range and volume go, or
 * zeros for a unit that is all zeros.
 */
#ifndef SNAPMEDIA_SESSION_DIGEST_H
#define SNAPMEDIA_SESSION_DIGEST_H

#include "session.h"

#define SM_DIGEST_UNITS		(SM_MAX_PAYLOAD / SM_DIGEST)	/* digests of one answer */
#define SM_DIGEST_UNIT_MAX	(1u << 20)
#define SM_DIGEST_BYTES		(256u << 20)	/* bytes that one request may be about */

/* sm_digest_unit() - of @len bytes; what both sides compute */
void sm_digest_unit(const void *buf, size_t len, uint8_t digest[SM_DIGEST]);

/* The generation that was asked about last stays open (and locked against deletion) until another one is, or the end. */
struct sm_digester;

/**
 * sm_digester_answer() - check a DIGEST request and send DIGESTED
 * @d: *@d is NULL at first
 * @client: only generations of this client's volumes
 *
 * Blocks; reads what the ranges cover. Return: 0, -ENOENT, -EPROTO, -EUCLEAN, -errno.
 */
int sm_digester_answer(struct sm_digester **d, struct sm_repo *r, const char *client, const struct sm_frame *f, struct sm_chan *c,
		       struct sm_err *e);
void sm_digester_free(struct sm_digester *d);

#endif
