/* A small server of what others publish: the page, its events, /metrics, /status.json, /healthz.
 * Read-only. It knows nothing of databases, so that a client can neither wait for one nor make one
 * work: whatever is asked, the last published text is the answer. Two questions are for a server,
 * GET /position and GET /wait?position=…&timeout_ms=…&of=source|target; they are handed to
 * observe/waits.h, which bounds what they cost, and the client is suspended until the answer comes.
 *
 * Bounds: HTTP_CLIENTS connections, HTTP_LISTENERS of them on /events, WAITS_MAX waiting; a client
 * that does not read is cut off; a client holds at most one event that is not the newest. Internal
 * to observe/. */
#ifndef LOCKSTEP_OBSERVE_HTTP_H
#define LOCKSTEP_OBSERVE_HTTP_H

#include "core/buf.h"

#include <stdbool.h>
#include <stdint.h>

struct waits;

#define HTTP_CLIENTS 64
#define HTTP_LISTENERS 16

enum http_text { HTTP_EVENT, HTTP_STATUS, HTTP_METRICS, HTTP_TEXTS };

struct http_options {
    const char *listen; /* host:port; port 0: any free one */
    /* Is all well? If not, why. Called from the server's thread. */
    bool (*healthy)(void *ctx, char *why, size_t size);
    /* What a new client of /events is told first, as the data of an event "hello". */
    void (*hello)(void *ctx, struct buf *out);
    void *ctx;
    struct waits *waits; /* NULL: /position and /wait are not served; outlives the server */
};

struct http;

/* ERR_CONFIG: the address cannot be listened at. */
int http_open(const struct http_options *o, struct http **out, struct err *e);
/* Cuts all clients off; waits_end() comes before it. Takes NULL. */
void http_close(struct http *h);
/* From any thread; the text is copied. */
void http_publish(struct http *h, enum http_text which, const char *text, size_t len);
/* mono_ms of the last moment at which somebody looked. */
int64_t http_last_look(struct http *h);
/* "http://127.0.0.1:8650/" */
void http_url(const struct http *h, char *out, size_t size);

/* Does a Host header name this machine itself? Anything else, on a loopback address, is a page of
 * somebody else that had its name resolved to us. (pure) */
bool http_host_is_local(const char *host);

#endif
