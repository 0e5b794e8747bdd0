// SPDX-License-Identifier: GPL-2.0-or-later
/* What was restored, for programs: one line of JSON on stdout. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "restore.h"

/* Bytes of the image that are at their places now. */
static uint64_t restored(const struct restore_options *o)
{
	uint64_t n = 0;

	for (uint32_t i = 0; i < o->nr_ranges; i++)
		n += o->ranges[i].length;
	return o->nr_ranges ? n : o->info.size;
}

int restore_receipt(const struct restore_options *o, struct sm_err *e)
{
	json_t *r = json_object();
	char *text;
	int err;

	sm_json_set_text(r, "volume", o->info.volume_name);
	sm_json_set_uuid(r, "volume_uuid", o->info.volume);
	json_object_set_new(r, "generation", json_integer(o->info.number));
	json_object_set_new(r, "size", json_integer(o->info.size));
	json_object_set_new(r, "restored_bytes", json_integer(restored(o)));
	json_object_set_new(r, "written_bytes", json_integer(o->target.diff ? o->target.differed : restored(o)));
	sm_json_set_hex(r, "manifest", o->hash, SM_DIGEST);
	json_object_set_new(r, "verified", json_string(o->proven ? "manifests" : "frames"));
	json_object_set_new(r, "encrypted", json_boolean(o->info.sealed));
	sm_json_set_text(r, "target", o->target.path);
	text = sm_json_canonical(r);
	json_decref(r);
	err = !text ? -ENOMEM : printf("%s\n", text) < 0 || fflush(stdout) ? -EIO : 0;
	free(text);
	return err ? sm_fail(e, err, "restored, but the receipt cannot be written") : 0;
}
