/* Private to session.c, uri.c and wait.c: a connection by itself, before it is a my_db, and the
 * waits that both kinds share. */
#ifndef LOCKSTEP_ENGINES_MYSQL_SESSION_H
#define LOCKSTEP_ENGINES_MYSQL_SESSION_H

#include "engines/mysql/my.h"

/* ---- uri.c ---- */

enum my_tls { MY_TLS_DISABLED, MY_TLS_PREFERRED, MY_TLS_REQUIRED, MY_TLS_CA, MY_TLS_FULL };

/* The parts of mysql://user:password@host:port/database?ssl-mode=…; text is percent-decoded and
 * empty where the URI does not say. Holds the password: my_uri_release() wipes it. */
struct my_uri {
    char user[256];
    char password[512];
    char host[256];
    char database[256];
    char socket[256];
    char ssl_ca[1024];
    char ssl_cert[1024];
    char ssl_key[1024];
    unsigned port;
    enum my_tls tls;
    bool has_password;
};
/* ERR_CONFIG, in words that do not quote the URI. */
int my_uri_parse(const char *text, struct my_uri *out, struct err *e);
void my_uri_release(struct my_uri *u);

/* ---- session.c ---- */

/* What a connection is dialled with. */
struct my_dial {
    const char *uri;
    const char *program; /* the connection attribute program_name */
    int timeout_ms;
    bool heed_stop; /* false: goes on although the process was asked to stop (short, to clean up) */
};
/* A logged-in connection without session settings. */
int my_dial(const struct my_dial *d, MYSQL **out, struct err *e);
/* After a large row has gone through: a new connection instead, outside of transactions, because
 * the library keeps its buffer. The old one stays where no new one can be had. */
int my_renew(struct my_db *db, struct err *e);

/* ---- wait.c ---- */

/* One call of the library, driven by its _start and _cont halves. */
struct my_op {
    /* ready 0: start; else what has become ready. Returns what to wait for, 0: done. */
    int (*step)(struct my_op *op, MYSQL *conn, int ready);
    const char *sql;
    size_t len;
    MYSQL_RES *res;
    MYSQL_ROW row;
    int rc;
    const struct my_uri *uri; /* connecting: to where */
    struct my_db *incoming;   /* fetches: takes the permit for large rows */
};
#define MY_STOP_GRACE_MS 100
/* 1: the call has returned; 0: timeout_ms went by without progress; -1: asked to stop, and
 * grace_ms (< 0: never heeded) have passed since. */
int my_op_run(struct my_op *op, MYSQL *conn, int timeout_ms, int grace_ms);
/* Ends the connection's statement on the server over a second connection, waits (bounded) until
 * that is so, and marks db broken. Returns err_set(e, class, why). */
int my_give_up(struct my_db *db, enum err_class class, const char *why, struct err *e);
/* Closes without another word to the server, which may be unreachable. */
void my_cut_off(MYSQL *conn);
int my_op_query(struct my_op *op, MYSQL *conn, int ready);

#endif
