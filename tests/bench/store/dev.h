/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The device of bench-store: a sparse file that counts what is read and written, by kind; and what the core has allocated. */
#ifndef BENCH_STORE_DEV_H
#define BENCH_STORE_DEV_H

#include "internal.h"

enum part { PART_JOURNAL, PART_RUNS, PART_MERGES, PART_CATALOG, PART_BITMAPS, PART_SUPER, PART_NR };
extern const char * const part_names[PART_NR];

struct counts {
	u64 read;		/* blocks, by whoever mutates */
	u64 got;		/* blocks looked at through the cache: an upper bound of reads */
	u64 flushes;
	u64 written[PART_NR];	/* blocks */
};

struct benchdev {
	struct sd_dev dev;
	u8 *map;
	const struct sd_step *step;	/* under way; says whose the runs are that are written */
	struct counts n;
};

/* @dir: where the file is made; it has no name. */
void benchdev_open(struct benchdev *d, const char *dir, u64 nr_blocks);
void benchdev_close(struct benchdev *d);
u64 counts_written(const struct counts *n);
struct counts counts_since(const struct counts *now, const struct counts *then);

/* Bytes on the heap, and the most since heap_mark(). */
s64 heap_now(void);
s64 heap_peak(void);
void heap_mark(void);

double now_s(void);	/* CPU time of this thread: other load on the machine counts less */

#endif
