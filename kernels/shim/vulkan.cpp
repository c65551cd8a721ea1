// A Vulkan loader that stands before the system's own and loses the device: the waits for its work after the
// first DSGD_SHIM_WAITS say that it is lost. Built as libvulkan.so.1; the system's is DSGD_VULKAN_LOADER.
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include <dlfcn.h>

using Function = void (*)();
using Find = Function (*)(void *, const char *);
using Wait = int (*)(void *, const void *, uint64_t);

static const int device_lost = -4;

static Find find_for_device;
static Wait wait_for_work;

static Function found(const char *name, Function function);

static Find loader() {
    static const Find find = [] {
        const char *const path = std::getenv("DSGD_VULKAN_LOADER");
        void *const library = path == nullptr ? nullptr : dlopen(path, RTLD_NOW | RTLD_LOCAL);
        return library == nullptr ? nullptr : reinterpret_cast<Find>(dlsym(library, "vkGetInstanceProcAddr"));
    }();
    return find;
}

static int wait(void *device, const void *what, uint64_t nanoseconds) {
    static std::atomic<long> left = [] {
        const char *const waits = std::getenv("DSGD_SHIM_WAITS");
        return waits == nullptr ? 0 : std::atol(waits);
    }();
    return left-- > 0 ? wait_for_work(device, what, nanoseconds) : device_lost;
}

static Function of_device(void *device, const char *name) { return found(name, find_for_device(device, name)); }

static Function found(const char *name, Function function) {
    if (function == nullptr) {
        return nullptr;
    }
    if (std::strcmp(name, "vkGetDeviceProcAddr") == 0) {
        find_for_device = reinterpret_cast<Find>(function);
        return reinterpret_cast<Function>(of_device);
    }
    if (std::strcmp(name, "vkWaitSemaphores") == 0 || std::strcmp(name, "vkWaitSemaphoresKHR") == 0) {
        wait_for_work = reinterpret_cast<Wait>(function);
        return reinterpret_cast<Function>(wait);
    }
    return function;
}

extern "C" Function vkGetInstanceProcAddr(void *instance, const char *name) {
    return loader() == nullptr ? nullptr : found(name, loader()(instance, name));
}
