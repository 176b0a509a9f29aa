// One step of windowed non-local attention in float32, behind a plain C interface. Compiled to one library for each
// instruction set, with LANES floats in a vector and GROUP queries in a register block of the second product.
//
// Queries are cut into tiles of 4x4, whose windows cover (window + 3)^2 keys, cut off at the image border and numbered row by
// row. Logits lie as [key][16 queries], so that a vector holds queries: the first product multiplies vectors of queries
// with single channels of keys, maximum and sum of the softmax need no work across lanes, and keys and values are read where
// they are, without packing. A few rows of keys go through both products for all tiles of a task before the next ones, so that
// keys, values and logits stay in the second cache: weights are relative to the largest logit so far, and sums are scaled when
// that grows. Tiles side by side take turns row by row, and in the second product block of channels by block of channels,
// which then stay in the first cache.

#include "window.h"

#include <cstring>
#include <limits>

namespace {

typedef float Vec __attribute__((vector_size(4 * LANES)));
typedef float Loose __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t Int __attribute__((vector_size(4 * LANES)));

constexpr int VECTORS = QUERIES / LANES;             // that hold the queries of a tile
constexpr int KEYS = LANES == 16 ? 24 : 12 / VECTORS;  // of a register block of the first product
constexpr int WIDE = 3;                              // vectors of channels in a register block of the second
constexpr int TOGETHER = 4;                          // tiles that take turns
constexpr int TILES = TASK_COLUMNS / TILE;           // of a task, at most
constexpr int ROWS = 8;  // of keys that go through both products before the next; no fewer than TILE, so that every query sees a key
constexpr float NEVER = -std::numeric_limits<float>::infinity();

inline const float* data_of(const Image& image) { return static_cast<const float*>(image.data); }
inline Vec load(const float* p) { return *reinterpret_cast<const Loose*>(p); }
inline void store(float* p, Vec v) { *reinterpret_cast<Loose*>(p) = v; }
inline Vec spread(float x) { return Vec{} + x; }
inline Vec larger(Vec a, Vec b) { return a > b ? a : b; }

// exp(x) for x <= 0, within 2 units in the last place; 0 below -87 (and for -inf).
inline Vec exp_negative(Vec x) {
    const Vec lowest = spread(-87.0f);
    const Int alive = x > lowest;
    const Vec shifted = larger(x, lowest) * 1.44269504088896341f + 12582912.0f;  // the integer lands in the low bits
    const Vec n = shifted - 12582912.0f;
    const Vec r = (larger(x, lowest) - n * 0.693359375f) + n * 2.12194440e-4f;
    Vec p = spread(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = (p * r) * r + r + 1.0f;
    Int bits, power;
    std::memcpy(&bits, &p, sizeof p);
    std::memcpy(&power, &shifted, sizeof shifted);
    bits = (bits + (power << 23)) & alive;
    std::memcpy(&p, &bits, sizeof p);
    return p;
}

// What will be read, and what will be written too, into the second cache.
inline void prefetch(const float* p, int64_t floats) {
    for (int64_t i = 0; i < floats; i += 16) __builtin_prefetch(p + i, 0, 2);
}
inline void prefetch_to_write(float* p, int64_t floats) {
    for (int64_t i = 0; i < floats; i += 16) __builtin_prefetch(p + i, 1, 2);
}

// A tile's queries as vectors, and what it has summed up so far.
struct Tile : Place {
    float* logits;  // [key][16 queries] from row `first` on
    int first;
    Vec maximum[VECTORS], sum[VECTORS];
    Numbers<float> queries;  // [step][channel][16 queries]
    Numbers<float> columns;  // [column][16 queries]: 0 within the window of a query, -inf elsewhere
    Numbers<float> output;   // [16 queries][value channel]

    float* row_of_logits(int row) { return logits + size_t(row - first) * span() * QUERIES; }

    void start(const Problem& problem, int image, int y_, int x_) {
        put(problem, y_, x_);
        columns.resize(size_t(span()) * QUERIES);
        for (int column = left; column < right; column++)
            for (int q = 0; q < QUERIES; q++)
                columns[size_t(column - left) * QUERIES + q] = near(column, query[q][1], problem.radius) ? 0.0f : NEVER;
        for (int v = 0; v < VECTORS; v++) maximum[v] = spread(NEVER), sum[v] = Vec{};
        output.assign(size_t(QUERIES) * problem.value_channels, 0.0f);
        queries.resize(size_t(problem.steps) * problem.channels * QUERIES);
        for (int step = 0; step < problem.steps; step++) {
            const Image& from = problem.query[step * problem.batch + image];
            float* to = queries.data() + size_t(step) * problem.channels * QUERIES;
            for (int q = 0; q < QUERIES; q++) {
                const float* pixel = data_of(from) + (query[q][0] - problem.row_offset) * from.row + query[q][1] * from.column;
                for (int c = 0; c < problem.channels; c++) to[size_t(c) * QUERIES + q] = pixel[c];
            }
        }
    }

    // From now on weights are relative to logits no smaller than the ones before.
    void raise(const Vec* newest, int channels) {
        float factors[QUERIES];
        bool same = true;
        for (int v = 0; v < VECTORS; v++) {
            const Vec factor = exp_negative(maximum[v] - newest[v]);
            maximum[v] = newest[v], sum[v] *= factor;
            store(factors + v * LANES, factor);
        }
        for (float factor : factors) same = same && factor == 1.0f;
        if (same) return;
        float* out = output.data();
        for (int q = 0; q < QUERIES; q++)
            for (int c = 0; c < channels; c += LANES, out += LANES) store(out, load(out) * factors[q]);
    }
};

// logits[k][q] = start[k][q] + sum_c query[c][q] key[k][c] for N keys side by side; `column` is their distance, known to the
// compiler where DISTANCE is not 0. FRESH logits start at the sum of two biases, of the columns and of the row.
template <int N, int DISTANCE, bool FRESH>
inline void add_products(const float* queries, const float* key, int64_t column, int channels, const float* start, const Vec* row,
                         float* logits, Vec* maximum) {
    if (DISTANCE) column = DISTANCE;
    // Summed from zero and then added: logits grow from step to step, and small terms should not be rounded to their size.
    Vec sum[N][VECTORS] = {};
    for (int c = 0; c < channels; c++) {
        Vec query[VECTORS];
        for (int v = 0; v < VECTORS; v++) query[v] = load(queries + c * QUERIES + v * LANES);
#pragma GCC unroll 24
        for (int k = 0; k < N; k++)
            for (int v = 0; v < VECTORS; v++) sum[k][v] += query[v] * key[k * column + c];
    }
    Vec most[VECTORS];
    for (int v = 0; v < VECTORS; v++) most[v] = maximum[v];
#pragma GCC unroll 24
    for (int k = 0; k < N; k++)
        for (int v = 0; v < VECTORS; v++) {
            Vec total = load(start + k * QUERIES + v * LANES);
            if (FRESH) total += row[v];
            total += sum[k][v];
            store(logits + k * QUERIES + v * LANES, total);
            most[v] = larger(most[v], total);
        }
    for (int v = 0; v < VECTORS; v++) maximum[v] = most[v];
}

template <int DISTANCE, bool FRESH>
void row_of_products(const float* queries, const float* key, int64_t column, int channels, int span, const float* start, const Vec* row,
                     float* logits, Vec* maximum) {
    int k = 0;
#define SOME(N)                                                                                                              \
    for (; k + N <= span; k += N)                                                                                            \
    add_products<N, DISTANCE, FRESH>(queries, key + k * column, column, channels, start + k * QUERIES, row, logits + k * QUERIES, maximum)
    SOME(KEYS);
    SOME(KEYS / 2);
    SOME(3);
    SOME(1);
#undef SOME
}

// The usual distances have code of their own, with every address known to the compiler.
template <bool FRESH>
auto products_of_distance(int64_t column) {
    return column == 64 ? row_of_products<64, FRESH> : column == 32 ? row_of_products<32, FRESH> : row_of_products<0, FRESH>;
}

// Adds the products of one step's queries and keys to the logits of some tiles, in rows of keys from `top` to `bottom`.
void add_step(const Problem& problem, Tile* tiles, int count, int image, int step, int top, int bottom) {
    const Image& key = problem.key[step * problem.batch + image];
    const bool fresh = problem.fresh && step == 0;
    const auto run = fresh ? products_of_distance<true>(key.column) : products_of_distance<false>(key.column);
    Vec maximum[TOGETHER][VECTORS];
    for (int i = 0; i < count; i++)
        for (int v = 0; v < VECTORS; v++) maximum[i][v] = tiles[i].maximum[v];
    for (int y = top; y < bottom; y++) {
        const float* keys = data_of(key) + y * key.row;
        if (y + 1 < problem.height) prefetch(keys + key.row + tiles[0].left * key.column, (tiles[count - 1].right - tiles[0].left) * key.column);
        for (int i = 0; i < count; i++) {
            Tile& tile = tiles[i];
            float* logits = tile.row_of_logits(y);
            const int64_t floats = tile.span() * QUERIES;
            if (problem.state && y + 1 < tile.bottom) prefetch_to_write(logits + floats, floats);
            Vec row[VECTORS];
            if (fresh)
                for (int q = 0; q < QUERIES; q++) row[q / LANES][q % LANES] = near(y, tile.query[q][0], problem.radius) ? 0.0f : NEVER;
            run(tile.queries.data() + size_t(step) * problem.channels * QUERIES, keys + tile.left * key.column, key.column, problem.channels,
                tile.span(), fresh ? tile.columns.data() : logits, row, logits, maximum[i]);
        }
    }
    // Before the last step logits are not what the softmax will see.
    if (step + 1 == problem.steps)
        for (int i = 0; i < count; i++) tiles[i].raise(maximum[i], problem.value_channels);
}

// output[q][channel] += sum_k weights[k][q] value[k][channel] for GROUP queries and N vectors of channels.
template <int N>
inline void add_values(const float* weights, const float* value, int64_t column, int keys, float* output, int channels) {
    Vec sum[GROUP][N] = {};  // again from zero: rounding grows with the number of terms in one sum
    for (int k = 0; k < keys; k++, value += column, weights += QUERIES) {
        Vec x[N];
        for (int v = 0; v < N; v++) x[v] = load(value + v * LANES);
#pragma GCC unroll 8
        for (int q = 0; q < GROUP; q++)
            for (int v = 0; v < N; v++) sum[q][v] += x[v] * weights[q];
    }
// Unrolled, or the sums would lie in memory.
#pragma GCC unroll 8
    for (int q = 0; q < GROUP; q++)
        for (int v = 0; v < N; v++) store(output + q * channels + v * LANES, load(output + q * channels + v * LANES) + sum[q][v]);
}

// A block of channels of some tiles, over a row of keys.
template <int N>
void block_of_values(Tile* tiles, int count, const float* weights, int64_t weights_of_tile, const float* value, int64_t column, int c,
                     int channels) {
    for (int i = 0; i < count; i++)
        for (int q = 0; q < QUERIES; q += GROUP)
            add_values<N>(weights + i * weights_of_tile + q, value + tiles[i].left * column + c, column, tiles[i].span(),
                          tiles[i].output.data() + size_t(q) * channels + c, channels);
}

// Softmax of the logits and the average of the values, in rows of keys from `top` to `bottom`.
void average(const Problem& problem, Tile* tiles, int count, int image, int top, int bottom, float* weights, int64_t weights_of_tile) {
    const Image& value = problem.value[image];
    const int channels = problem.value_channels;
    for (int y = top; y < bottom; y++) {
        const float* row = data_of(value) + y * value.row;
        if (y + 1 < problem.height)
            prefetch(row + value.row + tiles[0].left * value.column, (tiles[count - 1].right - tiles[0].left) * value.column);
        for (int i = 0; i < count; i++) {
            Tile& tile = tiles[i];
            const float* logits = tile.row_of_logits(y);
            float* to = weights + i * weights_of_tile;
            Vec sum[VECTORS] = {};
            for (int at = 0; at < tile.span() * QUERIES; at += QUERIES)
                for (int v = 0; v < VECTORS; v++) {
                    const Vec weight = exp_negative(load(logits + at + v * LANES) - tile.maximum[v]);
                    sum[v] += weight;
                    store(to + at + v * LANES, weight);
                }
            for (int v = 0; v < VECTORS; v++) tile.sum[v] += sum[v];
        }
        for (int c = 0; c < channels;) {
            const int left = (channels - c) / LANES;
            // Never a single vector after threes: it would wait for its own sums.
            const int wide = left >= 5 || left == WIDE ? WIDE : std::min(left, 2);
            const auto run = wide == WIDE ? block_of_values<WIDE> : wide == 2 ? block_of_values<2> : block_of_values<1>;
            run(tiles, count, weights, weights_of_tile, row, value.column, c, channels);
            c += wide * LANES;
        }
    }
}

void write_output(const Problem& problem, const Tile& tile, int image) {
    const int channels = problem.value_channels;
    for (int q = 0; q < QUERIES; q++) {
        const int row = tile.y + q / TILE, column = tile.x + q % TILE;
        if (row >= problem.rows || column >= problem.width) continue;
        const float inverse = 1.0f / tile.sum[q / LANES][q % LANES];
        float* out = static_cast<float*>(problem.output) + ((size_t(image) * problem.rows + row) * problem.width + column) * channels;
        for (int c = 0; c < channels; c += LANES) store(out + c, load(tile.output.data() + size_t(q) * channels + c) * inverse);
    }
}

// What a thread allocates, once for all its tasks.
struct Workspace {
    std::vector<Tile> tiles = std::vector<Tile>(TILES);
    int64_t row;  // numbers of a row of keys
    Numbers<float> logits, weights;

    explicit Workspace(const Problem& problem) {
        row = int64_t(std::min(problem.width, 2 * problem.radius + TILE)) * QUERIES;
        weights.resize(TOGETHER * row);
        if (!problem.state) logits.resize(TOGETHER * ROWS * row);
    }
};

void run_task(const Problem& problem, const Task& task, Workspace& work) {
    Tile* tiles = work.tiles.data();
    const int count = (task.x1 - task.x0 + TILE - 1) / TILE;
    for (int i = 0; i < count; i++) {
        Tile& tile = tiles[i];
        tile.start(problem, task.image, task.y, task.x0 + i * TILE);
        const size_t index = tile_index(problem, task.image, tile.y, tile.x);
        if (problem.state) tile.logits = static_cast<float*>(problem.state) + index * problem.state_tile, tile.first = tile.top;
    }
    for (int top = tiles[0].top; top < tiles[0].bottom; top += ROWS) {
        const int bottom = std::min(top + ROWS, tiles[0].bottom);
        for (int i = 0; i < count; i += TOGETHER) {
            const int some = std::min(TOGETHER, count - i);
            if (!problem.state)
                for (int j = 0; j < some; j++) tiles[i + j].logits = work.logits.data() + j * ROWS * work.row, tiles[i + j].first = top;
            for (int step = 0; step < problem.steps; step++) add_step(problem, tiles + i, some, task.image, step, top, bottom);
            average(problem, tiles + i, some, task.image, top, bottom, work.weights.data(), work.row);
        }
    }
    for (int i = 0; i < count; i++) write_output(problem, tiles[i], task.image);
}

}  // namespace

EXPORT int nlrn_window_step(const Problem* problem, int threads) try {
    const std::vector<Task> tasks = cut(*problem, threads, TILE);
    std::atomic<size_t> next(0);
    return in_threads(std::min<int64_t>(threads, int64_t(tasks.size())), [&] {
        Workspace workspace(*problem);
        for (size_t i; (i = next++) < tasks.size();) run_task(*problem, tasks[i], workspace);
    });
} catch (const std::exception&) {
    return 1;
}
