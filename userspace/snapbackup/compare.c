// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * In two passes: units of 256 KiB over everything, then single blocks in those that differ. Only these are read twice.
 *
 *	ranges ──► window (64 MiB, 256 ranges) ──► request ──────────────► server digests
 *	                 └──► threads: read, digest ──► compare ◄────────── answer
 *
 * One window is asked for ahead, so that both sides work at the same time and the way between them costs nothing. Both compute
 * the digests themselves: a wrong answer makes blocks be sent that need not be (harmless), or missed only if the server lies
 * about what it has, which is then what it would restore.
 */
#include "compare.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "pipeline.h"
#include "session_digest.h"

#define COARSE		(256u << 10)
#define PIECE		(256u << 10)	/* read at once: a multiple of every unit */
#define SAMPLE		(64u << 10)
#define WINDOW		(64ull << 20)
#define WINDOW_DIGESTS	(WINDOW / SM_BLOCK)

/* A stretch that one thread reads at once. */
struct piece {
	uint64_t offset;
	uint32_t length, digest;	/* index of its first */
};

struct window {
	struct sm_extent x[SM_DIGEST_RANGES];
	uint32_t nr, nr_digests, nr_pieces;
	struct piece *piece;
	uint8_t (*mine)[SM_DIGEST];
};

struct pass {
	struct compare *c;
	uint32_t unit;
	const struct sm_spill *in;
	size_t at;			/* in @in, and how far in that range */
	uint64_t pos;
	struct window w[2];
	/* threads on a window */
	const struct window *work;
	uint32_t next;			/* atomic: the first piece nobody has taken */
	pthread_mutex_t lock;
	int err;
	struct sm_err why;
};

/* ---- windows ---- */

static void add_piece(struct pass *p, struct window *w, uint64_t offset, uint64_t length)
{
	for (uint64_t n; length; offset += n, length -= n) {
		n = length < PIECE ? length : PIECE;
		w->piece[w->nr_pieces++] = (struct piece){ offset, n, w->nr_digests };
		w->nr_digests += (n + p->unit - 1) / p->unit;
	}
}

/* The next ranges, as much as fits. false: there are none. */
static bool fill_window(struct pass *p, struct window *w)
{
	uint64_t room = WINDOW;

	w->nr = w->nr_digests = w->nr_pieces = 0;
	for (; p->at < p->in->nr && w->nr < SM_DIGEST_RANGES && room >= PIECE; p->at++, p->pos = 0) {
		const struct range *r = sm_spill_at(p->in, p->at);
		uint64_t offset = r->offset + p->pos, left = r->length - p->pos, len = left < room ? left : room / PIECE * PIECE;

		w->x[w->nr++] = (struct sm_extent){ offset, (len + SM_BLOCK - 1) / SM_BLOCK * SM_BLOCK };
		add_piece(p, w, offset, len);
		room -= len < room ? len : room;
		if (len < left) {
			p->pos += len;
			break;
		}
	}
	return w->nr;
}

static int ask(struct pass *p, struct window *w, struct sm_err *e)
{
	const struct base *b = p->c->base;
	struct sm_gen_info g = { .number = b->number };

	memcpy(g.volume, p->c->source->volume, SM_UUID);
	return sm_client_digest(p->c->client, &g, b->manifest, p->unit, w->x, w->nr, e);
}

/* ---- our own digests ---- */

static int digest_piece(struct pass *p, const struct piece *x, uint8_t *buf, struct sm_err *e)
{
	struct source *s = p->c->source;
	size_t want = (x->length + SM_BLOCK - 1) / SM_BLOCK * SM_BLOCK;
	ssize_t got = s->ops->read(s, buf, want, x->offset);

	if (got < (ssize_t)x->length)
		return sm_fail(e, got < 0 ? got : -EIO, "%s: cannot read %u bytes at offset %llu: %s", s->name, x->length,
			       (unsigned long long)x->offset, got < 0 ? strerror(-got) : "ends early");
	for (uint32_t at = 0, i = x->digest; at < x->length; at += p->unit, i++)
		sm_digest_unit(buf + at, x->length - at < p->unit ? x->length - at : p->unit, p->work->mine[i]);
	return 0;
}

static void *digest_thread(void *arg)
{
	struct pass *p = arg;
	uint8_t *buf = aligned_alloc(SM_BLOCK, PIECE);
	struct sm_err why;
	int err = buf ? 0 : sm_fail(&why, -ENOMEM, "no memory");

	while (!err) {
		uint32_t i = __atomic_fetch_add(&p->next, 1, __ATOMIC_RELAXED);

		if (i >= p->work->nr_pieces)
			break;
		err = p->c->stop && *p->c->stop ? sm_fail(&why, -ECANCELED, "interrupted") :
						  digest_piece(p, &p->work->piece[i], buf, &why);
	}
	free(buf);
	if (err) {
		pthread_mutex_lock(&p->lock);
		p->err = err;
		p->why = why;
		pthread_mutex_unlock(&p->lock);
	}
	return NULL;
}

static int digest_window(struct pass *p, const struct window *w, struct sm_err *e)
{
	pthread_t t[PIPELINE_MAX];
	int n = 0, threads = pipeline_threads(0);

	p->work = w;
	p->next = 0;
	while (n < threads && !pthread_create(&t[n], NULL, digest_thread, p))
		n++;
	if (!n)
		return sm_fail(e, -EAGAIN, "cannot start a thread");
	while (n--)
		pthread_join(t[n], NULL);
	if (p->err)
		*e = p->why;
	return p->err;
}

/* ---- comparing ---- */

static int compare_window(struct pass *p, const struct window *w, struct sm_spill *out, struct sm_err *e)
{
	const uint8_t (*theirs)[SM_DIGEST];
	int err = sm_client_digests(p->c->client, w->nr_digests, &theirs, e);

	for (uint32_t i = 0; !err && i < w->nr_pieces; i++) {
		const struct piece *x = &w->piece[i];

		p->c->read_bytes += x->length;
		for (uint32_t at = 0, k = x->digest; !err && at < x->length; at += p->unit, k++)
			if (memcmp(theirs[k], w->mine[k], SM_DIGEST))
				err = add_range(out, x->offset + at, x->length - at < p->unit ? x->length - at : p->unit, false, e);
	}
	if (p->c->progress)
		p->c->progress(p->c->read_bytes, p->c->arg);
	return err;
}

static int run_pass(struct pass *p, struct sm_spill *out, struct sm_err *e)
{
	uint32_t turn = 0;
	bool more = fill_window(p, &p->w[0]);
	int err = more ? ask(p, &p->w[0], e) : 0;

	while (!err && more) {
		struct window *now = &p->w[turn], *then = &p->w[turn ^= 1];

		more = fill_window(p, then);
		if (more)
			err = ask(p, then, e);
		if (!err)
			err = digest_window(p, now, e);
		if (!err)
			err = compare_window(p, now, out, e);
	}
	return err;
}

/* The units of @in that differ. */
static int compare_ranges(struct compare *c, uint32_t unit, const struct sm_spill *in, struct sm_spill *out, struct sm_err *e)
{
	struct pass *p = calloc(1, sizeof(*p));
	int err = p ? 0 : sm_fail(e, -ENOMEM, "no memory");

	for (int i = 0; !err && i < 2; i++) {
		p->w[i].mine = calloc(WINDOW_DIGESTS + SM_DIGEST_RANGES, SM_DIGEST);
		p->w[i].piece = calloc(WINDOW / PIECE + SM_DIGEST_RANGES, sizeof(struct piece));
		if (!p->w[i].mine || !p->w[i].piece)
			err = sm_fail(e, -ENOMEM, "no memory");
	}
	if (!err) {
		p->c = c;
		p->unit = unit;
		p->in = in;
		pthread_mutex_init(&p->lock, NULL);
		err = run_pass(p, out, e);
	}
	for (int i = 0; p && i < 2; i++) {
		free(p->w[i].mine);
		free(p->w[i].piece);
	}
	free(p);
	return err;
}

/*
 * How far digests of both are of the same bytes: to the last block where the sizes differ, since there one side's last
 * block is cut.
 */
static uint64_t common_end(const struct compare *c)
{
	uint64_t a = c->source->size, b = c->base->size;

	return a == b ? a : (a < b ? a : b) / SM_BLOCK * SM_BLOCK;
}

int compare_all(struct compare *c, struct sm_spill *out, struct sm_err *e)
{
	uint64_t end = common_end(c), size = c->source->size;
	struct sm_spill all, coarse;
	int err = 0;

	sm_spill_init(&all, sizeof(struct range), NULL);
	sm_spill_init(&coarse, sizeof(struct range), NULL);
	if (end)
		err = add_range(&all, 0, end, false, e);
	if (!err)
		err = compare_ranges(c, COARSE, &all, &coarse, e);
	if (!err)
		err = compare_ranges(c, SM_BLOCK, &coarse, out, e);
	/* shrunk: the block with the new end */
	if (!err && c->base->size > size && end < size)
		err = add_range(out, end, size - end, false, e);
	sm_spill_free(&all);
	sm_spill_free(&coarse);
	return err;
}

/* ---- audit ---- */

struct sampler {
	struct audit *a;
	struct sm_spill *out;
	uint64_t seed, spare;		/* spare: the piece that is taken if none else is; UINT64_MAX: none yet */
	uint64_t spare_length, seen;
};

static uint64_t chance(struct sampler *s)
{
	s->seed ^= s->seed << 13;
	s->seed ^= s->seed >> 7;
	s->seed ^= s->seed << 17;
	return s->seed;
}

static int take_sample(struct sampler *s, uint64_t offset, uint64_t length, struct sm_err *e)
{
	struct range *r;

	s->a->units++;
	s->a->bytes += length;
	r = sm_spill_add(s->out);	/* not joined with its neighbour: each is asked for as one unit */
	if (!r)
		return sm_fail(e, -errno, "no room for the sample: %s", strerror(errno));
	*r = (struct range){ offset, length, false };
	return 0;
}

/* What lies between two changes, in pieces that end where the volume's 64 KiB units end. */
static int sample_gap(struct sampler *s, uint64_t at, uint64_t end, struct sm_err *e)
{
	int err = 0;

	for (uint64_t len; !err && at < end; at += len) {
		len = (at / SAMPLE + 1) * SAMPLE - at;
		len = len < end - at ? len : end - at;
		if (chance(s) % ++s->seen == 0) {
			s->spare = at;
			s->spare_length = len;
		}
		if (chance(s) % AUDIT_ALL < s->a->share)
			err = take_sample(s, at, len, e);
	}
	return err;
}

static int choose_sample(struct compare *c, const struct sm_spill *ranges, struct audit *a, struct sm_spill *out, struct sm_err *e)
{
	struct sampler s = { .a = a, .out = out, .spare = UINT64_MAX };
	uint64_t at = 0, end = common_end(c);
	int err = sm_random(&s.seed, sizeof(s.seed)) ? sm_fail(e, -EIO, "no random numbers") : 0;

	s.seed |= 1;
	for (size_t i = 0; !err && i < ranges->nr; i++) {
		const struct range *r = sm_spill_at(ranges, i);

		err = sample_gap(&s, at, r->offset < end ? r->offset : end, e);
		at = r->offset + r->length;
	}
	if (!err)
		err = sample_gap(&s, at, end, e);
	if (!err && !a->units && s.spare != UINT64_MAX)
		err = take_sample(&s, s.spare, s.spare_length, e);
	return err;
}

int audit_run(struct compare *c, const struct sm_spill *ranges, struct audit *a, struct sm_err *e)
{
	struct sm_spill sample, units, blocks;
	int err;

	sm_spill_init(&sample, sizeof(struct range), NULL);
	sm_spill_init(&units, sizeof(struct range), NULL);
	sm_spill_init(&blocks, sizeof(struct range), NULL);
	err = choose_sample(c, ranges, a, &sample, e);
	if (!err)
		err = compare_ranges(c, SAMPLE, &sample, &units, e);
	if (!err)
		err = compare_ranges(c, SM_BLOCK, &units, &blocks, e);
	for (size_t i = 0; !err && i < blocks.nr; i++) {
		const struct range *r = sm_spill_at(&blocks, i);

		if (!a->differ)
			a->first = r->offset;
		a->differ += (r->length + SM_BLOCK - 1) / SM_BLOCK;
	}
	sm_spill_free(&sample);
	sm_spill_free(&units);
	sm_spill_free(&blocks);
	return err;
}
