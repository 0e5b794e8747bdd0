// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The thread that calls reader_fetch() has the submission side of the ring, one of our own the completion side: each is touched by one
 * thread only, as io_uring wants it.
 */
#include "reader.h"

#include <errno.h>
#include <liburing.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#define ENTRIES		(2 * FETCH_MAX)
#define TRIES		5000		/* of a millisecond, while the kernel has no room */

struct reader {
	struct io_uring ring;
	int fd;
	void (*done)(struct fetch *f, void *arg);
	void *arg;
	pthread_t thread;
	_Atomic int64_t submitted;	/* by the one side ... */
	int64_t completed;		/* ... and the other's */
	atomic_bool quit;
};

static void complete(struct reader *r, struct fetch_piece *p, int res)
{
	if (res < (int)p->want)
		p->fetch->failed = true;
	if (!--p->fetch->left)
		r->done(p->fetch, r->arg);
}

static void *reap(void *arg)
{
	struct __kernel_timespec tick = { .tv_nsec = 100000000 };
	struct reader *r = arg;

	/* After quit nothing is submitted any more: what was is waited for, since its buffers are about to go. */
	while (!r->quit || r->completed < r->submitted) {
		struct io_uring_cqe *cqe;
		struct fetch_piece *p;
		int res;

		if (io_uring_wait_cqe_timeout(&r->ring, &cqe, &tick))
			continue;
		p = io_uring_cqe_get_data(cqe);
		res = cqe->res;
		io_uring_cqe_seen(&r->ring, cqe);
		if (!p)		/* the one that wakes us: none of those that are waited for */
			continue;
		r->completed++;
		complete(r, p, res);
	}
	return NULL;
}

static int submit(struct reader *r)
{
	int tries = 0;

	while (io_uring_sq_ready(&r->ring)) {
		int n = io_uring_submit(&r->ring);

		if (n > 0)
			r->submitted += n;
		else if (n != -EINTR && ((n != -EAGAIN && n != -EBUSY) || ++tries == TRIES))
			return n ? n : -EIO;
		else if (n != -EINTR)
			usleep(1000);
	}
	return 0;
}

struct reader *reader_new(int fd, uint32_t most, void (*done)(struct fetch *f, void *arg), void *arg)
{
	struct io_uring_params p = { .flags = IORING_SETUP_CQSIZE, .cq_entries = most * FETCH_MAX };
	struct reader *r = calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	if (p.cq_entries < 2 * ENTRIES)
		p.cq_entries = 2 * ENTRIES;
	r->fd = fd;
	r->done = done;
	r->arg = arg;
	if (io_uring_queue_init_params(ENTRIES, &r->ring, &p)) {
		free(r);
		return NULL;
	}
	/* Without it waiting with a timeout would use the other side of the ring. */
	if (!(p.features & IORING_FEAT_EXT_ARG) || pthread_create(&r->thread, NULL, reap, r)) {
		io_uring_queue_exit(&r->ring);
		free(r);
		return NULL;
	}
	return r;
}

int reader_fetch(struct reader *r, struct fetch *f, const struct sm_extent *x, uint32_t nr, uint8_t *buf)
{
	if (!nr || nr > FETCH_MAX)
		return -EINVAL;
	f->failed = false;
	f->left = nr;
	for (uint32_t i = 0; i < nr; i++) {
		uint32_t len = (x[i].length + SM_BLOCK - 1) / SM_BLOCK * SM_BLOCK;
		struct io_uring_sqe *sqe = io_uring_get_sqe(&r->ring);

		if (!sqe)		/* cannot be: there is room for two fetches, and each is submitted whole */
			return -EBUSY;
		f->piece[i] = (struct fetch_piece){ f, x[i].length };
		io_uring_prep_read(sqe, r->fd, buf, len, x[i].offset);
		io_uring_sqe_set_data(sqe, &f->piece[i]);
		buf += len;
	}
	return submit(r);
}

void reader_free(struct reader *r)
{
	struct io_uring_sqe *sqe;

	if (!r)
		return;
	r->quit = true;
	/* It would see that at its next tick; a completion of nothing wakes it now. */
	sqe = io_uring_sq_ready(&r->ring) ? NULL : io_uring_get_sqe(&r->ring);
	if (sqe) {
		io_uring_prep_nop(sqe);
		io_uring_sqe_set_data(sqe, NULL);
		io_uring_submit(&r->ring);
	}
	pthread_join(r->thread, NULL);
	io_uring_queue_exit(&r->ring);
	free(r);
}
