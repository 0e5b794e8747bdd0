// SPDX-License-Identifier: GPL-2.0-or-later
/* enroll: our key and the server's pin, so that both know each other before a byte is sent. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent.h"
#include "backup.h"
#include "cmd.h"
#include "known.h"

static void print_line(const struct sm_key *k, const char *role, bool agent)
{
	char text[SM_PIN_TEXT], name[SM_CLIENT_MAX];
	uint8_t pin[SM_DIGEST];

	sm_key_pin(k, pin);
	sm_pin_format(pin, text);
	if (gethostname(name, sizeof(name) - 1) || (name[sizeof(name) - 1] = '\0', !sm_client_valid(name)))
		strcpy(name, "NAME");
	printf("%s client add %s --pin %s --role %s\n", agent ? "snapagentd" : "snapmedia", name, text, role);
}

static int enroll(const char *where, const char *pin_text, const char *role, bool agent, struct sm_err *e)
{
	uint8_t pin[SM_DIGEST];
	struct sm_dest d;
	struct sm_key *k;
	int err = agent ? sm_agent_dest(where, &d, e) : sm_dest_parse(where, &d, e), known;

	if (err)
		return err;
	if (d.kind != SM_DEST_TCP)
		return sm_fail(e, -EINVAL, "%s: not HOST or HOST:PORT (ssh has its own keys)", where);
	if (pin_text && sm_pin_parse(pin_text, pin))
		return sm_fail(e, -EINVAL, "--pin: \"sha256:\" and 64 hexadecimal digits, as snapmediad init prints it");
	if ((err = sm_known_key(true, &k, e)) || (pin_text && (err = sm_known_add(d.host, d.port, pin, e))))
		return err;
	print_line(k, role, agent);
	sm_key_free(k);
	known = sm_known_pin(d.host, d.port, pin, e);
	if (known == -ENOENT)
		fprintf(stderr, "snapbackup: the server's pin is not known yet: run this again with --pin and what \"%s init\" prints there\n",
			agent ? "snapagentd" : "snapmediad");
	return known == -ENOENT ? 0 : known;
}

static const char help[] =
	"Makes this machine's key, unless there is one ($SNAPDIFF_CONFIG_DIR or /etc/snapdiff, client.key, mode 0600), notes the\n"
	"server's pin, and prints the line with which the media server's operator lets us in. snaprestore and snapmedia --host\n"
	"use the same key.";

static int run(int argc, char **argv)
{
	const char *pin = NULL, *role = NULL;
	bool agent = false;
	const struct snap_opt opts[] = {
		{ "pin", 'p', SNAP_OPT_STRING, "PIN", &pin, "the server's, printed by snapmediad init" },
		{ "role", 'r', SNAP_OPT_STRING, "ROLE[,ROLE]", &role, "to ask for in the line printed (default backup; of an agent operator)" },
		{ "agent", 0, SNAP_OPT_FLAG, NULL, &agent, "HOST is a storage host with snapagentd, default port " SM_AGENT_PORT },
		{ 0 }
	};
	struct sm_err e = { 0 };
	int rc = snap_opts(&cmd_enroll, opts, &argc, &argv), err;

	if (rc >= 0)
		return rc;
	err = enroll(argv[0], pin, role ? role : agent ? "operator" : "backup", agent, &e);
	return snap_report(err, e.text);
}

const struct snap_cmd cmd_enroll = {
	.name = "enroll", .args = "HOST[:PORT] [--pin PIN]", .summary = "make our key, note the server's pin",
	.help = help, .min_args = 1, .max_args = 1, .run = run,
};
