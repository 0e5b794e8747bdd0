/* SPDX-License-Identifier: GPL-2.0-or-later */
/* An order to a repository on this machine or, with --host, behind a media server; and its answer as a table. */
#ifndef SNAPMEDIA_ORDER_H
#define SNAPMEDIA_ORDER_H

#include <jansson.h>

#include "verbs.h"

struct order {
	const char *repo, *host;	/* where */
	const char *client, *volume;	/* which */
	const struct sm_secret *key;	/* verify here: may be NULL */
	json_t *json;			/* the rest: members of the order */
};

#define ORDER_WHERE(o) \
	{ "host", 'H', SNAP_OPT_STRING, "HOST[:PORT]", &(o)->host, "the media server there, instead of a REPO here" }, \
	{ "client", 'c', SNAP_OPT_STRING, "NAME", &(o)->client, "this client's volumes only" }
#define ORDER_VOLUME(o) \
	{ "volume", 'V', SNAP_OPT_STRING, "NAME|UUID", &(o)->volume, "this volume only" }

/* order_begin() - after snap_opts(): takes [REPO] from the arguments. SNAP_OPTS_GO, or the exit code */
int order_begin(struct order *o, const char *verb, int argc, char **argv);

/* order_send() - carry it out; @row takes each row. Frees o->json. 0 or -errno */
int order_send(struct order *o, int (*row)(json_t *row, void *arg), void *arg, struct sm_err *e);

/* order_table() - carry it out and print the rows: each column is the member of its name. Return: exit code */
int order_table(struct order *o, const char *list, const struct snap_col *cols, size_t nr, const struct snap_out_opts *oo);

#endif
