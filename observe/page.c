#include "observe/page.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

/* page.html, put into the program by observe/embed.cmake. */
extern const char observe_page_html[];

#define NONCE_MARK "@NONCE@"
#define NONCE_BYTES 16

int page_render(struct buf *out, char *policy, size_t size)
{
    unsigned char random[NONCE_BYTES];
    char nonce[2 * NONCE_BYTES + 1];
    const char *p = observe_page_html;
    const char *mark;

    if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
        return -1;
    for (size_t i = 0; i < NONCE_BYTES; i++)
        snprintf(nonce + 2 * i, 3, "%02x", random[i]);
    while ((mark = strstr(p, NONCE_MARK))) {
        buf_add(out, p, (size_t)(mark - p));
        buf_adds(out, nonce);
        p = mark + strlen(NONCE_MARK);
    }
    buf_adds(out, p);
    snprintf(policy, size,
             "default-src 'none'; script-src 'nonce-%s'; style-src 'nonce-%s'; connect-src 'self'; "
             "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
             nonce, nonce);
    return 0;
}

/* ---- the page's JSON ---- */

static json_t *count_json(int64_t v)
{
    return v == UNKNOWN_COUNT ? json_null() : json_integer((json_int_t)v);
}

static json_t *table_json(const struct observed_table *t)
{
    return json_pack("{s:s, s:s, s:o, s:o, s:o, s:f, s:o, s:s?}", "name", t->name, "lane", t->lane,
                     "rows", count_json(t->rows), "bytes", count_json(t->bytes), "left",
                     json_integer((json_int_t)t->left), "done", t->done, "eta",
                     count_json(t->eta_s), "reason", t->reason);
}

/* What is parked, then what still comes, then what follows. */
static json_t *tables_json(const struct observation *o)
{
    static const char *const order[] = {"parked", "catching_up", "loading", "following"};
    json_t *list = json_array();

    for (size_t k = 0; k < sizeof(order) / sizeof(order[0]); k++) {
        for (size_t i = 0; i < o->ntables && json_array_size(list) < PAGE_TABLES; i++) {
            if (strcmp(o->tables[i].lane, order[k]) == 0)
                json_array_append_new(list, table_json(&o->tables[i]));
        }
    }
    return list;
}

static json_t *totals_json(const struct observation *o)
{
    int64_t rows = 0;
    int64_t bytes = 0;
    int64_t left = 0;

    for (size_t i = 0; i < o->ntables; i++) {
        rows += o->tables[i].rows > 0 ? o->tables[i].rows : 0;
        bytes += o->tables[i].bytes > 0 ? o->tables[i].bytes : 0;
        left += (int64_t)o->tables[i].left;
    }
    return json_pack("{s:I, s:I, s:I, s:I}", "tables", (json_int_t)o->ntables, "rows",
                     (json_int_t)rows, "bytes", (json_int_t)bytes, "left", (json_int_t)left);
}

static json_t *lanes_json(const struct observation *o)
{
    json_t *lanes = json_object();

    for (size_t i = 0; i < o->ntables; i++) {
        const char *lane = o->tables[i].lane;
        json_int_t n = json_integer_value(json_object_get(lanes, lane));

        json_object_set_new(lanes, lane, json_integer(n + 1));
    }
    return lanes;
}

static json_t *end_json(const char *engine, const char *uri)
{
    return json_pack("{s:s, s:s}", "engine", engine, "uri", uri);
}

json_t *page_json(const struct page_about *about, const struct observation *o, const char *trouble)
{
    struct timespec now;
    json_t *all;

    clock_gettime(CLOCK_REALTIME, &now);
    all = json_pack("{s:s, s:s, s:o, s:o, s:s, s:I, s:s?}", "migration", about->migration, "role",
                    about->role, "source", end_json(about->source_engine, about->source), "target",
                    end_json(about->target_engine, about->target), "journal", about->journal, "at",
                    (json_int_t)now.tv_sec * 1000 + now.tv_nsec / 1000000, "trouble", trouble);
    if (!o)
        return all;
    json_object_set_new(all, "status", observe_json(o));
    /* The page has its own, shorter list. */
    json_object_del(json_object_get(all, "status"), "tables");
    json_object_set_new(all, "next", json_string(observe_next(o)));
    json_object_set_new(all, "tables", tables_json(o));
    json_object_set_new(all, "totals", totals_json(o));
    json_object_set_new(all, "lanes", lanes_json(o));
    json_object_set_new(all, "rate", count_json(o->rate));
    json_object_set_new(all, "records", count_json(o->journal_records));
    return all;
}
