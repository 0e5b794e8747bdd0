// SPDX-License-Identifier: GPL-2.0-or-later
/* snapmeta repair: what it writes can be opened and has no errors, whatever it was made of. */
#include "image.h"
#include "repair.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must_check(struct sd_dev *dev)
{
	struct sd_open_opts o = { .read_only = true, .mem_records = 1024 };
	struct sd_check_result res;
	struct sd_store *s;

	if (sd_open(dev, &o, &s))
		abort();
	if (sd_check(s, 0, &res) || res.errors)
		abort();
	sd_close(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct repair_opts o = { .data = size & 1, .max_bad = 600 };
	struct repair_result res;
	static struct image m, out;
	bool elsewhere = size & 2;

	if (!image_decode(&m, data, size))
		return 0;
	image_init(&out, m.dev.nr_blocks);
	if (!repair(&m.dev, elsewhere ? &out.dev : &m.dev, &o, &res) && res.findings)
		must_check(elsewhere ? &out.dev : &m.dev);
	repair_result_free(&res);
	image_free(&m);
	image_free(&out);
	return 0;
}
