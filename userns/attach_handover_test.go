package userns

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// handOver carries a across, and returns what it has become.
func handOver(t *testing.T, a *Attachment) *Attachment {
	t.Helper()
	state, files, err := a.HandOver()
	must(t, err)
	b, err := TakeOver(state, files, nil)
	must(t, err)
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return b
}

func TestAttachmentIsTheSameWhenTakenOver(t *testing.T) {
	needTAP(t)
	ns := makeNamespace(t, "", rootInside...)
	a := attached(t, attachTo(ns))
	before, pid := a.Found(), a.PID()
	b := handOver(t, a)
	if !b.Found().equal(before) || b.PID() != pid {
		t.Errorf("found %+v by process %d, before %+v by %d", b.Found(), b.PID(), before, pid)
	}
	if info, files := b.Link(); info.Name != "tap0" || len(files) != linked().Link.Queues {
		t.Errorf("link %q with %d descriptors", info.Name, len(files))
	} else {
		defer closeAll(files)
	}
	// It hears of changes, and is obeyed.
	ns.run(t, "ip addr add 10.9.8.7/24 dev tap0")
	deadline := time.After(10 * time.Second)
	for !strings.Contains(join(b.Found()), "10.9.8.7/24") {
		select {
		case <-b.Changed():
		case <-deadline:
			t.Fatalf("found %+v", b.Found())
		}
	}
	select {
	case <-b.Done():
		t.Error("it ended early")
	default:
	}
	ns.end(t)
	select {
	case <-b.Done():
	case <-time.After(10 * time.Second):
		t.Error("the namespace's end was not seen")
	}
}

func join(f Found) string {
	var all []string
	for _, a := range f.Addresses {
		all = append(all, a.String())
	}
	return strings.Join(all, " ")
}

func TestPathOfAnAttachmentThatWasTakenOverIsWatched(t *testing.T) {
	needTAP(t)
	ns := makeNamespace(t, "", rootInside...)
	cfg := attachTo(ns)
	cfg.NetNS, cfg.PID = fmt.Sprintf("/proc/%d/ns/net", ns.pid), 0
	b := handOver(t, attached(t, cfg))
	ns.end(t)
	select {
	case <-b.Done():
	case <-time.After(10 * time.Second):
		t.Error("the namespace's end was not seen")
	}
}

func TestNonsenseIsNotTakenOver(t *testing.T) {
	for _, state := range []string{"", "{", "{}", `{"PID":1,"HasPIDFD":true}`} {
		if a, err := TakeOver([]byte(state), nil, nil); err == nil {
			t.Errorf("%q: %+v", state, a)
		}
	}
}

func TestDescriptorsOfWhatIsNotTakenOverAreClosed(t *testing.T) {
	for state, n := range map[string]int{"{": 1, `{"PID":1}`: 1, `{"PID":1,"HasPIDFD":true}`: 2} {
		var files []*os.File
		for range n {
			f, err := os.Open(os.DevNull)
			must(t, err)
			files = append(files, f)
		}
		if a, err := TakeOver([]byte(state), files, nil); err == nil {
			t.Errorf("%s with %d descriptors: %+v", state, n, a)
		}
		for i, f := range files {
			if err := f.Close(); !errors.Is(err, os.ErrClosed) {
				t.Errorf("%s: descriptor %d was left open", state, i)
			}
		}
	}
}
