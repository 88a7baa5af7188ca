/* SPDX-License-Identifier: MIT */
#ifndef AARCH64_MMU_H
#define AARCH64_MMU_H

#include <stdbool.h>
#include <stdint.h>

/*
 * A translation fault at va came from a mapping that another CPU had taken
 * away for a moment to change it, and is back now. May wait for that CPU.
 */
bool mmu_fault_was_transient(uintptr_t va);

#endif
