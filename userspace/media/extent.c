// SPDX-License-Identifier: GPL-2.0-or-later
#include "seal.h"

#include <errno.h>
#include <string.h>
#include <zstd.h>

/* Rules for a list of extents: ascending, disjoint, aligned, inside the volume. @total: their sum. */
static int check_extents(const struct sm_wire_extent *x, uint32_t nr, uint64_t size, uint64_t *total,
			 struct sm_err *e)
{
	uint64_t end = 0;

	*total = 0;
	for (uint32_t i = 0; i < nr; i++) {
		struct sm_extent v = sm_extent_at(x, i);

		if (!v.length || v.offset > size || v.length > size - v.offset)
			return sm_fail(e, -EPROTO, "extent %llu+%llu is not inside the volume",
				       (unsigned long long)v.offset, (unsigned long long)v.length);
		if (v.offset % SM_BLOCK || (v.length % SM_BLOCK && v.offset + v.length != size))
			return sm_fail(e, -EPROTO, "extent %llu+%llu is not of whole blocks",
				       (unsigned long long)v.offset, (unsigned long long)v.length);
		if (v.offset < end)
			return sm_fail(e, -EPROTO, "extent %llu+%llu overlaps or goes back",
				       (unsigned long long)v.offset, (unsigned long long)v.length);
		end = v.offset + v.length;
		*total += v.length;
	}
	return 0;
}

uint64_t sm_data_end(const void *payload, size_t len)
{
	const struct sm_wire_data *h = payload;
	uint32_t nr = len < sizeof(*h) ? 0 : le32toh(h->nr_extents);
	struct sm_extent last;

	if (!nr || sizeof(*h) + (uint64_t)nr * sizeof(struct sm_wire_extent) > len)
		return 0;
	last = sm_extent_at((const struct sm_wire_extent *)(h + 1), nr - 1);
	return last.offset > SM_SIZE_MAX || last.length > SM_SIZE_MAX ? 0 : last.offset + last.length;
}

int sm_data_parse(const void *payload, size_t len, uint64_t volume_size, bool head_only, struct sm_data *d,
		  struct sm_err *e)
{
	const struct sm_wire_data *h = payload;
	uint64_t total;
	int err;

	if (len < sizeof(*h))
		return sm_fail(e, -EPROTO, "data frame of %zu bytes", len);
	d->nr = le32toh(h->nr_extents);
	d->raw_length = le32toh(h->raw_length);
	d->stored_length = le32toh(h->stored_length);
	d->codec = h->codec;
	d->digest = h->digest;
	if (!d->nr || d->nr > SM_MAX_EXTENTS || !d->raw_length || d->raw_length > SM_MAX_RAW)
		return sm_fail(e, -EPROTO, "data frame of %u extents and %u bytes", d->nr, d->raw_length);
	if (d->codec > SM_CODEC_SEALED || (d->codec == SM_CODEC_NONE && d->stored_length != d->raw_length) ||
	    (d->codec == SM_CODEC_SEALED && (d->stored_length <= SM_SEAL_ROOM || d->stored_length > d->raw_length + SM_SEAL_ROOM)))
		return sm_fail(e, -EPROTO, "data frame with codec %u, %u stored for %u bytes", d->codec,
			       d->stored_length, d->raw_length);
	d->head_length = sizeof(*h) + d->nr * sizeof(struct sm_wire_extent);
	if (head_only ? len < d->head_length : len - d->head_length != d->stored_length || len < d->head_length)
		return sm_fail(e, -EPROTO, "data frame of %zu bytes with %u extents and %u stored bytes", len, d->nr,
			       d->stored_length);
	d->extents = (const struct sm_wire_extent *)(h + 1);
	d->stored = head_only ? NULL : (const uint8_t *)payload + d->head_length;
	err = check_extents(d->extents, d->nr, volume_size, &total, e);
	if (err)
		return err;
	if (total != d->raw_length)
		return sm_fail(e, -EPROTO, "data frame of %u bytes for extents of %llu", d->raw_length,
			       (unsigned long long)total);
	return 0;
}

int sm_zero_parse(const void *payload, size_t len, uint64_t volume_size, const struct sm_wire_extent **x,
		  uint32_t *nr, struct sm_err *e)
{
	const struct sm_wire_zero *h = payload;
	uint64_t total;

	if (len < sizeof(*h))
		return sm_fail(e, -EPROTO, "zero frame of %zu bytes", len);
	*nr = le32toh(h->nr_extents);
	if (!*nr || *nr > SM_MAX_EXTENTS || len != sizeof(*h) + *nr * sizeof(**x))
		return sm_fail(e, -EPROTO, "zero frame of %zu bytes with %u extents", len, *nr);
	*x = (const struct sm_wire_extent *)(h + 1);
	return check_extents(*x, *nr, volume_size, &total, e);
}

int sm_data_inflate(const struct sm_data *d, uint8_t *raw, struct sm_err *e)
{
	static __thread ZSTD_DCtx *ctx;
	size_t n = d->stored_length;

	if (d->codec == SM_CODEC_ZSTD && !ctx && !(ctx = ZSTD_createDCtx()))
		return sm_fail(e, -ENOMEM, "no memory to decompress");
	if (d->codec == SM_CODEC_ZSTD)
		n = ZSTD_decompressDCtx(ctx, raw, d->raw_length, d->stored, d->stored_length);
	if (d->codec > SM_CODEC_ZSTD || ZSTD_isError(n) || n != d->raw_length)
		return sm_fail(e, -EPROTO, "data frame does not decompress to its %u bytes", d->raw_length);
	if (d->codec == SM_CODEC_NONE)
		memcpy(raw, d->stored, d->raw_length);
	return 0;
}

static int check_digest(const struct sm_data *d, const uint8_t *bytes, uint32_t len, struct sm_err *e)
{
	uint8_t digest[SM_DIGEST];

	sm_sha256(bytes, len, digest);
	if (memcmp(digest, d->digest, SM_DIGEST))
		return sm_fail(e, -EPROTO, "data frame at offset %llu: digest wrong",
			       (unsigned long long)le64toh(d->extents[0].offset));
	return 0;
}

int sm_data_unpack(const struct sm_data *d, uint8_t *raw, struct sm_err *e)
{
	int err = sm_data_inflate(d, raw, e);

	return err ? err : check_digest(d, raw, d->raw_length, e);
}

int sm_data_check(const struct sm_data *d, uint8_t *raw, struct sm_err *e)
{
	return d->codec == SM_CODEC_SEALED ? check_digest(d, d->stored, d->stored_length, e) : sm_data_unpack(d, raw, e);
}

void sm_data_leaf(const struct sm_data *d, uint8_t leaf[SM_DIGEST])
{
	uint32_t head[2] = { htole32(d->nr), htole32(d->raw_length) };
	struct sm_sha s;

	sm_sha_init(&s);
	sm_sha_update(&s, head, sizeof(head));
	sm_sha_update(&s, d->digest, SM_DIGEST);
	sm_sha_update(&s, d->extents, d->nr * sizeof(*d->extents));
	sm_sha_final(&s, leaf);
}

void sm_data_part_leaf(const struct sm_data *d, const struct sm_wire_extent *part, uint32_t nr, uint8_t leaf[SM_DIGEST])
{
	struct sm_sha s;

	sm_data_leaf(d, leaf);
	sm_sha_init(&s);
	sm_sha_update(&s, leaf, SM_DIGEST);
	sm_sha_update(&s, part, nr * sizeof(*part));
	sm_sha_final(&s, leaf);
}

uint64_t sm_data_place(const struct sm_data *d, const struct sm_extent *part, struct sm_place *at)
{
	for (; at->i < d->nr; at->i++) {
		struct sm_extent x = sm_extent_at(d->extents, at->i);

		if (part->offset >= x.offset && part->offset - x.offset < x.length) {
			uint64_t skip = part->offset - x.offset;

			return part->length <= x.length - skip ? at->raw + skip : UINT64_MAX;
		}
		at->raw += x.length;
	}
	return UINT64_MAX;
}

ssize_t sm_data_pack(const struct sm_extent *x, uint32_t nr, const uint8_t *raw, uint32_t raw_length, int level,
		     void *payload, struct sm_err *e)
{
	static __thread ZSTD_CCtx *ctx;
	struct sm_wire_data *h = payload;
	struct sm_wire_extent *w = (struct sm_wire_extent *)(h + 1);
	uint8_t *stored = (uint8_t *)(w + nr);
	size_t n = 0;

	if (level && !ctx && !(ctx = ZSTD_createCCtx()))
		return sm_fail(e, -ENOMEM, "no memory to compress");
	for (uint32_t i = 0; i < nr; i++)
		w[i] = (struct sm_wire_extent){ htole64(x[i].offset), htole64(x[i].length) };
	if (level)
		n = ZSTD_compressCCtx(ctx, stored, raw_length - raw_length / 16, raw, raw_length, level);
	memset(h, 0, sizeof(*h));
	h->codec = level && !ZSTD_isError(n) ? SM_CODEC_ZSTD : SM_CODEC_NONE;
	if (h->codec == SM_CODEC_NONE) {
		memcpy(stored, raw, raw_length);
		n = raw_length;
	}
	h->nr_extents = htole32(nr);
	h->raw_length = htole32(raw_length);
	h->stored_length = htole32(n);
	sm_sha256(raw, raw_length, h->digest);
	return stored + n - (uint8_t *)payload;
}

void sm_range_hash_init(struct sm_range_hash *h)
{
	memset(h, 0, sizeof(*h));
	sm_sha_init(&h->sha);
}

static void range_flush(struct sm_range_hash *h)
{
	struct sm_wire_extent w = { htole64(h->start), htole64(h->end - h->start) };

	if (h->end == h->start)
		return;
	sm_sha_update(&h->sha, &w, sizeof(w));
	h->nr++;
	h->bytes += h->end - h->start;
}

int sm_range_hash_add(struct sm_range_hash *h, uint64_t offset, uint64_t length)
{
	if (offset < h->end || !length)
		return -EINVAL;
	if (offset != h->end || !h->end) {
		range_flush(h);
		h->start = offset;
	}
	h->end = offset + length;
	return 0;
}

void sm_range_hash_final(struct sm_range_hash *h, uint8_t digest[SM_DIGEST])
{
	range_flush(h);
	sm_sha_final(&h->sha, digest);
}

void sm_map_hash_init(struct sm_map_hash *h)
{
	memset(h, 0, sizeof(*h));
	sm_sha_init(&h->data);
	sm_range_hash_init(&h->zero);
}

void sm_map_hash_leaf(struct sm_map_hash *h, const uint8_t leaf[SM_DIGEST])
{
	h->frames++;
	sm_sha_update(&h->data, leaf, SM_DIGEST);
}

int sm_map_hash_data(struct sm_map_hash *h, uint64_t first_offset, const uint8_t leaf[SM_DIGEST])
{
	if (h->any && first_offset <= h->last)
		return -EINVAL;
	h->any = true;
	h->last = first_offset;
	sm_map_hash_leaf(h, leaf);
	return 0;
}

int sm_map_hash_zero(struct sm_map_hash *h, uint64_t offset, uint64_t length)
{
	return sm_range_hash_add(&h->zero, offset, length);
}

void sm_map_hash_final(struct sm_map_hash *h, uint8_t digest[SM_DIGEST])
{
	static const char domain[] = "snapdiff-map-1";
	uint8_t part[2 * SM_DIGEST];
	struct sm_sha s;

	sm_sha_final(&h->data, part);
	sm_range_hash_final(&h->zero, part + SM_DIGEST);
	sm_sha_init(&s);
	sm_sha_update(&s, domain, sizeof(domain));
	sm_sha_update(&s, part, sizeof(part));
	sm_sha_final(&s, digest);
}

void sm_map_hash_drop(struct sm_map_hash *h)
{
	sm_sha_drop(&h->data);
	sm_sha_drop(&h->zero.sha);
}
