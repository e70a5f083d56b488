package main

// harm is one way in which the system is broken on purpose, to show that the
// simulator would notice. 0 is what ships.
type harm uint32

const (
	noFence      harm = 1 << iota // the export neither drops nor waits for what an old session had begun
	noLog                         // the client keeps nothing of what was acknowledged
	noCut                         // an answered FUA write leaves older records of the same bytes
	ignoreSync                    // the export takes a failed flush for a good one
	resendLive                    // requests are sent again on a live connection, to an export without order
	noGate                        // new requests leave during a replay
	trimAtReply                   // a flush covers what was acknowledged before its answer
	sequence                      // the log is replayed from its beginning, older bytes too
	oneVerifier                   // the log as a whole is taken for good when a replay was begun
	onePhase                      // reads are sent again together with unanswered writes
	keepVerifier                  // the export's verifier never changes
	lateCommit                    // the log is written after the users were told
	oldEpoch                      // the epoch is not remembered
	noDiscard                     // discards are not replayed
	readOn                        // an old connection is read on after its fence
	anyStore                      // the store's id is not compared
	anyTenure                     // the tenure is not compared
	noGhosts                      // a restarted client does not wait for what the kernel sends again
	noOrphan                      // that writes were acknowledged is forgotten together with the log
	joinRunning                   // a flush is content with one that was running when it came
)

func (h harm) is(any harm) bool { return h&any != 0 }
