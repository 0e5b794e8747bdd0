/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A store that is driven as a volume would drive it, without data: what bench-store measures. */
#ifndef BENCH_STORE_WORLD_H
#define BENCH_STORE_WORLD_H

#include "dev.h"

struct world {
	struct benchdev d;
	struct sd_store *s;
	struct sd_open_opts opts;
	u64 seed;
	u64 chunks;		/* of the primary */
	u32 group;		/* copies in one commit group */
	u64 copied;
	bool lazy;		/* world_copy() leaves the background work alone */
};

extern const char *world_dir;

void world_open(struct world *w, u64 diff_blocks, u64 primary_chunks, u64 journal_blocks);
void world_close(struct world *w);
void world_attach(struct world *w);		/* again, after sd_close() */
u64 world_dice(struct world *w, u64 n);

void world_cut(struct world *w);		/* one more generation */
void world_delete(struct world *w, u32 first, u32 last);
void world_copy(struct world *w, const u64 *chunks, u32 nr);	/* chunks that have no record of the highest generation */
/* @nr first writes of different chunks; one call for each generation */
void world_write_random(struct world *w, u64 nr);
void world_write_spread(struct world *w, u64 nr);	/* all over the primary, ascending: quicker to build */
void world_write_stretch(struct world *w, u64 first, u64 nr);
bool world_step(struct world *w, u32 flags);	/* false: nothing to do */
void world_background(struct world *w, enum sd_work from);	/* steps while work is at least that urgent */
void world_check(struct world *w, struct sd_check_result *res);

#endif
