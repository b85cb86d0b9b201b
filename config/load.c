/* lockstep.yaml → struct config: libyaml's document with its line marks, walked by the table. */
#include "config/option.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#define FILE_MAX (1024u * 1024u)
#define KEY_MAX 120
#define NAME_MAX_LEN 80 /* of a pair's name: a property of librdkafka, a schema */

struct load {
    struct config *config;
    yaml_document_t *doc;
    bool seen[64]; /* by place in the table */
    size_t lines[64];
    struct err *e;
};

static int fail(const struct load *l, size_t line, const char *key, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* "lockstep.yaml:7: snapshot.chunk_size: …"; line counts from 0 as libyaml's do. */
static int fail(const struct load *l, size_t line, const char *key, const char *fmt, ...)
{
    char what[ERR_MSG_MAX / 2];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(what, sizeof(what), fmt, ap);
    va_end(ap);
    return err_set(l->e, ERR_CONFIG, "%s:%zu: %s%s%s", l->config->file, line + 1, key ? key : "",
                   key ? ": " : "", what);
}

/* Puts file, line and key in front of an error that knows only the value. */
static int fail_wrap(const struct load *l, size_t line, const char *key)
{
    return err_wrap(l->e, "%s:%zu: %s", l->config->file, line + 1, key);
}

/* ---- reading ---- */

static int read_file(const struct load *l, const char *path, struct buf *out)
{
    FILE *f = fopen(path, "re");
    char block[8192];
    size_t n;
    int rc = 0;

    if (!f) {
        int code = errno;

        err_set(l->e, ERR_CONFIG, "%s: %s", path, strerror(code));
        if (code == ENOENT)
            err_hint(l->e, "lockstep init SOURCE TARGET writes one; -c FILE names another");
        return -1;
    }
    while ((n = fread(block, 1, sizeof(block), f)) > 0 && !out->overflow)
        buf_add(out, block, n);
    if (ferror(f))
        rc = err_set(l->e, ERR_CONFIG, "%s: cannot be read: %s", path, strerror(errno));
    else if (out->overflow)
        rc = err_set(l->e, ERR_CONFIG, "%s: is larger than 1MiB; expected a configuration", path);
    fclose(f);
    return rc;
}

/* Length of the UTF-8 sequence at p, 0 if it is none (RFC 3629). */
static size_t utf8_length(const unsigned char *p, size_t left)
{
    static const struct {
        unsigned char from, to, low, high;
        size_t len;
    } forms[] = {
        {0x09, 0x7e, 0, 0, 1},       {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
        {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
        {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4}};

    for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
        size_t len = forms[i].len;

        if (*p < forms[i].from || *p > forms[i].to)
            continue;
        if (len > left || (len > 1 && (p[1] < forms[i].low || p[1] > forms[i].high)))
            return 0;
        for (size_t k = 2; k < len; k++) {
            if ((p[k] & 0xc0) != 0x80)
                return 0;
        }
        return len;
    }
    return 0;
}

static int check_text(const struct load *l, const struct buf *text)
{
    size_t line = 0;
    bool blank = true;

    for (size_t i = 0; i < text->len;) {
        const unsigned char *p = (const unsigned char *)text->data + i;
        size_t len = utf8_length(p, text->len - i);

        if (!len)
            return fail(l, line, NULL, "is not UTF-8 text (byte 0x%02x)", *p);
        line += *p == '\n';
        blank = blank && strchr(" \t\r\n", *p);
        i += len;
    }
    if (blank)
        return fail(l, 0, NULL,
                    "is empty; expected at least migration, source and target (lockstep init "
                    "SOURCE TARGET writes a file)");
    return 0;
}

/* ---- walking ---- */

static const char *scalar(const yaml_node_t *n)
{
    return n && n->type == YAML_SCALAR_NODE ? (const char *)n->data.scalar.value : NULL;
}

static const char *node_name(const yaml_node_t *n)
{
    return n->type == YAML_SEQUENCE_NODE ? "a list" : "a group of keys";
}

static int set_scalar(struct load *l, const struct option *o, const yaml_node_t *node)
{
    const char *shown = scalar(node);
    size_t line = node->start_mark.line;
    const char *text;

    if (!shown || strlen(shown) != node->data.scalar.length) {
        char expected[200];

        option_expected(o, expected, sizeof(expected));
        return fail(l, line, o->key, "is %s; expected %s", shown ? "not text" : node_name(node),
                    expected);
    }
    text = option_substitute(&l->config->arena, o, shown, l->e);
    if (!text || option_set(o, l->config, text, shown, l->e) < 0)
        return fail_wrap(l, line, o->key);
    return 0;
}

static int set_list(struct load *l, const struct option *o, const yaml_node_t *node)
{
    if (node->type != YAML_SEQUENCE_NODE) {
        char expected[200];

        option_expected(o, expected, sizeof(expected));
        return fail(l, node->start_mark.line, o->key, "is %s; expected %s",
                    node->type == YAML_SCALAR_NODE ? "one text" : node_name(node), expected);
    }
    for (const yaml_node_item_t *i = node->data.sequence.items.start;
         i < node->data.sequence.items.top; i++) {
        if (set_scalar(l, o, yaml_document_get_node(l->doc, *i)) < 0)
            return -1;
    }
    return 0;
}

static int set_pair(struct load *l, const struct option *o, const yaml_node_t *key,
                    const yaml_node_t *value)
{
    const char *name = scalar(key);
    const char *shown = scalar(value);
    size_t line = key->start_mark.line;
    const char *text;
    char full[KEY_MAX];

    if (!name || !*name || strlen(name) != key->data.scalar.length || strlen(name) > NAME_MAX_LEN)
        return fail(l, line, o->key, "has a key that is no short text");
    snprintf(full, sizeof(full), "%s.%s", o->key, name);
    if (!shown || strlen(shown) != value->data.scalar.length)
        return fail(l, line, full, "is %s; expected a text", shown ? "not text" : node_name(value));
    text = option_substitute(&l->config->arena, o, shown, l->e);
    if (!text || option_add_pair(o, l->config, name, text, l->e) < 0)
        return fail_wrap(l, line, full);
    return 0;
}

static int set_pairs(struct load *l, const struct option *o, const yaml_node_t *node)
{
    struct pair_list *list = (struct pair_list *)((char *)l->config + o->offset);
    char expected[200];

    list->line = node->start_mark.line + 1;
    option_expected(o, expected, sizeof(expected));
    if (node->type != YAML_MAPPING_NODE)
        return fail(l, node->start_mark.line, o->key, "is %s; expected %s",
                    scalar(node) ? "one text" : node_name(node), expected);
    for (const yaml_node_pair_t *p = node->data.mapping.pairs.start;
         p < node->data.mapping.pairs.top; p++) {
        if (set_pair(l, o, yaml_document_get_node(l->doc, p->key),
                     yaml_document_get_node(l->doc, p->value)) < 0)
            return -1;
    }
    return 0;
}

static int set_option(struct load *l, const struct option *o, const yaml_node_t *key,
                      const yaml_node_t *value)
{
    size_t place = (size_t)(o - options);

    if (l->seen[place])
        return fail(l, key->start_mark.line, o->key, "is there twice; expected it once");
    l->seen[place] = true;
    l->lines[place] = key->start_mark.line;
    if (o->kind == OPTION_LATER) {
        option_set(o, l->config, "", "", l->e);
        return fail_wrap(l, key->start_mark.line, o->key);
    }
    if (option_is_list(o))
        return set_list(l, o, value);
    if (option_is_pairs(o))
        return set_pairs(l, o, value);
    return set_scalar(l, o, value);
}

static int unknown(const struct load *l, size_t line, const char *key)
{
    const char *nearest = option_nearest(key);

    if (nearest)
        return fail(l, line, key, "is not a key; did you mean %s?", nearest);
    return fail(l, line, key, "is not a key; docs/configuration.md lists them");
}

/* A mapping whose keys are "section.key" (section NULL: the file's own). */
static int walk(struct load *l, const char *section, const yaml_node_t *map);

static int walk_section(struct load *l, const char *section, const yaml_node_t *key,
                        const yaml_node_t *value)
{
    size_t line = key->start_mark.line;
    const char *text = scalar(value);

    for (size_t i = 0; i < option_count; i++) {
        if (l->seen[i] && strncmp(options[i].key, section, strlen(section)) == 0 &&
            options[i].key[strlen(section)] == '.')
            return fail(l, line, section, "is there twice; expected it once");
    }
    if (text && !*text)
        return 0;
    if (value->type != YAML_MAPPING_NODE)
        return fail(l, line, section, "is %s; expected a group of keys",
                    text ? "one text" : node_name(value));
    return walk(l, section, value);
}

static int walk_pair(struct load *l, const char *section, const yaml_node_t *key,
                     const yaml_node_t *value)
{
    const char *name = scalar(key);
    size_t line = key->start_mark.line;
    const struct option *o;
    char full[KEY_MAX];

    if (!name || strlen(name) != key->data.scalar.length || strlen(name) > KEY_MAX / 2)
        return fail(l, line, section, "has a key that is no short text");
    snprintf(full, sizeof(full), "%s%s%s", section ? section : "", section ? "." : "", name);
    o = option_find(full);
    if (o && !(section == NULL && strchr(name, '.')))
        return set_option(l, o, key, value);
    if (!section && option_is_section(name))
        return walk_section(l, name, key, value);
    if (o) {
        int len = (int)strcspn(name, ".");

        return fail(l, line, full, "is written as one key; expected %s below %.*s:", name + len + 1,
                    len, name);
    }
    return unknown(l, line, full);
}

static int walk(struct load *l, const char *section, const yaml_node_t *map)
{
    for (const yaml_node_pair_t *p = map->data.mapping.pairs.start; p < map->data.mapping.pairs.top;
         p++) {
        if (walk_pair(l, section, yaml_document_get_node(l->doc, p->key),
                      yaml_document_get_node(l->doc, p->value)) < 0)
            return -1;
    }
    return 0;
}

/* Keys that say nothing without another's value. */
static int check_together(struct load *l)
{
    if (strncmp(l->config->journal, "kafka:", 6) == 0)
        return 0;
    for (size_t i = 0; i < option_count; i++) {
        if (l->seen[i] && options[i].needs_kafka)
            return fail(l, l->lines[i], options[i].key,
                        "belongs to a journal in Kafka; expected journal: "
                        "kafka://host:port,host:port beside it, or this key left out");
    }
    return 0;
}

/* Defaults, and what must be there. */
static int complete(struct load *l, size_t line)
{
    struct config *c = l->config;

    for (size_t i = 0; i < option_count; i++) {
        const struct option *o = &options[i];
        char expected[200];

        if (l->seen[i])
            continue;
        if (o->required) {
            option_expected(o, expected, sizeof(expected));
            return fail(l, line, o->key, "is missing; expected %s", expected);
        }
        if (o->initial)
            invariant(option_set(o, c, o->initial, o->initial, NULL) == 0);
    }
    if (!c->journal) {
        const struct option *o = option_find("journal");
        const char *text = arena_printf(&c->arena, "file:./%s.journal", c->migration);

        if (option_set(o, c, text, text, l->e) < 0)
            return -1;
    }
    return check_together(l);
}

/* ---- the document ---- */

static int syntax(const struct load *l, const yaml_parser_t *p)
{
    const char *why = p->problem ? p->problem : "is not YAML";

    if (p->error == YAML_MEMORY_ERROR)
        return err_set(l->e, ERR_CONFIG, "%s: is too complex", l->config->file);
    if (p->problem && strstr(p->problem, "cannot start any token"))
        why = "a tab, or another character that YAML does not take here; expected blanks";
    return fail(l, p->problem_mark.line, NULL, "%s%s%s", why, p->context ? ", " : "",
                p->context ? p->context : "");
}

static int check_last(struct load *l, yaml_parser_t *parser)
{
    yaml_document_t next;
    const yaml_node_t *root;
    int rc = 0;

    if (!yaml_parser_load(parser, &next))
        return syntax(l, parser);
    root = yaml_document_get_root_node(&next);
    if (root)
        rc = fail(l, root->start_mark.line, NULL, "a second document begins; expected one");
    yaml_document_delete(&next);
    return rc;
}

static int parse(struct load *l, const struct buf *text)
{
    yaml_parser_t parser;
    yaml_document_t doc;
    const yaml_node_t *root;
    int rc = -1;

    invariant(yaml_parser_initialize(&parser));
    yaml_parser_set_input_string(&parser, (const unsigned char *)text->data, text->len);
    yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
    if (!yaml_parser_load(&parser, &doc)) {
        rc = syntax(l, &parser);
        goto out;
    }
    l->doc = &doc;
    root = yaml_document_get_root_node(&doc);
    if (!root || root->type != YAML_MAPPING_NODE) {
        rc = fail(l, root ? root->start_mark.line : 0, NULL,
                  "is no group of keys; expected migration:, source: and target:");
        goto out_doc;
    }
    rc = walk(l, NULL, root);
    if (rc == 0)
        rc = complete(l, root->start_mark.line);
    if (rc == 0)
        rc = check_last(l, &parser);
out_doc:
    yaml_document_delete(&doc);
out:
    yaml_parser_delete(&parser);
    return rc;
}

int config_load(const char *path, struct config *out, struct err *e)
{
    struct err own;
    struct load l = {.config = out, .e = e ? e : &own};
    struct buf text;
    int rc;

    invariant(option_count <= sizeof(l.seen) / sizeof(l.seen[0]));
    memset(out, 0, sizeof(*out));
    out->file = arena_strdup(&out->arena, path);
    buf_init(&text, FILE_MAX + 1);
    rc = read_file(&l, path, &text);
    if (rc == 0)
        rc = check_text(&l, &text);
    if (rc == 0)
        rc = parse(&l, &text);
    buf_release(&text);
    if (rc < 0)
        config_release(out);
    return rc;
}

int config_override(struct config *c, const char *key, const char *text, struct err *e)
{
    const struct option *o = option_find(key);

    invariant(o && o->kind != OPTION_LATER && !option_is_list(o) && !option_is_pairs(o));
    return option_set(o, c, text, text, e);
}

int config_refuse(const struct config *c, size_t line, const char *key, const char *what,
                  struct err *e)
{
    return err_set(e, ERR_CONFIG, "%s:%zu: %s: %s", c->file, line, key, what);
}

void config_release(struct config *c)
{
    arena_release(&c->arena);
    memset(c, 0, sizeof(*c));
}
