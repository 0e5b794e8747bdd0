// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The server against clients that do not keep to the rules: wrong roles, wrong order, a session cut after every byte
 * count, and hundreds of damaged sessions, some with checksums that are right again. Whatever comes, nothing
 * is published that was not sent, and the repository stays sound.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "session_digest.h"

#define BLOCKS	40
#define SIZE	(BLOCKS * SM_BLOCK + 77)

static char dir[64];
static struct sm_repo repo;
static uint8_t image[SIZE];

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *f)
{
	return remove(path);
}

static int setup(void **state)
{
	snprintf(dir, sizeof(dir), "%s/test_media_session.XXXXXX", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
	assert_non_null(mkdtemp(dir));
	assert_int_equal(sm_repo_init(dir, NULL), 0);
	assert_int_equal(sm_repo_open(dir, &repo, NULL), 0);
	srandom(1);
	for (size_t i = 0; i < SIZE; i++)
		image[i] = i / SM_BLOCK % 5 ? random() : 0;
	return 0;
}

static int teardown(void **state)
{
	sm_repo_close(&repo);
	return nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* ---- a client's side, into memory ---- */

static void describe(struct sm_manifest *m, uint32_t number)
{
	struct sm_range_hash h;

	memset(m, 0, sizeof(*m));
	memcpy(m->info.volume, "a volume's uuid", 16);
	memcpy(m->info.uuid, &number, 4);
	m->info.number = number;
	m->info.size = m->info.bytes = SIZE;
	m->info.extents = 1;
	sm_range_hash_init(&h);
	sm_range_hash_add(&h, 0, SIZE);
	sm_range_hash_final(&h, m->info.change_digest);
	strcpy(m->info.volume_name, "disk");
	strcpy(m->tool, "test");
}

/* One block a frame; every fifth is zeros. */
static void send_image(struct sm_client *c, struct sm_manifest *m)
{
	static uint8_t payload[2 * SM_BLOCK];
	struct sm_map_hash map;

	sm_map_hash_init(&map);
	for (uint64_t at = 0; at < SIZE; at += SM_BLOCK) {
		struct sm_extent x = { at, SIZE - at < SM_BLOCK ? SIZE - at : SM_BLOCK };
		struct {
			struct sm_wire_zero h;
			struct sm_wire_extent w;
		} __attribute__((packed)) z = { { htole32(1), 0 }, { htole64(x.offset), htole64(x.length) } };
		uint8_t leaf[SM_DIGEST];
		struct sm_data d;
		ssize_t n;

		if (sm_is_zero(image + at, x.length)) {
			sm_map_hash_zero(&map, at, x.length);
			m->zero_bytes += x.length;
			assert_int_equal(sm_client_send(c, SM_ZERO, &z, sizeof(z), NULL), 0);
			continue;
		}
		n = sm_data_pack(&x, 1, image + at, x.length, at % 2, payload, NULL);
		assert_int_equal(sm_data_parse(payload, n, SIZE, false, &d, NULL), 0);
		sm_data_leaf(&d, leaf);
		sm_map_hash_data(&map, at, leaf);
		m->frames++;
		m->data_bytes += x.length;
		assert_int_equal(sm_client_send(c, SM_DATA, payload, n, NULL), 0);
	}
	sm_map_hash_final(&map, m->map_hash);
}

/* A whole session's bytes. The caller frees them. */
static uint8_t *record(uint32_t number, size_t *len)
{
	int fd = memfd_create("session", 0);
	struct sm_receipt r;
	struct sm_manifest m;
	struct sm_client c;
	uint8_t *bytes;
	char *text;

	describe(&m, number);
	assert_int_equal(sm_client_stream(&c, fd, NULL), 0);
	assert_int_equal(sm_client_open(&c, &m.info, NULL, NULL, &r, NULL), 0);
	send_image(&c, &m);
	text = sm_manifest_text(&m);
	assert_int_equal(sm_client_commit(&c, text, &r, NULL), 0);
	sm_client_end(&c, true);
	free(text);
	*len = lseek(fd, 0, SEEK_CUR);
	bytes = malloc(*len);
	assert_int_equal(pread(fd, bytes, *len, 0), (ssize_t)*len);
	close(fd);
	return bytes;
}

/* Let the server read them; what it answers goes nowhere. */
static int serve(const uint8_t *bytes, size_t len, uint32_t roles)
{
	struct sm_identity id = { "tester", roles };
	int in = memfd_create("in", 0), out = open("/dev/null", O_WRONLY), err;
	struct sm_chan c;

	assert_int_equal(sm_write_full(in, bytes, len), 0);
	lseek(in, 0, SEEK_SET);
	sm_chan_init(&c, in, out);
	err = sm_serve(&repo, &c, &id, NULL);
	sm_chan_free(&c);
	close(in);
	close(out);
	return err;
}

static int published(uint32_t number)
{
	static const uint8_t volume[SM_UUID] = "a volume's uuid";
	struct sm_image_piece p;
	struct sm_generation g;
	struct sm_image *img;
	char vid[SM_VID_TEXT];
	int r;

	sm_volume_id("tester", volume, vid);
	r = sm_repo_generation(&repo, vid, number, &g, NULL);
	if (r == -ENOENT)
		return 0;
	assert_int_equal(r, 0);
	assert_int_equal(g.manifest.info.size, SIZE);
	assert_int_equal(sm_image_open(&repo, &g, &img, NULL), 0);
	sm_generation_done(&g);
	while ((r = sm_image_next(img, &p, NULL)) > 0)
		for (uint64_t i = 0; i < p.length; i++)
			assert_int_equal(p.zero ? 0 : p.data[i], image[p.offset + i]);
	assert_int_equal(r, 0);
	sm_image_close(img);
	return 1;
}

static void assert_sound(void)
{
	struct sm_verify v = { 0 };

	assert_int_equal(sm_repo_verify(&repo, &v, NULL), 0);
	assert_int_equal(v.errors, 0);
}

/* ---- tests ---- */

static void a_recorded_session_is_a_backup(void **state)
{
	size_t len;
	uint8_t *bytes = record(1, &len);

	assert_int_equal(serve(bytes, len, SM_ROLE_BACKUP), 0);
	assert_int_equal(published(1), 1);
	assert_sound();
	free(bytes);
}

static void without_the_role_nothing_happens(void **state)
{
	size_t len;
	uint8_t *bytes = record(1, &len);

	assert_int_equal(serve(bytes, len, SM_ROLE_RESTORE), -EACCES);
	assert_int_equal(serve(bytes, len, 0), -EACCES);
	assert_int_equal(published(1), 0);
	free(bytes);
}

/* Cut anywhere: not there; and the session after it, which sends all again from a resumed state, is never wrong. */
static void cut_after_any_number_of_bytes(void **state)
{
	size_t len;
	uint8_t *bytes = record(1, &len);

	for (size_t cut = 0; cut < len - 4000; cut += 1999) {
		serve(bytes, cut, SM_ROLE_BACKUP);
		assert_int_equal(published(1), 0);
	}
	assert_sound();
	free(bytes);
}

/* Frames in a recorded session. */
static size_t nth_frame(const uint8_t *bytes, size_t len, uint32_t n)
{
	size_t at = 0;

	while (n-- && at < len)
		at += sizeof(struct sm_wire_header) + le32toh(((const struct sm_wire_header *)(bytes + at))->length);
	return at;
}

static void fix_checksums(uint8_t *bytes, size_t len, bool renumber)
{
	uint64_t n = 0;

	for (size_t at = 0; at + sizeof(struct sm_wire_header) <= len; n++) {
		struct sm_wire_header *h = (void *)(bytes + at);
		uint32_t length = le32toh(h->length);

		if (length > len - at - sizeof(*h))
			return;
		if (renumber)
			h->sequence = htole64(n);
		h->payload_crc = htole32(sm_crc32c(0, h + 1, length));
		h->header_crc = htole32(sm_crc32c(0, h, offsetof(struct sm_wire_header, header_crc)));
		at += sizeof(*h) + length;
	}
}

/* A frame left out, or one sent twice, or two exchanged, all with good checksums. */
static void frames_missing_doubled_exchanged(void **state)
{
	size_t len;
	uint8_t *bytes = record(1, &len), *other = malloc(2 * len);
	uint32_t number = 1;

	for (uint32_t n = 0; nth_frame(bytes, len, n + 2) < len; n++, number++) {
		size_t at, end;

		free(bytes);
		bytes = record(number, &len);
		at = nth_frame(bytes, len, n);
		end = nth_frame(bytes, len, n + 1);
		memcpy(other, bytes, at);
		memcpy(other + at, bytes + end, len - end);
		fix_checksums(other, len - (end - at), true);
		assert_true(serve(other, len - (end - at), SM_ROLE_BACKUP) < 0);
		assert_int_equal(published(number), 0);
		number++;
		free(bytes);
		bytes = record(number, &len);
		memcpy(other, bytes, end);
		memcpy(other + end, bytes + at, len - at);
		fix_checksums(other, len + (end - at), true);
		/* OPEN twice is the same upload, left and taken up: nothing was sent in between. */
		assert_int_equal(!serve(other, len + (end - at), SM_ROLE_BACKUP), n == 1);
		assert_int_equal(published(number), n == 1);
	}
	assert_true(number > 2 * BLOCKS - 10);
	assert_sound();
	free(bytes);
	free(other);
}

/* Hundreds of damaged sessions. Half of them have good checksums again, so that the damage gets to the parsers. */
static void damaged_sessions(void **state)
{
	size_t len, limit;
	uint8_t *good = record(1, &len), *bad = malloc(len);
	int refused = 0;

	srandom(42);
	limit = len < 3000 ? len : 3000;
	for (int i = 0; i < 800; i++) {
		int n = 1 + random() % 4;

		memcpy(bad, good, len);
		while (n--) {
			/* Heads are where the danger is: most of the damage goes to where they are. */
			size_t frame = nth_frame(good, len, random() % (BLOCKS + 3));
			size_t at = random() % 4 ? frame + random() % 120 : random() % len;

			if (at >= len)
				continue;
			bad[at] = random() % 3 ? random() : random() % 2 ? 0xff : bad[at] ^ 1 << random() % 8;
		}
		if (i % 2)
			fix_checksums(bad, len, i % 4 == 1);
		refused += serve(bad, i % 5 ? len : limit, SM_ROLE_BACKUP | SM_ROLE_RESTORE) != 0;
	}
	assert_true(refused > 500);
	assert_sound();
	free(good);
	free(bad);
}

/* What a client does that has no business: data before OPEN, COMMIT before OPEN, a server's frames. */
static void out_of_order(void **state)
{
	static const uint16_t types[] = { SM_DATA, SM_ZERO, SM_COMMIT, SM_OPENED, SM_ACK, SM_LISTED, SM_END, SM_HELLO };

	for (size_t i = 0; i < sizeof(types) / sizeof(*types); i++) {
		int fd = memfd_create("x", 0);
		uint8_t bytes[400];
		struct sm_client c;
		ssize_t n;

		sm_client_stream(&c, fd, NULL);
		sm_chan_send_buf(&c.chan, types[i], "{}", 2, NULL);
		n = lseek(fd, 0, SEEK_CUR);
		assert_int_equal(pread(fd, bytes, n, 0), n);
		assert_int_equal(serve(bytes, n, SM_ROLE_BACKUP), -EPROTO);
		sm_client_end(&c, false);
		close(fd);
	}
}

/* A real conversation with a server in a process of its own, cut by the client after every frame, then finished. */
static uint64_t have_bytes;

static int have_data(const void *head, size_t len, void *arg, struct sm_err *e)
{
	have_bytes += le32toh(((const struct sm_wire_data *)head)->raw_length);
	return 0;
}

static int have_zero(uint64_t offset, uint64_t length, void *arg, struct sm_err *e)
{
	have_bytes += length;
	return 0;
}

static void connection_cut_at_every_frame(void **state)
{
	static const struct sm_have_ops ops = { have_data, have_zero };
	size_t len;
	uint8_t *bytes = record(1, &len);
	struct sm_dest d;
	struct sm_err e;
	uint64_t want = 0;

	assert_int_equal(sm_dest_parse(dir, &d, NULL), 0);
	assert_int_equal(d.kind, SM_DEST_REPO);
	for (uint32_t n = 2; n < 2 + BLOCKS + 1; n++) {
		const struct sm_wire_header *h = (void *)(bytes + nth_frame(bytes, len, n));
		struct sm_receipt r;
		struct sm_manifest m;
		struct sm_client c;

		describe(&m, 1);
		have_bytes = 0;
		assert_int_equal(sm_client_connect(&c, &d, SM_ROLE_BACKUP, &e), 0);
		assert_int_equal(sm_client_open(&c, &m.info, &ops, NULL, &r, &e), 0);
		assert_int_equal(have_bytes, want);	/* all that was sent before, and nothing else */
		assert_int_equal(sm_client_send(&c, le16toh(h->type), h + 1, le32toh(h->length), &e), 0);
		sm_client_end(&c, false);		/* waits for the server's process */
		want += n == 2 + BLOCKS ? 77 : SM_BLOCK;
	}
	free(bytes);
	assert_sound();
}

static int count_listed(const struct sm_listed *l, void *arg)
{
	++*(int *)arg;
	return 0;
}

/* The ACK of an upload that its sender has left comes when it likes: before the list that was asked for then, too. */
static void a_left_upload_is_not_in_the_way(void **state)
{
	static const struct sm_have_ops ops = { have_data, have_zero };
	size_t len;
	uint8_t *bytes = record(1, &len);
	const struct sm_wire_header *h = (void *)(bytes + nth_frame(bytes, len, 2));
	struct sm_receipt r;
	struct sm_manifest m;
	struct sm_client c;
	struct sm_dest d;
	struct sm_err e;
	int listed = 0;

	assert_int_equal(sm_dest_parse(dir, &d, NULL), 0);
	describe(&m, 1);
	assert_int_equal(sm_client_connect(&c, &d, SM_ROLE_BACKUP, &e), 0);
	assert_int_equal(sm_client_open(&c, &m.info, &ops, NULL, &r, &e), 0);
	assert_int_equal(sm_client_send(&c, le16toh(h->type), h + 1, le32toh(h->length), &e), 0);
	assert_true(sm_chan_pending(&c.chan, 60000));
	assert_int_equal(sm_client_list(&c, NULL, 0, count_listed, &listed, &e), 0);
	assert_int_equal(listed, 0);
	m.info.number++;
	m.info.uuid[0]++;
	assert_int_equal(sm_client_open(&c, &m.info, &ops, NULL, &r, &e), 0);
	sm_client_end(&c, true);
	free(bytes);
}

/* ---- digests ---- */

struct asked {
	const char *volume;		/* 16 bytes */
	uint32_t number, unit;
	bool wrong_manifest;
	struct sm_extent x;
};

/* Ask for digests by a session of its own; the first answer behind the server's HELLO in @payload. Return: its type. */
static int ask(const char *client, uint32_t roles, const struct asked *a, uint8_t *payload, size_t *len)
{
	struct sm_identity id = { .roles = roles };
	int in = memfd_create("in", 0), out = memfd_create("out", 0);
	struct sm_gen_info g = { .number = a->number };
	static uint8_t hash[SM_DIGEST];
	struct sm_generation gen;
	struct sm_client c;
	struct sm_frame f;
	struct sm_chan chan;
	char vid[SM_VID_TEXT];
	int type = 0;

	memcpy(g.volume, "a volume's uuid", SM_UUID);
	sm_volume_id("tester", g.volume, vid);
	if (!sm_repo_generation(&repo, vid, 1, &gen, NULL)) {
		memcpy(hash, gen.hash, SM_DIGEST);
		sm_generation_done(&gen);
	}
	hash[0] ^= a->wrong_manifest;
	memcpy(g.volume, a->volume, SM_UUID);
	assert_int_equal(sm_client_stream(&c, in, NULL), 0);
	assert_int_equal(sm_client_digest(&c, &g, hash, a->unit, &a->x, 1, NULL), 0);
	sm_client_end(&c, false);
	lseek(in, 0, SEEK_SET);
	strcpy(id.client, client);
	sm_chan_init(&chan, in, out);
	sm_serve(&repo, &chan, &id, NULL);
	sm_chan_free(&chan);
	lseek(out, 0, SEEK_SET);
	sm_chan_init(&chan, out, -1);
	assert_int_equal(sm_chan_recv(&chan, &f, NULL), 1);
	if (sm_chan_recv(&chan, &f, NULL) == 1) {
		type = f.type;
		*len = f.length;
		memcpy(payload, f.payload, f.length);
	}
	sm_chan_free(&chan);
	close(in);
	close(out);
	return type;
}

static const struct asked good = { "a volume's uuid", 1, SM_BLOCK, false, { 0, (BLOCKS + 1) * SM_BLOCK } };

/* Digests are of the real bytes, in units that begin with the range; zeros are zeros; the last unit ends with the volume. */
static void digests_are_of_the_bytes(void **state)
{
	static uint8_t payload[SM_MAX_PAYLOAD];
	uint8_t want[SM_DIGEST];
	struct asked a = good;
	size_t len;
	uint8_t *bytes = record(1, &len);

	assert_int_equal(serve(bytes, len, SM_ROLE_BACKUP), 0);
	free(bytes);
	assert_int_equal(ask("tester", SM_ROLE_BACKUP, &a, payload, &len), SM_DIGESTED);
	assert_int_equal(len, (BLOCKS + 1) * SM_DIGEST);
	for (size_t i = 0; i <= BLOCKS; i++) {
		memset(want, 0, sizeof(want));
		if (i % 5)
			sm_sha256(image + i * SM_BLOCK, i < BLOCKS ? SM_BLOCK : 77, want);
		else if (i == BLOCKS)
			sm_digest_unit(image + i * SM_BLOCK, 77, want);
		assert_memory_equal(payload + i * SM_DIGEST, want, SM_DIGEST);
	}
	a.unit = 3 * SM_BLOCK;
	a.x = (struct sm_extent){ 2 * SM_BLOCK, 7 * SM_BLOCK };
	assert_int_equal(ask("tester", SM_ROLE_BACKUP, &a, payload, &len), SM_DIGESTED);
	assert_int_equal(len, 3 * SM_DIGEST);
	sm_sha256(image + 8 * SM_BLOCK, SM_BLOCK, want);
	assert_memory_equal(payload + 2 * SM_DIGEST, want, SM_DIGEST);
}

/* Who may not, of what is not there or another's, and requests that are out of bounds. */
static void digests_that_are_refused(void **state)
{
	static uint8_t payload[SM_MAX_PAYLOAD];
	struct asked bad[] = { good, good, good, good, good, good, good, good };
	size_t len;
	uint8_t *bytes = record(1, &len);

	assert_int_equal(serve(bytes, len, SM_ROLE_BACKUP), 0);
	free(bytes);
	bad[0].volume = "another volume's";
	bad[1].number = 2;
	bad[2].wrong_manifest = true;
	bad[3].unit = 0;
	bad[4].unit = SM_BLOCK + 1;
	bad[5].unit = 2 * SM_DIGEST_UNIT_MAX;
	bad[6].x.offset = (BLOCKS + 1) * SM_BLOCK;
	bad[7].x.length = 100;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		assert_int_equal(ask("tester", SM_ROLE_BACKUP, &bad[i], payload, &len), SM_ERROR);
	assert_int_equal(ask("somebody-else", SM_ROLE_BACKUP, &good, payload, &len), SM_ERROR);
	assert_int_equal(ask("tester", SM_ROLE_OPERATOR | SM_ROLE_AUDITOR, &good, payload, &len), SM_ERROR);
	assert_int_equal(ask("tester", SM_ROLE_BACKUP, &good, payload, &len), SM_DIGESTED);
}

/* ---- a server that sends what was not asked for ---- */

/* What the first frame of a restore of @asked is taken for, when it is of zeros at @sent. */
static int first_frame(const struct sm_extent *asked, uint32_t nr, struct sm_extent sent)
{
	struct {
		struct sm_wire_zero h;
		struct sm_wire_extent w;
	} __attribute__((packed)) z = { { htole32(1), 0 }, { htole64(sent.offset), htole64(sent.length) } };
	int fd = memfd_create("restore", 0), r;
	struct sm_incoming_frame f;
	struct sm_incoming in;
	struct sm_chan chan;

	sm_chan_init(&chan, -1, fd);
	assert_int_equal(sm_chan_send_buf(&chan, SM_ZERO, &z, sizeof(z), NULL), 0);
	sm_chan_free(&chan);
	lseek(fd, 0, SEEK_SET);
	sm_chan_init(&chan, fd, -1);
	assert_int_equal(sm_incoming_restore(&in, &chan, SIZE, asked, nr, NULL), 0);
	r = sm_incoming_next(&in, &f, NULL);
	sm_incoming_done(&in);
	sm_chan_free(&chan);
	close(fd);
	return r;
}

static void only_what_was_asked_for_is_handed_out(void **state)
{
	const struct sm_extent x[] = { { 2 * SM_BLOCK, SM_BLOCK }, { 3 * SM_BLOCK, 2 * SM_BLOCK }, { BLOCKS * SM_BLOCK, 77 } };
	const struct {
		struct sm_extent sent;
		int result;
	} t[] = {
		{ { 2 * SM_BLOCK, SM_BLOCK }, 1 },
		{ { 2 * SM_BLOCK, 3 * SM_BLOCK }, 1 },		/* two ranges that touch */
		{ { 4 * SM_BLOCK, SM_BLOCK }, 1 },
		{ { BLOCKS * SM_BLOCK, 77 }, 1 },
		{ { 0, SM_BLOCK }, -EPROTO },
		{ { SM_BLOCK, 2 * SM_BLOCK }, -EPROTO },
		{ { 2 * SM_BLOCK, 4 * SM_BLOCK }, -EPROTO },
		{ { 5 * SM_BLOCK, SM_BLOCK }, -EPROTO },
		{ { 2 * SM_BLOCK, SIZE - 2 * SM_BLOCK }, -EPROTO },
	};

	for (size_t i = 0; i < sizeof(t) / sizeof(*t); i++)
		assert_int_equal(first_frame(x, 3, t[i].sent), t[i].result);
	assert_int_equal(first_frame(NULL, 0, (struct sm_extent){ 0, SIZE }), 1);
}

#define TEST(f)	cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_recorded_session_is_a_backup),
		TEST(without_the_role_nothing_happens),
		TEST(cut_after_any_number_of_bytes),
		TEST(frames_missing_doubled_exchanged),
		TEST(damaged_sessions),
		TEST(out_of_order),
		TEST(connection_cut_at_every_frame),
		TEST(a_left_upload_is_not_in_the_way),
		TEST(digests_are_of_the_bytes),
		TEST(digests_that_are_refused),
		TEST(only_what_was_asked_for_is_handed_out),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
