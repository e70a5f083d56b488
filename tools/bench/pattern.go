package main

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
)

const (
	blockMin = 4 << 10
	blockMax = 128 << 10 // largest request, bytes

	// period is a prime, so that the content of two blocks of a device of less than 4 GiB × 1024 is never the same.
	period = 1<<20 + 7
	stride = 340_573 // distance of two generations; it does not divide period
)

// Generations of content.
const (
	genInitial  = iota // what the file holds at first
	genVerified        // what the verify phase writes
	genTimed           // what timed requests write
	generations
)

// pattern gives every byte of a device its content, by offset and generation, as a piece of one table: nothing is computed per
// request, and a reply is compared in place.
type pattern []byte

func newPattern() pattern {
	p := make(pattern, period+blockMax)
	_, _ = rand.NewChaCha8([32]byte{'d', 's', 't'}).Read(p[:period])
	copy(p[period:], p)
	return p
}

// at is the content of n bytes at an offset, n ≤ blockMax.
func (p pattern) at(offset uint64, gen int, n int) []byte {
	from := (offset + uint64(gen)*stride) % period
	return p[from : from+uint64(n)]
}

// fill makes a file of size bytes of the first generation.
func (p pattern) fill(name string, size int64) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	for off := int64(0); off < size; off += blockMax {
		if _, err := f.Write(p.at(uint64(off), genInitial, blockMax)); err != nil {
			f.Close()
			return err
		}
	}
	return f.Close()
}

// check reads a file of this content: every block must be of a generation, and the first verified bytes not of the first one.
func (p pattern) check(name string, size, verified int64) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, blockMax)
	for off := int64(0); off < size; off += blockMax {
		if _, err := io.ReadFull(f, buf); err != nil {
			return fmt.Errorf("%s at %d: %w", name, off, err)
		}
		for i := int64(0); i < blockMax; i += blockMin {
			oldest := genInitial
			if off+i < verified {
				oldest = genVerified
			}
			if !p.known(buf[i:i+blockMin], uint64(off+i), oldest) {
				return fmt.Errorf("%s at %d: the block is not what was written there", name, off+i)
			}
		}
	}
	return nil
}

// known tells whether b is the content at offset, of a generation not before oldest.
func (p pattern) known(b []byte, offset uint64, oldest int) bool {
	for gen := oldest; gen < generations; gen++ {
		if bytes.Equal(b, p.at(offset, gen, len(b))) {
			return true
		}
	}
	return false
}
