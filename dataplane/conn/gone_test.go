package conn_test

import (
	"testing"
	"time"

	"dst/dataplane/conn"
	"dst/dataplane/conn/conntest"
)

// TestGone: the end of the other side shows before what it said is read.
func TestGone(t *testing.T) {
	overMedia(t, func(t *testing.T, m medium) {
		a, b := conntest.Pair(t, m.listen)
		if _, err := a.Write([]byte("last words")); err != nil {
			t.Fatal(err)
		}
		if conn.Gone(b) || conn.Gone(a) {
			t.Fatal("gone while it is there")
		}
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(10 * time.Second); !conn.Gone(b); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("its end does not show")
			}
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		if !conn.Gone(b) {
			t.Error("a closed stream is not gone")
		}
	})
	a, b := conntest.Pipe()
	if conn.Gone(a) || conn.Gone(b) {
		t.Error("a pipe tells")
	}
}
