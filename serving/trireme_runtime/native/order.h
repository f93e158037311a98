/* The k-th largest of some floats, and the order of a list. */
#ifndef TRIREME_ORDER_H
#define TRIREME_ORDER_H

#include <stdint.h>

/* The k-th largest (k >= 1) of values[0 .. count), count >= k; their order changes. No value may be NaN. */
float kth_largest(float *values, int64_t count, int64_t k);

/* The k-th largest of values[0 .. count), whose order stays; -inf if fewer than k are finite. `sample` and `found` have room for
 * `count` floats. */
float bound_of_best(const float *values, int64_t count, int64_t k, float *sample, float *found);

/* Sorts ascending. */
void sort_keys(uint64_t *keys, int64_t count);

/* An integer that is smaller the larger `score` is, and for equal scores the lower `column` is; the column is its low half. */
uint64_t descending_key(float score, uint32_t column);

#endif
