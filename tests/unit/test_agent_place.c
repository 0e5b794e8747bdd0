// SPDX-License-Identifier: GPL-2.0-or-later
/* Where a manager's restore may be written: what is behind a path that agent.conf allows. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "job.h"
#include "place.h"

static char dir[64];
static struct config c;

static char *in_dir(const char *name)
{
	static char path[8][PATH_MAX];
	static int n;

	n = (n + 1) % 8;
	snprintf(path[n], PATH_MAX, "%s/%s", dir, name);
	return path[n];
}

static void allow(const char *path, bool directory)
{
	snprintf(c.target[0].path, sizeof(c.target[0].path), "%s", path);
	c.target[0].directory = directory;
	c.nr_targets = 1;
}

static int looked_at(const char *path)
{
	struct sm_err e = { 0 };
	struct place p;
	int err = place_open(&c, path, &p, &e);

	if (!err) {
		assert_true((p.dir >= 0) == !strncmp(p.path, "./", 2));
		place_close(&p);
	}
	assert_int_equal(p.dir, -1);
	return err;
}

static int set_up(void **state)
{
	(void)state;
	strcpy(dir, "/tmp/agent-place-XXXXXX");
	return !mkdtemp(dir);
}

static int tear_down(void **state)
{
	char cmd[96];

	(void)state;
	memset(&c, 0, sizeof(c));
	snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
	return system(cmd);
}

static void make(const char *path)
{
	int fd = open(path, O_CREAT | O_WRONLY, 0600);

	assert_true(fd >= 0);
	close(fd);
}

static void only_what_is_allowed(void **state)
{
	(void)state;
	assert_int_equal(looked_at(in_dir("x")), -EACCES);
	allow(in_dir("x"), false);
	assert_int_equal(looked_at(in_dir("x")), 0);	/* new */
	assert_int_equal(looked_at(in_dir("y")), -EACCES);
	make(in_dir("x"));
	assert_int_equal(looked_at(in_dir("x")), 0);
	allow(dir, true);
	assert_int_equal(looked_at(in_dir("y")), 0);
	allow(in_dir("absent"), true);
	assert_int_equal(looked_at(in_dir("absent/y")), -ENOENT);
}

/* Links, whoever made them, lead nowhere; a second name would be overwritten with the first. */
static void no_links(void **state)
{
	(void)state;
	make(in_dir("precious"));
	allow(dir, true);
	assert_int_equal(symlink("precious", in_dir("link")), 0);
	assert_int_equal(looked_at(in_dir("link")), -EINVAL);
	assert_int_equal(symlink("absent", in_dir("dangling")), 0);
	assert_int_equal(looked_at(in_dir("dangling")), -EINVAL);
	assert_int_equal(link(in_dir("precious"), in_dir("second")), 0);
	assert_int_equal(looked_at(in_dir("second")), -EINVAL);
	assert_int_equal(mkdir(in_dir("sub"), 0700), 0);
	assert_int_equal(looked_at(in_dir("sub")), -EINVAL);
	assert_int_equal(symlink("sub", in_dir("way")), 0);
	allow(in_dir("way"), true);
	assert_int_equal(looked_at(in_dir("way/x")), -ENOTDIR);
	allow(in_dir("sub"), true);
	assert_int_equal(looked_at(in_dir("sub/x")), 0);
}

static void nobody_else_may_write_there(void **state)
{
	(void)state;
	assert_int_equal(mkdir(in_dir("a"), 0700), 0);
	assert_int_equal(mkdir(in_dir("a/b"), 0700), 0);
	allow(in_dir("a/b"), true);
	assert_int_equal(looked_at(in_dir("a/b/x")), 0);
	assert_int_equal(chmod(in_dir("a/b"), 0770), 0);
	assert_int_equal(looked_at(in_dir("a/b/x")), -EACCES);
	assert_int_equal(chmod(in_dir("a/b"), 01777), 0);	/* a link could be waiting for us */
	assert_int_equal(looked_at(in_dir("a/b/x")), -EACCES);
	assert_int_equal(chmod(in_dir("a/b"), 0755), 0);
	assert_int_equal(chmod(in_dir("a"), 0777), 0);
	assert_int_equal(looked_at(in_dir("a/b/x")), -EACCES);
	assert_int_equal(chmod(in_dir("a"), 01777), 0);
	assert_int_equal(looked_at(in_dir("a/b/x")), 0);
}

static void anothers_directory(void **state)
{
	(void)state;
	if (geteuid())
		skip();
	assert_int_equal(mkdir(in_dir("a"), 0700), 0);
	allow(in_dir("a"), true);
	if (chown(in_dir("a"), 65534, 65534))
		skip();
	assert_int_equal(looked_at(in_dir("a/x")), -EACCES);
}

/* Mistyped, gone, or something else: never a file in /dev. */
static void devices(void **state)
{
	(void)state;
	allow("/dev/no-such-disk", false);
	assert_int_equal(looked_at("/dev/no-such-disk"), -ENOENT);
	allow("/dev/null", false);
	assert_int_equal(looked_at("/dev/null"), -EINVAL);
	allow("/dev/shm/x", false);
	assert_int_equal(looked_at("/dev/shm/x"), -ENOENT);
}

/* ---- the job ---- */

static void make_job(struct job *j)
{
	memset(j, 0, sizeof(*j));
	j->kind = JOB_RESTORE;
	j->generation = 7;
	j->level = -1;
	strcpy(j->client, "me");
	strcpy(j->volume, "vol");
	strcpy(j->source, "media");
	strcpy(j->dest, "/srv/x");
	strcpy(j->ranges, "0:4K");
	memset(j->manifest, 'a', SM_DIGEST_HEX - 1);
	j->diff = true;
}

/* As it is on disk; and one of a version that knew backups only does not take it for one. */
static void noted_and_read(void **state)
{
	struct sm_err e = { 0 };
	char path[PATH_MAX];
	struct job j, k;
	json_t *o;

	(void)state;
	setenv("SNAPDIFF_STATE_DIR", dir, 1);
	make_job(&j);
	assert_int_equal(job_create(&j, &e), 0);
	assert_int_equal(job_load(j.id, &k, &e), 0);
	assert_int_equal(k.kind, JOB_RESTORE);
	assert_string_equal(k.source, "media");
	assert_string_equal(k.dest, "/srv/x");
	assert_string_equal(k.ranges, "0:4K");
	assert_string_equal(k.manifest, j.manifest);
	assert_true(k.diff);
	assert_false(k.force);
	o = get_file(job_file(path, j.id, ""), "job.json", &e);
	assert_int_equal(json_integer_value(json_object_get(o, "version")), 2);
	json_decref(o);
	o = job_row(&k);
	assert_string_equal(json_string_value(json_object_get(o, "kind")), "restore");
	assert_string_equal(json_string_value(json_object_get(o, "source")), "media");
	json_decref(o);
	job_done(&k);
}

/* Only from what is listed, whatever backups may; the key is one of agent.conf, and the media server's own unless another is named. */
static void source_and_key(void **state)
{
	static const char text[] = "[agent]\nany-destination = yes\n[destination media]\naddress = m.example\n[destination sealed]\n"
				   "address = m.example\nkey = /etc/k\n[restore]\ntarget = /srv/x\n";
	struct sm_err e = { 0 };
	struct config_dest d;
	struct config got;
	struct job j;

	(void)state;
	assert_int_equal(config_parse(text, strlen(text), "f", &got, &e), 0);
	make_job(&j);
	assert_int_equal(job_dest(&j, &got, &d, &e), 0);
	assert_string_equal(d.address, "m.example");
	assert_string_equal(d.key, "");
	strcpy(j.key, "sealed");
	assert_int_equal(job_dest(&j, &got, &d, &e), 0);
	assert_string_equal(d.key, "/etc/k");
	strcpy(j.key, "media");
	assert_int_equal(job_dest(&j, &got, &d, &e), -EACCES);
	strcpy(j.key, "/etc/shadow");
	assert_int_equal(job_dest(&j, &got, &d, &e), -EACCES);
	strcpy(j.source, "sealed");
	strcpy(j.key, "");
	assert_int_equal(job_dest(&j, &got, &d, &e), 0);
	assert_string_equal(d.key, "/etc/k");
	strcpy(j.key, JOB_KEY_NONE);
	assert_int_equal(job_dest(&j, &got, &d, &e), 0);
	assert_string_equal(d.key, "");
	strcpy(j.source, "evil.example");
	assert_int_equal(job_dest(&j, &got, &d, &e), -EACCES);
	j.kind = JOB_BACKUP;
	strcpy(j.dest, "evil.example");
	assert_int_equal(job_dest(&j, &got, &d, &e), 0);
	config_free(&got);
}

#define TEST(f)	cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(only_what_is_allowed), TEST(no_links), TEST(nobody_else_may_write_there), TEST(anothers_directory), TEST(devices),
		TEST(noted_and_read), TEST(source_and_key),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
