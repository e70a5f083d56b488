package remote

import (
	"reflect"
	"runtime"
	"strings"
	"testing"
)

// classes are the kinds of bad input that concern a remote, by their numbers in the list
// of what befell others of our kind, with the tests that try them here. N16 is
// tried where points are multiplied, N17 and N21 concern exports, N22 to N26 the
// daemon.
var classes = []struct {
	class string
	tests []func(*testing.T)
}{
	{"N1 lengths that lie", []func(*testing.T){TestEveryLengthAndMessageInEveryState}},
	{"N2 headers cut at every byte", []func(*testing.T){TestHandshakeCutAtEveryByte, TestAnswerCutAtEveryByte, TestN10AnswerCutAtEveryByte}},
	{"N3, N4 what a peer says of itself", []func(*testing.T){TestRefusalIsSafeToPrint, TestWelcomeOfBadAttributes}},
	{"N5 much before authentication", []func(*testing.T){TestEveryLengthAndMessageInEveryState, TestN12HostileAnswer}},
	{"N6 sizes of a server", []func(*testing.T){TestWelcomeOfAbsurdValues, TestWelcomeOfLargeValues, TestSizesAreWholeBlocks, TestLaterLinkMustKeepThePromise}},
	{"N7, N8 every message in every state", []func(*testing.T){TestEveryLengthAndMessageInEveryState, TestWellFormedMessagesOutOfPlace, TestFalseReplies, TestAnswerTwice, TestAnswerBeforeItsRequest}},
	{"N9 peers that are slow", []func(*testing.T){TestMarkOfAStranger, TestPeerThatReadsNothing, TestFloodOfPings, TestN10AnswerCutAtEveryByte}},
	{"N10 gone at every byte", []func(*testing.T){TestHandshakeCutAtEveryByte, TestN10AnswerCutAtEveryByte}},
	{"N11 the end in the middle", []func(*testing.T){TestCloseInTheHandshake, TestCloseWhileThePeerIsDeaf}},
	{"N12 flipped bits", []func(*testing.T){TestN12HostileAnswer, TestEveryFlippedBitOfAnAnswer}},
	{"N13 downgrade", []func(*testing.T){TestN12HostileAnswer, TestMarkOfAStranger, TestOriginalPeerIsNamed}},
	{"N14 state from before the handshake", []func(*testing.T){TestAnswerBeforeItsRequest, TestN14NothingBeforeTheChannel}},
	{"N15 wrong keys, replay, reflection, splicing", []func(*testing.T){TestN15RefusedKey, TestN15ForgedRecords, TestN12HostileAnswer}},
	{"N18 more than was granted", []func(*testing.T){TestReadOnlyNodeStaysReadOnly, TestReadOnlyGrantOutlivesAnotherWriter}},
	{"N19 another store", []func(*testing.T){TestRecoveryToFailedWhenThePromiseIsBroken, TestPeersAreTriedInTurn}},
	{"N20 short answers", []func(*testing.T){TestFalseReplies, TestAnswerCutAtEveryByte}},
	{"N27 errors that get lost", []func(*testing.T){TestErrorAnswers, TestErrorIsAnsweredAndNeverResent, TestFlushThatNeverSucceedsFails, TestReplayWithoutRoom}},
}

// TestClassesOfBadInput says (-v) which test tries what; that they exist, the
// compiler holds.
func TestClassesOfBadInput(t *testing.T) {
	for _, c := range classes {
		var names []string
		for _, f := range c.tests {
			names = append(names, nameOf(f))
		}
		t.Logf("%s: %s", c.class, strings.Join(names, ", "))
	}
}

// nameOf is the name of a test function.
func nameOf(f func(*testing.T)) string {
	name := runtime.FuncForPC(reflect.ValueOf(f).Pointer()).Name()
	return name[strings.LastIndex(name, ".Test")+1:]
}
