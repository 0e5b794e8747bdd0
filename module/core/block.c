// SPDX-License-Identifier: GPL-2.0
/* Metadata blocks check themselves: magic, own address, uuid of the store, checksum. */
#include "internal.h"
#include "ondisk_check.h"

void sd_complain(struct sd_store *s, const char *text)
{
	if (s->opts.complain)
		s->opts.complain(s->opts.complain_ctx, text);
}

void sd_complain_block(struct sd_store *s, u64 addr, const char *what, u64 wanted, u64 found)
{
	char text[128];

	scnprintf(text, sizeof(text), "block %llu: %s: wanted %llx, found %llx", (unsigned long long)addr, what,
		  (unsigned long long)wanted, (unsigned long long)found);
	sd_complain(s, text);
}

static u32 block_crc(const void *block, u32 blocks)
{
	const struct sd_disk_header *h = block;
	const size_t after = offsetof(struct sd_disk_header, crc) + sizeof(h->crc);
	const __le32 zero = 0;
	u32 crc;

	crc = crc32c(~0u, block, offsetof(struct sd_disk_header, crc));
	crc = crc32c(crc, &zero, sizeof(zero));
	return crc32c(crc, (const u8 *)block + after, (size_t)blocks * SD_BLOCK_SIZE - after);
}

void sd_block_seal(struct sd_store *s, void *block, u32 magic, u64 addr, u64 txid)
{
	struct sd_disk_header *h = block;
	u32 blocks = magic == SD_MAGIC_JOURNAL ? le16_to_cpu(h->nr) : 1;

	h->magic = cpu_to_le32(magic);
	h->addr = cpu_to_le64(addr);
	h->txid = cpu_to_le64(txid);
	memcpy(h->uuid, s->uuid, sizeof(h->uuid));
	h->crc = cpu_to_le32(block_crc(block, blocks));
}

/* Keys rise, or searches would not end where they should. */
static bool in_order(const void *block)
{
	const struct sd_disk_fences *b = block;
	u32 i;

	for (i = 1; i < le16_to_cpu(b->hdr.nr); i++) {
		u64 a = le64_to_cpu(b->f[i - 1].chunk), c = le64_to_cpu(b->f[i].chunk);

		if (a > c || (a == c && le32_to_cpu(b->f[i - 1].gen) >= le32_to_cpu(b->f[i].gen)))
			return false;
	}
	return true;
}

int sd_block_check(struct sd_store *s, const void *block, u32 magic, u64 addr, u32 max_nr)
{
	const struct sd_disk_header *h = block;
	u32 blocks = magic == SD_MAGIC_JOURNAL ? le16_to_cpu(h->nr) : 1;
	const char *what = NULL;
	u64 wanted = 0, found = 0;

	if (le32_to_cpu(h->magic) != magic) {
		what = "magic", wanted = magic, found = le32_to_cpu(h->magic);
	} else if (le64_to_cpu(h->addr) != addr) {
		what = "own address", wanted = addr, found = le64_to_cpu(h->addr);
	} else if (memcmp(h->uuid, s->uuid, sizeof(h->uuid))) {
		what = "uuid of another store";
	} else if (le16_to_cpu(h->nr) > max_nr) {
		what = "number of entries", wanted = max_nr, found = le16_to_cpu(h->nr);
	} else if (le32_to_cpu(h->crc) != block_crc(block, blocks)) {
		what = "checksum", wanted = le32_to_cpu(h->crc), found = block_crc(block, blocks);
	} else if (magic == SD_MAGIC_FENCE && !in_order(block)) {
		what = "order of entries";
	} else if (magic == SD_MAGIC_LEAF && !sd_leaf_valid(block)) {
		what = "columns or order of records";
	}
	if (!what)
		return 0;
	if (magic != SD_MAGIC_JOURNAL)	/* the journal's end looks like damage and is none */
		sd_complain_block(s, addr, what, wanted, found);
	return -EUCLEAN;
}

static int address_check(struct sd_store *s, u64 addr)
{
	if (addr && addr < READ_ONCE(s->nr_blocks))
		return 0;
	sd_complain_block(s, addr, "address outside of the device", s->nr_blocks, addr);
	return -EUCLEAN;
}

int sd_block_read(struct sd_store *s, u64 addr, u32 magic, u32 max_nr, void *block)
{
	int err = address_check(s, addr);

	if (!err)
		err = s->dev->ops->read(s->dev->ctx, addr, 1, block);
	if (!err)
		err = sd_block_check(s, block, magic, addr, max_nr);
	return err;
}

int sd_block_get(struct sd_store *s, u64 addr, u32 magic, u32 max_nr, struct sd_buf *buf)
{
	const struct sd_disk_header *h;
	int err = address_check(s, addr);

	if (err)
		return err;
	err = s->dev->ops->get(s->dev->ctx, addr, buf);
	if (err)
		return err;
	h = buf->data;
	/* A validated block can still be of the wrong type when a damaged pointer leads to it. */
	if (buf->validated && READ_ONCE(*buf->validated) && le32_to_cpu(h->magic) == magic && le16_to_cpu(h->nr) <= max_nr)
		return 0;
	err = sd_block_check(s, buf->data, magic, addr, max_nr);
	if (err) {
		sd_block_put(s, buf);
		s->dev->ops->forget(s->dev->ctx, addr, 1);	/* the next one may be better read */
	} else if (buf->validated) {
		WRITE_ONCE(*buf->validated, true);
	}
	return err;
}

void sd_block_put(struct sd_store *s, struct sd_buf *buf)
{
	s->dev->ops->put(s->dev->ctx, buf);
}

int sd_blocks_add(struct sd_blocks *l, u64 addr, u64 nr)
{
	struct sd_blockrange *last = l->nr ? &l->r[l->nr - 1] : NULL;

	if (last && last->addr + last->nr == addr) {
		last->nr += nr;
		return 0;
	}
	if (l->nr == l->cap) {
		u32 cap = l->cap ? 2 * l->cap : 64;
		struct sd_blockrange *r = sd_malloc_sure(cap * sizeof(*r));

		if (!r)
			return -ENOMEM;
		if (l->nr)
			memcpy(r, l->r, l->nr * sizeof(*r));
		sd_free(l->r);
		l->r = r;
		l->cap = cap;
	}
	l->r[l->nr].addr = addr;
	l->r[l->nr++].nr = nr;
	return 0;
}

void sd_blocks_clear(struct sd_blocks *l)
{
	sd_free(l->r);
	memset(l, 0, sizeof(*l));
}
