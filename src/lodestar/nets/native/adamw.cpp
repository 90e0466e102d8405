// A step of AdamW (Loshchilov and Hutter 2019, algorithm 2) on many tensors, and of averages of their weights, each value read once.
//
// In the order and with the rounding of PyTorch's own functions, which are others for what is left of a tensor after vectors of 8:
// products are joined with sums where it says so and nowhere else, and nothing is put into another order.

#ifdef __clang__
#pragma clang fp contract(off) reassociate(off)
#else
#pragma GCC optimize("no-associative-math,no-reciprocal-math,fp-contract=off")
#endif

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace {

constexpr int64_t CHUNK = 1 << 14, LANES = 8;  // values worked on at once; and in one of PyTorch's vectors

}  // namespace

extern "C" {
struct Tensor {
    int64_t count;
    float* weights;
    const float* gradients;  // null: the weights stay, and are averaged
    float *first, *second;   // moments
    float* const* averages;  // null: not averaged
    float decay, rate, root;  // 1 - rate · weight decay; rate and root with the corrections of the moments' bias
};
struct Setting {
    float factor;             // of gradients
    float first, second;      // 1 - β₁ and 1 - β₂
    float keep;               // β₂
    float eps;
    int32_t averages, threads;
    const float* shares;      // of the weights in each average's next value
};
}

namespace {

// from + share · (to - from).
inline float between(float from, float to, float share) {
    return share < 0.5f ? std::fma(share, to - from, from) : std::fma(to - from, share - 1, to);
}

template <bool tail>
void move(const Setting& of, const Tensor& tensor, int64_t begin, int64_t end) {
    const float factor = of.factor, one = of.first, two = of.second, keep = of.keep, eps = of.eps;
    const float decay = tensor.decay, rate = tensor.rate, root = tensor.root;
    const float* __restrict gradients = tensor.gradients;
    float *__restrict weights = tensor.weights, *__restrict first = tensor.first, *__restrict second = tensor.second;
    for (int64_t each = begin; each < end; each++) {
        float gradient = gradients[each] * factor;
        float mean = between(first[each], gradient, one);
        float square = tail ? std::fma(second[each], keep, two * gradient * gradient)
                            : std::fma(two * gradient, gradient, second[each] * keep);
        first[each] = mean;
        second[each] = square;
        weights[each] = weights[each] * decay - rate * mean / (std::sqrt(square) / root + eps);
    }
}

void average(float* __restrict average, const float* __restrict weights, float share, int64_t begin, int64_t end) {
    for (int64_t each = begin; each < end; each++) average[each] = between(average[each], weights[each], share);
}

}  // namespace

extern "C" {
int adamw(const Setting* setting, const Tensor* tensors, int64_t count) {
    const Setting& of = *setting;
#pragma omp parallel num_threads(of.threads)
    for (int64_t number = 0; number < count; number++) {
        const Tensor& tensor = tensors[number];
        int64_t whole = tensor.count / LANES * LANES;
#pragma omp for schedule(static) nowait
        for (int64_t begin = 0; begin < tensor.count; begin += CHUNK) {
            int64_t end = std::min(begin + CHUNK, tensor.count);
            if (tensor.gradients) {
                move<false>(of, tensor, begin, std::min(end, whole));
                move<true>(of, tensor, std::max(begin, whole), end);
            }
            if (tensor.averages)
                for (int32_t each = 0; each < of.averages; each++)
                    average(tensor.averages[each], tensor.weights, of.shares[each], begin, end);
        }
    }
    return 0;
}
}
