/* Two senders and one right to send: bridge, watchdog, supervisor, and a socket that has no memory of who wrote to it.

   The lease cell names the owner under an epoch; the bridge reads it as the last thing before the socket. The watchdog
   takes the right by: fence word in the lease, SIGKILL, the exit seen, a new epoch. It gives it back, by a further new
   epoch, to a bridge that was born since. The supervisor starts a dead bridge again at any time. The bridge may also
   die, or hang, at any step; the watchdog may take over whenever it likes, as it can't tell slow from hung.

   Checked
   1. Never two owners: no byte of a bridge leaves between the watchdog's first one and its handing back (`sends`).
   2. The epoch only rises, and every change of owner gives a new one.
   3. Nobody waits for ever: the watchdog always gets to see an exit or a newcomer (no invalid end state).

   That a bridge sends only under an epoch given to its own incarnation is a rule of the model. The lease of the system
   names no incarnation: there it is time that keeps a newcomer, which must reconcile first, from its predecessor's lease.

   Wrong on purpose, each must fail: -DNO_EXIT (does not wait for the exit), -DOLD_EPOCH (a newcomer sends under its
   predecessor's lease), -DSAME_EPOCH (hands back without a new epoch). */

#define BRIDGE 1
#define WATCHDOG 2
#define TAKEOVERS 2
#define BIRTHS 3

byte owner = BRIDGE, epoch = 1, fence = 0; /* the lease cell; read and written as a whole (seqlock) */
byte incarnation = 1;                      /* of the bridge, from its registration as the cell's writer */
byte given_to = 1;                         /* incarnation that the watchdog gave the present epoch to */
bool alive = true, killed = false;         /* process 1's existence, as the kernel knows it */
bool watchdog_sends = false;               /* it has begun to send and has not handed back */
byte takeovers = 0;

proctype bridge(byte me) {
  byte seen_owner, seen_epoch, seen_fence, seen_given;
  do
  :: killed && alive -> break                                        /* SIGKILL arrives between any two steps */
  :: !killed && incarnation < BIRTHS -> break                        /* it dies by itself */
  :: !killed ->
     atomic { seen_owner = owner; seen_epoch = epoch; seen_fence = fence; seen_given = given_to }
     if
     :: killed -> break
     :: else -> skip
     fi;
#ifdef OLD_EPOCH
     if
     :: seen_owner == BRIDGE && seen_epoch >= seen_fence ->
#else
     if
     :: seen_owner == BRIDGE && seen_epoch >= seen_fence && seen_given == me ->
#endif
        /* Between the look and the socket anything may happen; only death stops this byte. */
sends:  assert(!watchdog_sends)
     :: else -> skip
     fi
  od;
  atomic { alive = false; killed = false }
}

active proctype supervisor() {
  run bridge(1);
  do
  :: atomic { !alive && incarnation < BIRTHS -> incarnation++; alive = true; run bridge(incarnation) }
  :: timeout -> break
  od
}

active proctype watchdog() {
  byte before;
  do
  :: takeovers == TAKEOVERS -> break
  :: takeovers < TAKEOVERS && owner == BRIDGE && given_to == incarnation ->
     takeovers++;
     before = epoch;
     fence = epoch + 1;
     atomic { if :: alive && given_to == incarnation -> killed = true :: else -> skip fi };
#ifndef NO_EXIT
     (!alive || incarnation > given_to);                             /* the exit, or a newcomer, which proves it */
#endif
     atomic { owner = WATCHDOG; epoch++ };
     assert(epoch > before);
     watchdog_sends = true;
     skip;
     watchdog_sends = false;
     if
     :: alive && incarnation > given_to -> skip                      /* a bridge that was born since, and reconciled */
     :: incarnation == BIRTHS && !(alive && incarnation > given_to) -> break
     fi;
     atomic {
       given_to = incarnation; owner = BRIDGE;
#ifndef SAME_EPOCH
       epoch++
#endif
     }
     assert(epoch > before + 1)
  :: owner == BRIDGE && incarnation > given_to ->                    /* restarted faster than it was missed */
     atomic { before = epoch; given_to = incarnation; epoch++ }
     assert(epoch > before)
  od
}
