// Modules, functions and launches. A cubin is a shared library that the stand-in for NVRTC has made.
#include <dlfcn.h>
#include <elf.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "driver.h"

namespace cuda_host {

Module::~Module() {
    if (library != nullptr) dlclose(library);
}

namespace {

// The file's size: an image comes without. Section headers or the last segment end it.
std::size_t image_size(const Elf64_Ehdr &elf, const char *image) {
    std::size_t size = elf.e_shoff + (std::size_t)elf.e_shnum * elf.e_shentsize;
    auto segments = (const Elf64_Phdr *)(image + elf.e_phoff);
    for (unsigned i = 0; i < elf.e_phnum; i++) size = std::max<std::size_t>(size, segments[i].p_offset + segments[i].p_filesz);
    return size;
}

Result load(const char *image, Handle *out) {
    if (image == nullptr || out == nullptr) return INVALID_VALUE;
    // Text, perhaps PTX.
    if (memcmp(image, ELFMAG, SELFMAG) != 0) return image[0] == '.' || image[0] == '/' ? INVALID_PTX : INVALID_IMAGE;
    Elf64_Ehdr elf;
    memcpy(&elf, image, sizeof elf);
    if (elf.e_type != ET_DYN) return NO_BINARY_FOR_GPU;
    auto module = std::make_shared<Module>();
    module->device = current_device;
    module->static_shared = 0;
    auto segments = (const Elf64_Phdr *)(image + elf.e_phoff);
    for (unsigned i = 0; i < elf.e_phnum; i++)
        if (segments[i].p_type == PT_TLS) module->static_shared = segments[i].p_memsz;

    // The loader knows libraries by name and by inode, so this one has to be a file of its own.
    const char *folder = getenv("TMPDIR");
    std::string path = std::string(folder != nullptr ? folder : P_tmpdir) + "/cuda-host-XXXXXX";
    int file = mkstemp(path.data());
    if (file < 0) return OPERATING_SYSTEM;
    std::size_t size = image_size(elf, image), written = 0;
    while (written < size) {
        ssize_t n = write(file, image + written, size - written);
        if (n <= 0) break;
        written += (std::size_t)n;
    }
    close(file);
    module->library = written == size ? dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL) : nullptr;
    unlink(path.c_str());
    if (written != size) return OPERATING_SYSTEM;
    if (module->library == nullptr) {
        fprintf(stderr, "cuda-host: %s\n", dlerror());
        return INVALID_IMAGE;
    }
    auto abi = (const unsigned *)dlsym(module->library, "cuda_host_abi");
    if (abi == nullptr || *abi != ABI) return NO_BINARY_FOR_GPU;
    if (dlinfo(module->library, RTLD_DI_TLS_MODID, &module->tls_module) != 0) return OPERATING_SYSTEM;
    *out = driver().modules.add(module);
    driver().counters[MODULES]++;
    return SUCCESS;
}

Function *find_function(Handle handle) {
    auto found = driver().functions.find(handle);
    return found == driver().functions.end() ? nullptr : found->second.get();
}

// Pointers that stand in no allocation that this device reaches; what a kernel computes from them is not checked.
Fault check_pointers(const Launch &launch, int device) {
    for (unsigned i = 0; i < launch.kernel->count; i++) {
        if (!launch.kernel->parameters[i].pointer) continue;
        Pointer pointer = *(Pointer *)launch.arguments[i];
        if (pointer == 0) continue;
        const Allocation *memory = find_memory(pointer, 0, true);
        std::string where = "kernel " + launch.name + ": argument " + std::to_string(i);
        if (memory == nullptr) return {ILLEGAL_ADDRESS, where + " points to no allocation"};
        bool reached = memory->device < 0 || memory->device == device || memory->managed ||
                       driver().devices[(std::size_t)device].peers[(std::size_t)memory->device];
        if (!reached) return {ILLEGAL_ADDRESS, where + " points to memory of device " + std::to_string(memory->device)};
    }
    return {};
}

Result launch(Handle handle, Index grid, Index block, unsigned dynamic, Handle stream, void **arguments, void **extra) {
    Function *function = find_function(handle);
    if (function == nullptr || find_stream(stream) == nullptr) return INVALID_HANDLE;
    if (function->module->device != current_device) return INVALID_CONTEXT;
    const Kernel &kernel = *function->kernel;
    constexpr unsigned MAX_X = 0x7fffffff, MAX_YZ = 65535;
    bool fits = grid.x >= 1 && grid.y >= 1 && grid.z >= 1 && grid.x <= MAX_X && grid.y <= MAX_YZ && grid.z <= MAX_YZ &&
                block.x >= 1 && block.y >= 1 && block.z >= 1 && block.x <= 1024 && block.y <= 1024 && block.z <= 64 &&
                block.x * block.y * block.z <= MAX_THREADS_PER_BLOCK;
    if (!fits) return INVALID_VALUE;
    if (kernel.max_threads != 0 && block.x * block.y * block.z > kernel.max_threads) return LAUNCH_OUT_OF_RESOURCES;
    if (dynamic > function->max_dynamic_shared) return INVALID_VALUE;
    if (extra != nullptr) return NOT_SUPPORTED;
    if (kernel.count != 0 && arguments == nullptr) return INVALID_VALUE;

    auto one = std::make_shared<Launch>();
    one->kernel = &kernel;
    one->name = function->name;
    one->grid = grid;
    one->block = block;
    one->dynamic_shared = dynamic;
    one->tls_module = function->module->tls_module;
    one->static_shared = function->module->static_shared;
    // In words of 16 bytes, so that every argument is aligned.
    std::size_t words = 0;
    for (unsigned i = 0; i < kernel.count; i++) words += (kernel.parameters[i].bytes + 15) / 16 * 2;
    one->storage.resize(words + 1);
    std::size_t at = (std::uintptr_t)one->storage.data() % 16 / 8;
    for (unsigned i = 0; i < kernel.count; i++) {
        if (arguments[i] == nullptr) return INVALID_VALUE;
        memcpy(&one->storage[at], arguments[i], kernel.parameters[i].bytes);
        one->arguments.push_back(&one->storage[at]);
        at += (kernel.parameters[i].bytes + 15) / 16 * 2;
    }
    Stream *on = find_stream(stream);
    if (!on->capture) driver().counters[LAUNCHES]++;
    std::weak_ptr<Module> module = function->module;
    int device = current_device;
    return submit(stream, [one, module, device]() -> Fault {
        auto loaded = module.lock();
        if (loaded == nullptr) return {ILLEGAL_ADDRESS, "kernel " + one->name + ": its module was unloaded"};
        Fault fault = check_pointers(*one, device);
        return fault.error != SUCCESS ? fault : run(*one);
    }, true);
}

unsigned blocks_per_sm(const Function &function, unsigned threads, std::size_t dynamic) {
    if (threads == 0 || threads > MAX_THREADS_PER_BLOCK) return 0;
    std::size_t shared = function.module->static_shared + dynamic + 1024;
    return (unsigned)std::min<std::size_t>({2048 / ((threads + 31) / 32 * 32), 32, (228 << 10) / shared});
}

}  // namespace
}  // namespace cuda_host

using namespace cuda_host;

API cuModuleLoadData(Handle *out, const void *image) {
    return with_device([&](Device &) { return load((const char *)image, out); });
}
API cuModuleLoadDataEx(Handle *out, const void *image, unsigned, unsigned *, void **) { return cuModuleLoadData(out, image); }
API cuModuleLoad(Handle *out, const char *path) {
    return with_device([&](Device &) {
        FILE *file = path == nullptr ? nullptr : fopen(path, "rb");
        if (file == nullptr) return FILE_NOT_FOUND;
        std::vector<char> bytes;
        char part[4096];
        while (std::size_t n = fread(part, 1, sizeof part, file)) bytes.insert(bytes.end(), part, part + n);
        fclose(file);
        bytes.resize(bytes.size() + sizeof(Elf64_Ehdr));
        return load(bytes.data(), out);
    });
}
API cuModuleUnload(Handle handle) {
    return with_device([&](Device &) {
        Module *module = driver().modules.find(handle);
        if (module == nullptr) return INVALID_HANDLE;
        Result r = finish_all(module->device);
        auto &functions = driver().functions;
        for (auto i = functions.begin(); i != functions.end();)
            i = i->second->module.get() == module ? functions.erase(i) : std::next(i);
        driver().modules.all.erase(handle);
        return r;
    });
}
API cuModuleGetFunction(Handle *out, Handle handle, const char *name) {
    return with_device([&](Device &) {
        auto found = driver().modules.all.find(handle);
        if (found == driver().modules.all.end()) return INVALID_HANDLE;
        if (out == nullptr || name == nullptr || *name == 0) return INVALID_VALUE;
        auto kernel = (const Kernel *)dlsym(found->second->library, ("cuda_host_kernel_" + std::string(name)).c_str());
        if (kernel == nullptr) return NOT_FOUND;
        for (auto &[known, function] : driver().functions)
            if (function->kernel == kernel) return *out = known, SUCCESS;
        auto function = std::make_shared<Function>();
        function->module = found->second;
        function->kernel = kernel;
        function->name = name;
        // Unless it asks for more, with what the module has.
        function->max_dynamic_shared = SHARED - (unsigned)std::min<std::size_t>(SHARED, function->module->static_shared);
        // A kernel's address could come again after unloading, a handle must not.
        static Handle next = 8;
        driver().functions[next += 16] = function;
        *out = next;
        return SUCCESS;
    });
}
API cuModuleGetGlobal_v2(Pointer *, std::size_t *, Handle, const char *) { return NOT_FOUND; }
API cuModuleGetLoadingMode(unsigned *mode) { return *mode = 1, SUCCESS; }

API cuFuncGetAttribute(int *value, unsigned attribute, Handle handle) {
    return with_device([&](Device &) {
        Function *function = find_function(handle);
        if (function == nullptr) return INVALID_HANDLE;
        if (value == nullptr || attribute > 15) return INVALID_VALUE;
        unsigned threads = function->kernel->max_threads;
        switch (attribute) {
            case 0: *value = threads != 0 ? (int)threads : (int)MAX_THREADS_PER_BLOCK; break;
            case 1: *value = (int)function->module->static_shared; break;
            case 4: *value = 32; break;
            case 5: case 6: *value = 90; break;
            case 8: *value = (int)function->max_dynamic_shared; break;
            default: *value = 0;
        }
        return SUCCESS;
    });
}
API cuFuncSetAttribute(Handle handle, unsigned attribute, int value) {
    return with_device([&](Device &) {
        Function *function = find_function(handle);
        if (function == nullptr) return INVALID_HANDLE;
        if (attribute == 9) return SUCCESS;
        if (attribute != 8 || value < 0 || (std::size_t)value + function->module->static_shared > SHARED_OPTIN) return INVALID_VALUE;
        function->max_dynamic_shared = (unsigned)value;
        return SUCCESS;
    });
}
API cuFuncSetCacheConfig(Handle handle, unsigned) {
    return with_device([&](Device &) { return find_function(handle) == nullptr ? INVALID_HANDLE : SUCCESS; });
}

API cuLaunchKernel(Handle function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, Handle stream, void **arguments, void **extra) {
    return with_device([&](Device &) { return launch(function, {gx, gy, gz}, {bx, by, bz}, shared, stream, arguments, extra); });
}
struct LaunchConfig {
    unsigned grid[3], block[3], shared;
    Handle stream;
    void *attributes;
    unsigned count;
};
API cuLaunchKernelEx(const LaunchConfig *c, Handle function, void **arguments, void **extra) {
    return with_device([&](Device &) {
        if (c == nullptr) return INVALID_VALUE;
        // Clusters and the like.
        if (c->count != 0) return NOT_SUPPORTED;
        return launch(function, {c->grid[0], c->grid[1], c->grid[2]}, {c->block[0], c->block[1], c->block[2]}, c->shared,
                      c->stream, arguments, extra);
    });
}
// Blocks do not all run at once here.
API cuLaunchCooperativeKernel(Handle, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, Handle, void **) {
    return NOT_SUPPORTED;
}

API cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, Handle handle, int threads, std::size_t dynamic) {
    return with_device([&](Device &) {
        Function *function = find_function(handle);
        if (function == nullptr) return INVALID_HANDLE;
        if (blocks == nullptr || threads <= 0) return INVALID_VALUE;
        *blocks = (int)blocks_per_sm(*function, (unsigned)threads, dynamic);
        return SUCCESS;
    });
}
API cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, Handle f, int threads, std::size_t dynamic, unsigned) {
    return cuOccupancyMaxActiveBlocksPerMultiprocessor(blocks, f, threads, dynamic);
}
API cuOccupancyMaxPotentialBlockSize(int *min_grid, int *threads, Handle handle, std::size_t (*)(int), std::size_t dynamic, int limit) {
    return with_device([&](Device &) {
        Function *function = find_function(handle);
        if (function == nullptr) return INVALID_HANDLE;
        unsigned most = function->kernel->max_threads != 0 ? function->kernel->max_threads : MAX_THREADS_PER_BLOCK;
        if (limit > 0) most = std::min(most, (unsigned)limit);
        *threads = (int)most;
        *min_grid = (int)(SMS * blocks_per_sm(*function, most, dynamic));
        return SUCCESS;
    });
}
API cuOccupancyMaxPotentialBlockSizeWithFlags(int *grid, int *threads, Handle f, std::size_t (*size)(int), std::size_t dynamic,
                                              int limit, unsigned) {
    return cuOccupancyMaxPotentialBlockSize(grid, threads, f, size, dynamic, limit);
}
API cuOccupancyAvailableDynamicSMemPerBlock(std::size_t *bytes, Handle handle, int blocks, int threads) {
    return with_device([&](Device &) {
        Function *function = find_function(handle);
        if (function == nullptr) return INVALID_HANDLE;
        if (bytes == nullptr || blocks <= 0 || threads <= 0) return INVALID_VALUE;
        std::size_t each = std::min<std::size_t>((228 << 10) / (unsigned)blocks, SHARED_OPTIN), used = function->module->static_shared + 1024;
        *bytes = each > used ? each - used : 0;
        return SUCCESS;
    });
}
