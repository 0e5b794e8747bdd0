// SPDX-License-Identifier: GPL-2.0-or-later
/* keygen: a key for --encrypt. */
#include <stdio.h>

#include "backup.h"
#include "cmd.h"

static const char help[] =
	"Makes a key for snapbackup --encrypt and snaprestore --key in a new file, mode 0600, and prints its id, which stands in whatever is encrypted\n"
	"with it. The key is in this file only: copy it to a safe place, without it no such backup can be restored by anybody.";

static int run(int argc, char **argv)
{
	const struct snap_opt opts[] = { { 0 } };
	char text[SM_SECRET_ID_TEXT];
	struct sm_err e = { 0 };
	struct sm_secret k;
	int rc = snap_opts(&cmd_keygen, opts, &argc, &argv), err;

	if (rc >= 0)
		return rc;
	err = sm_secret_make(argv[0], &k, &e);
	if (!err) {
		sm_secret_id_text(k.id, text);
		sm_secret_wipe(&k);
		printf("key %s\n", text);
	}
	return snap_report(err, e.text);
}

const struct snap_cmd cmd_keygen = {
	.name = "keygen", .args = "KEYFILE", .summary = "make a key for --encrypt",
	.help = help, .min_args = 1, .max_args = 1, .run = run,
};
