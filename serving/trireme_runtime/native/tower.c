/* user_tower: pooling of the history by several heads and two layers; see UserTower in trireme_export/models/two_tower.py.
 *
 * Padding takes no part: its weights would be exp(-1e9) = 0. Context and key meet in two small products here, where the graph
 * has one large matrix for both. */
#include "funnel.h"
#include "vector.h"

/* The vectors of the items of a history, without padding, each padded with zeros; returns how many. */
static int64_t gather(const Funnel *funnel, const int32_t *history) {
    const Bundle *bundle = &funnel->bundle;
    const int64_t latent = bundle->latent, stride = PADDED(latent);
    int64_t from = 0;
    while (from < bundle->length && history[from] < 0) from++;
    float *out = funnel->gathered;
    for (int64_t at = from; at < bundle->length; at++, out += stride)
        memcpy(out, bundle->read + (int64_t)history[at] * latent, (size_t)latent * sizeof *out);
    return bundle->length - from;
}

static void mean_of_newest(const Funnel *funnel, int64_t count, float *out) {
    const int64_t stride = PADDED(funnel->bundle.latent);
    const int64_t used = count < funnel->bundle.newest ? count : funnel->bundle.newest;
    memset(out, 0, (size_t)stride * sizeof *out);
    if (used == 0) return;
    const v8 share = splat(1.0f / (float)used);
    for (int64_t at = 0; at < stride; at += 8) {
        v8 total = splat(0.0f);
        for (int64_t item = count - used; item < count; item++) total += load(funnel->gathered + item * stride + at);
        store(out + at, total * share);
    }
}

/* Softmax of weights[0 .. count), which is followed by room for seven more. */
static void softmax(float *weights, int64_t count) {
    float most = weights[0];
    for (int64_t at = 1; at < count; at++) most = weights[at] > most ? weights[at] : most;
    for (int64_t at = count; at % 8; at++) weights[at] = -INFINITY;
    v8 total = splat(0.0f);
    for (int64_t at = 0; at < count; at += 8) {
        const v8 value = exponential(load(weights + at) - splat(most));
        store(weights + at, value);
        total += value;
    }
    const v8 share = splat(1.0f / sum(total));
    for (int64_t at = 0; at < count; at += 8) store(weights + at, load(weights + at) * share);
}

/* One head: weights of the items by `question`, and the weighted mean of their vectors. */
static void pool(const Funnel *funnel, const float *question, const float *position, int64_t count, float *out) {
    const int64_t latent = funnel->bundle.latent, stride = PADDED(latent);
    float *weights = funnel->weights;
    position += funnel->bundle.length - count;
    for (int64_t item = 0; item < count; item++)
        weights[item] = dot(question, funnel->gathered + item * stride, stride) + position[item];
    softmax(weights, count);
    int64_t at = 0;
    for (; at + 32 <= stride; at += 32) {
        v8 total[4] = {splat(0.0f), splat(0.0f), splat(0.0f), splat(0.0f)};
        for (int64_t item = 0; item < count; item++)
            for (int part = 0; part < 4; part++)
                total[part] += splat(weights[item]) * load(funnel->gathered + item * stride + at + 8 * part);
        for (int part = 0; part < 4; part++) store(funnel->turned + at + 8 * part, total[part]);
    }
    for (; at < stride; at += 8) {
        v8 total = splat(0.0f);
        for (int64_t item = 0; item < count; item++)
            total += splat(weights[item]) * load(funnel->gathered + item * stride + at);
        store(funnel->turned + at, total);
    }
    memcpy(out, funnel->turned, (size_t)latent * sizeof *out);
}

static void pool_all(const Funnel *funnel, const int32_t *history, float *out) {
    const Bundle *bundle = &funnel->bundle;
    const int64_t latent = bundle->latent, stride = PADDED(latent), keys = bundle->key_width;
    const int64_t count = gather(funnel, history);
    if (count == 0) {
        memset(out, 0, (size_t)(bundle->heads * latent) * sizeof *out);
        return;
    }
    mean_of_newest(funnel, count, funnel->newest);
    linear(funnel->newest, 1, stride, latent, bundle->context, 0, funnel->context, 0, bundle->heads * keys);
    for (int64_t head = 0; head < bundle->heads; head++) {
        float *question = funnel->question;
        linear(funnel->context + head * keys, 1, keys, keys, bundle->key + head * keys * stride, 0, question, 0, latent);
        for (int64_t at = 0; at < latent; at++) question[at] += bundle->item_score[head * latent + at];
        pool(funnel, question, bundle->position + head * bundle->length, count, out + head * latent);
    }
}

void user_tower(const Funnel *funnel, const Batch *batch) {
    const Bundle *bundle = &funnel->bundle;
    const int64_t pooled = bundle->heads * bundle->latent, hidden = PADDED(bundle->hidden);
    const int64_t width = pooled + bundle->categories * bundle->category_width + bundle->numbers;
    const int64_t stride = PADDED(width), both = PADDED(pooled) + hidden;
    for (int64_t row = 0; row < batch->rows; row++) {
        float *own = funnel->pooled + row * both, *features = funnel->features + row * stride;
        pool_all(funnel, batch->history_index + row * bundle->length, own);
        memcpy(funnel->hidden, own, (size_t)pooled * sizeof *own);
        user_features(bundle, batch->user_category + row * bundle->categories, batch->user_number + row * bundle->numbers,
                      bundle->tower_category, bundle->tower_first, funnel->hidden + pooled);
        normalise(funnel->hidden, width, bundle->tower_norm, features);
    }
    float *mixed = funnel->pooled + PADDED(pooled);
    linear(funnel->features, batch->rows, stride, width, bundle->mix, bundle->mix_bias, mixed, both, bundle->hidden);
    for (int64_t row = 0; row < batch->rows; row++)
        for (int64_t at = 0; at < hidden; at += 8) store(mixed + row * both + at, gelu(load(mixed + row * both + at)));
    const int64_t out = PADDED(bundle->dim);
    linear(funnel->pooled, batch->rows, both, both, bundle->query, bundle->query_bias, funnel->turned, out, bundle->dim);
    for (int64_t row = 0; row < batch->rows; row++)
        memcpy(batch->query + row * bundle->dim, funnel->turned + row * out, (size_t)bundle->dim * sizeof *batch->query);
}
