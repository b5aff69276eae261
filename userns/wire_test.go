package userns

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMessageCarriesDescriptorsAndTheirMode(t *testing.T) {
	ours, theirs, err := controlPair()
	must(t, err)
	defer ours.Close()
	peer, err := controlConn(theirs)
	must(t, err)
	defer peer.Close()

	var p [2]int
	must(t, unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK))
	r, w := os.NewFile(uintptr(p[0]), "r"), os.NewFile(uintptr(p[1]), "w")
	must(t, sendMessage(peer, message{Op: opReady}, r))
	r.Close()
	m, files, err := receiveMessage(ours)
	if err != nil || m.Op != opReady || len(files) != 1 {
		t.Fatalf("%+v with %d descriptors (%v)", m, len(files), err)
	}
	defer files[0].Close()
	raw, err := files[0].SyscallConn()
	must(t, err)
	must(t, raw.Control(func(fd uintptr) {
		if flags, err := unix.FcntlInt(fd, unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK == 0 {
			t.Errorf("the descriptor became blocking on its way: flags %#x (%v)", flags, err)
		}
		if flags, err := unix.FcntlInt(fd, unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("the descriptor would leak into a command: flags %#x (%v)", flags, err)
		}
	}))
	w.Close()

	peer.Close()
	if _, _, err := receiveMessage(ours); !errors.Is(err, io.EOF) {
		t.Errorf("after the other side closed: %v, want EOF", err)
	}
}

func TestMessageThatIsNoneIsAnError(t *testing.T) {
	for _, b := range []string{"{", "null ", `{"Op":7}`, "\x00", strings.Repeat("[", 10000)} {
		ours, theirs, err := controlPair()
		must(t, err)
		_, err = theirs.Write([]byte(b))
		must(t, err)
		if m, _, err := receiveMessage(ours); err == nil && m.Op != "" {
			t.Errorf("%.20q: %+v", b, m)
		}
		ours.Close()
		theirs.Close()
	}
}

func TestTextFromInsideCannotDriveTheTerminal(t *testing.T) {
	if got := printable("a\x1b[2Jb\nc\xffd é"); got != "a?[2Jb?c\uFFFDd é" && got != "a?[2Jb?c?d é" {
		t.Errorf("%q", got)
	}
	if n := len(printable(strings.Repeat("x", 100000))); n != maxText {
		t.Errorf("%d bytes, want %d", n, maxText)
	}
}

// Whoever closes an end with something unread resets the connection; what it had
// sent before is to arrive all the same.
func TestLastMessageArrivesFromWhoDidNotReadAll(t *testing.T) {
	ours, theirs, err := controlPair()
	must(t, err)
	defer ours.Close()
	peer, err := controlConn(theirs)
	must(t, err)
	must(t, sendMessage(ours, message{Op: opSignal}))
	must(t, sendMessage(peer, message{Op: opExited, Number: 7}))
	must(t, peer.Close())
	if m, _, err := receiveMessage(ours); err != nil || m.Op != opExited || m.Number != 7 {
		t.Errorf("%+v, %v", m, err)
	}
	if _, _, err := receiveMessage(ours); !errors.Is(err, io.EOF) {
		t.Errorf("after the last: %v", err)
	}
}
