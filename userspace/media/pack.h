/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Packs: append-only files of DATA and ZERO payloads as they came over the wire.
 *
 *	┌────────┬──────────┬──────────┬ … ┬───────┬──────┐
 *	│ header │ record 0 │ record 1 │   │ index │ tail │
 *	└────────┴──────────┴──────────┴ … ┴───────┴──────┘
 *
 * While it grows a pack has no index and no tail: after a crash its records are read from the front
 * and everything from the first damaged one on is cut off. Sealing appends index and tail.
 * The pack's id is SHA-256(header, index); the index has the SHA-256 of every record's payload:
 * whoever knows the id can check every byte. The header has a random nonce: no two packs are alike.
 */
#ifndef SNAPMEDIA_PACK_H
#define SNAPMEDIA_PACK_H

#include "extent.h"
#include "store.h"

#define SM_PACK_SIZE		(32ull << 20)	/* sealed when it has grown past this */
#define SM_PACK_RECORDS		65536u		/* or has this many records */
#define SM_PACK_MAX		(SM_PACK_SIZE + (4ull << 20))	/* of records; readers refuse more */

struct sm_pack_header {
	char magic[8];			/* "SDPACK\1\0" */
	uint8_t upload[SM_UUID];	/* the upload that wrote it */
	uint8_t nonce[SM_UUID];
	uint32_t number;		/* within the upload, from 0 */
	uint32_t flags;			/* 0 */
	uint8_t reserved[16];
} __attribute__((packed));
_Static_assert(sizeof(struct sm_pack_header) == 64, "pack header");

struct sm_pack_record {
	uint32_t magic;			/* "SDRC" */
	uint16_t type;			/* SM_DATA or SM_ZERO */
	uint16_t reserved;
	uint32_t length;		/* of the payload behind it */
	uint32_t crc;			/* CRC32C of the 12 bytes before, then of the payload */
} __attribute__((packed));
_Static_assert(sizeof(struct sm_pack_record) == 16, "pack record");

struct sm_pack_index {
	uint64_t offset;		/* of the payload in the pack */
	uint64_t first;			/* offset of the first extent in the volume */
	uint32_t length;
	uint32_t raw_length;		/* 0: ZERO */
	uint32_t nr_extents;
	uint32_t type;
	uint8_t digest[SM_DIGEST];	/* SHA-256 of the payload */
} __attribute__((packed));
_Static_assert(sizeof(struct sm_pack_index) == 64, "pack index");

struct sm_pack_tail {
	uint64_t index_offset;
	uint32_t nr_records;
	uint32_t reserved;
	uint8_t id[SM_DIGEST];
	char magic[8];			/* "SDPKTAIL" */
	uint8_t pad[8];
} __attribute__((packed));
_Static_assert(sizeof(struct sm_pack_tail) == 64, "pack tail");

/* One that grows. */
struct sm_pack_writer {
	int fd;
	uint32_t number;
	bool sealed, dirty;
	uint64_t end;			/* bytes of the file that count */
	uint64_t started;		/* the disk was told to write up to here; says nothing about durability */
	struct sm_pack_header header;
	struct sm_pack_index *index;
	uint32_t nr, room;
	uint8_t id[SM_DIGEST];		/* when sealed */
	char path[512];
};

int sm_pack_create(struct sm_pack_writer *p, const char *path, const uint8_t upload[SM_UUID], uint32_t number,
		   struct sm_err *e);

/*
 * sm_pack_recover() - take up a pack after whatever happened
 *
 * Calls @fn for each whole record; a payload that @fn refuses ends the pack before it, as damage does.
 * Cuts the rest off. What it leaves is not known to be durable until sm_pack_sync().
 */
typedef int (*sm_pack_fn)(uint32_t record, uint16_t type, const void *payload, size_t len, void *arg, struct sm_err *e);
int sm_pack_recover(struct sm_pack_writer *p, const char *path, const uint8_t upload[SM_UUID], uint32_t number,
		    sm_pack_fn fn, void *arg, struct sm_err *e);

/* sm_pack_append() - not durable before sm_pack_sync(). @nr_extents, @raw_length, @first: for the index. */
int sm_pack_append(struct sm_pack_writer *p, uint16_t type, const void *payload, size_t len, uint32_t nr_extents,
		   uint32_t raw_length, uint64_t first, struct sm_err *e);
int sm_pack_sync(struct sm_pack_writer *p, struct sm_err *e);
/* sm_pack_seal() - append index and tail, and sync. The pack is final then. */
int sm_pack_seal(struct sm_pack_writer *p, struct sm_err *e);
static inline bool sm_pack_full(const struct sm_pack_writer *p)
{
	return p->end >= SM_PACK_SIZE || p->nr >= SM_PACK_RECORDS;
}
/* sm_pack_close() - free; the file stays */
void sm_pack_close(struct sm_pack_writer *p);

/* One that is sealed, opened from a store. */
struct sm_pack {
	struct sm_store *store;
	struct sm_object *object;
	struct sm_pack_header header;
	struct sm_pack_index *index;
	uint32_t nr;
	uint8_t id[SM_DIGEST];
};

/* sm_pack_open() - checks tail, bounds and id; -EUCLEAN when they are wrong, or it is not the one of that id */
int sm_pack_open(struct sm_store *s, const char *key, const uint8_t id[SM_DIGEST], struct sm_pack *p,
		 struct sm_err *e);
/* sm_pack_length() - of a record's payload: at most SM_MAX_PAYLOAD; 0: there is no such record */
static inline uint32_t sm_pack_length(const struct sm_pack *p, uint32_t record)
{
	return record < p->nr ? le32toh(p->index[record].length) : 0;
}
/* sm_pack_read() - payload of a record into @buf (as long as it is), checked; its length or -errno */
ssize_t sm_pack_read(struct sm_pack *p, uint32_t record, void *buf, struct sm_err *e);
void sm_pack_done(struct sm_pack *p);

#endif
