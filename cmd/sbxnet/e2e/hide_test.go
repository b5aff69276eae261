package e2e

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// hideTUN makes /dev/net/tun unopenable in a world, for root too: device nodes
// do not work on a mount with nodev.
func hideTUN(t *testing.T) {
	t.Helper()
	const tun = "/dev/net/tun"
	if err := unix.Mount(tun, tun, "", unix.MS_BIND, ""); err != nil {
		t.Fatalf("bind %s: %v", tun, err)
	}
	// A mount that came from another user namespace keeps its locked flags.
	var st unix.Statfs_t
	if err := unix.Statfs(tun, &st); err != nil {
		t.Fatal(err)
	}
	locked := uintptr(st.Flags) & (unix.ST_NOSUID | unix.ST_NOEXEC | unix.ST_RDONLY | unix.ST_RELATIME | unix.ST_NOATIME)
	if err := unix.Mount("", tun, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_NODEV|locked, ""); err != nil {
		t.Fatalf("remount %s: %v", tun, err)
	}
	if f, err := os.OpenFile(tun, os.O_RDWR, 0); err == nil {
		f.Close()
		t.Fatalf("%s can still be opened", tun)
	}
}
