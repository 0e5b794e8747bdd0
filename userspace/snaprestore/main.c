// SPDX-License-Identifier: GPL-2.0-or-later
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "cmd.h"
#include "restore.h"

static const char help[] =
	"--from SOURCE: a media server HOST[:PORT] or ssh://[USER@]HOST[/REPO], a repository directory, a stream file, or -\n"
	"(stdin). More stream files follow as arguments: the increments on the first, oldest first.\n"
	"--to: a new file (sparse), a block device that nobody uses, or - (stdout).\n"
	"Everything is checked before it is written; a file appears under its name only when it is whole.";

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
		return target_finish(&o->target, e);
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

static int run(int argc, char **argv)
{
	struct restore_options o = { .target = { .fd = -1 } };
	bool list = false;
	const struct snap_opt opts[] = {
		{ "from", 'f', SNAP_OPT_STRING, "SOURCE", &o.from_text, "where from" },
		{ "volume", 'v', SNAP_OPT_STRING, "NAME|UUID", &o.volume, "volume (default: the only one there)" },
		{ "gen", 'g', SNAP_OPT_U32, "N", &o.gen, "generation" },
		{ "to", 't', SNAP_OPT_STRING, "TARGET", &o.target.path, "file, device or -" },
		{ "list", 'l', SNAP_OPT_FLAG, NULL, &list, "list what can be restored" },
		{ "force", 0, SNAP_OPT_FLAG, NULL, &o.target.force, "replace an existing file" },
		{ "quiet", 'q', SNAP_OPT_FLAG, NULL, &o.quiet, "no progress" },
		{ "progress-json", 0, SNAP_OPT_FLAG, NULL, &o.progress_json, "progress as lines of JSON on stderr" },
		{ "json", 'J', SNAP_OPT_FLAG, NULL, &o.json, "list as JSON" },
		{ 0 }
	};
	struct sm_err e = { 0 };
	struct snap_err se;
	int rc = snap_opts(&cmd, opts, &argc, &argv), err;

	if (rc >= 0)
		return rc;
	if (!o.from_text || (!list && !o.target.path))
		return snap_usage_error("--from and --to (or --list) are needed");
	signal(SIGPIPE, SIG_IGN);
	err = sm_dest_parse(o.from_text, &o.from, &e);
	if (!err)
		err = make_chain(&o, argc, argv, &e);
	if (!err && !list && !o.gen && !o.nr_chain)
		return snap_usage_error("--gen is needed");
	if (!err)
		err = list ? list_generations(&o, &e) : restore(&o, &e);
	free((void *)o.chain);
	if (!err)
		return 0;
	snap_err_set(&se, err, "", "%s", e.text);
	return snap_err_report(&se);
}

int main(int argc, char **argv)
{
	return snap_main_single("snaprestore", &cmd, argc, argv);
}
