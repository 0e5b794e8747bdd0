// SPDX-License-Identifier: GPL-2.0-or-later
/* snapmeta repair: the verb. What is done and why it may be believed is in repair.c. */
#include <fcntl.h>
#include <jansson.h>
#include <unistd.h>
#include "name.h"
#include "repair.h"
#include "snapmeta.h"

struct repairing_cmd {
	const char *path, *out_path;
	bool json, quiet, created;
	uint32_t max_bad;
	struct repair_opts o;
	struct filedev in, out;
	json_t *said;
};

static void say(void *ctx, const char *text)
{
	struct repairing_cmd *c = ctx;

	if (c->json)
		json_array_append_new(c->said, json_string(text));
	else if (!c->quiet)
		printf("%s: %s\n", c->path, text);
}

static const char *state_name(u32 state)
{
	return state == SD_GEN_LIVE ? "live" : state == SD_GEN_BOOKMARK ? "bookmark" : "lost";
}

static void print_json(struct repairing_cmd *c, const struct repair_result *res)
{
	json_t *gens = json_array(), *o;
	u32 i;

	for (i = 0; i < res->nr_gen; i++) {
		const struct repair_gen *g = &res->gen[i];

		json_array_append_new(gens, json_pack("{s:I,s:s,s:b,s:I,s:b}", "generation", (json_int_t)g->gen.number, "state",
						      state_name(g->gen.state), "was_live", g->was_live, "unreadable_chunks",
						      (json_int_t)g->bad, "changes_known",
						      !(g->gen.flags & SD_GEN_F_CHANGES_UNKNOWN)));
	}
	o = json_pack("{s:s,s:I,s:b,s:I,s:b,s:I,s:I,s:I,s:o,s:O}", "device", c->path, "findings", (json_int_t)res->findings, "written",
		      res->findings && !c->o.dry_run, "transaction", (json_int_t)res->transaction, "older_superblock", res->older,
		      "records", (json_int_t)res->records, "unreadable_records", (json_int_t)res->bad, "lost", (json_int_t)res->lost,
		      "generations", gens, "messages", c->said);
	json_dumpf(o, stdout, JSON_COMPACT | JSON_PRESERVE_ORDER);
	putchar('\n');
	json_decref(o);
}

static void print_text(const struct repairing_cmd *c, const struct repair_result *res)
{
	u32 i, whole = 0;

	if (!res->findings) {
		printf("%s: nothing to repair\n", c->path);
		return;
	}
	if (res->older)
		printf("%s: the older superblock (transaction %llu) leads to more\n", c->path, (unsigned long long)res->transaction);
	for (i = 0; i < res->nr_gen; i++) {
		const struct repair_gen *g = &res->gen[i];

		if (g->was_live && g->gen.state != SD_GEN_LIVE)
			printf("%s: generation %u: lost\n", c->path, g->gen.number);
		else if (g->gen.state == SD_GEN_LIVE && g->bad)
			printf("%s: generation %u: %llu chunks can no longer be read, all others are exact\n", c->path, g->gen.number,
			       (unsigned long long)g->bad);
		else
			whole += g->gen.state == SD_GEN_LIVE;
	}
	printf("%s: %u generations are whole, %u are lost; %llu records kept%s\n", c->path, whole, res->lost, (unsigned long long)res->records,
	       c->o.dry_run ? " (nothing has been written)" : "");
}

static int open_output(struct repairing_cmd *c, struct snap_err *e)
{
	int fd = open(c->out_path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600), err = 0;

	if (fd >= 0) {
		c->created = true;
		err = ftruncate(fd, c->in.dev.nr_blocks << SD_BLOCK_SHIFT) ? -errno : 0;
		close(fd);
	} else if (errno == EEXIST) {
		struct snap_err ignored = SNAP_ERR_INIT;
		struct sd_disk_super *d = sd_malloc(SD_BLOCK_SIZE);
		struct sd_store s = { .dev = &c->out.dev };

		(void)ignored;
		err = d ? filedev_open(&c->out, c->out_path, false, true) : -ENOMEM;
		if (!err && sd_super_read(&s, d) != -ENODATA) {
			filedev_close(&c->out);
			c->out.dev.ops = NULL;
			err = -EEXIST;
		}
		sd_free(d);
		if (err == -EEXIST)
			return snap_err_set(e, err, c->out_path, "holds a differential volume already");
		return err ? snap_err_sys(e, err, c->out_path, "cannot open") : 0;
	} else {
		err = -errno;
	}
	if (!err)
		err = filedev_open(&c->out, c->out_path, false, true);
	return err ? snap_err_sys(e, err, c->out_path, "cannot create") : 0;
}

static int open_devices(struct repairing_cmd *c, struct snap_err *e)
{
	int err = filedev_open(&c->in, c->path, c->o.dry_run || c->out_path, true);

	if (err == -EBUSY)
		return snap_err_set(e, err, c->path, "in use: mounted, attached or held by another device");
	if (err)
		return snap_err_sys(e, err, c->path, "cannot open");
	return c->out_path && !c->o.dry_run ? open_output(c, e) : 0;
}

/* The checker's word on what was written. */
static int verify(struct sd_dev *dev, const char *path, struct snap_err *e)
{
	struct sd_open_opts o = { .read_only = true };
	struct sd_check_result res;
	struct sd_store *s;
	int err = sd_open(dev, &o, &s);

	if (!err) {
		err = sd_check(s, 0, &res);
		if (!err && res.errors)
			err = -EUCLEAN;
		sd_close(s);
	}
	return err ? snap_err_set(e, err, path, "the repaired store does not check: please report this") : 0;
}

static int explain(int err, const struct repairing_cmd *c, struct snap_err *e)
{
	switch (err) {
	case -ENODATA:
		return snap_err_set(e, err, c->path, "neither superblock can be used: nothing of it can be proved (restore a dump, or format)");
	case -ENOTSUPP:
		return snap_err_set(e, err, c->path, "written by another version of snapdiff, in a format that this one does not know");
	case -ENOSPC:
		return snap_err_set(e, err, c->path, "no room beside the old metadata: repair onto another device with --output");
	default:
		return snap_err_sys(e, err, c->path, "cannot repair");
	}
}

static int work(struct repairing_cmd *c, struct repair_result *res, struct snap_err *e)
{
	struct sd_dev *out = c->out_path && !c->o.dry_run ? &c->out.dev : &c->in.dev;
	int err = repair(&c->in.dev, out, &c->o, res);

	if (err)
		return explain(err, c, e);
	return res->findings && !c->o.dry_run ? verify(out, c->out_path ? c->out_path : c->path, e) : 0;
}

static int run(int argc, char **argv)
{
	struct repairing_cmd c = { 0 };
	struct snap_err e = SNAP_ERR_INIT;
	struct repair_result res = { 0 };
	const struct snap_opt opts[] = {
		{ "output", 'o', SNAP_OPT_STRING, "DIFF|IMAGE", &c.out_path, "write the repaired store here (a device, or a new file); the damaged one stays" },
		{ "dry-run", 'n', SNAP_OPT_FLAG, NULL, &c.o.dry_run, "say what would be done; write nothing" },
		{ "data", 'd', SNAP_OPT_FLAG, NULL, &c.o.data, "also read all preserved chunks; what is damaged becomes unreadable" },
		{ "max-unreadable", 0, SNAP_OPT_U32, "N", &c.max_bad, "lose generations rather than make more than N chunks unreadable (65536)" },
		{ "json", 'J', SNAP_OPT_FLAG, NULL, &c.json, "print JSON" },
		{ "quiet", 'q', SNAP_OPT_FLAG, NULL, &c.quiet, "print errors only" },
		{ 0 }
	};
	int rc = snap_opts(&cmd_repair, opts, &argc, &argv);
	int err;

	if (rc >= 0)
		return rc ? FSCK_USAGE : FSCK_OK;
	c.path = argv[0];
	c.o.say = say;
	c.o.ctx = &c;
	c.o.max_bad = c.max_bad;
	c.said = json_array();
	err = open_devices(&c, &e);
	if (!err)
		err = work(&c, &res, &e);
	if (err)
		snap_err_report(&e);
	else if (c.json)
		print_json(&c, &res);
	else if (!c.quiet)
		print_text(&c, &res);
	if (c.created && (err || !res.findings))
		unlink(c.out_path);
	if (c.out.dev.ops)
		filedev_close(&c.out);
	if (c.in.dev.ops)
		filedev_close(&c.in);
	json_decref(c.said);
	rc = err ? FSCK_OPERATIONAL : !res.findings ? FSCK_OK : c.o.dry_run ? FSCK_ERRORS : FSCK_CORRECTED;
	repair_result_free(&res);
	return rc;
}

const struct snap_cmd cmd_repair = {
	.name = "repair",
	.args = "DIFF|IMAGE",
	.summary = "Rebuild the metadata of a damaged differential volume",
	.help = "Keeps every generation that can be proved exact. Where records may be missing, the chunks concerned become unreadable (EIO) in the\n"
		"generations concerned, or those generations are lost; no byte is ever wrong. The primary is not needed.\n"
		"Exit status: 0 nothing to repair, 1 repaired, 4 with --dry-run: there is something, 8 it could not be done, 16 usage.",
	.min_args = 1,
	.max_args = 1,
	.run = run,
};
