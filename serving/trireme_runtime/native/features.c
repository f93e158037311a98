/* feature_transform: from ids to rows, history and features; see stages/feature_transform.py. */
#include "funnel.h"
#include "vector.h"

/* A first value of a history that stands for the stored one. */
#define STORED (-2)

/* Place of `wanted` in the ascending `ids`, or -1. */
static int32_t place(const int64_t *ids, int64_t count, int64_t wanted) {
    if (count == 0) return -1;
    const int64_t *base = ids;
    while (count > 1) {
        const int64_t half = count / 2;
        base += base[half - 1] < wanted ? half : 0;
        count -= half;
    }
    return *base == wanted ? (int32_t)(base - ids) : -1;
}

/* Known items of a history that was given, to the right and in their order. */
static void align(const Bundle *bundle, const int64_t *given, int32_t *out) {
    int64_t to = bundle->length;
    for (int64_t at = bundle->length - 1; at >= 0; at--) {
        const int32_t item = given[at] < 0 ? -1 : place(bundle->item_ids, bundle->items, given[at]);
        if (item >= 0) out[--to] = item;
    }
    while (to > 0) out[--to] = -1;
}

void feature_transform(const Funnel *funnel, const Batch *batch) {
    const Bundle *bundle = &funnel->bundle;
    const int64_t length = bundle->length, numbers = bundle->numbers;
    for (int64_t row = 0; row < batch->rows; row++) {
        const int32_t found = place(bundle->user_ids, bundle->users, batch->user_id[row]);
        const int64_t user = found < 0 ? bundle->users : found;
        const int64_t *given = batch->history ? batch->history + row * length : 0;
        int32_t *index = batch->history_index + row * length;
        if (given && given[0] != STORED)
            align(bundle, given, index);
        else
            memcpy(index, bundle->history + user * length, (size_t)length * sizeof *index);
        memcpy(batch->user_category + row * bundle->categories, bundle->category + user * bundle->categories,
               (size_t)bundle->categories * sizeof *bundle->category);
        for (int64_t at = 0; batch->context && at < bundle->contexts; at++) {
            const int32_t value = batch->context[row * bundle->contexts + at];
            batch->user_category[(row + 1) * bundle->categories - bundle->contexts + at] =
                value >= 0 && value < bundle->context_sizes[at] ? value : 0;
        }
        float *number = batch->user_number + row * numbers;
        memcpy(number, bundle->number + user * (numbers - 1), (size_t)(numbers - 1) * sizeof *number);
        int64_t known = 0;
        for (int64_t at = 0; at < length; at++) known += index[at] >= 0;
        number[numbers - 1] = log1pf((float)known);
        batch->user_row[row] = found;
    }
}
