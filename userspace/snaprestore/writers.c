// SPDX-License-Identifier: GPL-2.0-or-later
/*
 *	receive, check heads and ranges ──► ring of frames ──► workers: unpack, compare the digest, write
 *
 *	slot:  FREE ──(writers_put)──► READY ──(worker)──► BUSY ──► FREE
 *
 * One thread receives. A frame's place does not depend on other frames, so that workers write where and when they
 * are done; nobody writes a byte that has not been compared with its digest. The first failure stops all: what the receiver
 * puts afterwards is refused with it. One mutex, held for the moves only. Workers take slots in the order of the ring.
 */
#include "writers.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define THREADS_MAX	5
#define SLOTS		(3 * THREADS_MAX)	/* of at most 2 MiB, mostly 0.4 */

enum slot_state { FREE, READY, BUSY };

struct slot {
	enum slot_state state;
	struct sm_incoming_frame f;
	uint8_t *buf;			/* of f.payload */
	size_t size;
	struct sm_wire_extent part[SM_MAX_RAW / SM_BLOCK + 1];
};

struct writers {
	struct target *t;
	const struct sm_opener *opener;
	struct slot slot[SLOTS];
	uint32_t put, take, busy;	/* busy: slots that are not FREE */
	bool quit;
	int failed;
	struct sm_err err;
	pthread_mutex_t lock;
	pthread_cond_t ready, done;
	pthread_t thread[THREADS_MAX];
	int nr;
};

static int write_data(struct target *t, const struct sm_incoming_frame *f, struct sm_err *e)
{
	struct sm_place at = { 0 };
	int err = 0;

	for (uint32_t i = 0; !err && i < f->nr; i++) {
		struct sm_extent x;
		const uint8_t *from = sm_incoming_piece(f, i, &at, &x);

		err = target_write(t, x.offset, from, x.length, e);
	}
	return err;
}

static int work(struct writers *w, struct slot *s, uint8_t *raw, struct sm_err *e)
{
	int err = raw ? sm_data_open(&s->f.d, w->opener, raw, e) : sm_fail(e, -ENOMEM, "no memory");

	s->f.raw = raw;
	return err ? err : write_data(w->t, &s->f, e);
}

static void *worker(void *arg)
{
	uint8_t *raw = malloc(SM_MAX_RAW);
	struct writers *w = arg;

	pthread_mutex_lock(&w->lock);
	for (;;) {
		struct slot *s = &w->slot[w->take];
		struct sm_err e;
		int err = 0;

		if (s->state != READY) {
			if (w->quit)
				break;
			pthread_cond_wait(&w->ready, &w->lock);
			continue;
		}
		s->state = BUSY;
		w->take = (w->take + 1) % SLOTS;
		if (!w->failed) {
			pthread_mutex_unlock(&w->lock);
			err = work(w, s, raw, &e);
			pthread_mutex_lock(&w->lock);
		}
		if (err && !w->failed) {
			w->failed = err;
			w->err = e;
		}
		s->state = FREE;
		w->busy--;
		pthread_cond_signal(&w->done);
	}
	pthread_mutex_unlock(&w->lock);
	free(raw);
	return NULL;
}

struct writers *writers_begin(struct target *t, const struct sm_opener *opener, struct sm_err *e)
{
	long n = sysconf(_SC_NPROCESSORS_ONLN) + 1;	/* one waits for the disk */
	struct writers *w = calloc(1, sizeof(*w));

	if (!w) {
		sm_fail(e, -ENOMEM, "no memory");
		return NULL;
	}
	n = n < 3 ? 3 : n > THREADS_MAX ? THREADS_MAX : n;
	w->t = t;
	w->opener = opener;
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->ready, NULL);
	pthread_cond_init(&w->done, NULL);
	while (w->nr < n && !pthread_create(&w->thread[w->nr], NULL, worker, w))
		w->nr++;
	if (w->nr)
		return w;
	writers_end(w, NULL);
	sm_fail(e, -EAGAIN, "cannot start a thread");
	return NULL;
}

/* Everything of the frame becomes the slot's: the payload by exchange of buffers, parts by a copy. */
static void fill(struct slot *s, struct sm_chan *c, const struct sm_incoming_frame *f)
{
	s->f = *f;
	sm_chan_take(c, &s->buf, &s->size);
	if (f->extents == f->d.extents)
		return;
	memcpy(s->part, f->extents, f->nr * sizeof(*s->part));
	s->f.extents = s->part;
}

int writers_put(struct writers *w, struct sm_chan *c, const struct sm_incoming_frame *f, struct sm_err *e)
{
	struct slot *s = &w->slot[w->put];
	int err;

	if (f->nr > sizeof(s->part) / sizeof(*s->part) && f->extents != f->d.extents)
		return sm_fail(e, -EPROTO, "more parts than blocks");
	pthread_mutex_lock(&w->lock);
	while (s->state != FREE && !w->failed)
		pthread_cond_wait(&w->done, &w->lock);
	err = w->failed;
	if (err) {
		if (e)
			*e = w->err;
	} else {
		fill(s, c, f);
		s->state = READY;
		w->put = (w->put + 1) % SLOTS;
		w->busy++;
		pthread_cond_signal(&w->ready);
	}
	pthread_mutex_unlock(&w->lock);
	return err;
}

int writers_end(struct writers *w, struct sm_err *e)
{
	int err;

	pthread_mutex_lock(&w->lock);
	while (w->busy)
		pthread_cond_wait(&w->done, &w->lock);
	w->quit = true;
	pthread_cond_broadcast(&w->ready);
	pthread_mutex_unlock(&w->lock);
	while (w->nr)
		pthread_join(w->thread[--w->nr], NULL);
	err = w->failed;
	if (err && e)
		*e = w->err;
	for (uint32_t i = 0; i < SLOTS; i++)
		free(w->slot[i].buf);
	pthread_mutex_destroy(&w->lock);
	pthread_cond_destroy(&w->ready);
	pthread_cond_destroy(&w->done);
	free(w);
	return err;
}
