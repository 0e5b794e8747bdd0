/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * snapctl: one file a verb. Each verb's file defines its struct snap_cmd and nothing else that others see.
 */
#ifndef SNAPCTL_H
#define SNAPCTL_H

#include "blk.h"
#include "cmd.h"
#include "dm.h"
#include "error.h"
#include "gens.h"
#include "name.h"
#include "netlink.h"
#include "output.h"

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))

extern const struct snap_cmd cmd_activate;
extern const struct snap_cmd cmd_attach;
extern const struct snap_cmd cmd_bookmark;
extern const struct snap_cmd cmd_create;
extern const struct snap_cmd cmd_deactivate;
extern const struct snap_cmd cmd_delete;
extern const struct snap_cmd cmd_detach;
extern const struct snap_cmd cmd_diff;
extern const struct snap_cmd cmd_format;
extern const struct snap_cmd cmd_label;
extern const struct snap_cmd cmd_list;
extern const struct snap_cmd cmd_map;
extern const struct snap_cmd cmd_monitor;
extern const struct snap_cmd cmd_pin;
extern const struct snap_cmd cmd_resize;
extern const struct snap_cmd cmd_set;
extern const struct snap_cmd cmd_status;
extern const struct snap_cmd cmd_unpin;

/* store.c: the diff as a device with or without a store; used by format and attach. */

#define STORE_MIN_SIZE	(16ULL << 20)	/* = SNAP_OFFLINE_MIN_SIZE */

struct store_opts {
	uint32_t chunk_size;		/* bytes, 0: default */
	uint64_t journal_size;		/* bytes, 0: default */
	bool force;
};

struct store_id {
	uint8_t uuid[16];
	uint64_t diff_size;		/* bytes */
	uint64_t primary_size;		/* bytes, 0: never attached */
};

/**
 * store_check_chunk() - a power of two from 4k to 1M (or 0)?
 *
 * Return: 0 or -EINVAL.
 */
int store_check_chunk(uint64_t chunk_size, struct snap_err *e);

/**
 * store_identify() - does the device carry a store?
 * @id: filled when it does; NULL is fine
 *
 * Return: 1 yes, 0 no, -EUCLEAN yes but damaged, -errno.
 */
int store_identify(const char *path, struct store_id *id, struct snap_err *e);

/**
 * store_format() - write an empty store
 *
 * Refuses a device in use always, and one with any signature unless opts->force (the foreign ones are
 * then erased first). Nothing is written on refusal.
 */
int store_format(const char *path, const struct store_opts *opts, struct snap_err *e);

/* extents.c: extents to text or JSON as they come; used by map and diff. */

struct extent_printer;

int extents_open(struct extent_printer **p, bool with_place, const struct snap_out_opts *opts,
		 struct snap_err *e);
/* A snap_extent_fn with @arg a struct extent_printer; joins neighbours. */
int extents_print(const struct snapdiff_extent *ext, void *arg);
/* @failed: the walk did not reach its end. Frees @p. Return: 0 or -errno of the output. */
int extents_close(struct extent_printer *p, bool failed, struct snap_err *e);

/* remote.c: the same by the agent of another machine, with --host before the verb. */

extern const char *snapctl_host;	/* NULL: this machine */

struct json_t;
/* remote_show() - a table's rows from there */
int remote_show(const char *verb, const char *name, struct snap_out *out, struct snap_err *e);
/* remote_do() - an order; takes it. Prints the member "name" of each row of the answer */
int remote_do(const char *verb, struct json_t *order, struct snap_err *e);
/* remote_gen() - an order about one generation */
int remote_gen(const char *verb, const struct snap_ref *ref, struct snap_err *e);

/* frame.c: what verbs of one kind have in common. All return an exit code. */

/* A table of [NAME]: one volume, or all. */
struct show {
	const char *list;		/* JSON name */
	enum snap_out_layout layout;
	const struct snap_col *cols;
	size_t nr_cols;
	int (*rows)(struct snap_nl *nl, const char *name, struct snap_out *out, struct snap_err *e);
	const char *verb;		/* the agent's for it; NULL: only on this machine */
};

int frame_show(const struct snap_cmd *cmd, const struct show *show, int argc, char **argv);

/* @walk gives extents to extents_print() with @p. */
typedef int (*frame_walk_fn)(struct snap_nl *nl, struct extent_printer *p, void *arg, struct snap_err *e);
int frame_extents(bool with_place, const struct snap_out_opts *oo, frame_walk_fn walk, void *arg);

/* One change of the generation that the first argument names; @arg is the second one, or NULL. No options. */
typedef int (*frame_gen_fn)(struct snap_nl *nl, const struct snap_ref *ref, const char *arg, struct snap_err *e);
int frame_gen(const struct snap_cmd *cmd, int argc, char **argv, frame_gen_fn fn);

#endif
