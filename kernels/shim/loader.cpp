// A Vulkan loader that loses its device: hands everything on to the machine's own one, until the program has
// waited DSGD_SHIM_WAITS times for work; from then on every wait and submission says that the device is lost.
// Build it as `libvulkan.so.1` and put its folder into LD_LIBRARY_PATH. Without the variable nothing is lost.
#include <dlfcn.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>

using Result = int;
using Function = void (*)();
using Find = Function (*)(void *, const char *);
const Result device_lost = -4;

static long waits_at_start() {
    const char *waits = std::getenv("DSGD_SHIM_WAITS");
    return waits == nullptr ? INT64_MAX : std::atol(waits);
}
static std::atomic<long> waits_left = waits_at_start();

// The real functions. A program has one device here; what was found last is right for all of them.
static std::atomic<Find> find_of_device;
static std::atomic<Function> semaphores, fences, counter, submission, idle_queue, idle_device;

template <typename... Arguments> static Result real(const std::atomic<Function> &of, Arguments... given) {
    return reinterpret_cast<Result (*)(Arguments...)>(of.load())(given...);
}

// What was submitted is done all the same, so that nothing is freed under the driver's hands.
static Result wait_semaphores(void *device, const void *info, uint64_t timeout) {
    const Result done = real(semaphores, device, info, timeout);
    return waits_left.fetch_sub(1) > 0 ? done : device_lost;
}

static Result wait_fences(void *device, uint32_t count, const void *list, uint32_t all, uint64_t timeout) {
    const Result done = real(fences, device, count, list, all, timeout);
    return waits_left.fetch_sub(1) > 0 ? done : device_lost;
}

static Result counter_value(void *device, void *semaphore, uint64_t *value) {
    return waits_left >= 0 ? real(counter, device, semaphore, value) : device_lost;
}

static Result submit(void *queue, uint32_t count, const void *list, void *fence) {
    return waits_left >= 0 ? real(submission, queue, count, list, fence) : device_lost;
}

static Result wait_queue(void *queue) {
    const Result done = real(idle_queue, queue);
    return waits_left >= 0 ? done : device_lost;
}

static Result wait_device(void *device) {
    const Result done = real(idle_device, device);
    return waits_left >= 0 ? done : device_lost;
}

template <typename Own> static Function keep(std::atomic<Function> &place, Function found, Own own) {
    place = found;
    return reinterpret_cast<Function>(own);
}

static Function function_of_device(void *device, const char *name);

// The function of that name: the real one, or one of those above in its place.
static Function in_place_of(const char *name, Function found) {
    const auto is = [name](const char *other) { return std::strcmp(name, other) == 0; };
    if (found == nullptr) {
        return nullptr;
    }
    if (is("vkGetDeviceProcAddr")) {
        find_of_device = reinterpret_cast<Find>(found);
        return reinterpret_cast<Function>(function_of_device);
    }
    if (is("vkWaitSemaphores") || is("vkWaitSemaphoresKHR")) {
        return keep(semaphores, found, wait_semaphores);
    }
    if (is("vkGetSemaphoreCounterValue") || is("vkGetSemaphoreCounterValueKHR")) {
        return keep(counter, found, counter_value);
    }
    if (is("vkWaitForFences")) {
        return keep(fences, found, wait_fences);
    }
    if (is("vkQueueSubmit")) {
        return keep(submission, found, submit);
    }
    if (is("vkQueueWaitIdle")) {
        return keep(idle_queue, found, wait_queue);
    }
    return is("vkDeviceWaitIdle") ? keep(idle_device, found, wait_device) : found;
}

static Function function_of_device(void *device, const char *name) {
    return in_place_of(name, find_of_device.load()(device, name));
}

// By its whole path: a search would find this library again.
static Find real_loader() {
    for (const char *path :
         {"/usr/lib/x86_64-linux-gnu/libvulkan.so.1", "/usr/lib/aarch64-linux-gnu/libvulkan.so.1",
          "/usr/lib64/libvulkan.so.1", "/usr/lib/libvulkan.so.1"}) {
        if (void *library = dlopen(path, RTLD_NOW)) {
            return reinterpret_cast<Find>(dlsym(library, "vkGetInstanceProcAddr"));
        }
    }
    return nullptr;
}

extern "C" Function vkGetInstanceProcAddr(void *instance, const char *name) {
    static const Find found = real_loader();
    return found == nullptr ? nullptr : in_place_of(name, found(instance, name));
}
