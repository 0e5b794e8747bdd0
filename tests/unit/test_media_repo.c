// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The repository against a model in memory: full and increments of a volume that changes, grows and shrinks; uploads
 * cut at every frame; the process ended, or the step failed, at every durable step of a commit; every object damaged.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "media_model.h"

/* ---- tests ---- */

static void generations_restore_identically(void **state)
{
	enum { COUNT = 60 };
	struct image now = make_image(400001, 1), old[COUNT + 1];
	uint8_t hash[COUNT + 1][SM_DIGEST];
	struct sm_generation g;
	char vid[SM_VID_TEXT];

	srandom(7);
	for (uint32_t i = 1; i <= COUNT; i++) {
		/* Mostly on the one before, now and then on any older one: a branch. */
		uint32_t parent = i == 1 ? 0 : random() % 8 ? i - 1 : 1 + random() % (i - 1);
		struct backup b;

		if (i > 1)
			change(&now);
		make_backup(&b, i, &now, parent ? &old[parent] : NULL, parent ? hash[parent] : NULL, 1 + random() % 16);
		assert_int_equal(store(&b, hash[i], NULL), 0);
		free_backup(&b);
		old[i].size = now.size;
		old[i].data = malloc(now.size);
		memcpy(old[i].data, now.data, now.size);
		assert_stored(i, &old[i]);
	}
	for (uint32_t i = 1; i <= COUNT; i++)
		assert_stored(i, &old[i]);
	assert_int_equal(verify_errors(), 0);
	sm_volume_id(CLIENT, volume, vid);
	assert_int_equal(sm_repo_generation(&repo, vid, COUNT, &g, NULL), 0);
	assert_true(g.nr_segments <= 21);	/* seven a class, three classes of up to 511 entries */
	sm_generation_done(&g);
	for (uint32_t i = 1; i <= COUNT; i++)
		free(old[i].data);
	free(now.data);
}

/* A thousand small increments: the map's cost follows the change, the number of segments stays small. */
static void cost_of_a_thousand_increments(void **state)
{
	struct sm_segment_ref list[64];
	uint64_t written = 0;
	uint32_t nr = 1, most = 0;

	list[0].entries = 1000000;
	for (int i = 0; i < 1000; i++) {
		uint64_t sum = 100;
		uint32_t take = sm_segment_plan(list, nr, 100);

		assert_true(take <= nr);
		while (take--)
			sum += list[--nr].entries;
		list[nr++].entries = sum;
		written += sum;
		most = nr > most ? nr : most;
		assert_true(nr < 64);
	}
	assert_true(most <= 30);
	assert_true(written < 1000 * 100 * 5);	/* each entry less than five times */
	assert_int_equal(list[0].entries, 1000000);
}

static void upload_cut_at_every_frame(void **state)
{
	struct image m = make_image(150003, 3);
	struct backup b;
	uint32_t cut;

	for (cut = 0;; cut++) {
		struct have_count have = { 0 };
		struct sm_receipt r;
		struct sm_upload *u;

		make_backup(&b, cut + 1, &m, NULL, NULL, 2);
		if (cut > b.nr)
			break;
		assert_int_equal(sm_upload_open(&repo, CLIENT, &b.info, &u, &r, NULL), 0);
		assert_int_equal(send_frames(u, &b, 0, cut), 0);
		sm_upload_close(u);
		assert_int_equal(sm_upload_open(&repo, CLIENT, &b.info, &u, &r, NULL), 0);
		assert_int_equal(sm_upload_have(u, &have_ops, &have, NULL), 0);
		assert_int_equal(have.bytes, frame_bytes(&b, cut));
		/* Too early: refused, and still resumable */
		if (cut < b.nr)
			assert_int_equal(sm_upload_commit(u, b.text, strlen(b.text), &r, NULL), -EPROTO);
		sm_upload_close(u);
		assert_int_equal(sm_upload_open(&repo, CLIENT, &b.info, &u, &r, NULL), 0);
		assert_int_equal(send_frames(u, &b, cut, b.nr), 0);
		assert_int_equal(sm_upload_commit(u, b.text, strlen(b.text), &r, NULL), 0);
		sm_upload_close(u);
		assert_stored(cut + 1, &m);
		free_backup(&b);
	}
	assert_true(cut > 15);
	free_backup(&b);
	assert_int_equal(verify_errors(), 0);
	free(m.data);
}

/* Any order is fine: what counts is what is there in the end. */
static void frames_in_any_order(void **state)
{
	struct image m = make_image(150003, 4);
	struct sm_receipt r;
	struct sm_upload *u;
	struct backup b;

	make_backup(&b, 1, &m, NULL, NULL, 2);
	assert_int_equal(sm_upload_open(&repo, CLIENT, &b.info, &u, &r, NULL), 0);
	for (uint32_t i = b.nr; i--;)
		assert_int_equal(send_frames(u, &b, i, i + 1), 0);
	assert_int_equal(sm_upload_commit(u, b.text, strlen(b.text), &r, NULL), 0);
	sm_upload_close(u);
	assert_stored(1, &m);
	assert_int_equal(verify_errors(), 0);
	free_backup(&b);
	free(m.data);
}

/* A torn last record, as after a power cut: what is before it counts. */
static void torn_tail_is_cut_off(void **state)
{
	struct image m = make_image(150003, 5);
	struct have_count have = { 0 };
	struct sm_receipt r;
	struct sm_upload *u;
	struct backup b;
	char cmd[300];

	make_backup(&b, 1, &m, NULL, NULL, 2);
	assert_int_equal(sm_upload_open(&repo, CLIENT, &b.info, &u, &r, NULL), 0);
	assert_int_equal(send_frames(u, &b, 0, 5), 0);
	sm_upload_close(u);
	snprintf(cmd, sizeof(cmd), "f=$(echo %s/uploads/*/00000000.pack); truncate -s -1 $f", dir);
	assert_int_equal(system(cmd), 0);
	assert_int_equal(sm_upload_open(&repo, CLIENT, &b.info, &u, &r, NULL), 0);
	assert_int_equal(sm_upload_have(u, &have_ops, &have, NULL), 0);
	assert_int_equal(have.bytes, frame_bytes(&b, 4));
	assert_int_equal(send_frames(u, &b, 4, b.nr), 0);
	assert_int_equal(sm_upload_commit(u, b.text, strlen(b.text), &r, NULL), 0);
	sm_upload_close(u);
	assert_stored(1, &m);
	free_backup(&b);
	free(m.data);
}

/* ---- faults ---- */

static int countdown;
static bool fault_exits;

static int fault(const char *step)
{
	if (countdown-- != 0)
		return 0;
	if (fault_exits)
		_exit(77);
	return -EIO;
}

/* The whole upload in a child that ends at step @n. Return: did it come to its end? */
static bool crash_at(const struct backup *b, int n)
{
	pid_t pid = fork();
	int status;

	if (!pid) {
		countdown = n;
		fault_exits = true;
		sm_fault_hook = fault;
		_exit(store(b, NULL, NULL) ? 1 : 0);
	}
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_true(WEXITSTATUS(status) == 77 || !WEXITSTATUS(status));
	return !WEXITSTATUS(status);
}

static void crash_at_every_step(void **state)
{
	struct image base = make_image(90001, 6), now = make_image(95555, 8);
	uint8_t hash[SM_DIGEST];
	struct backup b;
	bool whole = false;
	int n, published = 0;

	make_backup(&b, 1, &base, NULL, NULL, 4);
	assert_int_equal(store(&b, hash, NULL), 0);
	free_backup(&b);
	for (n = 0; !whole; n++) {
		struct image got;
		int there;

		make_backup(&b, n + 2, &now, &base, hash, 4);
		whole = crash_at(&b, n);
		there = read_image(n + 2, &got);
		if (!there) {		/* complete */
			assert_int_equal(got.size, now.size);
			assert_memory_equal(got.data, now.data, now.size);
			free(got.data);
			published++;
			assert_int_equal(finish(&b), 1);
		} else {		/* not there: and it can be finished */
			assert_int_equal(there, -ENOENT);
			assert_int_equal(finish(&b), 0);
			assert_stored(n + 2, &now);
		}
		assert_stored(1, &base);
		assert_int_equal(verify_errors(), 0);
		free_backup(&b);
	}
	assert_true(n > 20);		/* steps there were */
	assert_true(published >= 2);	/* some of them behind the commit */
	free(base.data);
	free(now.data);
}

static void fail_at_every_step(void **state)
{
	struct image m = make_image(95555, 9);
	struct sm_err e;
	struct backup b;
	int n, err = -EIO;

	for (n = 0; err; n++) {
		int again;

		make_backup(&b, n + 1, &m, NULL, NULL, 4);
		countdown = n;
		fault_exits = false;
		sm_fault_hook = fault;
		memset(&e, 0, sizeof(e));
		err = store(&b, NULL, &e);
		sm_fault_hook = NULL;
		if (err)
			assert_true(e.text[0] || err == -EIO);
		again = finish(&b);
		assert_true(again == 0 || again == 1);
		assert_stored(n + 1, &m);
		assert_int_equal(verify_errors(), 0);
		free_backup(&b);
		if (!err && countdown >= 0)
			break;
		err = -EIO;
	}
	assert_true(n > 20);
	free(m.data);
}

/* ---- damage ---- */

static char objects[64][256];
static int nr_objects;

static int collect(const char *path, const struct stat *st, int type, struct FTW *f)
{
	if (type == FTW_F && strstr(path, "/objects/") && !strstr(path, "volume.json"))
		snprintf(objects[nr_objects++], 256, "%s", path);
	return 0;
}

static void flip(const char *path, off_t at, uint8_t mask)
{
	int fd = open(path, O_RDWR);
	uint8_t c;

	assert_int_equal(pread(fd, &c, 1, at), 1);
	c ^= mask;
	assert_int_equal(pwrite(fd, &c, 1, at), 1);
	close(fd);
}

/* One flipped bit anywhere: verify says so, and a restore gives the right bytes or none. */
static void damage_is_found(void **state)
{
	struct image base = make_image(60001, 10), now = make_image(60001, 11), got;
	uint8_t hash[SM_DIGEST];
	struct backup b;
	struct stat st;
	char away[80];

	make_backup(&b, 1, &base, NULL, NULL, 3);
	assert_int_equal(store(&b, hash, NULL), 0);
	free_backup(&b);
	memcpy(now.data, base.data, 40000);
	make_backup(&b, 2, &now, &base, hash, 3);
	assert_int_equal(store(&b, NULL, NULL), 0);
	free_backup(&b);
	nr_objects = 0;
	assert_int_equal(nftw(dir, collect, 16, FTW_PHYS), 0);
	assert_int_equal(nr_objects, 8);	/* two each: packs, maps, proofs, manifests */
	for (int i = 0; i < nr_objects; i++) {
		assert_int_equal(stat(objects[i], &st), 0);
		for (off_t at = 0; at < st.st_size; at += 1 + st.st_size / 23) {
			flip(objects[i], at, 1 << at % 8);
			assert_true(verify_errors() > 0);
			if (!read_image(2, &got)) {
				assert_memory_equal(got.data, now.data, now.size);
				free(got.data);
			}
			flip(objects[i], at, 1 << at % 8);
		}
		snprintf(away, sizeof(away), "%s/away", dir);
		assert_int_equal(rename(objects[i], away), 0);
		/* Without its manifest a generation is not there, as after a prune; an increment stands without its parent. */
		if (!strstr(objects[i], ".manifest"))
			assert_true(verify_errors() > 0);
		assert_int_equal(rename(away, objects[i]), 0);
	}
	assert_int_equal(verify_errors(), 0);
	free(base.data);
	free(now.data);
}

/* ---- refusals ---- */

static void lies_are_refused(void **state)
{
	struct image base = make_image(60001, 12), now = make_image(60001, 13);
	uint8_t hash[SM_DIGEST], wrong[SM_DIGEST] = "nobody's manifest hash, surely";
	struct sm_receipt r;
	struct sm_upload *u;
	struct sm_err e;
	struct backup b, c;

	make_backup(&b, 1, &base, NULL, NULL, 3);
	assert_int_equal(store(&b, hash, NULL), 0);
	assert_int_equal(store(&b, hash, NULL), 1);		/* once more: there already */
	make_backup(&c, 2, &now, &base, wrong, 3);
	assert_int_equal(store(&c, NULL, &e), -ENOENT);		/* wrong parent */
	assert_non_null(strstr(e.text, "the newest are generations 1"));
	free_backup(&c);
	make_backup(&c, 1, &now, NULL, NULL, 3);
	c.info.uuid[0] ^= 1;
	assert_int_equal(store(&c, NULL, NULL), -EEXIST);	/* the number is taken */
	free_backup(&c);
	make_backup(&c, 2, &now, NULL, NULL, 3);
	memcpy(c.info.uuid, b.info.uuid, SM_UUID);
	assert_int_equal(store(&c, NULL, NULL), -EEXIST);	/* the uuid is taken */
	free_backup(&c);
	make_backup(&c, 2, &now, &base, hash, 3);
	assert_int_equal(sm_upload_open(&repo, CLIENT, &c.info, &u, &r, NULL), 0);
	assert_int_equal(send_frames(u, &c, 0, c.nr), 0);
	assert_int_equal(send_frames(u, &c, 0, 1), -EPROTO);	/* one twice: it is given up */
	assert_int_equal(sm_upload_commit(u, c.text, strlen(c.text), &r, NULL), -EPROTO);
	sm_upload_close(u);
	assert_int_equal(sm_upload_open(&repo, CLIENT, &c.info, &u, &r, NULL), 0);
	assert_int_equal(sm_upload_stored(u), 0);		/* and begins anew */
	assert_int_equal(send_frames(u, &c, 1, c.nr), 0);
	assert_int_equal(send_frames(u, &c, c.nr - 1, c.nr), 0);	/* a small one twice, the first not at all */
	assert_int_equal(sm_upload_commit(u, c.text, strlen(c.text), &r, NULL), -EPROTO);
	sm_upload_close(u);
	assert_int_equal(sm_upload_open(&repo, CLIENT, &c.info, &u, &r, NULL), 0);
	assert_int_equal(sm_upload_stored(u), 0);
	assert_int_equal(send_frames(u, &c, 0, c.nr), 0);
	assert_int_equal(sm_upload_commit(u, b.text, strlen(b.text), &r, NULL), -EPROTO);	/* another's manifest */
	sm_upload_close(u);
	assert_int_equal(store(&c, NULL, NULL), 0);		/* anew again */
	assert_int_equal(verify_errors(), 0);
	free_backup(&b);
	free_backup(&c);
	free(base.data);
	free(now.data);
}

/* The volume grew; the client "forgets" to send what is new. */
static void growth_must_be_sent(void **state)
{
	struct image base = make_image(60001, 14), now = make_image(60001 + 40960, 14);
	struct image cheat = { now.data, base.size };
	uint8_t hash[SM_DIGEST];
	struct backup b;

	make_backup(&b, 1, &base, NULL, NULL, 3);
	assert_int_equal(store(&b, hash, NULL), 0);
	free_backup(&b);
	memcpy(now.data, base.data, base.size);
	now.data[5] ^= 1;
	make_backup(&b, 2, &cheat, &base, hash, 3);	/* only the change within the old size */
	free(b.text);
	b.info.size = b.manifest.info.size = now.size;
	b.text = sm_manifest_text(&b.manifest);
	assert_int_equal(store(&b, NULL, NULL), -EPROTO);
	free_backup(&b);
	assert_int_equal(verify_errors(), 0);
	free(base.data);
	free(now.data);
}

static void clients_do_not_see_each_other(void **state)
{
	struct image m = make_image(60001, 15);
	char vid[SM_VID_TEXT], (*vids)[SM_VID_TEXT];
	struct backup b;
	size_t nr;

	make_backup(&b, 1, &m, NULL, NULL, 3);
	assert_int_equal(store(&b, NULL, NULL), 0);
	assert_int_equal(sm_repo_find(&repo, "somebody", "disk", vid, NULL), -ENOENT);
	assert_int_equal(sm_repo_volumes(&repo, "somebody", &vids, &nr, NULL), 0);
	assert_int_equal(nr, 0);
	free(vids);
	assert_int_equal(sm_repo_find(&repo, CLIENT, "disk", vid, NULL), 0);
	assert_false(sm_client_valid("../evil"));
	assert_false(sm_client_valid(""));
	assert_false(sm_client_valid(".hidden"));
	assert_true(sm_client_valid("nas-1.example"));
	free_backup(&b);
	free(m.data);
}

static void abandoned_uploads_go(void **state)
{
	struct image m = make_image(60001, 16);
	struct sm_receipt r;
	struct sm_upload *u;
	struct backup b;

	make_backup(&b, 1, &m, NULL, NULL, 3);
	assert_int_equal(sm_upload_open(&repo, CLIENT, &b.info, &u, &r, NULL), 0);
	assert_int_equal(send_frames(u, &b, 0, 3), 0);
	sleep(2);
	assert_int_equal(sm_repo_expire_uploads(&repo, 1, NULL), 0);	/* in use */
	sm_upload_close(u);
	assert_int_equal(sm_repo_expire_uploads(&repo, 3600, NULL), 0);	/* young */
	assert_int_equal(sm_repo_expire_uploads(&repo, 1, NULL), 1);
	assert_int_equal(sm_repo_expire_uploads(&repo, 1, NULL), 0);
	assert_int_equal(store(&b, NULL, NULL), 0);
	free_backup(&b);
	free(m.data);
}

#define TEST(f)	cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(generations_restore_identically),
		cmocka_unit_test(cost_of_a_thousand_increments),
		TEST(upload_cut_at_every_frame),
		TEST(frames_in_any_order),
		TEST(torn_tail_is_cut_off),
		TEST(crash_at_every_step),
		TEST(fail_at_every_step),
		TEST(damage_is_found),
		TEST(lies_are_refused),
		TEST(growth_must_be_sent),
		TEST(clients_do_not_see_each_other),
		TEST(abandoned_uploads_go),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
