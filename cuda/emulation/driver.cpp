// A stand-in for libcuda.so over the emulation: devices, contexts, streams, events, modules, launches. driver_memory.cpp has the memory.
// It provides the calls that cudarc's safe layer makes, and is stricter than a GPU's driver where that finds faults.
#include <cstdarg>
#include <fstream>
#include <iterator>

#include "api.hpp"
#include "error.hpp"

using namespace driver;

// The controls.
EXPORT void foof_emulation_order(int order) { controls.order = order; }
EXPORT void foof_emulation_lazy(int lazy) { controls.lazy = lazy != 0; }
EXPORT void foof_emulation_devices(int devices) { controls.devices = min(devices, MAX_DEVICES); }
EXPORT void foof_emulation_capability(int capability) { controls.capability = capability; }
EXPORT void foof_emulation_driver_version(int version) { controls.version = version; }
EXPORT void foof_emulation_fail(const char* call, int code) { controls.failures[call] = code; }
EXPORT void foof_emulation_reset() { controls = Controls{}; }
EXPORT long long foof_emulation_allocations() { return count->live; }
EXPORT long long foof_emulation_allocations_ever() { return count->ever; }

// Errors.

API cuGetErrorName(int code, const char** name) {
    for (const Error& error : ERRORS)
        if (error.code == code) return *name = error.name, SUCCESS;
    return *name = nullptr, INVALID_VALUE;
}
API cuGetErrorString(int code, const char** text) {
    for (const Error& error : ERRORS)
        if (error.code == code) return *text = error.text, SUCCESS;
    return *text = nullptr, INVALID_VALUE;
}

// Devices.

API cuInit(unsigned flags) {
    if (Code code = injected(__func__); code != SUCCESS) return code;
    if (flags != 0) return INVALID_VALUE;
    if (controls.devices == 0) return NO_DEVICE;
    initialized = true;
    return SUCCESS;
}
API cuDriverGetVersion(int* version) {
    if (Code code = injected(__func__); code != SUCCESS) return code;
    *version = controls.version;
    return SUCCESS;
}
API cuDeviceGetCount(int* devices) {
    BEGIN;
    *devices = controls.devices;
    return SUCCESS;
}
API cuDeviceGet(int* device, int ordinal) {
    BEGIN;
    if (ordinal < 0 || ordinal >= controls.devices) return INVALID_DEVICE;
    *device = ordinal;
    return SUCCESS;
}
API cuDeviceGetName(char* name, int length, int) {
    BEGIN;
    snprintf(name, size_t(length), "CPU emulation");
    return SUCCESS;
}
API cuDeviceGetUuid_v2(char* uuid, int device) {
    BEGIN;
    std::memset(uuid, 0, 16);
    std::memcpy(uuid, "CPU emulation", 13);
    uuid[15] = char(device);
    return SUCCESS;
}
API cuDeviceTotalMem_v2(size_t* bytes, int) {
    BEGIN;
    *bytes = TOTAL_MEMORY;
    return SUCCESS;
}

constexpr int STATIC_SHARED = 48 << 10; // what a launch may use without asking
constexpr int OPTIN_SHARED = 227 << 10; // after cuFuncSetAttribute

// An H100's limits, with few multiprocessors.
static int attribute(int which) {
    switch (which) {
    case 1: return 1024;             // MAX_THREADS_PER_BLOCK
    case 2: return 1024;             // MAX_BLOCK_DIM_X
    case 3: return 1024;             // MAX_BLOCK_DIM_Y
    case 4: return 64;               // MAX_BLOCK_DIM_Z
    case 5: return 2147483647;       // MAX_GRID_DIM_X
    case 6: return 65535;            // MAX_GRID_DIM_Y
    case 7: return 65535;            // MAX_GRID_DIM_Z
    case 8: return STATIC_SHARED;    // MAX_SHARED_MEMORY_PER_BLOCK
    case 10: return 32;              // WARP_SIZE
    case 12: return 65536;           // MAX_REGISTERS_PER_BLOCK
    case 13: return 1000000;         // CLOCK_RATE, kHz
    case 16: return 4;               // MULTIPROCESSOR_COUNT
    case 18: return 0;               // INTEGRATED
    case 31: return 1;               // CONCURRENT_KERNELS
    case 36: return 1000000;         // MEMORY_CLOCK_RATE, kHz
    case 37: return 512;             // GLOBAL_MEMORY_BUS_WIDTH, bits
    case 38: return 50 << 20;        // L2_CACHE_SIZE
    case 39: return 2048;            // MAX_THREADS_PER_MULTIPROCESSOR
    case 41: return 1;               // UNIFIED_ADDRESSING
    case 75: return controls.capability / 10;
    case 76: return controls.capability % 10;
    case 81: return 228 << 10;       // MAX_SHARED_MEMORY_PER_MULTIPROCESSOR
    case 82: return 65536;           // MAX_REGISTERS_PER_MULTIPROCESSOR
    case 83: return 0;               // MANAGED_MEMORY
    case 95: return 0;               // COOPERATIVE_LAUNCH
    case 97: return OPTIN_SHARED;    // MAX_SHARED_MEMORY_PER_BLOCK_OPTIN
    case 106: return 32;             // MAX_BLOCKS_PER_MULTIPROCESSOR
    case 111: return 1 << 10;        // RESERVED_SHARED_MEMORY_PER_BLOCK
    case 115: return 1;              // MEMORY_POOLS_SUPPORTED
    default: return -1;
    }
}
API cuDeviceGetAttribute(int* value, int which, int device) {
    BEGIN;
    if (device < 0 || device >= controls.devices) return INVALID_DEVICE;
    int known = attribute(which);
    if (known < 0) return INVALID_VALUE; // one that is needed belongs in the list above
    *value = known;
    return SUCCESS;
}

// Contexts: one for each device.

API cuDevicePrimaryCtxRetain(void** context, int device) {
    BEGIN;
    if (device < 0 || device >= controls.devices) return INVALID_DEVICE;
    std::lock_guard lock(mutex);
    context_of(device).retained++;
    *context = &context_of(device);
    return SUCCESS;
}
API cuDevicePrimaryCtxRelease_v2(int device) {
    BEGIN;
    if (device < 0 || device >= MAX_DEVICES) return INVALID_DEVICE;
    std::lock_guard lock(mutex);
    if (context_of(device).retained == 0) return INVALID_CONTEXT;
    context_of(device).retained--;
    return SUCCESS;
}
API cuCtxGetCurrent(void** context) {
    BEGIN;
    *context = current_context;
    return SUCCESS;
}
API cuCtxSetCurrent(void* context) {
    BEGIN;
    for (int device = 0; device < MAX_DEVICES; device++) {
        if (context != &context_of(device)) continue;
        current_context = &context_of(device);
        return SUCCESS;
    }
    if (context) return INVALID_CONTEXT;
    current_context = nullptr;
    return SUCCESS;
}
API cuCtxGetDevice(int* device) {
    BEGIN_IN_CONTEXT;
    *device = current_context->device;
    return SUCCESS;
}
API cuCtxSetFlags(unsigned) {
    BEGIN_IN_CONTEXT;
    return SUCCESS;
}
API cuCtxSynchronize() {
    BEGIN_IN_CONTEXT;
    current_context->finish();
    return SUCCESS;
}
API cuCtxGetStreamPriorityRange(int* least, int* greatest) {
    BEGIN_IN_CONTEXT;
    *least = *greatest = 0;
    return SUCCESS;
}

// Streams.

constexpr unsigned NON_BLOCKING = 1;

API cuStreamCreate(void** stream, unsigned flags) {
    BEGIN_IN_CONTEXT;
    auto queue = flags & NON_BLOCKING ? std::make_shared<Queue>() : current_context->queue;
    if (flags & NON_BLOCKING) {
        std::lock_guard lock(mutex);
        auto& queues = current_context->queues;
        std::erase_if(queues, [](auto& queue) { return queue.expired(); });
        queues.push_back(queue);
    }
    *stream = streams().add(std::make_unique<Stream>(Stream{current_context, queue}));
    return SUCCESS;
}
API cuStreamCreateWithPriority(void** stream, unsigned flags, int) { return cuStreamCreate(stream, flags); }
API cuStreamDestroy_v2(void* stream) {
    BEGIN;
    auto gone = streams().remove(stream);
    if (!gone) return INVALID_HANDLE;
    gone->queue->finish();
    return SUCCESS;
}
API cuStreamSynchronize(void* stream) {
    BEGIN_IN_CONTEXT;
    QUEUE(stream);
    queue->finish();
    return SUCCESS;
}
// Lazy work goes on by a step when it is asked for, so that a loop of questions ends.
API cuStreamQuery(void* stream) {
    BEGIN_IN_CONTEXT;
    QUEUE(stream);
    if (queue->reached(queue->ticket())) return SUCCESS;
    queue->advance();
    return NOT_READY;
}
API cuStreamWaitEvent(void* stream, void* event, unsigned) {
    BEGIN_IN_CONTEXT;
    QUEUE(stream);
    Event* found = events().find(event);
    if (!found) return INVALID_HANDLE;
    if (found->queue) queue->enqueue([other = found->queue, ticket = found->ticket] { other->wait(ticket); });
    return SUCCESS;
}
API cuStreamIsCapturing(void* stream, int* status) {
    BEGIN_IN_CONTEXT;
    QUEUE(stream);
    *status = 0;
    return SUCCESS;
}
API cuLaunchHostFunc(void* stream, void (*function)(void*), void* argument) {
    BEGIN_IN_CONTEXT;
    QUEUE(stream);
    queue->enqueue([=] { function(argument); });
    return SUCCESS;
}

// Events.

constexpr unsigned DISABLE_TIMING = 2;

API cuEventCreate(void** event, unsigned flags) {
    BEGIN_IN_CONTEXT;
    *event = events().add(std::make_unique<Event>(Event{current_context, !(flags & DISABLE_TIMING), nullptr, 0, nullptr}));
    return SUCCESS;
}
API cuEventDestroy_v2(void* event) {
    BEGIN;
    return events().remove(event) ? SUCCESS : INVALID_HANDLE;
}
API cuEventRecord(void* event, void* stream) {
    BEGIN_IN_CONTEXT;
    QUEUE(stream);
    Event* found = events().find(event);
    if (!found || found->context != context_of_stream(stream)) return INVALID_HANDLE;
    if (found->timed) {
        found->time = std::make_shared<Event::Clock::time_point>();
        queue->enqueue([time = found->time] { *time = Event::Clock::now(); });
    }
    found->queue = queue;
    found->ticket = queue->ticket();
    return SUCCESS;
}
API cuEventQuery(void* event) {
    BEGIN;
    Event* found = events().find(event);
    if (!found) return INVALID_HANDLE;
    if (found->done()) return SUCCESS;
    found->queue->advance();
    return NOT_READY;
}
API cuEventSynchronize(void* event) {
    BEGIN;
    Event* found = events().find(event);
    if (!found) return INVALID_HANDLE;
    if (found->queue) found->queue->wait(found->ticket);
    return SUCCESS;
}
API cuEventElapsedTime(float* milliseconds, void* start, void* end) {
    BEGIN;
    Event *from = events().find(start), *to = events().find(end);
    if (!from || !to || !from->timed || !to->timed || !from->time || !to->time) return INVALID_HANDLE;
    if (!from->done() || !to->done()) return NOT_READY;
    *milliseconds = std::chrono::duration<float, std::milli>(*to->time - *from->time).count();
    return SUCCESS;
}

// Modules. An image is what nvrtc.cpp makes: three lines, that name the program and the architecture.

struct Module;
struct Function {
    const emulation::Kernel* kernel;
    Module* module;
    int dynamic_shared = STATIC_SHARED; // the most that a launch may use
};
struct Module {
    Context* context;
    std::string program;
    int capability;
    std::map<std::string, Function*> functions;
};
static Handles<Module>& modules() {
    static auto& handles = *new Handles<Module>;
    return handles;
}
static Handles<Function>& functions() {
    static auto& handles = *new Handles<Function>;
    return handles;
}

API cuModuleLoadData(void** module, const void* image) {
    BEGIN_IN_CONTEXT;
    static const std::string magic = "foof emulation image\n";
    auto* text = static_cast<const char*>(image);
    if (!text || std::strncmp(text, magic.c_str(), magic.size()) != 0) return INVALID_IMAGE;
    std::string rest = text + magic.size();
    size_t line = rest.find('\n');
    if (line == std::string::npos) return INVALID_IMAGE;
    std::string program = rest.substr(0, line), architecture = rest.substr(line + 1);
    bool binary = architecture.compare(0, 3, "sm_") == 0;
    int capability = atoi(architecture.c_str() + (binary ? 3 : strlen("compute_")));
    // A cubin runs on its own major version, from its minor version on; PTX on all later devices.
    if (capability > controls.capability || (binary && capability / 10 != controls.capability / 10)) return NO_BINARY_FOR_GPU;
    *module = modules().add(std::make_unique<Module>(Module{current_context, program, capability, {}}));
    return SUCCESS;
}
API cuModuleLoad(void** module, const char* path) {
    BEGIN_IN_CONTEXT;
    std::ifstream file(path, std::ios::binary);
    if (!file) return FILE_NOT_FOUND;
    std::string image((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    return cuModuleLoadData(module, image.c_str());
}
API cuModuleUnload(void* module) {
    BEGIN;
    auto gone = modules().remove(module);
    if (!gone) return INVALID_HANDLE;
    for (auto& [name, function] : gone->functions) functions().remove(function);
    return SUCCESS;
}
API cuModuleGetFunction(void** function, void* module, const char* name) {
    BEGIN_IN_CONTEXT;
    Module* found = modules().find(module);
    if (!found) return INVALID_HANDLE;
    auto kernel = emulation::kernels().find(name);
    if (kernel == emulation::kernels().end()) return NOT_FOUND;
    // A program that bears the name of a .cu file holds the kernels of that file.
    const std::string& program = found->program;
    if (program.ends_with(".cu") && !program.ends_with(kernel->second.program)) return NOT_FOUND;
    std::lock_guard lock(mutex);
    Function*& handle = found->functions[name];
    if (!handle) handle = functions().add(std::make_unique<Function>(Function{&kernel->second, found}));
    *function = handle;
    return SUCCESS;
}

API cuFuncGetAttribute(int* value, int which, void* function) {
    BEGIN;
    Function* found = functions().find(function);
    if (!found) return INVALID_HANDLE;
    switch (which) {
    case 0: *value = int(found->kernel->max_threads); return SUCCESS; // MAX_THREADS_PER_BLOCK
    case 1: *value = 0; return SUCCESS;                               // SHARED_SIZE_BYTES, static
    case 2: *value = 0; return SUCCESS;                               // CONST_SIZE_BYTES
    case 3: *value = 0; return SUCCESS;                               // LOCAL_SIZE_BYTES
    case 4: *value = 32; return SUCCESS;                              // NUM_REGS
    case 5: *value = found->module->capability; return SUCCESS;       // PTX_VERSION
    case 6: *value = found->module->capability; return SUCCESS;       // BINARY_VERSION
    case 8: *value = found->dynamic_shared; return SUCCESS;           // MAX_DYNAMIC_SHARED_SIZE_BYTES
    default: return INVALID_VALUE;
    }
}
API cuFuncSetAttribute(void* function, int which, int value) {
    BEGIN;
    Function* found = functions().find(function);
    if (!found) return INVALID_HANDLE;
    if (which == 9) return value >= -1 && value <= 100 ? SUCCESS : INVALID_VALUE; // PREFERRED_SHARED_MEMORY_CARVEOUT: a hint
    if (which != 8 || value < 0 || value > OPTIN_SHARED) return INVALID_VALUE;
    found->dynamic_shared = value;
    return SUCCESS;
}
API cuFuncSetCacheConfig(void* function, int) {
    BEGIN;
    return functions().find(function) ? SUCCESS : INVALID_HANDLE;
}
API cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, void* function, int threads, size_t dynamic, unsigned) {
    BEGIN;
    if (!functions().find(function)) return INVALID_HANDLE;
    if (threads <= 0) return INVALID_VALUE;
    *blocks = int(min(min(2048 / threads, 32), int((228 << 10) / (dynamic + (1 << 10)))));
    return SUCCESS;
}
API cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, void* function, int threads, size_t dynamic) {
    return cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, function, threads, dynamic, 0);
}

API cuLaunchKernel(void* function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y, unsigned block_z,
                   unsigned shared, void* stream, void** parameters, void** extra) {
    BEGIN_IN_CONTEXT;
    QUEUE(stream);
    Function* found = functions().find(function);
    if (!found || found->module->context != context_of_stream(stream)) return INVALID_HANDLE;
    const emulation::Kernel& kernel = *found->kernel;
    if (grid_x == 0 || grid_x > 2147483647u || grid_y == 0 || grid_y > 65535 || grid_z == 0 || grid_z > 65535) return INVALID_VALUE;
    if (block_x == 0 || block_x > 1024 || block_y == 0 || block_y > 1024 || block_z == 0 || block_z > 64) return INVALID_VALUE;
    emulation::Launch launch{kernel.name, dim3(grid_x, grid_y, grid_z), dim3(block_x, block_y, block_z), shared, controls.order, {}};
    if (launch.block.volume() > kernel.max_threads) return INVALID_VALUE;
    if (shared > unsigned(found->dynamic_shared)) return INVALID_VALUE;
    if (!parameters || extra) return INVALID_VALUE;
    launch.body = kernel.bind(parameters);
    queue->enqueue([launch] {
        emulation::run(launch);
        memory().check_guards(launch.kernel);
    });
    return SUCCESS;
}
