// SPDX-License-Identifier: GPL-2.0-or-later
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd.h"
#include "name.h"
#include "restore.h"

static const char help[] =
	"--from SOURCE: a media server HOST[:PORT] or ssh://[USER@]HOST[/REPO], a repository directory, a stream file, or -\n"
	"(stdin). More stream files follow as arguments: the increments on the first, oldest first.\n"
	"--to: a new file (sparse), a block device that nobody uses, or - (stdout).\n"
	"Everything is checked before it is written; a file appears under its name only when it is whole.\n"
	"--host has the agent of another machine do all this there: snaprestore --host HOST --help.";

static int run(int argc, char **argv);
static const struct snap_cmd cmd = {
	.args = "--from SOURCE [FILE]... --gen N --to TARGET", .summary = "bring back a generation", .help = help,
	.max_args = -1, .run = run,
};

static int restore(struct restore_options *o, struct sm_err *e)
{
	int err;

	if (o->from.kind == SM_DEST_REPO)
		err = restore_repo(o, e);
	else if (o->nr_chain)
		err = restore_streams(o, e);
	else
		err = restore_server(o, e);
	if (!err)
		err = target_finish(&o->target, e);
	if (!err && o->target.diff && !o->quiet)
		fprintf(stderr, "snaprestore: %llu bytes differed and were written\n", (unsigned long long)o->target.differed);
	if (!err)
		return o->json ? restore_receipt(o, e) : 0;
	target_abort(&o->target);
	return err;
}

/* The source and the arguments are one chain of streams. */
static int make_chain(struct restore_options *o, int argc, char **argv, struct sm_err *e)
{
	const char **chain;

	if (o->from.kind != SM_DEST_FILE && o->from.kind != SM_DEST_STDIO)
		return argc ? sm_fail(e, -EINVAL, "%s: only streams can be followed by others", argv[0]) : 0;
	chain = calloc(argc + 1, sizeof(*chain));
	if (!chain)
		return sm_fail(e, -ENOMEM, "no memory");
	chain[0] = o->from_text;
	for (int i = 0; i < argc; i++)
		chain[i + 1] = argv[i];
	o->chain = chain;
	o->nr_chain = argc + 1;
	return 0;
}

/* "OFFSET:LENGTH[,...]", sizes as elsewhere. */
static int parse_ranges(const char *text, struct restore_options *o)
{
	uint64_t end = 0;

	o->ranges = calloc(SM_MAX_RANGES, sizeof(*o->ranges));
	while (o->ranges && *text && o->nr_ranges < SM_MAX_RANGES) {
		struct sm_extent *x = &o->ranges[o->nr_ranges];
		size_t len = strcspn(text, ",");
		char part[80], *colon;
		struct snap_err se;

		snprintf(part, sizeof(part), "%.*s", (int)len, text);
		colon = strchr(part, ':');
		if (len >= sizeof(part) || !colon)
			return -EINVAL;
		*colon = '\0';
		if (snap_parse_size(part, &x->offset, &se) || snap_parse_size(colon + 1, &x->length, &se) || !x->length ||
		    x->offset % SM_BLOCK || x->length % SM_BLOCK || x->offset < end || x->length > SM_SIZE_MAX ||
		    x->offset > SM_SIZE_MAX)
			return -EINVAL;
		end = x->offset + x->length;
		o->nr_ranges++;
		text += len + (text[len] == ',');
	}
	return *text || !o->nr_ranges ? -EINVAL : 0;
}

static int run(int argc, char **argv)
{
	struct restore_options o = { .target = { .fd = -1 } };
	const char *ranges = NULL, *key_file = NULL, *manifest = NULL;
	uint8_t hash[SM_DIGEST];
	struct sm_secret key;
	bool list = false;
	const struct snap_opt opts[] = {
		{ "from", 'f', SNAP_OPT_STRING, "SOURCE", &o.from_text, "where from" },
		{ "volume", 'v', SNAP_OPT_STRING, "NAME|UUID", &o.volume, "volume (default: the only one there)" },
		{ "gen", 'g', SNAP_OPT_U32, "N", &o.gen, "generation" },
		{ "to", 't', SNAP_OPT_STRING, "TARGET", &o.target.path, "file, device or -" },
		{ "list", 'l', SNAP_OPT_FLAG, NULL, &list, "list what can be restored" },
		{ "range", 'r', SNAP_OPT_STRING, "OFFSET:LENGTH[,...]", &ranges, "only these parts: multiples of 4096, ascending" },
		{ "diff-against-live", 0, SNAP_OPT_FLAG, NULL, &o.target.diff, "compare with what is there, write only what differs" },
		{ "manifest", 'm', SNAP_OPT_STRING, "HASH", &manifest, "only the generation whose receipt said so" },
		{ "unproven", 0, SNAP_OPT_FLAG, NULL, &o.unproven, "do not compare the whole with the manifests: when a proof is damaged" },
		{ "key", 'k', SNAP_OPT_STRING, "KEYFILE", &key_file, "what it is encrypted with" },
		{ "force", 0, SNAP_OPT_FLAG, NULL, &o.target.force, "replace an existing file" },
		{ "quiet", 'q', SNAP_OPT_FLAG, NULL, &o.quiet, "no progress" },
		{ "progress-json", 0, SNAP_OPT_FLAG, NULL, &o.progress_json, "progress as lines of JSON on stderr" },
		{ "json", 'J', SNAP_OPT_FLAG, NULL, &o.json, "list, or receipt at the end, as JSON" },
		{ "stats", 0, SNAP_OPT_FLAG, NULL, &o.stats, "what came from the server, as a line of JSON on stderr" },
		{ 0 }
	};
	struct sm_err e = { 0 };
	int rc = snap_opts(&cmd, opts, &argc, &argv), err;

	if (rc >= 0)
		return rc;
	if (!o.from_text || (!list && !o.target.path))
		return snap_usage_error("--from and --to (or --list) are needed");
	if (ranges && parse_ranges(ranges, &o))
		return snap_usage_error("--range: OFFSET:LENGTH[,...], multiples of 4096, ascending");
	if (o.json && !list && !strcmp(o.target.path, "-"))
		return snap_usage_error("--json: stdout gets the image");
	if (manifest && sm_unhex(manifest, hash, SM_DIGEST))
		return snap_usage_error("--manifest: 64 hexadecimal digits, as snapbackup's receipt has them");
	if (manifest)
		o.manifest = hash;
	signal(SIGPIPE, SIG_IGN);
	target_signals();
	err = sm_dest_parse(o.from_text, &o.from, &e);
	if (!err)
		err = make_chain(&o, argc, argv, &e);
	if (!err && ranges && o.nr_chain)
		return snap_usage_error("--range: not with streams");
	if (!err && !list && !o.gen && !o.nr_chain)
		return snap_usage_error("--gen is needed");
	if (!err && key_file && !list) {
		err = sm_secret_load(key_file, &key, &e);
		o.key = &key;
	}
	if (!err)
		err = list ? list_generations(&o, &e) : restore(&o, &e);
	if (o.key)
		sm_secret_wipe(&key);
	free((void *)o.chain);
	free(o.ranges);
	return snap_report(err, e.text);
}

static bool has_host(char **argv)
{
	for (; *argv && strcmp(*argv, "--"); argv++)
		if (!strncmp(*argv, "--host", 6) || !strncmp(*argv, "-H", 2))
			return true;
	return false;
}

int main(int argc, char **argv)
{
	return snap_main_single("snaprestore", has_host(argv + (argc > 0)) ? &cmd_remote : &cmd, argc, argv);
}
