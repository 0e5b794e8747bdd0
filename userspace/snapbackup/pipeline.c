// SPDX-License-Identifier: GPL-2.0-or-later
/*
 *	plan ──► cut ──► ring of jobs ──► workers: read, zeros out, hash, zstd ──► writer, in order ──► session
 *
 *	job:  FREE ──(main: cut)──► READY ──(worker)──► BUSY ──► DONE ──(main: write)──► FREE
 *
 * The ring is filled at its tail and emptied at its head by one thread, which also writes; workers take READY jobs in order.
 * One mutex, held for the moves only.
 *
 * Frames of data ascend, and zeros are gathered into few frames and ascend among themselves: so both
 * parts of the map hash are made on the way, in no memory. What a resumed upload holds already is merged in.
 */
#include "pipeline.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define JOB_EXTENTS	(SM_SEND_RAW / SM_BLOCK + 1)

enum job_state { FREE, READY, BUSY, DONE };

struct job {
	enum job_state state;
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
	int level;
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

/* Read one extent behind what the job has, then keep only the blocks that are not zeros. */
static int read_extent(struct ring *r, struct job *j, const struct sm_extent *x)
{
	size_t want = (x->length + SM_BLOCK - 1) / SM_BLOCK * SM_BLOCK;
	uint8_t *at = j->raw + j->raw_length;
	ssize_t got = r->s->ops->read(r->s, at, want, x->offset);

	if (got < (ssize_t)x->length)
		return sm_fail(&j->err, got < 0 ? got : -EIO, "%s: cannot read %llu bytes at offset %llu: %s", r->s->name,
			       (unsigned long long)x->length, (unsigned long long)x->offset,
			       got < 0 ? strerror(-got) : "ends early");
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
	return 0;
}

static int work(struct ring *r, struct job *j)
{
	int err = 0;

	j->nr_data = j->nr_zero = j->raw_length = 0;
	j->payload_length = 0;
	if (j->zero) {
		j->zeros[j->nr_zero++] = j->x[0];
		return 0;
	}
	for (uint32_t i = 0; !err && i < j->nr; i++)
		err = read_extent(r, j, &j->x[i]);
	if (err || !j->raw_length)
		return err;
	j->payload_length = sm_data_pack(j->data, j->nr_data, j->raw, j->raw_length, r->level, j->payload, &j->err);
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

struct writer {
	struct sm_client *c;
	struct plan *p;
	struct sm_map_hash map;
	size_t at_leaf, at_zero;	/* of what the server has */
	struct sent *sent;
	uint32_t nr_zero;
	struct {
		struct sm_wire_zero head;
		struct sm_wire_extent x[SM_MAX_EXTENTS];
	} __attribute__((packed)) zero;
};

static int not_in_order(struct sm_err *e)
{
	return sm_fail(e, -EPROTO, "the server has something else than was sent");
}

static int merge_leaves(struct writer *w, uint64_t before, struct sm_err *e)
{
	for (; w->at_leaf < w->p->have_leaves.nr; w->at_leaf++) {
		const struct have_leaf *l = sm_spill_at(&w->p->have_leaves, w->at_leaf);

		if (l->first >= before)
			break;
		if (sm_map_hash_data(&w->map, l->first, l->digest))
			return not_in_order(e);
	}
	return 0;
}

static int merge_zeros(struct writer *w, uint64_t before, struct sm_err *e)
{
	for (; w->at_zero < w->p->have_zeros.nr; w->at_zero++) {
		const struct sm_extent *x = sm_spill_at(&w->p->have_zeros, w->at_zero);

		if (x->offset >= before)
			break;
		if (sm_map_hash_zero(&w->map, x->offset, x->length))
			return not_in_order(e);
	}
	return 0;
}

static int flush_zeros(struct writer *w, struct sm_err *e)
{
	uint32_t nr = w->nr_zero;

	if (!nr)
		return 0;
	w->nr_zero = 0;
	w->zero.head = (struct sm_wire_zero){ htole32(nr), 0 };
	return sm_client_send(w->c, SM_ZERO, &w->zero, sizeof(w->zero.head) + nr * sizeof(w->zero.x[0]), e);
}

static int write_zero(struct writer *w, const struct sm_extent *x, struct sm_err *e)
{
	struct sm_wire_extent *last = w->nr_zero ? &w->zero.x[w->nr_zero - 1] : NULL;
	int err = merge_zeros(w, x->offset, e);

	if (err)
		return err;
	if (sm_map_hash_zero(&w->map, x->offset, x->length))
		return not_in_order(e);
	w->sent->zero_bytes += x->length;
	if (last && le64toh(last->offset) + le64toh(last->length) == x->offset) {
		last->length = htole64(le64toh(last->length) + x->length);
		return 0;
	}
	if (w->nr_zero == SM_MAX_EXTENTS && (err = flush_zeros(w, e)))
		return err;
	w->zero.x[w->nr_zero++] = (struct sm_wire_extent){ htole64(x->offset), htole64(x->length) };
	return 0;
}

static int write_data(struct writer *w, struct job *j, struct sm_err *e)
{
	uint8_t leaf[SM_DIGEST];
	struct sm_data d;
	const struct sm_extent *last = &j->data[j->nr_data - 1];
	int err = sm_data_parse(j->payload, j->payload_length, last->offset + last->length, false, &d, e);

	if (err || (err = merge_leaves(w, j->data[0].offset, e)))
		return err;
	sm_data_leaf(&d, leaf);
	if (sm_map_hash_data(&w->map, j->data[0].offset, leaf))
		return not_in_order(e);
	w->sent->data_bytes += j->raw_length;
	return sm_client_send(w->c, SM_DATA, j->payload, j->payload_length, e);
}

static int write_job(struct writer *w, struct job *j, struct sm_err *e)
{
	int err = 0;

	if (j->failed) {
		*e = j->err;
		return j->failed;
	}
	if (!j->zero)
		w->sent->read_bytes += j->bytes;
	for (uint32_t i = 0; !err && i < j->nr_zero; i++)
		err = write_zero(w, &j->zeros[i], e);
	if (!err && j->nr_data)
		err = write_data(w, j, e);
	return err;
}

/* ---- all together ---- */

static int fill_and_drain(struct ring *r, struct writer *w, const struct pipeline_options *o, struct sm_err *e)
{
	struct range rest = { 0 };
	uint64_t done = w->p->have_bytes;
	bool more = true;
	int err = 0;

	while (!err) {
		struct job *j;

		while (more && r->used < r->nr) {
			more = cut_job(w->p, &rest, &r->job[r->tail]);
			if (!more)
				break;
			pthread_mutex_lock(&r->lock);
			r->job[r->tail].state = READY;
			pthread_cond_signal(&r->ready);
			pthread_mutex_unlock(&r->lock);
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
		err = o->stop && *o->stop ? sm_fail(e, -ECANCELED, "interrupted") : write_job(w, j, e);
		done += j->bytes;
		if (o->progress)
			o->progress(done, o->arg);
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
		r->job[i].payload = malloc(SM_DATA_ROOM(JOB_EXTENTS, SM_SEND_RAW + SM_BLOCK));
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

static int run_threads(struct ring *r, int threads, struct writer *w, const struct pipeline_options *o, struct sm_err *e)
{
	pthread_t t[8];
	int n = 0, err = 0;

	while (n < threads && !pthread_create(&t[n], NULL, worker, r))
		n++;
	if (!n)
		err = sm_fail(e, -EAGAIN, "cannot start a thread");
	else
		err = fill_and_drain(r, w, o, e);
	pthread_mutex_lock(&r->lock);
	r->quit = true;
	pthread_cond_broadcast(&r->ready);
	pthread_mutex_unlock(&r->lock);
	while (n--)
		pthread_join(t[n], NULL);
	return err;
}

int pipeline_run(struct source *s, struct plan *p, struct sm_client *c, const struct pipeline_options *o, struct sent *sent,
		 struct sm_err *e)
{
	struct ring r = { .s = s, .level = o->level, .lock = PTHREAD_MUTEX_INITIALIZER,
			  .ready = PTHREAD_COND_INITIALIZER, .done = PTHREAD_COND_INITIALIZER };
	int threads = o->threads ? o->threads : sysconf(_SC_NPROCESSORS_ONLN), err;
	struct writer *w = calloc(1, sizeof(*w));

	memset(sent, 0, sizeof(*sent));
	sent->data_bytes = p->have_data;
	sent->zero_bytes = p->have_zero;
	threads = threads < 1 ? 1 : threads > 8 ? 8 : threads;
	err = w && !make_ring(&r, threads) ? 0 : sm_fail(e, -ENOMEM, "no memory");
	if (!err) {
		w->c = c;
		w->p = p;
		w->sent = sent;
		sm_map_hash_init(&w->map);
		err = run_threads(&r, threads, w, o, e);
		if (!err && !(err = flush_zeros(w, e)) && !(err = merge_leaves(w, UINT64_MAX, e)))
			err = merge_zeros(w, UINT64_MAX, e);
		sent->frames = w->map.frames;
		sm_map_hash_final(&w->map, sent->map_hash);
	}
	free_ring(&r);
	free(w);
	return err;
}
