/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Programs with verbs, and options described once: the table parses them and prints --help.
 *
 *	static int run(int argc, char **argv)
 *	{
 *		bool force = false;
 *		const struct snap_opt opts[] = {
 *			{ "force", 'f', SNAP_OPT_FLAG, NULL, &force, "overwrite what is there" },
 *			{ 0 }
 *		};
 *		int rc = snap_opts(&cmd_format, opts, &argc, &argv);
 *
 *		if (rc >= 0)
 *			return rc;	// --help (0) or a usage error (1)
 *		// argv[0 .. argc-1] are the arguments that are no options
 *	}
 */
#ifndef SNAP_LIB_CMD_H
#define SNAP_LIB_CMD_H

#include <stdbool.h>
#include <stddef.h>

#include "error.h"
#include "output.h"

struct snap_cmd {
	const char *name;		/* the verb; NULL for a program without verbs */
	const char *args;		/* "NAME PRIMARY DIFF" */
	const char *summary;		/* one line, no dot */
	const char *help;		/* paragraphs behind the options, or NULL */
	int min_args, max_args;		/* max -1: any number */
	int (*run)(int argc, char **argv);	/* argv[0] is the verb; returns an exit code */
};

enum snap_opt_type {
	SNAP_OPT_FLAG,			/* bool *, set to true */
	SNAP_OPT_UNFLAG,		/* bool *, set to false */
	SNAP_OPT_STRING,		/* const char ** */
	SNAP_OPT_SIZE,			/* uint64_t *, snap_parse_size() */
	SNAP_OPT_U32,			/* uint32_t *, decimal */
	SNAP_OPT_FN,			/* int (*)(const char *arg, struct snap_err *e) */
};

struct snap_opt {
	const char *name;		/* long name without dashes; NULL ends the table */
	int letter;			/* 0: none */
	enum snap_opt_type type;
	const char *arg;		/* name of the argument in --help */
	void *dest;
	const char *help;
};

#define SNAP_OPTS_GO	(-1)

/**
 * snap_opts() - parse options, check the number of arguments
 * @cmd: for --help and messages
 * @argc, @argv: in: as given to run(); out: the arguments that are no options
 *
 * --help is always there, as is -h.
 *
 * Return: SNAP_OPTS_GO, or the exit code to return at once (0 after --help, SNAP_EXIT_USAGE).
 */
int snap_opts(const struct snap_cmd *cmd, const struct snap_opt *opts, int *argc, char ***argv);

/* The options of everything that prints: --json, -o, --bytes, --noheadings. Put into a table. */
#define SNAP_OPT_OUTPUT(o) \
	{ "json", 'J', SNAP_OPT_FLAG, NULL, &(o)->json, "print JSON" }, \
	{ "output", 'o', SNAP_OPT_STRING, "COL[,COL]", &(o)->columns, "columns to print; +COL adds to the default" }, \
	{ "bytes", 'b', SNAP_OPT_FLAG, NULL, &(o)->bytes, "sizes in bytes" }, \
	{ "noheadings", 'n', SNAP_OPT_FLAG, NULL, &(o)->noheadings, "no line of headings" }

struct snap_program {
	const char *name;
	const char *summary;
	const struct snap_cmd *const *cmds;	/* NULL-terminated; in the order of --help */
};

/**
 * snap_main() - dispatch to a verb, --help, --version, "help VERB"
 *
 * Return: the exit code.
 */
int snap_main(const struct snap_program *prog, int argc, char **argv);

/** snap_main_single() - the same for a program without verbs: --version, then cmd->run(). */
int snap_main_single(const char *name, const struct snap_cmd *cmd, int argc, char **argv);

#endif
