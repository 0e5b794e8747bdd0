// SPDX-License-Identifier: GPL-2.0-or-later
/* Names, ranges, sizes, uuids and times: what is accepted, what is refused, and with which errno. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "name.h"

#define ALL (SNAP_REF_VOLUME | SNAP_REF_GEN | SNAP_REF_RANGE)

static void ref_forms(void **state)
{
	struct snap_ref r;

	assert_int_equal(snap_parse_ref("vol", ALL, &r, NULL), 0);
	assert_string_equal(r.volume, "vol");
	assert_int_equal(r.first, 0);
	assert_int_equal(snap_parse_ref("vol@7", ALL, &r, NULL), 0);
	assert_int_equal(r.first, 7);
	assert_int_equal(r.last, 7);
	assert_false(r.range);
	assert_int_equal(snap_parse_ref("a-b.c@3..9", ALL, &r, NULL), 0);
	assert_string_equal(r.volume, "a-b.c");
	assert_int_equal(r.first, 3);
	assert_int_equal(r.last, 9);
	assert_true(r.range);
	assert_int_equal(snap_parse_ref("v@5..5", ALL, &r, NULL), 0);
	assert_true(r.range);
	assert_int_equal(snap_parse_ref("v@4294967295", ALL, &r, NULL), 0);
	assert_int_equal(r.first, 4294967295u);
}

static void ref_refused(void **state)
{
	static const char *const bad[] = {
		"", "@", "@1", "v@", "v@0", "v@-1", "v@+1", "v@ 1", "v@1 ", "v@1x", "v@4294967296",
		"v@99999999999999999999", "v@1..", "v@..2", "v@2..1", "v@1...2", "v@1..2..3", "v@0..3",
		"a/b@1", "a b@1", "-v@1", ".v", "v@1@2x", "v\n@1", "v@0x10",
	};
	struct snap_ref r;
	size_t i;

	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		if (snap_parse_ref(bad[i], ALL, &r, NULL) != -EINVAL)
			fail_msg("'%s' was accepted", bad[i]);
}

static void ref_only_wanted_forms(void **state)
{
	struct snap_err e = SNAP_ERR_INIT;
	struct snap_ref r;

	assert_int_equal(snap_parse_ref("v", SNAP_REF_GEN, &r, &e), -EINVAL);
	assert_string_equal(e.object, "v");
	assert_string_equal(e.text, "NAME@N expected");
	assert_int_equal(snap_parse_ref("v@1", SNAP_REF_VOLUME, &r, &e), -EINVAL);
	assert_int_equal(snap_parse_ref("v@1..2", SNAP_REF_GEN, &r, &e), -EINVAL);
	assert_int_equal(snap_parse_ref("v@1", SNAP_REF_RANGE, &r, &e), -EINVAL);
}

static void volume_name_length(void **state)
{
	char name[SNAPDIFF_NAME_MAX + 2];
	struct snap_ref r;

	memset(name, 'x', sizeof(name));
	name[SNAPDIFF_NAME_MAX] = 0;
	assert_int_equal(snap_check_volume_name(name, NULL), 0);
	assert_int_equal(snap_parse_ref(name, ALL, &r, NULL), 0);
	assert_int_equal(strlen(r.volume), SNAPDIFF_NAME_MAX);
	name[SNAPDIFF_NAME_MAX] = 'x';
	name[SNAPDIFF_NAME_MAX + 1] = 0;
	assert_int_equal(snap_check_volume_name(name, NULL), -EINVAL);
	assert_int_equal(snap_parse_ref(name, ALL, &r, NULL), -EINVAL);
}

static void sizes(void **state)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} good[] = {
		{ "0", 0 }, { "512", 512 }, { "4k", 4096 }, { "4K", 4096 }, { "4KiB", 4096 }, { "4kB", 4096 }, { "64M", 64 << 20 },
		{ "1GiB", 1 << 30 }, { "2T", 2ULL << 40 }, { "3P", 3ULL << 50 }, { "15E", 15ULL << 60 }, { "7B", 7 },
		{ "18446744073709551615", UINT64_MAX },
	};
	static const char *const bad[] = { "", "k", "-1", "+1", "1.5G", "4 k", "4x", "4kk", "4kiB ", " 4k", "0x10" };
	uint64_t v;
	size_t i;

	for (i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		assert_int_equal(snap_parse_size(good[i].text, &v, NULL), 0);
		assert_true(v == good[i].bytes);
	}
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		if (snap_parse_size(bad[i], &v, NULL) != -EINVAL)
			fail_msg("'%s' was accepted", bad[i]);
	assert_int_equal(snap_parse_size("16E", &v, NULL), -ERANGE);
	assert_int_equal(snap_parse_size("18446744073709551615k", &v, NULL), -ERANGE);
	assert_int_equal(snap_parse_size("18446744073709551616", &v, NULL), -EINVAL);
}

static void numbers(void **state)
{
	uint32_t v;

	assert_int_equal(snap_parse_u32("17", 1, 17, &v, NULL), 0);
	assert_int_equal(v, 17);
	assert_int_equal(snap_parse_u32("18", 1, 17, &v, NULL), -ERANGE);
	assert_int_equal(snap_parse_u32("0", 1, 17, &v, NULL), -ERANGE);
	assert_int_equal(snap_parse_u32("4294967296", 0, UINT32_MAX, &v, NULL), -EINVAL);
	assert_int_equal(snap_parse_u32("", 0, 9, &v, NULL), -EINVAL);
	assert_int_equal(snap_parse_u32("1 ", 0, 9, &v, NULL), -EINVAL);
}

static void size_text(void **state)
{
	char b[16];

	assert_string_equal(snap_format_size(b, sizeof(b), 0), "0B");
	assert_string_equal(snap_format_size(b, sizeof(b), 1023), "1023B");
	assert_string_equal(snap_format_size(b, sizeof(b), 4096), "4.0K");
	assert_string_equal(snap_format_size(b, sizeof(b), 1536ULL << 20), "1.5G");
	assert_string_equal(snap_format_size(b, sizeof(b), 300ULL << 30), "300G");
	assert_string_equal(snap_format_size(b, sizeof(b), UINT64_MAX), "16.0E");
}

static void time_text(void **state)
{
	char b[40];

	setenv("TZ", "UTC", 1);
	tzset();
	assert_string_equal(snap_format_time(b, sizeof(b), 1700000000ULL * 1000000000 + 5), "2023-11-14 22:13:20");
	assert_string_equal(snap_format_time_iso(b, sizeof(b), 1700000000ULL * 1000000000 + 5),
			    "2023-11-14T22:13:20.000000005Z");
}

static void uuids(void **state)
{
	static const char text[] = "00112233-4455-6677-8899-aabbccddeeff";
	uint8_t u[16], v[16];
	char b[SNAP_UUID_TEXT];

	assert_int_equal(snap_parse_uuid(text, u), 0);
	assert_int_equal(u[0], 0);
	assert_int_equal(u[15], 0xff);
	assert_string_equal(snap_format_uuid(b, u), text);
	assert_int_equal(snap_parse_uuid("00112233445566778899AABBCCDDEEFF", v), 0);
	assert_memory_equal(u, v, 16);
	assert_int_equal(snap_parse_uuid("", u), -EINVAL);
	assert_int_equal(snap_parse_uuid("00112233-4455-6677-8899-aabbccddeef", u), -EINVAL);
	assert_int_equal(snap_parse_uuid("00112233-4455-6677-8899-aabbccddeeff0", u), -EINVAL);
	assert_int_equal(snap_parse_uuid("0-0112233-4455-6677-8899-aabbccddeef", u), -EINVAL);
	assert_int_equal(snap_parse_uuid("g0112233-4455-6677-8899-aabbccddeeff", u), -EINVAL);
}

static void exit_codes(void **state)
{
	assert_int_equal(snap_err_exit(0), SNAP_EXIT_OK);
	assert_int_equal(snap_err_exit(-EINVAL), SNAP_EXIT_USAGE);
	assert_int_equal(snap_err_exit(-EPERM), SNAP_EXIT_PERM);
	assert_int_equal(snap_err_exit(-ENOMEM), SNAP_EXIT_NOMEM);
	assert_int_equal(snap_err_exit(-ENOENT), SNAP_EXIT_NOTFOUND);
	assert_int_equal(snap_err_exit(-ENOTBLK), SNAP_EXIT_NOTFOUND);
	assert_int_equal(snap_err_exit(-EBUSY), SNAP_EXIT_BUSY);
	assert_int_equal(snap_err_exit(-EEXIST), SNAP_EXIT_BUSY);
	assert_int_equal(snap_err_exit(-EIO), SNAP_EXIT_IO);
}

static void error_from_itself(void **state)
{
	struct snap_err e = SNAP_ERR_INIT;

	assert_int_equal(snap_err_set(&e, -EBUSY, "/dev/x", "is busy"), -EBUSY);
	assert_int_equal(snap_err_set(&e, -EBUSY, e.object, "its user: %s", e.text), -EBUSY);
	assert_string_equal(e.object, "/dev/x");
	assert_string_equal(e.text, "its user: is busy");
	assert_int_equal(snap_err_set(NULL, -EIO, "x", "y"), -EIO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ref_forms),
		cmocka_unit_test(ref_refused),
		cmocka_unit_test(ref_only_wanted_forms),
		cmocka_unit_test(volume_name_length),
		cmocka_unit_test(sizes),
		cmocka_unit_test(numbers),
		cmocka_unit_test(size_text),
		cmocka_unit_test(time_text),
		cmocka_unit_test(uuids),
		cmocka_unit_test(exit_codes),
		cmocka_unit_test(error_from_itself),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
