/* Any text as any kind of column: what counts as natural prints back as itself. And any number as
 * the natural value of any kind: printed within bounds, or refused. */
#include "core/text.h"
#include "schemas/avro/names.h"
#include "schemas/avro/natural.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Input: kind, precision (two bytes), scale (two bytes), then the text. */
#define HEAD 5

static void number_of_bytes(const struct column *c, const uint8_t *data, size_t size)
{
    char out[NATURAL_TEXT_MAX];
    struct natural n = {0};
    size_t len;

    n.len = size < sizeof(n.bytes) ? size : sizeof(n.bytes);
    memcpy(n.bytes, data, n.len);
    memcpy(&n.i, data, size < sizeof(n.i) ? size : sizeof(n.i));
    memcpy(&n.d, data, size < sizeof(n.d) ? size : sizeof(n.d));
    if (c->kind == TYPE_FLOAT32)
        n.d = (double)(float)(n.i / 3.0);
    len = natural_print(c, &n, out);
    invariant(len < sizeof(out) && (len == 0 || strlen(out) == len));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct column c = {.name = (char *)"c"};
    struct natural n;
    char back[NATURAL_TEXT_MAX];
    const char *text = (const char *)data + HEAD;
    enum natural_type type;

    if (size < HEAD)
        return 0;
    c.kind = (enum type_kind)(data[0] % TYPE_COUNT);
    c.precision = data[1] | (data[2] & 7) << 8;
    c.scale = data[3] | (data[4] & 7) << 8;
    size -= HEAD;
    text_is_utf8(text, size);
    type = natural_type_of(&c);
    if (type == NATURAL_NONE || type == NATURAL_BYTES)
        return 0;
    if (natural_parse(&c, text, size, &n)) {
        size_t len = natural_print(&c, &n, back);

        invariant(len == size && memcmp(back, text, len) == 0);
    }
    number_of_bytes(&c, data + HEAD, size);
    return 0;
}
