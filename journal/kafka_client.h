/* A connection to the brokers of a Kafka journal, and what is asked of them besides messages.
 *
 * librdkafka stays inside journal/. Its log goes to ours at debug level; no text of it leaves
 * without the properties' values being struck out. Every wait here has an end.
 */
#ifndef LOCKSTEP_JOURNAL_KAFKA_CLIENT_H
#define LOCKSTEP_JOURNAL_KAFKA_CLIENT_H

#include "journal/impl.h"

#include <librdkafka/rdkafka.h>

/* An answer of the brokers is waited for this long, then it is ERR_RETRY. */
#define KAFKA_ANSWER_MS 10000
/* Of a broker's default message limit and of what we make topics with. */
#define KAFKA_MESSAGE_MAX 1048588
#define KAFKA_SCHEMAS_SUFFIX ".schemas"

#define KAFKA_SECRETS_MAX 8

struct kafka_client {
    rd_kafka_t *rk;
    rd_kafka_topic_t *topic;
    const struct journal_options *o;
    char brokers[512];
    char name[256];                   /* the topic */
    char *secrets[KAFKA_SECRETS_MAX]; /* to be struck out of what the library says */
    size_t nsecrets;
    char reason[512]; /* librdkafka's last word on why it cannot talk to a broker */
    bool refused;     /* it will not heal: wrong secret, untrusted certificate */
    bool down;        /* no broker was reachable when last heard */
    bool topic_gone;  /* it was removed while it was read */
    void (*delivered)(void *owner, const rd_kafka_message_t *message); /* producers */
    void *owner;
};

struct kafka_setting {
    const char *name;
    char value[24];
};

/* Connects: ERR_CONFIG (URI, properties), ERR_RETRY (nobody answers), ERR_FATAL (login or
 * certificate refused). more: settings besides the common ones. o must outlive the client, but
 * for its properties. */
int kafka_client_open(struct kafka_client *c, rd_kafka_type_t type, const struct journal_options *o,
                      const struct kafka_setting *more, size_t n, struct err *e);
void kafka_client_close(struct kafka_client *c); /* also after a failed open */
/* Hears what the library has to say; -1 if it has lost every broker or was refused. */
int kafka_client_check(struct kafka_client *c, struct err *e);
/* An error of the library as ours. */
int kafka_fail(struct kafka_client *c, rd_kafka_resp_err_t error, const char *what, struct err *e);

/* 1: there is a topic of this name, 0: none. It has one partition, or ERR_REFUSED. */
int kafka_topic_exists(struct kafka_client *c, const char *topic, struct err *e);
/* For a topic that was there and was just found absent: ERR_RETRY, until it has been absent without
 * a break for so long that it was removed: ERR_FATAL. */
int kafka_topic_lost(struct kafka_client *c, const char *topic, struct err *e);
/* Could it be made? The brokers only try. */
int kafka_topic_try(struct kafka_client *c, const char *topic, struct err *e);
/* Makes it, if it is not there; its settings keep every record. */
int kafka_topic_make(struct kafka_client *c, const char *topic, struct err *e);
/* ERR_REFUSED if its settings would remove records. *message_max: the largest message. */
int kafka_topic_check(struct kafka_client *c, const char *topic, size_t *message_max,
                      struct err *e);
int kafka_topic_delete(struct kafka_client *c, const char *topic, struct err *e);
/* Offsets of the first message and behind the last one. 1, or 0: the topic does not exist. */
int kafka_topic_ends(struct kafka_client *c, const char *topic, uint64_t *first, uint64_t *end,
                     struct err *e);
/* Deletes the messages below the offset. */
int kafka_topic_trim(struct kafka_client *c, const char *topic, uint64_t below, struct err *e);

#endif
