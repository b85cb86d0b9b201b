#include "control/foreign.h"
#include "core/text.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define VALUE_MAX 60

static const char kind[] = "foreign";
static const char key[] = "forward";

/* ---- marks ---- */

static uint32_t hash_of(const char *text)
{
    uint64_t hash = UINT64_C(14695981039346656037);

    for (const char *p = text; p && *p; p++)
        hash = (hash ^ (unsigned char)*p) * UINT64_C(1099511628211);
    return (uint32_t)(hash ^ (hash >> 32));
}

void switch_token(char *out, size_t size, uint32_t epoch, const char *migration, const char *holder)
{
    snprintf(out, size, "cut-%" PRIu32 "-%08" PRIx32 "-%08" PRIx32, epoch, hash_of(migration),
             hash_of(holder));
}

bool switch_token_is_anothers(const char *token, const char *migration)
{
    uint32_t epoch;
    uint32_t whose;

    return token[0] != '\0' &&
           (sscanf(token, "cut-%" SCNu32 "-%8" SCNx32 "-", &epoch, &whose) != 2 ||
            whose != hash_of(migration));
}

void switch_mark(char *out, size_t size, const char *token, const char *what)
{
    snprintf(out, size, "%.32s.%.6s", token, what);
}

struct turns turns_begin(const struct migration *m)
{
    return (struct turns){.shut = m->back};
}

/* The epoch of a coordinator's mark, and what stands behind the dot; NULL: it is none. */
static const char *mark_parse(const char *token, uint32_t *epoch)
{
    const char *dot = strrchr(token, '.');

    if (!dot || sscanf(token, "cut-%" SCNu32 "-", epoch) != 1)
        return NULL;
    return dot + 1;
}

void turns_pass(struct turns *t, const struct migration *m, const char *token)
{
    uint32_t epoch = 0;
    const char *what = mark_parse(token, &epoch);
    bool shuts;

    if (!what || epoch < t->epoch || switch_token_is_anothers(token, m->name))
        return;
    shuts = strcmp(what, SWITCH_MARK_SHUT) == 0;
    if (!shuts && strcmp(what, SWITCH_MARK_OPEN) != 0)
        return;
    t->shut = shuts;
    t->epoch = epoch;
}

int switch_is_closed(struct db *target, const struct migration *m, const struct turns *turns,
                     bool *out, struct err *e)
{
    struct fact fact = {0};
    const char *state;
    int found = target->engine->fact_get(target, "cutover", migration_stream(m), true, &fact, e);

    if (found < 0)
        return err_wrap(e, "control fact cutover %s", migration_stream(m));
    state = found ? fact_text(fact.body, "state") : NULL;
    /* Only a switch that was made can be passed by one back, and it was drained up to its own mark
     * before: whatever comes behind that mark, and before the side opened again, came past it. */
    *out = (state && (strcmp(state, "closed") == 0 || strcmp(state, "switched") == 0)) ||
           (found && fact_int(fact.body, "passed_by", 0) > (int64_t)turns->epoch);
    json_decref(fact.body);
    return 0;
}

/* ---- one transaction ---- */

void foreign_begin(struct foreign_txn *f, const struct txn *txn)
{
    memset(f, 0, sizeof(*f));
    f->txn = *txn;
}

static struct foreign_table *table_of(struct foreign_txn *f, const char *label)
{
    for (size_t i = 0; i < f->ntables; i++) {
        if (strcmp(f->tables[i].label, label) == 0)
            return &f->tables[i];
    }
    return NULL;
}

static void print_key(const struct change *c, char *out, size_t size)
{
    struct arena a = ARENA_INIT;
    const struct row *k = c->op == OP_INSERT ? change_new_key(&a, c) : change_old_key(&a, c);
    struct buf text;

    buf_init(&text, BUF_MAX_TEXT);
    if (k)
        row_print(&text, k, VALUE_MAX);
    snprintf(out, size, "%s", text.data ? text.data : "");
    text_clean(out);
    buf_release(&text);
    arena_release(&a);
}

void foreign_count(struct foreign_txn *f, const struct change *c)
{
    const char *label = table_label(c->table);
    struct foreign_table *t = table_of(f, label);

    f->changes++;
    if (!t && f->ntables == FOREIGN_TABLES) {
        f->elsewhere++;
        return;
    }
    if (!t) {
        t = &f->tables[f->ntables++];
        snprintf(t->label, sizeof(t->label), "%s", label);
        if (c->op != OP_TRUNCATE)
            print_key(c, t->key, sizeof(t->key));
    }
    t->count[c->op]++;
}

static const char *const count_names[4] = {[OP_INSERT] = "inserts",
                                           [OP_UPDATE] = "updates",
                                           [OP_DELETE] = "deletes",
                                           [OP_TRUNCATE] = "truncates"};

static void print_time(int64_t ts_us, char *out, size_t size)
{
    time_t seconds = (time_t)(ts_us / 1000000);
    struct tm tm;

    out[0] = '\0';
    if (ts_us > 0 && gmtime_r(&seconds, &tm))
        strftime(out, size, "%Y-%m-%d %H:%M:%S UTC", &tm);
}

void foreign_print(const struct foreign_txn *f, struct buf *out)
{
    char when[40];

    print_time(f->txn.ts_us, when, sizeof(when));
    buf_addf(out, "by transaction %" PRIu64 ", %s:", f->txn.xid, when);
    for (size_t i = 0; i < f->ntables; i++) {
        const struct foreign_table *t = &f->tables[i];

        buf_addf(out, "%s %s", i ? "," : "", t->label);
        for (int op = 0; op < 4; op++) {
            if (t->count[op])
                buf_addf(out, " %" PRIu64 " %s", t->count[op], count_names[op]);
        }
        if (t->key[0])
            buf_addf(out, " first key %s", t->key);
    }
    if (f->elsewhere)
        buf_addf(out, ", %" PRIu64 " changes of more tables", f->elsewhere);
}

/* ---- the fact ---- */

static json_t *txn_json(const struct migration *m, uint64_t number, const struct foreign_txn *f)
{
    json_t *tables = json_array();
    char position[80];
    char when[40];
    json_t *out;

    m->source.engine->position_text(f->txn.commit, position, sizeof(position));
    print_time(f->txn.ts_us, when, sizeof(when));
    for (size_t i = 0; i < f->ntables; i++) {
        const struct foreign_table *t = &f->tables[i];
        json_t *one = json_pack("{s:s}", "table", t->label);

        for (int op = 0; op < 4; op++)
            json_object_set_new(one, count_names[op], json_integer((json_int_t)t->count[op]));
        json_object_set_new(one, "first_key", t->key[0] ? json_string(t->key) : json_null());
        json_array_append_new(tables, one);
    }
    out = json_pack("{s:I, s:s, s:I, s:I, s:s, s:I, s:o}", "number", (json_int_t)number, "position",
                    position, "transaction", (json_int_t)f->txn.xid, "commit_us",
                    (json_int_t)f->txn.ts_us, "committed", when, "changes", (json_int_t)f->changes,
                    "tables", tables);
    if (f->elsewhere)
        json_object_set_new(out, "changes_of_more_tables", json_integer((json_int_t)f->elsewhere));
    return out;
}

/* The run that this transaction prolongs, or a new one. */
static int note_span(json_t *spans, const struct turns *turns, const struct txn *txn, struct err *e)
{
    json_t *last = json_array_get(spans, json_array_size(spans) - 1);

    if (json_array_size(spans) == 0 || fact_int(last, "epoch", -1) != (int64_t)turns->epoch) {
        last = json_pack("{s:I, s:o}", "epoch", (json_int_t)turns->epoch, "from",
                         position_json(txn->commit));
        if (json_array_size(spans) == FOREIGN_SPANS)
            json_array_remove(spans, 0);
        json_array_append_new(spans, last);
    }
    if (!last)
        return err_set(e, ERR_BUG, "a run of foreign transactions cannot be noted");
    json_object_set_new(last, "to", position_json(txn->next));
    return 0;
}

/* Of the body's own: what a fact holds within its members belongs to the server. */
static json_t *array_of(json_t *body, const char *name)
{
    const json_t *array = json_object_get(body, name);
    json_t *own = json_is_array(array) ? json_deep_copy(array) : json_array();

    json_object_set_new(body, name, own);
    return own;
}

int foreign_store(struct db *target, const struct migration *m, const struct turns *turns,
                  const struct foreign_txn *f, struct err *e)
{
    struct fact fact = {0};
    json_t *body;
    uint64_t number;
    int rc;
    /* Locked, since a switch may acknowledge what is there just now. */
    int found = target->engine->fact_get(target, kind, key, true, &fact, e);

    if (found < 0)
        return err_wrap(e, "control fact %s %s", kind, key);
    body = found ? fact.body : json_object();
    number = (uint64_t)fact_int(body, "transactions", 0) + 1;
    json_object_set_new(body, "transactions", json_integer((json_int_t)number));
    json_object_set_new(
        body, "changes",
        json_integer((json_int_t)fact_int(body, "changes", 0) + (json_int_t)f->changes));
    rc = note_span(array_of(body, "spans"), turns, &f->txn, e);
    if (json_array_size(array_of(body, "first")) < FOREIGN_KEPT)
        json_array_append_new(array_of(body, "first"), txn_json(m, number, f));
    if (rc < 0) {
        json_decref(body);
        return -1;
    }
    return fact_cas(target, kind, key, found ? fact.version : FACT_ABSENT, body, e);
}

int foreign_spans_load(struct db *target, struct foreign_spans *out, struct err *e)
{
    json_t *body;
    json_t *spans;
    int rc = 0;

    memset(out, 0, sizeof(*out));
    if (fact_read(target, kind, key, &body, NULL, e) < 0)
        return -1;
    spans = json_object_get(body, "spans");
    for (size_t i = 0; i < json_array_size(spans) && i < FOREIGN_SPANS && rc == 0; i++) {
        const json_t *span = json_array_get(spans, i);

        rc = fact_position(span, "from", &out->v[i].from, e) < 0 ||
                     fact_position(span, "to", &out->v[i].to, e) < 0
                 ? -1
                 : 0;
        out->n++;
    }
    json_decref(body);
    return rc;
}

bool foreign_spans_hold(const struct foreign_spans *s, struct position commit)
{
    for (size_t i = 0; i < s->n; i++) {
        if (position_cmp(commit, s->v[i].from) >= 0 && position_cmp(commit, s->v[i].to) < 0)
            return true;
    }
    return false;
}

int foreign_load(struct db *target, struct foreign_seen *out, struct err *e)
{
    memset(out, 0, sizeof(*out));
    if (fact_read(target, kind, key, &out->body, NULL, e) < 0)
        return -1;
    out->transactions = (uint64_t)fact_int(out->body, "transactions", 0);
    out->changes = (uint64_t)fact_int(out->body, "changes", 0);
    out->acknowledged = (uint64_t)fact_int(out->body, "acknowledged", 0);
    out->first = json_object_get(out->body, "first");
    return 0;
}

uint64_t foreign_open(const struct foreign_seen *s)
{
    return s->transactions > s->acknowledged ? s->transactions - s->acknowledged : 0;
}

void foreign_first(const struct foreign_seen *s, char *out, size_t size)
{
    const json_t *txn = json_array_get(s->first, 0);
    const json_t *table = json_array_get(json_object_get(txn, "tables"), 0);
    const char *first_key = fact_text(table, "first_key");
    int n;

    out[0] = '\0';
    if (!txn)
        return;
    n = snprintf(out, size, "at %s by transaction %lld, %s", fact_text(txn, "position"),
                 (long long)fact_int(txn, "transaction", 0), fact_text(txn, "committed"));
    for (int op = 0; table && op < 4; op++) {
        int64_t count = fact_int(table, count_names[op], 0);

        if (count && n > 0 && (size_t)n < size)
            n += snprintf(out + n, size - (size_t)n, ", %lld %s in %s", (long long)count,
                          count_names[op], fact_text(table, "table"));
    }
    if (first_key && n > 0 && (size_t)n < size)
        snprintf(out + n, size - (size_t)n, ", first key %s", first_key);
}

int foreign_acknowledge(struct db *target, uint64_t n, struct err *e)
{
    json_t *body;
    json_t *first;
    int64_t version;

    if (fact_read(target, kind, key, &body, &version, e) < 0)
        return -1;
    if (!body || (uint64_t)fact_int(body, "acknowledged", 0) >= n) {
        json_decref(body);
        return 0;
    }
    json_object_set_new(body, "acknowledged", json_integer((json_int_t)n));
    first = array_of(body, "first");
    while (json_array_size(first) && fact_int(json_array_get(first, 0), "number", 0) <= (int64_t)n)
        json_array_remove(first, 0);
    return fact_cas(target, kind, key, version, body, e);
}
