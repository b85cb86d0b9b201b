/* What the status page is made of: the document itself, the JSON that feeds it, the metrics. Pure.
 * Internal to observe/. */
#ifndef LOCKSTEP_OBSERVE_PAGE_H
#define LOCKSTEP_OBSERVE_PAGE_H

#include "observe/observe.h"

/* The document, with a nonce of its own in it, and the Content-Security-Policy that goes with it.
 * -1: no random bytes were to be had. */
int page_render(struct buf *out, char *policy, size_t size);

/* The two ends, as anyone may see them. */
struct page_about {
    const char *migration;
    const char *role;   /* the command that serves the page */
    const char *source; /* URIs without passwords */
    const char *target;
    const char *source_engine;
    const char *target_engine;
    const char *journal; /* "files", "Kafka" */
};
/* Tables beyond this are counted only; those that need attention come first. */
#define PAGE_TABLES 200
/* One event of the page. trouble: why the observation is missing or old, or NULL. */
json_t *page_json(const struct page_about *about, const struct observation *o, const char *trouble);

/* Prometheus' text format. o NULL: the target cannot be read; only lockstep_up tells. */
void metrics_render(const struct page_about *about, const struct observation *o, struct buf *out);

#endif
