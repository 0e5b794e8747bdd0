// SPDX-License-Identifier: GPL-2.0-or-later
/* Tables, records and JSON from one description; the progress line for programs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "output.h"
#include "progress.h"

enum { NAME, SIZE, NUM, WHEN, FLAG, PART, ID };

static const struct snap_col cols[] = {
	[NAME]	= { "name", "NAME", SNAP_COL_STRING },
	[SIZE]	= { "size", "SIZE", SNAP_COL_SIZE },
	[NUM]	= { "num", "NUM", SNAP_COL_NUMBER },
	[WHEN]	= { "when", "WHEN", SNAP_COL_TIME, SNAP_COL_HIDDEN },
	[FLAG]	= { "flag", "FLAG", SNAP_COL_BOOL, SNAP_COL_HIDDEN },
	[PART]	= { "part", "PART", SNAP_COL_PERCENT, SNAP_COL_HIDDEN },
	[ID]	= { "id", "ID", SNAP_COL_UUID, SNAP_COL_HIDDEN },
};

static void fill(struct snap_out *out)
{
	static const uint8_t uuid[16] = { 0xab };

	snap_out_str(out, NAME, "a");
	snap_out_num(out, SIZE, 4096);
	snap_out_num(out, NUM, 7);
	snap_out_num(out, WHEN, 1000000000ULL);
	snap_out_num(out, FLAG, 1);
	snap_out_num(out, PART, 1234);
	snap_out_uuid(out, ID, uuid);
	assert_int_equal(snap_out_row(out), 0);
	snap_out_str(out, NAME, "longer");
	assert_int_equal(snap_out_row(out), 0);
}

/* Two rows, the second nearly empty. The caller frees the text. */
static char *render(enum snap_out_layout layout, struct snap_out_opts opts)
{
	struct snap_out *out;
	char *text = NULL;
	size_t len;

	opts.file = open_memstream(&text, &len);
	assert_non_null(opts.file);
	assert_int_equal(snap_out_open(&out, "things", layout, cols, sizeof(cols) / sizeof(cols[0]), &opts, NULL), 0);
	fill(out);
	assert_int_equal(snap_out_close(out, NULL), 0);
	fclose(opts.file);
	return text;
}

static void expect(enum snap_out_layout layout, struct snap_out_opts opts, const char *want)
{
	char *text = render(layout, opts);

	assert_string_equal(text, want);
	free(text);
}

static void table(void **state)
{
	expect(SNAP_OUT_TABLE, (struct snap_out_opts){ 0 },
	       "NAME    SIZE  NUM\n"
	       "a       4.0K    7\n"
	       "longer     -    -\n");
	expect(SNAP_OUT_TABLE, (struct snap_out_opts){ .bytes = true, .noheadings = true },
	       "a       4096  7\n"
	       "longer     -  -\n");
}

static void chosen_columns(void **state)
{
	expect(SNAP_OUT_TABLE, (struct snap_out_opts){ .columns = "num,name" },
	       "NUM  NAME\n"
	       "  7  a\n"
	       "  -  longer\n");
	expect(SNAP_OUT_TABLE, (struct snap_out_opts){ .columns = "+flag,part,name", .noheadings = true },
	       "a       4.0K  7  yes  12.34%\n"
	       "longer     -  -  -         -\n");
	/* Chosen columns of a record are a table. */
	expect(SNAP_OUT_RECORD, (struct snap_out_opts){ .columns = "name", .noheadings = true }, "a\nlonger\n");
}

static void unknown_columns(void **state)
{
	static const char *const bad[] = { "nope", "name,", ",name", "", "name,nope", "+", "NAME" };
	struct snap_out_opts opts = { 0 };
	struct snap_err e = SNAP_ERR_INIT;
	struct snap_out *out;
	size_t i;

	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		opts.columns = bad[i];
		assert_int_equal(snap_out_open(&out, "x", SNAP_OUT_TABLE, cols, 7, &opts, &e), -EINVAL);
		assert_null(out);
		assert_non_null(strstr(e.text, "name,size,num,when,flag,part,id"));
	}
}

static void record(void **state)
{
	expect(SNAP_OUT_RECORD, (struct snap_out_opts){ 0 },
	       "NAME: a\nSIZE: 4.0K\nNUM:  7\n\nNAME: longer\nSIZE: -\nNUM:  -\n");
}

static void stream(void **state)
{
	expect(SNAP_OUT_STREAM, (struct snap_out_opts){ .columns = "num,name" },
	       "         NUM  NAME\n"
	       "           7  a\n"
	       "           -  longer\n");
}

static void json(void **state)
{
	char *text = render(SNAP_OUT_TABLE, (struct snap_out_opts){ .json = true });
	json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, NULL), *list, *row;

	assert_non_null(root);
	list = json_object_get(root, "things");
	assert_int_equal(json_array_size(list), 2);
	row = json_array_get(list, 0);
	assert_int_equal(json_object_size(row), 7);	/* hidden ones too */
	assert_string_equal(json_string_value(json_object_get(row, "name")), "a");
	assert_int_equal(json_integer_value(json_object_get(row, "size")), 4096);
	assert_string_equal(json_string_value(json_object_get(row, "when")), "1970-01-01T00:00:01.000000000Z");
	assert_true(json_is_true(json_object_get(row, "flag")));
	assert_true(json_real_value(json_object_get(row, "part")) == 12.34);
	assert_string_equal(json_string_value(json_object_get(row, "id")), "ab000000-0000-0000-0000-000000000000");
	assert_true(json_is_null(json_object_get(json_array_get(list, 1), "size")));
	json_decref(root);
	free(text);
	expect(SNAP_OUT_STREAM, (struct snap_out_opts){ .json = true, .columns = "num" },
	       "{\"things\":[{\"num\":7},\n{\"num\":null}]}\n");
	expect(SNAP_OUT_STREAM, (struct snap_out_opts){ .json = true, .lines = true, .columns = "num" },
	       "{\"num\":7}\n{\"num\":null}\n");
}

static void json_without_rows(void **state)
{
	struct snap_out_opts opts = { .json = true };
	struct snap_out *out;
	char *text = NULL;
	size_t len;

	opts.file = open_memstream(&text, &len);
	assert_int_equal(snap_out_open(&out, "x", SNAP_OUT_TABLE, cols, 7, &opts, NULL), 0);
	assert_int_equal(snap_out_close(out, NULL), 0);
	fclose(opts.file);
	assert_string_equal(text, "{\"x\":[]}\n");
	free(text);
}

static void abort_leaves_no_whole(void **state)
{
	struct snap_out_opts opts = { .json = true };
	struct snap_out *out;
	char *text = NULL;
	size_t len;

	opts.file = open_memstream(&text, &len);
	assert_int_equal(snap_out_open(&out, "x", SNAP_OUT_STREAM, cols, 7, &opts, NULL), 0);
	snap_out_abort(out);
	fflush(opts.file);
	assert_int_equal(len, 0);
	assert_int_equal(snap_out_open(&out, "x", SNAP_OUT_STREAM, cols, 7, &opts, NULL), 0);
	fill(out);
	snap_out_abort(out);
	fclose(opts.file);
	assert_true(len > 0);
	assert_null(json_loads(text, 0, NULL));
	free(text);
}

/* Labels are anybody's bytes: nothing that a terminal obeys, nothing that is not JSON. */
static void hostile_strings(void **state)
{
	static const char *const in[] = {
		"\033[2J", "a\nb", "\xff\xfe", "\xc3", "\xc0\x80", "\xed\xa0\x80", "\xf0\x9f\x98", "gr\xc3\xbc\xc3\x9f", "\xe2\x82",
		"\xc2\x9b" "2J",
	};
	struct snap_out_opts opts = { .columns = "name", .noheadings = true };
	struct snap_out *out;
	size_t i, len;
	char *text, *p;
	int json_too;

	for (i = 0; i < 2 * sizeof(in) / sizeof(in[0]); i++) {
		json_too = i % 2;
		opts.json = json_too;
		text = NULL;
		opts.file = open_memstream(&text, &len);
		assert_int_equal(snap_out_open(&out, "x", SNAP_OUT_TABLE, cols, 7, &opts, NULL), 0);
		snap_out_str(out, NAME, in[i / 2]);
		assert_int_equal(snap_out_row(out), 0);
		assert_int_equal(snap_out_close(out, NULL), 0);
		fclose(opts.file);
		if (json_too) {
			json_t *root = json_loads(text, 0, NULL);

			assert_non_null(root);
			json_decref(root);
		}
		for (p = text; *p && p[1]; p++)
			assert_true((unsigned char)*p >= 0x20 && ((unsigned char)*p != 0xc2 || (unsigned char)p[1] >= 0xa0));
		free(text);
	}
}

static void full_disk_is_an_error(void **state)
{
	struct snap_out_opts opts = { .file = fopen("/dev/full", "w") };
	struct snap_err e = SNAP_ERR_INIT;
	struct snap_out *out;

	assert_non_null(opts.file);
	assert_int_equal(snap_out_open(&out, "x", SNAP_OUT_TABLE, cols, 7, &opts, NULL), 0);
	fill(out);
	assert_true(snap_out_close(out, &e) < 0);
	assert_int_equal(snap_err_exit(e.err), SNAP_EXIT_IO);
	fclose(opts.file);
}

static void progress_json(void **state)
{
	char *text = NULL, *last;
	struct snap_progress_opts opts = { .what = "test \"x\"", .json = true };
	struct snap_progress *p;
	json_t *obj;
	size_t len;

	opts.file = open_memstream(&text, &len);
	p = snap_progress_start(&opts, 1000);
	assert_non_null(p);
	snap_progress_update(p, 400, 100);
	snap_progress_update(p, 300, 90);	/* never goes back */
	snap_progress_end(p, false);
	fclose(opts.file);
	last = strrchr(text, '{');
	obj = json_loads(last, 0, NULL);
	assert_non_null(obj);
	assert_string_equal(json_string_value(json_object_get(obj, "what")), "test \"x\"");
	assert_int_equal(json_integer_value(json_object_get(obj, "done")), 400);
	assert_int_equal(json_integer_value(json_object_get(obj, "sent")), 100);
	assert_int_equal(json_integer_value(json_object_get(obj, "total")), 1000);
	assert_true(json_is_false(json_object_get(obj, "finished")));
	assert_true(json_is_true(json_object_get(obj, "failed")));
	json_decref(obj);
	free(text);
}

static void progress_silent(void **state)
{
	struct snap_progress_opts quiet = { .what = "x", .json = true, .quiet = true };
	struct snap_progress_opts no_tty = { .what = "x", .file = fopen("/dev/null", "w") };

	assert_null(snap_progress_start(&quiet, 1));
	assert_null(snap_progress_start(&no_tty, 1));
	snap_progress_update(NULL, 1, 1);
	snap_progress_end(NULL, true);
	fclose(no_tty.file);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(table),
		cmocka_unit_test(chosen_columns),
		cmocka_unit_test(unknown_columns),
		cmocka_unit_test(record),
		cmocka_unit_test(stream),
		cmocka_unit_test(json),
		cmocka_unit_test(json_without_rows),
		cmocka_unit_test(abort_leaves_no_whole),
		cmocka_unit_test(hostile_strings),
		cmocka_unit_test(full_disk_is_an_error),
		cmocka_unit_test(progress_json),
		cmocka_unit_test(progress_silent),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
