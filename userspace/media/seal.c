// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Who has what: the storage host and whoever restores have the key; the media server, the network, and who steals a disk have not.
 * The server is taken to be hostile: it may keep, lose, change, exchange and replay anything it was ever sent.
 *
 * What it learns: volume uuid and name, label, times, sizes, which ranges changed and which of them are zeros, and how well each frame
 * of up to 256 KiB compresses (--compress 0 hides that, at its price). What it does not learn: a byte of the data, or whether a
 * guess at the data is right. So nothing that it sees is a function of the plaintext alone:
 *
 *	frame digest, map hash, record digests	of sealed bytes; the server checks what it stores, without a key
 *	digests on demand (--compare, --audit)	of plaintext, which it does not have: refused for what is sealed
 *
 * What it can do to a frame: a sealed frame opens in one place only. AES-256-GCM, with as associated data
 *
 *	domain, volume uuid, { version, key id, generation uuid, salt, nonce }, number of extents, raw length, extents
 *
 * so frames cannot be exchanged between ranges, generations, volumes or keys, cut or changed. The codec of the compressed bytes is
 * inside. What remains is leaving out and replaying: handing out for a block an older frame of that same block, or zeros. That is not
 * seen in a frame. The manifest tells: it has a tag (HMAC under a key of its own) over all its members, among them number, uuid, parent,
 * change digest and map hash. A server cannot make one or give it another number.
 *
 * Nonces. A run of snapbackup draws a salt of 128 bits and counts its frames from 0: (subkey, nonce) repeats only if two
 * runs draw the same salt. subkey = HKDF-SHA256(key, salt, domain, volume, generation). Salt and generation stand in each frame and not in
 * the manifest, since a resumed upload has frames of several runs, and an image frames of generations whose manifests were pruned long ago.
 * 72 bytes for 256 KiB. A subkey seals less than 2^48 frames; GCM's limit with counted nonces is far above.
 *
 *	key ──HMAC "key id"──────────────► id (first 8 bytes), in clear: in manifests, frames, messages
 *	    ──HKDF salt, volume, gen. ───► subkey of a run: frames
 *	    ──HKDF "manifest"────────────► manifest tags
 *
 * The order is compress, then seal. Frames of a generation that was sealed do not mix with plain ones: an increment is put only on a parent with the
 * same key id, and who restores with a key takes no frame that is not sealed (sm_opener.strict), or anybody could write one.
 */
#include "seal.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store.h"

#define KEY_MAGIC	"snapdiff-key 1 "	/* the file: this, 64 hexadecimal digits, newline */
#define KEY_FILE	(sizeof(KEY_MAGIC) - 1 + 2 * SM_SECRET + 1)
#define COUNTER_MAX	(1ull << 48)

/* ---- derivation ---- */

static void hmac(const void *key, size_t key_len, const void *data, size_t len, uint8_t out[SM_DIGEST])
{
	if (!HMAC(EVP_sha256(), key, key_len, data, len, out, NULL))
		abort();	/* as SHA-256: memory is all that can fail */
}

/* HKDF-SHA256 (RFC 5869) for one block of output: extract, then expand with the counter 1. */
static void hkdf(const struct sm_secret *k, const void *salt, size_t salt_len, const void *info, size_t info_len, uint8_t out[SM_SECRET])
{
	uint8_t prk[SM_DIGEST], block[128];

	if (info_len > sizeof(block) - 1)
		abort();
	hmac(salt, salt_len, k->key, SM_SECRET, prk);
	memcpy(block, info, info_len);
	block[info_len] = 1;
	hmac(prk, sizeof(prk), block, info_len + 1, out);
	OPENSSL_cleanse(prk, sizeof(prk));
}

static void make_id(struct sm_secret *k)
{
	static const char domain[] = "snapdiff key id 1";
	uint8_t digest[SM_DIGEST];

	hmac(k->key, SM_SECRET, domain, sizeof(domain), digest);
	memcpy(k->id, digest, SM_SECRET_ID);
}

static void make_subkey(const struct sm_secret *k, const uint8_t volume[SM_UUID], const struct sm_wire_seal *h, uint8_t subkey[SM_SECRET])
{
	static const char domain[] = "snapdiff frames 1";
	uint8_t info[sizeof(domain) + 2 * SM_UUID];

	memcpy(info, domain, sizeof(domain));
	memcpy(info + sizeof(domain), volume, SM_UUID);
	memcpy(info + sizeof(domain) + SM_UUID, h->generation, SM_UUID);
	hkdf(k, h->salt, sizeof(h->salt), info, sizeof(info), subkey);
}

/* ---- the key file ---- */

void sm_secret_wipe(struct sm_secret *k)
{
	OPENSSL_cleanse(k, sizeof(*k));
}

void sm_secret_id_text(const uint8_t id[SM_SECRET_ID], char text[SM_SECRET_ID_TEXT])
{
	sm_hex(id, SM_SECRET_ID, text);
}

int sm_secret_make(const char *path, struct sm_secret *k, struct sm_err *e)
{
	char text[KEY_FILE + 1] = KEY_MAGIC;
	int fd, err = sm_random(k->key, SM_SECRET);

	if (err)
		return sm_fail(e, err, "no random numbers");
	fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return sm_fail(e, -errno, "%s: %s", path, errno == EEXIST ? "is there already; a key is never replaced" : strerror(errno));
	make_id(k);
	sm_hex(k->key, SM_SECRET, text + sizeof(KEY_MAGIC) - 1);
	text[KEY_FILE - 1] = '\n';
	err = sm_write_full(fd, text, KEY_FILE);
	if (!err && fsync(fd))
		err = -errno;
	if (close(fd) && !err)
		err = -errno;
	OPENSSL_cleanse(text, sizeof(text));
	if (!err && !(err = sm_fsync_parent(path, e)))
		return 0;
	unlink(path);
	sm_secret_wipe(k);
	return sm_fail(e, err, "%s: cannot write: %s", path, strerror(-err));
}

int sm_secret_load(const char *path, struct sm_secret *k, struct sm_err *e)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), err = 0;
	char text[KEY_FILE + 1];
	struct stat st;
	ssize_t n;

	if (fd < 0 || fstat(fd, &st)) {
		err = sm_fail(e, -errno, "%s: %s", path, strerror(errno));
	} else if (!S_ISREG(st.st_mode)) {
		err = sm_fail(e, -EUCLEAN, "%s: is not a key file", path);
	} else if ((st.st_uid && st.st_uid != geteuid()) || st.st_mode & 077) {
		err = sm_fail(e, -EACCES, "%s: others can read this key: it must be ours, mode 0600", path);
	} else {
		n = sm_read_full(fd, text, sizeof(text));
		if (n < 0)
			err = sm_fail(e, n, "%s: cannot read: %s", path, strerror(-n));
		else if (n != KEY_FILE || memcmp(text, KEY_MAGIC, sizeof(KEY_MAGIC) - 1) || text[KEY_FILE - 1] != '\n' ||
			 (text[KEY_FILE - 1] = '\0', sm_unhex(text + sizeof(KEY_MAGIC) - 1, k->key, SM_SECRET)))
			err = sm_fail(e, -EUCLEAN, "%s: is not a key file", path);
	}
	OPENSSL_cleanse(text, sizeof(text));
	if (fd >= 0)
		close(fd);
	if (!err)
		make_id(k);
	return err;
}

/* ---- frames ---- */

/* One pass of AES-256-GCM over @len bytes at @buf, in place. @enc 0: -EPROTO when the tag is wrong; then @buf is wiped. */
static int gcm(int enc, const uint8_t subkey[SM_SECRET], const uint8_t volume[SM_UUID], struct sm_wire_seal *h, const struct sm_wire_data *d,
	       uint8_t *buf, int len)
{
	static const char domain[] = "snapdiff frame 1";
	const struct sm_wire_extent *x = (const void *)(d + 1);
	EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
	int n, ok = c && EVP_CipherInit_ex(c, EVP_aes_256_gcm(), NULL, subkey, h->nonce, enc) &&
		    EVP_CipherUpdate(c, NULL, &n, (const void *)domain, sizeof(domain)) &&
		    EVP_CipherUpdate(c, NULL, &n, volume, SM_UUID) &&
		    EVP_CipherUpdate(c, NULL, &n, (const void *)h, offsetof(struct sm_wire_seal, tag)) &&
		    EVP_CipherUpdate(c, NULL, &n, (const void *)d, 2 * sizeof(uint32_t)) &&	/* number of extents, raw length */
		    EVP_CipherUpdate(c, NULL, &n, (const void *)x, le32toh(d->nr_extents) * sizeof(*x)) &&
		    EVP_CipherUpdate(c, buf, &n, buf, len);
	int err = ok ? 0 : -ENOMEM;

	if (!err && !enc && !EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_SET_TAG, sizeof(h->tag), h->tag))
		err = -ENOMEM;
	if (!err && !EVP_CipherFinal_ex(c, buf + n, &n))
		err = -EPROTO;
	if (!err && enc && !EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_GET_TAG, sizeof(h->tag), h->tag))
		err = -ENOMEM;
	EVP_CIPHER_CTX_free(c);
	if (err)
		OPENSSL_cleanse(buf, len);
	return err;
}

int sm_sealer_init(struct sm_sealer *s, const struct sm_secret *k, const uint8_t volume[SM_UUID], const uint8_t generation[SM_UUID],
		   struct sm_err *e)
{
	int err;

	memset(s, 0, sizeof(*s));
	s->head.version = 1;
	memcpy(s->head.id, k->id, SM_SECRET_ID);
	memcpy(s->head.generation, generation, SM_UUID);
	memcpy(s->volume, volume, SM_UUID);
	err = sm_random(s->head.salt, sizeof(s->head.salt));
	if (err)
		return sm_fail(e, err, "no random numbers");
	make_subkey(k, volume, &s->head, s->subkey);
	return 0;
}

ssize_t sm_seal(struct sm_sealer *s, void *payload, size_t len, struct sm_err *e)
{
	struct sm_wire_data *d = payload;
	uint8_t *stored = (uint8_t *)(d + 1) + le32toh(d->nr_extents) * sizeof(struct sm_wire_extent);
	size_t n = le32toh(d->stored_length);
	uint64_t number = __atomic_fetch_add(&s->counter, 1, __ATOMIC_RELAXED), le = htole64(number);
	struct sm_wire_seal h = s->head;
	int err;

	if (number >= COUNTER_MAX)
		return sm_fail(e, -EOVERFLOW, "too many frames for one key");
	memcpy(h.nonce, &le, sizeof(le));
	memmove(stored + SM_SEAL_ROOM, stored, n);
	stored[sizeof(h)] = d->codec;
	err = gcm(1, s->subkey, s->volume, &h, d, stored + sizeof(h), n + 1);
	if (err)
		return sm_fail(e, err, "cannot encrypt");
	memcpy(stored, &h, sizeof(h));
	n += SM_SEAL_ROOM;
	d->codec = SM_CODEC_SEALED;
	d->stored_length = htole32(n);
	sm_sha256(stored, n, d->digest);
	return len + SM_SEAL_ROOM;
}

const struct sm_wire_seal *sm_data_seal(const struct sm_data *d)
{
	return d->codec == SM_CODEC_SEALED && d->stored ? (const void *)d->stored : NULL;
}

static int not_opened(const struct sm_data *d, struct sm_err *e, const char *why)
{
	return sm_fail(e, -EPROTO, "data frame at offset %llu: %s", (unsigned long long)le64toh(d->extents[0].offset), why);
}

static int open_sealed(const struct sm_data *d, const struct sm_opener *o, uint8_t *raw, struct sm_err *e)
{
	struct sm_wire_seal h = *(const struct sm_wire_seal *)d->stored;
	uint32_t len = d->stored_length - sizeof(h);
	uint8_t subkey[SM_SECRET], *plain;
	struct sm_data inner = *d;
	char id[SM_SECRET_ID_TEXT];
	int err;

	sm_secret_id_text(h.id, id);
	if (!o || !o->k)
		return sm_fail(e, -EACCES, "encrypted with key %s, which was not given", id);
	if (memcmp(o->k->id, h.id, SM_SECRET_ID))
		return sm_fail(e, -EACCES, "encrypted with key %s, which is another one", id);
	if (h.version != 1)
		return not_opened(d, e, "sealed in a way that is not known");
	plain = malloc(len);
	if (!plain)
		return sm_fail(e, -ENOMEM, "no memory to decrypt");
	memcpy(plain, d->stored + sizeof(h), len);
	make_subkey(o->k, o->volume, &h, subkey);
	err = gcm(0, subkey, o->volume, &h, sm_data_head(d), plain, len);
	OPENSSL_cleanse(subkey, sizeof(subkey));
	if (err == -EPROTO) {
		not_opened(d, e, "does not open: changed, or sealed for another place, generation or volume");
	} else if (err) {
		sm_fail(e, err, "no memory to decrypt");
	} else {
		inner.codec = plain[0];
		inner.stored = plain + 1;
		inner.stored_length = len - 1;
		/* Who has the key may have written nonsense. */
		err = inner.codec == SM_CODEC_NONE && len - 1 != d->raw_length ? not_opened(d, e, "has another length inside") :
			sm_data_inflate(&inner, raw, e);
	}
	OPENSSL_cleanse(plain, len);
	free(plain);
	return err;
}

int sm_data_open(const struct sm_data *d, const struct sm_opener *o, uint8_t *raw, struct sm_err *e)
{
	int err;

	if (d->codec != SM_CODEC_SEALED)
		return o && o->strict ? not_opened(d, e, "not encrypted, and all of this is") : sm_data_unpack(d, raw, e);
	err = sm_data_check(d, raw, e);
	return err ? err : open_sealed(d, o, raw, e);
}

/* ---- manifests ---- */

static int manifest_tag(const struct sm_secret *k, const struct sm_manifest *m, uint8_t tag[SM_DIGEST], struct sm_err *e)
{
	static const char domain[] = "snapdiff manifest 1";
	struct sm_manifest untagged = *m;
	uint8_t key[SM_SECRET];
	char *text;

	memset(untagged.seal_tag, 0, SM_DIGEST);
	text = sm_manifest_text(&untagged);
	if (!text)
		return sm_fail(e, -ENOMEM, "no memory");
	hkdf(k, "", 0, domain, sizeof(domain), key);
	hmac(key, sizeof(key), text, strlen(text), tag);
	OPENSSL_cleanse(key, sizeof(key));
	free(text);
	return 0;
}

int sm_seal_manifest(const struct sm_secret *k, struct sm_manifest *m, struct sm_err *e)
{
	return manifest_tag(k, m, m->seal_tag, e);
}

int sm_unseal_info(const struct sm_secret *k, const struct sm_gen_info *g, struct sm_err *e)
{
	char want[SM_SECRET_ID_TEXT], have[SM_SECRET_ID_TEXT];

	if (!g->sealed)
		return k ? sm_fail(e, -EACCES, "generation %u is not encrypted, and a key was given: not what was asked for", g->number) : 0;
	sm_secret_id_text(g->seal_id, want);
	if (!k)
		return sm_fail(e, -EACCES, "generation %u is encrypted: its key, %s, is needed", g->number, want);
	sm_secret_id_text(k->id, have);
	if (memcmp(k->id, g->seal_id, SM_SECRET_ID))
		return sm_fail(e, -EACCES, "generation %u is encrypted with key %s, this one is %s", g->number, want, have);
	return 0;
}

int sm_unseal_manifest(const struct sm_secret *k, const struct sm_manifest *m, struct sm_err *e)
{
	int err = sm_unseal_info(k, &m->info, e);
	uint8_t tag[SM_DIGEST];

	if (err || !k)
		return err;
	err = manifest_tag(k, m, tag, e);
	if (!err && CRYPTO_memcmp(tag, m->seal_tag, SM_DIGEST))
		err = sm_fail(e, -EPROTO, "generation %u: its manifest was not made with the key", m->info.number);
	return err;
}
