#include "engines/postgres/pgoutput.h"

#include <inttypes.h>
#include <string.h>

/* The server's own limit is 1600 (MaxHeapAttributeNumber). */
#define COLUMNS_MAX 1600

static void take_begin(struct reader *r, struct pgo_begin *out)
{
    out->final_lsn = reader_be64(r);
    out->ts = (int64_t)reader_be64(r);
    out->xid = reader_be32(r);
}

static void take_commit(struct reader *r, struct pgo_commit *out)
{
    if (reader_u8(r) != 0)
        r->bad = true; /* flags: none are defined */
    out->commit_lsn = reader_be64(r);
    out->end_lsn = reader_be64(r);
    out->ts = (int64_t)reader_be64(r);
}

/* A count that cannot be true (more items than bytes are left) is refused before memory is taken
 * for it. */
static size_t take_count(struct reader *r, size_t count, size_t max, size_t item)
{
    if (!r->bad && count <= max && count <= reader_left(r) / item)
        return count;
    r->bad = true;
    return 0;
}

static void take_relation(struct arena *a, struct reader *r, struct pgo_relation *out)
{
    out->id = reader_be32(r);
    out->schema = reader_cstr(r);
    out->name = reader_cstr(r);
    out->identity = (char)reader_u8(r);
    out->n = take_count(r, reader_be16(r), COLUMNS_MAX, 10);
    out->columns = arena_zalloc(a, (out->n + 1) * sizeof(*out->columns));
    for (size_t i = 0; i < out->n; i++) {
        struct pgo_column *c = &out->columns[i];

        c->key = reader_u8(r) & 1;
        c->name = reader_cstr(r);
        c->type = reader_be32(r);
        c->typmod = (int32_t)reader_be32(r);
    }
}

static bool take_value(struct reader *r, struct value *v)
{
    uint32_t len;

    switch (reader_u8(r)) {
    case 'n':
        v->state = VALUE_NULL;
        return true;
    case 'u':
        v->state = VALUE_UNCHANGED;
        return true;
    case 't':
        len = reader_be32(r);
        v->state = VALUE_SET;
        v->data = (const char *)reader_bytes(r, len);
        v->len = v->data ? len : 0;
        return true;
    default:
        return false; /* 'b', binary, was not asked for */
    }
}

static struct row *take_tuple(struct arena *a, struct reader *r)
{
    size_t n = take_count(r, reader_be16(r), COLUMNS_MAX, 1);
    struct row *row = row_new(a, n);

    for (size_t i = 0; i < n && !r->bad; i++) {
        if (!take_value(r, &row->v[i]))
            r->bad = true;
    }
    return row;
}

/* UPDATE: an optional old tuple (K or O), then N. DELETE: the old one alone. INSERT: N alone. */
static void take_change(struct arena *a, struct reader *r, enum pgo_kind kind,
                        struct pgo_change *out)
{
    uint8_t mark;

    memset(out, 0, sizeof(*out));
    out->relation = reader_be32(r);
    mark = reader_u8(r);
    if (kind != PGO_INSERT && (mark == 'K' || mark == 'O')) {
        out->before_kind = (char)mark;
        out->before = take_tuple(a, r);
        if (kind == PGO_DELETE)
            return;
        mark = reader_u8(r);
    }
    if (kind == PGO_DELETE || mark != 'N') {
        r->bad = true;
        return;
    }
    out->after = take_tuple(a, r);
}

static void take_truncate(struct arena *a, struct reader *r, struct pgo_truncate *out)
{
    uint32_t n = reader_be32(r);
    uint8_t flags = reader_u8(r);

    out->cascade = flags & 1;
    out->restart = flags & 2;
    out->n = take_count(r, n, SIZE_MAX, 4);
    if (out->n == 0)
        r->bad = true;
    out->relations = arena_zalloc(a, (out->n + 1) * sizeof(*out->relations));
    for (size_t i = 0; i < out->n; i++)
        out->relations[i] = reader_be32(r);
}

static void take_text(struct reader *r, struct pgo_text *out)
{
    out->transactional = reader_u8(r) & 1;
    out->lsn = reader_be64(r);
    out->prefix = reader_cstr(r);
    out->len = reader_be32(r);
    out->content = (const char *)reader_bytes(r, out->len);
}

static void skip_origin(struct reader *r)
{
    reader_be64(r);
    reader_cstr(r);
}

static void skip_type(struct reader *r)
{
    reader_be32(r);
    reader_cstr(r);
    reader_cstr(r);
}

static bool take_body(struct arena *a, struct reader *r, struct pgo_message *out)
{
    switch (out->kind) {
    case PGO_BEGIN:
        take_begin(r, &out->begin);
        return true;
    case PGO_COMMIT:
        take_commit(r, &out->commit);
        return true;
    case PGO_ORIGIN:
        skip_origin(r);
        return true;
    case PGO_RELATION:
        take_relation(a, r, &out->relation);
        return true;
    case PGO_TYPE:
        skip_type(r);
        return true;
    case PGO_INSERT:
    case PGO_UPDATE:
    case PGO_DELETE:
        take_change(a, r, out->kind, &out->change);
        return true;
    case PGO_TRUNCATE:
        take_truncate(a, r, &out->truncate);
        return true;
    case PGO_MESSAGE:
        take_text(r, &out->text);
        return true;
    }
    return false;
}

int pgo_decode(struct arena *a, const void *data, size_t len, struct pgo_message *out,
               struct err *e)
{
    struct reader r;

    memset(out, 0, sizeof(*out));
    reader_init(&r, data, len);
    out->kind = (enum pgo_kind)reader_u8(&r);
    if (r.bad)
        return err_set(e, ERR_FATAL, "the server sent an empty replication message");
    if (!take_body(a, &r, out))
        return err_set(e, ERR_FATAL, "the server sent an unknown replication message (0x%02x)",
                       (unsigned)out->kind);
    if (r.bad || reader_left(&r))
        return err_set(e, ERR_FATAL,
                       "the server sent a replication message '%c' of %zu bytes that does not "
                       "follow its format",
                       (char)out->kind, len);
    return 0;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

int pg_unhex(struct value *v)
{
    const char *in = v->data;
    char *out = (char *)(uintptr_t)v->data;

    if (v->len < 2 || v->len % 2 || in[0] != '\\' || in[1] != 'x')
        return -1;
    for (size_t i = 2; i < v->len; i += 2) {
        int high = hex_digit(in[i]);
        int low = hex_digit(in[i + 1]);

        if (high < 0 || low < 0)
            return -1;
        *out++ = (char)(high << 4 | low);
    }
    v->len = v->len / 2 - 1;
    return 0;
}
