/* Waiting for those who wrote when the fence closed.
 *
 * Under read_only no transaction of an application can commit any more, so most of those that are
 * open here can do no harm; but they hold locks, and two kinds pass: a transaction of an account
 * with the admin right, and an XA branch, which may still be prepared (and on MySQL committed) if
 * its work was done before. So whoever has changed rows is waited for, ended after the grace, and
 * what is prepared must be decided by its owner.
 *
 * information_schema.innodb_trx shows a copy, made anew only if nobody has read it for 0.1 s. So
 * our own session opens a transaction first, and each look has a number: a copy in which that does
 * not ask with this number is an earlier one. Two looks in a row cost that time, which is why a
 * switch leaves it between its last look and the flip (engine.looks_apart_ms). */
#include "engines/mysql/my.h"

#include "core/run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define POLL_MS MY_LOOKS_APART_MS
#define LISTED_MAX 4096
#define NAMED_MAX 8
/* So many looks that show an old list: somebody keeps it. */
#define UNLISTED_LOOKS 10

struct writer {
    int64_t id; /* of its session */
    int64_t trx;
    char who[200];
};

struct waiting {
    struct my_db *db;
    struct fence_report *report;
    bool first;
    size_t nlisted;
    int64_t *listed; /* transactions of the first look */
    size_t n;
    struct writer *now; /* those of them that are still there */
    size_t nprepared;
    char prepared[400];
    bool ended;
    bool toomany; /* to be listed */
    bool fresh;   /* the last look was */
    int stale;    /* how many were not */
    char refused[200];
};

/* What a look asks, in one message: this is done while nobody may write, on servers that are busy
 * then. Writers first: what vanishes from there because it is prepared is then seen as such. */
enum { LOOK_BEGIN, LOOK_WRITERS, LOOK_END, LOOK_PREPARED, LOOKS };
enum { OF_SESSION, OF_TRX, OF_USER, OF_HOST, OF_COMMAND, OF_THIS_SESSION, OF_THIS_LOOK };
#define WITH_ROWS (1U << LOOK_WRITERS | 1U << LOOK_PREPARED)
static const char sql_look[] =
    "START TRANSACTION WITH CONSISTENT SNAPSHOT;"
    "SELECT t.trx_mysql_thread_id, t.trx_id, p.user, p.host, p.command,"
    " t.trx_mysql_thread_id = CONNECTION_ID(), " MY_OUR_LOOK " FROM information_schema.innodb_trx t"
    " LEFT JOIN information_schema.processlist p ON p.id = t.trx_mysql_thread_id"
    " WHERE t.trx_mysql_thread_id = CONNECTION_ID() OR (t.trx_mysql_thread_id > 0"
    " AND t.trx_rows_modified > 0"
    " AND coalesce(p.user, '') NOT IN (substring_index(user(), '@', 1), 'event_scheduler'));"
    "ROLLBACK;"
    "XA RECOVER";

static bool was_listed(const struct waiting *w, int64_t trx)
{
    for (size_t i = 0; i < w->nlisted; i++) {
        if (w->listed[i] == trx)
            return true;
    }
    return false;
}

static void keep_writer(struct waiting *w, MYSQL_ROW row)
{
    int64_t trx = my_int(row[OF_TRX]);

    if (w->first && w->nlisted < LISTED_MAX)
        w->listed[w->nlisted++] = trx;
    else if (w->first)
        w->toomany = true;
    if (!was_listed(w, trx) || w->n == LISTED_MAX)
        return;
    struct writer *to = &w->now[w->n++];
    to->id = my_int(row[OF_SESSION]);
    to->trx = trx;
    snprintf(to->who, sizeof to->who, "session %lld of %.60s from %.60s (%.30s)", (long long)to->id,
             row[OF_USER] ? row[OF_USER] : "?", row[OF_HOST] ? row[OF_HOST] : "?",
             row[OF_COMMAND] ? row[OF_COMMAND] : "?");
}

/* Was the copy made for this look? */
static bool take_writers(struct waiting *w, MYSQL_RES *res)
{
    bool fresh = false;
    MYSQL_ROW row;

    w->n = 0;
    while ((row = mysql_fetch_row(res)) != NULL) {
        bool ours = my_int(row[OF_THIS_SESSION]) != 0;

        fresh = fresh || (row[OF_THIS_LOOK] != NULL && my_int(row[OF_THIS_LOOK]) != 0);
        if (!ours)
            keep_writer(w, row);
    }
    if (!fresh && w->first) {
        w->nlisted = 0;
        w->toomany = false;
    }
    return fresh;
}

/* Names of prepared branches, as XA COMMIT takes them; bytes that are not plain as hex. */
static void name_prepared(struct waiting *w, const char *data, size_t len)
{
    struct buf text;

    buf_init(&text, 1000);
    buf_adds(&text, w->nprepared > 1 ? ", '" : "'");
    for (size_t i = 0; i < len && i < 64; i++) {
        unsigned char c = (unsigned char)data[i];

        if (c > ' ' && c < 0x7f && c != '\'')
            buf_addc(&text, (char)c);
        else
            buf_addf(&text, "\\x%02x", c);
    }
    buf_addc(&text, '\'');
    if (strlen(w->prepared) + text.len + 1 < sizeof w->prepared)
        strcat(w->prepared, text.data);
    buf_release(&text);
}

static void take_prepared(struct waiting *w, MYSQL_RES *res)
{
    MYSQL_ROW row;

    w->nprepared = 0;
    w->prepared[0] = '\0';
    w->report->nprepared = 0;
    while ((row = mysql_fetch_row(res)) != NULL) {
        unsigned long *lengths = mysql_fetch_lengths(res);

        w->nprepared++;
        if (row[3] != NULL)
            fence_report_prepared(w->report, row[3], lengths[3]);
        if (w->nprepared <= NAMED_MAX && row[3] != NULL)
            name_prepared(w, row[3], lengths[3]);
    }
}

/* 1: looked, 0: the copy was too old, -1. */
static int look(struct waiting *w, struct err *e)
{
    MYSQL_RES *res[LOOKS];
    char sql[sizeof sql_look + 20];

    snprintf(sql, sizeof sql, sql_look, ++w->db->looks);
    if (my_query_each(w->db, sql, WITH_ROWS, res, LOOKS, e) != 0)
        return -1;
    w->fresh = take_writers(w, res[LOOK_WRITERS]);
    w->first = w->first && !w->fresh;
    w->stale += !w->fresh;
    take_prepared(w, res[LOOK_PREPARED]);
    for (size_t i = 0; i < LOOKS; i++)
        mysql_free_result(res[i]);
    return w->fresh;
}

static int end_sessions(struct waiting *w, struct fence_report *out, struct err *e)
{
    w->ended = true;
    for (size_t i = 0; i < w->n; i++) {
        struct err own = {0};

        if (my_execf(w->db, &own, "KILL CONNECTION %lld", (long long)w->now[i].id) == 0) {
            out->terminated++;
        } else if (w->db->broken) {
            if (e != NULL)
                *e = own;
            return -1;
        } else if (strstr(own.msg, "nknown thread") == NULL) {
            snprintf(w->refused, sizeof w->refused, "session %lld: %.150s", (long long)w->now[i].id,
                     own.msg);
        }
    }
    return 0;
}

int my_list_is_stale(const struct my_db *db, struct err *e)
{
    err_set(e, ERR_RETRY, "%s shows no new list of its transactions", db->where);
    if (e != NULL)
        snprintf(e->sqlstate, sizeof e->sqlstate, FENCE_UNLISTED);
    return err_hint(e, "somebody reads information_schema.innodb_trx (on MariaDB also innodb_locks "
                       "or innodb_lock_waits) all the time, and as long as that is read the copy "
                       "that it shows is kept: stop that monitor meanwhile");
}

static int gave_up(const struct waiting *w, const struct fence_wait *limits, struct err *e)
{
    struct buf who;

    if (!w->fresh && w->nprepared == 0)
        return my_list_is_stale(w->db, e);
    buf_init(&who, 4096);
    for (size_t i = 0; i < w->n && i < NAMED_MAX; i++)
        buf_addf(&who, "%s%s", i > 0 ? "; " : "", w->now[i].who);
    if (w->nprepared > 0)
        buf_addf(&who, "%s%zu prepared XA transactions: %s", w->n > 0 ? "; " : "", w->nprepared,
                 w->prepared);
    err_set(e, ERR_RETRY, "%zu transactions that write still stand after %d ms: %s%s%s",
            w->n + w->nprepared, limits->deadline_ms, who.data != NULL ? who.data : "",
            w->refused[0] != '\0' ? "; could not end " : "", w->refused);
    buf_release(&who);
    if (w->refused[0] != '\0')
        return err_hint(e, "GRANT CONNECTION_ADMIN (MariaDB: CONNECTION ADMIN) to lockstep's "
                           "account, or end them by hand");
    return err_hint(e, "end them (XA COMMIT or XA ROLLBACK for prepared ones), try again");
}

static bool is_time_over(const struct waiting *w, const struct fence_wait *limits, int64_t took_ms)
{
    /* That nobody shows a list is known long before the time is up. */
    if (w->first)
        return w->stale >= UNLISTED_LOOKS || (took_ms >= limits->deadline_ms && w->stale >= 2);
    return took_ms >= limits->deadline_ms;
}

int my_fence_wait(struct db *base, const struct fence_wait *limits, struct fence_report *out,
                  struct err *e)
{
    struct waiting w = {.db = my_db_from(base), .report = out, .first = true};
    int64_t start = mono_ms();
    size_t prepared_first = 0;
    int rc = -1;

    memset(out, 0, sizeof *out);
    w.listed = calloc(LISTED_MAX, sizeof *w.listed);
    w.now = calloc(LISTED_MAX, sizeof *w.now);
    invariant(w.listed != NULL && w.now != NULL);
    for (;;) {
        bool was_first = w.first;
        int seen = look(&w, e);

        if (seen < 0)
            goto out;
        if (w.toomany) {
            err_set(e, ERR_RETRY, "more than %d transactions write at once", LISTED_MAX);
            err_hint(e, "wait until fewer do");
            goto out;
        }
        if (was_first && !w.first)
            prepared_first = w.nprepared;
        out->took_ms = mono_ms() - start;
        if (seen && w.n + w.nprepared == 0)
            break;
        if (stop_check(e) != 0)
            goto out;
        /* Not before they were ended, if they are to be, nor before a second look could be fresh:
         * it may be us who stood still. */
        bool end = seen && !w.ended && limits->grace_ms < limits->deadline_ms;
        if (end && out->took_ms >= limits->grace_ms) {
            if (end_sessions(&w, out, e) != 0)
                goto out;
        } else if (is_time_over(&w, limits, out->took_ms)) {
            gave_up(&w, limits, e);
            goto out;
        }
        nap_ms(POLL_MS);
    }
    rc = 0;
out:
    out->waited_for = (int)(w.nlisted + prepared_first);
    free(w.listed);
    free(w.now);
    return rc == 0 ? 0 : err_wrap(e, "waiting for writers");
}
