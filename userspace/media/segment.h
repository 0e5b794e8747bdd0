/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Map segments: immutable sorted tables "these blocks of the volume lie there", and the sweep over
 * several of them that composes a generation. See segment.c for why.
 */
#ifndef SNAPMEDIA_SEGMENT_H
#define SNAPMEDIA_SEGMENT_H

#include "store.h"

#define SM_ZERO_PACK		UINT32_MAX

/* In a segment, sorted by start, disjoint. */
struct sm_wire_entry {
	uint64_t start;		/* first block of the volume */
	uint32_t count;		/* blocks */
	uint32_t pack;		/* index into the segment's pack table, or SM_ZERO_PACK */
	uint32_t record;	/* of the pack */
	uint32_t block;		/* blocks from the begin of the record's raw data */
} __attribute__((packed));
_Static_assert(sizeof(struct sm_wire_entry) == 24, "map entry");

struct sm_entry {
	uint64_t start;
	uint32_t count, pack, record, block;
};

struct sm_segment_header {
	char magic[8];		/* "SDMAP\1\0\0" */
	uint64_t nr_entries;
	uint64_t blocks;	/* sum of counts */
	uint32_t nr_packs;
	uint32_t flags;		/* 0 */
	uint32_t crc;		/* CRC32C of the 32 bytes before and of the pack table */
	uint8_t reserved[28];
	/* uint8_t pack_id[nr_packs][32], zeros up to a multiple of 4096, then pages */
} __attribute__((packed));
_Static_assert(sizeof(struct sm_segment_header) == 64, "segment header");

#define SM_PAGE			4096u
#define SM_PAGE_ENTRIES		170u

struct sm_segment_page {
	uint32_t crc;		/* CRC32C of the rest of the page */
	uint32_t nr;		/* entries; the rest of the page is zeros */
	uint64_t number;	/* of the page, from 0 */
	struct sm_wire_entry entry[SM_PAGE_ENTRIES];
} __attribute__((packed));
_Static_assert(sizeof(struct sm_segment_page) == SM_PAGE, "segment page");

/* How a manifest's server record names one. */
struct sm_segment_ref {
	uint8_t id[SM_DIGEST];	/* SHA-256 of the whole object */
	uint64_t entries;
};

struct sm_segment {
	struct sm_store *store;
	struct sm_object *object;
	uint64_t nr_entries, blocks, pages_at;
	uint32_t nr_packs;
	uint8_t (*packs)[SM_DIGEST];
	uint64_t page_no;		/* of the page in @page; UINT64_MAX: none */
	struct sm_segment_page *page;
};

/* sm_segment_open() - @whole: also read everything and check the id. -EUCLEAN when damaged. */
int sm_segment_open(struct sm_store *s, const char *key, const uint8_t id[SM_DIGEST], bool whole,
		    struct sm_segment *g, struct sm_err *e);
int sm_segment_entry(struct sm_segment *g, uint64_t i, struct sm_entry *x, struct sm_err *e);
void sm_segment_close(struct sm_segment *g);
/* sm_segment_twin() - the same with a page of its own, for a second walk; free(twin->page) before the first is closed */
int sm_segment_twin(const struct sm_segment *g, struct sm_segment *twin, struct sm_err *e);

/* A source of sorted entries: a segment, or the new ones of an upload (packs by their own table). */
struct sm_layer {
	struct sm_segment *segment;		/* or */
	const struct sm_entry *entries;
	uint64_t nr;
	uint8_t (*packs)[SM_DIGEST];
	uint32_t nr_packs;
	/* state of a sweep */
	uint64_t next;
	struct sm_entry cur;
	bool has;
};

/* What a sweep yields: a piece of the volume and the layer that has it. */
struct sm_piece {
	uint64_t start;
	uint32_t count;
	uint32_t layer;
	uint32_t pack, record, block;	/* pack: of the layer's table */
};

void sm_layer_of_segment(struct sm_layer *l, struct sm_segment *g);

/**
 * sm_sweep_begin() - compose layers, old to new; the newest that has a block wins
 * sm_sweep_next() - the next piece in ascending order: 1, 0 at the end, -errno. Constant memory.
 */
struct sm_sweep {
	struct sm_layer *layer;
	uint32_t nr;
};
int sm_sweep_begin(struct sm_sweep *s, struct sm_layer *layer, uint32_t nr, struct sm_err *e);
int sm_sweep_next(struct sm_sweep *s, struct sm_piece *p, struct sm_err *e);
/* sm_sweep_seek() - go on at block @pos, wherever the sweep was: a binary search in each layer */
int sm_sweep_seek(struct sm_sweep *s, uint64_t pos, struct sm_err *e);

/**
 * sm_segment_write() - merge layers into one new segment file
 * @path: of the new file; durable when it returns 0
 * @ref: id and number of entries
 */
int sm_segment_write(const char *path, struct sm_layer *layer, uint32_t nr, struct sm_segment_ref *ref,
		     struct sm_err *e);

/**
 * sm_segment_plan() - how many of a generation's segments are to be merged with a new one of @entries
 * @old: the parent's, old to new
 *
 * Return: they are the last so many.
 */
uint32_t sm_segment_plan(const struct sm_segment_ref *old, uint32_t nr, uint64_t entries);

#endif
