// One step of windowed non-local attention in bfloat16, behind the interface of window.h. Compiled to one library with tile
// registers (AMX) and one without (vdpbf16ps); the two differ in their matrix products only.
//
// As in window.cpp a tile is 4x4 queries and its logits lie as [key][16 queries]. The first product is keys times queries, with
// keys read where they are. Two tiles side by side are a group, with common columns of keys in the second product, which is
// values times weights: [channel][key] times [key][16 queries]. For that, values are turned into planes [row][channel][column]
// once a call. Products are summed in float32, where the softmax is computed too; its weights are cut to bfloat16, and summed
// as cut, so that they add up to one.
//
// Logits are kept from step to step in float16, less the largest of each query (which a softmax does not see): those that matter
// are near zero and thus exact to 2^-12 and better.

#include "window.h"

#include <immintrin.h>

#include <limits>
#include <new>

namespace {

typedef uint16_t Half;   // the bits of a bfloat16, or of a float16
typedef uint32_t Pair;   // of bfloat16: channels or keys side by side

constexpr int TOGETHER = 2;       // tiles of a group
constexpr int CHANNELS = 32;      // channels come in multiples of this
constexpr int BLOCK = 32;         // keys of a block of the second product
constexpr int ROWS = 8;           // of keys, whose weights are multiplied with values at once
constexpr int KEYS = 16;          // of a tile register in the first product
constexpr float NEVER = -std::numeric_limits<float>::infinity();

// Memory in whole cache lines, not initialised.
template <class T>
struct Lines {
    typedef T value_type;
    Lines() = default;
    template <class U>
    Lines(const Lines<U>&) {}
    T* allocate(size_t n) { return static_cast<T*>(::operator new(n * sizeof(T), std::align_val_t(64))); }
    void deallocate(T* p, size_t) { ::operator delete(p, std::align_val_t(64)); }
    template <class U>
    void construct(U* p) {
        ::new (static_cast<void*>(p)) U;
    }
    template <class U, class V>
    void construct(U* p, const V& value) {
        ::new (static_cast<void*>(p)) U(value);
    }
    bool operator==(const Lines&) const { return true; }
    bool operator!=(const Lines&) const { return false; }
};
template <class T>
using Numbers = std::vector<T, Lines<T>>;

inline const Half* halves(const Image& image) { return static_cast<const Half*>(image.data); }
inline __m512i load_pairs(const void* p) { return _mm512_loadu_si512(p); }
inline __m512bh spread(const Half* pair) {
    int32_t both;
    std::memcpy(&both, pair, sizeof both);
    return (__m512bh)_mm512_set1_epi32(both);
}

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

// The values as planes: [image][row][channel][column], with zeros to the right of the image.
struct Planes {
    int64_t column_count;  // of a channel, an odd number of cache lines: channels then spread over the sets of the caches
    int64_t row;           // numbers
    Numbers<Half> data;

    explicit Planes(const Problem& problem) {
        column_count = ((problem.width + BLOCK + 31) / 32 | 1) * 32;
        row = column_count * problem.value_channels;
        data.resize(size_t(problem.batch) * problem.height * row);
    }

    Half* at(const Problem& problem, int image, int y) { return data.data() + (size_t(image) * problem.height + y) * row; }

    void fill_row(const Problem& problem, int image, int y) {
        const Half* from = halves(problem.value[image]) + y * problem.value[image].row;
        const int64_t column = problem.value[image].column;
        for (int c = 0; c < problem.value_channels; c += 32) {
            Half* to = at(problem, image, y) + c * column_count;
            for (int x = 0; x < column_count; x += 16) {
                __m512i pairs[16];
                for (int i = 0; i < 16; i++) pairs[i] = x + i < problem.width ? load_pairs(from + (x + i) * column + c) : __m512i{};
                transpose(pairs);
                for (int i = 0; i < 16; i++) {
                    Half* even = to + 2 * i * column_count + x;
                    _mm256_storeu_si256(reinterpret_cast<__m256i*>(even), _mm512_cvtepi32_epi16(pairs[i]));
                    _mm256_storeu_si256(reinterpret_cast<__m256i*>(even + column_count), _mm512_cvtepi32_epi16(_mm512_srli_epi32(pairs[i], 16)));
                }
            }
        }
    }
};

// A tile's queries, and what it has summed up so far.
struct Tile : Place {
    Half* state;    // [key][16 queries], or null
    float* logits;  // [key][16 queries]
    Pair* weights;  // [ROWS][pair of keys of the group][16 queries]
    int offset;     // of its first column of keys from the group's
    __m512 maximum, sum;
    Numbers<Pair> queries;   // [step][pair of channels][16 queries]
    Numbers<float> columns;  // [column][16 queries]: 0 within the window of a query, -inf elsewhere
    Numbers<float> output;   // [value channel][16 queries]

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
            for (int c = 0; c < problem.channels; c += 32, to += 16 * QUERIES) {
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

struct alignas(64) TileRegisters {
    uint8_t bytes[64] = {};
    bool any() const { return bytes[0]; }
};

// All tile registers hold 16 rows of 64 bytes; on the way out, what the thread's owner had set returns.
class UseTiles {
    TileRegisters before;

   public:
    UseTiles() {
        _tile_storeconfig(before.bytes);
        TileRegisters ours;
        ours.bytes[0] = 1;
        for (int i = 0; i < 8; i++) ours.bytes[16 + 2 * i] = 64, ours.bytes[48 + i] = 16;
        _tile_loadconfig(ours.bytes);
    }
    ~UseTiles() {
        if (before.any())
            _tile_loadconfig(before.bytes);
        else
            _tile_release();
    }
};

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

// output[c][q] += sum_k value[c][k] weights[k][q] for some rows of keys of both tiles.
void add_values(const Problem& problem, const Planes& planes, const Half* value, int rows, int blocks, Tile* tiles) {
    const int64_t bytes = planes.column_count * sizeof(Half);
    for (int c = 0; c < problem.value_channels; c += CHANNELS) {
        float *first = tiles[0].output.data() + c * QUERIES, *second = tiles[1].output.data() + c * QUERIES;
        _tile_loadd(0, first, 64);
        _tile_loadd(1, first + 16 * QUERIES, 64);
        _tile_loadd(2, second, 64);
        _tile_loadd(3, second + 16 * QUERIES, 64);
        for (int row = 0; row < rows; row++)
            for (int block = 0; block < blocks; block++) {
                const Half* from = value + row * planes.row + c * planes.column_count + block * BLOCK;
                const size_t at = size_t(row * blocks + block) * (BLOCK / 2) * QUERIES;
                _tile_loadd(4, from, bytes);
                _tile_loadd(6, tiles[0].weights + at, 64);
                _tile_dpbf16ps(0, 4, 6);
                _tile_loadd(5, from + 16 * planes.column_count, bytes);
                _tile_dpbf16ps(1, 5, 6);
                _tile_loadd(7, tiles[1].weights + at, 64);
                _tile_dpbf16ps(2, 4, 7);
                _tile_dpbf16ps(3, 5, 7);
            }
        _tile_stored(0, first, 64);
        _tile_stored(1, first + 16 * QUERIES, 64);
        _tile_stored(2, second, 64);
        _tile_stored(3, second + 16 * QUERIES, 64);
    }
}

#else

struct UseTiles {
    UseTiles() {}  // not trivial, so that no compiler calls it unused
};

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

// output[c][q] += sum_k value[c][k] weights[k][q] for some rows of keys of both tiles.
void add_values(const Problem& problem, const Planes& planes, const Half* value, int rows, int blocks, Tile* tiles) {
    constexpr int N = 16;
    for (int c = 0; c < problem.value_channels; c += N)
        for (int i = 0; i < TOGETHER; i++) {
            float* output = tiles[i].output.data() + c * QUERIES;
            const int first = tiles[i].offset / 2, end = (tiles[i].offset + tiles[i].span() + 1) / 2;
            __m512 sum[N];
            for (int k = 0; k < N; k++) sum[k] = _mm512_load_ps(output + k * QUERIES);
            for (int row = 0; row < rows; row++) {
                const Half* from = value + row * planes.row + c * planes.column_count;
                const Pair* weights = tiles[i].weights + size_t(row) * blocks * (BLOCK / 2) * QUERIES;
                for (int pair = first; pair < end; pair++) {
                    const __m512bh weight = (__m512bh)load_pairs(weights + pair * QUERIES);
#pragma GCC unroll 16
                    for (int k = 0; k < N; k++) sum[k] = _mm512_dpbf16_ps(sum[k], weight, spread(from + k * planes.column_count + 2 * pair));
                }
            }
            for (int k = 0; k < N; k++) _mm512_store_ps(output + k * QUERIES, sum[k]);
        }
}

#endif

// A row of products becomes logits: added to those of the step before, or to the biases of the columns and of the row.
template <bool FRESH>
__m512 row_of_logits(int span, const float* products, const float* columns, __m512 row, const Half* state, float* logits, __m512 maximum) {
    for (int at = 0; at < span * QUERIES; at += QUERIES) {
        const __m512 start = FRESH ? _mm512_add_ps(_mm512_load_ps(columns + at), row)
                                   : _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(state + at)));
        const __m512 total = _mm512_add_ps(start, _mm512_load_ps(products + at));
        maximum = _mm512_max_ps(maximum, total);
        _mm512_store_ps(logits + at, total);
    }
    return maximum;
}

// exp(x) for x <= 0 as the bits of a float32, within 1e-4 of it; 0 below -88 (and for -inf).
inline __m512i exp_negative(__m512 x) {
    const __m512 round = _mm512_set1_ps(12582912.0f);  // added, the integer lands in the low bits
    const __m512 power = _mm512_max_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), _mm512_set1_ps(-127.0f));
    const __m512 shifted = _mm512_add_ps(power, round);
    const __m512 r = _mm512_sub_ps(power, _mm512_sub_ps(shifted, round));
    __m512 p = _mm512_fmadd_ps(r, _mm512_set1_ps(0.0550089292f), _mm512_set1_ps(0.2422109693f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.6932829022f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    return _mm512_add_epi32(_mm512_castps_si512(p), _mm512_slli_epi32(_mm512_castps_si512(shifted), 23));
}

// A row of logits becomes weights, pairs of keys as the group's columns pair them, and the state of the next step.
template <bool KEEP>
void row_of_weights(Tile& tile, const float* logits, Half* state, Pair* weights) {
    const __m512bh ones = (__m512bh)_mm512_set1_epi32(0x3f803f80);
    __m512 sum = tile.sum;
    const auto weigh = [&](int k) {
        const __m512 x = _mm512_sub_ps(_mm512_load_ps(logits + k * QUERIES), tile.maximum);
        if (KEEP) _mm256_storeu_si256(reinterpret_cast<__m256i*>(state + k * QUERIES), _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
        return exp_negative(x);
    };
    const auto put = [&](int k, __m512i low, __m512i high) {
        const __m512i pair = _mm512_mask_blend_epi16(0xaaaaaaaa, _mm512_srli_epi32(low, 16), high);
        sum = _mm512_dpbf16_ps(sum, (__m512bh)pair, ones);
        _mm512_store_si512(weights + (k + tile.offset) / 2 * QUERIES, pair);
    };
    int k = 0;
    if (tile.offset % 2) put(k, __m512i{}, weigh(k)), k++;
    for (; k + 1 < tile.span(); k += 2) put(k, weigh(k), weigh(k + 1));
    if (k < tile.span()) put(k, weigh(k), __m512i{});
    tile.sum = sum;
}

void write_output(const Problem& problem, const Tile& tile, int image) {
    const __m512 inverse = _mm512_div_ps(_mm512_set1_ps(1.0f), tile.sum);
    for (int c = 0; c < problem.value_channels; c += 16) {
        __m512i numbers[16];
        for (int i = 0; i < 16; i++) numbers[i] = _mm512_castps_si512(_mm512_mul_ps(_mm512_load_ps(tile.output.data() + (c + i) * QUERIES), inverse));
        transpose(numbers);
        for (int q = 0; q < QUERIES; q++) {
            const int row = tile.y + q / TILE, column = tile.x + q % TILE;
            if (row >= problem.rows || column >= problem.width) continue;
            Half* to = static_cast<Half*>(problem.output) + ((size_t(image) * problem.rows + row) * problem.width + column) * problem.value_channels + c;
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), (__m256i)_mm512_cvtneps_pbh(_mm512_castsi512_ps(numbers[q])));
        }
    }
}

// What a thread allocates, once for all its tasks.
struct Workspace {
    std::vector<Tile> tiles = std::vector<Tile>(TOGETHER);
    Numbers<float> logits, products;
    Numbers<Pair> weights;

    explicit Workspace(const Problem& problem) {
        const int span = std::min(problem.width, 2 * problem.radius + TILE);
        const int blocks = (std::min(problem.width, span + TILE) + BLOCK - 1) / BLOCK;
        logits.resize(TOGETHER * problem.state_tile);
        products.resize(size_t(span + 2 * KEYS) * QUERIES);
        weights.resize(size_t(TOGETHER) * ROWS * blocks * (BLOCK / 2) * QUERIES);
    }
};

// Two tiles side by side; only the first where the image ends.
void run_group(const Problem& problem, Planes& planes, int image, int y, int x, Workspace& work) {
    const int across = (problem.width + TILE - 1) / TILE, down = (problem.rows + TILE - 1) / TILE;
    Tile* tiles = work.tiles.data();
    const int count = std::min(TOGETHER, across - x / TILE);
    for (int i = 0; i < TOGETHER; i++) {
        tiles[i].start(problem, image, y, x + std::min(i, count - 1) * TILE);
        tiles[i].offset = tiles[i].left - tiles[0].left;
    }
    const int blocks = (tiles[1].right - tiles[0].left + BLOCK - 1) / BLOCK;
    const size_t row_of_pairs = size_t(blocks) * (BLOCK / 2) * QUERIES;
    std::fill(work.weights.begin(), work.weights.end(), 0);  // keys of the group that a tile does not see stay at zero
    for (int i = 0; i < TOGETHER; i++) {
        Tile& tile = tiles[i];
        tile.logits = work.logits.data() + i * problem.state_tile;
        tile.weights = work.weights.data() + i * ROWS * row_of_pairs;
        const size_t index = (size_t(image) * down + y / TILE) * across + tile.x / TILE;
        tile.state = problem.state ? static_cast<Half*>(problem.state) + index * problem.state_tile : nullptr;
    }
    const int top = tiles[0].top, bottom = tiles[0].bottom;
    float* products = work.products.data() + KEYS * QUERIES;
    for (int row = top; row < bottom; row++)
        for (int i = 0; i < count; i++) {
            Tile& tile = tiles[i];
            const size_t at = size_t(row - top) * tile.span() * QUERIES;
            row_of_products(problem, image, tile, row, products);
            alignas(64) float bias[QUERIES];
            for (int q = 0; q < QUERIES; q++) bias[q] = near(row, tile.query[q][0], problem.radius) ? 0.0f : NEVER;
            const auto run = problem.fresh ? row_of_logits<true> : row_of_logits<false>;
            tile.maximum = run(tile.span(), products, tile.columns.data(), _mm512_load_ps(bias), tile.state + at, tile.logits + at, tile.maximum);
        }
    for (int row = top; row < bottom; row += ROWS) {
        const int rows = std::min(ROWS, bottom - row);
        for (int i = 0; i < count; i++)
            for (int r = 0; r < rows; r++) {
                const size_t at = size_t(row + r - top) * tiles[i].span() * QUERIES;
                const auto run = tiles[i].state ? row_of_weights<true> : row_of_weights<false>;
                run(tiles[i], tiles[i].logits + at, tiles[i].state + at, tiles[i].weights + r * row_of_pairs);
            }
        add_values(problem, planes, planes.at(problem, image, row) + tiles[0].left, rows, blocks, tiles);
    }
    for (int i = 0; i < count; i++) write_output(problem, tiles[i], image);
}

}  // namespace

EXPORT int nlrn_window_step(const Problem* problem, int threads) try {
    // Groups are the same wherever tasks are cut, and so is the order of sums.
    const std::vector<Task> tasks = cut(*problem, threads, TOGETHER * TILE);
    Planes planes(*problem);
    const int rows = problem->batch * problem->height;
    std::atomic<size_t> next(0);
    std::atomic<int> next_row(0), rows_done(0);
    return in_threads(std::min<int64_t>(threads, int64_t(tasks.size())), [&] {
        for (int i; (i = next_row++) < rows; rows_done++) planes.fill_row(*problem, i / problem->height, i % problem->height);
        while (rows_done < rows) std::this_thread::yield();
        Workspace workspace(*problem);
        const UseTiles tiles;
        for (size_t i; (i = next++) < tasks.size();)
            for (int x = tasks[i].x0; x < tasks[i].x1; x += TOGETHER * TILE) run_group(*problem, planes, tasks[i].image, tasks[i].y, x, workspace);
    });
} catch (const std::exception&) {
    return 1;
}
