/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * From the source to the wire: threads that read, find zeros, hash and compress; one writer that keeps the
 * order. Memory is the ring's: four jobs a thread of about 520 KiB each.
 */
#ifndef SNAPBACKUP_PIPELINE_H
#define SNAPBACKUP_PIPELINE_H

#include "plan.h"
#include "session.h"

struct sent {
	uint64_t frames;		/* DATA frames of the whole backup, resumed ones included */
	uint64_t data_bytes, zero_bytes;
	uint64_t read_bytes;		/* of the source, now */
	uint8_t map_hash[SM_DIGEST];
};

struct pipeline_options {
	int level;			/* zstd; 0 none */
	int threads;			/* 0: as many as processors, at most 8 */
	void (*progress)(uint64_t done, void *arg);	/* bytes of the plan */
	void *arg;
	const volatile int *stop;	/* set: give up */
};

/**
 * pipeline_run() - send all of a plan
 *
 * Blocks. A read error ends it: nothing unread ever becomes zeros.
 */
int pipeline_run(struct source *s, struct plan *p, struct sm_client *c, const struct pipeline_options *o, struct sent *sent,
		 struct sm_err *e);

#endif
