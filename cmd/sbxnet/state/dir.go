package state

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Names of the files in a state directory, which are RootlessKit's.
const (
	fileLock     = "lock"
	fileChildPID = "child_pid"
	fileSocket   = "api.sock"
	fileNetNS    = "netns"
)

// A Dir is the state directory of a sandbox of this process. The name is taken
// until Close or the end of the process.
type Dir struct {
	// Name of the sandbox; empty for a directory outside Root.
	Name string
	// Path is absolute.
	Path string
	lock *os.File
	// root is the directory that Path is in, if it is one of ours.
	root string
}

// A TakenError is a name or directory that a running sandbox has.
type TakenError struct {
	Path string
	// PID of the process that has it, as far as it says; else 0.
	PID int
}

func (e *TakenError) Error() string {
	by := ""
	if e.PID != 0 {
		by = fmt.Sprintf(" (sbxnet, pid %d)", e.PID)
	}
	return "taken by a running sandbox" + by
}

const maxName = 63

// CheckName says whether a sandbox can be called name: names end up in paths.
func CheckName(name string) error {
	if name == "" || len(name) > maxName {
		return fmt.Errorf("use 1 to %d characters", maxName)
	}
	for i, r := range name {
		if !letter(r) && (i == 0 || r != '.' && r != '-' && r != '_') {
			return errors.New("use letters, digits, dots, dashes and underscores, a letter or digit first")
		}
	}
	return nil
}

func letter(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
}

// Create takes name and makes its directory, after sweeping those that are left
// of sandboxes that were killed. The error of a name that is in use is a
// *TakenError, that of a directory that is not safe an *UntrustedError.
func Create(name string) (*Dir, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	return withRoot(func(root string) (*Dir, error) { return take(root, name) })
}

// CreateNamedFor takes a free name that tells what runs in the sandbox: the
// command's and a number.
func CreateNamedFor(command string) (*Dir, error) {
	stem := stemOf(command)
	return withRoot(func(root string) (*Dir, error) {
		for n := 1; ; n++ {
			dir, err := take(root, stem+"-"+strconv.Itoa(n))
			var taken *TakenError
			var untrusted *UntrustedError
			if errors.As(err, &taken) || errors.As(err, &untrusted) && n < maxUntrusted {
				continue
			}
			return dir, err
		}
	})
}

// maxUntrusted bounds how many directories that are not ours to use are passed
// over in the search for a name.
const maxUntrusted = 1000

// stemOf is the base name of a command as part of a sandbox's name.
func stemOf(command string) string {
	const most = maxName - len("-1000000")
	stem := strings.Map(func(r rune) rune {
		if letter(r) || r == '.' || r == '-' || r == '_' {
			return r
		}
		return -1
	}, filepath.Base(command))
	stem = strings.TrimLeft(stem, ".-_")
	if stem == "" {
		return "sandbox"
	}
	return stem[:min(len(stem), most)]
}

// withRoot runs a search for a name with the outer directory locked and swept.
func withRoot(search func(root string) (*Dir, error)) (*Dir, error) {
	root := Root()
	lock, err := lockedRoot(root, true)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	sweep(root)
	dir, err := search(root)
	if err != nil {
		os.Remove(root) // if it is empty
		return nil, err
	}
	return dir, nil
}

// sweep removes what is left of sandboxes whose process is gone. What it can't
// remove, or did not make, it leaves alone.
func sweep(root string) {
	entries, err := os.ReadDir(root)
	if err != nil {
		return
	}
	for _, e := range entries {
		if !e.IsDir() || CheckName(e.Name()) != nil {
			continue
		}
		if d, err := acquire(filepath.Join(root, e.Name())); err == nil {
			d.remove()
		}
	}
}

// take makes the directory of a name; what a killed sandbox left in it was swept.
func take(root, name string) (*Dir, error) {
	path := filepath.Join(root, name)
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("make state directory: %w", err)
	}
	d, err := acquire(path)
	if err != nil {
		return nil, err
	}
	d.Name, d.root = name, root
	return d, d.writeOwner()
}

// CreateAt takes a directory that the user names, outside Root, and makes it if
// it does not exist. What a killed sandbox left in it is removed; a directory
// with anything else in it is refused. An empty one is closed to others.
func CreateAt(path string) (*Dir, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	for range 100 {
		if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("make state directory: %w", err)
		}
		var untrusted *UntrustedError
		d, err := acquire(path)
		if errors.As(err, &untrusted) && closeToOthers(path) == nil {
			d, err = acquire(path)
		}
		if errors.Is(err, fs.ErrNotExist) {
			continue // it went with the one before
		}
		if err != nil {
			return nil, err
		}
		if !same(d.lock, filepath.Join(path, fileLock)) {
			d.lock.Close()
			continue
		}
		if err := d.clear(); err != nil {
			d.lock.Close()
			return nil, err
		}
		return d, d.writeOwner()
	}
	return nil, fmt.Errorf("state directory %s: somebody keeps removing it", path)
}

// closeToOthers takes their rights to a directory away, which only its owner can.
func closeToOthers(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	entries, err := os.ReadDir(path)
	if err == nil && len(entries) == 0 { // else others may have put it there
		err = unix.Fchmod(fd, 0o700)
	}
	return err
}

// acquire locks a directory that exists and is ours.
func acquire(path string) (*Dir, error) {
	dir, err := openOwn(path)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	fd, err := unix.Openat(int(dir.Fd()), fileLock, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: filepath.Join(path, fileLock), Err: err}
	}
	lock := os.NewFile(uintptr(fd), filepath.Join(path, fileLock))
	held, err := lockNow(lock)
	if err == nil && !held {
		err = &TakenError{Path: path, PID: ownerOf(lock)}
	}
	if err != nil {
		lock.Close()
		return nil, err
	}
	return &Dir{Path: path, lock: lock}, nil
}

// ownerWidth of a process ID, in digits.
const ownerWidth = 10

// ownerOf reads which process has locked a directory.
func ownerOf(lock *os.File) int {
	var b [ownerWidth + 1]byte
	n, _ := lock.ReadAt(b[:], 0)
	pid, err := strconv.Atoi(strings.TrimSpace(string(b[:n])))
	if err != nil || pid < 0 {
		return 0
	}
	return pid
}

// writeOwner writes over what is there: disk file systems take milliseconds over
// a file that was cut.
func (d *Dir) writeOwner() error {
	_, err := d.lock.WriteAt(fmt.Appendf(nil, "%-*d\n", ownerWidth, os.Getpid()), 0)
	if err != nil {
		d.Close()
		return fmt.Errorf("write state: %w", err)
	}
	return nil
}

// File is the path of a file in the directory.
func (d *Dir) File(name string) string { return filepath.Join(d.Path, name) }

// NetNS is the path of the file that a detached network namespace is mounted on.
func (d *Dir) NetNS() string { return d.File(fileNetNS) }

// SetChildPID tells others which process is the sandbox's first.
func (d *Dir) SetChildPID(pid int) error {
	if err := os.WriteFile(d.File(fileChildPID), []byte(strconv.Itoa(pid)), 0o600); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	return nil
}

// Leftovers are what is to be removed by others should this process be killed:
// directories with all that is in them, and after that those that are empty by
// then, as userns.Config takes them.
func (d *Dir) Leftovers() (whole, ifEmpty []string) {
	if d.root != "" {
		ifEmpty = []string{d.root}
	}
	return []string{d.Path}, ifEmpty
}

// Close gives the name back and removes the directory.
func (d *Dir) Close() error {
	if d.root == "" {
		if err := d.clear(); err != nil {
			d.lock.Close()
			return err
		}
		os.Remove(d.File(fileLock))
		os.Remove(d.Path) // stays if the user keeps something in it
		return d.lock.Close()
	}
	root, err := lockedRoot(d.root, false)
	if err != nil {
		d.lock.Close()
		return err
	}
	defer root.Close()
	err = d.remove()
	os.Remove(d.root) // if it was the last
	return err
}

// remove removes a directory that is locked, in a root that is.
func (d *Dir) remove() error {
	defer d.lock.Close()
	for _, name := range []string{fileSocket, fileChildPID, fileLock} {
		unix.Unlink(d.File(name))
	}
	if unix.Rmdir(d.Path) == nil {
		return nil
	}
	if err := os.RemoveAll(d.Path); err != nil {
		return fmt.Errorf("remove state directory: %w", err)
	}
	return nil
}

// stateFiles are those that a directory that the user named may have in it:
// ours, those that go with a detached namespace, and what RootlessKit puts there.
var stateFiles = []string{fileChildPID, fileSocket, fileNetNS, "resolv.conf", "hosts", ".bp.sock", ".bp-ready.pipe"}

// clear removes what is left of the sandbox that had the directory before.
func (d *Dir) clear() error {
	entries, err := os.ReadDir(d.Path)
	if err != nil {
		return fmt.Errorf("read state directory: %w", err)
	}
	for _, e := range entries {
		if e.Name() != fileLock && (e.IsDir() || !slices.Contains(stateFiles, e.Name())) {
			return fmt.Errorf("state directory %s: has %s in it, which is no sandbox's state; name an empty directory", d.Path, e.Name())
		}
	}
	for _, name := range stateFiles {
		if err := os.Remove(d.File(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("clear state directory: %w", err)
		}
	}
	return nil
}
