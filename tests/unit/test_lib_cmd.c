// SPDX-License-Identifier: GPL-2.0-or-later
/* Verbs and options: what is parsed, what is a usage error, and that nothing else ends with 0. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cmd.h"
#include "name.h"

static bool flag, off;
static const char *text;
static uint64_t size;
static uint32_t num;
static int positionals;
static char first[64];

static int run_verb(int argc, char **argv);

static const struct snap_cmd verb = {
	.name = "verb", .args = "A [B]", .summary = "Do it", .min_args = 1, .max_args = 2, .run = run_verb,
};

static const struct snap_cmd *const cmds[] = { &verb, NULL };
static const struct snap_program prog = { .name = "prog", .summary = "Test", .cmds = cmds };

static int run_verb(int argc, char **argv)
{
	const struct snap_opt opts[] = {
		{ "flag", 'f', SNAP_OPT_FLAG, NULL, &flag, "a flag" },
		{ "no-thing", 0, SNAP_OPT_UNFLAG, NULL, &off, "off" },
		{ "text", 't', SNAP_OPT_STRING, "TEXT", &text, "a text" },
		{ "size", 's', SNAP_OPT_SIZE, "SIZE", &size, "a size" },
		{ "num", 0, SNAP_OPT_U32, "N", &num, "a number" },
		{ 0 }
	};
	int rc = snap_opts(&verb, opts, &argc, &argv);

	if (rc >= 0)
		return rc;
	positionals = argc;
	snprintf(first, sizeof(first), "%s", argv[0]);
	return 42;
}

/* Run with the words of @line; stdout and stderr go nowhere. */
static int run(const char *line)
{
	char buf[256], *argv[16], *p, *save;
	int argc = 0, out = dup(1), err = dup(2), null = open("/dev/null", O_WRONLY), rc;

	flag = false;
	off = true;
	text = NULL;
	size = num = 0;
	positionals = -1;
	snprintf(buf, sizeof(buf), "prog %s", line);
	for (p = strtok_r(buf, " ", &save); p; p = strtok_r(NULL, " ", &save))
		argv[argc++] = p;
	argv[argc] = NULL;
	fflush(NULL);
	dup2(null, 1);
	dup2(null, 2);
	rc = snap_main(&prog, argc, argv);
	fflush(NULL);
	dup2(out, 1);
	dup2(err, 2);
	close(out);
	close(err);
	close(null);
	return rc;
}

static void options(void **state)
{
	assert_int_equal(run("verb -f --text hello --size 4k --num=9 --no-thing a b"), 42);
	assert_true(flag);
	assert_false(off);
	assert_int_equal(size, 4096);
	assert_int_equal(num, 9);
	assert_int_equal(positionals, 2);
	assert_int_equal(run("verb a"), 42);
	assert_false(flag);
	assert_true(off);
	assert_null(text);
}

static void options_behind_arguments(void **state)
{
	assert_int_equal(run("verb a -f b"), 42);
	assert_true(flag);
	assert_int_equal(positionals, 2);
	assert_string_equal(first, "a");
	assert_int_equal(run("verb -- -f"), 42);
	assert_false(flag);
	assert_string_equal(first, "-f");
}

static void usage_errors(void **state)
{
	static const char *const bad[] = {
		"", "nope", "verb", "verb a b c", "verb -x a", "verb --nope a", "verb a --text", "verb a -t",
		"verb --flag=1 a", "verb --size 4x a", "verb --num -1 a", "verb --num 4294967296 a", "--nope", "help nope",
	};
	size_t i;

	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		if (run(bad[i]) != SNAP_EXIT_USAGE)
			fail_msg("'prog %s' is no usage error", bad[i]);
		assert_int_equal(positionals, -1);
	}
}

static void help(void **state)
{
	static const char *const good[] = { "--help", "-h", "help", "--version", "-V", "verb --help", "verb -h",
					    "help verb", "verb --help --nope" };
	size_t i;

	for (i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		if (run(good[i]) != SNAP_EXIT_OK)
			fail_msg("'prog %s' failed", good[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(options),
		cmocka_unit_test(options_behind_arguments),
		cmocka_unit_test(usage_errors),
		cmocka_unit_test(help),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
