#include "codes.h"
#include "order.h"

#ifdef __AVX2__
#include <immintrin.h>
#endif

/* Largest value of a query's integers: products of 128 dimensions with a code stay below 2^31. */
#define LARGEST 32767.0f
/* How far rounding may move a score or a bound, as a share of the product of the lengths. */
#define ROUNDING 1e-5f
/* Beyond these, steps and bounds lose their precision, squares of what is not much larger first. */
#define TINY 1e-20f
#define HUGE_SLACK 1e30f
/* Vectors that are fetched while one is read. */
#define AHEAD 4

typedef int8_t v16b __attribute__((vector_size(16), aligned(1)));
typedef int16_t v16s __attribute__((vector_size(32)));

Scaled quantise(const Bundle *bundle, const float *query, int16_t *out) {
    const int64_t dim = bundle->dim;
    float most = 0.0f, square = 0.0f, own = 0.0f, base = 0.0f;
    for (int64_t at = 0; at < dim; at++) {
        const float value = query[at] * bundle->range[at], size = fabsf(value);
        most = size > most ? size : most;
        square += value * value;
        own += query[at] * query[at];
        base += query[at] * bundle->centre[at];
    }
    const float largest = LARGEST < 16e6f / (float)dim ? LARGEST : 16e6f / (float)dim;
    const float step = most > 0.0f ? most / largest : 1.0f, inverse = 1.0f / step;
    const float left_out = 0.5f * step * sqrtf((float)dim), reach = sqrtf(square) + left_out;
    const float slack = left_out * bundle->longest_code +
                        ROUNDING * (sqrtf(own) * bundle->longest + reach * bundle->longest_code + fabsf(base));
    memset(out, 0, (size_t)PADDED(dim) * sizeof *out);
    if (!(step > TINY && slack < HUGE_SLACK)) return (Scaled){0.0f, 0.0f, INFINITY, 0.0f};
    for (int64_t at = 0; at < dim; at++) out[at] = (int16_t)rintf(query[at] * bundle->range[at] * inverse);
    return (Scaled){step, base, reach, slack};
}

/* Adds to the sums of eight items what two dimensions give: codes are 8 pairs, `pair` is the two integers of a query. */
INLINE v8i add_products(v8i total, v16s codes, int32_t pair) {
#ifdef __AVX2__
    return total + (v8i)_mm256_madd_epi16((__m256i)codes, _mm256_set1_epi32(pair));
#else
    for (int item = 0; item < ITEMS; item++)
        total[item] += codes[2 * item] * (int16_t)pair + codes[2 * item + 1] * (pair >> 16);
    return total;
#endif
}

INLINE void fetch(const void *from, int64_t bytes) {
    for (int64_t at = 0; at < bytes; at += LINE) __builtin_prefetch((const char *)from + at);
}

/* Products in integers with the next eight vectors, whose codes start at `code`. */
INLINE void products(const int8_t *code, const int16_t *quantised, int64_t width, const int users, v8i *total) {
    for (int64_t from = 0; from < width; from += PAD)
#pragma GCC unroll 8
        for (int64_t at = from; at < from + PAD; at += 2, code += 2 * ITEMS) {
            const v16s codes = __builtin_convertvector(*(const v16b *)code, v16s);
            for (int user = 0; user < users; user++) {
                int32_t pair;
                memcpy(&pair, quantised + user * width + at, sizeof pair);
                total[user] = add_products(total[user], codes, pair);
            }
        }
}

INLINE v8 estimate(const Scaled *scaled, v8 step, v8i total) {
    return splat(scaled->base) + splat(scaled->step) * step * __builtin_convertvector(total, v8);
}

void estimates(const Bundle *bundle, const int8_t *codes, const float *step, const int16_t *quantised, const Scaled *scaled,
               int64_t count, float *out) {
    const int64_t width = PADDED(bundle->dim);
    for (int64_t at = 0; at < count; at += ITEMS) {
        v8i total[USERS] = {0};
        products(codes + at * width, quantised, width, 1, total);
        store(out + at, estimate(scaled, load(step + at), total[0]));
    }
}

INLINE void bounds_of(const Bundle *bundle, const int16_t *quantised, const Scaled *scaled, const int users, int64_t first,
                      int64_t last, int64_t next, float *lower, float *upper, int64_t stride) {
    const int64_t width = PADDED(bundle->dim);
    for (int64_t item = first; item < last; item += ITEMS, next += ITEMS) {
        if (next < bundle->places) {
            fetch(bundle->codes + next * width, ITEMS * width);
            fetch(bundle->step + next, LINE);
            fetch(bundle->error + next, LINE);
        }
        v8i total[USERS] = {0};
        products(bundle->codes + item * width, quantised, width, users, total);
        const v8 step = load(bundle->step + item), error = load(bundle->error + item);
        for (int user = 0; user < users; user++) {
            const v8 middle = estimate(scaled + user, step, total[user]), off = splat(scaled[user].reach) * error;
            store(lower + user * stride + item - first, middle - off);
            store(upper + user * stride + item - first, middle + off);
        }
    }
}

void bounds(const Bundle *bundle, const int16_t *quantised, const Scaled *scaled, int users, int64_t first, int64_t last,
            int64_t next, float *lower, float *upper, int64_t stride) {
    if (users == USERS)
        bounds_of(bundle, quantised, scaled, USERS, first, last, next, lower, upper, stride);
    else
        bounds_of(bundle, quantised, scaled, 1, first, last, next, lower, upper, stride);
}

/* Inner product of rows of any width. */
static float product(const float *one, const float *other, int64_t width) {
    const int64_t whole = width / 8 * 8;
    float total = dot(one, other, whole);
    for (int64_t at = whole; at < width; at++) total += one[at] * other[at];
    return total;
}

/* Replaces ascending positions among the bounds by the places that they are of. */
static void to_places(const Span *span, int32_t *kept, int64_t count) {
    for (int64_t at = 0; at < count; at++) {
        while (kept[at] >= span[1].start) span++;
        kept[at] = (int32_t)(kept[at] - span->start + span->first);
    }
}

int64_t choose(const Funnel *funnel, const float *query, const Scaled *scaled, float *lower, const float *upper, int64_t count,
               const Span *spans, int32_t *place, float *score) {
    const Bundle *bundle = &funnel->bundle;
    const int64_t wanted = bundle->candidates;
    const float bound = bound_of_best(lower, count, wanted, funnel->sample, funnel->found) - 2.0f * scaled->slack;
    float *exact = lower;
    int32_t *kept = funnel->kept;
    int64_t left = 0;
    for (int64_t at = 0; at < count;) {
        if (at + ITEMS <= count && !any(~(load(upper + at) < splat(bound)))) {
            at += ITEMS;
            continue;
        }
        for (const int64_t end = at + ITEMS < count ? at + ITEMS : count; at < end; at++) {
            kept[left] = (int32_t)at;
            left += upper[at] > -INFINITY && !(upper[at] < bound);
        }
    }
    if (spans) to_places(spans, kept, left);
    for (int64_t at = 0; at < left; at++) {
        if (at + AHEAD < left) fetch(bundle->vectors + kept[at + AHEAD] * bundle->dim, bundle->dim * (int64_t)sizeof(float));
        const float value = product(query, bundle->vectors + kept[at] * bundle->dim, bundle->dim);
        exact[at] = isnan(value) ? -INFINITY : value; /* sums that overflow may be no number, and have no order then */
    }
    float least = -INFINITY;
    int64_t equal = 0;
    if (left > wanted) {
        memcpy(funnel->found, exact, (size_t)left * sizeof *exact);
        least = kth_largest(funnel->found, left, wanted);
        equal = wanted;
        for (int64_t at = 0; at < left; at++) equal -= exact[at] > least;
    }
    int64_t taken = 0;
    for (int64_t at = 0; at < left; at++)
        if (exact[at] > least || (exact[at] == least && equal-- > 0)) {
            place[taken] = kept[at];
            score[taken++] = exact[at];
        }
    return taken;
}

void for_excluded(const Funnel *funnel, const Batch *batch, int64_t row, LeaveOut *leave_out, void *context) {
    const Bundle *bundle = &funnel->bundle;
    const int64_t user = batch->user_row[row] < 0 ? bundle->users : batch->user_row[row];
    for (int64_t at = bundle->seen_offsets[user]; at < bundle->seen_offsets[user + 1]; at++)
        leave_out(context, bundle->seen_items[at]);
    const int32_t *history = batch->history_index + row * bundle->length;
    for (int64_t at = 0; at < bundle->length; at++)
        if (history[at] >= 0) leave_out(context, history[at]);
    for (int64_t at = funnel->offsets[row]; at < funnel->offsets[row + 1]; at++) leave_out(context, batch->excluded_item[at]);
}

void pad(const Bundle *bundle, int64_t from, float score, int32_t *index, float *scores) {
    for (int64_t at = from; at < bundle->candidates; at++) {
        index[at] = -1;
        scores[at] = score;
    }
}
