package export

import (
	"runtime"
	"slices"
	"testing"

	"dst/dataplane/conn"
	"dst/dataplane/conn/conntest"
	"dst/dataplane/crypt"
)

// spoken is the key that worlds and clients of the present test have; nil: they
// speak in clear. Tests of this package never run side by side.
var spoken *crypt.Key

// suites are kinds of secure channels.
var suites = []struct{ name, cipher, hash string }{
	{"gcm", "gcm(aes)", ""},
	{"chacha", "rfc7539(chacha20,poly1305)", ""},
	{"cbc and hmac", "cbc(aes)", "hmac(sha256)"},
	{"hmac only", "", "hmac(sha512)"},
}

// keyOf is a key for the named algorithms.
func keyOf(t testing.TB, cipher, hash string, seed byte) *crypt.Key {
	t.Helper()
	s, err := crypt.ParseSuite(cipher, hash, false)
	if err != nil {
		t.Fatal(err)
	}
	return conntest.Key(t, s, seed)
}

// gcmKey is the key number seed of the usual suite.
func gcmKey(t testing.TB, seed byte) *crypt.Key { return keyOf(t, "", "", seed) }

// speak lets all ends have key k until the test is over.
func speak(t testing.TB, k *crypt.Key) {
	spoken = k
	t.Cleanup(func() { spoken = nil })
}

func keysNow() []*crypt.Key {
	if spoken == nil {
		return nil
	}
	return []*crypt.Key{spoken}
}

// digestNow is the digest of frames behind WELCOME.
func digestNow() crypt.Digest {
	if spoken == nil {
		return crypt.DigestCRC32C
	}
	return crypt.DigestNone
}

// prove makes the client's connection secure.
func (c *client) prove(k *crypt.Key) error {
	s, err := conn.Initiate(c.st, k, nil)
	if err != nil {
		return err
	}
	c.st = s
	runtime.SetFinalizer(s, (*conn.Secure).Free)
	return s.Ready()
}

// TestOverSecureChannels runs the tests of requests, fences, errors, keepalives
// and limits once more over a secure channel, and those that depend on how records
// are made over each kind.
func TestOverSecureChannels(t *testing.T) {
	each := []func(*testing.T){
		TestRequests, TestRequestsReachFiles, TestGhostWriteIsFencedOff, TestFenceSendsDraining, TestBackPressure,
		TestLongErasureStopsAtTheFence, TestHammer, TestLimitsAreAgreed, TestSilentClientIsCut, TestLivingClientStays,
	}
	once := []func(*testing.T){
		TestReadOnlyClientCannotWrite, TestGhostWriteWithoutTheFence, TestSlowRequestStallsNobody, TestStoreErrorOfAWrite, TestStoreWithoutRoom,
		TestStoreErrorOfAFlush, TestStoreErrorOfARead, TestShortenedFileGivesNoStaleBytes, TestStableExports, TestBarrierReachesTheStore,
		TestRulesApplyAtOnce, TestHalfOpenIsBounded, TestUnfinishedErasureIsNotAcknowledged, TestWaitingClientsAreNotHalfOpen,
		TestPartingClientDoesNotHoldUpTheEnd, TestClientThatReadsNothingIsCut, TestPatientClientIsWaitedFor,
		TestLivingHolderKeepsItsPlace, TestDeadHolderLosesItsPlace, TestByeFreesThePlace, TestSlowTenureKeepsTheClientPatient,
		TestWorkersGrowAndShrink, TestCloseNamesTheHolder, TestForcedCloseEndsInTime, TestStatus, TestNoMemoryForAnotherClient,
		TestN19NoWayToAnotherExport, TestN27EveryStoreError, TestRequestsDoNotAllocate,
	}
	for i, suite := range suites {
		t.Run(suite.name, func(t *testing.T) {
			speak(t, keyOf(t, suite.cipher, suite.hash, 1))
			tests := each
			if i == 0 {
				tests = slices.Concat(each, once)
			}
			for _, test := range tests {
				t.Run(nameOf(test), test)
			}
		})
	}
}

func keysOf(keys ...*crypt.Key) []*crypt.Key { return keys }
