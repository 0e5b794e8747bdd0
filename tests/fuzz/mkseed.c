// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Make the seeds of the corpus: "mkseed DIR". They are in the tree; this is for the day when the format changes.
 */
#include <sys/stat.h>
#include "extent.h"
#include "frame.h"
#include "manifest.h"
#include "netlink_internal.h"
#include "../unit/core_world.h"
#include "salvage.h"

static const char *dir;

static void put_file(const char *sub, const char *name, const void *data, size_t len)
{
	char path[512];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, sub);
	mkdir(path, 0777);
	snprintf(path, sizeof(path), "%s/%s/%s", dir, sub, name);
	f = fopen(path, "w");
	if (!f || fwrite(data, 1, len, f) != len || fclose(f))
		exit(1);
}

/* ---- images: what the state refers to, and the journal ------------------------------------------------------------ */

static void image_seed(struct world *w, const char *name)
{
	struct sd_disk_super *super = sd_zalloc(2 * SD_BLOCK_SIZE);
	u32 nr, blocks = BLOCKS, b;
	struct salvage sal;
	u8 *out = malloc(4 << 20);
	size_t off = 4;

	assert_int_equal(salvage_supers(&w->m.dev, super, &nr), 0);
	assert_int_equal(salvage_load(&sal, &w->m.dev, super, NULL, NULL, NULL), 0);
	memcpy(out, &blocks, 4);
	for (b = 0; b < BLOCKS; b++) {
		const u8 *d = w->m.data + (size_t)b * SD_BLOCK_SIZE;
		u16 len = SD_BLOCK_SIZE;

		while (len && !d[len - 1])
			len--;
		if (!len || !(b < 68 || sal.seen[b / 8] >> b % 8 & 1))
			continue;
		memcpy(out + off, &b, 4);
		memcpy(out + off + 4, &len, 2);
		memcpy(out + off + 6, d, len);
		off += 6 + len;
	}
	put_file("image", name, out, off);
	salvage_free(&sal);
	free(super);
	free(out);
}

static void images(void)
{
	static const u32 events[] = { 2, 6, 10, 20, 30, 45, 60, 75 };
	struct world *w = malloc(sizeof(*w));
	char name[32];
	u32 i;

	for (i = 0; i < ARRAY_SIZE(events); i++) {
		begin(w, 500 + i);
		create(w);
		live_on(w, events[i]);
		if (i == 7) {	/* a deep run */
			checkpoint(w->s);
			until_idle(w->s);
		}
		end(w, i % 2);
		snprintf(name, sizeof(name), "history-%u", events[i]);
		image_seed(w, name);
		memdev_exit(&w->m);
	}
	free(w);
}

/* ---- answers over netlink ------------------------------------------------------------------------------------------- */

static struct nl_msg *answer(u8 cmd)
{
	struct nl_msg *m = nlmsg_alloc();

	genlmsg_put(m, 0, 0, 0x20, 0, NLM_F_MULTI, cmd, SNAPDIFF_FAMILY_VERSION);
	return m;
}

static void netlink_seed(const char *name, u8 op, struct nl_msg *m)
{
	u8 buf[8192];
	struct nlmsghdr done = { .nlmsg_len = NLMSG_LENGTH(sizeof(int)), .nlmsg_type = op % 2 ? NLMSG_DONE : NLMSG_ERROR };
	u16 len = nlmsg_hdr(m)->nlmsg_len;
	size_t off = 0;

	buf[off++] = op;
	memcpy(buf + off, &len, 2);
	memcpy(buf + off + 2, nlmsg_hdr(m), len);
	off += 2 + len;
	if (done.nlmsg_type == NLMSG_ERROR)
		done.nlmsg_len = NLMSG_LENGTH(sizeof(struct nlmsgerr));
	len = done.nlmsg_len;
	memcpy(buf + off, &len, 2);
	memset(buf + off + 2, 0, len);
	memcpy(buf + off + 2, &done, sizeof(done));
	put_file("netlink", name, buf, off + 2 + len);
	nlmsg_free(m);
}

static void answers(void)
{
	struct snapdiff_extent x[3] = { { .length = 4096 }, { .offset = 4096, .length = 8192, .where = 1 }, { .offset = 12288, .length = 1 << 20 } };
	static const u8 uuid[16] = "0123456789abcde";
	char name[32];
	u8 op;

	for (op = 0; op < 11; op++) {
		struct nl_msg *m = answer(SNAPDIFF_CMD_VOLUME_GET + op);
		struct nlattr *n;

		nla_put_string(m, SNAPDIFF_A_VOLUME, "v");
		nla_put_u32(m, SNAPDIFF_A_GEN, 1);
		nla_put_u32(m, SNAPDIFF_A_VIRT_INDEX, 1);
		if (op == 8 || op == 9)
			nla_put(m, SNAPDIFF_A_EXTENTS, sizeof(x), x);
		n = nla_nest_start(m, SNAPDIFF_A_GENERATION);
		nla_put_string(m, SNAPDIFF_GEN_A_VOLUME, "v");
		nla_put_u32(m, SNAPDIFF_GEN_A_NUMBER, 1);
		nla_put(m, SNAPDIFF_GEN_A_UUID, 16, uuid);
		nla_put_string(m, SNAPDIFF_GEN_A_LABEL, "label");
		nla_put_u8(m, SNAPDIFF_GEN_A_STATE, 1);
		nla_nest_end(m, n);
		snprintf(name, sizeof(name), "op-%u", op);
		netlink_seed(name, op, m);
	}
}

/* ---- media ------------------------------------------------------------------------------------------------------------ */

static void media_seed(const char *name, u8 kind, const void *data, size_t len)
{
	u8 *b = malloc(len + 2);

	b[0] = kind;
	b[1] = 1;
	memcpy(b + 2, data, len);
	put_file("media", name, b, len + 2);
	free(b);
}

/* PART of a frame of two blocks, and the frame. */
static void restore_seed(const u8 *data, size_t len)
{
	const struct sm_wire_extent x = { htole64(8192), htole64(4096) };
	u8 out[16384] = { 0, 24, 0, 1 };

	memcpy(out + 3 + 8, &x, sizeof(x));
	out[27] = 1;
	out[28] = len;
	out[29] = len >> 8;
	memcpy(out + 30, data, len);
	media_seed("restore", 6, out, 30 + len);
}

static void media(void)
{
	struct sm_extent x = { .offset = 4096, .length = 8192 };
	struct sm_manifest m = { .info = { .number = 1, .size = 1 << 20, .volume_name = "v", .label = "l" }, .tool = "seed" };
	u8 raw[8192], out[16384], page[3 * 4096] = { 0 };
	struct sm_wire_header h[3] = { { .type = htole16(SM_DATA), .length = htole32(16) }, { 0 } };
	ssize_t n;
	char *text;

	memset(raw, 'x', sizeof(raw));
	n = sm_data_pack(&x, 1, raw, sizeof(raw), 3, out, NULL);
	if (n > 0) {
		media_seed("data", 1, out, n);
		restore_seed(out, n);
	}
	media_seed("frames", 0, h, sizeof(h));
	text = sm_manifest_text(&m);
	media_seed("manifest", 3, text, strlen(text));
	free(text);
	memset(out, 0, sizeof(out));
	out[1] = 0x10;
	out[9] = 0x10;
	media_seed("zero", 2, out, 32);
	page[8] = 3;		/* entries */
	page[24] = 1;		/* packs */
	page[4096 + 4] = 3;
	page[4096 + 24] = page[4096 + 48] = page[4096 + 72] = 1;
	media_seed("segment", 4, page, 8192);
	memset(page, 0, 4096);
	media_seed("pack", 5, page, 400);
}

int main(int argc, char **argv)
{
	if (argc != 2)
		return 1;
	dir = argv[1];
	images();
	answers();
	media();
	return 0;
}
