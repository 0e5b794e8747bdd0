// SPDX-License-Identifier: GPL-2.0-or-later
/* import: a stream file becomes a generation, through the same checks as one that comes over the network. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "confine.h"
#include "session.h"
#include "verbs.h"

static int copy_frames(struct sm_incoming *in, struct sm_upload *u, struct sm_receipt *receipt, struct sm_err *e)
{
	struct sm_incoming_frame f;
	char *text;
	int r;

	while ((r = sm_incoming_next(in, &f, e)) > 0) {
		r = sm_upload_append(u, f.type, f.payload, f.payload_len, e);
		if (r)
			return r;
	}
	if (r)
		return r;
	text = sm_manifest_text(&in->manifest);
	if (!text)
		return sm_fail(e, -ENOMEM, "no memory");
	r = sm_upload_commit(u, text, strlen(text), receipt, e);
	free(text);
	return r;
}

static int import(struct sm_repo *r, int fd, const char *client, struct sm_err *e)
{
	struct sm_receipt receipt;
	struct sm_incoming in;
	struct sm_upload *u;
	struct sm_chan c;
	char hash[SM_DIGEST_HEX];
	int err;

	sm_chan_init(&c, fd, -1);
	err = sm_incoming_stream(&in, &c, e);
	if (!err)
		err = sm_upload_open(r, client, &in.info, &u, &receipt, e);
	if (!err && sm_upload_stored(u)) {	/* of an import that broke off; the file starts from its begin */
		err = sm_upload_abandon(u, e);
		if (!err)
			err = sm_upload_open(r, client, &in.info, &u, &receipt, e);
	}
	if (!err) {
		err = copy_frames(&in, u, &receipt, e);
		sm_upload_close(u);
	}
	if (err >= 0) {
		sm_hex(receipt.manifest, SM_DIGEST, hash);
		printf("generation %u: %s, manifest %s\n", in.info.number, err ? "was there already" : "imported", hash);
	}
	sm_incoming_done(&in);
	sm_chan_free(&c);
	return err > 0 ? 0 : err;
}

static int run(int argc, char **argv)
{
	const char *client = SM_CLIENT_DEFAULT;
	const struct snap_opt opts[] = {
		{ "client", 'c', SNAP_OPT_STRING, "NAME", &client, "whose it is (default " SM_CLIENT_DEFAULT ")" }, { 0 }
	};
	struct sm_err e = { 0 };
	struct sm_repo r;
	int rc = snap_opts(&cmd_import, opts, &argc, &argv), err = 0, fd;

	if (rc >= 0)
		return rc;
	if (!sm_client_valid(client))
		return snap_usage_error("--client: letters, digits, dot, dash, underscore");
	fd = strcmp(argv[1], "-") ? open(argv[1], O_RDONLY | O_CLOEXEC) : 0;
	if (fd < 0)
		return snap_report(sm_fail(&e, -errno, "%s: %s", argv[1], strerror(errno)), e.text);
	err = sm_become(NULL, argv[0], &e);
	if (!err)
		err = sm_repo_open(argv[0], &r, &e);
	if (!err) {
		err = import(&r, fd, client, &e);
		sm_repo_close(&r);
	}
	return snap_report(err, e.text);
}

const struct snap_cmd cmd_import = {
	.name = "import", .args = "REPO FILE|-", .summary = "take a stream into the repository",
	.min_args = 2, .max_args = 2, .run = run,
};
