// The gradients of windowed non-local attention in bfloat16, behind the interface of window.h. Compiled to one library with tile
// registers (AMX) and one without; the two differ in the matrix products of products_bf16.h.
//
// With the weights P = exp(S - normaliser) of a step and the gradient g of its output o
//
//     dS = P (g value^T - <g, o>)    dquery = dS key    dkey = dS^T query    dvalue = P^T g
//
// S are the logits as the step stored them. They are those of the step before and the products of this one, so that dS, with the gradient
// from later steps added, is that of the products and of the logits of the step before. Where none are stored, S sums up the products of all
// queries and keys of the history, and dS is the gradient of each of these products.
//
// A group is two tiles of 4x4 queries side by side, which fill a register's row: 32 queries or 32 keys are what one instruction
// sums over. Products, weights and dS of a block of 32 keys lie as [key][32 queries], which is what the gradients of keys
// and values want; that of queries wants pairs of keys, [pair of keys][16 queries], and keys with their columns side by side.

#include <array>
#include <limits>

#include "products_bf16.h"

namespace {

constexpr int ROWS = 2;          // of keys that go through each kind of product before the next
constexpr float LOWEST = -60;    // logits that count, relative to the logarithm of their sum

inline int up(int n, int multiple) { return (n + multiple - 1) / multiple * multiple; }

inline __m512i pairs_of(__m512i low, __m512i high) { return _mm512_mask_blend_epi16(0xaaaaaaaa, _mm512_srli_epi32(low, 16), high); }

// To bfloat16 in the upper half; the nearest.
inline __m512i rounded(__m512 x) { return _mm512_add_epi32(_mm512_castps_si512(x), _mm512_set1_epi32(0x8000)); }

inline __m512 widened(const Half* p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))), 16));
}

inline void store_rounded(Half* to, __m512 x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), (__m256i)_mm512_cvtneps_pbh(x)); }

// 16 channels of two pixels, side by side.
inline __m512i interleaved(const Half* first, const Half* second) {
    const auto wide = [](const Half* p) { return _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); };
    return _mm512_or_si512(wide(first), _mm512_slli_epi32(wide(second), 16));
}

// What all tasks share about the problem.
struct Shape {
    const Problem& problem;
    int width;     // of keys in memory: no less than a block
    int channels;  // of all steps

    explicit Shape(const Problem& p) : problem(p), width(std::max(p.width, BLOCK)), channels(p.steps * p.channels) {}

    const Image& query(int step, int image) const { return problem.query[step * problem.batch + image]; }
    const Image& key(int step, int image) const { return problem.key[step * problem.batch + image]; }
};

// A band of rows of queries, and the rows of keys that they see.
struct Band {
    int image, first, last;  // queries
    int top, bottom;         // keys

    Band(const Problem& problem, int image_, int first_, int last_) : image(image_), first(first_), last(std::min(last_, problem.rows)) {
        top = std::max(0, problem.row_offset + first - problem.radius);
        bottom = std::min(problem.height, problem.row_offset + last + problem.radius);
    }
};

// What the queries of a band add to the gradients of keys and values.
struct Sums {
    int top = 0, bottom = 0;
    Numbers<float> keys;    // [step][row][column][channel]
    Numbers<float> values;  // [row][column][channel]

    void start(const Shape& shape, const Band& band) {
        top = band.top, bottom = band.bottom;
        const size_t pixels = size_t(bottom - top) * shape.width;
        keys.assign(pixels * shape.channels, 0.0f);
        values.assign(pixels * shape.problem.value_channels, 0.0f);
    }

    float* key(const Shape& shape, int step, int y, int x) {
        return keys.data() + ((size_t(step) * (bottom - top) + y - top) * shape.width + x) * shape.problem.channels;
    }
    float* value(const Shape& shape, int y, int x) {
        return values.data() + (size_t(y - top) * shape.width + x) * shape.problem.value_channels;
    }
};

// The keys with columns side by side: [row][channel of all steps][column].
struct Planes {
    int top = 0;
    Numbers<Half> data;

    Half* at(const Shape& shape, int y, int channel, int x) {
        return data.data() + (size_t(y - top) * shape.channels + channel) * shape.width + x;
    }

    void start(const Shape& shape, const Band& band) {
        top = band.top;
        data.resize(size_t(band.bottom - top) * shape.channels * shape.width);
        for (int step = 0; step < shape.problem.steps; step++) {
            const Image& key = shape.key(step, band.image);
            for (int y = top; y < band.bottom; y++)
                for (int block = 0; block < shape.width; block += BLOCK) {
                    const int x = std::min(block, shape.width - BLOCK);
                    const Half* from = halves(key) + y * key.row + x * key.column;
                    for (int c = 0; c < shape.problem.channels; c += 16) {
                        __m512i rows[16];
                        for (int i = 0; i < 16; i++) rows[i] = interleaved(from + 2 * i * key.column + c, from + (2 * i + 1) * key.column + c);
                        transpose(rows);
                        for (int i = 0; i < 16; i++) _mm512_storeu_si512(at(shape, y, step * shape.problem.channels + c + i, x), rows[i]);
                    }
                }
        }
    }
};

// 32 queries, and the gradients of what they gave.
struct Group {
    Place half[HALVES];
    int left, right, top, bottom;  // of the keys
    __m512 normaliser[HALVES], shared[HALVES];
    Logits<const Half> logits[HALVES];
    size_t tile[HALVES];         // its number
    bool both;                   // whether the second tile is not the first again
    Numbers<__mmask16> columns;  // [block][key][half]: the queries whose window holds the column of a key
    // As the second factor of products over channels: [32 channels][half][pair of channels][16 queries].
    Numbers<Pair> query, output_grad;
    // Of products over queries: [16 channels][pair of queries][channel].
    Numbers<Pair> query_rows, output_grad_rows;
    Numbers<float> query_sums;  // [32 channels][upper or lower 16][half][channel][16 queries]

    // The queries whose window holds a row of keys.
    std::array<__mmask16, HALVES> seen(const Problem& problem, int row) const {
        std::array<__mmask16, HALVES> queries = {};
        for (int h = 0; h < HALVES; h++)
            for (int q = 0; q < QUERIES; q++) queries[h] |= near(row, half[h].query[q][0], problem.radius) << q;
        return queries;
    }
    int blocks() const { return up(right - left, BLOCK) / BLOCK; }
    int column(const Shape& shape, int block) const { return std::min(left + block * BLOCK, shape.width - BLOCK); }
    // The keys of a block: one that would end beyond the row starts earlier, where the one before it has been.
    Range keys(const Shape& shape, int block) const {
        const int start = column(shape, block);
        return {left + block * BLOCK - start, std::min(BLOCK, right - start)};
    }

    // Pointers to the channels of each query; those that do not exist are others again.
    void pointers(const Image& image, int row_offset, const Half** query_of) const {
        for (int h = 0; h < HALVES; h++)
            for (int q = 0; q < QUERIES; q++)
                query_of[h * QUERIES + q] = halves(image) + (half[h].query[q][0] - row_offset) * image.row + half[h].query[q][1] * image.column;
    }

    // `by_channel` may be null.
    static void read(const Half* const* queries, int channels, Pair* by_channel, Pair* by_query) {
        for (int c = 0; c < channels && by_channel; c += CHANNELS)
            for (int h = 0; h < HALVES; h++, by_channel += SQUARE) {
                __m512i pairs[16];
                for (int q = 0; q < QUERIES; q++) pairs[q] = load_pairs(queries[h * QUERIES + q] + c);
                transpose(pairs);
                for (int i = 0; i < 16; i++) _mm512_store_si512(by_channel + i * 16, pairs[i]);
            }
        for (int c = 0; c < channels; c += 16)
            for (int i = 0; i < 16; i++, by_query += 16) _mm512_store_si512(by_query, interleaved(queries[2 * i] + c, queries[2 * i + 1] + c));
    }

    // Of the output and its gradient. What rounding it takes from the gradients of keys, it takes from all alike, and they have much in common:
    // hence the output in float32.
    static float output_product(const Problem& problem, const Gradients& gradients, int image, int row, int column) {
        const Image &output = gradients.output[image], &grad = gradients.output_grad[image];
        const float* first = static_cast<const float*>(output.data) + row * output.row + column * output.column;
        const Half* second = halves(grad) + row * grad.row + column * grad.column;
        __m512 sum = _mm512_setzero_ps();
        for (int c = 0; c < problem.value_channels; c += 16) sum = _mm512_fmadd_ps(_mm512_loadu_ps(first + c), widened(second + c), sum);
        return _mm512_reduce_add_ps(sum);
    }

    void start(const Shape& shape, const Gradients& gradients, const Band& band, int y, int x) {
        const Problem& problem = shape.problem;
        both = x + TILE < problem.width;
        half[0].put(problem, y, x);
        half[1].put(problem, y, both ? x + TILE : x);
        left = half[0].left, right = half[1].right, top = half[0].top, bottom = half[0].bottom;

        for (int h = 0; h < HALVES; h++) {
            tile[h] = tile_index(problem, band.image, half[h].y, half[h].x);
            logits[h] = {problem, static_cast<const Half*>(problem.state), tile[h]};
            // What the border cuts off is never read, but would be added up and looked at by autograd.
            const int64_t numbers = keys_of_tile(problem) * QUERIES, used = int64_t(bottom - top) * half[h].span() * QUERIES;
            if (gradients.logits_grad) std::fill_n(gradients.logits_grad + tile[h] * numbers + used, numbers - used, 0.0f);
        }
        columns.assign(size_t(blocks()) * BLOCK * HALVES, 0);
        for (int block = 0; block < blocks() && !problem.state; block++) {
            const Range range = keys(shape, block);
            for (int k = range.first; k < range.end; k++)
                for (int h = 0; h < HALVES; h++)
                    for (int q = 0; q < QUERIES; q++)
                        columns[size_t(block * BLOCK + k) * HALVES + h] |= near(column(shape, block) + k, half[h].query[q][1], problem.radius) << q;
        }

        const Half* queries[BLOCK];
        query.resize(size_t(shape.channels) / 2 * BLOCK), query_rows.resize(query.size());
        for (int step = 0; step < problem.steps; step++) {
            pointers(shape.query(step, band.image), problem.row_offset, queries);
            const size_t at = size_t(step) * problem.channels / 2 * BLOCK;
            read(queries, problem.channels, problem.state ? nullptr : query.data() + at, query_rows.data() + at);
        }
        pointers(gradients.output_grad[band.image], problem.row_offset, queries);
        output_grad.resize(size_t(problem.value_channels) / 2 * BLOCK), output_grad_rows.resize(output_grad.size());
        read(queries, problem.value_channels, output_grad.data(), output_grad_rows.data());

        for (int h = 0; h < HALVES; h++) {
            alignas(64) float log_sum[QUERIES], product[QUERIES];
            for (int q = 0; q < QUERIES; q++) {
                const int row = y + q / TILE, column = half[h].x + q % TILE;
                const bool exists = row < problem.rows && column < problem.width && (both || !h);
                const size_t pixel = (size_t(band.image) * problem.rows + row) * problem.width + column;
                // Nothing comes of a query whose weights are 0.
                log_sum[q] = exists ? problem.normaliser[pixel] : std::numeric_limits<float>::infinity();
                product[q] = exists ? output_product(problem, gradients, band.image, row, column) : 0.0f;
            }
            normaliser[h] = _mm512_load_ps(log_sum), shared[h] = _mm512_load_ps(product);
        }
        query_sums.assign(size_t(shape.channels) * BLOCK, 0.0f);
    }
};

// What a thread allocates, once for all its tasks.
struct Workspace {
    Group group;
    Planes planes;
    alignas(64) float products[ROWS][BLOCK * BLOCK], weight_grads[ROWS][BLOCK * BLOCK];  // [key][32 queries]
    alignas(64) Half weights[ROWS][BLOCK * BLOCK], product_grads[ROWS][BLOCK * BLOCK];
    alignas(64) Pair product_grad_pairs[ROWS][HALVES * SQUARE];  // [half][pair of keys][16 queries]
};

// Products and gradients of weights of a block become weights and gradients of products.
void differentiate(Workspace& work, int row, Range keys, const __mmask16* columns, const __mmask16* rows) {
    const Group& group = work.group;
    keys = multiplied(keys);
    for (int k = keys.first; k < keys.end; k += 2) {
        __m512 weight[2][HALVES], gradient[2][HALVES];
        for (int i = 0; i < 2; i++)
            for (int h = 0; h < HALVES; h++) {
                const int at = (k + i) * BLOCK + h * 16;
                const __m512 logit = _mm512_sub_ps(_mm512_load_ps(work.products[row] + at), group.normaliser[h]);
                // Weights that would make denormal numbers, which are slow, are 0.
                const __mmask16 counts = _mm512_cmp_ps_mask(logit, _mm512_set1_ps(LOWEST), _CMP_NLE_UQ);
                const __mmask16 seen = columns[(k + i) * HALVES + h] & rows[h] & counts;
                const __m512i p = exp_negative<false>(logit);
                weight[i][h] = _mm512_castsi512_ps(_mm512_maskz_mov_epi32(seen, p));
                gradient[i][h] = _mm512_maskz_mul_ps(seen, weight[i][h], _mm512_sub_ps(_mm512_load_ps(work.weight_grads[row] + at), group.shared[h]));
            }
        for (int i = 0; i < 2; i++) {
            _mm512_store_si512(work.weights[row] + (k + i) * BLOCK, (__m512i)_mm512_cvtne2ps_pbh(weight[i][1], weight[i][0]));
            _mm512_store_si512(work.product_grads[row] + (k + i) * BLOCK, (__m512i)_mm512_cvtne2ps_pbh(gradient[i][1], gradient[i][0]));
        }
        for (int h = 0; h < HALVES; h++)
            _mm512_store_si512(work.product_grad_pairs[row] + h * SQUARE + k / 2 * 16, pairs_of(rounded(gradient[0][h]), rounded(gradient[1][h])));
    }
}

// The same from stored logits, whose gradient is that of this step and those after it.
void differentiate_stored(const Problem& problem, const Gradients& gradients, Workspace& work, int row, int y, int column, Range keys) {
    const Group& group = work.group;
    const Range whole = multiplied(keys);
    for (int h = 0; h < HALVES; h++) {
        const Place& tile = group.half[h];
        const bool exists = group.both || !h;
        const int first = std::max(keys.first, tile.left - column), end = exists ? std::min(keys.end, tile.right - column) : 0;
        const int64_t at = (int64_t(y - tile.top) * tile.span() + column - tile.left) * QUERIES;
        const int64_t at_gradient = int64_t(group.tile[h]) * keys_of_tile(problem) * QUERIES + at;
        const __m512 shift = _mm512_sub_ps(_mm512_loadu_ps(group.logits[h].reference(problem, y - tile.top)), group.normaliser[h]);
        const float* weight_grads = work.weight_grads[row] + h * QUERIES;
        Half *weights = work.weights[row] + h * QUERIES, *product_grads = work.product_grads[row] + h * QUERIES;
        const auto one = [&](int k) {
            __m512 gradient = _mm512_setzero_ps(), weight = gradient;
            if (k >= first && k < end) {
                const __m256i stored = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(group.logits[h].data + at + k * QUERIES));
                const __m512 logit = _mm512_add_ps(_mm512_cvtph_ps(stored), shift);
                const __mmask16 counts = _mm512_cmp_ps_mask(logit, _mm512_set1_ps(LOWEST), _CMP_NLE_UQ);
                weight = _mm512_castsi512_ps(_mm512_maskz_mov_epi32(counts, exp_negative<false>(logit)));
                gradient = _mm512_maskz_mul_ps(counts, weight, _mm512_sub_ps(_mm512_load_ps(weight_grads + k * BLOCK), group.shared[h]));
                if (gradients.later) gradient = _mm512_add_ps(gradient, _mm512_loadu_ps(gradients.later + at_gradient + k * QUERIES));
                if (gradients.logits_grad) _mm512_storeu_ps(gradients.logits_grad + at_gradient + k * QUERIES, gradient);
            }
            store_rounded(weights + k * BLOCK, weight);
            store_rounded(product_grads + k * BLOCK, gradient);
            return rounded(gradient);
        };
        for (int k = whole.first; k < whole.end; k += 2) {
            const __m512i low = one(k), high = one(k + 1);
            _mm512_store_si512(work.product_grad_pairs[row] + h * SQUARE + k / 2 * 16, pairs_of(low, high));
        }
    }
}

void run_group(const Shape& shape, const Gradients& gradients, const Band& band, int y, int x, Workspace& work, Sums& sums) {
    const Problem& problem = shape.problem;
    const int channels = problem.channels, value_channels = problem.value_channels;
    const Image& value = problem.value[band.image];
    Group& group = work.group;
    group.start(shape, gradients, band, y, x);
    for (int top = group.top; top < group.bottom; top += ROWS)
        for (int block = 0; block < group.blocks(); block++) {
            const int column = group.column(shape, block), rows = std::min(ROWS, group.bottom - top);
            const Range keys = group.keys(shape, block);
            for (int row = 0; row < rows; row++) {
                const auto row_of = [&](const Image& image) { return Row{halves(image) + (top + row) * image.row + column * image.column, image.column}; };
                const auto key_of = [&](int step) { return row_of(shape.key(step, band.image)); };
                const auto value_of = [&](int) { return row_of(value); };
                if (!problem.state) multiply(key_of, problem.steps, channels, group.query.data(), keys, work.products[row]);
                multiply(value_of, 1, value_channels, group.output_grad.data(), keys, work.weight_grads[row]);
            }
            const __mmask16* columns = group.columns.data() + size_t(block) * BLOCK * HALVES;
            for (int row = 0; row < rows; row++)
                if (problem.state)
                    differentiate_stored(problem, gradients, work, row, top + row, column, keys);
                else
                    differentiate(work, row, keys, columns, group.seen(problem, top + row).data());
            for (int row = 0; row < rows; row++) {
                add_over_queries(work.weights[row], group.output_grad_rows.data(), value_channels, keys, sums.value(shape, top + row, column));
                for (int step = 0; step < problem.steps; step++)
                    add_over_queries(work.product_grads[row], group.query_rows.data() + size_t(step) * channels / 2 * BLOCK, channels, keys,
                                     sums.key(shape, step, top + row, column));
            }
            const Row plane = {work.planes.at(shape, top, 0, column), shape.width};
            add_over_keys(plane, int64_t(shape.channels) * shape.width, rows, work.product_grad_pairs[0], shape.channels, keys, group.query_sums.data());
        }
    // Gradients of the queries, 16 channels at a time.
    for (int c = 0; c < shape.channels; c += 16)
        for (int h = 0; h < HALVES; h++) {
            __m512i queries[16];
            const float* from = group.query_sums.data() + (size_t(c / 16) * HALVES + h) * SQUARE;
            for (int i = 0; i < 16; i++) queries[i] = load_pairs(from + i * 16);
            transpose(queries);
            Half* to = static_cast<Half*>(gradients.query_grad[c / channels]) + c % channels;
            for (int q = 0; q < QUERIES; q++) {
                const int y = group.half[h].y + q / TILE, x = group.half[h].x + q % TILE;
                if (y >= problem.rows || x >= problem.width || (h && group.half[1].x == group.half[0].x)) continue;
                const size_t pixel = (size_t(band.image) * problem.rows + y) * problem.width + x;
                _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + pixel * channels), (__m256i)_mm512_cvtneps_pbh(_mm512_castsi512_ps(queries[q])));
            }
        }
}

// The gradient of keys or values of an image: what all bands that see a row give to it.
template <class At>
void write_rows(const Problem& problem, int image, int channels, const std::vector<Sums*>& bands, void* gradient, const At& at) {
    const size_t numbers = size_t(problem.width) * channels;
    for (int y = 0; y < problem.height; y++) {
        Half* to = static_cast<Half*>(gradient) + (size_t(image) * problem.height + y) * numbers;
        for (size_t i = 0; i < numbers; i += 16) {
            __m512 sum = _mm512_setzero_ps();
            for (Sums* band : bands)
                if (y >= band->top && y < band->bottom) sum = _mm512_add_ps(sum, _mm512_load_ps(at(*band, y) + i));
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i), (__m256i)_mm512_cvtneps_pbh(sum));
        }
    }
}

void write_sums(const Shape& shape, const Gradients& gradients, int image, const std::vector<Sums*>& bands) {
    const Problem& problem = shape.problem;
    write_rows(problem, image, problem.value_channels, bands, gradients.value_grad, [&](Sums& band, int y) { return band.value(shape, y, 0); });
    for (int step = 0; step < problem.steps; step++)
        write_rows(problem, image, problem.channels, bands, gradients.key_grad[step], [&](Sums& band, int y) { return band.key(shape, step, y, 0); });
}

}  // namespace

EXPORT int nlrn_window_gradients(const Gradients* gradients, int threads) try {
    const Problem& problem = *gradients->step;
    const Shape shape(problem);
    // One band an image, if there are enough images for all threads; several add up in an order that depends on their number.
    const int per_image = std::min(up(threads, problem.batch) / problem.batch, up(problem.rows, TILE) / TILE);
    const int height = up(up(problem.rows, per_image) / per_image, TILE);
    std::vector<Band> bands;
    for (int image = 0; image < problem.batch; image++)
        for (int y = 0; y < problem.rows; y += height) bands.emplace_back(problem, image, y, y + height);
    const int count = int(bands.size()) / problem.batch;
    const bool whole = count == 1;
    std::vector<Sums> sums(whole ? 0 : bands.size());
    std::atomic<int> next(0);
    const int failed = in_threads(std::min<int>(threads, int(bands.size())), [&] {
        Workspace work;
        Sums own;
        const UseTiles tiles;
        for (int i; (i = next++) < int(bands.size());) {
            const Band& band = bands[i];
            Sums& to = whole ? own : sums[i];
            to.start(shape, band);
            work.planes.start(shape, band);
            for (int y = band.first; y < band.last; y += TILE)
                for (int x = 0; x < problem.width; x += HALVES * TILE) run_group(shape, *gradients, band, y, x, work, to);
            if (whole) write_sums(shape, *gradients, band.image, {&to});
        }
    });
    if (failed || whole) return failed;
    for (int image = 0; image < problem.batch; image++) {
        std::vector<Sums*> of_image;
        for (int i = 0; i < count; i++) of_image.push_back(&sums[image * count + i]);
        write_sums(shape, *gradients, image, of_image);
    }
    return 0;
} catch (const std::exception&) {
    return 1;
}
