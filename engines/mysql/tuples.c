#include "engines/mysql/tuples.h"

void my_tuples_open(struct buf *b, const struct table *t, const size_t *columns, size_t n,
                    bool number)
{
    buf_adds(b, number ? "(SELECT 0 AS o" : "(SELECT ");
    for (size_t i = 0; i < n; i++) {
        buf_adds(b, i || number ? ", " : "");
        my_ident(b, t->columns[columns[i]].name);
        buf_addf(b, " AS c%zu", i);
    }
    buf_adds(b, " FROM ");
    my_ident2(b, t->schema, t->name);
    buf_adds(b, " WHERE FALSE UNION ALL VALUES ");
}

void my_tuple_open(struct buf *b, const struct my_db *db, bool first)
{
    buf_adds(b, first ? "" : ",");
    buf_adds(b, db->maria ? "(" : "ROW(");
}

void my_tuple_close(struct buf *b)
{
    buf_addc(b, ')');
}

void my_tuples_close(struct buf *b)
{
    buf_adds(b, ") AS " MY_TUPLES);
}
