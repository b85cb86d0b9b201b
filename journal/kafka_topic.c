/* What is asked of the brokers about topics, through librdkafka's admin calls. */
#include "journal/kafka_client.h"

#include "core/log.h"
#include "core/run.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REPLICAS_WANTED 3
/* Disk is given back by whole segments of the broker's. */
#define SEGMENT_BYTES "67108864"
#define MESSAGE_MIN 4096

static const struct {
    const char *name;
    const char *value;
    bool must; /* of a topic that somebody else made, too */
} topic_settings[] = {
    {"cleanup.policy", "delete", true},      {"retention.ms", "-1", true},
    {"retention.bytes", "-1", true},         {"unclean.leader.election.enable", "false", false},
    {"segment.bytes", SEGMENT_BYTES, false}, {"max.message.bytes", "1048588", false},
};
#define SETTINGS_COUNT (sizeof(topic_settings) / sizeof(topic_settings[0]))

/* ---- one admin call ---- */

struct call {
    rd_kafka_queue_t *queue;
    rd_kafka_AdminOptions_t *options;
    rd_kafka_event_t *event;
};

static void call_begin(struct call *call, struct kafka_client *c, rd_kafka_admin_op_t op)
{
    char text[256];

    memset(call, 0, sizeof(*call));
    call->queue = rd_kafka_queue_new(c->rk);
    call->options = rd_kafka_AdminOptions_new(c->rk, op);
    rd_kafka_AdminOptions_set_request_timeout(call->options, KAFKA_ANSWER_MS, text, sizeof(text));
    if (op != RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS)
        rd_kafka_AdminOptions_set_operation_timeout(call->options, KAFKA_ANSWER_MS, text,
                                                    sizeof(text));
}

static rd_kafka_resp_err_t call_await(struct call *call)
{
    int64_t end = mono_ms() + KAFKA_ANSWER_MS + 1000;

    while (!call->event && mono_ms() < end && !stop_requested())
        call->event = rd_kafka_queue_poll(call->queue, 100);
    return call->event ? rd_kafka_event_error(call->event) : RD_KAFKA_RESP_ERR__TIMED_OUT;
}

static void call_end(struct call *call)
{
    if (call->event)
        rd_kafka_event_destroy(call->event);
    rd_kafka_AdminOptions_destroy(call->options);
    rd_kafka_queue_destroy(call->queue);
}

/* ---- is there one ---- */

/* A topic that is absent may come back (a broker that has just started does not know its topics
 * yet), so it was removed only if every look for this long has found none, with no long time
 * between two looks. Nothing is lost meanwhile: only the word comes later. */
#define GONE_MS 15000
#define LOOKS_APART_MS 12000
/* Two directions, each with a topic of schemas, and some to spare. */
#define ABSENCES 8

/* Whoever looks has lost its connection by the next look, so this is the process's. */
static struct {
    pthread_mutex_t mutex;
    struct absence {
        char topic[300];
        int64_t since_ms;
        int64_t last_ms; /* 0: free */
    } of[ABSENCES];
} absences = {.mutex = PTHREAD_MUTEX_INITIALIZER};

/* The topic's, or the one that was not touched for the longest time. */
static struct absence *absence_of(const char *topic)
{
    struct absence *oldest = &absences.of[0];

    for (size_t i = 0; i < ABSENCES; i++) {
        if (strcmp(absences.of[i].topic, topic) == 0)
            return &absences.of[i];
        if (absences.of[i].last_ms < oldest->last_ms)
            oldest = &absences.of[i];
    }
    *oldest = (struct absence){0};
    snprintf(oldest->topic, sizeof(oldest->topic), "%s", topic);
    return oldest;
}

static void note_look(const char *topic, bool absent)
{
    int64_t now = mono_ms();
    struct absence *a;

    pthread_mutex_lock(&absences.mutex);
    a = absence_of(topic);
    if (!absent || !a->last_ms || now - a->last_ms > LOOKS_APART_MS)
        a->since_ms = now;
    a->last_ms = absent ? now : 0;
    pthread_mutex_unlock(&absences.mutex);
}

int kafka_topic_lost(struct kafka_client *c, const char *topic, struct err *e)
{
    struct absence *a;
    bool gone;

    pthread_mutex_lock(&absences.mutex);
    a = absence_of(topic);
    gone = a->last_ms && a->last_ms - a->since_ms >= GONE_MS;
    pthread_mutex_unlock(&absences.mutex);
    if (!gone)
        return err_set(e, ERR_RETRY, "topic %s at %s is not known to the brokers", topic,
                       c->brokers);
    err_set(e, ERR_FATAL, "topic %s was removed", topic);
    return err_hint(e, "its records are lost: abandon this migration (lockstep finish --abandon) "
                       "and start anew");
}

static bool is_absent(rd_kafka_resp_err_t error)
{
    return error == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART ||
           error == RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC ||
           error == RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION;
}

/* 1 with its metadata, 0 no such topic, -1. A topic of another name is asked for by its own. */
static int topic_metadata(struct kafka_client *c, const char *topic, int *partitions,
                          bool *has_leader, int *brokers, struct err *e)
{
    const struct rd_kafka_metadata *metadata = NULL;
    rd_kafka_topic_t *other = NULL;
    rd_kafka_resp_err_t error;
    int rc = 1;

    if (strcmp(topic, c->name) != 0)
        other = rd_kafka_topic_new(c->rk, topic, NULL);
    error = rd_kafka_metadata(c->rk, 0, other ? other : c->topic, &metadata, KAFKA_ANSWER_MS);
    if (error == RD_KAFKA_RESP_ERR_NO_ERROR && metadata->topic_cnt == 1)
        error = metadata->topics[0].err;
    if (error == RD_KAFKA_RESP_ERR_NO_ERROR || error == RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE) {
        *partitions = metadata->topics[0].partition_cnt;
        *has_leader = *partitions > 0 && metadata->topics[0].partitions[0].leader >= 0 &&
                      error == RD_KAFKA_RESP_ERR_NO_ERROR;
    } else if (is_absent(error)) {
        rc = 0;
    } else {
        rc = kafka_fail(c, error, "looking for it", e);
    }
    note_look(topic, rc == 0);
    if (metadata)
        *brokers = metadata->broker_cnt;
    rd_kafka_metadata_destroy(metadata);
    if (other)
        rd_kafka_topic_destroy(other);
    return rc;
}

int kafka_topic_exists(struct kafka_client *c, const char *topic, struct err *e)
{
    int partitions = 0;
    int brokers = 0;
    bool has_leader = false;
    int found = topic_metadata(c, topic, &partitions, &has_leader, &brokers, e);

    if (found < 1 || partitions == 1 || !has_leader)
        return found;
    err_set(e, ERR_REFUSED, "topic %s has %d partitions; the order of the source needs one", topic,
            partitions);
    return err_hint(e, "remove the topic, or make it again with --partitions 1");
}

/* ---- making ---- */

static void make_hint(const char *topic, int replicas, struct err *e)
{
    err_hint(e,
             "let somebody who may make it: kafka-topics.sh --bootstrap-server … --create --topic "
             "%s --partitions 1 --replication-factor %d --config retention.ms=-1 --config "
             "retention.bytes=-1 --config cleanup.policy=delete",
             topic, replicas);
}

/* try: the brokers say whether they would. */
static int create(struct kafka_client *c, const char *topic, int replicas, bool try, struct err *e)
{
    char text[256];
    rd_kafka_NewTopic_t *wanted = rd_kafka_NewTopic_new(topic, 1, replicas, text, sizeof(text));
    const rd_kafka_topic_result_t **results;
    rd_kafka_resp_err_t error;
    struct call call;
    size_t n = 0;
    int rc = 0;

    if (!wanted)
        return err_set(e, ERR_CONFIG, "topic %s cannot be made: %s", topic, text);
    for (size_t i = 0; i < SETTINGS_COUNT; i++)
        rd_kafka_NewTopic_set_config(wanted, topic_settings[i].name, topic_settings[i].value);
    rd_kafka_NewTopic_set_config(wanted, "min.insync.replicas", replicas >= 3 ? "2" : "1");
    call_begin(&call, c, RD_KAFKA_ADMIN_OP_CREATETOPICS);
    rd_kafka_AdminOptions_set_validate_only(call.options, try, text, sizeof(text));
    rd_kafka_CreateTopics(c->rk, &wanted, 1, call.options, call.queue);
    error = call_await(&call);
    if (error == RD_KAFKA_RESP_ERR_NO_ERROR) {
        results =
            rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(call.event), &n);
        error = n == 1 ? rd_kafka_topic_result_error(results[0]) : RD_KAFKA_RESP_ERR__FAIL;
    }
    if (error != RD_KAFKA_RESP_ERR_NO_ERROR && error != RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS) {
        rc = kafka_fail(c, error, "making it", e);
        if (error == RD_KAFKA_RESP_ERR_POLICY_VIOLATION || is_absent(error))
            e->class = ERR_FATAL;
        if (!e->hint[0])
            make_hint(topic, replicas, e);
    }
    call_end(&call);
    rd_kafka_NewTopic_destroy(wanted);
    return rc;
}

static int replicas_for(int brokers)
{
    return brokers < REPLICAS_WANTED ? brokers : REPLICAS_WANTED;
}

int kafka_topic_try(struct kafka_client *c, const char *topic, struct err *e)
{
    bool has_leader;
    int partitions;
    int brokers = 1;
    int found = topic_metadata(c, topic, &partitions, &has_leader, &brokers, e);

    return found ? found : create(c, topic, replicas_for(brokers), true, e);
}

int kafka_topic_make(struct kafka_client *c, const char *topic, struct err *e)
{
    int64_t end = mono_ms() + KAFKA_ANSWER_MS;
    bool has_leader = false;
    bool asked = false;
    int partitions = 0;
    int brokers = 1;

    while (!has_leader) {
        int found = topic_metadata(c, topic, &partitions, &has_leader, &brokers, e);

        if (found < 0 || stop_check(e) < 0)
            return -1;
        if (found == 0 && !asked && create(c, topic, replicas_for(brokers), false, e) < 0)
            return -1;
        asked = asked || found == 0;
        if (!has_leader && mono_ms() > end)
            return err_set(e, ERR_RETRY, "topic %s at %s: it has no leader yet", topic, c->brokers);
        if (!has_leader)
            nap_ms(20);
    }
    return kafka_topic_exists(c, topic, e) < 0 ? -1 : 0;
}

/* ---- checking ---- */

static int check_setting(struct kafka_client *c, const char *topic, const char *name,
                         const char *value, struct err *e)
{
    for (size_t i = 0; i < SETTINGS_COUNT; i++) {
        if (!topic_settings[i].must || strcmp(name, topic_settings[i].name) != 0 ||
            strcmp(value, topic_settings[i].value) == 0)
            continue;
        err_set(e, ERR_REFUSED,
                "topic %s has %s=%s: the broker would remove records that were not applied yet",
                topic, name, value);
        return err_hint(e,
                        "kafka-configs.sh --bootstrap-server %s --alter --entity-type topics "
                        "--entity-name %s --add-config "
                        "retention.ms=-1,retention.bytes=-1,cleanup.policy=delete",
                        c->brokers, topic);
    }
    return 0;
}

static int check_limit(const char *topic, size_t limit, struct err *e)
{
    if (limit >= MESSAGE_MIN)
        return 0;
    err_set(e, ERR_REFUSED, "topic %s has max.message.bytes=%zu; %d are the least", topic, limit,
            MESSAGE_MIN);
    return err_hint(e,
                    "kafka-configs.sh … --alter --entity-type topics --entity-name %s "
                    "--add-config max.message.bytes=%d",
                    topic, KAFKA_MESSAGE_MAX);
}

static int check_entries(struct kafka_client *c, const char *topic,
                         const rd_kafka_ConfigResource_t *resource, size_t *message_max,
                         struct err *e)
{
    size_t n = 0;
    const rd_kafka_ConfigEntry_t **entries = rd_kafka_ConfigResource_configs(resource, &n);

    for (size_t i = 0; i < n; i++) {
        const char *name = rd_kafka_ConfigEntry_name(entries[i]);
        const char *value = rd_kafka_ConfigEntry_value(entries[i]);

        if (!value)
            continue;
        if (check_setting(c, topic, name, value, e) < 0)
            return -1;
        if (strcmp(name, "max.message.bytes") == 0)
            *message_max = strtoul(value, NULL, 10);
    }
    return check_limit(topic, *message_max, e);
}

int kafka_topic_check(struct kafka_client *c, const char *topic, size_t *message_max, struct err *e)
{
    rd_kafka_ConfigResource_t *wanted = rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, topic);
    const rd_kafka_ConfigResource_t **resources = NULL;
    rd_kafka_resp_err_t error;
    struct call call;
    size_t n = 0;
    int rc;

    *message_max = KAFKA_MESSAGE_MAX;
    call_begin(&call, c, RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS);
    rd_kafka_DescribeConfigs(c->rk, &wanted, 1, call.options, call.queue);
    error = call_await(&call);
    if (error == RD_KAFKA_RESP_ERR_NO_ERROR) {
        resources = rd_kafka_DescribeConfigs_result_resources(
            rd_kafka_event_DescribeConfigs_result(call.event), &n);
        error = n == 1 ? rd_kafka_ConfigResource_error(resources[0]) : RD_KAFKA_RESP_ERR__FAIL;
    }
    if (error == RD_KAFKA_RESP_ERR_NO_ERROR)
        rc = check_entries(c, topic, resources[0], message_max, e);
    else
        rc = kafka_fail(c, error, "reading its settings", e);
    call_end(&call);
    rd_kafka_ConfigResource_destroy(wanted);
    return rc;
}

/* ---- ends, trimming, removing ---- */

int kafka_topic_ends(struct kafka_client *c, const char *topic, uint64_t *first, uint64_t *end,
                     struct err *e)
{
    int64_t deadline = mono_ms() + KAFKA_ANSWER_MS;
    int64_t low = 0;
    int64_t high = 0;
    rd_kafka_resp_err_t error;

    for (;;) {
        int found;

        error = rd_kafka_query_watermark_offsets(c->rk, topic, 0, &low, &high, KAFKA_ANSWER_MS);
        if (!is_absent(error))
            break;
        /* The library remembers for a while that there was none. */
        found = kafka_topic_exists(c, topic, e);
        if (found < 1 || stop_check(e) < 0)
            return found < 1 ? found : -1;
        if (mono_ms() > deadline)
            break;
        nap_ms(20);
    }
    if (error != RD_KAFKA_RESP_ERR_NO_ERROR)
        return kafka_fail(c, error, "asking for its end", e);
    *first = (uint64_t)low;
    *end = (uint64_t)high;
    return 1;
}

int kafka_topic_trim(struct kafka_client *c, const char *topic, uint64_t below, struct err *e)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    const rd_kafka_topic_partition_list_t *done;
    rd_kafka_DeleteRecords_t *wanted;
    rd_kafka_resp_err_t error;
    struct call call;
    int rc = 0;

    rd_kafka_topic_partition_list_add(list, topic, 0)->offset = (int64_t)below;
    wanted = rd_kafka_DeleteRecords_new(list);
    call_begin(&call, c, RD_KAFKA_ADMIN_OP_DELETERECORDS);
    rd_kafka_DeleteRecords(c->rk, &wanted, 1, call.options, call.queue);
    error = call_await(&call);
    if (error == RD_KAFKA_RESP_ERR_NO_ERROR) {
        done =
            rd_kafka_DeleteRecords_result_offsets(rd_kafka_event_DeleteRecords_result(call.event));
        error = done->cnt == 1 ? done->elems[0].err : RD_KAFKA_RESP_ERR__FAIL;
    }
    /* Somebody else has trimmed further, or removed it: nothing is left to do. */
    if (error != RD_KAFKA_RESP_ERR_NO_ERROR && error != RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE &&
        !is_absent(error))
        rc = kafka_fail(c, error, "trimming it", e);
    call_end(&call);
    rd_kafka_DeleteRecords_destroy(wanted);
    rd_kafka_topic_partition_list_destroy(list);
    return rc;
}

static int await_gone(struct kafka_client *c, const char *topic, struct err *e)
{
    int64_t end = mono_ms() + KAFKA_ANSWER_MS;

    while (mono_ms() < end) {
        int partitions;
        int brokers;
        bool has_leader;
        int found = topic_metadata(c, topic, &partitions, &has_leader, &brokers, e);

        if (found < 1)
            return found;
        if (stop_check(e) < 0)
            return -1;
        nap_ms(20);
    }
    return err_set(e, ERR_RETRY, "topic %s at %s is still being removed", topic, c->brokers);
}

int kafka_topic_delete(struct kafka_client *c, const char *topic, struct err *e)
{
    rd_kafka_DeleteTopic_t *wanted = rd_kafka_DeleteTopic_new(topic);
    const rd_kafka_topic_result_t **results;
    rd_kafka_resp_err_t error;
    struct call call;
    size_t n = 0;
    int rc = 0;

    call_begin(&call, c, RD_KAFKA_ADMIN_OP_DELETETOPICS);
    rd_kafka_DeleteTopics(c->rk, &wanted, 1, call.options, call.queue);
    error = call_await(&call);
    if (error == RD_KAFKA_RESP_ERR_NO_ERROR) {
        results =
            rd_kafka_DeleteTopics_result_topics(rd_kafka_event_DeleteTopics_result(call.event), &n);
        error = n == 1 ? rd_kafka_topic_result_error(results[0]) : RD_KAFKA_RESP_ERR__FAIL;
    }
    if (error != RD_KAFKA_RESP_ERR_NO_ERROR && !is_absent(error)) {
        rc = kafka_fail(c, error, "removing it", e);
        if (error == RD_KAFKA_RESP_ERR_TOPIC_DELETION_DISABLED)
            e->class = ERR_FATAL;
    }
    call_end(&call);
    rd_kafka_DeleteTopic_destroy(wanted);
    return rc < 0 ? -1 : await_gone(c, topic, e);
}
