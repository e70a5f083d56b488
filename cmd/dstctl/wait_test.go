package main

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"dst/abi"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestWait: start of a remote waits until requests can flow. Time is virtual.
func TestWait(t *testing.T) {
	for name, tt := range map[string]struct {
		command string
		after   time.Duration // when disk0 changes
		becomes abi.State
		quiet   bool // the change comes without an event
		code    int
		took    time.Duration
		says    string
	}{
		"established":      {"start disk0", 3 * time.Second, abi.StateEstablished, false, 0, 3 * time.Second, ""},
		"without an event": {"start disk0", 2500 * time.Millisecond, abi.StateEstablished, true, 0, 3 * time.Second, ""},
		"at once":          {"start disk0", 0, abi.StateEstablished, false, 0, 0, ""},
		"failed": {"start disk0", time.Second, abi.StateFailed, false, 2, time.Second,
			"Error: disk0 has failed: the store is another one; dstctl node why disk0 says what can be done.\n"},
		"not yet": {"start disk0", time.Hour, abi.StateEstablished, false, 5, 10 * time.Second,
			"Error: disk0 is not established after 10s and keeps trying, still connecting: tcp:10.0.0.1:9 refused the connection.\n"},
		"own limit": {"-wait 90s start disk0", time.Hour, abi.StateEstablished, false, 5, 90 * time.Second, "Error: disk0 is not established after 1m30s and keeps trying, still"},
		"no wait":   {"-wait 0s start disk0", time.Hour, abi.StateEstablished, false, 0, 0, ""},
		"an export": {"start vol0", time.Hour, abi.StateEstablished, false, 0, 0, ""},
		"removed":   {"start disk0", 2 * time.Second, abi.StateClosed, false, 2, 2 * time.Second, "Error: disk0 was removed while it was waited for.\n"},
		"add":       {"remote add new peer tcp:10.0.0.1:9 attach none start", time.Hour, abi.StateEstablished, false, 5, 10 * time.Second, "Error: new is not established after 10s and keeps trying, still connecting: state configured"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := exampleNodes()
				n, began := d.nodes["disk0"], time.Now()
				n.Status.Reason = "tcp:10.0.0.1:9 refused the connection"
				d.get = func(*abi.Node) {
					if time.Since(began) < tt.after {
						return
					}
					if tt.becomes == abi.StateClosed {
						delete(d.nodes, "disk0")
						return
					}
					n.Status.State = tt.becomes
					if tt.becomes == abi.StateFailed {
						n.Status.Reason = "the store is another one"
					}
				}
				if !tt.quiet {
					tell := time.AfterFunc(tt.after, func() {
						d.events <- abi.Event{Kind: abi.EventKindState, Name: "disk0"}
					})
					defer tell.Stop()
				}
				got := dstctl(t, d, tt.command)
				if got.code != tt.code || !strings.HasPrefix(got.err, tt.says) || (tt.says == "") != (got.err == "") || time.Since(began) != tt.took {
					t.Errorf("exit %d after %v: %s", got.code, time.Since(began), got.err)
				}
			})
		})
	}
}

// TestBatchWait: a batch starts all its remotes first and waits for them
// together.
func TestBatchWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const text = "remote add a peer tcp:10.0.0.1:9 start\nremote add b peer tcp:10.0.0.1:9 start\nremote add c peer tcp:10.0.0.1:9 start\nremote add d peer tcp:10.0.0.1:9 start\ndel d\n"
		d, began := newFake(), time.Now()
		d.get = func(n *abi.Node) {
			if n.Name == "a" || n.Name == "b" && time.Since(began) >= 4*time.Second {
				n.Status.State = abi.StateEstablished
			}
		}
		got := dstctl(t, d, "-b f", text)
		if got.code != exitNotYet || time.Since(began) != 10*time.Second ||
			got.err != "Error: f:3: c is not established after 10s and keeps trying, still connecting: state configured.\n" {
			t.Errorf("exit %d after %v: %s", got.code, time.Since(began), got.err)
		}
	})
}

// TestSilent: a daemon that is there and does not answer is exit code 4.
func TestSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		got := runOn(t, silent{newFake()}, "start vol0")
		if got.code != exitNoDaemon || !strings.HasPrefix(got.err, "Error: dstd does not answer: it hangs") || time.Since(began) != answerTime {
			t.Errorf("%+v after %v", got, time.Since(began))
		}
	})
}
