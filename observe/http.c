/* One thread of libmicrohttpd, and what is published behind one lock.
 *
 * A client of /events is suspended when it has been told the newest event, and woken when another
 * is published; both happen under the lock, so that no event can fall between looking and
 * suspending. What a client is being told is counted by references: a slow one keeps an old event
 * alive, never more than one. */
#include "observe/http.h"

#include "core/run.h"
#include "observe/page.h"
#include "observe/waits.h"

#include <arpa/inet.h>
#include <errno.h>
#include <microhttpd.h>
#include <netdb.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CLIENT_MEMORY ((size_t)16 * 1024)
#define CLIENT_TIMEOUT_S 20
#define STACK_BYTES ((size_t)256 * 1024)
#define BLOCK 4096
#define HELLO_MAX ((size_t)256 * 1024)
#define BACKLOG 16

struct shared_text {
    int refs; /* under the server's lock */
    size_t len;
    char data[];
};

struct listener {
    struct http *http;
    struct listener *next;
    struct MHD_Connection *connection;
    struct shared_text *text; /* what it is being told; NULL: nothing */
    size_t at;
    uint64_t told; /* number of the event that it has, or gets */
    bool suspended;
};

struct http {
    struct http_options o;
    struct MHD_Daemon *daemon;
    char host[64];
    int port;
    bool v6;
    bool loopback;

    pthread_mutex_t lock; /* for what follows */
    struct shared_text *texts[HTTP_TEXTS];
    uint64_t events; /* published so far */
    struct listener *listeners;
    size_t nlisteners;
    int64_t looked_ms;
    bool closing;
};

/* ---- texts ---- */

/* All three parts in a row. */
static struct shared_text *text_make(const char *head, const char *data, size_t len,
                                     const char *tail)
{
    size_t nhead = strlen(head);
    size_t ntail = strlen(tail);
    struct shared_text *t = malloc(sizeof(*t) + nhead + len + ntail);

    invariant(t != NULL);
    t->refs = 1;
    t->len = nhead + len + ntail;
    memcpy(t->data, head, nhead);
    memcpy(t->data + nhead, data, len);
    memcpy(t->data + nhead + len, tail, ntail);
    return t;
}

/* Under the lock. Takes NULL. */
static void text_drop(struct shared_text *t)
{
    if (t && --t->refs == 0)
        free(t);
}

/* ---- listeners ---- */

/* Under the lock. */
static void wake_all(struct http *h)
{
    for (struct listener *l = h->listeners; l; l = l->next) {
        if (l->suspended)
            MHD_resume_connection(l->connection);
        l->suspended = false;
    }
}

/* Under the lock: the next event, if there is one that it has not got. */
static bool listener_next(struct listener *l)
{
    struct http *h = l->http;

    if (l->text && l->at < l->text->len)
        return true;
    text_drop(l->text);
    l->text = NULL;
    l->at = 0;
    if (l->told == h->events || !h->texts[HTTP_EVENT])
        return false;
    l->told = h->events;
    l->text = h->texts[HTTP_EVENT];
    l->text->refs++;
    return true;
}

static ssize_t listener_read(void *cls, uint64_t pos, char *out, size_t max)
{
    struct listener *l = cls;
    struct http *h = l->http;
    ssize_t n = 0;

    (void)pos;
    pthread_mutex_lock(&h->lock);
    if (h->closing) {
        n = MHD_CONTENT_READER_END_OF_STREAM;
    } else if (listener_next(l)) {
        size_t left = l->text->len - l->at;

        n = (ssize_t)(left < max ? left : max);
        memcpy(out, l->text->data + l->at, (size_t)n);
        l->at += (size_t)n;
    } else {
        l->suspended = true;
        MHD_suspend_connection(l->connection);
    }
    pthread_mutex_unlock(&h->lock);
    return n;
}

static void listener_free(void *cls)
{
    struct listener *l = cls;
    struct http *h = l->http;

    pthread_mutex_lock(&h->lock);
    for (struct listener **p = &h->listeners; *p; p = &(*p)->next) {
        if (*p == l) {
            *p = l->next;
            h->nlisteners--;
            break;
        }
    }
    text_drop(l->text);
    h->looked_ms = mono_ms();
    pthread_mutex_unlock(&h->lock);
    free(l);
}

/* NULL: there are too many. */
static struct listener *listener_add(struct http *h, struct MHD_Connection *connection)
{
    struct listener *l = calloc(1, sizeof(*l));
    struct buf hello;

    invariant(l != NULL);
    buf_init(&hello, HELLO_MAX);
    buf_adds(&hello, "retry: 2000\nevent: hello\ndata: ");
    h->o.hello(h->o.ctx, &hello);
    buf_adds(&hello, "\n\n");
    *l = (struct listener){.http = h, .connection = connection};
    pthread_mutex_lock(&h->lock);
    if (h->nlisteners < HTTP_LISTENERS && !h->closing && !hello.overflow) {
        l->text = text_make("", hello.data, hello.len, "");
        l->next = h->listeners;
        h->listeners = l;
        h->nlisteners++;
    } else {
        free(l);
        l = NULL;
    }
    pthread_mutex_unlock(&h->lock);
    buf_release(&hello);
    return l;
}

/* ---- answers ---- */

static void add_headers(struct MHD_Response *r, const char *type)
{
    static const char *const headers[][2] = {
        {"X-Content-Type-Options", "nosniff"},
        {"Cache-Control", "no-store"},
        {"Referrer-Policy", "no-referrer"},
        {"Cross-Origin-Resource-Policy", "same-origin"},
    };

    for (size_t i = 0; i < sizeof(headers) / sizeof(headers[0]); i++)
        MHD_add_response_header(r, headers[i][0], headers[i][1]);
    MHD_add_response_header(r, "Content-Type", type);
}

/* A policy for what is no page: nothing in it may do anything. */
#define NOTHING_ALLOWED "default-src 'none'; frame-ancestors 'none'"

static enum MHD_Result send_response(struct MHD_Connection *c, unsigned status,
                                     struct MHD_Response *r)
{
    enum MHD_Result rc = MHD_queue_response(c, status, r);

    MHD_destroy_response(r);
    return rc;
}

static enum MHD_Result send_text(struct MHD_Connection *c, unsigned status, const char *type,
                                 const char *text, size_t len)
{
    /* The library copies it, and does not write to it. */
    struct MHD_Response *r =
        MHD_create_response_from_buffer(len, (void *)(uintptr_t)text, MHD_RESPMEM_MUST_COPY);

    if (!r)
        return MHD_NO;
    add_headers(r, type);
    MHD_add_response_header(r, "Content-Security-Policy", NOTHING_ALLOWED);
    if (status == MHD_HTTP_METHOD_NOT_ALLOWED)
        MHD_add_response_header(r, "Allow", "GET, HEAD");
    return send_response(c, status, r);
}

static enum MHD_Result send_line(struct MHD_Connection *c, unsigned status, const char *line)
{
    return send_text(c, status, "text/plain; charset=utf-8", line, strlen(line));
}

static enum MHD_Result answer_page(struct http *h, struct MHD_Connection *c)
{
    char policy[400];
    enum MHD_Result rc = MHD_NO;
    struct MHD_Response *r;
    struct buf html;

    (void)h;
    buf_init(&html, (size_t)1024 * 1024);
    if (page_render(&html, policy, sizeof(policy)) < 0)
        goto out;
    r = MHD_create_response_from_buffer(html.len, html.data, MHD_RESPMEM_MUST_COPY);
    if (!r)
        goto out;
    add_headers(r, "text/html; charset=utf-8");
    MHD_add_response_header(r, "Content-Security-Policy", policy);
    MHD_add_response_header(r, "X-Frame-Options", "DENY");
    rc = send_response(c, MHD_HTTP_OK, r);
out:
    buf_release(&html);
    return rc;
}

static enum MHD_Result answer_events(struct http *h, struct MHD_Connection *c)
{
    struct listener *l = listener_add(h, c);
    struct MHD_Response *r;

    if (!l)
        return send_line(c, MHD_HTTP_SERVICE_UNAVAILABLE, "too many are listening already\n");
    r = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, BLOCK, listener_read, l, listener_free);
    if (!r) {
        listener_free(l);
        return MHD_NO;
    }
    add_headers(r, "text/event-stream");
    MHD_add_response_header(r, "Content-Security-Policy", NOTHING_ALLOWED);
    return send_response(c, MHD_HTTP_OK, r);
}

static enum MHD_Result answer_published(struct http *h, struct MHD_Connection *c,
                                        enum http_text which, const char *type)
{
    struct shared_text *t;
    enum MHD_Result rc;

    pthread_mutex_lock(&h->lock);
    t = h->texts[which];
    if (t)
        t->refs++;
    pthread_mutex_unlock(&h->lock);
    if (!t)
        return send_line(c, MHD_HTTP_SERVICE_UNAVAILABLE, "nothing has been observed yet\n");
    rc = send_text(c, MHD_HTTP_OK, type, t->data, t->len);
    pthread_mutex_lock(&h->lock);
    text_drop(t);
    pthread_mutex_unlock(&h->lock);
    return rc;
}

static enum MHD_Result answer_status(struct http *h, struct MHD_Connection *c)
{
    return answer_published(h, c, HTTP_STATUS, "application/json");
}

static enum MHD_Result answer_metrics(struct http *h, struct MHD_Connection *c)
{
    return answer_published(h, c, HTTP_METRICS, "text/plain; version=0.0.4; charset=utf-8");
}

static enum MHD_Result answer_health(struct http *h, struct MHD_Connection *c)
{
    char why[ERR_MSG_MAX + 100] = "";
    char line[ERR_MSG_MAX + 120];

    if (h->o.healthy(h->o.ctx, why, sizeof(why)))
        return send_line(c, MHD_HTTP_OK, "ok\n");
    snprintf(line, sizeof(line), "%s\n", why);
    return send_line(c, MHD_HTTP_SERVICE_UNAVAILABLE, line);
}

/* ---- questions for a server ---- */

#define TIMEOUT_DEFAULT_MS 5000

static enum MHD_Result send_json(struct MHD_Connection *c, unsigned status, const char *text)
{
    return send_text(c, status, "application/json", text, strlen(text));
}

/* Copies an argument; false: it is too long. Absent: "". */
static bool take_argument(struct MHD_Connection *c, const char *name, char *out, size_t size)
{
    const char *value = MHD_lookup_connection_value(c, MHD_GET_ARGUMENT_KIND, name);

    return snprintf(out, size, "%s", value ? value : "") < (int)size;
}

static bool take_timeout(struct MHD_Connection *c, int64_t *out)
{
    char text[8];
    size_t len;

    *out = TIMEOUT_DEFAULT_MS;
    if (!take_argument(c, "timeout_ms", text, sizeof(text)))
        return false;
    len = strlen(text);
    if (len == 0)
        return true;
    *out = atoi(text);
    return strspn(text, "0123456789") == len && *out <= WAITS_TIMEOUT_MS;
}

/* NULL, or what is wrong with it. */
static const char *take_question(struct MHD_Connection *c, struct wait_question *q)
{
    if (!take_argument(c, "of", q->of, sizeof(q->of)) ||
        (q->of[0] && strcmp(q->of, "source") != 0 && strcmp(q->of, "target") != 0))
        return "{\"error\":\"of: expected source or target\"}\n";
    if (!take_timeout(c, &q->timeout_ms))
        return "{\"error\":\"timeout_ms: expected a number up to 30000\"}\n";
    if (!take_argument(c, "position", q->position, sizeof(q->position)))
        return "{\"error\":\"position: too long\"}\n";
    if (!q->tell && !q->position[0])
        return "{\"error\":\"position: expected one, as GET /position gives it\"}\n";
    return NULL;
}

static void resume(void *connection)
{
    MHD_resume_connection(connection);
}

/* The client is suspended, and comes back to answer() with its place in *seen. */
static enum MHD_Result ask(struct http *h, struct MHD_Connection *c, bool tell, void **seen)
{
    struct wait_question q = {.tell = tell};
    const char *wrong = take_question(c, &q);
    struct wait *wait;

    if (wrong)
        return send_json(c, MHD_HTTP_BAD_REQUEST, wrong);
    wait = h->o.waits ? wait_reserve(h->o.waits) : NULL;
    if (!wait)
        return send_json(c, MHD_HTTP_SERVICE_UNAVAILABLE,
                         "{\"error\":\"too many are waiting already\"}\n");
    *seen = wait;
    MHD_suspend_connection(c);
    wait_ask(wait, &q, resume, c);
    return MHD_YES;
}

static enum MHD_Result ask_position(struct http *h, struct MHD_Connection *c, void **seen)
{
    return ask(h, c, true, seen);
}

static enum MHD_Result ask_wait(struct http *h, struct MHD_Connection *c, void **seen)
{
    return ask(h, c, false, seen);
}

static enum MHD_Result answer_wait(struct MHD_Connection *c, const struct wait *wait)
{
    unsigned status;
    const char *text = wait_answer(wait, &status);

    return send_json(c, status, text);
}

/* ---- requests ---- */

static const struct {
    const char *path;
    enum MHD_Result (*answer)(struct http *h, struct MHD_Connection *c);
    enum MHD_Result (*ask)(struct http *h, struct MHD_Connection *c, void **seen);
    bool looks; /* somebody wants to see it now */
} routes[] = {
    {"/", answer_page, NULL, true},           {"/events", answer_events, NULL, true},
    {"/metrics", answer_metrics, NULL, true}, {"/status.json", answer_status, NULL, true},
    {"/healthz", answer_health, NULL, false}, {"/position", NULL, ask_position, false},
    {"/wait", NULL, ask_wait, false},
};

/* *seen of a request whose headers are there, and that waits for nothing. */
static int second;

bool http_host_is_local(const char *host)
{
    char name[80];
    char *colon;
    struct in_addr v4;

    if (!host || strlen(host) >= sizeof(name))
        return false;
    snprintf(name, sizeof(name), "%s", host);
    if (name[0] == '[')
        return strncmp(name, "[::1]", 5) == 0 && (name[5] == '\0' || name[5] == ':');
    colon = strchr(name, ':');
    if (colon)
        *colon = '\0';
    if (strcasecmp(name, "localhost") == 0)
        return true;
    return inet_pton(AF_INET, name, &v4) == 1 && (ntohl(v4.s_addr) >> 24) == 127;
}

static void note_look(struct http *h)
{
    pthread_mutex_lock(&h->lock);
    h->looked_ms = mono_ms();
    pthread_mutex_unlock(&h->lock);
}

static enum MHD_Result answer(void *cls, struct MHD_Connection *c, const char *url,
                              const char *method, const char *version, const char *body,
                              size_t *body_size, void **seen)
{
    struct http *h = cls;
    const char *host = MHD_lookup_connection_value(c, MHD_HEADER_KIND, "Host");

    (void)version;
    (void)body;
    if (strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0)
        return send_line(c, MHD_HTTP_METHOD_NOT_ALLOWED, "this page can only be read\n");
    if (*body_size)
        return MHD_NO;
    if (!*seen) {
        *seen = &second;
        return MHD_YES;
    }
    if (*seen != &second)
        return answer_wait(c, *seen);
    if (h->loopback && !http_host_is_local(host))
        return send_line(c, MHD_HTTP_MISDIRECTED_REQUEST,
                         "this address is only for this machine itself\n");
    for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++) {
        if (strcmp(url, routes[i].path) != 0)
            continue;
        if (routes[i].looks)
            note_look(h);
        return routes[i].ask ? routes[i].ask(h, c, seen) : routes[i].answer(h, c);
    }
    return send_line(c, MHD_HTTP_NOT_FOUND, "there is nothing here\n");
}

static void completed(void *cls, struct MHD_Connection *c, void **seen,
                      enum MHD_RequestTerminationCode how)
{
    if (*seen && *seen != &second)
        wait_release(*seen);
    *seen = NULL;
}

/* ---- listening ---- */

static bool is_loopback(const struct sockaddr *a)
{
    if (a->sa_family == AF_INET)
        return ntohl(((const struct sockaddr_in *)(const void *)a)->sin_addr.s_addr) >> 24 == 127;
    return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)(const void *)a)->sin6_addr);
}

/* A bound and listening socket, or -1 with errno. */
static int listen_at(struct http *h, const struct addrinfo *a)
{
    struct sockaddr_storage bound;
    socklen_t len = sizeof(bound);
    char port[16];
    int one = 1;
    int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (bind(fd, a->ai_addr, a->ai_addrlen) != 0 || listen(fd, BACKLOG) != 0 ||
        getsockname(fd, (struct sockaddr *)&bound, &len) != 0) {
        int code = errno;

        close(fd);
        errno = code;
        return -1;
    }
    h->loopback = is_loopback((struct sockaddr *)&bound);
    h->v6 = bound.ss_family == AF_INET6;
    getnameinfo((struct sockaddr *)&bound, len, h->host, sizeof(h->host), port, sizeof(port),
                NI_NUMERICHOST | NI_NUMERICSERV);
    h->port = atoi(port);
    return fd;
}

static int make_socket(struct http *h, struct err *e)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    struct addrinfo *found = NULL;
    char host[200];
    char *port;
    int fd = -1;
    int code;

    snprintf(host, sizeof(host), "%s", h->o.listen);
    port = strrchr(host, ':');
    invariant(port != NULL);
    *port++ = '\0';
    if (host[0] == '[' && port[-2] == ']') {
        port[-2] = '\0';
        memmove(host, host + 1, strlen(host));
    }
    code = getaddrinfo(host, port, &hints, &found);
    if (code != 0)
        return err_set(e, ERR_CONFIG, "listen: %s: %s", h->o.listen, gai_strerror(code));
    for (struct addrinfo *a = found; a && fd < 0; a = a->ai_next)
        fd = listen_at(h, a);
    if (fd < 0)
        err_set(e, ERR_CONFIG, "listen: %s: %s", h->o.listen, strerror(errno));
    freeaddrinfo(found);
    return fd;
}

int http_open(const struct http_options *o, struct http **out, struct err *e)
{
    struct http *h = calloc(1, sizeof(*h));
    int fd;

    invariant(h != NULL);
    h->o = *o;
    h->looked_ms = mono_ms();
    pthread_mutex_init(&h->lock, NULL);
    fd = make_socket(h, e);
    if (fd < 0) {
        free(h);
        return -1;
    }
    h->daemon = MHD_start_daemon(
        MHD_USE_AUTO | MHD_USE_INTERNAL_POLLING_THREAD | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL,
        answer, h, MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT,
        (unsigned)HTTP_CLIENTS, MHD_OPTION_CONNECTION_MEMORY_LIMIT, CLIENT_MEMORY,
        MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)CLIENT_TIMEOUT_S, MHD_OPTION_THREAD_STACK_SIZE,
        STACK_BYTES, MHD_OPTION_NOTIFY_COMPLETED, completed, NULL, MHD_OPTION_END);
    if (!h->daemon) {
        close(fd);
        free(h);
        return err_set(e, ERR_FATAL, "listen: the server's thread cannot be made");
    }
    *out = h;
    return 0;
}

void http_close(struct http *h)
{
    if (!h)
        return;
    pthread_mutex_lock(&h->lock);
    h->closing = true;
    wake_all(h);
    pthread_mutex_unlock(&h->lock);
    MHD_stop_daemon(h->daemon);
    for (size_t i = 0; i < HTTP_TEXTS; i++)
        text_drop(h->texts[i]);
    pthread_mutex_destroy(&h->lock);
    free(h);
}

void http_publish(struct http *h, enum http_text which, const char *text, size_t len)
{
    bool event = which == HTTP_EVENT;
    /* An event ends with an empty line; its text, JSON, has none inside. */
    struct shared_text *t = text_make(event ? "data: " : "", text, len, event ? "\n\n" : "");

    pthread_mutex_lock(&h->lock);
    text_drop(h->texts[which]);
    h->texts[which] = t;
    if (event) {
        h->events++;
        wake_all(h);
    }
    pthread_mutex_unlock(&h->lock);
}

int64_t http_last_look(struct http *h)
{
    int64_t at;

    pthread_mutex_lock(&h->lock);
    at = h->nlisteners ? mono_ms() : h->looked_ms;
    pthread_mutex_unlock(&h->lock);
    return at;
}

void http_url(const struct http *h, char *out, size_t size)
{
    snprintf(out, size, h->v6 ? "http://[%s]:%d/" : "http://%s:%d/", h->host, h->port);
}
