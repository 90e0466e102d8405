// Values as they are stored, and their exponentials.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

struct bfloat16 {
    uint16_t bits;
};

inline float load(float value) { return value; }
inline float load(bfloat16 value) {
    uint32_t bits = uint32_t(value.bits) << 16;
    float wide;
    std::memcpy(&wide, &bits, 4);
    return wide;
}

inline void store(float& to, float value) { to = value; }
inline void store(bfloat16& to, float value) {  // to the nearest, ties to even
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    to.bits = uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// 2^x for x in [-126, 126], limited to that, to 2e-7: a power of two and a polynomial, of which compilers make vectors. NaN stays NaN.
inline float power_of_two(float x) {
    x = x < -126.0f ? -126.0f : x > 126.0f ? 126.0f : x;
    float whole = std::floor(x + 0.5f), rest = x - whole;
    float power = 1.0f + rest * (0.69314718f + rest * (0.24022651f + rest * (0.055504109f + rest * (0.0096181291f
                + rest * (0.0013333558f + rest * 0.00015403530f)))));
    int32_t bits = (int32_t(whole) + 127) << 23;
    float factor;
    std::memcpy(&factor, &bits, 4);
    return power * factor;
}
