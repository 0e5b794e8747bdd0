// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The parsers of what a peer, or a repository that has rotted, can hand to the media server: frames, data and zero extents, manifests and what OPEN says, map
 * segments, packs, proofs, encrypted frames; and what a media server can hand to who restores. The first byte chooses; checksums and digests are made
 * right by what the second one allows.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "extent.h"
#include "frame.h"
#include "manifest.h"
#include "pack.h"
#include "proof.h"
#include "segment.h"
#include "session.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void frames(uint8_t *b, size_t size, bool fix)
{
	int fd = memfd_create("frames", 0);
	struct sm_frame f;
	struct sm_chan c;
	uint64_t seq = 0;
	size_t off = 0;

	while (fix && off + sizeof(struct sm_wire_header) <= size) {
		struct sm_wire_header *h = (void *)(b + off);
		uint32_t len = le32toh(h->length);

		h->magic = htole32(SM_MAGIC);
		h->sequence = htole64(seq++);
		off += sizeof(*h);
		if (len > size - off)
			h->length = htole32(len = size - off);
		h->payload_crc = htole32(sm_crc32c(0, b + off, len));
		h->header_crc = htole32(sm_crc32c(0, h, offsetof(struct sm_wire_header, header_crc)));
		off += len;
	}
	if (write(fd, b, size) != (ssize_t)size || lseek(fd, 0, SEEK_SET))
		abort();
	sm_chan_init(&c, fd, -1);
	while (sm_chan_recv(&c, &f, NULL) == 1)
		if (f.length > SM_MAX_PAYLOAD)
			abort();
	sm_chan_free(&c);
	close(fd);
}

/* The answer to RESTORE: frames of a byte of type, two of length, and the payload. What is handed out lies in the volume and in its raw bytes. */
static void restore(const uint8_t *b, size_t size)
{
	static const uint16_t types[] = { SM_PART, SM_DATA, SM_ZERO, SM_END };
	int fd = memfd_create("restore", 0);
	struct sm_incoming_frame f;
	struct sm_incoming in;
	struct sm_chan c;

	sm_chan_init(&c, -1, fd);
	while (size > 3) {
		size_t len = b[1] | b[2] << 8;

		len = len < size - 3 ? len : size - 3;
		if (sm_chan_send_buf(&c, types[b[0] % 4], b + 3, len, NULL))
			abort();
		b += 3 + len;
		size -= 3 + len;
	}
	sm_chan_free(&c);
	lseek(fd, 0, SEEK_SET);
	sm_chan_init(&c, fd, -1);
	if (sm_incoming_restore(&in, &c, 1u << 20, NULL, 0, NULL))
		abort();
	while (sm_incoming_recv(&in, &f, NULL) > 0) {
		struct sm_place at = { 0 };

		f.raw = in.raw;
		for (uint32_t i = 0; i < f.nr; i++) {
			struct sm_extent x = sm_extent_at(f.extents, i);
			const uint8_t *raw = f.zero ? f.raw : sm_incoming_piece(&f, i, &at, &x);

			if (x.offset + x.length > 1u << 20 || raw < in.raw || (!f.zero && raw + x.length > in.raw + f.d.raw_length))
				abort();
		}
	}
	sm_incoming_done(&in);
	sm_chan_free(&c);
	close(fd);
}

static void data_extents(const uint8_t *b, size_t size)
{
	uint64_t volume = 1ull << 30;
	struct sm_data d;

	if (sm_data_parse(b, size, volume, false, &d, NULL) == 0) {
		uint8_t *raw = malloc(SM_MAX_PAYLOAD), leaf[SM_DIGEST];

		if (!sm_data_unpack(&d, raw, NULL))
			sm_data_leaf(&d, leaf);
		free(raw);
	}
}

static void zero_extents(const uint8_t *b, size_t size)
{
	const struct sm_wire_extent *x;
	uint32_t nr;

	sm_zero_parse(b, size, 1ull << 30, &x, &nr, NULL);
}

static void manifests(const uint8_t *b, size_t size)
{
	struct sm_manifest m;
	struct sm_gen_info g;
	json_t *o;
	char *text;

	if (!sm_manifest_parse((const char *)b, size, &m, NULL)) {
		text = sm_manifest_text(&m);
		if (!text || sm_manifest_parse(text, strlen(text), &m, NULL))
			abort();	/* what was accepted is accepted again */
		free(text);
	}
	o = sm_json_parse((const char *)b, size, SM_MANIFEST_MAX, NULL);
	if (o)
		sm_gen_info_parse(o, &g, NULL);
	json_decref(o);
}

/* ---- a store with one object ---- */

struct sm_object {
	const uint8_t *b;
	size_t size;
};

static struct sm_object object;

static int obj_open(struct sm_store *s, const char *key, struct sm_object **o, struct sm_err *e)
{
	*o = &object;
	return 0;
}

static ssize_t obj_pread(struct sm_object *o, void *buf, size_t len, uint64_t off)
{
	if (off >= o->size)
		return 0;
	if (len > o->size - off)
		len = o->size - off;
	memcpy(buf, o->b + off, len);
	return len;
}

static uint64_t obj_size(struct sm_object *o)
{
	return o->size;
}

static void obj_close(struct sm_object *o)
{
}

static const struct sm_store_ops one_object = { .open = obj_open, .pread = obj_pread, .size = obj_size, .close = obj_close };

static void segments(uint8_t *b, size_t size, bool fix)
{
	struct sm_segment_header *h = (void *)b;
	struct sm_store store = { &one_object };
	uint8_t id[SM_DIGEST];
	struct sm_segment g;
	struct sm_entry x;
	uint64_t i;
	size_t at;

	if (fix && size > sizeof(*h)) {
		uint32_t n = le32toh(h->nr_packs) % 8;

		h->nr_packs = htole32(n);
		memcpy(h->magic, "SDMAP\1\0", 8);
		at = sizeof(*h) + n * SM_DIGEST;
		at = (at + SM_PAGE - 1) / SM_PAGE * SM_PAGE;
		if (sizeof(*h) + n * SM_DIGEST <= size)
			h->crc = htole32(sm_crc32c(sm_crc32c(0, h, 32), b + sizeof(*h), n * SM_DIGEST));
		for (i = 0; at + SM_PAGE <= size; at += SM_PAGE, i++) {
			struct sm_segment_page *p = (void *)(b + at);

			p->number = htole64(i);
			p->crc = htole32(sm_crc32c(0, &p->nr, SM_PAGE - sizeof(p->crc)));
		}
	}
	object = (struct sm_object){ b, size };
	sm_sha256(b, size, id);
	if (sm_segment_open(&store, "k", id, true, &g, NULL))
		return;
	for (i = 0; i < g.nr_entries && i < 2000; i++)
		if (sm_segment_entry(&g, i, &x, NULL))
			break;
	sm_segment_close(&g);
}

/* id: SHA-256 of header and index */
static void fix_pack(uint8_t *b, size_t size, uint8_t *id)
{
	struct sm_pack_tail *t = (void *)(b + size - sizeof(*t));
	uint32_t nr = le32toh(t->nr_records) % 16;
	size_t index = nr * sizeof(struct sm_pack_index);
	struct sm_sha s;

	if (size < sizeof(struct sm_pack_header) + index + sizeof(*t))
		return;
	memcpy(b, "SDPACK\1\0", 8);
	memcpy(t->magic, "SDPKTAIL", 8);
	t->nr_records = htole32(nr);
	t->index_offset = htole64(size - sizeof(*t) - index);
	sm_sha_init(&s);
	sm_sha_update(&s, b, sizeof(struct sm_pack_header));
	sm_sha_update(&s, b + size - sizeof(*t) - index, index);
	sm_sha_final(&s, id);
	memcpy(t->id, id, SM_DIGEST);
}

static void packs(uint8_t *b, size_t size, bool fix)
{
	struct sm_store store = { &one_object };
	uint8_t id[SM_DIGEST] = { 0 };
	struct sm_pack p;
	uint8_t *buf;
	uint32_t i;

	object = (struct sm_object){ b, size };
	if (fix && size > sizeof(struct sm_pack_tail))
		fix_pack(b, size, id);
	if (sm_pack_open(&store, "k", id, &p, NULL))
		return;
	buf = malloc(SM_MAX_PAYLOAD);
	for (i = 0; i < p.nr && i < 64; i++)
		sm_pack_read(&p, i, buf, NULL);
	free(buf);
	sm_pack_done(&p);
}

/* A full backup whose digests fit nothing: what is looked for are the items. */
static void proofs(const uint8_t *b, size_t size)
{
	struct sm_manifest m = { .frames = 1, .tool = "fuzz" };
	uint8_t hash[SM_DIGEST];
	struct sm_proof *p;
	char *text;

	m.info.number = 1;
	m.info.size = m.info.bytes = (64u << 20) + 5;
	m.info.extents = 1;
	text = sm_manifest_text(&m);
	sm_sha256(text, strlen(text), hash);
	p = sm_proof_new(hash, NULL, false);
	if (!p || sm_proof_manifest(p, text, strlen(text), NULL))
		abort();
	for (size_t at = 0, n; at < size; at += n) {
		n = size - at < 4096 ? size - at : 4096;
		if (sm_proof_chunk(p, b + at, n, NULL))
			break;
	}
	sm_proof_end(p, NULL);
	sm_proof_free(p);
	free(text);
}

/* Sealed, with whatever key and volume: it must not open. */
static void sealed(uint8_t *b, size_t size)
{
	static const struct sm_secret key = { .key = "a key", .id = "its id" };
	const struct sm_opener o = { .k = &key };
	struct sm_data d;

	if (sm_data_parse(b, size, 1ull << 30, false, &d, NULL) == 0 && d.codec == SM_CODEC_SEALED) {
		uint8_t *raw = malloc(SM_MAX_RAW);

		memcpy(b + d.head_length + offsetof(struct sm_wire_seal, id), key.id, SM_SECRET_ID);
		sm_sha256(d.stored, d.stored_length, ((struct sm_wire_data *)b)->digest);
		if (!sm_data_open(&d, &o, raw, NULL))
			abort();
		free(raw);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *b;

	if (size < 2)
		return 0;
	b = malloc(size - 2 ? size - 2 : 1);	/* exactly as long, so that reading behind it is seen */
	memcpy(b, data + 2, size - 2);
	switch (data[0] % 9) {
	case 0: frames(b, size - 2, data[1] & 1); break;
	case 1: data_extents(b, size - 2); break;
	case 2: zero_extents(b, size - 2); break;
	case 3: manifests(b, size - 2); break;
	case 4: segments(b, size - 2, data[1] & 1); break;
	case 5: packs(b, size - 2, data[1] & 1); break;
	case 6: restore(b, size - 2); break;
	case 7: proofs(b, size - 2); break;
	case 8: sealed(b, size - 2); break;
	}
	free(b);
	return 0;
}
