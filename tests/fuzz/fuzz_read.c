// SPDX-License-Identifier: GPL-2.0-or-later
/* Runs: lookups, ranges, windows, extents, changes, and the checker, on whatever can be opened. */
#include "image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static u64 complaints;

static void complain(void *ctx, const char *text)
{
	complaints += strlen(text);
}

static void read_gen(struct sd_store *s, u32 gen)
{
	struct sd_version *v = sd_version_get(s);
	unsigned long map[4] = { 0 };
	struct sd_rec rec, recs[64];
	struct sd_extent x[8];
	u64 pos, last, c;
	u32 n;

	for (c = 0; c < 700; c += 37) {
		sd_lookup(v, c, gen, &rec);
		sd_lookup_newest(v, c, &rec);
		sd_lookup_new(v, c, gen);
	}
	sd_lookup_range(v, 5, 64, gen, recs);
	sd_lookup_range(v, (1ull << 56) - 8, 8, gen, recs);
	sd_window_fill(v, gen, 100, 200, map);
	for (pos = n = 0; n < 200 && pos < 1000; n++) {
		int got;

		last = pos;
		got = sd_map_extents(v, gen, &pos, 1000, x, ARRAY_SIZE(x));
		if (got < 0)
			break;
		if (pos <= last || !got)
			abort();	/* it has to get on */
	}
	for (pos = n = 0; n < 200 && pos < 1000; n++)
		if (sd_change_extents(v, gen, gen + 3, &pos, 1000, x, ARRAY_SIZE(x)) < 0)
			break;
	sd_version_put(v);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sd_open_opts o = { .read_only = true, .mem_records = 1024, .complain = complain };
	struct sd_check_result res;
	static struct image m;
	struct sd_store *s;
	struct sd_gen g;
	u32 n = 0, count = 0;

	if (!image_decode(&m, data, size))
		return 0;
	if (!sd_open(&m.dev, &o, &s)) {
		for (; count++ < 6 && !sd_gen_next(s, n, &g) && g.number != U32_MAX; n = g.number + 1)
			read_gen(s, g.number);
		read_gen(s, 1);
		sd_check(s, SD_CHECK_DATA, &res);
		sd_close(s);
	}
	image_free(&m);
	return 0;
}
