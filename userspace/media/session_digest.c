// SPDX-License-Identifier: GPL-2.0-or-later
#include "session_digest.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct sm_digester {
	uint8_t hash[SM_DIGEST];	/* of the manifest */
	uint64_t size;
	struct sm_image *img;
	struct sm_extent x[SM_MAX_RANGES];
	uint8_t buf[SM_DIGEST_UNIT_MAX];
	uint8_t out[SM_DIGEST_UNITS][SM_DIGEST];
};

void sm_digest_unit(const void *buf, size_t len, uint8_t digest[SM_DIGEST])
{
	if (sm_is_zero(buf, len))
		memset(digest, 0, SM_DIGEST);
	else
		sm_sha256(buf, len, digest);
}

void sm_digester_free(struct sm_digester *d)
{
	if (d && d->img)
		sm_image_close(d->img);
	free(d);
}

/* The generation must be the one of that manifest, and the client's. */
static int open_generation(struct sm_digester *d, struct sm_repo *r, const char *client, const json_t *o, struct sm_err *e)
{
	char vid[SM_VID_TEXT], volume[SM_UUID_TEXT];
	uint8_t hash[SM_DIGEST], uuid[SM_UUID];
	struct sm_generation g;
	uint64_t number;
	int err;

	if ((err = sm_json_digest(o, "manifest", hash, e)) || (err = sm_json_uuid(o, "volume", uuid, e)) ||
	    (err = sm_json_u64(o, "generation", UINT32_MAX, &number, e)))
		return err;
	if (d->img && !memcmp(hash, d->hash, SM_DIGEST))
		return 0;
	if (d->img)
		sm_image_close(d->img);
	d->img = NULL;
	sm_uuid_format(uuid, volume);
	if ((err = sm_repo_find(r, client, volume, vid, e)) || (err = sm_repo_generation(r, vid, number, &g, e)))
		return err;
	if (memcmp(hash, g.hash, SM_DIGEST))
		err = sm_fail(e, -ENOENT, "generation %u is another one than that of the manifest asked about", (unsigned int)number);
	else
		err = sm_image_open(r, &g, &d->img, e);
	memcpy(d->hash, hash, SM_DIGEST);
	d->size = g.manifest.info.size;
	sm_generation_done(&g);
	return err;
}

static int check_request(const struct sm_extent *x, uint32_t nr, uint64_t unit, struct sm_err *e)
{
	uint64_t bytes = 0, units = 0;

	if (unit < SM_BLOCK || unit > SM_DIGEST_UNIT_MAX || unit % SM_BLOCK)
		return sm_fail(e, -EPROTO, "digests of units of %llu bytes", (unsigned long long)unit);
	for (uint32_t i = 0; i < nr; i++) {
		bytes += x[i].length;	/* no overflow: they are disjoint and inside the volume */
		units += (x[i].length + unit - 1) / unit;
	}
	if (bytes > SM_DIGEST_BYTES || units > SM_DIGEST_UNITS)
		return sm_fail(e, -EPROTO, "digests of %llu bytes in %llu units at once", (unsigned long long)bytes,
			       (unsigned long long)units);
	return 0;
}

int sm_digester_answer(struct sm_digester **dp, struct sm_repo *r, const char *client, const struct sm_frame *f, struct sm_chan *c,
		       struct sm_err *e)
{
	json_t *o = sm_json_parse((const char *)f->payload, f->length, SM_MAX_CONTROL, e);
	struct sm_digester *d = *dp ? *dp : (*dp = calloc(1, sizeof(*d)));
	uint64_t unit = 0;
	uint32_t n = 0;
	int err, nr = 0;

	if (!o)
		return -EPROTO;
	err = d ? open_generation(d, r, client, o, e) : sm_fail(e, -ENOMEM, "no memory");
	if (!err)
		err = sm_json_u64(o, "unit", UINT32_MAX, &unit, e);
	if (!err && (nr = sm_ranges_parse(o, d->size, d->x, e)) < 0)
		err = nr;
	if (!err)
		err = check_request(d->x, nr, unit, e);
	json_decref(o);
	for (int i = 0; !err && i < nr; i++)
		for (uint64_t at = 0, len; !err && at < d->x[i].length; at += len) {
			len = d->x[i].length - at < unit ? d->x[i].length - at : unit;
			err = sm_image_read(d->img, d->buf, len, d->x[i].offset + at, e);
			if (!err)
				sm_digest_unit(d->buf, len, d->out[n++]);
		}
	return err ? err : sm_chan_send_buf(c, SM_DIGESTED, d->out, (size_t)n * SM_DIGEST, e);
}
