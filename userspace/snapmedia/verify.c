// SPDX-License-Identifier: GPL-2.0-or-later
/* verify, fsck: is it still what it was? */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "order.h"
#include "seal.h"

static const char *const counts[] = {
	"generations", "packs", "records", "bytes", "maps", "orphans", "released", "opened", "errors"
};
#define NR_COUNTS	(sizeof(counts) / sizeof(*counts))

struct total {
	unsigned long long volumes, n[NR_COUNTS];
};

static int take_row(json_t *row, void *arg)
{
	const char *problem = json_string_value(json_object_get(row, "problem"));
	struct total *t = arg;

	if (problem) {
		fprintf(stderr, "snapmedia: ");
		for (; *problem; problem++)
			fputc((unsigned char)*problem < 0x20 || *problem == 0x7f ? '?' : *problem, stderr);
		fputc('\n', stderr);
	} else {
		t->volumes++;
		for (size_t i = 0; i < NR_COUNTS; i++)
			t->n[i] += json_integer_value(json_object_get(row, counts[i]));
	}
	json_decref(row);
	return 0;
}

static void print(const struct total *t, bool json)
{
	printf(json ? "{\"volumes\":%llu" : "%llu volumes", t->volumes);
	for (size_t i = 0; i < NR_COUNTS; i++)
		if (json)
			printf(",\"%s\":%llu", counts[i], t->n[i]);
		else
			printf("%s %llu %s", i == NR_COUNTS - 1 ? ":" : ",", t->n[i], counts[i]);
	printf(json ? "}\n" : "\n");
}

static int act(struct order *o, bool json)
{
	struct total t = { 0 };
	struct sm_err e = { 0 };
	int err = order_send(o, take_row, &t, &e);

	if (err)
		return snap_report(err, e.text);
	print(&t, json);
	return t.n[NR_COUNTS - 1] ? SNAP_EXIT_IO : 0;
}

/* "5", "0.1", "5%" into 1/1000 %. */
static int parse_sample(const char *text, uint32_t *sample)
{
	char *end;
	double v = strtod(text, &end);

	if (end == text || (*end && strcmp(end, "%")) || !(v > 0 && v <= 100))
		return -EINVAL;
	*sample = v * 1000;
	return *sample ? 0 : -EINVAL;
}

static int run_verify(int argc, char **argv)
{
	const char *sample_text = NULL, *key_file = NULL;
	struct sm_secret key;
	struct sm_err e;
	struct order o = { 0 };
	uint32_t sample = 0;
	bool json = false;
	const struct snap_opt opts[] = {
		ORDER_WHERE(&o), ORDER_VOLUME(&o),
		{ "sample", 's', SNAP_OPT_STRING, "P%", &sample_text, "read so much of the data, chosen by chance (0.001 to 100)" },
		{ "key", 'k', SNAP_OPT_STRING, "KEYFILE", &key_file, "open what is encrypted with this key, too" },
		{ "json", 'J', SNAP_OPT_FLAG, NULL, &json, "print JSON" }, { 0 }
	};
	int rc = snap_opts(&cmd_verify, opts, &argc, &argv);

	if (rc >= 0)
		return rc;
	if (sample_text && parse_sample(sample_text, &sample))
		return snap_usage_error("--sample: from 0.001 to 100 per cent");
	if (key_file && o.host)
		return snap_usage_error("--key: not with --host, a key goes to nobody");
	rc = order_begin(&o, "verify", argc, argv);
	if (rc >= 0)
		return rc;
	if (sample_text)
		json_object_set_new(o.json, "sample", json_integer(sample));
	if (!key_file)
		return act(&o, json);
	rc = sm_secret_load(key_file, &key, &e);
	if (rc) {
		json_decref(o.json);
		return snap_report(rc, e.text);
	}
	o.key = &key;
	rc = act(&o, json);
	sm_secret_wipe(&key);
	return rc;
}

static int run_fsck(int argc, char **argv)
{
	struct order o = { 0 };
	bool json = false;
	const struct snap_opt opts[] = {
		ORDER_WHERE(&o), ORDER_VOLUME(&o), { "json", 'J', SNAP_OPT_FLAG, NULL, &json, "print JSON" }, { 0 }
	};
	int rc = snap_opts(&cmd_fsck, opts, &argc, &argv);

	if (rc < 0)
		rc = order_begin(&o, "fsck", argc, argv);
	return rc >= 0 ? rc : act(&o, json);
}

const struct snap_cmd cmd_verify = {
	.name = "verify", .args = "[REPO]", .summary = "read and hash everything, or a sample; exit 6 when something is damaged",
	.max_args = 1, .run = run_verify,
};

const struct snap_cmd cmd_fsck = {
	.name = "fsck", .args = "[REPO]", .summary = "check manifests, maps and packs' indexes, without reading data; exit 6 on damage",
	.max_args = 1, .run = run_fsck,
};
