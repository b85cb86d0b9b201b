#include "journal/impl.h"

#include "core/run.h"

#include <stdlib.h>
#include <string.h>

/* A reader that has waited for long looks less often: it is late by an eighth of that at most. */
#define WAIT_SHARE 8
#define WAIT_MAX_MS 20

/* Every implementation of this build; a new one is a line here. */
static const struct journal_ops *const all_ops[] = {&file_journal_ops, &kafka_journal_ops,
                                                    &memory_journal_ops};
#define OPS_COUNT (sizeof(all_ops) / sizeof(all_ops[0]))

static int unknown_scheme(const char *uri, struct err *e)
{
    char known[128] = "";
    size_t len = strcspn(uri, ":");

    for (size_t i = 0; i < OPS_COUNT; i++) {
        if (i)
            strcat(known, i + 1 < OPS_COUNT ? ", " : " and ");
        strcat(known, all_ops[i]->scheme);
    }
    /* Only the scheme is shown: the rest may carry a password. */
    if (!uri[len] || len > 20)
        return err_set(e, ERR_CONFIG, "the journal's URI names no kind; this build knows %s",
                       known);
    return err_set(e, ERR_CONFIG, "a journal of kind \"%.*s:\" is not known; this build knows %s",
                   (int)len, uri, known);
}

static const struct journal_ops *ops_of(const struct journal_options *o, struct err *e)
{
    const char *uri = o->uri ? o->uri : "";

    for (size_t i = 0; i < OPS_COUNT; i++) {
        size_t len = strlen(all_ops[i]->scheme);

        if (strncmp(uri, all_ops[i]->scheme, len) != 0)
            continue;
        if (uri[len])
            return all_ops[i];
        err_set(e, ERR_CONFIG, "the journal's URI \"%s\" names nothing behind the colon", uri);
        return NULL;
    }
    unknown_scheme(uri, e);
    return NULL;
}

const char *journal_uri_rest(const struct journal_options *o)
{
    return strchr(o->uri, ':') + 1;
}

int journal_note_check(const char *note, struct err *e)
{
    if (strlen(note) > JOURNAL_NOTE_MAX)
        return err_set(e, ERR_BUG, "a journal note has %zu bytes; at most %d are kept",
                       strlen(note), JOURNAL_NOTE_MAX);
    if (strchr(note, '\n'))
        return err_set(e, ERR_BUG, "a journal note has more than one line");
    return 0;
}

bool journal_wait(int64_t began, int64_t deadline)
{
    int64_t now = mono_ms();
    int64_t nap = (now - began) / WAIT_SHARE;

    if (now >= deadline || stop_requested())
        return false;
    nap = nap < 1 ? 1 : nap > WAIT_MAX_MS ? WAIT_MAX_MS : nap;
    nap_ms((int)(deadline - now < nap ? deadline - now : nap));
    return !stop_requested();
}

/* ---- writing ---- */

int journal_writer_open(const struct journal_options *o, struct journal_writer **out, char **note,
                        struct err *e)
{
    const struct journal_ops *ops = ops_of(o, e);

    *out = NULL;
    *note = NULL;
    return ops ? ops->writer_open(o, out, note, e) : -1;
}

void journal_writer_close(struct journal_writer *w)
{
    if (w)
        w->ops->writer_close(w);
}

uint32_t journal_writer_generation(const struct journal_writer *w)
{
    return w->ops->generation(w);
}

int journal_schema(struct journal_writer *w, const char *name, const char *text, uint32_t *id,
                   struct err *e)
{
    return w->ops->schema(w, name, text, id, e);
}

int journal_append(struct journal_writer *w, uint32_t schema, const void *data, size_t len,
                   uint64_t *number, struct err *e)
{
    struct iovec datum = {.iov_base = (void *)(uintptr_t)data, .iov_len = len};

    return w->ops->append(w, schema, &datum, number, e);
}

int journal_flush(struct journal_writer *w, struct err *e)
{
    return w->ops->flush(w, e);
}

int journal_note(struct journal_writer *w, const char *note, struct err *e)
{
    return journal_note_check(note, e) < 0 ? -1 : w->ops->note(w, note, e);
}

uint64_t journal_next(const struct journal_writer *w)
{
    return w->ops->next(w);
}

uint64_t journal_durable(const struct journal_writer *w)
{
    return w->ops->durable(w);
}

/* ---- reading ---- */

int journal_reader_open(const struct journal_options *o, uint64_t from, struct journal_reader **out,
                        struct err *e)
{
    const struct journal_ops *ops = ops_of(o, e);

    *out = NULL;
    return ops ? ops->reader_open(o, from, out, e) : -1;
}

int journal_read(struct journal_reader *r, int timeout_ms, struct journal_record *out,
                 struct err *e)
{
    return r->ops->read(r, timeout_ms, out, e);
}

const char *journal_schema_text(struct journal_reader *r, uint64_t schema)
{
    return r->ops->schema_text(r, schema);
}

void journal_reader_close(struct journal_reader *r)
{
    if (r)
        r->ops->reader_close(r);
}

/* ---- keeping house ---- */

int journal_trim(const struct journal_options *o, uint64_t below, struct err *e)
{
    const struct journal_ops *ops = ops_of(o, e);

    return ops ? ops->trim(o, below, e) : -1;
}

int journal_stat(const struct journal_options *o, struct journal_stats *out, struct err *e)
{
    const struct journal_ops *ops = ops_of(o, e);

    memset(out, 0, sizeof(*out));
    return ops ? ops->stat(o, out, e) : -1;
}

int journal_check(const struct journal_options *o, bool fresh, struct err *e)
{
    const struct journal_ops *ops = ops_of(o, e);

    if (!ops)
        return -1;
    return ops->check ? ops->check(o, fresh, e) : 0;
}

int journal_remove(const struct journal_options *o, struct err *e)
{
    const struct journal_ops *ops = ops_of(o, e);

    return ops ? ops->remove(o, e) : -1;
}
