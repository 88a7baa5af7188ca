/* SPDX-License-Identifier: MIT */
/*
 * virtio over memory-mapped registers, version 2 and version 1 ("legacy", which
 * is QEMU's default). Machines have slots for devices; an empty one has device
 * id 0 and is passed over in silence.
 */
#include "virtio.h"

#include <arch/arch.h>
#include <kernel/driver.h>
#include <mm/global.h>

#define REG_MAGIC	      0x000
#define REG_VERSION	      0x004
#define REG_DEVICE_ID	      0x008
#define REG_FEATURES	      0x010
#define REG_FEATURES_SEL      0x014
#define REG_DRIVER_FEATURES   0x020
#define REG_DRIVER_SEL	      0x024
#define REG_PAGE_SIZE	      0x028 /* legacy */
#define REG_QUEUE_SEL	      0x030
#define REG_QUEUE_MAX	      0x034
#define REG_QUEUE_SIZE	      0x038
#define REG_QUEUE_ALIGN	      0x03c /* legacy */
#define REG_QUEUE_PAGE	      0x040 /* legacy: number of the first page */
#define REG_QUEUE_READY	      0x044
#define REG_NOTIFY	      0x050
#define REG_IRQ_STATUS	      0x060
#define REG_IRQ_ACK	      0x064
#define REG_STATUS	      0x070
#define REG_QUEUE_DESC	      0x080 /* lower half, upper half */
#define REG_QUEUE_AVAIL	      0x090
#define REG_QUEUE_USED	      0x0a0
#define REG_CONFIG_GENERATION 0x0fc
#define REG_CONFIG	      0x100

#define CONFIG_BYTES 24u /* of the configuration, what drivers read */
#define ACK_TRIES    16u

#define MAGIC	       0x74726976u /* "virt" */
#define VERSION_LEGACY 1u
#define VERSION_MODERN 2u

/* Legacy devices know their rings by a page number of 32 bits. */
#define LEGACY_MASK (((uint64_t)UINT32_MAX << MM_PAGE_SHIFT) | (MM_PAGE_SIZE - 1))

struct virtio_mmio {
	struct virtio_transport transport;
	volatile uint8_t *regs;
	struct fdt_node node;
};

static struct virtio_mmio *mmio_of(struct virtio_transport *t)
{
	return (struct virtio_mmio *)((char *)t - offsetof(struct virtio_mmio, transport));
}

static uint32_t get(struct virtio_transport *t, uint32_t reg)
{
	return arch_read32(mmio_of(t)->regs + reg);
}

static void set(struct virtio_transport *t, uint32_t reg, uint32_t value)
{
	arch_write32(mmio_of(t)->regs + reg, value);
}

static void set64(struct virtio_transport *t, uint32_t reg, uint64_t value)
{
	set(t, reg, (uint32_t)value);
	set(t, reg + 4, (uint32_t)(value >> 32));
}

static uint8_t mmio_status(struct virtio_transport *t)
{
	return (uint8_t)get(t, REG_STATUS);
}

/* The page size belongs to the transport, but a reset forgets it. */
static void mmio_set_status(struct virtio_transport *t, uint8_t status)
{
	arch_io_mb();
	set(t, REG_STATUS, status);
	if (!status && t->legacy)
		set(t, REG_PAGE_SIZE, MM_PAGE_SIZE);
}

static uint32_t features_word(struct virtio_transport *t, uint32_t word)
{
	set(t, REG_FEATURES_SEL, word);
	return get(t, REG_FEATURES);
}

static uint64_t mmio_features(struct virtio_transport *t)
{
	uint64_t low = features_word(t, 0);

	return t->legacy ? low : (uint64_t)features_word(t, 1) << 32 | low;
}

static void mmio_set_features(struct virtio_transport *t, uint64_t features)
{
	set(t, REG_DRIVER_SEL, 0);
	set(t, REG_DRIVER_FEATURES, (uint32_t)features);
	if (t->legacy)
		return;
	set(t, REG_DRIVER_SEL, 1);
	set(t, REG_DRIVER_FEATURES, (uint32_t)(features >> 32));
}

static uint32_t mmio_config(struct virtio_transport *t, uint32_t offset)
{
	return get(t, REG_CONFIG + offset);
}

static uint32_t mmio_config_generation(struct virtio_transport *t)
{
	return t->legacy ? 0 : get(t, REG_CONFIG_GENERATION);
}

static uint32_t mmio_queue_max(struct virtio_transport *t, uint32_t queue)
{
	set(t, REG_QUEUE_SEL, queue);
	return get(t, REG_QUEUE_MAX);
}

static int start_legacy(struct virtio_transport *t, const struct virtq_place *place)
{
	if (get(t, REG_QUEUE_PAGE))
		return -1;
	set(t, REG_QUEUE_SIZE, place->size);
	set(t, REG_QUEUE_ALIGN, MM_PAGE_SIZE);
	set(t, REG_QUEUE_PAGE, (uint32_t)(place->desc.value >> MM_PAGE_SHIFT));
	return 0;
}

static int start_modern(struct virtio_transport *t, const struct virtq_place *place)
{
	if (get(t, REG_QUEUE_READY))
		return -1;
	set(t, REG_QUEUE_SIZE, place->size);
	set64(t, REG_QUEUE_DESC, place->desc.value);
	set64(t, REG_QUEUE_AVAIL, place->avail.value);
	set64(t, REG_QUEUE_USED, place->used.value);
	arch_io_mb();
	set(t, REG_QUEUE_READY, 1);
	return 0;
}

/* Negative: the queue is in use although the device was reset. */
static int mmio_queue_start(struct virtio_transport *t, uint32_t queue,
			    const struct virtq_place *place)
{
	set(t, REG_QUEUE_SEL, queue);
	arch_io_mb(); /* the zeroed ring is in memory */
	return t->legacy ? start_legacy(t, place) : start_modern(t, place);
}

static void mmio_queue_notify(struct virtio_transport *t, uint32_t queue)
{
	arch_io_wmb();
	set(t, REG_NOTIFY, queue);
}

/*
 * The line falls only when nothing is left, and one that is edge-triggered fires only then again:
 * what came while the rest was acknowledged has to be, too.
 */
static uint32_t mmio_ack_irq(struct virtio_transport *t)
{
	uint32_t why, all = 0;

	for (unsigned int i = 0; i < ACK_TRIES && (why = get(t, REG_IRQ_STATUS)) != 0; i++) {
		set(t, REG_IRQ_ACK, why);
		arch_io_mb();
		all |= why;
	}
	return all;
}

static int mmio_irq_connect(struct virtio_transport *t, struct irq_action *action)
{
	return irq_request(&mmio_of(t)->node, 0, action);
}

static void mmio_irq_disconnect(struct virtio_transport *t, struct irq_action *action)
{
	(void)t;
	irq_release(action);
}

static const struct virtio_transport_ops mmio_ops = {
	.status = mmio_status,
	.set_status = mmio_set_status,
	.features = mmio_features,
	.set_features = mmio_set_features,
	.config = mmio_config,
	.config_generation = mmio_config_generation,
	.queue_max = mmio_queue_max,
	.queue_start = mmio_queue_start,
	.queue_notify = mmio_queue_notify,
	.ack_irq = mmio_ack_irq,
	.irq_connect = mmio_irq_connect,
	.irq_disconnect = mmio_irq_disconnect,
};

/* --- Finding devices ------------------------------------------------------- */

/* Negative: it cannot be told what the device sees of memory. */
static int describe_dma(struct dma_device *dma, const struct fdt_node *node, bool legacy)
{
	struct fdt_dma_window w;
	unsigned int i;
	int e = 0;

	dma_device_init(dma, fdt_name(node));
	dma->coherent = fdt_dma_coherent(node, ARCH_DMA_COHERENT_BY_DEFAULT);
	if (legacy)
		dma->mask = LEGACY_MASK;
	for (i = 0; i < DMA_MAX_WINDOWS && !(e = fdt_dma_window(node, i, &w)); i++) {
		dma->window[i] = (struct dma_window){w.cpu, w.bus, w.size};
		dma->nwindows = i + 1;
	}
	if (!e || (e == FDT_NOT_FOUND && i))
		return 0;
	log_warn("%s: dma-ranges cannot be read (error %d)", fdt_name(node), e);
	return e;
}

/* Is there a device of ours behind the registers? */
static bool is_present(struct virtio_transport *t)
{
	uint32_t version = get(t, REG_VERSION);

	if (get(t, REG_MAGIC) != MAGIC) {
		log_warn("%s: no virtio registers", t->name);
		return false;
	}
	t->device_id = get(t, REG_DEVICE_ID);
	if (!t->device_id)
		return false;
	if (version != VERSION_LEGACY && version != VERSION_MODERN) {
		log_warn("%s: version %u is not known", t->name, version);
		return false;
	}
	t->legacy = version == VERSION_LEGACY;
	return true;
}

static int start(struct virtio_mmio *m, const struct fdt_node *node)
{
	struct virtio_transport *t = &m->transport;
	phys_addr_t base;
	uint64_t size;

	if (fdt_reg(node, 0, &base, &size) < 0 || size < REG_CONFIG + CONFIG_BYTES) {
		log_warn("%s: reg is missing, too small or not to be translated", fdt_name(node));
		return -1;
	}
	m->regs = (volatile uint8_t *)io_map(base, size);
	if (!m->regs)
		return -1;
	m->node = *node;
	t->ops = &mmio_ops;
	t->name = fdt_name(node);
	t->address = base.value;
	t->answer_ms = VIRTIO_ANSWER_MS;
	if (!is_present(t))
		return -1;
	if (describe_dma(&t->dma, node, t->legacy) < 0)
		return -1;
	return virtio_probe(t);
}

static int virtio_mmio_probe(const struct fdt_node *node)
{
	struct layout l = {sizeof(struct virtio_mmio), _Alignof(struct virtio_mmio)};
	void *mem;

	if (global_alloc_zeroed(l, &mem) != ALLOC_OK)
		return -1;
	if (start(mem, node) == 0)
		return 0;
	global_dealloc(mem, l);
	return -1;
}

static const char *const virtio_mmio_compatible[] = {"virtio,mmio", NULL};

DRIVER(virtio_mmio) = {
	.name = "virtio-mmio",
	.compatible = virtio_mmio_compatible,
	.stage = DRIVER_DEVICE,
	.probe = virtio_mmio_probe,
};
