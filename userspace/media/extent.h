/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What DATA and ZERO frames carry, and the digests over it. The same payload bytes lie in the
 * packs of a repository.
 *
 * An extent starts at a multiple of SM_BLOCK and is a multiple of SM_BLOCK long, or ends with the
 * volume. The extents of a frame ascend; they may touch, never overlap. Its raw
 * data is their bytes one after the other: real bytes, no padding.
 */
#ifndef SNAPMEDIA_EXTENT_H
#define SNAPMEDIA_EXTENT_H

#include "util.h"

#define SM_MAX_RAW		(1u << 20)	/* raw bytes of one DATA frame */
#define SM_SEND_RAW		(256u << 10)	/* what our sender puts into one */
#define SM_MAX_EXTENTS		4096u		/* of one frame */

enum sm_codec {
	SM_CODEC_NONE = 0,
	SM_CODEC_ZSTD = 1,
	SM_CODEC_SEALED = 2,	/* encrypted by the client: seal.h */
};

struct sm_wire_extent {
	uint64_t offset;	/* bytes */
	uint64_t length;
} __attribute__((packed));

struct sm_wire_data {
	uint32_t nr_extents;
	uint32_t raw_length;
	uint32_t stored_length;
	uint8_t codec;
	uint8_t reserved[3];
	uint8_t digest[SM_DIGEST];	/* SHA-256 of the raw bytes; of the stored ones when they are sealed */
	/* struct sm_wire_extent[nr_extents], then stored_length bytes */
} __attribute__((packed));
_Static_assert(sizeof(struct sm_wire_data) == 48, "data head");

struct sm_wire_zero {
	uint32_t nr_extents;
	uint32_t reserved;
	/* struct sm_wire_extent[nr_extents] */
} __attribute__((packed));

struct sm_extent {
	uint64_t offset, length;
};

/* A checked payload; points into it. */
struct sm_data {
	uint32_t nr, raw_length, stored_length;
	uint8_t codec;
	const uint8_t *digest;
	const struct sm_wire_extent *extents;
	const uint8_t *stored;		/* NULL in a head without data */
	size_t head_length;		/* head and extents */
};

static inline struct sm_extent sm_extent_at(const struct sm_wire_extent *x, uint32_t i)
{
	return (struct sm_extent){ le64toh(x[i].offset), le64toh(x[i].length) };
}

/**
 * sm_data_end() - where the last extent of a DATA payload (or of its head) ends, in bytes; 0: it says nothing sensible
 *
 * The size to check a frame against that was made of another size of the volume, or checked when it came in: an extent may end inside a block only
 * where the volume ended.
 */
uint64_t sm_data_end(const void *payload, size_t len);
/**
 * sm_data_parse() - check a DATA payload against every rule that does not need the data
 * @volume_size: bytes; extents must lie inside
 * @head_only: @payload starts with a head without stored bytes (HAVE), and may go on with the next
 */
int sm_data_parse(const void *payload, size_t len, uint64_t volume_size, bool head_only, struct sm_data *d,
		  struct sm_err *e);

/* sm_zero_parse() - check a ZERO payload; the extents, and how many */
int sm_zero_parse(const void *payload, size_t len, uint64_t volume_size, const struct sm_wire_extent **x,
		  uint32_t *nr, struct sm_err *e);

/**
 * sm_data_unpack() - the raw bytes, checked against the digest
 * @raw: SM_MAX_RAW bytes; exactly d->raw_length are written, never more
 */
int sm_data_unpack(const struct sm_data *d, uint8_t *raw, struct sm_err *e);

/*
 * sm_data_check() - all that can be checked without a key; @raw as above, its content is only that of what is not sealed
 * sm_data_inflate() - sm_data_unpack() without the digest: for bytes that something else vouches for
 */
int sm_data_check(const struct sm_data *d, uint8_t *raw, struct sm_err *e);
int sm_data_inflate(const struct sm_data *d, uint8_t *raw, struct sm_err *e);

static inline const struct sm_wire_data *sm_data_head(const struct sm_data *d)
{
	return (const struct sm_wire_data *)d->extents - 1;
}

/* sm_data_leaf() - what stands for a DATA frame in the map hash: independent of the codec */
void sm_data_leaf(const struct sm_data *d, uint8_t leaf[SM_DIGEST]);

/* sm_data_part_leaf() - of a DATA frame of which only a part applies (PART) */
void sm_data_part_leaf(const struct sm_data *d, const struct sm_wire_extent *part, uint32_t nr, uint8_t leaf[SM_DIGEST]);

/*
 * sm_data_place() - where in the raw bytes a part is, that lies inside one of the frame's extents; UINT64_MAX: it does not
 * @at: zeroed at first; parts must ascend
 */
struct sm_place {
	uint32_t i;
	uint64_t raw;
};
uint64_t sm_data_place(const struct sm_data *d, const struct sm_extent *part, struct sm_place *at);

/**
 * sm_data_pack() - make a DATA payload
 * @payload: SM_MAX_PAYLOAD bytes and more: SM_DATA_ROOM(nr, raw_length)
 * @level: of zstd; 0: do not compress. Bytes that do not shrink by at least 1/16 are stored as they are.
 * Return: its length, or negative errno.
 */
#define SM_DATA_ROOM(nr, raw)	(sizeof(struct sm_wire_data) + (nr) * sizeof(struct sm_wire_extent) + (raw))
ssize_t sm_data_pack(const struct sm_extent *x, uint32_t nr, const uint8_t *raw, uint32_t raw_length, int level,
		     void *payload, struct sm_err *e);

/* A digest over sorted ranges that does not depend on how they were cut: neighbours are joined first. */
struct sm_range_hash {
	struct sm_sha sha;
	uint64_t start, end, nr, bytes;
};
void sm_range_hash_init(struct sm_range_hash *h);
/* sm_range_hash_add() - -EINVAL unless it begins at or after the end of the one before */
int sm_range_hash_add(struct sm_range_hash *h, uint64_t offset, uint64_t length);
void sm_range_hash_final(struct sm_range_hash *h, uint8_t digest[SM_DIGEST]);

/*
 * The map hash: what an upload is about, one digest that both sides make by themselves.
 *   SHA-256( "snapdiff-map-1\0" || SHA-256(leaves of the DATA frames by first offset) || range hash of all zero extents )
 * O(change); it stands for the whole image together with the parent's manifest hash.
 */
struct sm_map_hash {
	struct sm_sha data;
	struct sm_range_hash zero;
	uint64_t last, frames;
	bool any;
};
void sm_map_hash_init(struct sm_map_hash *h);
int sm_map_hash_data(struct sm_map_hash *h, uint64_t first_offset, const uint8_t leaf[SM_DIGEST]);
/* sm_map_hash_leaf() - the same where frames come in any order, and the order is part of the digest */
void sm_map_hash_leaf(struct sm_map_hash *h, const uint8_t leaf[SM_DIGEST]);
int sm_map_hash_zero(struct sm_map_hash *h, uint64_t offset, uint64_t length);
void sm_map_hash_final(struct sm_map_hash *h, uint8_t digest[SM_DIGEST]);
void sm_map_hash_drop(struct sm_map_hash *h);

#endif
