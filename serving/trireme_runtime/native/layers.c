/* What the layers of both models are made of. */
#include "funnel.h"
#include "vector.h"

INLINE void panel(const float *x, int64_t stride, int64_t inputs, const float *panels, const float *bias, float *out,
                  int64_t out_stride, const int rows) {
    v8 low[4], high[4];
    for (int row = 0; row < rows; row++) {
        low[row] = bias ? load(bias) : splat(0.0f);
        high[row] = bias ? load(bias + 8) : splat(0.0f);
    }
    for (int64_t at = 0; at < inputs; at++) {
        const v8 left = load(panels + at * PAD), right = load(panels + at * PAD + 8);
        for (int row = 0; row < rows; row++) {
            const v8 value = splat(x[row * stride + at]);
            low[row] += value * left;
            high[row] += value * right;
        }
    }
    for (int row = 0; row < rows; row++) {
        store(out + row * out_stride, low[row]);
        store(out + row * out_stride + 8, high[row]);
    }
}

/* One row: four sums at a time, so that no addition waits for the one before. */
INLINE void panel_of_one(const float *x, int64_t inputs, const float *panels, const float *bias, float *out) {
    v8 low[4] = {bias ? load(bias) : splat(0.0f), splat(0.0f), splat(0.0f), splat(0.0f)};
    v8 high[4] = {bias ? load(bias + 8) : splat(0.0f), splat(0.0f), splat(0.0f), splat(0.0f)};
    int64_t at = 0;
    for (; at + 4 <= inputs; at += 4)
        for (int part = 0; part < 4; part++) {
            const v8 value = splat(x[at + part]);
            low[part] += value * load(panels + (at + part) * PAD);
            high[part] += value * load(panels + (at + part) * PAD + 8);
        }
    for (; at < inputs; at++) {
        low[0] += splat(x[at]) * load(panels + at * PAD);
        high[0] += splat(x[at]) * load(panels + at * PAD + 8);
    }
    store(out, (low[0] + low[1]) + (low[2] + low[3]));
    store(out + 8, (high[0] + high[1]) + (high[2] + high[3]));
}

void linear(const float *x, int64_t rows, int64_t stride, int64_t inputs, const float *panels, const float *bias, float *out,
            int64_t out_stride, int64_t outputs) {
    for (int64_t column = 0; column < outputs; column += PAD, panels += inputs * PAD) {
        const float *added = bias ? bias + column : 0;
        int64_t row = 0;
        for (; row + 4 <= rows; row += 4)
            panel(x + row * stride, stride, inputs, panels, added, out + row * out_stride + column, out_stride, 4);
        for (; row < rows; row++)
            panel_of_one(x + row * stride, inputs, panels, added, out + row * out_stride + column);
    }
}

int64_t user_features(const Bundle *bundle, const int32_t *category, const float *number, const float *table,
                      const int64_t *first, float *out) {
    const int64_t width = bundle->category_width;
    float *at = out;
    for (int64_t column = 0; column < bundle->categories; column++, at += width)
        memcpy(at, table + (first[column] + category[column]) * width, (size_t)width * sizeof *at);
    memcpy(at, number, (size_t)bundle->numbers * sizeof *at);
    return bundle->categories * width + bundle->numbers;
}

void normalise(const float *x, int64_t width, const float *norm, float *out) {
    float mean = 0.0f, square = 0.0f;
    for (int64_t at = 0; at < width; at++) mean += x[at];
    mean /= (float)width;
    for (int64_t at = 0; at < width; at++) square += (x[at] - mean) * (x[at] - mean);
    const float scale = 1.0f / sqrtf(square / (float)width + 1e-5f);
    for (int64_t at = 0; at < width; at++) out[at] = (x[at] - mean) * scale * norm[at] + norm[width + at];
}
