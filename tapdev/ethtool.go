package tapdev

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// limitVeth keeps the sandbox's kernel from leaving to us what the options do
// not let it, or what no virtio header can express: a veth device offers
// everything by default.
func limitVeth(info Info) error {
	name := info.Name
	if !info.RXChecksum {
		if err := ethtoolSet(name, unix.ETHTOOL_STXCSUM, 0); err != nil {
			return fmt.Errorf("turn checksum offload off on %s: %w", name, err)
		}
	}
	segmentation := info.GSO && info.RXChecksum
	if !segmentation {
		for _, cmd := range []uint32{unix.ETHTOOL_STSO, unix.ETHTOOL_SGSO} {
			if err := ethtoolSet(name, cmd, 0); err != nil {
				return fmt.Errorf("turn segmentation offload off on %s: %w", name, err)
			}
		}
	}
	if !segmentation || !info.KernelUSO {
		if err := ethtoolFeatureOff(name, "tx-udp-segmentation"); err != nil {
			return fmt.Errorf("turn UDP segmentation offload off on %s: %w", name, err)
		}
	}
	return nil
}

// ethtoolIfreq is struct ifreq with a pointer in it (linux/if.h).
type ethtoolIfreq struct {
	name [unix.IFNAMSIZ]byte
	data unsafe.Pointer
	_    [24 - unsafe.Sizeof(uintptr(0))]byte
}

// ethtool runs one SIOCETHTOOL command whose argument, beginning with the
// command, is in arg and is changed in place.
func ethtool(name string, arg []byte) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ifr := ethtoolIfreq{data: unsafe.Pointer(unsafe.SliceData(arg))}
	copy(ifr.name[:unix.IFNAMSIZ-1], name)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&ifr)))
	if errno != 0 {
		return errno
	}
	return nil
}

// ethtoolSet runs a command that takes one number (struct ethtool_value).
func ethtoolSet(name string, cmd, value uint32) error {
	arg := make([]byte, 8)
	binary.NativeEndian.PutUint32(arg, cmd)
	binary.NativeEndian.PutUint32(arg[4:], value)
	return ethtool(name, arg)
}

const (
	ethSSFeatures = 4  // ETH_SS_FEATURES, linux/ethtool.h
	ethStringLen  = 32 // ETH_GSTRING_LEN
	maxFeatures   = 1024
)

// ethtoolFeatureOff turns off a feature that is known by name only. A kernel
// that has no such feature has nothing to turn off.
func ethtoolFeatureOff(name, feature string) error {
	n, err := ethtoolFeatureCount(name)
	if err != nil {
		return err
	}
	arg := make([]byte, 12+n*ethStringLen) // struct ethtool_gstrings
	binary.NativeEndian.PutUint32(arg, unix.ETHTOOL_GSTRINGS)
	binary.NativeEndian.PutUint32(arg[4:], ethSSFeatures)
	binary.NativeEndian.PutUint32(arg[8:], uint32(n))
	if err := ethtool(name, arg); err != nil {
		return err
	}
	for i := range n {
		s := arg[12+i*ethStringLen:][:ethStringLen]
		if s, _, _ := bytes.Cut(s, []byte{0}); string(s) == feature {
			return ethtoolClearFeature(name, i, n)
		}
	}
	return nil
}

func ethtoolFeatureCount(name string) (int, error) {
	arg := make([]byte, 16+4) // struct ethtool_sset_info and one count
	binary.NativeEndian.PutUint32(arg, unix.ETHTOOL_GSSET_INFO)
	binary.NativeEndian.PutUint64(arg[8:], 1<<ethSSFeatures)
	if err := ethtool(name, arg); err != nil {
		return 0, err
	}
	return int(min(binary.NativeEndian.Uint32(arg[16:]), maxFeatures)), nil
}

// ethtoolClearFeature turns feature i of n off (struct ethtool_sfeatures: for
// each 32 features, which ones are meant and what they become).
func ethtoolClearFeature(name string, i, n int) error {
	blocks := (n + 31) / 32
	arg := make([]byte, 8+8*blocks)
	binary.NativeEndian.PutUint32(arg, unix.ETHTOOL_SFEATURES)
	binary.NativeEndian.PutUint32(arg[4:], uint32(blocks))
	binary.NativeEndian.PutUint32(arg[8+8*(i/32):], 1<<(i%32))
	return ethtool(name, arg)
}
