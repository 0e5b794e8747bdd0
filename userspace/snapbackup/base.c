// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Which generation to build on. A number alone never decides: the generation's uuid must be the same on both sides,
 * and the server is told the parent by the hash of its manifest.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backup.h"

#define AUTO_NEWEST	16u

struct search {
	const struct backup_options *o;
	uint32_t older_than;
	struct base *best;		/* the newest that both sides know */
	struct base any;		/* the newest older one on the server, whatever is known here */
	bool server_has_any, server_has_number, other_key;
	uint32_t damaged;		/* the newest that was passed over because the server found it damaged */
};

static const struct candidate *find_candidate(const struct source *s, const struct sm_gen_info *g)
{
	for (size_t i = 0; i < s->nr_candidates; i++) {
		const struct candidate *c = &s->candidates[i];

		if (c->number == g->number && (s->fixed_base || !memcmp(c->uuid, g->uuid, SM_UUID)))
			return c;
	}
	return NULL;
}

static void take(struct base *b, const struct sm_listed *l)
{
	const struct sm_gen_info *g = &l->manifest.info;

	b->number = g->number;
	b->size = g->size;
	memcpy(b->uuid, g->uuid, SM_UUID);
	memcpy(b->manifest, l->hash, SM_DIGEST);
}

/* An increment is encrypted as what it is put on, or what the whole is could not be said with one key. */
static bool same_key(const struct backup_options *o, const struct sm_gen_info *g)
{
	return !g->sealed == !o->key && (!o->key || !memcmp(g->seal_id, o->key->id, SM_SECRET_ID));
}

static int consider(const struct sm_listed *l, void *arg)
{
	struct search *x = arg;
	const struct source *s = x->o->source;
	const struct sm_gen_info *g = &l->manifest.info;

	if (memcmp(g->volume, s->volume, SM_UUID))
		return 0;
	x->server_has_any = true;
	if (x->o->base_mode == BASE_NUMBER) {
		if (g->number != x->o->base)
			return 0;
		x->server_has_number = true;
	}
	if (g->number >= x->older_than)
		return 0;
	if (l->damaged) {
		x->damaged = g->number > x->damaged ? g->number : x->damaged;
		return 0;
	}
	if (!same_key(x->o, g)) {
		x->other_key = true;
		return 0;
	}
	if (g->number > x->any.number)
		take(&x->any, l);
	if (g->number > x->best->number && find_candidate(s, g))
		take(x->best, l);
	return 0;
}

static const struct candidate *have_candidate(const struct source *s, uint32_t number)
{
	for (size_t i = 0; i < s->nr_candidates; i++)
		if (s->candidates[i].number == number)
			return &s->candidates[i];
	return NULL;
}

static int nothing_found(const struct search *x, struct base *b, struct sm_err *e)
{
	const struct source *s = x->o->source;
	uint32_t n = x->o->base;

	if (x->o->base_mode == BASE_NUMBER) {
		if (n <= s->suspect && !x->o->compare)
			return sm_fail(e, -ESTALE, "%s: base %u is suspect, what changed since then is not certain (--compare finds out, --base none sends all)", s->name, n);
		if (!have_candidate(s, n) && !x->o->compare)
			return sm_fail(e, -ENOENT, "%s: base %u is neither a live generation nor a bookmark older than it", s->name, n);
		if (!x->server_has_number)
			return sm_fail(e, -ENOENT, "%s: %s has no generation %u of this volume", s->name, x->o->dest_text, n);
		if (x->damaged)
			return sm_fail(e, -EUCLEAN, "%s: generation %u on %s is damaged, as a verification there has found: nothing is put on it (--base none sends all)",
				       s->name, n, x->o->dest_text);
		if (x->other_key)
			return sm_fail(e, -EACCES, "%s: generation %u on %s is not encrypted as this is to be: not with this key, or not at all",
				       s->name, n, x->o->dest_text);
		return sm_fail(e, -ESTALE, "%s: generation %u on %s is another one (its uuid differs)", s->name, n, x->o->dest_text);
	}
	if (!s->nr_candidates && s->suspect)
		snprintf(b->reason, sizeof(b->reason), "generations up to %u are suspect since the machine stopped without a detach: what changed is not certain",
			 s->suspect);
	else if (!s->nr_candidates)
		snprintf(b->reason, sizeof(b->reason), "there is no older generation or bookmark");
	else if (x->damaged)
		snprintf(b->reason, sizeof(b->reason), "generation %u on the media server is damaged", x->damaged);
	else if (x->other_key)
		snprintf(b->reason, sizeof(b->reason), "what is on the media server is not encrypted as this is to be: not with this key, or not at all");
	else if (!x->server_has_any)
		snprintf(b->reason, sizeof(b->reason), "the media server has nothing of this volume");
	else
		snprintf(b->reason, sizeof(b->reason), "no generation or bookmark here is on the media server");
	return 0;
}

/* Nothing here says what has changed since: the server's newest one will do, compared block by block. */
static void fall_back(struct search *x, const struct sm_client *c, struct base *b)
{
	if (!x->any.number)
		return;
	if (x->o->key) {
		snprintf(b->reason + strlen(b->reason), sizeof(b->reason) - strlen(b->reason), "; what is encrypted cannot be compared with");
		return;
	}
	if (!(c->features & SM_FEATURE_DIGESTS)) {
		snprintf(b->reason + strlen(b->reason), sizeof(b->reason) - strlen(b->reason), "; the media server is too old to compare with");
		return;
	}
	memcpy(x->any.reason, b->reason, sizeof(b->reason));
	*b = x->any;
	b->compare = true;
}

static int choose_remote(const struct backup_options *o, struct sm_client *c, uint32_t older_than, struct base *b,
			 struct sm_err *e)
{
	struct search x = { .o = o, .older_than = older_than, .best = b };
	char uuid[SM_UUID_TEXT];
	int err;

	if (o->compare && !(c->features & SM_FEATURE_DIGESTS))
		return sm_fail(e, -EPROTO, "%s: the media server is too old to compare with", o->dest_text);
	sm_uuid_format(o->source->volume, uuid);
	/* The newest few have it nearly always; a thousand generations would cost more than a small increment. */
	err = sm_client_list(c, uuid, o->base_mode == BASE_AUTO ? AUTO_NEWEST : 0, consider, &x, e);
	if (!err && !b->number && o->base_mode == BASE_AUTO)
		err = sm_client_list(c, uuid, 0, consider, &x, e);
	if (err)
		return err;
	if (o->compare && x.any.number) {
		snprintf(b->reason, sizeof(b->reason), "asked for");
		fall_back(&x, c, b);
		return 0;
	}
	if (b->number) {
		if (o->base_mode == BASE_NUMBER)
			snprintf(b->reason, sizeof(b->reason), "asked for");
		else if (x.damaged > b->number)
			snprintf(b->reason, sizeof(b->reason), "the newest that is here and on the media server, where %u is damaged", x.damaged);
		else
			snprintf(b->reason, sizeof(b->reason), "the newest that is here and on the media server");
		return 0;
	}
	err = nothing_found(&x, b, e);
	if (!err)
		fall_back(&x, c, b);
	return err;
}

/* Nobody to ask: the increment is on what the caller says, and whoever applies it finds out. */
static int choose_oneway(const struct backup_options *o, struct base *b, struct sm_err *e)
{
	const struct candidate *c = have_candidate(o->source, o->base);

	snprintf(b->reason, sizeof(b->reason), "asked for");
	if (o->base_mode == BASE_AUTO) {
		snprintf(b->reason, sizeof(b->reason), "a stream cannot say what it is added to (--base N can)");
		return 0;
	}
	if (o->base <= o->source->suspect)
		return sm_fail(e, -ESTALE, "%s: base %u is suspect, what changed since then is not certain (--base none sends all)",
			       o->source->name, o->base);
	if (!c)
		return sm_fail(e, -ENOENT, "%s: base %u is neither a live generation nor a bookmark older than it",
			       o->source->name, o->base);
	if (o->format == FORMAT_STREAM)
		return notes_load(o->source, o->base, o->key, b, e);
	b->number = c->number;
	b->size = c->size;
	memcpy(b->uuid, c->uuid, SM_UUID);
	return 0;
}

int base_choose(const struct backup_options *o, struct sm_client *c, uint32_t older_than, struct base *b, struct sm_err *e)
{
	memset(b, 0, sizeof(*b));
	if (o->base_mode == BASE_NONE) {
		snprintf(b->reason, sizeof(b->reason), "asked for");
		return 0;
	}
	if (!c->oneway)
		return choose_remote(o, c, older_than, b, e);
	return choose_oneway(o, b, e);
}
