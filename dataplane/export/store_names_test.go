package export

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"dst/abi"
)

// images are n files of a size in dir.
func images(t *testing.T, dir string, n int, size int64) (paths []string) {
	t.Helper()
	for i := range n {
		paths = append(paths, filepath.Join(dir, fmt.Sprintf("image%d", i)))
		if err := os.WriteFile(paths[i], make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return paths
}

// idOf opens what c names by way of a link to device, and tells its id and how
// many warnings there are.
func idOf(t *testing.T, c Config, device string) (abi.ID, int) {
	t.Helper()
	_ = os.Remove(c.Device)
	if err := os.Symlink(device, c.Device); err != nil {
		t.Fatal(err)
	}
	d := openDisk(t, c)
	if err := d.Store.Close(); err != nil {
		t.Fatal(err)
	}
	return d.Identity.ID, len(d.Warnings)
}

// TestAnotherDiskHasAnotherIdentity: a disk in the place of another one does not
// pass for it, though they have a path and a size in common; what an older daemon
// kept by path and size stays the first one's.
func TestAnotherDiskHasAnotherIdentity(t *testing.T) {
	files := images(t, t.TempDir(), 2, 1<<20)
	a, b := loop(t, files[0]), loop(t, files[1])
	c := Config{Device: filepath.Join(t.TempDir(), "disk"), StateDir: t.TempDir()}
	kept := keeper{path: keptAt(&c, sizeKey(&c, 1<<20))}
	old := randomID()
	if err := kept.save(old, randomID(), abi.ID{}); err != nil {
		t.Fatal(err)
	}
	first, warnings := idOf(t, c, a)
	want(t, "id kept by an older daemon", first, old)
	want(t, "warnings", warnings, 0)
	second, warnings := idOf(t, c, b)
	if second == first || warnings != 0 {
		t.Errorf("another disk: %v, %d warnings", second, warnings)
	}
	for range 2 {
		again, _ := idOf(t, c, a)
		want(t, "the first disk's id", again, first)
		again, _ = idOf(t, c, b)
		want(t, "the second disk's id", again, second)
	}
}

// TestDiskWithoutAName: a disk that is known by its path only is warned of.
func TestDiskWithoutAName(t *testing.T) {
	needRoot(t)
	dir := t.TempDir() // ramfs has no extended attributes
	if err := unix.Mount("dst-test", dir, "ramfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	file := images(t, dir, 1, 1<<20)[0]
	c := Config{Device: filepath.Join(t.TempDir(), "disk"), StateDir: t.TempDir()}
	first, warnings := idOf(t, c, loop(t, file))
	want(t, "warnings of a disk", warnings, 1)
	again, _ := idOf(t, c, loop(t, file))
	want(t, "id", again, first)
	c.Device = file
	d := openDisk(t, c)
	defer d.Store.Close()
	if len(d.Warnings) != 1 || !strings.Contains(d.Warnings[0], "path and size") {
		t.Errorf("warnings of a file: %q", d.Warnings)
	}
}

// TestLesserNames: what was kept when less was known of a store is found when
// more is, and kept by the better name from then on.
func TestLesserNames(t *testing.T) {
	c := &Config{Device: "/dev/sdx1", StateDir: t.TempDir()}
	names := []string{"partition 1234", "wwid naa.5 partition 1", sizeKey(c, 4096)}
	keep := func(names ...string) *Identity {
		id, err := keepIdentity(names[0], c, names[1:]...)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	first := keep(names[1:]...) // before udev has seen it
	want(t, "a world-wide id", first.ID, digestOf(names[1]))
	second := keep(names...)
	want(t, "id when more is known", second.ID, first.ID)
	want(t, "tenure when more is known", second.Tenure, first.Tenure)
	if err := second.Save(abi.ID{1}, abi.ID{2}); err != nil {
		t.Fatal(err)
	}
	third := keep(names...)
	want(t, "id later", third.ID, first.ID)
	want(t, "last later", third.Last, abi.ID{2})
	if other := keep("partition 5678", names[1], names[2]); other.ID == first.ID {
		t.Error("another partition in its place has its id")
	}
	path := keep(names[2])
	if path.Resized == nil || third.Resized != nil {
		t.Error("only what is known by its size has to be told of another one")
	}
	serial := keep("serial 7", names[2])
	want(t, "id by path, now by serial number", serial.ID, path.ID)
	if keep("serial 8", names[2]).ID == keep("serial 9", names[2]).ID {
		t.Error("two disks with one id")
	}
}

func TestSerialNumbers(t *testing.T) {
	for _, tt := range []struct{ file, contents, want string }{
		{"serial", "vol-0a\n", "vol-0a"},
		{"device/serial", "0x00c0ffee\n", "0x00c0ffee"},
		{"device/vpd_pg80", "\x00\x80\x00\x08  S1234 \x00", "S1234"},
		{"device/vpd_pg80", "\x00\x80", ""},
		{"serial", "\n", ""},
		{"uevent", "MAJOR=8\n", ""},
	} {
		dir := t.TempDir()
		_ = os.Mkdir(dir+"/device", 0o700)
		if err := os.WriteFile(filepath.Join(dir, tt.file), []byte(tt.contents), 0o600); err != nil {
			t.Fatal(err)
		}
		want(t, tt.file, serialOf(dir), tt.want)
	}
}

const partitionGUID = "6a898cc3-1dd2-11b2-99a6-080020736631"

// table is a disk of 1 MiB with one partition, its third: 256 sectors from the 512th.
func table(gpt bool) []byte {
	b := make([]byte, 1<<20)
	le := binary.LittleEndian
	le.PutUint32(b[0x1b8:], 0x00c0ffee)
	slot := b[0x1be+2*16:]
	slot[4] = 0x83
	le.PutUint32(slot[8:], 512)
	le.PutUint32(slot[12:], 256)
	b[510], b[511] = 0x55, 0xaa
	if !gpt {
		return b
	}
	slot[4] = 0xee
	le.PutUint32(slot[8:], 1)
	le.PutUint32(slot[12:], 2047)
	guid := []byte{0xc3, 0x8c, 0x89, 0x6a, 0xd2, 0x1d, 0xb2, 0x11, 0x99, 0xa6, 0x08, 0x00, 0x20, 0x73, 0x66, 0x31}
	entries := b[1024 : 1024+128*128]
	entry := entries[2*128:]
	copy(entry, guid)
	copy(entry[16:], guid)
	le.PutUint64(entry[32:], 512)
	le.PutUint64(entry[40:], 767)
	head := b[512 : 512+92]
	copy(head, "EFI PART\x00\x00\x01\x00\x5c\x00\x00\x00")
	le.PutUint64(head[24:], 1)
	le.PutUint64(head[32:], 2047)
	le.PutUint64(head[40:], 34)
	le.PutUint64(head[48:], 2014)
	le.PutUint64(head[72:], 2)
	le.PutUint32(head[80:], 128)
	le.PutUint32(head[84:], 128)
	le.PutUint32(head[88:], crc32.ChecksumIEEE(entries))
	le.PutUint32(head[16:], crc32.ChecksumIEEE(head))
	return b
}

func TestPartitionTables(t *testing.T) {
	gpt, mbr := table(true), table(false)
	changed := func(b []byte, at int, to byte) []byte {
		b = bytes.Clone(b)
		b[at] = to
		return b
	}
	for _, tt := range []struct {
		name     string
		disk     []byte
		n, start uint64
		want     string
	}{
		{"GPT", gpt, 3, 512 * 512, partitionGUID},
		{"GPT, begins elsewhere", gpt, 3, 513 * 512, ""},
		{"GPT, empty", gpt, 2, 512 * 512, ""},
		{"GPT, no such entry", gpt, 129, 512 * 512, ""},
		{"GPT, not one", changed(gpt, 512, 'X'), 3, 512 * 512, ""},
		{"GPT, far away", changed(gpt, 512+79, 0x7f), 3, 512 * 512, ""},
		{"MBR over an old GPT", changed(gpt, 0x1be+2*16+4, 0x83), 3, 512 * 512, "00c0ffee-03"},
		{"MBR", mbr, 3, 512 * 512, "00c0ffee-03"},
		{"MBR, logical", mbr, 12, 600 * 512, "00c0ffee-0c"},
		{"MBR without a signature", append(make([]byte, 446), mbr[446:]...), 3, 512 * 512, ""},
		{"none", make([]byte, 4096), 1, 512, ""},
		{"short", mbr[:500], 1, 512, ""},
		{"no partition", mbr, 0, 0, ""},
	} {
		want(t, tt.name, uuidIn(bytes.NewReader(tt.disk), 512, tt.n, tt.start), tt.want)
	}
}

// TestPartitionsKeepTheirName: the id of a partition depends neither on udev nor
// on what the kernel tells of the table.
func TestPartitionsKeepTheirName(t *testing.T) {
	for _, tt := range []struct {
		disk []byte
		want string
	}{{table(true), partitionGUID}, {table(false), "00c0ffee-03"}} {
		file := images(t, t.TempDir(), 1, 0)[0]
		if err := os.WriteFile(file, tt.disk, 0o600); err != nil {
			t.Fatal(err)
		}
		c := Config{Device: partition(t, loop(t, file)), StateDir: t.TempDir()}
		d := openDisk(t, c)
		want(t, "id of partition "+tt.want, d.Identity.ID, digestOf("partition "+tt.want))
		want(t, "warnings", len(d.Warnings), 0)
		if err := d.Store.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// partition makes the third partition of the disk, where table has it, without
// asking the kernel to read the table.
func partition(t *testing.T, disk string) string {
	t.Helper()
	f, err := os.OpenFile(disk, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	change := func(op int32) error {
		part := unix.BlkpgPartition{Start: 512 * 512, Length: 256 * 512, Pno: 3}
		arg := unix.BlkpgIoctlArg{Op: op, Datalen: int32(unsafe.Sizeof(part)), Data: (*byte)(unsafe.Pointer(&part))}
		if _, _, e := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.BLKPG, uintptr(unsafe.Pointer(&arg))); e != 0 {
			return e
		}
		return nil
	}
	if err := change(unix.BLKPG_ADD_PARTITION); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(change(unix.BLKPG_DEL_PARTITION), f.Close()); err != nil {
			t.Error(err)
		}
	})
	name := disk + "p3"
	eventually(t, "the partition is there", func() bool { _, err := os.Stat(name); return err == nil })
	return name
}
