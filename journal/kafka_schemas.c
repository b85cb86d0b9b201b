#include "journal/kafka_schemas.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void kafka_schemas_init(struct kafka_schemas *s, const struct journal_options *o)
{
    memset(s, 0, sizeof(*s));
    snprintf(s->topic, sizeof(s->topic), "%s" KAFKA_SCHEMAS_SUFFIX, o->name);
}

void kafka_schemas_release(struct kafka_schemas *s)
{
    for (size_t i = 0; i < s->n; i++)
        free(s->list[i].text);
    free(s->list);
    registry_close(s->registry);
    s->list = NULL;
    s->n = 0;
    s->registry = NULL;
}

static size_t find_text(const struct kafka_schemas *s, const char *text)
{
    size_t i = 0;

    while (i < s->n && (!s->list[i].text || strcmp(s->list[i].text, text) != 0))
        i++;
    return i;
}

static size_t find_remote(const struct kafka_schemas *s, bool in_registry, uint64_t remote)
{
    size_t i = 0;

    while (i < s->n && (s->list[i].in_registry != in_registry || s->list[i].remote != remote))
        i++;
    return i;
}

uint64_t kafka_schema_print(const char *text)
{
    uint64_t hash = UINT64_C(14695981039346656037);

    for (const char *p = text; *p; p++)
        hash = (hash ^ (unsigned char)*p) * UINT64_C(1099511628211);
    return hash ? hash : 1;
}

void kafka_schemas_add(struct kafka_schemas *s, bool in_registry, uint64_t remote, const char *text)
{
    size_t same = find_text(s, text);

    if (find_remote(s, in_registry, remote) < s->n)
        return;
    s->list = realloc(s->list, (s->n + 1) * sizeof(*s->list));
    invariant(s->list != NULL);
    s->list[s->n] = (struct kafka_schema){.in_registry = in_registry,
                                          .remote = remote,
                                          .same = same,
                                          .print = kafka_schema_print(text)};
    if (same == s->n) {
        s->list[s->n].text = strdup(text);
        invariant(s->list[s->n].text != NULL);
    }
    s->n++;
}

bool kafka_schemas_find(const struct kafka_schemas *s, const char *text, uint64_t *offset)
{
    size_t same = find_text(s, text);

    for (size_t i = same; i < s->n; i++) {
        if (s->list[i].same != same || s->list[i].in_registry)
            continue;
        *offset = s->list[i].remote;
        return true;
    }
    return false;
}

/* ---- the topic ---- */

static int take_message(struct kafka_schemas *s, const struct kafka_message *m, uint64_t journal,
                        bool must, struct err *e)
{
    struct kafka_header h;
    char *text;
    bool ours = m->header && kafka_header_read(m->header, m->header_len, &h) &&
                h.kind == KAFKA_SCHEMA && h.journal == journal && m->value;

    if (!ours && must)
        return err_set(e, ERR_FATAL,
                       "topic %s: offset %" PRId64 " does not hold the schema that records name: "
                       "the topic was made anew, or changed by somebody else",
                       s->topic, m->offset);
    if (!ours)
        return 0;
    text = strndup(m->value, m->len);
    invariant(text != NULL);
    kafka_schemas_add(s, false, (uint64_t)m->offset, text);
    free(text);
    return 0;
}

static int fetch_open(struct kafka_schemas *s, struct kafka_client *c, struct kafka_fetch *f,
                      struct err *e)
{
    *f = (struct kafka_fetch){.client = c, .name = s->topic};
    f->topic = rd_kafka_topic_new(c->rk, s->topic, NULL);
    return f->topic ? 0 : kafka_fail(c, rd_kafka_last_error(), "opening its schemas", e);
}

static void fetch_close(struct kafka_fetch *f)
{
    kafka_fetch_release(f);
    if (f->topic)
        rd_kafka_topic_destroy(f->topic);
}

int kafka_schemas_load(struct kafka_schemas *s, struct kafka_client *c, uint64_t journal,
                       struct err *e)
{
    struct kafka_fetch f;
    uint64_t first = 0;
    uint64_t end = 0;
    int rc = kafka_topic_ends(c, s->topic, &first, &end, e);

    if (rc < 1)
        return rc;
    rc = fetch_open(s, c, &f, e);
    while (rc == 0 && first < end) {
        rc = kafka_fetch_one(&f, first++, e);
        if (rc == 0)
            rc = take_message(s, &f.message, journal, false, e);
    }
    fetch_close(&f);
    return rc;
}

static int resolve_topic(struct kafka_schemas *s, struct kafka_client *c,
                         const struct kafka_header *h, struct err *e)
{
    struct kafka_fetch f;
    uint64_t first = 0;
    uint64_t end = 0;
    int found = kafka_topic_ends(c, s->topic, &first, &end, e);
    int rc;

    if (found < 1)
        return found < 0 ? -1 : kafka_topic_lost(c, s->topic, e);
    if (h->schema < first || h->schema >= end)
        return err_set(e, ERR_FATAL,
                       "topic %s does not hold the schema at offset %" PRIu64
                       " that records name: it was removed",
                       s->topic, h->schema);
    rc = fetch_open(s, c, &f, e);
    if (rc == 0)
        rc = kafka_fetch_one(&f, h->schema, e);
    if (rc == 0)
        rc = take_message(s, &f.message, h->journal, true, e);
    fetch_close(&f);
    return rc;
}

/* ---- the registry ---- */

int kafka_schemas_registry(struct kafka_schemas *s, const struct journal_options *o,
                           struct registry **out, struct err *e)
{
    if (!s->registry && registry_open(o->registry, &s->registry, e) < 0)
        return -1;
    *out = s->registry;
    return 0;
}

static int resolve_registry(struct kafka_schemas *s, struct kafka_client *c,
                            const struct kafka_header *h, struct err *e)
{
    struct registry *registry;
    char *text;

    if (!c->o->registry) {
        err_set(e, ERR_CONFIG, "topic %s: its records name schemas of a registry", c->name);
        return err_hint(e, "set schema_registry to the one they were written with");
    }
    if (kafka_schemas_registry(s, c->o, &registry, e) < 0 ||
        registry_get(registry, (uint32_t)h->schema, &text, e) < 0)
        return -1;
    kafka_schemas_add(s, true, h->schema, text);
    free(text);
    return 0;
}

int kafka_schemas_resolve(struct kafka_schemas *s, struct kafka_client *c,
                          const struct kafka_header *h, uint64_t *id, struct err *e)
{
    bool in_registry = (h->flags & KAFKA_FLAG_REGISTRY) != 0;
    size_t i = find_remote(s, in_registry, h->schema);

    if (i == s->n && (in_registry ? resolve_registry(s, c, h, e) : resolve_topic(s, c, h, e)) < 0)
        return -1;
    if (h->nonce && h->nonce != s->list[i].print) {
        err_set(e, ERR_FATAL,
                "topic %s: record %" PRIu64 " was written with another schema than %s holds as "
                "number %" PRIu64 " now",
                c->name, h->number, in_registry ? "the registry" : s->topic, h->schema);
        return err_hint(e, "the %s was emptied and numbers anew: bring back what it held",
                        in_registry ? "registry" : "topic");
    }
    *id = s->list[i].same;
    return 0;
}

const char *kafka_schemas_text(const struct kafka_schemas *s, uint64_t id)
{
    invariant(id < s->n && s->list[id].text);
    return s->list[id].text;
}
