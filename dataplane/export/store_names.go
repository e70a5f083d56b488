package export

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// deviceKeys is what a block device can be recognised by, the most stable first:
// its own name, and those that it may have been known by when less was known of
// it.
func deviceKeys(fd int, c *Config) (keys []string) {
	dir := sysfsOf(fd)
	disk, part := dir, ""
	if n := fileWord(dir + "/partition"); n != "" {
		disk, part = dir+"/..", " partition "+n
		if uuid := partitionUUID(dir); uuid != "" {
			keys = append(keys, "partition "+uuid)
		}
	}
	if wwid := firstWord(disk, "wwid", "device/wwid", "dm/uuid", "md/uuid"); wwid != "" {
		return append(keys, "wwid "+wwid+part)
	}
	if serial := serialOf(disk); serial != "" {
		keys = append(keys, "serial "+serial+part)
	} else if file := loopFile(fd, disk); file != "" {
		keys = append(keys, "file "+file+part)
	}
	size, _ := unix.Seek(fd, 0, unix.SEEK_END)
	return append(keys, sizeKey(c, uint64(size)))
}

// fileWord is the trimmed contents of a file, "" if there is none.
func fileWord(path string) string {
	b, _ := os.ReadFile(path)
	return strings.Trim(string(b), " \t\r\n\x00")
}

// firstWord is the first of these files below dir that says something.
func firstWord(dir string, names ...string) string {
	for _, name := range names {
		if word := fileWord(dir + "/" + name); word != "" {
			return word
		}
	}
	return ""
}

// serialOf is the serial number of the disk in the sysfs directory dir. It is
// not world-wide: whoever sets up a virtual disk chooses it.
func serialOf(dir string) string {
	if serial := firstWord(dir, "serial", "device/serial"); serial != "" {
		return serial
	}
	page, _ := os.ReadFile(dir + "/device/vpd_pg80") // SPC-4, 7.8.15: four bytes, then the number
	if len(page) < 4 {
		return ""
	}
	return strings.Trim(string(page[4:]), " \x00")
}

// loopFile is the id of the file behind the loop device fd, as an export of that
// file would have it; "" if it is none, or if the file can carry no id.
func loopFile(fd int, dir string) string {
	path, err := os.ReadFile(dir + "/loop/backing_file")
	if err != nil {
		return ""
	}
	info, err := unix.IoctlLoopGetStatus64(fd)
	if err != nil {
		return ""
	}
	name := strings.TrimSuffix(string(path), "\n")
	file, err := retryInt(func() (int, error) {
		return unix.Open(name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return ""
	}
	defer unix.Close(file)
	var st unix.Stat_t
	if err := unix.Fstat(file, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG ||
		uint64(st.Dev) != info.Device || st.Ino != info.Inode { // removed, or another one has its name now
		return ""
	}
	id, made, err := storeAttr(file)
	if err == nil && made {
		err = syncApart(file)
	}
	if err != nil {
		return ""
	}
	return fmt.Sprintf("%v offset %d", id, info.Offset)
}

// partitionUUID is the partition's own id: from the kernel, which tells it since
// Linux 6.13, else from the partition table itself, else from udev, which may not
// have seen the partition yet.
func partitionUUID(dir string) string {
	if uuid := property(dir+"/uevent", "PARTUUID="); uuid != "" {
		return uuid
	}
	if uuid := tableUUID(dir); uuid != "" {
		return uuid
	}
	return property("/run/udev/data/b"+fileWord(dir+"/dev"), "E:ID_PART_ENTRY_UUID=")
}

// property is the value of a line that begins with name, in lower case.
func property(path, name string) string {
	b, _ := os.ReadFile(path)
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), name); ok {
			return strings.ToLower(value)
		}
	}
	return ""
}

// tableUUID reads the id of the partition in the sysfs directory dir from its
// disk; "" if that can not be read.
func tableUUID(dir string) string {
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return ""
	}
	disk := filepath.Dir(real)
	f, err := os.Open("/dev/" + strings.ReplaceAll(filepath.Base(disk), "!", "/"))
	if err != nil {
		return ""
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFBLK ||
		fmt.Sprintf("%d:%d", unix.Major(uint64(st.Rdev)), unix.Minor(uint64(st.Rdev))) != fileWord(disk+"/dev") {
		return ""
	}
	sector, err := unix.IoctlGetInt(int(f.Fd()), unix.BLKSSZGET)
	if err != nil {
		return ""
	}
	n, _ := strconv.ParseUint(fileWord(dir+"/partition"), 10, 32)
	start, _ := strconv.ParseUint(fileWord(dir+"/start"), 10, 64)
	return uuidIn(f, int64(sector), n, start*512)
}

// uuidIn is the id that the partition table of disk gives its nth partition, as
// the kernel and blkid write it: the GUID of the one that begins at that byte, or,
// without a GPT, the signature of the disk and n. "" if there is none.
func uuidIn(disk io.ReaderAt, sector int64, n, start uint64) string {
	var head [512]byte
	var entry [128]byte
	le := binary.LittleEndian
	if _, err := disk.ReadAt(head[:], 0); err != nil || le.Uint16(head[510:]) != 0xaa55 || n == 0 {
		return ""
	}
	protective := false
	for slot := 0x1be; slot < 510; slot += 16 {
		protective = protective || head[slot+4] == 0xee
	}
	if signature := le.Uint32(head[0x1b8:]); !protective && signature != 0 {
		return fmt.Sprintf("%08x-%02x", signature, n)
	}
	// UEFI 2.10, 5.3: the header in the second sector, and the entries where it says.
	if _, err := disk.ReadAt(head[:], sector); err != nil || !protective || string(head[:8]) != "EFI PART" || n > uint64(le.Uint32(head[80:])) {
		return ""
	}
	table, each := le.Uint64(head[72:]), le.Uint32(head[84:])
	if table > 1<<40 { // no disk is that large, and what follows would overflow
		return ""
	}
	where := int64(table)*sector + int64(n-1)*int64(each)
	if _, err := disk.ReadAt(entry[:], where); err != nil || le.Uint64(entry[32:])*uint64(sector) != start {
		return ""
	}
	id := entry[16:32]
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", le.Uint32(id), le.Uint16(id[4:]), le.Uint16(id[6:]), id[8:10], id[10:])
}
