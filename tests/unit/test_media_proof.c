// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Proofs of generations that were made from each other, with frames of several runs, zeros, and volumes that grow and shrink: each block is
 * accepted of the frame that brought it last, and of no other that ever had it; and what is left out of a proof, or changed in it, is seen.
 */
#include "media_model.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "proof.h"

#define GENS	5

static struct backup backup[GENS];
static struct image image[GENS];
static uint8_t hash[GENS][SM_DIGEST];

/* What the repository hands out, to be played back with something wrong. */
static struct part {
	bool manifest;
	size_t len;
	uint8_t *bytes;
} part[64];
static int nr_parts;

static int keep(bool manifest, const void *buf, size_t len)
{
	struct part *p = &part[nr_parts++];

	assert_in_range(nr_parts, 1, 64);
	*p = (struct part){ manifest, len, malloc(len + 1) };
	memcpy(p->bytes, buf, len);
	return 0;
}

static int keep_manifest(const char *text, size_t len, void *arg, struct sm_err *e)
{
	return keep(true, text, len);
}

static int keep_chunk(const void *buf, size_t len, void *arg, struct sm_err *e)
{
	return keep(false, buf, len);
}

static void collect(uint32_t gen)
{
	static const struct sm_proof_ops ops = { keep_manifest, keep_chunk };
	char vid[SM_VID_TEXT];

	while (nr_parts)
		free(part[--nr_parts].bytes);
	sm_volume_id(CLIENT, volume, vid);
	assert_int_equal(sm_repo_proof(&repo, vid, hash[gen], &ops, NULL, NULL), 0);
}

/* Without part @skip (-1: with all). */
static struct sm_proof *play(uint32_t gen, int skip, int *err)
{
	struct sm_proof *p = sm_proof_new(hash[gen], NULL, false);

	*err = 0;
	for (int i = 0; !*err && i < nr_parts; i++)
		if (i != skip)
			*err = part[i].manifest ? sm_proof_manifest(p, (char *)part[i].bytes, part[i].len, NULL) :
						  sm_proof_chunk(p, part[i].bytes, part[i].len, NULL);
	if (!*err)
		*err = sm_proof_end(p, NULL);
	return p;
}

static void make_all(void)
{
	for (uint32_t g = 0; g < GENS; g++) {
		image[g] = make_image(g ? image[g - 1].size : 40 * SM_BLOCK + 100, 5);
		if (g) {
			memcpy(image[g].data, image[g - 1].data, image[g].size);
			for (int i = 0; i < 3; i++)
				change(&image[g]);
		}
		make_backup(&backup[g], g + 1, &image[g], g ? &image[g - 1] : NULL, g ? hash[g - 1] : NULL, 1 + g % 3);
		assert_int_equal(store(&backup[g], hash[g], NULL), 0);
	}
}

static void drop_all(void)
{
	for (uint32_t g = 0; g < GENS; g++) {
		free_backup(&backup[g]);
		free(image[g].data);
	}
	while (nr_parts)
		free(part[--nr_parts].bytes);
}

/* Does this frame of generation @g have the block? Data: its leaf; zeros: *@leaf is not touched. */
static bool has(uint32_t g, uint32_t i, uint64_t at, bool *zero, uint8_t leaf[SM_DIGEST])
{
	const struct frame *f = &backup[g].frame[i];
	const struct sm_wire_extent *x;
	struct sm_data d;
	uint32_t nr;

	*zero = f->type == SM_ZERO;
	if (*zero) {
		assert_int_equal(sm_zero_parse(f->payload, f->len, image[g].size, &x, &nr, NULL), 0);
	} else {
		assert_int_equal(sm_data_parse(f->payload, f->len, image[g].size, false, &d, NULL), 0);
		sm_data_leaf(&d, leaf);
		x = d.extents;
		nr = d.nr;
	}
	for (uint32_t k = 0; k < nr; k++) {
		struct sm_extent e = sm_extent_at(x, k);

		if (at >= e.offset && at < e.offset + e.length)
			return true;
	}
	return false;
}

static void each_block_of_its_last_frame_only(void **state)
{
	int err, tried = 0;

	make_all();
	for (uint32_t top = 0; top < GENS; top++) {
		struct sm_proof *p;

		collect(top);
		p = play(top, -1, &err);
		assert_int_equal(err, 0);
		for (uint64_t at = 0; at < image[top].size; at += SM_BLOCK) {
			const struct sm_wire_extent w = { htole64(at), htole64(SM_BLOCK) };
			bool found = false, zero, owner_zero = false;
			uint8_t leaf[SM_DIGEST], owner[SM_DIGEST];

			for (int g = top; g >= 0; g--)
				for (uint32_t i = 0; i < backup[g].nr; i++) {
					if (at >= image[g].size || !has(g, i, at, &zero, leaf))
						continue;
					if (!found) {
						owner_zero = zero;
						memcpy(owner, leaf, SM_DIGEST);
						assert_int_equal(zero ? sm_proof_zero(p, &w, 1, NULL) : sm_proof_data(p, &w, 1, leaf, NULL), 0);
						assert_int_equal(zero ? sm_proof_data(p, &w, 1, leaf, NULL) : sm_proof_zero(p, &w, 1, NULL), -EPROTO);
					} else if (!zero && (owner_zero || memcmp(leaf, owner, SM_DIGEST))) {
						assert_int_equal(sm_proof_data(p, &w, 1, leaf, NULL), -EPROTO);
						tried++;
					}
					found = true;
				}
			assert_true(found);
		}
		sm_proof_free(p);
	}
	assert_true(tried > 20);	/* older frames of blocks that have newer ones */
	drop_all();
}

static void nothing_may_be_left_out(void **state)
{
	int err, chunks = 0;

	make_all();
	collect(GENS - 1);
	for (int i = 0; i < nr_parts; i++) {
		sm_proof_free(play(GENS - 1, i, &err));
		assert_int_equal(err, -EPROTO);
	}
	/* the end cut off; every bit of it changed: what still passes says the same of zeros and of the blocks that are there */
	for (int i = 0; i < nr_parts; i++) {
		if (part[i].manifest)
			continue;
		chunks++;
		for (size_t cut = 1; cut <= part[i].len; cut += 5) {
			part[i].len -= cut;
			sm_proof_free(play(GENS - 1, -1, &err));
			part[i].len += cut;
			assert_int_equal(err, -EPROTO);
		}
		for (size_t at = 0; at < part[i].len; at += 3) {
			part[i].bytes[at] ^= 1 << at % 8;
			sm_proof_free(play(GENS - 1, -1, &err));
			part[i].bytes[at] ^= 1 << at % 8;
			assert_true(!err || err == -EPROTO);
		}
	}
	assert_int_equal(chunks, GENS);
	sm_proof_free(play(GENS - 2, -1, &err));	/* another generation's proof */
	assert_int_equal(err, -EPROTO);
	sm_proof_free(play(GENS - 1, -1, &err));
	assert_int_equal(err, 0);
	drop_all();
}

/* Without one item that goes on with a frame: of its blocks an older generation would be believed. */
static bool drop_item(struct part *x, size_t at)
{
	size_t next = at + 3;
	uint8_t whole[1024];
	int err;

	if (x->bytes[at + 2] != SM_PROOF_SAME || next >= x->len || x->bytes[at] + x->bytes[at + 1] + x->bytes[next] > 0x7f)
		return false;
	assert_in_range(x->len, 1, sizeof(whole));
	memcpy(whole, x->bytes, x->len);
	x->bytes[next] += x->bytes[at] + x->bytes[at + 1];
	memmove(x->bytes + at, x->bytes + next, x->len - next);
	x->len -= 3;
	sm_proof_free(play(GENS - 1, -1, &err));
	x->len += 3;
	memcpy(x->bytes, whole, x->len);
	assert_int_equal(err, -EPROTO);
	return true;
}

/* A leaf, or zeros, that its manifest does not have. */
static void nothing_may_be_put_in_or_dropped(void **state)
{
	int err, flips = 0, drops = 0;

	make_all();
	collect(GENS - 1);
	for (int i = 0; i < nr_parts; i++) {
		uint8_t *b = part[i].bytes;

		if (part[i].manifest)
			continue;
		/* small numbers: each varint is a byte, the third is the kind */
		for (size_t at = 0; at + 3 <= part[i].len && !(b[at] & 0x80) && !(b[at + 1] & 0x80); at += b[at + 2] == SM_PROOF_NEW ? 35 : 3) {
			assert_in_range(b[at + 2], SM_PROOF_ZERO, SM_PROOF_NEW);
			drops += drop_item(&part[i], at);
			if (b[at + 2] != SM_PROOF_NEW)
				continue;
			b[at + 3 + flips % SM_DIGEST] ^= 1;
			sm_proof_free(play(GENS - 1, -1, &err));
			b[at + 3 + flips++ % SM_DIGEST] ^= 1;
			assert_int_equal(err, -EPROTO);
		}
	}
	assert_true(flips > 10);
	assert_true(drops > 3);
	drop_all();
}

#define TEST(f)	cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(each_block_of_its_last_frame_only),
		TEST(nothing_may_be_left_out),
		TEST(nothing_may_be_put_in_or_dropped),
	};

	return cmocka_run_group_tests_name("media_proof", tests, NULL, NULL);
}
