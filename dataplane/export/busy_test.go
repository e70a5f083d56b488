package export

import (
	"strings"
	"testing"

	"dst/abi"
)

// TestBusyTellsNoID: who knows the whole id of a client can come in its place with
// a greater epoch; whoever wants the place is told enough to find it only.
func TestBusyTellsNoID(t *testing.T) {
	virtual(t, Config{}, func(t *testing.T, p *piped) {
		holder := p.client(helloOf(1, 1, abi.PermRW))
		defer holder.st.Close()
		go func() { // it lives
			for {
				h, _, err := holder.recv()
				if err != nil || h.Cmd == abi.MsgPing && holder.send(abi.Header{Cmd: abi.MsgPong, ID: h.ID}, nil) != nil {
					return
				}
			}
		}()
		r := p.dial().refused(helloOf(2, 1, abi.PermRW))
		if id := helloOf(1, 1, abi.PermRW).ClientID.String(); r.Code != abi.RefuseBusy || !strings.Contains(r.Text, id[:8]) || strings.Contains(r.Text, id[:16]) {
			t.Errorf("%+v", r)
		}
	})
}
