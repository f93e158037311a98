/* Bounds of inner products from codes of one byte per dimension, and the choice of the best by them.
 *
 * A vector is a code times a step plus an error, in dimensions scaled to one range. The product of a query with the code is
 * within |query| |error| of that with the vector (Cauchy and Schwarz). An item whose upper bound does not reach the k-th largest
 * lower bound is not among the best k; the others are scored in full. So a lone query reads a quarter of the memory, and the
 * candidates and their scores are those of a product with all vectors, up to the order of additions. */
#ifndef TRIREME_CODES_H
#define TRIREME_CODES_H

#include "funnel.h"
#include "vector.h"

/* Users that a code is read for at once, and items whose codes lie side by side, two dimensions at a time. */
#define USERS 4
#define ITEMS 8
/* Items with those that fill up the last group. */
#define ROOM(items) (((items) + ITEMS - 1) / ITEMS * ITEMS)

typedef struct {
    float step;  /* what a unit of the integers stands for */
    float base;  /* product with the mean vector */
    float reach; /* length of the scaled query */
    float slack; /* what the integers and rounding may be off by */
} Scaled;

/* Writes the integers of a query, PADDED(dim). Where they, or the bounds, would leave the range of a float, there are none, and no
 * bound either: then every item is scored in full. */
Scaled quantise(const Bundle *bundle, const float *query, int16_t *out);

/* Estimates for one user of the products with `count` vectors, of which all that lie in their groups are written. */
void estimates(const Bundle *bundle, const int8_t *codes, const float *step, const int16_t *quantised, const Scaled *scaled,
               int64_t count, float *out);

/* Bounds of the items of the places first .. last - 1, multiples of ITEMS, for 1 or USERS users: their integers lie behind each
 * other, their bounds `stride` apart. Meanwhile, memory fetches what the places from `next` on need, as many at most. */
void bounds(const Bundle *bundle, const int16_t *quantised, const Scaled *scaled, int users, int64_t first, int64_t last,
            int64_t next, float *lower, float *upper, int64_t stride);

/* Chooses the best of `count` bounds by the products of the query with the vectors at their places: those of the spans, the last
 * of which starts at `count`, or all in order, if there are none. Writes the places and the products of as many as are wanted, and
 * returns how many there are. `lower` is overwritten. */
int64_t choose(const Funnel *funnel, const float *query, const Scaled *scaled, float *lower, const float *upper, int64_t count,
               const Span *spans, int32_t *place, float *score);

/* Calls `leave_out(context, item)` for all that the user of a row has seen or excludes. */
typedef void LeaveOut(void *context, int32_t item);
void for_excluded(const Funnel *funnel, const Batch *batch, int64_t row, LeaveOut *leave_out, void *context);

/* Fills the candidates of a row up from `from` with padding of this score. */
void pad(const Bundle *bundle, int64_t from, float score, int32_t *index, float *scores);

/* The candidates of a row from an inverted file. */
void search_lists(const Funnel *funnel, const Batch *batch, int64_t row);

#endif
