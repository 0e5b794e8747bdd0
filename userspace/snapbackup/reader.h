/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Many reads of one file or device at once, through io_uring: scattered blocks come as fast as the device gives them with
 * a deep queue, and with a descriptor of O_DIRECT nothing is copied.
 *
 * It only helps. What it could not read whole its user reads again in the plain way, and has the error from there.
 */
#ifndef SNAPBACKUP_READER_H
#define SNAPBACKUP_READER_H

#include "extent.h"

#define FETCH_MAX	(SM_SEND_RAW / SM_BLOCK + 1)	/* extents of one fetch */

struct reader;

/* A group of extents; in the user's object, until done() has been called. */
struct fetch {
	bool failed;
	/* the reader's */
	uint32_t left;
	struct fetch_piece {
		struct fetch *fetch;
		uint32_t want;
	} piece[FETCH_MAX];
};

/**
 * reader_new() - begin
 * @fd: must stay open
 * @most: fetches that are under way at once
 * @done: a fetch has ended; called in another thread
 *
 * Return: NULL where there is no io_uring.
 */
struct reader *reader_new(int fd, uint32_t most, void (*done)(struct fetch *f, void *arg), void *arg);
/*
 * reader_fetch() - read @nr extents one after the other into @buf, each rounded up to whole blocks. From one thread. Does not wait for
 * the device. Return: 0, and done() will be called; -errno: it may never be.
 */
int reader_fetch(struct reader *r, struct fetch *f, const struct sm_extent *x, uint32_t nr, uint8_t *buf);
/* reader_free() - waits for what is under way; @r may be NULL */
void reader_free(struct reader *r);

#endif
