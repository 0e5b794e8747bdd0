// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * One session: who is it, and its orders, one after the other. The key proved in the handshake names the client; there is no other
 * way in. An order that fails ends the session.
 *
 * What reads the network's bytes is confined before the first of them, as the media server's sessions are:
 *
 *	capabilities	CAP_SYS_ADMIN alone, for the module's netlink family; and system calls leave it nothing else to be used on
 *	files		the clients (read), jobs and locks (write), /sys (names of devices). Not agent.conf, which was read before, nor keys
 *	programs	none. Jobs are started and stopped by the helper, which hears their numbers only
 *
 * So whoever takes over a session can give the orders that an agent takes, of any role, and no others: generations can be lost, and what [restore] names
 * be overwritten, but nothing that agent.conf does not allow is read, written or sent.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "agentd.h"
#include "confine.h"
#include "helper.h"

#define SILENCE_MS	(15 * 60 * 1000)

static int greet(struct asker *a, struct sm_err *e)
{
	struct agent *agent = (struct agent *)a->service;
	struct sm_registered client;
	static const uint8_t no_repository[SM_UUID];
	struct sm_wire_hello h;
	struct sm_frame f;
	int r = sm_clients_accept(agent->dir, agent->key, a->chan, &client, e);

	if (r)
		return r;
	snprintf(a->client, sizeof(a->client), "%s", client.name);
	if (client.max_sessions && (r = sm_clients_slot(agent->dir, a->client, client.max_sessions, e)) < 0)
		return r;
	r = sm_chan_recv(a->chan, &f, e);
	if (r <= 0)
		return r ? r : sm_fail(e, -EPIPE, "the peer left without a word");
	r = sm_check_hello(&f, &h, e);
	if (r)
		return r;
	a->roles = le32toh(h.roles) & client.roles;
	return sm_send_hello(a->chan, a->roles, no_repository, e);
}

/* ---- orders ---- */

int asker_row(struct asker *a, json_t *row, struct sm_err *e)
{
	return sm_send_json(a->chan, SM_ROW, row, e);
}

/* The classes of exit codes are what the words of ERROR frames can say. */
int asker_fail(struct sm_err *e, const struct snap_err *se, int err)
{
	static const int by_exit[] = { 0, -EINVAL, -EACCES, -ENOMEM, -ENOENT, -EBUSY, -EIO };
	const char *text = se->text[0] ? se->text : strerror(-err);

	return sm_fail(e, by_exit[snap_err_exit(err)], "%s%s%s", se->object, se->object[0] ? ": " : "", text);
}

int order_volume(const json_t *order, char name[SNAP_VOLUME_BUF], struct sm_err *e)
{
	const json_t *v = json_object_get(order, "volume");
	struct snap_err se = SNAP_ERR_INIT;

	*name = '\0';
	if (!v || json_is_null(v))
		return 0;
	if (sm_json_text(order, "volume", name, SNAP_VOLUME_BUF, e))
		return -EINVAL;
	return snap_check_volume_name(name, &se) ? asker_fail(e, &se, -EINVAL) : 1;
}

int order_number(const json_t *order, const char *key, uint32_t *number, struct sm_err *e)
{
	uint64_t v;

	if (sm_json_u64(order, key, UINT32_MAX - 1, &v, e) || !v)
		return sm_fail(e, -EINVAL, "\"%s\" is not a number from 1 on", key);
	*number = v;
	return 0;
}

static const struct verb *find_verb(const char *name)
{
	const struct verb *const tables[] = { volume_verbs, job_verbs };

	for (size_t i = 0; name && i < sizeof(tables) / sizeof(*tables); i++)
		for (const struct verb *v = tables[i]; v->name; v++)
			if (!strcmp(v->name, name))
				return v;
	return NULL;
}

static int do_order(struct asker *a, const struct sm_frame *f, struct sm_err *e)
{
	json_t *o = sm_json_parse((const char *)f->payload, f->length, SM_MAX_CONTROL, e);
	const struct verb *v = find_verb(json_string_value(json_object_get(o, "verb")));
	int err;

	if (!o)
		return -EPROTO;
	if (!v)
		err = sm_fail(e, -EINVAL, "an order that is not known here");
	else if (!(a->roles & v->roles))
		err = sm_fail(e, -EACCES, "this client may not %s", v->name);
	else
		err = v->fn(a, o, e);
	if (v)
		sm_note(a->service, "order client=%s verb=%s%s%d", a->client, v->name, err ? " error=" : " ok=", err ? -err : 1);
	json_decref(o);
	return err ? err : sm_send_json(a->chan, SM_END, json_object(), e);
}

static int serve(struct asker *a, struct sm_err *e)
{
	struct sm_frame f;
	int r;

	while ((r = sm_chan_recv(a->chan, &f, e)) > 0) {
		if (f.type == SM_BYE)
			return 0;
		if (f.type == SM_ERROR)
			return sm_fail(e, -EPROTO, "the peer gave up");
		if (f.type != SM_ORDER)
			return sm_fail(e, -EPROTO, "frame of type %u is not for an agent", f.type);
		r = do_order(a, &f, e);
		if (r)
			return r;
	}
	return r;
}

static void send_error(struct sm_chan *c, int err, const char *text)
{
	if (err != -EPIPE && err != -ECONNRESET && err != -ETIMEDOUT)
		sm_send_error(c, err, err == -EINTR ? "the agent is stopping; ask again later" : text);
}

static int confine(struct sm_err *e)
{
	static char clients[PATH_MAX], locks[PATH_MAX], jobs[PATH_MAX];
	const struct sm_allowed allowed[] = {
		{ agent_path(clients, "agent/clients"), false }, { agent_path(locks, "agent/locks"), true }, { agent_path(jobs, "jobs"), true },
		{ "/sys", false },
	};

	return sm_confine_netlink(allowed, sizeof(allowed) / sizeof(*allowed), e);
}

/* Before a byte of the peer's is read. */
static int split(struct sm_service *s, int in, int out, struct sm_err *e)
{
	const int theirs[] = { in, out == in ? -1 : out, s->gate };
	int err = helper_begin(theirs, sizeof(theirs) / sizeof(*theirs), e);

	if (err)
		return err;
	agent_config_keep();
	return confine(e);
}

int session(struct sm_service *s, int in, int out, const char *peer, bool tls, const sigset_t *wait_mask)
{
	struct asker a = { .service = s };
	char roles[SM_ROLES_TEXT], text[SM_QUOTED];
	struct sm_err e = { 0 };
	struct sm_chan c;
	int err;

	(void)tls;	/* always */
	sm_chan_init(&c, in, out);
	c.timeout_ms = SILENCE_MS;
	a.chan = &c;
	err = split(s, in, out, &e);
	if (!err)
		err = greet(&a, &e);
	if (!err && !sm_service_admit(s))
		err = sm_fail(&e, -EBUSY, "too many sessions");
	if (err) {
		sm_note(s, "refused peer=%s why=%s", peer, sm_quoted(e.text, text));
		if (c.tls)
			send_error(&c, err, e.text);
		sm_chan_free(&c);
		sm_linger(out);
		return SNAP_EXIT_IO;
	}
	c.wait_mask = wait_mask;
	sm_note(s, "begin peer=%s client=%s roles=%s", peer, a.client, sm_roles_text(a.roles, roles));
	err = serve(&a, &e);
	if (err)
		send_error(&c, err, e.text);
	sm_note(s, "end peer=%s client=%s in=%llu out=%llu%s%s", peer, a.client, (unsigned long long)c.bytes_in,
		(unsigned long long)c.bytes_out, err ? " error=" : "", err ? sm_quoted(e.text, text) : "");
	sm_chan_free(&c);
	if (err)
		sm_linger(out);
	return err ? SNAP_EXIT_IO : 0;
}
