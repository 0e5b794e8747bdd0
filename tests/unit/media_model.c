// SPDX-License-Identifier: GPL-2.0-or-later
#include "media_model.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

char dir[64];
struct sm_repo repo;
const uint8_t volume[SM_UUID] = "volume-uuid-001";

/* ---- repository to play with ---- */

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *f)
{
	return remove(path);
}

int setup(void **state)
{
	/* Hundreds of fsync(): in memory where there is such a place. */
	snprintf(dir, sizeof(dir), "%s/test_media_repo.XXXXXX", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
	assert_non_null(mkdtemp(dir));
	assert_int_equal(sm_repo_init(dir, NULL), 0);
	assert_int_equal(sm_repo_open(dir, &repo, NULL), 0);
	return 0;
}

int teardown(void **state)
{
	sm_fault_hook = NULL;
	sm_repo_close(&repo);
	return nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* ---- a backup from memory ---- */

static uint64_t min64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static void add_frame(struct backup *b, uint16_t type, const void *payload, size_t len)
{
	struct frame *f = &b->frame[b->nr++];

	assert_true(b->nr < 512);
	f->type = type;
	f->len = len;
	f->payload = malloc(len);
	memcpy(f->payload, payload, len);
}

static bool differs(const struct image *now, const struct image *base, uint64_t at)
{
	uint64_t len = min64(SM_BLOCK, now->size - at);

	if (!base || at + SM_BLOCK > base->size)
		return !base || at + len > base->size || memcmp(now->data + at, base->data + at, len);
	return memcmp(now->data + at, base->data + at, len);
}

/* Frames of up to @per blocks; blocks of zeros become ZERO frames. */
void make_backup(struct backup *b, uint32_t number, const struct image *now, const struct image *base,
			const uint8_t *parent, uint32_t per)
{
	static uint8_t payload[SM_MAX_PAYLOAD], raw[SM_MAX_RAW];
	struct sm_extent x[256];
	uint32_t nr = 0, len = 0;
	struct sm_range_hash all;
	struct sm_map_hash map;

	memset(b, 0, sizeof(*b));
	sm_range_hash_init(&all);
	sm_map_hash_init(&map);
	for (uint64_t at = 0; at < now->size + SM_BLOCK; at += SM_BLOCK) {
		uint64_t n = at < now->size ? min64(SM_BLOCK, now->size - at) : 0;
		bool zero;

		if (nr && (nr == per || !n)) {
			ssize_t size = sm_data_pack(x, nr, raw, len, 1, payload, NULL);
			uint8_t leaf[SM_DIGEST];
			struct sm_data d;

			assert_int_equal(sm_data_parse(payload, size, now->size, false, &d, NULL), 0);
			sm_data_leaf(&d, leaf);
			assert_int_equal(sm_map_hash_data(&map, x[0].offset, leaf), 0);
			add_frame(b, SM_DATA, payload, size);
			b->manifest.data_bytes += len;
			nr = len = 0;
		}
		if (!n || !differs(now, base, at))
			continue;
		assert_int_equal(sm_range_hash_add(&all, at, n), 0);
		zero = sm_is_zero(now->data + at, n);
		if (zero) {
			struct {
				struct sm_wire_zero h;
				struct sm_wire_extent w;
			} __attribute__((packed)) z = { { htole32(1), 0 }, { htole64(at), htole64(n) } };

			sm_map_hash_zero(&map, at, n);
			add_frame(b, SM_ZERO, &z, sizeof(z));
			b->manifest.zero_bytes += n;
			continue;
		}
		memcpy(raw + len, now->data + at, n);
		x[nr++] = (struct sm_extent){ at, n };
		len += n;
	}
	memcpy(b->info.volume, volume, SM_UUID);
	memcpy(b->info.uuid, "generation", 10);
	memcpy(b->info.uuid + 12, &number, 4);
	b->info.number = number;
	b->info.size = now->size;
	b->info.has_parent = parent;
	if (parent)
		memcpy(b->info.parent, parent, SM_DIGEST);
	strcpy(b->info.volume_name, "disk");
	b->manifest.frames = map.frames;
	sm_range_hash_final(&all, b->info.change_digest);
	b->info.extents = all.nr;
	b->info.bytes = all.bytes;
	sm_map_hash_final(&map, b->manifest.map_hash);
	b->manifest.info = b->info;
	strcpy(b->manifest.tool, "test");
	b->text = sm_manifest_text(&b->manifest);
}

void free_backup(struct backup *b)
{
	for (uint32_t i = 0; i < b->nr; i++)
		free(b->frame[i].payload);
	free(b->text);
}

int send_frames(struct sm_upload *u, const struct backup *b, uint32_t from, uint32_t to)
{
	int err = 0;

	for (uint32_t i = from; !err && i < to; i++)
		err = sm_upload_append(u, b->frame[i].type, b->frame[i].payload, b->frame[i].len, NULL);
	return err;
}

/* All of it. @hash: of the manifest. */
int store(const struct backup *b, uint8_t hash[SM_DIGEST], struct sm_err *e)
{
	struct sm_receipt r;
	struct sm_upload *u;
	int err = sm_upload_open(&repo, CLIENT, &b->info, &u, &r, e);

	if (err)
		return err;
	err = send_frames(u, b, 0, b->nr);
	if (!err)
		err = sm_upload_commit(u, b->text, strlen(b->text), &r, e);
	sm_upload_close(u);
	if (!err && hash)
		memcpy(hash, r.manifest, SM_DIGEST);
	return err;
}

struct image make_image(uint64_t size, unsigned int seed)
{
	struct image m = { malloc(size), size };

	srandom(seed);
	for (uint64_t at = 0; at < size; at += SM_BLOCK) {
		int kind = random() % 4, c = random();

		for (uint64_t i = at; i < min64(at + SM_BLOCK, size); i++)
			m.data[i] = kind == 0 ? 0 : kind == 1 ? c : random();
	}
	return m;
}

/* ---- looking at it ---- */

int read_image(uint32_t number, struct image *out)
{
	struct sm_generation g;
	struct sm_image_piece p;
	struct sm_image *img;
	char vid[SM_VID_TEXT];
	uint64_t end = 0;
	int r;

	sm_volume_id(CLIENT, volume, vid);
	r = sm_repo_generation(&repo, vid, number, &g, NULL);
	if (r)
		return r;
	out->size = g.manifest.info.size;
	out->data = malloc(out->size);
	r = sm_image_open(&repo, &g, &img, NULL);
	sm_generation_done(&g);
	if (r) {
		free(out->data);
		return r;
	}
	while ((r = sm_image_next(img, &p, NULL)) > 0) {
		assert_int_equal(p.offset, end);
		end += p.length;
		assert_true(end <= out->size);
		if (p.zero)
			memset(out->data + p.offset, 0, p.length);
		else
			memcpy(out->data + p.offset, p.data, p.length);
	}
	sm_image_close(img);
	if (!r)
		assert_int_equal(end, out->size);
	else
		free(out->data);
	return r;
}

void assert_stored(uint32_t number, const struct image *want)
{
	struct image got;

	assert_int_equal(read_image(number, &got), 0);
	assert_int_equal(got.size, want->size);
	assert_memory_equal(got.data, want->data, want->size);
	free(got.data);
}

uint64_t verify_errors(void)
{
	struct sm_verify v = { 0 };

	assert_int_equal(sm_repo_verify(&repo, &v, NULL), 0);
	return v.errors;
}

void change(struct image *m)
{
	static const int64_t step[] = { 0, 0, 1, -1, 4096, -4096, 20000, -30001, 8191 };
	uint64_t size = m->size + step[random() % 9];
	int n = random() % 6;

	if (size < 50000)
		size = 50001;
	m->data = realloc(m->data, size);
	for (uint64_t i = m->size; i < size; i++)
		m->data[i] = random() % 3 ? random() : 0;
	m->size = size;
	while (n--) {
		uint64_t at = random() % size, len = min64(random() % 20000, size - at);

		if (random() % 3)
			for (uint64_t i = 0; i < len; i++)
				m->data[at + i] = random();
		else
			memset(m->data + at, 0, len);
	}
}

static int have_data(const void *head, size_t len, void *arg, struct sm_err *e)
{
	const struct sm_wire_data *h = head;

	((struct have_count *)arg)->bytes += le32toh(h->raw_length);
	return 0;
}

static int have_zero(uint64_t offset, uint64_t length, void *arg, struct sm_err *e)
{
	((struct have_count *)arg)->bytes += length;
	return 0;
}

const struct sm_have_ops have_ops = { have_data, have_zero };

uint64_t frame_bytes(const struct backup *b, uint32_t nr)
{
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < nr; i++) {
		const struct sm_wire_extent *w = (const void *)(b->frame[i].payload + sizeof(struct sm_wire_zero));

		bytes += b->frame[i].type == SM_DATA ? le32toh(((struct sm_wire_data *)b->frame[i].payload)->raw_length) :
						       le64toh(w->length);
	}
	return bytes;
}

/* Send what is missing, frame by frame, and commit. Return: 1 it was there already. */
int finish(const struct backup *b)
{
	struct sm_receipt r;
	struct sm_upload *u;
	struct have_count have = { 0 };
	uint32_t at = 0;
	int err = sm_upload_open(&repo, CLIENT, &b->info, &u, &r, NULL);

	if (err)
		return err;
	assert_int_equal(sm_upload_have(u, &have_ops, &have, NULL), 0);
	while (frame_bytes(b, at) < have.bytes)
		at++;
	assert_int_equal(frame_bytes(b, at), have.bytes);
	err = send_frames(u, b, at, b->nr);
	if (!err)
		err = sm_upload_commit(u, b->text, strlen(b->text), &r, NULL);
	sm_upload_close(u);
	return err;
}
