package remote

import (
	"sync"
	"testing"

	"dst/abi"
	"dst/dataplane/conn"
	"dst/dataplane/conn/conntest"
	"dst/dataplane/crypt"
)

// spoken is the key that nodes and peers of the present test have; nil: they
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

// digestNow is the digest of frames behind WELCOME.
func digestNow() crypt.Digest {
	if spoken == nil {
		return crc
	}
	return crypt.DigestNone
}

func csizeNow() uint32 { return uint32(digestNow().Size()) }

// several is a secure stream that several goroutines may read and write.
type several struct {
	*conn.Secure
	mu, reading sync.Mutex
}

func (s *several) Read(b []byte) (int, error) {
	s.reading.Lock()
	defer s.reading.Unlock()
	return s.Secure.Read(b)
}

func (s *several) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Secure.Write(b)
}

// Free is Secure's, when nobody reads or writes; the stream below is closed.
func (s *several) Free() {
	s.reading.Lock()
	defer s.reading.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Secure.Free()
}

// free gives back what the connection has; its reader has ended.
func (l *line) free() {
	l.raw.Close()
	if s, ok := l.Stream.(*several); ok {
		s.Free()
	}
}

// protect is the export's half of the handshake with the key k.
func (l *line) protect(k *crypt.Key) error {
	s, _, err := conn.Respond(l.Stream, func(id abi.KeyID) *crypt.Key {
		if id != k.ID() {
			return nil
		}
		return k
	}, nil)
	if err != nil {
		return err
	}
	l.Stream = &several{Secure: s}
	return s.Ready()
}

// meetSecure is meet with the present key.
func (p *peer) meetSecure(l *line) (hello abi.Hello, err error) {
	if err := l.protect(spoken); err != nil {
		return hello, err
	}
	return p.hear(l)
}

// TestOverSecureChannels runs the tests of links, recovery, replay and limits once
// more over a secure channel of each kind.
func TestOverSecureChannels(t *testing.T) {
	for _, suite := range suites {
		t.Run(suite.name, func(t *testing.T) {
			speak(t, keyOf(t, suite.cipher, suite.hash, 1))
			for _, test := range []func(*testing.T){
				TestConfiguredToEstablished, TestBrokenToEstablishedResendsWritesFirst, TestOverlappingWriteWaits,
				TestEstablishedToBrokenWhenPeerIsSilent, TestRecoveryToFailedWhenThePromiseIsBroken, TestFlushCoversWhatWasAcknowledgedBeforeIt,
				TestFlushThatNeverSucceedsFails, TestFlushOutlivesExports, TestFailAfterEndsTheWait, TestRequestTimeoutBreaksTheLink,
				TestReplayWithoutRoom, TestErrorIsAnsweredAndNeverResent, TestRestartedDaemonIsTheSameClient,
				TestGhostIsMadeDurableBeforeItIsRead, TestLogLostInAReplay, TestCloseAnswersWhatWaits, TestWindow,
				TestReadOnlyGrantOutlivesAnotherWriter, TestSlowStoreIsNoFailure, TestErrorAnswers, TestFloodOfPings,
				TestPeerThatReadsNothing, TestRequestTimeoutCountsFromTheLink, TestManyBreaksLeaveNothing, TestCloseWhileThePeerIsDeaf,
				TestFullLogAfterABreak, TestMemoryIsWaitedForBeforeTheLogHasIt, TestModel,
				TestPeersAreTriedInTurn, TestGrownExportGrowsTheDevice, TestKnownShapeIsUpBeforeThePeer, TestSetSize, TestFail,
				TestWaits, TestWaitsForReplay, TestSteal, TestNoAllocationPerRequest,
			} {
				t.Run(nameOf(test), test)
			}
		})
	}
}
