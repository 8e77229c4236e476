// Stands in for libnvrtc: g++ compiles the kernels, for the CPU. A "cubin" is a shared library.
#include <fcntl.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include <elf.h>

#include "source.h"

#define API extern "C" __attribute__((visibility("default"))) int

// The two headers that every kernel needs, so that this library needs no folder.
asm(R"(
.section .rodata
cuda_host_header: .incbin "host.h"
cuda_host_header_end: .byte 0
cuda_host_abi_header: .incbin "abi.h"
cuda_host_abi_header_end: .byte 0
.text
)");
extern "C" const char cuda_host_header[], cuda_host_header_end[], cuda_host_abi_header[], cuda_host_abi_header_end[];

extern char **environ;

namespace {

enum Result {
    SUCCESS = 0, OUT_OF_MEMORY = 1, PROGRAM_CREATION_FAILURE = 2, INVALID_INPUT = 3, INVALID_PROGRAM = 4,
    INVALID_OPTION = 5, COMPILATION = 6, BUILTIN_OPERATION_FAILURE = 7, INTERNAL_ERROR = 11,
};

struct Program {
    std::string source, name, log, cubin, ptx;
    std::vector<std::pair<std::string, std::string>> headers;  // name, text
};

std::mutex programs_lock;
std::set<Program *> programs;

bool known(Program *program) {
    std::lock_guard<std::mutex> guard(programs_lock);
    return programs.count(program) == 1;
}

std::string slurp(const std::string &path) {
    std::string text;
    FILE *file = fopen(path.c_str(), "rb");
    if (file == nullptr) return text;
    char part[1 << 14];
    while (std::size_t n = fread(part, 1, sizeof part, file)) text.append(part, n);
    fclose(file);
    return text;
}

bool spill(const std::string &path, const char *text, std::size_t bytes) {
    FILE *file = fopen(path.c_str(), "wb");
    if (file == nullptr) return false;
    bool good = fwrite(text, 1, bytes, file) == bytes;
    return fclose(file) == 0 && good;
}

// A folder that goes with all that is in it.
struct Folder {
    std::string path;
    Folder() {
        const char *parent = getenv("TMPDIR");
        path = std::string(parent != nullptr ? parent : P_tmpdir) + "/cuda-host-XXXXXX";
        if (mkdtemp(path.data()) == nullptr) path.clear();
    }
    std::vector<std::string> files;
    std::string file(const std::string &name) {
        files.push_back(path + "/" + name);
        return files.back();
    }
    ~Folder() {
        for (const std::string &file : files) unlink(file.c_str());
        if (!path.empty()) rmdir(path.c_str());
    }
};

struct Options {
    bool virtual_arch = false, fmad = true;
    std::vector<std::string> for_gcc;
    std::string error;
};

constexpr int ARCHS[] = {75, 80, 86, 87, 88, 89, 90, 100, 103, 110, 120, 121};

bool known_arch(std::string text) {
    if (!text.empty() && (text.back() == 'a' || text.back() == 'f')) text.pop_back();
    for (int arch : ARCHS)
        if (text == std::to_string(arch)) return true;
    return false;
}

Options read_options(int count, const char *const *options) {
    Options o;
    auto starts = [](const std::string &text, std::initializer_list<const char *> prefixes, std::string &rest) {
        for (const char *prefix : prefixes)
            if (text.compare(0, strlen(prefix), prefix) == 0) return rest = text.substr(strlen(prefix)), true;
        return false;
    };
    for (int i = 0; i < count && o.error.empty(); i++) {
        std::string text = options[i] == nullptr ? "" : options[i], rest;
        // An option's value may be the next option.
        for (const char *split : {"-arch", "--gpu-architecture", "-I", "--include-path", "-D", "--define-macro", "-std", "--std"})
            if (text == split && i + 1 < count) text += (text == "-I" || text == "-D" ? "" : "=") + std::string(options[++i]);
        if (starts(text, {"--gpu-architecture=", "-arch="}, rest)) {
            std::string number;
            o.virtual_arch = starts(rest, {"compute_"}, number);
            if ((!o.virtual_arch && !starts(rest, {"sm_"}, number)) || !known_arch(number))
                o.error = "nvrtc: error: invalid value for --gpu-architecture (-arch)\n";
        } else if (starts(text, {"--fmad=", "-fmad="}, rest)) {
            o.fmad = rest != "false";
        } else if (starts(text, {"--std=", "-std="}, rest)) {
            o.for_gcc.push_back("-std=" + (rest == "c++11" || rest == "c++14" ? "c++17" : rest));
        } else if (starts(text, {"--include-path=", "-I"}, rest)) {
            o.for_gcc.push_back("-I" + rest);
        } else if (starts(text, {"--define-macro=", "-D"}, rest)) {
            o.for_gcc.push_back("-D" + rest);
        } else if (starts(text, {"--undefine-macro=", "-U"}, rest)) {
            o.for_gcc.push_back("-U" + rest);
        } else if (!starts(text, {"--use_fast_math", "-use_fast_math", "--ftz=", "-ftz=", "--prec-div=", "--prec-sqrt=",
                                  "-default-device", "--device-as-default-execution-space", "-w", "--disable-warnings",
                                  "-lineinfo", "--generate-line-info", "-G", "--device-debug", "--maxrregcount=",
                                  "-maxrregcount=", "--restrict", "-restrict", "--extra-device-vectorization", "-dopt=",
                                  "--dopt", "--minimal", "-minimal", "--split-compile=", "-no-cache", "--no-cache",
                                  "--ptxas-options=", "-Xptxas", "--diag-suppress=", "--pch", "-rdc=", "--relocatable-device-code="},
                          rest)) {
            o.error = "nvrtc: error: unrecognized option " + text + " found\n";
        }
    }
    return o;
}

int run(std::vector<std::string> words, const std::string &log) {
    std::vector<char *> arguments;
    for (std::string &word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 1, log.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    posix_spawn_file_actions_adddup2(&actions, 1, 2);
    pid_t pid;
    int error = posix_spawnp(&pid, arguments[0], &actions, nullptr, arguments.data(), environ);
    posix_spawn_file_actions_destroy(&actions);
    if (error != 0) return 127;
    int status;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR) return 127;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

// Beginnings that came twice are compiled once and for all, together with host.h: for generated kernels, that is
// half of the work. The files go with the process.
class Prefixes {
    struct Prefix {
        unsigned uses = 0;
        std::string header;  // empty: there is no compiled one
    };
    std::mutex lock;
    std::map<std::string, Prefix> all;
    unsigned made = 0;
    // Removed when the process ends; by then nobody compiles.
    static Folder &folder() {
        static Folder one;
        return one;
    }
    std::string host;

public:
    Prefixes() {
        Folder &f = folder();
        if (f.path.empty()) return;
        std::string file = f.file("host.h");
        if (spill(file, cuda_host_header, (std::size_t)(cuda_host_header_end - cuda_host_header)) &&
            spill(f.file("abi.h"), cuda_host_abi_header, (std::size_t)(cuda_host_abi_header_end - cuda_host_abi_header)))
            host = file;
    }

    // The path of host.h; empty: it could not be written.
    const std::string &host_header() const { return host; }

    // A compiled header for this beginning and these options; empty: none.
    std::string header(const std::vector<std::string> &options, const std::string &text) {
        if (text.empty() || host.empty()) return "";
        std::string key = text, path, log;
        for (const std::string &option : options) key += '\0' + option;
        {
            std::lock_guard<std::mutex> guard(lock);
            Prefix &prefix = all[key];
            if (++prefix.uses != 2) return prefix.header;
            std::string name = "prefix" + std::to_string(made++) + ".h";
            path = folder().file(name);
            log = folder().file(name + ".log");
            folder().file(name + ".gch");
        }
        // Meanwhile other threads do without.
        std::string whole = "#include \"host.h\"\n" + text;
        std::vector<std::string> words = options;
        words.insert(words.end(), {"-x", "c++-header", path, "-o", path + ".gch"});
        if (!spill(path, whole.data(), whole.size()) || run(words, log) != 0) return "";
        std::lock_guard<std::mutex> guard(lock);
        return all[key].header = path;
    }
};

// ptxas refuses more static shared memory than a block may have; here it is the library's thread-local storage.
std::size_t shared_bytes(const std::string &image) {
    auto elf = (const Elf64_Ehdr *)image.data();
    auto segments = (const Elf64_Phdr *)(image.data() + elf->e_phoff);
    for (unsigned i = 0; i < elf->e_phnum; i++)
        if (segments[i].p_type == PT_TLS) return segments[i].p_memsz;
    return 0;
}

Result compile(Program &program, int count, const char *const *options) {
    program.log.clear();
    program.cubin.clear();
    program.ptx.clear();
    Options o = read_options(count, options);
    if (!o.error.empty()) return program.log = o.error, INVALID_OPTION;

    std::vector<std::string> words = {"g++", "-std=c++17", "-O1", "-pipe", "-w", "-fPIC", "-fno-exceptions", "-fno-rtti",
                                      "-fno-math-errno", "-fno-asynchronous-unwind-tables", "-fno-strict-aliasing",
                                      "-fvisibility=hidden", "-fno-gnu-unique"};
#if defined(__x86_64__)
    // CUDA fuses multiplications and additions; a fixed level, so that a compiled kernel may go to a like machine.
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) words.push_back("-march=x86-64-v3");
#endif
    words.push_back(o.fmad ? "-ffp-contract=fast" : "-ffp-contract=off");
    words.insert(words.end(), o.for_gcc.begin(), o.for_gcc.end());

    std::string source = with_dynamic_shared(program.source);
    static Prefixes *prefixes = new Prefixes;
    std::size_t common = program.headers.empty() ? prefix_length(source) : 0;
    std::string header = prefixes->header(words, source.substr(0, common));
    if (header.empty()) common = 0, header = prefixes->host_header();
    auto line = std::count(source.begin(), source.begin() + (std::ptrdiff_t)common, '\n') + 1;

    Folder folder;
    if (folder.path.empty() || header.empty()) return BUILTIN_OPERATION_FAILURE;
    // In the log, the program is called as it was named.
    std::string input = folder.file("kernel.cpp"), library = folder.file("kernel.so"), log = folder.file("log");
    std::string text = "#line " + std::to_string(line) + " \"" + program.name + "\"\n" + source.substr(common) +
                       "\n#line 1 \"kernels\"" + describe_kernels(program.source) + "\n";
    bool written = spill(input, text.data(), text.size());
    for (auto &[name, body] : program.headers)
        written = written && name.find('/') == std::string::npos && spill(folder.file(name), body.data(), body.size());
    if (!written) return BUILTIN_OPERATION_FAILURE;
    words.insert(words.end(), {"-shared", "-nostdlib", "-include", header, "-I" + folder.path, input, "-o", library,
                               "-Wl,--build-id=none", "-Wl,--as-needed", "-lm", "-lgcc"});
    int status = run(words, log);
    program.log = slurp(log);
    if (status == 127) program.log += "nvrtc: error: g++ cannot be started; please install it\n";
    if (status != 0) return COMPILATION;
    std::string image = slurp(library);
    if (image.size() < sizeof(Elf64_Ehdr)) return INTERNAL_ERROR;
    if (std::size_t bytes = shared_bytes(image); bytes > 48 << 10) {
        program.log += "ptxas error   : Entry function uses too much shared data (" + std::to_string(bytes) + " bytes, 49152 max)\n";
        return COMPILATION;
    }
    if (!o.virtual_arch) program.cubin = image;
    program.ptx = "// compiled for the host: there is no PTX\n.version 9.0\n.target sm_90\n.address_size 64\n";
    return SUCCESS;
}

template <class Body> int with(Program *program, Body body) {
    if (!known(program)) return INVALID_PROGRAM;
    try {
        return body();
    } catch (const std::bad_alloc &) {
        return OUT_OF_MEMORY;
    }
}

}  // namespace

API nvrtcVersion(int *major, int *minor) {
    if (major == nullptr || minor == nullptr) return INVALID_INPUT;
    *major = 13;
    *minor = 0;
    return SUCCESS;
}
API nvrtcGetNumSupportedArchs(int *count) {
    return count == nullptr ? INVALID_INPUT : (*count = sizeof ARCHS / sizeof *ARCHS, SUCCESS);
}
API nvrtcGetSupportedArchs(int *archs) {
    return archs == nullptr ? INVALID_INPUT : (memcpy(archs, ARCHS, sizeof ARCHS), SUCCESS);
}
extern "C" __attribute__((visibility("default"))) const char *nvrtcGetErrorString(int result) {
    switch (result) {
        case SUCCESS: return "NVRTC_SUCCESS";
        case OUT_OF_MEMORY: return "NVRTC_ERROR_OUT_OF_MEMORY";
        case PROGRAM_CREATION_FAILURE: return "NVRTC_ERROR_PROGRAM_CREATION_FAILURE";
        case INVALID_INPUT: return "NVRTC_ERROR_INVALID_INPUT";
        case INVALID_PROGRAM: return "NVRTC_ERROR_INVALID_PROGRAM";
        case INVALID_OPTION: return "NVRTC_ERROR_INVALID_OPTION";
        case COMPILATION: return "NVRTC_ERROR_COMPILATION";
        case BUILTIN_OPERATION_FAILURE: return "NVRTC_ERROR_BUILTIN_OPERATION_FAILURE";
        case INTERNAL_ERROR: return "NVRTC_ERROR_INTERNAL_ERROR";
        default: return "NVRTC_ERROR unknown";
    }
}

API nvrtcCreateProgram(Program **out, const char *source, const char *name, int count, const char *const *headers, const char *const *names) {
    if (out == nullptr || source == nullptr || count < 0) return INVALID_INPUT;
    auto program = std::make_unique<Program>();
    program->source = source;
    program->name = name == nullptr || *name == 0 ? "default_program" : name;
    for (int i = 0; i < count; i++) program->headers.push_back({names[i], headers[i]});
    std::lock_guard<std::mutex> guard(programs_lock);
    *out = program.get();
    programs.insert(program.release());
    return SUCCESS;
}
API nvrtcDestroyProgram(Program **program) {
    if (program == nullptr || !known(*program)) return INVALID_PROGRAM;
    std::lock_guard<std::mutex> guard(programs_lock);
    programs.erase(*program);
    delete *program;
    *program = nullptr;
    return SUCCESS;
}
API nvrtcCompileProgram(Program *program, int count, const char *const *options) {
    return with(program, [&] { return compile(*program, count, options); });
}

// Sizes of texts count the zero at the end.
#define OUTPUT(name, field, more)                                                                       \
    API nvrtcGet##name##Size(Program *program, std::size_t *bytes) {                                    \
        return with(program, [&] { return *bytes = program->field.size() + more, SUCCESS; });           \
    }                                                                                                   \
    API nvrtcGet##name(Program *program, char *out) {                                                   \
        return with(program, [&] {                                                                      \
            return memcpy(out, program->field.c_str(), program->field.size() + more), SUCCESS;          \
        });                                                                                             \
    }
OUTPUT(PTX, ptx, 1)
OUTPUT(CUBIN, cubin, 0)
OUTPUT(ProgramLog, log, 1)

// Kernels are `extern "C"`, so their names stay.
API nvrtcAddNameExpression(Program *program, const char *) {
    return with(program, [] { return SUCCESS; });
}
API nvrtcGetLoweredName(Program *program, const char *expression, const char **lowered) {
    return with(program, [&] { return *lowered = expression, SUCCESS; });
}
