package nbd

import (
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// settle does, apart, what has to wait until the device answers. It opens the
// device once: the kernel reads the partition table at the first open. Without
// Partscan what it found is taken away again, which no option of the driver
// can prevent. And if the device was left, it sets up its queue, should that
// have to change.
func (k *Disk) settle(left bool) {
	apart(func() {
		var err error
		if left {
			err = k.d.host.setQueue(k.index, k.c.Info().MaxSize)
		}
		if err = errors.Join(err, k.partition()); err != nil && !k.isOver() {
			k.c.Log.Warn().Err(err).Str("node", k.c.Name).Msg("the device is not as it should be")
		}
	})
}

func (k *Disk) partition() error {
	fd, err := unix.Open(k.path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", k.path, err)
	}
	defer unix.Close(fd)
	if k.c.Partscan {
		return nil
	}
	for _, name := range k.d.host.parts(k.index) {
		text := read(k.d.host.block(k.index, name, "partition"))
		n, perr := strconv.ParseInt(text, 10, 32)
		if perr != nil {
			continue // gone
		}
		if derr := deletePartition(fd, int32(n)); derr != nil && derr != unix.ENXIO {
			err = errors.Join(err, fmt.Errorf("take %s away: %w", name, derr))
		}
	}
	return err
}

// deletePartition makes the kernel forget a partition of the device at fd
// (BLKPG_DEL_PARTITION, include/uapi/linux/blkpg.h). EBUSY: somebody has it.
func deletePartition(fd int, n int32) error {
	part := unix.BlkpgPartition{Pno: n}
	arg := unix.BlkpgIoctlArg{Op: unix.BLKPG_DEL_PARTITION, Datalen: int32(unsafe.Sizeof(part)), Data: (*byte)(unsafe.Pointer(&part))}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.BLKPG, uintptr(unsafe.Pointer(&arg)))
	runtime.KeepAlive(&part)
	if errno != 0 {
		return errno
	}
	return nil
}
