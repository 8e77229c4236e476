// Memory: allocations, copies, fills. Every range is checked when work is queued and again when it runs.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "driver.h"

namespace cuda_host {

Allocation *find_memory(Pointer pointer, std::size_t bytes, bool running) {
    auto &all = driver().memories;
    auto next = all.upper_bound(pointer);
    if (next == all.begin()) return nullptr;
    auto &[first, memory] = *std::prev(next);
    std::size_t offset = pointer - first;
    bool inside = offset <= memory.bytes && bytes <= memory.bytes - offset;
    return inside && (running || !memory.freeing) ? &memory : nullptr;
}

void release(std::map<Pointer, Allocation>::iterator found) {
    Allocation &memory = found->second;
    if (memory.own) munmap(memory.map, memory.mapped);
    if (memory.device >= 0) {
        driver().devices[(std::size_t)memory.device].used -= memory.bytes;
        driver().counters[FREES]++;
    }
    driver().memories.erase(found);
}

namespace {

// The end of an allocation, rounded up to what CUDA aligns to, is the end of its last page, and behind that
// nothing may be touched: a kernel that goes too far is noticed.
Result allocate(Pointer *out, std::size_t bytes, int device, bool managed = false) {
    if (out == nullptr || bytes == 0) return INVALID_VALUE;
    Driver &d = driver();
    if (device >= 0 && bytes > d.memory - std::min(d.memory, d.devices[(std::size_t)device].used)) return OUT_OF_MEMORY;
    std::size_t page = (std::size_t)sysconf(_SC_PAGESIZE), rounded = (bytes + 255) / 256 * 256;
    if (rounded < bytes) return OUT_OF_MEMORY;
    std::size_t pages = (rounded + page - 1) / page * page;
    void *map = mmap(nullptr, pages + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED) return OUT_OF_MEMORY;
    mprotect((char *)map + pages, page, PROT_NONE);
    char *first = (char *)map + pages - rounded;
    // New memory is undefined: NaNs. Large allocations are left alone for the sake of time.
    if (bytes <= 4 << 20) memset(first, 0xff, rounded);
    d.memories[(Pointer)first] = {bytes, pages + page, (char *)map, device, true, managed, false};
    if (device >= 0) {
        d.devices[(std::size_t)device].used += bytes;
        d.counters[ALLOCATIONS]++;
    }
    *out = (Pointer)first;
    return SUCCESS;
}

enum Side { HOST, DEVICE, EITHER };

// Device memory must be allocated; so must the whole of what begins in pinned memory. Other host memory is trusted.
bool good(Pointer pointer, std::size_t bytes, Side side, bool running = false) {
    if (find_memory(pointer, bytes, running) != nullptr) return true;
    return side != DEVICE && pointer != 0 && find_memory(pointer, 1, running) == nullptr;
}

Fault copy(Pointer to, Side to_side, Pointer from, Side from_side, std::size_t bytes) {
    if (!good(to, bytes, to_side, true) || !good(from, bytes, from_side, true))
        return {ILLEGAL_ADDRESS, "copy of " + std::to_string(bytes) + " bytes: memory that was freed meanwhile"};
    memmove((void *)to, (const void *)from, bytes);
    return {};
}

bool pinned(Pointer pointer) { return find_memory(pointer, 1) != nullptr; }

Result copy_on(Handle stream, bool wait, Pointer to, Side to_side, Pointer from, Side from_side, std::size_t bytes) {
    if (bytes == 0) return SUCCESS;
    if (!good(to, bytes, to_side) || !good(from, bytes, from_side)) return INVALID_VALUE;
    if (wait)
        if (Result r = allowed()) return r;
    Stream *s = find_stream(stream);
    if (s == nullptr) return INVALID_HANDLE;
    if (from_side == HOST) driver().counters[BYTES_HTOD] += bytes;
    if (to_side == HOST) driver().counters[BYTES_DTOH] += bytes;
    if (from_side == HOST && !pinned(from) && !s->capture) {
        // The caller may change pageable memory as soon as we return.
        auto staged = std::make_shared<std::vector<char>>((const char *)from, (const char *)from + bytes);
        Result r = submit(stream, [=]() -> Fault {
            if (!good(to, bytes, to_side, true)) return {ILLEGAL_ADDRESS, "copy to memory that was freed meanwhile"};
            memcpy((void *)to, staged->data(), bytes);
            return {};
        });
        return r != SUCCESS || !wait ? r : finish(stream);
    }
    bool pageable = to_side == HOST && !pinned(to) && !s->capture;
    Result r = submit(stream, [=] { return copy(to, to_side, from, from_side, bytes); });
    return r != SUCCESS || !(wait || pageable) ? r : finish(stream);
}

template <class T> Result fill_on(Handle stream, bool wait, Pointer to, T value, std::size_t count) {
    std::size_t bytes = count * sizeof value;
    if (to % sizeof value != 0 || bytes / sizeof value != count) return INVALID_VALUE;
    if (count == 0) return SUCCESS;
    if (!good(to, bytes, DEVICE)) return INVALID_VALUE;
    if (wait)
        if (Result r = allowed()) return r;
    Result r = submit(stream, [=]() -> Fault {
        if (!good(to, bytes, DEVICE, true)) return {ILLEGAL_ADDRESS, "fill of memory that was freed meanwhile"};
        std::fill_n((T *)to, count, value);
        return {};
    });
    return r != SUCCESS || !wait ? r : finish(stream);
}

Result free_now(Pointer pointer, bool host) {
    auto &all = driver().memories;
    auto found = all.find(pointer);
    if (found == all.end() || found->second.freeing || !found->second.own) return INVALID_VALUE;
    if (host != (found->second.device < 0)) return INVALID_VALUE;
    if (Result r = allowed()) return r;
    int device = host ? current_device : found->second.device;
    Result r = finish_all(device);
    release(found);
    return r;
}

}  // namespace
}  // namespace cuda_host

using namespace cuda_host;

API cuMemGetInfo_v2(std::size_t *free, std::size_t *total) {
    return with_device([&](Device &device) {
        if (free != nullptr) *free = driver().memory - device.used;
        if (total != nullptr) *total = driver().memory;
        return SUCCESS;
    });
}

API cuMemAlloc_v2(Pointer *out, std::size_t bytes) {
    return with_device([&](Device &) {
        Result r = allowed();
        return r != SUCCESS ? r : allocate(out, bytes, current_device);
    });
}
API cuMemAllocManaged(Pointer *out, std::size_t bytes, unsigned) {
    return with_device([&](Device &) { return allocate(out, bytes, current_device, true); });
}
API cuMemFree_v2(Pointer pointer) {
    return with_device([&](Device &) { return pointer == 0 ? SUCCESS : free_now(pointer, false); });
}

API cuMemAllocAsync(Pointer *out, std::size_t bytes, Handle stream) {
    return with_device([&](Device &) -> Result {
        Stream *s = find_stream(stream);
        if (s == nullptr) return INVALID_HANDLE;
        // A real driver would make it a node of the graph.
        if (s->capture) return s->capture->invalid = true, STREAM_CAPTURE_UNSUPPORTED;
        return allocate(out, bytes, current_device);
    });
}
API cuMemAllocFromPoolAsync(Pointer *out, std::size_t bytes, Handle, Handle stream) {
    return cuMemAllocAsync(out, bytes, stream);
}
API cuMemFreeAsync(Pointer pointer, Handle stream) {
    return with_device([&](Device &) -> Result {
        auto &all = driver().memories;
        auto found = all.find(pointer);
        // Whichever device is current: cudarc frees without making it this one.
        struct Current {
            int device = current_device;
            ~Current() { current_device = device; }
        } before;
        if (found != all.end() && found->second.device >= 0) current_device = found->second.device;
        Stream *s = find_stream(stream);
        if (s == nullptr) return INVALID_HANDLE;
        if (found == all.end() || found->second.freeing || found->second.device < 0) return INVALID_VALUE;
        if (s->capture) return s->capture->invalid = true, STREAM_CAPTURE_UNSUPPORTED;
        found->second.freeing = true;
        return submit(stream, [pointer]() -> Fault {
            auto memory = driver().memories.find(pointer);
            if (memory != driver().memories.end()) release(memory);
            return {};
        });
    });
}

API cuMemHostAlloc(void **out, std::size_t bytes, unsigned) {
    return with_device([&](Device &) { return allocate((Pointer *)out, bytes, -1); });
}
API cuMemAllocHost_v2(void **out, std::size_t bytes) { return cuMemHostAlloc(out, bytes, 0); }
API cuMemFreeHost(void *pointer) {
    return with_device([&](Device &) { return free_now((Pointer)pointer, true); });
}
API cuMemHostGetDevicePointer_v2(Pointer *out, void *pointer, unsigned) {
    return with_device([&](Device &) {
        if (out == nullptr || !pinned((Pointer)pointer)) return INVALID_VALUE;
        *out = (Pointer)pointer;
        return SUCCESS;
    });
}
API cuMemHostRegister_v2(void *pointer, std::size_t bytes, unsigned) {
    return with_device([&](Device &) {
        if (pointer == nullptr || bytes == 0) return INVALID_VALUE;
        if (pinned((Pointer)pointer)) return HOST_MEMORY_ALREADY_REGISTERED;
        driver().memories[(Pointer)pointer] = {bytes, 0, nullptr, -1, false, false, false};
        return SUCCESS;
    });
}
API cuMemHostUnregister(void *pointer) {
    return with_device([&](Device &) {
        auto found = driver().memories.find((Pointer)pointer);
        if (found == driver().memories.end() || found->second.own) return HOST_MEMORY_NOT_REGISTERED;
        Result r = finish_all(current_device);
        driver().memories.erase(found);
        return r;
    });
}
API cuMemGetAddressRange_v2(Pointer *base, std::size_t *bytes, Pointer pointer) {
    return with_device([&](Device &) {
        auto next = driver().memories.upper_bound(pointer);
        if (find_memory(pointer, 1) == nullptr) return NOT_FOUND;
        if (base != nullptr) *base = std::prev(next)->first;
        if (bytes != nullptr) *bytes = std::prev(next)->second.bytes;
        return SUCCESS;
    });
}

API cuMemcpyHtoD_v2(Pointer to, const void *from, std::size_t bytes) {
    return with_device([&](Device &) { return copy_on(0, true, to, DEVICE, (Pointer)from, HOST, bytes); });
}
API cuMemcpyHtoDAsync_v2(Pointer to, const void *from, std::size_t bytes, Handle stream) {
    return with_device([&](Device &) { return copy_on(stream, false, to, DEVICE, (Pointer)from, HOST, bytes); });
}
API cuMemcpyDtoH_v2(void *to, Pointer from, std::size_t bytes) {
    return with_device([&](Device &) { return copy_on(0, true, (Pointer)to, HOST, from, DEVICE, bytes); });
}
API cuMemcpyDtoHAsync_v2(void *to, Pointer from, std::size_t bytes, Handle stream) {
    return with_device([&](Device &) { return copy_on(stream, false, (Pointer)to, HOST, from, DEVICE, bytes); });
}
API cuMemcpyDtoD_v2(Pointer to, Pointer from, std::size_t bytes) {
    return with_device([&](Device &) { return copy_on(0, true, to, DEVICE, from, DEVICE, bytes); });
}
API cuMemcpyDtoDAsync_v2(Pointer to, Pointer from, std::size_t bytes, Handle stream) {
    return with_device([&](Device &) { return copy_on(stream, false, to, DEVICE, from, DEVICE, bytes); });
}
API cuMemcpy(Pointer to, Pointer from, std::size_t bytes) {
    return with_device([&](Device &) { return copy_on(0, true, to, EITHER, from, EITHER, bytes); });
}
API cuMemcpyAsync(Pointer to, Pointer from, std::size_t bytes, Handle stream) {
    return with_device([&](Device &) { return copy_on(stream, false, to, EITHER, from, EITHER, bytes); });
}
API cuMemcpyPeerAsync(Pointer to, Handle to_context, Pointer from, Handle from_context, std::size_t bytes, Handle stream) {
    return with_device([&](Device &) {
        if (device_of(to_context) < 0 || device_of(from_context) < 0) return INVALID_CONTEXT;
        return copy_on(stream, false, to, DEVICE, from, DEVICE, bytes);
    });
}
// CUDA_MEMCPY2D, between devices only.
struct Rows {
    std::size_t from_x, from_y;
    unsigned from_type;
    const void *from_host;
    Pointer from;
    Handle from_array;
    std::size_t from_pitch, to_x, to_y;
    unsigned to_type;
    void *to_host;
    Pointer to;
    Handle to_array;
    std::size_t to_pitch, width, height;
};
API cuMemcpy2DAsync_v2(const Rows *rows, Handle stream) {
    return with_device([&](Device &) -> Result {
        Rows r = *rows;
        if (r.from_type != 2 || r.to_type != 2 || r.from_x + r.from_y + r.to_x + r.to_y != 0) return NOT_SUPPORTED;
        if (r.width == 0 || r.height == 0) return SUCCESS;
        if (r.width > r.from_pitch || r.width > r.to_pitch) return INVALID_VALUE;
        for (std::size_t i = 0; i < r.height; i++)
            if (Result e = copy_on(stream, false, r.to + i * r.to_pitch, DEVICE, r.from + i * r.from_pitch, DEVICE, r.width)) return e;
        return SUCCESS;
    });
}
API cuMemcpyPeer(Pointer to, Handle to_context, Pointer from, Handle from_context, std::size_t bytes) {
    unsigned r = cuMemcpyPeerAsync(to, to_context, from, from_context, bytes, 0);
    return r != SUCCESS ? r : with_device([&](Device &) { return finish(0); });
}

API cuMemsetD8_v2(Pointer to, unsigned char value, std::size_t count) {
    return with_device([&](Device &) { return fill_on(0, true, to, value, count); });
}
API cuMemsetD8Async(Pointer to, unsigned char value, std::size_t count, Handle stream) {
    return with_device([&](Device &) { return fill_on(stream, false, to, value, count); });
}
API cuMemsetD32_v2(Pointer to, unsigned value, std::size_t count) {
    return with_device([&](Device &) { return fill_on(0, true, to, value, count); });
}
API cuMemsetD32Async(Pointer to, unsigned value, std::size_t count, Handle stream) {
    return with_device([&](Device &) { return fill_on(stream, false, to, value, count); });
}

// A device has one pool, with nothing to set.
API cuDeviceGetDefaultMemPool(Handle *pool, int device) {
    return call([&] { return *pool = context_of(device) + 8, SUCCESS; });
}
API cuDeviceGetMemPool(Handle *pool, int device) { return cuDeviceGetDefaultMemPool(pool, device); }
API cuMemPoolTrimTo(Handle, std::size_t) { return SUCCESS; }
API cuMemPoolSetAttribute(Handle, unsigned, void *) { return SUCCESS; }
API cuMemPoolGetAttribute(Handle pool, unsigned attribute, void *value) {
    return call([&] {
        int device = device_of(pool - 8);
        if (device < 0 || attribute == 0) return INVALID_VALUE;
        // 1 to 3 are flags; the rest are sizes: reserved and used memory, now and at most.
        if (attribute <= 3) *(int *)value = 1;
        else *(std::uint64_t *)value = attribute == 4 ? 0 : driver().devices[(std::size_t)device].used;
        return SUCCESS;
    });
}
