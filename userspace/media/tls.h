/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLS 1.3 between two who know each other's public key.
 *
 * There are no authorities, names or expiry dates: a peer is its key, and the *pin* of a key is the SHA-256 of its
 * SubjectPublicKeyInfo, written "sha256:HEX". A key file is all that either side keeps; the certificate that TLS wants
 * around a key is made anew in memory each time, and nothing in it is looked at but the key.
 *
 * Nothing older than TLS 1.3 is spoken, there are no tickets, no resumption and no early data: each connection proves both keys.
 */
#ifndef SNAPMEDIA_TLS_H
#define SNAPMEDIA_TLS_H

#include "util.h"

#define SM_PIN_TEXT	(7u + SM_DIGEST_HEX)

struct sm_key;
struct sm_tls;

void sm_pin_format(const uint8_t pin[SM_DIGEST], char text[SM_PIN_TEXT]);
/* sm_pin_parse() - exactly "sha256:" and 64 hexadecimal digits; 0 or -EINVAL */
int sm_pin_parse(const char *text, uint8_t pin[SM_DIGEST]);

/**
 * sm_key_create() - make a private key (Ed25519) in a new file, mode 0600, durable
 *
 * Return: 0, -EEXIST when the file is there (it is never replaced), -errno.
 */
int sm_key_create(const char *path, struct sm_err *e);

/**
 * sm_key_load() - read a private key
 *
 * Refuses a file that others than its owner can read, or that belongs to another user. Return: 0, -ENOENT, -EACCES, -EUCLEAN, -errno.
 */
int sm_key_load(const char *path, struct sm_key **k, struct sm_err *e);
void sm_key_free(struct sm_key *k);
void sm_key_pin(const struct sm_key *k, uint8_t pin[SM_DIGEST]);

/* sm_tls_connect() - client's handshake over a connected socket, which becomes non-blocking. -EACCES: it is not the server with this pin */
int sm_tls_connect(struct sm_tls **t, int fd, const struct sm_key *k, const uint8_t pin[SM_DIGEST], int timeout_ms,
		   struct sm_err *e);

/**
 * sm_tls_accept() - server's handshake
 * @known: is this a client's pin? Asked in the handshake, before the peer is told anything
 *
 * Return: 0, -EACCES a key that is not known (or none), -ETIMEDOUT, -EPROTO anything else that is not our TLS.
 */
int sm_tls_accept(struct sm_tls **t, int fd, const struct sm_key *k, bool (*known)(const uint8_t pin[SM_DIGEST], void *arg),
		  void *arg, int timeout_ms, struct sm_err *e);
void sm_tls_free(struct sm_tls *t);		/* says goodbye if it can at once; does not close the socket */

/*
 * Never block. Return: bytes, 0 at an orderly end (read only), -EAGAIN: wait for *@events (POLLIN or POLLOUT) and
 * call again, -ECONNRESET a cut connection (an end without goodbye is one), -EACCES the server does not know our key.
 */
ssize_t sm_tls_read(struct sm_tls *t, void *buf, size_t len, short *events);
ssize_t sm_tls_write(struct sm_tls *t, const void *buf, size_t len, short *events);
/* sm_tls_ready() - is there something sm_tls_read() would return now: data, the end or an error? */
bool sm_tls_ready(struct sm_tls *t);

#endif
