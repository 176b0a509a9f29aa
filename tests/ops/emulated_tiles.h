// Tile registers (AMX) in vectors, so that the kernel's code for them runs on processors that have AVX512-BF16 only. For tests.

#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbf16ps
#undef _tile_loadconfig
#undef _tile_storeconfig
#undef _tile_release

struct EmulatedTiles {
    alignas(64) uint8_t data[8][16][64];
    bool configured = false;

    // Registers that were never set up hold nothing to rely on.
    void configure() { std::memset(data, 0xff, sizeof data), configured = true; }
    uint8_t (&operator[](int tile))[16][64] {
        if (!configured) __builtin_trap();
        return data[tile];
    }
};
inline thread_local EmulatedTiles emulated_tiles;

inline void emulated_zero(int tile) { std::memset(emulated_tiles[tile], 0, 1024); }
inline void emulated_load(int tile, const void* from, int64_t stride) {
    for (int row = 0; row < 16; row++) std::memcpy(emulated_tiles[tile][row], static_cast<const char*>(from) + row * stride, 64);
}
inline void emulated_store(int tile, void* to, int64_t stride) {
    for (int row = 0; row < 16; row++) std::memcpy(static_cast<char*>(to) + row * stride, emulated_tiles[tile][row], 64);
}
// sums[m][n] += sum over pairs k of first[m][k] second[k][n].
inline void emulated_multiply(int sums, int first, int second) {
    for (int m = 0; m < 16; m++) {
        __m512 sum = _mm512_load_ps(emulated_tiles[sums][m]);
        for (int k = 0; k < 16; k++) {
            int32_t pair;
            std::memcpy(&pair, emulated_tiles[first][m] + 4 * k, sizeof pair);
            sum = _mm512_dpbf16_ps(sum, (__m512bh)_mm512_set1_epi32(pair), (__m512bh)_mm512_load_si512(emulated_tiles[second][k]));
        }
        _mm512_store_ps(emulated_tiles[sums][m], sum);
    }
}

#define _tile_zero(tile) emulated_zero(tile)
#define _tile_loadd(tile, from, stride) emulated_load(tile, from, stride)
#define _tile_stored(tile, to, stride) emulated_store(tile, to, stride)
#define _tile_dpbf16ps(sums, first, second) emulated_multiply(sums, first, second)
#define _tile_loadconfig(from) emulated_tiles.configure()
#define _tile_storeconfig(to) std::memset(to, 0, 64)
#define _tile_release() (emulated_tiles.configured = false)
