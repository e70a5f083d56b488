package export

import (
	"reflect"
	"runtime"
	"strings"
	"testing"
)

// classes are the kinds of bad input that concern an export, by their numbers in the list
// of what befell others of our kind, with the tests that try them here. N16 is
// tried where points are multiplied, N22 to N26 belong to the daemon.
var classes = []struct {
	class string
	tests []func(*testing.T)
}{
	{"N1 lengths that lie", []func(*testing.T){TestEveryMessageInEveryState, TestMalformedHellos, TestDamagedSizeBreaksTheConnection, TestN05BytesBeforeAuthentication}},
	{"N2 headers cut at every byte", []func(*testing.T){TestHandshakeBytes, TestN10SecureHandshakeCutAtEveryByte}},
	{"N3 errors that echo", []func(*testing.T){TestMalformedHellos, TestN15RefusalsAreToldNowAndThen}},
	{"N4 names of exports", []func(*testing.T){TestN04Names, TestMalformedHellos}},
	{"N5 much before authentication", []func(*testing.T){TestN05BytesBeforeAuthentication}},
	{"N6 ranges", []func(*testing.T){TestJudge, TestRequests}},
	{"N7 every message in every state", []func(*testing.T){TestEveryMessageInEveryState, TestN07FirstRecord, TestN14NothingSurvivesTheHandshake}},
	{"N9 clients that are slow, or too many", []func(*testing.T){TestN09SlowClients, TestN09ManyStrangers, TestHandshakeHasFiveSeconds, TestHalfOpenIsBounded, TestHalfOpenInAllIsBounded, TestDescriptorsRunOut, TestFloods}},
	{"N10 gone at every byte", []func(*testing.T){TestHandshakeBytes, TestN10SecureHandshakeCutAtEveryByte}},
	{"N11 the end with half-open ones", []func(*testing.T){TestN11ShutdownWithHalfOpen}},
	{"N12 flipped bytes", []func(*testing.T){TestN12EveryFlippedByte, TestHandshakeBytes, TestWrongDigestBreaksTheConnection}},
	{"N13 downgrade", []func(*testing.T){TestN13NoWayBack, TestOriginalClientGetsNoAnswer, TestOneAddressOneWay, TestRequireCrypto}},
	{"N14 state from before the handshake", []func(*testing.T){TestN14NothingSurvivesTheHandshake}},
	{"N15 wrong keys, replay, reflection, splicing", []func(*testing.T){TestN15WrongKeys, TestN15RefusalsAreToldNowAndThen, TestN15Replay, TestN15Reflection, TestN15ForgedRecords, TestOneAddressOneWay, TestRotation}},
	{"N17 rules", []func(*testing.T){TestN17Prefixes, TestN17RulesOfKeys, TestRulesAllow, TestCallerPlace, TestRulesApplyAtOnce, TestN17ChangesApplyAtOnce, TestN17ChangesDoNotWaitForAStuckStore, TestUnixPeersByUID, TestUnlistedAddressGetsNoByte}},
	{"N18 writing without the right to", []func(*testing.T){TestReadOnlyClientCannotWrite, TestRulesApplyAtOnce, TestN17ChangesApplyAtOnce}},
	{"N19 other exports", []func(*testing.T){TestN19NoWayToAnotherExport, TestOneAddressOneWay}},
	{"N20 stale bytes", []func(*testing.T){TestShortenedFileGivesNoStaleBytes, TestTruncatedStoreIsAnError, TestStoreErrorOfARead}},
	{"N21 paths", []func(*testing.T){TestOpenRefuses, TestStoreIsWhatWasLookedAt, TestStoreIsKept}},
	{"N27 errors that get lost", []func(*testing.T){TestN27EveryStoreError, TestStoreErrorOfAWrite, TestStoreErrorOfAFlush, TestStoreErrorOfARead, TestStoreWithoutRoom}},
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
