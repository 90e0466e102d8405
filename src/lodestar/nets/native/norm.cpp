// Group normalization of channels-last activations [B, P, C] with scale, shift and SiLU: forward and backward in two readings each.
//
// Sums are taken over chunks of rows in float and joined in double in a fixed order, so that a picture's result depends neither
// on its batch nor on the number of threads.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "values.hpp"

namespace {

constexpr int64_t CHUNK = 256;
constexpr int64_t WIDTH = 128;

// What a value is stored as; 8 bits hold round(value / step) + zero.
struct Grid {
    float inverse, zero;
};
template <class Out>
inline void put(Out& to, float value, Grid) { store(to, value); }
inline void put(uint8_t& to, float value, Grid grid) {
    float code = value * grid.inverse + grid.zero + 0.5f;
    to = uint8_t(int32_t(code < 0.0f ? 0.0f : code > 255.0f ? 255.0f : code));
}

// 1 / (1 + exp(-x)).
inline float sigmoid(float x) { return 1.0f / (1.0f + power_of_two(x * -1.44269504f)); }

// The derivative of z sigmoid(z).
inline float silu_slope(float z) {
    float gate = sigmoid(z);
    return gate * (1.0f + z * (1.0f - gate));
}

}  // namespace

extern "C" {
struct Norm {
    int64_t batch, places, channels, groups;
    const float *weight, *bias;   // [C]
    const float *scale, *shift;   // [B, C], or both null
    float eps;
    int32_t silu, threads;
};
}

namespace {

// How a picture is gone through: in rows of several places if these have few channels, for which loops would be too short.
struct Rows {
    int64_t repeat = 1, width, count, chunks;  // places and values of a row, rows, and chunks of CHUNK rows

    explicit Rows(const Norm& norm) {
        while (2 * repeat * norm.channels <= WIDTH && norm.places % (2 * repeat) == 0) repeat *= 2;
        width = repeat * norm.channels;
        count = norm.places / repeat;
        chunks = (count + CHUNK - 1) / CHUNK;
    }
};

// Calls body(chunk, image, first value, rows) for every chunk of every picture.
template <class Body>
void each_chunk(const Norm& norm, const Rows& rows, Body body) {
#pragma omp parallel for num_threads(norm.threads) schedule(static)
    for (int64_t chunk = 0; chunk < norm.batch * rows.chunks; chunk++) {
        int64_t image = chunk / rows.chunks, first = chunk % rows.chunks * CHUNK;
        body(chunk, image, (image * rows.count + first) * rows.width, std::min(CHUNK, rows.count - first));
    }
}

// The sum of a channel's values [chunks, 2, width] over its places in a row and over a picture's chunks; `second` of the two.
double total(const Norm& norm, const Rows& rows, const float* sums, int64_t channel, bool second) {
    double sum = 0;
    for (int64_t chunk = 0; chunk < rows.chunks; chunk++)
        for (int64_t place = 0; place < rows.repeat; place++)
            sum += sums[(chunk * 2 + second) * rows.width + place * norm.channels + channel];
    return sum;
}

// A value of each channel for every place of a row.
void repeat(const Norm& norm, const Rows& rows, float* values) {
    for (int64_t place = 1; place < rows.repeat; place++)
        std::copy(values, values + norm.channels, values + place * norm.channels);
}

// One picture's norm as y = slopes x + offsets [width].
void as_lines(const Norm& norm, const Rows& rows, int64_t image, const float* mean, const float* rstd, float* slopes, float* offsets) {
    int64_t each = norm.channels / norm.groups;
    for (int64_t channel = 0; channel < norm.channels; channel++) {
        int64_t group = image * norm.groups + channel / each;
        float slope = rstd[group] * norm.weight[channel], offset = norm.bias[channel] - mean[group] * slope;
        if (norm.scale) {
            float gain = 1.0f + norm.scale[image * norm.channels + channel];
            slope *= gain;
            offset = offset * gain + norm.shift[image * norm.channels + channel];
        }
        slopes[channel] = slope;
        offsets[channel] = offset;
    }
    repeat(norm, rows, slopes);
    repeat(norm, rows, offsets);
}

// One picture's means and inverse deviations [G] from its chunks' sums and sums of squares [chunks, 2, width].
void moments(const Norm& norm, const Rows& rows, const float* sums, float* mean, float* rstd) {
    int64_t each = norm.channels / norm.groups;
    double count = double(each) * norm.places;
    for (int64_t group = 0; group < norm.groups; group++) {
        double sum = 0, square = 0;
        for (int64_t channel = group * each; channel < (group + 1) * each; channel++) {
            sum += total(norm, rows, sums, channel, false);
            square += total(norm, rows, sums, channel, true);
        }
        double middle = sum / count, variance = square / count - middle * middle;
        mean[group] = float(middle);
        rstd[group] = float(1.0 / std::sqrt(std::max(variance, 0.0) + norm.eps));
    }
}

template <class In, class Out>
int forward(const Norm& norm, const In* x, Out* y, float* mean, float* rstd, Grid grid) {
    const Rows rows(norm);
    const int64_t chunks = rows.chunks, width = rows.width;
    float* sums = static_cast<float*>(std::malloc(sizeof(float) * 2 * width * norm.batch * (chunks + 1)));
    if (!sums) return 1;
    float* lines = sums + 2 * width * norm.batch * chunks;
    each_chunk(norm, rows, [&](int64_t chunk, int64_t, int64_t begin, int64_t count) {
        float *__restrict sum = sums + chunk * 2 * width, *__restrict square = sum + width;
        std::fill(sum, sum + 2 * width, 0.0f);
        for (const In* from = x + begin; from < x + begin + count * width; from += width)
            for (int64_t index = 0; index < width; index++) {
                float value = load(from[index]);
                sum[index] += value;
                square[index] += value * value;
            }
    });
    for (int64_t image = 0; image < norm.batch; image++) {
        moments(norm, rows, sums + image * chunks * 2 * width, mean + image * norm.groups, rstd + image * norm.groups);
        as_lines(norm, rows, image, mean, rstd, lines + image * 2 * width, lines + (image * 2 + 1) * width);
    }
    each_chunk(norm, rows, [&](int64_t, int64_t image, int64_t begin, int64_t count) {
        const float *__restrict slopes = lines + image * 2 * width, *__restrict offsets = slopes + width;
        // Copies, since bytes that are written might belong to whatever is referred to.
        const int64_t each = width;
        const Grid own = grid;
        const bool silu = norm.silu;
        const In* __restrict from = x + begin;
        Out* __restrict to = y + begin;
        for (int64_t row = 0; row < count; row++, from += each, to += each) {
            if (silu)
                for (int64_t index = 0; index < each; index++) {
                    float z = load(from[index]) * slopes[index] + offsets[index];
                    put(to[index], z * sigmoid(z), own);
                }
            else
                for (int64_t index = 0; index < each; index++)
                    put(to[index], load(from[index]) * slopes[index] + offsets[index], own);
        }
    });
    std::free(sums);
    return 0;
}

// One row's gradients of z (before SiLU), added to sums, and to those of their products with x.
template <class In, class Grad>
void slope_and_sum(const In* __restrict x, const Grad* __restrict dy, In* __restrict g, const float* __restrict slopes,
                   const float* __restrict offsets, float* __restrict plain, float* __restrict times, int64_t width) {
    for (int64_t index = 0; index < width; index++) {
        float value = load(x[index]), grad = load(dy[index]) * silu_slope(value * slopes[index] + offsets[index]);
        plain[index] += grad;
        times[index] += grad * value;
        store(g[index], grad);
    }
}

// dx, in which g, the gradient of z (before SiLU), is kept on the way; and own [B, 2, C]: the sums over places of g and of g times the normalized x.
template <class In, class Grad>
int backward(const Norm& norm, const In* x, const Grad* dy, In* dx, const float* mean, const float* rstd, float* own) {
    const Rows rows(norm);
    const int64_t chunks = rows.chunks, width = rows.width, channels = norm.channels, each = channels / norm.groups;
    float* sums = static_cast<float*>(std::malloc(sizeof(float) * 2 * width * norm.batch * (chunks + 2)));
    if (!sums) return 1;
    float* lines = sums + 2 * width * norm.batch * chunks;  // [B, 4, width]: z = slopes x + offsets; dx = slopes g + backs x + means
    for (int64_t image = 0; image < norm.batch; image++)
        as_lines(norm, rows, image, mean, rstd, lines + image * 4 * width, lines + (image * 4 + 1) * width);
    each_chunk(norm, rows, [&](int64_t chunk, int64_t image, int64_t begin, int64_t count) {
        const float *__restrict slopes = lines + image * 4 * width, *__restrict offsets = slopes + width;
        float *__restrict plain = sums + chunk * 2 * width, *__restrict times = plain + width;
        std::fill(plain, plain + 2 * width, 0.0f);
        for (int64_t row = 0; row < count; row++) {
            const In* __restrict from = x + begin + row * width;
            const Grad* __restrict given = dy + begin + row * width;
            In* __restrict to = dx + begin + row * width;
            if (norm.silu)
                slope_and_sum(from, given, to, slopes, offsets, plain, times, width);
            else
                for (int64_t index = 0; index < width; index++) {
                    float value = load(from[index]), grad = load(given[index]);
                    plain[index] += grad;
                    times[index] += grad * value;
                }
        }
    });
    for (int64_t image = 0; image < norm.batch; image++) {
        float *backs = lines + (image * 4 + 2) * width, *means = backs + width;
        for (int64_t group = 0; group < norm.groups; group++) {
            double middle = mean[image * norm.groups + group], inverse = rstd[image * norm.groups + group];
            double first = 0, second = 0;
            for (int64_t channel = group * each; channel < (group + 1) * each; channel++) {
                const float* part = sums + image * chunks * 2 * width;
                double plain = total(norm, rows, part, channel, false), times = total(norm, rows, part, channel, true);
                times = (times - middle * plain) * inverse;
                own[image * 2 * channels + channel] = float(plain);
                own[(image * 2 + 1) * channels + channel] = float(times);
                double gain = norm.weight[channel] * (norm.scale ? 1.0 + norm.scale[image * channels + channel] : 1.0);
                first += gain * plain;
                second += gain * times;
            }
            double count = double(each) * norm.places, back = -inverse * inverse * second / count;
            std::fill(backs + group * each, backs + (group + 1) * each, float(back));
            std::fill(means + group * each, means + (group + 1) * each, float(-inverse * first / count - back * middle));
        }
        repeat(norm, rows, backs);
        repeat(norm, rows, means);
    }
    each_chunk(norm, rows, [&](int64_t, int64_t image, int64_t begin, int64_t count) {
        const float *__restrict slopes = lines + image * 4 * width;
        const float *__restrict backs = slopes + 2 * width, *__restrict means = backs + width;
        for (int64_t row = 0; row < count; row++) {
            const In* __restrict from = x + begin + row * width;
            const Grad* __restrict given = dy + begin + row * width;
            In* __restrict to = dx + begin + row * width;
            if (norm.silu)
                for (int64_t index = 0; index < width; index++)
                    store(to[index], slopes[index] * load(to[index]) + backs[index] * load(from[index]) + means[index]);
            else
                for (int64_t index = 0; index < width; index++)
                    store(to[index], slopes[index] * load(given[index]) + backs[index] * load(from[index]) + means[index]);
        }
    });
    std::free(sums);
    return 0;
}

}  // namespace

extern "C" {
int norm_f32_f32(const Norm* norm, const void* x, void* y, float* mean, float* rstd, float inverse, float zero) {
    return forward(*norm, (const float*)x, (float*)y, mean, rstd, Grid{inverse, zero});
}
int norm_f32_u8(const Norm* norm, const void* x, void* y, float* mean, float* rstd, float inverse, float zero) {
    return forward(*norm, (const float*)x, (uint8_t*)y, mean, rstd, Grid{inverse, zero});
}
int norm_bf16_f32(const Norm* norm, const void* x, void* y, float* mean, float* rstd, float inverse, float zero) {
    return forward(*norm, (const bfloat16*)x, (float*)y, mean, rstd, Grid{inverse, zero});
}
int norm_bf16_bf16(const Norm* norm, const void* x, void* y, float* mean, float* rstd, float inverse, float zero) {
    return forward(*norm, (const bfloat16*)x, (bfloat16*)y, mean, rstd, Grid{inverse, zero});
}
int norm_bf16_u8(const Norm* norm, const void* x, void* y, float* mean, float* rstd, float inverse, float zero) {
    return forward(*norm, (const bfloat16*)x, (uint8_t*)y, mean, rstd, Grid{inverse, zero});
}
int norm_back_f32_f32(const Norm* norm, const void* x, const void* dy, void* dx, const float* mean, const float* rstd, float* own) {
    return backward(*norm, (const float*)x, (const float*)dy, (float*)dx, mean, rstd, own);
}
int norm_back_bf16_f32(const Norm* norm, const void* x, const void* dy, void* dx, const float* mean, const float* rstd, float* own) {
    return backward(*norm, (const bfloat16*)x, (const float*)dy, (bfloat16*)dx, mean, rstd, own);
}
int norm_back_bf16_bf16(const Norm* norm, const void* x, const void* dy, void* dx, const float* mean, const float* rstd, float* own) {
    return backward(*norm, (const bfloat16*)x, (const bfloat16*)dy, (bfloat16*)dx, mean, rstd, own);
}
}
