/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Immutable objects under names: all that a repository asks of what keeps it. A directory does it
 * today; an object store needs the same five calls and no others.
 *
 * Keys are made by the repository: parts of [a-z0-9.-] joined by '/'.
 */
#ifndef SNAPMEDIA_STORE_H
#define SNAPMEDIA_STORE_H

#include "util.h"

struct sm_store;
struct sm_object;

struct sm_store_ops {
	/* Put if absent: -EEXIST when there is one. When it returns 0 the object is durable; a crash leaves all or nothing. */
	int (*put)(struct sm_store *s, const char *key, const void *buf, size_t len, struct sm_err *e);
	/* The same from a file that is already durable. It may become the object itself: it must not be written again. */
	int (*put_file)(struct sm_store *s, const char *key, const char *path, struct sm_err *e);
	/* -ENOENT when there is none. */
	int (*open)(struct sm_store *s, const char *key, struct sm_object **o, struct sm_err *e);
	ssize_t (*pread)(struct sm_object *o, void *buf, size_t len, uint64_t offset);
	uint64_t (*size)(struct sm_object *o);
	void (*close)(struct sm_object *o);
	/* Names (one level) under a prefix; no order. A prefix without objects has none. @fn may stop with a value other than 0. */
	int (*list)(struct sm_store *s, const char *prefix, int (*fn)(const char *name, void *arg), void *arg,
		    struct sm_err *e);
	int (*remove)(struct sm_store *s, const char *key, struct sm_err *e);
	/*
	 * Give back the space of a part that nobody will read again; it reads as zeros from then on. May do nothing, or less than asked.
	 * NULL: the store cannot.
	 */
	int (*release)(struct sm_store *s, const char *key, uint64_t offset, uint64_t length, struct sm_err *e);
	/* Bytes that an object takes; 0 when it is not there. */
	uint64_t (*allocated)(struct sm_store *s, const char *key);
	/* Something that changes whenever the object under this name becomes another; -ENOENT. NULL: the store cannot tell. */
	int (*stamp)(struct sm_store *s, const char *key, uint64_t stamp[3]);
	/* What was removed under a prefix stays removed after a power failure. */
	int (*settle)(struct sm_store *s, const char *prefix, struct sm_err *e);
	void (*free)(struct sm_store *s);
};

struct sm_store {
	const struct sm_store_ops *ops;
};

/**
 * sm_store_dir() - objects as files under a directory
 * @root: exists
 * @tmp: a directory of the same filesystem, for what is being written
 */
int sm_store_dir(const char *root, const char *tmp, struct sm_store **s, struct sm_err *e);

/* sm_store_get() - a whole object of at most @max bytes, in memory that the caller frees, with a NUL behind it */
int sm_store_get(struct sm_store *s, const char *key, size_t max, char **buf, size_t *len, struct sm_err *e);

/*
 * Called with the name of each step that changes something durable, just before it is taken. For tests
 * that end the process there, or make the step fail: a negative errno returned is the step's result.
 */
extern int (*sm_fault_hook)(const char *step);
static inline int sm_fault(const char *step)
{
	return sm_fault_hook ? sm_fault_hook(step) : 0;
}

/* Durable directories and files, used by the store and by the staging area. */
int sm_mkdir_durable(const char *path, struct sm_err *e);
int sm_fsync_dir(const char *path, struct sm_err *e);
int sm_fsync_parent(const char *path, struct sm_err *e);	/* the directory that @path is in, which may be relative */
/*
 * sm_save_file() - the file @path holds @text, or what it held before; durable when 0 is returned. By way of "@path.tmp", mode 0600.
 * @exclusive: -EEXIST when it is there already
 */
int sm_save_file(const char *path, const char *text, bool exclusive, struct sm_err *e);

#endif
