/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The framed protocol, lowest layer: one frame at a time over a pair of descriptors. The same
 * frames travel over TCP, over ssh's stdin and stdout, and lie in stream files.
 * Exact formats: Documentation/design/protocol.rst.
 */
#ifndef SNAPMEDIA_FRAME_H
#define SNAPMEDIA_FRAME_H

#include <signal.h>
#include <sys/uio.h>

#include "util.h"

#define SM_MAGIC		0x31464453u	/* "SDF1" */
#define SM_PROTOCOL		1u
#define SM_MAX_PAYLOAD		(1u << 20)
#define SM_MAX_CONTROL		(64u << 10)	/* payload of a frame that is JSON */
#define SM_CREDIT		(16u << 20)	/* payload bytes sent and not acknowledged */
#define SM_DEFAULT_PORT		"7419"

enum sm_type {
	SM_HELLO = 1,		/* both ways, first */
	SM_ERROR = 2,		/* ends the session */
	SM_BYE = 3,		/* ends the session in peace */
	SM_KEEPALIVE = 4,	/* optional */

	SM_OPEN = 16,		/* client: start or resume an upload */
	SM_OPENED = 17,		/* server: go on, after so many HAVE frames */
	SM_HAVE_DATA = 18,	/* server: heads of DATA frames it holds durably */
	SM_HAVE_ZERO = 19,	/* server: zero extents it holds durably */
	SM_DATA = 20,
	SM_ZERO = 21,
	SM_ACK = 22,		/* server: durable up to here */
	SM_COMMIT = 23,
	SM_COMMITTED = 24,	/* server: the receipt */
	SM_DIGEST_OF = 25,	/* client: digests of parts of a generation are wanted (session_digest.h) */
	SM_DIGESTED = 26,	/* server: they are */
	SM_PART = 27,		/* server, in a restore: of the next DATA frame only these extents apply */

	SM_PROVEN = 28,		/* server, in a restore: a manifest of the proof (proof.h) */
	SM_PROOF = 29,		/* server: what it is about */

	SM_LIST = 32,
	SM_LISTED = 33,		/* server: one generation */
	SM_RESTORE = 34,
	SM_RESTORING = 35,	/* server: what follows */
	SM_END = 36,		/* server: end of a list, a restore or an order */
	SM_ORDER = 37,		/* client: something to do with the repository (admin.h) */
	SM_ROW = 38,		/* server: a line of the answer */
};

#define SM_F_OPTIONAL		(1u << 0)	/* a receiver that does not know the type skips the frame */

struct sm_wire_header {
	uint32_t magic;
	uint16_t type;
	uint16_t flags;
	uint64_t sequence;	/* of this direction, from 0, no gaps */
	uint32_t channel;	/* 0; room for several uploads in one session */
	uint32_t length;	/* of the payload */
	uint32_t payload_crc;
	uint32_t header_crc;	/* of the 28 bytes before it */
} __attribute__((packed));
_Static_assert(sizeof(struct sm_wire_header) == 32, "frame header");

struct sm_wire_hello {
	uint32_t protocol;	/* SM_PROTOCOL */
	uint32_t roles;		/* client: wanted; server: granted */
	uint64_t features;	/* what the sender can do */
	uint64_t required;	/* what the receiver must be able to do */
	uint32_t max_payload;
	uint32_t reserved;
	uint8_t repository[SM_UUID];	/* server only */
	char agent[32];		/* name and version, for logs only */
} __attribute__((packed));
_Static_assert(sizeof(struct sm_wire_hello) == 80, "hello");

#define SM_FEATURE_ZSTD		(1ull << 0)
#define SM_FEATURE_RESUME	(1ull << 1)
#define SM_FEATURE_DIGESTS	(1ull << 2)
#define SM_FEATURE_PARTS	(1ull << 3)	/* takes PART, and DATA of a restore in any order */
#define SM_FEATURE_SEALED	(1ull << 4)	/* keeps what clients encrypt */
#define SM_FEATURE_PROOF	(1ull << 5)	/* proves what it restores */
#define SM_FEATURES		(SM_FEATURE_PROOF | SM_FEATURE_ZSTD | SM_FEATURE_RESUME | SM_FEATURE_DIGESTS | SM_FEATURE_PARTS | SM_FEATURE_SEALED)

#define SM_ROLE_BACKUP		(1u << 0)
#define SM_ROLE_RESTORE		(1u << 1)
#define SM_ROLE_OPERATOR	(1u << 2)
#define SM_ROLE_AUDITOR		(1u << 3)

struct sm_frame {
	uint16_t type, flags;
	uint64_t sequence;
	uint32_t length;
	const uint8_t *payload;	/* the channel's; until the next receive */
};

/*
 * One direction each; either may be -1. Not for two threads at once in one direction.
 * @wait_mask: signal mask while waiting for a frame's first byte, so that a signal that is blocked
 * otherwise interrupts between frames only; NULL: signals do not interrupt.
 */
struct sm_tls;

struct sm_chan {
	int in, out;
	struct sm_tls *tls;	/* or NULL: plain bytes. Then in and out are its socket. Freed with the channel. */
	uint64_t seq_in, seq_out;
	uint64_t bytes_in, bytes_out;
	uint8_t *buf;
	size_t buf_size;
	const sigset_t *wait_mask;
	int timeout_ms;		/* of silence; 0: for ever */
};

void sm_chan_init(struct sm_chan *c, int in, int out);
/* sm_chan_free() - free buffer and TLS state; closes nothing */
void sm_chan_free(struct sm_chan *c);

/**
 * sm_chan_send() - send one frame, whole
 * @iov: payload, at most SM_MAX_PAYLOAD bytes in all
 *
 * Blocks while the peer does not read. Return: 0, -EPIPE and the like when the peer is gone.
 */
int sm_chan_send(struct sm_chan *c, uint16_t type, uint16_t flags, const struct iovec *iov, int nr,
		 struct sm_err *e);
int sm_chan_send_buf(struct sm_chan *c, uint16_t type, const void *buf, size_t len, struct sm_err *e);

/**
 * sm_chan_recv() - receive one frame
 *
 * Checks magic, both CRCs, sequence and length before anything is allocated or used; skips unknown
 * optional frames. Unknown mandatory types are the caller's to refuse.
 * Return: 1, 0 at a clean end, -EPROTO damaged or out of order, -ETIMEDOUT, -EINTR (wait_mask), -EPIPE cut in a frame.
 */
int sm_chan_recv(struct sm_chan *c, struct sm_frame *f, struct sm_err *e);

/*
 * sm_chan_take() - keep the payload of the last frame: its buffer is the caller's from now on, and *@buf (or NULL), of
 * *@size bytes, takes its place
 */
void sm_chan_take(struct sm_chan *c, uint8_t **buf, size_t *size);

/* sm_chan_pending() - is there something to receive now, or within @timeout_ms? */
bool sm_chan_pending(struct sm_chan *c, int timeout_ms);

#endif
