/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is backed up: a generation of a volume, or a plain image whose changes are found by comparing.
 */
#ifndef SNAPBACKUP_SOURCE_H
#define SNAPBACKUP_SOURCE_H

#include "manifest.h"
#include "util.h"

/* A part of the source; zero: known to be zeros without reading. */
struct range {
	uint64_t offset, length;
	bool zero;
};

/* A generation that the source can tell the changes since. */
struct candidate {
	uint32_t number;
	uint8_t uuid[SM_UUID];
	uint64_t size;
};

struct source {
	const struct source_ops *ops;
	char name[SM_NAME_MAX];		/* for messages */
	uint8_t volume[SM_UUID], uuid[SM_UUID];
	uint32_t number;
	uint64_t size, created;
	char volume_name[SM_NAME_MAX], label[SM_NAME_MAX];
	struct candidate *candidates;	/* newest first */
	size_t nr_candidates;
	uint32_t suspect;		/* the newest older generation that cannot be one, because the machine stopped without a detach; 0: none */
	void (*tick)(void *arg);	/* called now and then during long work; may be NULL */
	void *tick_arg;
	bool known_uuids;		/* of the candidates, and ours is the same at every attempt */
	bool fixed_base;		/* the base's uuid is not known here: the server's word for its number counts */
};

struct source_ops {
	/* All of it: sorted, complete. Appends struct range. */
	int (*map)(struct source *s, struct sm_spill *ranges, struct sm_err *e);
	/* What differs from generation @base: sorted, disjoint, may reach past the size. -ENODATA: not known. */
	int (*changes)(struct source *s, uint32_t base, struct sm_spill *ranges, struct sm_err *e);
	/* Be ready to read; everything that has to be undone is undone by close. */
	int (*start)(struct source *s, struct sm_err *e);
	/* @buf, @len and @offset are multiples of SM_BLOCK; short only at the end. From several threads at once. */
	ssize_t (*read)(struct source *s, void *buf, size_t len, uint64_t offset);
	/*
	 * A descriptor to read from in other ways than by read(), with its rules for what is aligned; after start. What cannot be read from it
	 * is read by read(). May be NULL; -1: none.
	 */
	int (*fd)(struct source *s);
	/* After the last read: was it the same thing all the time? */
	int (*check)(struct source *s, struct sm_err *e);
	/* After the commit, with --keep bookmark. */
	int (*bookmark)(struct source *s, struct sm_err *e);
	void (*close)(struct source *s);
};

/* source_volume() - generation @number of an attached volume; @name NULL: of the only one */
int source_volume(const char *name, uint32_t number, struct source **s, struct sm_err *e);

struct image_options {
	const char *path, *base_path;	/* base_path: the image of the base generation, or NULL */
	const char *volume_uuid, *gen_uuid;	/* gen_uuid: NULL makes one */
	const char *volume_name;
	uint32_t number, base;		/* base: 0 none */
	const char *changes;		/* file with what differs from the base; NULL: compare */
};
int source_image(const struct image_options *o, struct source **s, struct sm_err *e);

/* add_range() - append, joined with the last one where they touch and are of one kind */
int add_range(struct sm_spill *ranges, uint64_t offset, uint64_t length, bool zero, struct sm_err *e);

#endif
