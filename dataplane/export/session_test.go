package export

import (
	"testing"

	"dst/abi"
)

func TestRequests(t *testing.T) {
	m, disk := memDisk(4 << 20)
	w := newWorld(t, Config{}, disk)
	c := w.client(helloOf(1, 1, abi.PermRW))
	want(t, "size", c.welcome.Size, 4<<20)
	want(t, "mode", c.welcome.Mode, abi.PermRW)
	want(t, "store id", c.welcome.StoreID, disk.Identity.ID)

	data := pattern(64<<10, 1)
	want(t, "WRITE", c.write(8, data, 0), 0)
	got, errno := c.read(8, 64<<10)
	want(t, "READ", errno, 0)
	wantBytes(t, "READ", got, data)
	wantBytes(t, "store", m.bytes(4096, 64<<10), data)
	want(t, "FLUSH", c.flush(), 0)
	want(t, "WRITE FUA", c.write(0, data[:512], abi.FlagFUA|abi.FlagPreflush), 0)
	want(t, "WRITE_ZEROES", c.erase(abi.MsgWriteZeroes, 8, 4096, abi.FlagNoHole), 0)
	want(t, "DISCARD", c.erase(abi.MsgDiscard, 16, 4096, abi.FlagFUA), 0)
	wantBytes(t, "zeroes", m.bytes(4096, 8192), make([]byte, 8192))
	if err := c.send(abi.Header{Cmd: abi.MsgPing, ID: 77}, nil); err != nil {
		t.Fatal(err)
	}
	h, _, err := c.recv()
	if err != nil || h.Cmd != abi.MsgPong || h.ID != 77 {
		t.Fatalf("PING answered by %+v, %v", h, err)
	}
}
