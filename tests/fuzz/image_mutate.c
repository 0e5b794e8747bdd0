// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Mutations of images that get behind the checksums: a field or some bytes of one block are changed, or a block takes another one's place, and then the checksums (and sometimes
 * the addresses) are made right again.
 */
#include "image.h"

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed);

#define MAX_RECORDS	4096u

struct rec {
	u32 number;
	u8 b[SD_BLOCK_SIZE];
};

static u64 state;

static u32 roll(u32 n)
{
	state = state * 6364136223846793005ull + 1442695040888963407ull;
	return (state >> 33) % n;
}

static bool is_metadata(const u8 *b)
{
	return b[0] == 'S' && b[1] == 'D' && b[2] == 'P';
}

static struct rec *by_number(struct rec *r, u32 nr, u32 number)
{
	u32 i;

	for (i = nr; i; i--)
		if (r[i - 1].number == number)
			return &r[i - 1];
	return NULL;
}

static void fix(struct rec *r, u32 nr, u32 n)
{
	static u8 image[SD_GROUP_MAX_BLOCKS * SD_BLOCK_SIZE];
	struct sd_disk_header *h = (void *)r[n].b;
	struct sd_store s = { 0 };
	u32 magic = le32_to_cpu(h->magic), i, blocks = le16_to_cpu(h->nr);
	u64 addr = le64_to_cpu(h->addr);

	if (!is_metadata(r[n].b))
		return;
	memcpy(s.uuid, h->uuid, sizeof(s.uuid));
	if (magic != SD_MAGIC_JOURNAL) {
		sd_block_seal(&s, h, magic, addr, le64_to_cpu(h->txid));
		return;
	}
	if (!blocks || blocks > SD_GROUP_MAX_BLOCKS)
		return;
	memset(image, 0, sizeof(image));
	for (i = 0; i < blocks; i++) {
		struct rec *p = by_number(r, nr, r[n].number + i);

		if (p)
			memcpy(image + i * SD_BLOCK_SIZE, p->b, SD_BLOCK_SIZE);
	}
	sd_block_seal(&s, image, magic, addr, le64_to_cpu(h->txid));
	memcpy(r[n].b, image, SD_BLOCK_SIZE);
}

static u64 odd_number(void)
{
	static const u64 odd[] = { 0, 1, 2, 3, 7, 8, 66, 67, 4096, 0x7fff, 0x8000, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff, 1ull << 32, (1ull << 56) - 1,
		1ull << 56, 2ull << 56, 1ull << 63, ~0ull };

	return roll(3) ? odd[roll(ARRAY_SIZE(odd))] : roll(2) ? roll(8192) : state;
}

static void change_field(u8 *b)
{
	u32 len = 1u << roll(4), at, i;
	u64 v = odd_number();

	/* The header, the first entries, or anywhere */
	at = roll(3) == 0 ? 16 + roll(30) : roll(2) ? 64 + roll(400) : roll(SD_BLOCK_SIZE - 8);
	at &= ~(len - 1);
	if (!roll(2)) {		/* near what is there */
		u64 old = 0;

		memcpy(&old, b + at, len);
		v = old + roll(7) - 3;
	}
	for (i = 0; i < len; i++)
		b[at + i] = v >> 8 * i;
}

static void mutate(struct rec *r, u32 *nr)
{
	u32 n = roll(*nr), other = roll(*nr), number;

	switch (roll(12)) {
	case 0:
		LLVMFuzzerMutate(r[n].b, SD_BLOCK_SIZE, SD_BLOCK_SIZE);
		break;
	case 1:
		number = r[n].number;
		r[n].number = r[other].number;
		r[other].number = number;
		break;
	case 2:			/* a copy of another block, made to look at home */
		memcpy(r[n].b, r[other].b, SD_BLOCK_SIZE);
		if (is_metadata(r[n].b))
			((struct sd_disk_header *)r[n].b)->addr = cpu_to_le64(r[n].number);
		break;
	case 3:
		if (*nr > 1)
			r[n] = r[--*nr];
		return;
	case 4:			/* a part of another of its kind */
		number = roll(SD_BLOCK_SIZE);
		memcpy(r[n].b + number, r[other].b + number, roll(SD_BLOCK_SIZE - number));
		break;
	default:
		change_field(r[n].b);
	}
	if (roll(16))
		fix(r, *nr, n);
	if (roll(16))
		fix(r, *nr, other);
}

static size_t encode(uint8_t *data, size_t max, u32 blocks, const struct rec *r, u32 nr)
{
	size_t off = 4;
	u32 i;

	memcpy(data, &blocks, 4);
	for (i = 0; i < nr; i++) {
		u16 len = SD_BLOCK_SIZE;

		while (len && !r[i].b[len - 1])
			len--;
		if (off + 6 + len > max)
			break;
		memcpy(data + off, &r[i].number, 4);
		memcpy(data + off + 4, &len, 2);
		memcpy(data + off + 6, r[i].b, len);
		off += 6 + len;
	}
	return off;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed)
{
	static struct rec r[MAX_RECORDS];
	const u8 *bytes;
	u32 blocks, number, nr = 0, times;
	size_t off = 4;
	u16 len;

	state = seed;
	if (size < 4)
		return LLVMFuzzerMutate(data, size, max_size);
	memcpy(&blocks, data, 4);
	while (nr < MAX_RECORDS && image_next(data, size, &off, &number, &bytes, &len)) {
		r[nr].number = number;
		memset(r[nr].b, 0, SD_BLOCK_SIZE);
		memcpy(r[nr++].b, bytes, len);
	}
	if (!nr)
		return LLVMFuzzerMutate(data, size, max_size);
	if (!roll(100))
		blocks = odd_number();
	for (times = 1 + roll(3); times; times--)
		mutate(r, &nr);
	return encode(data, max_size, blocks, r, nr);
}
