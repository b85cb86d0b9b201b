/* The functions behind engine_scripted, by file; contracts are in engines/engine.h. */
#ifndef LOCKSTEP_ENGINES_SCRIPTED_CALLS_H
#define LOCKSTEP_ENGINES_SCRIPTED_CALLS_H

#include "engines/engine.h"

/* facts.c */
int scripted_fact_get(struct db *db, const char *kind, const char *key, bool lock, struct fact *out,
                      struct err *e);
int scripted_fact_scan(struct db *db, const char *kind, const char *prefix, struct fact **out,
                       size_t *n, struct err *e);
int scripted_fact_put(struct db *db, const char *kind, const char *key, int64_t expect,
                      const json_t *body, struct err *e);
int scripted_fact_delete(struct db *db, const char *kind, const char *key, struct err *e);
int scripted_control_install(struct db *db, enum db_side side, struct err *e);
int scripted_control_remove(struct db *db, enum db_side side, struct err *e);
int scripted_control_exists(struct db *db, bool *out, struct err *e);

/* session.c */
int scripted_open(const struct db_options *o, struct db **out, struct err *e);
void scripted_close(struct db *db);
int scripted_begin(struct db *db, struct err *e);
int scripted_limit_idle(struct db *db, int ms, struct err *e);
int scripted_commit(struct db *db, struct err *e);
int scripted_rollback(struct db *db, struct err *e);
int scripted_savepoint(struct db *db, struct err *e);
int scripted_rollback_to(struct db *db, struct err *e);
int scripted_clock_ms(struct db *db, int64_t *out, struct err *e);
int scripted_identify(struct db *db, struct server_identity *out, struct err *e);
int scripted_sync(struct db *db, struct err *e);
int scripted_current_position(struct db *db, struct position *out, struct err *e);
void scripted_position_text(struct position p, char *out, size_t size);
int scripted_position_find(struct db *db, const char *text, struct position *out, struct err *e);
int scripted_position_distance(struct db *db, struct position from, struct position to,
                               uint64_t *out, struct err *e);

/* schema.c */
int scripted_tables(struct db *db, const struct selection *s, struct arena *a,
                    struct table_list *out, struct err *e);
int scripted_check(struct db *db, const struct check_request *r, struct arena *a,
                   struct findings *out, struct err *e);
int scripted_schema_steps(const struct schema_request *r, struct arena *a, struct schema_steps *out,
                          struct err *e);
int scripted_schema_run(struct db *db, const char *sql, bool online, struct err *e);
int scripted_schema_settle(struct db *db, struct err *e);

/* read.c */
int scripted_settle(struct db *db, int timeout_ms, struct err *e);
int scripted_chunk_plan(struct db *db, const struct table *t, uint64_t bytes, bool by_blocks,
                        struct arena *a, struct range_list *out, struct err *e);
int scripted_read_begin(struct db *db, const struct read_request *r, struct arena *a,
                        struct cut *cut, struct err *e);
int scripted_read_next(struct db *db, struct block *out, struct err *e);
int scripted_read_end(struct db *db, uint64_t *rows, struct err *e);
int scripted_locate(struct db *db, const struct table *t, const struct range_list *ranges,
                    const struct row *const *keys, size_t n, size_t *out, struct err *e);

/* stream.c */
int scripted_stream_create(const struct db_options *o, const struct table_list *tables, bool retry,
                           struct arena *a, struct stream_origin *out, struct err *e);
int scripted_stream_open(const struct stream_request *r, struct stream **out, struct err *e);
int scripted_stream_next(struct stream *s, int timeout_ms, struct event *out, struct err *e);
int scripted_stream_ack(struct stream *s, struct position p, bool now, struct err *e);
void scripted_stream_close(struct stream *s);
int scripted_stream_drop(const struct db_options *o, struct err *e);
int scripted_retention(struct db *db, struct arena *a, struct retention *out, struct err *e);

/* rows.c */
int scripted_load_begin(struct db *db, const struct table *t, enum block_format f, struct err *e);
int scripted_load_block(struct db *db, const struct block *b, struct err *e);
int scripted_load_end(struct db *db, uint64_t *rows, struct err *e);
int scripted_apply_set(struct db *db, const struct change_set *s, uint64_t *affected,
                       struct err *e);
int scripted_apply_row(struct db *db, const struct change *c, uint64_t *affected, struct err *e);
int scripted_apply_rows(struct db *db, const struct change *const *changes, size_t n,
                        uint64_t *affected, size_t *failed, struct err *e);
int scripted_truncate(struct db *db, const struct table *const *tables, size_t n, bool restart,
                      struct err *e);

/* scan.c */
int scripted_pin_source(const struct db_options *o, struct arena *a, struct pin *out,
                        struct err *e);
int scripted_pin_target(struct db *db, char *snapshot, size_t size, struct err *e);
int scripted_scan_begin(struct db *db, const struct table *t, const char *snapshot,
                        const struct row *const *keys, size_t nkeys, struct err *e);
int scripted_scan_next(struct db *db, const struct row **out, struct err *e);
int scripted_scan_end(struct db *db, struct err *e);

/* fence.c */
int scripted_fence_install(struct db *db, const struct table_list *tables, int budget_ms,
                           struct err *e);
int scripted_fence_remove(struct db *db, struct err *e);
int scripted_fence_flip(struct db *db, const char *token, uint32_t epoch, int lease_ms,
                        int budget_ms, struct err *e);
int scripted_fence_take(struct db *db, const char *token, uint32_t epoch, struct err *e);
int scripted_fence_renew(struct db *db, const char *token, int lease_ms, struct err *e);
int scripted_fence_wait(struct db *db, const struct fence_wait *wait, struct fence_report *out,
                        struct err *e);
int scripted_fence_seal(struct db *db, const char *token, uint32_t epoch, struct err *e);
int scripted_fence_lift(struct db *db, const char *token, struct err *e);
int scripted_fence_state(struct db *db, struct fence_state *out, struct err *e);
int scripted_mark(struct db *db, const char *token, struct err *e);
int scripted_sequences(struct db *db, const struct selection *s, struct arena *a,
                       struct sequence_list *out, struct err *e);
int scripted_sequence_set(struct db *db, const struct sequence_value *v, struct err *e);

#endif
