// SPDX-License-Identifier: GPL-2.0-or-later
#include "manifest.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FORMAT		"snapdiff-manifest"
#define VERSION		1

char *sm_json_canonical(const json_t *o)
{
	return json_dumps(o, JSON_COMPACT | JSON_SORT_KEYS);
}

json_t *sm_json_parse(const char *text, size_t len, size_t max, struct sm_err *e)
{
	json_error_t je;
	json_t *o;

	if (len > max) {
		sm_fail(e, -EPROTO, "%zu bytes of JSON are too much", len);
		return NULL;
	}
	o = json_loadb(text, len, JSON_REJECT_DUPLICATES, &je);
	if (o && json_is_object(o))
		return o;
	sm_fail(e, -EPROTO, "not a JSON object: %s", o ? "another type" : je.text);
	json_decref(o);
	return NULL;
}

int sm_json_u64(const json_t *o, const char *key, uint64_t max, uint64_t *v, struct sm_err *e)
{
	const json_t *m = json_object_get(o, key);

	if (!json_is_integer(m) || json_integer_value(m) < 0 || (uint64_t)json_integer_value(m) > max)
		return sm_fail(e, -EPROTO, "\"%s\" is not a number from 0 to %llu", key, (unsigned long long)max);
	*v = json_integer_value(m);
	return 0;
}

/* Control characters have no place in a name or label: they end up on terminals. */
static bool printable(const char *s)
{
	for (; *s; s++)
		if ((unsigned char)*s < 0x20 || *s == 0x7f)
			return false;
	return true;
}

int sm_json_text(const json_t *o, const char *key, char *buf, size_t size, struct sm_err *e)
{
	const json_t *m = json_object_get(o, key);

	if (!json_is_string(m) || json_string_length(m) >= size || !printable(json_string_value(m)))
		return sm_fail(e, -EPROTO, "\"%s\" is not a text of up to %zu bytes", key, size - 1);
	memset(buf, 0, size);
	memcpy(buf, json_string_value(m), json_string_length(m));
	return 0;
}

int sm_json_uuid(const json_t *o, const char *key, uint8_t uuid[SM_UUID], struct sm_err *e)
{
	const char *t = json_string_value(json_object_get(o, key));

	if (!t || sm_uuid_parse(t, uuid))
		return sm_fail(e, -EPROTO, "\"%s\" is not a UUID", key);
	return 0;
}

int sm_json_hex(const json_t *o, const char *key, uint8_t *data, size_t len, struct sm_err *e)
{
	const char *t = json_string_value(json_object_get(o, key));

	if (!t || sm_unhex(t, data, len))
		return sm_fail(e, -EPROTO, "\"%s\" is not %zu bytes in hexadecimal", key, len);
	return 0;
}

int sm_json_digest(const json_t *o, const char *key, uint8_t digest[SM_DIGEST], struct sm_err *e)
{
	return sm_json_hex(o, key, digest, SM_DIGEST, e) ? sm_fail(e, -EPROTO, "\"%s\" is not a SHA-256 digest", key) : 0;
}

int sm_json_set_text(json_t *o, const char *key, const char *text)
{
	char clean[256];
	size_t n = 0;
	json_t *s = json_string(text);

	if (s && printable(text))
		return json_object_set_new(o, key, s);
	json_decref(s);
	for (; text[n] && n < sizeof(clean) - 1; n++)
		clean[n] = text[n] >= 0x20 && text[n] < 0x7f ? text[n] : '?';
	clean[n] = '\0';
	return json_object_set_new(o, key, json_string(clean));
}

int sm_json_set_hex(json_t *o, const char *key, const uint8_t *data, size_t len)
{
	char text[2 * 64 + 1];

	sm_hex(data, len, text);
	return json_object_set_new(o, key, json_string(text));
}

int sm_json_set_uuid(json_t *o, const char *key, const uint8_t uuid[SM_UUID])
{
	char text[SM_UUID_TEXT];

	sm_uuid_format(uuid, text);
	return json_object_set_new(o, key, json_string(text));
}

static int set_u64(json_t *o, const char *key, uint64_t v)
{
	return json_object_set_new(o, key, json_integer(v));
}

json_t *sm_gen_info_json(const struct sm_gen_info *g)
{
	json_t *o = json_object();
	int bad;

	if (!o)
		return NULL;
	bad = sm_json_set_uuid(o, "volume", g->volume) |
	      sm_json_set_uuid(o, "generation_uuid", g->uuid) |
	      set_u64(o, "generation", g->number) |
	      (g->has_parent ? sm_json_set_hex(o, "parent", g->parent, SM_DIGEST) :
	       json_object_set_new(o, "parent", json_null())) |
	      set_u64(o, "size", g->size) |
	      set_u64(o, "created", g->created) |
	      set_u64(o, "change_extents", g->extents) |
	      set_u64(o, "change_bytes", g->bytes) |
	      sm_json_set_hex(o, "change_digest", g->change_digest, SM_DIGEST) |
	      sm_json_set_text(o, "volume_name", g->volume_name) |
	      sm_json_set_text(o, "label", g->label) |
	      (g->sealed ? sm_json_set_hex(o, "seal_key", g->seal_id, SM_SECRET_ID) : 0);
	if (bad) {
		json_decref(o);
		return NULL;
	}
	return o;
}

int sm_gen_info_parse(const json_t *o, struct sm_gen_info *g, struct sm_err *e)
{
	uint64_t number;
	int err;

	memset(g, 0, sizeof(*g));
	if ((err = sm_json_uuid(o, "volume", g->volume, e)) ||
	    (err = sm_json_uuid(o, "generation_uuid", g->uuid, e)) ||
	    (err = sm_json_u64(o, "generation", UINT32_MAX - 1, &number, e)) ||
	    (err = sm_json_u64(o, "size", SM_SIZE_MAX, &g->size, e)) ||
	    (err = sm_json_u64(o, "created", INT64_MAX, &g->created, e)) ||
	    (err = sm_json_u64(o, "change_extents", INT64_MAX, &g->extents, e)) ||
	    (err = sm_json_u64(o, "change_bytes", INT64_MAX, &g->bytes, e)) ||
	    (err = sm_json_digest(o, "change_digest", g->change_digest, e)) ||
	    (err = sm_json_text(o, "volume_name", g->volume_name, sizeof(g->volume_name), e)) ||
	    (err = sm_json_text(o, "label", g->label, sizeof(g->label), e)))
		return err;
	if (!json_object_get(o, "parent"))
		return sm_fail(e, -EPROTO, "\"parent\" is missing");
	g->has_parent = !json_is_null(json_object_get(o, "parent"));
	if (g->has_parent && (err = sm_json_digest(o, "parent", g->parent, e)))
		return err;
	g->sealed = json_object_get(o, "seal_key");
	if (g->sealed && (err = sm_json_hex(o, "seal_key", g->seal_id, SM_SECRET_ID, e)))
		return err;
	if (!number || !g->size)
		return sm_fail(e, -EPROTO, "generation 0, or a volume of no size");
	if (!g->has_parent && (g->bytes != g->size || g->extents != 1))
		return sm_fail(e, -EPROTO, "a full backup has to cover the whole volume");
	g->number = number;
	return 0;
}

char *sm_manifest_text(const struct sm_manifest *m)
{
	json_t *o = sm_gen_info_json(&m->info);
	char *text = NULL;

	if (!o)
		return NULL;
	if (!json_object_set_new(o, "format", json_string(FORMAT)) && !set_u64(o, "version", VERSION) &&
	    !set_u64(o, "frames", m->frames) && !set_u64(o, "data_bytes", m->data_bytes) &&
	    !set_u64(o, "zero_bytes", m->zero_bytes) && !sm_json_set_hex(o, "map_hash", m->map_hash, SM_DIGEST) &&
	    !sm_json_set_text(o, "tool", m->tool) &&
	    (!m->info.sealed || !sm_json_set_hex(o, "seal_tag", m->seal_tag, SM_DIGEST)))
		text = sm_json_canonical(o);
	json_decref(o);
	return text;
}

static int parse_members(const json_t *o, struct sm_manifest *m, struct sm_err *e)
{
	const char *format = json_string_value(json_object_get(o, "format"));
	uint64_t version;
	int err;

	if (!format || strcmp(format, FORMAT))
		return sm_fail(e, -EPROTO, "not a manifest");
	if ((err = sm_json_u64(o, "version", UINT32_MAX, &version, e)))
		return err;
	if (version != VERSION)
		return sm_fail(e, -EPROTO, "manifest of version %llu", (unsigned long long)version);
	if ((err = sm_gen_info_parse(o, &m->info, e)) ||
	    (err = sm_json_u64(o, "frames", INT64_MAX, &m->frames, e)) ||
	    (err = sm_json_u64(o, "data_bytes", INT64_MAX, &m->data_bytes, e)) ||
	    (err = sm_json_u64(o, "zero_bytes", INT64_MAX, &m->zero_bytes, e)) ||
	    (err = sm_json_digest(o, "map_hash", m->map_hash, e)) ||
	    (m->info.sealed && (err = sm_json_digest(o, "seal_tag", m->seal_tag, e))))
		return err;
	return sm_json_text(o, "tool", m->tool, sizeof(m->tool), e);
}

int sm_manifest_parse(const char *text, size_t len, struct sm_manifest *m, struct sm_err *e)
{
	json_t *o = sm_json_parse(text, len, SM_MANIFEST_MAX, e);
	char *again;
	int err;

	if (!o)
		return -EPROTO;
	again = sm_json_canonical(o);
	if (!again)
		err = sm_fail(e, -ENOMEM, "no memory for a manifest");
	else if (strlen(again) != len || memcmp(again, text, len))
		err = sm_fail(e, -EPROTO, "manifest is not canonical JSON");
	else
		err = parse_members(o, m, e);
	free(again);
	json_decref(o);
	return err;
}
