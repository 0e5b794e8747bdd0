/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Client of the kernel's generic netlink family "snapdiff".
 *
 * A struct snap_nl is one socket; it is used by one thread at a time. Requests block until the kernel
 * has answered. Refusals come back as the kernel's errno with its extended-ack text in the error.
 * Nothing here allocates in proportion to a volume, except where a caller asks for an array.
 */
#ifndef SNAP_LIB_NETLINK_H
#define SNAP_LIB_NETLINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <linux/snapdiff.h>

#include "error.h"
#include "name.h"

struct snap_nl;

struct snap_volume {
	char name[SNAP_VOLUME_BUF];
	uint8_t uuid[SNAPDIFF_UUID_SIZE];
	dev_t primary, diff, dm;
	uint64_t size;			/* bytes, of the primary */
	uint32_t chunk_size;		/* bytes */
	uint32_t highest_gen;
	uint32_t nr_gens;		/* catalog entries: live, bookmarks, lost */
	uint8_t on_full;		/* enum snapdiff_on_full */
	uint8_t state;			/* enum snapdiff_store_state */
	uint64_t stats[SNAPDIFF_STAT_MAX + 1];	/* by enum snapdiff_stat */
};

#define SNAP_NO_VIRT	(-1)

struct snap_gen {
	char volume[SNAP_VOLUME_BUF];
	uint32_t number;
	uint8_t uuid[SNAPDIFF_UUID_SIZE];
	uint64_t created;		/* ns since the epoch */
	uint64_t size;			/* bytes */
	uint64_t changed;		/* bytes, upper bound */
	uint32_t flags;			/* SNAPDIFF_GEN_F_* */
	uint8_t state;			/* enum snapdiff_gen_state */
	char label[SNAP_LABEL_BUF];
	int virt_index;			/* of /dev/snapvirtN, SNAP_NO_VIRT when not active */
};

struct snap_virt {
	int index;			/* /dev/snapvirt<index> */
	char volume[SNAP_VOLUME_BUF];
	uint32_t gen;
	uint32_t openers;
};

/**
 * snap_nl_open() - connect to the module
 *
 * Return: 0; -ENODEV with "the kernel module is not loaded" when there is no such family; -errno.
 * The caller ends it with snap_nl_close().
 */
int snap_nl_open(struct snap_nl **nl, struct snap_err *e);
void snap_nl_close(struct snap_nl *nl);		/* NULL is fine */

/* ---- volumes ---- */

/** snap_nl_volume() - one attached volume by name. Return: 0, -ENODEV when there is none, -errno. */
int snap_nl_volume(struct snap_nl *nl, const char *name, struct snap_volume *vol, struct snap_err *e);

/** snap_nl_volumes() - all attached volumes, sorted by name. The caller frees *@vols with free(). */
int snap_nl_volumes(struct snap_nl *nl, struct snap_volume **vols, size_t *n, struct snap_err *e);

/**
 * snap_nl_sole_volume() - the only attached volume, for commands that were given no name
 *
 * Return: 0; -EINVAL with the names of the volumes when there are several; -ENODEV when there is none.
 */
int snap_nl_sole_volume(struct snap_nl *nl, char name[SNAP_VOLUME_BUF], struct snap_err *e);

/** snap_nl_set_on_full() - change a live volume's policy (enum snapdiff_on_full). */
int snap_nl_set_on_full(struct snap_nl *nl, const char *name, uint8_t on_full, struct snap_err *e);

/** snap_nl_reread_size() - the store takes what its differential volume has grown by. -EINVAL: it has shrunk. */
int snap_nl_reread_size(struct snap_nl *nl, const char *name, struct snap_err *e);

/* ---- generations ---- */

enum snap_freeze { SNAP_FREEZE_AUTO = -1, SNAP_FREEZE_NO = 0, SNAP_FREEZE_YES = 1 };

/**
 * snap_nl_create() - cut one generation of each of the volumes, all at one instant
 * @names: @n volume names
 * @label: may be NULL
 * @freeze: AUTO freezes when mounted
 * @gens: @n results in the order of @names
 */
int snap_nl_create(struct snap_nl *nl, const char *const *names, size_t n, const char *label,
		   enum snap_freeze freeze, struct snap_gen *gens, struct snap_err *e);

/** snap_nl_gen() - one generation. Return: 0, -ENOENT when there is none, -ENODEV no volume, -errno. */
int snap_nl_gen(struct snap_nl *nl, const char *volume, uint32_t gen, struct snap_gen *out,
		struct snap_err *e);

/** snap_nl_gens() - all generations of @volume (NULL: of all volumes), oldest first; free() the array. */
int snap_nl_gens(struct snap_nl *nl, const char *volume, struct snap_gen **gens, size_t *n,
		 struct snap_err *e);

/** snap_nl_delete() - delete @first..@last inclusive; holes are fine when @last > @first. */
int snap_nl_delete(struct snap_nl *nl, const char *volume, uint32_t first, uint32_t last,
		   struct snap_err *e);
int snap_nl_bookmark(struct snap_nl *nl, const char *volume, uint32_t gen, struct snap_err *e);
int snap_nl_pin(struct snap_nl *nl, const char *volume, uint32_t gen, bool pinned, struct snap_err *e);
int snap_nl_label(struct snap_nl *nl, const char *volume, uint32_t gen, const char *label,
		  struct snap_err *e);

/* ---- virtual volumes ---- */

/**
 * snap_nl_activate() - make /dev/snapvirt<*@index> of a generation
 * @partscan: look for partitions on it
 *
 * One that is active already is returned as it is. The device node may appear a moment later:
 * snap_virt_wait().
 */
int snap_nl_activate(struct snap_nl *nl, const char *volume, uint32_t gen, bool partscan, int *index,
		     struct snap_err *e);
int snap_nl_deactivate(struct snap_nl *nl, const char *volume, uint32_t gen, struct snap_err *e);
int snap_nl_deactivate_index(struct snap_nl *nl, int index, struct snap_err *e);
/** snap_nl_virts() - active virtual volumes of @volume (NULL: all), by index; free() the array. */
int snap_nl_virts(struct snap_nl *nl, const char *volume, struct snap_virt **virts, size_t *n,
		  struct snap_err *e);
/** snap_virt_path() - "/dev/snapvirtN"; returns @buf. */
char *snap_virt_path(char *buf, size_t len, int index);
/** snap_virt_wait() - wait up to 5 s for the node to be there as a block device. Return: 0, -ENODEV. */
int snap_virt_wait(int index, struct snap_err *e);

/* ---- extents ---- */

/**
 * snap_extent_fn - called once an extent, in ascending order
 *
 * Must not use the same struct snap_nl. Return: 0 to go on, anything else ends the walk and is
 * returned by it (use a negative errno, or 1 for "enough").
 */
typedef int (*snap_extent_fn)(const struct snapdiff_extent *ext, void *arg);

/**
 * snap_nl_map() - where each extent of a generation lies
 * @offset, @length: range in bytes; @length 0 is "to the end"
 *
 * Walks a dump of any length in constant memory. A dump the kernel reports as interrupted is resumed
 * behind the last extent that was handed out: no extent is given twice or left out.
 * Neighbouring extents of one place may come in pieces.
 */
int snap_nl_map(struct snap_nl *nl, const char *volume, uint32_t gen, uint64_t offset, uint64_t length,
		snap_extent_fn fn, void *arg, struct snap_err *e);

/**
 * snap_nl_changes() - extents that differ between generation @from and @to (0: now)
 *
 * As snap_nl_map(). Return: also -ENODATA when the changed set in between is not known.
 */
int snap_nl_changes(struct snap_nl *nl, const char *volume, uint32_t from, uint32_t to,
		    uint64_t offset, uint64_t length, snap_extent_fn fn, void *arg, struct snap_err *e);

/* A growing array of extents; zero-initialise, snap_extents_free() at the end. */
struct snap_extents {
	struct snapdiff_extent *v;
	size_t n, cap;
};

/** snap_extents_add() - an snap_extent_fn with @arg a struct snap_extents; joins neighbours. -ENOMEM. */
int snap_extents_add(const struct snapdiff_extent *ext, void *arg);
void snap_extents_free(struct snap_extents *x);

/* ---- events ---- */

struct snap_event {
	uint8_t type;			/* enum snapdiff_event */
	char volume[SNAP_VOLUME_BUF];
	uint32_t gen;			/* 0: none */
	int err;			/* positive errno, 0: none */
	char text[256];
	uint64_t time;			/* ns since the epoch, when it was received */
};

/** snap_nl_subscribe() - receive events on @nl from now on; use a struct snap_nl of its own for them. */
int snap_nl_subscribe(struct snap_nl *nl, struct snap_err *e);
/** snap_nl_fd() - the socket, for poll(). */
int snap_nl_fd(const struct snap_nl *nl);
/**
 * snap_nl_event() - next event
 * @timeout_ms: -1 waits for ever
 *
 * Return: 1 with *@ev; 0 time is up; -EINTR a signal came; -ENOBUFS events were lost (go on reading).
 */
int snap_nl_event(struct snap_nl *nl, struct snap_event *ev, int timeout_ms, struct snap_err *e);

/* ---- words for numbers; unknown ones give "unknown" ---- */

const char *snap_gen_state_name(uint8_t state);		/* live, bookmark, lost */
const char *snap_store_state_name(uint8_t state);	/* rw, failed */
const char *snap_on_full_name(uint8_t on_full);		/* drop-oldest, drop-all, fail-snapshots */
int snap_parse_on_full(const char *text, uint8_t *on_full, struct snap_err *e);
const char *snap_where_name(uint32_t where);		/* primary, diff, zero, bad */
const char *snap_event_name(uint8_t type);		/* attached, ... */

#endif
