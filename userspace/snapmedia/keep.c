// SPDX-License-Identifier: GPL-2.0-or-later
/* prune, gc, lock, unlock: what stays. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "keep.h"
#include "order.h"

/* ---- prune ---- */

static const struct snap_col prune_cols[] = {
	{ "client", "CLIENT", SNAP_COL_STRING, 0, 0 },
	{ "volume", "VOLUME", SNAP_COL_STRING, 0, 0 },
	{ "volume_uuid", "UUID", SNAP_COL_UUID, SNAP_COL_HIDDEN, 0 },
	{ "generation", "GEN", SNAP_COL_NUMBER, 0, 0 },
	{ "received", "RECEIVED", SNAP_COL_TIME, 0, 0 },
	{ "action", "ACTION", SNAP_COL_STRING, 0, 0 },
	{ "reason", "WHY", SNAP_COL_STRING, 0, 0 },
	{ "damaged", "DAMAGED", SNAP_COL_BOOL, SNAP_COL_HIDDEN, 0 },
};

static const char prune_help[] =
	"Without --apply it only says what it would do. The rules are those of Proxmox Backup Server: applied in the order above, each from\n"
	"the newest generation to the oldest, and each keeps the newest one of so many periods; what an earlier rule has kept\n"
	"does not count for a later one. Times are those at which this server received the generations. Locked generations stay, as do\n"
	"those that are being read and those that an upload under way builds on. An increment does not need its parent: any may go.\n"
	"A generation that a verification found damaged takes the place of no sound one, and stays as long as it would have stayed.";

static int run_prune(int argc, char **argv)
{
	struct sm_policy p = { { 0 } };
	struct snap_out_opts oo = { 0 };
	struct order o = { 0 };
	bool apply = false, no_gc = false, damaged = false;
	const struct snap_opt opts[] = {
		{ "keep-last", 0, SNAP_OPT_U32, "N", &p.keep[SM_KEEP_LAST], "the last N" },
		{ "keep-hourly", 0, SNAP_OPT_U32, "N", &p.keep[SM_KEEP_HOURLY], "the last of each of N hours" },
		{ "keep-daily", 0, SNAP_OPT_U32, "N", &p.keep[SM_KEEP_DAILY], "... days" },
		{ "keep-weekly", 0, SNAP_OPT_U32, "N", &p.keep[SM_KEEP_WEEKLY], "... weeks, from Monday to Sunday" },
		{ "keep-monthly", 0, SNAP_OPT_U32, "N", &p.keep[SM_KEEP_MONTHLY], "... months" },
		{ "keep-yearly", 0, SNAP_OPT_U32, "N", &p.keep[SM_KEEP_YEARLY], "... years" },
		{ "damaged", 0, SNAP_OPT_FLAG, NULL, &damaged, "instead: those whose manifests are damaged, as long as they are there gc does nothing" },
		{ "apply", 0, SNAP_OPT_FLAG, NULL, &apply, "do it, and return the space" },
		{ "no-gc", 0, SNAP_OPT_FLAG, NULL, &no_gc, "leave the space to a later \"snapmedia gc\"" },
		ORDER_WHERE(&o), ORDER_VOLUME(&o), SNAP_OPT_OUTPUT(&oo), { 0 }
	};
	int rc = snap_opts(&cmd_prune, opts, &argc, &argv);

	if (rc < 0)
		rc = order_begin(&o, "prune", argc, argv);
	if (rc >= 0)
		return rc;
	for (int i = 0; damaged && i < SM_NR_RULES; i++)
		if (p.keep[i]) {
			json_decref(o.json);
			return snap_usage_error("--damaged goes without --%s", sm_rule_names[i]);
		}
	for (int i = 0; i < SM_NR_RULES; i++)
		json_object_set_new(o.json, sm_rule_names[i], json_integer(p.keep[i]));
	json_object_set_new(o.json, "damaged", json_boolean(damaged));
	json_object_set_new(o.json, "apply", json_boolean(apply));
	json_object_set_new(o.json, "gc", json_boolean(!no_gc));
	rc = order_table(&o, "generations", prune_cols, sizeof(prune_cols) / sizeof(*prune_cols), &oo);
	if (!rc && !apply)
		fprintf(stderr, "snapmedia: nothing was removed: --apply does it\n");
	return rc;
}

const struct snap_cmd cmd_prune = {
	.name = "prune", .args = "[REPO] --keep-... N | --damaged", .summary = "give up generations by rules", .help = prune_help,
	.max_args = 1, .run = run_prune,
};

/* ---- gc ---- */

static const struct snap_col gc_cols[] = {
	{ "client", "CLIENT", SNAP_COL_STRING, 0, 0 },
	{ "volume", "VOLUME", SNAP_COL_STRING, 0, 0 },
	{ "id", "ID", SNAP_COL_STRING, SNAP_COL_HIDDEN, 0 },
	{ "removed_packs", "PACKS", SNAP_COL_NUMBER, 0, 0 },
	{ "removed_maps", "MAPS", SNAP_COL_NUMBER, 0, 0 },
	{ "released_records", "RECORDS", SNAP_COL_NUMBER, 0, 0 },
	{ "freed_bytes", "FREED", SNAP_COL_SIZE, 0, 0 },
};

static int run_gc(int argc, char **argv)
{
	struct snap_out_opts oo = { 0 };
	struct order o = { 0 };
	bool dry_run = false;
	const struct snap_opt opts[] = {
		{ "dry-run", 0, SNAP_OPT_FLAG, NULL, &dry_run, "only say what would come back" },
		ORDER_WHERE(&o), ORDER_VOLUME(&o), SNAP_OPT_OUTPUT(&oo), { 0 }
	};
	int rc = snap_opts(&cmd_gc, opts, &argc, &argv);

	if (rc < 0)
		rc = order_begin(&o, "gc", argc, argv);
	if (rc >= 0)
		return rc;
	json_object_set_new(o.json, "apply", json_boolean(!dry_run));
	return order_table(&o, "volumes", gc_cols, sizeof(gc_cols) / sizeof(*gc_cols), &oo);
}

const struct snap_cmd cmd_gc = {
	.name = "gc", .args = "[REPO]", .summary = "return the space of what no generation needs", .max_args = 1, .run = run_gc,
};

/* ---- locks ---- */

static const struct snap_col lock_cols[] = {
	{ "client", "CLIENT", SNAP_COL_STRING, 0, 0 },
	{ "volume", "VOLUME", SNAP_COL_STRING, 0, 0 },
	{ "generation", "GEN", SNAP_COL_NUMBER, 0, 0 },
	{ "locked", "LOCKED", SNAP_COL_STRING, 0, 0 },
	{ "locked_until", "UNTIL", SNAP_COL_TIME, 0, 0 },
};

/* "YYYY-MM-DD[ HH:MM[:SS]]", local time, into ns. */
static int parse_time(const char *text, uint64_t *ns)
{
	struct tm tm = { .tm_isdst = -1 };
	const char *end = strptime(text, "%Y-%m-%d", &tm), *more;
	time_t t;

	if (end && (*end == ' ' || *end == 'T')) {
		more = strptime(end + 1, "%H:%M:%S", &tm);
		end = more ? more : strptime(end + 1, "%H:%M", &tm);
	}
	if (!end || *end)
		return -EINVAL;
	t = mktime(&tm);
	if (t <= 0)
		return -EINVAL;
	*ns = (uint64_t)t * 1000000000u;
	return 0;
}

static int act(struct order *o, const char *verb, uint32_t gen, const char *until, int argc, char **argv,
	       const struct snap_out_opts *oo)
{
	uint64_t ns = 0;
	int rc;

	if (!gen)
		return snap_usage_error("--gen is needed");
	if (until && parse_time(until, &ns))
		return snap_usage_error("--until: YYYY-MM-DD or \"YYYY-MM-DD HH:MM[:SS]\"");
	rc = order_begin(o, verb, argc, argv);
	if (rc >= 0)
		return rc;
	json_object_set_new(o->json, "generation", json_integer(gen));
	if (until)
		json_object_set_new(o->json, "until", json_integer(ns));
	return order_table(o, "generations", lock_cols, sizeof(lock_cols) / sizeof(*lock_cols), oo);
}

static int run_lock(int argc, char **argv)
{
	struct snap_out_opts oo = { 0 };
	const char *until = NULL;
	struct order o = { 0 };
	uint32_t gen = 0;
	const struct snap_opt opts[] = {
		{ "gen", 'g', SNAP_OPT_U32, "N", &gen, "generation" },
		{ "until", 'u', SNAP_OPT_STRING, "TIME", &until, "YYYY-MM-DD[ HH:MM[:SS]] (default: until it is unlocked)" },
		ORDER_WHERE(&o), ORDER_VOLUME(&o), SNAP_OPT_OUTPUT(&oo), { 0 }
	};
	int rc = snap_opts(&cmd_lock, opts, &argc, &argv);

	return rc >= 0 ? rc : act(&o, "lock", gen, until, argc, argv, &oo);
}

static int run_unlock(int argc, char **argv)
{
	struct snap_out_opts oo = { 0 };
	struct order o = { 0 };
	uint32_t gen = 0;
	const struct snap_opt opts[] = {
		{ "gen", 'g', SNAP_OPT_U32, "N", &gen, "generation" },
		ORDER_WHERE(&o), ORDER_VOLUME(&o), SNAP_OPT_OUTPUT(&oo), { 0 }
	};
	int rc = snap_opts(&cmd_unlock, opts, &argc, &argv);

	return rc >= 0 ? rc : act(&o, "unlock", gen, NULL, argc, argv, &oo);
}

const struct snap_cmd cmd_lock = {
	.name = "lock", .args = "[REPO] --gen N", .summary = "a generation that prune does not take", .max_args = 1, .run = run_lock,
};

const struct snap_cmd cmd_unlock = {
	.name = "unlock", .args = "[REPO] --gen N", .summary = "take the lock away", .max_args = 1, .run = run_unlock,
};
