// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * TLS between a client and a server that know each other's keys, and what happens when they do not: no key, another key,
 * an older TLS, a handshake that never ends. And sessions over it, cut after every frame in either direction.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clients.h"
#include "session.h"

#define TIMEOUT	20000
#define BLOCKS	24
#define SIZE	(BLOCKS * SM_BLOCK + 99)

static char dir[64];
static struct sm_repo repo;
static struct sm_key *server_key, *client_key, *other_key;
static uint8_t server_pin[SM_DIGEST], client_pin[SM_DIGEST], other_pin[SM_DIGEST];
static uint8_t image[SIZE];

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *f)
{
	return remove(path);
}

static struct sm_key *make_key(const char *name, uint8_t pin[SM_DIGEST])
{
	char path[128];
	struct sm_key *k;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	assert_int_equal(sm_key_create(path, NULL), 0);
	assert_int_equal(sm_key_load(path, &k, NULL), 0);
	sm_key_pin(k, pin);
	return k;
}

static int setup(void **state)
{
	char path[128];

	snprintf(dir, sizeof(dir), "%s/test_media_tls.XXXXXX", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/repo", dir);
	assert_int_equal(sm_repo_init(path, NULL), 0);
	assert_int_equal(sm_repo_open(path, &repo, NULL), 0);
	server_key = make_key("server", server_pin);
	client_key = make_key("client", client_pin);
	other_key = make_key("other", other_pin);
	srandom(1);
	for (size_t i = 0; i < SIZE; i++)
		image[i] = i / SM_BLOCK % 5 ? random() : 0;
	return 0;
}

static int teardown(void **state)
{
	sm_key_free(server_key);
	sm_key_free(client_key);
	sm_key_free(other_key);
	sm_repo_close(&repo);
	return nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static bool known(const uint8_t pin[SM_DIGEST], void *arg)
{
	return !memcmp(pin, client_pin, SM_DIGEST);
}

/* A server in a process of its own, for one session. Its exit status is what sm_tls_accept() said, or sm_serve(). */
static pid_t start_server(int *fd, bool serve, int timeout)
{
	int s[2];
	pid_t pid;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
	pid = fork();
	if (!pid) {
		struct sm_identity id = { "tester", SM_ROLE_BACKUP };
		struct sm_chan c;
		int err;

		close(s[0]);
		sm_chan_init(&c, s[1], s[1]);
		err = sm_tls_accept(&c.tls, s[1], server_key, known, NULL, timeout, NULL);
		if (!err && serve)
			err = sm_serve(&repo, &c, &id, NULL);
		else if (!err && sm_chan_send_buf(&c, SM_BYE, "x", 1, NULL))
			err = -EIO;
		sm_chan_free(&c);
		_exit(-err);
	}
	assert_true(pid > 0);
	close(s[1]);
	*fd = s[0];
	return pid;
}

static int server_said(pid_t pid)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return -WEXITSTATUS(status);
}

/* Connect with a key to a pin, and wait for the first frame. Return: what the client saw. */
static int visit(const struct sm_key *k, const uint8_t pin[SM_DIGEST], int *server)
{
	struct sm_chan c;
	struct sm_frame f;
	int fd, err;
	pid_t pid = start_server(&fd, false, TIMEOUT);

	sm_chan_init(&c, fd, fd);
	err = sm_tls_connect(&c.tls, fd, k, pin, TIMEOUT, NULL);
	if (!err) {
		err = sm_chan_recv(&c, &f, NULL);
		err = err == 1 && f.type == SM_BYE && f.length == 1 ? 0 : err ? err : -EPIPE;
	}
	sm_chan_free(&c);
	close(fd);
	*server = server_said(pid);
	return err;
}

static void only_those_who_know_each_other(void **state)
{
	int server;

	assert_int_equal(visit(client_key, server_pin, &server), 0);
	assert_int_equal(server, 0);
	/* A key that the server does not know: in TLS 1.3 the client learns it by the first read */
	assert_int_equal(visit(other_key, server_pin, &server), -EACCES);
	assert_int_equal(server, -EACCES);
	/* A server that is another than the one we know: nothing is sent to it */
	assert_int_equal(visit(client_key, other_pin, &server), -EACCES);
	assert_true(server < 0);
}

/* OpenSSL's own client, as an attacker has it. Return: did it get as far as a byte from the server? */
static bool foreign_client(int max_version, int *server)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
	int fd;
	pid_t pid = start_server(&fd, false, TIMEOUT);
	SSL *ssl = SSL_new(ctx);
	uint8_t byte;
	bool in;

	SSL_set_max_proto_version(ssl, max_version);
	SSL_set_fd(ssl, fd);
	in = SSL_connect(ssl) == 1 && SSL_read(ssl, &byte, 1) == 1;
	SSL_free(ssl);
	SSL_CTX_free(ctx);
	close(fd);
	*server = server_said(pid);
	return in;
}

static void no_key_and_no_older_tls(void **state)
{
	int server;

	assert_false(foreign_client(TLS1_3_VERSION, &server));	/* no certificate */
	assert_int_equal(server, -EACCES);
	assert_false(foreign_client(TLS1_2_VERSION, &server));
	assert_int_equal(server, -EPROTO);
}

static void silence_and_plaintext_end_the_handshake(void **state)
{
	int fd;
	pid_t pid = start_server(&fd, false, 200);
	struct sm_client c;

	assert_int_equal(server_said(pid), -ETIMEDOUT);
	close(fd);
	pid = start_server(&fd, true, TIMEOUT);
	assert_int_equal(sm_client_stream(&c, fd, NULL), 0);	/* HELLO, as without TLS */
	assert_int_equal(server_said(pid), -EPROTO);
	sm_client_end(&c, false);
	close(fd);
}

static void keys_that_others_can_read(void **state)
{
	char path[128], text[SM_PIN_TEXT];
	uint8_t pin[SM_DIGEST];
	struct sm_key *k;
	struct stat st;
	int fd;

	snprintf(path, sizeof(path), "%s/client", dir);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(sm_key_create(path, NULL), -EEXIST);	/* never replaced */
	assert_int_equal(chmod(path, 0640), 0);
	assert_int_equal(sm_key_load(path, &k, NULL), -EACCES);
	assert_int_equal(chmod(path, 0600), 0);
	fd = open(path, O_WRONLY | O_TRUNC);
	assert_int_equal(write(fd, "-----BEGIN", 10), 10);
	close(fd);
	assert_int_equal(sm_key_load(path, &k, NULL), -EUCLEAN);
	assert_int_equal(sm_key_load("/nonexistent/key", &k, NULL), -ENOENT);

	sm_pin_format(server_pin, text);
	assert_int_equal(sm_pin_parse(text, pin), 0);
	assert_memory_equal(pin, server_pin, SM_DIGEST);
	text[10] = 'G';
	assert_int_equal(sm_pin_parse(text, pin), -EINVAL);
	assert_int_equal(sm_pin_parse("sha256:00", pin), -EINVAL);
}

/* ---- sessions ---- */

static void describe(struct sm_manifest *m, uint32_t number)
{
	struct sm_range_hash h;

	memset(m, 0, sizeof(*m));
	memcpy(m->info.volume, "a volume's uuid", 16);
	memcpy(m->info.uuid, &number, 4);
	m->info.number = number;
	m->info.size = m->info.bytes = SIZE;
	m->info.extents = 1;
	sm_range_hash_init(&h);
	sm_range_hash_add(&h, 0, SIZE);
	sm_range_hash_final(&h, m->info.change_digest);
	strcpy(m->info.volume_name, "disk");
	strcpy(m->tool, "test");
}

struct attempt {
	struct sm_client c;
	bool have[BLOCKS + 1];
	int cut_after;			/* frames sent, then the connection is cut; -1: never */
	uint32_t sent;			/* DATA and ZERO frames */
	struct sm_manifest m;
};

static int have_data(const void *head, size_t len, void *arg, struct sm_err *e)
{
	const struct sm_wire_data *h = head;
	const struct sm_wire_extent *x = (const void *)(h + 1);

	((struct attempt *)arg)->have[le64toh(x->offset) / SM_BLOCK] = true;
	return 0;
}

static int have_zero(uint64_t offset, uint64_t length, void *arg, struct sm_err *e)
{
	((struct attempt *)arg)->have[offset / SM_BLOCK] = true;
	return 0;
}

static bool cut_now(struct attempt *a)
{
	if (a->cut_after-- != 0)
		return false;
	shutdown(a->c.carrier.in, SHUT_RDWR);
	return true;
}

/* What of the image is not there yet, a block a frame; the map hash is of all of it. */
static int send_blocks(struct attempt *a)
{
	static uint8_t payload[2 * SM_BLOCK];
	struct sm_map_hash map;
	int err = 0;

	sm_map_hash_init(&map);
	for (uint64_t at = 0; !err && at < SIZE; at += SM_BLOCK) {
		struct sm_extent x = { at, SIZE - at < SM_BLOCK ? SIZE - at : SM_BLOCK };
		struct {
			struct sm_wire_zero h;
			struct sm_wire_extent w;
		} __attribute__((packed)) z = { { htole32(1), 0 }, { htole64(x.offset), htole64(x.length) } };
		bool zero = sm_is_zero(image + at, x.length), there = a->have[at / SM_BLOCK];
		ssize_t n = zero ? (ssize_t)sizeof(z) : sm_data_pack(&x, 1, image + at, x.length, 0, payload, NULL);
		uint8_t leaf[SM_DIGEST];
		struct sm_data d;

		if (zero) {
			sm_map_hash_zero(&map, at, x.length);
			a->m.zero_bytes += x.length;
		} else {
			assert_int_equal(sm_data_parse(payload, n, SIZE, false, &d, NULL), 0);
			sm_data_leaf(&d, leaf);
			sm_map_hash_data(&map, at, leaf);
			a->m.frames++;
			a->m.data_bytes += x.length;
		}
		if (there)
			continue;
		if (cut_now(a))
			err = -EPIPE;
		else
			err = sm_client_send(&a->c, zero ? SM_ZERO : SM_DATA, zero ? (void *)&z : payload, n, NULL);
		a->sent += !err;
	}
	sm_map_hash_final(&map, a->m.map_hash);
	return err;
}

/* @ask: OPEN it and look what is there. Return: 0 published by this, 1 it was there, -errno. */
static int try_backup(struct attempt *a, uint32_t number)
{
	static const struct sm_have_ops ops = { have_data, have_zero };
	struct sm_receipt r;
	char *text;
	int fd, err;
	pid_t pid = start_server(&fd, true, TIMEOUT);

	memset(&a->c, 0, sizeof(a->c));
	sm_chan_init(&a->c.chan, fd, fd);
	a->c.carrier.in = a->c.carrier.out = fd;
	a->c.credit = SM_CREDIT;
	describe(&a->m, number);
	err = sm_tls_connect(&a->c.chan.tls, fd, client_key, server_pin, TIMEOUT, NULL);
	assert_int_equal(err, 0);
	if (!cut_now(a)) {
		struct sm_frame f;

		err = sm_send_hello(&a->c.chan, SM_ROLE_BACKUP, NULL, NULL);
		assert_int_equal(err, 0);
		assert_int_equal(sm_chan_recv(&a->c.chan, &f, NULL), 1);
		err = cut_now(a) ? -EPIPE : sm_client_open(&a->c, &a->m.info, &ops, a, &r, NULL);
		if (!err)
			err = send_blocks(a);
		if (!err && cut_now(a))
			err = -EPIPE;
		if (!err) {
			text = sm_manifest_text(&a->m);
			/* After the COMMIT and before its answer: the client cannot know, and has to ask. */
			if (cut_now(a))
				err = -EPIPE;
			else if (a->cut_after == 0) {
				sm_chan_send_buf(&a->c.chan, SM_COMMIT, text, strlen(text), NULL);
				err = -EPIPE;
			} else
				err = sm_client_commit(&a->c, text, &r, NULL);
			free(text);
		}
	} else {
		err = -EPIPE;
	}
	sm_client_end(&a->c, !err);
	server_said(pid);
	return err;
}

static uint32_t there(const struct attempt *a)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i <= BLOCKS; i++)
		n += a->have[i];
	return n;
}

/* Cut after every number of frames; the next attempt sends what is missing, not one frame more, and is published. */
static void cut_at_every_frame_and_resumed(void **state)
{
	struct sm_verify v = { 0 };
	uint32_t number = 0, lost_answers = 0;
	int cut;

	for (cut = 0; cut < BLOCKS + 1 + 5; cut++) {
		struct attempt first = { .cut_after = cut }, again = { .cut_after = -1 };
		int err = try_backup(&first, ++number), r;

		if (!err)
			break;		/* long enough to come to its end */
		r = try_backup(&again, number);
		if (r == 1) {		/* the COMMIT had got there */
			lost_answers++;
			assert_int_equal(again.sent, 0);
			continue;
		}
		assert_int_equal(r, 0);
		/* What was sent and what had arrived may differ by what the cut destroyed under way, never by more. */
		assert_true(there(&again) <= first.sent);
		assert_true(there(&again) + 1 >= first.sent);
		assert_int_equal(again.sent, BLOCKS + 1 - there(&again));
	}
	assert_true(cut > BLOCKS + 2);
	assert_true(lost_answers >= 1);
	assert_int_equal(sm_repo_verify(&repo, &v, NULL), 0);
	assert_int_equal(v.errors, 0);
	assert_int_equal(v.generations, number);
}

/* ---- who may come ---- */

static void registered_clients(void **state)
{
	struct sm_registered c = { .name = "nas", .has_pin = true, .roles = SM_ROLE_BACKUP, .quota = 12345, .max_sessions = 3 };
	struct sm_registered got, *v;
	char text[SM_ROLES_TEXT];
	uint32_t roles;
	size_t nr;

	memcpy(c.pin, client_pin, SM_DIGEST);
	assert_int_equal(sm_clients_put(repo.path, &c, false, NULL), 0);
	assert_int_equal(sm_clients_put(repo.path, &c, false, NULL), -EEXIST);
	assert_int_equal(sm_clients_find(repo.path, client_pin, &got, NULL), 0);
	assert_string_equal(got.name, "nas");
	assert_int_equal(got.quota, 12345);
	assert_int_equal(got.max_sessions, 3);
	assert_int_equal(sm_clients_find(repo.path, other_pin, &got, NULL), -ENOENT);
	strcpy(c.name, "nas2");
	assert_int_equal(sm_clients_put(repo.path, &c, false, NULL), -EEXIST);	/* one pin, one name */
	strcpy(c.name, "../evil");
	assert_int_equal(sm_clients_put(repo.path, &c, false, NULL), -EINVAL);
	strcpy(c.name, "nas");
	c.roles = SM_ROLE_OPERATOR | SM_ROLE_AUDITOR;
	assert_int_equal(sm_clients_put(repo.path, &c, true, NULL), 0);
	assert_int_equal(sm_clients_list(repo.path, &v, &nr, NULL), 0);
	assert_int_equal(nr, 1);
	assert_string_equal(sm_roles_text(v[0].roles, text), "operator,auditor");
	free(v);
	assert_int_equal(sm_clients_remove(repo.path, "nas", NULL), 0);
	assert_int_equal(sm_clients_find(repo.path, client_pin, &got, NULL), -ENOENT);
	assert_int_equal(sm_clients_remove(repo.path, "nas", NULL), -ENOENT);
	assert_int_equal(sm_roles_parse("backup,operator", &roles), 0);
	assert_int_equal(roles, SM_ROLE_BACKUP | SM_ROLE_OPERATOR);
	assert_int_equal(sm_roles_parse("backup,root", &roles), -EINVAL);
	assert_int_equal(sm_roles_parse("", &roles), -EINVAL);
}

#define TEST(f)	cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(only_those_who_know_each_other),
		TEST(no_key_and_no_older_tls),
		TEST(silence_and_plaintext_end_the_handshake),
		TEST(keys_that_others_can_read),
		TEST(cut_at_every_frame_and_resumed),
		TEST(registered_clients),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
