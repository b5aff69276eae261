package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// A scene is what a test looked like before sbxnet ran: when it ends, no
// process, listener, namespace, mount or file may have come to stay.
type scene struct {
	id           string
	tmp, runtime string
	mounts       map[string]bool
	listeners    map[string]bool
}

var (
	scenesMu sync.Mutex
	scenes   = map[*testing.T]*scene{}
)

// sceneOf begins the test's scene on first use and has it checked at the end.
func sceneOf(t *testing.T) *scene {
	t.Helper()
	lookAtSources()
	scenesMu.Lock()
	defer scenesMu.Unlock()
	if s := scenes[t]; s != nil {
		return s
	}
	s := &scene{
		id:        fmt.Sprintf("%d-%d", os.Getpid(), time.Now().UnixNano()),
		tmp:       t.TempDir(),
		runtime:   t.TempDir(),
		mounts:    mounts(t),
		listeners: listeners(t),
	}
	scenes[t] = s
	t.Cleanup(func() { s.assertEmpty(t) })
	return s
}

const markerName = "SBXNET_E2E_SCENE="

func (s *scene) marker() string { return markerName + s.id }

// assertEmpty allows what is dying a moment to be gone.
func (s *scene) assertEmpty(t *testing.T) {
	t.Helper()
	var left []string
	for range 500 {
		if left = s.leftovers(t); len(left) == 0 {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("left behind:\n%s", strings.Join(left, "\n"))
}

func (s *scene) leftovers(t *testing.T) []string {
	var left []string
	for _, pid := range s.processes() {
		cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		left = append(left, fmt.Sprintf("process %d: %q", pid, bytes.ReplaceAll(cmdline, []byte{0}, []byte{' '})))
	}
	// Outside a world the machine's other programs come and go in the same
	// table; there a listener is covered by its process.
	if inWorld() {
		for l := range listeners(t) {
			if !s.listeners[l] {
				left = append(left, "listener "+l)
			}
		}
	}
	// Outside a world others may mount, too: their namespaces, sessions and
	// containers are in /run. Ours are in the scene's own directory.
	for m := range mounts(t) {
		if !s.mounts[m] && (inWorld() || !strings.Contains(m, " /run/")) {
			left = append(left, "mount "+m)
		}
	}
	for _, dir := range []string{s.tmp, s.runtime} {
		filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
			if err == nil && path != dir {
				left = append(left, "file "+path)
			}
			return nil
		})
	}
	return left
}

// processes finds what carries the scene's marker in its environment: sbxnet
// and all that it started. A namespace without processes, descriptors or
// mounts does not exist, so this covers namespaces too.
func (s *scene) processes() []int {
	var pids []int
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if err == nil && bytes.Contains(environ, []byte(s.marker())) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// mounts returns the numbers and places of what is mounted. One that is there no
// more is not the test's doing: where its directory is removed in another mount
// namespace, the kernel takes it away in all of them.
func mounts(t *testing.T) map[string]bool {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 4 {
			found[f[0]+" "+f[4]] = true
		}
	}
	return found
}

// listeners returns the listening TCP and the unconnected UDP sockets of this
// network namespace, as "tcp 0100007F:1F90".
func listeners(t *testing.T) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	states := map[string]string{"tcp": "0A", "tcp6": "0A", "udp": "07", "udp6": "07"}
	for table, state := range states {
		b, err := os.ReadFile("/proc/self/net/" + table)
		if err != nil {
			continue
		}
		for _, line := range strings.Split(string(b), "\n") {
			f := strings.Fields(line)
			if len(f) > 3 && f[3] == state {
				found[table+" "+f[1]] = true
			}
		}
	}
	return found
}
