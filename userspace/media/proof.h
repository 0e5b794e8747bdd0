/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Proofs: what a client needs to know of a generation and its ancestors to see by itself which frame each block of it must come from.
 * The argument is in proof.c.
 */
#ifndef SNAPMEDIA_PROOF_H
#define SNAPMEDIA_PROOF_H

#include "extent.h"
#include "manifest.h"
#include "seal.h"

#define SM_PROOF_CHUNK	(64u << 10)	/* at most, of the stream of one generation's items */

/* ---- writing: the items of a generation in ascending order, cut into chunks anywhere between two of them ---- */

enum sm_proof_ref { SM_PROOF_ZERO, SM_PROOF_SAME, SM_PROOF_NEW, SM_PROOF_BACK };

struct sm_proof_writer {
	uint8_t buf[SM_PROOF_CHUNK];
	size_t len;
	uint64_t end;			/* block */
	int (*chunk)(const void *buf, size_t len, void *arg, struct sm_err *e);
	void *arg;
};

/*
 * sm_proof_item() - @count blocks from @start on are zeros; of the frame before; of the next frame, with @leaf; of the frame that began @back
 * frames before the last new one. sm_proof_flush() - hand out the last chunk
 */
int sm_proof_item(struct sm_proof_writer *w, uint64_t start, uint64_t count, enum sm_proof_ref ref, const uint8_t *leaf, uint64_t back,
		  struct sm_err *e);
int sm_proof_flush(struct sm_proof_writer *w, struct sm_err *e);

/* ---- reading and checking ---- */

struct sm_proof;

/*
 * sm_proof_new() - @hash: of the manifest it begins with; @k: all must be sealed with this key; NULL: none may be. NULL: no memory
 * @keyless: for who has no key, and does not want to read: sealed or not, tags are not compared
 */
struct sm_proof *sm_proof_new(const uint8_t hash[SM_DIGEST], const struct sm_secret *k, bool keyless);
void sm_proof_free(struct sm_proof *p);

/* sm_proof_manifest() - the generation, then its parent, and so on; each followed by its chunks. -EPROTO: not that one, or the one before is wrong */
int sm_proof_manifest(struct sm_proof *p, const char *text, size_t len, struct sm_err *e);
int sm_proof_chunk(struct sm_proof *p, const void *buf, size_t len, struct sm_err *e);
/* sm_proof_last() - does what came since the last manifest say what that says? For who looks at one generation only */
int sm_proof_last(struct sm_proof *p, struct sm_err *e);
/* sm_proof_end() - that was the full backup. Then the whole image is known, and can be compared with */
int sm_proof_end(struct sm_proof *p, struct sm_err *e);

/*
 * sm_proof_data() - do these blocks belong to the frame with this leaf (sm_data_leaf())? sm_proof_frame() - to this frame, which if it is sealed
 * was sealed for the generation that has the leaf? sm_proof_zero() - are they zeros? 0 or -EPROTO
 */
int sm_proof_data(const struct sm_proof *p, const struct sm_wire_extent *x, uint32_t nr, const uint8_t leaf[SM_DIGEST], struct sm_err *e);
int sm_proof_frame(const struct sm_proof *p, const struct sm_wire_extent *x, uint32_t nr, const struct sm_data *d, struct sm_err *e);
int sm_proof_zero(const struct sm_proof *p, const struct sm_wire_extent *x, uint32_t nr, struct sm_err *e);

#endif
