/* What the files of the apply stage share. */
#ifndef LOCKSTEP_APPLY_INTERNAL_H
#define LOCKSTEP_APPLY_INTERNAL_H

#include "apply/apply.h"
#include "apply/cursor.h"

/* Snapshots of the target that verify has asked for. */
#define PINS_MAX 4
struct pin_held {
    char name[80]; /* of the request: "pin/…"; "" if free */
    struct db *db;
    int64_t since_ms;
    bool stands; /* no snapshot to export: apply stands at the position until it is let go */
};

struct apply {
    const struct migration *m;
    struct db *db;     /* target, DB_APPLY */
    struct db *source; /* opened when a key must be located or read again */
    struct checkpoint checkpoint;
    struct track_list tracks;
    struct cursor main;
    struct cursor lane;
    bool lane_active;
    struct track *culprit; /* the table whose change the target refused */
    struct arena scratch;  /* of a portion */
    int64_t polled_ms;
    int64_t asked_ms; /* when we last saw that the checkpoint is still ours */
    unsigned steps_since_poll;
    bool lanes_changed; /* by a request: the main stream must look again */
    bool pin_wanted;
    bool standing;     /* a request asks to stand still */
    char pin_name[80]; /* a pin is to be made at main.stop; "" if none */
    struct pin_held pins[PINS_MAX];
};

/* ---- portion.c: a run of items onto the target, in the open transaction ---- */

/* ERR_CONFLICT, ERR_DATA …: a->culprit names the table. */
int portion_run(struct apply *a, const struct item *items, size_t n, struct err *e);

/* ---- judge.c: which of them the chunks hold already ---- */

enum act_kind {
    ACT_CHANGE, /* apply it */
    ACT_POINT   /* read the key again from the source under a cut of its own */
};
struct act {
    enum act_kind kind;
    struct change change;
    const struct item *item;
    const struct row *key; /* ACT_POINT */
};
struct judge; /* the located keys of a portion */
int judge_open(struct apply *a, const struct item *items, size_t n, struct judge **out,
               struct err *e);
/* 1: *out is to be done; 0: the change is in its chunk; -1. */
int judge_item(struct apply *a, const struct judge *j, size_t i, struct act *out, struct err *e);

/* ---- point.c ---- */

/* Replaces one key on the target by what the source has now, under a cut that sees the item's
 * transaction; writes its ledger line. */
int point_read(struct apply *a, const struct act *act, struct err *e);

/* ---- requests.c ---- */

/* Obeys what commands have asked for; at a transaction boundary, nothing uncommitted. */
int requests_poll(struct apply *a, struct err *e);
/* The main stream stands at the pin's position: makes it. */
int requests_pin(struct apply *a, struct err *e);
void requests_release(struct apply *a);

/* ---- reshape.c: a table that is copied again in the shape that it has now ---- */

/* *out: its new shape, or NULL if it is the planned one. ERR_REFUSED: it cannot be taken over, or
 * the target's table is another. Outside of transactions. */
int reshape_look(struct apply *a, const struct table *planned, struct arena *arena,
                 struct table **out, struct err *e);
/* Plans the new shape and asks capture to go by it. In a transaction. */
int reshape_store(struct apply *a, const struct table *t, struct err *e);
/* 1: capture goes by the new shape from *record on; 0: no new shape was asked for; -1. */
int reshape_record(struct apply *a, const char *label, uint64_t *record, struct err *e);
/* That is of no interest any more. */
int reshape_forget(struct apply *a, const char *label, struct err *e);

/* ---- apply.c ---- */

int apply_source(struct apply *a, struct db **out, struct err *e);
/* Stores a lane in a transaction of its own, if this apply still owns the checkpoint: one that was
 * taken over must not move lanes, its successor would not know. */
int apply_store_lane(struct apply *a, struct lane *lane, struct err *e);
/* Lanes have changed: reads them again and stands at the last commit. */
int apply_rewind(struct apply *a, struct err *e);

#endif
