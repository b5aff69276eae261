package slirp4netns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"sbxnet/cmd/sbxnet/network"
)

// # A root with nothing in it
//
// When all is up, the root directory becomes an empty one in which only those
// directories can be seen that are needed, at their own places and read-only: what
// names are resolved by, and where the namespace's path leads. The API socket's
// directory can be written to, for its removal.

// A place is a directory that stays to be seen.
type place struct {
	path     string
	writable bool
	fd       int
}

// A view is what stays to be seen, parents first.
type view struct {
	places []place
	// aliases are names that lead to something in places: from, to.
	aliases [][2]string
}

// view is what o needs: what names are resolved by, and the ways to the namespace
// and to the API socket.
func (o *options) view(apiSocket string) (*view, error) {
	v := &view{}
	for _, dir := range []string{"/etc", "/run"} {
		if err := v.add(dir, false); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	for _, path := range linksOf(network.ResolvConf) {
		_ = v.add(filepath.Dir(path), false) // there may be no such file
	}
	if o.Path != "" {
		path, err := filepath.Abs(o.Path)
		if err != nil {
			return nil, err
		}
		for _, path := range append([]string{path}, linksOf(path)...) {
			dir := filepath.Dir(path)
			if strings.HasPrefix(path, "/proc/") {
				dir = "/proc" // a process's part of it cannot be mounted elsewhere by all
			}
			if err := v.add(dir, false); err != nil {
				return nil, fmt.Errorf("%s: %w", path, err)
			}
		}
	}
	if apiSocket != "" {
		if err := v.add(filepath.Dir(apiSocket), true); err != nil {
			return nil, fmt.Errorf("%s: %w", apiSocket, err)
		}
	}
	return v, nil
}

// add adds a directory, under the name that it has without symbolic links.
func (v *view) add(path string, writable bool) error {
	real, err := filepath.EvalSymlinks(path)
	switch {
	case err != nil:
		return err
	case real == "/":
		return errors.New("nothing would be hidden")
	case real != path:
		v.aliases = append(v.aliases, [2]string{path, real})
	}
	if writable || !v.has(real) {
		v.places = append(v.places, place{path: real, writable: writable})
	}
	return nil
}

// has reports whether a path can be seen by way of another.
func (v *view) has(path string) bool {
	for _, p := range v.places {
		if beneath(path, p.path) {
			return true
		}
	}
	return false
}

// linksOf are the paths that a file's symbolic links lead to, one after another.
func linksOf(path string) []string {
	var all []string
	for range 8 {
		to, err := os.Readlink(path)
		if err != nil {
			break
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(path), to)
		}
		path = to
		all = append(all, path)
	}
	return all
}

// mountpoint is a directory for the new root to be put together on, in a mount
// namespace that nobody else sees; "" if there is none. Nothing that is needed may
// be hidden for a moment: who watches a path would take it for gone.
func (v *view) mountpoint() string {
	for _, dir := range []string{"/sys", "/mnt", "/tmp"} {
		needed := false
		for _, p := range v.places {
			needed = needed || beneath(p.path, dir)
		}
		for _, a := range v.aliases {
			needed = needed || beneath(a[0], dir)
		}
		if st, err := os.Stat(dir); err == nil && st.IsDir() && !needed {
			return dir
		}
	}
	return ""
}

// beneath reports whether path is dir or in it.
func beneath(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

// becomeRoot makes what is seen all that is below the root directory of this
// process, whose mount namespace is its own.
func (v *view) becomeRoot() (err error) {
	at := v.mountpoint()
	if at == "" {
		return errors.New("there is no directory to mount another on")
	}
	// What the host mounts and unmounts goes on to be seen here, and not the other
	// way round.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("keep mounts from the host: %w", err)
	}
	for i := range v.places {
		p := &v.places[i]
		// Before something is mounted over it.
		if p.fd, err = unix.Open(p.path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
			return fmt.Errorf("open %s: %w", p.path, err)
		}
		defer unix.Close(p.fd)
	}
	const attributes = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err := unix.Mount("tmpfs", at, "tmpfs", attributes, "size=256k,mode=755"); err != nil {
		return fmt.Errorf("mount an empty directory: %w", err)
	}
	defer func() {
		if err != nil {
			_ = unix.Unmount(at, unix.MNT_DETACH)
		}
	}()
	if err := v.putTogether(at); err != nil {
		return err
	}
	if err := unix.Chdir(at); err != nil {
		return fmt.Errorf("enter the new root directory: %w", err)
	}
	// The old one is then mounted on it (pivot_root(2)).
	if err := unix.PivotRoot(".", "."); err != nil {
		return errors.Join(fmt.Errorf("change the root directory: %w", err), unix.Chdir("/"))
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leave the old root directory: %w", err)
	}
	return unix.Chdir("/")
}

// putTogether fills the new root, which is mounted at root.
func (v *view) putTogether(root string) error {
	for _, p := range v.places {
		if err := p.bind(root); err != nil {
			return fmt.Errorf("show %s: %w", p.path, err)
		}
	}
	for _, a := range v.aliases {
		name := root + a[0]
		if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.Symlink(a[1], name)); err != nil {
			return fmt.Errorf("show %s: %w", a[0], err)
		}
	}
	if err := unix.MountSetattr(unix.AT_FDCWD, root, 0, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
		return fmt.Errorf("make the root directory read-only: %w", err)
	}
	return nil
}

// bind puts p into the new root.
func (p *place) bind(root string) error {
	at := root + p.path
	if err := os.MkdirAll(at, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", p.fd), at, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	set := uint64(unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC)
	if !p.writable {
		set |= unix.MOUNT_ATTR_RDONLY
	}
	return unix.MountSetattr(unix.AT_FDCWD, at, unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: set})
}
