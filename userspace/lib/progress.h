/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A progress line: bytes, rate, time left.
 *
 *	backup vol@3: 1.2G of 4.0G  30%  212M/s  0:13 left
 *
 * Drawn on a terminal only, at most five times a second; with json as one object a line on the same
 * stream, once a second, for programs:
 *
 *	{"what":"...","done":N,"total":N,"sent":N,"rate":N,"eta":SECONDS,"finished":false}
 *
 * All functions take NULL (nothing is shown then). Calls may come from any thread.
 */
#ifndef SNAP_LIB_PROGRESS_H
#define SNAP_LIB_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct snap_progress;

struct snap_progress_opts {
	const char *what;		/* copied */
	bool quiet;			/* nothing at all */
	bool json;			/* --progress-json */
	FILE *file;			/* NULL: stderr */
};

/** snap_progress_start() - @total 0: not known. Return: NULL when there is nothing to show. */
struct snap_progress *snap_progress_start(const struct snap_progress_opts *opts, uint64_t total);
/** snap_progress_total() - the total became known or changed. */
void snap_progress_total(struct snap_progress *p, uint64_t total);
/** snap_progress_update() - @done bytes of the total so far; @sent: bytes on the wire, 0: not counted. */
void snap_progress_update(struct snap_progress *p, uint64_t done, uint64_t sent);
/** snap_progress_end() - last state, clear or finish the line, free. @ok: false leaves "failed" in JSON. */
void snap_progress_end(struct snap_progress *p, bool ok);

#endif
