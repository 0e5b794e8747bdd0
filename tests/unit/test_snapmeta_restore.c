// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * snapmeta dump and restore: a store with a history is dumped, its metadata wiped, and restored; or copied to a new file. Then everything has to be as it was, and the store
 * goes on. Dumps that are cut off, changed or too old are refused and leave the device without a store.
 */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include "core_world.h"
#include "snapmeta.h"

static char dir[] = "/tmp/test_snapmeta.XXXXXX";
static char img[64], img2[64], json[64];

static int call(const struct snap_cmd *cmd, const char *out, const char *a1, ...)
{
	char *argv[16] = { (char *)cmd->name, (char *)a1 };
	int argc = 2, rc, saved = dup(1), err = dup(2), fd;
	va_list ap;

	va_start(ap, a1);
	while (argc < 15 && (argv[argc] = va_arg(ap, char *)))
		argc++;
	va_end(ap);
	argv[argc] = NULL;
	fflush(stdout);
	fd = open(out, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	dup2(fd, 1);
	if (!getenv("RESTORE_VERBOSE"))
		dup2(open("/dev/null", O_WRONLY | O_CLOEXEC), 2);
	close(fd);
	optind = 0;
	rc = cmd->run(argc, argv);
	fflush(stdout);
	dup2(saved, 1);
	dup2(err, 2);
	close(saved);
	close(err);
	return rc;
}

static void save(const struct world *w, const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_int_equal(write(fd, w->m.data, (size_t)BLOCKS * SD_BLOCK_SIZE), (ssize_t)BLOCKS * SD_BLOCK_SIZE);
	close(fd);
}

static void load(struct world *w, const char *path)
{
	int fd = open(path, O_RDONLY);

	assert_int_equal(read(fd, w->m.data, (size_t)BLOCKS * SD_BLOCK_SIZE), (ssize_t)BLOCKS * SD_BLOCK_SIZE);
	close(fd);
}

/* Everything but preserved data: superblocks, bitmaps, and whatever looks like metadata; the journal, too, if told to. */
static void wipe(struct world *w, bool journal)
{
	u64 b;

	for (b = 0; b < BLOCKS; b++) {
		const u8 *d = w->m.data + b * SD_BLOCK_SIZE;

		if ((b < 2 || b >= 66 || journal) && d[1] == 'D' && d[0] == 'S' && d[2] == 'P')
			memset(w->m.data + b * SD_BLOCK_SIZE, 0, SD_BLOCK_SIZE);
	}
}

static void make(struct world *w, u64 seed)
{
	begin(w, seed);
	create(w);
	live_on(w, 40 + roll(w, 100));
	end(w, roll(w, 2));
	save(w, img);
	assert_int_equal(call(&cmd_dump, json, "--records", img, NULL), 0);
}

static void go_on(struct world *w)
{
	struct sd_check_result res;

	open_again(w);
	assert_int_equal(sd_check(w->s, SD_CHECK_DATA, &res), 0);
	assert_int_equal(res.errors, 0);
	compare(w, false);
	live_on(w, 40);
	compare(w, false);
	until_idle(w->s);
	end(w, true);
}

static void round_trip(void **state)
{
	u64 seed;

	for (seed = 1; seed <= 16; seed++) {
		struct world *w = malloc(sizeof(*w));

		make(w, seed);
		if (seed % 4) {
			wipe(w, seed % 2);
			save(w, img);
		}
		assert_int_equal(call(&cmd_restore, "/dev/null", "-i", json, "-o", img, "--data", NULL), 0);
		/* The same generations and records, wherever the run lies */
		load(w, img);
		go_on(w);
		memdev_exit(&w->m);
		free(w);
	}
}

static void onto_another_file(void **state)
{
	struct world *w = malloc(sizeof(*w));

	make(w, 77);
	wipe(w, false);
	save(w, img);
	unlink(img2);
	assert_int_equal(call(&cmd_restore, "/dev/null", "-i", json, "-o", img2, "--data-from", img, NULL), 0);
	load(w, img2);
	go_on(w);
	assert_int_equal(call(&cmd_restore, "/dev/null", "-i", json, "-o", img2, "--data-from", img, NULL), SNAP_EXIT_BUSY);
	assert_int_equal(call(&cmd_restore, "/dev/null", "-i", json, "-o", img2, "--data-from", img, "--force", NULL), 0);
	memdev_exit(&w->m);
	free(w);
}

/* The store was used after the dump: with its superblocks, and with only its journal to tell. */
static void an_old_dump_is_refused(void **state)
{
	struct world *w = malloc(sizeof(*w));

	make(w, 78);
	open_again(w);
	write_some(w);
	create(w);
	write_some(w);
	sd_close(w->s);
	save(w, img);
	assert_int_equal(call(&cmd_restore, "/dev/null", "-i", json, "-o", img, NULL), SNAP_EXIT_BUSY);
	memset(w->m.data, 0, 2 * SD_BLOCK_SIZE);
	save(w, img);
	assert_int_equal(call(&cmd_restore, "/dev/null", "-i", json, "-o", img, NULL), SNAP_EXIT_BUSY);
	memdev_exit(&w->m);
	free(w);
}

static char *slurp(size_t *len)
{
	int fd = open(json, O_RDONLY);
	struct stat st;
	char *text;

	assert_int_equal(fstat(fd, &st), 0);
	text = malloc(st.st_size + 1);
	*len = read(fd, text, st.st_size);
	text[*len] = 0;
	close(fd);
	return text;
}

static void spit(const char *text, size_t len)
{
	int fd = open(json, O_WRONLY | O_TRUNC);

	assert_int_equal(write(fd, text, len), (ssize_t)len);
	close(fd);
}

static void wipe_file(void)
{
	static const u8 zeros[2 * SD_BLOCK_SIZE];
	int fd = open(img, O_WRONLY);

	assert_int_equal(pwrite(fd, zeros, sizeof(zeros), 0), sizeof(zeros));
	close(fd);
}

static void assert_no_store(struct world *w)
{
	struct sd_store *s;

	load(w, img);
	assert_int_equal(memdev_open(&w->m, true, &s), -ENODATA);
}

/* Cut off anywhere: no store. */
static void a_torn_dump_is_refused(void **state)
{
	struct world *w = malloc(sizeof(*w));
	size_t len, at;
	char *text;

	make(w, 79);
	wipe(w, true);
	save(w, img);
	text = slurp(&len);
	for (at = 0; at < len - 1; at += 1 + len / 60) {
		spit(text, at);
		assert_int_not_equal(call(&cmd_restore, "/dev/null", "-i", json, "-o", img, NULL), 0);
	}
	assert_no_store(w);
	free(text);
	memdev_exit(&w->m);
	free(w);
}

/* Any byte changed: refused. (The last line has nothing to change but its own numbers and brackets.) */
static void a_changed_dump_is_refused(void **state)
{
	struct world *w = malloc(sizeof(*w));
	u64 seed = 5;
	size_t len, at;
	char *text;
	u32 i, refused = 0, changed = 0;

	make(w, 80);
	wipe(w, true);
	save(w, img);
	text = slurp(&len);
	text = realloc(text, len + 4096);
	for (i = 0; i < 150; i++) {
		char old;

		at = dice(&seed, i % 2 ? len : 1500);
		old = text[at];
		if (strchr(text + at, '\n') == text + len - 1)
			continue;
		text[at] = "0987654321-x\"{}[],: \n"[dice(&seed, 21)];
		changed += text[at] != old;
		spit(text, len);
		refused += !!call(&cmd_restore, "/dev/null", "-i", json, "-o", img, NULL);
		text[at] = old;
		wipe_file();
	}
	assert_true(refused > 100 && refused == changed);
	assert_no_store(w);
	free(text);
	memdev_exit(&w->m);
	free(w);
}

/* The checksum can be made right again: one record twice, and two that share their data. */
static void a_forged_dump_is_refused(void **state)
{
	struct world *w = malloc(sizeof(*w));
	char *text, *forged, *first, *second, *end;
	size_t len;

	make(w, 82);
	wipe(w, true);
	save(w, img);
	text = slurp(&len);
	forged = malloc(len + 65536);
	first = strstr(text, "\"kind\":\"data\"");
	while (first[-1] != '\n')
		first--;
	second = strchr(first, '\n') + 1;
	end = strstr(text, "],\"end\":");
	memcpy(forged, text, second - text);
	memcpy(forged + (second - text), first, second - first);
	memcpy(forged + (second - text) + (second - first), second, end - second);
	len = end - text + (second - first);
	len += sprintf(forged + len, "],\"end\":{\"generations\":%u,\"records\":%llu,\"crc32c\":%u}}\n", w->nr,
		       strtoull(strstr(end, "records") + 9, NULL, 10) + 1, crc32c(~0u, forged, len));
	spit(forged, len);
	assert_int_equal(call(&cmd_restore, "/dev/null", "-i", json, "-o", img, NULL), SNAP_EXIT_USAGE);
	assert_no_store(w);
	free(forged);
	free(text);
	memdev_exit(&w->m);
	free(w);
}

/* Data that is not what the records say is found by --data, and when it is copied. */
static void wrong_data_is_refused(void **state)
{
	struct world *w = malloc(sizeof(*w));
	struct sd_rec rec = { 0 };
	struct sd_store *s;
	u32 c;

	make(w, 81);
	assert_int_equal(memdev_open(&w->m, true, &s), 0);
	for (c = 0; c < CHUNKS && rec.kind != SD_KIND_DATA; c++)
		assert_int_equal(sd_lookup_newest(s->cur, c, &rec), 0);
	assert_int_equal(rec.kind, SD_KIND_DATA);
	sd_close(s);
	w->m.data[rec.addr * SD_BLOCK_SIZE + 17] ^= 1;
	wipe(w, true);
	save(w, img);
	assert_int_not_equal(call(&cmd_restore, "/dev/null", "-i", json, "-o", img, "--data", NULL), 0);
	assert_no_store(w);
	unlink(img2);
	assert_int_not_equal(call(&cmd_restore, "/dev/null", "-i", json, "-o", img2, "--data-from", img, NULL), 0);
	assert_int_equal(access(img2, F_OK), -1);
	memdev_exit(&w->m);
	free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(round_trip),
		cmocka_unit_test(onto_another_file),
		cmocka_unit_test(an_old_dump_is_refused),
		cmocka_unit_test(a_torn_dump_is_refused),
		cmocka_unit_test(a_changed_dump_is_refused),
		cmocka_unit_test(a_forged_dump_is_refused),
		cmocka_unit_test(wrong_data_is_refused),
	};
	int rc;

	if (!mkdtemp(dir))
		return 1;
	snprintf(img, sizeof(img), "%s/img", dir);
	snprintf(img2, sizeof(img2), "%s/img2", dir);
	snprintf(json, sizeof(json), "%s/dump", dir);
	rc = cmocka_run_group_tests(tests, NULL, NULL);
	unlink(img);
	unlink(img2);
	unlink(json);
	rmdir(dir);
	return rc;
}
