/* The scripted servers do what the simulation's worth depends on. */
#include "engines/postgres/visible.h"
#include "engines/scripted/driver.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct engine *const se = &engine_scripted;

static struct scripted_options peaceful(void)
{
    return (struct scripted_options){
        .cuts = &pg_cut_ops, .widen = pg_widen_xid, .transactions = 200};
}

static struct db *connect_to(const char *uri, enum db_use use)
{
    const struct db_options o = {.uri = uri, .migration = "t", .use = use};
    struct err e = {0};
    struct db *db;

    for (int i = 0; i < 100; i++) {
        if (se->open(&o, &db, &e) == 0)
            return db;
        assert_int_equal(e.class, ERR_RETRY);
    }
    fail();
    return NULL;
}

static struct stream *stream_from(struct arena *a, struct stream_origin *origin,
                                  struct table_list *tables)
{
    static const struct db_options o = {.uri = SCRIPTED_SOURCE_URI, .migration = "t"};
    struct stream_request r = {.options = &o, .tables = tables, .epoch = 1};
    struct db *db = connect_to(SCRIPTED_SOURCE_URI, DB_CONTROL);
    struct stream *s;
    struct err e = {0};

    assert_int_equal(se->tables(db, &(struct selection){0}, a, tables, &e), 0);
    se->close(db);
    assert_int_equal(se->stream_create(&o, tables, false, a, origin, &e), 0);
    r.from = origin->start;
    assert_int_equal(se->stream_open(&r, &s, &e), 0);
    return s;
}

static bool sees_now(struct arena *a, const struct table *t, const struct txn *txn)
{
    struct db *db = connect_to(SCRIPTED_SOURCE_URI, DB_READ);
    const struct read_request r = {.table = t, .format = BLOCK_ROWS};
    struct cut cut;
    struct err e = {0};
    void *parsed;

    assert_int_equal(se->read_begin(db, &r, a, &cut, &e), 0);
    assert_true(position_cmp(txn->commit, cut.past) < 0);
    assert_int_equal(se->cuts->parse(a, cut.text, &parsed, &e), 0);
    se->close(db);
    return se->cuts->sees(parsed, txn);
}

/* Streamed, before "the position after it", and yet unseen by a snapshot taken afterwards. */
static int count_unseen(int late)
{
    struct scripted_options o = peaceful();
    struct scripted_world *w;
    struct arena a = ARENA_INIT;
    struct stream_origin origin;
    struct table_list tables;
    struct stream *s;
    int unseen = 0;
    struct err e = {0};

    o.late = late;
    w = scripted_world_new(3, &o);
    s = stream_from(&a, &origin, &tables);
    for (int i = 0; i < 4000; i++) {
        struct event ev;

        scripted_source_step(w);
        assert_int_equal(se->stream_next(s, 0, &ev, &e), 0);
        if (ev.kind == EVENT_COMMIT)
            unseen += !sees_now(&a, tables.v[0], &ev.txn);
    }
    assert_true(scripted_counts(w)->committed > 50);
    se->stream_close(s);
    se->close(origin.holder);
    arena_release(&a);
    scripted_world_free(w);
    return unseen;
}

static void late_transactions_are_streamed_unseen(void **state)
{
    assert_true(count_unseen(100) > 10);
    assert_int_equal(count_unseen(0), 0);
}

static int64_t version_of(struct db *db)
{
    struct fact f;
    struct err e = {0};

    if (se->fact_get(db, "k", "one", false, &f, &e) < 0)
        return -1;
    json_decref(f.body);
    return f.version;
}

static void an_unknown_commit_happens_or_not_or_later(void **state)
{
    int happened = 0;
    int never = 0;
    int later = 0;

    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct scripted_options o = peaceful();
        struct scripted_world *w;
        json_t *body = json_object();
        struct db *db;
        int64_t first;
        struct err e = {0};

        o.unknown = 100;
        w = scripted_world_new(seed, &o);
        db = connect_to(SCRIPTED_TARGET_URI, DB_CONTROL);
        assert_int_equal(se->begin(db, &e), 0);
        assert_int_equal(se->fact_put(db, "k", "one", FACT_ABSENT, body, &e), 1);
        assert_int_equal(se->commit(db, &e), -1);
        assert_int_equal(e.class, ERR_UNKNOWN);
        se->close(db);
        db = connect_to(SCRIPTED_TARGET_URI, DB_CONTROL);
        first = version_of(db);
        scripted_calm(w);
        happened += first == 1;
        later += first == 0 && version_of(db) == 1;
        never += version_of(db) == 0;
        se->close(db);
        json_decref(body);
        scripted_world_free(w);
    }
    assert_true(happened > 3 && never > 3 && later > 3);
}

/* A restart takes back the newest asynchronous commits only, and none before a synchronous one. */
static void a_restart_loses_a_tail(void **state)
{
    int lost = 0;

    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct scripted_options o = peaceful();
        struct scripted_world *w;
        json_t *body = json_object();
        int64_t last = 0;
        int64_t synced = 0;

        o.restart = 300;
        w = scripted_world_new(seed, &o);
        for (int i = 0; i < 60; i++) {
            struct db *db = connect_to(SCRIPTED_TARGET_URI, i % 10 ? DB_APPLY : DB_CONTROL);
            int64_t found = version_of(db);
            struct err e = {0};

            if (found < 0) {
                se->close(db);
                continue;
            }
            assert_true(found >= synced && found <= last);
            lost += found < last;
            last = found;
            /* A restart during the put may take that back, too. */
            if (se->fact_put(db, "k", "one", found, body, &e) == 1)
                last = found + 1;
            if (last > found && i % 10 == 0)
                synced = last;
            se->close(db);
        }
        json_decref(body);
        scripted_world_free(w);
    }
    assert_true(lost > 3);
}

/* A row of an open transaction is nobody else's: not seen, and waited for. */
static void rows_have_one_writer(void **state)
{
    const struct scripted_options o = peaceful();
    struct scripted_world *w = scripted_world_new(1, &o);
    struct db *a = connect_to(SCRIPTED_TARGET_URI, DB_CONTROL);
    struct db *b = connect_to(SCRIPTED_TARGET_URI, DB_CONTROL);
    json_t *body = json_object();
    struct err e = {0};

    assert_int_equal(se->begin(a, &e), 0);
    assert_int_equal(se->fact_put(a, "k", "one", FACT_ANY, body, &e), 1);
    assert_int_equal(version_of(a), 1);
    assert_int_equal(version_of(b), 0);
    assert_int_equal(se->fact_put(b, "k", "one", FACT_ANY, body, &e), -1);
    assert_int_equal(e.class, ERR_RETRY);
    assert_int_equal(se->rollback(a, &e), 0);
    assert_int_equal(version_of(a), 0);
    assert_int_equal(se->fact_put(b, "k", "one", FACT_ABSENT, body, &e), 1);
    json_decref(body);
    se->close(a);
    se->close(b);
    scripted_world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(late_transactions_are_streamed_unseen),
        cmocka_unit_test(an_unknown_commit_happens_or_not_or_later),
        cmocka_unit_test(a_restart_loses_a_tail),
        cmocka_unit_test(rows_have_one_writer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
