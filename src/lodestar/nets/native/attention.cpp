// Attention softmax(q kT / sqrt(d)) v of many heads, in float whatever the type of its inputs, without storing its weights.
//
// Heads are worked on one by one: the keys are turned, so that rows of weights are made and used in vectors.

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

namespace {

typedef float Vector __attribute__((vector_size(64), aligned(64)));
constexpr int64_t LANES = 16, ROWS = 8, WIDE = 2 * LANES;

int64_t up_to(int64_t count, int64_t multiple) { return (count + multiple - 1) / multiple * multiple; }

}  // namespace

extern "C" {
struct Heads {
    int64_t batch, heads, queries, keys, channels;
    int64_t q_batch, q_place, q_head;      // strides, in values; channels are contiguous
    int64_t k_batch, k_place, k_head;
    int64_t v_batch, v_place, v_head;
    int32_t threads;
};
}

namespace {

// How products are summed: word by word of 32 bits, each a float, or two bfloat16 whose products are summed by one instruction.
struct Floats {
    static constexpr int64_t EACH = 1;
    template <class T>
    static float word(const T* first, int64_t, bool) { return load(*first); }
    static Vector add(Vector sum, float word, Vector words) { return sum + word * words; }
};
#ifdef __AVX512BF16__
struct Pairs {
    static constexpr int64_t EACH = 2;
    // A value and the one that is `step` after it, if there is one.
    static float word(const bfloat16* first, int64_t step, bool second) {
        uint32_t bits = first->bits | (second ? uint32_t(first[step].bits) << 16 : 0);
        float word;
        std::memcpy(&word, &bits, 4);
        return word;
    }
    static Vector add(Vector sum, float word, Vector words) {
        return (Vector)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_ps(word), (__m512bh)words);
    }
};
template <class T>
using WayOf = typename std::conditional<std::is_same<T, bfloat16>::value, Pairs, Floats>::type;
#else
template <class T>
using WayOf = Floats;
#endif

// What one thread works with: words of keys, turned [d, keys'], of values [keys, d'], of queries [ROWS, d]; weights [ROWS, keys'],
// and these as words [ROWS, keys'].
struct Room {
    int64_t stride, wide;  // keys' and d'
    float *keys, *values, *weights, *words, *queries, *sums;
    static int64_t size(int64_t keys, int64_t channels) {
        return channels * up_to(keys, WIDE) + keys * up_to(channels, WIDE) + ROWS * (2 * up_to(keys, WIDE) + up_to(channels, WIDE))
             + LANES;
    }
    Room(float* memory, int64_t count, int64_t channels) : stride(up_to(count, WIDE)), wide(up_to(channels, WIDE)) {
        keys = memory;
        values = keys + channels * stride;
        weights = values + count * wide;
        words = weights + ROWS * stride;
        queries = words + ROWS * stride;
        sums = queries + ROWS * wide;
    }
};

// sum [ROWS, WIDE] of left [ROWS, count] times right [count, stride], words.
template <class Way>
void multiply(Vector (&sum)[ROWS][2], const float* left, int64_t left_stride, const float* right, int64_t stride, int64_t count) {
    for (int64_t word = 0; word < count; word++) {
        const Vector* words = reinterpret_cast<const Vector*>(right + word * stride);
        Vector first = words[0], second = words[1];
        for (int64_t row = 0; row < ROWS; row++) {
            float each = left[row * left_stride + word];
            sum[row][0] = Way::add(sum[row][0], each, first);
            sum[row][1] = Way::add(sum[row][1], each, second);
        }
    }
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

// The rows' exponentials of factor times weights, less the largest, as words; and the inverse of what each row sums to.
template <class Way>
void exponentials(const Room& room, int64_t keys, int64_t rows, float factor) {
    for (int64_t row = 0; row < rows; row++) {
        float *__restrict weights = room.weights + row * room.stride, sum = 0, most = largest(weights, keys);
        for (int64_t key = 0; key < keys; key++) {
            weights[key] = power_of_two((weights[key] - most) * factor);
            sum += weights[key];
        }
        room.sums[row] = 1.0f / sum;
        float* words = room.words + row * room.stride;
        if (Way::EACH == 1) {
            std::memcpy(words, weights, sizeof(float) * keys);
        } else {
            bfloat16* __restrict halves = reinterpret_cast<bfloat16*>(words);
            for (int64_t key = 0; key < keys; key++) store(halves[key], weights[key]);
            if (keys % 2) halves[keys].bits = 0;
        }
    }
}

template <class T, class Way = WayOf<T>>
void one_head(const Heads& of, const T* q, const T* k, const T* v, T* out, int64_t out_place, const Room& room) {
    int64_t pairs = (of.channels + Way::EACH - 1) / Way::EACH, key_pairs = (of.keys + Way::EACH - 1) / Way::EACH;
    for (int64_t key = 0; key < of.keys; key++)
        for (int64_t pair = 0; pair < pairs; pair++)
            room.keys[pair * room.stride + key] = Way::word(k + key * of.k_place + pair * Way::EACH, 1, (pair + 1) * Way::EACH <= of.channels);
    for (int64_t pair = 0; pair < key_pairs; pair++)
        for (int64_t channel = 0; channel < of.channels; channel++)
            room.values[pair * room.wide + channel] =
                Way::word(v + pair * Way::EACH * of.v_place + channel, of.v_place, (pair + 1) * Way::EACH <= of.keys);
    float factor = 1.44269504f / std::sqrt(float(of.channels));  // weights are powers of two
    for (int64_t query = 0; query < of.queries; query += ROWS) {
        int64_t rows = std::min(ROWS, of.queries - query);
        for (int64_t row = 0; row < rows; row++)
            for (int64_t pair = 0; pair < pairs; pair++)
                room.queries[row * room.wide + pair] =
                    Way::word(q + (query + row) * of.q_place + pair * Way::EACH, 1, (pair + 1) * Way::EACH <= of.channels);
        for (int64_t key = 0; key < room.stride; key += WIDE) {
            Vector sum[ROWS][2] = {};
            multiply<Way>(sum, room.queries, room.wide, room.keys + key, room.stride, pairs);
            for (int64_t row = 0; row < ROWS; row++) std::memcpy(room.weights + row * room.stride + key, sum[row], sizeof sum[row]);
        }
        exponentials<Way>(room, of.keys, rows, factor);
        for (int64_t channel = 0; channel < of.channels; channel += WIDE) {
            Vector sum[ROWS][2] = {};
            multiply<Way>(sum, room.words, room.stride, room.values + channel, room.wide, key_pairs);
            for (int64_t row = 0; row < rows; row++) {
                float lanes[WIDE];
                std::memcpy(lanes, sum[row], sizeof lanes);
                T* to = out + (query + row) * out_place + channel;
                for (int64_t lane = 0; lane < std::min(WIDE, of.channels - channel); lane++) store(to[lane], lanes[lane] * room.sums[row]);
            }
        }
    }
}

// out [B, queries, heads, d], contiguous.
template <class T>
int attention(const Heads& of, const T* q, const T* k, const T* v, T* out) {
    int64_t size = up_to(Room::size(of.keys, of.channels), LANES), out_place = of.heads * of.channels;
    float* memory = static_cast<float*>(std::aligned_alloc(64, sizeof(float) * size * of.threads));
    if (!memory) return 1;
    std::memset(memory, 0, sizeof(float) * size * of.threads);  // what is beside the keys and channels counts for nothing
#pragma omp parallel for num_threads(of.threads) schedule(static)
    for (int32_t thread = 0; thread < of.threads; thread++) {
        Room room(memory + thread * size, of.keys, of.channels);
        for (int64_t head = thread; head < of.batch * of.heads; head += of.threads) {
            int64_t image = head / of.heads, number = head % of.heads;
            one_head(of, q + image * of.q_batch + number * of.q_head, k + image * of.k_batch + number * of.k_head,
                     v + image * of.v_batch + number * of.v_head, out + image * of.queries * out_place + number * of.channels,
                     out_place, room);
        }
    }
    std::free(memory);
    return 0;
}

}  // namespace

extern "C" {
int attention_f32(const Heads* of, const void* q, const void* k, const void* v, void* out) {
    return attention(*of, (const float*)q, (const float*)k, (const float*)v, (float*)out);
}
int attention_bf16(const Heads* of, const void* q, const void* k, const void* v, void* out) {
    return attention(*of, (const bfloat16*)q, (const bfloat16*)k, (const bfloat16*)v, (bfloat16*)out);
}
}
