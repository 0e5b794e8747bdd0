/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * From the source to the wire: threads that read, find zeros, hash and compress; one writer that keeps the
 * order. Memory is the ring's: four jobs a thread of about 520 KiB each, all being read at once.
 */
#ifndef SNAPBACKUP_PIPELINE_H
#define SNAPBACKUP_PIPELINE_H

#include "seal.h"
#include "sink.h"

#define PIPELINE_MIN	2
#define PIPELINE_MAX	8

struct pipeline_options {
	int level;			/* zstd; 0 none */
	int threads;			/* 0: as many as processors, within the limits above */
	struct sm_sealer *sealer;	/* encrypt; or NULL */
	uint64_t rate;			/* bytes a second that go out, on average; 0: no limit */
	void (*progress)(uint64_t done, uint64_t out, void *arg);	/* bytes of the plan, bytes that have gone out */
	void *arg;
	const volatile int *stop;	/* set: give up */
};

/**
 * pipeline_run() - send all of a plan, and flush the sink
 *
 * Blocks. A read error ends it: nothing unread ever becomes zeros.
 */
int pipeline_run(struct source *s, struct plan *p, struct sink *k, const struct pipeline_options *o, struct sm_err *e);

/* pipeline_threads() - how many for @wanted (0: what fits the machine) */
int pipeline_threads(int wanted);

#endif
