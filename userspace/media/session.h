/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One conversation between a client and a media server, on either side of it.
 *
 *	client			server
 *	HELLO	──────────────►
 *		◄──────────────	HELLO (roles granted)
 *	OPEN	──────────────►			or LIST ► … ◄ LISTED* END
 *		◄──────────────	HAVE_DATA* HAVE_ZERO* OPENED	or RESTORE ► … ◄ RESTORING (DATA | ZERO)* END
 *	DATA, ZERO ───────────►
 *		◄──────────────	ACK (durable; gives credit)
 *	COMMIT	──────────────►
 *		◄──────────────	COMMITTED (receipt)
 *	BYE	──────────────►
 *
 * ERROR from either side ends it. Requests may follow one another in a session.
 */
#ifndef SNAPMEDIA_SESSION_H
#define SNAPMEDIA_SESSION_H

#include "dest.h"
#include "frame.h"
#include "proof.h"
#include "repo.h"
#include "seal.h"

/* Who the peer is: from the certificate, the forced command or the listening address; never from a message. */
struct sm_identity {
	char client[SM_CLIENT_MAX];
	uint32_t roles;
	uint64_t quota;		/* bytes; 0: none */
};

struct sm_wire_ack {
	uint64_t bytes;		/* payload bytes of DATA and ZERO frames of this session that are durable */
	uint64_t frames;
} __attribute__((packed));

/**
 * sm_serve() - the server's side, until the peer leaves
 *
 * Errors that are the peer's to know are sent to it. Return: 0 when it left in peace, -errno (also -EINTR: told to stop).
 */
int sm_serve(struct sm_repo *r, struct sm_chan *c, const struct sm_identity *id, struct sm_err *e);

/* sm_send_error() - tell the peer why; whether it arrives does not matter any more */
void sm_send_error(struct sm_chan *c, int err, const char *text);

/* Words for errno in ERROR frames. */
const char *sm_error_word(int err);
int sm_error_number(const char *word);
/** sm_remote_error() - an SM_ERROR frame as @e: "@peer: " and its own words for what went wrong. Return: its errno, -EPROTO when it is none */
int sm_remote_error(const char *peer, const struct sm_frame *f, struct sm_err *e);

/* What LISTED and RESTORING say. */
struct sm_listed {
	struct sm_manifest manifest;
	uint8_t hash[SM_DIGEST];	/* recomputed from the manifest's text */
	uint64_t sequence, received, stored_bytes;
	bool damaged;			/* as a verification of the server has found */
};
int sm_listed_parse(const struct sm_frame *f, struct sm_listed *l, struct sm_err *e);

/* ---- client ---- */

struct sm_client {
	struct sm_chan chan;
	struct sm_carrier carrier;
	bool oneway;			/* a stream: nobody answers */
	const char *peer;		/* what it is, for messages */
	uint8_t repository[SM_UUID];
	uint32_t roles;			/* granted */
	uint64_t features;		/* the server's */
	uint64_t credit, sent, acked;	/* payload bytes */
	uint64_t kept_alive;		/* ns; when last said */
	uint64_t damaged;		/* generations of the last list that the server has and cannot read */
};

/* sm_client_connect() - connect, exchange HELLO. @role: what is asked for: one role, or several of which one must be granted */
int sm_client_connect(struct sm_client *c, const struct sm_dest *d, uint32_t role, struct sm_err *e);
/* sm_client_stream() - write the stream form to a descriptor instead */
int sm_client_stream(struct sm_client *c, int fd, struct sm_err *e);
/* sm_client_end() - BYE when all is well, close */
void sm_client_end(struct sm_client *c, bool ok);

/* sm_client_keepalive() - say that we are still there, at most once a minute; for long work between requests */
void sm_client_keepalive(struct sm_client *c);

/* sm_client_list() - generations of a volume (name or uuid; NULL: of all). @newest: only so many of each, the last published; 0: all. @fn: nonzero ends, and is returned after the list has been read */
int sm_client_list(struct sm_client *c, const char *volume, uint32_t newest, int (*fn)(const struct sm_listed *l, void *arg), void *arg,
		   struct sm_err *e);

/**
 * sm_client_open() - start or resume an upload
 * @have: told what the server holds already (any order)
 *
 * Return: 0 go on; 1 the generation is there already, with *@receipt; -errno.
 */
int sm_client_open(struct sm_client *c, const struct sm_gen_info *info, const struct sm_have_ops *have, void *arg,
		   struct sm_receipt *receipt, struct sm_err *e);
/* sm_client_send() - a DATA or ZERO payload; waits for credit */
int sm_client_send(struct sm_client *c, uint16_t type, const void *payload, size_t len, struct sm_err *e);
/* sm_client_commit() - in a stream the receipt has only the manifest's hash */
int sm_client_commit(struct sm_client *c, const char *manifest, struct sm_receipt *receipt, struct sm_err *e);
/*
 * sm_client_restore() - ask for a generation; frames follow: sm_incoming
 * @x: only these parts of it: whole blocks (what is past the end does not count), ascending, disjoint; @nr 0: all
 */
#define SM_MAX_RANGES	1024u
int sm_client_restore(struct sm_client *c, const char *volume, uint32_t number, const struct sm_extent *x, uint32_t nr,
		      struct sm_listed *l, struct sm_err *e);

/*
 * sm_client_proof() - after it, before the frames: receive and check what the image must be made of; free it with sm_proof_free()
 * @k: as of sm_proof_new()
 *
 * Only when the server has SM_FEATURE_PROOF: then it has been asked for. Return: 0, -EPROTO it does not hold, -EACCES the key.
 */
int sm_client_proof(struct sm_client *c, const struct sm_listed *l, const struct sm_secret *k, struct sm_proof **p, struct sm_err *e);

/*
 * sm_client_digest() - ask for the digests of parts of a generation (session_digest.h); the answer to each is taken
 * by sm_client_digests(), in order. At most two may be under way, of at most 256 ranges each, so that neither side waits for the
 * other to read. Needs SM_FEATURE_DIGESTS of the server; not while an upload is open.
 * @x: whole blocks, ascending, disjoint
 */
#define SM_DIGEST_RANGES	256u
int sm_client_digest(struct sm_client *c, const struct sm_gen_info *g, const uint8_t manifest[SM_DIGEST], uint32_t unit,
		     const struct sm_extent *x, uint32_t nr, struct sm_err *e);
/* sm_client_digests() - exactly @nr of them. They are the channel's, until the next frame. */
int sm_client_digests(struct sm_client *c, uint32_t nr, const uint8_t (**digests)[SM_DIGEST], struct sm_err *e);

/* sm_client_order() - an order (admin.h); takes it. @fn: takes each row */
int sm_client_order(struct sm_client *c, json_t *order, int (*fn)(json_t *row, void *arg), void *arg, struct sm_err *e);

/* ---- frames that come in: a stream file, or a restore ---- */

struct sm_incoming {
	struct sm_chan *chan;
	bool restore;			/* ends with END, not with COMMIT */
	uint64_t size;
	uint8_t want[SM_DIGEST];	/* restore: range hash of what was asked for */
	const struct sm_extent *asked;	/* restore: these parts only; the caller's */
	uint32_t nr_asked;		/* 0: all */
	struct sm_gen_info info;	/* stream: from OPEN */
	struct sm_manifest manifest;	/* stream: from COMMIT, at the end */
	uint8_t hash[SM_DIGEST];
	const struct sm_proof *proof;	/* restore: set by the caller after the begin; what does not agree with it is refused */
	const struct sm_opener *opener;	/* set by the caller after the begin; NULL: what is encrypted is only checked, and has no raw bytes */
	struct sm_map_hash map;
	struct sm_spill ranges;		/* struct sm_extent */
	uint64_t data_bytes, zero_bytes;
	uint64_t total;			/* restore: of what was asked for */
	uint64_t repacked;		/* restore: frames that the server had to pack anew */
	struct {			/* restore: PART has come, DATA is next */
		uint32_t nr;
		struct sm_wire_extent x[SM_MAX_EXTENTS];
	} part;
	uint8_t *raw;
};

struct sm_incoming_frame {
	bool zero;
	uint32_t nr;
	const struct sm_wire_extent *extents;	/* that apply */
	struct sm_data d;		/* data: the frame that they are of; ->extents may be more */
	const uint8_t *raw;		/* data: bytes of d's extents, checked against the digest; NULL: encrypted; sm_incoming_piece() finds those of one */
	const void *payload;
	size_t payload_len;
	uint16_t type;
};

/*
 * sm_incoming_stream() - read HELLO and OPEN of a stream; sm_incoming_restore() - after sm_client_restore()
 * @x: as there, cut off at @size; must stay until the end
 */
int sm_incoming_stream(struct sm_incoming *in, struct sm_chan *c, struct sm_err *e);
int sm_incoming_restore(struct sm_incoming *in, struct sm_chan *c, uint64_t size, const struct sm_extent *x, uint32_t nr,
			struct sm_err *e);
/* sm_incoming_next() - 1 a frame; 0 the end, and all of it was as announced; -errno */
int sm_incoming_next(struct sm_incoming *in, struct sm_incoming_frame *f, struct sm_err *e);
/*
 * sm_incoming_recv() - the same, but data has not been unpacked and compared with its digest: f->raw is NULL. That is the caller's to
 * do, with sm_data_unpack(&f->d), before he uses a byte; it may be done in another thread. f->payload is the channel's
 * (sm_chan_take()); f->extents may be in->part, until the next call.
 */
int sm_incoming_recv(struct sm_incoming *in, struct sm_incoming_frame *f, struct sm_err *e);
/* sm_incoming_piece() - extent @i of a data frame and its bytes; for all of them, from 0 on. @at: zeroed at first */
const uint8_t *sm_incoming_piece(const struct sm_incoming_frame *f, uint32_t i, struct sm_place *at, struct sm_extent *x);
void sm_incoming_done(struct sm_incoming *in);

/* ---- both ---- */

int sm_send_hello(struct sm_chan *c, uint32_t roles, const uint8_t *repository, struct sm_err *e);
int sm_check_hello(const struct sm_frame *f, struct sm_wire_hello *h, struct sm_err *e);
/*
 * sm_ranges_parse() - the member "ranges" of a request, [[offset, length], ...]: whole blocks, ascending, disjoint, cut off at @size.
 * Absent: all. Return: how many, -EPROTO. sm_ranges_json() - make it
 */
int sm_ranges_parse(const json_t *o, uint64_t size, struct sm_extent x[SM_MAX_RANGES], struct sm_err *e);
json_t *sm_ranges_json(const struct sm_extent *x, uint32_t nr);
int sm_send_json(struct sm_chan *c, uint16_t type, json_t *o, struct sm_err *e);	/* takes @o */

#endif
