// SPDX-License-Identifier: GPL-2.0-or-later
/* Superblocks, catalog and journal: open for writing, recover, attach, use and detach whatever can be opened. */
#include "image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void add_group(struct image *m, struct sd_store *s, struct sd_gen *gen, u64 chunk)
{
	struct sd_item items[4] = { { .chunk = chunk, .kind = SD_KIND_DATA }, { .chunk = 1 << 20, .kind = SD_KIND_ZERO },
				    { .chunk = chunk + 7, .kind = SD_KIND_DATA }, { .chunk = 3, .kind = SD_KIND_BAD } };
	struct sd_group *g;
	int err = sd_group_begin(s, &g);

	if (err)
		return;
	err = gen ? sd_group_put_gen(s, g, gen) : sd_group_add_items(s, g, items, 4);
	if (err >= 0)
		err = sd_group_seal(s, g);
	if (err) {
		sd_group_destroy(s, g);
		return;
	}
	image_write(m, g->image_addr, g->image_blocks, g->image);
	sd_group_commit(s, g);
}

static void use(struct image *m, struct sd_store *s)
{
	u8 fp[SD_FINGERPRINT_SIZE] = "fp";
	struct sd_summary sum;
	struct sd_info info;
	struct sd_gen gen;
	u32 n;

	sd_info(s, &info);
	sd_summary(s, &sum);
	if (sd_attach(s, 8192) || info.failed)
		return;
	gen = (struct sd_gen){ .number = sum.highest + 1, .state = SD_GEN_LIVE, .size_sectors = 8192 };
	if (gen.number)
		add_group(m, s, &gen, 0);
	for (n = 0; n < 4; n++)
		add_group(m, s, NULL, n * 100);
	for (n = 0; n < 20 && sd_background_work(s); n++)
		if (sd_step_whole(s, 0))
			break;
	if (!s->failed)
		sd_detach(s, fp);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sd_open_opts o = { .mem_records = 1024 };
	static struct image m;
	struct sd_store *s;

	if (!image_decode(&m, data, size))
		return 0;
	if (!sd_open(&m.dev, &o, &s)) {
		use(&m, s);
		sd_close(s);
	}
	image_free(&m);
	return 0;
}
