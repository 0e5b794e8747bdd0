// SPDX-License-Identifier: GPL-2.0-or-later
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "session.h"

static const struct {
	int err;
	const char *word;
} words[] = {
	{ -EPROTO, "protocol" },
	{ -ENOENT, "not-found" },
	{ -EEXIST, "exists" },
	{ -EBUSY, "busy" },
	{ -ENOSPC, "no-space" },
	{ -EDQUOT, "quota" },
	{ -EACCES, "permission" },
	{ -EINVAL, "invalid" },
	{ -EUCLEAN, "damaged" },
	{ -ENOMEM, "no-memory" },
	{ -EINTR, "shutdown" },
	{ -EIO, "io" },
};

const char *sm_error_word(int err)
{
	for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++)
		if (words[i].err == err)
			return words[i].word;
	return "io";
}

int sm_error_number(const char *word)
{
	for (size_t i = 0; word && i < sizeof(words) / sizeof(*words); i++)
		if (!strcmp(words[i].word, word))
			return words[i].err;
	return -EIO;
}

int sm_send_json(struct sm_chan *c, uint16_t type, json_t *o, struct sm_err *e)
{
	char *text = o ? sm_json_canonical(o) : NULL;
	int err;

	json_decref(o);
	if (!text)
		return sm_fail(e, -ENOMEM, "no memory");
	err = strlen(text) > SM_MAX_CONTROL ? sm_fail(e, -E2BIG, "message too long") :
	      sm_chan_send_buf(c, type, text, strlen(text), e);
	free(text);
	return err;
}

void sm_send_error(struct sm_chan *c, int err, const char *text)
{
	json_t *o = json_object();

	json_object_set_new(o, "code", json_string(sm_error_word(err)));
	sm_json_set_text(o, "text", text);
	sm_send_json(c, SM_ERROR, o, NULL);
}

int sm_send_hello(struct sm_chan *c, uint32_t roles, const uint8_t *repository, struct sm_err *e)
{
	struct sm_wire_hello h = { .protocol = htole32(SM_PROTOCOL), .roles = htole32(roles),
				   .features = htole64(SM_FEATURES), .max_payload = htole32(SM_MAX_PAYLOAD),
				   .agent = "snapdiff/1" };

	if (repository)
		memcpy(h.repository, repository, SM_UUID);
	return sm_chan_send_buf(c, SM_HELLO, &h, sizeof(h), e);
}

int sm_check_hello(const struct sm_frame *f, struct sm_wire_hello *h, struct sm_err *e)
{
	if (f->type != SM_HELLO || f->length < sizeof(*h))
		return sm_fail(e, -EPROTO, "the peer did not say hello");
	memcpy(h, f->payload, sizeof(*h));	/* a longer one is of a later version: the rest is for those who know it */
	if (le32toh(h->protocol) != SM_PROTOCOL)
		return sm_fail(e, -EPROTO, "the peer speaks protocol %u, not %u", le32toh(h->protocol), SM_PROTOCOL);
	if (le64toh(h->required) & ~SM_FEATURES)
		return sm_fail(e, -EPROTO, "the peer wants features %llx that are not known here",
			       (unsigned long long)(le64toh(h->required) & ~SM_FEATURES));
	if (le32toh(h->max_payload) < SM_MAX_PAYLOAD)
		return sm_fail(e, -EPROTO, "the peer takes frames of %u bytes only", le32toh(h->max_payload));
	return 0;
}

int sm_listed_parse(const struct sm_frame *f, struct sm_listed *l, struct sm_err *e)
{
	json_t *o = sm_json_parse((const char *)f->payload, f->length, SM_MAX_CONTROL, e);
	const char *text = json_string_value(json_object_get(o, "manifest"));
	int err;

	memset(l, 0, sizeof(*l));
	if (!o)
		return -EPROTO;
	if (!text)
		err = sm_fail(e, -EPROTO, "no manifest in the answer");
	else if (!(err = sm_manifest_parse(text, strlen(text), &l->manifest, e)) &&
		 !(err = sm_json_u64(o, "sequence", INT64_MAX, &l->sequence, e)) &&
		 !(err = sm_json_u64(o, "received", INT64_MAX, &l->received, e)))
		err = sm_json_u64(o, "stored_bytes", INT64_MAX, &l->stored_bytes, e);
	l->damaged = json_is_true(json_object_get(o, "damaged"));
	if (!err)
		sm_sha256(text, strlen(text), l->hash);
	json_decref(o);
	return err;
}

int sm_remote_error(const char *peer, const struct sm_frame *f, struct sm_err *e)
{
	json_t *o = sm_json_parse((const char *)f->payload, f->length, SM_MAX_CONTROL, e);
	char text[400] = "no reason given";
	int err;

	if (!o)
		return -EPROTO;
	err = sm_error_number(json_string_value(json_object_get(o, "code")));
	sm_json_text(o, "text", text, sizeof(text), NULL);
	json_decref(o);
	return sm_fail(e, err, "%s: %s", peer, text);
}

int sm_ranges_parse(const json_t *o, uint64_t size, struct sm_extent x[SM_MAX_RANGES], struct sm_err *e)
{
	const json_t *a = json_object_get(o, "ranges");
	size_t nr = json_array_size(a);
	uint64_t end = 0;

	if (!a) {
		x[0] = (struct sm_extent){ 0, size };
		return 1;
	}
	if (!nr || nr > SM_MAX_RANGES)
		return sm_fail(e, -EPROTO, "from 1 to %u ranges", SM_MAX_RANGES);
	for (size_t i = 0; i < nr; i++) {
		const json_t *v = json_array_get(a, i);
		json_int_t offset = json_integer_value(json_array_get(v, 0)), length = json_integer_value(json_array_get(v, 1));

		if (json_array_size(v) != 2 || offset < 0 || length <= 0 || (uint64_t)offset >= size || offset % SM_BLOCK ||
		    length % SM_BLOCK || (uint64_t)offset < end)
			return sm_fail(e, -EPROTO, "range %zu: not of whole blocks inside the volume, or not in order", i);
		if ((uint64_t)length > size - offset)	/* who asks does not know where it ends */
			length = size - offset;
		x[i] = (struct sm_extent){ offset, length };
		end = offset + length;
	}
	return nr;
}

json_t *sm_ranges_json(const struct sm_extent *x, uint32_t nr)
{
	json_t *ranges = json_array();

	for (uint32_t i = 0; i < nr; i++) {
		json_t *one = json_array();

		json_array_append_new(one, json_integer(x[i].offset));
		json_array_append_new(one, json_integer(x[i].length));
		json_array_append_new(ranges, one);
	}
	return ranges;
}
