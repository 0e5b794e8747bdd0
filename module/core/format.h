/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The differential volume on disk. All integers little-endian, metadata in blocks of 4 KiB.
 *
 *   ┌──────┬──────┬─────────────┬─ group 0 ─────────────────────────┬─ group 1 ─ …
 *   │ sb 0 │ sb 1 │ journal     │ bitmap A │ bitmap B │ blocks …     │
 *   └──────┴──────┴─────────────┴───────────────────────────────────┴─────────────
 *
 * A group is 32256 blocks (126 MiB): what one bitmap block describes beside its header. Bit n stands for block n of the group; bits 0 and 1 (the
 * bitmaps themselves) and bits behind the end of the device are always set. Which of the two copies is valid, and under which transaction id
 * it was written, stands in the catalog: a copy left behind by a transaction that was never finished can not be taken for a valid one.
 *
 * Documentation/design/ondisk-format.rst describes the same for a reader without this code.
 */
#ifndef SNAPDIFF_CORE_FORMAT_H
#define SNAPDIFF_CORE_FORMAT_H

#include "sys.h"

#define SD_MAGIC_SUPER		0x53504453u	/* "SDPS" */
#define SD_MAGIC_BITMAP		0x42504453u	/* "SDPB" */
#define SD_MAGIC_JOURNAL	0x4a504453u	/* "SDPJ" */
#define SD_MAGIC_LEAF		0x4c504453u	/* "SDPL": leaf of a run */
#define SD_MAGIC_FENCE		0x46504453u	/* "SDPF": fence block of a run */
#define SD_MAGIC_CATALOG	0x43504453u	/* "SDPC": leaf of the catalog */
#define SD_MAGIC_INDEX		0x49504453u	/* "SDPI": index block of the catalog */

#define SD_FORMAT_VERSION	2u	/* 1: leaves of records of 24 bytes; never released */

/** struct sd_disk_header - the first 64 bytes of every metadata block */
struct sd_disk_header {
	__le32 magic;
	__le32 crc;		/* crc32c(~0, block) with this field zero; of a journal image: over all its blocks */
	__le64 addr;		/* of this block */
	__le64 txid;		/* transaction that wrote it; journal: sequence number of the group */
	__u8 uuid[16];		/* of the store */
	__le16 nr;		/* entries in use; journal: blocks of the image */
	__le16 level;		/* fence: height above the leaves */
	__le32 reserved0;
	__le64 reserved1[2];
} __packed;

#define SD_HEADER_SIZE		64

/* ---- superblock ------------------------------------------------------------------------------- */

enum sd_disk_state {
	SD_STATE_CLEAN = 1,	/* detached; the fingerprint is valid if the store was ever attached */
	SD_STATE_ACTIVE = 2,
	SD_STATE_FAILED = 3,	/* all generations are lost, for ever */
};

#define SD_INDEX_MAX		400

struct sd_disk_super {
	struct sd_disk_header hdr;
	__le32 version;
	__le32 state;			/* enum sd_disk_state */
	__le64 features_compat;
	__le64 features_ro_compat;
	__le64 features_incompat;
	__le32 block_size;		/* 4096 */
	__le32 chunk_size;		/* bytes */
	__le64 nr_blocks;		/* of the device, as far as it is used */
	__le64 journal_start;		/* block */
	__le64 journal_blocks;
	__le64 group_start;		/* block */
	__le32 group_blocks;		/* SD_GROUP_BLOCKS */
	__le32 nr_groups;
	__le64 primary_sectors;		/* 0: never attached */
	__le64 created_ns;
	__le64 journal_tail;		/* absolute position of the first group to replay, in blocks since format; modulo journal_blocks it is the offset */
	__le64 journal_seq;		/* its sequence number */
	__le32 journal_link;		/* link of the image before it: the groups form a chain */
	__le32 journal_epoch;		/* only groups of this epoch count */
	__le64 free_blocks;
	__le64 next_id;			/* of a run */
	__le32 highest_gen;
	__le32 nr_index;		/* index blocks of the catalog */
	__u8 fingerprint[64];
	__le64 catalog_seq;		/* groups up to this one are already in the catalog (not: their copies in runs) */
	__le32 suspect_gen;		/* generations up to this one: the primary may have been written without us since */
	__le32 reserved1;
	__le64 reserved[14];
	__le64 index[SD_INDEX_MAX];	/* SD_REF() of each index block */
} __packed;

/*
 * A reference inside of the catalog: address and the low bits of the transaction that wrote the block. What was there before (a write that
 * never reached the medium) has a right checksum, too.
 */
#define SD_REF_ADDR_BITS	48
#define SD_REF(addr, txid)	((u64)(addr) | (u64)(txid) << SD_REF_ADDR_BITS)
#define SD_REF_ADDR(ref)	((ref) & ((1ull << SD_REF_ADDR_BITS) - 1))
#define SD_REF_TXID(ref)	((u16)((ref) >> SD_REF_ADDR_BITS))

/* ---- allocation bitmaps ------------------------------------------------------------------------ */

#define SD_BITMAP_BYTES		(4096 - SD_HEADER_SIZE)
#define SD_GROUP_BLOCKS		(SD_BITMAP_BYTES * 8)	/* 32256 */
#define SD_BITMAP_WORDS		(SD_BITMAP_BYTES / 8)	/* 504 */

struct sd_disk_bitmap {
	struct sd_disk_header hdr;
	__le64 bits[SD_BITMAP_WORDS];
} __packed;

/* Where a kind (enum sd_kind) shares a word with a chunk (struct sd_op_copy) or, in memory, an address */
#define SD_WHERE_KIND_SHIFT	56
#define SD_WHERE_ADDR_MASK	((1ull << SD_WHERE_KIND_SHIFT) - 1)
#define SD_MAX_CHUNKS		(1ull << 52)	/* of a primary: twice what 2^63 bytes in chunks of 4 KiB are */

/* ---- runs -------------------------------------------------------------------------------------- */

/*
 * Records (chunk, gen) → kind, checksum and address (both of DATA only), sorted by (chunk, gen), unique. A row has for each column the difference to its base, in so many
 * bytes as its width says: see leaf.c.
 */
enum sd_column { SD_COL_CHUNK, SD_COL_GEN, SD_COL_KIND, SD_COL_CRC, SD_COL_ADDR, SD_COLUMNS };

#define SD_LEAF_ROWS		3976u	/* bytes */
#define SD_LEAF_FEWEST		168u	/* records for which there is room, whatever they are */
#define SD_LEAF_MOST		1024u

struct sd_disk_leaf {
	struct sd_disk_header hdr;
	__le64 base[SD_COLUMNS];
	__u8 width[SD_COLUMNS];		/* bytes: at most 8, 4, 1, 4, 6; base + 256^width - 1 is not more than the widest has room for */
	__u8 reserved[3];
	__u8 row[SD_LEAF_ROWS];
	__u8 end[8];
} __packed;

/** struct sd_disk_fence - the first key below a child */
struct sd_disk_fence {
	__le64 chunk;
	__le32 gen;
	__le32 reserved;
	__le64 addr;
} __packed;

#define SD_FENCES		((4096 - SD_HEADER_SIZE) / 24)	/* 168 */

struct sd_disk_fences {
	struct sd_disk_header hdr;
	struct sd_disk_fence f[SD_FENCES];
} __packed;

/* ---- catalog ----------------------------------------------------------------------------------- */

/* key: type in the top byte; the rest is the number of a generation, the id of a run, (run id << 24 | segment), a page of 15 groups */
enum sd_cat_type { SD_CAT_GEN = 1, SD_CAT_RUN = 2, SD_CAT_SEG = 3, SD_CAT_GROUPS = 4 };

#define SD_CAT_KEY(type, id)	((u64)(type) << 56 | (id))
#define SD_CAT_TYPE(key)	((u32)((key) >> 56))
#define SD_CAT_ID(key)		((key) & ((1ull << 56) - 1))
#define SD_CAT_SEG_ID(run, seg)	((u64)(run) << 24 | (seg))
#define SD_CAT_VALUE		120
#define SD_CAT_ENTRIES		31
#define SD_GROUPS_PER_ENTRY	15

struct sd_disk_entry {
	__le64 key;
	__u8 value[SD_CAT_VALUE];
} __packed;

struct sd_disk_catalog {
	struct sd_disk_header hdr;
	struct sd_disk_entry e[SD_CAT_ENTRIES];
	__u8 pad[4096 - SD_HEADER_SIZE - SD_CAT_ENTRIES * 128];
} __packed;

struct sd_disk_index_entry {
	__le64 key;		/* first key below */
	__le64 ref;		/* SD_REF() of the leaf */
} __packed;

#define SD_INDEX_ENTRIES	((4096 - SD_HEADER_SIZE) / 16)	/* 252 */

struct sd_disk_index {
	struct sd_disk_header hdr;
	struct sd_disk_index_entry e[SD_INDEX_ENTRIES];
} __packed;

struct sd_disk_gen {
	__le64 created_ns;
	__le64 size_sectors;
	__le64 changed;		/* chunks */
	__u8 uuid[16];
	__le32 flags;
	__le32 state;
	__u8 label[64];
	__le64 reserved;
} __packed;

#define SD_RUN_F_PURGE		(1u << 0)	/* holds records that nobody needs any more */
#define SD_RUN_F_PARTIAL	(1u << 1)	/* output of a merge that is not finished */

struct sd_disk_run {
	__le64 age;		/* order: every record of a chunk in an older run has a smaller generation */
	__le64 lo;		/* chunks below are no longer to be looked for here (merged away) */
	__le64 records;
	__le32 gen_min, gen_max;
	__le32 level;
	__le32 flags;
	__le32 merge_into;	/* id of the run that this one is being merged into; 0: none */
	__le32 nr_segs;
	__le64 garbage;		/* records that nobody needs, as estimated: says when purging pays, nothing else */
	__u8 reserved[64];
} __packed;

struct sd_disk_seg {
	__le64 first_chunk;
	__le64 root;
	__le64 records;
	__le32 levels;		/* 0: root is a leaf */
	__le32 blocks;
	__le64 txid;		/* transaction that wrote it: of all its blocks */
	__u8 reserved[80];
} __packed;

#define SD_GROUP_D_INIT		(1u << 0)	/* the bitmap has been written; otherwise: all free */
#define SD_GROUP_D_COPY_B	(1u << 1)

struct sd_disk_group_desc {
	__le32 txid;		/* low half of the bitmap block's */
	__le16 free;
	__le16 flags;
} __packed;

/* ---- journal ----------------------------------------------------------------------------------- */

/*
 * One image per commit group, 1 to 8 blocks, never across the end of the journal: where fewer than SD_GROUP_MAX_BLOCKS blocks are left
 * before the end, the next image is at its start.
 */
struct sd_disk_journal {
	struct sd_disk_header hdr;	/* txid: sequence number, nr: blocks */
	__le64 durable_seq;		/* highest group known durable when this was written */
	__le32 epoch;
	__le32 prev_link;		/* link of the image before */
	__le32 payload;			/* bytes of operations that follow this header */
	__le32 link;		/* what the next image calls this one; stays the same when the image has to be written anew */
	__le32 reserved[2];
} __packed;

enum sd_journal_op {
	SD_OP_COPIES = 1,	/* struct sd_op_copies + count * struct sd_op_copy */
	SD_OP_PUT_GEN = 2,	/* struct sd_op_gen */
	SD_OP_DEL_GENS = 3,	/* struct sd_op_range */
	SD_OP_LOSE_GENS = 4,	/* struct sd_op_range */
};

struct sd_op_header {
	__u8 op;
	__u8 flags;
	__le16 count;
	__le32 gen;
} __packed;

/** struct sd_op_copies - DATA items lie one behind the other from addr on; the other kinds take no space */
struct sd_op_copies {
	struct sd_op_header h;	/* count items, of generation gen */
	__le64 addr;
} __packed;

struct sd_op_copy {
	__le64 chunk;		/* bits 0-55; bits 56-63 enum sd_kind */
	__le32 crc;
} __packed;

struct sd_op_gen {
	struct sd_op_header h;
	struct sd_disk_gen desc;
} __packed;

#define SD_OP_F_UNKNOWN		1	/* LOSE_GENS: and the changed sets are not known */

struct sd_op_range {
	struct sd_op_header h;	/* gen: first */
	__le32 last;
	__le32 reserved;
} __packed;

#endif
