// Matrix products in bfloat16 of blocks of 32 keys and 32 queries, summed in float32: what the gradients consist of. With tile registers
// (AMX) a product is of both halves of a block or of one; vectors (vdpbf16ps) leave out what is not asked for.

#pragma once

#include "bfloat16.h"

namespace {

constexpr int HALVES = 2;        // tiles of a group
constexpr int BLOCK = 32;        // keys of a block, and queries of a group
constexpr int SQUARE = 16 * 16;  // pairs, or sums, of a tile register

// Pixels side by side, `column` numbers apart.
struct Row {
    const Half* data;
    int64_t column;
};

// Some of the keys of a block; all others count for nothing.
struct Range {
    int first, end;
};

#ifdef __AMX_BF16__

inline Range multiplied(Range) { return {0, BLOCK}; }

// Calls run(LOW, HIGH) with the halves of a block, 16 keys each, that some keys are in.
template <class Run>
inline __attribute__((always_inline)) void in_halves(Range keys, const Run& run) {
    if (keys.end <= 16)
        run(std::true_type(), std::false_type());
    else if (keys.first >= 16)
        run(std::false_type(), std::true_type());
    else
        run(std::true_type(), std::true_type());
}

template <bool LOW, bool HIGH, class RowOf>
inline void multiply_halves(const RowOf& row_of, int steps, int channels, const Pair* query, float* products) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int step = 0; step < steps; step++) {
        const Row key = row_of(step);
        const Half* second = key.data + 16 * key.column;
        const int64_t bytes = key.column * sizeof(Half);
        for (int c = 0; c < channels; c += CHANNELS, query += HALVES * SQUARE) {
            _tile_loadd(6, query, 64);
            _tile_loadd(7, query + SQUARE, 64);
            if (LOW) {
                _tile_loadd(4, key.data + c, bytes);
                _tile_dpbf16ps(0, 4, 6);
                _tile_dpbf16ps(1, 4, 7);
            }
            if (HIGH) {
                _tile_loadd(5, second + c, bytes);
                _tile_dpbf16ps(2, 5, 6);
                _tile_dpbf16ps(3, 5, 7);
            }
        }
    }
    if (LOW) {
        _tile_stored(0, products, 128);
        _tile_stored(1, products + 16, 128);
    }
    if (HIGH) {
        _tile_stored(2, products + 16 * BLOCK, 128);
        _tile_stored(3, products + 16 * BLOCK + 16, 128);
    }
}

// products[key][half][16 queries] = sum over all channels of all steps of key times query.
template <class RowOf>
inline void multiply(const RowOf& row_of, int steps, int channels, const Pair* query, Range keys, float* products) {
    in_halves(keys, [&](auto low, auto high) { multiply_halves<low, high>(row_of, steps, channels, query, products); });
}

template <bool LOW, bool HIGH>
inline void add_halves_over_queries(const Half* factor, const Pair* rows, int channels, float* sums) {
    const int bytes = channels * sizeof(float);
    if (LOW) _tile_loadd(4, factor, 64);
    if (HIGH) _tile_loadd(5, factor + 16 * BLOCK, 64);
    for (int c = 0; c < channels; c += CHANNELS, rows += 2 * SQUARE) {
        float *first = sums + c, *second = sums + 16 * channels + c;
        _tile_loadd(6, rows, 64);
        _tile_loadd(7, rows + SQUARE, 64);
        if (LOW) {
            _tile_loadd(0, first, bytes);
            _tile_dpbf16ps(0, 4, 6);
            _tile_loadd(1, first + 16, bytes);
            _tile_dpbf16ps(1, 4, 7);
        }
        if (HIGH) {
            _tile_loadd(2, second, bytes);
            _tile_dpbf16ps(2, 5, 6);
            _tile_loadd(3, second + 16, bytes);
            _tile_dpbf16ps(3, 5, 7);
        }
        if (LOW) {
            _tile_stored(0, first, bytes);
            _tile_stored(1, first + 16, bytes);
        }
        if (HIGH) {
            _tile_stored(2, second, bytes);
            _tile_stored(3, second + 16, bytes);
        }
    }
}

// sums[key][channel] += sum_q factor[key][q] rows[q][channel].
inline void add_over_queries(const Half* factor, const Pair* rows, int channels, Range keys, float* sums) {
    in_halves(keys, [&](auto low, auto high) { add_halves_over_queries<low, high>(factor, rows, channels, sums); });
}

// sums[channel][half][q] += sum_k plane[channel][k] pairs[k][half][q] for some rows of keys, whose planes lie `distance` apart. Sums lie
// as [16 channels][half][channel][16 queries].
inline void add_over_keys(Row plane, int64_t distance, int rows, const Pair* pairs, int channels, Range, float* sums) {
    const int64_t side = 16 * plane.column, bytes = plane.column * sizeof(Half);
    for (int c = 0; c < channels; c += CHANNELS, plane.data += 2 * side, sums += 4 * SQUARE) {
        _tile_loadd(0, sums, 64);
        _tile_loadd(1, sums + SQUARE, 64);
        _tile_loadd(2, sums + 2 * SQUARE, 64);
        _tile_loadd(3, sums + 3 * SQUARE, 64);
        for (int row = 0; row < rows; row++) {
            _tile_loadd(4, pairs + row * HALVES * SQUARE, 64);
            _tile_loadd(6, plane.data + row * distance, bytes);
            _tile_dpbf16ps(0, 6, 4);
            _tile_loadd(5, pairs + row * HALVES * SQUARE + SQUARE, 64);
            _tile_dpbf16ps(1, 6, 5);
            _tile_loadd(7, plane.data + row * distance + side, bytes);
            _tile_dpbf16ps(2, 7, 4);
            _tile_dpbf16ps(3, 7, 5);
        }
        _tile_stored(0, sums, 64);
        _tile_stored(1, sums + SQUARE, 64);
        _tile_stored(2, sums + 2 * SQUARE, 64);
        _tile_stored(3, sums + 3 * SQUARE, 64);
    }
}

#else

// The keys, in pairs, that the products read and write.
inline Range multiplied(Range keys) { return {keys.first / 2 * 2, (keys.end + 1) / 2 * 2}; }

// N rows of two vectors: sum[n][v] += sum over pairs p of first[n][p] second[v][p], which lies as [v][16 pairs][16 numbers].
template <int N>
struct Rows {
    __m512 sum[N][2] = {};

    inline __attribute__((always_inline)) void add(const Half* first, int64_t stride, const Pair* second, int begin, int end) {
        for (int p = begin; p < end; p++) {
            const __m512bh a = (__m512bh)load_pairs(second + p * 16), b = (__m512bh)load_pairs(second + SQUARE + p * 16);
#pragma GCC unroll 16
            for (int n = 0; n < N; n++) {
                const __m512bh pair = spread(first + n * stride + 2 * p);
                sum[n][0] = _mm512_dpbf16_ps(sum[n][0], pair, a);
                sum[n][1] = _mm512_dpbf16_ps(sum[n][1], pair, b);
            }
        }
    }
    // Unrolled, or the sums would lie in memory.
    inline __attribute__((always_inline)) void load(const float* from, int64_t row, int64_t second) {
#pragma GCC unroll 16
        for (int n = 0; n < N; n++) sum[n][0] = _mm512_loadu_ps(from + n * row), sum[n][1] = _mm512_loadu_ps(from + n * row + second);
    }
    inline __attribute__((always_inline)) void store(float* to, int64_t row, int64_t second) const {
#pragma GCC unroll 16
        for (int n = 0; n < N; n++) _mm512_storeu_ps(to + n * row, sum[n][0]), _mm512_storeu_ps(to + n * row + second, sum[n][1]);
    }
};

// Calls run(Rows<N>, n) for N rows from each n on.
template <class Run>
inline __attribute__((always_inline)) void in_rows(int n, int end, const Run& run) {
    for (; n + 12 <= end; n += 12) run(Rows<12>(), n);
    for (; n + 8 <= end; n += 8) run(Rows<8>(), n);
    for (; n + 4 <= end; n += 4) run(Rows<4>(), n);
    for (; n < end; n++) run(Rows<1>(), n);
}

template <class RowOf>
inline void multiply(const RowOf& row_of, int steps, int channels, const Pair* query, Range keys, float* products) {
    in_rows(keys.first, keys.end, [&](auto rows, int k) {
        const Pair* second = query;
        for (int step = 0; step < steps; step++) {
            const Row key = row_of(step);
            for (int c = 0; c < channels; c += CHANNELS, second += HALVES * SQUARE) rows.add(key.data + k * key.column + c, key.column, second, 0, 16);
        }
        rows.store(products + k * BLOCK, BLOCK, 16);
    });
}

inline void add_over_queries(const Half* factor, const Pair* queries, int channels, Range keys, float* sums) {
    for (int c = 0; c < channels; c += CHANNELS, queries += 2 * SQUARE)
        in_rows(keys.first, keys.end, [&](auto rows, int k) {
            rows.load(sums + k * channels + c, channels, 16);
            rows.add(factor + k * BLOCK, BLOCK, queries, 0, 16);
            rows.store(sums + k * channels + c, channels, 16);
        });
}

inline void add_over_keys(Row plane, int64_t distance, int count, const Pair* pairs, int channels, Range keys, float* sums) {
    for (int c = 0; c < channels; c += 16, sums += 2 * SQUARE)
        in_rows(0, 16, [&](auto rows, int i) {
            rows.load(sums + i * 16, 16, SQUARE);
            for (int row = 0; row < count; row++)
                rows.add(plane.data + row * distance + (c + i) * plane.column, plane.column, pairs + row * HALVES * SQUARE, multiplied(keys).first / 2, multiplied(keys).end / 2);
            rows.store(sums + i * 16, 16, SQUARE);
        });
}

#endif

}  // namespace
