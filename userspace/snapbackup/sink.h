/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where the pipeline's output goes: frames of the shipping protocol, or another format into a descriptor.
 */
#ifndef SNAPBACKUP_SINK_H
#define SNAPBACKUP_SINK_H

#include "plan.h"
#include "session.h"

/*
 * A part of the source, read: what is data and what is zeros. Both lists ascend, and together they are the part without
 * gaps and overlaps of their own making. Batches come in the order of the volume.
 */
struct batch {
	uint32_t nr_data, nr_zero;
	const struct sm_extent *data, *zeros;
	const uint8_t *raw;		/* the data extents' bytes, one after the other */
	uint32_t raw_length;
	const uint8_t *payload;		/* the same as a DATA payload, when the sink wants that */
	size_t payload_length;
};

struct sent {
	uint64_t frames;		/* DATA frames of the whole backup, resumed ones included; or records */
	uint64_t data_bytes, zero_bytes;
	uint64_t read_bytes;		/* of the source, now */
	uint64_t payload_bytes;		/* of DATA and ZERO frames, now */
	uint8_t map_hash[SM_DIGEST];
};

struct sink {
	/* A batch. Blocks. */
	int (*write)(struct sink *k, const struct batch *b, struct sm_err *e);
	/* The last batch has been written: nothing may be held back after it. */
	int (*flush)(struct sink *k, struct sm_err *e);
	/* After the source's last check: whoever reads it may now take it for whole. May be NULL. */
	int (*end)(struct sink *k, struct sm_err *e);
	void (*free)(struct sink *k);
	bool pack;			/* batches come hashed and compressed */
	uint64_t bytes_out;		/* as far as it has gone */
	struct sent *sent;
};

/* sink_frames() - to a media server or into a stream; merges what the plan says is there already. NULL: no memory */
struct sink *sink_frames(struct sm_client *c, struct plan *p, struct sent *sent);

enum backup_format { FORMAT_STREAM, FORMAT_RBD, FORMAT_RAW };

/**
 * sink_rbd() - Ceph's "rbd diff", as "rbd import-diff" reads it
 * @from, @to: names of snapshots; @from NULL: all of the image
 *
 * Records ascend. Writes the head at once. Return: 0, -EPIPE and the like.
 */
int sink_rbd(int fd, const char *from, const char *to, uint64_t size, struct sent *sent, struct sink **out,
	     struct sm_err *e);
/* sink_raw() - the image itself. Zeros become holes where @fd is a file that has just been made. NULL: no memory */
struct sink *sink_raw(int fd, uint64_t size, bool sparse, struct sent *sent);

#endif
