package userns

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// copyUp makes a directory of the host one that the sandbox may write to: a
// tmpfs with a symbolic link for every entry, which leads to the original one.
// That stays reachable in a directory of the tmpfs, named like ".ro123". So a
// program may replace or remove any entry without the host noticing, and what
// the host replaces below does not take the sandbox's mounts on it away, as it
// does with those in /etc. The layout is RootlessKit's "tmpfs+symlink", which
// dockerd-rootless.sh and containerd-rootless.sh rely on.
func copyUp(dir string) error {
	original, err := openPath(dir, unix.O_DIRECTORY)
	if err != nil {
		return explainCopyUp(dir, err)
	}
	defer unix.Close(original)
	var st unix.Stat_t
	if err := unix.Fstat(original, &st); err != nil {
		return explainCopyUp(dir, err)
	}
	options := fmt.Sprintf("mode=%04o", st.Mode&0o7777)
	if err := unix.Mount("sbxnet", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		return explainCopyUp(dir, fmt.Errorf("mount a tmpfs: %w", err))
	}
	below, err := os.MkdirTemp(dir, ".ro")
	if err != nil {
		return explainCopyUp(dir, err)
	}
	// Mounts below the directory come along, and must: who may not unmount them
	// may not see what they cover either.
	if err := unix.Mount(fdPath(original), below, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return explainCopyUp(dir, fmt.Errorf("mount the original in it: %w", err))
	}
	// The tmpfs was mounted on the original, and so a copy of it came along too.
	if err := unix.Unmount(below, unix.MNT_DETACH); err != nil {
		return explainCopyUp(dir, fmt.Errorf("uncover the original: %w", err))
	}
	if err := linkEntries(dir, filepath.Base(below)); err != nil {
		return explainCopyUp(dir, err)
	}
	return nil
}

// linkEntries fills dir with a link to every entry of its subdirectory below,
// and copies of those that are links themselves, which go on to mean the same.
func linkEntries(dir, below string) error {
	entries, err := os.ReadDir(filepath.Join(dir, below))
	if err != nil {
		return err
	}
	for _, e := range entries {
		target := filepath.Join(below, e.Name())
		if e.Type()&os.ModeSymlink != 0 {
			if target, err = os.Readlink(filepath.Join(dir, target)); err != nil {
				return err
			}
		}
		// The kernel or a program that mounts may have been faster, as with
		// /etc/mtab.
		link := filepath.Join(dir, e.Name())
		if err := os.Symlink(target, link); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return nil
}

func explainCopyUp(dir string, err error) error {
	var path *os.PathError
	if errors.As(err, &path) && path.Path == dir {
		err = path.Err
	}
	return fmt.Errorf("copy up %s: %w", dir, err)
}

// checkCopyUp refuses what cannot be copied up, before there is a sandbox.
func checkCopyUp(dirs []string) error {
	for _, dir := range dirs {
		switch clean := filepath.Clean(dir); {
		case !filepath.IsAbs(dir):
			return fmt.Errorf("copy up %q: not an absolute path", dir)
		case clean == "/", clean == "/proc", clean == "/sys", clean == "/dev":
			return fmt.Errorf("copy up %s: has to stay what it is; name a directory like /etc or /run", clean)
		}
		st, err := os.Stat(dir)
		if err != nil {
			return explainCopyUp(dir, err)
		}
		if !st.IsDir() {
			return explainCopyUp(dir, unix.ENOTDIR)
		}
	}
	return nil
}

// copiedUp reports whether dir is among those that were copied up.
func copiedUp(dirs []string, dir string) bool {
	for _, d := range dirs {
		if filepath.Clean(d) == dir {
			return true
		}
	}
	return false
}

// writeEtcFiles puts the sandbox's own files into a copied-up /etc, in place of
// the links to the host's.
func writeEtcFiles(files map[string][]byte, etc string) error {
	for name, content := range files {
		path := filepath.Join(etc, name)
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			return err
		}
		// The umask is the caller's; everybody inside must be able to read it.
		if err := os.Chmod(path, 0o644); err != nil {
			return err
		}
	}
	return nil
}
