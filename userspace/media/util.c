// SPDX-License-Identifier: GPL-2.0-or-later
#include "util.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

int sm_fail(struct sm_err *e, int code, const char *fmt, ...)
{
	va_list ap;

	if (!e)
		return code;
	e->code = code;
	va_start(ap, fmt);
	vsnprintf(e->text, sizeof(e->text), fmt, ap);
	va_end(ap);
	return code;
}

void sm_hex(const uint8_t *data, size_t len, char *text)
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < len; i++) {
		text[2 * i] = digits[data[i] >> 4];
		text[2 * i + 1] = digits[data[i] & 15];
	}
	text[2 * len] = '\0';
}

static int nibble(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return -1;
}

int sm_unhex(const char *text, uint8_t *data, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		int hi = nibble(text[2 * i]), lo;

		if (hi < 0)
			return -EINVAL;
		lo = nibble(text[2 * i + 1]);
		if (lo < 0)
			return -EINVAL;
		data[i] = hi << 4 | lo;
	}
	return text[2 * len] ? -EINVAL : 0;
}

void sm_uuid_format(const uint8_t uuid[SM_UUID], char text[SM_UUID_TEXT])
{
	static const uint8_t dash_after[] = { 4, 6, 8, 10 };
	size_t from = 0;

	for (size_t i = 0; i <= 4; i++) {
		size_t to = i < 4 ? dash_after[i] : SM_UUID;

		sm_hex(uuid + from, to - from, text);
		text += 2 * (to - from);
		if (i < 4)
			*text++ = '-';
		from = to;
	}
}

int sm_uuid_parse(const char *text, uint8_t uuid[SM_UUID])
{
	char plain[2 * SM_UUID + 1];
	size_t n = 0;

	if (strlen(text) != SM_UUID_TEXT - 1)
		return -EINVAL;
	for (size_t i = 0; i < SM_UUID_TEXT - 1; i++) {
		bool dash = i == 8 || i == 13 || i == 18 || i == 23;

		if (dash != (text[i] == '-'))
			return -EINVAL;
		if (!dash)
			plain[n++] = text[i] >= 'A' && text[i] <= 'F' ? text[i] + 32 : text[i];
	}
	plain[n] = '\0';
	return sm_unhex(plain, uuid, SM_UUID);
}

ssize_t sm_read_full(int fd, void *buf, size_t len)
{
	size_t done = 0;

	while (done < len) {
		ssize_t r = read(fd, (char *)buf + done, len - done);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		if (!r)
			break;
		done += r;
	}
	return done;
}

ssize_t sm_pread_full(int fd, void *buf, size_t len, uint64_t offset)
{
	size_t done = 0;

	while (done < len) {
		ssize_t r = pread(fd, (char *)buf + done, len - done, offset + done);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		if (!r)
			break;
		done += r;
	}
	return done;
}

int sm_write_full(int fd, const void *buf, size_t len)
{
	size_t done = 0;

	while (done < len) {
		ssize_t r = write(fd, (const char *)buf + done, len - done);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		done += r;
	}
	return 0;
}

int sm_pwrite_full(int fd, const void *buf, size_t len, uint64_t offset)
{
	size_t done = 0;

	while (done < len) {
		ssize_t r = pwrite(fd, (const char *)buf + done, len - done, offset + done);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		done += r;
	}
	return 0;
}

int sm_random(void *buf, size_t len)
{
	return getrandom(buf, len, 0) == (ssize_t)len ? 0 : -EIO;
}

uint64_t sm_now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (uint64_t)t.tv_sec * 1000000000u + t.tv_nsec;
}

bool sm_is_zero(const void *buf, size_t len)
{
	const uint8_t *p = buf;

	/* A first look at 16 bytes settles nearly all non-zero blocks; then the buffer is compared with itself, shifted. */
	if (len < 16) {
		while (len--)
			if (*p++)
				return false;
		return true;
	}
	for (size_t i = 0; i < 16; i++)
		if (p[i])
			return false;
	return !memcmp(p, p + 16, len - 16);
}

static uint32_t crc_table[256];

static void __attribute__((constructor)) crc_table_init(void)
{
	for (uint32_t i = 0; i < 256; i++) {
		uint32_t c = i;

		for (int bit = 0; bit < 8; bit++)
			c = c & 1 ? c >> 1 ^ 0x82f63b78u : c >> 1;
		crc_table[i] = c;
	}
}

static uint32_t crc_generic(uint32_t c, const uint8_t *p, size_t len)
{
	while (len--)
		c = crc_table[(c ^ *p++) & 0xff] ^ c >> 8;
	return c;
}

#if defined(__x86_64__)
/*
 * The instruction takes three cycles, and one can begin in each: three lanes of the buffer are done at once, and put together by what so many
 * bytes of zeros make of a sum. That is linear: the sum of 32 single bits, kept for each value of each byte.
 */
#define LANE	1024u

static uint32_t crc_lane[4][256];

static void __attribute__((constructor)) crc_lane_init(void)
{
	static const uint8_t zeros[LANE];

	crc_table_init();	/* ours may come first */
	for (unsigned int byte = 0; byte < 4; byte++)
		for (unsigned int bit = 0; bit < 8; bit++) {
			uint32_t one = crc_generic(1u << (8 * byte + bit), zeros, LANE);

			for (unsigned int v = 0; v < 1u << bit; v++)
				crc_lane[byte][v | 1u << bit] = crc_lane[byte][v] ^ one;
		}
}

static uint32_t crc_skip_lane(uint32_t c)
{
	return crc_lane[0][c & 0xff] ^ crc_lane[1][c >> 8 & 0xff] ^ crc_lane[2][c >> 16 & 0xff] ^ crc_lane[3][c >> 24];
}

static uint64_t word_at(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, 8);
	return v;
}

__attribute__((target("sse4.2")))
static uint32_t crc_three_lanes(uint32_t c, const uint8_t *p)
{
	uint64_t a = c, b = 0, d = 0;

	for (size_t i = 0; i < LANE; i += 8) {
		a = __builtin_ia32_crc32di(a, word_at(p + i));
		b = __builtin_ia32_crc32di(b, word_at(p + LANE + i));
		d = __builtin_ia32_crc32di(d, word_at(p + 2 * LANE + i));
	}
	return crc_skip_lane(crc_skip_lane(a) ^ b) ^ d;
}

__attribute__((target("sse4.2")))
static uint32_t crc_sse42(uint32_t c, const uint8_t *p, size_t len)
{
	uint64_t wide;

	for (; len >= 3 * LANE; p += 3 * LANE, len -= 3 * LANE)
		c = crc_three_lanes(c, p);
	wide = c;
	for (; len >= 8; p += 8, len -= 8)
		wide = __builtin_ia32_crc32di(wide, word_at(p));
	c = wide;
	while (len--)
		c = __builtin_ia32_crc32qi(c, *p++);
	return c;
}
#endif

uint32_t sm_crc32c(uint32_t crc, const void *buf, size_t len)
{
#if defined(__x86_64__)
	if (__builtin_cpu_supports("sse4.2"))
		return ~crc_sse42(~crc, buf, len);
#endif
	return ~crc_generic(~crc, buf, len);
}

static void must(bool ok)
{
	if (!ok) {
		fputs("snapmedia: SHA-256 is not available (no memory?)\n", stderr);
		abort();
	}
}

void sm_sha_init(struct sm_sha *s)
{
	s->ctx = EVP_MD_CTX_new();
	must(s->ctx && EVP_DigestInit_ex(s->ctx, EVP_sha256(), NULL));
}

void sm_sha_update(struct sm_sha *s, const void *buf, size_t len)
{
	must(EVP_DigestUpdate(s->ctx, buf, len));
}

void sm_sha_final(struct sm_sha *s, uint8_t digest[SM_DIGEST])
{
	must(EVP_DigestFinal_ex(s->ctx, digest, NULL));
	sm_sha_drop(s);
}

void sm_sha_drop(struct sm_sha *s)
{
	EVP_MD_CTX_free(s->ctx);
	s->ctx = NULL;
}

void sm_sha256(const void *buf, size_t len, uint8_t digest[SM_DIGEST])
{
	must(EVP_Digest(buf, len, digest, NULL, EVP_sha256(), NULL));
}

int sm_by_digest(const void *a, const void *b)
{
	return memcmp(a, b, SM_DIGEST);
}

void sm_spill_init(struct sm_spill *s, size_t elem, const char *dir)
{
	memset(s, 0, sizeof(*s));
	s->elem = elem;
	s->fd = -1;
	if (!dir)
		dir = getenv("TMPDIR");
	snprintf(s->dir, sizeof(s->dir), "%s", dir ? dir : "/tmp");
}

/* Move to a file, or make the file larger. The file is unlinked: it goes when the process goes. */
static int spill_to_file(struct sm_spill *s, size_t bytes)
{
	void *map;
	int err;

	if (s->fd < 0) {
		s->fd = open(s->dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
		if (s->fd < 0)
			return -errno;
	}
	err = posix_fallocate(s->fd, 0, bytes);
	if (err)
		return -err;
	map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, s->fd, 0);
	if (map == MAP_FAILED)
		return -errno;
	if (s->bytes <= SM_SPILL_MEMORY)
		memcpy(map, s->map, s->nr * s->elem);
	if (s->map)
		munmap(s->map, s->bytes);
	s->map = map;
	s->bytes = bytes;
	return 0;
}

static int spill_grow(struct sm_spill *s)
{
	size_t bytes = s->bytes ? 2 * s->bytes : 64u << 10;
	void *map;

	if (bytes > SM_SPILL_MEMORY)
		return spill_to_file(s, bytes);
	if (s->map)
		map = mremap(s->map, s->bytes, bytes, MREMAP_MAYMOVE);
	else
		map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (map == MAP_FAILED)
		return -errno;
	s->map = map;
	s->bytes = bytes;
	return 0;
}

void *sm_spill_add(struct sm_spill *s)
{
	if ((s->nr + 1) * s->elem > s->bytes) {
		int err = spill_grow(s);

		if (err) {
			errno = -err;
			return NULL;
		}
	}
	return sm_spill_at(s, s->nr++);
}

void sm_spill_free(struct sm_spill *s)
{
	if (s->map)
		munmap(s->map, s->bytes);
	if (s->fd >= 0)
		close(s->fd);
	s->map = NULL;
	s->fd = -1;
	s->nr = s->bytes = 0;
}
