package abi

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

func TestKeyID(t *testing.T) {
	want := KeyID{0, 1, 2, 3, 0xfc, 0xfd, 0xfe, 0xff}
	if s := want.String(); s != "00010203fcfdfeff" {
		t.Errorf("%s", s)
	}
	for _, s := range []string{"00010203fcfdfeff", "00010203FCFDFEFF"} {
		if k, err := ParseKeyID(s); err != nil || k != want {
			t.Errorf("%s: %v, %v", s, k, err)
		}
	}
	for _, s := range []string{"", "0", "00010203fcfdfef", "00010203fcfdfeff0", "0x010203fcfdfeff", "0000000000000000", "00010203fcfdfefg", " 0010203fcfdfeff"} {
		if k, err := ParseKeyID(s); !errors.Is(err, unix.EINVAL) || k != (KeyID{}) {
			t.Errorf("%q: %v, %v", s, k, err)
		}
	}
}
