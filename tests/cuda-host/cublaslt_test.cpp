// Tests of what stands in for cuBLASLt: cublaslt-test LIBRARIES_FOLDER
#include <dlfcn.h>

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
    if (!good) fprintf(stderr, "cublaslt_test.cpp:%d: failed: %s\n", line, what);
}
#define CHECK(condition) check((condition), #condition, __LINE__)

void *cuda, *blas;

// Calls an API function by name.
template <class... A> unsigned api(const char *name, A... arguments) {
    void *function = dlsym(strstr(name, "cublas") != nullptr ? blas : cuda, name);
    if (function == nullptr) {
        fprintf(stderr, "%s is missing\n", name);
        exit(1);
    }
    return ((unsigned (*)(A...))function)(arguments...);
}

using Handle = std::uintptr_t;
using Pointer = unsigned long long;

struct Result {
    std::uint64_t algorithm[8];
    std::size_t workspace;
    int state;
    float waves;
    int reserved[4];
};

enum { SUCCESS = 0, NOT_INITIALIZED = 1, INVALID_VALUE = 7, EXECUTION_FAILED = 13, NOT_SUPPORTED = 15 };
enum { F32 = 0, F16 = 2, BF16 = 14 };

// A product of weights (N, K) and x (T, K) in one allocation each, as the device asks for it.
constexpr std::uint64_t N = 5, T = 3, K = 70, STRIDE = 96;

Handle layout(int type, std::uint64_t rows, std::uint64_t columns, std::int64_t stride) {
    Handle made = 0;
    CHECK(api("cublasLtMatrixLayoutCreate", &made, type, rows, columns, stride) == SUCCESS);
    return made;
}

struct Call {
    Handle library, desc, a, b, d, stream;
    Pointer weight, x, y, residual, workspace;
    Result found;
    float alpha = 1, beta = 0;
    std::size_t bytes = 0;
    unsigned run() {
        return api("cublasLtMatmul", library, desc, (const float *)&alpha, (const void *)weight, a, (const void *)x, b, (const float *)&beta,
                   (const void *)residual, d, (void *)y, d, (const std::uint64_t *)found.algorithm, (void *)workspace, bytes, stream);
    }
};

template <class F> void with(Call call, unsigned want, int line, F change) {
    change(call);
    unsigned got = call.run();
    if (got != want) fprintf(stderr, "status %u, not %u\n", got, want);
    check(got == want, "the status of a wrong call", line);
}
#define WRONG(status, change) with(call, status, __LINE__, [](Call &c) { change; })

void product(int type) {
    Call call = {};
    Handle context = 0, preference = 0;
    CHECK(api("cuInit", 0u) == 0 && api("cuDevicePrimaryCtxRetain", &context, 0) == 0);
    CHECK(api("cuCtxSetCurrent", (Handle)0) == 0 && api("cublasLtCreate", &call.library) == NOT_INITIALIZED);
    CHECK(api("cuCtxSetCurrent", context) == 0 && api("cublasLtCreate", &call.library) == SUCCESS);
    CHECK(api("cuStreamCreate", &call.stream, 1u) == 0);
    for (Pointer *memory : {&call.weight, &call.x, &call.y, &call.residual, &call.workspace}) CHECK(api("cuMemAlloc_v2", memory, (std::size_t)65536) == 0);

    CHECK(api("cublasLtMatmulDescCreate", &call.desc, 64, F32) == INVALID_VALUE);
    CHECK(api("cublasLtMatmulDescCreate", &call.desc, 68, F32) == SUCCESS);
    std::int32_t one = 1;
    std::uint64_t most = 1 << 20;
    CHECK(api("cublasLtMatmulDescSetAttribute", call.desc, 3, (const void *)&one, (std::size_t)8) == INVALID_VALUE);
    CHECK(api("cublasLtMatmulDescSetAttribute", call.desc, 3, (const void *)&one, (std::size_t)4) == SUCCESS);
    CHECK(api("cublasLtMatmulPreferenceCreate", &preference) == SUCCESS);
    CHECK(api("cublasLtMatmulPreferenceSetAttribute", preference, 1, (const void *)&most, (std::size_t)4) == INVALID_VALUE);
    CHECK(api("cublasLtMatmulPreferenceSetAttribute", preference, 1, (const void *)&most, (std::size_t)8) == SUCCESS);
    call.a = layout(type, K, N, STRIDE), call.b = layout(type, K, T, STRIDE), call.d = layout(F32, N, T, N);
    Handle other = layout(type == F16 ? BF16 : F16, K, T, STRIDE), wrong = layout(type, K + 1, T, STRIDE), narrow = layout(type, K, T, K - 1);

    int count = 0;
    auto heuristic = [&](Handle b) { return api("cublasLtMatmulAlgoGetHeuristic", call.library, call.desc, call.a, b, call.d, call.d, preference, 1, &call.found, &count); };
    CHECK(heuristic(other) == NOT_SUPPORTED && count == 0);
    CHECK(heuristic(wrong) == INVALID_VALUE && heuristic(narrow) == INVALID_VALUE);
    CHECK(heuristic(call.b) == SUCCESS && count == 1 && call.found.workspace > 0);
    call.bytes = call.found.workspace;

    // Small integers, which are exact.
    auto bits = [&](int value) -> std::uint16_t {
        float wide = (float)value;
        std::uint32_t word;
        _Float16 half = (_Float16)wide;
        std::uint16_t narrow_;
        memcpy(&word, &wide, 4);
        memcpy(&narrow_, &half, 2);
        return type == F16 ? narrow_ : (std::uint16_t)(word >> 16);
    };
    auto weight_of = [](std::uint64_t n, std::uint64_t k) { return (int)((n * 7 + k * 3) % 11) - 5; };
    auto x_of = [](std::uint64_t t, std::uint64_t k) { return (int)((t * 5 + k * 2) % 13) - 6; };
    // NaN where nothing may be read.
    std::vector<std::uint16_t> w(N * STRIDE, 0xFFFF), x(T * STRIDE, 0xFFFF);
    std::vector<float> residual(N * T), y(N * T);
    for (std::uint64_t k = 0; k < K; k++) {
        for (std::uint64_t n = 0; n < N; n++) w[n * STRIDE + k] = bits(weight_of(n, k));
        for (std::uint64_t t = 0; t < T; t++) x[t * STRIDE + k] = bits(x_of(t, k));
    }
    for (std::size_t i = 0; i < residual.size(); i++) residual[i] = (float)i;
    CHECK(api("cuMemcpyHtoD_v2", call.weight, (const void *)w.data(), w.size() * 2) == 0);
    CHECK(api("cuMemcpyHtoD_v2", call.x, (const void *)x.data(), x.size() * 2) == 0);
    CHECK(api("cuMemcpyHtoD_v2", call.residual, (const void *)residual.data(), residual.size() * 4) == 0);
    auto right = [&](float beta) {
        CHECK(api("cuMemcpyDtoHAsync_v2", (void *)y.data(), call.y, y.size() * 4, call.stream) == 0 && api("cuStreamSynchronize", call.stream) == 0);
        bool good = true;
        for (std::uint64_t t = 0; t < T; t++)
            for (std::uint64_t n = 0; n < N; n++) {
                int sum = 0;
                for (std::uint64_t k = 0; k < K; k++) sum += weight_of(n, k) * x_of(t, k);
                good &= y[t * N + n] == (float)sum + beta * residual[t * N + n];
            }
        return good;
    };
    for (float beta : {0.0f, 1.0f}) {
        call.beta = beta;
        CHECK(call.run() == SUCCESS && right(beta));
    }
    // In a graph, which runs twice.
    Handle graph = 0, executable = 0;
    CHECK(api("cuStreamBeginCapture_v2", call.stream, 1u) == 0 && call.run() == SUCCESS && api("cuStreamEndCapture", call.stream, &graph) == 0);
    CHECK(api("cuGraphInstantiateWithFlags", &executable, graph, 0ull) == 0);
    for (int i = 0; i < 2; i++) {
        CHECK(api("cuMemsetD8Async", call.y, (unsigned char)0, (std::size_t)(4 * N * T), call.stream) == 0);
        CHECK(api("cuGraphLaunch", executable, call.stream) == 0 && right(1));
    }

    WRONG(NOT_INITIALIZED, c.library = 1);
    WRONG(INVALID_VALUE, c.desc = c.a);
    WRONG(INVALID_VALUE, c.stream = 12345);
    WRONG(INVALID_VALUE, c.weight = 0);
    WRONG(INVALID_VALUE, c.residual = 0);
    WRONG(INVALID_VALUE, c.x += 2);
    WRONG(INVALID_VALUE, c.found.algorithm[0]++);
    WRONG(INVALID_VALUE, c.bytes--);
    WRONG(INVALID_VALUE, c.workspace = 0);
    WRONG(INVALID_VALUE, c.workspace += 16);
    WRONG(INVALID_VALUE, c.workspace = c.x);
    WRONG(INVALID_VALUE, c.y = c.x);
    // Beyond all that is allocated, wherever that is.
    WRONG(EXECUTION_FAILED, c.y += std::uint64_t(1) << 40);
    WRONG(EXECUTION_FAILED, c.weight += 65536 - 512);
    with(call, INVALID_VALUE, __LINE__, [&](Call &c) { c.b = wrong; });
    with(call, NOT_SUPPORTED, __LINE__, [&](Call &c) { c.b = other; });

    for (Handle one_layout : {call.a, call.b, call.d, other, wrong, narrow}) CHECK(api("cublasLtMatrixLayoutDestroy", one_layout) == SUCCESS);
    CHECK(call.run() == INVALID_VALUE);
    CHECK(api("cublasLtMatmulPreferenceDestroy", preference) == SUCCESS && api("cublasLtMatmulPreferenceDestroy", preference) == INVALID_VALUE);
    CHECK(api("cublasLtMatmulDescDestroy", call.desc) == SUCCESS && api("cublasLtDestroy", call.library) == SUCCESS);
    std::uint64_t counters[3];
    api("shardlight_cublaslt_host_counters", counters);
    CHECK(counters[2] == 0);
}

}  // namespace

int main(int, char **arguments) {
    std::string folder = arguments[1];
    cuda = dlopen((folder + "/libcuda.so.1").c_str(), RTLD_NOW | RTLD_GLOBAL);
    blas = dlopen((folder + "/libcublasLt.so.13").c_str(), RTLD_NOW);
    if (cuda == nullptr || blas == nullptr) {
        fprintf(stderr, "%s\n", dlerror());
        return 1;
    }
    for (int type : {F16, BF16}) product(type);
    printf("cublaslt-test: %d passed, %d failed\n", passed, failed);
    return failed == 0 ? 0 : 1;
}
