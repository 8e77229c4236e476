// The part of cuBLASLt that our device calls: products of f16 or bf16 with f32 sums, on the stream they are queued on.
// Wrong use is the status that NVIDIA's documentation has for it.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#define API extern "C" __attribute__((visibility("default")))

using Handle = std::uintptr_t;
using Pointer = unsigned long long;

extern "C" {
unsigned cuCtxGetCurrent(Handle *);
unsigned cuStreamGetCtx(Handle, Handle *);
unsigned cuMemGetAddressRange_v2(Pointer *, std::size_t *, Pointer);
unsigned cuLaunchHostFunc(Handle, void (*)(void *), void *);
}

namespace {

enum Status { SUCCESS = 0, NOT_INITIALIZED = 1, ALLOC_FAILED = 3, INVALID_VALUE = 7, EXECUTION_FAILED = 13, NOT_SUPPORTED = 15 };
enum Type { R_32F = 0, R_16F = 2, R_16BF = 14 };
constexpr int COMPUTE_32F = 68;
enum DescAttribute { TRANSA = 3, TRANSB = 4 };
enum PreferenceAttribute { WORKSPACE = 1, ALIGNMENT = 5 };

struct Library {
    Handle context;
};
struct Desc {
    std::int32_t transposed[2] = {0, 0};
};
struct Layout {
    int type;
    std::uint64_t rows, columns;
    std::int64_t stride;
    std::uint64_t elements() const { return (columns - 1) * (std::uint64_t)stride + rows; }
};
struct Preference {
    std::uint64_t workspace = 0;
    std::uint32_t alignment[4] = {256, 256, 256, 256};  // of A, B, C, D
};

// What is alive of each kind; anything else that is handed in is an error.
std::mutex lock;
std::set<void *> libraries, descs, layouts, preferences;
std::uint64_t counters[2];  // products, heuristics

template <class T> int make(std::set<void *> &all, T **out, T value) {
    std::lock_guard<std::mutex> guard(lock);
    if (out == nullptr) return INVALID_VALUE;
    *out = new T(value);
    all.insert(*out);
    return SUCCESS;
}
template <class T> int destroy(std::set<void *> &all, T *one) {
    std::lock_guard<std::mutex> guard(lock);
    if (all.erase(one) == 0) return INVALID_VALUE;
    delete one;
    return SUCCESS;
}
bool alive(const std::set<void *> &all, const void *one) {
    std::lock_guard<std::mutex> guard(lock);
    return all.count(const_cast<void *>(one)) != 0;
}

// Which mistake is asked for.
bool asked(const char *what) {
    const char *set = getenv("SHARDLIGHT_CUBLASLT_HOST");
    return set != nullptr && strcmp(set, what) == 0;
}

// D (m, n) = A (m, k) B (k, n), by columns, with A and B as they are after transposing.
struct Problem {
    Layout a, b, c, d;
    std::int32_t transposed[2];
    std::uint64_t m() const { return d.rows; }
    std::uint64_t n() const { return d.columns; }
    std::uint64_t k() const { return transposed[0] ? a.rows : a.columns; }
};

int pose(Problem &p, const Desc *desc, const Layout *a, const Layout *b, const Layout *c, const Layout *d) {
    if (!alive(descs, desc)) return INVALID_VALUE;
    for (const Layout *layout : {a, b, c, d})
        if (!alive(layouts, layout) || layout->stride < (std::int64_t)layout->rows) return INVALID_VALUE;
    p = {*a, *b, *c, *d, {desc->transposed[0], desc->transposed[1]}};
    auto rows = [](const Layout &l, bool t) { return t ? l.columns : l.rows; };
    auto columns = [](const Layout &l, bool t) { return t ? l.rows : l.columns; };
    bool ta = p.transposed[0], tb = p.transposed[1];
    if (rows(*a, ta) != d->rows || columns(*b, tb) != d->columns || columns(*a, ta) != rows(*b, tb)) return INVALID_VALUE;
    if (c->rows != d->rows || c->columns != d->columns) return INVALID_VALUE;
    bool halves = (a->type == R_16F || a->type == R_16BF) && a->type == b->type;
    return halves && c->type == R_32F && d->type == R_32F ? SUCCESS : NOT_SUPPORTED;
}

// What a cublasLtMatmulAlgo_t of ours holds: the problem it is for, and what it was promised.
struct Algorithm {
    std::uint32_t magic, m, n, k;
    std::uint32_t strides[4];
    std::uint16_t alignment[4];
    std::uint8_t types[2], transposed[2];
    std::uint32_t workspace;
    std::uint64_t rest;
};
static_assert(sizeof(Algorithm) <= 64, "it fits");
constexpr std::uint32_t MAGIC = 0x6C744142;

Algorithm algorithm_for(const Problem &p) {
    Algorithm algorithm = {};
    algorithm.magic = MAGIC;
    algorithm.m = (std::uint32_t)p.m(), algorithm.n = (std::uint32_t)p.n(), algorithm.k = (std::uint32_t)p.k();
    const Layout *all[] = {&p.a, &p.b, &p.c, &p.d};
    for (int i = 0; i < 4; i++) algorithm.strides[i] = (std::uint32_t)all[i]->stride;
    algorithm.types[0] = (std::uint8_t)p.a.type, algorithm.types[1] = (std::uint8_t)p.d.type;
    for (int i = 0; i < 2; i++) algorithm.transposed[i] = (std::uint8_t)p.transposed[i];
    return algorithm;
}

struct Result {
    std::uint64_t algorithm[8];
    std::size_t workspace;
    int state;
    float waves;
    int reserved[4];
};

float value_of(std::uint16_t bits, int type) {
    float value;
    if (type == R_16F) {
        _Float16 half;
        memcpy(&half, &bits, sizeof half);
        return (float)half;
    }
    std::uint32_t wide = (std::uint32_t)bits << 16;
    memcpy(&value, &wide, sizeof value);
    return value;
}

// Rows of k values, one for each row of A or column of B.
std::vector<float> unpack(const std::uint16_t *from, const Layout &layout, bool along) {
    std::uint64_t count = along ? layout.columns : layout.rows, k = along ? layout.rows : layout.columns;
    std::vector<float> values(count * k);
    for (std::uint64_t i = 0; i < count; i++)
        for (std::uint64_t j = 0; j < k; j++)
            values[i * k + j] = value_of(from[along ? i * (std::uint64_t)layout.stride + j : j * (std::uint64_t)layout.stride + i], layout.type);
    return values;
}

struct Product {
    Problem problem;
    const std::uint16_t *a, *b;
    const float *c;
    float *d, alpha, beta;
    void *workspace;
    std::size_t workspace_bytes;
};

void multiply(void *data) {
    const Product &one = *(const Product *)data;
    const Problem &p = one.problem;
    // Nothing in there may be of use to anybody else.
    if (one.workspace_bytes > 0) memset(one.workspace, 0xFF, one.workspace_bytes);
    std::vector<float> a = unpack(one.a, p.a, p.transposed[0]), b = unpack(one.b, p.b, !p.transposed[1]);
    std::uint64_t k = p.k();
    for (std::uint64_t column = 0; column < p.n(); column++)
        for (std::uint64_t row = 0; row < p.m(); row++) {
            float sum = 0;
            for (std::uint64_t i = 0; i < k; i++) sum += a[row * k + i] * b[column * k + i];
            float value = one.alpha * sum;
            // What is multiplied by zero is not read.
            if (one.beta != 0) value += one.beta * one.c[column * (std::uint64_t)p.c.stride + row];
            one.d[column * (std::uint64_t)p.d.stride + row] = value;
        }
}

bool holds(const void *pointer, std::uint64_t bytes) {
    Pointer base = 0;
    std::size_t size = 0;
    if (cuMemGetAddressRange_v2(&base, &size, (Pointer)pointer) != 0) return false;
    std::uint64_t offset = (Pointer)pointer - base;
    return offset <= size && bytes <= size - offset;
}
bool overlap(const void *a, std::uint64_t a_bytes, const void *b, std::uint64_t b_bytes) {
    return (Pointer)a < (Pointer)b + b_bytes && (Pointer)b < (Pointer)a + a_bytes;
}

}  // namespace

API std::size_t cublasLtGetVersion() { return asked("old") ? 111103 : 130002; }
API const char *cublasLtGetStatusString(int status) {
    switch (status) {
        case SUCCESS: return "success";
        case NOT_INITIALIZED: return "the library was not initialized";
        case ALLOC_FAILED: return "the resource allocation failed";
        case INVALID_VALUE: return "an unsupported value or parameter was passed to the function";
        case EXECUTION_FAILED: return "the function failed to launch on the GPU";
        case NOT_SUPPORTED: return "the functionality requested is not supported";
        default: return "unknown status";
    }
}

API int cublasLtCreate(Library **out) {
    Handle context = 0;
    if (asked("refuse") || cuCtxGetCurrent(&context) != 0 || context == 0) return NOT_INITIALIZED;
    return make(libraries, out, Library{context});
}
API int cublasLtDestroy(Library *library) { return destroy(libraries, library) == SUCCESS ? SUCCESS : NOT_INITIALIZED; }

API int cublasLtMatmulDescCreate(Desc **out, int compute, int scale) {
    if (compute != COMPUTE_32F || scale != R_32F) return INVALID_VALUE;
    return make(descs, out, Desc{});
}
API int cublasLtMatmulDescDestroy(Desc *desc) { return destroy(descs, desc); }
API int cublasLtMatmulDescSetAttribute(Desc *desc, int attribute, const void *value, std::size_t bytes) {
    std::int32_t number;
    if (!alive(descs, desc) || value == nullptr || bytes != sizeof number) return INVALID_VALUE;
    if (attribute != TRANSA && attribute != TRANSB) return INVALID_VALUE;
    memcpy(&number, value, sizeof number);
    if (number != 0 && number != 1) return INVALID_VALUE;
    return desc->transposed[attribute - TRANSA] = number, SUCCESS;
}

API int cublasLtMatrixLayoutCreate(Layout **out, int type, std::uint64_t rows, std::uint64_t columns, std::int64_t stride) {
    if (type != R_32F && type != R_16F && type != R_16BF) return INVALID_VALUE;
    if (rows == 0 || columns == 0 || stride <= 0) return INVALID_VALUE;
    return make(layouts, out, Layout{type, rows, columns, stride});
}
API int cublasLtMatrixLayoutDestroy(Layout *layout) { return destroy(layouts, layout); }

API int cublasLtMatmulPreferenceCreate(Preference **out) { return make(preferences, out, Preference{}); }
API int cublasLtMatmulPreferenceDestroy(Preference *preference) { return destroy(preferences, preference); }
API int cublasLtMatmulPreferenceSetAttribute(Preference *preference, int attribute, const void *value, std::size_t bytes) {
    if (!alive(preferences, preference) || value == nullptr) return INVALID_VALUE;
    if (attribute == WORKSPACE) {
        if (bytes != sizeof preference->workspace) return INVALID_VALUE;
        return memcpy(&preference->workspace, value, bytes), SUCCESS;
    }
    int matrix = attribute - ALIGNMENT;
    std::uint32_t number;
    if (matrix < 0 || matrix > 3 || bytes != sizeof number) return INVALID_VALUE;
    memcpy(&number, value, bytes);
    if (number == 0 || (number & (number - 1)) != 0) return INVALID_VALUE;
    return preference->alignment[matrix] = number, SUCCESS;
}

API int cublasLtMatmulAlgoGetHeuristic(Library *library, Desc *desc, Layout *a, Layout *b, Layout *c, Layout *d, Preference *preference,
                                       int wanted, Result *results, int *count) {
    if (!alive(libraries, library)) return NOT_INITIALIZED;
    if (!alive(preferences, preference) || wanted < 1 || results == nullptr || count == nullptr) return INVALID_VALUE;
    *count = 0;
    Problem problem;
    int status = pose(problem, desc, a, b, c, d);
    if (status != SUCCESS) return status;
    {
        std::lock_guard<std::mutex> guard(lock);
        counters[1]++;
    }
    if (asked("none")) return NOT_SUPPORTED;
    Algorithm algorithm = algorithm_for(problem);
    for (int i = 0; i < 4; i++) algorithm.alignment[i] = (std::uint16_t)(preference->alignment[i] < 256 ? preference->alignment[i] : 256);
    // Some need a workspace, some do not.
    std::uint64_t workspace = problem.k() > 64 ? 4096 * (1 + problem.m() % 5) : 0;
    algorithm.workspace = (std::uint32_t)(workspace < preference->workspace ? workspace : preference->workspace);
    *results = {};
    memcpy(results->algorithm, &algorithm, sizeof algorithm);
    results->workspace = algorithm.workspace;
    results->waves = 1;
    return *count = 1, SUCCESS;
}

API int cublasLtMatmul(Library *library, Desc *desc, const float *alpha, const void *a, Layout *a_layout, const void *b, Layout *b_layout,
                       const float *beta, const void *c, Layout *c_layout, void *d, Layout *d_layout, const std::uint64_t *algo,
                       void *workspace, std::size_t workspace_bytes, Handle stream) {
    Handle context = 0, streams = 0;
    if (!alive(libraries, library)) return NOT_INITIALIZED;
    if (alpha == nullptr || beta == nullptr || a == nullptr || b == nullptr || d == nullptr) return INVALID_VALUE;
    if (cuCtxGetCurrent(&context) != 0 || context != library->context) return INVALID_VALUE;
    if (cuStreamGetCtx(stream, &streams) != 0 || streams != context) return INVALID_VALUE;
    Problem problem;
    int status = pose(problem, desc, a_layout, b_layout, c_layout, d_layout);
    if (status != SUCCESS) return status;
    // We always bring an algorithm; the library would look for one if there were none.
    Algorithm algorithm, wanted = algorithm_for(problem);
    if (algo == nullptr) return INVALID_VALUE;
    memcpy(&algorithm, algo, sizeof algorithm);
    memcpy(wanted.alignment, algorithm.alignment, sizeof wanted.alignment);
    wanted.workspace = algorithm.workspace;
    if (memcmp(&algorithm, &wanted, sizeof algorithm) != 0) return INVALID_VALUE;
    bool added = *beta != 0;
    if (added && c == nullptr) return INVALID_VALUE;
    const void *all[] = {a, b, added ? c : d, d};
    for (int i = 0; i < 4; i++)
        if ((Pointer)all[i] % algorithm.alignment[i] != 0) return INVALID_VALUE;
    if (algorithm.workspace > 0 && (workspace == nullptr || workspace_bytes < algorithm.workspace || (Pointer)workspace % 256 != 0))
        return INVALID_VALUE;
    std::uint64_t bytes[] = {2 * problem.a.elements(), 2 * problem.b.elements(), 4 * problem.c.elements(), 4 * problem.d.elements()};
    for (int i = 0; i < 4; i++)
        if (!holds(all[i], bytes[i])) return EXECUTION_FAILED;
    if (workspace_bytes > 0 && !holds(workspace, workspace_bytes)) return EXECUTION_FAILED;
    // In place is allowed for the same matrix only.
    if (overlap(a, bytes[0], d, bytes[3]) || overlap(b, bytes[1], d, bytes[3])) return INVALID_VALUE;
    if (added && c != d && overlap(c, bytes[2], d, bytes[3])) return INVALID_VALUE;
    if (added && c == d && problem.c.stride != problem.d.stride) return INVALID_VALUE;
    for (int i = 0; i < 4; i++)
        if (workspace_bytes > 0 && overlap(workspace, workspace_bytes, all[i], bytes[i])) return INVALID_VALUE;
    if (asked("fail")) return EXECUTION_FAILED;
    // A graph may run it again at any time: it stays.
    auto *one = new Product{problem, (const std::uint16_t *)a, (const std::uint16_t *)b, (const float *)c, (float *)d, *alpha, *beta, workspace, workspace_bytes};
    {
        std::lock_guard<std::mutex> guard(lock);
        static std::vector<std::unique_ptr<Product>> kept;
        kept.emplace_back(one);
        counters[0]++;
    }
    return cuLaunchHostFunc(stream, multiply, one) == 0 ? SUCCESS : EXECUTION_FAILED;
}

// ---- for tests ----

// out: products queued, heuristics asked for, and how much of what was made is alive.
API void shardlight_cublaslt_host_counters(std::uint64_t out[3]) {
    std::lock_guard<std::mutex> guard(lock);
    out[0] = counters[0], out[1] = counters[1];
    out[2] = libraries.size() + descs.size() + layouts.size() + preferences.size();
}
