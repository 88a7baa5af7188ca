/* SPDX-License-Identifier: MIT */
#include "virtio.h"

#include <arch/arch.h>
#include <kernel/log.h>
#include <kernel/time.h>

/* A configuration that changed so often while it was read is not one. */
#define CONFIG_TRIES 16u

extern const struct virtio_driver __start_virtio_drivers[], __stop_virtio_drivers[];

int virtio_probe(struct virtio_transport *t)
{
	for (const struct virtio_driver *d = __start_virtio_drivers; d < __stop_virtio_drivers; d++)
		if (d->device_id == t->device_id)
			return d->probe(t);
	return -1;
}

int virtio_reset(struct virtio_transport *t)
{
	uint64_t end = time_after_ms(t->answer_ms);

	t->ops->set_status(t, 0);
	while (t->ops->status(t)) {
		if (time_ns() > end) {
			log_error("%s: does not answer to a reset", t->name);
			return -1;
		}
		arch_relax();
	}
	return 0;
}

static void add_status(struct virtio_transport *t, enum virtio_status status)
{
	t->ops->set_status(t, (uint8_t)(t->ops->status(t) | status));
}

static int refuse(struct virtio_transport *t, const char *why)
{
	log_error("%s: %s", t->name, why);
	add_status(t, VIRTIO_FAILED);
	return -1;
}

/*
 * Besides what the driver wants: modern devices must be used as such, and what
 * the platform demands of addresses and barriers holds for all our rings, since
 * their memory comes from dma/.
 */
static uint64_t basic_features(const struct virtio_transport *t)
{
	if (t->legacy)
		return 0;
	return VIRTIO_F_VERSION_1 | VIRTIO_F_ACCESS_PLATFORM | VIRTIO_F_ORDER_PLATFORM;
}

int virtio_negotiate(struct virtio_transport *t, uint64_t wanted, uint64_t *agreed)
{
	uint64_t features;

	if (virtio_reset(t) < 0)
		return -1;
	add_status(t, VIRTIO_ACKNOWLEDGE);
	add_status(t, VIRTIO_DRIVER_FOUND);
	features = t->ops->features(t) & (wanted | basic_features(t));
	if (!t->legacy && !(features & VIRTIO_F_VERSION_1))
		return refuse(t, "modern registers, but no VERSION_1");
	t->ops->set_features(t, features);
	if (!t->legacy) {
		add_status(t, VIRTIO_FEATURES_OK);
		if (!(t->ops->status(t) & VIRTIO_FEATURES_OK))
			return refuse(t, "refuses the features it offered");
	}
	*agreed = features;
	return 0;
}

void virtio_go(struct virtio_transport *t)
{
	add_status(t, VIRTIO_DRIVER_OK);
}

/* Legacy devices have no generation; there the upper half tells, read before and after. */
int virtio_config64(struct virtio_transport *t, uint32_t offset, uint64_t *value)
{
	for (unsigned int i = 0; i < CONFIG_TRIES; i++) {
		uint32_t generation = t->ops->config_generation(t);
		uint32_t high = t->ops->config(t, offset + 4);
		uint32_t low = t->ops->config(t, offset);

		if (t->ops->config(t, offset + 4) != high ||
		    t->ops->config_generation(t) != generation)
			continue;
		*value = (uint64_t)high << 32 | low;
		return 0;
	}
	log_error("%s: its configuration does not stop changing", t->name);
	return -1;
}
