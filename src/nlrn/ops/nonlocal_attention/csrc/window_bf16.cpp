// One step of windowed non-local attention in bfloat16, behind the interface of window.h. Compiled to one library with tile
// registers (AMX) and one without (vdpbf16ps); the two differ in their matrix products only.
//
// As in window.cpp a tile is 4x4 queries and its logits lie as [key][16 queries]. The first product is keys times queries, with
// keys read where they are. Two tiles side by side are a group, with common columns of keys in the second product, which is
// weights times values: [16 queries][key] times [key][channel]. For that, values of neighbouring columns are interleaved once a
// call. A few rows of keys go through both products before the next ones, so that what lies between stays in the cache closest to
// the processor: weights are relative to the largest logit so far, and sums are scaled when that grows.
//
// Products are summed in float32, where the softmax is computed too; its weights are rounded to bfloat16, and summed as rounded,
// so that they add up to one. Logits are kept from step to step in float16, less what their weights were relative to: those that matter
// are near zero and thus exact to 2^-12 and better.

#include <cmath>
#include <limits>

#include "bfloat16.h"

namespace {

constexpr int TOGETHER = 2;  // tiles of a group
constexpr int BLOCK = 32;    // keys of a block of the second product
constexpr int BLOCK_PAIRS = BLOCK / 2 * QUERIES;
constexpr int ROWS = SHARING;  // of keys that go through both products before the next; no fewer than TILE, so that every query sees a key
constexpr int KEYS = 16;  // of a tile register in the first product
constexpr float NEVER = -std::numeric_limits<float>::infinity();

// The values [image][row][pair of columns][channel], with zeros to the right of the image.
struct Values {
    int64_t row;  // pairs
    Numbers<Pair> data;

    explicit Values(const Problem& problem) {
        row = int64_t(problem.width + BLOCK + 2) / 2 * problem.value_channels;
        data.resize(size_t(problem.batch) * problem.height * row);
    }

    Pair* at(const Problem& problem, int image, int y, int x) {
        return data.data() + (size_t(image) * problem.height + y) * row + x / 2 * problem.value_channels;
    }

    void fill_row(const Problem& problem, int image, int y) {
        const Half* from = halves(problem.value[image]) + y * problem.value[image].row;
        const int64_t column = problem.value[image].column;
        Pair* to = at(problem, image, y, 0);
        const auto number = [&](int x, int c) {
            if (x >= problem.width) return __m512i{};
            return _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + x * column + c)));
        };
        for (int x = 0; to < at(problem, image, y, 0) + row; x += 2)
            for (int c = 0; c < problem.value_channels; c += 16, to += 16)
                _mm512_storeu_si512(to, _mm512_or_si512(number(x, c), _mm512_slli_epi32(number(x + 1, c), 16)));
    }
};

// A tile's queries, and what it has summed up so far.
struct Tile : Place {
    Logits<const Half> earlier;
    Logits<Half> state;
    Pair* weights;     // [ROWS][block of keys of the group], each as the second product wants it
    float* products;   // [ROWS rows of keys][key][16 queries], then logits
    Pair* row;         // of weights: [pair of keys of the group][16 queries]
    int offset;        // of its first column of keys from the group's
    __m512 maximum, sum;
    Numbers<Pair> queries;   // [step][pair of channels][16 queries]
    Numbers<float> columns;  // [column][16 queries]: 0 within the window of a query, -inf elsewhere
    Numbers<float> output;   // [16 queries][value channel]

    void start(const Problem& problem, int image, int y_, int x_) {
        put(problem, y_, x_);
        columns.resize(size_t(span()) * QUERIES);
        for (int column = left; column < right; column++)
            for (int q = 0; q < QUERIES; q++)
                columns[size_t(column - left) * QUERIES + q] = near(column, query[q][1], problem.radius) ? 0.0f : NEVER;
        maximum = _mm512_set1_ps(NEVER), sum = _mm512_setzero_ps();
        output.assign(size_t(problem.value_channels) * QUERIES, 0.0f);
        queries.resize(size_t(problem.steps) * problem.channels / 2 * QUERIES);
        Pair* to = queries.data();
        for (int step = 0; step < problem.steps; step++) {
            const Image& from = problem.query[step * problem.batch + image];
            for (int c = 0; c < problem.channels; c += CHANNELS, to += CHANNELS / 2 * QUERIES) {
                __m512i pairs[16];
                for (int q = 0; q < QUERIES; q++)
                    pairs[q] = load_pairs(halves(from) + (query[q][0] - problem.row_offset) * from.row + query[q][1] * from.column + c);
                transpose(pairs);
                for (int i = 0; i < 16; i++) _mm512_store_si512(to + i * QUERIES, pairs[i]);
            }
        }
    }
};

#ifdef __AMX_BF16__

// products[i][k][q] = sum_c key[i][k][c] query[c][q] for N blocks of 16 keys, over all steps.
template <int N>
inline void multiply_keys(const Problem& problem, int image, const Pair* queries, int y, const int* x, float* const* products) {
    _tile_zero(0);
    if (N > 1) _tile_zero(1);
    if (N > 2) _tile_zero(2);
    for (int step = 0; step < problem.steps; step++) {
        const Image& key = problem.key[step * problem.batch + image];
        const Half* row = halves(key) + y * key.row;
        const int64_t bytes = key.column * sizeof(Half);
        for (int c = 0; c < problem.channels; c += CHANNELS, queries += 16 * QUERIES) {
            _tile_loadd(3, queries, 64);
            _tile_loadd(4, row + x[0] * key.column + c, bytes);
            _tile_dpbf16ps(0, 4, 3);
            if (N > 1) {
                _tile_loadd(5, row + x[1] * key.column + c, bytes);
                _tile_dpbf16ps(1, 5, 3);
            }
            if (N > 2) {
                _tile_loadd(6, row + x[2] * key.column + c, bytes);
                _tile_dpbf16ps(2, 6, 3);
            }
        }
    }
    _tile_stored(0, products[0], 64);
    if (N > 1) _tile_stored(1, products[1], 64);
    if (N > 2) _tile_stored(2, products[2], 64);
}

// products[k][q] for a row of keys. A block of keys that would end beyond the row starts earlier, and writes the same numbers again.
void row_of_products(const Problem& problem, int image, const Tile& tile, int y, float* products) {
    const int last = std::max(problem.width, KEYS) - KEYS, blocks = (tile.span() + KEYS - 1) / KEYS;
    for (int block = 0; block < blocks; block += 3) {
        int x[3];
        float* to[3];
        for (int i = 0; i < 3; i++) {
            x[i] = std::min(tile.left + (block + i) * KEYS, last);
            to[i] = products + (x[i] - tile.left) * QUERIES;
        }
        const int count = blocks - block;
        const auto run = count > 2 ? multiply_keys<3> : count > 1 ? multiply_keys<2> : multiply_keys<1>;
        run(problem, image, tile.queries.data(), y, x, to);
    }
}

// A row of weights as blocks [16 queries][pair of keys].
void pack_weights(const Pair* row, int blocks, Pair* weights) {
    for (int block = 0; block < blocks; block++, row += BLOCK_PAIRS, weights += BLOCK_PAIRS) {
        __m512i pairs[16];
        for (int i = 0; i < 16; i++) pairs[i] = load_pairs(row + i * QUERIES);
        transpose(pairs);
        for (int i = 0; i < 16; i++) _mm512_store_si512(weights + i * QUERIES, pairs[i]);
    }
}

// output[q][c] += sum_k weights[q][k] value[k][c] for some rows of keys of both tiles.
void add_values(const Problem& problem, const Values& values, const Pair* value, int rows, int blocks, Tile* tiles) {
    const int channels = problem.value_channels, bytes = channels * sizeof(Pair);
    for (int c = 0; c < channels; c += CHANNELS) {
        float *first = tiles[0].output.data() + c, *second = tiles[1].output.data() + c;
        _tile_loadd(0, first, bytes);
        _tile_loadd(1, first + 16, bytes);
        _tile_loadd(2, second, bytes);
        _tile_loadd(3, second + 16, bytes);
        for (int row = 0; row < rows; row++)
            for (int block = 0; block < blocks; block++) {
                const Pair* from = value + row * values.row + block * (BLOCK / 2) * channels + c;
                const size_t at = size_t(row * blocks + block) * BLOCK_PAIRS;
                _tile_loadd(6, from, bytes);
                _tile_loadd(4, tiles[0].weights + at, 64);
                _tile_dpbf16ps(0, 4, 6);
                _tile_loadd(7, from + 16, bytes);
                _tile_dpbf16ps(1, 4, 7);
                _tile_loadd(5, tiles[1].weights + at, 64);
                _tile_dpbf16ps(2, 5, 6);
                _tile_dpbf16ps(3, 5, 7);
            }
        _tile_stored(0, first, bytes);
        _tile_stored(1, first + 16, bytes);
        _tile_stored(2, second, bytes);
        _tile_stored(3, second + 16, bytes);
    }
}

#else

// products[k][q] = sum_c key[k][c] query[c][q] for N keys side by side, over all steps.
template <int N>
inline void multiply_keys(const Problem& problem, int image, const Pair* queries, int y, int x, float* products) {
    __m512 sum[N] = {};
    for (int step = 0; step < problem.steps; step++) {
        const Image& image_of_keys = problem.key[step * problem.batch + image];
        const Half* key = halves(image_of_keys) + y * image_of_keys.row + x * image_of_keys.column;
        for (int c = 0; c < problem.channels; c += 2, queries += QUERIES) {
            const __m512bh query = (__m512bh)load_pairs(queries);
#pragma GCC unroll 24
            for (int k = 0; k < N; k++) sum[k] = _mm512_dpbf16_ps(sum[k], query, spread(key + k * image_of_keys.column + c));
        }
    }
#pragma GCC unroll 24
    for (int k = 0; k < N; k++) _mm512_store_ps(products + k * QUERIES, sum[k]);
}

void row_of_products(const Problem& problem, int image, const Tile& tile, int y, float* products) {
    int k = 0;
#define SOME(N) \
    for (; k + N <= tile.span(); k += N) multiply_keys<N>(problem, image, tile.queries.data(), y, tile.left + k, products + k * QUERIES)
    SOME(24);
    SOME(8);
    SOME(3);
    SOME(1);
#undef SOME
}

void pack_weights(const Pair* row, int blocks, Pair* weights) { std::copy(row, row + blocks * BLOCK_PAIRS, weights); }

// output[q][c] += sum_k weights[k][q] value[k][c] for some rows of keys of both tiles.
void add_values(const Problem& problem, const Values& values, const Pair* value, int rows, int blocks, Tile* tiles) {
    constexpr int GROUP = 8;
    const int channels = problem.value_channels;
    for (int i = 0; i < TOGETHER; i++) {
        const int first = tiles[i].offset / 2, end = (tiles[i].offset + tiles[i].span() + 1) / 2;
        for (int c = 0; c < channels; c += CHANNELS)
            for (int q = 0; q < QUERIES; q += GROUP) {
                float* output = tiles[i].output.data() + q * channels + c;
                __m512 sum[GROUP][2];
                for (int k = 0; k < GROUP; k++)
                    for (int v = 0; v < 2; v++) sum[k][v] = _mm512_load_ps(output + k * channels + v * 16);
                for (int row = 0; row < rows; row++)
                    for (int pair = first; pair < end; pair++) {
                        const Pair* from = value + row * values.row + pair * channels + c;
                        const Pair* weights = tiles[i].weights + size_t(row) * blocks * BLOCK_PAIRS + pair * QUERIES + q;
                        const __m512bh x[2] = {(__m512bh)load_pairs(from), (__m512bh)load_pairs(from + 16)};
#pragma GCC unroll 8
                        for (int k = 0; k < GROUP; k++) {
                            const __m512bh weight = (__m512bh)_mm512_set1_epi32(weights[k]);
                            for (int v = 0; v < 2; v++) sum[k][v] = _mm512_dpbf16_ps(sum[k][v], weight, x[v]);
                        }
                    }
                for (int k = 0; k < GROUP; k++)
                    for (int v = 0; v < 2; v++) _mm512_store_ps(output + k * channels + v * 16, sum[k][v]);
            }
    }
}

#endif

// A row of products becomes logits: added to those of the step before, or to the bias of their column; and to that of the row.
template <bool FRESH>
__m512 row_of_logits(int span, float* products, const float* columns, const Half* state, __m512 row, __m512 maximum) {
    for (int at = 0; at < span * QUERIES; at += QUERIES) {
        const __m512 start = FRESH ? _mm512_load_ps(columns + at) : _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(state + at)));
        const __m512 total = _mm512_add_ps(_mm512_add_ps(start, row), _mm512_load_ps(products + at));
        maximum = _mm512_max_ps(maximum, total);
        _mm512_store_ps(products + at, total);
    }
    return maximum;
}

// Weights are now relative to a larger maximum.
void raise(const Problem& problem, Tile& tile, __m512 maximum) {
    const __mmask16 grown = _mm512_cmp_ps_mask(maximum, tile.maximum, _CMP_GT_OQ);
    if (!grown) return;
    alignas(64) float factor[QUERIES];
    const __m512 factors = _mm512_castsi512_ps(exp_negative<false>(_mm512_sub_ps(tile.maximum, maximum)));
    _mm512_store_ps(factor, factors);
    tile.sum = _mm512_mul_ps(tile.sum, factors);
    tile.maximum = maximum;
    for (int q = 0; q < QUERIES; q++)
        if (grown >> q & 1)
            for (int c = 0; c < problem.value_channels; c += 16) {
                float* output = tile.output.data() + q * problem.value_channels + c;
                _mm512_store_ps(output, _mm512_mul_ps(_mm512_load_ps(output), _mm512_set1_ps(factor[q])));
            }
}

// A row of logits becomes weights, pairs of keys as the group's columns pair them, and the state of the next step. Meanwhile the
// old state comes in that is `ahead`: asked for all at once, memory would not keep up.
template <bool KEEP>
void row_of_weights(Tile& tile, const float* logits, Half* state, const Half* ahead) {
    const __m512bh ones = (__m512bh)_mm512_set1_epi32(0x3f803f80);
    __m512 sum = tile.sum;
    const auto weigh = [&](int k) {
        const __m512 x = _mm512_sub_ps(_mm512_load_ps(logits + k * QUERIES), tile.maximum);
        if (KEEP) {
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(state + k * QUERIES), _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
            if (k % 2 == 0) _mm_prefetch(ahead + k * QUERIES, _MM_HINT_T1);
        }
        return exp_negative<true>(x);
    };
    const auto put = [&](int k, __m512i low, __m512i high) {
        const __m512i pair = _mm512_mask_blend_epi16(0xaaaaaaaa, _mm512_srli_epi32(low, 16), high);
        sum = _mm512_dpbf16_ps(sum, (__m512bh)pair, ones);
        _mm512_store_si512(tile.row + (k + tile.offset) / 2 * QUERIES, pair);
    };
    int k = 0;
    if (tile.offset % 2) put(k, __m512i{}, weigh(k)), k++;
    for (; k + 1 < tile.span(); k += 2) put(k, weigh(k), weigh(k + 1));
    if (k < tile.span()) put(k, weigh(k), __m512i{});
    tile.sum = sum;
}

void write_output(const Problem& problem, const Tile& tile, int image) {
    const int channels = problem.value_channels;
    alignas(64) float inverse[QUERIES], sum[QUERIES], maximum[QUERIES];
    _mm512_store_ps(inverse, _mm512_div_ps(_mm512_set1_ps(1.0f), tile.sum));
    _mm512_store_ps(sum, tile.sum);
    _mm512_store_ps(maximum, tile.maximum);
    for (int q = 0; q < QUERIES; q++) {
        const int row = tile.y + q / TILE, column = tile.x + q % TILE;
        if (row >= problem.rows || column >= problem.width) continue;
        const size_t pixel = (size_t(image) * problem.rows + row) * problem.width + column;
        if (problem.normaliser) problem.normaliser[pixel] = maximum[q] + std::log(sum[q]);
        for (int c = 0; c < channels; c += 16) {
            const __m512 average = _mm512_mul_ps(_mm512_load_ps(tile.output.data() + q * channels + c), _mm512_set1_ps(inverse[q]));
            if (problem.exact)
                _mm512_storeu_ps(static_cast<float*>(problem.output) + pixel * channels + c, average);
            else
                _mm256_storeu_si256(reinterpret_cast<__m256i*>(static_cast<Half*>(problem.output) + pixel * channels + c), (__m256i)_mm512_cvtneps_pbh(average));
        }
    }
}

// What a thread allocates, once for all its tasks.
struct Workspace {
    std::vector<Tile> tiles = std::vector<Tile>(TOGETHER);
    Numbers<float> products;
    Numbers<Pair> weights;
    int64_t products_row;

    explicit Workspace(const Problem& problem) {
        const int span = std::min(problem.width, 2 * problem.radius + TILE);
        const int blocks = (std::min(problem.width, span + TILE) + BLOCK) / BLOCK;
        products_row = int64_t(span + 2 * KEYS) * QUERIES;
        products.resize(TOGETHER * ROWS * products_row);
        weights.resize(size_t(TOGETHER) * (ROWS + 1) * blocks * BLOCK_PAIRS);
    }
};

// Products of some rows become logits, weights and state.
void weigh(const Problem& problem, Tile& tile, int y, int rows, int blocks, int64_t products_row) {
    const int64_t width = int64_t(tile.span()) * QUERIES;
    const int first = y - tile.top;
    // What comes next: rows of this tile, or the first ones of the tile at its place in the next group.
    const int64_t next = y + rows < tile.bottom ? (first + rows) * width : TOGETHER * problem.state_tile;
    __m512 maximum = tile.maximum;
    for (int row = 0; row < rows; row++) {
        float* logits = tile.products + row * products_row;
        if (problem.fresh) {
            alignas(64) float bias[QUERIES];
            for (int q = 0; q < QUERIES; q++) bias[q] = near(y + row, tile.query[q][0], problem.radius) ? 0.0f : NEVER;
            maximum = row_of_logits<true>(tile.span(), logits, tile.columns.data(), nullptr, _mm512_load_ps(bias), maximum);
        } else {
            const __m512 reference = _mm512_loadu_ps(tile.earlier.reference(problem, first));
            maximum = row_of_logits<false>(tile.span(), logits, nullptr, tile.earlier.data + (first + row) * width, reference, maximum);
        }
    }
    raise(problem, tile, maximum);
    Half* const state = tile.state.data;
    if (state) _mm512_storeu_ps(tile.state.reference(problem, first), maximum);
    for (int row = 0; row < rows; row++) {
        const float* logits = tile.products + row * products_row;
        if (state)
            row_of_weights<true>(tile, logits, state + (first + row) * width, (tile.earlier.data ? tile.earlier.data : state) + next + row * width);
        else
            row_of_weights<false>(tile, logits, nullptr, nullptr);
        pack_weights(tile.row, blocks, tile.weights + size_t(row) * blocks * BLOCK_PAIRS);
    }
}

// Two tiles side by side; only the first where the image ends.
void run_group(const Problem& problem, Values& values, int image, int y, int x, Workspace& work) {
    const int across = (problem.width + TILE - 1) / TILE;
    Tile* tiles = work.tiles.data();
    const int count = std::min(TOGETHER, across - x / TILE);
    for (int i = 0; i < TOGETHER; i++) tiles[i].start(problem, image, y, x + std::min(i, count - 1) * TILE);
    const int left = tiles[0].left / 2 * 2, blocks = (tiles[1].right - left + BLOCK - 1) / BLOCK;
    const size_t row_of_pairs = size_t(blocks) * BLOCK_PAIRS;
    std::fill(work.weights.begin(), work.weights.end(), 0);  // keys of the group that a tile does not see stay at zero
    for (int i = 0; i < TOGETHER; i++) {
        Tile& tile = tiles[i];
        tile.offset = tile.left - left;
        tile.products = work.products.data() + i * ROWS * work.products_row + KEYS * QUERIES;
        tile.row = work.weights.data() + i * (ROWS + 1) * row_of_pairs;
        tile.weights = tile.row + row_of_pairs;
        const size_t index = tile_index(problem, image, y, tile.x);
        tile.earlier = {problem, static_cast<const Half*>(problem.earlier), index};
        tile.state = {problem, static_cast<Half*>(problem.state), index};
    }
    const int bottom = tiles[0].bottom;
    for (int row = tiles[0].top; row < bottom; row += ROWS) {
        const int rows = std::min(ROWS, bottom - row);
        for (int r = 0; r < rows; r++)
            for (int i = 0; i < count; i++) row_of_products(problem, image, tiles[i], row + r, tiles[i].products + r * work.products_row);
        for (int i = 0; i < count; i++) weigh(problem, tiles[i], row, rows, blocks, work.products_row);
        add_values(problem, values, values.at(problem, image, row, left), rows, blocks, tiles);
    }
    for (int i = 0; i < count; i++) write_output(problem, tiles[i], image);
}

}  // namespace

EXPORT int nlrn_window_step(const Problem* problem, int threads) try {
    // Groups are the same wherever tasks are cut, and so is the order of sums.
    const std::vector<Task> tasks = cut(*problem, threads, TOGETHER * TILE);
    Values values(*problem);
    const int rows = problem->batch * problem->height;
    std::atomic<size_t> next(0);
    std::atomic<int> next_row(0), rows_done(0);
    return in_threads(std::min<int64_t>(threads, int64_t(tasks.size())), [&] {
        for (int i; (i = next_row++) < rows; rows_done++) values.fill_row(*problem, i / problem->height, i % problem->height);
        while (rows_done < rows) std::this_thread::yield();
        Workspace workspace(*problem);
        const UseTiles tiles;
        for (size_t i; (i = next++) < tasks.size();)
            for (int x = tasks[i].x0; x < tasks[i].x1; x += TOGETHER * TILE) run_group(*problem, values, tasks[i].image, tasks[i].y, x, workspace);
    });
} catch (const std::exception&) {
    return 1;
}
