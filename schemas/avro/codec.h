/* Records of the journal: how transactions and changes become Avro data and come back.
 *
 * Record schemas (namespace lockstep.<migration>):
 *   Transaction  status BEGIN | END, epoch, xid, commit, next, ts_us, changes (END)
 *   Position     kind MARK | HEARTBEAT | TABLE, next, token, table, reason
 *   <schema>.<table>  op c|u|d|t, before, after, source {…}, transaction {…}, ts_us, version
 * fields, unchanged (names): the envelope that Kafka users know from Debezium. docs/journal.md has
 * the whole of it. Schema text is ours (jansson), and
 * so are the datums; Avro C judges the schemas, and the datums in the tests.
 */
#ifndef LOCKSTEP_SCHEMAS_AVRO_CODEC_H
#define LOCKSTEP_SCHEMAS_AVRO_CODEC_H

#include "engines/engine.h"

enum record_kind {
    RECORD_BEGIN,    /* txn without next */
    RECORD_CHANGE,   /* txn (epoch, xid, commit, ts_us), change */
    RECORD_END,      /* txn, nchanges */
    RECORD_MARK,     /* next, token */
    RECORD_POSITION, /* next */
    RECORD_TABLE     /* next, table name and reason: its shape is not the planned one any more */
};

struct record {
    enum record_kind kind;
    struct txn txn;
    struct change change; /* its table belongs to the decoder and lives as long as it does */
    uint64_t nchanges;
    struct position next;
    const char *token;
    const char *table_label;
    const char *reason;
};

/* ---- encoding: one per writer thread ---- */

struct encoder;
/* engine: "postgres"; database: for the source block. */
struct encoder *encoder_new(const char *migration, const char *engine, const char *database);
void encoder_free(struct encoder *enc);
/* The schema that this record needs: its full name and text, owned by the encoder. Same table
 * shape, same pointers. */
int encoder_schema(struct encoder *enc, const struct record *r, const char **name,
                   const char **text, struct err *e);
/* Appends the datum to out. Lossless by construction: a natural Avro branch is used only where it
 * prints back to exactly the same text, else the string branch carries the server's text. */
int encoder_encode(struct encoder *enc, const struct record *r, struct buf *out, struct err *e);

/* ---- decoding: one per reader thread ---- */

struct decoder;
struct decoder *decoder_new(void);
/* The planned tables, which outlive the decoder: a record's table gets its `there` from them. */
void decoder_plan(struct decoder *dec, const struct table_list *planned);
void decoder_free(struct decoder *dec);
/* schema: any number that stands for this text (the journal reader's id); the text is parsed once.
 * Values of the record live in the arena. */
int decoder_decode(struct decoder *dec, uint64_t schema, const char *text, const void *data,
                   size_t len, struct arena *a, struct record *out, struct err *e);

#endif
