// Tests of the two libraries through the API that a program would use: test LIBRARIES_FOLDER
#include <dlfcn.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

namespace {

int passed = 0, failed = 0;

void check(bool good, const char *what, int line) {
    good ? passed++ : failed++;
    if (!good) fprintf(stderr, "test.cpp:%d: failed: %s\n", line, what);
}
#define CHECK(condition) check((condition), #condition, __LINE__)

void *cuda, *nvrtc;

// Calls an API function by name.
template <class... A> unsigned api(const char *name, A... arguments) {
    void *function = dlsym(strncmp(name, "nvrtc", 5) == 0 ? nvrtc : cuda, name);
    if (function == nullptr) {
        fprintf(stderr, "%s is missing\n", name);
        exit(1);
    }
    return ((unsigned (*)(A...))function)(arguments...);
}

using Handle = std::uintptr_t;
using Pointer = unsigned long long;
constexpr unsigned long long NOTHING = 0;

std::string last_log;

std::string compile(const std::string &source, unsigned *error = nullptr, std::vector<const char *> options = {"--gpu-architecture=sm_90a"}) {
    Handle program = 0;
    CHECK(api("nvrtcCreateProgram", &program, source.c_str(), "test.cu", 0, nullptr, nullptr) == 0);
    unsigned result = api("nvrtcCompileProgram", program, (int)options.size(), options.data());
    size_t bytes = 0;
    api("nvrtcGetProgramLogSize", program, &bytes);
    last_log.resize(bytes);
    api("nvrtcGetProgramLog", program, last_log.data());
    if (error != nullptr) *error = result;
    else if (result != 0) fprintf(stderr, "%s\n", last_log.c_str());
    api("nvrtcGetCUBINSize", program, &bytes);
    std::string cubin(bytes, 0);
    api("nvrtcGetCUBIN", program, cubin.data());
    CHECK(api("nvrtcDestroyProgram", &program) == 0 && program == 0);
    return cubin;
}

Handle function_of(const std::string &source, const char *name = "kernel") {
    std::string cubin = compile(source);
    Handle module = 0, function = 0;
    CHECK(api("cuModuleLoadData", &module, (const void *)cubin.data()) == 0);
    CHECK(api("cuModuleGetFunction", &function, module, name) == 0);
    return function;
}

struct Dim {
    unsigned x = 1, y = 1, z = 1;
};

template <class... A> unsigned launch_on(Handle stream, Handle function, Dim grid, Dim block, unsigned shared, A... arguments) {
    void *all[] = {&arguments..., nullptr};
    return api("cuLaunchKernel", function, grid.x, grid.y, grid.z, block.x, block.y, block.z, shared, stream, (void **)all, (void **)nullptr);
}
template <class... A> unsigned launch(Handle function, Dim grid, Dim block, A... arguments) {
    return launch_on((Handle)0, function, grid, block, 0u, arguments...);
}

std::string message(unsigned code) {
    const char *text = nullptr;
    api("cuGetErrorString", code, &text);
    return text == nullptr ? "" : text;
}

template <class T> Pointer upload(const std::vector<T> &data) {
    Pointer pointer = 0;
    CHECK(api("cuMemAlloc_v2", &pointer, data.size() * sizeof(T)) == 0);
    CHECK(api("cuMemcpyHtoD_v2", pointer, (const void *)data.data(), data.size() * sizeof(T)) == 0);
    return pointer;
}
template <class T> std::vector<T> download(Pointer pointer, size_t count) {
    std::vector<T> data(count);
    unsigned error = api("cuMemcpyDtoH_v2", (void *)data.data(), pointer, count * sizeof(T));
    if (error != 0) fprintf(stderr, "error %u: %s\n", error, message(error).c_str());
    CHECK(error == 0);
    return data;
}

// A fresh context: an error of the last one is gone.
void renew() {
    api("cuDevicePrimaryCtxRelease_v2", 0);
    Handle context = 0;
    CHECK(api("cuDevicePrimaryCtxRetain", &context, 0) == 0);
    CHECK(api("cuCtxSetCurrent", context) == 0);
}

void vector_add() {
    Handle add = function_of(R"(
        extern "C" __global__ void __launch_bounds__(128) kernel(const float *__restrict__ a, const float *__restrict__ b, float *c, unsigned n) {
            unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
            if (i < n) c[i] = a[i] + b[i];
        })");
    unsigned n = 10001;
    std::vector<float> a(n), b(n);
    for (unsigned i = 0; i < n; i++) a[i] = (float)i, b[i] = 0.5f;
    Pointer da = upload(a), db = upload(b), dc = upload(std::vector<float>(n + 7, -1));
    CHECK(launch(add, {(n + 127) / 128}, {128}, da, db, dc, n) == 0);
    auto c = download<float>(dc, n + 7);
    bool good = true;
    for (unsigned i = 0; i < n + 7; i++) good &= c[i] == (i < n ? (float)i + 0.5f : -1);
    CHECK(good);
    int value = 0;
    CHECK(api("cuFuncGetAttribute", &value, 0, add) == 0 && value == 128);
    CHECK(launch(add, {1}, {256}, da, db, dc, n) == 701);
    CHECK(launch(add, {1}, {2048}, da, db, dc, n) == 1);
    CHECK(launch(add, {0}, {32}, da, db, dc, n) == 1);
    CHECK(launch_on(0, add, {1}, {32}, 49u << 10, da, db, dc, n) == 1);
    CHECK(launch((Handle)12345, {1}, {32}, da, db, dc, n) == 400);
    CHECK(api("cuMemFree_v2", da) == 0 && api("cuMemFree_v2", da) == 1);
}

void block_reduction() {
    Handle sum = function_of(R"(
        extern "C" __global__ void kernel(const int *a, int *out) {
            __shared__ int part[256];
            part[threadIdx.x] = a[blockIdx.x * 256 + threadIdx.x];
            __syncthreads();
            for (int s = 128; s > 0; s >>= 1) {
                if (threadIdx.x < s) part[threadIdx.x] += part[threadIdx.x + s];
                __syncthreads();
            }
            if (threadIdx.x == 0) out[blockIdx.x] = part[0];
            int odd = __syncthreads_count(threadIdx.x & 1);
            if (threadIdx.x == 255) out[blockIdx.x] += odd;
        })");
    int value = 0;
    CHECK(api("cuFuncGetAttribute", &value, 1, sum) == 0 && value == 1024);
    std::vector<int> a(256 * 64);
    for (size_t i = 0; i < a.size(); i++) a[i] = (int)(i * 2654435761u >> 20);
    Pointer da = upload(a), out = upload(std::vector<int>(64));
    CHECK(launch(sum, {64}, {256}, da, out) == 0);
    auto got = download<int>(out, 64);
    bool good = true;
    for (int b = 0; b < 64; b++) {
        int want = 128;
        for (int i = 0; i < 256; i++) want += a[(size_t)(b * 256 + i)];
        good &= got[(size_t)b] == want;
    }
    CHECK(good);
}

void warps() {
    Handle kernel = function_of(R"(
        extern "C" __global__ void kernel(float *f, unsigned *u, double *d) {
            unsigned lane = threadIdx.x & 31, active = __activemask();
            float a = lane;
            for (int m = 16; m > 0; m >>= 1) a += __shfl_xor_sync(~0u, a, m);
            f[threadIdx.x] = a;
            unsigned up = __shfl_up_sync(~0u, lane, 3), down = __shfl_down_sync(~0u, lane, 3, 16);
            unsigned odd = __ballot_sync(~0u, lane & 1), group = __match_any_sync(~0u, lane % 3);
            u[threadIdx.x * 8] = up;
            u[threadIdx.x * 8 + 1] = down;
            u[threadIdx.x * 8 + 2] = odd;
            u[threadIdx.x * 8 + 3] = group;
            u[threadIdx.x * 8 + 4] = __reduce_max_sync(~0u, (int)lane - 16);
            u[threadIdx.x * 8 + 5] = __all_sync(~0u, lane < 32) + 2 * __any_sync(~0u, lane == 40);
            // Halves of a warp go different ways.
            unsigned mask = lane < 16 ? 0xffffu : 0xffff0000u;
            if (lane < 16) u[threadIdx.x * 8 + 6] = __reduce_add_sync(mask, lane);
            else u[threadIdx.x * 8 + 6] = __reduce_add_sync(mask, 2u) + __reduce_add_sync(mask, 1u);
            d[threadIdx.x] = __shfl_sync(~0u, (double)threadIdx.x + 0.25, 5);
            u[threadIdx.x * 8 + 7] = active;
        })");
    Pointer f = upload(std::vector<float>(64)), u = upload(std::vector<unsigned>(512)), d = upload(std::vector<double>(64));
    CHECK(launch(kernel, {1}, {64}, f, u, d) == 0);
    auto hf = download<float>(f, 64);
    auto hu = download<unsigned>(u, 512);
    auto hd = download<double>(d, 64);
    bool good[8] = {true, true, true, true, true, true, true, true}, floats = true, doubles = true;
    for (unsigned i = 0; i < 64; i++) {
        unsigned lane = i & 31, group = 0;
        for (unsigned j = lane % 3; j < 32; j += 3) group |= 1u << j;
        const unsigned want[8] = {lane < 3 ? lane : lane - 3, lane % 16 < 13 ? lane + 3 : lane, 0xaaaaaaaa, group, 15, 1, lane < 16 ? 120u : 48u, ~0u};
        for (unsigned j = 0; j < 8; j++) good[j] &= hu[i * 8 + j] == want[j];
        floats &= hf[i] == 496;
        doubles &= hd[i] == (i < 32 ? 5.25 : 37.25);
    }
    for (int j = 0; j < 8; j++) check(good[j], ("warp result " + std::to_string(j)).c_str(), __LINE__);
    CHECK(floats && doubles);
}

void early_exit() {
    Handle kernel = function_of(R"(
        extern "C" __global__ void kernel(unsigned *out) {
            if (threadIdx.x % 3 == 0) return;
            __syncthreads();
            unsigned live = __ballot_sync(~0u, 1);
            __syncthreads();
            out[threadIdx.x] = live;
        })");
    Pointer out = upload(std::vector<unsigned>(100));
    CHECK(launch(kernel, {1}, {100}, out) == 0);
    auto got = download<unsigned>(out, 100);
    bool good = true;
    for (unsigned i = 0; i < 100; i++) {
        unsigned want = 0;
        for (unsigned j = i / 32 * 32; j < 100 && j < i / 32 * 32 + 32; j++) want |= (unsigned)(j % 3 != 0) << j % 32;
        good &= got[i] == (i % 3 == 0 ? 0 : want);
    }
    CHECK(good);
}

void atomics_and_grid() {
    Handle kernel = function_of(R"(
        extern "C" __global__ void kernel(unsigned *out, float *sum, unsigned *seen) {
            atomicAdd(out, 1u);
            atomicMax(out + 1, blockIdx.z * 100 + threadIdx.y);
            atomicMin(out + 2, blockIdx.x);
            atomicAdd(sum, 0.5f);
            unsigned old = out[3];
            while (true) {
                unsigned was = atomicCAS(out + 3, old, old + 3);
                if (was == old) break;
                old = was;
            }
            unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
            unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
            seen[block * 24 + thread] += 1 + block * 24 + thread;
        })");
    unsigned n = 7 * 5 * 9 * 24;
    Pointer out = upload(std::vector<unsigned>{0, 0, ~0u, 0}), sum = upload(std::vector<float>{0}), seen = upload(std::vector<unsigned>(n));
    CHECK(launch(kernel, {7, 5, 9}, {2, 3, 4}, out, sum, seen) == 0);
    auto got = download<unsigned>(out, 4);
    CHECK(got[0] == n && got[1] == 802 && got[2] == 0 && got[3] == 3 * n);
    CHECK(download<float>(sum, 1)[0] == 0.5f * (float)n);
    auto all = download<unsigned>(seen, n);
    bool good = true;
    for (unsigned i = 0; i < n; i++) good &= all[i] == i + 1;
    CHECK(good);
}

void language() {
    Handle kernel = function_of(R"(
        // __global__ void no_kernel(int
        extern "C" __global__ void kernel(float *out, char small, uint4 four, double d) {
            extern __shared__ __align__(16) float dynamic[];
            dynamic[threadIdx.x] = threadIdx.x;
            __syncthreads();
            if (threadIdx.x != 0) return;
            out[0] = dynamic[31];
            out[1] = small + four.w + d;
            out[2] = __dp4a((int)0xff02fe01, 0x01010101, 10);
            out[3] = __dp4a(0xff02fe01u, 0x01010101u, 10u);
            out[4] = __half2float(__float2half(0.1f));
            out[5] = __brev(1u) == 0x80000000u && __clz(1) == 31 && __ffs(8) == 4 && __popc(255u) == 8;
            out[6] = fmaf(1e8f, 1e8f, -1e16f) + rsqrtf(4.0f) + exp2f(3.0f);
            out[7] = max(3, -4) + min(2u, 7u) + __uint_as_float(0x40000000u) + __byte_perm(0x03020100, 0x07060504, 0x0007);
        }
        extern "C" __global__ void other() {})");
    Pointer out = upload(std::vector<float>(8));
    struct alignas(16) Four {
        unsigned x, y, z, w;
    } four = {1, 2, 3, 4};
    CHECK(launch_on(0, kernel, {1}, {32}, 128u, out, (char)-3, four, 0.5) == 0);
    auto got = download<float>(out, 8);
    const float want[8] = {31, 1.5f, 10 + 1 - 2 + 2 - 1, 10 + 1 + 254 + 2 + 255, 0.0999755859375f, 1, 8.5f, 3 + 2 + 2 + 7};
    for (int i = 0; i < 8; i++)
        if (i != 6) CHECK(got[(size_t)i] == want[i]);
    // What 1e8f * 1e8f loses when it is rounded.
    CHECK(got[6] - want[6] == (float)((double)1e8f * (double)1e8f - (double)1e16f));
}

void graphs() {
    Handle kernel = function_of(R"(extern "C" __global__ void kernel(int *a, int by) { a[threadIdx.x] += by; })");
    Handle stream = 0, graph = 0, exec = 0;
    CHECK(api("cuStreamCreate", &stream, 1u) == 0);
    Pointer a = upload(std::vector<int>(32)), b = upload(std::vector<int>(32));
    CHECK(api("cuStreamBeginCapture_v2", stream, 1u) == 0);
    CHECK(launch_on(stream, kernel, {1}, {32}, 0u, a, 2) == 0);
    CHECK(launch_on(stream, kernel, {1}, {32}, 0u, a, 3) == 0);
    CHECK(api("cuMemcpyDtoDAsync_v2", b, a, (size_t)128, stream) == 0);
    unsigned status = 0;
    CHECK(api("cuStreamIsCapturing", stream, &status) == 0 && status == 1);
    CHECK(api("cuStreamEndCapture", stream, &graph) == 0 && graph != 0);
    CHECK(api("cuGraphInstantiateWithFlags", &exec, graph, NOTHING) == 0);
    CHECK(download<int>(a, 1)[0] == 0);
    std::uint64_t before[8], after[8];
    api("shardlight_cuda_host_counters", before);
    for (int i = 0; i < 3; i++) CHECK(api("cuGraphLaunch", exec, stream) == 0);
    api("shardlight_cuda_host_counters", after);
    CHECK(after[0] - before[0] == 6 && after[1] - before[1] == 3 && after[2] == before[2]);
    CHECK(download<int>(b, 1)[0] == 0);  // nobody has waited yet
    CHECK(api("cuStreamSynchronize", stream) == 0);
    CHECK(download<int>(b, 32)[31] == 15);

    // What must not be captured ends the capture.
    Pointer c = 0;
    CHECK(api("cuStreamBeginCapture_v2", stream, 0u) == 0);
    CHECK(api("cuMemAlloc_v2", &c, (size_t)4) == 900);
    CHECK(launch_on(stream, kernel, {1}, {32}, 0u, a, 2) == 901);
    CHECK(api("cuStreamEndCapture", stream, &graph) == 901 && graph == 0);
    CHECK(api("cuGraphLaunch", (Handle)77, stream) == 400);

    // Another stream takes part through events.
    Handle side = 0, event = 0;
    CHECK(api("cuStreamCreate", &side, 1u) == 0 && api("cuEventCreate", &event, 2u) == 0);
    CHECK(api("cuStreamBeginCapture_v2", stream, 1u) == 0);
    CHECK(api("cuEventRecord", event, stream) == 0 && api("cuStreamWaitEvent", side, event, 0u) == 0);
    CHECK(launch_on(side, kernel, {1}, {32}, 0u, a, 100) == 0);
    CHECK(api("cuStreamEndCapture", stream, &graph) == 904);
    CHECK(api("cuStreamBeginCapture_v2", stream, 1u) == 0);
    CHECK(api("cuEventRecord", event, stream) == 0 && api("cuStreamWaitEvent", side, event, 0u) == 0);
    CHECK(launch_on(side, kernel, {1}, {32}, 0u, a, 100) == 0);
    CHECK(api("cuEventRecord", event, side) == 0 && api("cuStreamWaitEvent", stream, event, 0u) == 0);
    CHECK(api("cuStreamEndCapture", stream, &graph) == 0 && graph != 0);
    CHECK(api("cuGraphInstantiateWithFlags", &exec, graph, NOTHING) == 0);
    CHECK(api("cuGraphLaunch", exec, side) == 0 && api("cuStreamSynchronize", side) == 0);
    CHECK(download<int>(a, 1)[0] == 115);
}

void streams() {
    Handle kernel = function_of(R"(extern "C" __global__ void kernel(int *a, int by) { a[threadIdx.x] = a[threadIdx.x] * 2 + by; })");
    Handle one = 0, two = 0, event = 0;
    CHECK(api("cuStreamCreate", &one, 1u) == 0 && api("cuStreamCreate", &two, 1u) == 0 && api("cuEventCreate", &event, 2u) == 0);
    Pointer a = upload(std::vector<int>(32));
    CHECK(launch_on(one, kernel, {1}, {32}, 0u, a, 1) == 0);
    CHECK(api("cuEventRecord", event, one) == 0);
    CHECK(api("cuStreamWaitEvent", two, event, 0u) == 0);
    CHECK(launch_on(two, kernel, {1}, {32}, 0u, a, 5) == 0);
    CHECK(launch_on(one, kernel, {1}, {32}, 0u, a, 1000) == 0);
    int *pinned = nullptr;
    CHECK(api("cuMemHostAlloc", (void **)&pinned, (size_t)128, 0u) == 0);
    pinned[0] = -1;
    CHECK(api("cuMemcpyDtoHAsync_v2", (void *)pinned, a, (size_t)128, two) == 0);
    CHECK(pinned[0] == -1);
    CHECK(api("cuStreamSynchronize", two) == 0 && pinned[0] == 7);
    CHECK(api("cuEventRecord", event, one) == 0 && api("cuEventQuery", event) == 600 && api("cuEventQuery", event) == 0);
    CHECK(download<int>(a, 1)[0] == 1014);
    // Pageable memory may change at once, pinned memory not before the copy is done.
    int word = 41;
    CHECK(api("cuMemcpyHtoDAsync_v2", a, (const void *)&word, (size_t)4, one) == 0);
    pinned[1] = 42;
    CHECK(api("cuMemcpyHtoDAsync_v2", a + 4, (const void *)&pinned[1], (size_t)4, one) == 0);
    word = pinned[1] = 0;
    CHECK(api("cuStreamSynchronize", one) == 0);
    auto got = download<int>(a, 2);
    CHECK(got[0] == 41 && got[1] == 0);
    CHECK(api("cuMemFreeAsync", a, one) == 0 && api("cuMemFreeAsync", a, one) == 1);
    CHECK(api("cuMemcpyDtoH_v2", (void *)&word, a, (size_t)4) == 1);
    CHECK(api("cuStreamDestroy_v2", one) == 0 && api("cuStreamDestroy_v2", one) == 400);
    CHECK(api("cuStreamSynchronize", one) == 400);
    CHECK(api("cuMemFreeHost", (void *)pinned) == 0 && api("cuMemFreeHost", (void *)pinned) == 1);
}

void memory() {
    Pointer a = 0;
    std::vector<char> host(4096);
    CHECK(api("cuMemAlloc_v2", &a, (size_t)1000) == 0);
    CHECK(api("cuMemcpyHtoD_v2", a, (const void *)host.data(), (size_t)1001) == 1);
    CHECK(api("cuMemcpyHtoD_v2", a + 500, (const void *)host.data(), (size_t)501) == 1);
    CHECK(api("cuMemcpyDtoH_v2", (void *)host.data(), a - 1, (size_t)1) == 1);
    CHECK(api("cuMemsetD8Async", a, (unsigned char)1, (size_t)1001, (Handle)0) == 1);
    CHECK(api("cuMemsetD32_v2", a + 2, 1u, (size_t)1) == 1);
    CHECK(api("cuMemsetD32_v2", a + 4, 7u, (size_t)249) == 0 && download<unsigned>(a + 996, 1)[0] == 7);
    CHECK(api("cuMemAlloc_v2", &a, (size_t)0) == 1);
    size_t free = 0, total = 0;
    CHECK(api("cuMemGetInfo_v2", &free, &total) == 0 && total == (size_t)64 << 20 && free < total);
    CHECK(api("cuMemAlloc_v2", &a, total) == 2);
    CHECK(api("cuMemAlloc_v2", &a, free) == 0 && api("cuMemFree_v2", a) == 0);
}

void faults() {
    struct Bad {
        const char *source;
        unsigned code, threads;
        const char *text;
    };
    const Bad all[] = {
        {"if (threadIdx.x < 32) __syncthreads();\n else __syncthreads();", 719, 64, "kernel kernel: threads wait at different barriers"},
        {"if (threadIdx.x == 0) __syncthreads(); else __syncwarp();", 702, 32, "kernel kernel: deadlock"},
        {"if (threadIdx.x == 40) __trap(); __syncthreads();", 719, 64, "__trap()"},
        {"assert(threadIdx.x < 3);", 710, 32, "assertion failed: threadIdx.x < 3"},
        {"__ballot_sync(1u, 1);", 719, 32, "lacks the lane"},
        {"if (threadIdx.x & 1) __ballot_sync(~0u, 1); else __any_sync(~0u, 1);", 719, 32, "different warp functions"},
        {"p[1 << 20] = 1;", 700, 32, "illegal address"},
        {"*(volatile int *)8 = 1;", 700, 32, "illegal address 0x8"},
        {"volatile int big[60000]; for (int i = 0; i < 60000; i++) big[59999 - i] = i; p[0] = big[7];", 700, 1, "stack overflow"},
        {"for (volatile int *q = p;; q += 64) *q = 0;", 700, 1, "illegal address"},
    };
    for (const Bad &bad : all) {
        Handle kernel = function_of(std::string("extern \"C\" __global__ void kernel(int *p) {") + bad.source + "}");
        Pointer p = upload(std::vector<int>(64));
        CHECK(launch(kernel, {3}, {bad.threads}, p) == 0);
        unsigned code = api("cuCtxSynchronize");
        if (code != bad.code || message(code).find(bad.text) == std::string::npos)
            fprintf(stderr, "%s: %u: %s\n", bad.source, code, message(code).c_str());
        CHECK(code == bad.code);
        CHECK(message(code).find(bad.text) != std::string::npos);
        CHECK(api("cuMemFree_v2", p) == bad.code);
        renew();
    }
    // An argument that is no memory, or was freed.
    Handle kernel = function_of(R"(extern "C" __global__ void kernel(int *p) {})");
    Pointer p = upload(std::vector<int>(64));
    CHECK(launch(kernel, {1}, {1}, p) == 0 && api("cuMemFree_v2", p) == 0 && launch(kernel, {1}, {1}, p) == 0);
    CHECK(api("cuCtxSynchronize") == 700);
    renew();
    CHECK(api("cuMemGetInfo_v2", nullptr, nullptr) == 0);
}

void compiler() {
    unsigned error = 0;
    CHECK(compile("extern \"C\" __global__ void kernel(int *p) {\n p[0] = missing;\n}", &error).empty() && error == 6);
    CHECK(last_log.find("test.cu:2") != std::string::npos && last_log.find("missing") != std::string::npos);
    compile("", &error, {"--gpu-architecture=sm_12"});
    CHECK(error == 5 && last_log.find("--gpu-architecture") != std::string::npos);
    compile("", &error, {"--no-such-option"});
    CHECK(error == 5);
    compile("extern \"C\" __global__ void kernel(int *p) { __shared__ int s[13000]; s[threadIdx.x] = 1; __syncthreads(); p[0] = s[1]; }", &error);
    CHECK(error == 6 && last_log.find("too much shared data") != std::string::npos);
    CHECK(compile("extern \"C\" __global__ void kernel() {}", &error, {"-arch", "compute_80"}).empty() && error == 0);
    // Programs that begin alike are compiled on top of what they have in common; lines keep their numbers.
    auto common = [](int n) {
        return "namespace some {\n" + std::string(5000, '\n') + "inline int number() { return " + std::to_string(n) + "; }\n}  // namespace some\n";
    };
    for (int i = 0; i < 8; i++) {
        int n = i % 2;
        Handle kernel = function_of(common(n) + "extern \"C\" __global__ void kernel(int *p) { *p = some::number() + " + std::to_string(10 * i) + "; }");
        Pointer p = upload(std::vector<int>(1));
        CHECK(launch(kernel, {1}, {1}, p) == 0 && download<int>(p, 1)[0] == n + 10 * i);
    }
    CHECK(compile(common(0) + "int a = missing;", &error).empty() && error == 6);
    CHECK(last_log.find("test.cu:5004") != std::string::npos);
    Handle module = 0;
    CHECK(api("cuModuleLoadData", &module, (const void *)".version 9.0\n") == 218);
    CHECK(api("cuModuleLoadData", &module, (const void *)"what is this?") == 200);
    CHECK(api("cuModuleGetFunction", &module, (Handle)5, "kernel") == 400);
    int major = 0, minor = 0;
    CHECK(api("nvrtcVersion", &major, &minor) == 0 && major == 13 && minor == 0);
    Handle none = 1234;
    CHECK(api("nvrtcDestroyProgram", &none) == 4);
}

void times() {
    using Clock = std::chrono::steady_clock;
    auto seconds = [](Clock::time_point since) { return std::chrono::duration<double>(Clock::now() - since).count(); };
    auto start = Clock::now();
    Handle kernel = function_of(R"(extern "C" __global__ void kernel(float *p) {
        float a = threadIdx.x;
        for (int i = 0; i < 100; i++) { a += __shfl_xor_sync(~0u, a, 1); __syncthreads(); }
        p[blockIdx.x * 256 + threadIdx.x] = a; })");
    double compiled = seconds(start);
    Pointer p = upload(std::vector<float>(256 * 64));
    start = Clock::now();
    CHECK(launch(kernel, {64}, {256}, p) == 0 && api("cuCtxSynchronize") == 0);
    printf("compiled in %.0f ms; %.0f ns for a thread to pass a shuffle and a barrier\n", compiled * 1e3, seconds(start) / (64 * 256 * 100) * 1e9);
}

void devices() {
    int count = 0, value = 0;
    CHECK(api("cuDeviceGetCount", &count) == 0 && count == 2);
    CHECK(api("cuDeviceGetAttribute", &value, 75u, 1) == 0 && value == 9);
    CHECK(api("cuDeviceGet", &value, 2) == 101);
    char name[64];
    CHECK(api("cuDeviceGetName", name, 64, 0) == 0 && strcmp(name, "CUDA on the host") == 0);
    Handle second = 0, first = 0;
    CHECK(api("cuCtxGetCurrent", &first) == 0);
    Pointer mine = upload(std::vector<int>(32));
    CHECK(api("cuDevicePrimaryCtxRetain", &second, 1) == 0 && api("cuCtxSetCurrent", second) == 0);
    Handle kernel = function_of(R"(extern "C" __global__ void kernel(int *p) { p[threadIdx.x] = 9; })");
    CHECK(launch(kernel, {1}, {32}, mine) == 0 && api("cuCtxSynchronize") == 700);
    CHECK(api("cuDevicePrimaryCtxRelease_v2", 1) == 0 && api("cuDevicePrimaryCtxRetain", &second, 1) == 0);
    CHECK(api("cuCtxEnablePeerAccess", first, 0u) == 0);
    kernel = function_of(R"(extern "C" __global__ void kernel(int *p) { p[threadIdx.x] = 9; })");
    CHECK(launch(kernel, {1}, {32}, mine) == 0 && api("cuCtxSynchronize") == 0);
    CHECK(api("cuDevicePrimaryCtxRelease_v2", 1) == 0 && api("cuCtxSetCurrent", first) == 0);
    CHECK(download<int>(mine, 32)[31] == 9);
}

}  // namespace

int main(int argc, char **argv) {
    if (argc != 2) return fprintf(stderr, "usage: test LIBRARIES_FOLDER\n"), 2;
    setenv("SHARDLIGHT_CUDA_HOST_DEVICES", "2", 1);
    setenv("SHARDLIGHT_CUDA_HOST_MEMORY", std::to_string((size_t)64 << 20).c_str(), 1);
    cuda = dlopen((std::string(argv[1]) + "/libcuda.so.1").c_str(), RTLD_NOW);
    nvrtc = dlopen((std::string(argv[1]) + "/libnvrtc.so.13").c_str(), RTLD_NOW);
    if (cuda == nullptr || nvrtc == nullptr) return fprintf(stderr, "%s\n", dlerror()), 1;
    size_t free = 0;
    CHECK(api("cuMemGetInfo_v2", &free, nullptr) == 3);
    CHECK(api("cuInit", 0u) == 0);
    CHECK(api("cuMemGetInfo_v2", &free, nullptr) == 201);
    renew();
    for (auto test : {vector_add, block_reduction, warps, early_exit, atomics_and_grid, language, graphs, streams, memory, faults, compiler, devices, times})
        test();
    printf("cuda-host: %d checks, %d failed\n", passed + failed, failed);
    return failed != 0;
}
