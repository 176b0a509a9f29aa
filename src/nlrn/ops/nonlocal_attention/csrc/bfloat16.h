// What the kernels in bfloat16 share: numbers, memory, and work on vectors and tile registers (AMX).

#pragma once

#include <immintrin.h>

#include <type_traits>

#include "window.h"

namespace {

typedef uint16_t Half;  // the bits of a bfloat16, or of a float16
typedef uint32_t Pair;  // of bfloat16: channels or keys side by side

constexpr int CHANNELS = 32;  // channels come in multiples of this
constexpr int SHARING = 8;    // rows of keys whose stored logits have a common reference

inline const Half* halves(const Image& image) { return static_cast<const Half*>(image.data); }
inline __m512i load_pairs(const void* p) { return _mm512_loadu_si512(p); }

inline __m512bh spread(const Half* pair) {
    int32_t both;
    std::memcpy(&both, pair, sizeof both);
    return (__m512bh)_mm512_set1_epi32(both);
}

// The stored logits of a tile, which are relative to a reference: [key][16 queries], then [SHARING rows of keys][16 queries] of float32.
template <class Number>
struct Logits {
    Number* data = nullptr;

    Logits() = default;
    Logits(const Problem& problem, Number* state, size_t tile) : data(state ? state + tile * problem.state_tile : nullptr) {}

    auto reference(const Problem& problem, int row) const {
        const auto after = data + keys_of_tile(problem) * QUERIES + row / SHARING * 2 * QUERIES;
        return reinterpret_cast<std::conditional_t<std::is_const_v<Number>, const float*, float*>>(after);
    }
};

// Transposes 16x16 numbers of 32 bits: bit by bit of the row's number is exchanged with that of the column's.
inline void transpose(__m512i* rows) {
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
#pragma GCC unroll 4
    for (int bit = 1; bit < 16; bit *= 2) {
        const __mmask16 high = _mm512_test_epi32_mask(lane, _mm512_set1_epi32(bit));
        // Lanes of the first operand count from 0, of the second from 16.
        const __m512i first = _mm512_mask_add_epi32(lane, high, lane, _mm512_set1_epi32(16 - bit));
        const __m512i second = _mm512_mask_add_epi32(_mm512_add_epi32(lane, _mm512_set1_epi32(bit)), high, lane, _mm512_set1_epi32(16));
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++)
            if (!(i & bit)) {
                const __m512i a = rows[i], b = rows[i + bit];
                rows[i] = _mm512_permutex2var_epi32(a, first, b);
                rows[i + bit] = _mm512_permutex2var_epi32(a, second, b);
            }
    }
}

// exp(x) for x <= 0 as the bits of a float32, within 1e-4 of it; nothing that a product would see below -87 (and for -inf).
// ROUNDED so that the upper half is the nearest bfloat16.
template <bool ROUNDED>
inline __m512i exp_negative(__m512 x) {
    const __m512 integer = _mm512_set1_ps(12582912.0f);  // added, the integer lands in the low bits
    // The power of two, less a half: what is left after the integer below it then lies between -1/2 and 1/2, and p in 1 .. 2.
    const __m512 power = _mm512_max_ps(_mm512_fmadd_ps(x, _mm512_set1_ps(1.44269504f), _mm512_set1_ps(-0.5f)), _mm512_set1_ps(-127.0f));
    const __m512 shifted = _mm512_add_ps(power, integer);
    const __m512 r = _mm512_sub_ps(power, _mm512_sub_ps(shifted, integer));
    __m512 p = _mm512_fmadd_ps(r, _mm512_set1_ps(0.0780245215f), _mm512_set1_ps(0.3431039453f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.9804190993f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.4141118526f + (ROUNDED ? 0x1p-8f : 0.0f)));
    return _mm512_add_epi32(_mm512_castps_si512(p), _mm512_slli_epi32(_mm512_castps_si512(shifted), 23));
}

#ifdef __AMX_BF16__

// All tile registers hold 16 rows of 64 bytes; on the way out, how the thread's owner had set them returns.
struct UseTiles {
    alignas(64) uint8_t before[64];

    UseTiles() {
        _tile_storeconfig(before);
        alignas(64) uint8_t ours[64] = {1};
        for (int i = 0; i < 8; i++) ours[16 + 2 * i] = 64, ours[48 + i] = 16;
        _tile_loadconfig(ours);
    }
    ~UseTiles() {
        if (before[0])
            _tile_loadconfig(before);
        else
            _tile_release();
    }
};

#else

struct UseTiles {
    UseTiles() {}  // not trivial, so that no compiler calls it unused
};

#endif

}  // namespace
