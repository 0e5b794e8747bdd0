// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A sealed frame opens with its key, in its place, generation and volume, and nowhere else, whatever a server makes of it. The digest is
 * always made right again: it is the server's to make.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proof.h"
#include "seal.h"

#define SIZE	(1ull << 30)
#define RAW	(3 * SM_BLOCK)

static struct sm_secret key, other;
static const uint8_t volume[SM_UUID] = "volume of a test", volume2[SM_UUID] = "another volume..";
static const uint8_t gen[SM_UUID] = "generation seven", gen2[SM_UUID] = "generation eight";
static const struct sm_extent place[2] = { { 8 * SM_BLOCK, 2 * SM_BLOCK }, { 100 * SM_BLOCK, SM_BLOCK } };
static uint8_t raw[RAW], back[SM_MAX_RAW], payload[SM_DATA_ROOM(2, RAW) + SM_SEAL_ROOM];

static int setup(void **state)
{
	char dir[] = "/tmp/test_media_seal.XXXXXX", path[64];
	struct stat st;

	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/a", dir);
	assert_int_equal(sm_secret_make(path, &key, NULL), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(sm_secret_make(path, &other, NULL), -EEXIST);
	assert_int_equal(sm_secret_load(path, &other, NULL), 0);
	assert_memory_equal(&other, &key, sizeof(key));
	assert_int_equal(unlink(path), 0);
	assert_int_equal(sm_secret_make(path, &other, NULL), 0);
	assert_memory_not_equal(other.id, key.id, SM_SECRET_ID);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(rmdir(dir), 0);
	for (size_t i = 0; i < RAW; i++)
		raw[i] = i / 16;
	return 0;
}

static ssize_t make(struct sm_sealer *s, int level)
{
	ssize_t n = sm_data_pack(place, 2, raw, RAW, level, payload, NULL);

	assert_true(n > 0);
	return sm_seal(s, payload, n, NULL);
}

/* As a hostile server would: the digest fits again. */
static void fix_digest(uint8_t *p, size_t len)
{
	struct sm_wire_data *d = (void *)p;
	uint64_t head = sizeof(*d) + (uint64_t)le32toh(d->nr_extents) * sizeof(struct sm_wire_extent);

	if (head <= len && le32toh(d->stored_length) <= len - head)
		sm_sha256(p + head, le32toh(d->stored_length), d->digest);
}

static int try_open(uint8_t *p, size_t len, const struct sm_secret *k, const uint8_t vol[SM_UUID])
{
	struct sm_opener o = { .k = k };
	struct sm_data d;
	int err;

	memcpy(o.volume, vol, SM_UUID);
	fix_digest(p, len);
	memset(back, 0xee, RAW);
	err = sm_data_parse(p, len, SIZE, false, &d, NULL);
	assert_int_not_equal(err, -EACCES);
	return err ? err : sm_data_open(&d, &o, back, NULL);
}

static void comes_back(void **state)
{
	for (int level = 0; level < 2; level++) {
		struct sm_sealer s;
		struct sm_data d;
		ssize_t n;

		assert_int_equal(sm_sealer_init(&s, &key, volume, gen, NULL), 0);
		n = make(&s, level);
		assert_int_equal(sm_data_parse(payload, n, SIZE, false, &d, NULL), 0);
		assert_int_equal(d.codec, SM_CODEC_SEALED);
		assert_int_equal(sm_data_check(&d, back, NULL), 0);
		assert_int_equal(sm_data_unpack(&d, back, NULL), -EPROTO);
		assert_null(memmem(payload, n, raw, 32));
		assert_int_equal(try_open(payload, n, &key, volume), 0);
		assert_memory_equal(back, raw, RAW);
	}
}

/* Every byte of head, extents, seal and data, changed; every length. */
static void nothing_may_be_changed(void **state)
{
	static uint8_t bad[sizeof(payload)];
	struct sm_sealer s;
	ssize_t n;

	assert_int_equal(sm_sealer_init(&s, &key, volume, gen, NULL), 0);
	n = make(&s, 1);
	for (ssize_t i = 0; i < n; i++) {
		memcpy(bad, payload, n);
		bad[i] ^= 1 << i % 8;
		if (i >= (ssize_t)offsetof(struct sm_wire_data, reserved) && i < (ssize_t)sizeof(struct sm_wire_data))
			continue;	/* means nothing; and the digest is made right again */
		assert_int_not_equal(try_open(bad, n, &key, volume), 0);
		assert_memory_not_equal(back, raw, RAW);
	}
	for (ssize_t cut = 1; cut < n; cut += 7) {
		struct sm_wire_data *d = (void *)bad;

		memcpy(bad, payload, n);
		if (le32toh(d->stored_length) <= cut)
			break;
		d->stored_length = htole32(le32toh(d->stored_length) - cut);
		assert_int_not_equal(try_open(bad, n - cut, &key, volume), 0);
	}
}

/* The same bytes for other blocks, for another generation, for another volume; another's key. */
static void one_place_only(void **state)
{
	struct sm_wire_extent *x = (void *)(payload + sizeof(struct sm_wire_data));
	struct sm_wire_seal *h = (void *)(x + 2);
	struct sm_sealer s;
	ssize_t n;

	assert_int_equal(sm_sealer_init(&s, &key, volume, gen, NULL), 0);
	n = make(&s, 0);
	assert_int_equal(try_open(payload, n, &key, volume2), -EPROTO);
	x[0].offset = htole64(9 * SM_BLOCK);
	assert_int_equal(try_open(payload, n, &key, volume), -EPROTO);
	x[0].offset = htole64(8 * SM_BLOCK);
	memcpy(h->generation, gen2, SM_UUID);
	assert_int_equal(try_open(payload, n, &key, volume), -EPROTO);
	memcpy(h->generation, gen, SM_UUID);
	assert_int_equal(try_open(payload, n, &key, volume), 0);
	assert_int_equal(sm_data_open(&(struct sm_data){ .codec = SM_CODEC_NONE, .extents = x }, &(struct sm_opener){ .strict = true }, back, NULL),
			 -EPROTO);
}

static void other_keys_say_so(void **state)
{
	struct sm_opener o = { .k = &other };
	char id[SM_SECRET_ID_TEXT];
	struct sm_sealer s;
	struct sm_data d;
	struct sm_err e;
	ssize_t n;

	assert_int_equal(sm_sealer_init(&s, &key, volume, gen, NULL), 0);
	n = make(&s, 1);
	assert_int_equal(sm_data_parse(payload, n, SIZE, false, &d, NULL), 0);
	sm_secret_id_text(key.id, id);
	assert_int_equal(sm_data_open(&d, &o, back, &e), -EACCES);
	assert_non_null(strstr(e.text, id));
	assert_int_equal(sm_data_open(&d, NULL, back, &e), -EACCES);
	assert_non_null(strstr(e.text, id));
	/* named as the other's, it still is not */
	memcpy(((struct sm_wire_seal *)(payload + sizeof(struct sm_wire_data) + 2 * sizeof(struct sm_wire_extent)))->id, other.id, SM_SECRET_ID);
	assert_int_equal(try_open(payload, n, &other, volume), -EPROTO);
}

/* Within a run the counter, between runs the salt: the same plaintext never gives the same bytes. */
static void nonces_differ(void **state)
{
	struct sm_wire_seal seen[8];

	for (int run = 0; run < 2; run++) {
		struct sm_sealer s;

		assert_int_equal(sm_sealer_init(&s, &key, volume, gen, NULL), 0);
		for (int i = 0; i < 4; i++) {
			struct sm_data d;
			ssize_t n = make(&s, 1);

			assert_int_equal(sm_data_parse(payload, n, SIZE, false, &d, NULL), 0);
			seen[4 * run + i] = *sm_data_seal(&d);
			for (int k = 0; k < 4 * run + i; k++) {
				assert_true(memcmp(seen[k].salt, seen[4 * run + i].salt, 16) || memcmp(seen[k].nonce, seen[4 * run + i].nonce, 12));
				assert_memory_not_equal(seen[k].tag, seen[4 * run + i].tag, 16);
			}
		}
	}
}

static void manifests_are_known_again(void **state)
{
	struct sm_manifest m = { .frames = 3, .data_bytes = 5 * SM_BLOCK, .zero_bytes = SM_BLOCK }, x;
	char *text;

	memcpy(m.info.volume, volume, SM_UUID);
	memcpy(m.info.uuid, gen, SM_UUID);
	m.info.number = 7;
	m.info.size = m.info.bytes = 6 * SM_BLOCK;
	m.info.extents = 1;
	assert_int_equal(sm_unseal_manifest(NULL, &m, NULL), 0);
	assert_int_equal(sm_unseal_manifest(&key, &m, NULL), -EACCES);
	m.info.sealed = true;
	memcpy(m.info.seal_id, key.id, SM_SECRET_ID);
	assert_int_equal(sm_seal_manifest(&key, &m, NULL), 0);
	assert_int_equal(sm_unseal_manifest(&key, &m, NULL), 0);
	assert_int_equal(sm_unseal_manifest(&other, &m, NULL), -EACCES);
	assert_int_equal(sm_unseal_manifest(NULL, &m, NULL), -EACCES);
	text = sm_manifest_text(&m);
	assert_non_null(text);
	assert_int_equal(sm_manifest_parse(text, strlen(text), &x, NULL), 0);
	free(text);
	assert_int_equal(sm_unseal_manifest(&key, &x, NULL), 0);
#define CHANGED(what) do { x = m; what; assert_int_equal(sm_unseal_manifest(&key, &x, NULL), -EPROTO); } while (0)
	CHANGED(x.info.number++);
	CHANGED(x.info.uuid[3] ^= 1);
	CHANGED(x.info.volume[3] ^= 1);
	CHANGED(x.info.size += SM_BLOCK);
	CHANGED(x.info.created++);
	CHANGED(x.info.has_parent = true);
	CHANGED(x.info.change_digest[31] ^= 1);
	CHANGED(x.map_hash[0] ^= 1);
	CHANGED(x.zero_bytes++);
	CHANGED(x.seal_tag[5] ^= 1);
	CHANGED(strcpy(x.info.label, "x"));
#undef CHANGED
}

static int take_chunk(const void *buf, size_t len, void *arg, struct sm_err *e)
{
	return sm_proof_chunk(arg, buf, len, e);
}

/*
 * A full backup of RAW bytes that is one frame, sealed for @of. A server that says that it has an older frame of the same blocks (HAVE) gets
 * its leaf into a manifest with a genuine tag: such a manifest passes, such a frame does not.
 */
static int proven(const uint8_t of[SM_UUID])
{
	const struct sm_extent all = { 0, RAW };
	const struct sm_wire_extent w = { htole64(0), htole64(RAW) };
	struct sm_manifest m = { .frames = 1, .data_bytes = RAW, .tool = "t" };
	struct sm_proof_writer *pw = calloc(1, sizeof(*pw));
	uint8_t leaf[SM_DIGEST], hash[SM_DIGEST];
	struct sm_range_hash all_hash;
	struct sm_map_hash map;
	struct sm_proof *p;
	struct sm_sealer s;
	struct sm_data d;
	char *text;
	ssize_t n;
	int err;

	assert_int_equal(sm_sealer_init(&s, &key, volume, of, NULL), 0);
	n = sm_seal(&s, payload, sm_data_pack(&all, 1, raw, RAW, 1, payload, NULL), NULL);
	assert_int_equal(sm_data_parse(payload, n, RAW, false, &d, NULL), 0);
	sm_data_leaf(&d, leaf);
	memcpy(m.info.volume, volume, SM_UUID);
	memcpy(m.info.uuid, gen, SM_UUID);
	memcpy(m.info.seal_id, key.id, SM_SECRET_ID);
	m.info.number = 7;
	m.info.size = m.info.bytes = RAW;
	m.info.extents = 1;
	m.info.sealed = true;
	sm_range_hash_init(&all_hash);
	sm_range_hash_add(&all_hash, 0, RAW);
	sm_range_hash_final(&all_hash, m.info.change_digest);
	sm_map_hash_init(&map);
	sm_map_hash_data(&map, 0, leaf);
	sm_map_hash_final(&map, m.map_hash);
	assert_int_equal(sm_seal_manifest(&key, &m, NULL), 0);
	text = sm_manifest_text(&m);
	sm_sha256(text, strlen(text), hash);
	p = sm_proof_new(hash, &key, false);
	assert_int_equal(sm_proof_manifest(p, text, strlen(text), NULL), 0);
	pw->chunk = take_chunk;
	pw->arg = p;
	assert_int_equal(sm_proof_item(pw, 0, RAW / SM_BLOCK, SM_PROOF_NEW, leaf, 0, NULL), 0);
	assert_int_equal(sm_proof_flush(pw, NULL), 0);
	assert_int_equal(sm_proof_end(p, NULL), 0);
	assert_int_equal(sm_proof_data(p, &w, 1, leaf, NULL), 0);
	err = sm_proof_frame(p, &w, 1, &d, NULL);
	sm_proof_free(p);
	free(text);
	free(pw);
	return err;
}

static void an_older_frame_is_not_proven(void **state)
{
	assert_int_equal(proven(gen), 0);
	assert_int_equal(proven(gen2), -EPROTO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_older_frame_is_not_proven),
		cmocka_unit_test(comes_back),
		cmocka_unit_test(nothing_may_be_changed),
		cmocka_unit_test(one_place_only),
		cmocka_unit_test(other_keys_say_so),
		cmocka_unit_test(nonces_differ),
		cmocka_unit_test(manifests_are_known_again),
	};

	return cmocka_run_group_tests_name("media_seal", tests, setup, NULL);
}
