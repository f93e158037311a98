/* ranking: a score for every candidate; see RankerCore in trireme_export/models/ranker.py.
 *
 * What is compared with a candidate (the newest items, their means, the parts of the user's vector) is one matrix per user, so
 * that a candidate's vector is read once. Padding has no score: reranking does not look at it. */
#include "funnel.h"
#include "vector.h"

/* Vectors of the newest items, as rows behind each other; returns how many. */
static int64_t read_newest(const Bundle *bundle, const int32_t *history, float *out) {
    const int64_t width = bundle->rank_width, window = bundle->rank_history;
    int64_t count = 0;
    for (int64_t at = bundle->length - window; at < bundle->length; at++)
        if (history[at] >= 0)
            memcpy(out + count++ * width, bundle->item_vector + (int64_t)history[at] * width, (size_t)width * sizeof *out);
    return count;
}

/* Means of the vectors by recency, one per head. */
static void means(const Bundle *bundle, const float *read, int64_t count, float *out) {
    const int64_t width = bundle->rank_width;
    for (int64_t head = 0; head < bundle->rank_heads; head++, out += width) {
        const float *weight = bundle->recency + (head + 1) * bundle->rank_history - count;
        float total = 0.0f;
        memset(out, 0, (size_t)width * sizeof *out);
        for (int64_t item = 0; item < count; item++) {
            total += weight[item];
            for (int64_t at = 0; at < width; at++) out[at] += weight[item] * read[item * width + at];
        }
        const float share = 1.0f / (total > 1e-9f ? total : 1e-9f);
        for (int64_t at = 0; at < width; at++) out[at] *= share;
    }
}

/* The first layer's part of the user, and the user's vector. */
static void user_part(const Funnel *funnel, const Batch *batch, int64_t row, const float *mean) {
    const Bundle *bundle = &funnel->bundle;
    float *features = funnel->hidden, *normal = funnel->features;
    memcpy(features, mean, (size_t)bundle->rank_width * sizeof *features);
    const int64_t width =
        bundle->rank_width + user_features(bundle, batch->user_category + row * bundle->categories,
                                           batch->user_number + row * bundle->numbers, bundle->rank_category,
                                           bundle->rank_first, features + bundle->rank_width);
    normalise(features, width, bundle->rank_norm, normal);
    linear(normal, 1, width, width, bundle->user_half, bundle->user_half_bias, funnel->half, 0, bundle->rank_hidden);
    linear(normal, 1, width, width, bundle->user_vector, bundle->user_vector_bias, funnel->vector, 0, bundle->rank_width);
}

/* Panels of everything that a candidate's vector is multiplied with: means, parts of the user's vector, newest items. */
static int64_t compare_with(const Funnel *funnel, const float *mean, const float *read, int64_t count) {
    const Bundle *bundle = &funnel->bundle;
    const int64_t width = bundle->rank_width, part = width / bundle->groups, fixed = bundle->rank_heads + bundle->groups;
    float *panels = funnel->compared;
    memset(panels, 0, (size_t)(PADDED(fixed + count) * width) * sizeof *panels);
    for (int64_t column = 0; column < fixed + count; column++) {
        float *to = panels + column / PAD * PAD * width + column % PAD;
        const int64_t group = column - bundle->rank_heads;
        if (group < 0 || column >= fixed) {
            const float *from = group < 0 ? mean + column * width : read + (column - fixed) * width;
            for (int64_t at = 0; at < width; at++) to[at * PAD] = from[at];
        } else
            for (int64_t at = group * part; at < (group + 1) * part; at++) to[at * PAD] = funnel->vector[at];
    }
    return fixed + count;
}

/* The retrieval score standardised within the list, its square and the log of its share, into the first three columns of
 * `between`; the scales of the second and third are part of the weights. */
static void score_features(const float *score, int64_t count, float *between, int64_t stride) {
    float total = 0.0f, square = 0.0f;
    for (int64_t at = 0; at < count; at++) {
        const float value = score[at] > 1e6f ? 1e6f : score[at] < -1e6f ? -1e6f : score[at];
        between[at * stride] = value;
        total += value;
    }
    const float mean = total / (float)count;
    for (int64_t at = 0; at < count; at++) {
        const float centred = between[at * stride] - mean;
        square += centred * centred;
    }
    const float scale = 1.0f / sqrtf(square / (float)count + 1e-6f);
    float share = 0.0f;
    for (int64_t at = 0; at < count; at += 8) {
        v8 value = splat(-INFINITY);
        for (int part = 0; part < 8 && at + part < count; part++) {
            const float centred = between[(at + part) * stride] - mean;
            value[part] = centred > 60.0f ? 60.0f : centred;
        }
        value = exponential(value);
        for (int part = 0; part < 8 && at + part < count; part++) share += value[part];
    }
    const float log_share = logf(share + 1e-9f);
    for (int64_t at = 0; at < count; at++) {
        float *features = between + at * stride;
        const float centred = features[0] - mean, standard = centred * scale, least = centred - log_share;
        features[0] = standard > 8.0f ? 8.0f : standard < -8.0f ? -8.0f : standard;
        features[1] = features[0] * features[0];
        features[2] = least < -30.0f ? -30.0f : least;
    }
}

/* From products to the features of the interaction: means and groups move left, the largest product with a newest item follows. */
static void interact(const Bundle *bundle, const float *products, int64_t columns, int64_t newest, float *features) {
    const int64_t fixed = columns - newest;
    memcpy(features + 3, products, (size_t)fixed * sizeof *features);
    /* Padding of the history counts as a vector of zeros. */
    float nearest = newest < bundle->rank_history ? 0.0f : products[fixed];
    for (int64_t at = fixed; at < columns; at++) nearest = products[at] > nearest ? products[at] : nearest;
    features[3 + fixed] = nearest;
}

static void score_row(const Funnel *funnel, const Batch *batch, int64_t row, int64_t count) {
    const Bundle *bundle = &funnel->bundle;
    const int64_t width = bundle->rank_width, hidden = bundle->rank_hidden, padded = PADDED(hidden);
    const int64_t inputs = 3 + bundle->rank_heads + bundle->groups + 1, between = PADDED(inputs);
    const int32_t *candidate = batch->candidate_index + row * bundle->candidates;
    float *mean = funnel->question;
    const int64_t newest = read_newest(bundle, batch->history_index + row * bundle->length, funnel->reading);
    means(bundle, funnel->reading, newest, mean);
    user_part(funnel, batch, row, mean);
    const int64_t columns = compare_with(funnel, mean, funnel->reading, newest), stride = PADDED(columns);
    for (int64_t at = 0; at < count; at++)
        memcpy(funnel->candidate + at * width, bundle->item_vector + (int64_t)candidate[at] * width,
               (size_t)width * sizeof *funnel->candidate);
    /* Both layers' rows are longer than what is compared, so their memory serves for the products, too. */
    float *products = funnel->first;
    linear(funnel->candidate, count, width, width, funnel->compared, 0, products, stride, columns);
    for (int64_t at = 0; at < count; at++)
        interact(bundle, products + at * stride, columns, newest, funnel->between + at * between);
    score_features(batch->retrieval_score + row * bundle->candidates, count, funnel->between, between);
    linear(funnel->between, count, between, inputs, bundle->interaction, funnel->half, funnel->first, padded, hidden);
    for (int64_t at = 0; at < count; at++) {
        const float *item = bundle->item_half + (int64_t)candidate[at] * hidden;
        float *first = funnel->first + at * padded;
        for (int64_t unit = 0; unit < hidden; unit++) {
            const float value = first[unit] + item[unit];
            first[unit] = value < 0.0f ? 0.0f : value;
        }
    }
    linear(funnel->first, count, padded, hidden, bundle->cross, bundle->cross_bias, funnel->gate, padded, hidden);
    float *score = batch->ranking_score + row * bundle->candidates;
    for (int64_t at = 0; at < count; at++) {
        v8 total = splat(0.0f);
        for (int64_t unit = 0; unit < padded; unit += 8) {
            const v8 gate = load(funnel->gate + at * padded + unit);
            total += load(funnel->first + at * padded + unit) * larger(gate, splat(0.0f)) * load(bundle->output + unit);
        }
        score[at] = funnel->between[at * between] + sum(total);
    }
}

void ranking(const Funnel *funnel, const Batch *batch) {
    const int64_t candidates = funnel->bundle.candidates;
    for (int64_t row = 0; row < batch->rows; row++) {
        const int32_t *candidate = batch->candidate_index + row * candidates;
        int64_t count = 0;
        while (count < candidates && candidate[count] >= 0) count++;
        if (count) score_row(funnel, batch, row, count);
        for (int64_t at = count; at < candidates; at++) batch->ranking_score[row * candidates + at] = 0.0f;
    }
}
