// What every library answers before it is used: the version of its interface, and whether this machine can run it.

#include <cstring>

#include "window.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace {

#if defined(__x86_64__)
// Bits of CPUID's leaf 7, which older compilers have no names for; `output` counts from EAX.
inline bool leaf_7(int subleaf, int output, int bit) {
    unsigned registers[4] = {};
    __get_cpuid_count(7, subleaf, registers, registers + 1, registers + 2, registers + 3);
    return registers[output] >> bit & 1;
}
#endif

// Whether the processor has tile registers, and the system lets this process use them.
inline bool tiles_allowed() {
#if defined(__x86_64__) && defined(__linux__)
    constexpr int REQUEST_PERMISSION = 0x1023, TILE_DATA = 18;
    return leaf_7(0, 3, 24) && leaf_7(0, 3, 22) && !syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA);
#else
    return false;
#endif
}

}  // namespace

// The version of this interface; native_operators.py refuses a library of another one.
EXPORT int nlrn_interface() { return 5; }

// Whether this machine can run the library compiled for an instruction set.
EXPORT int nlrn_supports(const char* name) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    const bool bfloat16 = avx512 && __builtin_cpu_supports("avx512bw") && leaf_7(1, 0, 5);
    if (!std::strcmp(name, "amx")) return bfloat16 && tiles_allowed();
    if (!std::strcmp(name, "avx512bf16")) return bfloat16;
    if (!std::strcmp(name, "avx512")) return avx512;
    if (!std::strcmp(name, "avx2")) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
    return !std::strcmp(name, "generic");
}
