/* The table of options: what lockstep.yaml may say. Internal to config/. */
#ifndef LOCKSTEP_CONFIG_OPTION_H
#define LOCKSTEP_CONFIG_OPTION_H

#include "config/config.h"
#include "core/buf.h"

#include <stdbool.h>

enum option_kind {
    OPTION_NAME,     /* the migration's name */
    OPTION_URI,      /* a server; holds a password, so no message ever shows it */
    OPTION_JOURNAL,  /* file:DIR, made absolute against the file's folder; kafka://HOST:PORT,… */
    OPTION_URL,      /* http:// or https://; may hold a password */
    OPTION_PATTERNS, /* a list of schema.name patterns */
    OPTION_ACCOUNTS, /* a list of user@host */
    OPTION_SECRETS,  /* name: value pairs; no message shows a value */
    OPTION_PAIRS,    /* name: name pairs, both sides unique */
    OPTION_BOOL,
    OPTION_INT,
    OPTION_SIZE,     /* "64MiB", in bytes, uint64_t */
    OPTION_DURATION, /* "50ms", in milliseconds, int */
    OPTION_ENUM,     /* one of `words`, stored as its place in them */
    OPTION_TEXT,
    OPTION_ADDRESS, /* host:port */
    OPTION_LATER    /* known to the design, not taken by this version; `words[0]` says what is */
};

struct option {
    const char *key; /* "snapshot.chunk_size" */
    enum option_kind kind;
    size_t offset;       /* in struct config; unused for OPTION_LATER */
    const char *initial; /* the default, in the file's own notation; NULL: none */
    bool required;
    bool needs_kafka; /* makes sense only with such a journal */
    int64_t min;
    int64_t max;
    const char *const *words; /* NULL-terminated */
    const char *help;
};

extern const struct option options[];
extern const size_t option_count;

/* By full key, or NULL. */
const struct option *option_find(const char *key);
/* Do keys begin with "name."? */
bool option_is_section(const char *name);
/* The key that was probably meant, or NULL. */
const char *option_nearest(const char *key);
/* Lists (PATTERNS, ACCOUNTS) take option_set once an entry; pairs take option_add_pair. */
bool option_is_list(const struct option *o);
bool option_is_pairs(const struct option *o);
/* Adds one pair; variables are already put in. ERR_CONFIG without file, line and key. */
int option_add_pair(const struct option *o, struct config *c, const char *name, const char *text,
                    struct err *e);
/* Parses `text` (variables already put in) into c. The message quotes `shown`, the text as the file
 * has it. ERR_CONFIG without file, line and key: the caller knows those. */
int option_set(const struct option *o, struct config *c, const char *text, const char *shown,
               struct err *e);
/* What the option takes, for messages and for the reference: "a number with KiB, MiB, GiB". */
void option_expected(const struct option *o, char *out, size_t size);
/* Puts variables into a value: ${NAME}; $${ is a literal ${. NULL with *e set if one is missing. In
 * the place of a URI's password the variable's text is percent-encoded. */
const char *option_substitute(struct arena *a, const struct option *o, const char *text,
                              struct err *e);

#endif
