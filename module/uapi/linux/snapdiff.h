/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * Generic netlink family "snapdiff": names and numbers.
 *
 * The specification is Documentation/netlink/specs/snapdiff.yaml; a test compares the two with
 * each other and with the module's policies. Numbers are only ever appended.
 */
#ifndef _UAPI_LINUX_SNAPDIFF_H
#define _UAPI_LINUX_SNAPDIFF_H

#include <linux/types.h>

#define SNAPDIFF_FAMILY_NAME		"snapdiff"
#define SNAPDIFF_FAMILY_VERSION		1
#define SNAPDIFF_MCGRP_EVENTS		"events"

#define SNAPDIFF_NAME_MAX		127	/* a dm device name */
#define SNAPDIFF_LABEL_MAX		63
#define SNAPDIFF_UUID_SIZE		16

/*
 * Commands. "do" unless "dump" is written. Everything needs CAP_SYS_ADMIN.
 *
 *  VOLUME_GET	do: VOLUME -> volume attributes; dump: all volumes
 *  GEN_CREATE	VOLUME (one or more), [LABEL], [FREEZE] -> GENERATION nests, in the order of the request.
 *		All volumes are cut at one instant. FREEZE: 0 no, 1 yes, absent: when mounted.
 *  GEN_GET	do: VOLUME, GEN -> one GENERATION; dump: [VOLUME] -> GENERATION per message
 *  GEN_DELETE	VOLUME, GEN, [GEN_LAST]	(inclusive range; those that do not exist are skipped in a range)
 *  GEN_BOOKMARK	VOLUME, GEN
 *  GEN_PIN	VOLUME, GEN, PINNED (u8 0/1)
 *  GEN_LABEL	VOLUME, GEN, LABEL
 *  VIRT_ACTIVATE	VOLUME, GEN, [PARTSCAN flag] -> VIRT_INDEX (of /dev/snapvirtN); an active one is returned as it is
 *  VIRT_DEACTIVATE	VIRT_INDEX, or VOLUME + GEN
 *  VIRT_GET	dump: [VOLUME] -> VIRT_INDEX, VOLUME, GEN, OPENERS
 *  MAP_GET	dump: VOLUME, GEN, [OFFSET], [LENGTH] (bytes) -> EXTENTS, sorted, complete over the range
 *  CHANGES_GET	dump: VOLUME, GEN (from), [GEN_LAST] (to; absent: now), [OFFSET], [LENGTH] -> EXTENTS, sorted, disjoint;
 *		-ENODATA if the changed set of an interval in between is not known. What the volume has grown by since GEN is part of it.
 *  VOLUME_SET	VOLUME, [ON_FULL], [REREAD_SIZE flag]
 *		REREAD_SIZE: the store takes what the differential volume has become larger by. (A larger primary comes with a new dm table.)
 *  EVENT	multicast only: EVENT_TYPE, VOLUME, [GEN], [ERRNO], [TEXT]
 *
 * A dump that could not be consistent ends with NLM_F_DUMP_INTR set. MAP_GET and CHANGES_GET can be resumed by OFFSET = end of the last
 * extent received.
 */
enum snapdiff_cmd {
	SNAPDIFF_CMD_UNSPEC,
	SNAPDIFF_CMD_VOLUME_GET,
	SNAPDIFF_CMD_VOLUME_SET,
	SNAPDIFF_CMD_GEN_CREATE,
	SNAPDIFF_CMD_GEN_GET,
	SNAPDIFF_CMD_GEN_DELETE,
	SNAPDIFF_CMD_GEN_BOOKMARK,
	SNAPDIFF_CMD_GEN_PIN,
	SNAPDIFF_CMD_GEN_LABEL,
	SNAPDIFF_CMD_VIRT_ACTIVATE,
	SNAPDIFF_CMD_VIRT_DEACTIVATE,
	SNAPDIFF_CMD_VIRT_GET,
	SNAPDIFF_CMD_MAP_GET,
	SNAPDIFF_CMD_CHANGES_GET,
	SNAPDIFF_CMD_EVENT,
	__SNAPDIFF_CMD_MAX,
};
#define SNAPDIFF_CMD_MAX	(__SNAPDIFF_CMD_MAX - 1)

/* One attribute space for all commands; the type stands behind each. */
enum snapdiff_attr {
	SNAPDIFF_A_UNSPEC,
	SNAPDIFF_A_PAD,
	SNAPDIFF_A_VOLUME,		/* string: the dm name; may repeat in GEN_CREATE */
	SNAPDIFF_A_VOLUME_UUID,		/* binary[16] */
	SNAPDIFF_A_GEN,			/* u32: generation number */
	SNAPDIFF_A_GEN_LAST,		/* u32 */
	SNAPDIFF_A_GENERATION,		/* nest of enum snapdiff_gen_attr */
	SNAPDIFF_A_LABEL,		/* string */
	SNAPDIFF_A_FREEZE,		/* u8 */
	SNAPDIFF_A_PINNED,		/* u8 */
	SNAPDIFF_A_VIRT_INDEX,		/* u32 */
	SNAPDIFF_A_PARTSCAN,		/* flag */
	SNAPDIFF_A_OPENERS,		/* u32 */
	SNAPDIFF_A_OFFSET,		/* u64: bytes */
	SNAPDIFF_A_LENGTH,		/* u64: bytes */
	SNAPDIFF_A_EXTENTS,		/* binary: array of struct snapdiff_extent */
	SNAPDIFF_A_ON_FULL,		/* u8: enum snapdiff_on_full */
	SNAPDIFF_A_REREAD_SIZE,		/* flag */
	SNAPDIFF_A_PRIMARY_DEV,		/* u64: new_encode_dev() of the primary */
	SNAPDIFF_A_DIFF_DEV,		/* u64 */
	SNAPDIFF_A_DM_DEV,		/* u64 */
	SNAPDIFF_A_SIZE,		/* u64: bytes, of the primary */
	SNAPDIFF_A_CHUNK_SIZE,		/* u32: bytes */
	SNAPDIFF_A_STORE_STATE,		/* u8: enum snapdiff_store_state */
	SNAPDIFF_A_HIGHEST_GEN,		/* u32 */
	SNAPDIFF_A_NR_GENS,		/* u32: entries in the catalog */
	SNAPDIFF_A_STATS,		/* nest of enum snapdiff_stat */
	SNAPDIFF_A_EVENT_TYPE,		/* u8: enum snapdiff_event */
	SNAPDIFF_A_ERRNO,		/* u32: positive errno */
	SNAPDIFF_A_TEXT,		/* string */
	__SNAPDIFF_A_MAX,
};
#define SNAPDIFF_A_MAX		(__SNAPDIFF_A_MAX - 1)

enum snapdiff_gen_attr {
	SNAPDIFF_GEN_A_UNSPEC,
	SNAPDIFF_GEN_A_PAD,
	SNAPDIFF_GEN_A_VOLUME,		/* string */
	SNAPDIFF_GEN_A_NUMBER,		/* u32 */
	SNAPDIFF_GEN_A_UUID,		/* binary[16] */
	SNAPDIFF_GEN_A_CREATED,		/* u64: nanoseconds since the epoch */
	SNAPDIFF_GEN_A_SIZE,		/* u64: bytes */
	SNAPDIFF_GEN_A_STATE,		/* u8: enum snapdiff_gen_state */
	SNAPDIFF_GEN_A_FLAGS,		/* u32: SNAPDIFF_GEN_F_* */
	SNAPDIFF_GEN_A_LABEL,		/* string */
	SNAPDIFF_GEN_A_CHANGED,		/* u64: bytes first written between this cut and the next kept one (upper bound) */
	SNAPDIFF_GEN_A_VIRT_INDEX,	/* u32: only when active */
	__SNAPDIFF_GEN_A_MAX,
};
#define SNAPDIFF_GEN_A_MAX	(__SNAPDIFF_GEN_A_MAX - 1)

/* All u64. Sizes in bytes, the others are counts since attach. */
enum snapdiff_stat {
	SNAPDIFF_STAT_UNSPEC,
	SNAPDIFF_STAT_PAD,
	SNAPDIFF_STAT_DIFF_SIZE,
	SNAPDIFF_STAT_DIFF_FREE,
	SNAPDIFF_STAT_DIFF_RESERVED,	/* kept back for metadata */
	SNAPDIFF_STAT_JOURNAL_SIZE,
	SNAPDIFF_STAT_JOURNAL_USED,
	SNAPDIFF_STAT_RECORDS_NEW,	/* records not yet in a run */
	SNAPDIFF_STAT_RECORDS,		/* records in runs */
	SNAPDIFF_STAT_RUNS,
	SNAPDIFF_STAT_TRANSACTION,
	SNAPDIFF_STAT_READS,		/* bios */
	SNAPDIFF_STAT_WRITES,		/* bios */
	SNAPDIFF_STAT_WRITES_DEFERRED,	/* bios that had to wait for a copy */
	SNAPDIFF_STAT_COPIED,		/* chunks copied */
	SNAPDIFF_STAT_ZEROS,		/* chunks found all zero: record, no data */
	SNAPDIFF_STAT_BAD,		/* chunks that could not be read */
	SNAPDIFF_STAT_MARKED,		/* chunks marked without a copy */
	SNAPDIFF_STAT_GROUPS,		/* commit groups */
	SNAPDIFF_STAT_JOURNAL_WRITTEN,	/* bytes */
	SNAPDIFF_STAT_META_WRITTEN,	/* bytes: runs, catalog, bitmaps, superblocks */
	SNAPDIFF_STAT_CHECKPOINTS,
	SNAPDIFF_STAT_MERGES,
	SNAPDIFF_STAT_DISCARDS_DROPPED,
	SNAPDIFF_STAT_LOST_GENS,
	SNAPDIFF_STAT_MEMORY,		/* bytes of kernel memory in use */
	SNAPDIFF_STAT_MEMORY_MAX,	/* bytes that it is kept to: cache_size */
	__SNAPDIFF_STAT_MAX,
};
#define SNAPDIFF_STAT_MAX	(__SNAPDIFF_STAT_MAX - 1)

enum snapdiff_gen_state {
	SNAPDIFF_GEN_LIVE = 1,
	SNAPDIFF_GEN_BOOKMARK = 2,
	SNAPDIFF_GEN_LOST = 3,
};

#define SNAPDIFF_GEN_F_PINNED		(1U << 0)
#define SNAPDIFF_GEN_F_FROZEN		(1U << 1)	/* filesystem was frozen at the cut */
#define SNAPDIFF_GEN_F_CHANGES_UNKNOWN	(1U << 2)	/* the changed set since this cut may be incomplete */
#define SNAPDIFF_GEN_F_ACTIVE		(1U << 3)	/* has a /dev/snapvirtN; never on disk */
#define SNAPDIFF_GEN_F_SUSPECT		(1U << 4)	/* was there when the machine stopped without a detach: the primary may have been written without us since */

enum snapdiff_on_full {
	SNAPDIFF_ON_FULL_DROP_OLDEST = 0,
	SNAPDIFF_ON_FULL_DROP_ALL = 1,
	SNAPDIFF_ON_FULL_FAIL = 2,		/* fail-snapshots */
};

enum snapdiff_store_state {
	SNAPDIFF_STORE_RW = 0,
	SNAPDIFF_STORE_FAILED = 1,
};

/* Where the content of an extent of a virtual volume is to be found. */
enum snapdiff_where {
	SNAPDIFF_WHERE_PRIMARY = 0,	/* place: the same offset of the primary */
	SNAPDIFF_WHERE_DIFF = 1,	/* place: byte offset in the differential volume */
	SNAPDIFF_WHERE_ZERO = 2,
	SNAPDIFF_WHERE_BAD = 3,		/* could not be preserved: reads are EIO */
};

/* 32 bytes, host byte order. In CHANGES_GET place and where are 0. All in bytes. */
struct snapdiff_extent {
	__u64 offset;
	__u64 length;
	__u64 place;
	__u32 where;
	__u32 flags;		/* 0 */
};

enum snapdiff_event {
	SNAPDIFF_EVENT_ATTACHED = 1,
	SNAPDIFF_EVENT_DETACHED = 2,
	SNAPDIFF_EVENT_CREATED = 3,
	SNAPDIFF_EVENT_DELETED = 4,
	SNAPDIFF_EVENT_BOOKMARKED = 5,
	SNAPDIFF_EVENT_LOST = 6,
	SNAPDIFF_EVENT_ACTIVATED = 7,
	SNAPDIFF_EVENT_DEACTIVATED = 8,
	SNAPDIFF_EVENT_LOW_SPACE = 9,
	SNAPDIFF_EVENT_FULL = 10,
	SNAPDIFF_EVENT_SPACE_OK = 11,
	SNAPDIFF_EVENT_STORE_FAILED = 12,
	SNAPDIFF_EVENT_BAD_CHUNK = 13,
	SNAPDIFF_EVENT_PINNED = 14,
	SNAPDIFF_EVENT_UNPINNED = 15,
	SNAPDIFF_EVENT_RESIZED = 16,
	SNAPDIFF_EVENT_SUSPECT = 17,
};

#endif
