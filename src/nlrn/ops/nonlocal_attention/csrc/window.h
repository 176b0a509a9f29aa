// What the kernels share: the problem they are given, and how it is cut into tiles and tasks.

#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <new>
#include <thread>
#include <vector>

#define EXPORT extern "C" __attribute__((visibility("default")))

// What a call computes; native_operators.py has the same structures.

// An image [row][column][channel] whose channels lie side by side; strides in numbers.
struct Image {
    const void* data;
    int64_t row, column;
};

struct Problem {
    int32_t batch, rows, height, width, row_offset, radius;
    int32_t channels, value_channels;  // multiples of what the kernel asks for
    int32_t steps;                     // of the history whose products are summed; 1 with a stored state
    int32_t fresh;                     // whether logits start at zero instead of at `earlier`
    int32_t exact;                     // whether the output is float32 whatever the images are
    const Image* query;                // [steps][batch], `rows` rows
    const Image* key;                  // [steps][batch], `height` rows
    const Image* value;                // [batch], `height` rows
    void* output;                      // [batch][rows][width][value_channels]
    const void* earlier;               // logits of the step before; `state` itself, or like it (bfloat16 only)
    void* state;                       // logits, or null: [batch][tile rows][tile columns][state_tile]
    int64_t state_tile;                // numbers of the logits of one tile
    float* normaliser;                 // [batch][rows][width]: log of the sum that weights are divided by; or null (bfloat16 only)
};

// The gradients of a step: from its stored logits, or else from the products of its history.
struct Gradients {
    const Problem* step;       // its normaliser and its state are read
    const Image* output;       // [batch], `rows` rows of float32
    const Image* output_grad;  // [batch], `rows` rows
    const float* later;        // gradient of the stored logits from later steps, or null: [batch][tile rows][tile columns][keys][16 queries]
    float* logits_grad;        // the same with that of this step added, or null
    void* const* query_grad;   // [steps], each [batch][rows][width][channels]
    void* const* key_grad;     // [steps], each [batch][height][width][channels]
    void* value_grad;          // [batch][height][width][value_channels]
};

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
    bool operator==(const Lines&) const { return true; }
    bool operator!=(const Lines&) const { return false; }
};
template <class T>
using Numbers = std::vector<T, Lines<T>>;

constexpr int TILE = 4;  // queries of a tile along each axis
constexpr int QUERIES = TILE * TILE;
constexpr int TASK_COLUMNS = 64;  // queries of a task, four rows of them

inline bool near(int a, int b, int radius) { return a - b <= radius && b - a <= radius; }

// Where the queries of a tile lie, and the keys that their windows cover.
struct Place {
    int y, x;                      // of the first query
    int query[QUERIES][2];         // row and column on the grid of keys; the last ones again beyond the border
    int top, bottom, left, right;  // of the keys

    int span() const { return right - left; }

    void put(const Problem& problem, int y_, int x_) {
        y = y_, x = x_;
        for (int q = 0; q < QUERIES; q++) {
            query[q][0] = problem.row_offset + std::min(y + q / TILE, problem.rows - 1);
            query[q][1] = std::min(x + q % TILE, problem.width - 1);
        }
        top = std::max(0, query[0][0] - problem.radius);
        bottom = std::min(problem.height, query[QUERIES - 1][0] + problem.radius + 1);
        left = std::max(0, query[0][1] - problem.radius);
        right = std::min(problem.width, query[QUERIES - 1][1] + problem.radius + 1);
    }
};

// Keys of a tile whose windows the border does not cut off, or cuts off least.
inline int64_t keys_of_tile(const Problem& problem) {
    const int64_t side = 2 * int64_t(problem.radius) + TILE;
    return std::min<int64_t>(side, problem.height) * std::min<int64_t>(side, problem.width);
}

// The number of a tile among those of all images, which is the order of stored logits.
inline size_t tile_index(const Problem& problem, int image, int y, int x) {
    const int across = (problem.width + TILE - 1) / TILE, down = (problem.rows + TILE - 1) / TILE;
    return (size_t(image) * down + y / TILE) * across + x / TILE;
}

// Four rows of queries, from column x0 to x1.
struct Task {
    int image, y, x0, x1;
};

// Tasks no narrower than `narrowest` columns.
inline std::vector<Task> cut(const Problem& problem, int threads, int narrowest) {
    int columns = TASK_COLUMNS;
    const int down = (problem.rows + TILE - 1) / TILE;
    // Every thread should have several.
    while (columns > narrowest && int64_t(problem.batch) * down * ((problem.width + columns - 1) / columns) < 4 * threads) columns /= 2;
    std::vector<Task> tasks;
    // Down strips of columns: the keys and values of a strip stay in the last cache, those of whole rows of a wide image would not.
    for (int image = 0; image < problem.batch; image++)
        for (int x = 0; x < problem.width; x += columns)
            for (int y = 0; y < problem.rows; y += TILE) tasks.push_back({image, y, x, std::min(x + columns, problem.width)});
    return tasks;
}

// Runs `work` in every thread, this one among them. 0, or 1 if it threw (memory ran out).
template <class Work>
int in_threads(int threads, const Work& work) {
    std::atomic<int> failed(0);
    const auto guarded = [&] {
        try {
            work();
        } catch (const std::exception&) {
            failed = 1;
        }
    };
    std::vector<std::thread> others;
    try {
        for (int i = 1; i < threads; i++) others.emplace_back(guarded);
    } catch (const std::exception&) {
        // Fewer threads, then.
    }
    guarded();
    for (std::thread& other : others) other.join();
    return failed;
}

// Both give 0, or 1 if memory ran out.
EXPORT int nlrn_window_step(const Problem* problem, int threads);
EXPORT int nlrn_window_gradients(const Gradients* gradients, int threads);
