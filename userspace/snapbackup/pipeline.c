// SPDX-License-Identifier: GPL-2.0-or-later
/*
 *	plan ──► cut ──► ring of jobs ──► reads ──► workers: zeros out, hash, zstd ──► writer, in order ──► sink
 *
 *	job:  FREE ──(main: cut)──► READING ──(reader)──► READY ──(worker)──► BUSY ──► DONE ──(main: write)──► FREE
 *
 * The ring is filled at its tail and emptied at its head by one thread, which also writes; workers take READY jobs in order.
 * One mutex, held for the moves only. All reads of the ring's jobs are under way at once (reader.h). Where that is not possible, or has
 * failed, a worker reads for itself: so there are at least two even on one processor, and the device is not idle while a frame is compressed.
 */
#include "pipeline.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "reader.h"

#define JOB_EXTENTS	FETCH_MAX

enum job_state { FREE, READING, READY, BUSY, DONE };

struct job {
	struct fetch fetch;		/* first: a job is found by it */
	enum job_state state;
	bool fetched;			/* @raw has all extents, each in whole blocks */
	bool zero;			/* one extent known to be zeros */
	uint32_t nr, nr_data, nr_zero;
	struct sm_extent x[JOB_EXTENTS], data[JOB_EXTENTS], zeros[JOB_EXTENTS];
	uint64_t bytes;
	uint32_t raw_length;
	uint8_t *raw, *payload;
	ssize_t payload_length;
	struct sm_err err;
	int failed;
};

struct ring {
	struct source *s;
	struct reader *reader;		/* or NULL */
	int level;
	struct sm_sealer *sealer;
	bool pack;
	struct job *job;
	uint32_t nr, head, tail, used, next;	/* next: the first that no worker has taken */
	pthread_mutex_t lock;
	pthread_cond_t ready, done;
	bool quit;
};

/* ---- workers ---- */

static void add_to(struct sm_extent *v, uint32_t *nr, uint64_t offset, uint64_t length)
{
	if (*nr && v[*nr - 1].offset + v[*nr - 1].length == offset)
		v[*nr - 1].length += length;
	else
		v[(*nr)++] = (struct sm_extent){ offset, length };
}

static size_t whole(uint64_t length)
{
	return (length + SM_BLOCK - 1) / SM_BLOCK * SM_BLOCK;
}

static int read_extent(struct ring *r, struct job *j, uint8_t *at, const struct sm_extent *x)
{
	ssize_t got = r->s->ops->read(r->s, at, whole(x->length), x->offset);

	if (got < (ssize_t)x->length)
		return sm_fail(&j->err, got < 0 ? got : -EIO, "%s: cannot read %llu bytes at offset %llu: %s", r->s->name,
			       (unsigned long long)x->length, (unsigned long long)x->offset,
			       got < 0 ? strerror(-got) : "ends early");
	return 0;
}

/* Of an extent's bytes, which are at @at, keep the blocks that are not zeros, behind those of the extents before. */
static void sort_out(struct job *j, const uint8_t *at, const struct sm_extent *x)
{
	for (uint64_t i = 0; i < x->length; i += SM_BLOCK) {
		size_t len = x->length - i < SM_BLOCK ? x->length - i : SM_BLOCK;

		if (sm_is_zero(at + i, len)) {
			add_to(j->zeros, &j->nr_zero, x->offset + i, len);
			continue;
		}
		add_to(j->data, &j->nr_data, x->offset + i, len);
		if (at + i != j->raw + j->raw_length)
			memmove(j->raw + j->raw_length, at + i, len);
		j->raw_length += len;
	}
}

static int work(struct ring *r, struct job *j)
{
	uint8_t *at = j->raw;
	int err = 0;

	j->nr_data = j->nr_zero = j->raw_length = 0;
	j->payload_length = 0;
	if (j->zero) {
		j->zeros[j->nr_zero++] = j->x[0];
		return 0;
	}
	for (uint32_t i = 0; !err && i < j->nr; i++) {
		err = j->fetched ? 0 : read_extent(r, j, at, &j->x[i]);
		if (!err)
			sort_out(j, at, &j->x[i]);
		at += whole(j->x[i].length);
	}
	if (err || !j->raw_length || !r->pack)
		return err;
	j->payload_length = sm_data_pack(j->data, j->nr_data, j->raw, j->raw_length, r->level, j->payload, &j->err);
	if (j->payload_length > 0 && r->sealer)
		j->payload_length = sm_seal(r->sealer, j->payload, j->payload_length, &j->err);
	return j->payload_length < 0 ? (int)j->payload_length : 0;
}

static void *worker(void *arg)
{
	struct ring *r = arg;

	pthread_mutex_lock(&r->lock);
	for (;;) {
		struct job *j = &r->job[r->next];

		if (r->quit)
			break;
		if (j->state != READY) {
			pthread_cond_wait(&r->ready, &r->lock);
			continue;
		}
		j->state = BUSY;
		r->next = (r->next + 1) % r->nr;
		pthread_mutex_unlock(&r->lock);
		j->failed = work(r, j);
		pthread_mutex_lock(&r->lock);
		j->state = DONE;
		pthread_cond_signal(&r->done);
	}
	pthread_mutex_unlock(&r->lock);
	return NULL;
}

/* ---- reading ---- */

static void hand_out(struct ring *r, struct job *j)
{
	pthread_mutex_lock(&r->lock);
	j->state = READY;
	pthread_cond_broadcast(&r->ready);
	pthread_mutex_unlock(&r->lock);
}

static void fetched(struct fetch *f, void *arg)
{
	struct job *j = (struct job *)f;

	j->fetched = !f->failed;
	hand_out(arg, j);
}

/* A job that has been cut: to the reader, or to the workers. */
static int begin_job(struct ring *r, struct job *j, struct sm_err *e)
{
	int err;

	j->fetched = false;
	if (!r->reader || j->zero) {
		hand_out(r, j);
		return 0;
	}
	pthread_mutex_lock(&r->lock);
	j->state = READING;
	pthread_mutex_unlock(&r->lock);
	err = reader_fetch(r->reader, &j->fetch, j->x, j->nr, j->raw);
	return err ? sm_fail(e, err, "%s: cannot read: %s", r->s->name, strerror(-err)) : 0;
}

/* ---- cutting ---- */

/*
 * Long runs are cut where the volume's 256 KiB pieces end, so that later generations meet the same cuts; short
 * ones share a job.
 */
static bool cut_job(struct plan *p, struct range *rest, struct job *j)
{
	uint64_t room = SM_SEND_RAW;

	j->nr = 0;
	j->bytes = 0;
	j->zero = false;
	while (j->nr < JOB_EXTENTS - 1 && room >= SM_BLOCK) {
		uint64_t len;

		if (!rest->length && !plan_next(p, UINT64_MAX, rest))
			break;
		if (rest->zero && j->nr)
			break;
		j->zero = rest->zero;
		len = rest->length;
		if (!rest->zero && len > room) {
			uint64_t edge = (rest->offset + room) / SM_SEND_RAW * SM_SEND_RAW;

			len = edge > rest->offset ? edge - rest->offset : room;
			room = len;	/* full */
		}
		j->x[j->nr++] = (struct sm_extent){ rest->offset, len };
		j->bytes += len;
		rest->offset += len;
		rest->length -= len;
		if (j->zero)
			break;
		room -= len < room ? len : room;
	}
	return j->nr;
}

/* ---- writing ---- */

static int write_job(struct sink *k, struct job *j, struct sm_err *e)
{
	const struct batch b = { j->nr_data, j->nr_zero, j->data, j->zeros, j->raw, j->raw_length, j->payload, j->payload_length };

	if (j->failed) {
		*e = j->err;
		return j->failed;
	}
	if (!j->zero)
		k->sent->read_bytes += j->bytes;
	return k->write(k, &b, e);
}

static uint64_t clock_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + t.tv_nsec;
}

/* Wait as long as it takes until what has gone out is no more than the rate allows since the start. */
static int keep_rate(const struct pipeline_options *o, uint64_t start, uint64_t out, struct sm_err *e)
{
	while (o->rate) {
		uint64_t due = start + (uint64_t)((double)out / o->rate * 1e9), now = clock_ns(), wait = due - now;
		struct timespec ts;

		if (o->stop && *o->stop)
			return sm_fail(e, -ECANCELED, "interrupted");
		if (now >= due)
			break;
		wait = wait < 100000000 ? wait : 100000000;
		ts = (struct timespec){ 0, wait };
		nanosleep(&ts, NULL);
	}
	return 0;
}

/* ---- all together ---- */

static int fill_and_drain(struct ring *r, struct plan *p, struct sink *k, const struct pipeline_options *o, struct sm_err *e)
{
	uint64_t done = p->have_bytes, start = clock_ns(), out = k->bytes_out;
	struct range rest = { 0 };
	bool more = true;
	int err = 0;

	while (!err) {
		struct job *j;

		while (more && r->used < r->nr) {
			more = cut_job(p, &rest, &r->job[r->tail]);
			if (!more)
				break;
			err = begin_job(r, &r->job[r->tail], e);
			if (err)
				return err;
			r->tail = (r->tail + 1) % r->nr;
			r->used++;
		}
		if (!r->used)
			break;
		j = &r->job[r->head];
		pthread_mutex_lock(&r->lock);
		while (j->state != DONE)
			pthread_cond_wait(&r->done, &r->lock);
		pthread_mutex_unlock(&r->lock);
		err = o->stop && *o->stop ? sm_fail(e, -ECANCELED, "interrupted") : write_job(k, j, e);
		done += j->bytes;
		if (o->progress)
			o->progress(done, k->bytes_out, o->arg);
		if (!err)
			err = keep_rate(o, start, k->bytes_out - out, e);
		pthread_mutex_lock(&r->lock);
		j->state = FREE;
		pthread_mutex_unlock(&r->lock);
		r->head = (r->head + 1) % r->nr;
		r->used--;
	}
	return err;
}

static int make_ring(struct ring *r, int threads)
{
	r->nr = 4 * threads;
	r->job = calloc(r->nr, sizeof(*r->job));
	if (!r->job)
		return -ENOMEM;
	for (uint32_t i = 0; i < r->nr; i++) {
		/* One block more: the last block of an odd-sized volume is read whole. */
		r->job[i].raw = aligned_alloc(SM_BLOCK, SM_SEND_RAW + SM_BLOCK);
		r->job[i].payload = malloc(SM_DATA_ROOM(JOB_EXTENTS, SM_SEND_RAW + SM_BLOCK) + SM_SEAL_ROOM);
		if (!r->job[i].raw || !r->job[i].payload)
			return -ENOMEM;
	}
	return 0;
}

static void free_ring(struct ring *r)
{
	for (uint32_t i = 0; r->job && i < r->nr; i++) {
		free(r->job[i].raw);
		free(r->job[i].payload);
	}
	free(r->job);
}

static int run_threads(struct ring *r, int threads, struct plan *p, struct sink *k, const struct pipeline_options *o,
		       struct sm_err *e)
{
	pthread_t t[PIPELINE_MAX];
	int n = 0, err = 0, fd = r->s->ops->fd ? r->s->ops->fd(r->s) : -1;

	r->reader = fd < 0 ? NULL : reader_new(fd, r->nr, fetched, r);
	while (n < threads && !pthread_create(&t[n], NULL, worker, r))
		n++;
	if (!n)
		err = sm_fail(e, -EAGAIN, "cannot start a thread");
	else
		err = fill_and_drain(r, p, k, o, e);
	reader_free(r->reader);
	pthread_mutex_lock(&r->lock);
	r->quit = true;
	pthread_cond_broadcast(&r->ready);
	pthread_mutex_unlock(&r->lock);
	while (n--)
		pthread_join(t[n], NULL);
	return err;
}

int pipeline_run(struct source *s, struct plan *p, struct sink *k, const struct pipeline_options *o, struct sm_err *e)
{
	struct ring r = { .s = s, .level = o->level, .sealer = o->sealer, .pack = k->pack, .lock = PTHREAD_MUTEX_INITIALIZER,
			  .ready = PTHREAD_COND_INITIALIZER, .done = PTHREAD_COND_INITIALIZER };
	int threads = pipeline_threads(o->threads), err;

	err = make_ring(&r, threads) ? sm_fail(e, -ENOMEM, "no memory") : run_threads(&r, threads, p, k, o, e);
	if (!err)
		err = k->flush(k, e);
	free_ring(&r);
	return err;
}

int pipeline_threads(int wanted)
{
	int n = wanted ? wanted : sysconf(_SC_NPROCESSORS_ONLN);

	return n < PIPELINE_MIN ? PIPELINE_MIN : n > PIPELINE_MAX ? PIPELINE_MAX : n;
}
