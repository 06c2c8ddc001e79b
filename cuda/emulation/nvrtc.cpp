// A stand-in for libnvrtc.so. It compiles nothing: the kernels are in the stand-in driver already. It checks what the host side owes the
// compiler (an architecture, fmad stated, no fast math, headers where they are included), fails when a test asks it to, and gives an image
// that names the program, which cuModuleLoadData knows again.
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <sstream>
#include <string>

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

enum Code : int {
    SUCCESS = 0,
    OUT_OF_MEMORY = 1,
    PROGRAM_CREATION_FAILURE = 2,
    INVALID_INPUT = 3,
    INVALID_PROGRAM = 4,
    INVALID_OPTION = 5,
    COMPILATION = 6,
    BUILTIN_OPERATION_FAILURE = 7,
    NO_NAME_EXPRESSIONS_AFTER_COMPILATION = 8,
    NO_LOWERED_NAMES_BEFORE_COMPILATION = 9,
    NAME_EXPRESSION_NOT_VALID = 10,
    INTERNAL_ERROR = 11,
};

constexpr int ARCHITECTURES[] = {75, 80, 86, 87, 88, 89, 90, 100, 103, 110, 120, 121};

struct Program {
    std::string source, name;
    std::map<std::string, std::string> headers;
    std::set<std::string> expressions;
    std::string log, architecture;
    bool compiled = false;

    // The image of either kind of architecture; PTX for a real one is of the virtual one that belongs to it.
    std::string image(bool binary) const {
        std::string number = architecture.substr(architecture.find('_') + 1);
        return "foof emulation image\n" + name + "\n" + (binary ? "sm_" : "compute_") + number + "\n";
    }
    bool real() const { return architecture.compare(0, 3, "sm_") == 0; }
};

std::mutex mutex;
std::map<void*, std::unique_ptr<Program>> programs;

Program* find(void* handle) {
    std::lock_guard<std::mutex> lock(mutex);
    auto found = programs.find(handle);
    return found == programs.end() ? nullptr : found->second.get();
}

// Asked for by a test, for the next call of this thread.
thread_local std::map<std::string, int> failures;
thread_local int compilations = 0;
thread_local int version = 13000;

Code injected(const char* call) {
    auto found = failures.find(call);
    if (found == failures.end()) return SUCCESS;
    Code code = Code(found->second);
    failures.erase(found);
    return code;
}

// The value of an option, written `--name=value`, `-name=value`, or `--name` `value`; null if it is not there.
const char* option(int count, const char* const* options, const char* name) {
    const char* value = nullptr;
    for (int i = 0; i < count; i++) {
        const char* text = options[i];
        text += *text == '-';
        text += *text == '-';
        size_t length = std::strlen(name);
        if (std::strncmp(text, name, length) != 0) continue;
        if (text[length] == '=') value = text + length + 1;
        if (text[length] == 0) value = i + 1 < count && options[i + 1][0] != '-' ? options[i + 1] : "";
    }
    return value;
}

bool is(const char* value, const char* expected) { return value && std::strcmp(value, expected) == 0; }

// What is wrong with the options, or nothing.
std::string check(Program& program, int count, const char* const* options) {
    const char* architecture = option(count, options, "gpu-architecture");
    if (!architecture) architecture = option(count, options, "arch");
    if (!architecture) return "no --gpu-architecture";
    bool known = false;
    for (int number : ARCHITECTURES) {
        for (const char* kind : {"sm_", "compute_"}) {
            std::string name = kind + std::to_string(number);
            known |= name == architecture || (number >= 90 && name + "a" == architecture) || (number >= 100 && name + "f" == architecture);
        }
    }
    if (!known) return "invalid value for --gpu-architecture (-arch): " + std::string(architecture);
    program.architecture = architecture;
    const char* fmad = option(count, options, "fmad");
    if (!is(fmad, "true") && !is(fmad, "false")) return "--fmad is not stated";
    if (option(count, options, "use_fast_math")) return "fast math";
    if (is(option(count, options, "ftz"), "true")) return "--ftz=true is fast math";
    if (is(option(count, options, "prec-div"), "false")) return "--prec-div=false is fast math";
    if (is(option(count, options, "prec-sqrt"), "false")) return "--prec-sqrt=false is fast math";
    return "";
}

// Looks through a text and what it includes for what a compiler would refuse: `#error`, and a header that was not given.
void preprocess(const Program& program, const std::string& name, const std::string& text, std::set<std::string>& seen, std::string& errors) {
    if (!seen.insert(name).second) return;
    std::istringstream lines(text);
    std::string line;
    for (int number = 1; std::getline(lines, line); number++) {
        size_t start = line.find_first_not_of(" \t");
        if (start == std::string::npos || line[start] != '#') continue;
        std::string where = name + "(" + std::to_string(number) + "): ";
        start = line.find_first_not_of(" \t", start + 1);
        if (start == std::string::npos) continue;
        std::string directive = line.substr(start);
        if (name == program.name && directive.compare(0, 5, "error") == 0) errors += where + "error: #" + directive + "\n";
        size_t open = directive.find('"'), close = directive.rfind('"');
        if (directive.compare(0, 7, "include") != 0 || open == std::string::npos || close <= open) continue;
        std::string header = directive.substr(open + 1, close - open - 1);
        auto found = program.headers.find(header);
        // The emulation's own header is for g++ alone.
        if (found != program.headers.end())
            preprocess(program, header, found->second, seen, errors);
        else if (header != "emulation.hpp")
            errors += where + "catastrophic error: cannot open source file \"" + header + "\"\n";
    }
}

} // namespace

#define API EXPORT Code
#define BEGIN if (Code code = injected(__func__); code != SUCCESS) return code
#define PROGRAM(handle)            \
    Program* program = find(handle); \
    if (!program) return INVALID_PROGRAM

EXPORT void foof_emulation_nvrtc_fail(const char* call, int code) { failures[call] = code; }
EXPORT void foof_emulation_nvrtc_version(int value) { version = value; }
EXPORT void foof_emulation_nvrtc_reset() { failures.clear(), version = 13000; }
EXPORT int foof_emulation_nvrtc_compilations() { return compilations; }

EXPORT const char* nvrtcGetErrorString(int code) {
    switch (code) {
    case SUCCESS: return "NVRTC_SUCCESS";
    case OUT_OF_MEMORY: return "NVRTC_ERROR_OUT_OF_MEMORY";
    case PROGRAM_CREATION_FAILURE: return "NVRTC_ERROR_PROGRAM_CREATION_FAILURE";
    case INVALID_INPUT: return "NVRTC_ERROR_INVALID_INPUT";
    case INVALID_PROGRAM: return "NVRTC_ERROR_INVALID_PROGRAM";
    case INVALID_OPTION: return "NVRTC_ERROR_INVALID_OPTION";
    case COMPILATION: return "NVRTC_ERROR_COMPILATION";
    case BUILTIN_OPERATION_FAILURE: return "NVRTC_ERROR_BUILTIN_OPERATION_FAILURE";
    case NO_NAME_EXPRESSIONS_AFTER_COMPILATION: return "NVRTC_ERROR_NO_NAME_EXPRESSIONS_AFTER_COMPILATION";
    case NO_LOWERED_NAMES_BEFORE_COMPILATION: return "NVRTC_ERROR_NO_LOWERED_NAMES_BEFORE_COMPILATION";
    case NAME_EXPRESSION_NOT_VALID: return "NVRTC_ERROR_NAME_EXPRESSION_NOT_VALID";
    case INTERNAL_ERROR: return "NVRTC_ERROR_INTERNAL_ERROR";
    default: return "NVRTC_ERROR unknown";
    }
}

API nvrtcVersion(int* major, int* minor) {
    BEGIN;
    *major = version / 1000, *minor = version % 1000 / 10;
    return SUCCESS;
}
API nvrtcGetNumSupportedArchs(int* count) {
    BEGIN;
    *count = int(sizeof ARCHITECTURES / sizeof *ARCHITECTURES);
    return SUCCESS;
}
API nvrtcGetSupportedArchs(int* architectures) {
    BEGIN;
    std::memcpy(architectures, ARCHITECTURES, sizeof ARCHITECTURES);
    return SUCCESS;
}

API nvrtcCreateProgram(void** handle, const char* source, const char* name, int headers, const char* const* texts, const char* const* names) {
    BEGIN;
    if (!source || !handle || headers < 0 || (headers > 0 && (!texts || !names))) return INVALID_INPUT;
    auto program = std::make_unique<Program>();
    program->source = source;
    program->name = name && *name ? name : "default_program";
    for (int i = 0; i < headers; i++) program->headers[names[i]] = texts[i];
    std::lock_guard<std::mutex> lock(mutex);
    *handle = program.get();
    programs[*handle] = std::move(program);
    return SUCCESS;
}
API nvrtcDestroyProgram(void** handle) {
    BEGIN;
    std::lock_guard<std::mutex> lock(mutex);
    if (!handle || programs.erase(*handle) == 0) return INVALID_PROGRAM;
    *handle = nullptr;
    return SUCCESS;
}
API nvrtcCompileProgram(void* handle, int count, const char* const* options) {
    PROGRAM(handle);
    compilations++;
    if (Code code = injected(__func__); code != SUCCESS) {
        program->log = program->name + "(1): error: a test asked for this failure\n";
        return code;
    }
    if (std::string wrong = check(*program, count, options); !wrong.empty()) {
        program->log = "nvrtc: error: " + wrong + "\n";
        return INVALID_OPTION;
    }
    std::set<std::string> seen;
    std::string errors;
    preprocess(*program, program->name, program->source, seen, errors);
    program->log = errors;
    program->compiled = errors.empty();
    return program->compiled ? SUCCESS : COMPILATION;
}

API nvrtcAddNameExpression(void* handle, const char* expression) {
    PROGRAM(handle);
    if (program->compiled) return NO_NAME_EXPRESSIONS_AFTER_COMPILATION;
    program->expressions.insert(expression);
    return SUCCESS;
}
// Kernels are extern "C": their names are what they are.
API nvrtcGetLoweredName(void* handle, const char* expression, const char** name) {
    PROGRAM(handle);
    if (!program->compiled) return NO_LOWERED_NAMES_BEFORE_COMPILATION;
    auto found = program->expressions.find(expression);
    if (found == program->expressions.end()) return NAME_EXPRESSION_NOT_VALID;
    *name = found->c_str();
    return SUCCESS;
}

// Sizes count the final zero.
static Code size(const std::string& text, size_t* bytes) { return *bytes = text.size() + 1, SUCCESS; }
static Code copy(const std::string& text, char* to) { return std::memcpy(to, text.c_str(), text.size() + 1), SUCCESS; }

API nvrtcGetProgramLogSize(void* handle, size_t* bytes) {
    PROGRAM(handle);
    return size(program->log, bytes);
}
API nvrtcGetProgramLog(void* handle, char* log) {
    PROGRAM(handle);
    return copy(program->log, log);
}
API nvrtcGetPTXSize(void* handle, size_t* bytes) {
    BEGIN;
    PROGRAM(handle);
    return program->compiled ? size(program->image(false), bytes) : INVALID_PROGRAM;
}
API nvrtcGetPTX(void* handle, char* ptx) {
    BEGIN;
    PROGRAM(handle);
    return program->compiled ? copy(program->image(false), ptx) : INVALID_PROGRAM;
}
// A virtual architecture has no binary: its size is zero.
API nvrtcGetCUBINSize(void* handle, size_t* bytes) {
    BEGIN;
    PROGRAM(handle);
    if (!program->compiled) return INVALID_PROGRAM;
    if (!program->real()) return *bytes = 0, SUCCESS;
    return size(program->image(true), bytes);
}
API nvrtcGetCUBIN(void* handle, char* binary) {
    BEGIN;
    PROGRAM(handle);
    if (!program->compiled || !program->real()) return INVALID_PROGRAM;
    return copy(program->image(true), binary);
}
