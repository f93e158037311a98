/* retrieval: the exact best items by inner product, most of which are ruled out by codes of one byte per dimension.
 *
 * A vector is a code times a step plus an error, in dimensions scaled to one range. The product of a query with the code is
 * within |query| |error| of that with the vector (Cauchy and Schwarz). An item whose upper bound does not reach the k-th largest
 * lower bound is not among the best k; the others are scored in full. So a lone query reads a quarter of the memory, and the
 * candidates and their scores are those of a product with all vectors, up to the order of additions. */
#include "funnel.h"
#include "order.h"
#include "vector.h"

#ifdef __AVX2__
#include <immintrin.h>
#endif

/* Users that a code is read for at once, and items whose codes lie side by side, two dimensions at a time. */
#define USERS 4
#define ITEMS 8
/* Items with those that fill up the last group. */
#define ROOM(items) (((items) + ITEMS - 1) / ITEMS * ITEMS)
/* Largest value of a query's integers: products of 128 dimensions with a code stay below 2^31. */
#define LARGEST 32767.0f
/* How far rounding may move a score or a bound, as a share of the product of the lengths. */
#define ROUNDING 1e-5f
/* Beyond these, steps and bounds lose their precision, squares of what is not much larger first. */
#define TINY 1e-20f
#define HUGE_SLACK 1e30f

typedef int8_t v16b __attribute__((vector_size(16), aligned(1)));
typedef int16_t v16s __attribute__((vector_size(32)));

typedef struct {
    float step;  /* what a unit of the integers stands for */
    float base;  /* product with the mean vector */
    float reach; /* length of the scaled query */
    float slack; /* what the integers and rounding may be off by */
} Scaled;

/* The integers of a query. Where they, or the bounds, would leave the range of a float, there are none, and no bound either: then
 * every item is scored in full. */
static Scaled quantise(const Bundle *bundle, const float *query, int16_t *out) {
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

/* Estimates of all items for some users whose integers lie behind each other. */
INLINE void estimate(const Bundle *bundle, const int16_t *quantised, const Scaled *scaled, float *out, const int users) {
    const int64_t width = PADDED(bundle->dim), room = ROOM(bundle->items);
    const int8_t *code = bundle->codes;
    for (int64_t item = 0; item < bundle->items; item += ITEMS) {
        v8i total[USERS] = {0};
        for (int64_t at = 0; at < width; at += 2, code += 2 * ITEMS) {
            const v16s codes = __builtin_convertvector(*(const v16b *)code, v16s);
            for (int user = 0; user < users; user++) {
                int32_t pair;
                memcpy(&pair, quantised + user * width + at, sizeof pair);
                total[user] = add_products(total[user], codes, pair);
            }
        }
        const v8 step = load(bundle->step + item);
        for (int user = 0; user < users; user++)
            store(out + user * room + item, splat(scaled[user].base) +
                                                splat(scaled[user].step) * step * __builtin_convertvector(total[user], v8));
    }
}

static void exclude(const Funnel *funnel, const Batch *batch, int64_t row, float *estimates) {
    const Bundle *bundle = &funnel->bundle;
    const int64_t user = batch->user_row[row] < 0 ? bundle->users : batch->user_row[row];
    for (int64_t at = bundle->seen_offsets[user]; at < bundle->seen_offsets[user + 1]; at++)
        estimates[bundle->seen_items[at]] = -INFINITY;
    const int32_t *history = batch->history_index + row * bundle->length;
    for (int64_t at = 0; at < bundle->length; at++)
        if (history[at] >= 0) estimates[history[at]] = -INFINITY;
    for (int64_t at = funnel->offsets[row]; at < funnel->offsets[row + 1]; at++)
        estimates[batch->excluded_item[at]] = -INFINITY;
}

/* Inner product of rows of any width. */
static float product(const float *one, const float *other, int64_t width) {
    const int64_t whole = width / 8 * 8;
    float total = dot(one, other, whole);
    for (int64_t at = whole; at < width; at++) total += one[at] * other[at];
    return total;
}

/* Writes the best of the items whose bound is high enough, ascending by index, and padding. */
static void choose(const Funnel *funnel, const float *query, const Scaled *scaled, const float *estimates, int32_t *index,
                   float *score) {
    const Bundle *bundle = &funnel->bundle;
    const int64_t items = bundle->items, wanted = bundle->candidates;
    const float *error = bundle->error;
    float *lower = funnel->lower, *exact = funnel->lower;
    for (int64_t item = 0; item < items; item++) lower[item] = estimates[item] - scaled->reach * error[item];
    const float bound = bound_of_best(lower, items, wanted, funnel->sample, funnel->found) - 2.0f * scaled->slack;
    int32_t *kept = funnel->kept;
    int64_t count = 0;
    for (int64_t item = 0; item < items; item++) {
        kept[count] = (int32_t)item;
        count += estimates[item] > -INFINITY && !(estimates[item] + scaled->reach * error[item] < bound);
    }
    for (int64_t at = 0; at < count; at++) exact[at] = product(query, bundle->vectors + kept[at] * bundle->dim, bundle->dim);
    float least = -INFINITY;
    int64_t equal = 0;
    if (count > wanted) {
        memcpy(funnel->found, exact, (size_t)count * sizeof *exact);
        least = kth_largest(funnel->found, count, wanted);
        equal = wanted;
        for (int64_t at = 0; at < count; at++) equal -= exact[at] > least;
    }
    int64_t taken = 0;
    for (int64_t at = 0; at < count; at++)
        if (exact[at] > least || (exact[at] == least && equal-- > 0)) {
            index[taken] = kept[at];
            score[taken++] = exact[at];
        }
    for (; taken < wanted; taken++) {
        index[taken] = -1;
        score[taken] = 0.0f;
    }
}

static int usable(const float *query, int64_t dim) {
    int finite = 1;
    for (int64_t at = 0; at < dim; at++) finite &= isfinite(query[at]) != 0;
    return finite;
}

void retrieval(const Funnel *funnel, const Batch *batch) {
    const Bundle *bundle = &funnel->bundle;
    const int64_t wanted = bundle->candidates, dim = bundle->dim;
    for (int64_t first = 0; first < batch->rows; first += USERS) {
        const int users = (int)(batch->rows - first < USERS ? batch->rows - first : USERS);
        Scaled scaled[USERS] = {{0}};
        int finite[USERS];
        for (int user = 0; user < users; user++) {
            const float *query = batch->query + (first + user) * dim;
            finite[user] = usable(query, dim);
            if (finite[user]) scaled[user] = quantise(bundle, query, funnel->quantised + user * PADDED(dim));
        }
        if (users == USERS)
            estimate(bundle, funnel->quantised, scaled, funnel->estimate, USERS);
        else
            for (int user = 0; user < users; user++)
                estimate(bundle, funnel->quantised + user * PADDED(dim), scaled + user,
                         funnel->estimate + user * ROOM(bundle->items), 1);
        for (int user = 0; user < users; user++) {
            const int64_t row = first + user;
            int32_t *index = batch->candidate_index + row * wanted;
            float *score = batch->retrieval_score + row * wanted;
            if (finite[user]) {
                float *estimates = funnel->estimate + user * ROOM(bundle->items);
                exclude(funnel, batch, row, estimates);
                choose(funnel, batch->query + row * dim, scaled + user, estimates, index, score);
            } else
                for (int64_t at = 0; at < wanted; at++) {
                    index[at] = -1;
                    score[at] = NAN;
                }
        }
    }
}
