// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Verbs and options from tables.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd.h"
#include "name.h"

#ifndef SNAPDIFF_VERSION
#define SNAPDIFF_VERSION "0.1.0"
#endif

#define MAX_OPTS	32
#define OPT_BASE	256		/* getopt values of options: OPT_BASE + index */

static const char *program_name = "snapdiff";

/* ---- help ---- */

static void print_usage(FILE *f, const struct snap_cmd *cmd)
{
	fprintf(f, "Usage: %s%s%s [OPTION...]%s%s\n", program_name, cmd->name ? " " : "",
		cmd->name ? cmd->name : "", *cmd->args ? " " : "", cmd->args);
}

static void print_option(const struct snap_opt *o)
{
	char left[64];
	int n;

	n = o->letter ? snprintf(left, sizeof(left), "  -%c, --%s", o->letter, o->name)
		      : snprintf(left, sizeof(left), "      --%s", o->name);
	if (o->arg && n < (int)sizeof(left))
		snprintf(left + n, sizeof(left) - n, " %s", o->arg);
	if (strlen(left) < 30)
		printf("%-30s  %s\n", left, o->help);
	else
		printf("%s\n%30s  %s\n", left, "", o->help);
}

static void print_help(const struct snap_cmd *cmd, const struct snap_opt *opts)
{
	print_usage(stdout, cmd);
	printf("\n%s.\n\nOptions:\n", cmd->summary);
	for (; opts->name; opts++)
		print_option(opts);
	printf("%-30s  %s\n", "  -h, --help", "this text");
	if (cmd->help)
		printf("\n%s\n", cmd->help);
}

static int usage(const struct snap_cmd *cmd, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

static int usage(const struct snap_cmd *cmd, const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "%s: ", program_name);
	if (cmd->name)
		fprintf(stderr, "%s: ", cmd->name);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	print_usage(stderr, cmd);
	fprintf(stderr, "Try '%s%s%s --help'.\n", program_name, cmd->name ? " " : "", cmd->name ? cmd->name : "");
	return SNAP_EXIT_USAGE;
}

/* ---- options ---- */

static int set_option(const struct snap_opt *o, const char *arg, struct snap_err *e)
{
	int (*fn)(const char *arg, struct snap_err *e);

	switch (o->type) {
	case SNAP_OPT_FLAG:
	case SNAP_OPT_UNFLAG:
		*(bool *)o->dest = o->type == SNAP_OPT_FLAG;
		return 0;
	case SNAP_OPT_STRING:
		*(const char **)o->dest = arg;
		return 0;
	case SNAP_OPT_SIZE:
		return snap_parse_size(arg, o->dest, e);
	case SNAP_OPT_U32:
		return snap_parse_u32(arg, 0, UINT32_MAX, o->dest, e);
	case SNAP_OPT_FN:
		fn = (int (*)(const char *, struct snap_err *))o->dest;
		return fn(arg, e);
	}
	return -EINVAL;
}

static bool takes_arg(const struct snap_opt *o)
{
	return o->type != SNAP_OPT_FLAG && o->type != SNAP_OPT_UNFLAG;
}

/* getopt's two tables from ours. Letters return their character, long options OPT_BASE + index. */
static void build_tables(const struct snap_opt *opts, struct option *lopts, char *sopts)
{
	int i;

	*sopts++ = ':';			/* tell a missing argument from an unknown option */
	for (i = 0; opts[i].name; i++) {
		lopts[i] = (struct option){ opts[i].name, takes_arg(&opts[i]), NULL, OPT_BASE + i };
		if (!opts[i].letter)
			continue;
		*sopts++ = opts[i].letter;
		if (takes_arg(&opts[i]))
			*sopts++ = ':';
	}
	lopts[i] = (struct option){ "help", no_argument, NULL, 'h' };
	lopts[i + 1] = (struct option){ 0 };
	*sopts++ = 'h';
	*sopts = 0;
}

static const struct snap_opt *find_option(const struct snap_opt *opts, int c)
{
	int i;

	for (i = 0; opts[i].name; i++)
		if (c == OPT_BASE + i || (c < OPT_BASE && c == opts[i].letter))
			return &opts[i];
	return NULL;
}

/* @c: what getopt returned for something it did not like. */
static int bad_option(const struct snap_cmd *cmd, int c, char **argv)
{
	const char *word = argv[optind - 1];

	if (c == ':')
		return usage(cmd, "option '%s' needs an argument", word);
	if (optopt && optopt < OPT_BASE)
		return usage(cmd, "unknown option '-%c'", optopt);
	if (optopt >= OPT_BASE)
		return usage(cmd, "option '%s' takes no argument", word);
	return usage(cmd, "unknown option '%s'", word);
}

static int check_count(const struct snap_cmd *cmd, int n, char **argv)
{
	if (n < cmd->min_args)
		return usage(cmd, "too few arguments");
	if (cmd->max_args >= 0 && n > cmd->max_args)
		return usage(cmd, "too many arguments: '%s'", argv[cmd->max_args]);
	return SNAP_OPTS_GO;
}

int snap_opts(const struct snap_cmd *cmd, const struct snap_opt *opts, int *argc, char ***argv)
{
	struct option lopts[MAX_OPTS + 2];
	char sopts[2 * MAX_OPTS + 4];
	const struct snap_opt *o;
	struct snap_err e = SNAP_ERR_INIT;
	int c;

	build_tables(opts, lopts, sopts);
	opterr = 0;
	optind = 0;
	while ((c = getopt_long(*argc, *argv, sopts, lopts, NULL)) != -1) {
		if (c == 'h' && !find_option(opts, c)) {
			print_help(cmd, opts);
			return SNAP_EXIT_OK;
		}
		o = c == '?' || c == ':' ? NULL : find_option(opts, c);
		if (!o)
			return bad_option(cmd, c, *argv);
		if (set_option(o, optarg, &e))
			return usage(cmd, "--%s: %s%s%s", o->name, e.object, e.object[0] ? ": " : "", e.text);
	}
	*argc -= optind;
	*argv += optind;
	return check_count(cmd, *argc, *argv);
}

/* ---- programs ---- */

static void program_help(const struct snap_program *prog)
{
	const struct snap_cmd *const *c;

	printf("Usage: %s COMMAND [OPTION...] [ARGUMENT...]\n\n%s.\n\nCommands:\n", prog->name, prog->summary);
	for (c = prog->cmds; *c; c++)
		printf("  %-12s %s\n", (*c)->name, (*c)->summary);
	printf("\n'%s COMMAND --help' explains a command. '%s --version' prints the version.\n"
	       "Exit status: 0 ok, 1 usage, 2 permission, 3 memory, 4 not found or wrong device,\n"
	       "5 busy or exists, 6 input/output or another error.\n", prog->name, prog->name);
}

static const struct snap_cmd *find_cmd(const struct snap_program *prog, const char *name)
{
	const struct snap_cmd *const *c;

	for (c = prog->cmds; *c; c++)
		if (!strcmp((*c)->name, name))
			return *c;
	return NULL;
}

static bool is(const char *arg, const char *a, const char *b)
{
	return arg && (!strcmp(arg, a) || !strcmp(arg, b));
}

int snap_main(const struct snap_program *prog, int argc, char **argv)
{
	char *help_argv[] = { NULL, "--help", NULL };
	const struct snap_cmd *cmd;

	program_name = prog->name;
	snap_set_prog(prog->name);
	if (argc < 2)
		return snap_usage_error("no command given");
	if (is(argv[1], "--version", "-V")) {
		printf("%s %s\n", prog->name, SNAPDIFF_VERSION);
		return SNAP_EXIT_OK;
	}
	if (is(argv[1], "--help", "-h") || (argc == 2 && is(argv[1], "help", "help"))) {
		program_help(prog);
		return SNAP_EXIT_OK;
	}
	if (argc == 3 && is(argv[1], "help", "help")) {
		help_argv[0] = argv[2];
		argc = 2;
		argv = help_argv;
	} else {
		argc--;
		argv++;
	}
	cmd = find_cmd(prog, argv[0]);
	if (!cmd)
		return snap_usage_error("unknown command '%s'", argv[0]);
	return cmd->run(argc, argv);
}

int snap_main_single(const char *name, const struct snap_cmd *cmd, int argc, char **argv)
{
	program_name = name;
	snap_set_prog(name);
	if (argc == 2 && is(argv[1], "--version", "-V")) {
		printf("%s %s\n", name, SNAPDIFF_VERSION);
		return SNAP_EXIT_OK;
	}
	return cmd->run(argc, argv);
}
