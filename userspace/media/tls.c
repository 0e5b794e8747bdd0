// SPDX-License-Identifier: GPL-2.0-or-later
#include "tls.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define KEY_MAX		4096u
#define FOREVER		(100l * 365 * 86400)	/* nobody looks at the dates; OpenSSL wants some */

struct sm_key {
	EVP_PKEY *key;
	X509 *cert;
	uint8_t pin[SM_DIGEST];
};

struct sm_tls {
	SSL_CTX *ctx;
	SSL *ssl;
	bool server, refused;		/* refused: the other's key was not the right one */
	int broken;			/* the error that ended it: it stays */
	uint8_t pin[SM_DIGEST];		/* client: whom to expect */
	bool (*known)(const uint8_t pin[SM_DIGEST], void *arg);
	void *arg;
};

/* ---- pins ---- */

void sm_pin_format(const uint8_t pin[SM_DIGEST], char text[SM_PIN_TEXT])
{
	memcpy(text, "sha256:", 7);
	sm_hex(pin, SM_DIGEST, text + 7);
}

int sm_pin_parse(const char *text, uint8_t pin[SM_DIGEST])
{
	return strncmp(text, "sha256:", 7) ? -EINVAL : sm_unhex(text + 7, pin, SM_DIGEST);
}

static int pin_of(EVP_PKEY *key, uint8_t pin[SM_DIGEST])
{
	uint8_t *der = NULL;
	int n = i2d_PUBKEY(key, &der);

	if (n <= 0)
		return -EPROTO;
	sm_sha256(der, n, pin);
	OPENSSL_free(der);
	return 0;
}

/* What OpenSSL has to say; its queue is emptied. */
static const char *reason(void)
{
	const char *text = ERR_reason_error_string(ERR_peek_last_error());

	ERR_clear_error();
	return text ? text : "no reason given";
}

/* ---- keys ---- */

static int write_key(int fd, EVP_PKEY *key)
{
	BIO *b = BIO_new(BIO_s_secmem());
	char *text;
	long n;
	int err = -ENOMEM;

	if (b && PEM_write_bio_PrivateKey(b, key, NULL, NULL, 0, NULL, NULL)) {
		n = BIO_get_mem_data(b, &text);
		err = sm_write_full(fd, text, n);
		OPENSSL_cleanse(text, n);
		if (!err && fsync(fd))
			err = -errno;
	}
	BIO_free(b);
	return err;
}

static int sync_parent(const char *path)
{
	char *copy = strdup(path), *slash = copy ? strrchr(copy, '/') : NULL;
	int fd, err = copy ? 0 : -ENOMEM;

	if (slash)
		slash[slash == copy] = '\0';
	fd = err ? -1 : open(slash ? copy : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (!err && (fd < 0 || fsync(fd)))
		err = -errno;
	if (fd >= 0)
		close(fd);
	free(copy);
	return err;
}

int sm_key_create(const char *path, struct sm_err *e)
{
	char tmp[PATH_MAX];
	EVP_PKEY *key;
	int fd, err;

	/* Under its name only when it is whole: half a key would have to be removed by hand. */
	if (snprintf(tmp, sizeof(tmp), "%s.XXXXXX", path) >= (int)sizeof(tmp))
		return sm_fail(e, -ENAMETOOLONG, "%s: name too long", path);
	fd = mkostemp(tmp, O_CLOEXEC);	/* mode 0600 */
	if (fd < 0)
		return sm_fail(e, -errno, "%s: cannot write: %s", path, strerror(errno));
	key = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
	err = key ? write_key(fd, key) : -ENOMEM;
	EVP_PKEY_free(key);
	close(fd);
	if (!err && link(tmp, path))
		err = -errno;
	unlink(tmp);
	if (!err)
		err = sync_parent(path);
	return err ? sm_fail(e, err, "%s: %s", path, err == -EEXIST ? "there is a key already" : strerror(-err)) : 0;
}

static X509 *make_cert(EVP_PKEY *key)
{
	X509 *c = X509_new();
	X509_NAME *name = c ? X509_get_subject_name(c) : NULL;

	if (name && X509_set_version(c, X509_VERSION_3) && ASN1_INTEGER_set(X509_get_serialNumber(c), 1) &&
	    X509_gmtime_adj(X509_getm_notBefore(c), -86400) && X509_gmtime_adj(X509_getm_notAfter(c), FOREVER) &&
	    X509_set_pubkey(c, key) &&
	    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const uint8_t *)"snapdiff", -1, -1, 0) &&
	    X509_set_issuer_name(c, name) && X509_sign(c, key, NULL))
		return c;
	X509_free(c);
	return NULL;
}

static int read_key(const char *path, char text[KEY_MAX], struct sm_err *e)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW), err = 0;
	struct stat st;
	ssize_t n;

	if (fd < 0)
		return sm_fail(e, -errno, "%s: %s", path, strerror(errno));
	if (fstat(fd, &st))
		err = sm_fail(e, -errno, "%s: %s", path, strerror(errno));
	else if (!S_ISREG(st.st_mode) || (st.st_mode & 077) || st.st_uid != geteuid())
		err = sm_fail(e, -EACCES, "%s: others can get at this key: it must be a file of our own with mode 0600", path);
	n = err ? 0 : sm_read_full(fd, text, KEY_MAX - 1);
	close(fd);
	if (n < 0)
		err = sm_fail(e, n, "%s: %s", path, strerror(-n));
	text[n > 0 ? n : 0] = '\0';
	return err;
}

int sm_key_load(const char *path, struct sm_key **out, struct sm_err *e)
{
	struct sm_key *k = calloc(1, sizeof(*k));
	char text[KEY_MAX];
	BIO *b = NULL;
	int err = k ? read_key(path, text, e) : sm_fail(e, -ENOMEM, "no memory");

	if (!err) {
		b = BIO_new_mem_buf(text, -1);
		k->key = b ? PEM_read_bio_PrivateKey(b, NULL, NULL, "") : NULL;
		k->cert = k->key ? make_cert(k->key) : NULL;
		if (!k->cert || pin_of(k->key, k->pin))
			err = sm_fail(e, -EUCLEAN, "%s: not a private key: %s", path, reason());
	}
	BIO_free(b);
	OPENSSL_cleanse(text, sizeof(text));
	if (err)
		sm_key_free(k);
	else
		*out = k;
	return err;
}

void sm_key_free(struct sm_key *k)
{
	if (!k)
		return;
	EVP_PKEY_free(k->key);
	X509_free(k->cert);
	free(k);
}

void sm_key_pin(const struct sm_key *k, uint8_t pin[SM_DIGEST])
{
	memcpy(pin, k->pin, SM_DIGEST);
}

/* ---- handshake ---- */

/* Takes the place of all of OpenSSL's looking at certificates. Having the key behind it is proved by the handshake itself. */
static int check_peer(X509_STORE_CTX *store, void *arg)
{
	struct sm_tls *t = arg;
	X509 *cert = X509_STORE_CTX_get0_cert(store);
	EVP_PKEY *key = cert ? X509_get0_pubkey(cert) : NULL;
	uint8_t pin[SM_DIGEST];
	bool good = key && !pin_of(key, pin) &&
		    (t->server ? t->known(pin, t->arg) : !CRYPTO_memcmp(pin, t->pin, SM_DIGEST));

	t->refused = !good;
	if (!good)
		X509_STORE_CTX_set_error(store, X509_V_ERR_APPLICATION_VERIFICATION);
	return good;
}

static int set_up(struct sm_tls *t, int fd, const struct sm_key *k)
{
	t->ctx = SSL_CTX_new(TLS_method());
	if (!t->ctx || !SSL_CTX_set_min_proto_version(t->ctx, TLS1_3_VERSION) ||
	    !SSL_CTX_set_max_proto_version(t->ctx, TLS1_3_VERSION) || !SSL_CTX_use_certificate(t->ctx, k->cert) ||
	    !SSL_CTX_use_PrivateKey(t->ctx, k->key) || !SSL_CTX_set_num_tickets(t->ctx, 0) ||
	    !SSL_CTX_set_max_early_data(t->ctx, 0))
		return -ENOMEM;
	SSL_CTX_set_options(t->ctx, SSL_OP_NO_TICKET);
	SSL_CTX_set_session_cache_mode(t->ctx, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_mode(t->ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	SSL_CTX_set_verify(t->ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	SSL_CTX_set_cert_verify_callback(t->ctx, check_peer, t);
	t->ssl = SSL_new(t->ctx);
	if (!t->ssl || !SSL_set_fd(t->ssl, fd))
		return -ENOMEM;
	if (t->server)
		SSL_set_accept_state(t->ssl);
	else
		SSL_set_connect_state(t->ssl);
	return 0;
}

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static int shake_failed(struct sm_tls *t, struct sm_err *e)
{
	const char *why;

	if (t->refused)
		return t->server ? sm_fail(e, -EACCES, "TLS: a client with a key that is not known here") :
				   sm_fail(e, -EACCES, "TLS: this is not the server whose pin is known");
	why = reason();
	if (strstr(why, "peer did not return a certificate"))
		return sm_fail(e, -EACCES, "TLS: a client without a key");
	return sm_fail(e, -EPROTO, "TLS: no connection: %s", why);
}

/* The whole handshake within the time: who sends a byte a second does not get more of it. */
static int shake_hands(struct sm_tls *t, int fd, int timeout_ms, struct sm_err *e)
{
	int64_t until = now_ms() + timeout_ms;

	for (;;) {
		struct pollfd p = { .fd = fd };
		int64_t left = until - now_ms();
		int r;

		ERR_clear_error();
		r = SSL_do_handshake(t->ssl);
		if (r == 1)
			return 0;
		r = SSL_get_error(t->ssl, r);
		if (r != SSL_ERROR_WANT_READ && r != SSL_ERROR_WANT_WRITE)
			return shake_failed(t, e);
		p.events = r == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT;
		if (left <= 0 || !(r = poll(&p, 1, left)))
			return sm_fail(e, -ETIMEDOUT, "TLS: no handshake within %d s", timeout_ms / 1000);
		if (r < 0 && errno != EINTR)
			return sm_fail(e, -errno, "poll: %s", strerror(errno));
	}
}

static int start(struct sm_tls *t, int fd, const struct sm_key *k, int timeout_ms, struct sm_tls **out, struct sm_err *e)
{
	int flags = fcntl(fd, F_GETFL), err;

	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK))
		err = sm_fail(e, -errno, "connection: %s", strerror(errno));
	else if ((err = set_up(t, fd, k)))
		err = sm_fail(e, err, "TLS: cannot set up: %s", reason());
	else
		err = shake_hands(t, fd, timeout_ms, e);
	if (err)
		sm_tls_free(t);
	else
		*out = t;
	return err;
}

int sm_tls_connect(struct sm_tls **out, int fd, const struct sm_key *k, const uint8_t pin[SM_DIGEST], int timeout_ms,
		   struct sm_err *e)
{
	struct sm_tls *t = calloc(1, sizeof(*t));

	if (!t)
		return sm_fail(e, -ENOMEM, "no memory");
	memcpy(t->pin, pin, SM_DIGEST);
	return start(t, fd, k, timeout_ms, out, e);
}

int sm_tls_accept(struct sm_tls **out, int fd, const struct sm_key *k, bool (*known)(const uint8_t pin[SM_DIGEST], void *arg),
		  void *arg, int timeout_ms, struct sm_err *e)
{
	struct sm_tls *t = calloc(1, sizeof(*t));

	if (!t)
		return sm_fail(e, -ENOMEM, "no memory");
	t->server = true;
	t->known = known;
	t->arg = arg;
	return start(t, fd, k, timeout_ms, out, e);
}

void sm_tls_free(struct sm_tls *t)
{
	if (!t)
		return;
	ERR_clear_error();
	if (t->ssl && SSL_is_init_finished(t->ssl))
		SSL_shutdown(t->ssl);
	SSL_free(t->ssl);
	SSL_CTX_free(t->ctx);
	ERR_clear_error();
	free(t);
}

/* ---- bytes ---- */

/* In TLS 1.3 a client learns only after its own handshake, by an alert, that the server does not like its key. */
static int broken_by(struct sm_tls *t)
{
	int why = ERR_GET_REASON(ERR_peek_error());

	ERR_clear_error();
	t->broken = !t->server && why >= SSL_AD_REASON_OFFSET && why < SSL_AD_REASON_OFFSET + 256 ? -EACCES : -ECONNRESET;
	return t->broken;
}

static ssize_t outcome(struct sm_tls *t, int r, short *events)
{
	if (t->broken)
		return t->broken;
	switch (SSL_get_error(t->ssl, r)) {
	case SSL_ERROR_WANT_READ:
		*events = POLLIN;
		return -EAGAIN;
	case SSL_ERROR_WANT_WRITE:
		*events = POLLOUT;
		return -EAGAIN;
	case SSL_ERROR_ZERO_RETURN:
		return 0;
	default:
		return broken_by(t);
	}
}

ssize_t sm_tls_read(struct sm_tls *t, void *buf, size_t len, short *events)
{
	int r;

	ERR_clear_error();
	r = SSL_read(t->ssl, buf, len < INT32_MAX ? len : INT32_MAX);
	return r > 0 ? r : outcome(t, r, events);
}

ssize_t sm_tls_write(struct sm_tls *t, const void *buf, size_t len, short *events)
{
	int r;

	ERR_clear_error();
	r = SSL_write(t->ssl, buf, len < INT32_MAX ? len : INT32_MAX);
	r = r > 0 ? r : outcome(t, r, events);
	return r ? r : -ECONNRESET;
}

bool sm_tls_ready(struct sm_tls *t)
{
	short events;
	uint8_t byte;
	int r;

	ERR_clear_error();
	r = SSL_peek(t->ssl, &byte, 1);
	return r > 0 || outcome(t, r, &events) != -EAGAIN;
}
