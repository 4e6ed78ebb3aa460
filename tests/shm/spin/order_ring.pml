/* The order ring in Promela: one writer, one gating reader, either of which may be killed and replaced at any step.

   Memory is sequentially consistent here; what weaker memory does to the protocol is checked in test_memory_model.py.
   What this model adds is length and death: many laps, heirs of heirs, and a full ring at every point.

   Checked
   1. The reader takes every record in order, whole, and none is published twice (assertions).
   2. The writer claims no slot that the reader has not passed (assertion at the claim).
   3. Full is an answer: the writer never waits, and whenever it is full the reader can go on (no dead-lock).
   4. In the end, if nobody dies any more, the reader has taken everything (the claim `all_taken`).

   Wrong on purpose, each must fail: -DNO_GATE (claims without looking), -DEARLY_CURSOR (the cursor moves before the
   copy), -DNO_RECOVER (an heir trusts the tail alone). */

#define SLOTS 2
#define RECORDS 5
#define DEATHS 2
#define WRITING(n) (100 + (n))

short mark[SLOTS] = -1; /* a slot: its mark and two words of payload */
short first[SLOTS], second[SLOTS];
short tail = 0, cursor = 0;                     /* shared words: the writer's and the reader's */
short taken = 0;                                /* records that the reader has acted on, for the assertions */
short written = 0;                              /* records whose mark has been published */
byte deaths = 0;
bool writer_done = false;

/* A death before the next step: the process starts again as its own heir, with nothing but shared memory. */
#define may_die(label) if :: deaths < DEATHS -> deaths++; goto label :: skip fi

active proctype writer() {
  short n, remembered;
born:
  atomic { n = tail; remembered = 0; }
#ifndef NO_RECOVER
  do :: mark[n % SLOTS] == n -> n++ :: else -> break od;
#endif
  tail = n;
  may_die(born);
  do
  :: n == RECORDS -> break
  :: n < RECORDS ->
#ifndef NO_GATE
     if
     :: remembered + SLOTS > n -> skip        /* the cursor as last looked at leaves room */
     :: else ->
        remembered = cursor;
        if
        :: remembered + SLOTS > n -> skip
        :: else -> goto told                  /* told to the caller, who may try again */
        fi
     fi;
#endif
     assert(n < cursor + SLOTS);
     may_die(born);
     mark[n % SLOTS] = WRITING(n);
     may_die(born);
     first[n % SLOTS] = n + 1;
     may_die(born);
     second[n % SLOTS] = n + 1;
     may_die(born);
     atomic { assert(written == n); mark[n % SLOTS] = n; written = n + 1 } /* no record is published twice */
     may_die(born);
     n++;
     tail = n;
     may_die(born);
told:
     skip
  od;
  writer_done = true
}

active proctype reader() {
  short p, a, b;
born:
  p = cursor;
  do
  :: taken == RECORDS && p == RECORDS -> break
  :: else ->
     may_die(born);
     if
     :: mark[p % SLOTS] == p ->
#ifdef EARLY_CURSOR
        cursor = p + 1;
#endif
        a = first[p % SLOTS];
        b = second[p % SLOTS];
        assert(mark[p % SLOTS] == p);         /* a gating reader is never lapped */
        assert(a == p + 1 && b == p + 1);     /* whole */
        may_die(born);
        /* Acting on a record and moving the cursor: a reader that dies in between acts again, under the same number. */
        assert(taken == p || taken == p + 1);
        taken = p + 1;
        may_die(born);
        cursor = p + 1;
        p++
     :: mark[p % SLOTS] != p ->
        (mark[p % SLOTS] == p)                /* nothing to read: in the model it waits */
     fi
  od
}

ltl all_taken { <> (taken == RECORDS) }
