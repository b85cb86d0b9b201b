#include "control/migration.h"

#include "control/facts.h"

#include <string.h>

static int open_end(const struct migration *m, const struct endpoint *end, enum db_use use,
                    struct db **out, struct err *e)
{
    struct db_options options = {
        .uri = end->uri, .migration = m->name, .use = use, .back = m->back, .fence = &m->fence};

    return end->engine->open(&options, out, e);
}

int migration_open_source(const struct migration *m, enum db_use use, struct db **out,
                          struct err *e)
{
    if (open_end(m, &m->source, use, out, e) < 0)
        return err_wrap(e, "%s", migration_from(m));
    return 0;
}

int migration_open_target(const struct migration *m, enum db_use use, struct db **out,
                          struct err *e)
{
    if (open_end(m, &m->target, use, out, e) < 0)
        return err_wrap(e, "%s", migration_to(m));
    if (use != DB_CONTROL || migration_check_way(m, *out, e) == 0)
        return 0;
    (*out)->engine->close(*out);
    *out = NULL;
    return -1;
}

bool migration_is_native(const struct migration *m)
{
    return m->source.engine == m->target.engine;
}

const char *migration_schema_there(const struct migration *m, const char *schema)
{
    for (size_t i = 0; i < m->schemas.n; i++) {
        if (strcmp(m->schemas.v[i].from, schema) == 0)
            return m->schemas.v[i].to;
    }
    return schema;
}

const char *migration_stream(const struct migration *m)
{
    return m->back ? "back" : "forward";
}

const char *migration_from(const struct migration *m)
{
    return m->back ? "target" : "source";
}

const char *migration_to(const struct migration *m)
{
    return m->back ? "source" : "target";
}

/* "file:./shop.journal" -> "file:./shop.journal.back"; a broker's is told apart by its name. */
static const char *mirror_journal(const char *uri, struct arena *a)
{
    size_t len = strlen(uri);

    if (strncmp(uri, "kafka:", 6) == 0)
        return uri;
    while (len > 1 && uri[len - 1] == '/')
        len--;
    return arena_printf(a, "%.*s.back", (int)len, uri);
}

void migration_mirror(const struct migration *m, struct arena *a, struct migration *out)
{
    struct schema_pair *pairs = arena_zalloc(a, (m->schemas.n + 1) * sizeof(*pairs));

    *out = *m;
    out->source = m->target;
    out->target = m->source;
    out->back = true;
    out->journal.uri = mirror_journal(m->journal.uri, a);
    out->journal.name = arena_printf(a, "lockstep.%s.back", m->name);
    for (size_t i = 0; i < m->schemas.n; i++)
        pairs[i] = (struct schema_pair){.from = m->schemas.v[i].to, .to = m->schemas.v[i].from};
    out->schemas.v = pairs;
}
