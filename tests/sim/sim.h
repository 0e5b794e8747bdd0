/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The crash simulator's parts:
 *
 *	dev.c		a device that can lose power
 *	model.c		what generations are, in arrays
 *	verify.c	a store against the model
 *	reader.c	the device against the model, by another reader
 *	driver.c	the store's driver: groups in flight, releases, steps, as the kernel does it
 *	gens.c		the driver's changes of generations
 *	cut.c		power cuts, and going on after one
 *	sim.c		episodes, the command line, planted bugs
 */
#ifndef SIM_H
#define SIM_H

#include "internal.h"
#include "dev.h"

/* ---- util ------------------------------------------------------------------------------------- */

u32 rnd(u32 n);			/* 0 .. n - 1 */
void rnd_seed(u64 seed);
void *xmalloc(size_t n);
void *xzalloc(size_t n);
void *xrealloc(void *p, size_t n);
void fail(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));

/* ---- model ------------------------------------------------------------------------------------ */

#define MAX_GENS	16u
#define MAX_CHUNKS	192u
#define V_ZERO		0u
#define V_BAD		U32_MAX

struct mgen {
	u32 number, state, flags;
	u32 label;
	u32 content[MAX_CHUNKS];	/* version of each chunk at the cut */
	bool preserved[MAX_CHUNKS];	/* a record holds it */
	bool changed[MAX_CHUNKS];	/* recorded between this cut and the next one */
};

struct model {
	u32 nr_chunks, highest, nr;
	u32 primary[MAX_CHUNKS];
	bool late[MAX_CHUNKS];		/* has a record that was not needed any more when it came */
	struct mgen g[MAX_GENS];	/* those that exist, by number */
};

enum op { OP_COPY, OP_CREATE, OP_PUT, OP_DEL, OP_LOSE };

#define MAX_ITEMS	24u

/* One commit group in flight. */
struct fly {
	enum op op;
	struct sd_group *group;
	u64 seq;
	u32 nr;
	struct sd_item item[MAX_ITEMS];
	u32 old[MAX_ITEMS], new[MAX_ITEMS];	/* versions */
	struct { enum { IO_NEW, IO_ISSUED, IO_DONE } state; u64 id; } io[MAX_ITEMS + 1];	/* the last one: the image */
	bool flushed;
	struct sd_gen gen;			/* CREATE, PUT */
	u32 first, last;			/* DEL, LOSE */
	bool unknown;
};

void model_apply(struct model *m, const struct fly *f);
struct mgen *model_find(struct model *m, u32 number);
u32 model_live(const struct model *m);		/* newest live, 0 if none */
u32 model_kept(const struct model *m);		/* newest kept */
bool model_is_kept(const struct mgen *g);
u64 tag_of(u32 chunk, u32 version, u32 block);
void fill_chunk(void *buf, u32 chunk, u32 version, u32 blocks);

/* ---- the run ------------------------------------------------------------------------------------ */

#define MAX_FLY		6u
#define MAX_REL		160u
#define MAX_READERS	3u

struct reader {
	struct sd_version *v;
	u32 nr;
	struct mgen g[MAX_GENS];
};

struct sim {
	u64 nr_blocks;
	u32 chunk_blocks, journal_blocks, mem_records, slice_records;
	u32 cut_rate;			/* a cut at one of so many places; 0: never */
	u32 death_rate;
	u32 fail_rate, fault_rate;
	bool faulted;			/* the step's device call has failed */
	bool bulk;			/* large writes everywhere: the device gets full */
	u32 tight;			/* what data leaves to metadata, by itself; 0: as it should be */
	bool no_room;			/* the last step did not begin because of that */
	bool bookish;			/* bookmarks rather than deletions */
	struct simdev *dev;
	struct sd_store *store;
	struct model m;			/* what has been acknowledged */
	struct fly *fly[MAX_FLY];
	u32 nr_fly;
	struct { u32 chunk, version; } rel[MAX_REL];
	u32 nr_rel;
	bool claimed[MAX_CHUNKS];
	struct reader reader[MAX_READERS];
	u64 acked;			/* last group that was committed */
	u32 next_version;
	bool gate;			/* a generation is being cut */
	bool in_step, in_background, in_write, no_foreground;
	enum { ON_CLEAN, ON_ACTIVE, ON_EITHER } disk;	/* what the superblock says */
	enum { FAIL_NO, FAIL_TRIED, FAIL_DURABLE } failed;
	u8 fingerprint[SD_FINGERPRINT_SIZE];
	u32 stuck;
	u64 most_blocks;		/* how far the device may grow */
};

extern struct sim S;

struct counters {
	u64 cuts, nested, second, deaths, events, groups, gens, checkpoints, merges, replayed, dropped, relocated, faults, enospc, eagain, readers, detaches,
		fails, quiesced, grown, new_groups, kinds[5], changed_seen, losses;
};
extern struct counters C;

/* driver.c */
void foreground(void);
bool background(u32 flags);			/* false: there was nothing to do */
void drain(void);				/* everything in flight committed and released */
void drop_readers(void);
void verify_now(u32 flags);
void drop_flights(u64 upto);			/* after a crash: apply those that survived, forget the others */
struct fly *fly_new(enum op op);
bool fly_seal(struct fly *f, int err);
void release_all(void);
void fail_store(void);

/* gens.c */
void change_generations(void);
void give_up_oldest(void);
u32 flying(enum op op);

/* cut.c */
void run_hook(struct simdev *d, const char *what);
void maybe_cut(u32 places);
void cut(const struct simdev *d, u32 depth);
bool power_cycle(void);				/* crash, open, attach; until it works */
bool open_and_attach(void);
void open_opts(struct sd_open_opts *o);

/* verify.c */
#define VERIFY_CHECK	1u			/* sd_check(), too: no group in flight, no step */
#define VERIFY_GARBAGE	2u			/* nothing unneeded is left */
void verify(struct sd_store *s, const struct simdev *d, const struct model *m, u32 flags);
void verify_failed(struct sd_store *s);
void verify_chunk(const struct simdev *d, const struct model *m, const struct mgen *g, u32 c, u32 kind, u64 addr);
void verify_reader(const struct reader *r, const struct simdev *d);

/* Planted bugs of the driver; those of the core follow theirs (internal.h). */
#define PLANT_COMMIT_UNFLUSHED	100
#define PLANT_RELEASE_EARLY	101

#endif
