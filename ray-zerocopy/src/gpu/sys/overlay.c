/* A library that burn's CUDA bindings load in place of the driver, as `libcuda.so`: its dynamic
 * section names the driver, libcuda.so.1, so the loader finds all other functions there. Memory is
 * allocated and freed by the functions that it is given. */
#include <stddef.h>
#include <stdint.h>

typedef int (*Allocate)(uint64_t *, size_t);
typedef int (*Free)(uint64_t);
static Allocate allocate;
static Free release;

__attribute__((visibility("default"))) void ray_zerocopy_overlay(Allocate allocating, Free freeing) {
    allocate = allocating;
    release = freeing;
}
__attribute__((visibility("default"))) int cuMemAlloc_v2(uint64_t *address, size_t len) { return allocate(address, len); }
__attribute__((visibility("default"))) int cuMemFree_v2(uint64_t address) { return release(address); }
