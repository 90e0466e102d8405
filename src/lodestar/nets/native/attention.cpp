// Attention softmax(q kT / sqrt(d)) v of many heads, and its gradients, in float whatever the type of the inputs. Weights are not
// stored: the backward pass makes them again, from the logarithm of the sum by which each query's were divided.
//
// Heads are worked on one by one, in an order that depends on their own sizes alone. Keys are turned, so that rows of weights are
// made and used in vectors. Keys that a mask leaves out are not read at all, and cost nothing.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <type_traits>

#include "values.hpp"
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

#define INLINE inline __attribute__((always_inline))

namespace {

typedef float Vector __attribute__((vector_size(64), aligned(64)));
typedef uint32_t Bits __attribute__((may_alias));
constexpr int64_t LANES = 16, ROWS = 8, WIDE = 2 * LANES;
constexpr int64_t BLOCK = 64;  // queries whose weights are kept at once on the way back, a multiple of ROWS

int64_t up_to(int64_t count, int64_t multiple) { return (count + multiple - 1) / multiple * multiple; }

}  // namespace

extern "C" {
struct Heads {
    int64_t batch, heads, queries, keys, channels;
    int64_t q_batch, q_place, q_head;      // strides, in values; channels are contiguous
    int64_t k_batch, k_place, k_head;
    int64_t v_batch, v_place, v_head;
    const uint8_t* mask;                   // [batch, masked]: 0 where one of the first keys does not count; those after them do
    int64_t masked;
    int32_t threads;
};
}

namespace {

// How products are summed: word by word of 32 bits, each a float, or two bfloat16 whose products are summed by one instruction.
struct Floats {
    static constexpr int64_t EACH = 1;
    template <class T>
    static INLINE void row(float* words, const T* from, int64_t count) {
        for (int64_t each = 0; each < count; each++) words[each] = load(from[each]);
    }
    template <class T>
    static INLINE void rows(float* words, const T* first, const T*, int64_t count) { row(words, first, count); }
    static INLINE Vector add(Vector sum, float word, Vector words) { return sum + word * words; }
};
#ifdef __AVX512BF16__
struct Pairs {
    static constexpr int64_t EACH = 2;
    static INLINE uint32_t bits(bfloat16 value) { return value.bits; }
    static INLINE uint32_t bits(float value) {
        bfloat16 half;
        store(half, value);
        return half.bits;
    }
    // The words of a row: values and their neighbours.
    template <class T>
    static INLINE void row(float* words, const T* from, int64_t count) {
        Bits* to = reinterpret_cast<Bits*>(words);
        for (int64_t pair = 0; pair < count / 2; pair++) to[pair] = bits(from[2 * pair]) | bits(from[2 * pair + 1]) << 16;
        if (count % 2) to[count / 2] = bits(from[count - 1]);
    }
    // The words of two rows: values and those below; the second row may be missing.
    template <class T>
    static INLINE void rows(float* words, const T* first, const T* second, int64_t count) {
        Bits* to = reinterpret_cast<Bits*>(words);
        if (second)
            for (int64_t each = 0; each < count; each++) to[each] = bits(first[each]) | bits(second[each]) << 16;
        else
            for (int64_t each = 0; each < count; each++) to[each] = bits(first[each]);
    }
    static INLINE Vector add(Vector sum, float word, Vector words) {
        return (Vector)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_ps(word), (__m512bh)words);
    }
};
template <class T>
using WayOf = typename std::conditional<std::is_same<T, bfloat16>::value, Pairs, Floats>::type;
#else
template <class T>
using WayOf = Floats;
#endif

int64_t words_of(int64_t count, int64_t each) { return (count + each - 1) / each; }

// Words of rows that lie `place` apart: [rows, words of channels], each row `stride` words long.
template <class Way, class T>
void along(float* words, int64_t stride, const T* from, int64_t place, int64_t rows, int64_t channels) {
    for (int64_t row = 0; row < rows; row++) Way::row(words + row * stride, from + row * place, channels);
}

// The keys of a picture that count, by their numbers.
struct Counted {
    int64_t* numbers;
    int64_t count;
    static int64_t size(const Heads& of) { return of.keys * int64_t(sizeof(int64_t) / sizeof(float)) + LANES; }
    void see(const Heads& of, int64_t image) {
        count = 0;
        for (int64_t key = 0; key < of.keys; key++)
            if (key >= of.masked || of.mask[image * of.masked + key]) numbers[count++] = key;
    }
};

// Rows of keys that count, turned: [words of channels, rows].
template <class Way, class T>
void turned(float* words, int64_t stride, const T* from, int64_t place, const Counted& keys, int64_t channels) {
    int64_t whole = channels / Way::EACH;
    for (int64_t word = 0; word < words_of(channels, Way::EACH); word++) {
        const T* first = from + word * Way::EACH;
        int64_t each = word < whole ? Way::EACH : 1;
        for (int64_t row = 0; row < keys.count; row++) Way::row(words + word * stride + row, first + keys.numbers[row] * place, each);
    }
}

// Words across rows: [words of rows, channels].
template <class Way, class T>
void across(float* words, int64_t stride, const T* from, int64_t place, int64_t rows, int64_t channels) {
    for (int64_t word = 0; word < words_of(rows, Way::EACH); word++) {
        const T* first = from + word * Way::EACH * place;
        Way::rows(words + word * stride, first, (word + 1) * Way::EACH <= rows ? first + place : nullptr, channels);
    }
}

// Words across rows of keys that count.
template <class Way, class T>
void across(float* words, int64_t stride, const T* from, int64_t place, const Counted& keys, int64_t channels) {
    for (int64_t word = 0; word < words_of(keys.count, Way::EACH); word++) {
        const int64_t* numbers = keys.numbers + word * Way::EACH;
        const T* second = (word + 1) * Way::EACH <= keys.count ? from + numbers[Way::EACH - 1] * place : nullptr;
        Way::rows(words + word * stride, from + numbers[0] * place, second, channels);
    }
}

// Memory of one thread, given out in pieces that begin at multiples of a vector. What is beside keys and channels stays 0.
struct Room {
    float* next;
    float* take(int64_t rows, int64_t stride) {
        float* piece = next;
        next += up_to(rows * stride, LANES);
        return piece;
    }
    int64_t* numbers(int64_t count) { return reinterpret_cast<int64_t*>(take(int64_t(sizeof(int64_t) / sizeof(float)), count)); }
};

// tile [ROWS, WIDE] of left [ROWS, count] times right [count, WIDE…], both of words, plus itself if `onto`.
template <class Way>
INLINE void multiply(float* tile, int64_t tile_stride, const float* left, int64_t row_stride, int64_t word_stride, const float* right,
                     int64_t stride, int64_t count, bool onto = false) {
    Vector sum[ROWS][2] = {};
    if (onto)
        for (int64_t row = 0; row < ROWS; row++) std::memcpy(sum[row], tile + row * tile_stride, sizeof sum[row]);
    for (int64_t word = 0; word < count; word++) {
        const Vector* words = reinterpret_cast<const Vector*>(right + word * stride);
        Vector first = words[0], second = words[1];
        for (int64_t row = 0; row < ROWS; row++) {
            float each = left[row * row_stride + word * word_stride];
            sum[row][0] = Way::add(sum[row][0], each, first);
            sum[row][1] = Way::add(sum[row][1], each, second);
        }
    }
    for (int64_t row = 0; row < ROWS; row++) std::memcpy(tile + row * tile_stride, sum[row], sizeof sum[row]);
}

float largest(const float* values, int64_t count) {
    float most = values[0];
    int64_t whole = count / LANES * LANES;
    if (whole) {
        Vector lanes = *reinterpret_cast<const Vector*>(values);
        for (int64_t first = LANES; first < whole; first += LANES) {
            Vector next = *reinterpret_cast<const Vector*>(values + first);
            lanes = lanes < next ? next : lanes;
        }
        for (int64_t lane = 0; lane < LANES; lane++) most = std::max(most, lanes[lane]);
    }
    for (int64_t rest = whole; rest < count; rest++) most = std::max(most, values[rest]);
    return most;
}

float factor_of(const Heads& of) { return 1.44269504f / std::sqrt(float(of.channels)); }  // weights are powers of two

template <class T, class Way = WayOf<T>>
struct Forward {
    const Heads& of;
    const int64_t stride = up_to(of.keys, WIDE), wide = up_to(of.channels, WIDE), pairs = words_of(of.channels, Way::EACH);
    float *keys, *values, *weights, *words, *queries, *sums;
    Counted counted;

    static int64_t size(const Heads& of) {
        int64_t stride = up_to(of.keys, WIDE), wide = up_to(of.channels, WIDE);
        return of.channels * stride + of.keys * wide + 2 * ROWS * stride + ROWS * wide + ROWS * WIDE + 6 * LANES + Counted::size(of);
    }
    Forward(const Heads& of, Room room) : of(of) {
        counted.numbers = room.numbers(of.keys);
        keys = room.take(of.channels, stride);
        values = room.take(of.keys, wide);
        weights = room.take(ROWS, stride);
        words = room.take(ROWS, stride);
        queries = room.take(ROWS, wide);
        sums = room.take(ROWS, WIDE);
    }

    // Exponentials of a row of products, less the largest, as words. Returns their sum; `log` is what a weight's logarithm lacks.
    float exponentials(int64_t row, float factor, float& log) {
        float *__restrict each = weights + row * stride, sum = 0, most = largest(each, counted.count);
        for (int64_t key = 0; key < counted.count; key++) {
            each[key] = power_of_two((each[key] - most) * factor);
            sum += each[key];
        }
        Way::row(words + row * stride, each, counted.count);
        log = most * factor + std::log2(sum);
        return sum;
    }

    void operator()(const T* q, const T* k, const T* v, T* out, int64_t out_place, float* logs) {
        turned<Way>(keys, stride, k, of.k_place, counted, of.channels);
        across<Way>(values, wide, v, of.v_place, counted, of.channels);
        float factor = factor_of(of);
        for (int64_t query = 0; query < of.queries; query += ROWS) {
            int64_t rows = std::min(ROWS, of.queries - query);
            float inverse[ROWS];
            along<Way>(queries, wide, q + query * of.q_place, of.q_place, rows, of.channels);
            for (int64_t key = 0; key < counted.count; key += WIDE)
                multiply<Way>(weights + key, stride, queries, wide, 1, keys + key, stride, pairs);
            for (int64_t row = 0; row < rows; row++) inverse[row] = 1.0f / exponentials(row, factor, logs[query + row]);
            for (int64_t channel = 0; channel < of.channels; channel += WIDE) {
                multiply<Way>(sums, WIDE, words, stride, 1, values + channel, wide, words_of(counted.count, Way::EACH));
                for (int64_t row = 0; row < rows; row++) {
                    T* to = out + (query + row) * out_place + channel;
                    for (int64_t lane = 0; lane < std::min(WIDE, of.channels - channel); lane++)
                        store(to[lane], sums[row * WIDE + lane] * inverse[row]);
                }
            }
        }
    }
};

// With P the weights, y = P v and dy its gradient: dv = PT dy; dS = P (dy vT - sum of dy y over channels); dq = dS k, dk = dST q.
template <class T, class Way = WayOf<T>>
struct Backward {
    const Heads& of;
    const int64_t stride = up_to(of.keys, WIDE), wide = up_to(of.channels, WIDE), pairs = words_of(of.channels, Way::EACH);
    float *keys, *values, *key_rows, *queries, *grads, *query_rows, *grad_rows, *weights, *slopes, *row, *tiles, *sums, *dk, *dv;
    Counted counted;

    static int64_t size(const Heads& of) {
        int64_t stride = up_to(of.keys, WIDE), wide = up_to(of.channels, WIDE);
        return 2 * of.channels * stride + of.keys * wide + 2 * ROWS * wide + 2 * BLOCK * wide + 2 * BLOCK * stride + ROWS * stride
             + 3 * ROWS * WIDE + 2 * stride * wide + 14 * LANES + Counted::size(of);
    }
    Backward(const Heads& of, Room room) : of(of) {
        counted.numbers = room.numbers(of.keys);
        keys = room.take(of.channels, stride);      // turned
        values = room.take(of.channels, stride);    // turned
        key_rows = room.take(of.keys, wide);        // across
        queries = room.take(ROWS, wide);            // along
        grads = room.take(ROWS, wide);              // along
        query_rows = room.take(BLOCK, wide);        // across
        grad_rows = room.take(BLOCK, wide);         // across
        weights = room.take(BLOCK, stride);         // P, across
        slopes = room.take(BLOCK, stride);          // dS, across
        row = room.take(ROWS, stride);              // dS, along
        tiles = room.take(2 * ROWS, WIDE);
        sums = room.take(ROWS, WIDE);
        dk = room.take(stride, wide);
        dv = room.take(stride, wide);
    }

    // P and dS of ROWS queries, which are number `at` and on in their block.
    void slope(int64_t at, int64_t rows, const float* logs, const float* dots) {
        float factor = factor_of(of), *__restrict p = tiles, *__restrict ds = tiles + ROWS * WIDE;
        for (int64_t key = 0; key < counted.count; key += WIDE) {
            multiply<Way>(p, WIDE, queries, wide, 1, keys + key, stride, pairs);
            multiply<Way>(ds, WIDE, grads, wide, 1, values + key, stride, pairs);
            int64_t lanes = std::min(WIDE, counted.count - key);
            for (int64_t each = 0; each < rows; each++) {
                float log = logs[each], dot = dots[each];
                for (int64_t lane = each * WIDE; lane < each * WIDE + WIDE; lane++) {
                    p[lane] = power_of_two(p[lane] * factor - log);
                    ds[lane] = p[lane] * (ds[lane] - dot);
                }
                Way::row(row + each * stride + key / Way::EACH, ds + each * WIDE, lanes);
            }
            // Rows beyond the last query are words of 0: theirs were products with 0, and are not exponentiated.
            across<Way>(weights + at / Way::EACH * stride + key, stride, p, WIDE, up_to(rows, Way::EACH), lanes);
            across<Way>(slopes + at / Way::EACH * stride + key, stride, ds, WIDE, up_to(rows, Way::EACH), lanes);
        }
    }

    // To [rows, channels] from sums.
    void put(T* to, int64_t place, const float* from, int64_t from_stride, int64_t rows, int64_t channels, float times) {
        for (int64_t each = 0; each < rows; each++)
            for (int64_t channel = 0; channel < channels; channel++)
                store(to[each * place + channel], from[each * from_stride + channel] * times);
    }

    void block(const T* q, const T* y, const T* dy, const float* logs, int64_t out_place, T* dq, int64_t count) {
        across<Way>(query_rows, wide, q, of.q_place, count, of.channels);
        across<Way>(grad_rows, wide, dy, out_place, count, of.channels);
        for (int64_t at = 0; at < count; at += ROWS) {
            int64_t rows = std::min(ROWS, count - at);
            float dots[ROWS];
            if (rows < ROWS) std::memset(queries, 0, sizeof(float) * 2 * ROWS * wide);  // and grads, which follow
            along<Way>(queries, wide, q + at * of.q_place, of.q_place, rows, of.channels);
            along<Way>(grads, wide, dy + at * out_place, out_place, rows, of.channels);
            for (int64_t each = 0; each < rows; each++) {
                const T *left = y + (at + each) * out_place, *right = dy + (at + each) * out_place;
                dots[each] = 0;
                for (int64_t channel = 0; channel < of.channels; channel++) dots[each] += load(left[channel]) * load(right[channel]);
            }
            slope(at, rows, logs + at, dots);
            for (int64_t channel = 0; channel < of.channels; channel += WIDE) {
                multiply<Way>(sums, WIDE, row, stride, 1, key_rows + channel, wide, words_of(counted.count, Way::EACH));
                put(dq + at * of.q_place + channel, of.q_place, sums, WIDE, rows, std::min(WIDE, of.channels - channel),
                    1.0f / std::sqrt(float(of.channels)));
            }
        }
        for (int64_t key = 0; key < counted.count; key += ROWS)
            for (int64_t channel = 0; channel < of.channels; channel += WIDE) {
                int64_t words = words_of(count, Way::EACH), place = key * wide + channel;
                multiply<Way>(dv + place, wide, weights + key, 1, stride, grad_rows + channel, wide, words, true);
                multiply<Way>(dk + place, wide, slopes + key, 1, stride, query_rows + channel, wide, words, true);
            }
    }

    void operator()(const T* q, const T* k, const T* v, const T* y, const T* dy, const float* logs, int64_t out_place, T* to_q, T* to_k,
                    T* to_v) {
        turned<Way>(keys, stride, k, of.k_place, counted, of.channels);
        turned<Way>(values, stride, v, of.v_place, counted, of.channels);
        across<Way>(key_rows, wide, k, of.k_place, counted, of.channels);
        std::memset(dk, 0, sizeof(float) * stride * wide);
        std::memset(dv, 0, sizeof(float) * stride * wide);
        for (int64_t query = 0; query < of.queries; query += BLOCK)
            block(q + query * of.q_place, y + query * out_place, dy + query * out_place, logs + query, out_place,
                  to_q + query * of.q_place, std::min(BLOCK, of.queries - query));
        for (int64_t row = 0; row < counted.count; row++) {
            int64_t key = counted.numbers[row];
            put(to_k + key * of.k_place, of.k_place, dk + row * wide, wide, 1, of.channels, 1.0f / std::sqrt(float(of.channels)));
            put(to_v + key * of.v_place, of.v_place, dv + row * wide, wide, 1, of.channels, 1.0f);
        }
    }
};

// Calls body(worker, image, head) for every head of every picture, its workers made in memory of their own. 1 without that.
template <class Worker, class Body>
int each_head(const Heads& of, Body body) {
    int64_t size = up_to(Worker::size(of), LANES);
    float* memory = static_cast<float*>(std::aligned_alloc(64, sizeof(float) * size * of.threads));
    if (!memory) return 1;
    std::memset(memory, 0, sizeof(float) * size * of.threads);
#pragma omp parallel for num_threads(of.threads) schedule(static)
    for (int32_t thread = 0; thread < of.threads; thread++) {
        Worker worker(of, Room{memory + thread * size});
        for (int64_t head = thread; head < of.batch * of.heads; head += of.threads) {
            worker.counted.see(of, head / of.heads);
            body(worker, head / of.heads, head % of.heads);
        }
    }
    std::free(memory);
    return 0;
}

}  // namespace

// y, dy [B, queries, heads, d], contiguous; logs [B, heads, queries]; gradients of q, k and v lie as these do, and are written for
// keys that count.
extern "C" {
int attention_bf16(const Heads* heads, const void* q, const void* k, const void* v, void* y, float* logs) {
    const Heads& of = *heads;
    const bfloat16 *qs = (const bfloat16*)q, *ks = (const bfloat16*)k, *vs = (const bfloat16*)v;
    int64_t place = of.heads * of.channels;
    return each_head<Forward<bfloat16>>(of, [&](Forward<bfloat16>& worker, int64_t image, int64_t head) {
        worker(qs + image * of.q_batch + head * of.q_head, ks + image * of.k_batch + head * of.k_head,
               vs + image * of.v_batch + head * of.v_head, (bfloat16*)y + image * of.queries * place + head * of.channels, place,
               logs + (image * of.heads + head) * of.queries);
    });
}
int attention_back_bf16(const Heads* heads, const void* q, const void* k, const void* v, const void* y, const void* dy,
                        const float* logs, void* dq, void* dk, void* dv) {
    const Heads& of = *heads;
    int64_t width = of.heads * of.channels;
    return each_head<Backward<bfloat16>>(of, [&](Backward<bfloat16>& worker, int64_t image, int64_t head) {
        int64_t queries = image * of.q_batch + head * of.q_head, keys = image * of.k_batch + head * of.k_head,
                values = image * of.v_batch + head * of.v_head, out = image * of.queries * width + head * of.channels;
        worker((const bfloat16*)q + queries, (const bfloat16*)k + keys, (const bfloat16*)v + values, (const bfloat16*)y + out,
               (const bfloat16*)dy + out, logs + (image * of.heads + head) * of.queries, width, (bfloat16*)dq + queries,
               (bfloat16*)dk + keys, (bfloat16*)dv + values);
    });
}
}
