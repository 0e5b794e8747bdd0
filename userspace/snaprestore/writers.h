/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SNAPRESTORE_WRITERS_H
#define SNAPRESTORE_WRITERS_H

#include "restore.h"

struct writers;

/* writers_begin() - threads that unpack data frames (opened with @opener) and write them to @t; NULL: none could be started */
struct writers *writers_begin(struct target *t, const struct sm_opener *opener, struct sm_err *e);
/**
 * writers_put() - hand over a data frame that sm_incoming_recv() has just given
 * @c: its channel: the frame's buffer is exchanged for another one
 *
 * Blocks while all are busy. Return: 0, or what has failed meanwhile (of this or an earlier frame).
 */
int writers_put(struct writers *w, struct sm_chan *c, const struct sm_incoming_frame *f, struct sm_err *e);
/* writers_end() - wait for all of them, and free. Return: 0: every frame has been checked and written; or the first failure. */
int writers_end(struct writers *w, struct sm_err *e);

#endif
