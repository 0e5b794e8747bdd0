// SPDX-License-Identifier: GPL-2.0
/*
 * The gate: which writes belong before a cut and which after it.
 *
 * A write enters before its bits are tested and leaves when the primary has completed it. A cut closes the gate, waits until nobody is inside,
 * makes the new generation durable and opens it again. So a write is wholly before the cut (its copies went to the old interval, its data is on the primary)
 * or wholly after it (it sees the new, empty changed set).
 *
 *	state	 enter()		  who changes it
 *	open	 one per-CPU increment	  close() -> closing
 *	closing	 the bio is kept	  last leave() -> closed;  a fatal signal to the closer -> open
 *	closed	 the bio is kept	  open() -> open, then the bios that were kept are sent again
 *
 * enter() looks at the per-CPU reference first and at @closed (under the lock) only when that has been killed. close() sets @closed before it kills the
 * reference, open() revives the reference before it clears @closed and, under the same lock, takes the kept bios. So who fails at the reference either
 * finds @closed set, and open() has yet to take the bio that he leaves; or finds it clear, and the reference is alive again.
 */
#include <linux/bio.h>
#include <linux/percpu-refcount.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/wait.h>
#include "snapdiff.h"

struct snap_gate {
	struct percpu_ref inside;
	spinlock_t lock;		/* irq; leaf */
	bool closed;			/* under lock */
	struct bio_list kept;		/* under lock */
	wait_queue_head_t empty;
	void (*resubmit)(void *ctx, struct bio_list *bios);
	void *ctx;
};

static void gate_is_empty(struct percpu_ref *ref)
{
	struct snap_gate *gate = container_of(ref, struct snap_gate, inside);

	wake_up_all(&gate->empty);
}

/**
 * snap_gate_alloc() - an open gate
 * @resubmit: called by snap_gate_open() with the bios that were kept; may block
 *
 * May block. Return: NULL without memory.
 */
struct snap_gate *snap_gate_alloc(void (*resubmit)(void *ctx, struct bio_list *bios), void *ctx)
{
	struct snap_gate *gate = kzalloc(sizeof(*gate), GFP_KERNEL);

	if (!gate)
		return NULL;
	if (percpu_ref_init(&gate->inside, gate_is_empty, PERCPU_REF_ALLOW_REINIT, GFP_KERNEL)) {
		kfree(gate);
		return NULL;
	}
	spin_lock_init(&gate->lock);
	bio_list_init(&gate->kept);
	init_waitqueue_head(&gate->empty);
	gate->resubmit = resubmit;
	gate->ctx = ctx;
	return gate;
}

/** snap_gate_free() - nobody is inside and nobody will come; an RCU grace period's callbacks have run since the last close (snap_bits_destroy()) */
void snap_gate_free(struct snap_gate *gate)
{
	if (!gate)
		return;
	percpu_ref_exit(&gate->inside);
	kfree(gate);
}

static bool keep_if_closed(struct snap_gate *gate, struct bio *bio)
{
	unsigned long flags;
	bool closed;

	spin_lock_irqsave(&gate->lock, flags);
	closed = gate->closed;
	if (closed) {
		bio->bi_opf &= ~REQ_POLLED;	/* somebody else will submit it */
		bio_list_add(&gate->kept, bio);
	}
	spin_unlock_irqrestore(&gate->lock, flags);
	return closed;
}

/**
 * snap_gate_enter() - [any context] before the bits of a write are tested
 *
 * Return: true: inside, snap_gate_leave() must follow. false: the gate keeps @bio and sends it again when it opens.
 */
bool snap_gate_enter(struct snap_gate *gate, struct bio *bio)
{
	while (!percpu_ref_tryget_live(&gate->inside)) {
		if (keep_if_closed(gate, bio))
			return false;
	}
	return true;
}

/** snap_gate_leave() - [any context] */
void snap_gate_leave(struct snap_gate *gate)
{
	percpu_ref_put(&gate->inside);
}

/**
 * snap_gate_close() - keep new writes out and wait until those inside have left
 *
 * One closer at a time (vol->control). Return: 0; -EINTR: a fatal signal came first, the gate is open again.
 */
int snap_gate_close(struct snap_gate *gate)
{
	spin_lock_irq(&gate->lock);
	WARN_ON_ONCE(gate->closed);
	gate->closed = true;
	spin_unlock_irq(&gate->lock);

	percpu_ref_kill(&gate->inside);
	if (!wait_event_killable(gate->empty, percpu_ref_is_zero(&gate->inside)))
		return 0;
	snap_gate_open(gate);
	return -EINTR;
}

/** snap_gate_open() - may block; the kept writes are sent again from here */
void snap_gate_open(struct snap_gate *gate)
{
	struct bio_list kept;

	percpu_ref_resurrect(&gate->inside);
	spin_lock_irq(&gate->lock);
	gate->closed = false;
	kept = gate->kept;
	bio_list_init(&gate->kept);
	spin_unlock_irq(&gate->lock);

	if (!bio_list_empty(&kept))
		gate->resubmit(gate->ctx, &kept);
}
