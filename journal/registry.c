#include "journal/registry.h"

#include "core/buf.h"
#include "core/run.h"

#include <curl/curl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define CONNECT_MS 5000L
#define ANSWER_MS 15000L
/* What one of several registries has just taken another may not know yet. */
#define UNKNOWN_MS 15000
#define UNKNOWN_NAP_MS 250
#define ANSWER_MAX ((size_t)16 * 1024 * 1024)
#define CONTENT_TYPE "application/vnd.schemaregistry.v1+json"

struct registry {
    CURL *curl;
    char *url;  /* without user and password, without a slash at its end */
    char *user; /* NULL: none */
    char *password;
    struct curl_slist *headers;
    long status; /* of the last answer; 0: there was none */
};

/* ---- the URL ---- */

/* Takes user and password out of the URL: they go to libcurl alone. */
static int take_url(struct registry *r, const char *url, struct err *e)
{
    CURLU *parts = curl_url();
    char *plain = NULL;
    int rc = 0;

    invariant(parts != NULL);
    if (curl_url_set(parts, CURLUPART_URL, url, 0) != CURLUE_OK ||
        (strncmp(url, "http://", 7) != 0 && strncmp(url, "https://", 8) != 0)) {
        rc = err_set(e, ERR_CONFIG, "schema_registry is not a URL like http://HOST:PORT");
        goto out;
    }
    curl_url_get(parts, CURLUPART_USER, &r->user, CURLU_URLDECODE);
    curl_url_get(parts, CURLUPART_PASSWORD, &r->password, CURLU_URLDECODE);
    curl_url_set(parts, CURLUPART_USER, NULL, 0);
    curl_url_set(parts, CURLUPART_PASSWORD, NULL, 0);
    invariant(curl_url_get(parts, CURLUPART_URL, &plain, 0) == CURLUE_OK);
    r->url = strdup(plain);
    invariant(r->url != NULL);
    for (size_t n = strlen(r->url); n && r->url[n - 1] == '/'; n--)
        r->url[n - 1] = '\0';
out:
    curl_free(plain);
    curl_url_cleanup(parts);
    return rc;
}

int registry_open(const char *url, struct registry **out, struct err *e)
{
    struct registry *r = calloc(1, sizeof(*r));

    invariant(r != NULL);
    *out = NULL;
    if (take_url(r, url, e) < 0) {
        registry_close(r);
        return -1;
    }
    r->curl = curl_easy_init();
    invariant(r->curl != NULL);
    r->headers = curl_slist_append(NULL, "Content-Type: " CONTENT_TYPE);
    r->headers = curl_slist_append(r->headers, "Accept: " CONTENT_TYPE ", application/json");
    r->headers = curl_slist_append(r->headers, "Expect:");
    *out = r;
    return 0;
}

void registry_close(struct registry *r)
{
    if (!r)
        return;
    curl_slist_free_all(r->headers);
    if (r->curl)
        curl_easy_cleanup(r->curl);
    curl_free(r->user);
    curl_free(r->password);
    free(r->url);
    free(r);
}

/* ---- one request ---- */

static size_t on_data(char *data, size_t size, size_t n, void *arg)
{
    struct buf *answer = arg;

    buf_add(answer, data, size * n);
    return answer->overflow ? 0 : size * n;
}

static int on_progress(void *arg, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
    return stop_requested() ? 1 : 0;
}

static void prepare(struct registry *r, const char *url, const char *method, const char *body,
                    struct buf *answer)
{
    curl_easy_reset(r->curl);
    curl_easy_setopt(r->curl, CURLOPT_URL, url);
    curl_easy_setopt(r->curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(r->curl, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_MS);
    curl_easy_setopt(r->curl, CURLOPT_TIMEOUT_MS, ANSWER_MS);
    curl_easy_setopt(r->curl, CURLOPT_HTTPHEADER, r->headers);
    curl_easy_setopt(r->curl, CURLOPT_WRITEFUNCTION, on_data);
    curl_easy_setopt(r->curl, CURLOPT_WRITEDATA, answer);
    curl_easy_setopt(r->curl, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(r->curl, CURLOPT_XFERINFOFUNCTION, on_progress);
    if (r->user) {
        curl_easy_setopt(r->curl, CURLOPT_HTTPAUTH, (long)CURLAUTH_BASIC);
        curl_easy_setopt(r->curl, CURLOPT_USERNAME, r->user);
        curl_easy_setopt(r->curl, CURLOPT_PASSWORD, r->password ? r->password : "");
    }
    if (body) {
        curl_easy_setopt(r->curl, CURLOPT_POSTFIELDS, body);
        curl_easy_setopt(r->curl, CURLOPT_CUSTOMREQUEST, method);
    }
}

/* What the registry says about a refusal: the message of its JSON. */
static int fail_answer(const struct registry *r, long status, const char *what,
                       const struct buf *answer, struct err *e)
{
    json_t *doc = answer->len ? json_loadb(answer->data, answer->len, 0, NULL) : NULL;
    const char *text = json_string_value(json_object_get(doc, "message"));
    bool later = status >= 500 || status == 429 || status == 408;

    err_set(e, later ? ERR_RETRY : ERR_FATAL, "the schema registry %s refuses %s: HTTP %ld%s%.600s",
            r->url, what, status, text ? ": " : "", text ? text : "");
    json_decref(doc);
    if (status == 401 || status == 403)
        err_hint(e, "see the user and password in schema_registry");
    else if (status == 404)
        err_hint(e, "see the path in schema_registry; it ends where /subjects begins");
    return -1;
}

/* 0 with the answer's JSON. */
static int request(struct registry *r, const char *method, const char *path, const char *body,
                   const char *what, json_t **out, struct err *e)
{
    char error[CURL_ERROR_SIZE] = "";
    struct buf url;
    struct buf answer;
    long status = 0;
    CURLcode code;
    int rc = -1;

    buf_init(&url, BUF_MAX_TEXT);
    buf_init(&answer, ANSWER_MAX);
    buf_addf(&url, "%s%s", r->url, path);
    prepare(r, url.data, method, body, &answer);
    curl_easy_setopt(r->curl, CURLOPT_ERRORBUFFER, error);
    code = curl_easy_perform(r->curl);
    curl_easy_getinfo(r->curl, CURLINFO_RESPONSE_CODE, &status);
    r->status = status;
    curl_easy_setopt(r->curl, CURLOPT_ERRORBUFFER, NULL);
    if (code != CURLE_OK) {
        bool untrusted = code == CURLE_PEER_FAILED_VERIFICATION;

        err_set(e, untrusted ? ERR_FATAL : ERR_RETRY, "the schema registry %s does not answer: %s",
                r->url, error[0] ? error : curl_easy_strerror(code));
        goto out;
    }
    if (status < 200 || status > 299) {
        fail_answer(r, status, what, &answer, e);
        goto out;
    }
    *out = answer.len ? json_loadb(answer.data, answer.len, 0, NULL) : NULL;
    rc = *out ? 0
              : err_set(e, ERR_FATAL,
                        "the schema registry %s answers %s with something else "
                        "than JSON",
                        r->url, what);
out:
    buf_release(&url);
    buf_release(&answer);
    return rc;
}

/* ---- the calls ---- */

static char *subject_path(struct registry *r, const char *form, const char *subject)
{
    char *escaped = curl_easy_escape(r->curl, subject, 0);
    struct buf path;

    invariant(escaped != NULL);
    buf_init(&path, BUF_MAX_TEXT);
    buf_addf(&path, form, escaped);
    curl_free(escaped);
    return path.data;
}

/* Versions of a table need not be compatible: each record names its own schema. Registries that do
 * not let us say so may still accept the schema. */
static void allow_versions(struct registry *r, const char *subject)
{
    char *path = subject_path(r, "/config/%s", subject);
    struct err ignored = {0};
    json_t *answer = NULL;

    if (request(r, "PUT", path, "{\"compatibility\":\"NONE\"}", "a setting", &answer, &ignored) ==
        0)
        json_decref(answer);
    free(path);
}

static int post_schema(struct registry *r, const char *path, const char *subject, const char *text,
                       json_t **answer, struct err *e)
{
    json_t *doc = json_pack("{s:s}", "schema", text);
    char *body = json_dumps(doc, JSON_COMPACT);
    char what[300];
    int rc;

    invariant(body != NULL);
    snprintf(what, sizeof(what), "the schema of %s", subject);
    rc = request(r, "POST", path, body, what, answer, e);
    free(body);
    json_decref(doc);
    return rc;
}

int registry_check(struct registry *r, struct err *e)
{
    json_t *answer = NULL;

    if (request(r, "GET", "/subjects", NULL, "the list of subjects", &answer, e) < 0)
        return -1;
    json_decref(answer);
    return 0;
}

int registry_register(struct registry *r, const char *subject, const char *text, uint32_t *id,
                      struct err *e)
{
    char *path = subject_path(r, "/subjects/%s/versions", subject);
    json_t *answer = NULL;
    json_t *number;
    int rc = post_schema(r, path, subject, text, &answer, e);

    if (rc < 0 && e->class == ERR_FATAL) {
        allow_versions(r, subject);
        rc = post_schema(r, path, subject, text, &answer, e);
    }
    free(path);
    if (rc < 0)
        return -1;
    number = json_object_get(answer, "id");
    if (json_is_integer(number) && json_integer_value(number) >= 0 &&
        json_integer_value(number) <= UINT32_MAX)
        *id = (uint32_t)json_integer_value(number);
    else
        rc = err_set(e, ERR_FATAL, "the schema registry %s gives no id for %s", r->url, subject);
    json_decref(answer);
    return rc;
}

int registry_get(struct registry *r, uint32_t id, char **text, struct err *e)
{
    int64_t end = mono_ms() + UNKNOWN_MS;
    json_t *answer = NULL;
    const char *schema;
    char path[64];
    char what[64];

    snprintf(path, sizeof(path), "/schemas/ids/%u", id);
    snprintf(what, sizeof(what), "the schema with id %u", id);
    while (request(r, "GET", path, NULL, what, &answer, e) < 0) {
        if (r->status != 404 || mono_ms() > end)
            return -1;
        err_clear(e);
        if (stop_check(e) < 0)
            return -1;
        nap_ms(UNKNOWN_NAP_MS);
    }
    schema = json_string_value(json_object_get(answer, "schema"));
    *text = schema ? strdup(schema) : NULL;
    json_decref(answer);
    if (!*text)
        return err_set(e, ERR_FATAL, "the schema registry %s has no text for id %u", r->url, id);
    return 0;
}
