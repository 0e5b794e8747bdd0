// SPDX-License-Identifier: GPL-2.0-or-later
#include "plan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void plan_init(struct plan *p)
{
	memset(p, 0, sizeof(*p));
	sm_spill_init(&p->ranges, sizeof(struct range), NULL);
	sm_spill_init(&p->have, sizeof(struct sm_extent), NULL);
	sm_spill_init(&p->have_leaves, sizeof(struct have_leaf), NULL);
	sm_spill_init(&p->have_data_x, sizeof(struct sm_extent), NULL);
	sm_spill_init(&p->have_zeros, sizeof(struct sm_extent), NULL);
}

void plan_free(struct plan *p)
{
	sm_spill_free(&p->ranges);
	sm_spill_free(&p->have);
	sm_spill_free(&p->have_leaves);
	sm_spill_free(&p->have_data_x);
	sm_spill_free(&p->have_zeros);
}

/*
 * What reaches past the size is cut off; what has grown since the base is added:
 *
 *	changes    [--]   [----------]      [--]
 *	                       |base       |size
 *	result     [--]   [----============]
 */
static int fit(struct plan *p, struct sm_spill *raw, uint64_t base_size, uint64_t size, struct sm_err *e)
{
	uint64_t grown = base_size < size ? base_size / SM_BLOCK * SM_BLOCK : size, end = 0;

	for (size_t i = 0; i < raw->nr; i++) {
		struct range r = *(struct range *)sm_spill_at(raw, i);
		int err;

		if (r.offset < end || r.offset % SM_BLOCK)
			return sm_fail(e, -EIO, "the list of changes is not in order at offset %llu", (unsigned long long)r.offset);
		end = r.offset + r.length;
		if (r.offset >= grown)
			break;
		if (end > grown)
			r.length = grown - r.offset;
		if (r.length % SM_BLOCK && r.offset + r.length != size)
			return sm_fail(e, -EIO, "the list of changes is not of whole blocks at offset %llu", (unsigned long long)r.offset);
		err = add_range(&p->ranges, r.offset, r.length, r.zero, e);
		if (err)
			return err;
	}
	return grown < size ? add_range(&p->ranges, grown, size - grown, false, e) : 0;
}

static int check_whole(const struct plan *p, uint64_t size, struct sm_err *e)
{
	uint64_t end = 0;

	for (size_t i = 0; i < p->ranges.nr; i++) {
		const struct range *r = sm_spill_at(&p->ranges, i);

		if (r->offset != end)
			break;
		end += r->length;
	}
	return end == size ? 0 : sm_fail(e, -EIO, "the map ends at %llu of %llu bytes", (unsigned long long)end, (unsigned long long)size);
}

static void digest(struct plan *p)
{
	struct sm_range_hash h;

	sm_range_hash_init(&h);
	for (size_t i = 0; i < p->ranges.nr; i++) {
		const struct range *r = sm_spill_at(&p->ranges, i);

		sm_range_hash_add(&h, r->offset, r->length);
	}
	sm_range_hash_final(&h, p->digest);
	p->extents = h.nr;
	p->bytes = h.bytes;
}

int plan_take(struct plan *p, struct source *s, struct sm_spill *raw, uint64_t base_size, struct sm_err *e)
{
	int err;

	sm_spill_free(&p->ranges);
	err = fit(p, raw, base_size, s->size, e);
	if (!err)
		digest(p);
	return err;
}

int plan_make(struct plan *p, struct source *s, uint32_t base, uint64_t base_size, struct sm_err *e)
{
	struct sm_spill raw;
	int err;

	sm_spill_init(&raw, sizeof(struct range), NULL);
	err = base ? s->ops->changes(s, base, &raw, e) : s->ops->map(s, &raw, e);
	if (!err)
		err = plan_take(p, s, &raw, base ? base_size : s->size, e);
	sm_spill_free(&raw);
	return err || base ? err : check_whole(p, s->size, e);
}

/* ---- what the server has ---- */

static int add_extent(struct sm_spill *to, uint64_t offset, uint64_t length, struct sm_err *e)
{
	struct sm_extent *x = sm_spill_add(to);

	if (!x)
		return sm_fail(e, -errno, "no room for what the server has: %s", strerror(errno));
	*x = (struct sm_extent){ offset, length };
	return 0;
}

static int have_data(const void *head, size_t len, void *arg, struct sm_err *e)
{
	struct plan *p = arg;
	struct have_leaf *leaf = sm_spill_add(&p->have_leaves);
	struct sm_data d;
	int err;

	if (!leaf)
		return sm_fail(e, -errno, "no room for what the server has: %s", strerror(errno));
	/* It was checked against the volume's size when it came in; here only its parts are wanted. */
	err = sm_data_parse(head, len, sm_data_end(head, len), true, &d, e);
	leaf->at = p->have_data_x.nr;
	for (uint32_t i = 0; !err && i < d.nr; i++) {
		struct sm_extent x = sm_extent_at(d.extents, i);

		err = add_extent(&p->have, x.offset, x.length, e);
		if (!err)
			err = add_extent(&p->have_data_x, x.offset, x.length, e);
	}
	if (err)
		return err;
	leaf->first = le64toh(d.extents[0].offset);
	leaf->nr = d.nr;
	leaf->sealed = d.codec == SM_CODEC_SEALED;
	memcpy(leaf->bytes, d.digest, SM_DIGEST);
	sm_data_leaf(&d, leaf->digest);
	p->have_bytes += d.raw_length;
	p->have_data += d.raw_length;
	return 0;
}

static int have_zero(uint64_t offset, uint64_t length, void *arg, struct sm_err *e)
{
	struct plan *p = arg;
	int err = add_extent(&p->have, offset, length, e);

	p->have_bytes += length;
	p->have_zero += length;
	return err ? err : add_extent(&p->have_zeros, offset, length, e);
}

const struct sm_have_ops plan_have_ops = { have_data, have_zero };

static int by_offset(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;	/* first member of all three kinds */

	return x < y ? -1 : x > y;
}

void plan_resume(struct plan *p)
{
	struct sm_spill *all[] = { &p->have, &p->have_leaves, &p->have_zeros };

	for (size_t i = 0; i < 3; i++)
		if (all[i]->nr)
			qsort(all[i]->map, all[i]->nr, all[i]->elem, by_offset);
}

#define CHECK	SM_MAX_RAW

/* @len, of whole blocks or up to the end, into @buf, which has room for whole blocks */
static int read_source(struct source *s, uint8_t *buf, uint64_t at, size_t len, struct sm_err *e)
{
	ssize_t got = s->ops->read(s, buf, (len + SM_BLOCK - 1) / SM_BLOCK * SM_BLOCK, at);

	if (got < (ssize_t)len)
		return sm_fail(e, got < 0 ? got : -EIO, "%s: cannot read %zu bytes at offset %llu", s->name, len, (unsigned long long)at);
	if (s->tick)
		s->tick(s->tick_arg);
	return 0;
}

static int check_zeros(struct source *s, uint8_t *buf, uint64_t at, uint64_t end, struct sm_err *e)
{
	while (at < end) {
		size_t len = end - at < CHECK ? end - at : CHECK;
		int err = read_source(s, buf, at, len, e);

		if (err)
			return err;
		if (!sm_is_zero(buf, len))
			return sm_fail(e, -EPROTO, "the media server says that it was sent zeros for what is none, at offset %llu", (unsigned long long)at);
		at += len;
	}
	return 0;
}

/* All that it has, sorted, against the plan: inside of it, and nothing twice. */
static int check_places(const struct plan *p, struct sm_err *e)
{
	uint64_t end = 0;
	size_t at = 0;

	for (size_t i = 0; i < p->have.nr; i++) {
		const struct sm_extent *x = sm_spill_at(&p->have, i);
		uint64_t pos = x->offset, stop = pos + x->length;
		bool sent = pos >= end;

		while (sent && pos < stop) {
			const struct range *r = at < p->ranges.nr ? sm_spill_at(&p->ranges, at) : NULL;

			if (r && r->offset + r->length <= pos) {
				at++;
				continue;
			}
			sent = r && r->offset <= pos;
			pos = r && r->offset + r->length < stop ? r->offset + r->length : stop;
		}
		if (!sent)
			return sm_fail(e, -EPROTO, "the media server says that it has what was not sent, or has it twice, at offset %llu",
				       (unsigned long long)x->offset);
		end = stop;
	}
	return 0;
}

/* A frame's bytes are those that would be sent now. */
static int check_frame(const struct plan *p, struct source *s, const struct have_leaf *l, uint8_t *buf, struct sm_err *e)
{
	uint8_t digest[SM_DIGEST];
	struct sm_sha sha;
	int err = 0;

	sm_sha_init(&sha);
	for (uint32_t i = 0; !err && i < l->nr; i++) {
		const struct sm_extent *x = sm_spill_at(&p->have_data_x, l->at + i);

		err = read_source(s, buf, x->offset, x->length, e);
		if (!err)
			sm_sha_update(&sha, buf, x->length);
	}
	sm_sha_final(&sha, digest);
	if (!err && memcmp(digest, l->bytes, SM_DIGEST))
		err = sm_fail(e, -EPROTO, "the media server has other data than the source at offset %llu", (unsigned long long)l->first);
	return err;
}

static int check_frames(const struct plan *p, struct source *s, bool sealed, uint8_t *buf, struct sm_err *e)
{
	int err = 0;

	for (size_t i = 0; !err && i < p->have_leaves.nr; i++) {
		const struct have_leaf *l = sm_spill_at(&p->have_leaves, i);

		if (l->sealed != sealed)
			err = sm_fail(e, -EPROTO, "the media server has data that is%s encrypted", sealed ? " not" : "");
		else if (!sealed)
			err = check_frame(p, s, l, buf, e);
	}
	return err;
}

/* What is known to be zeros without reading is not read. */
static int check_all_zeros(const struct plan *p, struct source *s, uint8_t *buf, struct sm_err *e)
{
	size_t at = 0;
	int err = 0;

	for (size_t i = 0; !err && i < p->have_zeros.nr; i++) {
		const struct sm_extent *x = sm_spill_at(&p->have_zeros, i);
		uint64_t pos = x->offset, end = x->offset + x->length;

		while (!err && pos < end) {
			const struct range *r = at < p->ranges.nr ? sm_spill_at(&p->ranges, at) : NULL;
			uint64_t known = r && r->zero && r->offset <= pos ? r->offset + r->length : pos, stop = end;

			if (r && r->offset + r->length <= pos) {
				at++;
				continue;
			}
			if (known > pos) {
				pos = known;
				continue;
			}
			if (r && r->offset > pos && r->offset < stop)
				stop = r->offset;
			else if (r && r->offset <= pos && r->offset + r->length < stop)
				stop = r->offset + r->length;
			err = check_zeros(s, buf, pos, stop, e);
			pos = stop;
		}
	}
	return err;
}

int plan_check_have(const struct plan *p, struct source *s, bool sealed, struct sm_err *e)
{
	uint8_t *buf = p->have.nr ? aligned_alloc(SM_BLOCK, CHECK) : NULL;
	int err;

	if (!p->have.nr)
		return 0;
	if (!buf)
		return sm_fail(e, -ENOMEM, "no memory");
	if (!(err = check_places(p, e)) && !(err = check_all_zeros(p, s, buf, e)))
		err = check_frames(p, s, sealed, buf, e);
	free(buf);
	return err;
}

/* Move over what the server has; the begin of the next extent that it has, at or after pos. */
static uint64_t skip_have(struct plan *p)
{
	while (p->at_have < p->have.nr) {
		const struct sm_extent *h = sm_spill_at(&p->have, p->at_have);

		if (h->offset > p->pos)
			return h->offset;
		if (h->offset + h->length > p->pos)
			p->pos = h->offset + h->length;
		p->at_have++;
	}
	return UINT64_MAX;
}

bool plan_next(struct plan *p, uint64_t most, struct range *out)
{
	for (; p->at < p->ranges.nr; p->at++) {
		const struct range *r = sm_spill_at(&p->ranges, p->at);
		uint64_t end = r->offset + r->length, stop;

		if (p->pos < r->offset)
			p->pos = r->offset;
		stop = skip_have(p);
		if (p->pos >= end)
			continue;
		if (stop > end)
			stop = end;
		out->offset = p->pos;
		out->length = stop - p->pos;
		out->zero = r->zero;
		if (!out->zero && out->length > most)
			out->length = most;
		p->pos += out->length;
		return true;
	}
	return false;
}
