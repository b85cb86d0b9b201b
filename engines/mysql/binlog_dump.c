/* The commands are sent by the library's own db_command; packets are taken by fetching rows of a
 * result without columns, whose reader is ours (the connection's methods are a copy with that one
 * replaced): so the library's non-blocking half drives a plain mysql_net_read_packet(), with TLS
 * and packets of more than 16 MiB dealt with.
 *
 * The server sends a heartbeat each second in which it has nothing else, so silence means that the
 * connection is dead. Two captures under one server_id throw each other out: the number is made of
 * what makes a stream unique, so that only a zombie of our own is thrown out. */
#include "engines/mysql/binlog_dump.h"

#include "engines/mysql/session.h"

#include "core/run.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FIRST_EVENT 4
#define FLAG_ANNOTATE 2 /* nothing is left out, so offsets need no guess */
#define POLL_SLICE_MS 50
/* The server waits so long for us before it hangs up: capture may stand still while its journal is
 * full. */
#define WRITE_TIMEOUT_S 3600
#define ER_BINLOG 1236
#define ER_SAME_ID 4052 /* MariaDB's own number for it; MySQL says it by 1236 */

struct binlog_dump {
    struct my_db *db;
    struct st_mariadb_methods methods; /* the library's, but for read_packet */
    MYSQL_RES result;                  /* the one without columns */
    char *row[1];
    unsigned long lengths[1];
    MYSQL_ROW got;
    int wants;    /* what the fetch under way waits for; 0: none is */
    int quiet_ms; /* waited without a byte */
    uint32_t server_id;
    bool torn;
    bool permit;
    bool large;
};

/* In the place of db_read_one_row; lengths[0]: the packet's. */
static int read_packet(MYSQL *conn, unsigned int fields, MYSQL_ROW row, unsigned long *lengths)
{
    unsigned long n = mysql_net_read_packet(conn);

    (void)fields;
    (void)row;
    /* The error's value is of 32 bits. */
    if ((unsigned)n == (unsigned)-1 || n == 0)
        return -1;
    if (n < 9 && conn->net.read_pos[0] == 254)
        return 1; /* the end */
    lengths[0] = n;
    return 0;
}

/* FNV-1a */
static uint32_t hash(uint32_t h, const char *s)
{
    for (; *s; s++)
        h = (h ^ (uint8_t)*s) * 16777619u;
    return (h ^ 0xff) * 16777619u;
}

static uint32_t server_id_of(const struct my_db *db)
{
    char host[256] = "";
    uint32_t h = 2166136261u;

    gethostname(host, sizeof(host) - 1);
    h = hash(hash(hash(h, db->migration), db->where), host);
    h = hash(h, db->back ? "back" : "forth");
    return 0x40000000u | (h & 0x3fffffffu);
}

static size_t put(unsigned char *p, uint64_t v, size_t n)
{
    for (size_t i = 0; i < n; i++, v >>= 8)
        p[i] = (unsigned char)(v & 0xff);
    return n;
}

static int failed(struct binlog_dump *d, struct err *e)
{
    MYSQL *conn = d->db->conn;
    unsigned code = mysql_errno(conn);

    d->db->broken = true;
    if (code != ER_BINLOG && code != ER_SAME_ID)
        return code ? my_fail(d->db, "reading the binlog", e)
                    : err_set(e, ERR_RETRY, "the server ended the stream of the binlog");
    d->torn = strstr(mysql_error(conn), "truncated in the middle of event") != NULL;
    err_set(e, ERR_FATAL, "the server cannot send the binlog: %s", mysql_error(conn));
    if (code == ER_SAME_ID || strstr(mysql_error(conn), "same server"))
        return err_hint(e,
                        "another replica of this server has the server_id %u too: give that one "
                        "another number, or stop the second capture of this migration",
                        d->server_id);
    return err_hint(e, "if the binlog was purged, its changes are lost to this migration: "
                       "`lockstep finish --abandon`, then begin anew");
}

static void take_permit(struct binlog_dump *d)
{
    if (d->permit || d->db->conn->net.max_packet <= LARGE_ROW)
        return;
    large_row_enter();
    d->permit = true;
    d->large = true;
}

static void give_permit(struct binlog_dump *d)
{
    if (!d->permit)
        return;
    d->permit = false;
    memory_trim();
    large_row_leave();
}

/* What is ready of what the fetch wants; 0: nothing within slice_ms. */
static int wait_ready(struct binlog_dump *d, int slice_ms, struct err *e)
{
    struct pollfd fd = {.fd = mysql_get_socket(d->db->conn)};
    int rc;

    fd.events = (short)((d->wants & MYSQL_WAIT_READ ? POLLIN : 0) |
                        (d->wants & MYSQL_WAIT_WRITE ? POLLOUT : 0));
    rc = poll(&fd, 1, slice_ms);
    if (rc < 0 && errno != EINTR)
        return err_set(e, ERR_RETRY, "waiting for the binlog: %s", strerror(errno));
    if (rc > 0)
        return d->wants & (MYSQL_WAIT_READ | MYSQL_WAIT_WRITE);
    if (stop_requested())
        return err_set(e, ERR_STOPPED, "asked to stop while waiting for the binlog");
    d->quiet_ms += slice_ms;
    if (d->quiet_ms > d->db->timeout_ms) {
        d->db->broken = true;
        return err_set(e, ERR_RETRY, "no sign of life from %s for %d s", d->db->where,
                       d->quiet_ms / 1000);
    }
    return 0;
}

/* 1: a packet lies at net.read_pos; 0: not yet; -1. */
static int fetch(struct binlog_dump *d, int timeout_ms, struct err *e)
{
    int64_t deadline = mono_ms() + timeout_ms;

    if (d->wants == 0) {
        give_permit(d);
        d->got = NULL;
        d->db->conn->status = MYSQL_STATUS_USE_RESULT;
        d->wants = mysql_fetch_row_start(&d->got, &d->result);
    }
    while (d->wants != 0) {
        int64_t left = deadline - mono_ms();
        int ready = wait_ready(d,
                               left <= 0              ? 0
                               : left < POLL_SLICE_MS ? (int)left
                                                      : POLL_SLICE_MS,
                               e);

        if (ready < 0 || (ready == 0 && left <= 0))
            return ready;
        if (ready == 0)
            continue;
        d->quiet_ms = 0;
        d->wants = mysql_fetch_row_cont(&d->got, &d->result, ready);
        take_permit(d);
    }
    take_permit(d);
    return d->got ? 1 : failed(d, e);
}

int binlog_dump_next(struct binlog_dump *d, int timeout_ms, const uint8_t **event, size_t *len,
                     struct err *e)
{
    const uint8_t *packet;
    int rc = fetch(d, timeout_ms, e);

    if (rc <= 0)
        return rc;
    packet = d->db->conn->net.read_pos;
    if (packet[0] != 0)
        return err_set(e, ERR_FATAL, "the server sent a packet that is no binlog event");
    *event = packet + 1;
    *len = d->lengths[0] - 1;
    return 1;
}

static int command(struct binlog_dump *d, enum enum_server_command what, const unsigned char *data,
                   size_t len, struct err *e)
{
    MYSQL *conn = d->db->conn;

    conn->status = MYSQL_STATUS_READY;
    if (conn->methods->db_command(conn, what, (const char *)data, len, 1, NULL) != 0)
        return my_fail(d->db, "asking for the binlog", e);
    conn->methods = &d->methods;
    d->result = (MYSQL_RES){.handle = conn, .row = d->row, .lengths = d->lengths};
    return 0;
}

/* So that the server lists us among its replicas. */
static int register_replica(struct binlog_dump *d, struct err *e)
{
    unsigned char p[32] = {0};
    int rc;

    put(p, d->server_id, 4); /* then host, user, password, port, rank, master: none */
    if (command(d, COM_REGISTER_SLAVE, p, 4 + 3 + 2 + 4 + 4, e) < 0)
        return -1;
    rc = fetch(d, d->db->timeout_ms, e);
    if (rc == 0)
        return err_set(e, ERR_RETRY, "the server does not answer when asked for the binlog");
    return rc < 0 ? -1 : 0;
}

static int set_up(struct binlog_dump *d, struct err *e)
{
    struct my_db *db = d->db;

    if (my_execf(db, e, "SET SESSION net_write_timeout = %d", WRITE_TIMEOUT_S) < 0 ||
        my_execf(db, e,
                 "SET @master_binlog_checksum = @@global.binlog_checksum,"
                 " @source_binlog_checksum = @@global.binlog_checksum,"
                 " @master_heartbeat_period = 1000000000, @source_heartbeat_period = 1000000000,"
                 " @mariadb_slave_capability = 4") < 0)
        return -1;
    return register_replica(d, e);
}

static int begin(struct binlog_dump *d, struct position from, struct err *e)
{
    unsigned char p[600];
    char name[500];
    size_t n = 0;

    if (my_binlog_name(d->db, from.major, name, sizeof(name), e) < 0 || set_up(d, e) < 0)
        return -1;
    n += put(p + n, from.minor > UINT32_MAX || from.minor < FIRST_EVENT ? FIRST_EVENT : from.minor,
             4);
    n += put(p + n, d->db->maria ? FLAG_ANNOTATE : 0, 2);
    n += put(p + n, d->server_id, 4);
    memcpy(p + n, name, strlen(name));
    return command(d, COM_BINLOG_DUMP, p, n + strlen(name), e);
}

int binlog_dump_open(const struct db_options *o, struct position from, struct binlog_dump **out,
                     struct err *e)
{
    struct binlog_dump *d = calloc(1, sizeof(*d));

    invariant(d != NULL);
    *out = NULL;
    if (my_connect(o, &d->db, e) < 0) {
        free(d);
        return -1;
    }
    d->server_id = server_id_of(d->db);
    d->methods = *d->db->conn->methods;
    d->methods.db_read_one_row = read_packet;
    if (begin(d, from, e) < 0) {
        binlog_dump_close(d);
        return err_wrap(e, "binlog %" PRIu64 ":%" PRIu64, from.major, from.minor);
    }
    *out = d;
    return 0;
}

bool binlog_dump_is_torn(const struct binlog_dump *d)
{
    return d->torn;
}

bool binlog_dump_is_large(const struct binlog_dump *d)
{
    return d->large;
}

/* No word to the server: it sees the socket close. */
void binlog_dump_close(struct binlog_dump *d)
{
    if (!d)
        return;
    d->db->broken = true;
    my_close(&d->db->base);
    give_permit(d);
    free(d);
}
