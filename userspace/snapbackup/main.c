// SPDX-License-Identifier: GPL-2.0-or-later
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "backup.h"
#include "cmd.h"
#include "compare.h"
#include "name.h"

#define EXIT_AUDIT	7

static volatile int stop;

static void on_signal(int sig)
{
	if (stop)
		signal(sig, SIG_DFL);	/* the server does not even read: the third one ends it, pinned or not */
	stop = 1;
}

struct arguments {
	const char *dest, *base, *keep, *format, *audit, *image, *base_image, *changes, *uuid, *gen_uuid, *volume_name, *encrypt;
	uint32_t gen, level;
	uint64_t rate;
	bool compare, measure, dry_run, quiet, progress_json, json, force;
};

static const char help[] =
	"Sends a generation of volume NAME (default: the only one attached) to DEST:\n"
	"  HOST[:PORT]              a media server: TLS, once \"snapbackup enroll HOST\" has been run\n"
	"  ssh://[USER@]HOST[/REPO] snapmediad over ssh; $SNAPDIFF_SSH replaces the command \"ssh\"\n"
	"  REPO                     a repository directory on this machine\n"
	"  - or FILE                a self-contained stream, or with --format: rbd-diff (for \"rbd import-diff\"), raw\n"
	"--base auto takes the newest older generation or bookmark that both sides know, else compares with the newest that\n"
	"is there, else sends all, and says why.\n"
	"A backup that broke off is taken up where it was when the same command is run again.\n"
	"--encrypt: keep a copy of the key file elsewhere; without it nothing can be restored. \"snapbackup keygen KEYFILE\" makes one.\n"
	"--host has the agent of another machine do all this: snapbackup --host HOST --help.\n"
	"--image backs up a plain image or idle device instead; its changes are found by comparing with --base-image,\n"
	"the image of generation --base.";

static int run(int argc, char **argv);

static const struct snap_cmd cmd = {
	.args = "[NAME] --gen N --dest DEST",
	.summary = "send a generation to a media server",
	.help = help,
	.min_args = 0,
	.max_args = 1,
	.run = run,
};

static int parse_base(const char *text, struct backup_options *o)
{
	struct snap_err se;

	if (!text || !strcmp(text, "auto"))
		o->base_mode = BASE_AUTO;
	else if (!strcmp(text, "none"))
		o->base_mode = BASE_NONE;
	else if (snap_parse_u32(text, 1, UINT32_MAX - 1, &o->base, &se))
		return -EINVAL;
	else
		o->base_mode = BASE_NUMBER;
	return 0;
}

static int parse_format(const char *text, enum backup_format *f)
{
	static const char *const names[] = { "stream", "rbd-diff", "raw" };

	for (size_t i = 0; text && i < sizeof(names) / sizeof(*names); i++)
		if (!strcmp(text, names[i])) {
			*f = i;
			return 0;
		}
	return text ? -EINVAL : 0;
}

/* "P" or "P%" */
static int parse_audit(const char *text, uint32_t *share)
{
	char *end;
	double v;

	if (!text)
		return 0;
	v = strtod(text, &end);
	if (end == text || (strcmp(end, "") && strcmp(end, "%")) || !(v >= 0.001 && v <= 100))
		return -EINVAL;
	*share = v * (AUDIT_ALL / 100);
	return *share ? 0 : -EINVAL;
}

static int usage(const struct arguments *a, struct backup_options *o, int argc)
{
	if (!a->gen || !a->dest)
		return snap_usage_error("--gen and --dest are needed");
	if (parse_base(a->base, o))
		return snap_usage_error("--base: a number, auto or none");
	if (o->base_mode == BASE_NUMBER && o->base >= a->gen)
		return snap_usage_error("--base: must be older than --gen");
	if (a->keep && strcmp(a->keep, "bookmark"))
		return snap_usage_error("--keep: only \"bookmark\"");
	if (parse_format(a->format, &o->format))
		return snap_usage_error("--format: stream, rbd-diff or raw");
	if (o->format == FORMAT_RAW && o->base_mode == BASE_NUMBER)
		return snap_usage_error("--format raw is always all of it: no --base");
	if (parse_audit(a->audit, &o->audit))
		return snap_usage_error("--audit: from 0.001 to 100 per cent");
	if (a->compare && o->base_mode == BASE_NONE)
		return snap_usage_error("--compare needs something to compare with: no --base none");
	if (a->measure && !a->dry_run)
		return snap_usage_error("--measure belongs to --dry-run");
	if (a->encrypt && (a->compare || a->audit))
		return snap_usage_error("--compare, --audit: not with --encrypt, the media server cannot look into what is encrypted");
	if (a->encrypt && o->format != FORMAT_STREAM)
		return snap_usage_error("--encrypt: not with --format");
	if (a->level > 19)
		return snap_usage_error("--compress: 0 to 19");
	if (!a->image && (a->base_image || a->uuid || a->gen_uuid || a->volume_name))
		return snap_usage_error("--base-image, --uuid, --gen-uuid, --volume-name belong to --image");
	if (a->image && (!a->uuid || argc || a->keep))
		return snap_usage_error("--image needs --uuid (of the volume), and takes neither NAME nor --keep");
	if (a->changes && !a->base_image)
		return snap_usage_error("--changes: of which --base-image?");
	if (a->image && !a->compare && !a->base_image != (o->base_mode != BASE_NUMBER))
		return snap_usage_error("--image: --base N needs --base-image or --compare");
	return 0;
}

static int backup(const struct arguments *a, struct backup_options *o, const char *name)
{
	struct image_options io = { a->image, a->base_image, a->uuid, a->gen_uuid, a->volume_name, a->gen, o->base, a->changes };
	struct sm_err e = { 0 };
	struct sm_secret key;
	int rc, err = sm_dest_parse(a->dest, &o->dest, &e);

	if (!err && a->encrypt) {
		err = sm_secret_load(a->encrypt, &key, &e);
		o->key = &key;
	}
	if (!err)
		err = a->image ? source_image(&io, &o->source, &e) : source_volume(name, a->gen, &o->source, &e);
	if (!err) {
		err = backup_run(o, &e);
		o->source->ops->close(o->source);
	}
	if (o->key)
		sm_secret_wipe(&key);
	o->key = NULL;
	rc = snap_report(err, e.text);
	return err == BACKUP_AUDIT ? EXIT_AUDIT : rc;
}

static int run(int argc, char **argv)
{
	struct arguments a = { .level = 1 };
	const struct snap_opt opts[] = {
		{ "gen", 'g', SNAP_OPT_U32, "N", &a.gen, "generation to send" },
		{ "dest", 'd', SNAP_OPT_STRING, "DEST", &a.dest, "where to" },
		{ "base", 'b', SNAP_OPT_STRING, "M|auto|none", &a.base, "send what differs from generation M (default auto)" },
		{ "compare", 'c', SNAP_OPT_FLAG, NULL, &a.compare, "read everything and compare with the base's digests there" },
		{ "audit", 0, SNAP_OPT_STRING, "P%", &a.audit, "compare so much of what is unchanged, too; exit code 7 if it is not" },
		{ "encrypt", 'e', SNAP_OPT_STRING, "KEYFILE", &a.encrypt, "encrypt with this key, which the media server does not get" },
		{ "compress", 'z', SNAP_OPT_U32, "LEVEL", &a.level, "zstd level, 0 for none (default 1)" },
		{ "format", 0, SNAP_OPT_STRING, "FORMAT", &a.format, "for - and FILE: stream (default), rbd-diff or raw" },
		{ "rate", 0, SNAP_OPT_SIZE, "BYTES", &a.rate, "send no more than so much a second" },
		{ "keep", 0, SNAP_OPT_STRING, "bookmark", &a.keep, "afterwards turn the generation into a bookmark" },
		{ "dry-run", 'n', SNAP_OPT_FLAG, NULL, &a.dry_run, "print what would be sent: extents and bytes" },
		{ "measure", 0, SNAP_OPT_FLAG, NULL, &a.measure, "with --dry-run: read it all, print what it would come to" },
		{ "force", 0, SNAP_OPT_FLAG, NULL, &a.force, "replace an existing stream file" },
		{ "quiet", 'q', SNAP_OPT_FLAG, NULL, &a.quiet, "no progress, only the receipt" },
		{ "progress-json", 0, SNAP_OPT_FLAG, NULL, &a.progress_json, "progress as lines of JSON on stderr" },
		{ "json", 'J', SNAP_OPT_FLAG, NULL, &a.json, "the receipt as JSON" },
		{ "image", 0, SNAP_OPT_STRING, "FILE", &a.image, "back up this image or idle device" },
		{ "uuid", 0, SNAP_OPT_STRING, "UUID", &a.uuid, "volume uuid of the image" },
		{ "gen-uuid", 0, SNAP_OPT_STRING, "UUID", &a.gen_uuid, "generation uuid of the image" },
		{ "volume-name", 0, SNAP_OPT_STRING, "NAME", &a.volume_name, "volume name of the image" },
		{ "base-image", 0, SNAP_OPT_STRING, "FILE", &a.base_image, "image of the base generation" },
		{ "changes", 0, SNAP_OPT_STRING, "FILE", &a.changes, "what differs from it: lines of OFFSET LENGTH; without: compare" },
		{ 0 }
	};
	struct backup_options o = { .stop = &stop };
	struct sigaction sa = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
	int rc = snap_opts(&cmd, opts, &argc, &argv);

	if (rc >= 0)
		return rc;
	rc = usage(&a, &o, argc);
	if (rc)
		return rc;
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	signal(SIGPIPE, SIG_IGN);
	o.dest_text = a.dest;
	o.level = a.level;
	o.compare = a.compare;
	o.rate = a.rate;
	o.measure = a.measure;
	o.dry_run = a.dry_run;
	o.quiet = a.quiet;
	o.progress_json = a.progress_json;
	o.json = a.json;
	o.force = a.force;
	o.keep_bookmark = a.keep;
	return backup(&a, &o, argc ? argv[0] : NULL);
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
	static const struct snap_cmd *const verbs[] = { &cmd_enroll, &cmd_keygen, NULL };
	static const struct snap_program prog = { "snapbackup", "send a generation to a media server", verbs };

	if (argc > 1 && (!strcmp(argv[1], "enroll") || !strcmp(argv[1], "keygen")))
		return snap_main(&prog, argc, argv);
	return snap_main_single("snapbackup", has_host(argv + (argc > 0)) ? &cmd_remote : &cmd, argc, argv);
}
