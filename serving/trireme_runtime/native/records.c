/* Values of the feature store: whether each holds what its layout allows, all that is read of it in one pass. */
#include <stdint.h>
#include <string.h>

#define PUBLIC __attribute__((visibility("default")))
#define INFINITE 0x7f800000u

/* native/records.py has the same structure; features/record.py says what lies where. */
typedef struct {
    int64_t bytes; /* of a value, in whole words */
    int64_t length, categories, numbers;
    uint32_t header[3];
} Layout;

static int is_unsound(const Layout *layout, const char *value) {
    const int64_t *const written_ms = (const int64_t *)(value + 16);
    const int64_t *const history = (const int64_t *)(value + 32), *const time = history + layout->length;
    const int32_t *const category = (const int32_t *)(time + layout->length);
    const uint32_t *const number = (const uint32_t *)(category + layout->categories);
    int64_t wrong = memcmp(value, layout->header, sizeof layout->header) != 0;
    wrong |= *written_ms < 0;
    for (int64_t at = 0; at < layout->length; at++) wrong |= history[at] < -1;
    for (int64_t at = 1; at < layout->length; at++) wrong |= time[at] < time[at - 1];
    if (layout->length > 0) wrong |= time[0] < -1;
    int32_t other = 0;
    for (int64_t at = 0; at < layout->categories; at++) other |= category[at] < 0;
    for (int64_t at = 0; at < layout->numbers; at++) other |= (number[at] & INFINITE) == INFINITE; /* NaN, too */
    return wrong != 0 || other != 0;
}

/* Writes of each value whether it is unsound, and returns how many are. The first value is aligned to 8 bytes. */
PUBLIC int64_t trireme_unsound_records(const Layout *layout, const char *values, int64_t count, uint8_t *unsound) {
    int64_t found = 0;
    for (int64_t row = 0; row < count; row++, values += layout->bytes)
        found += unsound[row] = (uint8_t)is_unsound(layout, values);
    return found;
}
