/* lockstep.yaml: one table of options that parses, validates, gives the defaults and prints the
 * reference page (docs/configuration.md). */
#ifndef LOCKSTEP_CONFIG_CONFIG_H
#define LOCKSTEP_CONFIG_CONFIG_H

#include "core/arena.h"
#include "core/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum on_error { ON_ERROR_PARK, ON_ERROR_STOP };

struct string_list {
    size_t n;
    const char **v;
};

/* "a: b" pairs, in the file's order. */
struct pair_list {
    size_t n;
    size_t line; /* where the list begins in the file */
    const char **names;
    const char **values;
};

/* Everything is owned by `arena`; ${ENV} is already put in. */
struct config {
    struct arena arena;
    const char *file; /* as the user named it */
    const char *migration;
    const char *source; /* URI with password: never print it, see config_uri_redact */
    const char *target;
    const char *journal; /* "file:/abs/dir": made absolute against the file's folder; "kafka://…" */
    const char *schema_registry; /* NULL: none */
    struct pair_list kafka;      /* properties of librdkafka; values may be secrets */
    struct pair_list schemas;    /* source schema → target schema */
    struct string_list include;
    struct string_list exclude;
    struct {
        int workers;
        uint64_t chunk_size; /* bytes */
        uint64_t max_rate;   /* bytes a second, 0: no limit */
    } snapshot;
    struct {
        uint64_t batch; /* bytes */
        int batch_delay_ms;
        enum on_error on_error;
    } apply;
    struct {
        int max_pause_ms;
        int lease_ms;
        const char *on_switch; /* NULL: none */
    } cutover;
    struct {
        bool whole_server;
        struct string_list accounts;
    } fence;
    uint64_t memory;
    uint64_t journal_max;
    const char *pg_bindir; /* NULL: the newest found */
    const char *listen;
};

/* Loads and validates. ERR_CONFIG names file, line, key, and what was expected. */
int config_load(const char *path, struct config *out, struct err *e);
void config_release(struct config *c);
/* One value from the command line instead, by its key ("cutover.max_pause"); variables are not put
 * in. ERR_CONFIG says what was expected. */
int config_override(struct config *c, const char *key, const char *text, struct err *e);
/* "15m" → milliseconds, at least 1 s and at most a week; ERR_CONFIG says what was expected. */
int config_duration(const char *text, int64_t *out_ms, struct err *e);
/* The same within other bounds. */
int config_duration_between(const char *text, int64_t min_ms, int64_t max_ms, int64_t *out_ms,
                            struct err *e);
/* ERR_CONFIG about a key that other parts find wrong: "FILE:LINE: KEY: " in front of the text. */
int config_refuse(const struct config *c, size_t line, const char *key, const char *what,
                  struct err *e);
/* "postgresql://lockstep@db1:5432/shop" without password, for messages; from the arena. */
const char *config_uri_redact(struct arena *a, const char *uri);
/* The @ behind user and password of what follows a URI's ://, or NULL: parameters may hold one too.
 */
const char *config_uri_at(const char *authority);
/* The reference page, generated from the option table. */
void config_print_reference(void (*emit)(const char *line, void *ctx), void *ctx);

#endif
