#include "order.h"
#include "vector.h"

/* Values looked at to guess where the k-th largest lies. */
#define SAMPLE 500

INLINE void swap(float *values, int64_t one, int64_t other) {
    const float held = values[one];
    values[one] = values[other];
    values[other] = held;
}

/* Hoare's selection, with the median of three. */
float kth_largest(float *values, int64_t count, int64_t k) {
    int64_t first = 0, last = count - 1;
    const int64_t wanted = k - 1;
    while (first < last) {
        const int64_t middle = first + (last - first) / 2;
        if (values[middle] > values[first]) swap(values, middle, first);
        if (values[last] > values[first]) swap(values, last, first);
        if (values[last] > values[middle]) swap(values, last, middle);
        const float pivot = values[middle];
        int64_t low = first, high = last;
        while (low <= high) {
            while (values[low] > pivot) low++;
            while (values[high] < pivot) high--;
            if (low <= high) swap(values, low++, high--);
        }
        if (wanted <= high)
            last = high;
        else if (wanted >= low)
            first = low;
        else
            break;
    }
    return values[wanted];
}

static int64_t collect(const float *values, int64_t count, float bound, float *found) {
    int64_t size = 0, at = 0;
    while (at < count) {
        if (at + 8 <= count && !any(load(values + at) >= splat(bound))) {
            at += 8;
            continue;
        }
        for (const int64_t end = at + 8 < count ? at + 8 : count; at < end; at++) {
            found[size] = values[at];
            size += values[at] >= bound;
        }
    }
    return size;
}

float bound_of_best(const float *values, int64_t count, int64_t k, float *sample, float *found) {
    float bound = -INFINITY;
    if (count > 2 * k && count > SAMPLE) {
        const int64_t step = count / SAMPLE;
        int64_t size = 0;
        for (int64_t at = 0; at < count; at += step) sample[size++] = values[at];
        /* Three standard deviations deeper than where it is expected. */
        const float expected = (float)k / (float)step;
        const int64_t rank = (int64_t)(expected + 3.0f * sqrtf(expected)) + 1;
        bound = kth_largest(sample, size, rank < size ? rank : size);
    }
    int64_t size = collect(values, count, bound, found);
    if (size < k) size = collect(values, count, -INFINITY, found);
    return size < k ? -INFINITY : kth_largest(found, size, k);
}

uint64_t descending_key(float score, uint32_t column) {
    uint32_t bits;
    memcpy(&bits, &score, sizeof bits);
    if (bits == 0x80000000u) bits = 0; /* -0 equals 0 */
    /* Integers in the order of the floats: all bits of a negative one are flipped, the sign of others; then turned around. */
    const uint32_t ordered = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return (uint64_t)~ordered << 32 | column;
}

static void insertion_sort(uint64_t *keys, int64_t count) {
    for (int64_t at = 1; at < count; at++) {
        const uint64_t key = keys[at];
        int64_t to = at;
        for (; to > 0 && keys[to - 1] > key; to--) keys[to] = keys[to - 1];
        keys[to] = key;
    }
}

void sort_keys(uint64_t *keys, int64_t count) {
    while (count > 24) {
        const uint64_t pivot = keys[0] > keys[count - 1] ? (keys[count / 2] > keys[0]           ? keys[0]
                                                            : keys[count / 2] < keys[count - 1] ? keys[count - 1]
                                                                                                : keys[count / 2])
                               : (keys[count / 2] > keys[count - 1]) ? keys[count - 1]
                               : keys[count / 2] < keys[0]           ? keys[0]
                                                                     : keys[count / 2];
        int64_t low = 0, high = count - 1;
        while (low <= high) {
            while (keys[low] < pivot) low++;
            while (keys[high] > pivot) high--;
            if (low <= high) {
                const uint64_t held = keys[low];
                keys[low++] = keys[high];
                keys[high--] = held;
            }
        }
        /* The shorter part by recursion, so that the stack stays flat. */
        if (high + 1 < count - low) {
            sort_keys(keys, high + 1);
            keys += low;
            count -= low;
        } else {
            sort_keys(keys + low, count - low);
            count = high + 1;
        }
    }
    insertion_sort(keys, count);
}
