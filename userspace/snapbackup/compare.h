/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What differs between the source and a generation on the media server, found by digests: everything is read here and there,
 * nothing but digests goes over.
 */
#ifndef SNAPBACKUP_COMPARE_H
#define SNAPBACKUP_COMPARE_H

#include "backup.h"

struct compare {
	struct source *source;
	struct sm_client *client;
	const struct base *base;
	const volatile int *stop;
	void (*progress)(uint64_t bytes, void *arg);	/* read so far; may be NULL */
	void *arg;
	uint64_t read_bytes;
};

/**
 * compare_all() - find all blocks that differ
 * @out: struct range: ascending, of whole blocks; what has grown since the base is not among them
 */
int compare_all(struct compare *c, struct sm_spill *out, struct sm_err *e);

struct audit {
	uint32_t share;			/* of AUDIT_ALL: how much of what is unchanged is looked at */
	uint64_t units, bytes;		/* that were */
	uint64_t differ, first;		/* blocks that differ, offset of the first */
};
#define AUDIT_ALL	100000u

/* audit_run() - a sample of what @ranges (ascending struct range) says is unchanged: is it? At least one piece of it. */
int audit_run(struct compare *c, const struct sm_spill *ranges, struct audit *a, struct sm_err *e);

#endif
