/* The memory journal: for tests and the simulation, shared by name inside the process.
 *
 * What holds for the others holds here: one writer, generations, a durable boundary that readers
 * never pass, the note that moves with it, a ceiling. A power loss is played by
 * memory_journal_crash(): the writer is dead from then on (its handle says so), and what it had not
 * flushed is gone but for `keep` records, which the next writer finds and makes durable. Nothing
 * here depends on time or addresses, so a seed replays a run exactly.
 *
 * One mutex guards everything; it is never held during a wait. A record that a reader was given is
 * counted, so that trimming does not take it from under the reader.
 */
#include "journal/impl.h"

#include "core/run.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* What a record costs on the disk of the file journal, so that ceilings mean the same. */
#define RECORD_OVERHEAD 20u

struct memory_schema {
    char *name;
    char *text;
    struct memory_schema *older; /* texts live as long as the journal: readers point to them */
    uint64_t id;
};

struct memory_record {
    unsigned refs;
    bool torn;
    uint32_t generation;
    const struct memory_schema *schema;
    size_t len;
    char data[];
};

struct memory_journal {
    struct memory_journal *next_journal;
    char *name;
    unsigned refs; /* the registry's, and one of each handle */
    bool removed;
    uint32_t generation;
    bool writer_lives; /* the one of `generation` */
    uint64_t first;    /* the oldest record kept */
    uint64_t next;
    uint64_t durable;
    uint64_t bytes;
    char *note; /* the flushed one */
    struct memory_record **records;
    size_t start; /* of record `first` in records */
    size_t cap;
    struct memory_schema *schemas; /* the newest first */
    uint64_t nschemas;
};

struct memory_writer {
    struct journal_writer base;
    struct memory_journal *journal;
    uint32_t generation;
    uint64_t max_bytes;
    char *note;
    const struct memory_schema **declared; /* by the writer's id */
    size_t ndeclared;
};

struct memory_reader {
    struct journal_reader base;
    struct memory_journal *journal;
    uint64_t number;
    struct memory_record *current;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct memory_journal *journals;

/* ---- journals; the mutex is held ---- */

static struct memory_record **record_at(const struct memory_journal *j, uint64_t number)
{
    return &j->records[j->start + (size_t)(number - j->first)];
}

static void record_unref(struct memory_record *record)
{
    if (record && --record->refs == 0)
        free(record);
}

static void drop_last(struct memory_journal *j)
{
    struct memory_record *record = *record_at(j, --j->next);

    j->bytes -= record->len + RECORD_OVERHEAD;
    record_unref(record);
}

static void drop_first(struct memory_journal *j)
{
    struct memory_record *record = *record_at(j, j->first);

    j->bytes -= record->len + RECORD_OVERHEAD;
    record_unref(record);
    j->first++;
    j->start++;
}

static void journal_unref(struct memory_journal *j)
{
    struct memory_schema *older;

    if (--j->refs)
        return;
    while (j->next > j->first)
        drop_last(j);
    for (struct memory_schema *s = j->schemas; s; s = older) {
        older = s->older;
        free(s->name);
        free(s->text);
        free(s);
    }
    free(j->records);
    free(j->note);
    free(j->name);
    free(j);
}

static struct memory_journal *journal_find(const char *name)
{
    struct memory_journal *j = journals;

    while (j && strcmp(j->name, name) != 0)
        j = j->next_journal;
    return j;
}

static struct memory_journal *journal_make(const char *name)
{
    struct memory_journal *j = calloc(1, sizeof(*j));

    invariant(j != NULL);
    j->name = strdup(name);
    invariant(j->name != NULL);
    j->refs = 1;
    j->next_journal = journals;
    journals = j;
    return j;
}

static void journal_forget(struct memory_journal *j)
{
    struct memory_journal **link = &journals;

    while (*link != j)
        link = &(*link)->next_journal;
    *link = j->next_journal;
    j->removed = true;
    j->writer_lives = false;
    journal_unref(j);
}

static void make_room(struct memory_journal *j)
{
    size_t n = (size_t)(j->next - j->first);

    if (j->start + n < j->cap)
        return;
    if (j->start > j->cap / 2) {
        memmove(j->records, j->records + j->start, n * sizeof(*j->records));
        j->start = 0;
        return;
    }
    j->cap = j->cap ? j->cap * 2 : 64;
    j->records = realloc(j->records, j->cap * sizeof(*j->records));
    invariant(j->records != NULL);
}

/* ---- writing ---- */

static struct memory_writer *writer_of(struct journal_writer *w)
{
    return (struct memory_writer *)w;
}

static int check_alive(const struct memory_writer *w, struct err *e)
{
    const struct memory_journal *j = w->journal;

    if (j->writer_lives && j->generation == w->generation)
        return 0;
    return err_set(e, ERR_FATAL, "journal memory:%s: this writer's machine lost power", j->name);
}

/* What a crash left behind: the torn one goes, the rest is durable from now on. */
static void recover(struct memory_journal *j)
{
    if (j->next > j->durable && (*record_at(j, j->next - 1))->torn)
        drop_last(j);
    j->durable = j->next;
    j->generation++;
    j->writer_lives = true;
}

static int memory_writer_open(const struct journal_options *o, struct journal_writer **out,
                              char **note, struct err *e)
{
    const char *name = journal_uri_rest(o);
    struct memory_writer *w = NULL;
    struct memory_journal *j;
    int rc = 0;

    pthread_mutex_lock(&mutex);
    j = journal_find(name);
    if (j && j->writer_lives) {
        rc = err_set(e, ERR_RETRY, "journal memory:%s: another writer holds it", name);
        goto out;
    }
    if (!j)
        j = journal_make(name);
    recover(j);
    w = calloc(1, sizeof(*w));
    invariant(w != NULL);
    *w = (struct memory_writer){.base.ops = &memory_journal_ops,
                                .journal = j,
                                .generation = j->generation,
                                .max_bytes = o->max_bytes};
    j->refs++;
    if (j->note) {
        w->note = strdup(j->note);
        *note = strdup(j->note);
        invariant(w->note && *note);
    }
    *out = &w->base;
out:
    pthread_mutex_unlock(&mutex);
    return rc;
}

static void memory_writer_close(struct journal_writer *base)
{
    struct memory_writer *w = writer_of(base);
    struct memory_journal *j = w->journal;

    pthread_mutex_lock(&mutex);
    if (j->generation == w->generation && j->writer_lives) {
        /* What was not flushed is lost with its writer. */
        while (j->next > j->durable)
            drop_last(j);
        j->writer_lives = false;
    }
    journal_unref(j);
    pthread_mutex_unlock(&mutex);
    free(w->declared);
    free(w->note);
    free(w);
}

static uint32_t memory_generation(const struct journal_writer *w)
{
    return ((const struct memory_writer *)w)->generation;
}

/* The journal's schema of this text; equal texts share one, over all writers. */
static const struct memory_schema *intern_schema(struct memory_journal *j, const char *name,
                                                 const char *text)
{
    struct memory_schema *s = j->schemas;

    while (s && (strcmp(s->name, name) != 0 || strcmp(s->text, text) != 0))
        s = s->older;
    if (s)
        return s;
    s = calloc(1, sizeof(*s));
    invariant(s != NULL);
    *s = (struct memory_schema){
        .name = strdup(name), .text = strdup(text), .older = j->schemas, .id = j->nschemas++};
    invariant(s->name && s->text);
    j->schemas = s;
    return s;
}

static int memory_schema_declare(struct journal_writer *base, const char *name, const char *text,
                                 uint32_t *id, struct err *e)
{
    struct memory_writer *w = writer_of(base);
    size_t i = 0;

    while (i < w->ndeclared && strcmp(w->declared[i]->name, name) != 0)
        i++;
    if (i == w->ndeclared) {
        w->declared = realloc(w->declared, (i + 1) * sizeof(*w->declared));
        invariant(w->declared != NULL);
        w->ndeclared++;
    }
    pthread_mutex_lock(&mutex);
    w->declared[i] = intern_schema(w->journal, name, text);
    pthread_mutex_unlock(&mutex);
    *id = (uint32_t)i;
    return 0;
}

static int check_ceiling(const struct memory_writer *w, size_t more, struct err *e)
{
    const struct memory_journal *j = w->journal;

    if (w->max_bytes == 0 || j->bytes + more <= w->max_bytes)
        return 0;
    err_set(e, ERR_RETRY,
            "journal is full: memory:%s holds %" PRIu64 " of at most %" PRIu64
            " bytes, and %zu more are to come",
            j->name, j->bytes, w->max_bytes, more);
    return err_hint(e, "capture goes on when apply has caught up; or raise journal_max");
}

static int memory_append(struct journal_writer *base, uint32_t schema, const struct iovec *datum,
                         uint64_t *number, struct err *e)
{
    struct memory_writer *w = writer_of(base);
    struct memory_journal *j = w->journal;
    struct memory_record *record;
    int rc = -1;

    invariant(schema < w->ndeclared);
    pthread_mutex_lock(&mutex);
    if (check_alive(w, e) < 0 || check_ceiling(w, datum->iov_len + RECORD_OVERHEAD, e) < 0)
        goto out;
    make_room(j);
    record = malloc(sizeof(*record) + datum->iov_len);
    invariant(record != NULL);
    *record = (struct memory_record){.refs = 1,
                                     .generation = w->generation,
                                     .schema = w->declared[schema],
                                     .len = datum->iov_len};
    if (datum->iov_len)
        memcpy(record->data, datum->iov_base, datum->iov_len);
    *number = j->next++;
    *record_at(j, *number) = record;
    j->bytes += datum->iov_len + RECORD_OVERHEAD;
    rc = 0;
out:
    pthread_mutex_unlock(&mutex);
    return rc;
}

static int memory_flush(struct journal_writer *base, struct err *e)
{
    struct memory_writer *w = writer_of(base);
    struct memory_journal *j = w->journal;
    int rc;

    pthread_mutex_lock(&mutex);
    rc = check_alive(w, e);
    if (rc == 0) {
        j->durable = j->next;
        if (w->note && (!j->note || strcmp(w->note, j->note) != 0)) {
            free(j->note);
            j->note = strdup(w->note);
            invariant(j->note != NULL);
        }
    }
    pthread_mutex_unlock(&mutex);
    return rc;
}

static int memory_note(struct journal_writer *base, const char *note, struct err *e)
{
    struct memory_writer *w = writer_of(base);

    free(w->note);
    w->note = strdup(note);
    invariant(w->note != NULL);
    return 0;
}

/* After a crash a dead writer's numbers are what they were for nobody; they still need the lock. */
static uint64_t memory_next(const struct journal_writer *base)
{
    uint64_t next;

    pthread_mutex_lock(&mutex);
    next = ((const struct memory_writer *)base)->journal->next;
    pthread_mutex_unlock(&mutex);
    return next;
}

static uint64_t memory_durable(const struct journal_writer *base)
{
    uint64_t durable;

    pthread_mutex_lock(&mutex);
    durable = ((const struct memory_writer *)base)->journal->durable;
    pthread_mutex_unlock(&mutex);
    return durable;
}

/* ---- reading ---- */

static int memory_reader_open(const struct journal_options *o, uint64_t from,
                              struct journal_reader **out, struct err *e)
{
    const char *name = journal_uri_rest(o);
    struct memory_reader *r;
    struct memory_journal *j;
    int rc = -1;

    pthread_mutex_lock(&mutex);
    j = journal_find(name);
    if (!j) {
        err_set(e, ERR_RETRY, "there is no journal in memory:%s yet", name);
    } else if (from > j->durable) {
        err_set(e, ERR_FATAL,
                "journal memory:%s: record %" PRIu64 " lies beyond the end; the next is %" PRIu64,
                name, from, j->durable);
    } else if (from < j->first) {
        err_set(e, ERR_FATAL,
                "journal memory:%s: record %" PRIu64 " was trimmed; the first kept is %" PRIu64,
                name, from, j->first);
    } else {
        r = calloc(1, sizeof(*r));
        invariant(r != NULL);
        *r = (struct memory_reader){.base.ops = &memory_journal_ops, .journal = j, .number = from};
        j->refs++;
        *out = &r->base;
        rc = 0;
    }
    pthread_mutex_unlock(&mutex);
    return rc;
}

/* 1, 0: nothing now, -1. */
static int take(struct memory_reader *r, struct journal_record *out, struct err *e)
{
    struct memory_journal *j = r->journal;
    int rc = 0;

    pthread_mutex_lock(&mutex);
    record_unref(r->current);
    r->current = NULL;
    if (j->removed) {
        rc = err_set(e, ERR_FATAL, "journal memory:%s: was removed", j->name);
    } else if (r->number < j->first) {
        rc =
            err_set(e, ERR_FATAL,
                    "journal memory:%s: record %" PRIu64 " was trimmed; the first kept is %" PRIu64,
                    j->name, r->number, j->first);
    } else if (r->number < j->durable) {
        r->current = *record_at(j, r->number);
        r->current->refs++;
        *out = (struct journal_record){.number = r->number++,
                                       .generation = r->current->generation,
                                       .schema = r->current->schema->id,
                                       .data = r->current->data,
                                       .len = r->current->len};
        rc = 1;
    }
    pthread_mutex_unlock(&mutex);
    return rc;
}

static int memory_read(struct journal_reader *base, int timeout_ms, struct journal_record *out,
                       struct err *e)
{
    struct memory_reader *r = (struct memory_reader *)base;
    int64_t began = timeout_ms > 0 ? mono_ms() : 0;
    int rc = take(r, out, e);

    while (rc == 0 && timeout_ms > 0 && journal_wait(began, began + timeout_ms))
        rc = take(r, out, e);
    return rc;
}

static const char *memory_schema_text(struct journal_reader *base, uint64_t schema)
{
    const struct memory_journal *j = ((struct memory_reader *)base)->journal;
    const struct memory_schema *s;

    pthread_mutex_lock(&mutex);
    s = j->schemas;
    while (s && s->id != schema)
        s = s->older;
    pthread_mutex_unlock(&mutex);
    invariant(s != NULL);
    return s->text;
}

static void memory_reader_close(struct journal_reader *base)
{
    struct memory_reader *r = (struct memory_reader *)base;

    pthread_mutex_lock(&mutex);
    record_unref(r->current);
    journal_unref(r->journal);
    pthread_mutex_unlock(&mutex);
    free(r);
}

/* ---- keeping house ---- */

static int memory_journal_trim(const struct journal_options *o, uint64_t below, struct err *e)
{
    struct memory_journal *j;

    pthread_mutex_lock(&mutex);
    j = journal_find(journal_uri_rest(o));
    /* The last durable record stays, as the last segment does. */
    while (j && j->first < below && j->first + 1 < j->durable)
        drop_first(j);
    pthread_mutex_unlock(&mutex);
    return 0;
}

static int memory_stat(const struct journal_options *o, struct journal_stats *out, struct err *e)
{
    struct memory_journal *j;

    pthread_mutex_lock(&mutex);
    j = journal_find(journal_uri_rest(o));
    if (j)
        *out = (struct journal_stats){
            .first = j->first, .next = j->durable, .bytes = j->bytes, .max_bytes = o->max_bytes};
    pthread_mutex_unlock(&mutex);
    return j ? 1 : 0;
}

static int memory_remove(const struct journal_options *o, struct err *e)
{
    struct memory_journal *j;
    int rc = 0;

    pthread_mutex_lock(&mutex);
    j = journal_find(journal_uri_rest(o));
    if (j && j->writer_lives)
        rc = err_set(e, ERR_RETRY, "journal memory:%s: another writer holds it", j->name);
    else if (j)
        journal_forget(j);
    pthread_mutex_unlock(&mutex);
    return rc;
}

/* ---- faults ---- */

void memory_journal_crash(const char *uri, size_t keep, bool torn)
{
    const struct journal_options o = {.uri = uri};
    struct memory_journal *j;

    pthread_mutex_lock(&mutex);
    j = journal_find(journal_uri_rest(&o));
    if (j) {
        while (j->next - j->durable > keep)
            drop_last(j);
        if (torn && j->next > j->durable)
            (*record_at(j, j->next - 1))->torn = true;
        j->writer_lives = false;
    }
    pthread_mutex_unlock(&mutex);
}

void memory_journal_reset_all(void)
{
    pthread_mutex_lock(&mutex);
    while (journals)
        journal_forget(journals);
    pthread_mutex_unlock(&mutex);
}

const struct journal_ops memory_journal_ops = {
    .scheme = "memory:",
    .writer_open = memory_writer_open,
    .writer_close = memory_writer_close,
    .generation = memory_generation,
    .schema = memory_schema_declare,
    .append = memory_append,
    .flush = memory_flush,
    .note = memory_note,
    .next = memory_next,
    .durable = memory_durable,
    .reader_open = memory_reader_open,
    .read = memory_read,
    .schema_text = memory_schema_text,
    .reader_close = memory_reader_close,
    .trim = memory_journal_trim,
    .stat = memory_stat,
    .remove = memory_remove,
};
