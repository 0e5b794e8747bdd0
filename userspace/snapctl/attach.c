// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * snapctl attach: check both devices, then make /dev/mapper/NAME.
 *
 * Every check comes before anything is written or created, so that a refusal changes nothing. The kernel checks
 * again; here the reasons can be named.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "snapctl.h"

#define MIB		(1ull << 20)
#define MIN_CACHE	(4 * MIB)	/* as in the module's table.c */
#define MAX_CACHE	(65536 * MIB)

struct attach {
	const char *name, *primary_path, *diff_path;
	const char *on_full;
	uint64_t cache_size;
	bool format, accept_changed, trust_primary;
	struct store_opts store;
	struct snap_blk primary, diff;
	struct store_id id;
};

static int check_device(const char *path, const char *role, struct snap_blk *blk, struct snap_err *e)
{
	int err = snap_blk_info(path, blk, e);

	if (!err && blk->read_only)
		err = snap_err_set(e, -EACCES, path, "cannot be the %s: the device is read-only", role);
	return err;
}

static int check_devices(struct attach *a, struct snap_err *e)
{
	char where[512];
	int err;

	err = check_device(a->primary_path, "primary", &a->primary, e);
	if (!err)
		err = check_device(a->diff_path, "diff", &a->diff, e);
	if (err)
		return err;
	if (snap_blk_overlap(a->primary.dev, a->diff.dev))
		return snap_err_set(e, -EMEDIUMTYPE, a->diff_path, "is the same device as the primary %s, or a part of it",
				    a->primary_path);
	if (!a->primary.size)
		return snap_err_set(e, -ENODEV, a->primary_path, "has no medium: its size is 0");
	if (a->diff.size < STORE_MIN_SIZE)
		return snap_err_set(e, -EMEDIUMTYPE, a->diff_path, "too small for a diff: %llu bytes, at least %llu are needed",
				    (unsigned long long)a->diff.size, (unsigned long long)STORE_MIN_SIZE);
	if (snap_blk_mounted(a->primary.dev, where, sizeof(where)))
		return snap_err_set(e, -EBUSY, a->primary_path,
				    "is mounted on %s: unmount it, attach, then mount /dev/mapper/%s instead", where, a->name);
	err = snap_blk_check_free(a->primary_path, e);
	return err ? err : snap_blk_check_free(a->diff_path, e);
}

static int no_store(const struct attach *a, struct snap_err *e)
{
	struct snap_blk_sig sig;

	if (snap_blk_signature(a->diff_path, &sig, NULL) == 1)
		return snap_err_set(e, -EMEDIUMTYPE, a->diff_path, "contains %s, not a snapdiff store", sig.type);
	return snap_err_set(e, -EMEDIUMTYPE, a->diff_path, "contains no snapdiff store: format it, or attach with --format");
}

/*
 * A store with another primary than its own, or one that was written without its diff, cannot keep its generations: that is refused unless it is asked for. What
 * can be seen beforehand is refused here, the rest by the module.
 */
static int check_pair(const struct attach *a, struct snap_err *e)
{
	if (a->id.diff_size > a->diff.size)
		return snap_err_set(e, -EMEDIUMTYPE, a->diff_path, "is smaller (%llu bytes) than the store on it (%llu)",
				    (unsigned long long)a->diff.size, (unsigned long long)a->id.diff_size);
	if (a->id.primary_size > a->primary.size && !a->accept_changed)
		return snap_err_set(e, -EMEDIUMTYPE, a->primary_path,
				    "is smaller (%llu bytes) than the primary of this diff was (%llu): its generations would be lost (--accept-changed gives them up)",
				    (unsigned long long)a->primary.size, (unsigned long long)a->id.primary_size);
	return 0;
}

/* The store into a->id, after making one if that is wanted. */
static int prepare_store(struct attach *a, struct snap_err *e)
{
	int rc;

	rc = store_identify(a->diff_path, &a->id, e);
	if (rc == 0 && a->format) {
		rc = store_format(a->diff_path, &a->store, e);
		if (!rc)
			rc = store_identify(a->diff_path, &a->id, e);
	}
	if (rc < 0)
		return rc;
	if (!rc)
		return no_store(a, e);
	return check_pair(a, e);
}

/* What the module found on attaching is worth a word now, and not only when a generation is wanted. */
static void warn_doubt(struct snap_nl *events, const char *name)
{
	struct snap_event ev;
	char text[256] = "";
	bool lost = false;

	while (snap_nl_event(events, &ev, 0, NULL) == 1) {
		if (ev.type == SNAPDIFF_EVENT_SUSPECT && !strcmp(ev.volume, name))
			snap_warn(name, "generations up to %u are suspect: %s", ev.gen, ev.text);
		if (ev.type != SNAPDIFF_EVENT_LOST || strcmp(ev.volume, name))
			continue;
		lost = true;
		snprintf(text, sizeof(text), "%s", ev.text);
	}
	if (lost)
		snap_warn(name, "generations are lost%s%s", text[0] ? ": " : "", text);
}

static int make_volume(struct attach *a, struct snap_err *e)
{
	char primary[32], diff[32], path[SNAP_VOLUME_BUF + 32];
	struct snap_dm_spec spec = {
		.name = a->name, .primary = primary, .diff = diff,
		.size = a->primary.size, .uuid = a->id.uuid, .on_full = a->on_full, .cache_size = a->cache_size,
		.accept_changed = a->accept_changed, .trust_primary = a->trust_primary,
	};
	struct snap_nl *events = NULL;
	int err;

	/* By number: a path may hold blanks, which a table line cannot. */
	snprintf(primary, sizeof(primary), "%u:%u", major(a->primary.dev), minor(a->primary.dev));
	snprintf(diff, sizeof(diff), "%u:%u", major(a->diff.dev), minor(a->diff.dev));
	err = snap_nl_open(&events, e);
	if (!err)
		err = snap_nl_subscribe(events, e);
	if (!err)
		err = snap_dm_attach(&spec, e);
	if (err == -EMEDIUMTYPE && e)
		snprintf(e->text + strlen(e->text), sizeof(e->text) - strlen(e->text),
			 "; its generations would be lost (--accept-changed gives them up)");
	if (!err) {
		puts(snap_dm_path(a->name, path, sizeof(path)));
		warn_doubt(events, a->name);
	}
	snap_nl_close(events);
	return err;
}

static int attach(struct attach *a, struct snap_err *e)
{
	struct snap_nl *nl;
	uint8_t policy;
	int err;

	err = snap_check_volume_name(a->name, e);
	if (!err && a->on_full)
		err = snap_parse_on_full(a->on_full, &policy, e);
	if (!err && a->cache_size && (a->cache_size < MIN_CACHE || a->cache_size > MAX_CACHE || a->cache_size % MIB))
		err = snap_err_set(e, -EINVAL, "--cache-size", "want 4 MiB to 64 GiB, whole MiB");
	if (!err)
		err = snap_dm_exists(a->name, e);
	if (err > 0)
		err = snap_err_set(e, -EEXIST, a->name, "a device-mapper device of this name exists already");
	if (!err)
		err = check_devices(a, e);
	/* Without the module nothing shall be formatted either. Asking for its netlink family loads it. */
	if (!err)
		err = snap_nl_open(&nl, e);
	if (err)
		return err;
	snap_nl_close(nl);
	err = prepare_store(a, e);
	return err ? err : make_volume(a, e);
}

static int run_attach(int argc, char **argv)
{
	struct snap_err e = SNAP_ERR_INIT;
	struct attach a = { 0 };
	uint64_t chunk = 0;
	const struct snap_opt opts[] = {
		{ "format", 'F', SNAP_OPT_FLAG, NULL, &a.format, "format DIFF first when it carries no store" },
		{ "chunk", 'c', SNAP_OPT_SIZE, "SIZE", &chunk, "with --format: as in snapctl format" },
		{ "journal-size", 'j', SNAP_OPT_SIZE, "SIZE", &a.store.journal_size, "with --format: as in snapctl format" },
		{ "force", 'f', SNAP_OPT_FLAG, NULL, &a.store.force, "with --format: overwrite a foreign signature" },
		{ "accept-changed", 0, SNAP_OPT_FLAG, NULL, &a.accept_changed,
		  "give the generations up if PRIMARY is not as it was left" },
		{ "trust-primary", 0, SNAP_OPT_FLAG, NULL, &a.trust_primary,
		  "after a crash: PRIMARY was not written since, no generation is suspect" },
		{ "on-full", 0, SNAP_OPT_STRING, "POLICY", &a.on_full,
		  "drop-oldest (default), drop-all or fail-snapshots" },
		{ "cache-size", 0, SNAP_OPT_SIZE, "SIZE", &a.cache_size, "kernel memory for the volume (default 64M, at least 4M)" },
		{ 0 }
	};
	int rc = snap_opts(&cmd_attach, opts, &argc, &argv);

	if (rc >= 0)
		return rc;
	a.name = argv[0];
	a.primary_path = argv[1];
	a.diff_path = argv[2];
	if (store_check_chunk(chunk, &e))
		return snap_err_report(&e);
	a.store.chunk_size = chunk;
	if (attach(&a, &e))
		return snap_err_report(&e);
	return SNAP_EXIT_OK;
}

const struct snap_cmd cmd_attach = {
	.name = "attach",
	.args = "NAME PRIMARY DIFF",
	.summary = "Attach a volume and print its device, /dev/mapper/NAME",
	.help = "PRIMARY is used as it is and stays a plain device; it must not be mounted. A store on DIFF is kept:\n"
		"--format acts only when there is none.",
	.min_args = 3,
	.max_args = 3,
	.run = run_attach,
};
