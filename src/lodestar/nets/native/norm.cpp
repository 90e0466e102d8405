// Group normalization of channels-last activations [B, P, C] with scale, shift and SiLU: forward and backward in two readings each.
//
// Sums are taken over chunks of places in float and joined in double in a fixed order, so that a picture's result depends neither
// on its batch nor on the number of threads.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "values.hpp"

namespace {

constexpr int64_t CHUNK = 256;

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

int64_t chunks_of(const Norm& norm) { return (norm.places + CHUNK - 1) / CHUNK; }

// Calls body(chunk, image, first value, places) for every chunk of every picture.
template <class Body>
void each_chunk(const Norm& norm, Body body) {
    int64_t chunks = chunks_of(norm);
#pragma omp parallel for num_threads(norm.threads) schedule(static)
    for (int64_t chunk = 0; chunk < norm.batch * chunks; chunk++) {
        int64_t image = chunk / chunks, first = chunk % chunks * CHUNK;
        body(chunk, image, (image * norm.places + first) * norm.channels, std::min(CHUNK, norm.places - first));
    }
}

// One picture's norm as y = slopes x + offsets [C].
void as_lines(const Norm& norm, int64_t image, const float* mean, const float* rstd, float* slopes, float* offsets) {
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
}

// One picture's means and inverse deviations [G] from its chunks' sums and sums of squares [chunks, 2, C].
void moments(const Norm& norm, const float* sums, float* mean, float* rstd) {
    int64_t each = norm.channels / norm.groups;
    double count = double(each) * norm.places;
    for (int64_t group = 0; group < norm.groups; group++) {
        double sum = 0, square = 0;
        for (int64_t chunk = 0; chunk < chunks_of(norm); chunk++) {
            const float* part = sums + chunk * 2 * norm.channels + group * each;
            for (int64_t channel = 0; channel < each; channel++) {
                sum += part[channel];
                square += part[norm.channels + channel];
            }
        }
        double middle = sum / count, variance = square / count - middle * middle;
        mean[group] = float(middle);
        rstd[group] = float(1.0 / std::sqrt(std::max(variance, 0.0) + norm.eps));
    }
}

template <class In, class Out>
int forward(const Norm& norm, const In* x, Out* y, float* mean, float* rstd, Grid grid) {
    int64_t chunks = chunks_of(norm), channels = norm.channels;
    float* sums = static_cast<float*>(std::malloc(sizeof(float) * 2 * channels * norm.batch * (chunks + 1)));
    if (!sums) return 1;
    float* lines = sums + 2 * channels * norm.batch * chunks;
    each_chunk(norm, [&](int64_t chunk, int64_t, int64_t begin, int64_t places) {
        float *__restrict sum = sums + chunk * 2 * channels, *__restrict square = sum + channels;
        std::fill(sum, sum + 2 * channels, 0.0f);
        for (const In* from = x + begin; from < x + begin + places * channels; from += channels)
            for (int64_t channel = 0; channel < channels; channel++) {
                float value = load(from[channel]);
                sum[channel] += value;
                square[channel] += value * value;
            }
    });
    for (int64_t image = 0; image < norm.batch; image++) {
        moments(norm, sums + image * chunks * 2 * channels, mean + image * norm.groups, rstd + image * norm.groups);
        as_lines(norm, image, mean, rstd, lines + image * 2 * channels, lines + (image * 2 + 1) * channels);
    }
    each_chunk(norm, [&](int64_t, int64_t image, int64_t begin, int64_t places) {
        const float *__restrict slopes = lines + image * 2 * channels, *__restrict offsets = slopes + channels;
        // Copies, since bytes that are written might belong to whatever is referred to.
        const int64_t count = channels;
        const Grid own = grid;
        const bool silu = norm.silu;
        const In* __restrict from = x + begin;
        Out* __restrict to = y + begin;
        for (int64_t place = 0; place < places; place++, from += count, to += count) {
            if (silu)
                for (int64_t channel = 0; channel < count; channel++) {
                    float z = load(from[channel]) * slopes[channel] + offsets[channel];
                    put(to[channel], z * sigmoid(z), own);
                }
            else
                for (int64_t channel = 0; channel < count; channel++)
                    put(to[channel], load(from[channel]) * slopes[channel] + offsets[channel], own);
        }
    });
    std::free(sums);
    return 0;
}

// One place's gradients of z (before SiLU), added to sums, and to those of their products with x.
template <class In, class Grad>
void slope_and_sum(const In* __restrict x, const Grad* __restrict dy, In* __restrict g, const float* __restrict slopes,
                   const float* __restrict offsets, float* __restrict plain, float* __restrict times, int64_t channels) {
    for (int64_t channel = 0; channel < channels; channel++) {
        float value = load(x[channel]), grad = load(dy[channel]) * silu_slope(value * slopes[channel] + offsets[channel]);
        plain[channel] += grad;
        times[channel] += grad * value;
        store(g[channel], grad);
    }
}

// dx, in which g, the gradient of z (before SiLU), is kept on the way; and own [B, 2, C]: the sums over places of g and of g times the normalized x.
template <class In, class Grad>
int backward(const Norm& norm, const In* x, const Grad* dy, In* dx, const float* mean, const float* rstd, float* own) {
    int64_t chunks = chunks_of(norm), channels = norm.channels, each = channels / norm.groups;
    float* sums = static_cast<float*>(std::malloc(sizeof(float) * 2 * channels * norm.batch * (chunks + 2)));
    if (!sums) return 1;
    float* lines = sums + 2 * channels * norm.batch * chunks;  // [B, 4, C]: z = slopes x + offsets; dx = slopes g + backs x + means
    for (int64_t image = 0; image < norm.batch; image++)
        as_lines(norm, image, mean, rstd, lines + image * 4 * channels, lines + (image * 4 + 1) * channels);
    each_chunk(norm, [&](int64_t chunk, int64_t image, int64_t begin, int64_t places) {
        const float *__restrict slopes = lines + image * 4 * channels, *__restrict offsets = slopes + channels;
        float *__restrict plain = sums + chunk * 2 * channels, *__restrict times = plain + channels;
        std::fill(plain, plain + 2 * channels, 0.0f);
        for (int64_t place = 0; place < places; place++) {
            const In* __restrict from = x + begin + place * channels;
            const Grad* __restrict given = dy + begin + place * channels;
            In* __restrict to = dx + begin + place * channels;
            if (norm.silu)
                slope_and_sum(from, given, to, slopes, offsets, plain, times, channels);
            else
                for (int64_t channel = 0; channel < channels; channel++) {
                    float value = load(from[channel]), grad = load(given[channel]);
                    plain[channel] += grad;
                    times[channel] += grad * value;
                }
        }
    });
    for (int64_t image = 0; image < norm.batch; image++) {
        float *backs = lines + (image * 4 + 2) * channels, *means = backs + channels;
        for (int64_t group = 0; group < norm.groups; group++) {
            double middle = mean[image * norm.groups + group], inverse = rstd[image * norm.groups + group];
            double first = 0, second = 0;
            for (int64_t channel = group * each; channel < (group + 1) * each; channel++) {
                double plain = 0, times = 0;
                for (int64_t chunk = image * chunks; chunk < (image + 1) * chunks; chunk++) {
                    plain += sums[chunk * 2 * channels + channel];
                    times += sums[(chunk * 2 + 1) * channels + channel];
                }
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
    }
    each_chunk(norm, [&](int64_t, int64_t image, int64_t begin, int64_t places) {
        const float *__restrict slopes = lines + image * 4 * channels;
        const float *__restrict backs = slopes + 2 * channels, *__restrict means = backs + channels;
        for (int64_t place = 0; place < places; place++) {
            const In* __restrict from = x + begin + place * channels;
            const Grad* __restrict given = dy + begin + place * channels;
            In* __restrict to = dx + begin + place * channels;
            if (norm.silu)
                for (int64_t channel = 0; channel < channels; channel++)
                    store(to[channel], slopes[channel] * load(to[channel]) + backs[channel] * load(from[channel]) + means[channel]);
            else
                for (int64_t channel = 0; channel < channels; channel++)
                    store(to[channel], slopes[channel] * load(given[channel]) + backs[channel] * load(from[channel]) + means[channel]);
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
