#include "journal/kafka_client.h"

#include "core/log.h"
#include "core/run.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CLOSE_SECONDS 3

/* What the journal's guarantees stand on: nobody else sets it. */
static const char *const reserved[] = {
    "bootstrap.servers",
    "metadata.broker.list",
    "acks",
    "request.required.acks",
    "enable.idempotence",
    "message.timeout.ms",
    "delivery.timeout.ms",
    "transactional.id",
    "enable.gapless.guarantee",
    "auto.offset.reset",
    "isolation.level",
    "group.id",
    "enable.partition.eof",
    "allow.auto.create.topics",
    "delivery.report.only.error",
    "enabled_events",
    "check.crcs",
};

/* Small queues: the library's own are a gigabyte. */
static const struct {
    const char *name;
    const char *value;
} common_settings[] = {
    {"client.id", "lockstep"},
    {"allow.auto.create.topics", "false"},
    {"socket.keepalive.enable", "true"},
    {"reconnect.backoff.max.ms", "2000"},
    {"topic.metadata.refresh.interval.ms", "30000"},
    {"topic.metadata.propagation.max.ms", "0"},
};
static const struct {
    const char *name;
    const char *value;
} type_settings[2][10] = {
    [RD_KAFKA_PRODUCER] = {{"enable.idempotence", "true"},
                           {"enable.gapless.guarantee", "true"},
                           {"acks", "all"},
                           {"message.timeout.ms", "0"},
                           {"queue.buffering.max.kbytes", "8192"},
                           {"linger.ms", "1"}},
    [RD_KAFKA_CONSUMER] = {{"auto.offset.reset", "error"},
                           {"isolation.level", "read_uncommitted"},
                           {"enable.partition.eof", "true"},
                           {"check.crcs", "true"},
                           {"fetch.wait.max.ms", "100"},
                           {"fetch.message.max.bytes", "1048576"},
                           {"queued.max.messages.kbytes", "4096"},
                           {"fetch.queue.backoff.ms", "5"}}, /* not known before 2.2 */
};

/* ---- what the library says ---- */

static bool is_secret(const char *property)
{
    return strstr(property, "password") || strstr(property, "secret") || strstr(property, ".pem") ||
           strstr(property, "oauthbearer.config");
}

/* The library quotes values in some of its texts. */
static void strike_out(const struct kafka_client *c, char *text)
{
    for (size_t i = 0; i < c->nsecrets; i++) {
        size_t len = strlen(c->secrets[i]);

        for (char *p = strstr(text, c->secrets[i]); p; p = strstr(p + len, c->secrets[i]))
            memset(p, '*', len);
    }
}

static int take_secrets(struct kafka_client *c, struct err *e)
{
    for (size_t i = 0; i < c->o->nproperties; i++) {
        const struct journal_property *p = &c->o->properties[i];

        if (!is_secret(p->name) || !p->value[0])
            continue;
        if (c->nsecrets == KAFKA_SECRETS_MAX)
            return err_set(e, ERR_CONFIG, "kafka: more than %d secrets", KAFKA_SECRETS_MAX);
        c->secrets[c->nsecrets] = strdup(p->value);
        invariant(c->secrets[c->nsecrets] != NULL);
        c->nsecrets++;
    }
    return 0;
}

static void on_log(const rd_kafka_t *rk, int level, const char *facility, const char *text)
{
    const struct kafka_client *c = rd_kafka_opaque(rk);
    char copy[512];

    snprintf(copy, sizeof(copy), "%s", text);
    strike_out(c, copy);
    log_event(LOG_DEBUG, "journal", "librdkafka", "%s: %s", facility, copy);
}

/* Will it be the same the next time? The library calls a login failed whatever happens while it is
 * under way, also when the broker goes down or is silent: then no broker has said no. An old broker
 * says no by closing the connection, which looks the same; such a login is tried again. */
static bool is_refusal(int error, const char *text)
{
    static const char handshake[] = "handshake failed: ";
    const char *why = strstr(text, handshake);

    if (error == RD_KAFKA_RESP_ERR__SSL)
        return strstr(text, "erif") != NULL; /* the certificate's verification */
    if (error == RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED)
        return true;
    if (error != RD_KAFKA_RESP_ERR__AUTHENTICATION)
        return false;
    if (why)
        return strncmp(why + strlen(handshake), "Broker: ", strlen("Broker: ")) == 0;
    return strstr(text, "Disconnected") == NULL;
}

static void on_error(rd_kafka_t *rk, int error, const char *text, void *opaque)
{
    struct kafka_client *c = opaque;

    if (error == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN) {
        c->down = true;
        return; /* its text says less than the reason before it */
    }
    if (c->refused)
        return;
    snprintf(c->reason, sizeof(c->reason), "%s", text);
    strike_out(c, c->reason);
    c->refused = is_refusal(error, text);
}

static void on_delivery(rd_kafka_t *rk, const rd_kafka_message_t *message, void *opaque)
{
    const struct kafka_client *c = opaque;

    c->delivered(c->owner, message);
}

static int fail_refused(const struct kafka_client *c, struct err *e)
{
    err_set(e, ERR_FATAL, "the Kafka brokers %s refuse us: %s", c->brokers, c->reason);
    return err_hint(e, "see the properties under kafka: (sasl.*, ssl.*) and the broker's users");
}

int kafka_client_check(struct kafka_client *c, struct err *e)
{
    rd_kafka_poll(c->rk, 0);
    if (c->refused)
        return fail_refused(c, e);
    if (!c->down)
        return 0;
    c->down = false;
    return err_set(e, ERR_RETRY, "no Kafka broker of %s answers%s%s", c->brokers,
                   c->reason[0] ? ": " : "", c->reason);
}

static bool is_denied(rd_kafka_resp_err_t error)
{
    return error == RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED ||
           error == RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED;
}

int kafka_fail(struct kafka_client *c, rd_kafka_resp_err_t error, const char *what, struct err *e)
{
    rd_kafka_poll(c->rk, 0);
    if (c->refused)
        return fail_refused(c, e);
    if (is_denied(error)) {
        err_set(e, ERR_FATAL, "topic %s: %s is not allowed to this user: %s", c->name, what,
                rd_kafka_err2str(error));
        return err_hint(e,
                        "grant it READ, WRITE, CREATE, DELETE, DESCRIBE and DESCRIBE_CONFIGS on "
                        "the topics %s and %s" KAFKA_SCHEMAS_SUFFIX,
                        c->name, c->name);
    }
    return err_set(e, ERR_RETRY, "topic %s at %s: %s failed: %s%s%s", c->name, c->brokers, what,
                   rd_kafka_err2str(error), c->reason[0] ? "; " : "", c->reason);
}

/* ---- connecting ---- */

static int take_uri(struct kafka_client *c, struct err *e)
{
    const char *rest = journal_uri_rest(c->o);

    if (strncmp(rest, "//", 2) != 0 || !rest[2] || strlen(rest + 2) >= sizeof(c->brokers))
        return err_set(e, ERR_CONFIG,
                       "the journal's URI is not of the form kafka://HOST:PORT,HOST:PORT");
    if (strpbrk(rest + 2, "@/?")) {
        err_set(e, ERR_CONFIG, "the journal's URI kafka:// holds more than hosts and ports");
        return err_hint(e, "user and password are properties: kafka: {sasl.username: …}");
    }
    snprintf(c->brokers, sizeof(c->brokers), "%s", rest + 2);
    if (!c->o->name || !c->o->name[0])
        return err_set(e, ERR_BUG, "a Kafka journal has no topic");
    snprintf(c->name, sizeof(c->name), "%s", c->o->name);
    return 0;
}

static void set_own(rd_kafka_conf_t *conf, const char *name, const char *value)
{
    char text[256];

    if (rd_kafka_conf_set(conf, name, value, text, sizeof(text)) != RD_KAFKA_CONF_OK)
        log_event(LOG_DEBUG, "journal", "librdkafka", "%s", text);
}

static int set_theirs(rd_kafka_conf_t *conf, const struct journal_property *p, struct err *e)
{
    char text[512];
    rd_kafka_conf_res_t res;

    for (size_t i = 0; i < sizeof(reserved) / sizeof(reserved[0]); i++) {
        if (strcmp(p->name, reserved[i]) == 0)
            return err_set(e, ERR_CONFIG,
                           "kafka: %s is set by lockstep itself: the journal stands "
                           "on it",
                           p->name);
    }
    /* The library's text is not shown: it quotes the value. */
    res = rd_kafka_conf_set(conf, p->name, p->value, text, sizeof(text));
    if (res == RD_KAFKA_CONF_UNKNOWN)
        return err_set(e, ERR_CONFIG, "kafka: %s is not a property of librdkafka %s", p->name,
                       rd_kafka_version_str());
    if (res != RD_KAFKA_CONF_OK)
        return err_set(e, ERR_CONFIG, "kafka: librdkafka does not accept the value of %s", p->name);
    return 0;
}

static int configure(struct kafka_client *c, rd_kafka_conf_t *conf, rd_kafka_type_t type,
                     struct err *e)
{
    for (size_t i = 0; i < sizeof(common_settings) / sizeof(common_settings[0]); i++)
        set_own(conf, common_settings[i].name, common_settings[i].value);
    for (size_t i = 0; type_settings[type][i].name; i++)
        set_own(conf, type_settings[type][i].name, type_settings[type][i].value);
    for (size_t i = 0; i < c->o->nproperties; i++) {
        if (set_theirs(conf, &c->o->properties[i], e) < 0)
            return -1;
    }
    set_own(conf, "bootstrap.servers", c->brokers);
    rd_kafka_conf_set_opaque(conf, c);
    rd_kafka_conf_set_log_cb(conf, on_log);
    rd_kafka_conf_set_error_cb(conf, on_error);
    if (type == RD_KAFKA_PRODUCER)
        rd_kafka_conf_set_dr_msg_cb(conf, on_delivery);
    return 0;
}

/* Waits until a broker answers, or it is clear that none will. */
static int await_broker(struct kafka_client *c, struct err *e)
{
    int64_t end = mono_ms() + KAFKA_ANSWER_MS;
    rd_kafka_resp_err_t error;

    do {
        const struct rd_kafka_metadata *metadata;

        if (stop_check(e) < 0)
            return -1;
        error = rd_kafka_metadata(c->rk, 0, NULL, &metadata, 500);
        if (error == RD_KAFKA_RESP_ERR_NO_ERROR) {
            rd_kafka_metadata_destroy(metadata);
            rd_kafka_poll(c->rk, 0);
            c->down = false;
            return 0;
        }
        rd_kafka_poll(c->rk, 0);
        if (c->refused)
            return fail_refused(c, e);
        nap_ms(20);
    } while (mono_ms() < end);
    return err_set(e, ERR_RETRY, "no Kafka broker of %s answers: %s", c->brokers,
                   c->reason[0] ? c->reason : rd_kafka_err2str(error));
}

int kafka_client_open(struct kafka_client *c, rd_kafka_type_t type, const struct journal_options *o,
                      const struct kafka_setting *more, size_t n, struct err *e)
{
    rd_kafka_conf_t *conf = NULL;
    char text[512];

    c->o = o;
    if (take_uri(c, e) < 0 || take_secrets(c, e) < 0)
        return -1;
    conf = rd_kafka_conf_new();
    if (configure(c, conf, type, e) < 0) {
        rd_kafka_conf_destroy(conf);
        return -1;
    }
    for (size_t i = 0; i < n; i++)
        set_own(conf, more[i].name, more[i].value);
    c->rk = rd_kafka_new(type, conf, text, sizeof(text));
    if (!c->rk) {
        rd_kafka_conf_destroy(conf);
        strike_out(c, text);
        return err_set(e, ERR_CONFIG, "kafka: %s", text);
    }
    if (await_broker(c, e) < 0)
        return -1;
    c->topic = rd_kafka_topic_new(c->rk, c->name, NULL);
    return c->topic ? 0 : kafka_fail(c, rd_kafka_last_error(), "opening it", e);
}

/* One handle on its way out; whoever of the two threads is last frees this. */
struct ending {
    pthread_mutex_t mutex;
    pthread_cond_t done;
    rd_kafka_t *rk;
    bool ended;
    bool abandoned;
};

static void ending_free(struct ending *x)
{
    pthread_cond_destroy(&x->done);
    pthread_mutex_destroy(&x->mutex);
    free(x);
}

static void *end_handle(void *arg)
{
    struct ending *x = arg;
    bool abandoned;

    rd_kafka_destroy(x->rk);
    pthread_mutex_lock(&x->mutex);
    x->ended = true;
    abandoned = x->abandoned;
    pthread_cond_signal(&x->done);
    pthread_mutex_unlock(&x->mutex);
    if (abandoned)
        ending_free(x);
    return NULL;
}

/* librdkafka 2.0 waits for ever for a consumer whose topic was removed, so the wait is ours: a
 * handle that does not end in time is left to itself. */
static void destroy_handle(rd_kafka_t *rk)
{
    struct ending *x = calloc(1, sizeof(*x));
    struct timespec until;
    pthread_t thread;
    bool abandoned;

    invariant(x != NULL);
    x->rk = rk;
    pthread_mutex_init(&x->mutex, NULL);
    pthread_cond_init(&x->done, NULL);
    rd_kafka_set_log_level(rk, -1); /* its log callback needs the client, which goes now */
    invariant(pthread_create(&thread, NULL, end_handle, x) == 0);
    pthread_detach(thread);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += CLOSE_SECONDS;
    pthread_mutex_lock(&x->mutex);
    while (!x->ended && pthread_cond_timedwait(&x->done, &x->mutex, &until) == 0)
        continue;
    x->abandoned = !x->ended;
    abandoned = x->abandoned;
    pthread_mutex_unlock(&x->mutex);
    if (!abandoned)
        ending_free(x);
}

void kafka_client_close(struct kafka_client *c)
{
    if (c->topic)
        rd_kafka_topic_destroy(c->topic);
    if (c->rk)
        destroy_handle(c->rk);
    for (size_t i = 0; i < c->nsecrets; i++)
        free(c->secrets[i]);
    c->nsecrets = 0;
    c->topic = NULL;
    c->rk = NULL;
}
